// The tables behind the codec. A class check and a change of code page are one look-up: the table of (type, encoding) answers with the
// character for a byte, or the byte for a character, and -1 for what the type does not allow. So no value can pass unchecked.
import { CODEPAGES, type Codepage } from './ebcdic.js'

/** The words for `type` of a field: which characters its value may hold. */
export const FIELD_TYPES = ['n', 'a', 'an', 'anp', 'as', 'ns', 'ans', 'z', 'xn', 'b'] as const
export type FieldType = typeof FIELD_TYPES[number]

/** xn names the digits after its sign; the sign itself has a table of its own. b is shown as upper-case hex. */
const ALLOWED: Record<FieldType | 'sign' | 'any', RegExp> = {
  n: /[0-9]/,
  a: /[A-Za-z]/,
  an: /[0-9A-Za-z]/,
  anp: /[0-9A-Za-z ]/,
  as: /[ -/:-~]/,
  ns: /[ -@[-`{-~]/,
  ans: /[ -~]/,
  z: /[0-9=D]/,
  xn: /[0-9]/,
  b: /[0-9A-F]/,
  sign: /[CD]/,
  any: /[\s\S]/
}
export type CharSet = keyof typeof ALLOWED

/** What a value of the type may hold, in words for `expected`. */
export const ALLOWED_WORDS: Record<CharSet, string> = {
  n: 'a digit',
  a: 'a letter',
  an: 'a letter or digit',
  anp: 'a letter, digit or space',
  as: 'a letter or special character',
  ns: 'a digit or special character',
  ans: 'a printable ASCII character',
  z: 'a digit or the separator = or D',
  xn: 'a digit',
  b: 'an upper-case hex digit',
  sign: 'the sign C or D',
  any: 'a character of one byte'
}

export type CharTables = { toText: Int16Array, toWire: Int16Array }

/** Both directions for one set of characters in ASCII (`latin1` beyond it) or in an EBCDIC code page. */
export function charTables (set: CharSet, page?: Codepage): CharTables {
  const toText = new Int16Array(256).fill(-1)
  const toWire = new Int16Array(256).fill(-1)
  for (let byte = 0; byte < 256; byte++) {
    const code = page === undefined ? byte : CODEPAGES[page][byte]!
    if (!ALLOWED[set].test(String.fromCharCode(code))) continue
    toText[byte] = code
    toWire[code] = byte
  }
  return { toText, toWire }
}

/** Hex characters that may be of either case, answered in upper case: the leniency `lowerHex`. */
export const ANY_HEX: CharTables = lowerToo(charTables('b'))

function lowerToo (upper: CharTables): CharTables {
  for (let code = 0x61; code <= 0x66; code++) {
    upper.toText[code] = code - 0x20
    upper.toWire[code] = code - 0x20
  }
  return upper
}

/** A hex character -> its nibble, or -1. */
export const NIBBLE_OF_HEX = nibbleTable('0123456789ABCDEF')
export const NIBBLE_OF_ANY_HEX = nibbleTable('0123456789ABCDEFabcdef')
/** A character of a packed field -> its nibble: digits alone, or with the track separator D. */
export const NIBBLE_OF_DIGIT = nibbleTable('0123456789')
export const NIBBLE_OF_TRACK = nibbleTable('0123456789D')

function nibbleTable (characters: string): Int16Array {
  const table = new Int16Array(256).fill(-1)
  for (const character of characters) table[character.charCodeAt(0)] = Number.parseInt(character, 16)
  return table
}

/** A byte -> its two characters (first << 8 | second), or -1 when the table does not allow one of them. */
export const PAIR_OF_DIGITS = pairTable(NIBBLE_OF_DIGIT)
export const PAIR_OF_TRACK = pairTable(NIBBLE_OF_TRACK)
export const PAIR_OF_HEX = pairTable(NIBBLE_OF_HEX)

function pairTable (allowed: Int16Array): Int16Array {
  const codeOf = (nibble: number): number => '0123456789ABCDEF'.charCodeAt(nibble)
  return Int16Array.from({ length: 256 }, (_, byte) => {
    const high = codeOf(byte >> 4)
    const low = codeOf(byte & 15)
    return allowed[high]! < 0 || allowed[low]! < 0 ? -1 : high << 8 | low
  })
}
