// The simulated switch: several lines, a pace, a time, and a checked report.
import type { Timers } from '../../protocol/index.js'
import { type Exchange, openPlan, type PlanOptions, type Step } from './plan.js'
import { type IsoReport, openTally } from './report.js'
import { type Line, type LineTarget, openLine } from './switch-line.js'

/** Steps under way on one line; beyond, the pace is given up rather than the memory. */
export const STEPS_PER_LINE_MAX = 64
export const FAULTS_PER_LINE_MAX = 4
const BEAT_MS = 10

export type IsoSimOptions = LineTarget & Omit<PlanOptions, 'random'> & {
  /** Exchanges a second, over all lines. */
  rate: number
  connections: number
  seconds: number
  seed: number
  makeRandom: (seed: number) => () => number
  answerMs: number
  slowMs: number
  onParseError: 'close' | 'reject'
  timers: Timers
  stopped?: Promise<void>
}

/** Runs for `seconds`, or until `stopped`, waits for the last answers and reports. Never rejects for what the other side does. */
export async function runIsoSim (options: IsoSimOptions): Promise<IsoReport> {
  const { timers, rate, connections, seed } = options
  const tally = openTally()
  const plan = openPlan({ ...options, random: options.makeRandom(seed) })
  const openPlaces = (): Place[] => Array.from({ length: connections }, () => ({ line: openLine({ ...options, tally }), busy: 0, last: Promise.resolve() }))
  const steady = openPlaces()
  const faulty = options.faults ? openPlaces() : []
  const startedMs = timers.nowMs()
  const running = new Set<Promise<void>>()
  let isStopped = false
  void options.stopped?.then(() => { isStopped = true })
  for (let budget = 0, lastMs = startedMs; !isStopped && lastMs - startedMs < options.seconds * 1000;) {
    await new Promise<void>(resolve => { timers.after(BEAT_MS, resolve) })
    const nowMs = timers.nowMs()
    budget = Math.min(rate, budget + rate * (nowMs - lastMs) / 1000)
    lastMs = nowMs
    while (budget >= 1) {
      const step = plan.next()
      budget -= Math.max(1, step.length)
      const done = start(step, step.some(isDisturbing) ? faulty : steady)
      if (done === undefined) continue
      running.add(done)
      void done.then(() => { running.delete(done) })
    }
  }
  await Promise.all(running)
  for (const { line } of [...steady, ...faulty]) line.close()
  return tally.report(seed, (timers.nowMs() - startedMs) / 1000)
}

type Place = { line: Line, busy: number, last: Promise<void> }

/** What goes out in pieces, or ends the connection, must not meet other exchanges on its line. */
function isDisturbing (exchange: Exchange): boolean {
  return exchange.kind === 'broken' || ('delivery' in exchange && exchange.delivery !== 'whole')
}

/** On the line with the least to do: steady steps side by side, disturbing ones in turn. Undefined when all have enough: the step is left out. */
function start (step: Step, places: readonly Place[]): Promise<void> | undefined {
  const place = places.reduce((least, other) => other.busy < least.busy ? other : least)
  const inTurn = step.some(isDisturbing)
  if (place.busy >= (inTurn ? FAULTS_PER_LINE_MAX : STEPS_PER_LINE_MAX)) return undefined
  place.busy++
  const done = (inTurn ? place.last.then(() => carryAll(place.line, step)) : carryAll(place.line, step)).finally(() => { place.busy-- })
  if (inTurn) place.last = done
  return done
}

async function carryAll (line: Line, step: Step): Promise<void> {
  for (const exchange of step) await line.carry(exchange)
}
