// The provider side in its place: every service through dispatcher, ledger and audit with all issuers simulated, the stand-in voice over
// it, and the report through its route.
import { randomUUID } from 'node:crypto'
import Fastify from 'fastify'
import t from 'tap'
import { SILENT_LOG } from '../../../protocol/index.js'
import { integrationRoutes } from '../../../gateway/http/integration-routes.js'
import { openAudit } from '../../../gateway/integration/audit.js'
import type { CallRecord, CallStore } from '../../../gateway/integration/calls.js'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { SERVICE_NAMES, type ServiceName } from '../../../gateway/integration/contract.js'
import { openClock } from '../../../gateway/integration/figures.js'
import { openIntegration, type Integration } from '../../../gateway/integration/integration.js'
import { checkMerchant } from '../../../gateway/integration/onboarding.js'
import { findProvider } from '../../../gateway/integration/providers/registry.js'
import { generateSimulatedCbsReport } from '../../../gateway/integration/report.js'
import { openSimulator, type Simulator } from '../../../gateway/integration/simulation/index.js'
import { smtpTransport } from '../../../gateway/integration/smtp-mailer.js'
import { sendStandIn } from '../../../gateway/integration/stand-in-message.js'
import { standInFromPayment, standInRef } from '../../../gateway/integration/stand-in.js'
import { memoryAuditStore } from '../../support/integration-world.js'
import { settled } from '../../support/manual-clock.js'

const NOW_MS = Date.UTC(2026, 0, 5, 9)
const ENV = {
  ...Object.fromEntries(['CBS_API', 'BILL_API', 'SMS_API', 'EMAIL_SMTP', 'FIREBASE_FCM', 'DIDIT_API'].map(prefix => [`${prefix}_SIMULATE`, 'true'])),
  SMS_API_SIM_RULES: '{"0009":"unknown","0008":"unavailable"}', CBS_API_SIM_CUSTOMERS: '20'
}

/** The ledger's table in memory. */
function memoryCalls (): CallStore & { rows: Map<string, CallRecord> } {
  const rows = new Map<string, CallRecord>()
  return {
    rows,
    begin: async record => {
      const known = rows.get(record.key)
      if (known === undefined) rows.set(record.key, record)
      return known
    },
    restart: async record => {
      if (rows.get(record.key)?.state !== 'refused') return false
      rows.set(record.key, record)
      return true
    },
    finish: async (key, change) => { rows.set(key, { ...rows.get(key)!, ...change }) },
    due: async nowMs => [...rows.values()].filter(row => row.state === 'unknown' && row.nextAskMs !== null && row.nextAskMs <= nowMs),
    purge: async () => 0
  }
}

type Gateway = { integration: Integration, simulator: Simulator, calls: ReturnType<typeof memoryCalls>, audit: ReturnType<typeof memoryAuditStore>, time: { nowMs: number } }
async function openGateway (t: { teardown: (work: () => unknown) => void }): Promise<Gateway> {
  const settings = parseIntegrationConfig(ENV, () => '')
  const time = { nowMs: NOW_MS }
  const clock = openClock(() => time.nowMs)
  const simulator = openSimulator(settings, { nowMs: clock.nowMs, wait: async () => {} })
  const store = memoryAuditStore()
  const audit = await openAudit({ store, key: Buffer.alloc(32, 1), clock, log: SILENT_LOG })
  const calls = memoryCalls()
  const makeId = (): string => randomUUID().replaceAll('-', '')
  const integration = openIntegration({
    settings, audit, calls, sealKey: Buffer.alloc(32, 2), clock, random: () => 0, makeTraceId: makeId, makeReference: makeId, log: SILENT_LOG,
    factories: { http: findProvider, simulated: issuer => simulator.transport(issuer), smtp: (all, run) => smtpTransport(all.email, { run, nowMs: clock.nowMs }), iso8583: undefined }
  })
  t.teardown(async () => {
    await integration.close()
    await audit.close()
  })
  return { integration, simulator, calls, audit: store, time }
}

t.test('every service answers within its contract, and each call leaves a row', async t => {
  const { integration, simulator, audit } = await openGateway(t)
  const { accounts, customers, wallets, externalAccounts, billers } = simulator.tables()
  const external = externalAccounts.find(row => row.fspId !== '903')!
  const client = integration.forBackground('test')
  const { session_id: session } = await client.call('start_session_kyc', { vendor_data: 'm-1', client_ref: 'k-1' })
  const inputs: Record<ServiceName, unknown> = {
    customer_search_cbs: { by: 'cif', value: customers[0]!.cif }, account_search_cbs: { cif: customers[0]!.cif }, account_details_cbs: { account_no: accounts[0]!.accountNo },
    account_balance_cbs: { account_no: accounts[0]!.accountNo }, mini_statement_cbs: { account_no: accounts[0]!.accountNo }, mno_validate_cbs: { mno: wallets[0]!.mno, msisdn: wallets[0]!.msisdn },
    bank_dictionary_cbs: {}, interbank_account_name_cbs: { fsp_id: external.fspId, account_no: external.accountNo, identifier_type: 'BANK' },
    biller_category_bill: {}, biller_fetch_bill: { category: 'TV' }, biller_package_bill: { biller_code: billers[0]!.billerCode },
    send_sms_message: { to: ['+255000000001'], text: 'hello', client_ref: 's-1' }, send_email_message: { to: ['shop@example.invalid'], subject: 's', text: 't', client_ref: 'e-1' },
    send_push_message: { token: 'token-0001', title: 'a', body: 'b', client_ref: 'p-1' }, start_session_kyc: { vendor_data: 'm-2', client_ref: 'k-2' }, fetch_decision_kyc: { session_id: session }
  }
  for (const service of SERVICE_NAMES) t.ok(await client.call(service, inputs[service]), service)
  await settled()
  t.same(new Set(audit.rows.map(row => row.service)), new Set(SERVICE_NAMES))
  t.notMatch(JSON.stringify(audit.rows), new RegExp(`${accounts[0]!.accountNo}|${customers[0]!.msisdn.slice(1)}|mfano`, 'i'))
})

t.test('a stand-in over the ledger goes once, and one whose answer was lost is settled, not repeated', async t => {
  const { integration, calls, time } = await openGateway(t)
  const { call } = integration.forBackground('stand-in')
  const rowTo = (to: string, transactionId: string) => standInFromPayment(
    { bankId: 'b', transactionId, merchant: 'm', amountMinor: 1900, currency: 'TZS', acceptedAt: NOW_MS }, { channel: 'sms', to, afterMs: 0, amountMinorMin: 0 }, NOW_MS)!
  const fine = rowTo('+255000000001', 't-1')
  for (let turn = 0; turn < 3; turn++) await sendStandIn(call, fine, standInRef(fine), { utcOffsetMinutes: 180 })
  t.equal(calls.rows.size, 1, 'three sends under one reference are one call')
  const down = rowTo('+255000000008', 't-2')
  for (let turn = 0; turn < 2; turn++) await t.rejects(sendStandIn(call, down, standInRef(down), { utcOffsetMinutes: 180 }), { code: 'PROVIDER_UNAVAILABLE' }, 'may be tried again')
  const lost = rowTo('+255000000009', 't-3')
  await t.rejects(sendStandIn(call, lost, standInRef(lost), { utcOffsetMinutes: 180 }), { code: 'PROVIDER_STATE_UNKNOWN' })
  await t.rejects(sendStandIn(call, lost, standInRef(lost), { utcOffsetMinutes: 180 }), { code: 'PROVIDER_STATE_UNKNOWN' }, 'not sent a second time')
  time.nowMs += 3_600_000
  t.equal(await integration.settleDue(), 1)
  await t.resolves(sendStandIn(call, lost, standInRef(lost), { utcOffsetMinutes: 180 }), 'it had gone, and now we know')
})

t.test('a merchant is checked against the simulated bank', async t => {
  const { integration, simulator } = await openGateway(t)
  const { call } = integration.forBackground('onboarding')
  const wallet = simulator.tables().wallets.find(row => row.walletStatus === 'ACTIVE')!
  const { session_id: session } = await call('start_session_kyc', { vendor_data: 'm-17', client_ref: 'k-17' })
  const form = { merchant: 'm-17', settlement: { kind: 'wallet' as const, mno: wallet.mno, msisdn: wallet.msisdn }, kycSession: session }
  t.match(await checkMerchant(call, { ...form, names: [wallet.registeredName] }), { verdict: 'approve', nameScore: 1 })
  t.match(await checkMerchant(call, { ...form, names: ['Somebody Else'] }), { verdict: 'reject', reasons: ['name-differs', 'identity-approved'] })
  t.equal((await checkMerchant(call, { ...form, names: ['Somebody Else'], settlement: { ...form.settlement, msisdn: '+255099999999' } })).verdict, 'reject')
})

t.test('the report comes through its route as CSV and XLSX', async t => {
  const { integration, simulator } = await openGateway(t)
  const app = Fastify()
  await integrationRoutes(app, {
    services: integration, tokens: { admit: () => { throw new Error('the report needs no token') } }, makeTraceId: () => 'a'.repeat(32), nowMs: () => NOW_MS, log: SILENT_LOG,
    report: async query => generateSimulatedCbsReport(simulator.tables(), query)
  })
  t.teardown(async () => await app.close())
  const csv = await app.inject('/api/v1/integration/simulator/download?format=csv&table=customers')
  t.equal(csv.statusCode, 200)
  t.match(csv.headers['content-disposition'], /simulated-cbs-customers-2026-01-05\.csv/)
  t.equal(csv.body.split('\r\n').length, 20 + 2)
  const xlsx = await app.inject('/api/v1/integration/simulator/download?format=xlsx')
  t.same(xlsx.rawPayload.subarray(0, 4), Buffer.from('PK\u0003\u0004'))
  t.equal((await app.inject('/api/v1/integration/simulator/download?format=pdf')).statusCode, 400)
})
