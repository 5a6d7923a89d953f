// The simulated bank: the same seed makes the same world, balances add up, pages hold every entry once, and every answer keeps the contract.
import fc from 'fast-check'
import t from 'tap'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { parseServiceRequest, parseServiceResponse, type IssuerServices, type ServiceName, type ServiceRequest, type ServiceResponse } from '../../../gateway/integration/contract.js'
import { simulatedBill } from '../../../gateway/integration/simulation/bill.js'
import { simulatedCbs } from '../../../gateway/integration/simulation/cbs.js'
import { formatDecimal, localDateFromMs } from '../../../gateway/integration/simulation/format.js'
import { makeSIMTables, openSimulator, parseOutcomeRules, SIM_CUSTOMERS_MAX, simulatedTransport, type SIMTables } from '../../../gateway/integration/simulation/index.js'
import { OUTCOME_DELAY_MS_MAX, OUTCOME_RULES_MAX, ruleFor } from '../../../gateway/integration/simulation/outcome.js'
import { drawsFromSeed } from '../../../gateway/integration/simulation/seeded.js'

const AS_OF_MS = Date.UTC(2026, 0, 5, 9)
const world = (seed = 1, customers = 60, country = 'TZ', currency = 'TZS'): SIMTables => makeSIMTables({ seed, customers, country, currency }, AS_OF_MS)
const WORLD = world()
const CTX = { nowMs: AS_OF_MS, reference: 'R1' }
const CBS = simulatedCbs(WORLD)
const minor = (decimal: string): number => Math.round(Number(decimal) * 100)

/** Asks as a caller would: request and answer are checked against the contract. */
function ask<S extends IssuerServices<'cbs'>> (service: S, input: ServiceRequest<S>): ServiceResponse<S> {
  const answer = CBS[service] as (input: ServiceRequest<S>, ctx: typeof CTX) => ServiceResponse<S>
  return parseServiceResponse(service, answer(parseServiceRequest(service, input), CTX))
}

t.test('the same seed makes the same world, another seed another, a larger one begins with the same rows', async t => {
  const plain = (tables: SIMTables): unknown => ({ ...tables, statementOf: tables.accounts.map(account => tables.statementOf(account)) })
  t.same(plain(world(7)), plain(world(7)))
  t.notSame(world(7).customers, world(8).customers)
  t.notSame(WORLD.statementOf(WORLD.accounts[0]!), world(2).statementOf(WORLD.accounts[0]!))
  t.same(world(7, 60).customers, world(7, 90).customers.slice(0, 60))
  t.notSame(world(1, 5, 'IN', 'INR').banks, WORLD.banks)
  t.throws(() => world(1, 5, 'XX'), { code: 'CONFIG_INVALID' })
  t.throws(() => world(1, 0), { code: 'CONFIG_INVALID' })
  t.throws(() => world(1, SIM_CUSTOMERS_MAX + 1), { code: 'CONFIG_INVALID' })
  t.equal(world(1, SIM_CUSTOMERS_MAX).customers.length, SIM_CUSTOMERS_MAX)
})

t.test('nobody in the world can be a person: undialable numbers, sample names, test BICs, accounts that are no cards', async t => {
  for (const tables of [WORLD, world(3, 60, 'IN', 'INR')]) {
    for (const row of tables.customers) {
      t.match(row.msisdn, /^\+(?:2550\d{8}|910\d{9})$/)
      t.match(row.fullName, /mfano|kielelezo|sampuli|kifanani|namuna|udaharan|mathiri/i)
    }
    for (const row of tables.externalAccounts) t.match(row.accountName, /mfano|kielelezo|sampuli|kifanani|namuna|udaharan|mathiri/i)
    for (const row of tables.banks) t.match(row.bic, /^[A-Z]{6}[A-Z0-9]0$/)
    for (const row of tables.accounts) t.match(row.accountNo, /^0\d{11}$/)
    t.equal(new Set(tables.accounts.map(row => row.accountNo)).size, tables.accounts.length, 'account numbers are unique')
  }
})

t.test('running balances add up, never pass the overdraft, and times only grow', async () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 4_294_967_295 }), seed => {
    const tables = world(seed, 3)
    for (const account of tables.accounts) {
      const { openingMinor, closingMinor, rows } = tables.statementOf(account)
      let balance = openingMinor
      let lastMs = -Infinity
      for (const [index, row] of rows.entries()) {
        balance += row.drCr === 'CR' ? row.amountMinor : -row.amountMinor
        if (row.runningMinor !== balance || row.index !== index || row.amountMinor <= 0 || !Number.isSafeInteger(balance)) return false
        if (balance < -account.overdraftMinor || row.bookedAtMs < lastMs || row.bookedAtMs > AS_OF_MS) return false
        lastMs = row.bookedAtMs
      }
      if (balance !== closingMinor) return false
    }
    return true
  }), { numRuns: 25 })
})

t.test('pages of any size hold every entry of the query once, newest first', async () => {
  const busy = WORLD.accounts.filter(account => WORLD.statementOf(account).rows.length > 0)
  fc.assert(fc.property(fc.nat(busy.length - 1), fc.integer({ min: 1, max: 50 }), fc.boolean(), fc.boolean(), (pick, limit, hasFrom, hasTo) => {
    const account = busy[pick]!
    const { rows } = WORLD.statementOf(account)
    const date = (share: number): string => localDateFromMs(rows[Math.floor((rows.length - 1) * share)]!.bookedAtMs, 180)
    const query = { account_no: account.accountNo, limit, ...(hasFrom ? { from: date(0.25) } : {}), ...(hasTo ? { to: date(0.75) } : {}) }
    const got: ServiceResponse<'mini_statement_cbs'>['rows'] = []
    const edges = new Set<string>()
    let cursor: string | null = null
    do {
      const page: ServiceResponse<'mini_statement_cbs'> = ask('mini_statement_cbs', cursor === null ? query : { ...query, cursor })
      got.push(...page.rows)
      edges.add(`${page.opening} ${page.closing}`)
      cursor = page.next
    } while (cursor !== null)
    const want = rows.filter(row => {
      const day = localDateFromMs(row.bookedAtMs, 180)
      return (!hasFrom || day >= query.from!) && (!hasTo || day <= query.to!)
    })
    const sum = got.reduce((total, row) => total + (row.dr_cr === 'CR' ? 1 : -1) * minor(row.amount), 0)
    const [opening = '', closing = ''] = [...edges][0]!.split(' ')
    return edges.size === 1 && JSON.stringify(got.map(row => row.id)) === JSON.stringify(want.map(row => row.id).reverse()) && minor(opening) + sum === minor(closing)
  }), { numRuns: 80 })
})

t.test('a cursor belongs to its query', async t => {
  const account = WORLD.accounts.find(row => WORLD.statementOf(row).rows.length > 5)!
  const { next } = ask('mini_statement_cbs', { account_no: account.accountNo, limit: 2 })
  t.type(next, 'string')
  const other = WORLD.accounts.find(row => row !== account)!
  for (const wrong of [
    { account_no: other.accountNo, cursor: next! }, { account_no: account.accountNo, from: '2020-01-01', cursor: next! }, { account_no: account.accountNo, cursor: '3' },
    { account_no: account.accountNo, cursor: 'x-0123456789abcdef' }
  ]) t.throws(() => ask('mini_statement_cbs', wrong), { code: 'INPUT_INVALID' })
  t.same(ask('mini_statement_cbs', { account_no: account.accountNo, from: '2030-01-01' }).rows, [])
  const early = ask('mini_statement_cbs', { account_no: account.accountNo, to: '2000-01-01' })
  t.same([early.rows, early.next, early.opening], [[], null, early.closing])
})

t.test('every account answers details, balance and statement that agree with each other', async t => {
  for (const account of WORLD.accounts) {
    const details = ask('account_details_cbs', { account_no: account.accountNo })
    const balance = ask('account_balance_cbs', { account_no: account.accountNo })
    const statement = ask('mini_statement_cbs', { account_no: account.accountNo })
    t.equal(details.currency, balance.currency)
    t.equal(balance.ledger, statement.closing)
    t.equal(minor(balance.available), Math.max(0, minor(balance.ledger) - minor(balance.held!) + minor(balance.overdraft_limit!)))
    const [customer] = ask('customer_search_cbs', { by: 'account', value: account.accountNo })
    t.equal(customer?.cif, details.cif)
  }
})

t.test('customers are found by every key and by no other; their numbers are masked', async t => {
  const customer = WORLD.customers[4]!
  const searches = [['cif', customer.cif], ['msisdn', customer.msisdn], ['msisdn', customer.msisdn.slice(1)], ['national_id', customer.nationalId]] as const
  for (const [by, value] of searches) {
    const found = ask('customer_search_cbs', { by, value })
    t.same(found.map(row => row.cif), [customer.cif], `${by}`)
    t.equal(found[0]?.msisdn_masked, `2550****${customer.msisdn.slice(-4)}`)
  }
  t.same(ask('customer_search_cbs', { by: 'cif', value: customer.msisdn }), [])
  t.same(ask('account_search_cbs', { cif: customer.cif }), ask('account_search_cbs', { msisdn: customer.msisdn }))
  t.same(ask('account_search_cbs', { cif: 'nobody' }), [])
  t.same(ask('account_search_cbs', { account_prefix: WORLD.accounts[0]!.accountNo }).map(row => row.account_no), [WORLD.accounts[0]!.accountNo])
  const wide = simulatedCbs(world(1, 400))
  t.throws(() => wide.account_search_cbs({ account_prefix: '010' }, CTX), { code: 'PROVIDER_REJECTED', message: /narrow/ })
})

t.test('wallets and accounts elsewhere are named; what does not exist is refused as a bank would', async t => {
  const wallet = WORLD.wallets[0]!
  const named = ask('mno_validate_cbs', { mno: wallet.mno.toLowerCase(), msisdn: wallet.msisdn })
  t.match(named, { registered_name: wallet.registeredName, fsp_id: wallet.fspId, lookup_ref: 'L-R1' })
  const external = WORLD.externalAccounts.find(row => row.fspId === '901')!
  const byFsp = ask('interbank_account_name_cbs', { fsp_id: '901', account_no: external.accountNo, identifier_type: 'BANK' })
  t.match(byFsp, { account_name: external.accountName, valid_until: '2026-01-05T09:30:00Z' })
  t.same(ask('interbank_account_name_cbs', { bic: 'MFNOTZT0', account_no: external.accountNo, identifier_type: 'BANK' }), byFsp)
  t.equal(ask('interbank_account_name_cbs', { fsp_id: wallet.fspId, account_no: wallet.msisdn, identifier_type: 'MSISDN' }).account_name, wallet.registeredName)
  for (const [service, input, code] of [
    ['account_details_cbs', { account_no: '099900000000' }, /ACCOUNT_NOT_FOUND/], ['account_balance_cbs', { account_no: '099900000000' }, /ACCOUNT_NOT_FOUND/],
    ['mini_statement_cbs', { account_no: '099900000000' }, /ACCOUNT_NOT_FOUND/], ['mno_validate_cbs', { mno: 'NOBODY', msisdn: wallet.msisdn }, /MNO_UNKNOWN/],
    ['mno_validate_cbs', { mno: wallet.mno, msisdn: '+255099999999' }, /WALLET_NOT_FOUND/],
    ['interbank_account_name_cbs', { fsp_id: '999', account_no: '1234', identifier_type: 'BANK' }, /FSP_UNKNOWN/],
    ['interbank_account_name_cbs', { fsp_id: '903', account_no: '1234', identifier_type: 'BANK' }, /FSP_UNREACHABLE/],
    ['interbank_account_name_cbs', { fsp_id: '901', account_no: '1234', identifier_type: 'BANK' }, /ACCOUNT_NOT_FOUND/],
    ['interbank_account_name_cbs', { fsp_id: '901', account_no: '1234', identifier_type: 'ALIAS' }, /ALIAS_NOT_FOUND/]
  ] as const) t.throws(() => ask(service, input as never), { code: 'PROVIDER_REJECTED', message: code }, `${service}`)
})

t.test('the bank dictionary can be fetched whole, by country and since a day', async t => {
  t.equal(ask('bank_dictionary_cbs', {}).length, 5)
  t.equal(ask('bank_dictionary_cbs', { country: 'TZ' }).length, 5)
  t.same(ask('bank_dictionary_cbs', { country: 'KE' }), [])
  t.same(ask('bank_dictionary_cbs', { updated_since: '2026-03-16T00:00:00Z' }).map(row => row.code), ['902', '903'])
  t.same(ask('bank_dictionary_cbs', { updated_since: '2026-03-16T00:00:01Z' }).map(row => row.code), ['903'])
})

t.test('bills: categories, billers, packages with the amounts that their type allows', async t => {
  const bill = simulatedBill(WORLD)
  const categories = parseServiceResponse('biller_category_bill', bill.biller_category_bill({}))
  t.same(bill.biller_category_bill({ country: 'KE' }), [])
  for (const { code } of categories) {
    for (const biller of parseServiceResponse('biller_fetch_bill', bill.biller_fetch_bill({ category: code }))) {
      for (const field of biller.fields) t.doesNotThrow(() => new RegExp(field.regex ?? ''), field.name)
      const packages = parseServiceResponse('biller_package_bill', bill.biller_package_bill({ biller_code: biller.biller_code }))
      t.ok(packages.length > 0)
      for (const row of packages) {
        t.equal(row.amount !== null, row.amount_type === 'FIXED')
        t.equal(row.min !== null && row.max !== null, row.amount_type === 'RANGE')
        if (row.min !== null && row.max !== null) t.ok(minor(row.min) < minor(row.max))
      }
    }
  }
  t.same(bill.biller_fetch_bill({ category: 'TV', q: 'kiel' }).map(row => row.name), ['Kielelezo TV'])
  t.throws(() => bill.biller_fetch_bill({ category: 'NONE' }), { code: 'PROVIDER_REJECTED' })
  t.throws(() => bill.biller_package_bill({ biller_code: 'NONE' }), { code: 'PROVIDER_REJECTED' })
})

t.test('rules are read strictly, and the longest ending wins', async t => {
  const rules = parseOutcomeRules('sms', { '*': 'busy', 1: 'rejected', '01': 'timeout/1500', '@slow.invalid': `ok/${OUTCOME_DELAY_MS_MAX}` })
  t.same(['x', '1', '201', 'a@slow.invalid'].map(subject => ruleFor(rules, subject).outcome), ['busy', 'rejected', 'timeout', 'ok'])
  t.equal(ruleFor(rules, '201').delayMs, 1500)
  t.equal(ruleFor([], '1').outcome, 'ok')
  for (const wrong of [{ 1: 'explode' }, { 1: 5 }, { 1: 'ok/x' }, { 1: `ok/${OUTCOME_DELAY_MS_MAX + 1}` }, { 'a b': 'ok' }, { '': 'ok' }, { 1: 'constructor' }, { 1: 'gone' }]) {
    t.throws(() => parseOutcomeRules('sms', wrong), { code: 'CONFIG_INVALID' }, JSON.stringify(wrong))
  }
  const many = (count: number): Record<string, string> => Object.fromEntries(Array.from({ length: count }, (_, index) => [`n${index}`, 'ok']))
  t.equal(parseOutcomeRules('sms', many(OUTCOME_RULES_MAX)).length, OUTCOME_RULES_MAX)
  t.throws(() => parseOutcomeRules('sms', many(OUTCOME_RULES_MAX + 1)), { code: 'CONFIG_INVALID' })
})

function openSimulated (issuer: 'cbs' | 'bill' | 'sms' | 'email' | 'push' | 'kyc', rules: Record<string, string>, latencyMs = 0) {
  const waited: number[] = []
  const transport = simulatedTransport({
    issuer, rules: parseOutcomeRules(issuer, rules), tables: () => WORLD, latencyMs, nowMs: () => AS_OF_MS, wait: async ms => { waited.push(ms) }
  })
  const call = async <S extends ServiceName>(service: S, input: ServiceRequest<S>): Promise<ServiceResponse<S>> =>
    parseServiceResponse(service, await transport.call(service, parseServiceRequest(service, input), { traceId: '', actor: '', background: true, reference: 'R1', service }))
  return { transport, call, waited }
}
const sms = (to: string[], text = 'hello'): ServiceRequest<'send_sms_message'> => ({ to, text, client_ref: 'n-1' })

t.test('every outcome word fails as its provider would, with the delays that were asked for', async t => {
  for (const [word, code] of [
    ['rejected', 'PROVIDER_REJECTED'], ['timeout', 'PROVIDER_TIMEOUT'], ['unavailable', 'PROVIDER_UNAVAILABLE'], ['busy', 'PROVIDER_BUSY'],
    ['invalid', 'PROVIDER_RESPONSE_INVALID'], ['unknown', 'PROVIDER_STATE_UNKNOWN'], ['lost', 'PROVIDER_STATE_UNKNOWN']
  ] as const) {
    const { call, waited } = openSimulated('sms', { '0001': `${word}/250` }, 40)
    await t.rejects(call('send_sms_message', sms(['+255000000001'])), { code }, word)
    t.same(waited, [290])
    t.equal((await call('send_sms_message', sms(['+255000000002']))).recipients[0]?.status, 'ACCEPTED')
  }
})

t.test('a caller that goes away during a delay ends the call', async t => {
  const transport = simulatedTransport({
    issuer: 'sms', rules: [], tables: () => WORLD, latencyMs: 10, nowMs: () => AS_OF_MS, wait: async () => { throw new Error('aborted') }
  })
  const ctx = { traceId: '', actor: '', background: true, reference: 'R1', service: 'send_sms_message' as const }
  await t.rejects(transport.call('send_sms_message', sms(['+255000000001']), ctx), { code: 'PROVIDER_UNAVAILABLE' })
})

t.test('one refused recipient of several is refused alone; of all, the call', async t => {
  const { call } = openSimulated('sms', { '0001': 'rejected', '0003': 'duplicate', '0009': 'unavailable' })
  const answer = await call('send_sms_message', sms(['+255000000001', '+255000000002', '+255000000003'], 'नमस्ते'.repeat(20)))
  t.same(answer.recipients.map(row => row.status), ['REJECTED', 'ACCEPTED', 'DUPLICATE'])
  t.equal(answer.parts, 2)
  await t.rejects(call('send_sms_message', sms(['+255000000001'])), { code: 'PROVIDER_REJECTED' })
  await t.rejects(call('send_sms_message', sms(['+255000000001', '+255000010001'])), { code: 'PROVIDER_REJECTED' })
  await t.rejects(call('send_sms_message', sms(['+255000000002', '+255000000009'])), { code: 'PROVIDER_UNAVAILABLE' })
  const mail = openSimulated('email', { 'gone@example.invalid': 'rejected' })
  t.same(await mail.call('send_email_message', { to: ['gone@example.invalid', 'a@example.invalid'], cc: ['b@example.invalid'], subject: 's', text: 't', client_ref: 'm-1' }), {
    client_ref: 'm-1', message_id: '<m-1@simulated.invalid>', accepted: ['a@example.invalid', 'b@example.invalid'], rejected: ['gone@example.invalid']
  })
})

t.test('a lost answer is settled: done or not, by the rule', async t => {
  const { transport } = openSimulated('sms', { '0001': 'unknown', '0002': 'lost' })
  const settle = async (to: string): Promise<unknown> => await transport.settle!({ service: 'send_sms_message', input: sms([to]), reference: 'R1', atMs: 0 },
    { traceId: '', actor: '', background: true, reference: 'R1', service: 'send_sms_message' })
  t.match(await settle('+255000000001'), { state: 'done', data: { provider_id: 'sim-R1' } })
  t.same(await settle('+255000000002'), { state: 'not_done' })
})

t.test('push tells of an app that is gone, identity checks end as the merchant id says', async t => {
  const push = openSimulated('push', { dead: 'gone' })
  t.equal((await push.call('send_push_message', { token: 'token-dead', title: 'a', body: 'b', client_ref: 'p-1' })).token_state, 'GONE')
  t.equal((await push.call('send_push_message', { token: 'token-live', title: 'a', body: 'b', client_ref: 'p-1' })).token_state, 'LIVE')
  const kyc = openSimulated('kyc', { '-no': 'declined', '-look': 'in_review' })
  for (const [merchant, status] of [['m-no', 'DECLINED'], ['m-look', 'IN_REVIEW'], ['m-17', 'APPROVED']] as const) {
    const { session_id: id } = await kyc.call('start_session_kyc', { vendor_data: merchant, client_ref: `k-${merchant}` })
    t.match(await kyc.call('fetch_decision_kyc', { session_id: id }), { status, vendor_data: merchant })
  }
  await t.rejects(kyc.call('fetch_decision_kyc', { session_id: 'nobody' }), { code: 'PROVIDER_REJECTED' })
})

t.test('rules reach the bank as well, and a service of another issuer is not offered', async t => {
  const account = WORLD.accounts[0]!.accountNo
  const { call, transport } = openSimulated('cbs', { [account.slice(-4)]: 'unavailable' })
  await t.rejects(call('account_balance_cbs', { account_no: account }), { code: 'PROVIDER_UNAVAILABLE' })
  t.equal((await call('bank_dictionary_cbs', {})).length, 5)
  t.equal(transport.has('send_sms_message'), false)
  await t.rejects(call('send_sms_message', sms(['+255000000001'])), { code: 'PROVIDER_CONFIG' })
  const bill = openSimulated('bill', { '*': 'busy' })
  await t.rejects(bill.call('biller_category_bill', {}), { code: 'PROVIDER_BUSY' })
  await bill.transport.close()
})

t.test('draws are even enough and within their bounds', async t => {
  const draw = drawsFromSeed('even')
  const counts = [0, 0, 0, 0, 0]
  for (let turn = 0; turn < 5000; turn++) {
    const value = draw.between(0, 4)
    counts[value] = (counts[value] ?? 0) + 1
  }
  t.equal(counts.length, 5)
  for (const count of counts) t.ok(count > 850 && count < 1150, `${counts}`)
})

t.test('decimals keep their sign and two places', async t => {
  t.same([0, 5, -5, 1900, -1900, 123_456_789].map(formatDecimal), ['0.00', '0.05', '-0.05', '19.00', '-19.00', '1234567.89'])
})

t.test('the simulator of a gateway: one world for bank and bills, its settings judged at the start', async t => {
  const open = (env: Record<string, string>) => openSimulator(parseIntegrationConfig(env, () => ''), { nowMs: () => AS_OF_MS, wait: async () => {} })
  const simulator = open({ CBS_API_SIMULATE: 'true', BILL_API_SIMULATE: 'true', CBS_API_SIM_SEED: '9', CBS_API_SIM_CUSTOMERS: '3', CBS_API_SIM_LATENCY_MS: '5' })
  t.equal(simulator.tables(), simulator.tables())
  t.same([simulator.tables().customers.length, simulator.tables().asOfMs], [3, Date.UTC(2026, 0, 5)], 'as of midnight')
  const ctx = { traceId: '', actor: '', background: true, reference: 'R1', service: 'bank_dictionary_cbs' as const }
  t.equal((await simulator.transport('cbs').call('bank_dictionary_cbs', {}, ctx)).length, 5)
  t.equal(simulator.transport('bill').has('biller_package_bill'), true)
  t.throws(() => simulator.transport('sms'), { code: 'PROVIDER_CONFIG' })
  const wrong: Record<string, string>[] = [{ CBS_API_SIMULATE: 'true', CBS_API_SIM_COUNTRY: 'XY' }, { SMS_API_SIMULATE: 'true', SMS_API_SIM_RULES: '{"1":"melt"}' }]
  for (const env of wrong) t.throws(() => open(env), { code: 'CONFIG_INVALID' })
})
