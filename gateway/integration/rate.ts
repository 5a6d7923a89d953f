// A token bucket as a pure function: `perMinute` on the long run, `burst` at once. For calls of a token and for failures of an address.
export type RatePolicy = { perMinute: number, burst: number }
export type Rate = { left: number, atMs: number }

/** Next state and the seconds to wait (0 = go). A refused call takes nothing. */
export function stepRate (now: Rate | undefined, nowMs: number, policy: RatePolicy): { next: Rate, waitS: number } {
  const perMs = policy.perMinute / 60_000
  const grown = now === undefined ? policy.burst : Math.min(policy.burst, now.left + Math.max(0, nowMs - now.atMs) * perMs)
  const atMs = Math.max(nowMs, now?.atMs ?? nowMs) // A clock that steps back must not give the same time twice.
  if (grown >= 1) return { next: { left: grown - 1, atMs }, waitS: 0 }
  return { next: { left: grown, atMs }, waitS: Math.ceil((1 - grown) / perMs / 1000) }
}
