// Message -> bytes. The body is written into ONE shared buffer behind room for the longest head; then MTI and bitmaps are put right in
// front of it, for only then it is known whether a second bitmap is there. Values are checked by the same tables that write them.
import { charClass, Iso8583Error, type IsoFailure, type IsoReason, kindOf } from './failure.js'
import type { MacHook } from './mac.js'
import { EASE, easeOf, type IsoOptions } from './options.js'
import { checkParts, fieldsWithParts } from './parts.js'
import { BYTES, CHARS, FIELD_NUMBER_MAX, type FieldPlan, type Message, MESSAGE_BYTES_MAX, PACKED, type Spec, TERTIARY_FIELD } from './plan.js'
import { ALLOWED_WORDS, NIBBLE_OF_ANY_HEX, NIBBLE_OF_HEX } from './tables.js'

const HEAD_BYTES_MAX = 4 + 32
const HEX_CODES = Buffer.from('0123456789ABCDEF')
const words = new Int32Array(FIELD_NUMBER_MAX / 32)
const scratch = Buffer.allocUnsafeSlow(HEAD_BYTES_MAX + MESSAGE_BYTES_MAX)
const SECOND_BITMAP = 0x80000000 | 0

/** One writing; `at` is the place in the shared buffer. */
type Run = { at: number, ease: number, thirdAt: number }

/**
 * The bytes of a message. `fields`: number -> text; field 1 and the third bitmap are made here. `parts` are built in if given.
 * Throws ISO_PACK_INVALID (an Iso8583Error): unknown field, wrong length, character outside the type, or a value that is no text.
 */
export function pack (spec: Spec, message: Message, options?: IsoOptions): Buffer {
  if (typeof message !== 'object' || message === null) throw fault({ reason: 'input', path: 'message', expected: 'an object', found: kindOf(message) })
  const given = message.fields
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw fault({ reason: 'input', path: 'fields', expected: 'an object', found: kindOf(given) })
  }
  const ease = options === undefined ? 0 : easeOf(options, 'ISO_PACK_INVALID')
  let fields = given
  if (message.parts !== undefined) fields = fieldsWithParts(spec, message)
  if (spec.parted.length > 0) checkParts(spec, fields, ease)
  const mac = options?.mac
  if (mac !== undefined) return packWithMac(spec, { mti: message.mti, fields }, ease, mac)
  return packFields(spec, message.mti, fields, ease)
}

function packFields (spec: Spec, mti: string, fields: Record<string, string>, ease: number): Buffer {
  const keys = Object.keys(fields)
  const run: Run = { at: HEAD_BYTES_MAX, ease, thirdAt: -1 }
  words.fill(0)
  for (let index = 0; index < keys.length; index++) {
    const key = keys[index]!
    const field = spec.byKey[key]
    if (field === undefined) throw unknownField(spec, key)
    if (field.number > 64 && run.thirdAt < 0 && spec.tertiary) reserveThirdBitmap(spec, run, keys)
    words[(field.number - 1) >> 5]! |= 0x80000000 >>> ((field.number - 1) & 31)
    writeValue(run, field, fields[key])
  }
  if (run.thirdAt > 0) writeBitmap(spec, run.thirdAt, 4)
  return withHead(spec, mti, run)
}

function unknownField (spec: Spec, key: string): Iso8583Error {
  if (key === '1' || (spec.tertiary && key === String(TERTIARY_FIELD))) {
    return fault({ reason: 'derived-field', path: key, expected: 'no value: the bitmap is made from the fields', found: 'one' })
  }
  const path = /^\d{1,3}$/.test(key) ? key : 'fields'
  return fault({ reason: 'unknown-field', path, expected: 'numbers of fields of this spec', found: 'another key' })
}

/** Field 65 stands before the fields above 64; it is there if one above 128 is. */
function reserveThirdBitmap (spec: Spec, run: Run, keys: readonly string[]): void {
  run.thirdAt = 0
  if (!keys.some(key => spec.byKey[key] !== undefined && Number(key) > 128)) return
  words[2]! |= SECOND_BITMAP
  run.thirdAt = run.at
  run.at += spec.bitmapBytes
}

/** The code covers every byte before it, so it is computed on the finished message and written over its place. */
function packWithMac (spec: Spec, message: { mti: string, fields: Record<string, string> }, ease: number, mac: MacHook): Buffer {
  const others = Object.keys(message.fields).filter(key => spec.byKey[key]?.isMac !== true)
  const highest = Math.max(0, ...others.map(Number).filter(Number.isInteger))
  const number = highest > 128 ? 192 : highest > 64 || spec.secondaryAlways ? 128 : 64
  const field = spec.byKey[number]
  const failure = { reason: 'mac', path: String(number) } as const
  if (field?.isMac !== true) throw fault({ ...failure, expected: 'a field for the message authentication code', found: 'none in this spec' })
  const fields = Object.fromEntries(others.map(key => [key, message.fields[key]!]))
  const size = field.max * field.unitChars / 2
  fields[number] = '00'.repeat(size)
  const bytes = packFields(spec, message.mti, fields, ease)
  const start = bytes.length - (field.kind === BYTES ? size : size * 2)
  const code = mac(bytes.subarray(0, start))
  if (!(code instanceof Uint8Array) || code.length !== size) {
    throw fault({ ...failure, expected: `${size} bytes from the hook`, found: code instanceof Uint8Array ? `${code.length}` : kindOf(code) })
  }
  if (field.kind === BYTES) bytes.set(code, start)
  else bytes.write(Buffer.from(code).toString('hex').toUpperCase(), start, 'latin1')
  return bytes
}

function withHead (spec: Spec, mti: string, run: Run): Buffer {
  const hasSecond = spec.secondaryAlways || (words[2]! | words[3]!) !== 0
  const start = HEAD_BYTES_MAX - spec.mti.bytes - spec.bitmapBytes * (hasSecond ? 2 : 1)
  if (run.at - start > MESSAGE_BYTES_MAX) throw tooLong('message', run.at - start)
  writeMti(spec, mti, start, run.ease)
  if (hasSecond) {
    words[0]! |= SECOND_BITMAP
    writeBitmap(spec, start + spec.mti.bytes + spec.bitmapBytes, 2)
  }
  writeBitmap(spec, start + spec.mti.bytes, 0)
  const bytes = Buffer.allocUnsafe(run.at - start)
  scratch.copy(bytes, 0, start, run.at)
  return bytes
}

function writeMti (spec: Spec, mti: string, start: number, ease: number): void {
  const wrong = (found: string): Iso8583Error => fault({ reason: 'mti', path: 'mti', expected: 'four digits', found })
  if (typeof mti !== 'string') throw wrong(kindOf(mti))
  if (mti.length !== 4) throw wrong(`${mti.length} characters`)
  const { isPacked, digits, versions } = spec.mti
  for (let index = 0; index < 4; index++) {
    const code = mti.charCodeAt(index)
    if (code < 0x30 || code > 0x39) throw wrong(charClass(code))
    if (!isPacked) scratch[start + index] = digits.toWire[code]!
    else if ((index & 1) === 0) scratch[start + (index >> 1)] = (code - 0x30) << 4 | (mti.charCodeAt(index + 1) & 15)
  }
  if (versions !== '' && !versions.includes(mti.charAt(0)) && (ease & EASE.anyMti) === 0) {
    throw fault({ reason: 'mti', path: 'mti', expected: 'a version of this spec', found: 'another version' })
  }
}

function writeBitmap (spec: Spec, at: number, word: number): void {
  let place = at
  for (let index = word; index < word + 2; index++) {
    const bits = words[index]!
    if (spec.bitmapIsHex) for (let shift = 28; shift >= 0; shift -= 4) scratch[place++] = HEX_CODES[bits >>> shift & 15]!
    else for (let shift = 24; shift >= 0; shift -= 8) scratch[place++] = bits >>> shift & 255
  }
}

function writeValue (run: Run, field: FieldPlan, given: unknown): void {
  if (typeof given !== 'string') throw refuse(field, 'input', 'a text', kindOf(given))
  let value = given
  if (field.isHex && (value.length & 1) !== 0) throw refuse(field, 'wrong-length', 'an even number of hex characters', `${value.length}`)
  let units = field.unitChars === 1 ? value.length : value.length >> 1
  if (field.lengthDigits === 0) {
    if (units !== field.max) {
      value = padded(run, field, value)
      units = field.max
    }
  } else {
    const max = (run.ease & EASE.overLong) === 0 ? field.max : field.prefixMax
    if (units > max) throw refuse(field, 'over-long', `a length up to ${max}`, `length ${units}`)
  }
  if (run.at + value.length + field.lengthBytes > scratch.length) throw tooLong(field.path, run.at + value.length)
  if (field.lengthDigits !== 0) writeLength(run, field, units)
  if (field.kind === CHARS) writeChars(run, field, value)
  else if (field.kind === PACKED) writePacked(run, field, value)
  else writeBytes(run, field, value)
}

/** A fixed value of the wrong length: refused, or filled up with the leniency `shortFixed`. */
function padded (run: Run, field: FieldPlan, value: string): string {
  const chars = field.max * field.unitChars
  if ((run.ease & EASE.shortFixed) === 0 || value.length > chars || field.isHex || field.isSigned || field.type === 'z') {
    throw refuse(field, 'wrong-length', `length ${chars}`, `length ${value.length}`)
  }
  return field.type === 'n' ? value.padStart(chars, '0') : value.padEnd(chars, ' ')
}

function writeLength (run: Run, field: FieldPlan, units: number): void {
  let rest = units
  for (let at = run.at + field.lengthBytes - 1; at >= run.at; at--) {
    if (field.lengthZero < 0) {
      scratch[at] = Math.trunc(rest / 10) % 10 << 4 | rest % 10
      rest = Math.trunc(rest / 100)
    } else {
      scratch[at] = field.lengthZero + rest % 10
      rest = Math.trunc(rest / 10)
    }
  }
  run.at += field.lengthBytes
}

function writeChars (run: Run, field: FieldPlan, value: string): void {
  const loose = run.ease !== 0 && (run.ease & (field.isHex ? EASE.lowerHex : EASE.anyCharacter)) !== 0
  const table = loose ? field.looseTables.toWire : field.tables.toWire
  const { at } = run
  let index = 0
  if (field.isSigned && !loose && value.length > 0) {
    const code = value.charCodeAt(0)
    const byte = code > 255 ? -1 : field.signTables.toWire[code]!
    if (byte < 0) throw refuse(field, 'character', ALLOWED_WORDS.sign, charClass(code))
    scratch[at] = byte
    index = 1
  }
  for (; index < value.length; index++) {
    const code = value.charCodeAt(index)
    const byte = code > 255 ? -1 : table[code]!
    if (byte < 0) throw refuse(field, 'character', ALLOWED_WORDS[field.type], charClass(code))
    scratch[at + index] = byte
  }
  run.at = at + value.length
}

/** Two digits a byte; an odd number of digits gets one pad nibble. */
function writePacked (run: Run, field: FieldPlan, value: string): void {
  const { length } = value
  let { at } = run
  let index = 0
  if ((length & 1) !== 0 && !field.padRight) scratch[at++] = nibbleAt(run, field, value, index++)
  for (; index + 1 < length; index += 2) {
    scratch[at++] = nibbleAt(run, field, value, index) << 4 | nibbleAt(run, field, value, index + 1)
  }
  if (index < length) scratch[at++] = nibbleAt(run, field, value, index) << 4 | 15
  run.at = at
}

function nibbleAt (run: Run, field: FieldPlan, value: string, index: number): number {
  const code = value.charCodeAt(index)
  const nibble = code > 255 ? -1 : field.nibbles[code]!
  if (nibble >= 0) return nibble
  if (code === 0x3d && field.type === 'z' && (run.ease & EASE.trackEquals) !== 0) return 13
  const loose = (run.ease & EASE.anyNibble) !== 0 && code < 256 ? NIBBLE_OF_HEX[code]! : -1
  if (loose >= 0) return loose
  throw refuse(field, 'character', field.type === 'z' ? 'a digit or the separator D' : ALLOWED_WORDS.n, charClass(code))
}

function writeBytes (run: Run, field: FieldPlan, value: string): void {
  const nibbles = run.ease !== 0 && (run.ease & EASE.lowerHex) !== 0 ? NIBBLE_OF_ANY_HEX : NIBBLE_OF_HEX
  let { at } = run
  for (let index = 0; index < value.length; index += 2) {
    const high = value.charCodeAt(index)
    const low = value.charCodeAt(index + 1)
    const byte = high > 255 || low > 255 ? -1 : nibbles[high]! << 4 | nibbles[low]!
    if (byte < 0) throw refuse(field, 'character', ALLOWED_WORDS.b, charClass(high < 256 && nibbles[high]! >= 0 ? low : high))
    scratch[at++] = byte
  }
  run.at = at
}

function tooLong (path: string, bytes: number): Iso8583Error {
  return fault({ reason: 'over-long', path, expected: `a message of at most ${MESSAGE_BYTES_MAX} bytes`, found: `${bytes} or more` })
}

function refuse (field: FieldPlan, reason: IsoReason, expected: string, found: string): Iso8583Error {
  return fault({ reason, path: field.path, expected, found })
}

function fault (failure: IsoFailure): Iso8583Error {
  return new Iso8583Error('ISO_PACK_INVALID', failure)
}
