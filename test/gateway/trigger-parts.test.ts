// The small parts of the heart, each for itself: who is calling, how often, what becomes of what was missed, the book of deliveries.
import t from 'tap'
import { AMOUNT_MINOR_MAX, type CipherProfile, deriveKey, type EnvelopeKey, isSoundboxError, keyedHash, sealEnvelope } from '../../protocol/index.js'
import type { DeliveryChange } from '../../gateway/store/contract.js'
import { type Bank, type BankKey, type Directory, isLive } from '../../gateway/store/directory.js'
import { authenticate, EPOCH_AGE_MS_MAX, EPOCH_AHEAD_MS_MAX, type TriggerHeaders, unnamedTransactionId } from '../../gateway/trigger/authenticate.js'
import { AGE_POLICY, judgeWaiting, nextStep, summariesOf, type Verdict, type Waiting } from '../../gateway/trigger/backlog.js'
import { LISTENERS_MAX, openFeed } from '../../gateway/trigger/feed.js'
import { NOTE_DELAY_MS, NOTES_MAX, openLedger, STRANGE_FINALS_MAX } from '../../gateway/trigger/ledger.js'
import { BUCKETS_MAX, openRateLimit, takeToken } from '../../gateway/trigger/rate.js'
import { makeSequence } from '../../gateway/trigger/sequence.js'
import { aBank, anItem, handClock, memoryFallback, memoryStore, settled } from '../support/heart-fakes.js'
import { openRandom, seedsOf } from '../support/random.js'
import { collectLog, hexOf, START_MS, stepOf } from '../support/store-records.js'

const HASH_KEY = deriveKey(Buffer.alloc(32, 7), 'hash')

function aKey (name: string, more: Partial<BankKey> = {}): BankKey {
  return {
    keyId: name, clientId: `id-${name}`, clientSecretHash: keyedHash(HASH_KEY, `secret-${name}`), headerKey: Buffer.alloc(32, name), payloadKey: Buffer.alloc(32, `${name}p`),
    validFrom: 0, validTo: null, ...more
  }
}

function openDoor (banks: readonly Bank[]) {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const hashed: string[] = []
  const directory = {
    bankByPassKey: (passKey: string) => banks.find(bank => bank.passKey === passKey),
    hashOf (secret: string) {
      hashed.push(secret)
      return keyedHash(HASH_KEY, secret)
    }
  } as unknown as Directory
  const call = (headers: Partial<TriggerHeaders>, body: string) => authenticate(
    { directory, store, nowMs: clock.nowMs }, { passKey: undefined, headerSecrets: undefined, clientId: undefined, clientSecret: undefined, ...headers }, body
  )
  return { clock, store, hashed, call }
}

type Sealing = { key?: string, profile?: Exclude<CipherProfile, 'none'>, passKey?: string, secrets?: Record<string, unknown>, epoch?: unknown, columns?: object }
/** A request of bank `pnb`, with one thing wrong where the test says so. */
function request (nowMs: number, sealing: Sealing = {}): [Partial<TriggerHeaders>, string] {
  const { key = 'A', profile = 'aes-256-cbc', passKey = 'pass-pnb', secrets, epoch = String(Math.floor(nowMs / 1000)), columns = { column1: 'T1' } } = sealing
  const how = (bytes: Buffer): EnvelopeKey => ({ profile, key: bytes, passKey })
  const header = JSON.stringify(secrets ?? { client_id: `id-${key}`, client_secret: `secret-${key}`, epoch })
  return [{ passKey, headerSecrets: sealEnvelope(how(aKey(key).headerKey), header) }, JSON.stringify({ RequestData: sealEnvelope(how(aKey(key).payloadKey), JSON.stringify(columns)) })]
}

const PNB = aBank('pnb', {}, [aKey('A')])

t.test('a bank is let in with its body, in either spelling of its id, under both cipher profiles', async t => {
  for (const profile of ['aes-256-cbc', 'aes-256-gcm'] as const) {
    const { call, clock } = openDoor([{ ...PNB, profile }])
    t.match(await call(...request(clock.nowMs(), { profile })), { bank: { id: 'pnb' }, key: { keyId: 'A' }, body: { column1: 'T1' }, bodyMark: /^[0-9a-f]{32}$/ })
    const secrets = { Client_id: 'id-A', client_secret: 'secret-A', epoch: String(clock.nowMs()) }
    t.match(await call(...request(clock.nowMs(), { profile, secrets })), { bank: { id: 'pnb' } }, 'Client_id, and milliseconds')
  }
})

t.test('what is missing is named; everything else that is wrong has one text', async t => {
  const disabled = aBank('off', { disabledAt: START_MS, passKey: 'pass-off' }, [aKey('A')])
  const { call, clock } = openDoor([PNB, disabled, aBank('gcm', { profile: 'aes-256-gcm', passKey: 'pass-gcm' }, [aKey('A')])])
  const [headers, body] = request(clock.nowMs())
  const fresh = (): Partial<TriggerHeaders> => request(clock.nowMs())[0]
  await t.rejects(call({ headerSecrets: 'x' }, body), { code: 'PASS_KEY_MISSING', message: 'Pass_key header is missing' })
  await t.rejects(call({ passKey: '', headerSecrets: 'x' }, body), { code: 'PASS_KEY_MISSING' })
  await t.rejects(call({ passKey: 'pass-pnb' }, body), { code: 'HEADER_SECRETS_MISSING', message: 'Header Secrets is missing' })
  for (const empty of ['', '  ']) await t.rejects(call({ passKey: 'pass-pnb', headerSecrets: empty }, body), { code: 'HEADER_SECRETS_EMPTY', message: 'Header Secrets value is empty' })
  const secrets = (more: object): [Partial<TriggerHeaders>, string] => request(clock.nowMs(), { secrets: { client_id: 'id-A', client_secret: 'secret-A', epoch: String(clock.nowMs()), ...more } })
  const faults: [string, [Partial<TriggerHeaders>, string]][] = [
    ['unknown pass_key', request(clock.nowMs(), { passKey: 'nobody' })],
    ['disabled bank', request(clock.nowMs(), { passKey: 'pass-off' })],
    ['another profile', [{ ...fresh(), passKey: 'pass-gcm' }, body]],
    ['header of another key', [{ ...fresh(), headerSecrets: request(clock.nowMs(), { key: 'B' })[0].headerSecrets ?? '' }, body]],
    ['header is no base64', [{ passKey: 'pass-pnb', headerSecrets: '!!!' }, body]],
    ['header is too long', [{ passKey: 'pass-pnb', headerSecrets: 'A'.repeat(65_537) }, body]],
    ['header is no JSON', [{ passKey: 'pass-pnb', headerSecrets: sealEnvelope({ profile: 'aes-256-cbc', key: aKey('A').headerKey, passKey: '' }, 'hello') }, body]],
    ['another client id', secrets({ client_id: 'id-B' })], ['another secret', secrets({ client_secret: 'secret-B' })], ['no client id', secrets({ client_id: undefined })],
    ['client id is a number', secrets({ client_id: 5 })], ['no epoch', secrets({ epoch: undefined })], ['epoch is a number', secrets({ epoch: clock.nowMs() })],
    ['epoch of 11 digits', secrets({ epoch: '17279548781' })],
    ['no body', [fresh(), '']], ['body is no JSON', [fresh(), '{']], ['body without RequestData', [fresh(), '{}']], ['RequestData is a number', [fresh(), '{"RequestData":5}']],
    ['RequestData is empty', [fresh(), '{"RequestData":""}']], ['RequestData of another key', [fresh(), request(clock.nowMs(), { key: 'B' })[1]]],
    ['RequestData inherited', [fresh(), `{"__proto__":${body}}`]], ['RequestData is no object', [fresh(), request(clock.nowMs(), { columns: [] as object })[1]]]
  ]
  for (const [why, [head, text]] of faults) await t.rejects(call(head, text), { code: 'CREDENTIALS_INVALID', message: 'Invalid credentials' }, why)
  t.match(await call(headers, body), { bank: { id: 'pnb' } }, 'and the good one is still good')
})

t.test('an epoch counts from five minutes ago to a minute ahead, to the millisecond', async t => {
  const rows: [number, boolean][] = [[0, true], [-EPOCH_AGE_MS_MAX, true], [-EPOCH_AGE_MS_MAX - 1, false], [EPOCH_AHEAD_MS_MAX, true], [EPOCH_AHEAD_MS_MAX + 1, false]]
  for (const [offset, good] of rows) {
    const { call, clock } = openDoor([PNB])
    const sent = call(...request(clock.nowMs(), { epoch: String(clock.nowMs() + offset) }))
    if (good) t.ok(await sent, `${offset} ms`)
    else await t.rejects(sent, { code: 'EPOCH_EXPIRED', message: 'Epoch Time Limit Exceeded' }, `${offset} ms`)
  }
  const { call, clock } = openDoor([PNB])
  const [old] = request(clock.nowMs(), { epoch: String(clock.nowMs() - EPOCH_AGE_MS_MAX - 1) })
  await t.rejects(call(old, 'no body at all'), { code: 'EPOCH_EXPIRED' }, 'an old header tells nothing of the body')
})

t.test('a header opens the door once, whatever the body, unless the bank may repeat it', async t => {
  const { call, clock } = openDoor([PNB, aBank('lax', { passKey: 'pass-lax', headerReuse: 'allow' }, [aKey('A')])])
  const [headers, body] = request(clock.nowMs())
  await call(headers, body)
  await t.rejects(call(headers, body), { code: 'CREDENTIALS_INVALID' })
  await t.rejects(call({ ...headers, headerSecrets: (headers.headerSecrets ?? '').replace(/^(.{8})/, '$1\n ') }, body), { code: 'CREDENTIALS_INVALID' }, 'another spelling of the same')
  const [second] = request(clock.nowMs())
  await t.rejects(call(second, '{"RequestData":"AAAA"}'), { code: 'CREDENTIALS_INVALID' })
  await t.rejects(call(second, body), { code: 'CREDENTIALS_INVALID' }, 'a forged body takes the one try of its header')
  const [third] = request(clock.nowMs())
  const renamed = Buffer.from(third.headerSecrets ?? '', 'base64')
  renamed[3]! ^= 1
  await t.rejects(call({ ...third, headerSecrets: renamed.toString('base64') }, body), { code: 'CREDENTIALS_INVALID' }, 'a garbled header claims nothing')
  t.ok(await call(third, body))
  const lax = request(clock.nowMs(), { passKey: 'pass-lax' })
  await call(...lax)
  t.ok(await call(...lax))
})

t.test('two keys may be live in a rotation, each with its own secrets, and none before or after its time', async t => {
  const until = START_MS + 10_000
  const { call, clock } = openDoor([aBank('pnb', {}, [aKey('A', { validTo: until }), aKey('B', { validFrom: START_MS })])])
  t.match(await call(...request(clock.nowMs(), { key: 'A' })), { key: { keyId: 'A' } })
  t.match(await call(...request(clock.nowMs(), { key: 'B' })), { key: { keyId: 'B' } })
  const mixed = request(clock.nowMs(), { key: 'A', secrets: { client_id: 'id-B', client_secret: 'secret-B', epoch: String(clock.nowMs()) } })
  await t.rejects(call(...mixed), { code: 'CREDENTIALS_INVALID' }, 'the header key of one with the secrets of the other')
  await t.rejects(call(request(clock.nowMs(), { key: 'A' })[0], request(clock.nowMs(), { key: 'B' })[1]), { code: 'CREDENTIALS_INVALID' }, 'header and body of different keys')
  clock.advance(9_999)
  t.ok(await call(...request(clock.nowMs(), { key: 'A' })))
  clock.advance(1)
  await t.rejects(call(...request(clock.nowMs(), { key: 'A' })), { code: 'CREDENTIALS_INVALID' }, 'at its end')
  t.same([isLive(aKey('C', { validFrom: 5 }), 4), isLive(aKey('C', { validFrom: 5 }), 5), isLive(aKey('C', { validTo: 5 }), 5)], [false, true, false])
})

t.test('an unknown pass_key, a disabled bank and wrong keys cost the same work', async t => {
  const { call, clock, hashed, store } = openDoor([PNB, aBank('off', { disabledAt: START_MS, passKey: 'pass-off' }, [aKey('A')]), aBank('none', { passKey: 'pass-none' }, [])])
  for (const passKey of ['pass-pnb', 'pass-off', 'pass-none', 'nobody']) {
    hashed.length = 0
    await t.rejects(call(...request(clock.nowMs(), { key: 'Z', passKey })), { code: 'CREDENTIALS_INVALID' })
    t.same(hashed, [''], `one hash for ${passKey}`)
  }
  t.notOk(store.calls.includes('claimMark'), 'nobody but a proven caller takes room in the replay memory')
})

t.test('a plaintext bank shows its credentials in headers and its columns as they are', async t => {
  const { call } = openDoor([aBank('plain', { profile: 'none', passKey: 'pass-plain' }, [aKey('A')]), aBank('dead', { profile: 'none', passKey: 'pass-dead', disabledAt: 1 }, [aKey('A')])])
  const good = { passKey: 'pass-plain', clientId: 'id-A', clientSecret: 'secret-A' }
  t.match(await call(good, '{"column1":"T1"}'), { bank: { id: 'plain' }, body: { column1: 'T1' }, bodyMark: null })
  t.ok(await call(good, '{"column1":"T1"}'), 'again')
  const bad: [string, Partial<TriggerHeaders>, string][] = [
    ['no id', { ...good, clientId: undefined }, '{}'], ['no secret', { ...good, clientSecret: undefined }, '{}'], ['another secret', { ...good, clientSecret: 'secret-B' }, '{}'],
    ['another id', { ...good, clientId: 'id-B' }, '{}'], ['no JSON', good, 'x'], ['a list', good, '[]'], ['disabled', { ...good, passKey: 'pass-dead' }, '{}']
  ]
  for (const [why, headers, body] of bad) await t.rejects(call(headers, body), { code: 'CREDENTIALS_INVALID' }, why)
  t.match(unnamedTransactionId(null), /^none-[0-9a-f]{32}$/)
  t.not(unnamedTransactionId(null), unnamedTransactionId(null), 'each plaintext request is its own')
  t.equal(unnamedTransactionId('ab'), unnamedTransactionId('ab'), 'the same encrypted bytes are one payment')
})

t.test('a bucket holds one second of requests and fills as time goes by', async t => {
  const rate = (() => {
    const clock = handClock()
    return { clock, ...openRateLimit(clock.nowMs) }
  })()
  for (let n = 0; n < 10; n++) t.equal(rate.take('a', 10), 0)
  t.notOk(rate.isEmpty('b', 10))
  t.ok(rate.isEmpty('a', 10))
  t.equal(rate.take('a', 10), 100, 'told how long')
  t.equal(rate.take('b', 10), 0, 'another caller has its own')
  rate.clock.advance(98)
  t.not(rate.take('a', 10), 0)
  rate.clock.advance(4)
  t.equal(rate.take('a', 10), 0)
  rate.clock.advance(3_600_000)
  let taken = 0
  while (rate.take('a', 10) === 0) taken++
  t.equal(taken, 10, 'an hour of silence saves up one second')
  t.same(takeToken({ tokens: 0.5, at: 1000 }, 1, 500), { bucket: { tokens: 0.5, at: 500 }, waitMs: 500 }, 'a clock that steps back gives nothing')
  for (let n = 0; n <= BUCKETS_MAX; n++) rate.take(`caller ${n}`, 1)
  t.equal(rate.take('caller 0', 1), 0, 'the caller forgotten longest ago starts anew: memory is bounded')
})

t.test('the verdict over what waits follows its age, its state and its kind', async t => {
  const { speakMs, summaryMs } = AGE_POLICY
  const states: [string, Partial<Waiting>, Verdict, Verdict, Verdict][] = [
    ['accepted', {}, 'speak', 'summarise', 'expire'], ['published', { state: 'published' }, 'speak', 'ask', 'expire'], ['delivered', { state: 'delivered' }, 'speak', 'ask', 'expire'],
    ['doubtful', { doubtful: true }, 'speak', 'ask', 'expire']
  ]
  for (const [name, more, young, missed, old] of states) {
    const item: Waiting = { ...anItem(1, 0), ...more }
    const ages: [number, Verdict][] = [[0, young], [speakMs, young], [speakMs + 1, missed], [summaryMs, missed], [summaryMs + 1, old]]
    for (const [age, want] of ages) t.equal(judgeWaiting(item, age, AGE_POLICY), want, `${name} at ${age}`)
  }
  const summary = (state: Waiting['state']): Waiting => ({ ...anItem(1, 0), kind: 'summary', state, expiresAt: 1000 })
  const rows: [Waiting['state'], number, Verdict][] = [
    ['accepted', 999, 'speak'], ['accepted', 1000, 'expire'], ['published', 999, 'speak'], ['published', 1000, 'ask'], ['delivered', summaryMs + 1, 'expire']
  ]
  for (const [state, at, want] of rows) {
    t.equal(judgeWaiting(summary(state), at, AGE_POLICY), want, `summary ${state} at ${at}`)
  }
  for (const kind of ['failed-payment', 'reversed-payment', 'test', 'prompt'] as const) {
    const item: Waiting = { ...anItem(1, 0), kind, expiresAt: 1000 }
    t.same([judgeWaiting(item, 999, AGE_POLICY), judgeWaiting(item, 1000, AGE_POLICY), judgeWaiting({ ...item, state: 'published' }, 1000, AGE_POLICY)], ['speak', 'expire', 'expire'], kind)
  }
})

t.test('what is asked about goes first, then one summary, then the fresh; without a summary the fresh go ahead', async t => {
  const now = 300_000
  const [old, missed, asked, fresh, late] = [anItem(1, -400_000), anItem(2, 0), { ...anItem(3, 0), doubtful: true }, anItem(4, now), anItem(5, 0)] as [Waiting, Waiting, Waiting, Waiting, Waiting]
  const step = (waiting: Waiting[], lates: Waiting[] = [], may = true): object => nextStep({ waiting, late: lates }, now, AGE_POLICY, may)
  t.same(step([]), { kind: 'none' })
  t.same(step([old, fresh]), { kind: 'expire', item: old })
  t.same(step([], [old]), { kind: 'expire', item: old })
  t.same(step([missed, asked, fresh]), { kind: 'send', item: asked, asked: true })
  t.same(step([missed, fresh]), { kind: 'summarise' })
  t.same(step([missed]), { kind: 'summarise' })
  t.same(step([fresh], [late]), { kind: 'summarise' })
  t.same(step([missed, fresh], [late], false), { kind: 'send', item: fresh, asked: false })
  t.same(step([missed], [late], false), { kind: 'none' })
})

t.test('a summary holds one currency and no more than can be worded, and is the same whoever makes it', async t => {
  const context = { tid: 'BOX1', language: 'HINDI' as const, nowMs: 700_000, nextSeq: makeSequence(() => 1), policy: AGE_POLICY }
  const items = [anItem(1, 100), anItem(2, 200), { ...anItem(3, 300), currency: 'USD' }]
  const made = summariesOf(items, context)
  t.match(made, [
    { members: [hexOf('item 1'), hexOf('item 2')], summary: { kind: 'summary', count: 2, amountMinor: 300, currency: 'INR', language: 'HINDI', issuedAt: 700_000, expiresAt: 760_000 } },
    { members: [hexOf('item 3')], summary: { count: 1, amountMinor: 300, currency: 'USD' } }
  ])
  t.equal(summariesOf(items, { ...context, nowMs: 900_000 })[0]?.summary.announcementId, made[0]?.summary.announcementId)
  t.not(summariesOf(items.slice(0, 1), context)[0]?.summary.announcementId, made[0]?.summary.announcementId)
  t.not(summariesOf(items, { ...context, tid: 'BOX2' })[0]?.summary.announcementId, made[0]?.summary.announcementId)
  t.equal(summariesOf([anItem(1, 650_000)], context)[0]?.summary.expiresAt, 650_000 + AGE_POLICY.summaryMs, 'it lives as long as its newest member')
  const big = (n: number, amountMinor: number) => ({ ...anItem(n, 0), amountMinor })
  t.equal(summariesOf([big(1, AMOUNT_MINOR_MAX - 1), big(2, 1)], context).length, 1, 'at the largest amount')
  t.equal(summariesOf([big(1, AMOUNT_MINOR_MAX), big(2, 1)], context).length, 2, 'one paisa past it')
  t.same(summariesOf([], context), [])
})

function openBook () {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const fallback = memoryFallback()
  const log = collectLog()
  const writes: (readonly DeliveryChange[])[] = []
  const ledger = openLedger({ store: { stepDeliveries: changes => {
    writes.push(changes)
    return store.stepDeliveries(changes)
  } }, fallback, log, startTimer: clock.startTimer })
  for (const n of [1, 2]) store.model.recordNotice(anItem(n, START_MS))
  return { clock, store, fallback, log, writes, ledger }
}

t.test('steps on the way are gathered over a moment and over the final that follows', async t => {
  const { ledger, writes, clock, store } = openBook()
  ledger.note(stepOf(anItem(1, 0), 'published', 1))
  ledger.note(stepOf(anItem(1, 0), 'delivered', 2))
  ledger.note(stepOf(anItem(2, 0), 'published', 3))
  t.same(writes, [])
  await ledger.settle([stepOf(anItem(1, 0), 'spoken', 4)])
  t.same(writes.map(list => list.map(({ state }) => state)), [['published', 'delivered', 'spoken']], 'one write, in order')
  clock.advance(NOTE_DELAY_MS)
  await settled()
  t.equal(writes.length, 2)
  clock.advance(10 * NOTE_DELAY_MS)
  await settled()
  t.equal(writes.length, 2, 'nothing noted, nothing written')
  t.match(store.model.openDeliveries('BOX1', 10), [{ state: 'published', publishedAt: 3 }])
  ledger.note(stepOf(anItem(2, 0), 'delivered', 5))
  await ledger.close()
  t.equal(clock.timers(), 0)
  t.match(store.model.openDeliveries('BOX1', 10), [{ state: 'delivered' }], 'close writes what waits')
})

t.test('beyond NOTES_MAX the notes are written at once', async t => {
  const { ledger, writes } = openBook()
  for (let n = 0; n < NOTES_MAX; n++) ledger.note(stepOf(anItem(n, 0), 'published', 1))
  t.equal(writes.length, 0)
  ledger.note(stepOf(anItem(NOTES_MAX, 0), 'published', 1))
  t.equal(writes.length, 1)
})

t.test('what the store refuses goes to the fallback, what nobody takes is told', async t => {
  const { ledger, store, fallback, log, clock } = openBook()
  store.refuses.writes = true
  ledger.note(stepOf(anItem(1, 0), 'published', 1))
  await ledger.settle([stepOf(anItem(1, 0), 'spoken', 2)])
  t.match(fallback.records, [{ kind: 'changes', changes: [{ state: 'published' }, { state: 'spoken' }] }])
  fallback.refuses.appends = true
  await t.rejects(ledger.settle([stepOf(anItem(2, 0), 'spoken', 2)]), { code: 'SPOOL_FULL' }, 'a final that is nowhere is not confirmed')
  ledger.note(stepOf(anItem(2, 0), 'published', 2))
  clock.advance(NOTE_DELAY_MS)
  await settled()
  t.match(log.lines, [{ level: 'error', sentence: 'steps of deliveries were not recorded' }], 'a lost note is logged, not thrown')
})

t.test('a step whose row is missing waits with its payment in the fallback, and is dropped when there is none', async t => {
  const { ledger, store, fallback, log } = openBook()
  await ledger.settle([stepOf(anItem(9, 0), 'spoken', 1)], false)
  t.equal(fallback.records.length, 0, 'an ack for an unknown id fills nothing')
  t.match(log.lines, [{ level: 'warn', sentence: 'steps of deliveries that are not known' }])
  await ledger.settle([stepOf(anItem(7, 0), 'spoken', 1)])
  t.match(fallback.records[0], { kind: 'changes', changes: [{ announcementId: hexOf('item 7') }] }, 'one that we sent is kept: its payment may wait on another node')
  await ledger.settle([stepOf(anItem(9, 0), 'spoken', 1), stepOf(anItem(1, 0), 'spoken', 1)], false)
  t.match(fallback.records[1], { kind: 'changes', changes: [{ announcementId: hexOf('item 9') }] }, 'only the one that is missing')
  fallback.records.length = 0
  const step = store.model.stepDeliveries.bind(store.model)
  store.model.stepDeliveries = changes => {
    const missing = step(changes)
    store.model.recordNotice(anItem(8, START_MS))
    return missing
  }
  await ledger.settle([stepOf(anItem(8, 0), 'spoken', 1)], false)
  t.equal(store.model.openDeliveries('BOX1', 10).filter(({ announcementId }) => announcementId === hexOf('item 8')).length, 0, 'a row that was drained in between is found')
})

t.test('a box that invents ids fills nothing that payments need, while the store is away', async t => {
  const { ledger, store, fallback } = openBook()
  store.refuses.writes = true
  const invent = (n: number, tid = 'BOX1'): Promise<void> => ledger.settle([{ ...stepOf(anItem(100 + n, 0), 'spoken', 1), tid }], false)
  for (let n = 0; n < STRANGE_FINALS_MAX; n++) await invent(n)
  await t.rejects(invent(STRANGE_FINALS_MAX), { code: 'STORE_FAILED' }, 'not confirmed: an honest box tells it again later')
  t.equal(fallback.records.length, STRANGE_FINALS_MAX)
  await invent(0, 'BOX2')
  await ledger.settle([stepOf(anItem(1, 0), 'spoken', 2)])
  t.equal(fallback.records.length, STRANGE_FINALS_MAX + 2, 'other boxes, and what we have sent, are still taken')
  fallback.records.length = 0
  await invent(1)
  t.equal(fallback.records.length, 1, 'and this one again when the fallback was emptied')
})

t.test('the feed takes so many listeners, tells each, and forgets who left', async t => {
  const feed = openFeed()
  t.notOk(feed.hasListeners())
  const heard: number[] = []
  const stops = Array.from({ length: LISTENERS_MAX }, (_, n) => feed.listen(() => { heard.push(n) }))
  t.ok(stops.every(stop => stop !== undefined))
  t.equal(feed.listen(() => {}), undefined, 'one past the limit')
  feed.emit({ kind: 'device', at: 1, tid: 'BOX1', state: 'online' })
  t.equal(heard.length, LISTENERS_MAX)
  stops[0]?.()
  t.ok(feed.listen(() => {}), 'room again')
  for (const stop of stops) stop?.()
  t.ok(feed.hasListeners())
})

t.test('order numbers grow within a millisecond, over a clock that steps back, and over a restart', async t => {
  for (const seed of seedsOf(20)) {
    const rand = openRandom(seed)
    let now = START_MS
    let last = 0
    for (let life = 0; life < 3; life++) {
      const next = makeSequence(() => now)
      for (let n = 0; n < 200; n++) {
        now += Math.floor((rand() - 0.3) * 5)
        const seq = next()
        if (seq <= last || !Number.isSafeInteger(seq)) t.fail(`SEED=${seed}: ${seq} after ${last}`)
        last = seq
      }
      now = Math.ceil(last / 1000) + 5 // A restart takes its time.
    }
  }
  t.ok(Number.isSafeInteger(makeSequence(() => 1_727_954_878_000.7)()), 'also for a clock with fractions')
  t.ok(isSoundboxError(await openDoor([]).call({}, '').catch((error: unknown) => error)))
})
