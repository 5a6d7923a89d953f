// What providers send us: genuine on the raw bytes and fresh, or nothing; kept once; answered; processed after, until it is done or dead.
import { createHmac } from 'node:crypto'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { isSoundboxError, type Log, Secret, SILENT_LOG, SoundboxError } from '../../../protocol/index.js'
import { INBOUND_PATH, inboundRoutes } from '../../../gateway/http/inbound-routes.js'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { eventsFromInbound, type InboundEvent } from '../../../gateway/integration/inbound-events.js'
import {
  INBOUND_ATTEMPTS_MAX, INBOUND_BATCH_MAX, INBOUND_BODY_BYTES_MAX, inboundSourcesFromSettings, openInbound, stepInbound, verifyInbound, type Inbound, type InboundEntry, type InboundSource
} from '../../../gateway/integration/inbound.js'

const NOW_MS = 1_767_604_500_000
const [NEW, OLD, STALE] = ['whsec-new-1', 'whsec-old-1', 'whsec-gone-1']
const DIDIT: InboundSource = { name: 'didit', kind: 'didit', proof: 'hmac', secrets: [new Secret(NEW), new Secret(OLD), new Secret(STALE)] }
const SMS: InboundSource = { name: 'africastalking', kind: 'africastalking', proof: 'token', secrets: [new Secret('token-new'), new Secret('token-old')] }
const sign = (secret: string, body: string): string => createHmac('sha256', secret).update(body).digest('hex')
const diditBody = (more: object = {}): string => JSON.stringify({
  event_id: 'evt-1', webhook_type: 'status.updated', session_id: 's-1', status: 'Approved', vendor_data: 'merchant-17', timestamp: NOW_MS / 1000,
  decision: { id_verifications: [{ full_name: 'NOT READ' }] }, ...more
})

/** A durable inbox in memory: `keep` is the unique key of a table. */
function openInbox (options: { process?: (event: InboundEvent) => Promise<void>, log?: Log, sources?: InboundSource[] } = {}) {
  const table = new Map<string, InboundEntry>()
  const processed: InboundEvent[] = []
  const time = { nowMs: NOW_MS }
  const deps = {
    sources: options.sources ?? [DIDIT, SMS], nowMs: () => time.nowMs, log: options.log ?? SILENT_LOG,
    keep: async (entries: readonly InboundEntry[]) => {
      const fresh = entries.filter(entry => !table.has(entry.key))
      for (const entry of fresh) table.set(entry.key, entry)
      return fresh
    },
    due: async (nowMs: number, limit: number) => [...table.values()].filter(entry => entry.state === 'pending' && entry.dueMs <= nowMs).slice(0, limit),
    save: async (entry: InboundEntry) => { table.set(entry.key, entry) },
    process: options.process ?? (async (event: InboundEvent) => { processed.push(event) })
  }
  return { inbound: openInbound(deps), deps, table, processed, time }
}

async function openApp (t: { teardown: (work: () => unknown) => void }, inbound: Inbound): Promise<FastifyInstance> {
  const app = Fastify()
  app.setErrorHandler((error, _request, reply) => isSoundboxError(error) ? reply.code(error.status).send({ error: error.code, message: error.message }) : reply.send(error))
  await inboundRoutes(app, { inbound })
  t.teardown(async () => {
    await inbound.close()
    await app.close()
  })
  return app
}
const post = async (app: FastifyInstance, path: string, body: string, headers: Record<string, string> = {}): Promise<{ status: number, json: unknown }> => {
  const reply = await app.inject({ method: 'POST', url: path, payload: body, headers: { 'content-type': 'application/json', ...headers } })
  return { status: reply.statusCode, json: JSON.parse(reply.body) }
}
const DIDIT_PATH = INBOUND_PATH.replace(':source', 'didit')
const stamped = (secret: string, body: string, second = NOW_MS / 1000): Record<string, string> => ({ 'x-signature': sign(secret, body), 'x-timestamp': String(second) })

t.test('a signed decision is kept, answered and then processed, without its documents', async t => {
  const inbox = openInbox()
  const app = await openApp(t, inbox.inbound)
  const body = diditBody()
  t.same(await post(app, DIDIT_PATH, body, stamped(NEW, body)), { status: 200, json: { received: 1, known: 0 } })
  await inbox.inbound.run()
  t.same(inbox.processed, [{ kind: 'kyc', eventId: 'evt-1', sessionId: 's-1', vendorData: 'merchant-17', status: 'APPROVED', atMs: NOW_MS }])
  t.notMatch(JSON.stringify([...inbox.table.values()]), /NOT READ/)
  t.same([...inbox.table.values()].map(entry => entry.state), ['done'])
})

t.test('the signature covers the bytes as they came: spaces, escapes and order count', async t => {
  const inbox = openInbox()
  const app = await openApp(t, inbox.inbound)
  const body = '{ "session_id" : "s-9",\n  "status":"In Review", "vendor_data":"caf\\u00e9 \u00e9" }'
  t.equal((await post(app, DIDIT_PATH, body, stamped(NEW, body))).status, 200)
  t.equal((await post(app, DIDIT_PATH, JSON.stringify(JSON.parse(body)), stamped(NEW, body))).status, 401, 'the same JSON in other bytes')
  t.equal((await post(app, DIDIT_PATH, body, { ...stamped(NEW, body), 'content-type': 'text/plain' })).status, 200, 'whatever the content type says')
})

t.test('two secrets are live, a third is not; letters of the signature may be upper case', async t => {
  const body = Buffer.from(diditBody())
  const request = (signature: string, timestamp = String(NOW_MS / 1000)) => ({ rawBody: body, contentType: '', signature, timestamp, token: undefined })
  t.doesNotThrow(() => verifyInbound(DIDIT, request(sign(NEW, body.toString())), NOW_MS))
  t.doesNotThrow(() => verifyInbound(DIDIT, request(sign(OLD, body.toString()).toUpperCase()), NOW_MS))
  t.throws(() => verifyInbound(DIDIT, request(sign(STALE, body.toString())), NOW_MS), { code: 'UNAUTHORIZED' })
  t.throws(() => verifyInbound({ ...DIDIT, secrets: [] }, request(sign('', body.toString())), NOW_MS), { code: 'UNAUTHORIZED' })
})

t.test('old, future, undated, unsigned, cut and foreign messages get one and the same answer', async t => {
  const inbox = openInbox()
  const app = await openApp(t, inbox.inbound)
  const body = diditBody()
  const now = NOW_MS / 1000
  for (const [second, want] of [[now - 300, 200], [now + 300, 200], [now - 301, 401], [now + 301, 401]] as const) {
    t.equal((await post(app, DIDIT_PATH, body, stamped(NEW, body, second))).status, want, `${second - now} s`)
  }
  const answers = await Promise.all([
    post(app, DIDIT_PATH, body, stamped(NEW, body, now - 301)), post(app, DIDIT_PATH, body, { 'x-signature': sign(NEW, body) }), post(app, DIDIT_PATH, body, { 'x-timestamp': String(now) }),
    post(app, DIDIT_PATH, body, { ...stamped(NEW, body), 'x-timestamp': `${now}abc` }), post(app, DIDIT_PATH, body, { ...stamped(NEW, body), 'x-timestamp': '1e9' }),
    post(app, DIDIT_PATH, body, stamped('other', body)), post(app, DIDIT_PATH, `${body} `, stamped(NEW, body)),
    post(app, DIDIT_PATH, body, { ...stamped(NEW, body), 'x-signature': sign(NEW, body).slice(1) }),
    post(app, INBOUND_PATH.replace(':source', 'nobody'), body, stamped(NEW, body)), post(app, DIDIT_PATH, '', stamped(NEW, body))
  ])
  for (const answer of answers) t.same(answer, { status: 401, json: { error: 'UNAUTHORIZED', message: 'the message is not signed with a live secret, or not fresh' } })
})

t.test('the same event twice, or replayed within the window, is kept and processed once', async t => {
  const inbox = openInbox()
  const app = await openApp(t, inbox.inbound)
  const body = diditBody()
  for (const known of [0, 1, 1]) t.same((await post(app, DIDIT_PATH, body, stamped(NEW, body))).json, { received: 1, known })
  const again = diditBody({ status: 'Approved', metadata: 'sent again with other bytes' })
  t.same((await post(app, DIDIT_PATH, again, stamped(NEW, again))).json, { received: 1, known: 1 }, 'the event id decides')
  const unnamed = JSON.stringify({ session_id: 's-2', status: 'Declined' })
  for (const known of [0, 1]) t.same((await post(app, DIDIT_PATH, unnamed, stamped(OLD, unnamed))).json, { received: 1, known }, 'without an id the bytes decide')
  await inbox.inbound.run()
  t.same(inbox.processed.map(event => event.kind === 'kyc' && event.status), ['APPROVED', 'DECLINED'])
})

t.test('a provider is answered before anything is processed, and a slow step of ours does not matter', async t => {
  let release = (): void => {}
  const gate = new Promise<void>(resolve => { release = resolve })
  const inbox = openInbox({ process: async () => await gate })
  const app = await openApp(t, inbox.inbound)
  const body = diditBody()
  t.equal((await post(app, DIDIT_PATH, body, stamped(NEW, body))).status, 200)
  t.equal([...inbox.table.values()][0]?.state, 'pending')
  release()
  await inbox.inbound.run()
  t.equal([...inbox.table.values()][0]?.state, 'done')
})

t.test('what cannot be kept is not answered with 200', async t => {
  const inbox = openInbox()
  const inbound = openInbound({ ...inbox.deps, keep: async () => { throw new SoundboxError('STORE_FAILED', 'locked') } })
  const app = await openApp(t, inbound)
  const body = diditBody()
  t.equal((await post(app, DIDIT_PATH, body, stamped(NEW, body))).status, 400)
})

t.test('a failing step is repeated with longer waits, then set aside loudly', async t => {
  const errors: object[] = []
  let tries = 0
  const log: Log = { ...SILENT_LOG, error: fields => { errors.push(fields) } }
  const inbox = openInbox({ log, process: async () => { tries += 1; throw new SoundboxError('STORE_FAILED', 'locked') } })
  await inbox.inbound.accept('didit', { rawBody: Buffer.from(diditBody()), contentType: 'application/json', signature: sign(NEW, diditBody()), timestamp: String(NOW_MS / 1000), token: undefined })
  const waits: number[] = []
  for (let turn = 0; turn < INBOUND_ATTEMPTS_MAX + 3; turn++) {
    await inbox.inbound.run()
    const [entry] = inbox.table.values()
    waits.push(Math.max(0, entry!.dueMs - inbox.time.nowMs))
    await inbox.inbound.run()
    t.equal(tries, Math.min(turn + 1, INBOUND_ATTEMPTS_MAX), 'not before it is due')
    inbox.time.nowMs = Math.max(inbox.time.nowMs, entry!.dueMs)
  }
  t.same(waits.slice(0, 4), [5000, 10_000, 20_000, 40_000])
  t.ok(Math.max(...waits) <= 3_600_000)
  const [entry] = inbox.table.values()
  t.match(entry, { state: 'dead', attempts: INBOUND_ATTEMPTS_MAX, problem: /STORE_FAILED/ })
  t.equal(errors.length, 1)
})

t.test('what was kept before a crash is taken up again', async t => {
  const before = openInbox({ process: async () => await new Promise(() => {}) })
  const body = diditBody()
  await before.inbound.accept('didit', { rawBody: Buffer.from(body), contentType: 'application/json', signature: sign(NEW, body), timestamp: String(NOW_MS / 1000), token: undefined })
  const processed: InboundEvent[] = []
  const after = openInbound({ ...before.deps, process: async event => { processed.push(event) } })
  await after.run()
  t.equal(processed.length, 1)
  t.equal([...before.table.values()][0]?.state, 'done')
})

t.test('a full batch is followed by the next at once', async t => {
  const inbox = openInbox()
  await inbox.deps.keep(Array.from({ length: INBOUND_BATCH_MAX * 2 + 1 }, (_, index) => ({
    key: `k${index}`, source: 'didit', event: { kind: 'kyc', eventId: `${index}`, sessionId: 's', vendorData: null, status: 'APPROVED', atMs: null }, state: 'pending', attempts: 0,
    receivedMs: 0, dueMs: 0, problem: null
  } satisfies InboundEntry)))
  await inbox.inbound.run()
  t.equal(inbox.processed.length, INBOUND_BATCH_MAX * 2 + 1)
  t.match(stepInbound([...inbox.table.values()][0]!, 'x', 5), { state: 'done', attempts: 1, problem: null }, 'what is done stays done')
})

t.test('a delivery report comes to an address with a token; two tokens are live', async t => {
  const inbox = openInbox()
  const app = await openApp(t, inbox.inbound)
  const form = 'id=ATXid_1&status=Success&phoneNumber=%2B255000000001&networkCode=64004'
  const send = async (token: string): Promise<number> => (await app.inject({
    method: 'POST', url: `${INBOUND_PATH.replace(':source', 'africastalking')}?token=${token}`, payload: form, headers: { 'content-type': 'application/x-www-form-urlencoded' }
  })).statusCode
  t.same([await send('token-new'), await send('token-old'), await send('token-ne'), await send('')], [200, 200, 401, 401])
  await inbox.inbound.run()
  t.match(inbox.processed, [{ kind: 'sms', provider: 'africastalking', providerId: 'ATXid_1', toMasked: '2550****0001', outcome: 'DELIVERED' }])
  t.notMatch(JSON.stringify([...inbox.table.values()]), /255000000001/)
  const forged = await app.inject({
    method: 'POST', url: INBOUND_PATH.replace(':source', 'africastalking'), payload: form, headers: { ...stamped(NEW, form), 'content-type': 'application/x-www-form-urlencoded' }
  })
  t.equal(forged.statusCode, 401, 'the signature of another source proves nothing here')
})

t.test('a body may be as long as the limit and no longer', async t => {
  const inbox = openInbox()
  const app = await openApp(t, inbox.inbound)
  const frame = diditBody({ pad: '' }).length
  const exact = diditBody({ pad: 'x'.repeat(INBOUND_BODY_BYTES_MAX - frame) })
  t.equal(exact.length, INBOUND_BODY_BYTES_MAX)
  t.equal((await post(app, DIDIT_PATH, exact, stamped(NEW, exact))).status, 200)
  const over = diditBody({ pad: 'x'.repeat(INBOUND_BODY_BYTES_MAX - frame + 1) })
  t.equal((await post(app, DIDIT_PATH, over, stamped(NEW, over))).status, 413)
})

t.test('the reports of each SMS gateway are read, and states that are no end stay pending', async t => {
  const read = (kind: 'msg91' | 'beem' | 'africastalking' | 'didit', body: string, type = 'application/json'): InboundEvent[] => eventsFromInbound(kind, Buffer.from(body), type)
  const report = [{ requestId: 'r-1', report: [{ number: '910000000001', status: '1', desc: 'DELIVERED' }, { number: '910000000002', status: '17', failedReason: 'Blocked number' }] }]
  const form = new URLSearchParams({ data: JSON.stringify(report) }).toString()
  const events = read('msg91', form, 'application/x-www-form-urlencoded; charset=utf-8')
  t.match(events, [{ providerId: 'r-1', toMasked: '9100****0001', outcome: 'DELIVERED' }, { outcome: 'FAILED', reason: 'Blocked number' }])
  t.equal(new Set(events.map(event => event.eventId)).size, 2)
  t.match(read('msg91', JSON.stringify({ requestId: 'r-2', number: '910000000001', status: '9' })), [{ providerId: 'r-2', outcome: 'FAILED' }])
  t.match(read('beem', JSON.stringify({ request_id: 77, dest_addr: '255000000001', status: 'DELIVERED' })), [{ providerId: '77', outcome: 'DELIVERED' }])
  t.match(read('beem', JSON.stringify([{ request_id: 77, recipient: '255000000001', status: 'PENDING' }])), [{ outcome: 'PENDING' }])
  const failed = (reason: string): InboundEvent[] =>
    read('africastalking', `id=a&status=Failed&phoneNumber=%2B255000000001&failureReason=${reason}`, 'application/x-www-form-urlencoded')
  t.match(failed('UserInBlackList'), [{ outcome: 'FAILED', reason: 'UserInBlackList' }])
  t.match(failed('no+255000000001'), [{ reason: null }], 'a reason with a number in it is not kept')
  t.same(read('didit', JSON.stringify({ webhook_type: 'transaction.created', session_id: 's', status: 'x' })), [], 'events that concern nothing here')
  for (const [kind, body] of [
    ['didit', '{'], ['didit', '[]'], ['didit', '{"session_id":"s","status":"Melted"}'], ['didit', '{"session_id":{},"status":"Approved"}'], ['msg91', '{"data":"{"}'], ['msg91', '[1]'],
    ['beem', '{"request_id":"1"}'], ['africastalking', '{"id":"1"}']
  ] as const) {
    t.throws(() => read(kind, body), { code: 'INPUT_INVALID' }, `${kind} ${body}`)
  }
})

t.test('sources come from the settings, only those with a secret, newest secret first', async t => {
  const sourcesOf = (env: Record<string, string>): unknown => inboundSourcesFromSettings(parseIntegrationConfig(env, () => ''))
    .map(({ name, proof, secrets }) => [name, proof, secrets.map(secret => secret.reveal())])
  t.same(sourcesOf({}), [])
  t.same(sourcesOf({ DIDIT_API_WEBHOOK_SECRET: 'new', DIDIT_API_WEBHOOK_SECRET_PREVIOUS: 'old', SMS_API_PROVIDER: 'beem', SMS_API_WEBHOOK_SECRET: 'token' }),
    [['didit', 'hmac', ['new', 'old']], ['beem', 'token', ['token']]])
  t.same(sourcesOf({ SMS_API_PROVIDER: 'infobip', SMS_API_WEBHOOK_SECRET: 'token' }), [], 'a gateway whose reports are not read')
  t.same(sourcesOf({ SMS_API_PROVIDER: 'didit', SMS_API_WEBHOOK_SECRET: 'token' }), [])
})
