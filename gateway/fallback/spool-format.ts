// The bytes of the spool. Pure.
//
//   segment   = header[1024] record* (zeros, or what an earlier use left)
//   header    = "SBSPOOL1" || sequence u32 || crc32 u32, at 0 and again at 512: a torn or rotten sector leaves the other
//   record    = length u32 || crc32 u32 || JSON[length]
//   position  = two slots of 512: sequence u32 || offset u32 || turn u32 || crc32 u32; the valid one with the higher turn counts
//
// Numbers are big-endian. The crc of a record starts from the segment's sequence number, so what an earlier use of the same file
// left behind is never taken for a record of this one. A segment that is not the last may end anywhere.
import { crc32 } from 'node:zlib'
import { RECORD_BYTES_MAX } from './records.js'

export const HEADER_BYTES = 1024
export const POSITION_BYTES = 1024
const SLOT_BYTES = 512
const MAGIC = Buffer.from('SBSPOOL1', 'latin1')
const RECORD_HEAD_BYTES = 8
const JSON_START = Buffer.from('{"', 'latin1')

export type Span = { offset: number, length: number }
export type Position = { sequence: number, offset: number }

/** Both copies of a segment's header. */
export function encodeHeader (sequence: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES)
  for (const at of [0, SLOT_BYTES]) {
    MAGIC.copy(bytes, at)
    bytes.writeUInt32BE(sequence, at + 8)
    bytes.writeUInt32BE(crc32(bytes.subarray(at, at + 12)), at + 12)
  }
  return bytes
}

/** The sequence number in a header, the newer one when a crash left two; undefined when neither copy is whole. */
export function decodeHeader (bytes: Buffer): number | undefined {
  const found = [0, SLOT_BYTES]
    .filter(at => bytes.length >= at + 16 && bytes.subarray(at, at + 8).equals(MAGIC) && bytes.readUInt32BE(at + 12) === crc32(bytes.subarray(at, at + 12)))
    .map(at => bytes.readUInt32BE(at + 8))
  return found.length === 0 ? undefined : Math.max(...found)
}

/** Where draining got to, for slot `turn % 2` of the position file. */
export function encodePosition ({ sequence, offset }: Position, turn: number): { bytes: Buffer, at: number } {
  const bytes = Buffer.alloc(16)
  bytes.writeUInt32BE(sequence, 0)
  bytes.writeUInt32BE(offset, 4)
  bytes.writeUInt32BE(turn, 8)
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 12)), 12)
  return { bytes, at: (turn % 2) * SLOT_BYTES }
}

/** The newest whole slot; undefined when there is none, as in a new file. */
export function decodePosition (bytes: Buffer): (Position & { turn: number }) | undefined {
  const slots = [0, SLOT_BYTES].filter(at => bytes.length >= at + 16 && bytes.readUInt32BE(at + 8) > 0 && bytes.readUInt32BE(at + 12) === crc32(bytes.subarray(at, at + 12)))
  const newest = slots.sort((a, b) => bytes.readUInt32BE(b + 8) - bytes.readUInt32BE(a + 8))[0]
  return newest === undefined ? undefined : { sequence: bytes.readUInt32BE(newest), offset: bytes.readUInt32BE(newest + 4), turn: bytes.readUInt32BE(newest + 8) }
}

/** A record as it lies in the segment of this sequence number. */
export function encodeRecord (json: Buffer, sequence: number): Buffer {
  const bytes = Buffer.allocUnsafe(RECORD_HEAD_BYTES + json.length)
  bytes.writeUInt32BE(json.length, 0)
  bytes.writeUInt32BE(crc32(json, sequence), 4)
  json.copy(bytes, RECORD_HEAD_BYTES)
  return bytes
}

/** Bytes that a record with this much JSON takes. */
export function recordBytes (jsonBytes: number): number {
  return RECORD_HEAD_BYTES + jsonBytes
}

/** The JSON of the record at `offset`, undefined when there is no whole record. */
export function decodeRecord (segment: Buffer, offset: number, sequence: number): Buffer | undefined {
  if (offset + RECORD_HEAD_BYTES > segment.length) return undefined
  const length = segment.readUInt32BE(offset)
  const end = offset + RECORD_HEAD_BYTES + length
  if (length === 0 || length > RECORD_BYTES_MAX || end > segment.length) return undefined
  const json = segment.subarray(offset + RECORD_HEAD_BYTES, end)
  return crc32(json, sequence) === segment.readUInt32BE(offset + 4) ? json : undefined
}

/**
 * All whole records from `from` on, and what lies damaged between two of them. What is damaged behind the last one is a torn tail:
 * it was never confirmed to anyone. `tail` is where the next record goes.
 */
export function scanSegment (segment: Buffer, sequence: number, from: number): { records: Span[], damaged: Span[], tail: number } {
  const records: Span[] = []
  const damaged: Span[] = []
  let tail = from
  for (let at: number | undefined = from; at !== undefined; at = nextRecord(segment, sequence, tail)) {
    const first = decodeRecord(segment, at, sequence)
    if (first === undefined) continue
    if (at > tail) damaged.push({ offset: tail, length: at - tail })
    tail = at
    for (let json: Buffer | undefined = first; json !== undefined; json = decodeRecord(segment, tail, sequence)) {
      records.push({ offset: tail, length: recordBytes(json.length) })
      tail += recordBytes(json.length)
    }
  }
  return { records, damaged, tail }
}

/** The next offset after `from` where a whole record starts. */
function nextRecord (segment: Buffer, sequence: number, from: number): number | undefined {
  for (let json = segment.indexOf(JSON_START, from + 1 + RECORD_HEAD_BYTES); json !== -1; json = segment.indexOf(JSON_START, json + 1)) {
    if (decodeRecord(segment, json - RECORD_HEAD_BYTES, sequence) !== undefined) return json - RECORD_HEAD_BYTES
  }
  return undefined
}
