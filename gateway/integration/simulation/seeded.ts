// Randomness that a seed decides: SHA-256 in counter mode. The same seed gives the same draws on every machine and in every release,
// and any row can be made again alone from "seed/table/key", so that no table need be kept whole.
import { createHash } from 'node:crypto'

const DRAWS_PER_BLOCK = 8 // One SHA-256 digest is eight 32-bit draws.

/** `below(n)`: whole number from 0 to n - 1. `between`: both ends included. `chance(p)`: true with probability p. */
export type Draw = {
  below: (limit: number) => number
  between: (low: number, high: number) => number
  pick: <T>(from: readonly [T, ...T[]]) => T
  chance: (probability: number) => boolean
}

/** The draws of one seed, from the first. */
export function drawsFromSeed (seed: string): Draw {
  let block = Buffer.alloc(0)
  let used = DRAWS_PER_BLOCK
  let counter = 0
  const next = (): number => {
    if (used === DRAWS_PER_BLOCK) {
      block = createHash('sha256').update(`${seed}#${counter}`, 'utf8').digest()
      counter += 1
      used = 0
    }
    used += 1
    return block.readUInt32BE((used - 1) * 4) / 2 ** 32
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  return {
    below,
    between: (low, high) => low + below(high - low + 1),
    pick: from => from[below(from.length)] ?? from[0],
    chance: probability => next() < probability
  }
}
