// What a request of a switch does when the parts behind it refuse: handlers over fakes that record what they were asked.
import t from 'tap'
import { codeOfError } from '../../gateway/iso8583/dialect.js'
import { type HandlerDeps, openHandlers } from '../../gateway/iso8583/handlers.js'
import { paymentFromIso } from '../../gateway/iso8583/payment.js'
import { parsePeer } from '../../gateway/iso8583/peers.js'
import type { Delivery, Payment, StoredPayment } from '../../gateway/store/contract.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { type ErrorCode, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import { purchase, reversal } from '../support/raw-switch.js'

const NOW = Date.UTC(2026, 10, 29)
const BANK = { id: 'pnb', database: true, disabledAt: null }
const { transactionId } = paymentFromIso(purchase(1))

function delivery (more: Partial<Delivery>): Delivery {
  return {
    tid: 'SB-1', announcementId: 'a'.repeat(32), kind: 'payment', language: 'HINDI', seq: 1, amountMinor: 1900, currency: 'INR', txnType: 'CARD', count: null,
    issuedAt: NOW, expiresAt: NOW + 1, bankId: 'pnb', transactionId, state: 'spoken', publishedAt: NOW, deliveredAt: NOW, finalAt: NOW, queuedMs: null,
    audioMs: null, reason: null, summaryId: null, ...more
  }
}

function stored (more: Partial<StoredPayment> = {}): StoredPayment {
  const payment: Payment = {
    bankId: 'pnb', transactionId, merchant: 'merchant0000001', amountMinor: 1900, currency: 'INR', txnType: 'CARD', language: null, status: 'success', source: 'iso8583', contentHash: '0'.repeat(32),
    acceptedAt: NOW, listed: true
  }
  return { payment, deliveries: [delivery({})], reversedAt: null, ...more }
}

type World = { ask: (request: Message, profile?: object) => Promise<string>, did: string[], outcomes: string[] }

function openWorld (fakes: Partial<HandlerDeps> = {}): World {
  const did: string[] = []
  const outcomes: string[] = []
  const deps: HandlerDeps = {
    directory: { bankById: () => BANK as never, devicesOf: () => ['SB-1'], device: () => ({ tid: 'SB-1' }) as never },
    announce: async order => {
      did.push(`announce ${order.transactionId}`)
      return { repeated: false } as never
    },
    reverse: async (_bank, id) => {
      did.push(`reverse ${id}`)
      return stored({ reversedAt: NOW })
    },
    notify: async (_device, notice) => { did.push(`say ${notice.kind} ${notice.language} ${notice.amountMinor}`) },
    nextSeq: () => 1, speakMs: 60_000,
    store: { recordPayment: async payment => { did.push(`record ${payment.transactionId}`); return { outcome: 'new' } }, findPayment: async () => stored(), findTransactions: async () => [] },
    fallback: { findPayment: () => undefined }, cbs: async () => ({ code: '00', fields: { 54: '1' } }), nowMs: () => NOW,
    meter: { ...SILENT_METER, outcome: (_source, code) => { outcomes.push(code) } },
    log: SILENT_LOG, ...fakes
  }
  const handle = openHandlers(deps)
  return {
    did, outcomes,
    ask: async (request, profile = {}) => {
      const peer = parsePeer({ name: 'a', bank: 'pnb', addresses: [], ...profile }, 'test', () => '')
      return await handle(request, peer).then(answer => answer.fields['39'] ?? '', codeOfError)
    }
  }
}

const failing = (code: ErrorCode) => async (): Promise<never> => { throw new SoundboxError(code, 'x') }

t.test('what the heart refuses is DE 39; an advice is acknowledged once it is recorded', async t => {
  const rows: [ErrorCode, string, string][] = [
    ['PUBLISH_FAILED', '91', '00'], ['VENDOR_FAILED', '91', '00'], ['STORE_FAILED', '96', '96'], ['VPA_UNKNOWN', '03', '03'],
    ['DEVICE_INACTIVE', '58', '58'], ['DEVICE_TYPE_INVALID', '03', '03'], ['OVERLOADED', '91', '91']
  ]
  for (const [code, request, advice] of rows) {
    const world = openWorld({ announce: failing(code) })
    t.same([await world.ask(purchase(1)), await world.ask(purchase(1, {}, '0220'))], [request, advice], code)
    t.same(world.outcomes, [code, code])
  }
  const world = openWorld({ announce: async () => { throw new TypeError('of ours') } })
  t.equal(await world.ask(purchase(1)), '96')
  t.same(world.outcomes, ['SERVER_FAULT'])
})

t.test('a conflict is a conflict, unless the payment was reversed before it came', async t => {
  const silent = stored({ reversedAt: NOW, deliveries: [] })
  const rows: [StoredPayment | undefined, string][] = [
    [silent, '00'], [stored({ reversedAt: NOW }), '94'], [stored({ deliveries: [] }), '94'], [undefined, '94'], [{ ...silent, payment: { ...silent.payment, amountMinor: 1 } }, '94']
  ]
  for (const [found, want] of rows) {
    const world = openWorld({ announce: failing('PAYMENT_CONFLICT'), store: { recordPayment: failing('STORE_FAILED'), findPayment: async () => found, findTransactions: async () => [] } })
    t.equal(await world.ask(purchase(1)), want)
  }
})

t.test('a bank that cannot be served is 91, whatever is asked', async t => {
  for (const bank of [undefined, { ...BANK, disabledAt: 1 }, { ...BANK, database: false }]) {
    const world = openWorld({ directory: { bankById: () => bank as never, devicesOf: () => [], device: () => undefined } })
    for (const request of [purchase(1), reversal(purchase(1), 2), purchase(3, { 3: '310000' })]) t.equal(await world.ask(request), '91')
    t.same(world.did, [])
  }
})

t.test('a reversal needs its store; one whose payment waits in the fallback is to be repeated', async t => {
  const waiting = openWorld({ fallback: { findPayment: () => ({ payment: stored().payment, deliveries: [] }) } })
  t.equal(await waiting.ask(reversal(purchase(1), 2)), '96')
  t.same(waiting.did, [])
  const broken = openWorld({ store: { recordPayment: failing('STORE_FAILED'), findPayment: async () => undefined, findTransactions: async () => [] } })
  t.equal(await broken.ask(reversal(purchase(1), 2, '0420')), '96')
  const early = openWorld({ store: { recordPayment: openWorld().ask as never, findPayment: async () => undefined, findTransactions: async () => [] } })
  const original = reversal(purchase(1), 2).fields['90']!
  t.equal(await early.ask({ mti: '0400', fields: { 90: original, 37: '633400000001', 41: 'TERM0200', 11: '000002' } }), '30', 'not known, and too little said to record it')
})

t.test('the reversed phrase is for boxes that said it or were about to, once, and its failure is not the switch\'s', async t => {
  const deliveries = [delivery({}), delivery({ state: 'reversed', publishedAt: NOW }), delivery({ state: 'reversed', publishedAt: null }),
    delivery({ state: 'expired' }), delivery({ state: 'spoken', kind: 'failed-payment' })]
  const reverse = async (): Promise<StoredPayment> => stored({ reversedAt: NOW, deliveries })
  const loud = openWorld({ reverse })
  t.equal(await loud.ask(reversal(purchase(1), 2), { sayReversed: true }), '00')
  t.same(loud.did, ['say reversed-payment HINDI 1900', 'say reversed-payment HINDI 1900'])
  const quiet = openWorld({ reverse })
  await quiet.ask(reversal(purchase(1), 2))
  t.same(quiet.did, [])
  const repeat = openWorld({ reverse: async () => stored({ reversedAt: NOW - 1, deliveries }) })
  t.equal(await repeat.ask(reversal(purchase(1), 2, '0421'), { sayReversed: true }), '00')
  t.same([repeat.did, repeat.outcomes], [[], ['REPEAT']])
  const failed = openWorld({ reverse, notify: failing('STORE_FAILED') })
  t.equal(await failed.ask(reversal(purchase(1), 2), { sayReversed: true }), '00')
  const gone = openWorld({ reverse, directory: { bankById: () => BANK as never, devicesOf: () => [], device: () => undefined } })
  t.equal(await gone.ask(reversal(purchase(1), 2), { sayReversed: true }), '00')
})

t.test('a peer reverses and asks only what it may name', async t => {
  const world = openWorld()
  t.equal(await world.ask(reversal(purchase(1), 2), { merchants: ['other'] }), '03')
  t.equal(await world.ask(reversal(purchase(1), 2), { terminals: ['OTHER'] }), '58')
  const question = purchase(3, { 3: '310000' })
  t.equal(await world.ask(question), '00')
  t.equal(await world.ask(question, { mayAsk: false }), '58')
  t.equal(await world.ask(question, { terminals: ['OTHER'] }), '58')
  t.equal(await world.ask({ ...question, mti: '0220' }), '12', 'a question is no advice')
  t.same(world.did, [])
  t.equal(await openWorld({ cbs: failing('PROVIDER_TIMEOUT') }).ask(question), '91')
})
