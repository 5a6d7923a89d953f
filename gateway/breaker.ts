// A circuit breaker as a pure state machine: who calls a server that fails spares both the wait.
//
//   closed --(failures reach the share, of enough calls in the window)--> open --(openMs pass)--> half-open: one probe
//   half-open --(probe succeeds)--> closed        half-open --(probe fails)--> open

export type BreakerPolicy = { windowMs: number, callsMin: number, failureShare: number, openMs: number }
export type Breaker =
  | { state: 'closed', since: number, calls: number, failures: number }
  | { state: 'open', until: number }
  | { state: 'half-open', probing: boolean }
export type BreakerEvent = 'ask' | 'success' | 'failure'

/** 50 percent of at least 10 calls within 30 s open it for 30 s. */
export const BREAKER_POLICY: BreakerPolicy = { windowMs: 30_000, callsMin: 10, failureShare: 0.5, openMs: 30_000 }
type Closed = Extract<Breaker, { state: 'closed' }>
export const CLOSED: Closed = { state: 'closed', since: 0, calls: 0, failures: 0 }

/** Next state, and for `ask` whether the call may go out. */
export function stepBreaker (now: Breaker, event: BreakerEvent, nowMs: number, policy: BreakerPolicy): { next: Breaker, allowed: boolean } {
  switch (now.state) {
    case 'closed': return stepClosed(now, event, nowMs, policy)
    case 'open':
      if (event !== 'ask' || nowMs < now.until) return { next: now, allowed: false }
      return { next: { state: 'half-open', probing: true }, allowed: true }
    case 'half-open':
      if (event === 'ask') return { next: { state: 'half-open', probing: true }, allowed: !now.probing }
      if (event === 'success') return { next: { ...CLOSED, since: nowMs }, allowed: true }
      return { next: { state: 'open', until: nowMs + policy.openMs }, allowed: false }
    default: now satisfies never
  }
  return { next: now, allowed: false }
}

function stepClosed (now: Closed, event: BreakerEvent, nowMs: number, policy: BreakerPolicy): { next: Breaker, allowed: boolean } {
  if (event === 'ask') return { next: now, allowed: true }
  const fresh = nowMs - now.since >= policy.windowMs ? { ...CLOSED, since: nowMs } : now
  const calls = fresh.calls + 1
  const failures = fresh.failures + (event === 'failure' ? 1 : 0)
  if (calls >= policy.callsMin && failures / calls >= policy.failureShare) return { next: { state: 'open', until: nowMs + policy.openMs }, allowed: false }
  return { next: { state: 'closed', since: fresh.since, calls, failures }, allowed: true }
}
