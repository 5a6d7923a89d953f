// May a call be tried again, and after how long? Pure. Exponential back-off with full jitter: wait = random in [0, min(cap, base * 2^n)),
// so that callers that failed together do not come back together. What the provider asks for in Retry-After is the least wait.
import type { AttemptFault } from './provider.js'

export type RetryPolicy = { attemptsMax: number, baseMs: number, capMs: number }
/** `attempt` counts from 1. `random` is in [0, 1). */
export type RetryQuestion = { attempt: number, idempotent: boolean, nowMs: number, deadlineMs: number, random: number }
export const RETRY_AFTER_MS_MAX = 86_400_000
const HTTP_DATE = /^[A-Z][a-z]{2,8}, [\w :-]{15,25} GMT$/

/** The wait before the next attempt, or undefined: do not try again. */
export function planRetry (fault: AttemptFault, question: RetryQuestion, policy: RetryPolicy): number | undefined {
  if (fault.final || question.attempt >= policy.attemptsMax) return undefined
  if (!question.idempotent && fault.sent && fault.retryAfterMs === undefined) return undefined
  const ceiling = Math.min(policy.capMs, policy.baseMs * 2 ** (question.attempt - 1))
  const waitMs = Math.max(Math.floor(question.random * ceiling), fault.retryAfterMs ?? 0)
  return question.nowMs + waitMs < question.deadlineMs ? waitMs : undefined
}

/** Milliseconds of a Retry-After header, in seconds or as an HTTP date; undefined when absent, unreadable or beyond a day. */
export function parseRetryAfter (header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined
  const plain = header.trim()
  const waitMs = /^\d{1,9}$/.test(plain) ? Number(plain) * 1000 : HTTP_DATE.test(plain) ? Date.parse(plain) - nowMs : Number.NaN
  return Number.isNaN(waitMs) || waitMs > RETRY_AFTER_MS_MAX ? undefined : Math.max(0, waitMs)
}
