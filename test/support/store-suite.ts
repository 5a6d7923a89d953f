// What every store must do, whichever database stands behind it. A database's own test file runs this with its own way to open one.
import t from 'tap'
import { HISTORY_PAGE_MAX, type HistoryQuery, type Store, type StoredPayment } from '../../gateway/store/contract.js'
import { isoStoreTests } from './store-iso.js'
import { createStoreModel, fresh } from './store-model.js'
import { runRandomOps, seedsOf } from './store-random.js'
import { hexOf, someBank, someDelivery, someDevice, somePayment, someSummary, START_MS, stepOf } from './store-records.js'

export type StoreOptions = { nowMs?: () => number, marksMax?: number, queueMax?: number }
/** A database that a test has for itself. It may be opened again after a close. */
export type TestDatabase = { open: (options?: StoreOptions) => Promise<Store> }
export type Test = Pick<typeof t, 'test' | 'teardown' | 'same' | 'equal' | 'ok' | 'notOk' | 'match' | 'rejects' | 'throws' | 'pass' | 'fail' | 'testdir' | 'comment'>
type MakeDatabase = (t: Test) => Promise<TestDatabase>

/** All of a history query, page by page. */
export async function allPages (store: Store, query: Omit<HistoryQuery, 'limit'>, limit: number): Promise<StoredPayment[]> {
  const rows: StoredPayment[] = []
  for (let cursor: string | null | undefined; cursor !== null;) {
    const page = await store.queryHistory({ ...query, limit, ...(cursor === undefined ? {} : { cursor }) })
    rows.push(...page.rows)
    cursor = page.next
  }
  return rows
}

/** Runs the contract's tests. `makeDatabase` gives an empty database and sees to its removal. */
export function storeSuite (makeDatabase: MakeDatabase): void {
  paymentTests(makeDatabase)
  deliveryTests(makeDatabase)
  historyTests(makeDatabase)
  directoryTests(makeDatabase)
  markTests(makeDatabase)
  upkeepTests(makeDatabase)
  isoStoreTests(makeDatabase)
}

async function openFor (t: Test, makeDatabase: MakeDatabase): Promise<Store> {
  const store = await (await makeDatabase(t)).open()
  t.teardown(() => store.close())
  return store
}

function paymentTests (makeDatabase: MakeDatabase): void {
  t.test('a payment is new once, then the same, and another content is told apart', async t => {
    const store = await openFor(t, makeDatabase)
    const payment = somePayment(1, { txnType: null, merchant: null, language: 'TAMIL', source: 'iso8583' })
    const stored = { payment, deliveries: [fresh(someDelivery(1), payment), fresh(someDelivery(1, { tid: 'second' }), payment)], reversedAt: null }
    t.same(await store.recordPayment(payment, [someDelivery(1), someDelivery(1, { tid: 'second' })]), { outcome: 'new' })
    t.same(await store.recordPayment({ ...payment, acceptedAt: START_MS + 99 }, [someDelivery(1)]), { outcome: 'same', ...stored }, 'what was recorded first counts')
    t.same(await store.recordPayment({ ...payment, contentHash: hexOf('other') }, []), { outcome: 'different', ...stored })
    t.same(await store.findPayment('pnb', 'T1'), stored)
    t.equal(await store.findPayment('pnb', 'T2'), undefined)
    t.equal(await store.findPayment('cboi', 'T1'), undefined)
    t.same(await store.recordPayment({ ...payment, bankId: 'cboi' }, []), { outcome: 'new' }, 'ids are per bank')
  })

  t.test('the same payment a hundred times at once is recorded once', async t => {
    const store = await openFor(t, makeDatabase)
    const all = await Promise.all(Array.from({ length: 100 }, () => store.recordPayment(somePayment(1), [someDelivery(1)])))
    t.equal(all.filter(({ outcome }) => outcome === 'new').length, 1)
    t.equal(all.filter(({ outcome }) => outcome === 'same').length, 99)
    t.equal((await store.openDeliveries('box1', 10)).length, 1)
  })

  t.test('a record that cannot be stored fails alone, with INPUT_INVALID', async t => {
    const store = await openFor(t, makeDatabase)
    const bad = [
      somePayment(2, { status: 'odd' as 'failed' }), somePayment(3, { contentHash: 'not hex' }), somePayment(4, { amountMinor: 1.5 }),
      somePayment(5, { bankId: undefined as unknown as string })
    ]
    const results = await Promise.allSettled([
      store.recordPayment(somePayment(1), [someDelivery(1)]),
      ...bad.map(payment => store.recordPayment(payment, [])),
      store.recordPayment(somePayment(6), [someDelivery(6), someDelivery(6)]),
      store.stepDeliveries([stepOf(someDelivery(1), 'spoken', Number.NaN)]),
      store.stepDeliveries([stepOf(someDelivery(1), 'published', 7)]),
      store.recordPayment(somePayment(7), [someDelivery(7)])
    ])
    t.same(results.map(result => result.status === 'rejected' ? (result.reason as { code: string }).code : 'stored'),
      ['stored', 'INPUT_INVALID', 'INPUT_INVALID', 'INPUT_INVALID', 'INPUT_INVALID', 'INPUT_INVALID', 'INPUT_INVALID', 'stored', 'stored'])
    t.equal(await store.findPayment('pnb', 'T6'), undefined, 'nothing is left of a payment whose deliveries fail')
    t.match(await store.findPayment('pnb', 'T1'), { deliveries: [{ state: 'published', publishedAt: 7 }] })
    t.match(store.stats(), { payments: 2, openDeliveries: 2 })
  })

  t.test('a reversal counts once and ends what is still open', async t => {
    const store = await openFor(t, makeDatabase)
    t.equal(await store.reversePayment('pnb', 'T1', 5), undefined)
    await store.recordPayment(somePayment(1), [someDelivery(1), someDelivery(1, { tid: 'spoke' })])
    await store.stepDeliveries([stepOf(someDelivery(1, { tid: 'spoke' }), 'spoken', 4)])
    const first = await store.reversePayment('pnb', 'T1', 5)
    t.match(first, { reversedAt: 5, deliveries: [{ state: 'reversed', finalAt: 5 }, { state: 'spoken', finalAt: 4 }] })
    t.same(await store.reversePayment('pnb', 'T1', 6), first)
    t.match(await store.recordPayment(somePayment(1), []), { outcome: 'same', reversedAt: 5 })
    t.equal(store.stats().openDeliveries, 0)
  })

  t.test('random operations answer and leave what the model says', async t => {
    for (const seed of seedsOf(3)) {
      const store = await (await makeDatabase(t)).open()
      await runRandomOps(t, seed, createStoreModel(), store).finally(store.close)
    }
  })
}

function deliveryTests (makeDatabase: MakeDatabase): void {
  t.test('states move forward only; a step back fills in its time and nothing else', async t => {
    const store = await openFor(t, makeDatabase)
    const delivery = someDelivery(1)
    await store.recordPayment(somePayment(1), [delivery])
    const after = async (state: Parameters<typeof stepOf>[1], at: number, more = {}) => {
      t.same(await store.stepDeliveries([stepOf(delivery, state, at, more)]), [])
      return (await store.findPayment('pnb', 'T1'))?.deliveries[0]
    }
    t.match(await after('delivered', 20), { state: 'delivered', publishedAt: null, deliveredAt: 20, finalAt: null })
    t.match(await after('published', 10), { state: 'delivered', publishedAt: 10, deliveredAt: 20 })
    t.match(await after('published', 11), { publishedAt: 10 })
    t.match(await after('accepted', 12), { state: 'delivered' })
    t.match(await after('spoken', 30, { queuedMs: 4, audioMs: 900 }), { state: 'spoken', finalAt: 30, queuedMs: 4, audioMs: 900, reason: null })
    t.match(await after('failed', 40, { reason: 'late' }), { state: 'spoken', finalAt: 30, reason: null })
    t.match(await after('delivered', 50), { state: 'spoken', deliveredAt: 20 })
  })

  t.test('many changes of one delivery at once are one, and unknown ones come back', async t => {
    const store = await openFor(t, makeDatabase)
    await store.recordPayment(somePayment(1), [someDelivery(1)])
    const unknown = stepOf(someDelivery(2), 'published', 2)
    const steps = [
      stepOf(someDelivery(1), 'published', 1), unknown, stepOf(someDelivery(1), 'delivered', 2), stepOf(someDelivery(1), 'muted', 3, { reason: 'quiet hours' }),
      stepOf(someDelivery(1), 'spoken', 4)
    ]
    t.same(await store.stepDeliveries(steps), [unknown])
    t.match(await store.findPayment('pnb', 'T1'), { deliveries: [{ state: 'muted', publishedAt: 1, deliveredAt: 2, finalAt: 3, reason: 'quiet hours' }] })
    t.same(await store.stepDeliveries([]), [])
    t.same(await Promise.all([store.stepDeliveries([unknown]), store.recordPayment(somePayment(3), [someDelivery(3)]), store.stepDeliveries([stepOf(someDelivery(3), 'spoken', 4)])]),
      [[unknown], { outcome: 'new' }, []], 'each caller gets its own')
  })

  t.test('open deliveries come oldest first, up to the limit, with their payment', async t => {
    const store = await openFor(t, makeDatabase)
    for (const i of [3, 1, 2]) await store.recordPayment(somePayment(i), [someDelivery(i, { tid: 'box' })])
    await store.recordNotice(someDelivery(9, { tid: 'box', seq: 0, kind: 'test' }))
    await store.recordNotice(someDelivery(9, { tid: 'box', seq: 0, kind: 'test' }))
    t.match(await store.openDeliveries('box', 10), [{ seq: 0, bankId: null, transactionId: null }, { seq: 1, bankId: 'pnb', transactionId: 'T1' }, { seq: 2 }, { seq: 3 }])
    t.equal((await store.openDeliveries('box', 2)).length, 2)
    t.same(await store.openDeliveries('other', 2), [])
    t.equal(store.stats().openDeliveries, 4)
  })

  t.test('a summary takes its members with it, also into expiry', async t => {
    const store = await openFor(t, makeDatabase)
    for (const i of [1, 2, 3]) await store.recordPayment(somePayment(i), [someDelivery(i, { tid: 'box' })])
    await store.stepDeliveries([stepOf(someDelivery(3, { tid: 'box' }), 'spoken', 1)])
    const summary = someSummary('s1', { tid: 'box', issuedAt: START_MS + 500, seq: 50 })
    const members = [1, 2, 3].map(i => someDelivery(i).announcementId)
    await store.recordSummary(summary, members, 60)
    await store.recordSummary(summary, members, 61)
    t.match((await store.findPayment('pnb', 'T1'))?.deliveries, [{ state: 'summarised', finalAt: 60, summaryId: hexOf('s1') }])
    t.match((await store.findPayment('pnb', 'T3'))?.deliveries, [{ state: 'spoken', summaryId: null }])
    t.same((await store.openDeliveries('box', 9)).map(delivery => delivery.announcementId), [hexOf('s1')])
    t.equal(await store.expireDeliveries(START_MS + 500, 70, 100), 0, 'issued at the border is not before it')
    t.equal(await store.expireDeliveries(START_MS + 501, 70, 100), 1)
    t.match((await store.findPayment('pnb', 'T2'))?.deliveries, [{ state: 'expired', finalAt: 70, summaryId: hexOf('s1') }])
    t.match((await store.findPayment('pnb', 'T3'))?.deliveries, [{ state: 'spoken' }])
    t.equal(store.stats().openDeliveries, 0)
  })

  t.test('the members of a summary that nobody heard are not told as summarised', async t => {
    for (const [state, ends] of [['expired', 'expired'], ['muted', 'muted'], ['failed', 'failed'], ['spoken', 'summarised'], ['duplicate', 'summarised']] as const) {
      const store = await openFor(t, makeDatabase)
      for (const i of [1, 2]) await store.recordPayment(somePayment(i), [someDelivery(i, { tid: 'box' })])
      const summary = someSummary('s1', { tid: 'box', seq: 50 })
      await store.recordSummary(summary, [someDelivery(1).announcementId], 60)
      await store.stepDeliveries([{ ...stepOf(summary, state, 70), reason: 'why' }, stepOf(someDelivery(2, { tid: 'box' }), 'published', 70)])
      await store.stepDeliveries([stepOf(summary, 'failed', 80)])
      const member = ends === 'summarised' ? { finalAt: 60, reason: null } : { finalAt: 70, reason: 'why' }
      t.match((await store.findPayment('pnb', 'T1'))?.deliveries, [{ state: ends, summaryId: hexOf('s1'), ...member }], state)
      t.match((await store.findPayment('pnb', 'T2'))?.deliveries, [{ state: 'published' }])
      t.equal(store.stats().openDeliveries, 1)
    }
  })

  t.test('expiry takes the oldest first, up to its limit', async t => {
    const store = await openFor(t, makeDatabase)
    for (const i of [5, 1, 4, 2, 3]) await store.recordPayment(somePayment(i), [someDelivery(i, { tid: 'box' })])
    t.equal(await store.expireDeliveries(START_MS + 5, 99, 3), 3)
    t.same((await store.openDeliveries('box', 9)).map(delivery => delivery.seq), [4, 5])
    t.equal(await store.expireDeliveries(START_MS + 5, 99, 3), 1)
    t.equal(await store.expireDeliveries(START_MS + 5, 99, 3), 0)
  })
}

function historyTests (makeDatabase: MakeDatabase): void {
  t.test('every filter, alone and with others, gives what the model gives, in pages of any size', async t => {
    const store = await openFor(t, makeDatabase)
    const model = createStoreModel()
    for (let i = 0; i < 60; i++) {
      const payment = somePayment(i, {
        bankId: i % 3 === 0 ? 'cboi' : 'pnb', status: i % 4 === 0 ? 'failed' : 'success', acceptedAt: START_MS + Math.floor(i / 2), listed: i % 11 !== 5,
        transactionId: `T${i % 40}${i % 3 === 0 ? '' : 'x'}`
      })
      const deliveries = i % 6 === 0 ? [] : [someDelivery(i), someDelivery(i, { tid: 'all' })]
      model.recordPayment(payment, deliveries)
      await store.recordPayment(payment, deliveries)
    }
    const choices: Omit<HistoryQuery, 'limit'> = { bankId: 'cboi', merchant: 'shop3@isu', tid: 'box1', since: START_MS + 5, until: START_MS + 21, status: 'failed', transactionId: 'T9' }
    const names = Object.keys(choices) as (keyof typeof choices)[]
    for (let mask = 0; mask < 1 << names.length; mask++) {
      const query = Object.fromEntries(names.filter((_, bit) => mask & (1 << bit)).map(name => [name, choices[name]])) as Omit<HistoryQuery, 'limit'>
      t.same(await allPages(store, query, 1 + mask % 7), model.queryHistory(query), JSON.stringify(query))
    }
    for (const query of [{ status: 'success' as const }, { tid: 'all' }, { tid: 'all', status: 'success' as const }]) t.same(await allPages(store, query, 7), model.queryHistory(query))
  })

  t.test('pages do not skip or repeat rows while new ones come in', async t => {
    const store = await openFor(t, makeDatabase)
    for (let i = 0; i < 10; i++) await store.recordPayment(somePayment(i, { acceptedAt: START_MS }), [])
    const first = await store.queryHistory({ limit: 4 })
    for (let i = 10; i < 14; i++) await store.recordPayment(somePayment(i, { acceptedAt: START_MS + 1 }), [])
    const second = await store.queryHistory({ limit: 6, cursor: first.next! })
    t.same([...first.rows, ...second.rows].map(row => row.payment.transactionId), ['T9', 'T8', 'T7', 'T6', 'T5', 'T4', 'T3', 'T2', 'T1', 'T0'])
    t.equal(second.next, null)
  })

  t.test('limits and foreign cursors are refused', async t => {
    const store = await openFor(t, makeDatabase)
    await store.recordPayment(somePayment(1), [])
    t.equal((await store.queryHistory({ limit: HISTORY_PAGE_MAX })).rows.length, 1)
    for (const limit of [HISTORY_PAGE_MAX + 1, 0, -1, 1.5, Number.NaN]) await t.rejects(store.queryHistory({ limit }), { code: 'INPUT_INVALID' }, `limit ${limit}`)
    for (const cursor of ['', 'x', 'MTIz', Buffer.from('1.2; DROP TABLE payment').toString('base64url'), Buffer.from('01.2').toString('base64url')]) {
      await t.rejects(store.queryHistory({ limit: 1, cursor }), { code: 'INPUT_INVALID' }, `cursor ${cursor}`)
    }
  })

  t.test('the day total counts successful payments that were not reversed', async t => {
    const store = await openFor(t, makeDatabase)
    t.same(await store.totalSince('box', START_MS), { count: 0, amountMinor: 0 })
    for (let i = 0; i < 6; i++) await store.recordPayment(somePayment(i, { status: i === 5 ? 'failed' : 'success' }), [someDelivery(i, { tid: 'box' })])
    await store.reversePayment('pnb', 'T4', 1)
    await store.recordNotice(someDelivery(8, { tid: 'box', kind: 'test' }))
    t.same(await store.totalSince('box', START_MS + 1), { count: 3, amountMinor: 101 + 102 + 103 })
  })
}

function directoryTests (makeDatabase: MakeDatabase): void {
  t.test('the directory comes back as it was saved, and saving again overwrites', async t => {
    const database = await makeDatabase(t)
    const first = await database.open()
    const key = {
      keyId: 'k1', bankId: 'pnb', clientId: 'c1', clientSecretHash: 'h', headerKeySealed: 's1', payloadKeySealed: 's2', validFrom: START_MS, validTo: null
    }
    t.same(await first.loadDirectory(), { banks: [], keys: [], devices: [], mappings: [] })
    await Promise.all([first.saveBank(someBank('pnb')), first.saveBank(someBank('cboi', { profile: 'none', database: false, headerReuse: 'allow', disabledAt: 4 })), first.saveBankKey(key)])
    await Promise.all([first.saveDevice(someDevice('box1')), first.saveDevice(someDevice('box2', { quietHours: null, display: 'पैसे', activatedAt: null }))])
    for (const merchant of ['a@isu', 'b@isu']) await first.saveMapping({ bankId: 'pnb', merchant, tid: 'box1', mappedAt: 3 })
    await first.close()
    const store = await database.open()
    t.teardown(() => store.close())
    const want = {
      banks: [someBank('cboi', { profile: 'none', database: false, headerReuse: 'allow', disabledAt: 4 }), someBank('pnb')], keys: [key],
      devices: [someDevice('box1'), someDevice('box2', { quietHours: null, display: 'पैसे', activatedAt: null })],
      mappings: [{ bankId: 'pnb', merchant: 'a@isu', tid: 'box1', mappedAt: 3 }, { bankId: 'pnb', merchant: 'b@isu', tid: 'box1', mappedAt: 3 }]
    }
    t.same(await store.loadDirectory(), want)
    await store.saveDevice(someDevice('box1', { volume: 5, desiredVersion: 2 }))
    await store.saveBankKey({ ...key, validTo: 9 })
    await store.removeMapping('pnb', 'a@isu', 'box1')
    await store.removeMapping('pnb', 'none', 'box1')
    t.match(await store.loadDirectory(), { keys: [{ validTo: 9 }], devices: [{ volume: 5 }, {}], mappings: [{ merchant: 'b@isu' }] })
    await t.rejects(store.saveMapping({ bankId: 'pnb', merchant: 'a@isu', tid: 'nobody', mappedAt: 3 }), { code: 'INPUT_INVALID' }, 'a mapping needs its soundbox')
    await t.rejects(store.saveBank(someBank('third', { passKey: 'pass-pnb' })), { code: 'INPUT_INVALID' }, 'a pass_key names one bank')
  })

  t.test('what is seen of a device: presence by the newest news, objects replaced, takeovers counted', async t => {
    const store = await openFor(t, makeDatabase)
    await store.saveDeviceSeen([{ tid: 'b', at: 10, online: true, hello: { model: 'QS1' } }, { tid: 'a', at: 11, online: false }])
    await store.saveDeviceSeen([{ tid: 'b', at: 20, online: true, takeover: true, telemetry: { battery: 7 } }])
    t.same(await store.deviceStates(), [
      { tid: 'a', at: 11, online: false, onlineSince: null, takeovers: 0 },
      { tid: 'b', at: 20, online: true, onlineSince: 10, takeovers: 1, hello: { model: 'QS1' }, telemetry: { battery: 7 } }
    ])
    await store.saveDeviceSeen([{ tid: 'b', at: 15, online: false, reported: { volume: 3 } }])
    t.match((await store.deviceStates())[1], { at: 20, online: true, onlineSince: 10, reported: { volume: 3 } }, 'old news change no presence')
    await store.saveDeviceSeen([{ tid: 'b', at: 30, online: false, telemetry: { battery: 6 } }, { tid: 'b', at: 40, online: true }])
    t.match((await store.deviceStates())[1], { at: 40, online: true, onlineSince: 40, takeovers: 1, telemetry: { battery: 6 } })
  })
}

function markTests (makeDatabase: MakeDatabase): void {
  t.test('a mark is free once, for its owner again, and for all after its time', async t => {
    const database = await makeDatabase(t)
    let now = START_MS
    const first = await database.open({ nowMs: () => now })
    const mark = { mark: hexOf('m'), owner: '', expiresAt: START_MS + 1000 }
    const owned = { mark: hexOf('n'), owner: 'pnb/T1', expiresAt: START_MS + 1000 }
    t.equal(await first.claimMark(mark), true)
    t.equal(await first.claimMark(mark), false, 'nobody owns it')
    t.equal(await first.claimMark(owned), true)
    t.equal(await first.claimMark(owned), true, 'its owner again')
    t.equal(await first.claimMark({ ...owned, owner: 'pnb/T2' }), false)
    await first.recordPayment(somePayment(1), [])
    await first.close()
    const store = await database.open({ nowMs: () => now })
    t.teardown(() => store.close())
    t.equal(await store.claimMark(mark), false, 'after a restart too')
    t.equal(await store.claimMark(owned), true)
    now = START_MS + 1001
    t.equal(await store.claimMark({ ...mark, expiresAt: now + 1000 }), true)
    t.equal(await store.claimMark({ ...mark, expiresAt: now + 1000 }), false)
  })

  t.test('purged marks are gone, others stay', async t => {
    const database = await makeDatabase(t)
    const first = await database.open({ nowMs: () => START_MS })
    for (let i = 0; i < 50; i++) await first.claimMark({ mark: hexOf(`m${i}`), owner: '', expiresAt: START_MS + i * HOUR_MS })
    t.equal(await first.purgeMarks(START_MS + 20 * HOUR_MS), 20)
    t.equal(await first.purgeMarks(START_MS + 20 * HOUR_MS), 0)
    await first.close()
    const store = await database.open({ nowMs: () => START_MS })
    t.teardown(() => store.close())
    t.equal(await store.claimMark({ mark: hexOf('m19'), owner: '', expiresAt: START_MS + HOUR_MS }), true)
    t.equal(await store.claimMark({ mark: hexOf('m20'), owner: '', expiresAt: START_MS + HOUR_MS }), false)
  })
}
const HOUR_MS = 3_600_000

function upkeepTests (makeDatabase: MakeDatabase): void {
  t.test('old history goes in small steps; what is still open keeps its payment', async t => {
    const store = await openFor(t, makeDatabase)
    for (let i = 0; i < 8; i++) await store.recordPayment(somePayment(i, { listed: i % 2 === 0 }), [someDelivery(i)])
    await store.recordNotice(someDelivery(20, { kind: 'test', issuedAt: START_MS }))
    await store.stepDeliveries([0, 1, 2, 3, 5, 6, 7, 20].map(i => stepOf(someDelivery(i), 'spoken', 1)))
    t.equal(await store.purgeHistory(START_MS + 7, 3), 3)
    t.equal(await store.purgeHistory(START_MS + 7, 100), 4, 'three payments and the notice')
    t.equal(await store.purgeHistory(START_MS + 7, 100), 0)
    t.ok(await store.findPayment('pnb', 'T4'), 'open')
    t.ok(await store.findPayment('pnb', 'T7'), 'not old enough')
    t.match(store.stats(), { payments: 2, openDeliveries: 1 })
    t.same(await store.recordPayment(somePayment(1), [someDelivery(1)]), { outcome: 'new' }, 'what is purged is forgotten')
  })

  t.test('counts survive a restart', async t => {
    const database = await makeDatabase(t)
    const first = await database.open()
    for (let i = 0; i < 3; i++) await first.recordPayment(somePayment(i), [someDelivery(i)])
    await first.stepDeliveries([stepOf(someDelivery(1), 'spoken', 1)])
    await first.close()
    const store = await database.open()
    t.teardown(() => store.close())
    t.match(store.stats(), { payments: 3, openDeliveries: 2, writeQueue: 0 })
  })

  t.test('a job runs once at a time', async t => {
    const store = await openFor(t, makeDatabase)
    let release = (): void => {}
    const gate = new Promise<void>(resolve => { release = resolve })
    let inside = (): void => {}
    const entered = new Promise<void>(resolve => { inside = resolve })
    const first = store.exclusively('sweep', async () => {
      inside()
      await gate
    })
    await entered
    t.equal(await store.exclusively('sweep', async () => { t.fail('not twice') }), false)
    t.equal(await store.exclusively('backup', async () => {}), true, 'another job may')
    release()
    t.equal(await first, true)
    await t.rejects(store.exclusively('sweep', async () => { throw new Error('inside') }), { message: 'inside' })
    t.equal(await store.exclusively('sweep', async () => {}), true, 'free again after a failure')
  })

  t.test('a closed store finishes what it has and refuses the rest', async t => {
    const database = await makeDatabase(t)
    const first = await database.open()
    const recorded = Promise.all(Array.from({ length: 50 }, (_, i) => first.recordPayment(somePayment(i), [])))
    await first.close()
    t.equal((await recorded).length, 50)
    await t.rejects(first.recordPayment(somePayment(99), []), { code: 'STORE_FAILED' })
    await t.rejects(first.findPayment('pnb', 'T1'), { code: 'STORE_FAILED' })
    await first.close()
    const store = await database.open()
    t.teardown(() => store.close())
    t.ok(await store.findPayment('pnb', 'T49'))
  })
}
