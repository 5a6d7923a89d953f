// Who sends to which soundbox, where boxes stay with an external broker and several gateways may share it. A box has one pump: that of
// its owner, a function of its serial number and of who is alive (the highest hash wins), so that all gateways agree without asking and
// a change of the set moves only the boxes it must. Whoever gets a hello, an ack or a payment for another's box tells the owner.
//
//   payment   recorded here -> owner: `offer` -> it reads the store. No word to the owner possible: this pump sends it, the box knows its ids.
//   ack       final: on disk here, then told to the owner, whose flight is over. `expired` is the owner's to judge: it may become a summary.
//   change    a gateway came, left, or missed three heartbeats: each takes the boxes that are now its own and gives up those that are not;
//             after a loss (or a gap in what the broker or this mail delivers) it asks its boxes anew: acks may be gone that nobody recorded.
//   sweep     what was recorded and nobody sent (lost messages, a drained fallback) is found in the store every two seconds
//
// Two pumps on one box for a moment are harmless: the box speaks an id once, and a summary holds only what the box has refused. Without
// a bus (one gateway) everything is passed through, and only the start is special: boxes that stayed connected will not say hello.
import { createHash } from 'node:crypto'
import { type Ack, type Log, type Reported, SoundboxError } from '../../protocol/index.js'
import type { DeliveryChange } from '../store/contract.js'
import type { Waiting } from './backlog.js'
import { finalChange, type Pump } from './pump.js'
import { type Bus, type Mail, openPost, type Post } from './relay-mail.js'

export const HEARTBEAT_MS = 2000
/** Three missed heartbeats, and a moment for the fourth. */
export const DEAD_AFTER_MS = 7000
/** How long a newcomer listens for the others before it counts itself in. */
export const JOIN_MS = 500
/** Younger ones are on their way. */
export const SWEEP_AGE_MS = 3000
export const SWEEP_MAX = 1000
/** A last will that another gateway gets within this after a hello is that of the connection before. */
export const LATE_WILL_MS = 3000
/** Boxes that are taken over at once. */
const ADOPTIONS_AT_ONCE = 8

/** What the relay needs beside the pump. `bus` null: this is the only gateway. */
export type NodeDeps = {
  /** Differs from gateway to gateway and from start to start. */
  self: string
  bus: Bus | null
  /** Boxes that are there as far as is known. */
  onlineTids: () => readonly string[]
  isOnline: (tid: string) => boolean
  /** Another gateway saw a box come or go. */
  learn: (tid: string, online: boolean) => void
  /** What a box has told another gateway of its state: that one may not be the one that waits for it. */
  learnReported: (tid: string, reported: Reported) => void
  /** The box is there, though another gateway has written that it went. */
  confirm: (tid: string) => void
  /** True when an ack that another gateway received was for a command or prompt of this one. */
  takeAck: (tid: string, ack: Ack) => boolean
}
export type RelayDeps = NodeDeps & {
  pump: Pick<Pump, 'offer' | 'handleHello' | 'handleOffline' | 'handleAck' | 'adopt' | 'release' | 'refresh' | 'tids' | 'isOnline' | 'knows' | 'withdraw'>
  /** As the ledger's. */
  settle: (changes: readonly DeliveryChange[], isOurs?: boolean) => Promise<void>
  isBrokerReady: () => boolean
  summaryMs: number
  nowMs: () => number
  startTimer: (callback: () => void, ms: number) => { stop: () => void }
  log: Log
}
/** `offer` of another's box resolves when its owner will be told: the store has the message. */
export type Relay = Pick<Pump, 'offer' | 'handleHello' | 'handleOffline' | 'withdraw'> & {
  /** A final is durable when it resolves, here or, when it is to join a summary, in the box's own journal. */
  handleAck: (tid: string, ack: Ack) => Promise<void>
  handleReported: (tid: string, reported: Reported) => void
  /** Acks may have been lost: all gateways ask their boxes what became of what they have. */
  handleGap: () => void
  /** True while no other gateway is known. */
  isAlone: () => boolean
  /** True when another gateway heard its hello a moment ago: a last will that comes now is late. */
  hasJustCome: (tid: string) => boolean
  /** Listens, and learns who is there; before the broker is open. Rejects with STORE_FAILED. */
  join: () => Promise<void>
  /** Counts itself in and takes its boxes; when the broker is open. */
  start: () => void
  /** Says goodbye, so that the others need not wait for missed heartbeats. */
  close: () => Promise<void>
}

/** The owner of a box among these gateways. Pure. */
export function ownerOf (tid: string, nodes: Iterable<string>): string | undefined {
  let best: { node: string, weight: string } | undefined
  for (const node of nodes) {
    const weight = createHash('sha256').update(`${node}/${tid}`).digest('hex')
    if (best === undefined || weight > best.weight) best = { node, weight }
  }
  return best?.node
}

/** `justCome`: hellos of late, and whether this gateway heard them. `isGapOwed`: something could not be told, which the others must make up for. */
type State = RelayDeps & {
  peers: Map<string, number>, post: Post | null, isIn: boolean, tickedAt: number, justCome: Map<string, { at: number, here: boolean }>, isGapOwed: boolean
  moving: Promise<void> | null, moveAgain: boolean, askAll: boolean
}

/** Passes everything through until `join` and `start`. */
export function openRelay (deps: RelayDeps): Relay {
  const { bus, self, log, pump, nowMs } = deps
  const state: State = {
    ...deps, peers: new Map(), post: null, isIn: false, tickedAt: nowMs(), justCome: new Map(), isGapOwed: false, moving: null, moveAgain: false, askAll: false
  }
  if (bus !== null) state.post = openPost({ bus, self, log, onMail: (from, mail) => { handleMail(state, from, mail) }, onLost: () => { if (state.isIn) greet(state, true) } })
  let timer: { stop: () => void } | undefined
  return {
    offer: (tid, items) => offer(state, tid, items),
    handleHello (tid, bootId) {
      noteHello(state, tid, true)
      const mine = isMine(state, tid)
      if (mine) pump.handleHello(tid, bootId)
      void tell(state, { kind: 'hello', tid, bootId }).then(isTold => { if (!mine && !isTold) pump.handleHello(tid, bootId) })
    },
    handleOffline (tid) {
      pump.handleOffline(tid)
      void tell(state, { kind: 'gone', tid })
    },
    handleAck: (tid, ack) => handleAck(state, tid, ack),
    handleReported: (tid, reported) => { void tell(state, { kind: 'reported', tid, reported }) },
    withdraw (tid, id) {
      if (!isMine(state, tid)) void tell(state, { kind: 'withdraw', tid, id })
      return pump.withdraw(tid, id)
    },
    handleGap () {
      void tell(state, { kind: 'gap' })
      move(state, true)
    },
    isAlone: () => state.peers.size === 0,
    hasJustCome: tid => isFresh(state, tid) && state.justCome.get(tid)?.here === false,
    join: () => join(state),
    start () {
      state.isIn = true
      if (state.post !== null) timer = deps.startTimer(() => { tick(state) }, HEARTBEAT_MS)
      greet(state, false)
    },
    async close () {
      timer?.stop()
      const { isIn, post } = state
      // Whatever is told after the goodbye would count this gateway in again.
      Object.assign(state, { isIn: false, post: null })
      if (isIn) await post?.send({ kind: 'bye' }).catch(() => {})
      await state.moving
    }
  }
}

async function join ({ post, startTimer }: State): Promise<void> {
  if (post === null) return
  await post.listen()
  await post.send({ kind: 'who' })
  await new Promise<void>(resolve => {
    const once = startTimer(() => {
      once.stop()
      resolve()
    }, JOIN_MS)
  })
}

function isMine ({ self, peers, isIn }: State, tid: string): boolean {
  return peers.size === 0 || (isIn && ownerOf(tid, [self, ...peers.keys()]) === self)
}

function isFresh ({ justCome, nowMs }: State, tid: string): boolean {
  return nowMs() - (justCome.get(tid)?.at ?? Number.NEGATIVE_INFINITY) < LATE_WILL_MS
}

function noteHello (state: State, tid: string, here: boolean): void {
  state.justCome.delete(tid)
  state.justCome.set(tid, { at: state.nowMs(), here })
}

/** False when the others cannot be told now. They will be told of a gap instead, and ask their boxes. */
async function tell (state: State, mail: Mail): Promise<boolean> {
  if (state.post === null || state.peers.size === 0) return true
  try {
    await state.post.send(mail)
    return true
  } catch (err) {
    if (!state.isGapOwed) state.log.warn({ err }, 'other gateways cannot be told; they will ask their soundboxes')
    state.isGapOwed = true
    return false
  }
}

/** What another gateway made necessary; nobody waits for it. */
function attempt ({ log }: State, tid: string, work: Promise<void>): void {
  void work.catch((err: unknown) => { log.warn({ err, tid }, 'what another gateway told was not done yet') })
}

async function offer (state: State, tid: string, items: readonly Waiting[]): Promise<void> {
  const { pump, peers } = state
  if (peers.size === 0) return await pump.offer(tid, items)
  if (isMine(state, tid)) return await look(state, tid, items)
  if (!await tell(state, { kind: 'offer', tid })) {
    await standIn(state, tid)
    return await pump.offer(tid, items)
  }
  if (!state.isBrokerReady()) throw new SoundboxError('PUBLISH_FAILED', 'the broker cannot be reached')
}

/** Sends what is next, behind what other gateways have recorded before it. */
async function look ({ pump }: State, tid: string, items: readonly Waiting[] = []): Promise<void> {
  pump.refresh(tid)
  await pump.offer(tid, items)
}

/** Until the owner can be told again this gateway sends to its box too. */
async function standIn ({ pump, isOnline }: State, tid: string): Promise<void> {
  if (isOnline(tid) && !pump.isOnline(tid)) await pump.adopt(tid)
}

/** The others hear of it in their own time: who cannot be told now, asks the box later. */
async function handleAck (state: State, tid: string, ack: Ack): Promise<void> {
  const { pump, peers } = state
  if (peers.size === 0) return await pump.handleAck(tid, ack)
  const mine = isMine(state, tid)
  const isKnown = pump.knows(tid, ack.id)
  const isSettled = isEnd(ack) && !isExpired(ack)
  if (isKnown) await pump.handleAck(tid, ack)
  else if (isSettled) await state.settle([finalChange(tid, ack, state.nowMs())], false)
  if (mine && !isKnown) takeStrangeAck(state, tid, ack, isSettled)
  if (!mine || !isKnown) void tell(state, { kind: 'ack', tid, ack, isSettled })
}

/** Of something that the owner has not read from the store yet, or that is no announcement at all. */
function takeStrangeAck (state: State, tid: string, ack: Ack, isSettled: boolean): void {
  // When the payment is still open, the box is asked once more with it at hand: it may belong in a summary.
  if (isExpired(ack)) attempt(state, tid, look(state, tid))
  else if (isEnd(ack)) attempt(state, tid, state.pump.handleAck(tid, ack, isSettled))
}

/** An end of an announcement; commands end with `done`. */
function isEnd ({ result }: Ack): boolean {
  return result !== 'received' && result !== 'done'
}

/** It was too old for the box, now or when it first had it. */
function isExpired (ack: Ack): boolean {
  return isEnd(ack) && finalChange('', ack, 0).state === 'expired'
}

function handleMail (state: State, from: string, mail: Mail): void {
  const { peers, nowMs, log } = state
  if (mail.kind === 'who') {
    if (state.isIn) void state.post?.send({ kind: 'here' }).catch(() => {})
    return
  }
  if (mail.kind === 'bye') {
    if (!peers.delete(from)) return
    log.info({ peer: from, left: peers.size }, 'another gateway has stopped; its soundboxes are taken over')
    return move(state, true)
  }
  const isNew = !peers.has(from)
  peers.set(from, nowMs())
  if (isNew) log.info({ peer: from, peers: peers.size }, 'another gateway is here; soundboxes are shared with it')
  if (!state.isIn) return
  if (isNew) greet(state, false)
  if (mail.kind === 'here') return
  if (mail.kind === 'gap') move(state, true)
  else handleBoxMail(state, mail)
}

function handleBoxMail (state: State, mail: Extract<Mail, { tid: string }>): void {
  const { pump } = state
  const { tid } = mail
  switch (mail.kind) {
    case 'hello':
      noteHello(state, tid, false)
      state.learn(tid, true)
      if (isMine(state, tid)) pump.handleHello(tid, mail.bootId)
      return
    case 'gone':
      if (isFresh(state, tid)) {
        if (state.justCome.get(tid)?.here === true) state.confirm(tid)
        return
      }
      state.learn(tid, false)
      pump.handleOffline(tid)
      return
    case 'reported':
      state.learnReported(tid, mail.reported)
      return
    case 'offer':
      if (isMine(state, tid)) attempt(state, tid, look(state, tid))
      return
    case 'withdraw':
      pump.withdraw(tid, mail.id)
      return
    case 'ack':
      if (state.takeAck(tid, mail.ack)) return
      if (pump.knows(tid, mail.ack.id)) attempt(state, tid, pump.handleAck(tid, mail.ack, mail.isSettled))
      else if (isMine(state, tid)) takeStrangeAck(state, tid, mail.ack, mail.isSettled)
      return
    default: mail satisfies never
  }
}

/** Says that this gateway is there, and finds out which boxes are now its own. */
function greet (state: State, askAll: boolean): void {
  void state.post?.send({ kind: 'here' }).catch(() => {})
  move(state, askAll)
}

function tick (state: State): void {
  const { peers, nowMs, log, justCome } = state
  const now = nowMs()
  const wasAsleep = now - state.tickedAt > 2 * HEARTBEAT_MS
  state.tickedAt = now
  void beat(state)
  // The others may have taken this gateway for dead, and given it no news.
  if (wasAsleep) move(state, true)
  for (const [peer, heardAt] of peers) {
    if (wasAsleep) peers.set(peer, now)
    else if (now - heardAt > DEAD_AFTER_MS) {
      peers.delete(peer)
      log.warn({ peer, left: peers.size }, 'another gateway is not heard any more; its soundboxes are taken over')
      move(state, true)
    }
  }
  for (const [tid, { at }] of justCome) {
    if (now - at < LATE_WILL_MS) break
    justCome.delete(tid)
  }
  void sweep(state, now).catch((err: unknown) => { log.debug({ err }, 'what waits in the store was not looked for') })
}

async function beat (state: State): Promise<void> {
  const { post, pump } = state
  const isOwed = state.isGapOwed
  try {
    await post?.send({ kind: isOwed ? 'gap' : 'here' })
    if (!isOwed) return
    state.isGapOwed = false
    move(state, true)
  } catch {
    // Its acks may reach a gateway that cannot tell: a box that seems silent is asked again.
    for (const tid of pump.tids()) if (state.isOnline(tid) && !pump.isOnline(tid)) attempt(state, tid, pump.adopt(tid))
  }
}

async function sweep (state: State, now: number): Promise<void> {
  const { bus, pump, isOnline } = state
  const tids = await bus?.waitingTids({ issuedFrom: now - state.summaryMs, issuedBefore: now - SWEEP_AGE_MS, limit: SWEEP_MAX }) ?? []
  for (const tid of tids) {
    if (!isMine(state, tid)) continue
    // The store knows of hellos that came while this gateway did not listen yet.
    if (!isOnline(tid)) state.learn(tid, true)
    attempt(state, tid, pump.isOnline(tid) ? look(state, tid) : pump.adopt(tid))
  }
}

/** One move at a time; what changes meanwhile makes another. */
function move (state: State, askAll: boolean): void {
  state.askAll ||= askAll
  state.moveAgain = true
  if (!state.isIn || state.moving !== null) return
  state.moving = moveUntilDone(state).finally(() => {
    state.moving = null
    if (state.moveAgain) move(state, false)
  })
}

async function moveUntilDone (state: State): Promise<void> {
  while (state.moveAgain && state.isIn) {
    const { askAll } = state
    Object.assign(state, { moveAgain: false, askAll: false })
    await moveBoxes(state, askAll)
  }
}

async function moveBoxes (state: State, askAll: boolean): Promise<void> {
  const { pump } = state
  for (const tid of pump.tids()) if (!isMine(state, tid)) pump.release(tid)
  const due = state.onlineTids().filter(tid => isMine(state, tid) && (askAll || !pump.isOnline(tid)))
  const adoptNext = async (): Promise<void> => {
    for (let tid = due.pop(); tid !== undefined && state.isIn; tid = due.pop()) {
      if (isMine(state, tid)) await pump.adopt(tid).catch((err: unknown) => { state.log.warn({ err, tid }, 'soundbox not taken over yet') })
    }
  }
  await Promise.all(Array.from({ length: ADOPTIONS_AT_ONCE }, adoptNext))
}
