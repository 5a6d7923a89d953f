// One payment in, one voice out: who speaks, where it is recorded, how it is sent, and what a repeat gets. And the boxes of a vendor
// with a server of its own, against a server that does what such servers do.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { SoundboxError } from '../../protocol/index.js'
import { BREAKER_POLICY } from '../../gateway/breaker.js'
import type { DeliveryChange } from '../../gateway/store/contract.js'
import type { Device } from '../../gateway/store/directory.js'
import { openAnnounce, type PaymentOrder, RECENT_MAX } from '../../gateway/trigger/announce.js'
import type { Waiting } from '../../gateway/trigger/backlog.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { makeSequence } from '../../gateway/trigger/sequence.js'
import { openVendorPush, VENDOR_ANSWER_BYTES_MAX, VENDOR_WAITING_MAX } from '../../gateway/trigger/vendor-push.js'
import { aBank, aDevice, anItem, handClock, memoryFallback, memoryStore, settled } from '../support/heart-fakes.js'
import { collectLog } from '../support/store-records.js'

const WITH = aBank('pnb')
const WITHOUT = aBank('idbi', { database: false })

function openWorld () {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const fallback = memoryFallback()
  const log = collectLog()
  const devices = new Map<string, Device>([
    ['BOX1', aDevice('BOX1')], ['BOX2', aDevice('BOX2', { language: 'TAMIL' })], ['OFF', aDevice('OFF', { status: 'inactive' })], ['ODD', aDevice('ODD', { type: 'nonsense' })]
  ])
  const mappings = new Map<string, string[]>([
    ['pnb shop@upi', ['BOX1', 'BOX2']], ['pnb one@upi', ['BOX1']], ['pnb off@upi', ['OFF']], ['pnb half@upi', ['OFF', 'BOX1']], ['pnb odd@upi', ['ODD']], ['idbi ', ['BOX1']]
  ])
  const sent: Waiting[] = []
  const fails = new Map<string, SoundboxError>()
  let fallbacks = 0
  const announce = openAnnounce({
    directory: { device: tid => devices.get(tid), devicesOf: (bank, merchant) => mappings.get(`${bank} ${merchant}`) ?? [] }, store, fallback,
    async send (device, item) {
      await Promise.resolve()
      const failure = fails.get(device.tid)
      if (failure !== undefined) throw failure
      sent.push(item)
    },
    checkType (type) { if (type === 'nonsense') throw new SoundboxError('DEVICE_TYPE_INVALID', 'Invalid Device type') },
    speakMs: 60_000, nowMs: clock.nowMs, nextSeq: makeSequence(clock.nowMs), meter: { ...SILENT_METER, fallbackUsed: () => { fallbacks++ } }, log
  })
  return { clock, store, fallback, log, devices, mappings, sent, fails, announce, fallbacks: () => fallbacks }
}

function order (transactionId: string, more: Partial<PaymentOrder> = {}): PaymentOrder {
  return { bank: WITH, transactionId, merchant: 'one@upi', tid: null, language: null, amountMinor: 1900, txnType: 'UPI', status: 'success', currency: 'INR', source: 'http', ...more }
}

t.test('a payment is recorded with one delivery a box, sent to each, and told', async t => {
  const { announce, sent, store } = openWorld()
  t.match(await announce(order('T1', { merchant: 'shop@upi' })), { repeated: false, tids: ['BOX1', 'BOX2'], payment: { transactionId: 'T1', merchant: 'shop@upi', listed: true } })
  t.match(sent, [{ tid: 'BOX1', language: 'ENGLISH', kind: 'payment', amountMinor: 1900, state: 'accepted' }, { tid: 'BOX2', language: 'TAMIL' }])
  t.ok((sent[1]?.seq ?? 0) > (sent[0]?.seq ?? 0))
  t.match(store.model.findPayment('pnb', 'T1'), { deliveries: [{ tid: 'BOX1' }, { tid: 'BOX2' }] })
  await announce(order('T2', { language: 'URDU' }))
  t.match(sent[2], { language: 'URDU' }, 'the language of the request overrides the one of the box')
})

t.test('who does not speak is told why', async t => {
  const { announce, store } = openWorld()
  await t.rejects(announce(order('T1', { merchant: 'nobody@upi' })), { code: 'VPA_UNKNOWN', message: 'VPA Not found in database' })
  await t.rejects(announce(order('T1', { merchant: null })), { code: 'VPA_UNKNOWN' })
  await t.rejects(announce(order('T1', { merchant: 'off@upi' })), { code: 'DEVICE_INACTIVE', message: 'Device is inactive' })
  await t.rejects(announce(order('T1', { merchant: 'one@upi', tid: 'BOX2' })), { code: 'DEVICE_INACTIVE' }, 'a box that is not of this merchant')
  await t.rejects(announce(order('T1', { merchant: 'odd@upi' })), { code: 'DEVICE_TYPE_INVALID' })
  await t.rejects(announce(order('T1', { bank: WITHOUT, tid: 'BOX2' })), { code: 'DEVICE_INACTIVE' }, 'a box of another bank')
  t.equal(store.model.counts().payments, 0)
  t.match(await announce(order('T1', { merchant: 'half@upi' })), { tids: ['BOX1'] }, 'the active one of two speaks')
  t.match(await announce(order('T2', { merchant: 'shop@upi', tid: 'BOX2' })), { tids: ['BOX2'] }, 'one box named of two')
  t.match(await announce(order('T3', { bank: WITHOUT, tid: 'BOX1', merchant: 'any@upi' })), { tids: ['BOX1'], payment: { listed: false, merchant: null } })
})

t.test('a failed payment is recorded and not sent, unless the bank wants it said', async t => {
  const { announce, sent, store } = openWorld()
  t.match(await announce(order('T1', { status: 'failed' })), { repeated: false, tids: [] })
  t.same(sent, [])
  t.match(store.model.findPayment('pnb', 'T1'), { payment: { status: 'failed' }, deliveries: [] })
  const loud = openWorld()
  loud.mappings.set('loud one@upi', ['BOX1'])
  await loud.announce(order('T1', { status: 'failed', bank: aBank('loud', { announceFailed: true }) }))
  t.match(loud.sent, [{ kind: 'failed-payment' }])
})

t.test('many at once of one payment are one, with one answer; other content is refused at every moment', async t => {
  const { announce, sent, store } = openWorld()
  const all = await Promise.all(Array.from({ length: 100 }, () => announce(order('T1'))))
  t.equal(all.filter(({ repeated }) => !repeated).length, 1)
  t.equal(new Set(all.map(({ repeated: _, ...rest }) => JSON.stringify(rest))).size, 1)
  t.equal(sent.length, 1)
  const first = announce(order('T2'))
  await t.rejects(announce(order('T2', { amountMinor: 9100 })), { code: 'PAYMENT_CONFLICT' }, 'while the first is under way')
  await first
  await t.rejects(announce(order('T2', { amountMinor: 9100 })), { code: 'PAYMENT_CONFLICT' }, 'from memory')
  const [unknown, known, other] = await Promise.allSettled([announce(order('T3', { merchant: 'nobody@upi' })), announce(order('T3')), announce(order('T3', { amountMinor: 9100 }))])
  t.match([unknown, known, other].map(one => one.status), ['rejected', 'fulfilled', 'rejected'], 'a first that was not recorded is no conflict')
  t.match(other, { reason: { code: 'PAYMENT_CONFLICT' } })
  store.calls.length = 0
  t.match(await announce(order('T2')), { repeated: true })
  t.same(store.calls, [], 'a recent one costs no query')
  t.match(await announce(order('T1', { bank: aBank('other'), merchant: 'one@upi' })).catch((error: unknown) => error), { code: 'VPA_UNKNOWN' }, 'another bank may use the same id')
  t.ok(RECENT_MAX >= 10_000)
})

t.test('a repeat after a restart gets the first answer from the store, and other content the conflict', async t => {
  const before = openWorld()
  const first = await before.announce(order('T1', { merchant: 'shop@upi' }))
  const after = openWorld()
  after.clock.advance(1000)
  after.store.recordPayment = before.store.recordPayment
  after.store.findPayment = before.store.findPayment
  t.same(await after.announce(order('T1', { merchant: 'shop@upi' })), { ...first, repeated: true })
  t.match(after.sent, [{ tid: 'BOX1', doubtful: true, issuedAt: first.payment.acceptedAt }, { tid: 'BOX2', doubtful: true }], 'nobody knows whether these were sent: the pump is told so')
  await t.rejects(after.announce(order('T1', { merchant: 'shop@upi', amountMinor: 1 })), { code: 'PAYMENT_CONFLICT' })
  after.mappings.clear()
  const gone = openWorld()
  Object.assign(gone.store, { recordPayment: before.store.recordPayment, findPayment: before.store.findPayment })
  gone.mappings.clear()
  t.same(await gone.announce(order('T1', { merchant: 'shop@upi' })), { ...first, repeated: true }, 'also when the merchant is mapped no more')
  t.same(gone.sent, [])
  await t.rejects(gone.announce(order('T1', { merchant: 'shop@upi', txnType: 'POS' })), { code: 'PAYMENT_CONFLICT' })
  await t.rejects(gone.announce(order('T9', { merchant: 'shop@upi' })), { code: 'VPA_UNKNOWN' }, 'a new one is not helped by that')
})

t.test('while the store refuses the fallback records, knows repeats, and everything is sent all the same', async t => {
  const world = openWorld()
  const { announce, store, fallback, sent } = world
  await announce(order('KNOWN'))
  store.refuses.writes = true
  const first = await announce(order('T1', { merchant: 'shop@upi' }))
  t.match(first, { repeated: false, tids: ['BOX1', 'BOX2'] })
  t.equal(sent.length, 3)
  t.match(fallback.records, [{ kind: 'payment', payment: { transactionId: 'T1' }, deliveries: [{ tid: 'BOX1' }, { tid: 'BOX2' }] }])
  t.equal(world.fallbacks(), 1)
  const later = openWorld()
  Object.assign(later.store, { recordPayment: store.recordPayment, findPayment: store.findPayment })
  Object.assign(later.fallback, { findPayment: fallback.findPayment })
  t.same(await later.announce(order('T1', { merchant: 'shop@upi' })), { ...first, repeated: true }, 'known by the fallback, with the first answer')
  await t.rejects(later.announce(order('T1', { merchant: 'shop@upi', amountMinor: 5 })), { code: 'PAYMENT_CONFLICT' })
  t.match(await later.announce(order('KNOWN')), { repeated: true }, 'known by the reader of the store')
  t.equal(later.fallback.records.length, 0)
  store.refuses.writes = false
  const healed = openWorld()
  Object.assign(healed.store, { recordPayment: store.recordPayment, findPayment: store.findPayment })
  Object.assign(healed.fallback, { findPayment: fallback.findPayment })
  t.same(await healed.announce(order('T1', { merchant: 'shop@upi' })), { ...first, repeated: true }, 'also when the store takes payments again before the drain')
  healed.mappings.clear()
  const unmapped = openWorld()
  Object.assign(unmapped.fallback, { findPayment: fallback.findPayment })
  unmapped.mappings.clear()
  t.match(await unmapped.announce(order('T1', { merchant: 'shop@upi' })), { repeated: true, tids: ['BOX1', 'BOX2'] }, 'and when the merchant is mapped no more')
})

t.test('a bank without database is not put into the fallback; a record that nobody takes is STORE_FAILED', async t => {
  const { announce, store, fallback, sent } = openWorld()
  Object.assign(store.refuses, { writes: true, reads: true })
  t.match(await announce(order('T1', { bank: WITHOUT, tid: 'BOX1' })), { repeated: false })
  t.match(await announce(order('T1', { bank: WITHOUT, tid: 'BOX1' })), { repeated: true }, 'the duplicate is known')
  t.equal(fallback.records.length, 0)
  t.equal(sent.length, 1)
  fallback.refuses.appends = true
  await t.rejects(announce(order('T2')), { code: 'STORE_FAILED', message: 'Database error' })
  t.equal(sent.length, 1, 'nothing is said that is not recorded')
  fallback.refuses.appends = false
  t.match(await announce(order('T2')), { repeated: false }, 'and the next try is a first one')
  store.recordPayment = () => Promise.reject(new TypeError('a fault of ours'))
  await t.rejects(announce(order('T3')), { name: 'TypeError' }, 'a fault of ours is not hidden in the fallback')
})

t.test('one box that is reached is enough; none is the error of the first, and a second try sends again', async t => {
  const { announce, fails, sent, log } = openWorld()
  fails.set('BOX1', new SoundboxError('PUBLISH_FAILED', 'the broker cannot be reached'))
  t.match(await announce(order('T1', { merchant: 'shop@upi' })), { tids: ['BOX1', 'BOX2'] })
  t.match(log.lines, [{ level: 'warn', fields: { tid: 'BOX1' } }])
  await t.rejects(announce(order('T2')), { code: 'PUBLISH_FAILED' })
  await t.rejects(announce(order('T2')), { code: 'PUBLISH_FAILED' }, 'not answered from memory')
  fails.clear()
  t.match(await announce(order('T2')), { repeated: true })
  t.equal(sent.filter(item => item.amountMinor === 1900).length, 2)
})

t.test('a slow box does not keep the others waiting', async t => {
  const world = openWorld()
  const heard: string[] = []
  const announce = openAnnounce({
    directory: { device: tid => world.devices.get(tid), devicesOf: () => ['BOX1', 'BOX2'] }, store: world.store, fallback: world.fallback, checkType: () => {},
    send: async device => {
      if (device.tid === 'BOX1') await new Promise(resolve => { world.clock.startTimer(() => { resolve(undefined) }, 3000) })
      heard.push(device.tid)
    },
    speakMs: 60_000, nowMs: world.clock.nowMs, nextSeq: makeSequence(world.clock.nowMs), meter: SILENT_METER, log: world.log
  })
  const answer = announce(order('T1', { merchant: 'shop@upi' }))
  await settled()
  t.same(heard, ['BOX2'])
  world.clock.advance(3000)
  await answer
  t.same(heard, ['BOX2', 'BOX1'])
})

type Handler = (request: IncomingMessage, body: string, response: ServerResponse) => void
async function openVendor (t: Test, more: { timeoutMs?: number, settle?: () => Promise<void> } = {}) {
  const requests: { url: string | undefined, body: Record<string, unknown> }[] = []
  const answer: { handler: Handler } = { handler: (_request, _body, response) => { response.end('{"status":"0"}') } }
  const server = createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (chunk: string) => { body += chunk }).on('end', () => {
      requests.push({ url: request.url, body: JSON.parse(body) as Record<string, unknown> })
      answer.handler(request, body, response)
    })
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  })
  const clock = handClock()
  const changes: DeliveryChange[] = []
  const base = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/ypp/` as string | undefined }
  const log = collectLog()
  const vendor = openVendorPush({
    baseUrlOf: () => base.url, settle: more.settle ?? (async list => { changes.push(...list) }), nowMs: clock.nowMs, timeoutMs: more.timeoutMs ?? 2000, meter: SILENT_METER, log
  })
  return { requests, answer, clock, changes, vendor, base, log, item: (n: number) => anItem(n, clock.nowMs(), { tid: 'YPP1' }) }
}
const YPP = aDevice('YPP1', { type: 'ypp' })

t.test('a vendor is told all it needs, and what it took is handed', async t => {
  const { vendor, requests, changes, item } = await openVendor(t)
  const one = item(19)
  await vendor.push(YPP, one)
  t.same(requests, [{ url: '/ypp/announce', body: {
    device_serial_no: 'YPP1', transaction_id: one.announcementId, amount: '19.00', currency: 'INR', language: 'ENGLISH', txn_type: 'UPI', kind: 'payment', issued_at: one.issuedAt
  } }])
  t.match(changes, [{ tid: 'YPP1', announcementId: one.announcementId, state: 'published' }, { state: 'handed' }])
  t.equal(vendor.waiting(), 0)
})

t.test('every way of a vendor to say no is VENDOR_FAILED and is tried again while fresh', async t => {
  const { vendor, answer, clock, changes, item, requests } = await openVendor(t, { timeoutMs: 300 })
  const ways: [string, Handler][] = [
    ['status 1', (_q, _b, r) => { r.end('{"status":1}') }],
    ['status "1"', (_q, _b, r) => { r.end('{"status":"1","message":"no"}') }],
    ['500', (_q, _b, r) => { r.writeHead(500).end('{"status":"0"}') }],
    ['404', (_q, _b, r) => { r.writeHead(404).end() }],
    ['redirect', (_q, _b, r) => { r.writeHead(307, { location: '/elsewhere' }).end() }],
    ['huge', (_q, _b, r) => { r.end('x'.repeat(VENDOR_ANSWER_BYTES_MAX + 1)) }],
    ['slow', () => {}],
    ['cut off', (_q, _b, r) => { r.destroy() }]
  ]
  let n = 0
  for (const [way, handler] of ways) {
    answer.handler = handler
    await t.rejects(vendor.push(YPP, item(++n)), { code: 'VENDOR_FAILED', message: 'Error getting YPP external server error' }, way)
  }
  t.equal(vendor.waiting(), ways.length)
  t.same(changes, [])
  answer.handler = (_q, _b, r) => { r.end('x'.repeat(VENDOR_ANSWER_BYTES_MAX)) }
  await vendor.sweep()
  t.equal(vendor.waiting(), 0, 'an answer at the limit that is no JSON is taken for a yes')
  t.equal(changes.filter(({ state }) => state === 'handed').length, ways.length)
  answer.handler = (_q, _b, r) => { r.writeHead(500).end() }
  await t.rejects(vendor.push(YPP, item(++n)), { code: 'VENDOR_FAILED' })
  clock.advance(60_000)
  const before = requests.length
  await vendor.sweep()
  t.equal(vendor.waiting(), 0, 'a stale one is given up')
  await vendor.push(YPP, { ...item(++n), expiresAt: clock.nowMs() })
  t.equal(requests.length, before, 'and never pushed')
})

t.test('a vendor that keeps failing is spared for a while, and asked once before it is trusted again', async t => {
  const { vendor, answer, clock, item, requests } = await openVendor(t)
  answer.handler = (_q, _b, r) => { r.writeHead(503).end() }
  for (let n = 1; n <= BREAKER_POLICY.callsMin; n++) await t.rejects(vendor.push(YPP, item(n)), { code: 'VENDOR_FAILED' })
  t.equal(requests.length, BREAKER_POLICY.callsMin)
  await t.rejects(vendor.push(YPP, item(50)), { code: 'VENDOR_FAILED' })
  t.equal(requests.length, BREAKER_POLICY.callsMin, 'the breaker is open: no call')
  clock.advance(BREAKER_POLICY.openMs)
  answer.handler = (_q, _b, r) => { r.end('{"status":0}') }
  await vendor.sweep()
  t.equal(vendor.waiting(), 0)
})

t.test('a vendor without a usable base URL is BASE_URL_INVALID, and is not asked', async t => {
  const { vendor, base, item, requests } = await openVendor(t)
  for (const url of [undefined, '', 'not a url', 'ftp://vendor.example', 'file:///etc/passwd']) {
    base.url = url
    await t.rejects(vendor.push(YPP, item(1)), { code: 'BASE_URL_INVALID', message: 'Invalid Base url' }, String(url))
  }
  t.same(requests, [])
})

t.test('one announcement is pushed once at a time, and what was taken back is not pushed by a sweep', async t => {
  const { vendor, answer, item, requests } = await openVendor(t)
  const held: ServerResponse[] = []
  answer.handler = (_q, _b, r) => { held.push(r) }
  const both = [vendor.push(YPP, item(1)), vendor.push(YPP, item(1))]
  while (held.length === 0) await settled(1)
  held[0]?.end('{"status":"0"}')
  await Promise.all(both)
  t.equal(requests.length, 1)
  const failing = vendor.push(YPP, item(2))
  while (held.length === 1) await settled(1)
  vendor.withdraw('YPP1', item(2).announcementId)
  held[1]?.writeHead(500).end()
  await t.rejects(failing, { code: 'VENDOR_FAILED' })
  vendor.adopt(YPP, item(3))
  vendor.withdraw('YPP1', item(3).announcementId)
  await vendor.sweep()
  t.equal(requests.length, 2)
  t.equal(vendor.waiting(), 0)
})

t.test('what the vendor took is not pushed again because history failed, and what waits for it is bounded', async t => {
  const { vendor, item, log, requests } = await openVendor(t, { settle: () => Promise.reject(new SoundboxError('STORE_FAILED', 'full')) })
  await vendor.push(YPP, item(1))
  t.match(log.lines, [{ level: 'error' }])
  for (let n = 0; n <= VENDOR_WAITING_MAX; n++) vendor.adopt(YPP, item(n))
  t.equal(vendor.waiting(), VENDOR_WAITING_MAX, 'the oldest gave way')
  t.equal(requests.length, 1)
})
