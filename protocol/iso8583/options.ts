// Leniencies: each is a named switch, off by default, given as the third argument of pack or unpack. With none of them a buffer that
// unpack accepts is byte for byte what pack makes of the result; each switch gives that up in one named way.
import { type IsoErrorCode, Iso8583Error, kindOf } from './failure.js'
import type { MacHook } from './mac.js'

/** name -> bit, so that the hot path tests one number. */
export const EASE = {
  /** unpack: bytes after the last field are ignored. */
  trailingBytes: 1,
  /** both: a variable field may be longer than `max`, up to what the digits of its prefix can say. */
  overLong: 2,
  /** unpack: leading spaces in an ASCII or EBCDIC length prefix count as zeros. */
  spacedLength: 4,
  /** both: text fields may hold any one-byte character, whatever their type; hex and packed fields stay checked. */
  anyCharacter: 8,
  /** both: packed digits may hold the nibbles A to F, shown as letters. */
  anyNibble: 16,
  /** unpack: the pad nibble of a packed field of odd length may be anything. */
  anyPad: 32,
  /** both: lower-case hex in the bitmap and in binary fields; unpack shows upper case. */
  lowerHex: 64,
  /** unpack: a second or third bitmap without a field. */
  emptyBitmap: 128,
  /** both: an MTI of another version; unpack: four characters that are no digits. */
  anyMti: 256,
  /** pack: a fixed field may be shorter: numbers get zeros on the left, text gets spaces on the right. */
  shortFixed: 512,
  /** pack: the separator `=` of a packed track is written as the nibble D. */
  trackEquals: 1024,
  /** both: a TLV length in more bytes than it needs. */
  longTlvLength: 2048,
  /** both: bytes 00 and FF between TLV objects are skipped. */
  tlvPadding: 4096
} as const
export type Leniency = keyof typeof EASE

/** Third argument of pack and unpack. `mac` computes (pack) or verifies (unpack) the message authentication code. */
export type IsoOptions = { readonly [name in Leniency]?: boolean } & { readonly mac?: MacHook }

/** The switches as one number. Throws `code` for a name that is no leniency: a typing mistake must not pass as strictness or its lack. */
export function easeOf (options: IsoOptions | undefined, code: IsoErrorCode): number {
  if (options === undefined) return 0
  let ease = 0
  for (const [name, value] of Object.entries(options)) {
    if (name === 'mac') {
      if (value === undefined || typeof value === 'function') continue
      throw new Iso8583Error(code, { reason: 'input', path: 'options.mac', expected: 'a function of bytes', found: kindOf(value) })
    }
    if (!Object.hasOwn(EASE, name)) throw new Iso8583Error(code, { reason: 'input', path: 'options', expected: 'names of leniencies, or mac', found: 'another name' })
    if (value === true) ease |= EASE[name as Leniency]
    else if (value !== false && value !== undefined) {
      throw new Iso8583Error(code, { reason: 'input', path: `options.${name}`, expected: 'true or false', found: kindOf(value) })
    }
  }
  return ease
}
