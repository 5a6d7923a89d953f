// Providers through the real client and policy, against an HTTP server on loopback that keeps what it got.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { importSPKI, jwtVerify } from 'jose'
import t from 'tap'
import { SILENT_LOG } from '../../../protocol/index.js'
import type { AuditEntry } from '../../../gateway/integration/audit.js'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import type { Issuer, ServiceName, ServiceRequest, ServiceResponse } from '../../../gateway/integration/contract.js'
import { openClock } from '../../../gateway/integration/figures.js'
import { httpTransport } from '../../../gateway/integration/http-transport.js'
import { openPolicy } from '../../../gateway/integration/policy.js'
import { serviceAccountFromJson } from '../../../gateway/integration/providers/push-fcm.js'
import { findProvider } from '../../../gateway/integration/providers/registry.js'

type Seen = { method: string, path: string, headers: IncomingHttpHeaders, body: string }
type Answer = { status: number, json?: unknown, text?: string, headers?: Record<string, string> }
type Test = { teardown: (work: () => unknown) => void }

/** A server that answers by `serve`. */
async function openDouble (t: Test, serve: (request: Seen) => Answer): Promise<{ url: string, seen: Seen[] }> {
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const got = { method: request.method ?? '', path: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString('utf8') }
      seen.push(got)
      const { status, json, text, headers } = serve(got)
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(text ?? (json === undefined ? '' : JSON.stringify(json)))
    })
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen }
}

/** The issuer's transport under these settings, a clock that the test moves, and the audit rows that were written. */
function openIssuer<I extends Exclude<Issuer, 'email'>> (t: Test, issuer: I, name: string, env: Record<string, string>) {
  const settings = parseIntegrationConfig({ SOUNDBOX_ENV: 'test', ...env }, () => { throw new Error('no files') })
  const time = { nowMs: 1_767_604_500_000 }
  const clock = openClock(() => time.nowMs)
  const rows: AuditEntry[] = []
  const policy = openPolicy({
    issuer, limits: settings[issuer].limits, clock, random: () => 0, log: SILENT_LOG, audit: { record: entry => { rows.push(entry) }, assertRoom: () => {} }
  })
  const makeReference = (): string => randomUUID().replaceAll('-', '')
  const config = issuer === 'push' ? { ...settings.push, secrets: { service_account: settings.push.serviceAccount!, ...settings.push.secrets } }
    : issuer === 'kyc' ? { ...settings.kyc, params: { workflow_id: 'wf-1' } } : settings[issuer]
  const transport = httpTransport(findProvider(issuer, name), config, { run: policy.run, clock, nonce: makeReference, log: SILENT_LOG, makeTraceId: makeReference, makeReference })
  t.teardown(async () => await transport.close())
  const call = async <S extends ServiceName>(service: S, input: ServiceRequest<S>): Promise<ServiceResponse<S>> =>
    await transport.call(service, input, { traceId: makeReference(), actor: 'test', background: true, reference: makeReference(), service })
  return { call, rows, time }
}

const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const PUSH = { token: 'fcm-token-0001', title: 'Payment received', body: '1,900.00', client_ref: 'n-1' }

function pushEnv (url: string): Record<string, string> {
  const account = {
    type: 'service_account', project_id: 'demo', private_key_id: 'key-7', client_email: 'push@demo.invalid', token_uri: `${url}/token`,
    private_key: privateKey.export({ type: 'pkcs8', format: 'pem' })
  }
  return {
    FIREBASE_FCM_URL: url, FIREBASE_FCM_SERVICE_ACCOUNT: JSON.stringify(account),
    FIREBASE_FCM_URI_MAP: JSON.stringify({ token: { method: 'POST', path: '/token', idempotent: true, auth: 'none' } })
  }
}

t.test('FCM: a signed assertion becomes an access token, which is kept until shortly before its end', async t => {
  let issued = 0
  const double = await openDouble(t, request => request.path === '/token'
    ? { status: 200, json: { access_token: `ya29.${++issued}`, expires_in: 3600, token_type: 'Bearer' } }
    : { status: 200, json: { name: 'projects/demo/messages/0:1' } })
  const push = openIssuer(t, 'push', 'fcm', pushEnv(double.url))
  await Promise.all([push.call('send_push_message', PUSH), push.call('send_push_message', { ...PUSH, client_ref: 'n-2' }), push.call('send_push_message', { ...PUSH, client_ref: 'n-3' })])
  t.equal(issued, 1, 'three calls at once share one token')
  const form = new URLSearchParams(double.seen[0]!.body)
  t.equal(form.get('grant_type'), 'urn:ietf:params:oauth:grant-type:jwt-bearer')
  const key = await importSPKI(publicKey.export({ type: 'spki', format: 'pem' }) as string, 'RS256')
  const { payload, protectedHeader } = await jwtVerify(form.get('assertion') ?? '', key, {
    issuer: 'push@demo.invalid', audience: `${double.url}/token`, currentDate: new Date(push.time.nowMs), algorithms: ['RS256']
  })
  t.equal(payload['scope'], 'https://www.googleapis.com/auth/firebase.messaging')
  t.equal(payload.exp! - payload.iat!, 3600)
  t.equal(protectedHeader.kid, 'key-7')
  const sent = double.seen.filter(request => request.path === '/v1/projects/demo/messages:send')
  t.equal(sent.length, 3)
  t.equal(sent[0]!.headers['authorization'], 'Bearer ya29.1')
  push.time.nowMs += 3_299_999
  await push.call('send_push_message', { ...PUSH, client_ref: 'n-4' })
  t.equal(issued, 1, 'five minutes and a moment before its end the token still serves')
  push.time.nowMs += 1
  await push.call('send_push_message', { ...PUSH, client_ref: 'n-5' })
  t.equal(issued, 2)
  t.notMatch(JSON.stringify(push.rows), /ya29|fcm-token|Payment received|1,900|eyJ/, 'the audit rows hold neither tokens nor texts')
})

t.test('FCM: an app that is gone is an answer, a refused token is fetched anew, a busy service is asked again', async t => {
  const script: Answer[] = [
    { status: 404, json: { error: { code: 404, status: 'NOT_FOUND', details: [{ errorCode: 'UNREGISTERED' }] } } },
    { status: 401, json: { error: { code: 401, status: 'UNAUTHENTICATED' } } },
    { status: 429, json: {}, headers: { 'retry-after': '0' } },
    { status: 200, json: { name: 'projects/demo/messages/0:2' } },
    { status: 400, json: { error: { code: 400, status: 'INVALID_ARGUMENT', message: 'token fcm-token-0001 is bad' } } },
    { status: 500, json: {} }
  ]
  let issued = 0
  const double = await openDouble(t, request => request.path === '/token' ? { status: 200, json: { access_token: `t${++issued}`, expires_in: 3600 } } : script.shift()!)
  const push = openIssuer(t, 'push', 'fcm', pushEnv(double.url))
  t.same(await push.call('send_push_message', PUSH), { client_ref: 'n-1', message_id: null, token_state: 'GONE' })
  await t.rejects(push.call('send_push_message', PUSH), { code: 'PROVIDER_CONFIG' })
  t.equal((await push.call('send_push_message', PUSH)).message_id, 'projects/demo/messages/0:2')
  t.equal(issued, 2, 'the token that was refused is not used again')
  await t.rejects(push.call('send_push_message', PUSH), { code: 'PROVIDER_REJECTED', message: /INVALID_ARGUMENT/ })
  await t.rejects(push.call('send_push_message', PUSH), { code: 'PROVIDER_STATE_UNKNOWN' }, 'a 500 may have sent it: it is not repeated')
  t.equal(script.length, 0)
})

t.test('FCM: a token endpoint that says no sends nothing', async t => {
  const double = await openDouble(t, () => ({ status: 400, json: { error: 'invalid_grant', error_description: 'secret words' } }))
  const push = openIssuer(t, 'push', 'fcm', pushEnv(double.url))
  await t.rejects(push.call('send_push_message', PUSH), { code: 'PROVIDER_REJECTED', message: /token/ })
  t.same(double.seen.map(request => request.path), ['/token'])
  await t.rejects(push.call('send_push_message', PUSH), { code: 'PROVIDER_REJECTED' })
  t.equal(double.seen.length, 2, 'a failure is not remembered')
})

t.test('FCM: a service account that cannot be used is a setting to correct', async t => {
  t.throws(() => serviceAccountFromJson('{'), { code: 'PROVIDER_CONFIG' })
  t.throws(() => serviceAccountFromJson('[]'), { code: 'PROVIDER_CONFIG' })
  t.throws(() => serviceAccountFromJson('null'), { code: 'PROVIDER_CONFIG' })
  t.throws(() => serviceAccountFromJson('{"client_email":"a@b.invalid"}'), { code: 'PROVIDER_CONFIG' })
  const double = await openDouble(t, () => ({ status: 200, json: {} }))
  const env = pushEnv(double.url)
  env['FIREBASE_FCM_SERVICE_ACCOUNT'] = JSON.stringify({ project_id: 'demo', client_email: 'a@b.invalid', private_key: 'not a key' })
  const push = openIssuer(t, 'push', 'fcm', env)
  await t.rejects(push.call('send_push_message', PUSH), { code: 'PROVIDER_CONFIG', message: /private key/ })
  t.equal(double.seen.length, 0)
})

t.test('Didit: a session is opened and its decision fetched, with the key in its header', async t => {
  const id = '11111111-2222-3333-4444-555555555555'
  const double = await openDouble(t, request => request.method === 'POST'
    ? { status: 201, json: { session_id: id, session_token: 'hidden', url: 'https://verify.example/session/hidden', status: 'Not Started' } }
    : { status: 200, json: { session_id: id, status: 'Approved', vendor_data: 'merchant-17', id_verifications: [{ full_name: 'NOT KEPT' }] } })
  const kyc = openIssuer(t, 'kyc', 'didit', { DIDIT_API_URL: double.url, DIDIT_API_KEY: 'key-1' })
  t.equal((await kyc.call('start_session_kyc', { vendor_data: 'merchant-17', client_ref: 'k-17' })).session_id, id)
  t.equal((await kyc.call('fetch_decision_kyc', { session_id: id })).status, 'APPROVED')
  t.same(double.seen.map(({ method, path }) => `${method} ${path}`), ['POST /v3/session/', `GET /v3/session/${id}/decision/`])
  t.same(double.seen.map(({ headers }) => headers['x-api-key']), ['key-1', 'key-1'])
  t.notMatch(JSON.stringify(kyc.rows), /hidden|NOT KEPT|key-1/)
})

t.test('Didit: without a key nothing leaves; a lost session is of unknown state, a lost decision is asked again', async t => {
  const script: Answer[] = [{ status: 500 }, { status: 503 }, { status: 200, json: { session_id: 's-1', status: 'Declined' } }]
  const double = await openDouble(t, () => script.shift()!)
  const keyless = openIssuer(t, 'kyc', 'didit', { DIDIT_API_URL: double.url, DIDIT_API_PROVIDER: 'didit' })
  await t.rejects(keyless.call('fetch_decision_kyc', { session_id: 's-1' }), { code: 'PROVIDER_AUTH_MISSING' })
  t.equal(double.seen.length, 0)
  t.equal(keyless.rows.length, 1, 'what was not sent is on record as well')
  const kyc = openIssuer(t, 'kyc', 'didit', { DIDIT_API_URL: double.url, DIDIT_API_KEY: 'key-1' })
  await t.rejects(kyc.call('start_session_kyc', { vendor_data: 'm', client_ref: 'k' }), { code: 'PROVIDER_STATE_UNKNOWN' })
  t.equal((await kyc.call('fetch_decision_kyc', { session_id: 's-1' })).status, 'DECLINED')
})

t.test('SMS: forms, Basic authentication and refusals with HTTP 200 travel through the client', async t => {
  const double = await openDouble(t, request => request.path === '/v1/send'
    ? { status: 200, json: { code: 102, message: 'Insufficient balance for 255000000001' } }
    : { status: 201, json: { SMSMessageData: { Recipients: [{ statusCode: 101, number: '+255000000001', messageId: 'ATXid_1', cost: 'TZS 22.0000' }] } } })
  const message = { to: ['+255000000001'], text: 'Received TZS 1,900.00 & more', client_ref: 'n-1' }
  const beem = openIssuer(t, 'sms', 'beem', { SMS_API_URL: double.url, SMS_API_USER: 'key', SMS_API_PASSWORD: 'secret', SMS_API_PARAM_SENDER_ID: 'SHOP' })
  await t.rejects(beem.call('send_sms_message', message), { code: 'PROVIDER_REJECTED', message: /102.*balance is used up/ })
  t.equal(double.seen[0]!.headers['authorization'], `Basic ${Buffer.from('key:secret').toString('base64')}`)
  const at = openIssuer(t, 'sms', 'africastalking', { SMS_API_URL: double.url, SMS_API_HEADER_APIKEY: 'k', SMS_API_PARAM_USERNAME: 'soundbox' })
  t.equal((await at.call('send_sms_message', message)).provider_id, 'ATXid_1')
  t.equal(double.seen[1]!.headers['content-type'], 'application/x-www-form-urlencoded')
  t.equal(new URLSearchParams(double.seen[1]!.body).get('message'), message.text)
  t.equal(double.seen[1]!.headers['apikey'], 'k')
  t.notMatch(JSON.stringify([...beem.rows, ...at.rows]), /255000000001|1,900|secret/)
})

t.test('a generic bank speaks XML when the settings say so, and leading zeros live', async t => {
  const data = '<accountNumber>010200000101</accountNumber><currency>TZS</currency><ledger>019.00</ledger><available>19.00</available><asOf>2026-01-05T09:15:00Z</asOf>'
  const xml = `<response><code>00</code><data>${data}</data></response>`
  const { url, seen } = await openDouble(t, () => ({ status: 200, text: xml, headers: { 'content-type': 'application/xml' } }))
  const cbs = openIssuer(t, 'cbs', 'rest', { CBS_API_URL: url, CBS_API_PROVIDER: 'rest', CBS_API_HEADER_AUTHORIZATION: 'Bearer x', CBS_API_PARAM_FORMAT: 'xml' })
  const balance = await cbs.call('account_balance_cbs', { account_no: '010200000101' })
  t.equal(balance.account_no, '010200000101')
  t.equal(balance.ledger, '019.00')
  t.match(seen[0]!.body, /<request><accountNumber>010200000101<\/accountNumber>/)
})
