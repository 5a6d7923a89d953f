// The door of the ISO 8583 codec, also `soundbox/iso8583`. Read README.md beside it first; then spec-json.ts, unpack.ts, pack.ts.
export { compileSpec, FIELD_LENGTH_MAX, LENGTH_DIGITS_MAX, SUBFIELDS_MAX } from './compile.js'
export { describe } from './describe.js'
export { type Codepage, CODEPAGE_NAMES } from './ebcdic.js'
export { type Decoded, ISO_REASONS, Iso8583Error, type IsoErrorCode, type IsoReason } from './failure.js'
export {
  answerTpdu, compileFraming, encodeFrame, encodeKeepAlive, FRAME_BYTES_MAX, type FrameEvent, type FrameReader, type Framing, type FramingJson, HEADER_BYTES_MAX,
  openFrameReader, type PrefixKind, TPDU_BYTES
} from './framing.js'
export { type Iso8583Json, iso8583JsonFromMessage, messageFromIso8583Json } from './json.js'
export { aesCmac, cbcMac, type DesMacOptions, type MacHook, type MacPadding, retailMac } from './mac.js'
export { answerMti, isMtiRequest, type MtiClass, type MtiFunction, type MtiOrigin, type MtiParts, type MtiVersion, parseMti } from './mti.js'
export type { IsoOptions, Leniency } from './options.js'
export { pack } from './pack.js'
export { FIELD_NUMBER_MAX, type Message, MESSAGE_BYTES_MAX, type Spec, type Subfields, type TlvItem } from './plan.js'
export type { FieldJson, MaskMode, SpecJson, SubfieldJson } from './spec-json.js'
export { compileShippedSpec, SHIPPED_SPECS, type ShippedSpec, SPEC_1987_ASCII, SPEC_1987_BCD, SPEC_1993_ASCII } from './specs.js'
export type { FieldType } from './tables.js'
export { formatTlv, parseTlv, TLV_DEPTH_MAX, TLV_LENGTH_BYTES_MAX, TLV_TAG_BYTES_MAX } from './tlv.js'
export { unpack } from './unpack.js'
