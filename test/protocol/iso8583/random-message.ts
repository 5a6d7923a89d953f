// Seeded randomness and random messages for the property tests. SEEDS=50 makes more of them, SEED=17 replays one.
import type { FieldJson, Message, SpecJson } from '../../../protocol/iso8583/index.js'

export type Rand = {
  /** A whole number from 0 to below `limit`. */
  below: (limit: number) => number
  pick: <T>(items: ArrayLike<T>) => T
}

/** mulberry32: small, fast, the same everywhere. */
export function makeRand (seed: number): Rand {
  let state = seed >>> 0
  const below = (limit: number): number => {
    state = state + 0x6d2b79f5 >>> 0
    let mixed = Math.imul(state ^ state >>> 15, state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) % limit
  }
  return { below, pick: items => items[below(items.length)]! }
}

/** Calls `body` for `count` seeds (times SEEDS / 3 of make fuzz), or for the one that SEED names. Answers how many; 0 for a replay. */
export function forSeeds (count: number, body: (rand: Rand, seed: number) => void): number {
  const only = process.env['SEED']
  if (only !== undefined) {
    body(makeRand(Number(only)), Number(only))
    return 0
  }
  const total = Math.ceil(count * Number(process.env['SEEDS'] ?? 3) / 3)
  for (let seed = 1; seed <= total; seed++) body(makeRand(seed), seed)
  return total
}

const DIGITS = '0123456789'
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const SPECIALS = ' !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'

/** Written down again here, so that a mistake in the codec's own tables shows. */
export const CHARACTERS: Record<FieldJson['type'], string> = {
  n: DIGITS,
  a: LETTERS,
  an: DIGITS + LETTERS,
  anp: `${DIGITS}${LETTERS} `,
  as: LETTERS + SPECIALS,
  ns: DIGITS + SPECIALS,
  ans: DIGITS + LETTERS + SPECIALS,
  z: `${DIGITS}D`,
  xn: DIGITS,
  b: '0123456789ABCDEF'
}

/** A value of exactly `units` counted units. */
export function someValue (rand: Rand, field: FieldJson, units: number): string {
  const length = field.count === 'bytes' ? units * 2 : units
  let value = field.type === 'xn' && length > 0 ? rand.pick('CD') : ''
  while (value.length < length) value += rand.pick(CHARACTERS[field.type])
  return value
}

/** A length that the field allows: fixed, or empty, greatest, small or any. */
export function someLength (rand: Rand, field: FieldJson): number {
  if (field.len === 0) return field.max
  const any = rand.pick([0, 1, 2, field.max, rand.below(Math.min(40, field.max) + 1), rand.below(Math.min(40, field.max) + 1)])
  const length = Math.min(any, field.max)
  return field.count === 'hexchars' ? length & ~1 : length
}

/** A message of up to `fieldsMax` random fields. */
export function someMessage (rand: Rand, spec: SpecJson, fieldsMax = 20): Message {
  const keys = Object.keys(spec.fields)
  const chosen = new Set(Array.from({ length: 1 + rand.below(fieldsMax) }, () => rand.pick(keys)))
  const fields: Record<string, string> = {}
  for (const key of chosen) fields[key] = someValue(rand, spec.fields[key]!, someLength(rand, spec.fields[key]!))
  const version = spec.mti.versions?.[0] === '1993' ? '1' : '0'
  return { mti: `${version}${1 + rand.below(8)}${rand.below(8)}${rand.below(6)}`, fields }
}

/** The bytes with one to three random injuries: flipped bit, other byte, cut, gap, doubled or foreign bytes. */
export function damaged (rand: Rand, bytes: Buffer): Buffer {
  let result = Buffer.from(bytes)
  for (let injuries = 1 + rand.below(3); injuries > 0; injuries--) {
    const at = rand.below(result.length + 1)
    const some = Buffer.from(Array.from({ length: 1 + rand.below(4) }, () => rand.below(256)))
    switch (rand.below(6)) {
      case 0: if (at < result.length) result[at]! ^= 1 << rand.below(8); break
      case 1: if (at < result.length) result[at] = rand.below(256); break
      case 2: result = result.subarray(0, at); break
      case 3: result = Buffer.concat([result.subarray(0, at), result.subarray(at + some.length)]); break
      case 4: result = Buffer.concat([result.subarray(0, at), result.subarray(Math.max(0, at - some.length))]); break
      default: result = Buffer.concat([result.subarray(0, at), some, result.subarray(at)])
    }
  }
  return result
}
