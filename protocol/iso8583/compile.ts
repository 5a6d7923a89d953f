// compileSpec: from the JSON form of a spec to a plan. Every word is checked: a spec that would read or write nonsense is refused here,
// with the path of the word, and not on the first message of a busy day.
import { CODEPAGE_NAMES, type Codepage } from './ebcdic.js'
import { Iso8583Error, kindOf } from './failure.js'
import { maskOf } from './mask.js'
import { BITMAP, BYTES, CHARS, FIELD_NUMBER_MAX, type FieldPlan, PACKED, type Spec, type SubfieldPlan, TERTIARY_FIELD } from './plan.js'
import { MASK_MODES } from './spec-json.js'
import {
  ANY_HEX, type CharSet, type CharTables, charTables, FIELD_TYPES, type FieldType, NIBBLE_OF_DIGIT, NIBBLE_OF_TRACK, PAIR_OF_DIGITS, PAIR_OF_TRACK
} from './tables.js'

export const LENGTH_DIGITS_MAX = 4
export const FIELD_LENGTH_MAX = 9999
export const SUBFIELDS_MAX = 64
const SUBFIELD_NAME = /^[A-Za-z][A-Za-z0-9_-]{0,31}$/
const FIELD_KEY = /^[1-9]\d{0,2}$/
const VERSION_DIGITS = { 1987: '0', 1993: '1', 2003: '2' } as const
const VERSIONS = ['1987', '1993', '2003'] as const
const MAC_FIELDS = [64, 128, 192]

type Words = Record<string, unknown>
type TablesOf = (set: CharSet, enc: string) => CharTables

/** Compiles a spec in the form of `SpecJson` (parsed JSON). Throws ISO_SPEC_INVALID naming the path of the first wrong word. */
export function compileSpec (specJson: unknown): Spec {
  const json = words(specJson, 'spec', ['name', 'title', 'mti', 'bitmap', 'codepage', 'fields'])
  const mti = words(json['mti'], 'mti', ['enc', 'versions'])
  const bitmap = words(json['bitmap'], 'bitmap', ['enc', 'primaryBytes', 'secondary', 'tertiary'])
  const tablesOf = tableCache(json['codepage'] === undefined ? '1047' : oneOf(json['codepage'], 'codepage', CODEPAGE_NAMES))
  const mtiEnc = oneOf(mti['enc'], 'mti.enc', ['ascii', 'bcd', 'ebcdic'])
  const bitmapEnc = oneOf(bitmap['enc'], 'bitmap.enc', ['hex', 'binary'])
  const bitmapBytes = bitmapEnc === 'hex' ? 16 : 8
  if (bitmap['primaryBytes'] !== bitmapBytes) refuse('bitmap.primaryBytes', `${bitmapBytes} with enc ${bitmapEnc}`, bitmap['primaryBytes'])
  const tertiary = flag(bitmap['tertiary'], 'bitmap.tertiary') ?? false
  const secondary = bitmap['secondary'] === undefined ? 'needed' : oneOf(bitmap['secondary'], 'bitmap.secondary', ['needed', 'always'])
  const fields = compileFields(json['fields'], tertiary, tablesOf)
  return Object.freeze({
    name: json['name'] === undefined ? 'iso8583' : text(json['name'], 'name'),
    mti: {
      isPacked: mtiEnc === 'bcd', bytes: mtiEnc === 'bcd' ? 2 : 4,
      digits: tablesOf('n', mtiEnc), loose: tablesOf('any', mtiEnc), versions: versionDigits(mti['versions'])
    },
    bitmapIsHex: bitmapEnc === 'hex',
    bitmapBytes,
    secondaryAlways: secondary === 'always',
    tertiary,
    fields,
    byKey: keyed(fields),
    parted: fields.flatMap(field => field !== undefined && (field.isTlv || field.subfields !== undefined) ? [field.number] : [])
  })
}

function versionDigits (value: unknown): string {
  if (value === undefined) return ''
  if (!Array.isArray(value) || value.length === 0) return refuse('mti.versions', 'a list of 1987, 1993, 2003', value)
  return value.map((year, index) => VERSION_DIGITS[oneOf(year, `mti.versions.${index}`, VERSIONS)]).join('')
}

/** One pair of tables for each (set, encoding) of the spec. */
function tableCache (page: Codepage): TablesOf {
  const known = new Map<string, CharTables>()
  return (set, enc) => {
    const key = `${set} ${enc}`
    const tables = known.get(key) ?? charTables(set, enc === 'ebcdic' ? page : undefined)
    known.set(key, tables)
    return tables
  }
}

function compileFields (value: unknown, tertiary: boolean, tablesOf: TablesOf): Array<FieldPlan | undefined> {
  const json = words(value, 'fields')
  const numberMax = tertiary ? FIELD_NUMBER_MAX : 128
  const plans: Array<FieldPlan | undefined> = new Array(FIELD_NUMBER_MAX + 1).fill(undefined)
  for (const [key, field] of Object.entries(json)) {
    const number = Number(key)
    if (!FIELD_KEY.test(key) || number > numberMax) refuse('fields', `field numbers from 2 to ${numberMax}`, 'another key')
    if (number === 1 || (tertiary && number === TERTIARY_FIELD)) refuse(`fields.${key}`, 'no entry: it is a bitmap', 'one')
    plans[number] = compileField(number, field, tablesOf)
  }
  if (plans.every(plan => plan === undefined)) refuse('fields', 'one field or more', 'none')
  if (tertiary) plans[TERTIARY_FIELD] = bitmapField(tablesOf)
  return plans
}

const FIELD_WORDS = ['type', 'len', 'max', 'count', 'enc', 'lenEnc', 'pad', 'title', 'mask', 'tlv', 'subfields', 'mac']

function compileField (number: number, value: unknown, tablesOf: TablesOf): FieldPlan {
  const path = `fields.${number}`
  const json = words(value, path, FIELD_WORDS)
  const type = oneOf(json['type'], `${path}.type`, FIELD_TYPES)
  const enc = encoding(json['enc'], `${path}.enc`, type)
  const lengthDigits = whole(json['len'], `${path}.len`, 0, LENGTH_DIGITS_MAX)
  const prefixMax = lengthDigits === 0 ? FIELD_LENGTH_MAX : 10 ** lengthDigits - 1
  const max = whole(json['max'], `${path}.max`, 1, prefixMax)
  const count = oneOf(json['count'], `${path}.count`, type === 'b' ? ['bytes', 'hexchars'] : ['chars', 'digits'])
  if (count === 'hexchars' && max % 2 !== 0) refuse(`${path}.max`, 'an even number of hexchars', 'an odd one')
  const isTrack = type === 'z'
  return {
    number,
    path: String(number),
    type,
    kind: enc === 'bcd' ? PACKED : enc === 'binary' ? BYTES : CHARS,
    ...compilePrefix(json['lenEnc'], `${path}.lenEnc`, lengthDigits),
    max,
    prefixMax: lengthDigits === 0 ? max : prefixMax,
    unitChars: count === 'bytes' ? 2 : 1,
    isHex: type === 'b',
    isSigned: type === 'xn',
    tables: tablesOf(type, enc),
    looseTables: type === 'b' ? ANY_HEX : tablesOf('any', enc),
    signTables: tablesOf('sign', enc),
    pairs: isTrack ? PAIR_OF_TRACK : PAIR_OF_DIGITS,
    nibbles: isTrack ? NIBBLE_OF_TRACK : NIBBLE_OF_DIGIT,
    padRight: padSide(json['pad'], `${path}.pad`, enc),
    title: json['title'] === undefined ? undefined : text(json['title'], `${path}.title`),
    mask: compileMask(number, type, json['mask'], path),
    isTlv: isTlv(json, path, type),
    subfields: json['subfields'] === undefined ? undefined : compileSubfields(json['subfields'], `${path}.subfields`, tablesOf),
    isMac: isMac(number, json, path, type, lengthDigits)
  }
}

/** No prototype: a key such as `constructor` names no field. */
function keyed (fields: ReadonlyArray<FieldPlan | undefined>): Spec['byKey'] {
  const byKey: Record<string, FieldPlan> = Object.create(null) as Record<string, FieldPlan>
  for (const field of fields) if (field !== undefined && field.kind !== BITMAP) byKey[field.path] = field
  return byKey
}

/** Field 65 of a spec with a third bitmap: nothing of it but its kind is used. */
function bitmapField (tablesOf: TablesOf): FieldPlan {
  const plain = { type: 'b', len: 0, max: 8, count: 'bytes', enc: 'binary' }
  return { ...compileField(TERTIARY_FIELD, plain, tablesOf), kind: BITMAP }
}

function encoding (value: unknown, path: string, type: FieldType): 'ascii' | 'bcd' | 'ebcdic' | 'binary' | 'hex' {
  if (type === 'b') return oneOf(value, path, ['binary', 'hex'])
  return type === 'n' || type === 'z' ? oneOf(value, path, ['ascii', 'bcd', 'ebcdic']) : oneOf(value, path, ['ascii', 'ebcdic'])
}

function compilePrefix (value: unknown, path: string, lengthDigits: number): Pick<FieldPlan, 'lengthDigits' | 'lengthBytes' | 'lengthZero'> {
  if (lengthDigits === 0) {
    if (value !== undefined) refuse(path, 'no word with len 0', kindOf(value))
    return { lengthDigits, lengthBytes: 0, lengthZero: 0 }
  }
  const enc = oneOf(value, path, ['ascii', 'bcd', 'ebcdic'])
  return enc === 'bcd'
    ? { lengthDigits, lengthBytes: Math.ceil(lengthDigits / 2), lengthZero: -1 }
    : { lengthDigits, lengthBytes: lengthDigits, lengthZero: enc === 'ascii' ? 0x30 : 0xf0 }
}

function padSide (value: unknown, path: string, enc: string): boolean {
  if (enc === 'bcd') return oneOf(value, path, ['left0', 'rightF']) === 'rightF'
  return value === undefined ? false : refuse(path, 'no word unless enc is bcd', kindOf(value))
}

function compileMask (number: number, type: FieldType, value: unknown, path: string): FieldPlan['mask'] {
  const asked = value === undefined ? undefined : oneOf(value, `${path}.mask`, MASK_MODES)
  const mask = maskOf(number, type, asked)
  return mask ?? refuse(`${path}.mask`, 'a mode that keeps card data out of logs', 'a weaker one')
}

function isTlv (json: Words, path: string, type: FieldType): boolean {
  const asked = flag(json['tlv'], `${path}.tlv`) ?? false
  if (asked && type !== 'b') refuse(`${path}.tlv`, 'type b', `type ${type}`)
  if (asked && json['subfields'] !== undefined) refuse(`${path}.tlv`, 'either tlv or subfields', 'both')
  return asked
}

function isMac (number: number, json: Words, path: string, type: FieldType, lengthDigits: number): boolean {
  const asked = flag(json['mac'], `${path}.mac`)
  const able = MAC_FIELDS.includes(number) && type === 'b' && lengthDigits === 0
  if (asked === true && !able) refuse(`${path}.mac`, 'field 64, 128 or 192 of type b and fixed length', 'another field')
  return asked ?? able
}

function compileSubfields (value: unknown, path: string, tablesOf: TablesOf): SubfieldPlan[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > SUBFIELDS_MAX) return refuse(path, `a list of 1 to ${SUBFIELDS_MAX} parts`, value)
  const names = new Set<string>()
  let optionalSeen = false
  return value.map((item: unknown, index) => {
    const at = `${path}.${index}`
    const json = words(item, at, ['name', 'type', 'max', 'len', 'optional'])
    const name = text(json['name'], `${at}.name`)
    if (!SUBFIELD_NAME.test(name) || names.has(name)) refuse(`${at}.name`, 'a letter, then letters, digits, _ or -, up to 32, used once', 'another name')
    names.add(name)
    const type = oneOf(json['type'], `${at}.type`, FIELD_TYPES)
    if (type === 'xn') refuse(`${at}.type`, 'a sign (an 1) and a number (n) as two parts', 'type xn')
    const lengthDigits = json['len'] === undefined ? 0 : whole(json['len'], `${at}.len`, 0, LENGTH_DIGITS_MAX)
    const optional = flag(json['optional'], `${at}.optional`) ?? false
    if (optionalSeen && !optional) refuse(`${at}.optional`, 'true after an optional part', 'false')
    optionalSeen ||= optional
    const max = whole(json['max'], `${at}.max`, 1, lengthDigits === 0 ? FIELD_LENGTH_MAX : 10 ** lengthDigits - 1)
    return { name, type, tables: tablesOf(type, 'ascii'), lengthDigits, max, optional }
  })
}

function words (value: unknown, path: string, known?: readonly string[]): Words {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(path, 'an object', value)
  const json = value as Words
  for (const word of Object.keys(json)) if (known?.includes(word) === false) refuse(path, `the words ${known.join(', ')}`, 'another word')
  return json
}

function oneOf<T extends string> (value: unknown, path: string, allowed: readonly T[]): T {
  return allowed.find(word => word === value) ?? refuse(path, allowed.join(' or '), value)
}

function whole (value: unknown, path: string, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  return refuse(path, `a whole number from ${min} to ${max}`, value)
}

function text (value: unknown, path: string): string {
  return typeof value === 'string' ? value : refuse(path, 'a text', value)
}

function flag (value: unknown, path: string): boolean | undefined {
  return value === undefined || typeof value === 'boolean' ? value : refuse(path, 'true or false', value)
}

/** Words of a spec are no secrets: short texts and numbers are named as they are. */
function refuse (path: string, expected: string, found: unknown): never {
  const plain = typeof found === 'number' || (typeof found === 'string' && found.length <= 32)
  throw new Iso8583Error('ISO_SPEC_INVALID', { reason: 'spec', path, expected, found: plain ? String(found) : kindOf(found) })
}
