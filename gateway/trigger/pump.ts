// The pump of each soundbox: oldest first, one announcement in flight, the next after the box says `received`.
//
//   offer ---> waiting ---> in flight ---> with the box ---> final (spoken, duplicate, expired, muted, failed, summarised)
//                 ^             | no `received` in time: again, at most attemptsMax, then the connection is ended
//     hello: the store's open deliveries join what waits, and backlog.ts judges each by its age
//
// Why one in flight: two publishes to one client in the same turn lose the first on the embedded broker, and draining queues reorder
// messages on any. Memory holds at most WAITING_MAX announcements a box; the rest is read back from the store when its turn comes.
// One run at a time works on a box (pump-run.ts). What a box sends is never kept waiting for it: a broker that hands over messages one
// by one would not see the confirmation of the publish that the run waits for.
import { type Ack, SoundboxError } from '../../protocol/index.js'
import { type DeliveryChange, isFinal } from '../store/contract.js'
import { judgeWaiting, type Waiting } from './backlog.js'
import { type Box, enqueue, markBehind, newBox, type PumpDeps, putBack, runBox, settleLocally, type Shell, takeOut, trim } from './pump-run.js'

export type Pump = {
  /** Queues announcements of a box and sends the first if the box is free. Rejects with PUBLISH_FAILED when the broker cannot take it. */
  offer: (tid: string, items: readonly Waiting[]) => Promise<void>
  /** The box has subscribed and listens: send what is open. */
  handleHello: (tid: string, bootId: string) => void
  handleOffline: (tid: string) => void
  /** What the box tells of an announcement. A final is durable when it resolves; `isSettled`: it is already. */
  handleAck: (tid: string, ack: Ack, isSettled?: boolean) => Promise<void>
  /** The box listens since some time: it is asked what became of all that is open. Resolves when the first is sent, or none is open. */
  adopt: (tid: string) => Promise<void>
  /** Another gateway sends to this box from now on: what the store knows is its to send. */
  release: (tid: string) => void
  /** The store has got something for this box elsewhere: it is read before the next is sent. */
  refresh: (tid: string) => void
  /** Boxes in memory. */
  tids: () => readonly string[]
  isOnline: (tid: string) => boolean
  /** True while the end of this announcement is awaited here. */
  knows: (tid: string, id: string) => boolean
  /** Sends it never again, nor counts it in a summary; true when the box never got it. */
  withdraw: (tid: string, id: string) => boolean
  /** Sends again what missed its time, reads back what waits in the store. Called about every second. */
  tick: () => void
  depth: () => { waiting: number, inFlight: number }
  /** Resolves when no run is under way. */
  idle: () => Promise<void>
  /** Sends nothing more; resolves when the last run has ended. */
  close: () => Promise<void>
}

/** One pump for all boxes of this gateway. */
export function openPump (deps: PumpDeps): Pump {
  const boxes = new Map<string, Box>()
  const shell: Shell = { deps, startedAt: deps.nowMs(), active: new Set(), closed: false }
  const boxOf = (tid: string): Box => {
    const found = boxes.get(tid) ?? newBox(tid)
    boxes.set(tid, found)
    return found
  }
  const idle = async (): Promise<void> => {
    for (let runs = runsOf(boxes); runs.length > 0; runs = runsOf(boxes)) await Promise.all(runs)
  }
  return {
    offer: (tid, items) => offer(shell, boxOf(tid), items),
    handleHello (tid, bootId) {
      const box = boxOf(tid)
      // After a restart of the box what it held unspoken is sent again: its journal tells what it did.
      beginAnew(shell, box, box.bootId !== bootId)
      box.bootId = bootId
      startRun(shell, box)
    },
    async adopt (tid) {
      const box = boxOf(tid)
      beginAnew(shell, box, true)
      await runBox(shell, box)
    },
    release (tid) {
      const box = boxes.get(tid)
      if (box === undefined) return
      stopFlight(shell, box)
      // Whoever is still at work on it finds another `known`, and leaves it alone.
      Object.assign(box, { online: false, bootId: '', waiting: [], late: [], known: new Map(), behindSeq: null, ended: null })
    },
    refresh: tid => { markBehind(boxOf(tid), 0) },
    tids: () => [...boxes.keys()],
    isOnline: tid => boxes.get(tid)?.online === true,
    knows: (tid, id) => boxes.get(tid)?.known.has(id) === true,
    handleOffline (tid) {
      const box = boxes.get(tid)
      if (box === undefined) return
      stopFlight(shell, box)
      box.online = false
    },
    handleAck: (tid, ack, isSettled = false) => handleAck(shell, boxOf(tid), ack, isSettled),
    withdraw: (tid, id) => withdraw(boxes.get(tid), id),
    tick () { for (const box of [...boxes.values()]) if (!tickBox(shell, box)) boxes.delete(box.tid) },
    depth: () => ({ waiting: [...boxes.values()].reduce((sum, box) => sum + box.waiting.length, 0), inFlight: shell.active.size }),
    idle,
    async close () {
      shell.closed = true
      await idle()
    }
  }
}

function runsOf (boxes: Map<string, Box>): Promise<void>[] {
  return [...boxes.values()].flatMap(box => box.run === null ? [] : [box.run.catch(() => {})])
}

async function offer (shell: Shell, box: Box, items: readonly Waiting[]): Promise<void> {
  const { deps } = shell
  for (const item of items) enqueue(box, deps.isShared === true ? { ...item, doubtful: true } : item)
  try {
    if (box.online && box.inFlight === null) await runBox(shell, box)
    const isWaiting = items.some(item => box.waiting.some(other => other.announcementId === item.announcementId))
    if (isWaiting && !deps.broker().stats().ready) throw new SoundboxError('PUBLISH_FAILED', 'the broker cannot be reached')
  } finally {
    trim(box)
  }
}

function startRun (shell: Shell, box: Box): void {
  runBox(shell, box).catch((err: unknown) => { shell.deps.log.warn({ err, tid: box.tid }, 'announcement not sent yet') })
}

/** The box listens, and the store is read first. */
function beginAnew (shell: Shell, box: Box, isAskedAll: boolean): void {
  stopFlight(shell, box)
  if (isAskedAll) putBackAll(box)
  box.online = true
  markBehind(box, 0)
}

/** What was in flight waits again. */
function stopFlight (shell: Shell, box: Box): void {
  if (box.inFlight !== null && box.known.has(box.inFlight.item.announcementId)) box.waiting.unshift(box.inFlight.item)
  box.inFlight = null
  box.retry = null
  shell.active.delete(box)
}

function putBackAll (box: Box): void {
  const here = new Set([...box.waiting, ...box.late])
  for (const item of box.known.values()) if (!here.has(item)) putBack(box, item)
}

function withdraw (box: Box | undefined, id: string): boolean {
  const item = box?.known.get(id)
  box?.ended?.add(id)
  if (box === undefined || item === undefined) return false
  // Also one that was sent: a box that lost it must neither get it again nor hear it in a summary.
  takeOut(box, item)
  box.known.delete(id)
  return item.state === 'accepted' && box.inFlight?.item !== item && item.doubtful !== true
}

/** False when nothing is left to remember of this box. */
function tickBox (shell: Shell, box: Box): boolean {
  const { deps } = shell
  const now = deps.nowMs()
  if (box.inFlight !== null && now >= box.inFlight.deadlineMs) retry(shell, box)
  if (box.online && box.inFlight === null && (box.waiting.length > 0 || box.late.length > 0 || box.behindSeq !== null)) startRun(shell, box)
  forgetOld(box, now - deps.policy.summaryMs)
  if (!box.online) expireOld(shell, box, now)
  return box.online || box.run !== null || box.waiting.length > 0 || box.late.length > 0
}

/** A box that never tells how it ended must not fill the memory; the store expires these by age. Insertion order is age. */
function forgetOld (box: Box, before: number): void {
  for (const [id, item] of box.known) {
    if (item.issuedAt >= before) return
    if (item.state === 'delivered' && !box.waiting.includes(item) && box.inFlight?.item !== item) box.known.delete(id)
  }
}

/** What nobody will hear any more does not wait for a box that is away. */
function expireOld ({ deps }: Shell, box: Box, now: number): void {
  for (const queue of [box.late, box.waiting]) {
    for (let head = queue[0]; head !== undefined && judgeWaiting(head, now, deps.policy) === 'expire'; head = queue[0]) {
      queue.shift()
      box.known.delete(head.announcementId)
      settleLocally(deps, head, now)
    }
  }
}

/** No `received` in time, or, of one that was asked about, no final. */
function retry (shell: Shell, box: Box): void {
  const { deps } = shell
  const flight = box.inFlight
  if (flight === null) return
  if (flight.received) {
    // The box has it and will tell in its own time; others need not wait for that.
    box.inFlight = null
    shell.active.delete(box)
    return
  }
  stopFlight(shell, box)
  if (flight.attempt < deps.policy.attemptsMax) {
    box.retry = { id: flight.item.announcementId, attempt: flight.attempt }
    return
  }
  deps.log.warn({ tid: box.tid, announcementId: flight.item.announcementId, attempts: flight.attempt }, 'soundbox does not answer, connection ended')
  box.online = false
  deps.broker().disconnect(box.tid)
}

async function handleAck (shell: Shell, box: Box, ack: Ack, isSettled: boolean): Promise<void> {
  const { deps } = shell
  const now = deps.nowMs()
  const item = box.known.get(ack.id)
  const flight = box.inFlight?.item.announcementId === ack.id ? box.inFlight : null
  if (ack.result === 'received') {
    noteReceived(deps, box, item, now)
    if (flight === null) return
    if (flight.asked) Object.assign(flight, { received: true, deadlineMs: now + deps.policy.receivedTimeoutMs * deps.policy.attemptsMax })
    else release(shell, box)
    return
  }
  const change = finalChange(box.tid, ack, now)
  if (change.state === 'expired' && item?.kind === 'payment' && now - item.issuedAt <= deps.policy.summaryMs) {
    takeOut(box, item)
    box.late.push(Object.assign(item, { state: 'accepted' as const, doubtful: false }))
  } else {
    if (!isSettled) await deps.settle([change], item !== undefined)
    box.ended?.add(ack.id)
    if (item !== undefined && change.state === 'spoken') deps.meter.stage('spoken', now - item.issuedAt)
    deps.meter.finalState(change.state)
    if (item !== undefined) takeOut(box, item)
    box.known.delete(ack.id)
  }
  if (flight !== null && box.inFlight === flight) release(shell, box)
  else if (box.online && box.inFlight === null && box.late.length > 0) startRun(shell, box)
}

function noteReceived (deps: PumpDeps, box: Box, item: Waiting | undefined, now: number): void {
  if (item === undefined || item.state === 'delivered' || isFinal(item.state)) return
  item.state = 'delivered'
  deps.meter.stage('delivered', now - item.issuedAt)
  deps.note({ tid: box.tid, announcementId: item.announcementId, state: 'delivered', at: now })
}

function release (shell: Shell, box: Box): void {
  box.inFlight = null
  box.retry = null
  shell.active.delete(box)
  startRun(shell, box)
}

/** A duplicate tells how the first one ended; that is the truth of the delivery. */
export function finalChange (tid: string, ack: Ack, now: number): DeliveryChange {
  const result = ack.result === 'duplicate' && ack.was !== undefined && ack.was !== 'received' ? ack.was : ack.result
  const state = result === 'done' || result === 'received' ? 'duplicate' : result
  return {
    tid, announcementId: ack.id, state, at: now,
    ...(ack.queuedMs === undefined ? {} : { queuedMs: ack.queuedMs }), ...(ack.audioMs === undefined ? {} : { audioMs: ack.audioMs }),
    ...(ack.reason === undefined ? {} : { reason: ack.reason })
  }
}
