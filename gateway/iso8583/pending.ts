// Requests of ours that wait for their answer on one connection, found again by a key that request and answer share.
import { SoundboxError } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import type { LinkHooks } from './hooks.js'

/** Requests of ours on one connection at once; the next is refused. */
export const PENDING_MAX = 1024
/** Keys remembered of requests that were given up, to tell a late answer from one to nothing. */
export const LATE_KEYS_MAX = 1024

export type KeyOf = (message: Message) => string
export type Pending = {
  /** Resolves with the answer. Throws ISO_DUPLICATE_KEY, OVERLOADED; rejects with ISO_TIMEOUT, or with what `failAll` says. */
  add: (request: Message, deadlineMs: number) => Promise<Message>
  settle: (answer: Message) => void
  /** Gives up what has missed its deadline. */
  expire: () => void
  failAll: (error: SoundboxError) => void
  size: () => number
}
type Waiting = { sentMs: number, dueMs: number, resolve: (answer: Message) => void, reject: (error: SoundboxError) => void }
export type PendingDeps = { nowMs: () => number, keyOf: KeyOf, hooks: LinkHooks }

/** Nothing waits yet. */
export function openPending ({ nowMs, keyOf, hooks }: PendingDeps): Pending {
  const waiting = new Map<string, Waiting>()
  const late = new Set<string>()
  const giveUp = (key: string): void => {
    waiting.delete(key)
    late.add(key)
    if (late.size > LATE_KEYS_MAX) late.delete(late.values().next().value!)
  }
  return {
    add (request, deadlineMs) {
      const key = keyOf(request)
      if (waiting.has(key)) throw new SoundboxError('ISO_DUPLICATE_KEY', 'a request with this type, time, trace number and terminal is in flight on this connection')
      if (waiting.size >= PENDING_MAX) throw new SoundboxError('OVERLOADED', `${PENDING_MAX} requests wait for an answer on this connection`)
      const now = nowMs()
      return new Promise((resolve, reject) => { waiting.set(key, { sentMs: now, dueMs: now + deadlineMs, resolve, reject }) })
    },
    settle (answer) {
      const key = keyOf(answer)
      const found = waiting.get(key)
      if (found === undefined) {
        hooks.count(late.delete(key) ? 'late' : 'unmatched')
        return
      }
      waiting.delete(key)
      hooks.count('matched')
      hooks.latency(true, nowMs() - found.sentMs)
      found.resolve(answer)
    },
    expire () {
      const now = nowMs()
      for (const [key, { dueMs, reject }] of waiting) {
        if (now < dueMs) continue
        giveUp(key)
        hooks.count('timeout')
        reject(new SoundboxError('ISO_TIMEOUT', 'the peer did not answer in time'))
      }
    },
    failAll (error) {
      for (const { reject } of waiting.values()) reject(error)
      waiting.clear()
    },
    size: () => waiting.size
  }
}
