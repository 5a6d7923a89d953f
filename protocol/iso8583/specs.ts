// The specs that come with Soundbox, in the notation of the standard: `n6` fixed, `n..19` a two-digit prefix, `ans...999` a three-digit one,
// `2-4` the same for a range of fields. One table of 1987 makes both of its specs: they differ in encoding alone.
import { compileSpec } from './compile.js'
import type { Spec } from './plan.js'
import type { FieldJson, SpecJson } from './spec-json.js'
import type { FieldType } from './tables.js'

const FIELDS_1987 = `2 n..19, 3 n6, 4-6 n12, 7 n10, 8-10 n8, 11-12 n6, 13-18 n4, 19-24 n3, 25-26 n2, 27 n1, 28-31 xn9, 32-33 n..11,
  34 ns..28, 35 z..37, 36 z...104, 37 anp12, 38 anp6, 39 an2, 40 an3, 41 ans8, 42 ans15, 43 ans40, 44 ans..25, 45 ans..76, 46-48 ans...999,
  49-51 n3, 52 b8, 53 n16, 54 an...120, 55 b...255, 56-63 ans...999, 64 b8, 66 n1, 67 n2, 68-70 n3, 71-72 n4, 73 n6, 74-81 n10, 82-85 n12,
  86-89 n16, 90 n42, 91 an1, 92 an2, 93 an5, 94 an7, 95 an42, 96 b8, 97 xn17, 98 ans25, 99-100 n..11, 101 ans..17, 102-103 ans..28,
  104 ans...100, 105-127 ans...999, 128 b8`

const FIELDS_1993 = `2 n..19, 3 n6, 4-6 n12, 7 n10, 8-10 n8, 11 n6, 12 n12, 13-14 n4, 15 n6, 16-18 n4, 19-21 n3, 22 an12, 23-24 n3, 25-26 n4,
  27 n1, 28 n6, 29 n3, 30 n24, 31 ans..99, 32-33 n..11, 34 ns..28, 35 z..37, 36 z...104, 37 anp12, 38 anp6, 39-40 n3, 41 ans8, 42 ans15,
  43-44 ans..99, 45 ans..76, 46 ans...204, 47-48 ans...999, 49-51 n3, 52 b8, 53 b..48, 54 ans...120, 55 b...255, 56 n..35, 57 n3, 58 n..11,
  59-63 ans...999, 64 b8, 66 ans...204, 67 n2, 68-70 n3, 71 n8, 72 ans...999, 73 n6, 74-85 n10, 86-89 n16, 90 n10, 91-92 n3, 93-94 n..11,
  95 ans..99, 96 ans...999, 97 xn17, 98 ans25, 99 an..11, 100 n..11, 101 ans..17, 102-103 ans..28, 104 ans...100, 105-106 n16, 107-108 n10,
  109-110 ans..84, 111-127 ans...999, 128 b8`

type Entry = { type: FieldType, len: 0 | 2 | 3, max: number }

function table (notation: string, encode: (entry: Entry) => FieldJson): Record<string, FieldJson> {
  const fields: Record<string, FieldJson> = {}
  for (const [, first = '', last = first, type, dots = '', max] of notation.matchAll(/(\d+)(?:-(\d+))? ([a-z]+)(\.*)(\d+)/g)) {
    for (let number = Number(first); number <= Number(last); number++) {
      fields[number] = encode({ type: type as FieldType, len: dots.length as Entry['len'], max: Number(max) })
    }
  }
  return fields
}

/** Characters throughout; type b as two hex characters a byte (`hex`) or raw (`binary`). */
function inAscii (bytesAs: 'hex' | 'binary'): (entry: Entry) => FieldJson {
  return entry => {
    const prefix = entry.len === 0 ? {} : { lenEnc: 'ascii' as const }
    if (entry.type !== 'b') return { ...entry, count: 'chars', enc: 'ascii', ...prefix }
    if (bytesAs === 'binary') return { ...entry, count: 'bytes', enc: 'binary', ...prefix }
    return { ...entry, max: entry.max * 2, count: 'hexchars', enc: 'hex', ...prefix }
  }
}

/** Digits packed two a byte, length prefixes too; type b raw; text as ASCII. */
function inBcd (entry: Entry): FieldJson {
  const prefix = entry.len === 0 ? {} : { lenEnc: 'bcd' as const }
  if (entry.type === 'b') return { ...entry, count: 'bytes', enc: 'binary', ...prefix }
  if (entry.type !== 'n' && entry.type !== 'z') return { ...entry, count: 'chars', enc: 'ascii', ...prefix }
  return { ...entry, count: 'digits', enc: 'bcd', ...prefix, pad: entry.type === 'z' ? 'rightF' : 'left0' }
}

/** ISO 8583:1987, ASCII throughout, bitmap and binary fields as hex characters. */
export const SPEC_1987_ASCII: SpecJson = {
  name: '87-ascii-hexbitmap',
  title: 'ISO 8583:1987, ASCII throughout, bitmap as 16 hex characters, binary fields as ASCII hex',
  mti: { enc: 'ascii', versions: ['1987'] },
  bitmap: { enc: 'hex', primaryBytes: 16 },
  fields: table(FIELDS_1987, inAscii('hex'))
}

/** ISO 8583:1987, binary bitmap, packed MTI, numbers and lengths, raw binary fields. */
export const SPEC_1987_BCD: SpecJson = {
  name: '87-bcd-binbitmap',
  title: 'ISO 8583:1987, binary bitmap, BCD MTI, numerics and lengths, raw binary fields',
  mti: { enc: 'bcd', versions: ['1987'] },
  bitmap: { enc: 'binary', primaryBytes: 8 },
  fields: table(FIELDS_1987, inBcd)
}

/** ISO 8583:1993 fields, ASCII with hex bitmaps, raw binary fields; takes 1993 and 2003 MTIs. */
export const SPEC_1993_ASCII: SpecJson = {
  name: '93-ascii-secondary',
  title: 'ISO 8583:1993, ASCII with hex bitmaps, raw binary fields',
  mti: { enc: 'ascii', versions: ['1993', '2003'] },
  bitmap: { enc: 'hex', primaryBytes: 16 },
  fields: table(FIELDS_1993, inAscii('binary'))
}

/** The words by which configuration names a shipped spec. */
export const SHIPPED_SPECS = { '1987-ascii': SPEC_1987_ASCII, '1987-bcd': SPEC_1987_BCD, '1993-ascii': SPEC_1993_ASCII } as const
export type ShippedSpec = keyof typeof SHIPPED_SPECS

/** A shipped spec, compiled. */
export function compileShippedSpec (name: ShippedSpec): Spec {
  return compileSpec(SHIPPED_SPECS[name])
}
