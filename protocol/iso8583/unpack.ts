// Bytes -> message: MTI, one to three bitmaps, the fields whose bits are set, nothing after them.
//
//   0200 | 7238…0000 [8000…0001] | field | field | … |        field = [length prefix] value
//
// Every value is checked and turned into Latin-1 text in ONE shared buffer on the way; at the end one string is made of it and the values
// are substrings. A substring of 13 or more characters keeps that string (one message) alive. Nothing here calls foreign code before the
// text is taken out, so the shared buffer cannot be entered twice.
import { timingSafeEqual } from 'node:crypto'
import { charClass, type Decoded, Iso8583Error, type IsoFailure, kindOf, nibbleClass } from './failure.js'
import { EASE, easeOf, type IsoOptions } from './options.js'
import { readParts } from './parts.js'
import { BITMAP, CHARS, FIELD_NUMBER_MAX, type FieldPlan, type Message, MESSAGE_BYTES_MAX, PACKED, type Spec } from './plan.js'
import { ALLOWED_WORDS, ANY_HEX, NIBBLE_OF_HEX, PAIR_OF_DIGITS, PAIR_OF_HEX } from './tables.js'

/** One reading. `at` is the place in the bytes, `out` in the text. */
type Run = { spec: Spec, bytes: Uint8Array, end: number, ease: number, at: number, out: number, count: number }

const words = new Int32Array(FIELD_NUMBER_MAX / 32)
const numbers = new Int32Array(FIELD_NUMBER_MAX)
const textStarts = new Int32Array(FIELD_NUMBER_MAX + 1)
const wireStarts = new Int32Array(FIELD_NUMBER_MAX + 1)
let text = Buffer.allocUnsafeSlow(16_384) // Two characters for each byte are enough for any message; grows to 128 KiB at most.

/**
 * Reads one message. Strict unless `options` names leniencies; with none, pack of the result gives the same bytes.
 * Values are text; binary fields are upper-case hex; fields 1 and the third bitmap are not shown.
 * Throws ISO_UNPACK_INVALID (an Iso8583Error) with reason, path, offset and what was decoded before the fault.
 */
export function unpack (spec: Spec, bytes: Uint8Array, options?: IsoOptions): Message {
  if (!(bytes instanceof Uint8Array)) throw fault({ reason: 'input', path: 'message', expected: 'a Buffer or Uint8Array', found: kindOf(bytes) })
  const ease = options === undefined ? 0 : easeOf(options, 'ISO_UNPACK_INVALID')
  const end = bytes.length
  if (end > MESSAGE_BYTES_MAX) {
    throw fault({ reason: 'over-long', path: 'message', expected: `at most ${MESSAGE_BYTES_MAX} bytes`, found: `${end} bytes` })
  }
  if (text.length < end * 2 + 4) text = Buffer.allocUnsafeSlow(MESSAGE_BYTES_MAX * 2 + 4)
  const run: Run = { spec, bytes, end, ease, at: 0, out: 0, count: 0 }
  readMti(run)
  const bitmaps = readBitmaps(run)
  readFields(run, bitmaps)
  if (run.at < end && (ease & EASE.trailingBytes) === 0) {
    throw refuse(run, { reason: 'trailing-bytes', path: 'message', offset: run.at, expected: 'the end of the message', found: `${end - run.at} more bytes` })
  }
  const message = messageOf(run)
  const mac = options?.mac
  const macStart = wireStarts[run.count - 1] ?? 0
  const last = numbers[run.count - 1] ?? 0
  if (spec.parted.length > 0) addParts(run, message)
  if (mac !== undefined) checkMac(run, message, last, macStart, mac)
  return message
}

function readMti (run: Run): void {
  const { mti } = run.spec
  const { bytes } = run
  if (run.end < mti.bytes) throw refuse(run, truncated(run, 'mti', mti.bytes))
  const loose = (run.ease & EASE.anyMti) !== 0
  const table = (loose ? mti.loose : mti.digits).toText
  for (let at = 0; at < mti.bytes; at++) {
    const byte = bytes[at]!
    if (mti.isPacked) {
      const pair = (loose ? PAIR_OF_HEX : PAIR_OF_DIGITS)[byte]!
      if (pair < 0) throw refuse(run, { reason: 'mti', path: 'mti', offset: at, expected: 'two BCD digits', found: nibbleClass(byte) })
      text[at * 2] = pair >> 8
      text[at * 2 + 1] = pair & 255
    } else {
      const code = table[byte]!
      if (code < 0) throw refuse(run, { reason: 'mti', path: 'mti', offset: at, expected: 'a digit', found: charClass(mti.loose.toText[byte]) })
      text[at] = code
    }
  }
  if (!loose && mti.versions !== '' && !mti.versions.includes(String.fromCharCode(text[0]!))) {
    throw refuse(run, { reason: 'mti', path: 'mti', offset: 0, expected: 'a version of this spec', found: 'another version' })
  }
  run.at = mti.bytes
  run.out = 4
}

/** Fills `words` with the first and, if announced, the second bitmap; answers how many words are in use. */
function readBitmaps (run: Run): number {
  readBitmap(run, 0)
  const hasSecond = words[0]! < 0
  words[0] = words[0]! & 0x7fffffff
  if (!hasSecond) {
    if (run.spec.secondaryAlways) {
      throw refuse(run, { reason: 'bitmap', path: 'bitmap', offset: run.spec.mti.bytes, expected: 'the bit of the second bitmap', found: 'the bit unset' })
    }
    return 2
  }
  const offset = run.at
  readBitmap(run, 2)
  if ((words[2]! | words[3]!) === 0 && !run.spec.secondaryAlways && (run.ease & EASE.emptyBitmap) === 0) throw emptyBitmap(run, offset)
  return 4
}

function emptyBitmap (run: Run, offset: number): Iso8583Error {
  return refuse(run, { reason: 'empty-bitmap', path: 'bitmap', offset, expected: 'a field in the further bitmap', found: 'none' })
}

/** Reads 64 bits at run.at into two words. */
function readBitmap (run: Run, word: number): void {
  const { bytes, at, spec } = run
  if (at + spec.bitmapBytes > run.end) throw refuse(run, truncated(run, 'bitmap', spec.bitmapBytes))
  if (!spec.bitmapIsHex) {
    words[word] = bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!
    words[word + 1] = bytes[at + 4]! << 24 | bytes[at + 5]! << 16 | bytes[at + 6]! << 8 | bytes[at + 7]!
  } else {
    words[word] = readHexWord(run, at)
    words[word + 1] = readHexWord(run, at + 8)
  }
  run.at = at + spec.bitmapBytes
}

function readHexWord (run: Run, at: number): number {
  let bits = 0
  for (let index = at; index < at + 8; index++) {
    let nibble = NIBBLE_OF_HEX[run.bytes[index]!]!
    if (nibble < 0) {
      if ((run.ease & EASE.lowerHex) !== 0) nibble = NIBBLE_OF_HEX[ANY_HEX.toText[run.bytes[index]!]!] ?? -1
      if (nibble < 0) throw refuse(run, { reason: 'bitmap', path: 'bitmap', offset: index, expected: ALLOWED_WORDS.b, found: charClass(run.bytes[index]) })
    }
    bits = bits << 4 | nibble
  }
  return bits
}

function readFields (run: Run, wordsUsed: number): void {
  const { fields } = run.spec
  let end = wordsUsed
  for (let word = 0; word < end; word++) {
    let bits = words[word]!
    while (bits !== 0) {
      const lead = Math.clz32(bits)
      bits &= ~(0x80000000 >>> lead)
      const number = (word << 5) + lead + 1
      const field = fields[number]
      if (field === undefined) throw refuse(run, unknownField(run, number))
      if (field.kind === BITMAP) {
        end = readThirdBitmap(run)
        continue
      }
      numbers[run.count] = number
      textStarts[run.count] = run.out
      wireStarts[run.count] = run.at
      readValue(run, field, field.lengthDigits === 0 ? field.max : readLength(run, field))
      run.count++
    }
  }
}

function unknownField (run: Run, number: number): IsoFailure {
  const { mti, bitmapIsHex } = run.spec
  const offset = number > 128 ? run.at : mti.bytes + ((number - 1) >> (bitmapIsHex ? 2 : 3))
  return { reason: 'unknown-field', path: String(number), offset, expected: 'fields of this spec', found: 'the bit of another field' }
}

function readThirdBitmap (run: Run): number {
  const offset = run.at
  readBitmap(run, 4)
  if ((words[4]! | words[5]!) === 0 && (run.ease & EASE.emptyBitmap) === 0) throw emptyBitmap(run, offset)
  return 6
}

/** The count that a length prefix says, in units of the field. */
function readLength (run: Run, field: FieldPlan): number {
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

function isLeadingSpace (run: Run, zero: number, index: number, units: number): boolean {
  return (run.ease & EASE.spacedLength) !== 0 && units === 0 && run.bytes[index] === (zero === 0xf0 ? 0x40 : 0x20)
}

function readValue (run: Run, field: FieldPlan, units: number): void {
  const chars = units * field.unitChars
  if (field.kind === CHARS) readChars(run, field, chars)
  else if (field.kind === PACKED) readPacked(run, field, chars)
  else readBytes(run, field, chars)
}

function readChars (run: Run, field: FieldPlan, chars: number): void {
  const { bytes, at, ease } = run
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
function readPacked (run: Run, field: FieldPlan, chars: number): void {
  const { bytes } = run
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

function readOddNibble (run: Run, field: FieldPlan, at: number, pad: number, want: number, nibble: number): number {
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

function readBytes (run: Run, field: FieldPlan, chars: number): void {
  const { bytes } = run
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

/** The message of what has been read so far; used for the result and for `decoded` of a fault. */
function messageOf (run: Run): Message {
  const all = text.toString('latin1', 0, run.out)
  const fields: Record<string, string> = {}
  let end = run.out
  // From the highest number down: V8 then sizes the object once.
  for (let index = run.count - 1; index >= 0; index--) {
    const start = textStarts[index]!
    fields[numbers[index]!] = all.substring(start, end)
    end = start
  }
  return { mti: all.substring(0, 4), fields }
}

function addParts (run: Run, message: Message): void {
  const offsets = new Map<number, number>()
  for (let index = 0; index < run.count; index++) offsets.set(numbers[index]!, wireStarts[index]!)
  for (const number of run.spec.parted) {
    const value = message.fields[number]
    const field = run.spec.fields[number]
    if (value === undefined || field === undefined) continue
    const start = (offsets.get(number) ?? 0) + field.lengthBytes
    message.parts ??= {}
    message.parts[number] = readParts(field, value, { start, ease: run.ease, fail: failure => fault({ ...failure, decoded: message }) })
  }
}

function checkMac (run: Run, message: Message, last: number, start: number, mac: NonNullable<IsoOptions['mac']>): void {
  const field = run.spec.fields[last]
  const failure = { reason: 'mac', path: String(last || 'message'), offset: start, decoded: message } as const
  if (field?.isMac !== true) {
    throw fault({ ...failure, expected: 'a message authentication code as the last field', found: 'none' })
  }
  const given = Buffer.from(message.fields[last] ?? '', 'hex')
  const computed = mac(run.bytes.subarray(0, start))
  if (computed.length !== given.length) throw fault({ ...failure, expected: `${given.length} bytes from the hook`, found: `${computed.length}` })
  if (!timingSafeEqual(given, computed)) throw fault({ ...failure, expected: 'the code of these bytes', found: 'another code' })
}

function truncated (run: Run, path: string, bytes: number): IsoFailure {
  return { reason: 'truncated', path, offset: run.at, expected: `${bytes} bytes`, found: `${run.end - run.at} bytes to the end` }
}

function refuse (run: Run, failure: IsoFailure): Iso8583Error {
  const decoded: Decoded = run.at === 0 ? { fields: {} } : messageOf(run)
  return fault({ ...failure, decoded })
}

function fault (failure: IsoFailure): Iso8583Error {
  return new Iso8583Error('ISO_UNPACK_INVALID', failure)
}
