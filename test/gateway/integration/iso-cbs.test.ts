// The core bank over ISO 8583: DE 54 and statement rows both ways, requests, answers, and the transport over a port.
import fc from 'fast-check'
import t from 'tap'
import { SoundboxError } from '../../../protocol/index.js'
import { parseServiceResponse, type ServiceName, type ServiceRequest, type ServiceResponse } from '../../../gateway/integration/contract.js'
import {
  DE54_BLOCKS_MAX, formatAdditionalAmounts, formatStatementRows, ISO_STATEMENT_ROWS_MAX, parseAdditionalAmounts, parseStatementRows, type IsoBalance, type IsoEntry
} from '../../../gateway/integration/iso-amounts.js'
import {
  inputFromIsoRequest, isoCbsTransport, ISO_CBS_PROFILE, isoFieldsFromBalance, isoFieldsFromStatement, isoRequestFromInput, type IsoFields
} from '../../../gateway/integration/iso-cbs.js'

const NOW_MS = Date.UTC(2026, 0, 5, 21, 15, 7)
const PROFILE = ISO_CBS_PROFILE
const balance: IsoBalance = { accountType: '10', amountType: '01', currency: 'INR', amount: '152000.00' }
const entry: IsoEntry = { bookedAt: '2026-01-05T09:10:11Z', drCr: 'CR', amount: '19.00', reference: '7656789878EE', narration: 'QR PAYMENT' }

t.test('DE 54 is read and written block by block, with the sign and the places of the currency', async t => {
  for (const [text, rows, why] of [
    ['1001356C000015200000', [balance], 'ledger in rupees'],
    ['1001356C0000152000001002356C000015000000', [balance, { ...balance, amountType: '02', amount: '150000.00' }], 'ledger and available'],
    ['0001834D000000001950', [{ accountType: '00', amountType: '01', currency: 'TZS', amount: '-19.50' }], 'overdrawn'],
    ['0001800C000000001950', [{ accountType: '00', amountType: '01', currency: 'UGX', amount: '1950' }], 'a currency without places'],
    ['0001356C999999999999', [{ accountType: '00', amountType: '01', currency: 'INR', amount: '9999999999.99' }], 'the largest']
  ] as const) {
    t.same(parseAdditionalAmounts(text), rows, why)
    t.equal(formatAdditionalAmounts(rows), text, why)
  }
  t.equal(parseAdditionalAmounts('0001356D000000000000')[0]?.amount, '0.00', 'no minus nought')
})

t.test('a wrong DE 54 is refused with its block, never guessed', async t => {
  const good = '1001356C000015200000'
  for (const text of [
    '', good.slice(1), `${good}1`, `${good}${good.slice(0, 19)}X`, good.replace('C', 'X'), good.replace('356', '999'), good.replace('0000', '00 0'), good.repeat(DE54_BLOCKS_MAX + 1)
  ]) {
    t.throws(() => parseAdditionalAmounts(text), { code: 'PROVIDER_RESPONSE_INVALID' }, text)
  }
  t.equal(parseAdditionalAmounts(good.repeat(DE54_BLOCKS_MAX)).length, DE54_BLOCKS_MAX)
  t.throws(() => formatAdditionalAmounts(Array.from({ length: DE54_BLOCKS_MAX + 1 }, () => balance)), { code: 'INPUT_INVALID' })
  for (const wrong of [{ currency: 'ZZZ' }, { currency: 'constructor' }, { amount: '10000000000.00' }, { amount: '1.005' }, { amount: '' }, { amount: '1e3' }]) {
    t.throws(() => formatAdditionalAmounts([{ ...balance, ...wrong }]), { code: 'INPUT_INVALID' }, JSON.stringify(wrong))
  }
  t.equal(formatAdditionalAmounts([{ ...balance, amount: '1.500' }]), '1001356C000000000150', 'noughts beyond the places do no harm')
})

t.test('any balance and any entry that fits is read back as it was written', async () => {
  const decimal = fc.integer({ min: 0, max: 999_999_999_999 }).map(minor => `${Math.floor(minor / 100)}.${String(minor % 100).padStart(2, '0')}`)
  const aBalance = fc.record({ amountType: fc.constantFrom('01', '02'), currency: fc.constantFrom('INR', 'TZS', 'USD'), amount: decimal, isDebit: fc.boolean() })
  fc.assert(fc.property(fc.array(aBalance, { minLength: 1, maxLength: DE54_BLOCKS_MAX }), rows => {
    const balances = rows.map(({ amountType, currency, amount, isDebit }) => ({ accountType: '00', amountType, currency, amount: isDebit && /[1-9]/.test(amount) ? `-${amount}` : amount }))
    return JSON.stringify(parseAdditionalAmounts(formatAdditionalAmounts(balances))) === JSON.stringify(balances)
  }))
  const text = (max: number): fc.Arbitrary<string> => fc.string({ maxLength: max, unit: 'grapheme-ascii' }).map(value => value.trimEnd())
  const anEntry = fc.record({
    seconds: fc.integer({ min: 0, max: 3_000_000_000 }), drCr: fc.constantFrom('DR' as const, 'CR' as const), amount: decimal, reference: text(12), narration: text(25)
  })
  fc.assert(fc.property(fc.array(anEntry, { maxLength: ISO_STATEMENT_ROWS_MAX }), rows => {
    const entries = rows.map(({ seconds, ...row }) => ({ bookedAt: `${new Date(Date.UTC(2000, 0, 1) + seconds * 1000).toISOString().slice(0, 19)}Z`, ...row }))
    const want = entries.map(({ bookedAt, drCr, amount, reference, narration }) => ({ bookedAt, drCr, amount, reference, narration }))
    return JSON.stringify(parseStatementRows(formatStatementRows(entries, 'INR'), 'INR')) === JSON.stringify(want)
  }))
})

t.test('random bytes in either field are refused or read, and nothing else happens', async t => {
  fc.assert(fc.property(fc.string({ maxLength: 200, unit: fc.constantFrom(...'0123456789CD356 -x') }), text => {
    for (const parse of [() => parseAdditionalAmounts(text), () => parseStatementRows(text, 'INR')]) {
      try { parse() } catch (error) { if ((error as SoundboxError).code !== 'PROVIDER_RESPONSE_INVALID') return false }
    }
    return true
  }))
  t.same(parseStatementRows('', 'INR'), [])
  const row = formatStatementRows([entry], 'INR')
  t.same(parseStatementRows(row.trimEnd(), 'INR'), [entry], 'spaces at the end may have been stripped')
  t.throws(() => parseStatementRows(row.replace('260105', '261305'), 'INR'), { code: 'PROVIDER_RESPONSE_INVALID' }, 'no thirteenth month')
  t.throws(() => parseStatementRows(row.replace('260105', '260230'), 'INR'), { code: 'PROVIDER_RESPONSE_INVALID' }, 'no 30 February')
  t.throws(() => parseStatementRows(row.repeat(ISO_STATEMENT_ROWS_MAX + 1), 'INR'), { code: 'PROVIDER_RESPONSE_INVALID' })
  t.throws(() => formatStatementRows(Array.from({ length: ISO_STATEMENT_ROWS_MAX + 1 }, () => entry), 'INR'), { code: 'INPUT_INVALID' })
  t.equal(formatStatementRows([{ ...entry, narration: 'चाय' }], 'INR').slice(37).trimEnd(), '???')
})

t.test('a request names its account, its moment and itself', async t => {
  const ctx = { nowMs: NOW_MS, stan: 42, reference: 'abc123def456ghi789' }
  t.same(isoRequestFromInput('account_balance_cbs', { account_no: '010200000101' }, PROFILE, ctx), {
    mti: '0200', fields: {
      3: '310000', 4: '000000000000', 7: '0105211507', 11: '000042', 12: '024507', 13: '0106', 37: 'DEF456GHI789', 41: 'SBX00001', 42: 'SOUNDBOX       ', 49: '356',
      102: '010200000101'
    }
  }, 'DE 7 in UTC, DE 12 and 13 at the bank')
  t.equal(isoRequestFromInput('mini_statement_cbs', { account_no: '0102' }, PROFILE, { ...ctx, reference: 'r1' }).fields['3'], '380000')
  t.equal(isoRequestFromInput('mini_statement_cbs', { account_no: '0102' }, PROFILE, { ...ctx, reference: 'r1' }).fields['37'], '0000000000R1')
})

t.test('a switch may ask us too: 0100 and 0200 with 31 and 38 are ours, the rest is not', async t => {
  const ask = (mti: string, code: string, account?: string): IsoFields => ({ mti, fields: { 3: code, ...(account === undefined ? {} : { 102: account }) } })
  t.same(inputFromIsoRequest(ask('0200', '310000', '010200000101 ')), { service: 'account_balance_cbs', account_no: '010200000101' })
  t.same(inputFromIsoRequest(ask('0100', '381000', '010200000101')), { service: 'mini_statement_cbs', account_no: '010200000101' })
  for (const message of [ask('0200', '000000', '0102'), ask('0210', '310000', '0102'), ask('0420', '310000', '0102'), { mti: '0200', fields: {} }]) t.equal(inputFromIsoRequest(message), undefined)
  t.throws(() => inputFromIsoRequest(ask('0200', '310000')), { code: 'ISO_UNPACK_INVALID' })
  t.throws(() => inputFromIsoRequest(ask('0200', '310000', 'x y')), { code: 'ISO_UNPACK_INVALID' })
})

/** A transport whose switch answers by `answer`. */
function openSwitch (answer: (message: IsoFields) => IsoFields) {
  const asked: IsoFields[] = []
  let stan = 0
  const transport = isoCbsTransport({
    send: async message => {
      asked.push(message)
      return answer(message)
    },
    nextStan: () => ++stan, nowMs: () => NOW_MS, profile: PROFILE, close: async () => {}
  })
  const call = async <S extends ServiceName>(service: S, input: ServiceRequest<S>): Promise<ServiceResponse<S>> =>
    parseServiceResponse(service, await transport.call(service, input, { traceId: '', actor: '', background: true, reference: 'R1', service }))
  return { call, asked, transport }
}
const reply = (fields: Record<string, string>, mti = '0210') => () => ({ mti, fields })

t.test('balance and statement go over the switch, and our own answers read back the same', async t => {
  const { call, asked } = openSwitch(message => message.fields['3'] === '310000'
    ? { mti: '0210', fields: { 39: '00', 54: '0001356D0000000019500002356C000000000000' } }
    : { mti: '0210', fields: { 39: '00', 54: '0001356C000000190000', 125: formatStatementRows([entry, { ...entry, bookedAt: '2026-01-04T09:10:11Z', drCr: 'DR' }], 'INR') } })
  t.match(await call('account_balance_cbs', { account_no: '010200000101' }), { ledger: '-19.50', available: '0.00', currency: 'INR' })
  const statement = await call('mini_statement_cbs', { account_no: '010200000101' })
  t.match(statement, { closing: '1900.00', next: null, rows: [{ dr_cr: 'CR', amount: '19.00', narration: 'QR PAYMENT', value_date: '2026-01-05' }, { dr_cr: 'DR' }] })
  t.equal((await call('mini_statement_cbs', { account_no: '010200000101', limit: 1 })).rows.length, 1)
  t.same((await call('mini_statement_cbs', { account_no: '010200000101', to: '2026-01-04' })).rows.map(row => row.dr_cr), ['DR'])
  t.same(asked.map(message => message.fields['11']), ['000001', '000002', '000003', '000004'])
  const back = openSwitch(reply(isoFieldsFromStatement(statement, 'INR', PROFILE)))
  t.same(await back.call('mini_statement_cbs', { account_no: '010200000101' }), statement)
  const answer = { account_no: '010200000101', currency: 'TZS', ledger: '152000.00', available: '150000.00', cleared: null, held: null, overdraft_limit: null, as_of: '2026-01-05T21:15:07.000Z' }
  t.same(await openSwitch(reply(isoFieldsFromBalance(answer))).call('account_balance_cbs', { account_no: '010200000101' }), answer)
  t.same(isoFieldsFromStatement({ opening: null, closing: null, rows: [], next: null }, 'INR', PROFILE), { 39: '00' })
})

t.test('a switch that says no, later, nothing or nonsense is told apart', async t => {
  for (const [answer, code] of [
    [reply({ 39: '14' }), 'PROVIDER_REJECTED'], [reply({ 39: '91' }), 'PROVIDER_UNAVAILABLE'], [reply({}), 'PROVIDER_REJECTED'], [reply({ 39: '00' }), 'PROVIDER_RESPONSE_INVALID'],
    [reply({ 39: '00', 54: '0099356C000000190000' }), 'PROVIDER_RESPONSE_INVALID'], [reply({ 39: '00', 54: '0001356C000000190000' }, '0200'), 'PROVIDER_RESPONSE_INVALID'],
    [() => { throw new SoundboxError('ISO_TIMEOUT', 'x') }, 'PROVIDER_TIMEOUT'], [() => { throw new SoundboxError('ISO_UNAVAILABLE', 'x') }, 'PROVIDER_UNAVAILABLE']
  ] as const) await t.rejects(openSwitch(answer).call('account_balance_cbs', { account_no: '0102' }), { code })
  const { call, transport } = openSwitch(reply({ 39: '00' }))
  await t.rejects(call('mini_statement_cbs', { account_no: '0102', cursor: 'x' }), { code: 'INPUT_INVALID' })
  await t.rejects(call('bank_dictionary_cbs', {}), { code: 'PROVIDER_CONFIG' })
  t.same((await call('mini_statement_cbs', { account_no: '0102' })), { opening: null, closing: null, rows: [], next: null })
  t.equal(transport.has('bank_dictionary_cbs'), false)
  const deps = { send: async () => ({ mti: '', fields: {} }), nextStan: () => 1, nowMs: () => 0, close: async () => {} }
  t.throws(() => isoCbsTransport({ ...deps, profile: { ...PROFILE, currencyNumeric: '999' } }), { code: 'PROVIDER_CONFIG' })
  await transport.close()
})
