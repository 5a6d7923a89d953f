// A circuit breaker as a pure state machine, that all outbound calls share: one an issuer and host, a vendor's host, an endpoint of a switch.
// Where calls are retried it sits inside the retry, so every attempt counts.
//
//   closed --[failures >= share of at least callsMin outcomes in the window]--> open --[openMs later, next ask]--> half_open
//   half_open: one probe; success -> closed (empty window), failure -> open again, probe given up -> open, the next ask probes
//
// Outcomes are kept as counts a second, at most one bucket a second of the window, and as their sums. Outcomes of calls that began before the breaker opened are ignored.

export const BREAKER_WINDOW_MS = 30_000
export const BREAKER_CALLS_MIN = 10 // Fewer outcomes in the window say nothing.
export const BREAKER_FAILURE_SHARE = 0.5
export const BREAKER_OPEN_MS = 10_000 // After it one probe may try.

export type Bucket = { second: number, ok: number, bad: number }
export type Breaker = { state: 'closed', buckets: readonly Bucket[], ok: number, bad: number } | { state: 'open', untilMs: number } | { state: 'half_open' }
/** `ask` before an attempt; then exactly one of the others, with `probe` as the ask answered it. */
export type BreakerEvent = { kind: 'ask' } | { kind: 'success' | 'failure' | 'cancel', probe: boolean }
export type BreakerPolicy = { windowMs: number, callsMin: number, failureShare: number, openMs: number }
export type BreakerStep = { next: Breaker, admit: 'call' | 'probe' | 'no' }

export const BREAKER_POLICY: BreakerPolicy = { windowMs: BREAKER_WINDOW_MS, callsMin: BREAKER_CALLS_MIN, failureShare: BREAKER_FAILURE_SHARE, openMs: BREAKER_OPEN_MS }
export const CLOSED: Breaker = { state: 'closed', buckets: [], ok: 0, bad: 0 }

/** Next state; `admit` answers an ask and is `no` for every other event. */
export function stepBreaker (now: Breaker, event: BreakerEvent, nowMs: number, policy: BreakerPolicy): BreakerStep {
  switch (now.state) {
    case 'closed':
      if (event.kind === 'ask') return { next: now, admit: 'call' }
      return { next: event.kind === 'cancel' || event.probe ? now : afterOutcome(now, event.kind === 'success', nowMs, policy), admit: 'no' }
    case 'open':
      if (event.kind === 'ask' && nowMs >= now.untilMs) return { next: { state: 'half_open' }, admit: 'probe' }
      return { next: now, admit: 'no' }
    case 'half_open':
      if (event.kind === 'ask' || !event.probe) return { next: now, admit: 'no' }
      if (event.kind === 'success') return { next: CLOSED, admit: 'no' }
      return { next: { state: 'open', untilMs: event.kind === 'cancel' ? nowMs : nowMs + policy.openMs }, admit: 'no' }
    default:
      return now satisfies never
  }
}

function afterOutcome (now: Extract<Breaker, { state: 'closed' }>, isOk: boolean, nowMs: number, policy: BreakerPolicy): Breaker {
  const second = Math.floor(nowMs / 1000)
  const live = withoutOld(now, Math.floor((nowMs - policy.windowMs) / 1000))
  const ok = live.ok + (isOk ? 1 : 0)
  const bad = live.bad + (isOk ? 0 : 1)
  if (ok + bad >= policy.callsMin && bad / (ok + bad) >= policy.failureShare) return { state: 'open', untilMs: nowMs + policy.openMs }
  const last = live.buckets.at(-1)
  const isSame = last !== undefined && last.second >= second
  const bucket = { second: isSame ? last.second : second, ok: (isSame ? last.ok : 0) + (isOk ? 1 : 0), bad: (isSame ? last.bad : 0) + (isOk ? 0 : 1) }
  return { state: 'closed', ok, bad, buckets: isSame ? live.buckets.with(-1, bucket) : [...live.buckets, bucket] }
}

/** Buckets of seconds up to `until` fall out of the window. */
function withoutOld (now: Extract<Breaker, { state: 'closed' }>, until: number): Pick<Extract<Breaker, { state: 'closed' }>, 'buckets' | 'ok' | 'bad'> {
  const [first] = now.buckets
  if (first === undefined || first.second > until) return now
  const buckets = now.buckets.filter(bucket => bucket.second > until)
  return { buckets, ok: buckets.reduce((sum, bucket) => sum + bucket.ok, 0), bad: buckets.reduce((sum, bucket) => sum + bucket.bad, 0) }
}
