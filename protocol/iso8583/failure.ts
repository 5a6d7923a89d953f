// What a refusal of this codec says: where, what was expected, and of which class the found thing is. Never a value: a message that cannot
// be read may still hold a card number, so text and properties name classes, counts and offsets only. What was decoded before the fault
// hangs on the error as a property that JSON, pino and util.inspect do not see.
import { SoundboxError } from '../errors.js'

/** Every reason there is. `spec` goes with ISO_SPEC_INVALID, the others with ISO_PACK_INVALID and ISO_UNPACK_INVALID. */
export const ISO_REASONS = [
  'spec', 'input', 'mti', 'bitmap', 'unknown-field', 'derived-field', 'truncated', 'length-digits', 'over-long', 'wrong-length', 'character',
  'nibble', 'pad', 'trailing-bytes', 'empty-bitmap', 'tlv', 'subfield', 'conflict', 'mac'
] as const
export type IsoReason = typeof ISO_REASONS[number]
export type IsoErrorCode = 'ISO_SPEC_INVALID' | 'ISO_PACK_INVALID' | 'ISO_UNPACK_INVALID'

/** What had been read when the fault was met. Holds real values: not for logs. */
export type Decoded = { mti?: string, fields: Record<string, string> }

export type IsoFailure = {
  reason: IsoReason
  /** `mti`, `bitmap`, `2`, `55.9F26`, `48.terminal`, or a path into the spec such as `fields.2.max`. */
  path: string
  /** Byte offset in the message; absent where there are no bytes yet (pack, spec). */
  offset?: number
  expected: string
  found: string
  decoded?: Decoded
}

/** The one error of the codec. `message`, `path`, `offset`, `expected` and `found` are safe to log; `decoded` is not, and is not enumerable. */
export class Iso8583Error extends SoundboxError {
  readonly reason: IsoReason
  readonly path: string
  readonly offset: number | undefined
  readonly expected: string
  readonly found: string
  declare readonly decoded: Decoded | undefined

  constructor (code: IsoErrorCode, failure: IsoFailure) {
    const where = failure.offset === undefined ? failure.path : `${failure.path} at byte ${failure.offset}`
    super(code, `${failure.reason}: ${where}: expected ${failure.expected}, found ${failure.found}`)
    this.name = 'Iso8583Error'
    this.reason = failure.reason
    this.path = failure.path
    this.offset = failure.offset
    this.expected = failure.expected
    this.found = failure.found
    Object.defineProperty(this, 'decoded', { value: failure.decoded, enumerable: false })
  }
}

/** The class of a character code, in words for `found`. */
export function charClass (code: number | undefined): string {
  if (code === undefined) return 'the end'
  if (code >= 0x30 && code <= 0x39) return 'a digit'
  if (code >= 0x41 && code <= 0x5a) return 'an upper-case letter'
  if (code >= 0x61 && code <= 0x7a) return 'a lower-case letter'
  if (code === 0x20) return 'a space'
  if (code < 0x20 || code === 0x7f) return 'a control character'
  return code < 0x7f ? 'a special character' : 'a character beyond ASCII'
}

/** The class of a byte that should hold two BCD digits. */
export function nibbleClass (byte: number): string {
  const letters = Number(byte >> 4 > 9) + Number((byte & 15) > 9)
  return letters === 0 ? 'two digits' : `${letters === 1 ? 'a nibble' : 'two nibbles'} above 9`
}

/** The kind of a JavaScript value that should have been something else. */
export function kindOf (value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'an array' : typeof value
}
