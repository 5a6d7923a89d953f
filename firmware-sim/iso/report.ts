// What the simulated switch sent and what came back, compared with what had to.
import { createHistogram } from 'node:perf_hooks'

/** Differences kept word for word; the rest is counted. */
export const DIFFERENCES_MAX = 20
export type Difference = { kind: string, trace: string, expected: string, found: string }
export type IsoReport = {
  ok: boolean
  seed: number
  seconds: number
  sent: number
  right: number
  wrong: number
  missing: number
  /** Answers that no exchange waits for: a second answer, or one to nothing. */
  unexpected: number
  connects: number
  /** Connections that the other side ended without a broken frame of ours. */
  lost: number
  byKind: Readonly<Record<string, number>>
  /** Milliseconds. */
  latency: { p50: number, p90: number, p99: number, max: number }
  differences: readonly Difference[]
}
export type Tally = {
  sent: (kind: string) => void
  right: (ms: number) => void
  differs: (difference: Difference, outcome: 'wrong' | 'missing') => void
  unexpected: (trace: string) => void
  connected: () => void
  lost: (reason: string) => void
  report: (seed: number, seconds: number) => IsoReport
}

const MICROS = 1000

/** Nothing has happened yet. */
export function openTally (): Tally {
  const counts = { sent: 0, right: 0, wrong: 0, missing: 0, unexpected: 0, connects: 0, lost: 0 }
  const byKind: Record<string, number> = {}
  const differences: Difference[] = []
  const latency = createHistogram()
  const keep = (difference: Difference): void => { if (differences.length < DIFFERENCES_MAX) differences.push(difference) }
  const ms = (percentile: number): number => Math.round(latency.percentile(percentile) / MICROS * 100) / 100
  return {
    sent (kind) {
      counts.sent++
      byKind[kind] = (byKind[kind] ?? 0) + 1
    },
    right (took) {
      counts.right++
      latency.record(Math.max(1, Math.round(took * MICROS)))
    },
    differs (difference, outcome) {
      counts[outcome]++
      keep(difference)
    },
    unexpected (trace) {
      counts.unexpected++
      keep({ kind: 'unexpected answer', trace, expected: 'nothing', found: 'an answer' })
    },
    connected () { counts.connects++ },
    lost (reason) {
      counts.lost++
      keep({ kind: 'connection', trace: '', expected: 'to stay', found: reason })
    },
    report: (seed, seconds) => ({
      ok: counts.right === counts.sent && counts.sent > 0 && counts.unexpected === 0 && counts.lost === 0, seed, seconds: Math.round(seconds * 10) / 10, ...counts, byKind,
      latency: counts.right === 0 ? { p50: 0, p90: 0, p99: 0, max: 0 } : { p50: ms(50), p90: ms(90), p99: ms(99), max: Math.round(latency.max / MICROS * 100) / 100 }, differences
    })
  }
}

/** The report for a person. */
export function formatReport (report: IsoReport): string {
  const { latency } = report
  return [
    `${report.ok ? 'OK' : 'NOT AS EXPECTED'}: ${report.sent} exchanges in ${report.seconds} s (${Math.round(report.sent / Math.max(0.1, report.seconds))}/s), seed ${report.seed}`,
    `  answered as expected ${report.right}, differently ${report.wrong}, not at all ${report.missing}; answers to nothing ${report.unexpected}`,
    `  connections ${report.connects}, lost ${report.lost}; answer p50 ${latency.p50} ms, p90 ${latency.p90} ms, p99 ${latency.p99} ms, longest ${latency.max} ms`,
    `  ${Object.entries(report.byKind).sort(([, a], [, b]) => b - a).map(([kind, count]) => `${kind} ${count}`).join(', ')}`,
    ...report.differences.map(({ kind, trace, expected, found }) => `  ${kind} ${trace}: expected ${expected}, found ${found}`)
  ].join('\n')
}
