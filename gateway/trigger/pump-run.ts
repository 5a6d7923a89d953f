// The work on one box of the pump: reads back what the store holds, summarises what was missed, sends what is next. One run at a time;
// whoever asks for a run while one is under way makes it look once more.
import { formatTopic, type Log, sealAnnouncement, SoundboxError } from '../../protocol/index.js'
import type { Broker } from '../broker/contract.js'
import { type DeliveryChange, isFinal, type Store } from '../store/contract.js'
import type { Device, Directory } from '../store/directory.js'
import { type AgePolicy, judgeWaiting, nextStep, summariesOf, type Waiting, waitingOf } from './backlog.js'
import type { Meter } from './meter.js'

export const WAITING_MAX = 256
/** What the store is asked for at once when a box comes back or memory has room again. */
export const BACKLOG_PAGE = 1000
/** Pause before the store is asked again that could not answer, had nothing new, or could not take a summary. */
export const STORE_PAUSE_MS = 2000

export type PumpPolicy = AgePolicy & { receivedTimeoutMs: number, attemptsMax: number }
export type PumpDeps = {
  directory: Pick<Directory, 'device'>
  /** `recordSummary` false: nothing was recorded, because a member has ended at another gateway. */
  store: Pick<Store, 'openDeliveries'> & { recordSummary: (...args: Parameters<Store['recordSummary']>) => Promise<unknown> }
  /** Other gateways may send to the same boxes: only what a box itself has refused as too old goes into a summary. */
  isShared?: boolean
  /** True while records wait in the fallback: what the store says of a delivery may be behind. */
  isStoreBehind: () => boolean
  broker: () => Pick<Broker, 'publish' | 'disconnect' | 'stats'>
  /** What is now known of deliveries: lazily written (`note`), or on disk when it resolves (`settle`). */
  note: (change: DeliveryChange) => void
  settle: (changes: readonly DeliveryChange[], isOurs?: boolean) => Promise<void>
  nowMs: () => number
  nextSeq: () => number
  policy: PumpPolicy
  meter: Meter
  log: Log
}

/** `asked`: too old to be spoken, sent to learn how it ended; in flight until its final. `received`: the box has it. */
export type Flight = { item: Waiting, attempt: number, deadlineMs: number, asked: boolean, received: boolean }
/**
 * `waiting`: in the order of sending. `late`: asked about, never spoken, for the next summary. `known`: all that is not final.
 * `behindSeq`: from this seq on the store may hold what memory does not; null when memory has all. `ended`: finals that came while the
 * store is being read, whose answer may still call them open.
 */
export type Box = {
  tid: string, online: boolean, bootId: string, inFlight: Flight | null, retry: { id: string, attempt: number } | null
  waiting: Waiting[], late: Waiting[], known: Map<string, Waiting>
  behindSeq: number | null, refillAt: number, summariseAt: number, ended: Set<string> | null
  run: Promise<void> | null, again: boolean
}
export type Shell = { deps: PumpDeps, startedAt: number, active: Set<Box>, closed: boolean }

/** A box of which nothing is known. */
export function newBox (tid: string): Box {
  return {
    tid, online: false, bootId: '', inFlight: null, retry: null, waiting: [], late: [], known: new Map(), behindSeq: null, refillAt: 0, summariseAt: 0, ended: null,
    run: null, again: false
  }
}

/** Sends what is next, if the box is free. Rejects with PUBLISH_FAILED when the broker is away; the next tick tries again. */
export function runBox (shell: Shell, box: Box): Promise<void> {
  box.again = true
  box.run ??= work(shell, box).finally(() => { box.run = null })
  return box.run
}

async function work (shell: Shell, box: Box): Promise<void> {
  while (box.again) {
    box.again = false
    await sendNext(shell, box)
  }
}

async function sendNext (shell: Shell, box: Box): Promise<void> {
  const { deps } = shell
  for (;;) {
    const device = deps.directory.device(box.tid)
    if (device === undefined || !box.online || box.inFlight !== null || shell.closed) return
    const now = deps.nowMs()
    if (isBehind(box, now)) {
      await refill(shell, box, now)
      continue
    }
    // A payment that only the fallback has would come out of it as one that nobody summarised.
    const maySummarise = now >= box.summariseAt && !deps.isStoreBehind()
    const step = nextStep(box, now, deps.policy, maySummarise)
    switch (step.kind) {
      case 'none': return
      case 'expire':
        takeOut(box, step.item)
        box.known.delete(step.item.announcementId)
        settleLocally(deps, step.item, now)
        break
      case 'summarise':
        await summarise(deps, box, device, now)
        break
      case 'send':
        if (!await send(shell, box, device, step)) return
        break
      default: step satisfies never
    }
  }
}

/** Adds an announcement where its turn is. False when it is known already, or final. */
export function enqueue (box: Box, item: Waiting): boolean {
  if (box.known.has(item.announcementId) || isFinal(item.state)) return false
  box.known.set(item.announcementId, item)
  putBack(box, item)
  return true
}

/** Lets a known announcement wait again, in its turn. */
export function putBack (box: Box, item: Waiting): void {
  const last = box.waiting.at(-1)
  if (last === undefined || last.seq <= item.seq) box.waiting.push(item)
  else box.waiting.splice(box.waiting.findIndex(other => other.seq > item.seq), 0, item)
}

/** Takes an announcement off the queues. */
export function takeOut (box: Box, item: Waiting): void {
  for (const queue of [box.waiting, box.late]) {
    const at = queue.indexOf(item)
    if (at >= 0) queue.splice(at, 1)
  }
}

/** Memory keeps the oldest WAITING_MAX; what is younger waits in the store alone. */
export function trim (box: Box): void {
  if (box.waiting.length <= WAITING_MAX) return
  for (const { announcementId, seq } of box.waiting.splice(WAITING_MAX)) {
    box.known.delete(announcementId)
    markBehind(box, seq)
  }
}

/** A final verdict of ours, not of the box. */
export function settleLocally (deps: PumpDeps, item: Waiting, at: number): void {
  deps.meter.finalState('expired')
  deps.note({ tid: item.tid, announcementId: item.announcementId, state: 'expired', at })
}

/** From this seq on the store is to be read before anything is sent. */
export function markBehind (box: Box, seq: number): void {
  box.behindSeq = Math.min(box.behindSeq ?? seq, seq)
  box.refillAt = 0
}

/** Is the next in turn one that only the store has? */
function isBehind (box: Box, now: number): boolean {
  const head = box.waiting[0]
  return box.behindSeq !== null && now >= box.refillAt && (head === undefined || head.seq >= box.behindSeq)
}

/** What is marked meanwhile stays marked. */
async function refill ({ deps, startedAt }: Shell, box: Box, now: number): Promise<void> {
  const wasBehind = deps.isStoreBehind()
  const from = box.behindSeq ?? 0
  const { known } = box
  const ended = new Set<string>()
  Object.assign(box, { behindSeq: null, refillAt: now + STORE_PAUSE_MS, ended })
  const staysBehind = (seq: number): void => { box.behindSeq = Math.min(box.behindSeq ?? seq, seq) }
  try {
    const rows = await deps.store.openDeliveries(box.tid, BACKLOG_PAGE)
    if (box.known !== known) return // Given up meanwhile.
    const isStoreBehind = wasBehind || deps.isStoreBehind()
    const isDoubtful = (issuedAt: number): boolean => deps.isShared === true || isStoreBehind || issuedAt < startedAt
    const added = rows.filter(row => !ended.has(row.announcementId) && enqueue(box, { ...waitingOf(row), doubtful: isDoubtful(row.issuedAt) }))
    const last = rows.at(-1)
    if (rows.length >= BACKLOG_PAGE && last !== undefined) staysBehind(last.seq + 1)
    else if (isStoreBehind) staysBehind(from)
    if (added.length > 0) box.refillAt = 0
    trim(box)
  } catch (err) {
    if (box.known === known) staysBehind(from)
    deps.log.warn({ err, tid: box.tid }, 'open deliveries not read, trying again')
  } finally {
    if (box.ended === ended) box.ended = null
  }
}

async function summarise (deps: PumpDeps, box: Box, device: Device, now: number): Promise<void> {
  const members = [...box.late, ...box.waiting.filter(item => judgeWaiting(item, now, deps.policy) === 'summarise')]
  const context = { tid: box.tid, language: device.language, nowMs: now, nextSeq: deps.nextSeq, policy: deps.policy }
  const { known } = box
  try {
    for (const [index, { summary, members: ids }] of summariesOf(members, context).entries()) {
      const isRecorded = await deps.store.recordSummary(summary, ids, now)
      if (box.known !== known) return
      const gone = new Set(ids)
      box.late = box.late.filter(item => !gone.has(item.announcementId))
      box.waiting = box.waiting.filter(item => !gone.has(item.announcementId))
      for (const id of ids) box.known.delete(id)
      if (isRecorded === false) {
        markBehind(box, 0)
        continue
      }
      const item: Waiting = { ...summary, state: 'accepted' }
      box.known.set(item.announcementId, item)
      box.waiting.splice(index, 0, item)
    }
  } catch (err) {
    box.summariseAt = now + STORE_PAUSE_MS
    deps.log.warn({ err, tid: box.tid }, 'what the soundbox missed could not be summarised yet')
  }
}

/** False when the box has gone away in between: its next hello sends what waits. Rejects only when the broker itself is away. */
async function send ({ deps, active }: Shell, box: Box, device: Device, { item, asked }: { item: Waiting, asked: boolean }): Promise<boolean> {
  const attempt = box.retry?.id === item.announcementId ? box.retry.attempt + 1 : 1
  const flight: Flight = { item, attempt, deadlineMs: deps.nowMs() + deps.policy.receivedTimeoutMs, asked, received: false }
  const isFirst = item.state === 'accepted'
  takeOut(box, item)
  box.inFlight = flight
  active.add(box)
  try {
    await deps.broker().publish(formatTopic(box.tid, 'announce'), sealAnnouncement(announcementOf(item), box.tid, device.signingKey))
  } catch (cause) {
    if (box.inFlight === flight) {
      box.inFlight = null
      active.delete(box)
      if (box.known.has(item.announcementId)) box.waiting.unshift(item)
    }
    if (deps.broker().stats().ready) return false
    throw new SoundboxError('PUBLISH_FAILED', `announcement for ${box.tid} could not be handed to the broker`, { cause })
  }
  const now = deps.nowMs()
  if (!flight.received) flight.deadlineMs = now + deps.policy.receivedTimeoutMs
  if (!isFirst) return true
  // The box may have answered before the broker did.
  if (item.state === 'accepted') item.state = 'published'
  deps.meter.stage('published', now - item.issuedAt)
  deps.note({ tid: box.tid, announcementId: item.announcementId, state: 'published', at: now })
  return true
}

function announcementOf (item: Waiting): Parameters<typeof sealAnnouncement>[0] {
  return {
    v: 1, id: item.announcementId, seq: item.seq, kind: item.kind, amountMinor: item.amountMinor, currency: item.currency, language: item.language,
    issuedAt: item.issuedAt, expiresAt: item.expiresAt, ...(item.txnType === null ? {} : { txnType: item.txnType }), ...(item.count === null ? {} : { count: item.count })
  }
}
