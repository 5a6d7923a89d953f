// The tables of what the integration services keep of merchants, and the sign-in of operators over them.
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import Fastify from 'fastify'
import t from 'tap'
import { parseConfig } from '../../../gateway/config.js'
import { openSignIn, permissionOf, SESSION_LIFE_MS, SESSIONS_MAX } from '../../../gateway/http/sign-in.js'
import { PERMISSIONS } from '../../../gateway/integration/permissions.js'
import { openTokens } from '../../../gateway/integration/tokens.js'
import { openTotp, totpCode } from '../../../gateway/integration/totp.js'
import { dayBefore, type DayMailDeps, dayTotals, openDayMail } from '../../../gateway/day-mail.js'
import { openIntegrationParts } from '../../../gateway/integration-wiring.js'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { openStandInBook, type StandInBookDeps } from '../../../gateway/stand-in-book.js'
import type { Delivery, StoredPayment } from '../../../gateway/store/contract.js'
import type { InboundRow, StandInRow } from '../../../gateway/store/integration-records.js'
import { openSqliteStore } from '../../../gateway/store/sqlite.js'
import type { Announced, PaymentOrder } from '../../../gateway/trigger/announce.js'
import { isSoundboxError, SILENT_LOG, SoundboxError } from '../../../protocol/index.js'
import { keepingLog } from '../../support/integration-world.js'

const KEY = Buffer.alloc(32, 5)
const NOW_MS = Date.UTC(2026, 0, 5, 4, 45)
const path = join(t.testdir({}), 'soundbox.db')
const store = await openSqliteStore({ path, log: SILENT_LOG, nowMs: () => 0 })
const { inbound, standIns, identities, audit } = store.integration
const raw = new Database(path)
t.teardown(async () => {
  raw.close()
  await store.close()
})
t.beforeEach(() => { raw.exec('DELETE FROM inbound_event; DELETE FROM stand_in; DELETE FROM stand_in_policy; DELETE FROM identity_check; DELETE FROM token; DELETE FROM totp') })

const message = (key: string, more: Partial<InboundRow> = {}): InboundRow =>
  ({ key, source: 'didit', event: '{"kind":"kyc"}', state: 'pending', attempts: 0, receivedMs: 100, dueMs: 100, problem: null, ...more })
const standIn = (transactionId: string, more: Partial<StandInRow> = {}): StandInRow => ({
  bankId: 'pnb', transactionId, merchant: 'shop@upi', amountMinor: 1900, currency: 'INR', channel: 'sms', toSealed: 'sealed', acceptedAt: 100, state: 'waiting', dueMs: 200, attempts: 0,
  changedAt: 100, reason: null, ...more
})

t.test('a message is kept once, given until it is done, and forgotten with its time', async t => {
  t.same(await inbound.keep([message('a'), message('b', { dueMs: 50 })]), ['a', 'b'])
  t.same(await inbound.keep([message('a', { source: 'beem' }), message('c', { dueMs: 300 })]), ['c'], 'the first one stays')
  t.same((await inbound.due(299, 10)).map(row => row.key), ['b', 'a'], 'oldest first, nothing before its time')
  t.same((await inbound.due(299, 1)).map(row => row.key), ['b'])
  t.same((await inbound.due(299, 10))[1], message('a'))
  await inbound.save(message('a', { state: 'done', attempts: 1 }))
  await inbound.save(message('b', { attempts: 1, dueMs: 5_000, problem: 'later' }))
  t.same(await inbound.due(4_999, 10).then(rows => rows.map(row => row.key)), ['c'])
  t.match(await inbound.due(5_000, 10), [{ key: 'c' }, { key: 'b', attempts: 1, problem: 'later' }])
  t.equal(await inbound.purge(100, 10), 0)
  t.equal(await inbound.purge(101, 10), 1, 'what waits is not forgotten')
  t.same(await inbound.keep([message('a')]), ['a'])
})

t.test('a stand-in is recorded once and claimed by one', async t => {
  await standIns.record(standIn('t-1'))
  await standIns.record(standIn('t-1', { toSealed: 'another' }))
  await standIns.record(standIn('t-2', { dueMs: 201, acceptedAt: 50 }))
  t.same(await standIns.due(200, 0, 10), [standIn('t-1')], 'the first row of a payment stays')
  t.same((await standIns.due(201, 0, 10)).map(row => row.transactionId), ['t-2', 't-1'])
  const claimed = standIn('t-1', { state: 'sending', attempts: 1, changedAt: 300 })
  t.same(await Promise.all([1, 2, 3].map(() => standIns.claim(standIn('t-1'), claimed))), [true, false, false])
  t.same((await standIns.due(201, 300, 10)).map(row => row.transactionId), ['t-2'], 'it is being sent')
  t.same((await standIns.due(201, 301, 10)).map(row => row.transactionId), ['t-2', 't-1'], 'whoever sent it has died')
  await standIns.save({ ...claimed, state: 'sent', reason: 'r' })
  t.match((await standIns.newest(1)), [{ transactionId: 't-1', state: 'sent', reason: 'r', toSealed: 'sealed' }])
  t.same(await standIns.countByState(0, 1_000), [{ state: 'sent', count: 1 }, { state: 'waiting', count: 1 }])
  t.same(await standIns.countByState(51, 100), [], 'since is within, until is not')
  t.equal(await standIns.purge(1_000, 10), 1, 'only what is final')
})

t.test('the report of a provider ends a stand-in that was sent, once it was', async t => {
  const report = (id: string, state: 'sent' | 'failed' = 'failed') => standIns.report(id, { state, reason: 'r', at: 900 })
  await standIns.record(standIn('t-1', { state: 'sending' }))
  t.equal(await report('p-1'), 'unknown')
  await standIns.noteSent('pnb', 't-1', 'p-1')
  t.equal(await report('p-1'), 'sending', 'the end of the sending is still to be written')
  await standIns.save(standIn('t-1', { state: 'sent', attempts: 1 }))
  t.equal(await report('p-1', 'sent'), 'noted')
  t.match(await standIns.newest(1), [{ state: 'sent', reason: 'r', changedAt: 900 }])
  t.equal(await report('p-1'), 'noted')
  t.equal(await report('p-1', 'sent'), 'noted', 'a report that comes late')
  t.match(await standIns.newest(1), [{ state: 'failed' }], 'changes nothing any more')
})

t.test('an identity check keeps the newest word', async t => {
  const row = { sessionId: 's-1', bankId: 'pnb', merchant: 'shop@upi', status: 'NOT_STARTED', openedAt: 100, saidAt: 0 }
  await identities.saveIdentity(row)
  await identities.saveIdentity({ ...row, status: 'APPROVED' })
  t.same(await identities.findIdentity('pnb', 'shop@upi'), row)
  t.equal(await identities.noteIdentity({ sessionId: 's-1', status: 'APPROVED', saidAt: 20 }), true)
  t.equal(await identities.noteIdentity({ sessionId: 's-1', status: 'IN_PROGRESS', saidAt: 10 }), true, 'an old word that comes late')
  t.match(await identities.findIdentity('pnb', 'shop@upi'), { status: 'APPROVED', saidAt: 20 })
  t.equal(await identities.noteIdentity({ sessionId: 's-9', status: 'APPROVED', saidAt: 20 }), false)
  await identities.saveIdentity({ ...row, sessionId: 's-2', openedAt: 101 })
  t.match(await identities.findIdentity('pnb', 'shop@upi'), { sessionId: 's-2' })
  t.equal(await identities.findIdentity('pnb', 'other@upi'), undefined)
})

const PAYMENT = { bankId: 'pnb', transactionId: 't-1', merchant: 'shop@upi', amountMinor: 1900, currency: 'INR', acceptedAt: NOW_MS, status: 'success' }
function bookDeps (more: Partial<StandInBookDeps> = {}): { deps: StandInBookDeps, sent: object[], time: { nowMs: number } } {
  const sent: object[] = []
  const time = { nowMs: NOW_MS }
  const call = async (_service: string, input: object): Promise<object> => {
    sent.push(input)
    return { provider_id: `p-${sent.length}`, recipients: [{ status: 'ACCEPTED' }] }
  }
  const deps = {
    records: standIns, store: { findPayment: async () => undefined }, sealKey: KEY, utcOffsetMinutes: 330, senderId: undefined, nowMs: () => time.nowMs, log: keepingLog(),
    directory: { bankById: (id: string) => id === 'pnb' ? { id, database: true } : id === 'direct' ? { id, database: false } : undefined },
    integration: { forBackground: () => ({ traceId: 't', call }), transports: () => ({ sms: { kind: 'http', name: 'beem' } }) }, ...more
  } as unknown as StandInBookDeps
  return { deps, sent, time }
}
const POLICY = { channel: 'sms', to: '+910000000001', afterMs: 3_000, amountMinorMin: 1_000 } as const
const order = { bank: { id: 'pnb', database: true }, transactionId: 't-1', merchant: 'shop@upi', amountMinor: 1900, currency: 'INR', status: 'success' } as unknown as PaymentOrder

t.test('a policy is durable, sealed, shown masked, and refused where it could not work', async t => {
  const { deps } = bookDeps()
  const book = await openStandInBook(deps)
  t.match(await book.setPolicy({ bankId: 'pnb', merchant: 'Shop@UPI' }, POLICY), { merchant: 'shop@upi', to: '9100****0001' })
  for (const [of, policy, code, why] of [
    [{ bankId: 'nobody', merchant: 'a' }, POLICY, 'NOT_FOUND', 'unknown bank'], [{ bankId: 'direct', merchant: 'a' }, POLICY, 'INPUT_INVALID', 'bank without database'],
    [{ bankId: 'pnb', merchant: '' }, POLICY, 'INPUT_INVALID', 'no merchant'], [{ bankId: 'pnb', merchant: 'a' }, { ...POLICY, to: 'phone' }, 'INPUT_INVALID', 'no number'],
    [{ bankId: 'pnb', merchant: 'a' }, { ...POLICY, channel: 'email', to: 'a@b.example' }, 'PROVIDER_CONFIG', 'nobody could send it']
  ] as const) await t.rejects(book.setPolicy(of, policy), { code }, why)
  const again = await openStandInBook(deps)
  t.same(again.policies(), [{ bankId: 'pnb', merchant: 'shop@upi', ...POLICY, to: '9100****0001' }])
  t.notMatch(JSON.stringify(raw.prepare('SELECT * FROM stand_in_policy').all()), /910000000001/)
  await t.rejects(openStandInBook(bookDeps({ sealKey: Buffer.alloc(32, 9) }).deps), { code: 'SECRET_UNREADABLE' })
  await again.removePolicy({ bankId: 'pnb', merchant: 'SHOP@upi' })
  await t.rejects(again.removePolicy({ bankId: 'pnb', merchant: 'shop@upi' }), { code: 'NOT_FOUND' })
  t.same((await openStandInBook(deps)).policies(), [])
})

t.test('a payment is planned when it was recorded, told or not, and sent once unless it was heard', async t => {
  const heard: { row?: Partial<StoredPayment> } = {}
  const { deps, sent, time } = bookDeps({ store: { findPayment: async () => heard.row as StoredPayment | undefined } })
  const book = await openStandInBook(deps)
  await book.setPolicy({ bankId: 'pnb', merchant: 'shop@upi' }, POLICY)
  const plans = (): unknown[] => raw.prepare('SELECT transaction_id FROM stand_in ORDER BY 1').pluck().all()
  const announcing = (payment: object) => book.wrap(async () => ({ repeated: false, announcementId: 'a', tids: [], payment } as unknown as Announced))
  const failing = (code: 'PUBLISH_FAILED' | 'STORE_FAILED' | 'VENDOR_FAILED') => book.wrap(async () => { throw new SoundboxError(code, 'x') })
  for (const [payment, why] of [
    [{ ...PAYMENT, status: 'failed' }, 'no money came'], [{ ...PAYMENT, merchant: null }, 'no merchant'], [{ ...PAYMENT, merchant: 'other@upi' }, 'no policy'],
    [{ ...PAYMENT, amountMinor: 999 }, 'too small']
  ] as const) {
    await announcing(payment)(order)
    t.same(plans(), [], why)
  }
  await t.rejects(failing('STORE_FAILED')(order), { code: 'STORE_FAILED' })
  t.same(plans(), [], 'nothing was recorded')
  await announcing(PAYMENT)(order)
  await announcing(PAYMENT)(order)
  await t.rejects(failing('PUBLISH_FAILED')({ ...order, transactionId: 't-2' }), { code: 'PUBLISH_FAILED' })
  t.same(plans(), ['t-1', 't-2'], 'recorded and not handed over: the shop is told all the same')
  time.nowMs += 2_999
  await book.standIns.run()
  t.equal(sent.length, 0)
  time.nowMs += 1
  await Promise.all([book.standIns.run(), book.standIns.run()])
  await book.standIns.run()
  t.match(sent.map(input => (input as { to: string[] }).to), [['+910000000001'], ['+910000000001']])
  for (const [index, row] of [
    { reversedAt: null, deliveries: [{ state: 'spoken' }] }, { reversedAt: null, deliveries: [{ state: 'expired' }, { state: 'summarised' }] }, { reversedAt: 5, deliveries: [] },
    { reversedAt: null, deliveries: [{ state: 'handed' }] }
  ].entries()) {
    heard.row = row as unknown as StoredPayment
    await announcing({ ...PAYMENT, transactionId: `heard-${index}`, acceptedAt: time.nowMs - 4_000 })(order)
    await book.standIns.run()
    t.equal(sent.length, 2, JSON.stringify(row))
  }
  heard.row = { reversedAt: null, deliveries: [{ state: 'expired' } as Delivery, { state: 'muted' } as Delivery] }
  time.nowMs += 10_000
  await announcing({ ...PAYMENT, transactionId: 'unheard', acceptedAt: time.nowMs - 4_000 })(order)
  await book.standIns.run()
  t.equal(sent.length, 3)
  t.match(await book.newest(1), [{ transactionId: 'unheard', state: 'sent', to: '9100****0001' }])
  const mute = await openStandInBook(bookDeps({ store: { findPayment: async () => { throw new SoundboxError('STORE_FAILED', 'locked') } } }).deps)
  await standIns.record({ ...standIn('t-9'), toSealed: raw.prepare("SELECT to_sealed FROM stand_in WHERE transaction_id = 'unheard'").pluck().get() as string, acceptedAt: NOW_MS, dueMs: NOW_MS })
  await t.rejects(mute.standIns.run(), { code: 'STORE_FAILED' }, 'history cannot be asked: nothing is sent on a guess')
  t.match(raw.prepare("SELECT state FROM stand_in WHERE transaction_id = 't-9'").pluck().get(), 'waiting')
})

t.test('operators sign in by token, session and code', async t => {
  const time = { nowMs: NOW_MS }
  const nowMs = (): number => time.nowMs
  const config = { issuer: 'Soundbox', digits: 6, periodS: 30, algorithm: 'SHA1' } as const
  const totp = openTotp({ store: store.integration.totp, key: KEY, config, nowMs })
  const tokens = await openTokens({ store: store.integration.tokens, key: KEY, nowMs })
  const operatorToken = 'operator-token-of-this-test'
  const serve = async () => {
    const signIn = await openSignIn({ operatorToken, tokens, totp, nowMs })
    const app = Fastify()
    app.setErrorHandler((error, _request, reply) => reply.code(isSoundboxError(error) ? error.status : 500).send({ error: isSoundboxError(error) ? error.code : String(error) }))
    await app.register(async scope => {
      scope.addHook('onRequest', async request => { signIn.admit(request) })
      await signIn.totpRoutes(scope)
      scope.get('/history', async () => ({ fine: true }))
      scope.get('/banks', async () => ({ fine: true }))
    }, { prefix: '/api/v1/admin' })
    await app.register(signIn.sessionRoutes, { prefix: '/api/v1/admin' })
    t.teardown(() => app.close())
    return async (token: string, method: 'GET' | 'POST' | 'DELETE', url: string, payload?: object): Promise<{ status: number, body: Record<string, string> }> => {
      const answer = await app.inject({ method, url: `/api/v1/admin${url}`, headers: { authorization: `Bearer ${token}` }, ...(payload === undefined ? {} : { payload }) })
      return { status: answer.statusCode, body: (answer.body === '' ? {} : answer.json()) as Record<string, string> }
    }
  }
  let ask = await serve()
  const viewer = await tokens.issue({ kind: 'operator', name: 'viewer', lifeDays: 1, role: 'auditor' })
  const partner = await tokens.issue({ kind: 'partner', name: 'partner', lifeDays: 1, role: 'partner' })
  t.equal((await ask(operatorToken, 'GET', '/banks')).status, 200)
  t.equal((await ask(viewer.token, 'GET', '/history')).status, 200)
  t.match(await ask(viewer.token, 'GET', '/banks'), { status: 403, body: { error: 'FORBIDDEN' } })
  t.match(await ask(partner.token, 'GET', '/history'), { status: 403 })
  t.match(await ask(viewer.token, 'POST', '/session', {}), { status: 403 }, 'a session is for the operator token')
  t.match(await ask('wrong', 'POST', '/session', {}), { status: 401, body: { error: 'UNAUTHORIZED' } })
  const open = await ask(operatorToken, 'POST', '/session')
  t.equal((await ask(open.body['token']!, 'GET', '/banks')).status, 200, 'without authenticator the token is enough')

  const seed = await ask(operatorToken, 'POST', '/totp/enrol')
  t.match(seed.body['uri'], /^otpauth:\/\/totp\/Soundbox:operator/)
  t.equal((await ask(operatorToken, 'GET', '/banks')).status, 200, 'not confirmed yet')
  t.match(await ask(operatorToken, 'POST', '/totp/confirm', { code: '000000' }), { status: 401, body: { error: 'TOTP_INVALID' } })
  const code = (): string => totpCode(base32(seed.body['seed']!), nowMs(), config)
  t.equal((await ask(operatorToken, 'POST', '/totp/confirm', { code: code() })).status, 200)
  for (const serverOf of ['the same', 'a new']) {
    if (serverOf === 'a new') ask = await serve()
    t.match(await ask(operatorToken, 'GET', '/banks'), { status: 401, body: { error: 'TOTP_INVALID' } }, `${serverOf} gateway asks for the code`)
    for (let tries = 0; tries < 9; tries++) t.match(await ask(operatorToken, 'POST', '/session', {}), { status: 401, body: { error: 'TOTP_INVALID' } }, 'asking is no try')
    time.nowMs += 60_000
    const session = await ask(operatorToken, 'POST', '/session', { code: code() })
    t.match(session, { status: 200, body: { token: /^sbs_/ } })
    t.match(await ask(operatorToken, 'POST', '/session', { code: code() }), { status: 401 }, 'a code works once')
    t.equal((await ask(session.body['token']!, 'GET', '/banks')).status, 200)
    t.equal((await ask(session.body['token']!, 'DELETE', '/session')).status, 204)
    t.equal((await ask(session.body['token']!, 'GET', '/banks')).status, 401, 'signed out')
  }
  time.nowMs += 60_000
  const last = (await ask(operatorToken, 'POST', '/session', { code: code() })).body['token']!
  time.nowMs += SESSION_LIFE_MS - 1
  t.equal((await ask(last, 'GET', '/totp')).status, 200)
  t.equal((await ask(last, 'POST', '/totp/disable')).status, 200)
  t.equal((await ask(operatorToken, 'GET', '/banks')).status, 200)
  time.nowMs += 1
  t.equal((await ask(last, 'GET', '/banks')).status, 401, 'a session ends')
  const first = (await ask(operatorToken, 'POST', '/session')).body['token']!
  for (let count = 1; count < SESSIONS_MAX; count++) await ask(operatorToken, 'POST', '/session')
  t.equal((await ask(first, 'GET', '/banks')).status, 200, `${SESSIONS_MAX} sessions`)
  await ask(operatorToken, 'POST', '/session')
  t.equal((await ask(first, 'GET', '/banks')).status, 401, 'one more: the oldest gives way')
})

/** RFC 4648, without padding. */
function base32 (text: string): Buffer {
  const bits = [...text].map(letter => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('')
  return Buffer.from(Array.from({ length: Math.floor(bits.length / 8) }, (_, index) => Number.parseInt(bits.slice(index * 8, index * 8 + 8), 2)))
}

t.test('every route of the operator needs a permission that exists, and an unknown one the strongest', t => {
  for (const [method, path, needed] of [
    ['GET', '/banks', 'fleet_read'], ['POST', '/banks/:id/rotate-key', 'bank_manage'], ['GET', '/devices/:tid', 'fleet_read'], ['PATCH', '/devices/:tid', 'fleet_manage'],
    ['PUT', '/merchants/stand-in', 'fleet_manage'], ['GET', '/stand-ins', 'fleet_read'], ['GET', '/history', 'history_read'], ['GET', '/tail', 'history_read'], ['GET', '/status', 'metrics_read'],
    ['GET', '/integration', 'metrics_read'], ['POST', '/audit/verify', 'audit_read'], ['GET', '/tokens', 'token_manage'],
    ['POST', '/totp/disable', 'token_manage'], ['GET', '/anything', 'token_manage']
  ] as const) {
    t.equal(permissionOf(method, `/api/v1/admin${path}`), needed, `${method} ${path}`)
    t.ok(PERMISSIONS.includes(needed))
  }
  t.equal(permissionOf('GET', ''), 'token_manage')
  t.end()
})

t.test('the totals of a day come from history, fleet and trail', async t => {
  t.same(dayBefore(Date.UTC(2026, 0, 6, 1, 30), 330), { day: '2026-01-05', since: Date.UTC(2026, 0, 4, 18, 30) }, 'a day of India')
  t.same(dayBefore(Date.UTC(2026, 0, 5, 18, 29), 330).day, '2026-01-04')
  t.same(dayBefore(Date.UTC(2026, 0, 6, 3), -300), { day: '2026-01-04', since: Date.UTC(2026, 0, 4, 5) })
  const row = (bankId: string, deliveries: Partial<Delivery>[], more: object = {}, reversedAt: number | null = null) =>
    ({ payment: { ...PAYMENT, bankId, acceptedAt: 1_000, ...more }, deliveries, reversedAt }) as unknown as StoredPayment
  const pages = new Map<string | undefined, { rows: StoredPayment[], next: string | null }>([
    [undefined, { next: 'two', rows: [row('pnb', [{ state: 'spoken', finalAt: 1_640 }]), row('pnb', [{ state: 'delivered' }, { state: 'expired', finalAt: 9_000 }])] }],
    ['two', { next: null, rows: [row('idfc', [], { status: 'failed' }), row('pnb', [{ state: 'reversed', finalAt: 2_000 }], {}, 2_000), row('pnb', [{ state: 'spoken', finalAt: 31_000 }])] }]
  ])
  await standIns.record(standIn('s-1', { state: 'sent', acceptedAt: 1_500 }))
  const totals = await dayTotals({
    config: { host: '127.0.0.1' }, store: { queryHistory: async (query: { cursor?: string }) => pages.get(query.cursor)! }, fallback: { depth: () => 7 }, records: { audit, standIns },
    auditKey: KEY,
    directory: { devices: () => [{ tid: 'A', status: 'active' }, { tid: 'B', status: 'active' }, { tid: 'C', status: 'inactive' }, { tid: 'D', status: 'active' }] },
    presenceOf: (tid: string) => ({ A: { seenAt: 1_000, online: false }, D: { seenAt: 0, online: true } } as Record<string, object>)[tid]
  } as unknown as Parameters<typeof dayTotals>[0], '1970-01-01', 1_000)
  t.match(totals, {
    banks: [{ name: 'idfc', payments: 0, failed: 1 }, { name: 'pnb', payments: 4, amountMinor: 7_600, reversed: 1 }], latency: { p50Ms: 640, p99Ms: 30_000 },
    deliveries: { spoken: 2, expired: 1, open: 1, failed: 0 }, devices: { active: 3, silent: ['B'] }, standIns: { sent: 1, failed: 0 }, fallback: { waiting: 7 }, audit: { ok: true }
  })
})

t.test('the daily mail goes once a day, again after a failure with the same content, and not without a mail server', async t => {
  const sent: { client_ref: string, text: string }[] = []
  const fault: { code?: 'PROVIDER_UNAVAILABLE' | 'ALREADY_EXISTS' } = {}
  const time = { nowMs: Date.UTC(2026, 0, 6, 2) }
  let waiting = 0
  const call = async (_service: string, input: { client_ref: string, text: string }): Promise<void> => {
    sent.push(input)
    if (fault.code !== undefined) throw new SoundboxError(fault.code, 'x')
  }
  const log = keepingLog()
  const deps = {
    config: { host: '127.0.0.1', reportTo: ['ops@example.invalid'], reportCron: '0 7 * * *', utcOffsetMinutes: 330 }, store: { queryHistory: async () => ({ rows: [], next: null }) },
    fallback: { depth: () => ++waiting }, records: { audit, standIns }, auditKey: KEY, directory: { devices: () => [] }, presenceOf: () => undefined, nowMs: () => time.nowMs, log,
    integration: { forBackground: () => ({ call }), transports: () => ({ email: { kind: 'smtp', name: 'smtp' } }) }
  } as unknown as DayMailDeps
  const run = openDayMail(deps).jobs[0]!.run
  fault.code = 'PROVIDER_UNAVAILABLE'
  await t.rejects(run(), { code: 'PROVIDER_UNAVAILABLE' })
  delete fault.code
  await run()
  await run()
  t.equal(sent.length, 2)
  t.same(sent[0], sent[1], 'the totals are those of the first try')
  t.match(sent[0], { client_ref: 'daily-2026-01-05', to: ['ops@example.invalid'] })
  time.nowMs += 86_400_000
  await run()
  t.equal(sent.at(-1)?.client_ref, 'daily-2026-01-06')
  fault.code = 'ALREADY_EXISTS'
  await openDayMail(deps).jobs[0]!.run()
  t.match(log.lines.at(-2), { level: 'warn', fields: { clientRef: 'daily-2026-01-06' } }, 'an earlier life has sent it')
  t.same(openDayMail({ ...deps, config: { ...deps.config, reportTo: [] } }).jobs, [])
  const noMail = { ...deps.integration, transports: () => ({}) } as unknown as DayMailDeps['integration']
  t.throws(() => openDayMail({ ...deps, integration: noMail }), { code: 'CONFIG_INVALID', message: /SOUNDBOX_REPORT_TO/ })
})

t.test('with another store for payments everything stands in a file of its own, and what runs is ended first', async t => {
  const dir = t.testdir({})
  const log = keepingLog()
  const target = { name: 'cbs', endpoints: ['127.0.0.1:1'] }
  const parts = await openIntegrationParts({
    newId: () => randomBytes(16).toString('hex'),
    config: parseConfig({}), settings: parseIntegrationConfig({ CBS_API_TRANSPORT: 'iso8583', CBS_API_ISO_TARGET: JSON.stringify(target), SMS_API_SIMULATE: 'true' }, () => ''),
    dataDir: { file: (name: string) => join(dir, name), masterKey: KEY, operatorToken: 'operator-token-of-this-test' }, store: { findPayment: async () => undefined },
    directory: bookDeps().deps.directory, fallback: { depth: () => 0 }, presenceOf: () => undefined, nowMs: () => NOW_MS, log
  } as unknown as Parameters<typeof openIntegrationParts>[0])
  t.same(readdirSync(dir).filter(name => name.endsWith('.db')), ['integration.db'])
  t.ok(parts.cbs, 'the bank behind the switch answers other switches')
  t.equal(await parts.checkMerchant({ bankId: 'pnb', merchant: 'shop@upi' }, undefined), null)
  t.same(parts.jobs.map(job => [job.name, job.isLocal]), ['provider-settle', 'token-uses', 'provider-retention', 'provider-messages', 'stand-ins'].map(name => [name, true]))
  for (const job of parts.jobs) await t.resolves(job.run(), job.name)
  t.same(parts.gauges.map(({ read }) => read()), [0, 0, 0, 0])
  await parts.stop()
  await parts.close()
  t.ok(await openIntegrationParts({
    newId: () => randomBytes(16).toString('hex'),
    config: parseConfig({}), settings: parseIntegrationConfig({}, () => ''), dataDir: { file: (name: string) => join(dir, name), masterKey: KEY }, store: {}, nowMs: () => NOW_MS, log
  } as unknown as Parameters<typeof openIntegrationParts>[0]).then(async empty => {
    t.equal(empty.cbs, undefined, 'nothing is configured')
    await empty.close()
    return true
  }))
})
