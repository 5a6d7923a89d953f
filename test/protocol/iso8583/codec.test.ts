// The codec against vectors that other codecs agreed on, at every limit, and in what its errors say.
import { readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import t from 'tap'
import { isSoundboxError } from '../../../protocol/errors.js'
import {
  compileSpec, type FieldJson, ISO_REASONS, Iso8583Error, type IsoOptions, type Message, MESSAGE_BYTES_MAX, pack, SHIPPED_SPECS, type Spec, SPEC_1987_ASCII,
  SPEC_1987_BCD,
  SPEC_1993_ASCII, type SpecJson, unpack
} from '../../../protocol/iso8583/index.js'
import { EASE } from '../../../protocol/iso8583/options.js'
import { CHARACTERS, makeRand, someValue } from './random-message.js'

type Sample = { name: string, spec: string, hex: string } & Message
type Bad = { name: string, spec: string, hex: string, why: string }

const SPECS = JSON.parse(readFileSync('test/vectors/iso8583-specs.json', 'utf8')) as Record<string, SpecJson>
const SAMPLES = JSON.parse(readFileSync('test/vectors/iso8583-samples.json', 'utf8')) as { vectors: Sample[], bad: Bad[] }
const compiled: Record<string, Spec> = Object.fromEntries(Object.entries(SPECS).map(([name, json]) => [name, compileSpec(json)]))
const ascii = compiled['87-ascii-hexbitmap']!
const bcd = compiled['87-bcd-binbitmap']!
const ascii93 = compiled['93-ascii-secondary']!
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')
const hex = (text: string): Buffer => Buffer.from(text.replace(/ /g, ''), 'hex')

/** The error that a call throws; a test fails if it is none of ours. */
function failureOf (call: () => unknown): Iso8583Error {
  try {
    call()
  } catch (error) {
    if (error instanceof Iso8583Error) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

Error.stackTraceLimit = 0 // Hundreds of thousands of refusals are looked at here; none for its stack.

t.test('every good vector packs to its bytes and unpacks to its values', async t => {
  t.equal(SAMPLES.vectors.length, 30)
  for (const { name, spec, mti, fields, hex: bytes } of SAMPLES.vectors) {
    t.equal(pack(compiled[spec]!, { mti, fields }).toString('hex'), bytes, `${name} packs`)
    t.strictSame(unpack(compiled[spec]!, hex(bytes)), { mti, fields }, `${name} unpacks`)
  }
})

t.test('every bad vector is refused with code, path and offset', async t => {
  t.equal(SAMPLES.bad.length, 27)
  for (const { name, spec, hex: bytes, why } of SAMPLES.bad) {
    const failure = failureOf(() => unpack(compiled[spec]!, hex(bytes)))
    t.match(failure, { code: 'ISO_UNPACK_INVALID', offset: Number, path: String, expected: String, found: String }, `${name}: ${why}`)
    t.ok(failure.offset! <= bytes.length / 2, `${name}: the offset lies in the message`)
  }
})

t.test('the shipped specs are the agreed ones, with the versions they take', async t => {
  for (const json of [SPEC_1987_ASCII, SPEC_1987_BCD, SPEC_1993_ASCII]) {
    t.same(json.fields, SPECS[json.name!]!.fields, `${json.name}`)
    t.same({ enc: json.mti.enc, bitmap: json.bitmap }, { enc: SPECS[json.name!]!.mti.enc, bitmap: SPECS[json.name!]!.bitmap })
  }
  const spec = compileSpec(SHIPPED_SPECS['1993-ascii'])
  t.equal(unpack(spec, pack(spec, { mti: '2804', fields: { 11: '000001' } })).mti, '2804', '2003 is taken')
  t.match(failureOf(() => pack(spec, { mti: '0800', fields: {} })), { code: 'ISO_PACK_INVALID', reason: 'mti', path: 'mti' })
  t.match(failureOf(() => unpack(spec, latin1('08000000000000000000'))), { reason: 'mti', offset: 0 })
  t.equal(unpack(spec, latin1('08000000000000000000'), { anyMti: true }).mti, '0800')
})

/** For loops of thousands: one comparison without the cost of an assertion each. Answers what is wrong, or undefined. */
function unlike (call: () => unknown, reason: string, path: string, offset?: number): string | undefined {
  const failure = failureOf(call)
  const same = failure.reason === reason && failure.path === path && (offset === undefined || failure.offset === offset)
  return same ? undefined : `${failure.message} instead of ${reason} ${path}`
}

t.test('each field of each spec takes its greatest length and not one more, either way', async t => {
  const rand = makeRand(1)
  const faults: Array<string | undefined> = []
  for (const [name, json] of Object.entries(SPECS)) {
    const spec = compiled[name]!
    for (const [key, field] of Object.entries(json.fields)) {
      const step = field.count === 'hexchars' ? 2 : 1
      const value = someValue(rand, field, field.max)
      const bytes = pack(spec, { mti: '0200', fields: { [key]: value } })
      if (unpack(spec, bytes).fields[key] !== value) faults.push(`${name} ${key} at ${field.max}`)
      const tooLong = someValue(rand, field, field.max + step)
      const reason = field.len === 0 ? 'wrong-length' : 'over-long'
      faults.push(unlike(() => pack(spec, { mti: '0200', fields: { [key]: tooLong } }), reason, key))
      if (field.len === 0) {
        faults.push(unlike(() => unpack(spec, Buffer.concat([bytes, Buffer.of(0x30)])), 'trailing-bytes', 'message', bytes.length))
        faults.push(unlike(() => pack(spec, { mti: '0200', fields: { [key]: someValue(rand, field, field.max - step) } }), reason, key))
      } else if (field.max + step < 10 ** field.len) {
        const longer = pack(spec, { mti: '0200', fields: { [key]: tooLong } }, { overLong: true })
        faults.push(unlike(() => unpack(spec, longer), 'over-long', key))
        if (unpack(spec, longer, { overLong: true }).fields[key] !== tooLong) faults.push(`${name} ${key} lenient`)
      }
    }
  }
  t.ok(faults.length > 800, `${faults.length} refusals looked at`)
  t.same(faults.filter(fault => fault !== undefined), [])
})

/** Every wire byte that no value of the field may hold. */
function wrongBytes (field: FieldJson): number[] {
  const all = Array.from({ length: 256 }, (_, byte) => byte)
  if (field.enc === 'bcd') return all.filter(byte => [byte >> 4, byte & 15].every(nibble => nibble > 9 && !(field.type === 'z' && (nibble === 13 || nibble === 15))))
  const allowed = CHARACTERS[field.type] + (field.type === 'z' ? '=' : field.type === 'xn' ? 'CD' : '') // The sign of xn has its own test.
  return all.filter(byte => !allowed.includes(String.fromCharCode(byte)))
}

t.test('no byte outside the class of a field is accepted, at any place of its value', async t => {
  const rand = makeRand(2)
  const faults: Array<string | undefined> = []
  for (const [name, json] of Object.entries(SPECS)) {
    for (const [key, field] of Object.entries(json.fields).filter(([, one]) => one.enc !== 'binary')) {
      const units = field.len === 0 ? field.max : Math.min(field.max, 6)
      const bytes = pack(compiled[name]!, { mti: '0200', fields: { [key]: someValue(rand, field, units) } })
      const start = bytes.length - (field.enc === 'bcd' ? Math.ceil(units / 2) : units)
      const wrong = wrongBytes(field)
      const places = Array.from({ length: bytes.length - start }, (_, index) => start + index)
      // Every place with some wrong byte, and every wrong byte at some place.
      for (const [at, byte] of [...places.map(at => [at, rand.pick(wrong)] as const), ...wrong.map(byte => [rand.pick(places), byte] as const)]) {
        const before = bytes[at]!
        bytes[at] = byte
        const reason = field.enc !== 'bcd' ? 'character' : failureOf(() => unpack(compiled[name]!, bytes)).reason === 'pad' ? 'pad' : 'nibble'
        faults.push(unlike(() => unpack(compiled[name]!, bytes), reason, key, at))
        bytes[at] = before
      }
    }
  }
  t.ok(faults.length > 20_000, `${faults.length} wrong bytes were tried`)
  t.same(faults.filter(fault => fault !== undefined), [])
})

t.test('a signed amount begins with C or D and goes on with digits', async t => {
  const amount = (value: string): Buffer => latin1(`02000000001000000000${value}`)
  t.equal(unpack(ascii, amount('D00000125')).fields['28'], 'D00000125')
  for (const [value, offset] of [['000000125', 20], ['X00000125', 20], ['c00000125', 20], ['CC0000125', 21], ['C0000012D', 28]] as const) {
    t.match(failureOf(() => unpack(ascii, amount(value))), { reason: 'character', path: '28', offset }, value)
    t.match(failureOf(() => pack(ascii, { mti: '0200', fields: { 28: value } })), { reason: 'character', path: '28' }, value)
  }
})

t.test('odd packed digits carry one pad nibble of the right value, which is not counted', async t => {
  const odd = hex('0200 0000000000008000 0356')
  t.equal(unpack(bcd, odd).fields['49'], '356')
  t.match(failureOf(() => unpack(bcd, hex('0200 0000000000008000 1356'))), { reason: 'pad', path: '49', offset: 10, expected: 'the pad nibble 0' })
  t.match(failureOf(() => unpack(bcd, hex('0200 0000000000008000 0a56'))), { reason: 'nibble', path: '49', offset: 10 })
  t.equal(unpack(bcd, hex('0200 0000000000008000 1356'), { anyPad: true }).fields['49'], '356')
  const track = hex('0200 0000000020000000 05 4761df')
  t.equal(unpack(bcd, track).fields['35'], '4761D')
  t.match(failureOf(() => unpack(bcd, hex('0200 0000000020000000 05 4761d0'))), { reason: 'pad', path: '35', offset: 13, expected: 'the pad nibble F' })
  t.match(failureOf(() => unpack(bcd, hex('0200 0000000020000000 05 4761ff'))), { reason: 'nibble', path: '35', offset: 13 })
  t.match(failureOf(() => unpack(bcd, hex('0200 0000000020000000 04 47fd'))), { reason: 'nibble', path: '35' }, 'F is no digit')
  t.match(failureOf(() => pack(bcd, { mti: '0200', fields: { 35: '4761=27' } })), { reason: 'character', path: '35' }, 'the separator is D, not rewritten silently')
  t.equal(pack(bcd, { mti: '0200', fields: { 35: '4761=27' } }, { trackEquals: true }).toString('hex'), '02000000000020000000074761d27f')
})

t.test('length prefixes are digits only, and packed ones keep their spare nibble zero', async t => {
  for (const prefix of ['1 ', ' 1', '+1', '0x', '1\x00', '\u00b21']) {
    t.match(failureOf(() => unpack(ascii, latin1(`02004000000000000000${prefix}1`))), { reason: 'length-digits', path: '2',
      offset: 20 + (/\d/.test(prefix.charAt(0)) ? 1 : 0) }, JSON.stringify(prefix))
  }
  t.match(failureOf(() => unpack(bcd, hex('0200 4000000000000000 1A 00'))), { reason: 'length-digits', path: '2', offset: 10, found: 'a nibble above 9' })
  t.match(failureOf(() => unpack(bcd, hex('0200 0000000000010000 1001 41'))), { reason: 'over-long', path: '48', found: 'length 1001' })
  t.match(failureOf(() => unpack(ascii, latin1('02000000000000000200003FF0'))), { reason: 'wrong-length', path: '55' }, 'half a byte')
})

t.test('the bitmaps say exactly which fields there are', async t => {
  t.same(unpack(ascii, latin1('08000000000000000000')).fields, {}, 'none at all')
  t.match(failureOf(() => unpack(ascii, latin1('0800000000000000000G'))), { reason: 'bitmap', path: 'bitmap', offset: 19 })
  t.match(failureOf(() => unpack(ascii, latin1('0800000000000000000a'))), { reason: 'bitmap', found: 'a lower-case letter' })
  t.match(failureOf(() => unpack(ascii, latin1('080080000000000000000000000000000000'))), { reason: 'empty-bitmap', offset: 20 })
  t.match(failureOf(() => unpack(ascii, latin1('080080000000000000008000000000000000'))), { reason: 'unknown-field', path: '65', offset: 20 })
  t.match(failureOf(() => unpack(bcd, hex('0800 8000000000000000 8000000000000000'))), { reason: 'unknown-field', path: '65', offset: 10 })
  const partial = compileSpec({ ...SPEC_1987_ASCII, fields: { 3: SPEC_1987_ASCII.fields['3'] } })
  t.match(failureOf(() => unpack(partial, latin1('02003000000000000000000000000000000001'))), { reason: 'unknown-field', path: '4', offset: 4 }, 'a bit without an entry')
  t.match(failureOf(() => pack(partial, { mti: '0200', fields: { 4: '000000000001' } })), { reason: 'unknown-field', path: '4' })
  t.match(failureOf(() => pack(ascii, { mti: '0200', fields: { 1: '0000000000000000' } })), { reason: 'derived-field', path: '1' })
  for (const key of ['02', ' 2', '2.0', '129', '-1', 'constructor', '__proto__', '1e1', '']) {
    const fields = Object.fromEntries([[key, '1']])
    t.match(failureOf(() => pack(ascii, { mti: '0200', fields })), { reason: 'unknown-field' }, `key ${key}`)
  }
})

t.test('a spec may ask for the second bitmap in every message', async t => {
  const always = compileSpec({ ...SPEC_1987_ASCII, bitmap: { ...SPEC_1987_ASCII.bitmap, secondary: 'always' } })
  const bytes = pack(always, { mti: '0800', fields: { 11: '000042' } })
  t.equal(bytes.toString('latin1'), '080080200000000000000000000000000000000042')
  t.same(unpack(always, bytes).fields, { 11: '000042' })
  t.match(failureOf(() => unpack(always, latin1('08000020000000000000000042'))), { reason: 'bitmap', path: 'bitmap' })
})

t.test('a third bitmap stands at field 65 and carries fields 129 to 192', async t => {
  const field = { type: 'n', len: 2, max: 4, lenEnc: 'ascii', count: 'chars', enc: 'ascii' }
  for (const enc of ['hex', 'binary'] as const) {
    const json = { mti: { enc: 'ascii' }, bitmap: { enc, primaryBytes: enc === 'hex' ? 16 : 8, tertiary: true }, fields: { 2: field, 66: field, 129: field, 192: field } }
    const spec = compileSpec(json)
    const message = { mti: '0800', fields: { 2: '1', 66: '66', 129: '129', 192: '' } }
    const bytes = pack(spec, message)
    t.same(unpack(spec, bytes), message)
    if (enc === 'hex') t.equal(bytes.toString('latin1'), '0800C000000000000000C0000000000000000118000000000000001' + '02660312900')
    for (let cut = 0; cut < bytes.length; cut++) t.match(failureOf(() => unpack(spec, bytes.subarray(0, cut))), { reason: 'truncated' })
    t.same(unpack(spec, pack(spec, { mti: '0800', fields: { 192: '9' } })).fields, { 192: '9' })
    t.same(unpack(spec, pack(spec, { mti: '0800', fields: { 66: '6' } })).fields, { 66: '6' })
    t.match(failureOf(() => pack(spec, { mti: '0800', fields: { 65: '00' } })), { reason: 'derived-field', path: '65' })
    t.match(failureOf(() => compileSpec({ ...json, fields: { 193: field } })), { code: 'ISO_SPEC_INVALID', path: 'fields' })
    t.match(failureOf(() => compileSpec({ ...json, fields: { 65: field } })), { code: 'ISO_SPEC_INVALID', path: 'fields.65' })
  }
  const spec = compileSpec({ mti: { enc: 'ascii' }, bitmap: { enc: 'hex', primaryBytes: 16, tertiary: true }, fields: { 2: field } })
  const empty = latin1(`08008000000000000000${'8'.padEnd(16, '0')}${'0'.repeat(16)}`)
  t.match(failureOf(() => unpack(spec, empty)), { reason: 'empty-bitmap', offset: 36 })
  t.same(unpack(spec, empty, { emptyBitmap: true }).fields, {})
})

t.test('EBCDIC pages differ where text does, and lengths count encoded bytes', async t => {
  const spec = (codepage: string): Spec => compileSpec({
    mti: { enc: 'ebcdic' }, bitmap: { enc: 'binary', primaryBytes: 8 }, codepage,
    fields: { 2: { type: 'n', len: 2, max: 19, count: 'chars', enc: 'ebcdic', lenEnc: 'ebcdic' }, 43: { type: 'ans', len: 0, max: 6, count: 'chars', enc: 'ebcdic' } }
  })
  const message = { mti: '0200', fields: { 2: '4761', 43: 'A[!]^|' } }
  for (const [page, text] of [['037', 'c1ba5abbb04f'], ['500', 'c14a4f5a5fbb'], ['1047', 'c1ad5abd5f4f']] as const) {
    const bytes = pack(spec(page), message)
    t.equal(bytes.toString('hex'), `f0f2f0f04000000000200000f0f4f4f7f6f1${text}`, page)
    t.same(unpack(spec(page), bytes), message)
  }
  t.match(failureOf(() => unpack(spec('037'), hex('f0f2f0f04000000000000000f0c1f4'))), { reason: 'length-digits', offset: 13, found: 'an upper-case letter' })
  t.match(failureOf(() => unpack(spec('037'), hex('f0f2f0f04000000000000000f0f134'))), { reason: 'character', path: '2', offset: 14 })
  t.equal(unpack(spec('037'), hex('f0f2f0f0400000000000000040f1f4'), { spacedLength: true }).fields['2'], '4')
})

t.test('bytes can be counted as bytes or hex characters in either encoding', async t => {
  const base = { mti: { enc: 'ascii' }, bitmap: { enc: 'hex', primaryBytes: 16 } }
  const rows = [['bytes', 'binary', 4, '3034deadbeef'], ['bytes', 'hex', 4, '30344445414442454546'], ['hexchars', 'binary', 8, '3038deadbeef'],
    ['hexchars', 'hex', 8, '30384445414442454546']] as const
  for (const [count, enc, max, wire] of rows) {
    const spec = compileSpec({ ...base, fields: { 2: { type: 'b', len: 2, max, count, enc, lenEnc: 'ascii' } } })
    const bytes = pack(spec, { mti: '0200', fields: { 2: 'DEADBEEF' } })
    t.equal(bytes.subarray(20).toString('hex'), wire, `${count} ${enc}`)
    t.equal(unpack(spec, bytes).fields['2'], 'DEADBEEF')
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 2: 'DEADBEEF00' } })), { reason: 'over-long' })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 2: 'DEADBEE' } })), { reason: 'wrong-length' })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 2: 'deadbeef' } })), { reason: 'character' })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 2: 'DEADB\u0130' } })), { reason: 'character' })
  }
})

t.test('a message has at most MESSAGE_BYTES_MAX bytes', async t => {
  const field = { type: 'ans', len: 4, max: 9999, count: 'chars', enc: 'ascii', lenEnc: 'ascii' }
  const spec = compileSpec({ mti: { enc: 'ascii' }, bitmap: { enc: 'hex', primaryBytes: 16 }, fields: Object.fromEntries([2, 3, 4, 5, 6, 7, 8,
    9].map(number => [number, field])) })
  const filled = (last: number): Message => ({ mti: '0200',
    fields: { ...Object.fromEntries([2, 3, 4, 5, 6, 7].map(number => [number, 'x'.repeat(9999)])), 8: 'y'.repeat(last) } })
  const rest = MESSAGE_BYTES_MAX - 20 - 6 * 10_003 - 4
  const bytes = pack(spec, filled(rest))
  t.equal(bytes.length, MESSAGE_BYTES_MAX)
  t.same(unpack(spec, bytes), filled(rest))
  t.match(failureOf(() => pack(spec, filled(rest + 1))), { reason: 'over-long', path: 'message' })
  t.match(failureOf(() => pack(spec, { mti: '0200', fields: { ...filled(9999).fields, 9: 'z'.repeat(9999) } })), { reason: 'over-long', path: '8' })
  t.match(failureOf(() => unpack(spec, Buffer.concat([bytes, Buffer.of(0)]))), { reason: 'over-long', path: 'message' })
})

t.test('each leniency admits what strictness refuses, and nothing is lenient by default', async t => {
  const fixed3 = (value: string): Message => ({ mti: '0200', fields: { 3: value } })
  const rows: Record<keyof typeof EASE, { strict: (options?: IsoOptions) => unknown, lenient: unknown }> = {
    trailingBytes: { strict: options => unpack(ascii, latin1('02002000000000000000000001rest'), options), lenient: fixed3('000001') },
    overLong: { strict: options => unpack(ascii, latin1(`0200400000000000000020${'1'.repeat(20)}`), options), lenient: { mti: '0200', fields: { 2: '1'.repeat(20) } } },
    spacedLength: { strict: options => unpack(ascii, latin1('02004000000000000000 14'), options), lenient: { mti: '0200', fields: { 2: '4' } } },
    anyCharacter: { strict: options => unpack(ascii, latin1('0200200000000000000000a\xff 1'), options), lenient: fixed3('00a\xff 1') },
    anyNibble: { strict: options => unpack(bcd, hex('0200 2000000000000000 0000AF'), options), lenient: fixed3('0000AF') },
    anyPad: { strict: options => unpack(bcd, hex('0200 0000000020000000 01 10'), options), lenient: { mti: '0200', fields: { 35: '1' } } },
    lowerHex: {
      strict: options => unpack(ascii, latin1('020000000000000010000123456789abcdef'), options),
      lenient: { mti: '0200', fields: { 52: '0123456789ABCDEF' } }
    },
    emptyBitmap: { strict: options => unpack(ascii, latin1(`0200A000000000000000${'0'.repeat(16)}000001`), options), lenient: fixed3('000001') },
    anyMti: { strict: options => unpack(bcd, hex('02A0 2000000000000000 000001'), options), lenient: { mti: '02A0', fields: { 3: '000001' } } },
    shortFixed: { strict: options => pack(ascii, { mti: '0200',
      fields: { 3: '1', 41: 'T1' } }, options).toString('latin1'), lenient: '02002000000000800000000001T1      ' },
    trackEquals: { strict: options => pack(bcd, { mti: '0200', fields: { 35: '1=' } }, options).toString('hex'), lenient: '02000000000020000000021d' },
    longTlvLength: { strict: options => unpack(withTlv, latin1('020000000000000002000109F26810101'), options), lenient: { mti: '0200',
      fields: { 55: '9F26810101' }, parts: { 55: [{ tag: '9F26', value: '01' }] } } },
    tlvPadding: { strict: options => unpack(withTlv, latin1('02000000000000000200010008201FF00'), options), lenient: { mti: '0200',
      fields: { 55: '008201FF00' }, parts: { 55: [{ tag: '82', value: 'FF' }] } } }
  }
  t.same(Object.keys(rows), Object.keys(EASE), 'every switch is tried')
  for (const [name, { strict, lenient }] of Object.entries(rows)) {
    failureOf(() => strict())
    failureOf(() => strict({}))
    failureOf(() => strict({ [name]: false }))
    const others = Object.fromEntries(Object.keys(EASE).filter(other => other !== name).map(other => [other, true]))
    failureOf(() => strict(others))
    t.strictSame(strict({ [name]: true }), lenient, name)
  }
  t.match(failureOf(() => unpack(ascii, latin1('0'), JSON.parse('{"trailing":true}'))), { reason: 'input', path: 'options' }, 'an unknown name')
  t.match(failureOf(() => pack(ascii, fixed3('000001'), JSON.parse('{"overLong":1}'))), { reason: 'input', path: 'options.overLong' })
  t.match(failureOf(() => pack(ascii, fixed3('000001'), JSON.parse('{"mac":"key"}'))), { reason: 'input', path: 'options.mac' })
})

const withTlv = compileSpec({ ...SPECS['87-ascii-hexbitmap'], fields: { ...SPECS['87-ascii-hexbitmap']!.fields,
  55: { ...SPECS['87-ascii-hexbitmap']!.fields['55'], tlv: true } } })

t.test('lenient packing stays within the wire form', async t => {
  const all = Object.fromEntries(Object.keys(EASE).map(name => [name, true]))
  t.match(failureOf(() => pack(ascii, { mti: '0200', fields: { 28: 'C1' } }, all)), { reason: 'wrong-length', path: '28' }, 'a signed amount is not filled up')
  t.match(failureOf(() => pack(ascii, { mti: '0200', fields: { 3: '0000001' } }, all)), { reason: 'wrong-length', path: '3' }, 'nor anything cut')
  t.match(failureOf(() => pack(ascii, { mti: '0200',
    fields: { 43: '\u20b9'.repeat(40) } }, all)), { reason: 'character', path: '43' }, 'a character of two bytes has no place')
  t.equal(pack(ascii, { mti: '0200', fields: { 52: '0123456789abcdef' } }, all).subarray(20).toString('latin1'), '0123456789ABCDEF')
  t.equal(pack(bcd, { mti: '0200', fields: { 52: '0123456789abcdef' } }, all).subarray(10).toString('hex'), '0123456789abcdef')
  t.equal(pack(bcd, { mti: '0200', fields: { 3: '0000AF' } }, all).subarray(10).toString('hex'), '0000af')
})

t.test('what is no message, no text or no MTI is refused, whatever JavaScript hands over', async t => {
  const odd: unknown[] = [null, undefined, 7, 'text', [], { mti: '0200' }, { mti: '0200', fields: null }, { mti: '0200', fields: [] }, { mti: '0200', fields: { 3: 1 } },
    { mti: '0200', fields: { 3: undefined } }, { mti: '0200', fields: { 3: Buffer.alloc(6) } }, { mti: 200, fields: {} }, { mti: '020', fields: {} },
      { mti: '02000', fields: {} },
    { mti: '0\u0660\u0660\u0660', fields: {} }, { fields: {} }]
  for (const message of odd) t.equal(failureOf(() => pack(ascii, message as Message)).code, 'ISO_PACK_INVALID', inspect(message))
  for (const bytes of [null, 'abc', [1], {}, new Uint16Array(4)]) t.match(failureOf(() => unpack(ascii, bytes as Uint8Array)), { reason: 'input' }, inspect(bytes))
  t.same(unpack(ascii, new Uint8Array(latin1('02002000000000000000000001'))).fields, { 3: '000001' }, 'a plain Uint8Array is as good')
})

t.test('an error carries what was decoded and shows no value of it', async t => {
  const pan = '4761739001010119'
  const bytes = pack(ascii93, { mti: '1200', fields: { 2: pan, 3: '000000', 4: '000000009900', 35: `${pan}=27122011758928889`, 43: 'ASHA STORES' } })
  for (let cut = 0; cut < bytes.length; cut++) {
    const error = failureOf(() => unpack(ascii93, bytes.subarray(0, cut)))
    const text = [error.message, JSON.stringify(error), inspect(error, { depth: 9 }), ...Object.values(error).map(String)].join('\n')
    if (/476173|0119|ASHA|009900/.test(text) || !isSoundboxError(error, 'ISO_UNPACK_INVALID')) t.fail(`cut at ${cut}: ${text}`)
  }
  const failure = failureOf(() => unpack(ascii93, bytes.subarray(0, bytes.length - 1)))
  t.strictSame(failure.decoded, { mti: '1200', fields: { 2: pan, 3: '000000', 4: '000000009900', 35: `${pan}=27122011758928889` } })
  t.notOk(Object.keys(failure).includes('decoded'))
  const packing = failureOf(() => pack(ascii, { mti: '0200', fields: { 2: `${pan}x` } }))
  t.notMatch(inspect(packing), /476173/)
  t.match(packing, { reason: 'character', path: '2', expected: 'a digit', found: 'a lower-case letter', offset: undefined })
  t.same(failureOf(() => unpack(ascii, latin1('02'))).decoded, { fields: {} })
})

t.test('a spec with a wrong word is refused at the path of the word', async t => {
  const good = { type: 'n', len: 2, max: 19, count: 'chars', enc: 'ascii', lenEnc: 'ascii' }
  const packed = { type: 'n', len: 0, max: 3, count: 'digits', enc: 'bcd', pad: 'left0' }
  const fixed = { type: 'b', len: 0, max: 8, count: 'bytes', enc: 'binary' }
  const head = { mti: { enc: 'ascii' }, bitmap: { enc: 'hex', primaryBytes: 16 } }
  const rows: Array<[unknown, string]> = [
    [null, 'spec'], [[], 'spec'], ['x', 'spec'], [{ ...head, fields: { 2: good }, extra: 1 }, 'spec'], [{ ...head, fields: { 2: good }, name: 1 }, 'name'],
    [{ ...head, mti: { enc: 'binary' }, fields: { 2: good } }, 'mti.enc'], [{ ...head, mti: undefined, fields: { 2: good } }, 'mti'],
    [{ ...head, mti: { enc: 'ascii', versions: [] }, fields: { 2: good } }, 'mti.versions'],
    [{ ...head, mti: { enc: 'ascii', versions: ['1988'] }, fields: { 2: good } }, 'mti.versions.0'],
    [{ ...head, bitmap: { enc: 'ascii', primaryBytes: 16 }, fields: { 2: good } }, 'bitmap.enc'],
    [{ ...head, bitmap: { enc: 'hex', primaryBytes: 8 }, fields: { 2: good } }, 'bitmap.primaryBytes'],
    [{ ...head, bitmap: { ...head.bitmap, secondary: 'no' }, fields: { 2: good } }, 'bitmap.secondary'],
    [{ ...head, bitmap: { ...head.bitmap, tertiary: 1 }, fields: { 2: good } }, 'bitmap.tertiary'], [{ ...head, codepage: '273', fields: { 2: good } }, 'codepage'],
    [{ ...head }, 'fields'], [{ ...head, fields: {} }, 'fields'], [{ ...head, fields: { 129: good } }, 'fields'],
    [{ ...head, fields: { '02': good } }, 'fields'], [{ ...head, fields: { x: good } }, 'fields'], [{ ...head, fields: { 1: fixed } }, 'fields.1']
  ]
  for (const [field, word] of [
    [7, ''], [{ ...good, extra: 1 }, ''], [{ ...good, type: 'q' }, '.type'], [{ ...good, len: 5 }, '.len'], [{ ...good, len: '2' }, '.len'],
    [{ ...good, len: undefined }, '.len'], [{ ...good, max: 0 }, '.max'], [{ ...good, max: 100 }, '.max'],
    [{ ...good, max: 1.5 }, '.max'], [{ ...good, count: 'bytes' }, '.count'], [{ ...fixed, count: 'chars' }, '.count'], [{ ...good, enc: 'binary' }, '.enc'],
    [{ ...fixed, enc: 'ascii' }, '.enc'], [{ ...good, type: 'ans', enc: 'bcd' }, '.enc'],
    [{ ...good, type: 'xn', enc: 'bcd' }, '.enc'], [{ ...good, lenEnc: 'hex' }, '.lenEnc'], [{ ...good, lenEnc: undefined }, '.lenEnc'],
    [{ ...good, len: 0 }, '.lenEnc'], [{ ...good, pad: 'left0' }, '.pad'], [{ ...packed, pad: undefined }, '.pad'], [{ ...packed, pad: 'right0' }, '.pad'],
    [{ ...fixed, max: 7, count: 'hexchars' }, '.max'], [{ ...good, mask: 'stars' }, '.mask'], [{ ...good, title: 2 }, '.title'],
    [{ ...good, tlv: true }, '.tlv'], [{ ...fixed, tlv: 'yes' }, '.tlv'], [{ ...good, mac: true }, '.mac'],
    [{ ...good, max: 10_000, len: 0, lenEnc: undefined }, '.max']
  ] as const) rows.push([{ ...head, fields: { 5: field } }, `fields.5${word}`])
  for (const [json, path] of rows) t.match(failureOf(() => compileSpec(json)), { code: 'ISO_SPEC_INVALID', reason: 'spec', path, offset: undefined }, path)
  t.ok(compileSpec({ ...head, fields: { 5: { ...good, max: 9999, len: 4 }, 64: { ...fixed, mac: true }, 128: { ...fixed, mac: false } } }),
    'the greatest words are taken')
  t.ok(ISO_REASONS.includes('spec'))
})

t.test('the README names every leniency, reason and word of a spec', async t => {
  const readme = readFileSync('protocol/iso8583/README.md', 'utf8')
  for (const word of [...Object.keys(EASE), ...ISO_REASONS, 'secondary', 'tertiary', 'versions', 'codepage', 'subfields', 'tlv', 'mask', 'mac', 'lenEnc',
    'pad', 'hexchars', 'iso_8583']) {
    t.ok(readme.includes(`\`${word}\``), word)
  }
})
