import { createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { FallbackRecord } from '../../gateway/fallback/contract.js'
import { openPubsubFallback, parsePubsubUrl, PUBLISH_BYTES_MAX, PUBLISH_MESSAGES_MAX, PUBLISH_QUEUE_MAX, PUBSUB_PAUSE_MS } from '../../gateway/fallback/pubsub.js'
import { createPubsubRest, parseServiceAccount, RESPONSE_BYTES_MAX } from '../../gateway/fallback/pubsub-rest.js'
import { CHANGES_PER_RECORD } from '../../gateway/fallback/records.js'
import { openSpool } from '../../gateway/fallback/spool.js'
import { SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { paymentRecord, recordName } from '../support/fallback-records.js'
import { collectLog, someDelivery, somePayment, START_MS, stepOf } from '../support/store-records.js'
import type { Test } from '../support/store-suite.js'

type Call = { method: string, path: string, body: Record<string, unknown>, token: string | undefined }
type Message = { data: string, orderingKey: string }

/** Pub/Sub on loopback: keeps what is published until it is acknowledged, and fails in the ways a test asks for. */
async function startDouble (t: Test) {
  const calls: Call[] = []
  const queue: { ackId: string, message: Message, out: boolean }[] = []
  const mode = { status: 200, hang: false, body: undefined as string | undefined, needToken: undefined as string | undefined }
  let ids = 0
  const answer = ({ path, body }: Call): object => {
    const acked = body['ackIds'] as string[] | undefined
    if (path.endsWith(':publish')) for (const message of body['messages'] as Message[]) queue.push({ ackId: `a${ids++}`, message, out: false })
    if (path.endsWith(':acknowledge')) for (const id of acked!) queue.splice(queue.findIndex(item => item.ackId === id), 1)
    if (path.endsWith(':modifyAckDeadline')) for (const item of queue) if (acked!.includes(item.ackId)) item.out = false
    if (!path.endsWith(':pull')) return {}
    const given = queue.filter(item => !item.out).slice(0, Math.min(body['maxMessages'] as number, 7))
    for (const item of given) item.out = true
    return given.length === 0 ? {} : { receivedMessages: given.map(({ ackId, message }) => ({ ackId, message })) }
  }
  const server = createServer((request, response) => {
    void read(request).then(text => {
      const call = { method: request.method!, path: request.url!, body: text.startsWith('{') ? JSON.parse(text) as Record<string, unknown> : { form: text }, token: request.headers.authorization }
      calls.push(call)
      if (mode.hang) return
      const isRefused = mode.needToken !== undefined && call.token !== `Bearer ${mode.needToken}`
      const status = isRefused && call.path.startsWith('/v1/') ? 401 : mode.status
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(mode.body ?? JSON.stringify(status === 200 ? (call.path === '/token' ? { access_token: mode.needToken, expires_in: 3600 } : answer(call)) : { error: { message: 'secret text' } }))
    })
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { calls, queue, mode, host: `127.0.0.1:${(server.address() as AddressInfo).port}`, published: () => calls.filter(call => call.path.endsWith(':publish')) }
}

async function read (request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

async function openBoth (t: Test, more: { nowMs?: () => number, log?: typeof SILENT_LOG } = {}) {
  const double = await startDouble(t)
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, segmentBytes: 1024 * 1024, segmentsReady: 1, segmentsMax: 2 })
  const fallback = openPubsubFallback({ project: 'shop', topic: 'history', host: double.host, account: null, spool, log: SILENT_LOG, nowMs: () => START_MS, ...more })
  t.teardown(fallback.close)
  return { double, dir, spool, fallback }
}

t.test('records of one turn are one publish, ordered, found, and drained in order', async t => {
  const { double, fallback } = await openBoth(t)
  await Promise.all([1, 2, 3].map(i => fallback.append(paymentRecord(i))))
  await fallback.append({ kind: 'reversal', bankId: 'pnb', transactionId: 'T2', at: 5 })
  t.same(double.calls.map(call => `${call.method} ${call.path}`), [
    'PUT /v1/projects/shop/topics/history', 'PUT /v1/projects/shop/subscriptions/history-gateway',
    'POST /v1/projects/shop/topics/history:publish', 'POST /v1/projects/shop/topics/history:publish'
  ])
  t.match(double.calls[1]?.body, { topic: 'projects/shop/topics/history', enableMessageOrdering: true })
  t.equal(new Set(double.queue.map(item => item.message.orderingKey)).size, 1, 'one key, one order')
  t.equal(fallback.depth(), 4)
  t.same(fallback.findPayment('pnb', 'T2'), { payment: somePayment(2), deliveries: [someDelivery(2)] })
  const seen: string[] = []
  t.same(await fallback.drain(async record => { seen.push(recordName(record)) }), { drained: 4, setAside: 0, left: 0 })
  t.same(seen, ['T1', 'T2', 'T3', 'reversal T2'])
  t.equal(double.queue.length, 0, 'all acknowledged')
  t.equal(fallback.findPayment('pnb', 'T2'), undefined)
  t.equal(fallback.depth(), 0)
})

t.test('while Pub/Sub fails records go to the spool, at once after the first, and both are drained', async t => {
  let now = START_MS
  const log = collectLog()
  const { double, spool, fallback } = await openBoth(t, { nowMs: () => now, log })
  await fallback.append(paymentRecord(1))
  double.mode.status = 503
  await fallback.append(paymentRecord(2))
  const asked = double.calls.length
  await fallback.append(paymentRecord(3))
  t.equal(double.calls.length, asked, 'not asked again within the pause')
  t.equal(spool.depth(), 2)
  t.equal(fallback.depth(), 3)
  t.ok(fallback.findPayment('pnb', 'T3'), 'found in the spool')
  t.match(log.lines, [{ level: 'warn', sentence: 'Pub/Sub failed, records go to the spool' }])
  double.mode.status = 200
  now += PUBSUB_PAUSE_MS
  await fallback.append(paymentRecord(4))
  t.equal(spool.depth(), 2, 'asked again after the pause')
  const seen: string[] = []
  t.same(await fallback.drain(async record => { seen.push(recordName(record)) }), { drained: 4, setAside: 0, left: 0 })
  t.same(seen, ['T1', 'T4', 'T2', 'T3'])
})

t.test('a Pub/Sub that cannot be reached at all does not keep the gateway from starting or the spool from draining', async t => {
  const { double, fallback } = await openBoth(t)
  double.mode.status = 403
  await fallback.append(paymentRecord(1))
  const seen: string[] = []
  t.match(await fallback.drain(async record => { seen.push(recordName(record)) }), { drained: 1, left: 0 })
  t.same(seen, ['T1'])
})

t.test('what can wait is given back and stops the drain, what can never be applied is set aside and acknowledged', async t => {
  const { double, dir, fallback } = await openBoth(t)
  for (let i = 0; i < 4; i++) await fallback.append(paymentRecord(i))
  double.queue.splice(1, 0, { ackId: 'x', message: { data: Buffer.from('not a record').toString('base64'), orderingKey: '' }, out: false })
  const apply = (locked: boolean) => async (record: FallbackRecord): Promise<void> => {
    if (recordName(record) === 'T1') throw new SoundboxError('INPUT_INVALID', 'a value is missing')
    if (recordName(record) === 'T2' && locked) throw new SoundboxError('STORE_FAILED', 'locked')
  }
  t.same(await fallback.drain(apply(true)), { drained: 1, setAside: 2, left: 1 })
  t.same(double.queue.map(item => item.out), [false, false], 'the two others may be pulled again')
  const aside = readFileSync(join(dir, 'set-aside.jsonl'), 'utf8').trim().split('\n').map(line => JSON.parse(line) as object)
  t.match(aside, [{ reason: 'damaged', bytes: Buffer.from('not a record').toString('base64') }, { reason: 'INPUT_INVALID', record: { payment: { transactionId: 'T1' } } }])
  t.same(await fallback.drain(apply(false)), { drained: 2, setAside: 0, left: 0 })
})

t.test('a publish holds no more messages than Pub/Sub takes', async t => {
  const { double, fallback } = await openBoth(t)
  await Promise.all(Array.from({ length: PUBLISH_MESSAGES_MAX + 1 }, (_, at) => fallback.append({ kind: 'reversal', bankId: 'b', transactionId: 't', at })))
  t.same(double.published().map(call => (call.body['messages'] as Message[]).length), [PUBLISH_MESSAGES_MAX, 1])
  const long = (at: number): FallbackRecord => ({ kind: 'reversal', bankId: 'b'.repeat(200_000), transactionId: 't', at })
  const fit = Math.floor(PUBLISH_BYTES_MAX / JSON.stringify(long(0)).length)
  await Promise.all(Array.from({ length: fit + 1 }, () => fallback.append(long(1))))
  t.same(double.published().slice(2).map(call => (call.body['messages'] as Message[]).length), [fit, 1], 'nor more bytes')
  await fallback.append({ kind: 'changes', changes: Array.from({ length: CHANGES_PER_RECORD + 1 }, (_, i) => stepOf(someDelivery(i), 'spoken', i)) })
  t.equal((double.published().at(-1)!.body['messages'] as Message[]).length, 2, 'a long list of changes is two messages')
})

t.test('an account signs for a token, once, and again when the token is refused', async t => {
  const double = await startDouble(t)
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const account = parseServiceAccount(JSON.stringify({
    client_email: 'gateway@shop.example', private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }), private_key_id: 'k1', token_uri: `http://${double.host}/token`
  }))
  double.mode.needToken = 'first'
  let now = START_MS
  const rest = createPubsubRest({ host: `http://${double.host}/`, project: 'shop', topic: 'history', subscription: 'sub', account, nowMs: () => now })
  await Promise.all([rest.publish([Buffer.from('a')], 'k'), rest.publish([Buffer.from('b')], 'k')])
  const tokenCalls = (): Call[] => double.calls.filter(call => call.path === '/token')
  t.equal(tokenCalls().length, 1)
  const form = new URLSearchParams(tokenCalls()[0]?.body['form'] as string)
  t.equal(form.get('grant_type'), 'urn:ietf:params:oauth:grant-type:jwt-bearer')
  const [head = '', claims = '', signature = ''] = form.get('assertion')!.split('.')
  t.ok(verify('RSA-SHA256', Buffer.from(`${head}.${claims}`), createPublicKey(publicKey.export({ type: 'spki', format: 'pem' })), Buffer.from(signature, 'base64url')))
  t.same(JSON.parse(Buffer.from(head, 'base64url').toString()), { alg: 'RS256', typ: 'JWT', kid: 'k1' })
  t.same(JSON.parse(Buffer.from(claims, 'base64url').toString()), {
    iss: 'gateway@shop.example', scope: 'https://www.googleapis.com/auth/pubsub', aud: `http://${double.host}/token`, iat: START_MS / 1000, exp: START_MS / 1000 + 3600
  })
  double.mode.needToken = 'second'
  await rest.publish([Buffer.from('c')], 'k')
  t.equal(tokenCalls().length, 2, 'a refused token is replaced once')
  now += 3_600_000
  await rest.publish([Buffer.from('d')], 'k')
  t.equal(tokenCalls().length, 3, 'and so is an old one')
  double.mode.needToken = undefined
  double.mode.status = 401
  await t.rejects(rest.publish([Buffer.from('e')], 'k'), { code: 'STORE_FAILED' })
})

t.test('an unusable answer is STORE_FAILED and tells nothing of its content', async t => {
  const double = await startDouble(t)
  const rest = createPubsubRest({ host: double.host, project: 'shop', topic: 'history', subscription: 'sub', account: null, nowMs: () => START_MS })
  const failure = async (): Promise<Error & { code: string }> => await rest.pull(1).then(() => t.fail('must reject') as never, (error: unknown) => error as Error & { code: string })
  for (const [status, body] of [[500, undefined], [302, undefined], [200, 'secret text, no JSON'], [200, `"${'x'.repeat(RESPONSE_BYTES_MAX)}"`]] as const) {
    Object.assign(double.mode, { status, body })
    const error = await failure()
    t.equal(error.code, 'STORE_FAILED')
    t.notMatch(error.message, /secret/)
  }
})

t.test('a Pub/Sub that does not answer is given up after its time-out', async t => {
  const { double, spool, fallback } = await openBoth(t)
  await fallback.append(paymentRecord(1))
  double.mode.hang = true
  const record = (at: number): FallbackRecord => ({ kind: 'reversal', bankId: 'b', transactionId: 't', at })
  const first = fallback.append(record(1))
  await new Promise(resolve => { setTimeout(resolve, 20) })
  const full = Promise.all(Array.from({ length: PUBLISH_QUEUE_MAX }, (_, at) => fallback.append(record(at))))
  t.equal(spool.depth(), 0)
  await fallback.append(record(2))
  t.equal(spool.depth(), 1, 'what is over the queue goes to the spool at once')
  await Promise.all([first, full])
  t.equal(spool.depth(), PUBLISH_QUEUE_MAX + 2)
})

t.test('settings: the URL names project and topic, the key file is checked without being shown', async t => {
  t.same(parsePubsubUrl('pubsub://shop/history'), { project: 'shop', topic: 'history', subscription: 'history-gateway' })
  t.same(parsePubsubUrl('pubsub://shop/history?subscription=node'), { project: 'shop', topic: 'history', subscription: 'node' })
  const wrong = ['pubsub://shop', 'pubsub://shop/', 'pubsub://shop/hi', 'pubsub://sh/history', 'http://shop/history', 'pubsub://shop/his/tory', 'pubsub://shop/history?other=1']
  for (const url of [...wrong, `pubsub://shop/${'t'.repeat(256)}`]) {
    t.throws(() => parsePubsubUrl(url), { code: 'CONFIG_INVALID' }, url)
  }
  t.same(parsePubsubUrl(`pubsub://shop/${'t'.repeat(247)}`).topic.length, 247)
  for (const text of ['no json secret', '{}', '{"client_email":"a","private_key":"","private_key_id":"secret","token_uri":"d"}']) {
    t.throws(() => parseServiceAccount(text), { code: 'CONFIG_INVALID' })
  }
  const account = { clientEmail: 'a', privateKey: 'secret', privateKeyId: 'k', tokenUri: 'http://127.0.0.1:1/' }
  t.throws(() => createPubsubRest({ host: 'x', project: 'shop', topic: 'history', subscription: 'sub', account, nowMs: () => 0 }), { code: 'CONFIG_INVALID', message: /^((?!secret).)*$/ })
})
