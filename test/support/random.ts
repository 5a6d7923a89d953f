// Seeded randomness for property tests. SEED=17 replays one seed; SEEDS=50 runs that many.

/** mulberry32: numbers in [0, 1), the same for the same seed. */
export function openRandom (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6D2B79F5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296
  }
}

/** Runs `work` once a seed. `count`: how many when SEEDS does not say. */
export function forSeeds (count: number, work: (rand: () => number, seed: number) => void): void {
  for (const seed of seedsOf(count)) work(openRandom(seed), seed)
}

/** The seeds of this run. */
export function seedsOf (count: number): number[] {
  if (process.env['SEED'] !== undefined) return [Number(process.env['SEED'])]
  return Array.from({ length: count * Number(process.env['SEEDS'] ?? 1) }, (_, index) => index + 1)
}
