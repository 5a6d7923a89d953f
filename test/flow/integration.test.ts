// The integration services in a running gateway: tokens by the command, routes, report, audit trail, webhooks, stand-ins through an SMS
// provider on loopback, merchants checked, sign-in with a code, a restart, and nothing written down that must not be.
import { execFile } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import Database from 'better-sqlite3'
import { Command } from 'commander'
import { pino } from 'pino'
import t from 'tap'
import { addAdminCommands } from '../../gateway/cli/admin-commands.js'
import { type Client, openClient } from '../../gateway/cli/client.js'
import { describeFailure, openOutput } from '../../gateway/cli/output.js'
import { ROUTES, SERVICES } from '../../gateway/integration/contract.js'
import { makeSIMTables } from '../../gateway/integration/simulation/index.js'
import { totpCode } from '../../gateway/integration/totp.js'
import { describeError } from '../../gateway/log-error.js'
import { connectSwitch, purchase } from '../support/raw-switch.js'
import { openProviderDouble } from '../support/provider-double.js'
import { eventually, payment, type Rig, startRig, tempDir } from '../support/rig.js'

const PAN = '4111111111111111'
const PHONE = '910000000042'
const SMS_PASSWORD = 'sms-password-of-nobody'
const SMS_HOOK = 'sms-hook-token-of-nobody'
const DIDIT_HOOK = 'didit-hook-secret-of-nobody'
const smsSent = (id: string) => ({ do: 'answer', json: { successful: true, request_id: id, code: 100, message: 'Message Submitted Successfully', valid: 1, invalid: 0, duplicates: 0 } }) as const

type Answer = { status: number, body: Record<string, unknown>, headers: Headers, bytes: Buffer }
async function ask (rig: Rig, path: string, options: { token?: string, body?: unknown, headers?: Record<string, string>, method?: string } = {}): Promise<Answer> {
  const response = await fetch(`${rig.url}/api/v1${path}`, {
    method: options.method ?? (options.body === undefined ? 'GET' : 'POST'),
    headers: {
      ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }), ...(options.body === undefined ? {} : { 'content-type': 'application/json' }), ...options.headers
    },
    ...(options.body === undefined ? {} : { body: typeof options.body === 'string' ? options.body : JSON.stringify(options.body) })
  })
  const bytes = Buffer.from(await response.arrayBuffer())
  return { status: response.status, headers: response.headers, bytes, body: jsonOf(bytes) }
}

function jsonOf (bytes: Buffer): Record<string, unknown> {
  try {
    return JSON.parse(bytes.toString('utf8')) as Record<string, unknown>
  } catch {
    return {}
  }
}

type Typed = { code: number, out: Record<string, unknown>, err: Record<string, unknown> }
/** The command as a person types it, in this process. */
async function soundbox (client: Client, ...args: string[]): Promise<Typed> {
  let text = ''
  const program = new Command().exitOverride()
  addAdminCommands(program, { client: () => client, output: () => openOutput(true, more => { text += more }), interrupted: () => AbortSignal.abort() })
  try {
    await program.parseAsync(['node', 'soundbox', ...args])
    return { code: 0, out: jsonOf(Buffer.from(text.split('\n')[0] ?? '')), err: {} }
  } catch (error) {
    const failure = describeFailure(error, true)
    return { code: failure.exit, out: {}, err: jsonOf(Buffer.from(failure.text)) }
  }
}

/** The same as a program of its own. */
function spawned (dir: string, ...args: string[]): Promise<Typed> {
  return new Promise(resolve => {
    execFile(process.execPath, ['dist/gateway/cli/main.js', '--data-dir', dir, '--json', ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), out: jsonOf(Buffer.from(stdout)), err: jsonOf(Buffer.from(stderr)) })
    })
  })
}

async function startWorld (t: Parameters<typeof startRig>[0], more: { env?: Record<string, string>, log?: Parameters<typeof startRig>[1] } = {}) {
  const double = await openProviderDouble({ '/v1/send': ['beem-1', 'beem-2'].map(smsSent) })
  const dir = tempDir(t)
  writeFileSync(join(dir, 'peers.json'), JSON.stringify({ peers: [{ name: 'switch-a', bank: 'bank', addresses: ['127.0.0.1'] }] }))
  const rig = await startRig(t, {
    ...more.log, dir, env: {
      SOUNDBOX_ISO_PEERS_FILE: join(dir, 'peers.json'), CBS_API_SIMULATE: 'true', CBS_API_SIM_CUSTOMERS: '20', CBS_API_SIM_COUNTRY: 'IN', CBS_API_SIM_CURRENCY: 'INR', DIDIT_API_SIMULATE: 'true',
      DIDIT_API_WEBHOOK_SECRET: DIDIT_HOOK, SMS_API_PROVIDER: 'beem', SMS_API_URL: double.url, SMS_API_USER: 'user', SMS_API_PASSWORD: SMS_PASSWORD, SMS_API_SENDER_ID: 'SHOP',
      SMS_API_WEBHOOK_SECRET: SMS_HOOK, ...more.env
    }
  })
  t.teardown(() => double.close())
  const tables = makeSIMTables({ seed: 1, customers: 20, country: 'IN', currency: 'INR' }, Math.floor(rig.clock.nowMs() / 86_400_000) * 86_400_000)
  return { rig, double, tables, dir }
}

t.test('tokens, routes, report and audit trail of a running gateway', async t => {
  const { rig, double, tables, dir } = await startWorld(t)
  const made = await spawned(dir, 'token', 'create', 'shop app', '--role', 'partner', '--days', '30')
  t.equal(made.code, 0)
  const token = String(made.out['token'])
  const lookup = String((await soundbox(rig.client, 'token', 'create', 'lookup', '--permission', 'account_balance')).out['token'])
  const account = tables.accounts[0]!.accountNo

  t.match((await ask(rig, '/integration/account/balance', { token: lookup, body: { account_no: account } })).body, { status: 'success', data: { account_no: account, currency: 'INR' } })
  const sms = await ask(rig, '/integration/sms/send', { token, body: { to: [`+${PHONE}`], text: 'hello', client_ref: 'r-1' } })
  t.match(sms.body, { status: 'success', data: { provider_id: 'beem-1', recipients: [{ status: 'ACCEPTED' }] } })
  t.match((await ask(rig, '/integration/sms/send', { token, body: { to: [`+${PHONE}`], text: 'hello', client_ref: 'r-1' } })).body, { status: 'success' }, 'the same client_ref')
  t.equal(double.seen.length, 1, 'left once')
  const refusals = await Promise.all([undefined, 'wrong', `${token}x`, `sbx_000000000000_${'a'.repeat(32)}`].map(async wrong =>
    (({ status, body: { trace_id: _, ...body } }) => ({ status, body }))(await ask(rig, '/integration/account/balance', { ...(wrong === undefined ? {} : { token: wrong }), body: {} }))))
  for (const refusal of refusals) t.same(refusal, { ...refusals[0], status: 401 }, 'uniform')
  for (const route of ROUTES) {
    const answer = await ask(rig, `/integration${route.path}`, { token: lookup, body: SERVICES[route.service].example.request })
    t.equal(answer.status === 403, route.permission !== 'account_balance', `${route.path}: ${answer.status}`)
  }
  t.match(await ask(rig, '/integration/biller/category', { token, body: {} }), { status: 500, body: { error: 'PROVIDER_CONFIG', message: 'issuer bill is not configured' } })

  const csv = await ask(rig, '/integration/simulator/download?format=csv&table=accounts')
  t.match(csv.headers.get('content-type'), /^text\/csv/)
  t.match(csv.bytes.toString('utf8'), `${account},`)
  const xlsx = await ask(rig, '/integration/simulator/download?format=xlsx')
  t.equal(xlsx.status, 200, 'the place of the first is free with its last byte')
  t.same(xlsx.bytes.subarray(0, 2), Buffer.from('PK'))

  const verified = await soundbox(rig.client, 'audit', 'verify')
  t.equal(verified.code, 0)
  const head = verified.out['head'] as { seq: number, hash: string }
  t.equal(verified.out['rows'], head.seq)
  t.match((await rig.client.call('GET', '/audit?limit=500'))['rows'], [{ service: 'account_balance_cbs' }, { service: 'send_sms_message', status: 200, actor: made.out['id'], outcome: 'ok' }])
  t.equal((await soundbox(rig.client, 'audit', 'verify', '--anchor', `${head.seq}:${head.hash}`)).code, 0)
  t.equal((await soundbox(rig.client, 'token', 'revoke', String(made.out['id']))).code, 0)
  t.equal((await ask(rig, '/integration/sms/send', { token, body: {} })).status, 401)

  await rig.addBank()
  const raw = await connectSwitch(t, { port: rig.gateway().ports.iso ?? 0 })
  await raw.signOn()
  t.match(await raw.ask(purchase(3, { 3: '310000', 4: '000000000000', 102: account })), { fields: { 39: '00', 54: /356/ } }, 'a switch asks the same bank')
  t.match(await raw.ask(purchase(4, { 3: '310000', 4: '000000000000', 102: '0150245000100' })), { fields: { 39: /^(?!00)/ } }, 'the account of the little table is not there')

  await rig.restart()
  t.equal((await ask(rig, '/integration/account/balance', { token: lookup, body: { account_no: account } })).status, 200, 'tokens live on')
  await ask(rig, '/integration/account/balance', { token: lookup, body: { account_no: account } })
  t.equal((await soundbox(rig.client, 'audit', 'verify', '--anchor', `${head.seq}:${head.hash}`)).code, 0, 'and so does the chain')
  const db = new Database(join(dir, 'soundbox.db'))
  db.prepare("UPDATE audit SET outcome = 'ok' WHERE seq = (SELECT max(seq) FROM audit)").run()
  db.prepare("UPDATE audit SET actor = 'nobody' WHERE seq = 2").run()
  db.close()
  t.match(await soundbox(rig.client, 'audit', 'verify'), { code: 1, err: { error: 'AUDIT_TAMPERED', message: /row 2/ } })
})

t.test('no box has spoken: one SMS; it has: none; also across a restart', async t => {
  const { rig, double } = await startWorld(t)
  const bank = await rig.addBank()
  const box = await rig.connect(await rig.addBox('SB-0001', { merchant: 'loud@upi' }))
  await rig.addBox('SB-0002', { merchant: 'quiet@upi' })
  for (const merchant of ['loud@upi', 'quiet@upi']) {
    t.equal((await soundbox(rig.client, 'merchant', 'stand-in', 'set', '--bank', 'bank', '--merchant', merchant, '--channel', 'sms', '--to', `+${PHONE}`, '--after', '20')).code, 0)
  }
  const byMail = ['--bank', 'bank', '--merchant', 'loud@upi', '--channel', 'email', '--to', 'a@b.example']
  t.match(await soundbox(rig.client, 'merchant', 'stand-in', 'set', ...byMail), { code: 1, err: { error: 'PROVIDER_CONFIG' } })
  await rig.trigger(bank, payment('LOUD-1', '19.00', 'loud@upi'))
  await rig.trigger(bank, payment('QUIET-1', '19.00', 'quiet@upi'))
  await box.hasSpoken(1)
  await eventually(() => rig.history('transactionId=LOUD-1'), ([row]) => row?.deliveries[0]?.state === 'spoken')
  const log = async (): Promise<Record<string, unknown>[]> => (await rig.client.call('GET', '/stand-ins'))['standIns'] as Record<string, unknown>[]
  t.match(await log(), [{ state: 'waiting' }, { state: 'waiting' }])
  t.equal(double.seen.length, 0, 'not yet')
  await rig.restart()
  rig.clock.advance(20_000)
  const stateOf = (rows: Record<string, unknown>[], id: string): unknown => rows.find(row => row['transactionId'] === id)?.['state']
  const rows = await eventually(log, all => all.every(row => row['state'] !== 'waiting' && row['state'] !== 'sending'))
  t.same([stateOf(rows, 'LOUD-1'), stateOf(rows, 'QUIET-1')], ['unneeded', 'sent'])
  t.notMatch(JSON.stringify(rows), PHONE)
  await rig.trigger(bank, payment('QUIET-1', '19.00', 'quiet@upi'))
  await rig.restart()
  rig.clock.advance(30_000)
  await rig.trigger(bank, payment('QUIET-2', '20.00', 'quiet@upi'))
  rig.clock.advance(20_000)
  await eventually(log, all => stateOf(all, 'QUIET-2') === 'sent')
  t.same(double.seen.map(({ body }) => JSON.parse(body) as object).map(body => (body as { message: string }).message.replace(/ at .*/, '')), ['Received INR 19.00', 'Received INR 20.00'],
    'each once, and nothing for the one that was heard')
  t.match(JSON.parse(double.seen[0]!.body), { recipients: [{ dest_addr: PHONE }], source_addr: 'SHOP' })
  await ask(rig, `/integration/inbound/beem?token=${SMS_HOOK}`, { body: { request_id: 'beem-2', dest_addr: PHONE, status: 'UNDELIVERED' } })
  t.match(await eventually(log, all => stateOf(all, 'QUIET-2') === 'failed'), [{ transactionId: 'QUIET-2', reason: 'not delivered' }, { transactionId: 'QUIET-1', state: 'sent' }, {}])
  t.equal((await soundbox(rig.client, 'merchant', 'stand-in', 'remove', '--bank', 'bank', '--merchant', 'quiet@upi')).code, 0)
  t.match((await rig.client.call('GET', '/merchants/stand-in'))['policies'], [{ merchant: 'loud@upi', to: '9100****0042', afterSeconds: 20 }])
})

t.test('a merchant is checked before he is mapped; webhooks are proven, kept once and acted on', async t => {
  const { rig, dir, tables } = await startWorld(t, { env: { SOUNDBOX_MERCHANT_CHECK: 'full' } })
  await rig.addBank()
  await rig.client.call('POST', '/devices', { tid: 'SB-0001', type: 'QS1' })
  const wallet = tables.wallets.find(row => row.walletStatus === 'ACTIVE')!
  const name = ['--bank', 'bank', '--merchant', 'Shop@upi']
  const map = (...more: string[]) => soundbox(rig.client, 'merchant', 'map', ...name, '--device', 'SB-0001', ...more)
  const owner = ['--mno', wallet.mno, '--msisdn', wallet.msisdn, '--name', wallet.registeredName]
  t.match(await map(), { code: 2, err: { error: 'INPUT_INVALID' } }, 'the settings ask for a check')
  t.match(await map('--name', 'Somebody Else', ...owner.slice(0, 4)), { code: 1, err: { error: 'MERCHANT_REFUSED', message: /reject.*name-differs/ } })
  t.match(await map(...owner), { code: 1, err: { error: 'MERCHANT_REFUSED', message: /wait.*identity-missing/ } })
  t.match(await soundbox(rig.client, 'merchant', 'identity', ...name), { code: 4 })
  const opened = await soundbox(rig.client, 'merchant', 'identify', ...name)
  t.match(opened.out, { merchant: 'shop@upi', status: 'NOT_STARTED', url: /^https:/ })

  const body = JSON.stringify({ event_id: 'e-1', webhook_type: 'status.updated', session_id: opened.out['session'], status: 'Approved', vendor_data: 'bank/shop@upi' })
  const hook = (text: string, more: { secret?: string, agoS?: number } = {}): Promise<Answer> => ask(rig, '/integration/inbound/didit', {
    body: text, headers: {
      'x-signature': createHmac('sha256', more.secret ?? DIDIT_HOOK).update(body).digest('hex'), 'x-timestamp': String(Math.floor(rig.clock.nowMs() / 1000) - (more.agoS ?? 0))
    }
  })
  for (const [answer, why] of [
    [await hook(body, { secret: 'wrong' }), 'another secret'], [await hook(`${body} `), 'other bytes'], [await hook(body, { agoS: 400 }), 'old'],
    [await ask(rig, '/integration/inbound/nobody', { body }), 'no such source'], [await ask(rig, '/integration/inbound/beem?token=wrong', { body: '{}' }), 'a wrong token']
  ] as const) t.match(answer, { status: 401, body: { error: 'UNAUTHORIZED' } }, why)
  t.same((await hook(body)).body, { received: 1, known: 0 })
  t.same((await hook(body)).body, { received: 1, known: 1 }, 'the same event again')
  await eventually(() => soundbox(rig.client, 'merchant', 'identity', ...name), ({ out }) => out['status'] === 'APPROVED')
  t.same((await ask(rig, `/integration/inbound/beem?token=${SMS_HOOK}`, { body: { request_id: 'beem-1', dest_addr: PHONE, status: 'DELIVERED' } })).body, { received: 1, known: 0 })
  t.match((await map(...owner)).out, { outcome: 'mapped', check: { verdict: 'approve', reasons: ['name-matches', 'identity-approved'] } })
  await rig.restart()
  t.same((await hook(body)).body, { received: 1, known: 1 }, 'and after a restart')
  const db = new Database(join(dir, 'soundbox.db'), { readonly: true })
  t.teardown(() => { db.close() })
  await eventually(() => db.prepare('SELECT source, state FROM inbound_event ORDER BY source').all(), rows => rows.every(row => (row as { state: string }).state === 'done'))
  t.equal(db.prepare('SELECT count(*) FROM inbound_event').pluck().get(), 2)
})

t.test('with an authenticator the operator token needs a code over HTTP, and the socket does not', async t => {
  const { rig, dir } = await startWorld(t)
  const token = readFileSync(join(dir, 'operator.token'), 'utf8').trim()
  const remote = (bearer: string) => openClient({ url: new URL(rig.url), token: bearer })
  const early = String((await soundbox(remote(token), 'sign-in')).out['token'])
  t.ok(await remote(early).call('GET', '/status'))
  const { out: { seed } } = await soundbox(rig.client, 'totp', 'enrol')
  const code = (): string => totpCode(base32(String(seed)), rig.clock.nowMs(), { issuer: 'Soundbox', digits: 6, periodS: 30, algorithm: 'SHA1' })
  t.match((await soundbox(rig.client, 'totp', 'confirm', code())).out, { guarded: true })
  await t.rejects(remote(early).call('GET', '/status'), { code: 'UNAUTHORIZED' }, 'a session that was opened without a code ends when codes are asked for')
  await rig.restart()
  await t.rejects(remote(token).call('GET', '/status'), { code: 'TOTP_INVALID' })
  t.ok(await rig.client.call('GET', '/status'), 'the unix socket stays as it is')
  rig.clock.advance(60_000)
  const session = await soundbox(remote(token), 'sign-in', code())
  t.match(session.out, { token: /^sbs_/ })
  t.ok(await remote(String(session.out['token'])).call('GET', '/status'))
  const auditor = String((await soundbox(rig.client, 'token', 'create', 'auditor', '--kind', 'operator', '--role', 'auditor')).out['token'])
  t.ok(await remote(auditor).call('GET', '/history'))
  await t.rejects(remote(auditor).call('GET', '/banks'), { code: 'FORBIDDEN' })
  await t.rejects(remote('wrong').call('GET', '/banks'), { code: 'UNAUTHORIZED' })
  t.match((await soundbox(rig.client, 'totp', 'disable')).out, { guarded: false })
  t.ok(await remote(token).call('GET', '/status'))
})

t.test('nothing that must stay secret is in the log or on the disk', async t => {
  let text = ''
  const stream = new Writable({ write (chunk: Buffer, _encoding, done) { text += chunk.toString('utf8'); done() } })
  const { rig, dir, double, tables } = await startWorld(t, { log: { log: pino({ level: 'debug', serializers: { err: describeError } }, stream) } })
  const bank = await rig.addBank()
  await rig.addBox('SB-0001')
  const { out: { token } } = await soundbox(rig.client, 'token', 'create', 'app', '--role', 'partner')
  const { out: { seed } } = await soundbox(rig.client, 'totp', 'enrol')
  await rig.client.call('PUT', '/merchants/stand-in', { bank: 'bank', merchant: 'shop@upi', channel: 'sms', to: `+${PHONE}`, afterSeconds: 3 })
  await rig.trigger(bank, payment('SECRET-1'))
  rig.clock.advance(3_000)
  await eventually(() => double.seen.length, count => count === 1)
  await ask(rig, '/integration/sms/send', { token: String(token), body: { to: [`+${PHONE}`], text: `card ${PAN}`, client_ref: 's-1' } })
  await ask(rig, '/integration/sms/send', { token: String(token), body: { to: [PAN.repeat(2)], text: PAN, client_ref: PAN.repeat(5) } })
  await ask(rig, '/integration/account/balance', { token: String(token), body: { account_no: PAN } })
  const { customers, accounts } = tables
  await ask(rig, '/integration/customer/search', { token: String(token), body: { by: 'account', value: accounts[0]!.accountNo } })
  await ask(rig, `/integration/inbound/beem?token=${SMS_HOOK}`, { body: { request_id: 'beem-1', dest_addr: PHONE, status: 'FAILED' } })
  await ask(rig, `/integration/inbound/beem?token=${SMS_HOOK}x`, { body: `{"pan":"${PAN}"` })
  await rig.client.call('POST', '/merchants/check', { bank: 'bank', merchant: 'shop@upi', check: { names: [customers[0]!.fullName], account: { accountNo: PAN, fspId: '016' } } }).catch(() => {})
  t.match((await soundbox(rig.client, 'audit', 'verify')).out, { rows: 5 })
  await eventually(() => text, all => all.includes('stand-in sent') && all.includes('SMS delivery reported'))
  await rig.gateway().close()

  const words = [PAN, PHONE, SMS_PASSWORD, SMS_HOOK, DIDIT_HOOK, String(token).slice(17), String(seed), base32(String(seed)).toString('latin1'), customers[0]!.fullName, accounts[0]!.accountNo]
  for (const word of words) t.notOk(text.includes(word), `the log has ${word.slice(0, 8)}…`)
  const files = readdirSync(dir, { withFileTypes: true }).filter(entry => entry.isFile()).map(entry => entry.name)
  t.ok(files.includes('soundbox.db'))
  for (const file of files) {
    const bytes = readFileSync(join(dir, file)).toString('latin1')
    for (const word of words) t.notOk(bytes.includes(word), `${file} has ${word.slice(0, 8)}…`)
  }
})

t.test('a gateway whose providers cannot be opened says so and does not start', async t => {
  for (const [env, code, message] of [
    [{ SOUNDBOX_REPORT_TO: 'ops@example.invalid' }, 'CONFIG_INVALID', /EMAIL_SMTP_HOST/], [{ CBS_API_TRANSPORT: 'iso8583' }, 'PROVIDER_CONFIG', /CBS_API_ISO_TARGET_FILE/]
  ] as const) await t.rejects(startRig(t, { env }), { code, message }, JSON.stringify(env))
})

/** RFC 4648, without padding. */
function base32 (text: string): Buffer {
  const bits = [...text].map(letter => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('')
  return Buffer.from(Array.from({ length: Math.floor(bits.length / 8) }, (_, index) => Number.parseInt(bits.slice(index * 8, index * 8 + 8), 2)))
}
