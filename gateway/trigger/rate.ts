// Token buckets: how often a caller may come. Pure but for the map of buckets, which is bounded.
import { LRUCache } from 'lru-cache'

export type Bucket = { tokens: number, at: number }
/** Callers remembered at once; a forgotten one starts with a full bucket. */
export const BUCKETS_MAX = 10_000

/** Takes one token: the next bucket, and 0 or the milliseconds until there is one. The bucket holds one second's worth. */
export function takeToken (bucket: Bucket | undefined, perSecond: number, nowMs: number): { bucket: Bucket, waitMs: number } {
  const tokens = bucket === undefined ? perSecond : Math.min(perSecond, bucket.tokens + Math.max(0, nowMs - bucket.at) * perSecond / 1000)
  if (tokens < 1) return { bucket: { tokens, at: nowMs }, waitMs: Math.ceil((1 - tokens) * 1000 / perSecond) }
  return { bucket: { tokens: tokens - 1, at: nowMs }, waitMs: 0 }
}

export type RateLimit = { take: (caller: string, perSecond: number) => number, isEmpty: (caller: string, perSecond: number) => boolean }

/** `take` gives 0, or the milliseconds to wait; `isEmpty` looks without taking. */
export function openRateLimit (nowMs: () => number): RateLimit {
  const buckets = new LRUCache<string, Bucket>({ max: BUCKETS_MAX })
  return {
    take (caller, perSecond) {
      const { bucket, waitMs } = takeToken(buckets.get(caller), perSecond, nowMs())
      buckets.set(caller, bucket)
      return waitMs
    },
    isEmpty: (caller, perSecond) => takeToken(buckets.get(caller), perSecond, nowMs()).waitMs > 0
  }
}
