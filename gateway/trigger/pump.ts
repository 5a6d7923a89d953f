// The pump of each soundbox: oldest first, one announcement in flight, the next after the box says `received`.
//
//   offer ---> waiting ---> in flight ---> with the box ---> final (spoken, duplicate, expired, muted, failed, summarised)
//                 ^             | no `received` in time: again, at most attemptsMax, then the connection is ended
//     hello: the store's open deliveries join what waits, and backlog.ts judges each by its age
//
// Why one in flight: two publishes to one client in the same turn lose the first on the embedded broker, and draining queues reorder
// messages on any. Memory holds at most WAITING_MAX announcements a box; the rest is read back from the store when there is room.
import { type Ack, formatTopic, type Log, sealAnnouncement, SoundboxError } from '../../protocol/index.js'
import type { Broker } from '../broker/contract.js'
import { type Delivery, type DeliveryChange, type DeliveryState, isFinal, type Store } from '../store/contract.js'
import type { Directory } from '../store/directory.js'
import { type AgePolicy, judgeWaiting, summariesOf, type Waiting, waitingOf } from './backlog.js'
import type { Meter } from './meter.js'

export const WAITING_MAX = 256
/** What the store is asked for at once when a box comes back or memory has room again. */
export const BACKLOG_PAGE = 1000
export type PumpPolicy = AgePolicy & { receivedTimeoutMs: number, attemptsMax: number }

export type PumpDeps = {
  directory: Pick<Directory, 'device'>
  store: Pick<Store, 'openDeliveries' | 'recordSummary'>
  broker: () => Pick<Broker, 'publish' | 'disconnect' | 'stats'>
  /** What is now known of deliveries: lazily written (`note`), or on disk when it resolves (`settle`). */
  note: (change: DeliveryChange) => void
  settle: (changes: readonly DeliveryChange[]) => Promise<void>
  nowMs: () => number
  nextSeq: () => number
  policy: PumpPolicy
  meter: Meter
  log: Log
}

export type Pump = {
  /** Queues announcements of a box and sends the first if the box is free. Rejects with PUBLISH_FAILED when the broker cannot take it. */
  offer: (tid: string, items: readonly Waiting[]) => Promise<void>
  /** The box has subscribed and listens: send what is open. */
  handleHello: (tid: string, bootId: string) => Promise<void>
  handleOffline: (tid: string) => void
  /** True when the id was one of this box's. Finals are durable when it resolves. */
  handleAck: (tid: string, ack: Ack) => Promise<void>
  /** Takes back what has not been sent; true when the box never got it. */
  withdraw: (tid: string, id: string) => boolean
  /** Sends again what missed its time, reads back what waits in the store. Called about every second. */
  tick: () => Promise<void>
  depth: () => { waiting: number, inFlight: number }
}

type InFlight = { item: Waiting, attempt: number, deadlineMs: number, asked: boolean }
type Box = { tid: string, online: boolean, bootId: string, inFlight: InFlight | null, waiting: Waiting[], known: Map<string, Waiting>, more: boolean, busy: boolean, late: Waiting[] }

/** One pump for all boxes of this gateway. */
export function openPump (deps: PumpDeps): Pump {
  const boxes = new Map<string, Box>()
  const active = new Set<Box>()
  const boxOf = (tid: string): Box => {
    const found = boxes.get(tid)
    if (found !== undefined) return found
    const box: Box = { tid, online: false, bootId: '', inFlight: null, waiting: [], known: new Map(), more: false, busy: false, late: [] }
    boxes.set(tid, box)
    return box
  }
  const shell = { deps, active }
  return {
    async offer (tid, items) {
      const box = boxOf(tid)
      for (const item of items) enqueue(box, item)
      if (!box.online) {
        trim(box)
        if (!deps.broker().stats().ready) throw new SoundboxError('PUBLISH_FAILED', 'the broker cannot be reached')
        return
      }
      await pumpNext(shell, box)
      trim(box)
      if (box.waiting.length > 0 && !deps.broker().stats().ready) throw new SoundboxError('PUBLISH_FAILED', 'the broker cannot be reached')
    },
    async handleHello (tid, bootId) {
      const box = boxOf(tid)
      const isSameBoot = box.bootId === bootId
      if (box.inFlight !== null) box.waiting.unshift(box.inFlight.item)
      Object.assign(box, { online: true, bootId, inFlight: null, busy: false })
      active.delete(box)
      await refill(shell, box, isSameBoot)
      await pumpNext(shell, box).catch((err: unknown) => { deps.log.warn({ err, tid }, 'backlog not sent yet') })
    },
    handleOffline (tid) {
      const box = boxes.get(tid)
      if (box === undefined) return
      if (box.inFlight !== null) box.waiting.unshift(box.inFlight.item)
      active.delete(box)
      Object.assign(box, { online: false, inFlight: null })
    },
    handleAck: (tid, ack) => handleAck(shell, boxOf(tid), ack),
    withdraw (tid, id) {
      const box = boxes.get(tid)
      const at = box?.waiting.findIndex(item => item.announcementId === id && item.state === 'accepted') ?? -1
      if (box === undefined || at < 0) return false
      box.waiting.splice(at, 1)
      box.known.delete(id)
      return true
    },
    tick: () => tickAll(shell, boxes),
    depth: () => ({ waiting: [...boxes.values()].reduce((sum, box) => sum + box.waiting.length, 0), inFlight: active.size })
  }
}

type Shell = { deps: PumpDeps, active: Set<Box> }

async function tickAll (shell: Shell, boxes: Map<string, Box>): Promise<void> {
  const { deps, active } = shell
  const now = deps.nowMs()
  for (const box of [...active]) {
    if (box.inFlight !== null && now >= box.inFlight.deadlineMs) await retry(shell, box, now)
  }
  for (const box of boxes.values()) {
    const isDue = box.waiting.length > 0 || box.more || box.late.length > 0
    if (box.online && box.inFlight === null && !box.busy && isDue) {
      await pumpNext(shell, box).catch((err: unknown) => { deps.log.warn({ err, tid: box.tid }, 'announcement not sent yet') })
    }
    forgetOld(box, now - deps.policy.summaryMs)
    if (!box.online && box.waiting.length === 0 && box.late.length === 0) boxes.delete(box.tid)
  }
}

function enqueue (box: Box, item: Waiting): void {
  if (box.known.has(item.announcementId) || isFinal(item.state)) return
  box.known.set(item.announcementId, item)
  const last = box.waiting.at(-1)
  if (last === undefined || last.seq <= item.seq) box.waiting.push(item)
  else box.waiting.splice(box.waiting.findIndex(other => other.seq > item.seq), 0, item)
}

/** A box that never tells how it ended must not fill the memory; the store expires these by age. Insertion order is age. */
function forgetOld (box: Box, before: number): void {
  for (const [id, item] of box.known) {
    if (item.issuedAt >= before) return
    if (item.state === 'delivered') box.known.delete(id)
  }
}

/** Memory keeps the oldest WAITING_MAX; what is younger waits in the store alone. */
function trim (box: Box): void {
  if (box.waiting.length <= WAITING_MAX) return
  for (const item of box.waiting.splice(WAITING_MAX)) box.known.delete(item.announcementId)
  box.more = true
}

async function refill ({ deps }: Shell, box: Box, isSameBoot: boolean): Promise<void> {
  box.busy = true
  try {
    const rows = await deps.store.openDeliveries(box.tid, BACKLOG_PAGE)
    for (const row of rows) {
      if (isSameBoot && row.state === 'delivered') continue
      if (!isSameBoot) forgetWithBox(box, row)
      enqueue(box, waitingOf(row))
    }
    box.more = rows.length >= BACKLOG_PAGE
  } catch (err) {
    box.more = true
    deps.log.warn({ err, tid: box.tid }, 'open deliveries not read, trying again')
  } finally {
    box.busy = false
  }
}

/** After a restart of the box what it held unspoken is sent again: its journal tells what it did. */
function forgetWithBox (box: Box, row: Delivery): void {
  const known = box.known.get(row.announcementId)
  if (known !== undefined && !box.waiting.includes(known) && !box.late.includes(known)) box.known.delete(row.announcementId)
}

/** Sends the next announcement that is worth sending, if the box is free. */
async function pumpNext (shell: Shell, box: Box): Promise<void> {
  const { deps } = shell
  while (box.online && box.inFlight === null && !box.busy) {
    if (box.waiting.length === 0 && box.more) await refill(shell, box, true)
    const now = deps.nowMs()
    const head = box.waiting[0]
    const verdict = head === undefined ? 'none' : judgeWaiting(head, now, deps.policy)
    if (verdict !== 'ask' && (verdict === 'summarise' || box.late.length > 0)) {
      await summarise(shell, box, now)
      continue
    }
    if (head === undefined || verdict === 'none') return
    box.waiting.shift()
    if (verdict === 'expire') {
      box.known.delete(head.announcementId)
      settleLocally(deps, head, 'expired', now)
      continue
    }
    if (!await send(shell, box, { item: head, attempt: 1, deadlineMs: now + deps.policy.receivedTimeoutMs, asked: verdict === 'ask' })) return
  }
}

/** False when the box has gone away in between: its next hello sends what waits. Rejects only when the broker itself is away. */
async function send ({ deps, active }: Shell, box: Box, flight: InFlight): Promise<boolean> {
  const { item } = flight
  const device = deps.directory.device(box.tid)
  if (device === undefined) return false
  box.inFlight = flight
  active.add(box)
  try {
    await deps.broker().publish(formatTopic(box.tid, 'announce'), sealAnnouncement(announcementOf(item), box.tid, device.signingKey))
  } catch (cause) {
    if (box.inFlight === flight) {
      box.inFlight = null
      active.delete(box)
      box.waiting.unshift(item)
    }
    if (deps.broker().stats().ready) return false
    throw new SoundboxError('PUBLISH_FAILED', `announcement for ${box.tid} could not be handed to the broker`, { cause })
  }
  const now = deps.nowMs()
  if (item.state === 'accepted') {
    item.state = 'published'
    deps.meter.stage('published', now - item.issuedAt)
    deps.note({ tid: box.tid, announcementId: item.announcementId, state: 'published', at: now })
  }
  return true
}

function announcementOf (item: Waiting): Parameters<typeof sealAnnouncement>[0] {
  return {
    v: 1, id: item.announcementId, seq: item.seq, kind: item.kind, amountMinor: item.amountMinor, currency: item.currency, language: item.language,
    issuedAt: item.issuedAt, expiresAt: item.expiresAt, ...(item.txnType === null ? {} : { txnType: item.txnType }), ...(item.count === null ? {} : { count: item.count })
  }
}

async function summarise ({ deps }: Shell, box: Box, now: number): Promise<void> {
  const device = deps.directory.device(box.tid)
  const isStale = (item: Waiting): boolean => judgeWaiting(item, now, deps.policy) === 'summarise'
  const members = [...box.late, ...box.waiting.filter(isStale)]
  box.busy = true
  try {
    for (const { summary, members: ids } of summariesOf(members, { tid: box.tid, language: device?.language ?? 'ENGLISH', nowMs: now, nextSeq: deps.nextSeq, policy: deps.policy })) {
      await deps.store.recordSummary(summary, ids, now)
      const gone = new Set(ids)
      box.late = box.late.filter(item => !gone.has(item.announcementId))
      box.waiting = box.waiting.filter(item => !gone.has(item.announcementId))
      for (const id of ids) box.known.delete(id)
      const item: Waiting = { ...summary, state: 'accepted' }
      box.known.set(item.announcementId, item)
      box.waiting.unshift(item)
    }
  } catch (cause) {
    throw new SoundboxError('PUBLISH_FAILED', `the summary for ${box.tid} could not be recorded yet`, { cause })
  } finally {
    box.busy = false
  }
}

/** A final verdict of ours, not of the box. */
function settleLocally (deps: PumpDeps, item: Waiting, state: DeliveryState, at: number): void {
  deps.meter.finalState(state)
  deps.note({ tid: item.tid, announcementId: item.announcementId, state, at })
}

async function handleAck (shell: Shell, box: Box, ack: Ack): Promise<void> {
  const { deps } = shell
  const now = deps.nowMs()
  const item = box.known.get(ack.id)
  const isInFlight = box.inFlight?.item.announcementId === ack.id
  const asked = isInFlight && box.inFlight?.asked === true
  if (ack.result === 'received') {
    if (item !== undefined && item.state !== 'delivered') {
      item.state = 'delivered'
      deps.meter.stage('delivered', now - item.issuedAt)
      deps.note({ tid: box.tid, announcementId: ack.id, state: 'delivered', at: now })
    }
    if (isInFlight && !asked) await release(shell, box)
    return
  }
  const isMissed = ack.result === 'expired' && item?.kind === 'payment' && now - item.issuedAt <= deps.policy.summaryMs
  if (isMissed && item !== undefined) {
    if (!box.late.includes(item)) box.late.push(Object.assign(item, { state: 'accepted' as const }))
  } else {
    const change = finalChange(box.tid, ack, now)
    if (item !== undefined && change.state === 'spoken') deps.meter.stage('spoken', now - item.issuedAt)
    deps.meter.finalState(change.state)
    await deps.settle([change])
    box.known.delete(ack.id)
  }
  if (isInFlight) await release(shell, box)
  else if (box.online && box.inFlight === null && box.late.length > 0) await release(shell, box)
}

async function release (shell: Shell, box: Box): Promise<void> {
  box.inFlight = null
  shell.active.delete(box)
  await pumpNext(shell, box).catch((err: unknown) => { shell.deps.log.warn({ err, tid: box.tid }, 'next announcement not sent yet') })
}

/** A duplicate tells how the first one ended; that is the truth of the delivery. */
function finalChange (tid: string, ack: Ack, now: number): DeliveryChange {
  const result = ack.result === 'duplicate' && ack.was !== undefined && ack.was !== 'received' ? ack.was : ack.result
  const state = result === 'done' || result === 'received' ? 'duplicate' : result
  return {
    tid, announcementId: ack.id, state, at: now,
    ...(ack.queuedMs === undefined ? {} : { queuedMs: ack.queuedMs }), ...(ack.audioMs === undefined ? {} : { audioMs: ack.audioMs }),
    ...(ack.reason === undefined ? {} : { reason: ack.reason })
  }
}

async function retry (shell: Shell, box: Box, now: number): Promise<void> {
  const { deps } = shell
  const flight = box.inFlight
  if (flight === null) return
  if (flight.attempt >= deps.policy.attemptsMax) {
    deps.log.warn({ tid: box.tid, announcementId: flight.item.announcementId, attempts: flight.attempt }, 'soundbox does not answer, connection ended')
    box.waiting.unshift(flight.item)
    Object.assign(box, { inFlight: null, online: false })
    shell.active.delete(box)
    deps.broker().disconnect(box.tid)
    return
  }
  const again = { ...flight, attempt: flight.attempt + 1, deadlineMs: now + deps.policy.receivedTimeoutMs }
  await send(shell, box, again).catch((err: unknown) => { deps.log.warn({ err, tid: box.tid }, 'announcement not sent again') })
}
