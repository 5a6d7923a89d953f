// Bytes -> message: MTI, one to three bitmaps, the fields whose bits are set, nothing after them.
//
//   0200 | 7238…0000 [8000…0001] | field | field | … |        field = [length prefix] value
import { timingSafeEqual } from 'node:crypto'
import { charClass, type Iso8583Error, type IsoFailure, kindOf, nibbleClass } from './failure.js'
import { EASE, easeOf, type IsoOptions } from './options.js'
import { readParts } from './parts.js'
import { BITMAP, FIELD_NUMBER_MAX, type Message, MESSAGE_BYTES_MAX, type Spec } from './plan.js'
import { readLength, readValue } from './read-value.js'
import { fault, messageOf, numbers, type Reading, refuse, startReading, textStarts, truncated, wireStarts } from './reading.js'
import { ALLOWED_WORDS, ANY_HEX, NIBBLE_OF_HEX, PAIR_OF_DIGITS, PAIR_OF_HEX } from './tables.js'

const words = new Int32Array(FIELD_NUMBER_MAX / 32)

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
  const run = startReading(spec, bytes, ease)
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

function readMti (run: Reading): void {
  const { mti } = run.spec
  const { bytes, text } = run
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
function readBitmaps (run: Reading): number {
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

function emptyBitmap (run: Reading, offset: number): Iso8583Error {
  return refuse(run, { reason: 'empty-bitmap', path: 'bitmap', offset, expected: 'a field in the further bitmap', found: 'none' })
}

/** Reads 64 bits at run.at into two words. */
function readBitmap (run: Reading, word: number): void {
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

function readHexWord (run: Reading, at: number): number {
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

function readFields (run: Reading, wordsUsed: number): void {
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

function unknownField (run: Reading, number: number): IsoFailure {
  const { mti, bitmapIsHex } = run.spec
  const offset = number > 128 ? run.at : mti.bytes + ((number - 1) >> (bitmapIsHex ? 2 : 3))
  return { reason: 'unknown-field', path: String(number), offset, expected: 'fields of this spec', found: 'the bit of another field' }
}

function readThirdBitmap (run: Reading): number {
  const offset = run.at
  readBitmap(run, 4)
  if ((words[4]! | words[5]!) === 0 && (run.ease & EASE.emptyBitmap) === 0) throw emptyBitmap(run, offset)
  return 6
}

function addParts (run: Reading, message: Message): void {
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

function checkMac (run: Reading, message: Message, last: number, start: number, mac: NonNullable<IsoOptions['mac']>): void {
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
