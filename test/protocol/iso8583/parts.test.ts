// What stands around the codec: parts of a field, message authentication, masked lines, MTIs, and the JSON shape of iso_8583.
import { createRequire } from 'node:module'
import t from 'tap'
import {
  aesCmac, answerMti, cbcMac, compileShippedSpec, compileSpec, describe, FIELD_NUMBER_MAX, formatTlv, iso8583JsonFromMessage, Iso8583Error, isMtiRequest,
  type MacHook, type Message, messageFromIso8583Json,
  pack, parseMti, parseTlv, retailMac, type Spec, SPEC_1987_ASCII, SPEC_1987_BCD, SPEC_1993_ASCII, type SpecJson, SUBFIELDS_MAX, TLV_DEPTH_MAX,
  TLV_TAG_BYTES_MAX, type TlvItem, unpack
} from '../../../protocol/iso8583/index.js'
import { damaged, forSeeds, type Rand } from './random-message.js'

const hex = (text: string): Buffer => Buffer.from(text.replace(/ /g, ''), 'hex')
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')

/** A spec with some fields changed. */
function withFields (json: SpecJson, changes: Record<number, object>): Spec {
  const fields = Object.fromEntries(Object.entries(changes).map(([key, words]) => [key, { ...json.fields[key], ...words }]))
  return compileSpec({ ...json, fields: { ...json.fields, ...fields } })
}

function failureOf (call: () => unknown): Iso8583Error {
  try {
    call()
  } catch (error) {
    if (error instanceof Iso8583Error) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

const CHIP: TlvItem[] = [
  { tag: '9F26', value: '8E19ED4BCA5C670A' }, { tag: '82', value: '5C00' }, { tag: '95', value: '' }, { tag: 'DF8101', value: 'FF' },
  { tag: '70', items: [{ tag: '5A', value: '4761739001010119' }, { tag: 'BF0C', items: [] }] }
]
const CHIP_HEX = '9F26088E19ED4BCA5C670A82025C009500DF810101FF700D5A084761739001010119BF0C00'

t.test('TLV keeps unknown tags and their order, nested and empty ones too', async t => {
  t.strictSame(parseTlv(CHIP_HEX), CHIP)
  t.equal(formatTlv(CHIP), CHIP_HEX)
  t.strictSame(parseTlv(''), [])
  for (const [bytes, prefix] of [[127, '7F'], [128, '8180'], [255, '81FF'], [256, '820100'], [65_536, '83010000']] as const) {
    const items = [{ tag: '82', value: 'AB'.repeat(bytes) }]
    t.equal(formatTlv(items).slice(0, 2 + prefix.length), `82${prefix}`)
    t.strictSame(parseTlv(formatTlv(items)), items, `${bytes} bytes`)
  }
})

t.test('TLV that is cut, too deep, too long or not in its shortest form is refused', async t => {
  for (let cut = 2; cut < CHIP_HEX.length; cut += 2) {
    const head = CHIP_HEX.slice(0, cut)
    const isWhole = [22, 30, 34, 44].includes(cut)
    if (isWhole) t.equal(formatTlv(parseTlv(head)), head)
    else t.equal(failureOf(() => parseTlv(head)).reason, 'tlv', `cut at ${cut / 2}`)
  }
  const nested = (depth: number): string => Array.from({ length: depth }).reduce<string>(inner => `E1${(inner.length / 2).toString(16).padStart(2, '0').toUpperCase()}${inner}`, '')
  t.equal(formatTlv(parseTlv(nested(TLV_DEPTH_MAX - 1))), nested(TLV_DEPTH_MAX - 1))
  t.match(failureOf(() => parseTlv(nested(TLV_DEPTH_MAX))), { reason: 'tlv', expected: `at most ${TLV_DEPTH_MAX} levels` })
  t.equal(TLV_TAG_BYTES_MAX, 4)
  t.strictSame(parseTlv('DF81820100'), [{ tag: 'DF818201', value: '' }])
  for (const [text, path] of [
    ['DF8182830100', 'tlv'], ['9F', 'tlv'], ['DF81', 'tlv'], ['82', 'tlv.82'], ['8280', 'tlv.82'], ['8281', 'tlv.82'], ['82810100', 'tlv.82'],
    ['8282007F', 'tlv.82'], ['828401000000', 'tlv.82'],
    ['820201', 'tlv.82'], ['0000', 'tlv'], ['FF00', 'tlv'], ['7003820201', 'tlv.70.82'], ['8', 'tlv'], ['8g00', 'tlv'], ['9f2600', 'tlv']
  ] as const) t.match(failureOf(() => parseTlv(text)), { code: 'ISO_UNPACK_INVALID', reason: 'tlv', path }, text)
  t.match(failureOf(() => formatTlv([{ tag: '82', value: 'AB'.repeat(2 ** 24) }])), { reason: 'tlv', path: 'tlv.82' }, 'more than three bytes of length can say')
  const wrong: unknown[] = [null, {}, [null], [{ tag: '9F', value: '' }], [{ tag: '8201', value: '' }], [{ tag: 'DF81', value: '' }],
    [{ tag: 'DF81828301', value: '' }], [{ tag: '00', value: '' }], [{ tag: '82', value: 'F' }],
    [{ tag: '82', value: 'ab' }], [{ tag: '82', value: 7 }], [{ tag: '82', items: [] }], [{ tag: '70', value: '' }],
    [{ tag: '70', items: [{ tag: '', value: '' }] }], [{ tag: '70', value: '', items: [] }]]
  for (const items of wrong) t.match(failureOf(() => formatTlv(items as TlvItem[])), { code: 'ISO_PACK_INVALID', reason: 'tlv' }, JSON.stringify(items))
})

function someItems (rand: Rand, depth: number): TlvItem[] {
  return Array.from({ length: rand.below(4) }, () => {
    const constructed = depth < 4 && rand.below(4) === 0
    const tag = constructed ? rand.pick(['70', '77', 'E1', 'BF0C']) : rand.pick(['82', '5A', '9F26', 'DF8101', 'DF818201'])
    if (constructed) return { tag, items: someItems(rand, depth + 1) }
    return { tag, value: Buffer.from(Array.from({ length: rand.pick([0, 1, 8, 127, 128]) }, () => rand.below(256))).toString('hex').toUpperCase() }
  })
}

t.test('random TLV comes back the same, and damaged TLV is refused or is other TLV of the same bytes', async t => {
  forSeeds(300, (rand, seed) => {
    const items = someItems(rand, 0)
    const text = formatTlv(items)
    t.strictSame(parseTlv(text), items, `SEED=${seed}`)
    const broken = damaged(rand, Buffer.from(text, 'hex')).toString('hex').toUpperCase()
    let read: TlvItem[] = []
    try {
      read = parseTlv(broken)
    } catch (error) {
      t.ok(error instanceof Iso8583Error && error.reason === 'tlv', `SEED=${seed}`)
      return
    }
    t.equal(formatTlv(read), broken, `SEED=${seed}`)
  })
})

t.test('field 55 is checked and shown as objects where the spec says tlv', async t => {
  const message = { mti: '0200', fields: { 3: '000000', 55: CHIP_HEX }, parts: { 55: CHIP } }
  for (const [spec, scale] of [[withFields(SPEC_1987_ASCII, { 55: { tlv: true } }), 2], [withFields(SPEC_1987_BCD, { 55: { tlv: true } }), 1]] as const) {
    const bytes = pack(spec, message)
    t.strictSame(unpack(spec, bytes), message)
    t.same(pack(spec, { mti: '0200', fields: { 3: '000000' }, parts: { 55: CHIP } }), bytes, 'built from parts alone')
    t.same(pack(spec, { mti: '0200', fields: message.fields }), bytes, 'or from the value alone')
    t.match(failureOf(() => pack(spec, { ...message, fields: { 55: '9F2600' } })), { reason: 'conflict', path: '55' }, 'two values')
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 55: '9F2608FF' } })), { code: 'ISO_PACK_INVALID', reason: 'tlv', path: '55.9F26', offset: undefined })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: {}, parts: { 55: [{ tag: '9F26', value: 'zz' }] } })), { reason: 'tlv', path: '55.9F26' })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 55: '8281020102' } })), { reason: 'tlv', path: '55.82' })
    t.ok(pack(spec, { mti: '0200', fields: { 55: '8281020102' } }, { longTlvLength: true }), 'what was read leniently can be packed leniently')
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 55: 7 } } as unknown as Message)), { reason: 'input', path: '55' })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: { 55: '9f2600' } })), { path: '55' })
    t.match(failureOf(() => pack(spec, { mti: '0200', fields: {}, parts: { 48: [] } })), { reason: 'subfield', path: 'parts' })
    const cut = Buffer.from(pack(scale === 2 ? compileSpec(SPEC_1987_ASCII) : compileSpec(SPEC_1987_BCD), { mti: '0200',
      fields: { 3: '000000', 55: '82025C009F2608FF' } }))
    const failure = failureOf(() => unpack(spec, cut))
    t.match(failure, { code: 'ISO_UNPACK_INVALID', reason: 'tlv', path: '55.9F26', offset: cut.length - scale, decoded: { fields: { 3: '000000' } } })
  }
})

t.test('positional parts are checked by class and length and built again', async t => {
  const codes = [{ name: 'transaction', type: 'n', max: 2 }, { name: 'from', type: 'n', max: 2 }, { name: 'to', type: 'n', max: 2 }]
  const data = [{ name: 'kind', type: 'a', max: 1 }, { name: 'text', type: 'ans', max: 20, len: 2 }, { name: 'extra', type: 'n', max: 3, optional: true },
    { name: 'more', type: 'n', max: 9, len: 1, optional: true }]
  const ascii = withFields(SPEC_1987_ASCII, { 3: { subfields: codes }, 48: { subfields: data } })
  const bcd = withFields(SPEC_1987_BCD, { 3: { subfields: codes }, 19: { subfields: [{ name: 'first', type: 'n', max: 1 }, { name: 'rest', type: 'n', max: 2 }] } })
  const message = { mti: '0200', fields: { 3: '281020', 48: 'A05hello123' }, parts: { 3: { transaction: '28', from: '10', to: '20' }, 48: { kind: 'A',
    text: 'hello', extra: '123' } } }
  t.strictSame(unpack(ascii, pack(ascii, message)), message)
  t.strictSame(unpack(ascii, pack(ascii, { mti: '0200', fields: {}, parts: message.parts })), message)
  t.strictSame(unpack(bcd, pack(bcd, { mti: '0200', fields: {}, parts: { 19: { first: '3', rest: '56' } } })).fields, { 19: '356' })
  const at48 = (value: string): Buffer => latin1(`02000000000000010000${String(value.length).padStart(3, '0')}${value}`)
  t.strictSame(unpack(ascii, at48('A00')).parts, { 48: { kind: 'A', text: '' } })
  for (const [value, path, offset] of [
    ['105hello', '48.kind', 23], ['', '48.kind', 23], ['A', '48.text', 24], ['A0', '48.text', 24], ['A-5hello', '48.text', 24], ['A21', '48.text', 24],
    ['A05hell', '48.text', 26], ['A0012', '48.extra', 26], ['A0012x', '48.extra', 26],
    ['A001231', '48.more', 30], ['A0012319!', '48', 31]
  ] as const) t.match(failureOf(() => unpack(ascii, at48(value))), { reason: 'subfield', path, offset }, value)
  const wrong: Array<[unknown, string]> = [[7, '48'], [[], '48'], [{ kind: 'A' }, '48.text'], [{ kind: 'A', text: 'x'.repeat(21) }, '48.text'],
    [{ kind: 'AB', text: '' }, '48.kind'], [{ kind: '1', text: '' }, '48.kind'],
    [{ kind: 'A', text: '', unknown: '' }, '48'], [{ kind: 'A', text: '', more: '1' }, '48.more'], [{ kind: 'A', text: 5 }, '48.text'],
    [{ kind: 'A', text: '\u20b9' }, '48.text']]
  for (const [parts, path] of wrong) {
    t.match(failureOf(() => pack(ascii, { mti: '0200',
      fields: {}, parts: { 48: parts } } as Message)), { code: 'ISO_PACK_INVALID', reason: 'subfield', path }, JSON.stringify(parts))
  }
  t.match(failureOf(() => unpack(bcd, hex('0200 0000200000000000 0x56'.replace('0x', '0a')))), { reason: 'nibble', path: '19' })
  const part = (index: number): object => ({ name: `p${index}`, type: 'n', max: 1 })
  const many = (count: number): Record<number, object> => ({ 48: { subfields: Array.from({ length: count }, (_, index) => part(index)) } })
  t.ok(withFields(SPEC_1987_ASCII, many(SUBFIELDS_MAX)))
  for (const [changes, path] of [
    [many(SUBFIELDS_MAX + 1), ''], [{ 48: { subfields: [] } }, ''], [{ 48: { subfields: [{ ...part(0), name: '1' }] } }, '.0.name'],
    [{ 48: { subfields: [part(0), part(0)] } }, '.1.name'], [{ 48: { subfields: [{ ...part(0), type: 'xn' }] } }, '.0.type'],
    [{ 48: { subfields: [{ ...part(0), optional: true }, part(1)] } }, '.1.optional'], [{ 48: { subfields: [{ ...part(0), len: 1, max: 10 }] } }, '.0.max'],
    [{ 48: { subfields: [{ ...part(0), len: 5 }] } }, '.0.len'], [{ 48: { subfields: [null] } }, '.0']
  ] as Array<[Record<number, object>, string]>) t.match(failureOf(() => withFields(SPEC_1987_ASCII, changes)), { code: 'ISO_SPEC_INVALID',
    path: `fields.48.subfields${path}` })
  t.match(failureOf(() => withFields(SPEC_1987_ASCII, { 55: { tlv: true, subfields: [part(0)] } })), { path: 'fields.55.tlv' })
})

// RFC 4493 section 4, and ISO/IEC 9797-1 annex B (the text "Now is the time for all ").
const RFC_4493 = { key: hex('2b7e1516 28aed2a6 abf71588 09cf4f3c'),
  text: hex('6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51 30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710') }
t.test('the codes are those of their standards', async t => {
  for (const [length, want] of [[0, 'bb1d6929e95937287fa37d129b756746'], [16, '070a16b46b4d4144f79bdd9dd04a287c'], [40, 'dfa66747de9ae63030ca32611497c827'],
    [64, '51f0bebf7e3b9d92fc49741779363cfe']] as const) {
    t.equal(Buffer.from(aesCmac({ key: RFC_4493.key, macBytes: 16 })(RFC_4493.text.subarray(0, length))).toString('hex'), want, `RFC 4493, ${length} bytes`)
    t.equal(Buffer.from(aesCmac({ key: RFC_4493.key })(RFC_4493.text.subarray(0, length))).toString('hex'), want.slice(0, 16), 'the first 8 bytes by default')
  }
  const single = hex('0123456789abcdef')
  const double = hex('0123456789abcdef fedcba9876543210')
  const text = latin1('Now is the time for all ')
  const rows: Array<[MacHook, string]> = [
    [cbcMac({ key: single }), '70a30640cc76dd8b'], [cbcMac({ key: single, padding: 'mark' }), '10e1f0f108341b6d'],
    [retailMac({ key: double }), 'a1c72e74ea3fa9b6'], [retailMac({ key: double, padding: 'mark' }), 'e9086230ca3be796'],
    [retailMac({ key: double, macBytes: 4 }), 'a1c72e74']
  ]
  for (const [mac, want] of rows) t.equal(Buffer.from(mac(text)).toString('hex'), want)
  t.equal(Buffer.from(retailMac({ key: Buffer.concat([single, single]) })(text)).toString('hex'), '70a30640cc76dd8b', 'two equal halves are single DES')
  t.same(retailMac({ key: double })(latin1('abc')), retailMac({ key: double })(latin1('abc\0\0')), 'zeros fill up a block')
  t.equal(cbcMac({ key: double })(Buffer.alloc(0)).length, 8)
  for (const make of [() => retailMac({ key: single }), () => cbcMac({ key: hex('00') }), () => aesCmac({ key: single }), () => aesCmac({ key: double,
    macBytes: 17 }), () => retailMac({ key: double, macBytes: 3 }), () => cbcMac({ key: single, macBytes: 9 })]) {
    t.throws(make, { code: 'INPUT_INVALID' })
  }
})

t.test('a code in field 64, 128 or 192 covers every byte before it', async t => {
  const mac = retailMac({ key: hex('0123456789abcdef fedcba9876543210') })
  const plain = { type: 'b', len: 0, max: 8, count: 'bytes', enc: 'binary' } as const
  const third = compileSpec({ ...SPEC_1987_BCD, bitmap: { ...SPEC_1987_BCD.bitmap, tertiary: true }, fields: { ...SPEC_1987_BCD.fields, 130: plain, 192: plain } })
  for (const [spec, fields, number] of [
    [compileShippedSpec('1987-ascii'), { 3: '000000' }, 64], [compileShippedSpec('1987-bcd'), { 3: '000000' }, 64],
    [compileShippedSpec('1987-ascii'), { 3: '000000', 70: '301' }, 128],
    [compileSpec({ ...SPEC_1987_ASCII, bitmap: { ...SPEC_1987_ASCII.bitmap, secondary: 'always' } }), { 3: '000000' }, 128], [third, { 130: '0011223344556677' }, 192]
  ] as const) {
    const bytes = pack(spec, { mti: '0800', fields }, { mac })
    const size = spec.bitmapIsHex ? 16 : 8
    const message = unpack(spec, bytes, { mac })
    t.equal(message.fields[number], Buffer.from(mac(bytes.subarray(0, bytes.length - size))).toString('hex').toUpperCase())
    t.same(pack(spec, message, { mac }), bytes, 'packing what was read makes the code again')
    for (let at = 0; at < bytes.length; at++) {
      const broken = Buffer.from(bytes)
      broken[at]! ^= 1
      if (failureOf(() => unpack(spec, broken, { mac })).code !== 'ISO_UNPACK_INVALID') t.fail(`byte ${at}`)
    }
    const other = failureOf(() => unpack(spec, bytes, { mac: cbcMac({ key: hex('0123456789abcdef') }) }))
    t.match(other, { reason: 'mac', path: String(number), offset: bytes.length - size, decoded: { mti: '0800' } })
    t.match(failureOf(() => unpack(spec, bytes, { mac: () => Buffer.alloc(4) })), { reason: 'mac', expected: '8 bytes from the hook' })
    t.match(failureOf(() => pack(spec, { mti: '0800', fields }, { mac: () => Buffer.alloc(9) })), { code: 'ISO_PACK_INVALID', reason: 'mac', path: String(number) })
  }
  const bcd = compileShippedSpec('1987-bcd')
  t.match(failureOf(() => unpack(bcd, pack(bcd, { mti: '0800', fields: { 3: '000000' } }), { mac })), { reason: 'mac', path: '3' }, 'no code at all')
  const without = withFields(SPEC_1987_BCD, { 64: { mac: false } })
  t.match(failureOf(() => pack(without, { mti: '0800', fields: { 3: '000000' } }, { mac })), { reason: 'mac', path: '64' })
  t.match(failureOf(() => pack(bcd, { mti: '0800', fields: { 999: '' } }, { mac })), { code: 'ISO_PACK_INVALID' })
  t.equal(FIELD_NUMBER_MAX, 192)
})

t.test('described lines never show a card number, track, PIN, chip or private data, and change nothing', async t => {
  const pan = '4761739001010119'
  const fields = {
    2: pan, 4: '000000012500', 14: '2712', 35: `${pan}=27122011758928889`, 36: `59${pan}=1`, 37: '000000000721', 41: 'TERM0200',
      43: `SHOP ${pan} BENGALURU`.padEnd(40), 45: `B${pan}^ASHA/R^2712`,
    48: 'ASHA 9876543210 CVV 123', 52: '0123456789ABCDEF', 55: `5A08${pan}`, 63: '123', 102: '50100012345678', 120: 'secret'
  }
  for (const spec of [compileSpec(SPEC_1987_ASCII), compileSpec(SPEC_1993_ASCII)]) {
    const message = Object.freeze({ mti: '0200', fields: Object.freeze({ ...fields }) })
    const lines = describe(spec, message)
    t.same(message.fields, fields)
    t.equal(lines.length, 1 + Object.keys(fields).length)
    t.notMatch(lines.join('\n'), /4761739001|900101|ASHA|98765|2712|0123456789ABCDEF|secret|5010001/)
    for (const line of ['MTI 0200 1987 financial request, acquirer', 'DE 2 476173******0119', 'DE 4 000000012500', 'DE 35 [34 characters]',
      'DE 37 000000000721', 'DE 52 [16 characters]', 'DE 102 **********5678', 'DE 120 [6 characters]']) {
      t.ok(lines.includes(line), line)
    }
    t.match(lines.find(line => line.startsWith('DE 43')), /SHOP 476173\*{6}0119 BENGALURU/, 'also where it stands in a text')
  }
  const spec = withFields(SPEC_1987_ASCII, { 4: { title: 'amount', mask: 'hidden' }, 63: { mask: 'clear' }, 41: { mask: 'last4' }, 42: { mask: 'pan' } })
  const some = { mti: '9999', fields: { 4: '000000012500', 63: 'seen\n\u001b[31m', 41: 'TERM0200', 42: 'MERCHANT0000001', 200: 'x', 2: '4761' } }
  t.same(describe(spec, some), ['MTI 9999 unknown type', 'DE 2 ****', 'DE 4 amount [12 characters]', 'DE 41 ********', 'DE 42 MERCHA*****0001',
    'DE 63 seen??[31m', 'DE 200 [1 characters]'])
  for (const [number, mask] of [[35, 'clear'], [52, 'last4'], [55, 'clear'], [36, 'pan'], [45, 'clear'], [2, 'clear'], [2, 'last4']] as const) {
    t.match(failureOf(() => withFields(SPEC_1987_ASCII, { [number]: { mask } })), { code: 'ISO_SPEC_INVALID', path: `fields.${number}.mask` },
      'a spec cannot make it visible')
  }
  t.ok(withFields(SPEC_1987_ASCII, { 2: { mask: 'hidden' }, 52: { mask: 'hidden' } }))
})

t.test('an MTI is read digit by digit and answered', async t => {
  t.same(parseMti('0421'), { version: '1987', class: 'reversal or chargeback', function: 'advice', origin: 'acquirer repeat' })
  t.same(parseMti('1804'), { version: '1993', class: 'network management', function: 'request', origin: 'other' })
  t.same(parseMti('2142'), { version: '2003', class: 'authorization', function: 'notification', origin: 'issuer' })
  for (const mti of ['', '020', '02000', '3200', '0000', '0900', '0280', '0206', '02a0']) t.equal(parseMti(mti), undefined, mti)
  for (const [mti, answer] of [['0200', '0210'], ['0201', '0210'], ['0220', '0230'], ['0221', '0230'], ['0420', '0430'], ['0421', '0430'], ['0800', '0810'],
    ['1804', '1814'], ['1203', '1212'], ['2160', '2170']] as const) {
    t.equal(answerMti(mti), answer)
    t.ok(isMtiRequest(mti))
    t.notOk(isMtiRequest(answer))
    t.throws(() => answerMti(answer), { code: 'ISO_PACK_INVALID', reason: 'mti', found: 'the MTI of an answer' })
  }
  for (const mti of ['', '02', '020x', '0900']) t.throws(() => answerMti(mti), { code: 'ISO_PACK_INVALID' }, mti)
})

t.test('JSON of iso_8583 goes in and comes out, and its bytes are read', async t => {
  const Peer = createRequire(import.meta.url)('iso_8583') as new (json: object) => { getRawMessage: () => Buffer }
  const json = { 0: '0200', 2: '4761739001010119', 3: '000000', 4: '000000005000', 7: '0911131411', 11: '000001', 12: '131411', 13: '0911', 39: '00',
    41: '12345678', 49: '356' }
  const spec = compileShippedSpec('1987-ascii')
  const message = messageFromIso8583Json(spec, json)
  t.same(message, { mti: '0200', fields: Object.fromEntries(Object.entries(json).slice(1)) })
  t.same(iso8583JsonFromMessage(message), json)
  const peerSpec = compileSpec({ ...SPEC_1987_ASCII, bitmap: { enc: 'binary', primaryBytes: 8, secondary: 'always' } })
  const bytes = new Peer(json).getRawMessage()
  t.same(iso8583JsonFromMessage(unpack(peerSpec, bytes)), json, 'the bytes of that package, which always have two bitmaps')
  t.same(pack(peerSpec, message), bytes, 'are the bytes made here')
  t.equal(messageFromIso8583Json(spec, { 0: '0200', 52: '0123456789abcdef' }).fields['52'], '0123456789ABCDEF')
  for (const [odd, path] of [[null, 'message'], [[], 'message'], [{ 2: '1' }, 'mti'], [{ 0: '0200', '127.2': '1' }, 'fields'], [{ 0: '0200', 1: 'F0' }, '1'],
    [{ 0: '0200', 3: 7 }, '3']] as const) {
    t.match(failureOf(() => messageFromIso8583Json(spec, odd as unknown as Record<string, string>)), { code: 'ISO_PACK_INVALID', reason: 'input', path })
  }
})
