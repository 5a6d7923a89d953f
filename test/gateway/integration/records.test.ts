import { join } from 'node:path'
import Database from 'better-sqlite3'
import t from 'tap'
import { assertAudit, AUDIT_BATCH_MAX, AUDIT_LINGER_MS, AUDIT_RETRY_MS, type AuditEntry, chainRows, GENESIS_HASH, openAudit,
  verifyAudit } from '../../../gateway/integration/audit.js'
import { type CallLedger, openCallLedger, SENDING_LOST_MS, SETTLE_ASKS_MAX, SETTLE_CAP_MS, SETTLE_FIRST_MS, settleWaitMs } from '../../../gateway/integration/calls.js'
import type { ServiceResponse } from '../../../gateway/integration/contract.js'
import { INTEGRATION_PERMISSIONS } from '../../../gateway/integration/contract.js'
import { PERMISSIONS, ROLES } from '../../../gateway/integration/permissions.js'
import { FAILURES_PER_MINUTE, openTokens, TOKEN_LIFE_DAYS_MAX, TOKEN_RATE_PER_MINUTE_MAX } from '../../../gateway/integration/tokens.js'
import { openTotp, stepTotp, TOTP_SEED_BYTES, TOTP_TRIES_MAX, TOTP_TRIES_WINDOW_MS, totpCode, type TotpState } from '../../../gateway/integration/totp.js'
import { openSqliteStore, type SqliteStore } from '../../../gateway/store/sqlite.js'
import { SILENT_LOG, SoundboxError } from '../../../protocol/index.js'
import { AUDIT_KEY, keepingLog, memoryAuditStore } from '../../support/integration-world.js'
import { openManualClock, settled, until } from '../../support/manual-clock.js'

const KEY = Buffer.alloc(32, 3)
const path = join(t.testdir({}), 'soundbox.db')
const store = await openSqliteStore({ path, log: SILENT_LOG, nowMs: () => 0 })
const raw = new Database(path)
t.teardown(async () => {
  raw.close()
  await store.close()
})
t.beforeEach(() => { raw.exec('DELETE FROM audit; DELETE FROM provider_call; DELETE FROM token; DELETE FROM totp') })

const entry = (number: number, more: Partial<AuditEntry> = {}): AuditEntry => ({
  atMs: 1000 + number, traceId: `trace${number}`, actor: 'token1', issuer: 'cbs', service: 'account_balance_cbs', uriKey: 'balance', method: 'POST',
    url: 'https://bank.example/b', status: 200,
  latencyMs: 12, attempt: 1, outcome: 'ok', error: null, request: '{"a":1}', response: null, ...more
})

t.test('audit rows are chained on disk in groups, and the chain goes on after a restart', async t => {
  const clock = openManualClock()
  const first = await openAudit({ store: store.integration.audit, key: AUDIT_KEY, clock, log: SILENT_LOG })
  for (let number = 1; number <= AUDIT_BATCH_MAX + 1; number++) first.record(entry(number))
  await first.flush()
  await first.close()
  const second = await openAudit({ store: store.integration.audit, key: AUDIT_KEY, clock, log: SILENT_LOG })
  second.record(entry(9_999, { status: null, error: 'no connection', response: '{"code":"600"}' }))
  await second.close()
  const verdict = await verifyAudit(store.integration.audit, AUDIT_KEY)
  t.match(verdict, { ok: true, rows: AUDIT_BATCH_MAX + 2 })
  const [row] = await store.integration.audit.page(AUDIT_BATCH_MAX + 1, 10)
  t.match(row, { ...entry(9_999, { status: null, error: 'no connection', response: '{"code":"600"}' }), seq: AUDIT_BATCH_MAX + 2 })
  t.same(second.head(), await store.integration.audit.last())
})

t.test('a changed, removed, inserted, swapped or re-keyed row is found, and its place is told', async t => {
  const chained = chainRows(AUDIT_KEY, undefined, [1, 2, 3, 4, 5].map(number => entry(number)))
  t.equal(chained[0]?.prevHash, GENESIS_HASH)
  const changes: [string, (db: Database.Database) => void, number, string][] = [
    ['a status', db => db.prepare('UPDATE audit SET status = 500 WHERE seq = 3').run(), 3, 'changed'],
      ['a masked body', db => db.prepare("UPDATE audit SET request = '{}' WHERE seq = 1").run(), 1, 'changed'],
    ['a null that becomes text', db => db.prepare("UPDATE audit SET error = '' WHERE seq = 2").run(), 2, 'changed'],
      ['an actor', db => db.prepare("UPDATE audit SET actor = 'token2' WHERE seq = 5").run(), 5, 'changed'],
    ['a removed row', db => db.prepare('DELETE FROM audit WHERE seq = 2').run(), 2, 'missing'],
      ['the first row', db => db.prepare('DELETE FROM audit WHERE seq = 1').run(), 1, 'missing'],
    ['a hash', db => db.prepare("UPDATE audit SET hash = '00' WHERE seq = 4").run(), 4, 'changed'],
    ['rows that were moved up', db => { db.prepare('DELETE FROM audit WHERE seq = 2').run(); db.prepare('UPDATE audit SET seq = seq - 1 WHERE seq > 2').run() }, 2, 'changed'],
    ['a forged row at the end', db => db.prepare(`INSERT INTO audit SELECT 6, at_ms, trace_id, actor, issuer, service, uri_key, method, url, status,
      latency_ms, attempt, outcome, error, request, response, hash, hash FROM audit WHERE seq = 5`).run(), 6, 'changed']
  ]
  for (const [why, change, seq, problem] of changes) {
    raw.exec('DELETE FROM audit')
    await store.integration.audit.append(chained)
    t.match(await verifyAudit(store.integration.audit, AUDIT_KEY), { ok: true, rows: 5 })
    change(raw)
    t.same(await verifyAudit(store.integration.audit, AUDIT_KEY), { ok: false, seq, problem }, why)
    await t.rejects(assertAudit(store.integration.audit, AUDIT_KEY), { code: 'AUDIT_TAMPERED', message: new RegExp(`row ${seq}`) }, why)
  }
  const memory = memoryAuditStore()
  await memory.append(chained)
  t.same(await verifyAudit(memory, Buffer.alloc(32, 9)), { ok: false, seq: 1, problem: 'changed' }, 'another key')
  const head = { seq: 5, hash: chained[4]!.hash }
  t.match(await assertAudit(memory, AUDIT_KEY, { anchor: head }), { rows: 5, head })
  t.match(await verifyAudit(memory, AUDIT_KEY, { start: { seq: 3, hash: chained[2]!.hash } }), { ok: true, rows: 2 }, 'older rows were removed by rule')
  memory.rows.splice(3)
  t.match(await verifyAudit(memory, AUDIT_KEY), { ok: true, rows: 3 }, 'a chain alone cannot see a cut')
  t.same(await verifyAudit(memory, AUDIT_KEY, { anchor: head }), { ok: false, seq: 5, problem: 'cut' }, 'a kept head can')
})

t.test('a store that refuses is tried again, and a sequence number that another gateway took is passed over', async t => {
  const clock = openManualClock()
  const log = keepingLog()
  const memory = memoryAuditStore()
  const audit = await openAudit({ store: memory, key: AUDIT_KEY, clock, log })
  memory.refuse = true
  audit.record(entry(1))
  clock.advance(AUDIT_LINGER_MS - 1)
  await settled()
  t.equal(log.lines.length, 0, 'rows gather first')
  clock.advance(1)
  for (const tries of [1, 2]) {
    await until(() => log.lines.length === tries && clock.waiting().length === 1, `try ${tries}`)
    audit.record(entry(1 + tries))
    clock.advance(AUDIT_RETRY_MS - 1)
    await settled()
    t.equal(log.lines.length, tries)
    if (tries === 2) memory.refuse = false
    clock.advance(1)
  }
  t.match(log.lines, [{ level: 'warn', fields: { waiting: 1 } }, { level: 'warn', fields: { waiting: 2 } }])
  await until(() => memory.rows.length === 3, 'the third try')
  audit.record(entry(4))
  clock.advance(AUDIT_LINGER_MS)
  await until(() => memory.rows.length === 4, 'the next group')
  const [one, two] = await Promise.all([1, 2].map(async () => await openAudit({ store: store.integration.audit, key: AUDIT_KEY, clock, log })))
  one!.record(entry(1))
  await one!.flush()
  two!.record(entry(2))
  await two!.flush()
  one!.record(entry(3))
  await one!.flush()
  t.match(await verifyAudit(store.integration.audit, AUDIT_KEY), { ok: true, rows: 3 })
  t.same((await store.integration.audit.page(0, 10)).map(row => row.traceId), ['trace1', 'trace2', 'trace3'])
  memory.refuse = true
  audit.record(entry(2))
  await audit.close()
  t.match(log.lines.at(-1), { level: 'error', fields: { lost: 1 } }, 'what is lost at the end is told')
})

const SMS = { to: ['+255712345678'], text: 'hello', client_ref: 'n-1' }
const SENT: ServiceResponse<'send_sms_message'> = { client_ref: 'n-1', provider_id: 'p1', parts: 1,
  recipients: [{ to_masked: '2557****5678', status: 'ACCEPTED', code: null, cost: null }] }
function ledgerWorld (store: SqliteStore, clock = openManualClock()): { ledger: CallLedger, send: (answer: () => Promise<typeof SENT>, more?: object) => Promise<typeof SENT>,
  references: string[], clock: typeof clock, log: ReturnType<typeof keepingLog> } {
  const log = keepingLog()
  const ledger = openCallLedger({ store: store.integration.calls, key: KEY, nowMs: clock.nowMs, log })
  const references: string[] = []
  let calls = 0
  return {
    ledger, references, clock, log,
    send: async (answer, more = {}) => await ledger.once({ issuer: 'sms', service: 'send_sms_message', input: SMS, clientRef: 'n-1', actor: 'token1', traceId: 't',
      reference: `ref${++calls}`, ...more }, async reference => {
      references.push(reference)
      return await answer()
    })
  }
}
const fault = (code: 'PROVIDER_REJECTED' | 'PROVIDER_STATE_UNKNOWN' | 'PROVIDER_TIMEOUT') => async (): Promise<never> => { throw new SoundboxError(code, 'x') }

t.test('the same client_ref is sent once: repeated at once, later, by another caller, with other content', async t => {
  const { send, references, ledger } = ledgerWorld(store)
  let release = (): void => {}
  const slow = new Promise<typeof SENT>(resolve => { release = () => resolve(SENT) })
  const both = [send(async () => await slow), send(async () => await slow)]
  await t.rejects(send(async () => SENT, { input: { ...SMS, text: 'other' } }), { code: 'ALREADY_EXISTS' }, 'other content while it runs')
  await until(() => references.length === 1, 'the send')
  release()
  t.same(await Promise.all(both), [SENT, SENT])
  t.same(await send(async () => SENT), SENT, 'from the record')
  t.same(await send(async () => SENT, { input: { client_ref: 'n-1', text: 'hello', to: ['+255712345678'] } }), SENT, 'another key order is the same request')
  await t.rejects(send(async () => SENT, { input: { ...SMS, text: 'other' } }), { code: 'ALREADY_EXISTS' })
  t.equal(references.length, 1)
  t.same(await send(async () => SENT, { actor: 'token2' }), SENT)
  t.equal(references.length, 2, 'another caller may use the same client_ref')
  t.equal(await ledger.settleDue(() => undefined), 0)
  t.notMatch(JSON.stringify(raw.prepare('SELECT * FROM provider_call').all()), /255712345678|hello/, 'requests and answers are sealed')
})

t.test('a refused call may be sent again with its first reference; an unknown one may not', async t => {
  const { send, references, log } = ledgerWorld(store)
  await t.rejects(send(fault('PROVIDER_REJECTED')), { code: 'PROVIDER_REJECTED' })
  await t.rejects(send(fault('PROVIDER_TIMEOUT')), { code: 'PROVIDER_TIMEOUT' })
  await t.rejects(send(fault('PROVIDER_STATE_UNKNOWN')), { code: 'PROVIDER_STATE_UNKNOWN' })
  await t.rejects(send(async () => SENT), { code: 'PROVIDER_STATE_UNKNOWN', message: /sent before/ })
  t.same(references, ['ref1', 'ref1', 'ref1'])
  t.match(log.lines, [{ level: 'warn' }])
})

t.test('an unknown call is asked after 30 s, later each time, and settled by what the provider says', async t => {
  const { send, ledger, clock, log } = ledgerWorld(store)
  await t.rejects(send(fault('PROVIDER_STATE_UNKNOWN')), { code: 'PROVIDER_STATE_UNKNOWN' })
  const asked: object[] = []
  const answers = [{ state: 'open' }, new SoundboxError('PROVIDER_TIMEOUT', 'x'), { state: 'done', data: SENT }] as const
  const ask = (call: object): Promise<never> => {
    const answer = answers[asked.length]
    asked.push(call)
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer as never)
  }
  clock.advance(SETTLE_FIRST_MS - 1)
  t.equal(await ledger.settleDue(ask), 0)
  t.equal(asked.length, 0)
  clock.advance(1)
  t.equal(await ledger.settleDue(ask), 0, 'open')
  t.match(asked[0], { service: 'send_sms_message', input: SMS, reference: 'ref1' })
  clock.advance(settleWaitMs(1) - 1)
  await ledger.settleDue(ask)
  t.equal(asked.length, 1)
  clock.advance(1)
  await ledger.settleDue(ask)
  clock.advance(settleWaitMs(2))
  t.equal(await ledger.settleDue(ask), 1, 'done')
  t.same(await send(async () => { throw new Error('sent twice') }), SENT)
  t.match(log.lines.at(-1), { level: 'info', fields: { state: 'done', asks: 3 } })
  t.same([settleWaitMs(0), settleWaitMs(1), settleWaitMs(50)], [SETTLE_FIRST_MS, 2 * SETTLE_FIRST_MS, SETTLE_CAP_MS])
})

t.test('a call that was never done may be sent again; one that nobody can tell about stays unknown and is told', async t => {
  const { send, ledger, clock, log } = ledgerWorld(store)
  await t.rejects(send(fault('PROVIDER_STATE_UNKNOWN')), { code: 'PROVIDER_STATE_UNKNOWN' })
  clock.advance(SETTLE_FIRST_MS)
  t.equal(await ledger.settleDue(async () => ({ state: 'not_done' })), 1)
  t.same(await send(async () => SENT), SENT)
  await t.rejects(send(fault('PROVIDER_STATE_UNKNOWN'), { clientRef: 'n-2' }), { code: 'PROVIDER_STATE_UNKNOWN' })
  clock.advance(SETTLE_FIRST_MS)
  t.equal(await ledger.settleDue(() => undefined), 0)
  t.match(log.lines.at(-1), { level: 'error' })
  clock.advance(SETTLE_CAP_MS)
  await ledger.settleDue(() => t.fail('asked again') as never)
  await t.rejects(send(fault('PROVIDER_STATE_UNKNOWN'), { clientRef: 'n-3' }), { code: 'PROVIDER_STATE_UNKNOWN' })
  let asks = 0
  for (let turn = 0; turn < SETTLE_ASKS_MAX + 2; turn++) {
    clock.advance(SETTLE_CAP_MS)
    await ledger.settleDue(async () => {
      asks += 1
      return { state: 'open' }
    })
  }
  t.equal(asks, SETTLE_ASKS_MAX)
  await t.rejects(send(async () => SENT, { clientRef: 'n-3' }), { code: 'PROVIDER_STATE_UNKNOWN' })
})

t.test('a crash between sending and answer is unknown after ten minutes; a store that fails keeps the call here', async t => {
  const clock = openManualClock()
  const crashed = ledgerWorld(store, clock)
  void crashed.send(async () => await new Promise(() => {})).catch(() => {})
  await until(() => crashed.references.length === 1, 'the send')
  const next = ledgerWorld(store, clock)
  await t.rejects(next.send(async () => SENT), { code: 'PROVIDER_STATE_UNKNOWN' })
  clock.advance(SENDING_LOST_MS)
  t.equal(await next.ledger.settleDue(async () => ({ state: 'not_done' })), 0, 'at ten minutes not yet')
  clock.advance(1)
  t.equal(await next.ledger.settleDue(async () => ({ state: 'not_done' })), 1)
  t.same(await next.send(async () => SENT), SENT)
  t.equal(await store.integration.calls.purge(clock.nowMs(), 10), 0, 'what is not old stays')
  t.equal(await store.integration.calls.purge(clock.nowMs() + 1, 10), 1)
  const failing = { ...store, integration: { ...store.integration, calls: { ...store.integration.calls,
    begin: async () => { throw new SoundboxError('STORE_FAILED', 'locked') } } } }
  const refused = ledgerWorld(failing, clock)
  await t.rejects(refused.send(async () => SENT), { code: 'STORE_FAILED' })
  t.equal(refused.references.length, 0, 'nothing was sent')
  const halting = { ...store, integration: { ...store.integration, calls: { ...store.integration.calls,
    finish: async () => { throw new SoundboxError('STORE_FAILED', 'full') } } } }
  const half = ledgerWorld(halting, clock)
  t.same(await half.send(async () => SENT, { clientRef: 'n-9' }), SENT, 'sent is sent')
  t.match(half.log.lines, [{ level: 'error' }])
  await t.rejects(ledgerWorld(store, clock).send(async () => SENT, { clientRef: 'n-9' }), { code: 'PROVIDER_STATE_UNKNOWN' }, 'but its record says sending')
})

t.test('tokens: shown once, kept as hashes, uniform refusals, expiry, revocation, last use', async t => {
  const clock = openManualClock()
  const open = async (): ReturnType<typeof openTokens> => await openTokens({ store: store.integration.tokens, key: KEY, nowMs: clock.nowMs })
  const tokens = await open()
  const { token, row } = await tokens.issue({ kind: 'partner', name: 'shop app', lifeDays: 1, permissions: ['send_sms'] })
  t.match(token, /^sbx_[0-9a-f]{12}_[\w-]{32}$/)
  t.notOk('hash' in row)
  const good = tokens.admit(`Bearer ${token}`, '10.0.0.1')
  t.ok(good.ok && good.caller.permissions.has('send_sms') && good.caller.id === row.id)
  const { token: other } = await tokens.issue({ kind: 'operator', name: 'o', lifeDays: TOKEN_LIFE_DAYS_MAX, role: 'viewer' })
  const refusals = [undefined, '', token, `bearer ${token}`, `Bearer ${token}x`, `Bearer ${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`,
    `Bearer sbx_${row.id}_${other.slice(-32)}`, `Bearer sbx_${'0'.repeat(12)}_${token.slice(-32)}`]
    .map(header => tokens.admit(header, '10.0.0.2'))
  for (const refusal of refusals) t.match(refusal, { ok: false, error: { code: 'UNAUTHORIZED', message: 'no live token was sent' } })
  await tokens.flushUses()
  clock.advance(86_400_000 - 1)
  t.ok(tokens.admit(`Bearer ${token}`, '10.0.0.1').ok, 'its last millisecond')
  clock.advance(1)
  t.match(tokens.admit(`Bearer ${token}`, '10.0.0.1'), { ok: false, error: { code: 'UNAUTHORIZED' } }, 'expired')
  await tokens.flushUses()
  t.ok((await open()).admit(`Bearer ${other}`, '10.0.0.1').ok, 'tokens outlive a restart')
  const otherId = other.split('_')[1]!
  await tokens.revoke(otherId)
  await tokens.revoke(otherId)
  t.match(tokens.admit(`Bearer ${other}`, '10.0.0.1'), { ok: false, error: { code: 'UNAUTHORIZED' } }, 'revoked')
  const again = await open()
  t.match(again.admit(`Bearer ${other}`, '10.0.0.1'), { ok: false }, 'revoked after a restart')
  t.match(again.list().find(found => found.id === row.id), { lastUsedAt: clock.nowMs() - 1, name: 'shop app' })
  t.match(again.list().find(found => found.id === otherId), { revokedAt: clock.nowMs() })
  await t.rejects(tokens.revoke('000000000000'), { code: 'NOT_FOUND' })
  t.notMatch(JSON.stringify(raw.prepare('SELECT * FROM token').all()), new RegExp(token.slice(-32)))
})

t.test('a token is asked for within its limits, and calls within its rate', async t => {
  const clock = openManualClock()
  const tokens = await openTokens({ store: { loadTokens: async () => [], saveToken: async () => {}, touchTokens: async () => {} }, key: KEY, nowMs: clock.nowMs })
  const wish = { kind: 'partner' as const, name: 'x', lifeDays: 1, permissions: ['send_sms'] }
  for (const bad of [
    { ...wish, name: ' ' }, { ...wish, name: 'x'.repeat(65) }, { ...wish, lifeDays: 0 }, { ...wish, lifeDays: TOKEN_LIFE_DAYS_MAX + 1 }, { ...wish, ratePerMinute: 0 },
    { ...wish, ratePerMinute: TOKEN_RATE_PER_MINUTE_MAX + 1 }, { ...wish, permissions: ['everything'] }, { ...wish, role: 'admin' }, { kind: wish.kind, name: 'x', lifeDays: 1 },
    { kind: wish.kind, name: 'x', lifeDays: 1, role: 'toString' }
  ]) await t.rejects(tokens.issue(bad), { code: 'INPUT_INVALID' })
  const { token } = await tokens.issue({ ...wish, ratePerMinute: 2 })
  const admit = (): string => {
    const admission = tokens.admit(`Bearer ${token}`, '10.0.0.1')
    return admission.ok ? 'ok' : `${admission.error.code} ${admission.retryAfterS ?? ''}`
  }
  t.same([admit(), admit(), admit()], ['ok', 'ok', 'RATE_LIMITED 30'])
  clock.advance(30_000)
  t.same([admit(), admit()], ['ok', 'RATE_LIMITED 30'])
  const wrong = (): string => {
    const admission = tokens.admit('Bearer nonsense', '10.0.0.9')
    return admission.ok ? 'ok' : admission.error.code
  }
  for (let failure = 1; failure <= FAILURES_PER_MINUTE; failure++) t.equal(wrong(), 'UNAUTHORIZED')
  t.equal(wrong(), 'RATE_LIMITED')
  t.match(tokens.admit('Bearer nonsense', '10.0.0.8'), { error: { code: 'UNAUTHORIZED' } }, 'another address')
  clock.advance(60_000)
  t.ok(tokens.admit(`Bearer ${token}`, '10.0.0.9').ok, 'a right token is let through')
  for (const [role, names] of Object.entries(ROLES)) t.ok(names.every(name => PERMISSIONS.includes(name)), role)
  t.same(ROLES['partner'], INTEGRATION_PERMISSIONS)
  t.notOk(ROLES['lookup']?.includes('send_sms'))
})

t.test('one-time codes are those of RFC 6238 appendix B', async t => {
  const vectors: [number, string, string, string][] = [
    [59, '94287082', '46119246', '90693936'], [1111111109, '07081804', '68084774', '25091201'], [1111111111, '14050471', '67062674', '99943326'],
    [1234567890, '89005924', '91819424', '93441116'], [2000000000, '69279037', '90698825', '38618901'], [20000000000, '65353130', '77737706', '47863826']
  ]
  const seed = (length: number): Buffer => Buffer.from('1234567890'.repeat(7).slice(0, length), 'ascii')
  for (const [seconds, sha1, sha256, sha512] of vectors) {
    for (const [algorithm, length, code] of [['SHA1', 20, sha1], ['SHA256', 32, sha256], ['SHA512', 64, sha512]] as const) {
      t.equal(totpCode(seed(length), seconds * 1000, { issuer: 'x', digits: 8, periodS: 30, algorithm }), code, `${algorithm} ${seconds}`)
    }
  }
})

const TOTP_CONFIG = { issuer: 'Soundbox', digits: 6, periodS: 30, algorithm: 'SHA1' } as const
t.test('a code is good one step early and late, works once, and five wrong ones close the door for five minutes', async t => {
  const seed = Buffer.alloc(TOTP_SEED_BYTES, 1)
  const now = 1_700_000_010_000
  const fresh: TotpState = { lastStep: null, failures: [] }
  const code = (steps: number): string => totpCode(seed, now + steps * 30_000, TOTP_CONFIG)
  const verdict = (state: TotpState, text: string, atMs = now): boolean => stepTotp(state, text, atMs, seed, TOTP_CONFIG).verdict.ok
  t.same([-2, -1, 0, 1, 2].map(steps => verdict(fresh, code(steps))), [false, true, true, true, false])
  const used = stepTotp(fresh, code(0), now, seed, TOTP_CONFIG).next
  t.notOk(verdict(used, code(0)), 'used')
  t.notOk(verdict(used, code(-1)), 'older than a used one')
  t.ok(verdict(used, code(1)), 'the next step')
  for (const odd of ['', '12345', '1234567', 'abcdef', ' 12345', '１２３４５６']) t.notOk(verdict(fresh, odd), odd)
  let state = fresh
  for (let failure = 0; failure < TOTP_TRIES_MAX; failure++) {
    t.same(stepTotp(state, 'xxxxxx', now + failure, seed, TOTP_CONFIG).verdict, { ok: false, retryAfterMs: undefined })
    state = stepTotp(state, 'xxxxxx', now + failure, seed, TOTP_CONFIG).next
  }
  t.same(stepTotp(state, code(0), now + 10, seed, TOTP_CONFIG).verdict, { ok: false, retryAfterMs: TOTP_TRIES_WINDOW_MS - 10 }, 'the sixth, although it is right')
  const later = now + TOTP_TRIES_WINDOW_MS
  t.notOk(verdict(state, totpCode(seed, later - 1, TOTP_CONFIG), later - 1))
  t.ok(verdict(state, totpCode(seed, later, TOTP_CONFIG), later), 'when the oldest is five minutes old')
  t.throws(() => totpCode(Buffer.alloc(TOTP_SEED_BYTES - 1), now, TOTP_CONFIG), { code: 'SECRET_UNREADABLE' }, 'a seed of 19 bytes')
})

t.test('an operator is enrolled, confirmed by the first code, and of two sign-ins with one code one loses', async t => {
  const clock = openManualClock()
  const totp = openTotp({ store: store.integration.totp, key: KEY, config: TOTP_CONFIG, nowMs: clock.nowMs })
  await t.rejects(totp.verify('asha', '000000'), { code: 'NOT_FOUND' })
  await totp.enrol('asha')
  const { uri, seed } = await totp.enrol('asha')
  t.match(uri, /^otpauth:\/\/totp\/Soundbox:asha\?/)
  t.match(seed, /^[A-Z2-7]{32}$/)
  const bytes = base32(seed)
  t.equal(bytes.length, TOTP_SEED_BYTES)
  const code = (): string => totpCode(bytes, clock.nowMs(), TOTP_CONFIG)
  t.notOk(await totp.isGuarded('asha'))
  await t.rejects(totp.verify('asha', code() === '123456' ? '654321' : '123456'), { code: 'TOTP_INVALID' })
  const outcomes = await Promise.all([1, 2].map(async () => await totp.verify('asha', code()).then(() => 'in', (error: { code: string }) => error.code)))
  t.same(outcomes.sort(), ['TOTP_INVALID', 'in'])
  t.ok(await totp.isGuarded('asha'))
  await t.rejects(totp.enrol('asha'), { code: 'ALREADY_EXISTS' })
  clock.advance(TOTP_TRIES_WINDOW_MS)
  for (let failure = 1; failure <= TOTP_TRIES_MAX; failure++) await t.rejects(totp.verify('asha', 'xxxxxx'), { code: 'TOTP_INVALID' })
  await t.rejects(totp.verify('asha', code()), { code: 'RATE_LIMITED', message: /300 s/ })
  t.notOk(JSON.stringify(raw.prepare('SELECT * FROM totp').all()).includes(seed))
  t.notOk(JSON.stringify(raw.prepare('SELECT * FROM totp').all()).includes(bytes.toString('base64')))
  await totp.remove('asha')
  t.notOk(await totp.isGuarded('asha'))
  await settled()
})

function base32 (text: string): Buffer {
  const bits = [...text].map(letter => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('')
  return Buffer.from(bits.match(/.{8}/g)!.map(byte => Number.parseInt(byte, 2)))
}
