// The replay memory: which marks are taken, held in memory so that the answer is immediate. The store writes them down beside it.
import { SoundboxError } from '../../protocol/index.js'
import type { ReplayMark } from './contract.js'

/** A mark lives about six minutes: room for 2,700 requests a second. About 150 bytes each. */
export const REPLAY_MARKS_MAX = 1_000_000
const BUCKET_MS = 60_000
const PURGE_SLICE = 20_000

type Held = { owner: string, expiresAt: number }

export type ReplayMemory = {
  /** True when the mark was free, or its owner is the same and not ''. Throws OVERLOADED when the memory is full. */
  claim: (mark: ReplayMark, nowMs: number) => boolean
  /** Takes a mark that was written down earlier. */
  restore: (mark: ReplayMark) => void
  /** Forgets marks that expired before the time, in slices, so that the loop goes on. Returns how many. */
  purge: (expiredBefore: number) => Promise<number>
  size: () => number
}

/** An empty memory for at most `marksMax` marks. */
export function createReplayMemory (marksMax = REPLAY_MARKS_MAX): ReplayMemory {
  const held = new Map<string, Held>()
  const buckets = new Map<number, string[]>()

  const keep = ({ mark, owner, expiresAt }: ReplayMark): void => {
    held.set(mark, { owner, expiresAt })
    const minute = Math.floor(expiresAt / BUCKET_MS)
    const bucket = buckets.get(minute)
    if (bucket === undefined) buckets.set(minute, [mark])
    else bucket.push(mark)
  }

  const forget = (mark: string, expiredBefore: number): number => {
    const found = held.get(mark)
    return found !== undefined && found.expiresAt < expiredBefore && held.delete(mark) ? 1 : 0
  }

  return {
    claim: (mark, nowMs) => {
      const found = held.get(mark.mark)
      if (found !== undefined && found.expiresAt >= nowMs) return found.owner === mark.owner && mark.owner !== ''
      if (found === undefined && held.size >= marksMax) {
        throw new SoundboxError('OVERLOADED', `the replay memory holds ${marksMax} marks: send fewer requests a second`)
      }
      keep(mark)
      return true
    },
    restore: keep,
    purge: async expiredBefore => {
      let purged = 0
      for (const [minute, marks] of [...buckets].filter(([minute]) => (minute + 1) * BUCKET_MS <= expiredBefore)) {
        buckets.delete(minute)
        for (let from = 0; from < marks.length; from += PURGE_SLICE) {
          for (const mark of marks.slice(from, from + PURGE_SLICE)) purged += forget(mark, expiredBefore)
          await new Promise(resolve => setImmediate(resolve))
        }
      }
      return purged
    },
    size: () => held.size
  }
}
