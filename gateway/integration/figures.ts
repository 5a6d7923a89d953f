// The figures of the policy in one place, each with its reason. Settings may make them smaller or larger within the ranges of config.ts.
export const CONNECT_TIMEOUT_MS = 2_000 // A host that is up answers a handshake within it from anywhere.
export const HEADERS_TIMEOUT_MS = 5_000 // Time from the last byte of the request to the headers of the answer.
export const BODY_TIMEOUT_MS = 5_000 // Time from the headers to the last byte of the body, not between two bytes: a slow drip ends too.
export const TOTAL_TIMEOUT_MS = 8_000 // The whole call with its waits and retries: less than the patience of a person at a counter.

export const ATTEMPTS_MAX = 3
export const BACKOFF_BASE_MS = 100
export const BACKOFF_CAP_MS = 2_000

export const BULKHEAD_ACTIVE_MAX = 16 // Calls of one issuer on the wire at once; also the sockets of its pool.
export const BULKHEAD_QUEUE_MAX = 32 // Calls of one issuer that wait; the next one is refused.

export const RESPONSE_BYTES_MAX = 1_048_576
export const REQUEST_BYTES_MAX = 524_288
export const HEADER_BYTES_MAX = 16_384

/** Timers and clock of the policy: `after` runs once and returns its cancel. */
export type Clock = { nowMs: () => number, after: (ms: number, run: () => void) => () => void }

/** The real timers over a given clock. */
export function openClock (nowMs: () => number): Clock {
  return {
    nowMs,
    after (ms, run) {
      const timer = setTimeout(run, ms)
      return () => clearTimeout(timer)
    }
  }
}
