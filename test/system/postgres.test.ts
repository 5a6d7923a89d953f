// The PostgreSQL store: the contract's tests, then what several gateways and a lost server do to it.
import t from 'tap'
import type { HistoryQuery } from '../../gateway/store/contract.js'
import { FIND_TRANSACTIONS } from '../../gateway/store/postgres-iso.js'
import { openPostgresStore, type PostgresStore } from '../../gateway/store/postgres.js'
import { LANES } from '../../gateway/store/postgres-open.js'
import { BATCH_OPS_MAX } from '../../gateway/store/postgres-queue.js'
import { historySql } from '../../gateway/store/postgres-reads.js'
import { WAKE_ALL } from '../../gateway/store/postgres-wake.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { findPostgres, type PostgresServer, startPostgres } from '../support/postgres-server.js'
import { collectLog, hexOf, seededRandom, someDelivery, someDevice, somePayment, START_MS, stepOf } from '../support/store-records.js'
import { allPages, storeSuite, type Test } from '../support/store-suite.js'

const BIN = findPostgres()
const SKIP = BIN === undefined && process.env['CI'] !== 'true' ? 'PostgreSQL is not installed: test/system/install-parts.sh' : false

let databases = 0
async function makeDatabase (server: PostgresServer): Promise<string> {
  const name = `test_${databases++}`
  await server.createDatabase(name)
  return name
}

async function openAt (t: Test, url: string, more: { log?: typeof SILENT_LOG, queueMax?: number, marksMax?: number } = {}): Promise<PostgresStore> {
  const store = await openPostgresStore({ url, log: SILENT_LOG, nowMs: () => START_MS, ...more })
  t.teardown(() => store.close())
  return store
}

/** Tries until it works, for at most ten seconds. */
async function eventually<T> (work: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries > 100) throw error
      await new Promise(resolve => { setTimeout(resolve, 100) })
    }
  }
}

t.setTimeout(240_000)
if (SKIP !== false) t.test('the PostgreSQL store', { skip: SKIP }, async () => {})
else {
  const server = await startPostgres(BIN ?? '')
  t.teardown(server.remove)
  storeSuite(async () => {
    const url = server.url(await makeDatabase(server))
    return { open: (options = {}) => openPostgresStore({ url, log: SILENT_LOG, nowMs: () => START_MS, ...options }) }
  })
  gatewaysTogether(server)
  const mortal = await startPostgres(BIN ?? '')
  t.teardown(mortal.remove)
  faults(mortal)
}

function gatewaysTogether (server: PostgresServer): void {
  t.test('one payment through three gateways at once is recorded once', async t => {
    const url = server.url(await makeDatabase(server))
    const stores = await Promise.all([1, 2, 3].map(() => openAt(t, url)))
    const outcomes: string[] = []
    for (let i = 0; i < 30; i++) {
      const all = await Promise.all(stores.map(store => store.recordPayment(somePayment(i), [someDelivery(i)])))
      outcomes.push(all.map(({ outcome }) => outcome).sort().join())
    }
    t.same(new Set(outcomes), new Set(['new,same,same']))
  })

  t.test('gateways that write the same rows in any order finish without a loss', async t => {
    const url = server.url(await makeDatabase(server))
    const stores = await Promise.all([1, 2].map(() => openAt(t, url)))
    await Promise.all(stores.map(async (store, n) => {
      const random = seededRandom(n + 1)
      for (let round = 0; round < 15; round++) {
        const ids = Array.from({ length: 20 }, () => Math.floor(random() * 60))
        await Promise.all(ids.map(i => store.recordPayment(somePayment(i), [someDelivery(i), someDelivery(i, { tid: 'second' })])))
        await Promise.all(ids.map(i => store.stepDeliveries([stepOf(someDelivery(i), 'published', 1), stepOf(someDelivery(i, { tid: 'second' }), 'spoken', 2)])))
      }
    }))
    const rows = await allPages(stores[0]!, {}, 100)
    t.ok(rows.length > 50)
    t.same(rows.filter(row => row.deliveries.length !== 2 || row.deliveries[1]?.state !== 'spoken'), [])
  })

  t.test('a mark is claimed by one gateway, a job runs on one, and a change of the directory wakes the other', async t => {
    const url = server.url(await makeDatabase(server))
    const [one, two] = [await openAt(t, url), await openAt(t, url)]
    const marks = Array.from({ length: 40 }, (_, i) => ({ mark: hexOf(`m${i}`), owner: '', expiresAt: START_MS + 1000 }))
    const claims = await Promise.all(marks.flatMap(mark => [one.claimMark(mark), two.claimMark(mark)]))
    t.same(marks.map((_, i) => Number(claims[2 * i]) + Number(claims[2 * i + 1])), marks.map(() => 1))

    let release = (): void => {}
    const gate = new Promise<void>(resolve => { release = resolve })
    let inside = (): void => {}
    const entered = new Promise<void>(resolve => { inside = resolve })
    const running = one.exclusively('sweep', async () => {
      inside()
      await gate
    })
    await entered
    t.equal(await two.exclusively('sweep', async () => { t.fail('not on two') }), false)
    release()
    t.equal(await running, true)
    t.equal(await two.exclusively('sweep', async () => {}), true)

    const woken: string[] = []
    await two.onWake(topic => { woken.push(topic) })
    await one.saveDevice(someDevice('box1'))
    await one.wake('box:box1')
    await t.rejects(one.wake(''), { code: 'INPUT_INVALID' })
    await t.rejects(one.wake('x'.repeat(201)), { code: 'INPUT_INVALID' })
    await one.wake('x'.repeat(200))
    await eventually(async () => { if (woken.length < 3) throw new Error('not yet') })
    t.same(woken, ['directory', 'box:box1', 'x'.repeat(200)])
  })

  t.test('history walks an index for every filter of one key', async t => {
    const name = await makeDatabase(server)
    const store = await openAt(t, server.url(name))
    for (let from = 0; from < 3000; from += 500) {
      await Promise.all(Array.from({ length: 500 }, (_, i) => store.recordPayment(somePayment(from + i, { status: i % 50 === 0 ? 'failed' : 'success' }), [someDelivery(from + i)])))
    }
    await server.sql(name, 'ANALYZE')
    const queries: Omit<HistoryQuery, 'limit'>[] = [
      {}, { bankId: 'pnb' }, { merchant: 'shop3@isu' }, { tid: 'box1' }, { transactionId: 'T9' }, { status: 'failed' }, { merchant: 'shop3@isu', since: START_MS + 5 },
      { bankId: 'pnb', cursor: Buffer.from(`${START_MS + 50}.51`).toString('base64url') }
    ]
    const begins = { sql: FIND_TRANSACTIONS, values: ['pnb', 'T12', 'T12\u{10ffff}', 20], what: 'by the beginning of an id' }
    for (const { sql, values, what } of [begins, ...queries.map(query => ({ ...historySql({ ...query, limit: 20 }), what: JSON.stringify(query) }))]) {
      const filled = sql.replace(/\$(\d+)/g, (_, n: string) => typeof values[Number(n) - 1] === 'number' ? String(values[Number(n) - 1]) : `'${String(values[Number(n) - 1])}'`)
      const plan = (await server.sql(name, `EXPLAIN ${filled}`) as { 'QUERY PLAN': string }[]).map(row => row['QUERY PLAN']).join('\n')
      t.notMatch(plan, /Seq Scan on payment/, `${what}: ${plan}`)
    }
  })

  t.test('hundreds of reads at once take turns, and jobs do not wait for them', async t => {
    const store = await openAt(t, server.url(await makeDatabase(server)))
    await store.recordPayment(somePayment(1), [someDelivery(1)])
    let most = 0
    let now = 0
    const jobs = Promise.all(Array.from({ length: LANES.jobs + 2 }, (_, i) => store.exclusively(`job ${i}`, async () => {
      most = Math.max(most, ++now)
      await store.findPayment('pnb', 'T1')
      now -= 1
    })))
    const found = await Promise.all(Array.from({ length: 500 }, () => store.findPayment('pnb', 'T1')))
    t.equal(found.filter(payment => payment !== undefined).length, 500)
    t.ok((await jobs).every(ran => ran))
    t.ok(most <= LANES.jobs, `${most} jobs at once`)
  })

  t.test('a flood is several batches', async t => {
    const store = await openAt(t, server.url(await makeDatabase(server)))
    await Promise.all(Array.from({ length: BATCH_OPS_MAX + 1 }, () => store.stepDeliveries([])))
    t.match(store.stats(), { committedBatches: 2, committedOps: BATCH_OPS_MAX + 1 })
    const marks = Array.from({ length: 1_001 }, (_, i) => ({ mark: hexOf(`m${i}`), owner: '', expiresAt: START_MS + 1000 }))
    t.ok((await Promise.all(marks.map(store.claimMark))).every(claimed => claimed))
  })

  t.test('the queue and the replay memory have limits', async t => {
    const store = await openAt(t, server.url(await makeDatabase(server)), { queueMax: 5, marksMax: 1 })
    const five = Array.from({ length: 5 }, (_, i) => store.recordPayment(somePayment(i), []))
    await t.rejects(store.recordPayment(somePayment(6), []), { code: 'STORE_FAILED' })
    await Promise.all(five)
    const reads = Array.from({ length: 5 }, () => store.findPayment('pnb', 'T1'))
    await t.rejects(store.findPayment('pnb', 'T1'), { code: 'STORE_FAILED' })
    await Promise.all(reads)
    t.ok(await store.claimMark({ mark: hexOf('a'), owner: '', expiresAt: START_MS + 1 }))
    await t.rejects(Promise.resolve(store.claimMark({ mark: hexOf('b'), owner: '', expiresAt: START_MS + 1 })), { code: 'OVERLOADED' })
    await t.rejects(store.backup('anywhere'), { code: 'INPUT_INVALID' })
  })
}

function faults (server: PostgresServer): void {
  t.test('a database of a newer version, and a server that does not sync, are refused', async t => {
    const name = await makeDatabase(server)
    await (await openPostgresStore({ url: server.url(name), log: SILENT_LOG, nowMs: () => START_MS })).close()
    await server.sql(name, `INSERT INTO schema_migration VALUES (99, 'future', 'x', 1)`)
    await t.rejects(openAt(t, server.url(name)), { code: 'DATA_DIR_UNUSABLE' })
    await server.sql(name, `DELETE FROM schema_migration WHERE id = 99; UPDATE schema_migration SET checksum = 'x'`)
    await t.rejects(openAt(t, server.url(name)), { code: 'STORE_CORRUPT' })
    await t.rejects(openAt(t, server.url('no_such_database')), { code: 'STORE_FAILED' })
    await server.kill()
    await server.start(['fsync=off'])
    await t.rejects(openAt(t, server.url(await makeDatabase(server))), { code: 'DATA_DIR_UNUSABLE', message: /fsync=off/ })
    await server.kill()
    await server.start()
  })

  t.test('a server that is killed refuses calls soon; what was confirmed is there, marks are remembered, and all goes on', async t => {
    const url = server.url(await makeDatabase(server))
    const log = collectLog()
    const store = await openAt(t, url, { log })
    const woken: string[] = []
    await store.onWake(topic => { woken.push(topic) })
    const confirmed: number[] = []
    const attempts = Array.from({ length: 400 }, async (_, i) => {
      await new Promise(resolve => { setTimeout(resolve, i) })
      await store.recordPayment(somePayment(i), [someDelivery(i)]).then(() => { confirmed.push(i) }, (error: { code: string }) => { t.equal(error.code, 'STORE_FAILED') })
    })
    await eventually(async () => { if (confirmed.length < 20) throw new Error('not yet') })
    await server.kill()
    await Promise.all(attempts)
    const start = performance.now()
    await t.rejects(store.recordPayment(somePayment(999), []), { code: 'STORE_FAILED' })
    await t.rejects(store.findPayment('pnb', 'T1'), { code: 'STORE_FAILED' })
    t.ok(performance.now() - start < 2_000, 'soon')
    const mark = { mark: hexOf('m'), owner: '', expiresAt: START_MS + 1000 }
    t.equal(await store.claimMark(mark), true, 'alone')
    t.equal(await store.claimMark(mark), false)
    await server.start()
    await eventually(() => store.recordPayment(somePayment(1000), []))
    t.same((await Promise.all(confirmed.map(async i => await store.findPayment('pnb', `T${i}`) === undefined ? [i] : []))).flat(), [], `all of ${confirmed.length}`)
    await eventually(async () => { if (!woken.includes(WAKE_ALL)) throw new Error('not yet') })
    t.equal(await store.claimMark({ ...mark, mark: hexOf('n') }), true)
    const other = await openAt(t, url)
    t.equal(await other.claimMark(mark), false, 'what one gateway remembered is shared again')
  })
}
