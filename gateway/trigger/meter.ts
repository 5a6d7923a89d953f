// What the heart tells whoever counts: stage latencies and outcomes. http/metrics.ts turns it into Prometheus series.

export type Stage = 'recorded' | 'answered' | 'published' | 'delivered' | 'spoken'

/** `stage`: milliseconds since the payment was accepted. `outcome`: one per answered request, `code` 'OK', 'REPEAT', or an error code. */
export type Meter = {
  stage: (stage: Stage, ms: number) => void
  outcome: (source: 'http' | 'iso8583', code: string) => void
  fallbackUsed: () => void
  finalState: (state: string) => void
}

/** Counts nothing. */
export const SILENT_METER: Meter = { stage: () => {}, outcome: () => {}, fallbackUsed: () => {}, finalState: () => {} }
