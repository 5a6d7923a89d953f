// Where one message ends and the next begins on a TCP stream.
//
//   [length] [header] message      length: 2 bytes big-endian (the default), 2 bytes BCD, 4 ASCII digits, or 4 bytes big-endian
//                                  counts header and message, with `inclusive` itself too
//   header: none, fixed bytes, or a TPDU: 60 | destination[2] | origin[2]; an answer swaps the two
//
// A length over the limit is refused when it is read, before anything is buffered. There is no way to find the next frame in a stream
// whose lengths are wrong, so the first error is the last event: close the connection.
import { SoundboxError } from '../errors.js'

/** Header and message of one frame, by default. */
export const FRAME_BYTES_MAX = 8192
export const HEADER_BYTES_MAX = 64
export const TPDU_BYTES = 5
const TPDU_ID = 0x60

const PREFIXES = {
  binary2: { bytes: 2, max: 0xffff },
  bcd2: { bytes: 2, max: 9999 },
  ascii4: { bytes: 4, max: 9999 },
  binary4: { bytes: 4, max: 0xffff_ffff }
} as const
export type PrefixKind = keyof typeof PREFIXES

export type FramingJson = {
  /** Default binary2. */
  prefix?: PrefixKind
  /** The length counts its own bytes. */
  inclusive?: boolean
  /** `hex`: the bytes to send; a received fixed header must be the same, a received TPDU must only be one. */
  header?: { kind: 'fixed' | 'tpdu', hex: string }
  /** A frame of no bytes is a sign of life; without this an error. */
  keepAlive?: boolean
  /** Header and message together, 1 to 65535; default 8192. */
  frameBytesMax?: number
}

/** Made by `compileFraming`. */
export type Framing = {
  readonly prefix: PrefixKind
  readonly prefixBytes: number
  /** What the length counts beyond header and message. */
  readonly counted: number
  readonly header: Buffer
  readonly isTpdu: boolean
  readonly keepAlive: boolean
  readonly frameBytesMax: number
}

export type FrameEvent =
  | { kind: 'frame', payload: Buffer, header: Buffer }
  | { kind: 'keep-alive' }
  | { kind: 'error', error: SoundboxError }

/** Reads a byte stream in any chunks. */
export type FrameReader = {
  /** Events that this chunk completes. Never throws on bytes. Payloads may be views of the chunk: do not reuse its memory. */
  push: (chunk: Uint8Array) => FrameEvent[]
  /** Bytes of an unfinished frame: while above 0, a time-out on the rest is in order. */
  pendingBytes: () => number
}

/** Checks the words of a framing. Throws CONFIG_INVALID naming the wrong one. */
export function compileFraming (json: FramingJson = {}): Framing {
  const wrong = (why: string): SoundboxError => new SoundboxError('CONFIG_INVALID', `framing: ${why}`)
  const prefix = json.prefix ?? 'binary2'
  if (!Object.hasOwn(PREFIXES, prefix)) throw wrong(`prefix must be one of ${Object.keys(PREFIXES).join(', ')}`)
  const { bytes: prefixBytes, max } = PREFIXES[prefix]
  const counted = json.inclusive === true ? prefixBytes : 0
  const frameBytesMax = json.frameBytesMax ?? FRAME_BYTES_MAX
  const most = Math.min(65_535, max - counted)
  if (!Number.isInteger(frameBytesMax) || frameBytesMax < 1 || frameBytesMax > most) throw wrong(`frameBytesMax must be 1 to ${most} with ${prefix}`)
  const hex = json.header?.hex ?? ''
  if (!/^(?:[0-9A-Fa-f]{2})*$/.test(hex) || hex.length > HEADER_BYTES_MAX * 2) throw wrong(`header.hex must be up to ${HEADER_BYTES_MAX} bytes of hex`)
  const header = Buffer.from(hex, 'hex')
  const isTpdu = json.header?.kind === 'tpdu'
  if (json.header !== undefined && !isTpdu && (json.header.kind !== 'fixed' || header.length === 0)) throw wrong('header must be fixed bytes or a tpdu')
  if (isTpdu && (header.length !== TPDU_BYTES || header[0] !== TPDU_ID)) throw wrong('a tpdu is 5 bytes that begin with 60')
  if (header.length >= frameBytesMax) throw wrong('the header leaves no room for a message')
  return { prefix, prefixBytes, counted, header, isTpdu, keepAlive: json.keepAlive === true, frameBytesMax }
}

/**
 * One frame around a message. `header` replaces the TPDU of the framing, for answers (see `answerTpdu`).
 * Throws ISO_FRAME_INVALID for an empty message, one over the limit, and a header that does not fit the framing.
 */
export function encodeFrame (framing: Framing, payload: Uint8Array, header: Uint8Array = framing.header): Buffer {
  if (payload.length === 0) throw frameError('a frame needs a message')
  if (headerFault(framing, header) !== undefined) throw frameError('the header is not one of this framing')
  const body = header.length + payload.length
  if (body > framing.frameBytesMax) throw frameError(`a frame holds at most ${framing.frameBytesMax} bytes, this one ${body}`)
  const bytes = Buffer.allocUnsafe(framing.prefixBytes + body)
  writePrefix(bytes, framing.prefix, body + framing.counted)
  bytes.set(header, framing.prefixBytes)
  bytes.set(payload, framing.prefixBytes + header.length)
  return bytes
}

/** The frame of no bytes that says "still here". Throws ISO_FRAME_INVALID if the framing has no keep-alive. */
export function encodeKeepAlive (framing: Framing): Buffer {
  if (!framing.keepAlive) throw frameError('this framing has no keep-alive')
  const bytes = Buffer.alloc(framing.prefixBytes)
  writePrefix(bytes, framing.prefix, framing.counted)
  return bytes
}

/** The TPDU of the answer: destination and origin change places. Any other header is returned as it is. */
export function answerTpdu (framing: Framing, header: Uint8Array): Buffer {
  const bytes = Buffer.from(header)
  return framing.isTpdu && bytes.length === TPDU_BYTES ? Buffer.concat([bytes.subarray(0, 1), bytes.subarray(3), bytes.subarray(1, 3)]) : bytes
}

/** A reader for one connection. Holds at most one frame within the limit; after an error it is dead and answers nothing. */
export function openFrameReader (framing: Framing): FrameReader {
  const { prefixBytes } = framing
  const prefix = Buffer.alloc(prefixBytes)
  let prefixAt = 0
  let body: Buffer | undefined // The frame that a chunk began and did not end.
  let bodyAt = 0
  let isDead = false

  /** Takes from the chunk at `at` and answers the next place; adds at most one event. */
  function step (chunk: Buffer, at: number, events: FrameEvent[]): number {
    if (body === undefined) {
      while (prefixAt < prefixBytes && at < chunk.length) prefix[prefixAt++] = chunk[at++]!
      if (prefixAt < prefixBytes) return at
      const length = bodyLength(framing, prefix)
      if (typeof length !== 'number') return die(length, at, events)
      if (length === 0) events.push({ kind: 'keep-alive' })
      else if (chunk.length - at >= length) return finish(chunk.subarray(at, at + length), at + length, events)
      else body = Buffer.allocUnsafeSlow(length)
      if (length === 0) prefixAt = 0
      return at
    }
    const taken = Math.min(body.length - bodyAt, chunk.length - at)
    body.set(chunk.subarray(at, at + taken), bodyAt)
    bodyAt += taken
    return bodyAt < body.length ? at + taken : finish(body, at + taken, events)
  }

  function finish (frame: Buffer, next: number, events: FrameEvent[]): number {
    prefixAt = 0
    bodyAt = 0
    body = undefined
    const header = frame.subarray(0, framing.header.length)
    const fault = headerFault(framing, header)
    if (fault !== undefined) return die(fault, next, events)
    events.push({ kind: 'frame', payload: frame.subarray(header.length), header })
    return next
  }

  function die (why: string, at: number, events: FrameEvent[]): number {
    isDead = true
    prefixAt = 0
    events.push({ kind: 'error', error: frameError(why) })
    return at
  }

  return {
    push: chunk => {
      const events: FrameEvent[] = []
      const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
      for (let at = 0; at < bytes.length && !isDead;) at = step(bytes, at, events)
      return events
    },
    pendingBytes: () => prefixAt + bodyAt
  }
}

/** Bytes of header and message that follow a prefix; 0 = keep-alive; a text says what is wrong. */
function bodyLength (framing: Framing, prefix: Buffer): number | string {
  const value = readPrefix(prefix, framing.prefix)
  if (value === undefined) return 'the length is not made of digits'
  const length = value - framing.counted
  if (length < 0) return 'the length is smaller than its own bytes'
  if (length > framing.frameBytesMax) return `the length says ${length} bytes, the limit is ${framing.frameBytesMax}`
  if (length === 0) return framing.keepAlive ? 0 : 'a frame of no bytes, and this framing has no keep-alive'
  return length > framing.header.length ? length : 'a frame without a message'
}

function headerFault (framing: Framing, header: Uint8Array): string | undefined {
  if (header.length !== framing.header.length) return 'the header has another length'
  if (framing.isTpdu) return header[0] === TPDU_ID ? undefined : 'the header is no TPDU'
  return framing.header.equals(header) ? undefined : 'the header is not the one of this framing'
}

function readPrefix (prefix: Buffer, kind: PrefixKind): number | undefined {
  switch (kind) {
    case 'binary2': return prefix.readUInt16BE(0)
    case 'binary4': return prefix.readUInt32BE(0)
    case 'bcd2': return decimal(prefix.toString('hex'))
    case 'ascii4': return decimal(prefix.toString('latin1'))
    default: return kind satisfies never
  }
}

function decimal (digits: string): number | undefined {
  return /^\d{4}$/.test(digits) ? Number(digits) : undefined
}

function writePrefix (bytes: Buffer, kind: PrefixKind, length: number): void {
  switch (kind) {
    case 'binary2': bytes.writeUInt16BE(length, 0); break
    case 'binary4': bytes.writeUInt32BE(length, 0); break
    case 'bcd2': bytes.write(String(length).padStart(4, '0'), 0, 'hex'); break
    case 'ascii4': bytes.write(String(length).padStart(4, '0'), 0, 'latin1'); break
    default: kind satisfies never
  }
}

function frameError (why: string): SoundboxError {
  return new SoundboxError('ISO_FRAME_INVALID', why)
}
