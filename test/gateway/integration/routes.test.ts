import { Readable } from 'node:stream'
import swagger from '@fastify/swagger'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { EMAIL_BODY_BYTES_MAX, BODY_BYTES_MAX, integrationRoutes, type IntegrationRouteDeps, REPORTS_PER_MINUTE } from '../../../gateway/http/integration-routes.js'
import { integrationAdminRoutes } from '../../../gateway/http/integration-admin-routes.js'
import { openAudit, type AuditRow } from '../../../gateway/integration/audit.js'
import type { CallRecord, CallStore } from '../../../gateway/integration/calls.js'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { BASE_PATH, INTEGRATION_PERMISSIONS, ROUTES, type Issuer, type ServiceName, SERVICES } from '../../../gateway/integration/contract.js'
import { type Integration, openIntegration } from '../../../gateway/integration/integration.js'
import type { Provider, Transport } from '../../../gateway/integration/provider.js'
import { openTokens, type Tokens } from '../../../gateway/integration/tokens.js'
import { type ErrorCode, SoundboxError } from '../../../protocol/index.js'
import { AUDIT_KEY, keepingLog, memoryAuditStore, TOY } from '../../support/integration-world.js'
import { type ManualClock, openManualClock, until } from '../../support/manual-clock.js'
import { openProviderDouble } from '../../support/provider-double.js'

type House = {
  app: FastifyInstance, integration: Integration, tokens: Tokens, clock: ManualClock, log: ReturnType<typeof keepingLog>, rows: AuditRow[],
    calls: { service: ServiceName, actor: string, traceId: string }[]
  /** What the transports do next: an error code, or the example of the contract. */
  next: { fault: ErrorCode | undefined, answer: unknown }
  flush: () => Promise<void>
}
type Test = { teardown: (close: () => Promise<void>) => void }

/** All issuers answered by a transport that gives the contract's own examples. */
async function openHouse (t: Test, more: { env?: Record<string, string>, report?: IntegrationRouteDeps['report'], http?: Provider<'cbs'> } = {}): Promise<House> {
  const clock = openManualClock()
  const log = keepingLog()
  const store = memoryAuditStore()
  const audit = await openAudit({ store, key: AUDIT_KEY, clock, log })
  const next: House['next'] = { fault: undefined, answer: undefined }
  const calls: House['calls'] = []
  const simulated = (issuer: Issuer): Transport => ({
    kind: 'simulated', name: `fake-${issuer}`, has: service => SERVICES[service].issuer === issuer, close: async () => {},
    call: async (service, _input, ctx) => {
      calls.push({ service, actor: ctx.actor, traceId: ctx.traceId })
      if (next.fault !== undefined) throw new SoundboxError(next.fault, 'as the test says')
      return (next.answer ?? SERVICES[service].example.response) as never
    }
  })
  const on = Object.fromEntries(['CBS_API', 'BILL_API', 'SMS_API', 'EMAIL_SMTP', 'FIREBASE_FCM', 'DIDIT_API'].map(prefix => [`${prefix}_SIMULATE`, 'true']))
  let ids = 0
  const makeTraceId = (): string => String(++ids).padStart(32, '0')
  const integration = openIntegration({
    settings: parseIntegrationConfig({ SOUNDBOX_ENV: 'test', ...on, ...more.env }, () => ''),
    factories: { http: () => (more.http ?? TOY) as never, simulated, smtp: () => { throw new Error('not asked for') }, iso8583: undefined },
    audit, calls: memoryCalls(), sealKey: Buffer.alloc(32, 1), clock, random: () => 0.5, makeTraceId, makeReference: () => `ref${++ids}`, log
  })
  const tokens = await openTokens({ store: { loadTokens: async () => [], saveToken: async () => {}, touchTokens: async () => {} }, key: Buffer.alloc(32, 2), nowMs: clock.nowMs })
  const app = Fastify({ bodyLimit: 1024 }) as unknown as FastifyInstance
  await app.register(swagger, { openapi: { info: { title: 't', version: '1' } } })
  await app.register(async scope => { await integrationAdminRoutes(scope, { tokens, audit: store, auditKey: AUDIT_KEY, integration }) }, { prefix: '/admin' })
  await app.register(async scope => { await integrationRoutes(scope, { services: integration, tokens, report: more.report, makeTraceId, nowMs: clock.nowMs, log }) })
  t.teardown(async () => {
    await app.close()
    await integration.close()
    await audit.close()
  })
  return { app, integration, tokens, clock, log, rows: store.rows, calls, next, flush: audit.flush }
}

function memoryCalls (): CallStore {
  const records = new Map<string, CallRecord>()
  return {
    begin: async record => {
      const known = records.get(record.key)
      if (known === undefined) records.set(record.key, record)
      return known
    },
    restart: async record => { records.set(record.key, record); return true },
    finish: async (key, change) => { records.set(key, { ...records.get(key)!, ...change }) },
    due: async () => [], purge: async () => 0
  }
}

async function post (app: FastifyInstance, path: string, token: string | undefined, payload: unknown, headers: Record<string, string> = {}): Promise<{ status: number,
  body: Record<string, unknown>, headers: Record<string, unknown> }> {
  const response = await app.inject({
    method: 'POST', url: `${BASE_PATH}${path}`, payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
    headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers }
  })
  return { status: response.statusCode, body: response.json(), headers: response.headers }
}

t.test('permission matrix: every route with every kind of token', async t => {
  const house = await openHouse(t)
  const { app, tokens, clock } = house
  const issue = async (permissions: readonly string[]): Promise<string> => (await tokens.issue({ kind: 'partner', name: 'x', lifeDays: 2, permissions })).token
  const expired = (await tokens.issue({ kind: 'partner', name: 'old', lifeDays: 1, role: 'admin' })).token
  clock.advance(86_400_000)
  const revoked = (await tokens.issue({ kind: 'partner', name: 'gone', lifeDays: 1, role: 'admin' })).token
  await tokens.revoke(revoked.split('_')[1]!)
  const single = new Map(await Promise.all(INTEGRATION_PERMISSIONS.map(async permission => [permission, await issue([permission])] as const)))
  const kinds: [string, string | undefined, (permission: string) => number][] = [
    ['none', undefined, () => 401], ['nonsense', 'nonsense', () => 401], ['expired', expired, () => 401], ['revoked', revoked, () => 401],
    ['no permission', await issue([]), () => 403], ['operator permissions only', await issue(['fleet_read', 'token_manage', 'audit_read']), () => 403],
    ['all thirteen', await issue(INTEGRATION_PERMISSIONS), () => 200],
      ['admin', (await tokens.issue({ kind: 'operator', name: 'a', lifeDays: 1, role: 'admin' })).token, () => 200],
    ...[...single].map(([own, token]): [string, string, (permission: string) => number] => [own, token, permission => (permission === own ? 200 : 403)])
  ]
  const unauthorized = new Set<string>()
  for (const [index, route] of ROUTES.entries()) {
    clock.advance(60_000) // The failures below must not become 429.
    const example = SERVICES[route.service].example
    for (const [kind, token, want] of kinds) {
      const request = 'client_ref' in example.request ? { ...example.request, client_ref: `${kind.replaceAll(' ', '-')}-${index}` } : example.request
      const before = house.calls.length
      const { status, body, headers } = await post(app, route.path, token, request)
      t.equal(status, want(route.permission), `${route.path} with ${kind}`)
      t.equal(house.calls.length - before, status === 200 ? 1 : 0, 'and the provider was asked only then')
      if (status === 200) t.same(body, { status: 'success', trace_id: headers['x-trace-id'], data: example.response })
      if (status === 401) unauthorized.add(JSON.stringify({ ...body, trace_id: '', authenticate: headers['www-authenticate'] }))
      if (status === 403) t.match(body, { status: 'failed', error: 'FORBIDDEN', message: `permission ${route.permission} is missing` })
    }
  }
  t.equal(unauthorized.size, 1, 'all refusals look the same')
  t.match([...unauthorized][0], /"error":"UNAUTHORIZED".*"authenticate":"Bearer"/)
})

t.test('no route but these exists, and a token cannot reach the services that have none', async t => {
  const { app, integration, tokens } = await openHouse(t)
  const { token } = await tokens.issue({ kind: 'operator', name: 'a', lifeDays: 1, role: 'admin' })
  for (const path of ['/push/send', '/kyc/session', '/customer/search/']) t.equal((await app.inject({ method: 'POST', url: `${BASE_PATH}${path}`,
    headers: { authorization: `Bearer ${token}` } })).statusCode, 404, path)
  const caller = { id: 't', permissions: new Set(INTEGRATION_PERMISSIONS) }
  await t.rejects(integration.forRequest({ caller }).call('send_push_message', SERVICES.send_push_message.example.request), { code: 'FORBIDDEN' })
  const job = integration.forBackground('stand-in')
  t.match(await job.call('send_push_message', SERVICES.send_push_message.example.request), { token_state: 'LIVE' })
  t.not(integration.forBackground('stand-in').traceId, job.traceId, 'each job has a trace of its own')
})

t.test('refusals come before the body is read, and wrong bodies are named without their values', async t => {
  const house = await openHouse(t)
  const { app, tokens } = house
  const { token } = await tokens.issue({ kind: 'partner', name: 'x', lifeDays: 1, role: 'partner' })
  const huge = JSON.stringify({ by: 'cif', value: 'x'.repeat(BODY_BYTES_MAX) })
  t.equal((await post(app, '/customer/search', undefined, huge)).status, 401)
  t.match(await post(app, '/customer/search', token, huge), { status: 413, body: { error: 'BODY_TOO_LARGE' } })
  const fitting = JSON.stringify({ by: 'cif', value: '1' }).padEnd(BODY_BYTES_MAX, ' ')
  t.equal((await post(app, '/customer/search', token, fitting)).status, 200, 'at the limit')
  t.equal((await post(app, '/customer/search', token, `${fitting} `)).status, 413, 'one byte more')
  const mail = (length: number): string => JSON.stringify({ ...SERVICES.send_email_message.example.request, client_ref: `m${length}` }).padEnd(length, ' ')
  t.equal((await post(app, '/email/send', token, mail(EMAIL_BODY_BYTES_MAX))).status, 200, 'an e-mail may be longer')
  t.equal((await post(app, '/email/send', token, mail(EMAIL_BODY_BYTES_MAX + 1))).status, 413)
  t.match(await post(app, '/customer/search', token, '{"by":'), { status: 400, body: { error: 'INPUT_INVALID', message: /JSON/ } })
  t.match(await post(app, '/customer/search', token, 'by=cif', { 'content-type': 'application/x-www-form-urlencoded' }), { status: 400, body: { error: 'INPUT_INVALID' } })
  t.match(await post(app, '/customer/search', token, { by: 'cif', value: 7 }), { status: 400, body: { error: 'INPUT_INVALID', message: /\/value/ } },
    'a number is not turned into text')
  t.match(await post(app, '/customer/search', token, { by: 'cif', value: 'x', admin: true }), { status: 400 }, 'an unknown key is not dropped')
  const secret = await post(app, '/account/details', token, { account_no: 'SECRET VALUE' })
  t.equal(secret.status, 400)
  t.notMatch(JSON.stringify(secret.body), /SECRET/)
  t.same(Object.keys(secret.body), ['status', 'error', 'message', 'remedy', 'trace_id'])
})

t.test('every fault of a provider has its HTTP status; a broken answer is never passed on', async t => {
  const house = await openHouse(t)
  const { token } = await house.tokens.issue({ kind: 'partner', name: 'x', lifeDays: 1, role: 'partner' })
  const faults: [ErrorCode, number, string | undefined][] = [
    ['PROVIDER_REJECTED', 422, undefined], ['PROVIDER_TIMEOUT', 504, undefined], ['PROVIDER_UNAVAILABLE', 502, undefined], ['PROVIDER_BUSY', 503, '1'],
      ['PROVIDER_CONFIG', 500, undefined],
    ['PROVIDER_AUTH_MISSING', 500, undefined], ['PROVIDER_RESPONSE_INVALID', 502, undefined], ['PROVIDER_STATE_UNKNOWN', 502, undefined], ['OVERLOADED', 503, '1'],
      ['STORE_FAILED', 400, undefined]
  ]
  for (const [code, status, retryAfter] of faults) {
    house.next.fault = code
    const answer = await post(house.app, '/account/balance', token, SERVICES.account_balance_cbs.example.request)
    t.match(answer, { status, body: { status: 'failed', error: code } })
    t.equal(answer.headers['retry-after'], retryAfter, code)
  }
  house.next.fault = undefined
  house.next.answer = { account_no: '0150245000100', secret: 'x' }
  t.match(await post(house.app, '/account/balance', token, SERVICES.account_balance_cbs.example.request), { status: 502, body: { error: 'PROVIDER_RESPONSE_INVALID' } })
  t.match(await post(house.app, '/sms/send', token, SERVICES.send_sms_message.example.request), { status: 502, body: { error: 'PROVIDER_STATE_UNKNOWN' } },
    'after a change the state is unknown')
  house.next.answer = undefined
  t.match(await post(house.app, '/sms/send', token, SERVICES.send_sms_message.example.request), { status: 502, body: { error: 'PROVIDER_STATE_UNKNOWN' } },
    'and the same client_ref is not sent again')
  await house.flush()
  t.equal(house.rows.filter(row => row.service === 'send_sms_message').length, 1)
  t.ok(house.rows.every(row => row.outcome !== 'ok' && row.method === 'SIMULATED' && row.attempt === 1))
})

t.test('rate limits answer 429 with the seconds to wait; the trace of the caller is kept', async t => {
  const house = await openHouse(t)
  const { token } = await house.tokens.issue({ kind: 'partner', name: 'x', lifeDays: 1, role: 'partner', ratePerMinute: 1 })
  const trace = '4bf92f3577b34da6a3ce929d0e0e4736'
  const first = await post(house.app, '/account/balance', token, SERVICES.account_balance_cbs.example.request, { traceparent: `00-${trace}-00f067aa0ba902b7-01` })
  t.match(first, { status: 200, body: { trace_id: trace }, headers: { 'x-trace-id': trace } })
  t.match(house.calls.at(-1), { traceId: trace, actor: token.split('_')[1] })
  t.match(await post(house.app, '/account/balance', token, {}), { status: 429, body: { error: 'RATE_LIMITED' }, headers: { 'retry-after': '60' } })
})

t.test('the report streams, one at a time, and only while the simulator is on', async t => {
  const off = await openHouse(t)
  const get = async (app: FastifyInstance, query = ''): Promise<{ statusCode: number, headers: Record<string, unknown>,
    body: string }> => await app.inject({ method: 'GET', url: `${BASE_PATH}/simulator/download${query}` })
  t.equal((await get(off.app)).statusCode, 404)
  let release = (): void => {}
  const queries: object[] = []
  const house = await openHouse(t, {
    report: async query => {
      queries.push(query)
      if (query.format === 'pdf') throw new SoundboxError('INPUT_INVALID', 'format must be csv or xlsx')
      if (query.table === 'slow') await new Promise<void>(resolve => { release = resolve })
      return { fileName: 'report.csv', contentType: 'text/csv; charset=utf-8', stream: Readable.from(['a,b\r\n', '1,2\r\n']) }
    }
  })
  const report = await get(house.app, '?format=csv&table=accounts')
  t.match(report, { statusCode: 200, body: 'a,b\r\n1,2\r\n', headers: { 'content-disposition': 'attachment; filename="report.csv"', 'content-type': 'text/csv; charset=utf-8' } })
  t.same(queries, [{ format: 'csv', table: 'accounts' }])
  t.equal((await get(house.app, '?format=pdf')).statusCode, 400)
  const slow = get(house.app, '?table=slow')
  await until(() => queries.length === 3, 'the slow report')
  t.match(await get(house.app), { statusCode: 503, headers: { 'retry-after': '5' } })
  release()
  t.equal((await slow).statusCode, 200)
  for (let count = 3; count < REPORTS_PER_MINUTE; count++) t.equal((await get(house.app)).statusCode, 200)
  t.equal((await get(house.app)).statusCode, 429)
  house.clock.advance(60_000 / REPORTS_PER_MINUTE)
  t.equal((await get(house.app)).statusCode, 200)
})

t.test('OpenAPI shows every route with its permission and examples that keep the contract', async t => {
  const { app } = await openHouse(t)
  await app.ready()
  const document = app.swagger() as unknown as { paths: Record<string, Record<string,
    { description: string, requestBody?: { content: Record<string, { schema: { examples?: unknown[] } }> }, responses: Record<string, object> }>> }
  for (const route of ROUTES) {
    const operation = document.paths[`${BASE_PATH}${route.path}`]?.['post']
    t.match(operation?.description, new RegExp(route.permission), route.path)
    t.same(Object.keys(operation?.responses ?? {}), ['200', '400', '401', '403', '422', '429', '502', '503', '504'])
    t.match(JSON.stringify(operation?.requestBody), JSON.stringify(SERVICES[route.service].example.request).slice(1, 20))
  }
  t.ok(document.paths[`${BASE_PATH}/simulator/download`]?.['get'])
})

t.test('operators issue, list and end tokens, read the trail and have it walked', async t => {
  const house = await openHouse(t)
  const admin = async (method: 'GET' | 'POST' | 'DELETE', url: string, payload?: object): Promise<{ status: number, body: never }> => {
    const response = await house.app.inject({ method, url: `/admin${url}`, ...(payload === undefined ? {} : { payload }) })
    return { status: response.statusCode, body: (response.body === '' ? null : response.json()) as never }
  }
  const issued = await admin('POST', '/tokens', { kind: 'partner', name: 'shop app', lifeDays: 30, permissions: ['account_balance'] }) as { status: number,
    body: { token: string, id: string } }
  t.equal(issued.status, 201)
  t.equal((await post(house.app, '/account/balance', issued.body.token, SERVICES.account_balance_cbs.example.request)).status, 200)
  t.match((await admin('GET', '/tokens')).body, { tokens: [{ id: issued.body.id, name: 'shop app', lastUsedAt: house.clock.nowMs() }] })
  t.notMatch(JSON.stringify((await admin('GET', '/tokens')).body), /hash/)
  t.equal((await admin('DELETE', `/tokens/${issued.body.id}`)).status, 204)
  t.equal((await post(house.app, '/account/balance', issued.body.token, {})).status, 401)
  t.equal((await admin('DELETE', '/tokens/nobody')).status, 404)
  t.equal((await admin('POST', '/tokens', { kind: 'partner', name: 'x', lifeDays: 731, role: 'admin' })).status, 400)
  await house.flush()
  t.match((await admin('GET', '/audit?limit=1')).body, { rows: [{ seq: 1, actor: issued.body.id, service: 'account_balance_cbs' }], next: 1 })
  t.match((await admin('POST', '/audit/verify', {})).body, { rows: 1, head: { seq: 1 } })
  house.rows[0] = { ...house.rows[0]!, actor: 'somebody else' }
  t.equal((await admin('POST', '/audit/verify', {})).status, 500)
  t.match((await admin('GET', '/integration')).body, { issuers: [{ issuer: 'cbs', kind: 'simulated', active: 0 }, {}, {}, {}, {}, {}], configured: { kyc: { name: 'fake-kyc' } } })
})

t.test('an issuer is configured by its settings alone, and an unconfigured one says so', async t => {
  const double = await openProviderDouble({ '/balance': [{ do: 'answer', json: { code: 600, balance: '19.00' } }] })
  t.teardown(double.close)
  const house = await openHouse(t, { env: { CBS_API_SIMULATE: 'false', CBS_API_PROVIDER: 'toy', CBS_API_URL: double.url, BILL_API_SIMULATE: 'false',
    EMAIL_SMTP_SIMULATE: 'false', CBS_API_TYPO: 'x' } })
  t.match(house.integration.transports(), { cbs: { kind: 'http', name: 'toy' }, bill: undefined, email: undefined, sms: { kind: 'simulated' } })
  t.match(house.log.lines.find(line => line.level === 'warn'), { fields: { variables: ['CBS_API_TYPO'] } })
  const { token } = await house.tokens.issue({ kind: 'partner', name: 'x', lifeDays: 1, role: 'partner' })
  t.match(await post(house.app, '/account/balance', token, { account_no: '0150245000100' }), { status: 200, body: { data: { ledger: '19.00' } } })
  t.match(await post(house.app, '/biller/category', token, {}), { status: 500, body: { error: 'PROVIDER_CONFIG', message: 'issuer bill is not configured' } })
  t.match(await post(house.app, '/customer/search', token, { by: 'cif', value: '1' }),
    { status: 500, body: { error: 'PROVIDER_CONFIG', message: 'toy does not offer customer_search_cbs' } })
  t.throws(() => openIntegration({ settings: parseIntegrationConfig({ CBS_API_TRANSPORT: 'iso8583' }, () => ''), factories: { iso8583: undefined }, log: house.log,
    clock: house.clock } as never), { code: 'PROVIDER_CONFIG' })
})
