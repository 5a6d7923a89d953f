// What compileSpec makes of a spec and pack, unpack and describe walk along: one flat record a field, tables instead of words.
import type { MaskMode } from './spec-json.js'
import type { CharTables, FieldType } from './tables.js'

/** A message or a value of this size and above is refused: what a two-byte length can carry. */
export const MESSAGE_BYTES_MAX = 65_535
/** Three bitmaps. */
export const FIELD_NUMBER_MAX = 192
export const TERTIARY_FIELD = 65

/** How a value stands on the wire. CHARS: a byte a character. PACKED: two digits a byte. BYTES: raw, shown as hex. BITMAP: the third one. */
export const CHARS = 0
export const PACKED = 1
export const BYTES = 2
export const BITMAP = 3
export type WireKind = typeof CHARS | typeof PACKED | typeof BYTES | typeof BITMAP

export type SubfieldPlan = { name: string, type: FieldType, tables: CharTables, lengthDigits: number, max: number, optional: boolean }

export type FieldPlan = {
  number: number
  path: string
  type: FieldType
  kind: WireKind
  /** 0 for a fixed field. */
  lengthDigits: number
  lengthBytes: number
  /** Code of the character 0 in the prefix; -1 for a packed prefix. */
  lengthZero: number
  /** Fixed or greatest length in counted units, and the greatest one the prefix can say. */
  max: number
  prefixMax: number
  /** Characters of the value for each counted unit: 2 for bytes shown as hex, else 1. */
  unitChars: number
  /** Type b: the value has an even number of characters. */
  isHex: boolean
  /** Type xn: the first character is the sign. */
  isSigned: boolean
  tables: CharTables
  looseTables: CharTables
  signTables: CharTables
  /** PACKED: byte -> two characters, and character -> nibble. */
  pairs: Int16Array
  nibbles: Int16Array
  padRight: boolean
  title: string | undefined
  mask: MaskMode
  isTlv: boolean
  subfields: readonly SubfieldPlan[] | undefined
  isMac: boolean
}

/** A compiled spec: made once by `compileSpec`, read only, safe to share. */
export type Spec = {
  readonly name: string
  readonly mti: { readonly isPacked: boolean, readonly bytes: number, readonly digits: CharTables, readonly loose: CharTables, readonly versions: string }
  readonly bitmapIsHex: boolean
  readonly bitmapBytes: number
  readonly secondaryAlways: boolean
  readonly tertiary: boolean
  /** Index = field number. */
  readonly fields: ReadonlyArray<FieldPlan | undefined>
  /** By key of a message's fields: numbers without leading zeros, bitmaps left out. */
  readonly byKey: { readonly [key: string]: FieldPlan | undefined }
  /** Numbers of the fields that have parts. */
  readonly parted: readonly number[]
}

/** TLV objects keep their order; a constructed one (tag bit 6) has items instead of a value. Values are upper-case hex. */
export type TlvItem = { tag: string, value: string } | { tag: string, items: TlvItem[] }
/** Positional parts by name. */
export type Subfields = Record<string, string>

/** `fields`: number -> value. `parts`: the same value taken apart, for the fields whose spec says how. */
export type Message = { mti: string, fields: Record<string, string>, parts?: Record<string, TlvItem[] | Subfields> }
