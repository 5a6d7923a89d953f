// Whole numbers the Indian way: groups of 2-2-3 digits, so hundred, thousand, lakh (10^5), crore (10^7); never million, never arab.
//
//   12,34,56,789  ->  12 crore, 34 lakh, 56 thousand, 7 hundred, 89
//
// A language gives the words 0..99 (irregular in the north of India, hence a full table) and says each group itself, knowing whether
// the group is the last one of the number: that is where southern languages change "hundred" into "hundred and".
import { PAUSE, type Spoken } from './shape.js'

/** 99,99,99,999: as far as every language counts without "arab". */
export const NUMBER_MAX = 999_999_999

export type Scale = 'crore' | 'lakh' | 'thousand' | 'hundred'

/** The clips of one group. `count`: 1..99, of hundreds 1..9. `isLast`: nothing of the number follows. */
export type SayGroup = (count: number, scale: Scale, isLast: boolean) => Spoken

const SCALES: readonly [Scale, number][] = [['crore', 10_000_000], ['lakh', 100_000], ['thousand', 1000], ['hundred', 100]]

/** The clips of a whole number 0..NUMBER_MAX; 0..99 are the clips `n0`..`n99`. Throws RangeError outside: the door checks before. */
export function numberFromGroups (n: number, sayGroup: SayGroup): Spoken {
  if (!Number.isSafeInteger(n) || n < 0 || n > NUMBER_MAX) throw new RangeError('a number to word is whole and within NUMBER_MAX')
  if (n < 100) return [`n${n}`]
  const clips: string[] = []
  let rest = n
  for (const [scale, size] of SCALES) {
    const count = Math.floor(rest / size)
    rest %= size
    if (count > 0) clips.push(...sayGroup(count, scale, rest === 0))
  }
  return rest === 0 ? clips : [...clips, `n${rest}`]
}

/** The simplest group: count, then the scale's one form. For languages whose number words stand side by side unchanged. */
export const sideBySide: SayGroup = (count, scale) => [`n${count}`, scale]

/** Clips `n0`, `n1`, … from words in order. */
export function countingClips (words: readonly string[]): Record<string, string> {
  return Object.fromEntries(words.map((word, n) => [`n${n}`, word]))
}

/** Digits of a code; leading zeros are said. */
export const CODE_DIGITS = 6

/** A code digit by digit, with a rest in the middle: people take down three at a time. */
export function codeClips (code: number): Spoken {
  const digits = [...String(code).padStart(CODE_DIGITS, '0')].map(digit => `n${digit}`)
  return [...digits.slice(0, CODE_DIGITS / 2), PAUSE, ...digits.slice(CODE_DIGITS / 2)]
}
