// One reading of a message: where it is, what it has found, and how it refuses. Values are checked and turned into Latin-1 text in ONE
// shared buffer; at the end one string is made of it and the values are substrings. A substring of 13 or more characters keeps that string
// (one message) alive. No foreign code runs before the text is taken out, so the shared buffer cannot be entered twice.
import { type Decoded, Iso8583Error, type IsoFailure } from './failure.js'
import { FIELD_NUMBER_MAX, type Message, MESSAGE_BYTES_MAX, type Spec } from './plan.js'

/** `at` is the place in the bytes, `out` in the text, `count` the number of fields read. */
export type Reading = { spec: Spec, bytes: Uint8Array, end: number, ease: number, text: Buffer, at: number, out: number, count: number }

/** By index of reading: number of the field, its first byte, its first character. */
export const numbers = new Int32Array(FIELD_NUMBER_MAX)
export const wireStarts = new Int32Array(FIELD_NUMBER_MAX)
export const textStarts = new Int32Array(FIELD_NUMBER_MAX)
let text = Buffer.allocUnsafeSlow(16_384) // Two characters for each byte are enough for any message; grows to 128 KiB at most.

/** A reading at byte 0. `bytes` are at most MESSAGE_BYTES_MAX. */
export function startReading (spec: Spec, bytes: Uint8Array, ease: number): Reading {
  if (text.length < bytes.length * 2 + 4) text = Buffer.allocUnsafeSlow(MESSAGE_BYTES_MAX * 2 + 4)
  return { spec, bytes, end: bytes.length, ease, text, at: 0, out: 0, count: 0 }
}

/** The message of what has been read so far: the result, or `decoded` of a fault. */
export function messageOf (run: Reading): Message {
  const all = run.text.toString('latin1', 0, run.out)
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

/** The fault of bytes that are not there. */
export function truncated (run: Reading, path: string, bytes: number): IsoFailure {
  return { reason: 'truncated', path, offset: run.at, expected: `${bytes} bytes`, found: `${run.end - run.at} bytes to the end` }
}

/** The error to throw for a fault inside the message. */
export function refuse (run: Reading, failure: IsoFailure): Iso8583Error {
  const decoded: Decoded = run.at === 0 ? { fields: {} } : messageOf(run)
  return fault({ ...failure, decoded })
}

/** The error to throw for any fault of unpack. */
export function fault (failure: IsoFailure): Iso8583Error {
  return new Iso8583Error('ISO_UNPACK_INVALID', failure)
}
