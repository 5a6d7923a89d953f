// What a fleet heard and said, counted from outside the boxes: a box that forgets what it said cannot hide a double here.
import { createHistogram } from 'node:perf_hooks'
import type { AckResult, Announcement } from '../protocol/index.js'

/** Milliseconds. */
export type Percentiles = { count: number, p50: number, p90: number, p99: number, p999: number, max: number }
export type FleetReport = {
  boxes: number
  up: number
  connects: number
  /** Announcements that verified, repeats included; `repeats` of them had come before. */
  received: number
  repeats: number
  /** First arrivals whose `seq` is below that of one that came before, on one box. */
  outOfOrder: number
  /** Sounds that began, and those of them whose id had sounded on that box before: must be 0. */
  spoken: number
  doubles: number
  /** Announcements with a wrong signature, and messages of a wrong shape. */
  droppedSignatures: number
  droppedMessages: number
  commands: number
  reboots: number
  /** Final acks by result, as the boxes decided them. */
  finals: Partial<Record<AckResult, number>>
  /** From issuedAt to arrival, and to the start of the sound; the clocks of gateway and fleet must agree. */
  deliverMs: Percentiles
  speakMs: Percentiles
}

export type Heard = { tid: string, id: string, kind: Announcement['kind'], amountMinor: number, atMs: number }

export type FleetMeter = {
  arrived: (tid: string, announcement: Announcement, nowMs: number) => void
  sounded: (tid: string, announcement: Announcement, nowMs: number) => void
  final: (result: AckResult) => void
  count: (what: 'connects' | 'droppedSignatures' | 'droppedMessages' | 'commands' | 'reboots') => void
  /** Every sound, oldest first, up to HEARD_MAX. */
  heard: () => readonly Heard[]
  report: (boxes: number, up: number) => FleetReport
}

/** Sounds that are remembered one by one; the counts go on beyond. */
export const HEARD_MAX = 500_000
/** Ids remembered for each box, to see repeats and doubles. */
const IDS_PER_BOX_MAX = 20_000

type BoxMemory = { arrived: Set<string>, sounded: Set<string>, lastSeq: number }

/** Counts for a whole fleet. */
export function openFleetMeter (): FleetMeter {
  const memory = new Map<string, BoxMemory>()
  const counts = { connects: 0, received: 0, repeats: 0, outOfOrder: 0, spoken: 0, doubles: 0, droppedSignatures: 0, droppedMessages: 0, commands: 0, reboots: 0 }
  const finals: Partial<Record<AckResult, number>> = {}
  const heard: Heard[] = []
  const deliver = createHistogram()
  const speak = createHistogram()
  const memoryOf = (tid: string): BoxMemory => {
    const known = memory.get(tid) ?? { arrived: new Set<string>(), sounded: new Set<string>(), lastSeq: -1 }
    memory.set(tid, known)
    return known
  }
  return {
    arrived: (tid, { id, seq, issuedAt }, nowMs) => {
      const box = memoryOf(tid)
      counts.received += 1
      if (!remember(box.arrived, id)) {
        counts.repeats += 1
        return
      }
      if (seq < box.lastSeq) counts.outOfOrder += 1
      box.lastSeq = Math.max(box.lastSeq, seq)
      deliver.record(microseconds(nowMs - issuedAt))
    },
    sounded: (tid, { id, kind, amountMinor, issuedAt }, nowMs) => {
      counts.spoken += 1
      if (!remember(memoryOf(tid).sounded, id)) counts.doubles += 1
      if (heard.length < HEARD_MAX) heard.push({ tid, id, kind, amountMinor, atMs: nowMs })
      speak.record(microseconds(nowMs - issuedAt))
    },
    final: result => { finals[result] = (finals[result] ?? 0) + 1 },
    count: what => { counts[what] += 1 },
    heard: () => heard,
    report: (boxes, up) => ({ boxes, up, ...counts, finals: { ...finals }, deliverMs: percentilesOf(deliver), speakMs: percentilesOf(speak) })
  }
}

/** False when it was known. The oldest is forgotten first. */
function remember (ids: Set<string>, id: string): boolean {
  if (ids.has(id)) return false
  ids.add(id)
  if (ids.size > IDS_PER_BOX_MAX) for (const oldest of ids) { ids.delete(oldest); break }
  return true
}

function microseconds (ms: number): number {
  return Math.max(1, Math.round(ms * 1000))
}

function percentilesOf (histogram: ReturnType<typeof createHistogram>): Percentiles {
  if (histogram.count === 0) return { count: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0 }
  const ms = (microsecond: number): number => Math.round(microsecond / 100) / 10
  const [p50, p90, p99, p999] = [50, 90, 99, 99.9].map(percent => ms(histogram.percentile(percent)))
  return { count: histogram.count, p50: p50!, p90: p90!, p99: p99!, p999: p999!, max: ms(histogram.max) }
}

/** The report for people. */
export function formatReport (r: FleetReport): string {
  const times = ({ count, p50, p90, p99, p999, max }: Percentiles): string => count === 0 ? 'none' : `p50 ${p50}  p90 ${p90}  p99 ${p99}  p99.9 ${p999}  max ${max} ms`
  const finals = Object.entries(r.finals).map(([result, count]) => `${result} ${count}`).join(', ')
  return [
    `soundboxes    ${r.boxes}, connected ${r.up}, connections made ${r.connects}, reboots ${r.reboots}`,
    `received      ${r.received}, repeats ${r.repeats}, out of order ${r.outOfOrder}, wrong signature ${r.droppedSignatures}, wrong shape ${r.droppedMessages}`,
    `spoken        ${r.spoken}, doubles ${r.doubles}${r.doubles > 0 ? '  <-- must be 0' : ''}`,
    `final acks    ${finals === '' ? 'none' : finals}; commands ${r.commands}`,
    `to arrival    ${times(r.deliverMs)}`,
    `to sound      ${times(r.speakMs)}`
  ].join('\n')
}
