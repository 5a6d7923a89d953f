// The frame of the serial line: how the bytes of one message are told from noise and from each other.
//
//   C0  | version u8 | type u8 | seq u16 | payload 0..1024 bytes | crc32 u32 |  C0        big-endian
//       '------------- every C0 becomes DB DC, every DB becomes DB DD -------'
//
// C0 (END) stands on both sides: the leading one ends whatever noise came before (RFC 1055). crc32 is that of ISO 3309 (zlib) over
// version, type, seq and payload. It finds every single flipped bit and every burst of up to 32 bits. A length field instead of
// delimiters was rejected: a flipped bit in a length swallows the frames that follow it.
import { crc32 } from 'node:zlib'
import { SoundboxError } from './errors.js'

export const FRAME_VERSION = 1
/** One frame fits the receive buffer of a small microcontroller. */
export const PAYLOAD_BYTES_MAX = 1024
const HEAD_BYTES = 4
const CRC_BYTES = 4
export const FRAME_BYTES_MIN = HEAD_BYTES + CRC_BYTES
export const FRAME_BYTES_MAX = FRAME_BYTES_MIN + PAYLOAD_BYTES_MAX
/** The most bytes that one frame can take on the wire: every byte escaped, and two ENDs. */
export const WIRE_BYTES_MAX = 2 * FRAME_BYTES_MAX + 2

const END = 0xc0
const ESC = 0xdb
const ESC_END = 0xdc
const ESC_ESC = 0xdd

export type Frame = { type: number, seq: number, payload: Buffer }
/** `bad`: bytes between two ENDs that are no frame of this version; `bytes` says how many were read. */
export type FrameEvent = { kind: 'frame', frame: Frame } | { kind: 'bad', why: BadFrame, bytes: number }
export type BadFrame = 'short' | 'long' | 'escape' | 'crc' | 'version'

/** Wire bytes of a frame. Throws FRAME_INVALID for a payload over PAYLOAD_BYTES_MAX, a type over 255 or a seq over 65535. */
export function encodeFrame (frame: Frame): Buffer {
  const { type, seq, payload } = frame
  if (payload.length > PAYLOAD_BYTES_MAX) throw new SoundboxError('FRAME_INVALID', `payload of ${payload.length} bytes is over the limit of ${PAYLOAD_BYTES_MAX}`)
  if (!isUnsigned(type, 0xff) || !isUnsigned(seq, 0xffff)) throw new SoundboxError('FRAME_INVALID', 'frame type must fit 8 bits and seq 16')
  const plain = Buffer.allocUnsafe(FRAME_BYTES_MIN + payload.length)
  plain[0] = FRAME_VERSION
  plain[1] = type
  plain.writeUInt16BE(seq, 2)
  payload.copy(plain, HEAD_BYTES)
  plain.writeUInt32BE(crc32(plain.subarray(0, plain.length - CRC_BYTES)), plain.length - CRC_BYTES)
  return escapeBytes(plain)
}

/**
 * A reader of one direction of a line. `push` takes any chunk and returns what it completes, in order; it never throws, holds at most
 * FRAME_BYTES_MAX bytes, and finds the next frame after any garbage. Payloads are copies: the caller may keep them.
 */
export function makeFrameReader (): { push: (chunk: Uint8Array) => FrameEvent[] } {
  const held = Buffer.allocUnsafe(FRAME_BYTES_MAX)
  let length = 0
  let escaped = false
  let fault: BadFrame | undefined

  function endFrame (events: FrameEvent[]): void {
    const why = fault ?? (escaped ? 'escape' : undefined)
    if (why !== undefined) events.push({ kind: 'bad', why, bytes: length })
    else if (length > 0) events.push(eventFromBytes(held.subarray(0, length)))
    length = 0
    escaped = false
    fault = undefined
  }

  function takeByte (byte: number): void {
    if (length === FRAME_BYTES_MAX) fault ??= 'long'
    else held[length++] = byte
  }

  function push (chunk: Uint8Array): FrameEvent[] {
    const events: FrameEvent[] = []
    for (const byte of chunk) {
      if (byte === END) endFrame(events)
      else if (fault !== undefined) continue
      else if (escaped) {
        escaped = false
        if (byte === ESC_END) takeByte(END)
        else if (byte === ESC_ESC) takeByte(ESC)
        else fault = 'escape'
      } else if (byte === ESC) escaped = true
      else takeByte(byte)
    }
    return events
  }

  return { push }
}

function eventFromBytes (bytes: Buffer): FrameEvent {
  if (bytes.length < FRAME_BYTES_MIN) return { kind: 'bad', why: 'short', bytes: bytes.length }
  const body = bytes.subarray(0, bytes.length - CRC_BYTES)
  if (crc32(body) !== bytes.readUInt32BE(body.length)) return { kind: 'bad', why: 'crc', bytes: bytes.length }
  if (bytes[0] !== FRAME_VERSION) return { kind: 'bad', why: 'version', bytes: bytes.length }
  return { kind: 'frame', frame: { type: bytes[1]!, seq: bytes.readUInt16BE(2), payload: Buffer.from(body.subarray(HEAD_BYTES)) } }
}

function escapeBytes (plain: Buffer): Buffer {
  const wire = Buffer.allocUnsafe(2 * plain.length + 2)
  let length = 0
  wire[length++] = END
  for (const byte of plain) {
    if (byte === END || byte === ESC) {
      wire[length++] = ESC
      wire[length++] = byte === END ? ESC_END : ESC_ESC
    } else wire[length++] = byte
  }
  wire[length++] = END
  return wire.subarray(0, length)
}

function isUnsigned (value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max
}
