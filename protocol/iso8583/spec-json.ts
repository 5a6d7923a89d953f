// The form of a spec as data: what stands in a JSON file. compileSpec (compile.ts) turns it into a plan.
import type { Codepage } from './ebcdic.js'
import type { FieldType } from './tables.js'

/** How `describe` shows a field: the value, its first 6 and last 4 digits, its last 4 characters, or its length alone. */
export const MASK_MODES = ['clear', 'pan', 'last4', 'hidden'] as const
export type MaskMode = typeof MASK_MODES[number]

/** A part of a field's value by position. Lengths are in characters of the value; `len` is the number of decimal digits of an own prefix. */
export type SubfieldJson = { name: string, type: FieldType, max: number, len?: number, optional?: boolean }

export type FieldJson = {
  type: FieldType
  /** Digits of the length prefix; 0 = fixed length. */
  len: 0 | 1 | 2 | 3 | 4
  /** The fixed length, or the greatest one, in `count`. */
  max: number
  /** What `max` and the prefix count. Text: chars or digits, which are the same. Type b: bytes, or hexchars (two a byte). */
  count: 'chars' | 'digits' | 'bytes' | 'hexchars'
  /** Text: ascii, ebcdic, and for n and z also bcd (two digits a byte). Type b: binary, or hex (upper-case ASCII). */
  enc: 'ascii' | 'bcd' | 'ebcdic' | 'binary' | 'hex'
  /** With len above 0: digits as characters, or packed with zeros on the left (LL one byte, LLL two). */
  lenEnc?: 'ascii' | 'bcd' | 'ebcdic'
  /** With bcd: which nibble of an odd length is filled. It is not counted. */
  pad?: 'left0' | 'rightF'
  title?: string
  mask?: MaskMode
  /** Type b: the value is BER-TLV, checked and shown as `parts`. */
  tlv?: boolean
  /** The value is a row of positional parts, checked and shown as `parts`. */
  subfields?: SubfieldJson[]
  /** Type b, fixed, field 64, 128 or 192: the message authentication code. These are taken for it by default; false forbids it. */
  mac?: boolean
}

export type SpecJson = {
  name?: string
  title?: string
  /** `versions`: accepted first digits by year; all when absent. */
  mti: { enc: 'ascii' | 'bcd' | 'ebcdic', versions?: Array<'1987' | '1993' | '2003'> }
  bitmap: {
    enc: 'hex' | 'binary'
    /** Bytes of one bitmap on the wire: 16 for hex, 8 for binary. */
    primaryBytes: 8 | 16
    /** `always`: every message carries the second bitmap, empty or not. Default `needed`. */
    secondary?: 'needed' | 'always'
    /** Field 65 is the third bitmap, for fields 129 to 192. */
    tertiary?: boolean
  }
  /** The code page of everything with enc `ebcdic`; default 1047. */
  codepage?: Codepage
  fields: Record<string, FieldJson>
}
