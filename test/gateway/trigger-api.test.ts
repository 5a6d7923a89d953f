// The bank trigger API over HTTP: the exact status and body of every row of its contract, on a whole gateway.
import { connect, type Socket } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { type CipherProfile, ERRORS, openEnvelopeText, parseKey, sealEnvelope, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { prepareTrigger } from '../../gateway/cli/bank-client.js'
import { type HttpDeps, openHttpServer } from '../../gateway/http/server.js'
import { BODY_BYTES_MAX, triggerRoutes, TRIGGERS_IN_FLIGHT_MAX } from '../../gateway/http/trigger-routes.js'
import type { BankSecrets, Directory } from '../../gateway/store/directory.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { openRateLimit } from '../../gateway/trigger/rate.js'
import { CREDENTIAL_FAULTS_PER_SECOND } from '../../gateway/trigger/handle-trigger.js'
import { aBank, handClock, memoryStore, settled } from '../support/heart-fakes.js'
import { openRandom, seedsOf } from '../support/random.js'
import { payment, type Rig, startRig } from '../support/rig.js'

type Reply = { status: number, body: string, headers: Headers }
type Sent = { path?: string, headers?: Record<string, string>, body?: string, method?: string }

/** Posts what a bank would, with what the test changes. */
async function post (rig: Rig, bank: BankSecrets, columns: Record<string, unknown>, change: Sent = {}): Promise<Reply> {
  const { url, headers, body } = prepareTrigger({ url: rig.url, bank, columns: columns as Record<string, string>, nowMs: rig.clock.nowMs() })
  const method = change.method ?? 'POST'
  const response = await fetch(change.path === undefined ? url : `${rig.url}${change.path}`, {
    method, headers: { ...headers, ...change.headers }, ...(method === 'POST' || method === 'PUT' ? { body: change.body ?? body } : {})
  })
  return { status: response.status, body: await response.text(), headers: response.headers }
}

function opened (bank: BankSecrets, reply: Reply): Record<string, unknown> {
  const { ResponseData } = JSON.parse(reply.body) as { ResponseData: string }
  const text = openEnvelopeText({ profile: bank.profile as Exclude<CipherProfile, 'none'>, key: parseKey(bank.payloadKey) ?? Buffer.alloc(0), passKey: bank.passKey }, ResponseData)
  return JSON.parse(text ?? 'null') as Record<string, unknown>
}

function without (record: Record<string, string>, ...names: string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.includes(name)))
}

function sealedBy (bank: BankSecrets, text: string): string {
  return sealEnvelope({ profile: 'aes-256-cbc', key: parseKey(bank.payloadKey) ?? Buffer.alloc(0), passKey: bank.passKey }, text)
}

function isMandatory (path: string): object {
  return { type: 'field', msg: `${path} is mandatory`, path, location: 'body' }
}

const refused = (statusDesc: string): string => JSON.stringify({ status: -1, statusDesc })
const failed = (statusDesc: string): string => JSON.stringify({ status: '1', message: 'fail', statusDesc, data: null })
const CREDENTIALS = refused('Invalid credentials')

t.test('every answer has its exact status and body', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank({ id: 'pnb' })
  await rig.addBox('SB-0001', { bank: 'pnb' })
  const is = (reply: Reply, status: number, body: string, why: string): void => {
    t.same({ status: reply.status, body: reply.body }, { status, body }, why)
    t.match(reply.headers.get('content-type'), /^application\/json/, why)
  }
  const headerOf = (epochMs: number): Record<string, string> =>
    ({ header_secrets: sealedBy(bank, JSON.stringify({ client_id: bank.clientId, client_secret: bank.clientSecret, epoch: String(epochMs) })) })
  const prepared = prepareTrigger({ url: rig.url, bank, columns: payment('T0'), nowMs: rig.clock.nowMs() })
  const raw = async (headers: Record<string, string>, body = prepared.body): Promise<Reply> => {
    const response = await fetch(prepared.url, { method: 'POST', headers, body })
    return { status: response.status, body: await response.text(), headers: response.headers }
  }

  is(await raw(without(prepared.headers, 'pass_key')), 401, refused('Pass_key header is missing'), 'no pass_key')
  is(await raw(without(prepared.headers, 'header_secrets')), 401, refused('Header Secrets is missing'), 'no header_secrets')
  is(await raw({ ...prepared.headers, header_secrets: ' ' }), 401, refused('Header Secrets value is empty'), 'empty header_secrets')
  is(await raw({ ...prepared.headers, header_secrets: 'AAAA' }), 401, CREDENTIALS, 'wrong header_secrets')
  is(await raw({ ...prepared.headers, pass_key: 'nobody' }), 401, CREDENTIALS, 'unknown pass_key')
  is(await raw({ ...prepared.headers, ...headerOf(rig.clock.nowMs() - 301_000) }), 401, refused('Epoch Time Limit Exceeded'), 'old epoch')
  is(await raw({ ...prepared.headers, ...headerOf(rig.clock.nowMs() + 120_000) }), 401, refused('Epoch Time Limit Exceeded'), 'epoch ahead')
  is(await raw({ ...prepared.headers, ...headerOf(rig.clock.nowMs()) }, '{"RequestData":"AAAA"}'), 401, CREDENTIALS, 'wrong body')
  is(await raw({ ...prepared.headers, ...headerOf(rig.clock.nowMs()) }, 'not json'), 401, CREDENTIALS, 'no body')

  const first = await post(rig, bank, payment('T1'))
  t.match({ status: first.status, cached: first.headers.get('x-served-from-cache'), trace: first.headers.get('x-trace-id') }, { status: 200, cached: null, trace: /^[\w-]{8,64}$/ })
  t.same(Object.keys(JSON.parse(first.body) as object), ['ResponseData'], 'nothing stands in the clear')
  const answer = opened(bank, first)
  t.match(answer, { status: '0', message: 'success', statusDesc: 'Message successfully sent' })
  t.match(answer, { data: { tr_id: 'T1', merchant_vpa: 'shop@upi', serial_number: ['SB-0001'], txn_amount: '19.00', status: 'success' } })
  const repeat = await post(rig, bank, payment('T1'))
  t.equal(repeat.headers.get('x-served-from-cache'), 'true')
  t.same(opened(bank, repeat), answer)
  t.not(repeat.body, first.body, 'encrypted anew')
  is(await post(rig, bank, payment('T1', '91.00')), 409, failed('ERR0009 transaction T1 was recorded with other content'), 'ERR0009')

  is(await post(rig, bank, without(payment('T2'), 'column2')), 400,
    JSON.stringify({ status: '1', message: 'fail', statusDesc: 'merchant_vpa is mandatory', errors: [isMandatory('merchant_vpa')], data: null }), 'a missing field')
  is(await post(rig, bank, {}), 400, JSON.stringify({
    status: '1', message: 'fail', statusDesc: 'tr_id is mandatory', errors: ['tr_id', 'merchant_vpa', 'txn_amount', 'status'].map(isMandatory), data: null
  }), 'all missing fields')
  t.match(await post(rig, bank, { ...payment('T2'), column8: 19 }), { status: 400, body: /"msg":"txn_amount must be/ }, 'a number is no text')
  is(await post(rig, bank, payment('T2', '1.00', 'nobody@upi')), 400, failed('ERR0001 VPA Not found in database'), 'ERR0001')
  await rig.client.call('POST', '/devices', { tid: 'SB-OFF', type: 'QS1' })
  await rig.client.call('POST', '/merchants/map', { bank: 'pnb', merchant: 'off@upi', tid: 'SB-OFF' })
  is(await post(rig, bank, payment('T2', '1.00', 'off@upi')), 400, failed('ERR0002 Device is inactive'), 'ERR0002')

  const other = await rig.addBank({ id: 'idbi', base: 'IDBI_base' })
  is(await post(rig, bank, payment('T3'), { path: '/nothing/isu_soundbox/txn/encr/trigger' }), 400, failed('ERR0008 Invalid Base url'), 'unknown base')
  is(await post(rig, bank, payment('T3'), { path: '/IDBI_base/isu_soundbox/txn/encr/trigger' }), 400, failed('ERR0008 Invalid Base url'), 'base of another bank')
  is(await post(rig, bank, payment('T3'), { path: '/PNB/isu_soundbox/txn/encr/trigger' }), 400, failed('ERR0008 Invalid Base url'), 'a base knows upper and lower case')
  t.equal((await post(rig, bank, payment('T3'), { path: '/api/v1/soundbox/trigger' })).status, 200, 'the path without base')
  t.match(await post(rig, other, payment('T3')), { status: 400, body: failed('ERR0001 VPA Not found in database') }, 'merchants of another bank are nobody')
  for (const method of ['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) is(await post(rig, bank, payment('T4'), { method }), 405, '{"ResponseData":"Invalid Request"}', method)

  is(await post(rig, bank, {}, { body: 'x'.repeat(BODY_BYTES_MAX) }), 401, CREDENTIALS, 'a body at the limit')
  is(await post(rig, bank, {}, { body: 'x'.repeat(BODY_BYTES_MAX + 1) }), 413, refused('Request body is too large'), 'one byte past it')
  for (const type of ['text/plain', 'application/xml', 'application/x-www-form-urlencoded']) t.equal((await post(rig, bank, payment('T3'), { headers: { 'content-type': type } })).status, 200, type)
})

t.test('what was used once is used up, also over a restart, and a bank may loosen or choose its forms', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank({ id: 'pnb' })
  const lax = await rig.addBank({ id: 'lax', headerReuse: 'allow', numericStatus: true, fieldNames: { column1: 'tr_id', column2: 'merchant_vpa', column8: 'txn_amount', column15: 'status' } })
  const gcm = await rig.addBank({ id: 'gcm', profile: 'aes-256-gcm' })
  const plain = await rig.addBank({ id: 'plain', profile: 'none' })
  const blind = await rig.addBank({ id: 'blind', database: false })
  await rig.addBox('SB-0001', { bank: 'pnb' })
  for (const id of ['lax', 'gcm', 'plain']) await rig.client.call('POST', '/merchants/map', { bank: id, merchant: 'shop@upi', tid: 'SB-0001' })
  await rig.addBox('SB-BLIND', { bank: 'blind', merchant: '' })
  const send = async ({ url, headers, body }: ReturnType<typeof prepareTrigger>): Promise<Reply> => {
    const response = await fetch(url.replace(/^http:\/\/[^/]+/, rig.url), { method: 'POST', headers, body })
    return { status: response.status, body: await response.text(), headers: response.headers }
  }
  const prepare = (of: BankSecrets, columns: Record<string, string>): ReturnType<typeof prepareTrigger> => prepareTrigger({ url: rig.url, bank: of, columns, nowMs: rig.clock.nowMs() })

  const once = prepare(bank, payment('T1'))
  t.equal((await send(once)).status, 200)
  t.match(await send(once), { status: 401, body: CREDENTIALS }, 'the same header again')
  const forged = prepare(bank, payment('T2'))
  t.match(await send({ ...forged, body: '{"RequestData":"AAAA"}' }), { status: 401 })
  t.match(await send(forged), { status: 401, body: CREDENTIALS }, 'a forged body takes the one try')
  const bytes = Buffer.from((JSON.parse(once.body) as { RequestData: string }).RequestData, 'base64')
  bytes[13]! ^= '1'.charCodeAt(0) ^ '7'.charCodeAt(0)
  const flipped = { body: JSON.stringify({ RequestData: bytes.toString('base64') }) }
  t.match(await send({ ...prepare(bank, payment('T3')), ...flipped }), { status: 401, body: CREDENTIALS }, 'T1 renamed to T7 by flipping bits of the IV')
  t.equal((await rig.history('transactionId=T7')).length, 0)
  const twice = prepare(lax, { tr_id: 'T1', merchant_vpa: 'shop@upi', txn_amount: '19.00', status: 'success' })
  t.match(opened(lax, await send(twice)), { status: 0, statusDesc: 'Message successfully sent' }, 'numeric status, own names')
  t.match(await send(twice), { status: 200 }, 'a bank that may repeat its headers')
  t.match(await send(prepare(lax, payment('T9'))), {
    status: 400, body: JSON.stringify({ status: 1, message: 'fail', statusDesc: 'tr_id is mandatory', errors: ['tr_id', 'merchant_vpa', 'txn_amount', 'status'].map(isMandatory), data: null })
  })

  t.match(opened(gcm, await send(prepare(gcm, payment('T1')))), { status: '0' })
  const touched = prepare(gcm, payment('T2'))
  const data = Buffer.from((JSON.parse(touched.body) as { RequestData: string }).RequestData, 'base64')
  data[14]! ^= 1
  t.match(await send({ ...touched, body: JSON.stringify({ RequestData: data.toString('base64') }) }), { status: 401, body: CREDENTIALS })
  const open = await send(prepare(plain, payment('T1')))
  t.match(JSON.parse(open.body), { status: '0', data: { tr_id: 'T1' } }, 'a plaintext bank is answered in plain text')
  t.match(await send({ ...prepare(plain, payment('T2')), headers: without(prepare(plain, payment('T2')).headers, 'client_secret') }), { status: 401, body: CREDENTIALS })

  const row = { column3: 'SB-BLIND', column7: 'ENGLISH', column8: '5.00', column12: 'UPI' }
  const unnamed = prepare(blind, row)
  const unnamedAnswer = opened(blind, await send(unnamed))
  t.match(unnamedAnswer, { status: '0', data: { serial_number: ['SB-BLIND'], merchant_vpa: null } })
  const named = prepare(blind, { ...row, column1: 'B1' })
  const namedAnswer = opened(blind, await send(named))
  t.match(await send(prepare(blind, { ...row, column3: 'SB-0001' })), { status: 400, body: failed('ERR0002 Device is inactive') }, 'a box of another bank')
  t.match(await send(prepare(blind, {})), {
    status: 400, body: JSON.stringify({
      status: '1', message: 'fail', statusDesc: 'serial_number is mandatory', errors: ['serial_number', 'language', 'txn_amount', 'txn_type'].map(isMandatory), data: null
    })
  })
  t.same((await rig.history('bank=blind')).length, 0, 'not in history')

  await rig.restart()
  t.match(await send(once), { status: 401, body: CREDENTIALS }, 'the header is remembered over a restart')
  t.match(await send({ ...prepare(bank, payment('T3')), ...flipped }), { status: 401, body: CREDENTIALS }, 'and so is the body')
  t.equal((await send(prepare(bank, payment('T1')))).headers.get('x-served-from-cache'), 'true')
  const again = await send(prepare(blind, { ...row, column1: 'B1' }))
  t.equal(again.headers.get('x-served-from-cache'), 'true', 'a bank without database keeps its duplicate check')
  t.same(opened(blind, again), namedAnswer)
  const resent = await send({ ...prepare(blind, row), body: unnamed.body })
  t.equal(resent.headers.get('x-served-from-cache'), 'true', 'the same bytes without a transaction id are the same payment')
  t.same(opened(blind, resent), unnamedAnswer)
  await rig.client.call('POST', '/banks/pnb/disable')
  t.match(await send(prepare(bank, payment('T8'))), { status: 401, body: CREDENTIALS }, 'a disabled bank')
})

/** The routes on a bare server, with a bank in plain text and whatever announce the test wants. */
async function openRoutes (announce: () => Promise<never>, ratePerSecond = 1_000_000) {
  const clock = handClock()
  const errors: object[] = []
  const key = { keyId: 'A', clientId: 'id', clientSecretHash: 'h', headerKey: Buffer.alloc(32), payloadKey: Buffer.alloc(32), validFrom: 0, validTo: null }
  const bank = aBank('plain', { profile: 'none', ratePerSecond }, [key])
  const directory = { bankByBase: () => bank, bankByPassKey: () => bank, hashOf: () => 'h' } as unknown as Directory
  const app = Fastify()
  await app.register(async scope => {
    await triggerRoutes(scope, {
      directory, store: memoryStore(clock.nowMs), announce, rate: openRateLimit(clock.nowMs), meter: SILENT_METER, nowMs: clock.nowMs,
      log: { ...SILENT_LOG, error: fields => { errors.push(fields) } }
    })
  })
  const pay = async (id = 'T1', clientId = 'id') => await app.inject({
    method: 'POST', url: '/plain/isu_soundbox/txn/encr/trigger', headers: { pass_key: 'pass-plain', client_id: clientId, client_secret: 's' }, payload: JSON.stringify(payment(id))
  })
  return { app, clock, errors, pay }
}

t.test('a bank has its requests a second, and who guesses credentials is slowed down', async t => {
  const { app, clock, pay } = await openRoutes(() => Promise.reject(new SoundboxError('VPA_UNKNOWN', 'VPA Not found in database')), 5)
  for (let n = 0; n < 5; n++) t.equal((await pay()).statusCode, 400)
  const limited = await pay()
  t.match({ status: limited.statusCode, body: limited.body, headers: limited.headers }, { status: 429, body: refused('Too many requests'), headers: { 'retry-after': '1' } })
  clock.advance(1000)
  t.equal((await pay()).statusCode, 400)
  for (let n = 0; n < CREDENTIAL_FAULTS_PER_SECOND; n++) t.equal((await pay('T1', 'guess')).statusCode, 401)
  t.equal((await pay('T1', 'guess')).statusCode, 429, 'one guess too many')
  t.equal((await pay()).statusCode, 429, 'the right one tells the guesser nothing')
  clock.advance(1000)
  t.equal((await pay()).statusCode, 400)
  await app.close()
})

t.test('each code of the heart has its status and body, and the operator is told of what is ours', async t => {
  const codes: [SoundboxError | TypeError, number, string][] = [
    [new SoundboxError('STORE_FAILED', 'Database error'), 400, failed('ERR0003 Database error')],
    [new SoundboxError('PUBLISH_FAILED', 'Error in publish'), 400, failed('ERR0004 Error in publish')],
    [new TypeError('secret of ours'), 400, failed('ERR0005 Unhandled server error')],
    [new SoundboxError('VENDOR_FAILED', 'Error getting YPP external server error'), 400, failed('ERR0006 Error getting YPP external server error')],
    [new SoundboxError('DEVICE_TYPE_INVALID', 'Invalid Device type'), 400, failed('ERR0007 Invalid Device type')],
    [new SoundboxError('BASE_URL_INVALID', 'Invalid Base url'), 400, failed('ERR0008 Invalid Base url')],
    [new SoundboxError('OVERLOADED', 'the replay memory is full'), 503, refused('the replay memory is full')]
  ]
  for (const [error, status, body] of codes) {
    const { app, pay, errors } = await openRoutes(() => Promise.reject(error))
    const reply = await pay()
    t.same({ status: reply.statusCode, body: reply.body }, { status, body })
    t.equal(reply.headers['retry-after'], status === 503 ? '1' : undefined)
    const isOurs = !(error instanceof SoundboxError) || error.code === 'STORE_FAILED'
    t.equal(errors.length, isOurs ? 1 : 0, `${error.message} in the log`)
    if (isOurs) t.match(errors[0], { err: error, traceId: reply.headers['x-trace-id'] })
    await app.close()
  }
  t.ok(Object.values(ERRORS).every(({ status }) => status >= 400))
})

t.test('triggers in work are limited: at the limit they are taken, one past it is told to come again', async t => {
  let release = (_error: SoundboxError): void => {}
  const held = new Promise<never>((_resolve, reject) => { release = reject })
  const { app, pay } = await openRoutes(() => held)
  const waiting = Array.from({ length: TRIGGERS_IN_FLIGHT_MAX }, (_, n) => pay(`T${n}`))
  await settled(50)
  const refusal = await pay('one past')
  t.match({ status: refusal.statusCode, body: refusal.body, headers: refusal.headers }, { status: 503, body: refused('The gateway is busy'), headers: { 'retry-after': '1' } })
  release(new SoundboxError('PUBLISH_FAILED', 'Error in publish'))
  t.ok((await Promise.all(waiting)).every(({ statusCode }) => statusCode === 400), 'all that were taken are answered')
  t.equal((await pay('after')).statusCode, 400, 'and there is room again')
  await app.close()
})

t.test('connections are counted and slow requests are cut, whatever they are waiting for', async t => {
  const requestTimeoutMs = 300
  const { clock } = await openRoutes(() => Promise.reject(new Error('unused')))
  const server = await openHttpServer({
    host: '127.0.0.1', port: 0, socketPath: null, tls: null, trustProxy: true, log: SILENT_LOG, connectionsMax: 2, requestTimeoutMs, admin: {}, look: {}, metrics: {}, more: [],
    signIn: { admit () {}, async sessionRoutes () {}, async totpRoutes () {} }, trigger: { meter: SILENT_METER, log: SILENT_LOG, nowMs: clock.nowMs },
    open: [async (app: FastifyInstance) => { app.post('/address', async request => ({ address: request.ip })) }], isReady: () => ({ ready: true, why: [] })
  } as unknown as HttpDeps)
  t.teardown(server.close)
  const open = async (text: string): Promise<{ text: () => string, closed: Promise<void>, socket: Socket }> => {
    const socket = connect(server.port, '127.0.0.1')
    let got = ''
    socket.on('data', chunk => { got += chunk.toString('latin1') }).on('error', () => {})
    const closed = new Promise<void>(resolve => { socket.once('close', () => { resolve() }) })
    await new Promise<void>(resolve => { socket.once('connect', () => { resolve() }) })
    socket.write(text)
    return { text: () => got, closed, socket }
  }
  const startedAt = performance.now()
  const slow = [await open('POST /address HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{'), await open('POST /address HTTP/1.1\r\nx: ')]
  const third = await open('POST /address HTTP/1.1\r\nhost: x\r\n\r\n')
  await third.closed
  t.equal(third.text(), '', 'one past the limit is closed unread')
  await Promise.all(slow.map(({ closed }) => closed))
  t.match(slow.map(({ text }) => text()), [/ 408 /, / 408 /], 'a slow body as well as slow headers')
  t.ok(performance.now() - startedAt < 10_000)
  const again = await open('POST /address HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 6.6.6.6, 10.0.0.9\r\nconnection: close\r\n\r\n')
  await again.closed
  t.match(again.text(), /"10\.0\.0\.9"/, 'there is room again, and of X-Forwarded-For counts only what the proxy itself wrote')
})

t.test('no bytes make it crash, and no answer is a 5xx but 503', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank({ id: 'pnb', ratePerSecond: 100_000 })
  await rig.addBox('SB-0001', { bank: 'pnb' })
  const statuses = new Map<number, number>()
  const count = (status: number): void => { statuses.set(status, (statuses.get(status) ?? 0) + 1) }
  for (const seed of seedsOf(1)) {
    const rand = openRandom(seed)
    const bytes = (max: number): Buffer => Buffer.from(Array.from({ length: Math.floor(rand() * max) }, () => Math.floor(rand() * 256)))
    const word = (max: number): string => bytes(max).toString('latin1').replace(/[^\x20-\x7e\x80-\xff]/g, ' ').trim()
    const mangle = (text: string): string => {
      const raw = Buffer.from(text)
      for (let n = 0; n < 1 + rand() * 4; n++) raw[Math.floor(rand() * raw.length)] = Math.floor(rand() * 256)
      return rand() < 0.3 ? raw.subarray(0, Math.floor(rand() * raw.length)).toString('latin1') : raw.toString('latin1')
    }
    const strange = [null, [], {}, '', 0, -1, true, 'x'.repeat(5000), { a: { b: [] } }, '\0', '{"__proto__":1}', 1e308]
    const one = async (): Promise<void> => {
      const { headers, body, url } = prepareTrigger({ url: rig.url, bank, columns: payment(`F${Math.floor(rand() * 50)}`), nowMs: rig.clock.nowMs() })
      const pick = <T>(list: readonly T[]): T => list[Math.floor(rand() * list.length)]!
      const columns = Object.fromEntries(['column1', 'column2', 'column8', 'column15', '__proto__'].map(name => [name, pick(strange)]))
      const changes: { headers?: Record<string, string>, body?: string, url?: string }[] = [
        {}, { headers: { header_secrets: mangle(headers['header_secrets'] ?? '').replace(/[^\x20-\x7e]/g, '') } }, { body: mangle(body) }, { body: mangle(body) },
        { body: JSON.stringify({ RequestData: sealedBy(bank, JSON.stringify(columns)) }) },
        { body: JSON.stringify({ RequestData: sealedBy(bank, word(200)) }) }, { body: JSON.stringify(pick(strange)) },
        { headers: { pass_key: word(60) || 'x', 'content-type': word(20) || 'x' }, body: bytes(300).toString('latin1') },
        { url: `${rig.url}/${encodeURIComponent(word(40))}/isu_soundbox/txn/encr/trigger` }
      ]
      const change = pick(changes)
      rig.clock.advance(25)
      const response = await fetch(change.url ?? url, { method: 'POST', headers: { ...headers, ...change.headers }, body: change.body ?? body })
      await response.text()
      count(response.status)
    }
    for (let round = 0; round < 25; round++) await Promise.all(Array.from({ length: 16 }, one))
    const start = 'POST /pnb/isu_soundbox/txn/encr/trigger HTTP/1.1\r\nhost: x\r\n'
    for (let n = 0; n < 100; n++) count(await rawStatus(rig, Buffer.concat([Buffer.from(rand() < 0.7 ? start : ''), bytes(200), Buffer.from('\r\n\r\n')])))
  }
  const bad = [...statuses].filter(([status]) => status >= 500 && status !== 503)
  t.same(bad, [], `statuses: ${[...statuses].map(pair => pair.join(' x ')).join(', ')}`)
  t.ok((statuses.get(200) ?? 0) > 0 && (statuses.get(401) ?? 0) > 0 && (statuses.get(400) ?? 0) > 0, 'it reached all the floors')
  t.equal((await post(rig, bank, payment('AFTER'))).status, 200, 'and it still works')
})

/** The status of what a server says to raw bytes; 0 when it only hangs up. */
function rawStatus (rig: Rig, bytes: Buffer): Promise<number> {
  return new Promise(resolve => {
    let text = ''
    const socket = connect(Number(new URL(rig.url).port), '127.0.0.1', () => { socket.end(bytes) })
    const done = (): void => { resolve(Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)) }
    socket.on('data', chunk => { text += chunk.toString('latin1') }).on('close', done).on('error', () => {})
  })
}
