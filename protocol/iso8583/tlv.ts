// BER-TLV as EMV uses it in DE 55 (ISO/IEC 8825-1 8.1, EMV book 3 annex B).
//
//   tag:    first byte; if its low five bits are all ones, more bytes follow while bit 8 is set (9F26, DF8101)
//   length: 00-7F itself; 81 LL, 82 LLLL, 83 LLLLLL the length in 1, 2 or 3 bytes; the indefinite form (80) is refused
//   value:  a tag whose first byte has bit 6 set (70, 77, E1) holds further objects
//
// Unknown tags are kept, the order is kept. Lengths must be in their shortest form, so that reading and writing give the same bytes.
import { type IsoFailure, Iso8583Error, charClass, kindOf } from './failure.js'
import { EASE } from './options.js'
import type { TlvItem } from './plan.js'

export const TLV_TAG_BYTES_MAX = 4
export const TLV_LENGTH_BYTES_MAX = 3
export const TLV_DEPTH_MAX = 8
const NOT_HEX = /[^0-9A-F]/
const HEX_WORDS = 'upper-case hex digits in pairs'

/** Where the bytes come from: offset of the first one in the message, message bytes for each of them, and how a fault is thrown. */
export type TlvSource = { path: string, start: number, scale: number, ease: number, fail: (failure: IsoFailure) => Error }

type Reader = TlvSource & { bytes: Uint8Array, at: number }

/** The objects in upper-case hex text such as the value of field 55. Throws ISO_UNPACK_INVALID. */
export function parseTlv (hex: string): TlvItem[] {
  const fail = (failure: IsoFailure): Error => new Iso8583Error('ISO_UNPACK_INVALID', failure)
  if (typeof hex !== 'string' || !isHex(hex)) throw fail({ reason: 'tlv', path: 'tlv', expected: HEX_WORDS, found: hexFault(hex) })
  return readTlv(Buffer.from(hex, 'hex'), { path: 'tlv', start: 0, scale: 1, ease: 0, fail })
}

/** The hex text of objects. Throws ISO_PACK_INVALID. */
export function formatTlv (items: readonly TlvItem[]): string {
  return writeTlv(items, 'tlv', 1)
}

/** The objects in `bytes`; faults are thrown through `source.fail` with the path `55.9F26`. */
export function readTlv (bytes: Uint8Array, source: TlvSource): TlvItem[] {
  return readItems({ ...source, bytes, at: 0 }, bytes.length, source.path, 1)
}

function readItems (reader: Reader, end: number, path: string, depth: number): TlvItem[] {
  if (depth > TLV_DEPTH_MAX) throw wrong(reader, path, `at most ${TLV_DEPTH_MAX} levels`, 'one more')
  const items: TlvItem[] = []
  while (reader.at < end) {
    if (isPadding(reader)) {
      reader.at++
      continue
    }
    const isConstructed = (reader.bytes[reader.at]! & 0x20) !== 0
    const tag = readTag(reader, end, path)
    const at = `${path}.${tag}`
    const length = readTlvLength(reader, end, at)
    if (length > end - reader.at) throw wrong(reader, at, `${length} bytes`, `${end - reader.at} bytes to the end`)
    const next = reader.at + length
    if (isConstructed) items.push({ tag, items: readItems(reader, next, at, depth + 1) })
    else items.push({ tag, value: hexOf(reader.bytes.subarray(reader.at, next)) })
    reader.at = next
  }
  return items
}

function isPadding (reader: Reader): boolean {
  const byte = reader.bytes[reader.at]
  return (reader.ease & EASE.tlvPadding) !== 0 && (byte === 0x00 || byte === 0xff)
}

function readTag (reader: Reader, end: number, path: string): string {
  const { bytes, at } = reader
  if (bytes[at] === 0x00 || bytes[at] === 0xff) throw wrong(reader, path, 'a tag', 'padding')
  let next = at + 1
  if ((bytes[at]! & 0x1f) === 0x1f) {
    do {
      if (next >= end) throw wrong(reader, path, 'another byte of the tag', 'the end')
      if (next - at >= TLV_TAG_BYTES_MAX) throw wrong(reader, path, `a tag of at most ${TLV_TAG_BYTES_MAX} bytes`, 'a longer one')
    } while ((bytes[next++]! & 0x80) !== 0)
  }
  reader.at = next
  return hexOf(bytes.subarray(at, next))
}

function readTlvLength (reader: Reader, end: number, path: string): number {
  const { bytes, at } = reader
  if (at >= end) throw wrong(reader, path, 'a length', 'the end')
  const first = bytes[at]!
  reader.at++
  if (first < 0x80) return first
  const count = first & 0x7f
  if (count === 0 || count > TLV_LENGTH_BYTES_MAX) throw wrong(reader, path, `a length of at most ${TLV_LENGTH_BYTES_MAX} bytes`, 'another form')
  if (count > end - reader.at) throw wrong(reader, path, `${count} bytes of length`, 'the end')
  let length = 0
  for (let index = 0; index < count; index++) length = length << 8 | bytes[reader.at++]!
  const isShortest = length > (count === 1 ? 0x7f : 2 ** (8 * (count - 1)) - 1)
  if (!isShortest && (reader.ease & EASE.longTlvLength) === 0) throw wrong(reader, path, 'a length in its shortest form', 'a longer form')
  return length
}

function wrong (reader: Reader, path: string, expected: string, found: string): Error {
  return reader.fail({ reason: 'tlv', path, offset: reader.start + reader.at * reader.scale, expected, found })
}

function hexOf (bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex').toUpperCase()
}

/** The hex text of objects below `path`. Throws ISO_PACK_INVALID. */
export function writeTlv (items: readonly TlvItem[], path: string, depth = 1): string {
  if (!Array.isArray(items)) throw bad(path, 'a list of TLV objects', kindOf(items))
  if (depth > TLV_DEPTH_MAX) throw bad(path, `at most ${TLV_DEPTH_MAX} levels`, 'one more')
  return items.map((item: TlvItem, index) => {
    if (typeof item !== 'object' || item === null) throw bad(`${path}.${index}`, 'a TLV object', kindOf(item))
    if (!isTag(item.tag)) throw bad(`${path}.${index}`, `a tag of 1 to ${TLV_TAG_BYTES_MAX} bytes in upper-case hex`, 'another text')
    const value = writeValue(item, `${path}.${item.tag}`, depth)
    return item.tag + lengthHex(value.length / 2, `${path}.${item.tag}`) + value
  }).join('')
}

function writeValue (item: TlvItem, path: string, depth: number): string {
  const isConstructed = (Number.parseInt(item.tag.slice(0, 2), 16) & 0x20) !== 0
  if ('items' in item) {
    if (!isConstructed || 'value' in item) throw bad(path, 'a value: the tag is primitive', 'items')
    return writeTlv(item.items, path, depth + 1)
  }
  if (isConstructed) throw bad(path, 'items: the tag is constructed', 'a value')
  if (typeof item.value !== 'string' || !isHex(item.value)) throw bad(path, HEX_WORDS, hexFault(item.value))
  return item.value
}

function isHex (text: string): boolean {
  return text.length % 2 === 0 && !NOT_HEX.test(text)
}

function hexFault (value: unknown): string {
  if (typeof value !== 'string') return kindOf(value)
  const wrongOne = NOT_HEX.exec(value)
  return wrongOne === null ? 'an odd number of digits' : charClass(value.charCodeAt(wrongOne.index))
}

/** True if the text is exactly one tag: reading it would take all of it and no more. */
function isTag (tag: unknown): tag is string {
  if (typeof tag !== 'string' || tag === '' || !isHex(tag) || tag.length > TLV_TAG_BYTES_MAX * 2) return false
  const bytes = Buffer.from(tag, 'hex')
  if (bytes[0] === 0x00 || bytes[0] === 0xff) return false
  if ((bytes[0]! & 0x1f) !== 0x1f) return bytes.length === 1
  return bytes.length > 1 && bytes.subarray(1).every((byte, index) => (byte & 0x80) !== 0 === index < bytes.length - 2)
}

function lengthHex (length: number, path: string): string {
  if (length < 0x80) return upperHex(length, 1)
  for (let count = 1; count <= TLV_LENGTH_BYTES_MAX; count++) {
    if (length < 2 ** (8 * count)) return upperHex(0x80 + count, 1) + upperHex(length, count)
  }
  throw bad(path, `a length of at most ${TLV_LENGTH_BYTES_MAX} bytes`, 'a longer value')
}

function upperHex (value: number, bytes: number): string {
  return value.toString(16).toUpperCase().padStart(bytes * 2, '0')
}

function bad (path: string, expected: string, found: string): Iso8583Error {
  return new Iso8583Error('ISO_PACK_INVALID', { reason: 'tlv', path, expected, found })
}
