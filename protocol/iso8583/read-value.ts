// The value of one field: its length prefix, then characters, packed digits or bytes. A table answers for each byte with the character
// it stands for, or with -1 for what the type of the field does not allow.
import { charClass, type IsoFailure, nibbleClass } from './failure.js'
import { EASE } from './options.js'
import { CHARS, type FieldPlan, PACKED } from './plan.js'
import { type Reading, refuse, truncated } from './reading.js'
import { ALLOWED_WORDS, PAIR_OF_DIGITS, PAIR_OF_HEX } from './tables.js'

/** The count that a length prefix says, in units of the field. */
export function readLength (run: Reading, field: FieldPlan): number {
  const { bytes, at } = run
  const next = at + field.lengthBytes
  if (next > run.end) throw refuse(run, truncated(run, field.path, field.lengthBytes))
  const zero = field.lengthZero
  let units = 0
  if (zero < 0) {
    for (let index = at; index < next; index++) {
      const byte = bytes[index]!
      if (PAIR_OF_DIGITS[byte]! < 0) throw refuse(run, lengthDigits(field, index, nibbleClass(byte)))
      units = units * 100 + (byte >> 4) * 10 + (byte & 15)
    }
  } else {
    for (let index = at; index < next; index++) {
      let digit = bytes[index]! - zero
      if (digit < 0 || digit > 9) {
        if (!isLeadingSpace(run, zero, index, units)) throw refuse(run, lengthDigits(field, index, charClass(field.looseTables.toText[bytes[index]!])))
        digit = 0
      }
      units = units * 10 + digit
    }
  }
  const max = (run.ease & EASE.overLong) === 0 ? field.max : field.prefixMax
  if (units > max) throw refuse(run, { reason: 'over-long', path: field.path, offset: at, expected: `a length up to ${max}`, found: `length ${units}` })
  run.at = next
  return units
}

function lengthDigits (field: FieldPlan, offset: number, found: string): IsoFailure {
  return { reason: 'length-digits', path: field.path, offset, expected: `${field.lengthDigits} length digits`, found }
}

function isLeadingSpace (run: Reading, zero: number, index: number, units: number): boolean {
  return (run.ease & EASE.spacedLength) !== 0 && units === 0 && run.bytes[index] === (zero === 0xf0 ? 0x40 : 0x20)
}

/** Checks and takes the value of `units` counted units at run.at. */
export function readValue (run: Reading, field: FieldPlan, units: number): void {
  const chars = units * field.unitChars
  if (field.kind === CHARS) readChars(run, field, chars)
  else if (field.kind === PACKED) readPacked(run, field, chars)
  else readBytes(run, field, chars)
}

function readChars (run: Reading, field: FieldPlan, chars: number): void {
  const { bytes, at, ease, text } = run
  const next = at + chars
  if (next > run.end) throw refuse(run, truncated(run, field.path, chars))
  if (field.isHex && (chars & 1) !== 0) throw refuse(run, oddHex(field, at, chars))
  const loose = ease !== 0 && (ease & (field.isHex ? EASE.lowerHex : EASE.anyCharacter)) !== 0
  const table = loose ? field.looseTables.toText : field.tables.toText
  let out = run.out
  let index = at
  if (field.isSigned && chars > 0) {
    const code = loose ? table[bytes[index]!]! : field.signTables.toText[bytes[index]!]!
    if (code < 0) throw refuse(run, wrongCharacter(field, index, ALLOWED_WORDS.sign, bytes[index]!))
    text[out++] = code
    index++
  }
  for (; index < next; index++) {
    const code = table[bytes[index]!]!
    if (code < 0) throw refuse(run, wrongCharacter(field, index, ALLOWED_WORDS[field.type], bytes[index]!))
    text[out++] = code
  }
  run.at = next
  run.out = out
}

function wrongCharacter (field: FieldPlan, offset: number, expected: string, byte: number): IsoFailure {
  const found = charClass(field.isHex ? byte : field.looseTables.toText[byte])
  return { reason: 'character', path: field.path, offset, expected, found }
}

function oddHex (field: FieldPlan, offset: number, chars: number): IsoFailure {
  return { reason: 'wrong-length', path: field.path, offset, expected: 'an even number of hex characters', found: `${chars}` }
}

/** Two digits a byte. With an odd number of digits one nibble is the pad: 0 on the left or F on the right. */
function readPacked (run: Reading, field: FieldPlan, chars: number): void {
  const { bytes, text } = run
  let at = run.at
  const next = at + ((chars + 1) >> 1)
  if (next > run.end) throw refuse(run, truncated(run, field.path, next - at))
  const isOdd = (chars & 1) !== 0
  const pairs = run.ease !== 0 && (run.ease & EASE.anyNibble) !== 0 ? PAIR_OF_HEX : field.pairs
  let out = run.out
  if (isOdd && !field.padRight) {
    text[out++] = readOddNibble(run, field, at, bytes[at]! >> 4, 0, bytes[at]! & 15)
    at++
  }
  const whole = isOdd && field.padRight ? next - 1 : next
  for (; at < whole; at++) {
    const pair = pairs[bytes[at]!]!
    if (pair < 0) throw refuse(run, wrongNibble(field, at, bytes[at]!))
    text[out++] = pair >> 8
    text[out++] = pair & 255
  }
  if (at < next) text[out++] = readOddNibble(run, field, at, bytes[at]! & 15, 15, bytes[at]! >> 4)
  run.at = next
  run.out = out
}

function readOddNibble (run: Reading, field: FieldPlan, at: number, pad: number, want: number, nibble: number): number {
  if (pad !== want && (run.ease & EASE.anyPad) === 0) {
    throw refuse(run, { reason: 'pad', path: field.path, offset: at, expected: `the pad nibble ${want === 0 ? '0' : 'F'}`, found: 'another nibble' })
  }
  const pairs = (run.ease & EASE.anyNibble) !== 0 ? PAIR_OF_HEX : field.pairs
  const pair = pairs[nibble]! // The byte 0x0n: its second character is the nibble's.
  if (pair < 0) throw refuse(run, wrongNibble(field, at, nibble))
  return pair & 255
}

function wrongNibble (field: FieldPlan, offset: number, byte: number): IsoFailure {
  const expected = field.type === 'z' ? 'BCD digits or the separator D' : 'BCD digits'
  return { reason: 'nibble', path: field.path, offset, expected, found: nibbleClass(byte) }
}

function readBytes (run: Reading, field: FieldPlan, chars: number): void {
  const { bytes, text } = run
  let at = run.at
  if ((chars & 1) !== 0) throw refuse(run, oddHex(field, at, chars))
  const next = at + (chars >> 1)
  if (next > run.end) throw refuse(run, truncated(run, field.path, chars >> 1))
  let out = run.out
  for (; at < next; at++) {
    const pair = PAIR_OF_HEX[bytes[at]!]!
    text[out++] = pair >> 8
    text[out++] = pair & 255
  }
  run.at = next
  run.out = out
}
