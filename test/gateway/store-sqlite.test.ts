import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import t from 'tap'
import type { HistoryQuery } from '../../gateway/store/contract.js'
import { foldChanges } from '../../gateway/store/delivery-steps.js'
import { migrateSqlite, migrationChecksum, pendingMigrations } from '../../gateway/store/migrate.js'
import { createReplayMemory } from '../../gateway/store/replay-marks.js'
import { MARKS_PAGE, openSqliteStore } from '../../gateway/store/sqlite.js'
import { createBatchWriter, type Op, type Ops } from '../../gateway/store/sqlite-batch.js'
import { historyOps, historySql } from '../../gateway/store/sqlite-history.js'
import { BUSY_TIMEOUT_MS_MAX, openDatabase, PAGE_BYTES, WAL_PAGES_MAX } from '../../gateway/store/sqlite-open.js'
import { readOps, writeOps } from '../../gateway/store/sqlite-ops.js'
import { SQLITE_MIGRATIONS } from '../../gateway/store/sqlite-schema.js'
import { TRANSACTION_OPS_MAX } from '../../gateway/store/sqlite-worker.js'
import { openWorkerLink, type WorkerLink } from '../../gateway/store/worker-link.js'
import { SILENT_LOG } from '../../protocol/index.js'
import type { Test } from '../support/store-suite.js'
import { collectLog, hexOf, someDelivery, somePayment, START_MS, stepOf } from '../support/store-records.js'

const settings = (path: string) => ({ path, log: SILENT_LOG, nowMs: () => START_MS })

/** A database with our tables, in this thread. */
function openHere (t: Pick<Test, 'testdir' | 'teardown'>): Database.Database {
  const db = openDatabase({ path: join(t.testdir(), 'here.db'), busyTimeoutMs: 50, readonly: false })
  t.teardown(() => db.close())
  migrateSqlite(db, SQLITE_MIGRATIONS, START_MS)
  return db
}

t.test('connections are durable, bounded and keep their settings', async t => {
  const db = openHere(t)
  t.same(['journal_mode', 'synchronous', 'foreign_keys', 'busy_timeout'].map(name => db.pragma(name, { simple: true })), ['wal', 2, 1, 50])
  const other = openDatabase({ path: db.name, busyTimeoutMs: 5000, readonly: true })
  t.teardown(() => other.close())
  t.equal(other.pragma('busy_timeout', { simple: true }), BUSY_TIMEOUT_MS_MAX)
  t.equal(other.pragma('synchronous', { simple: true }), 2)
  t.throws(() => openDatabase({ path: ':memory:', busyTimeoutMs: 50, readonly: false }), { code: 'DATA_DIR_UNUSABLE' }, 'a database without a log is refused')
  rmSync(':memory:') // SQLite takes the name for no file; the file that was made for it is empty.
})

t.test('a busy time-out over the limit is refused, the limit is taken', async t => {
  const path = join(t.testdir(), 'x.db')
  await t.rejects(openSqliteStore({ ...settings(path), busyTimeoutMs: BUSY_TIMEOUT_MS_MAX + 1 }), { code: 'CONFIG_INVALID' })
  const store = await openSqliteStore({ ...settings(path), busyTimeoutMs: BUSY_TIMEOUT_MS_MAX })
  for (const name of [path, `${path}-wal`, `${path}-shm`]) t.equal(statSync(name).mode & 0o777, 0o600, name)
  await store.close()
})

t.test('migrations run once, in order, and each in one piece', async t => {
  const db = openDatabase({ path: join(t.testdir(), 'm.db'), busyTimeoutMs: 50, readonly: false })
  t.teardown(() => db.close())
  const first = { id: 1, name: 'one', sql: 'CREATE TABLE a (x)' }
  const second = { id: 2, name: 'two', sql: 'CREATE TABLE b (x); INSERT INTO b VALUES (1)' }
  t.equal(migrateSqlite(db, [first], 5), 1)
  t.equal(migrateSqlite(db, [first, second], 6), 1)
  t.equal(migrateSqlite(db, [first, second], 7), 0)
  t.same(db.prepare('SELECT id, name, applied_at FROM schema_migration').all(), [{ id: 1, name: 'one', applied_at: 5 }, { id: 2, name: 'two', applied_at: 6 }])
  const broken = { id: 3, name: 'three', sql: 'CREATE TABLE c (x); INSERT INTO nowhere VALUES (1)' }
  t.throws(() => migrateSqlite(db, [first, second, broken], 8))
  t.equal(db.prepare(`SELECT count(*) AS n FROM sqlite_schema WHERE name = 'c'`).pluck().get(), 0, 'a failed migration leaves nothing')
  t.equal(migrateSqlite(db, [first, second, { ...broken, sql: 'CREATE TABLE c (x)' }], 9), 1)
})

t.test('a changed, missing or newer migration is refused by name', async t => {
  const [one, two] = [{ id: 1, name: 'one', sql: 'A' }, { id: 2, name: 'two', sql: 'B' }]
  const rows = [one, two].map(migration => ({ id: migration.id, checksum: migrationChecksum(migration) }))
  t.same(pendingMigrations([one, two], rows.slice(0, 1)), [two])
  t.throws(() => pendingMigrations([one], rows), { code: 'DATA_DIR_UNUSABLE', message: /migration 2, this version knows 1/ })
  t.throws(() => pendingMigrations([one, { ...two, sql: 'C' }], rows), { code: 'STORE_CORRUPT', message: /migration 2/ })
  t.throws(() => pendingMigrations([one, two], rows.slice(1)), { code: 'STORE_CORRUPT' })
})

t.test('a database of a newer version, and a file that is none, are refused at the start', async t => {
  const path = join(t.testdir(), 'x.db')
  const store = await openSqliteStore(settings(path))
  await store.close()
  const db = new Database(path)
  db.prepare('INSERT INTO schema_migration VALUES (?, ?, ?, ?)').run(SQLITE_MIGRATIONS.length + 1, 'future', 'x', 1)
  db.close()
  await t.rejects(openSqliteStore(settings(path)), { code: 'DATA_DIR_UNUSABLE' })
  const edited = new Database(path)
  edited.prepare('DELETE FROM schema_migration WHERE id > ?').run(SQLITE_MIGRATIONS.length)
  edited.prepare(`UPDATE schema_migration SET checksum = 'x' WHERE id = 1`).run()
  edited.close()
  await t.rejects(openSqliteStore(settings(path)), { code: 'STORE_CORRUPT' })
  writeFileSync(path, 'this is not a database, and long enough to look like one '.repeat(20))
  await t.rejects(openSqliteStore(settings(path)), { code: 'STORE_CORRUPT' })
  await t.rejects(openSqliteStore(settings(join(t.testdir(), 'no', 'such', 'folder.db'))), { code: 'DATA_DIR_UNUSABLE' })
})

t.test('no history query scans a table or sorts, with any filters', async t => {
  const db = openHere(t)
  const choices: Omit<HistoryQuery, 'limit'> = {
    bankId: 'pnb', merchant: 'm', tid: 'b', since: 1, until: 2, status: 'failed', transactionId: 'T', cursor: Buffer.from('5.6').toString('base64url')
  }
  const names = Object.keys(choices) as (keyof typeof choices)[]
  for (let mask = 0; mask < 1 << names.length; mask++) {
    const query = Object.fromEntries(names.filter((_, bit) => mask & (1 << bit)).map(name => [name, choices[name]])) as Omit<HistoryQuery, 'limit'>
    const { sql, values } = historySql({ ...query, limit: 50 })
    const plan = (db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(values) as { detail: string }[]).map(row => row.detail)
    const isFew = query.transactionId !== undefined
    const bad = plan.filter(step => (/^SCAN/.test(step) && !/USING INDEX payment_failed$/.test(step)) || (/TEMP B-TREE/.test(step) && !isFew))
    t.same(bad, [], `${names.filter((_, bit) => mask & (1 << bit)).join('+')}: ${plan.join(' | ')}`)
    if (query.cursor !== undefined && !isFew && query.since === undefined) t.match(plan[0], /accepted_at<\?/, 'a cursor is where the walk begins')
    if (query.tid !== undefined && !isFew) t.match(plan[0], /delivery_history \(tid=\? AND listed=\?/, 'payments that are not listed are not walked over')
  }
})

t.test('no operation of the writer or reader scans payments, deliveries or marks', async t => {
  const db = openHere(t)
  const seen: string[] = []
  const watched = new Proxy(db, {
    get: (target, name) => name === 'prepare'
      ? (sql: string) => {
          seen.push(sql)
          return target.prepare(sql)
        }
      : Reflect.get(target, name) as unknown
  })
  const counters = { payments: 0, open: 0 }
  createBatchWriter({ db: watched, ops: writeOps(watched, counters) as Ops, counters })
  readOps(watched)
  const queries = seen.filter(sql => /^\s*(?:SELECT|UPDATE|DELETE|INSERT)/i.test(sql))
  t.ok(queries.length > 25, `${queries.length} statements`)
  for (const sql of queries) {
    const plan = (db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...boundFor(sql)) as { detail: string }[]).map(row => row.detail)
    const scans = plan.filter(step => /^SCAN (?:p|d|payment|delivery|replay_mark)\b/.test(step))
    t.same(scans, [], `${sql.slice(0, 60)}: ${plan.join(' | ')}`)
  }
})

/** EXPLAIN wants its parameters bound, with anything. */
function boundFor (sql: string): unknown[] {
  const named = [...sql.matchAll(/:(\w+)/g)].map(match => [match[1], null] as const)
  return named.length > 0 ? [Object.fromEntries(named)] : [...sql.matchAll(/\?/g)].map(() => null)
}

t.test('deep pages of a large history cost what the first one costs', async t => {
  const db = openHere(t)
  const insert = db.prepare(`INSERT INTO payment (bank_id, transaction_id, merchant, amount_minor, currency, status, source, content_hash, accepted_at, listed)
    VALUES ('pnb', 'T' || ?, 'shop', 1, 'INR', 'success', 'http', zeroblob(16), ?, 1)`)
  db.transaction(() => { for (let i = 0; i < 20_000; i++) insert.run(String(i), i) })()
  const ops = historyOps(db)
  const quickest = (cursor?: string): number => Math.min(...Array.from({ length: 9 }, () => {
    const start = performance.now()
    ops.queryHistory({ merchant: 'shop', limit: 20, ...(cursor === undefined ? {} : { cursor }) })
    return performance.now() - start
  }))
  const deep = Buffer.from('40.41', 'latin1').toString('base64url')
  t.equal(ops.queryHistory({ merchant: 'shop', limit: 20, cursor: deep }).rows[0]?.payment.transactionId, 'T39')
  const [first, last] = [quickest(), quickest(deep)]
  t.ok(last < first * 10, `first page ${first.toFixed(3)} ms, page 1,000 ${last.toFixed(3)} ms; walking there would be a thousandfold`)
})

t.test('the write-ahead log stays within its bound under load', async t => {
  const db = openHere(t)
  const insert = db.prepare(`INSERT INTO replay_mark (mark, owner, expires_at) VALUES (zeroblob(16), ?, 1)`)
  const owner = 'o'.repeat(PAGE_BYTES - 200)
  for (let batch = 0; batch < 30; batch++) db.transaction(() => { for (let i = 0; i < WAL_PAGES_MAX / 20; i++) insert.run(owner) })()
  const bytes = statSync(`${db.name}-wal`).size
  t.ok(bytes < WAL_PAGES_MAX * PAGE_BYTES * 1.2, `${bytes} bytes of log after one and a half times its bound was written`)
})

t.test('many steps of one delivery fold into one', async t => {
  const delivery = someDelivery(1)
  const folded = foldChanges([
    stepOf(delivery, 'delivered', 3), stepOf(delivery, 'published', 2), stepOf(someDelivery(2), 'published', 9),
    stepOf(delivery, 'spoken', 5, { audioMs: 7 }), stepOf(delivery, 'failed', 6, { reason: 'x' })
  ])
  t.equal(folded.size, 2)
  t.match([...folded.values()], [{ code: 3, publishedAt: 2, deliveredAt: 3, finalAt: 5, audioMs: 7, reason: null }, { code: 1, publishedAt: 9, finalAt: null }])
})

t.test('steps that wait in one batch are one UPDATE a delivery', async t => {
  const db = openHere(t)
  const counters = { payments: 0, open: 0 }
  const ops = writeOps(db, counters)
  const calls: number[] = []
  const counted = { ...ops, stepDeliveries: (changes: Parameters<typeof ops.stepDeliveries>[0]) => {
    calls.push(changes.length)
    return ops.stepDeliveries(changes)
  } }
  const run = createBatchWriter({ db, ops: counted as Ops, counters })
  const step = (i: number, state: 'published' | 'spoken'): Op => ['stepDeliveries', [stepOf(someDelivery(i), state, i)]]
  const record = (i: number): Op => ['recordPayment', { payment: somePayment(i), deliveries: [someDelivery(i)] }]
  const reverse: Op = ['reversePayment', { bankId: 'pnb', transactionId: 'T2', at: 9 }]
  const reply = run([record(1), step(1, 'published'), record(2), step(2, 'published'), step(1, 'spoken'), reverse, step(2, 'spoken'), step(3, 'spoken')])
  t.same(calls, [3, 2], 'gathered up to the operation that they must not pass')
  t.same(reply.values.map(value => Array.isArray(value) ? value.length : 'other'), ['other', 0, 'other', 0, 0, 'other', 0, 1])
  t.same(counters, { payments: 2, open: 0 })
})

t.test('a backup is a whole, checked, private copy that opens as a store', async t => {
  const dir = t.testdir()
  const store = await openSqliteStore(settings(join(dir, 'x.db')))
  t.teardown(() => store.close())
  await Promise.all(Array.from({ length: 200 }, (_, i) => store.recordPayment(somePayment(i), [someDelivery(i)])))
  const target = join(dir, 'copy.db')
  let writes = 0
  writeFileSync(join(dir, 'old.db.backup-part'), 'cut off by a power failure')
  const backup = store.backup(target)
  await t.rejects(store.backup(join(dir, 'second.db')), { code: 'STORE_FAILED' }, 'one at a time')
  for (let done = false; !done;) {
    await store.recordPayment(somePayment(1000 + writes++), [])
    done = await Promise.race([backup.then(() => true), new Promise<false>(resolve => { setImmediate(() => { resolve(false) }) })])
  }
  t.equal((await backup).bytes, statSync(target).size)
  t.equal(statSync(target).mode & 0o777, 0o600)
  t.same(readdirSync(dir).filter(name => name.endsWith('-part')), [])
  t.ok(writes > 1, `${writes} payments were recorded meanwhile`)
  const copy = await openSqliteStore(settings(target))
  t.ok((await copy.findPayment('pnb', 'T199')) !== undefined)
  t.ok(copy.stats().payments >= 200)
  await copy.close()
  await t.rejects(store.backup(target), { code: 'INPUT_INVALID' }, 'nothing is overwritten')
  await t.rejects(store.backup(join(dir, 'no', 'folder.db')), { code: 'DATA_DIR_UNUSABLE' })
})

t.test('the queue has a limit, and beyond it calls are refused at once', async t => {
  const store = await openSqliteStore({ ...settings(join(t.testdir(), 'x.db')), queueMax: 10 })
  t.teardown(() => store.close())
  const ten = Array.from({ length: 10 }, (_, i) => store.recordPayment(somePayment(i), []))
  t.equal(store.stats().writeQueue, 10)
  await t.rejects(store.recordPayment(somePayment(10), []), { code: 'STORE_FAILED', message: /10 calls wait/ })
  await Promise.all(ten)
  t.same(await store.recordPayment(somePayment(10), []), { outcome: 'new' })
  t.match(store.stats(), { payments: 11, writeQueue: 0, committedOps: 11 })
  t.ok(store.stats().committedBatches <= 3, 'one turn is one transaction')
})

t.test('a flood is several transactions, and all marks of a full memory come back after a restart', async t => {
  const path = join(t.testdir(), 'x.db')
  const first = await openSqliteStore(settings(path))
  await Promise.all(Array.from({ length: TRANSACTION_OPS_MAX * 2 + 1 }, () => first.stepDeliveries([])))
  t.match(first.stats(), { committedBatches: 3, committedOps: TRANSACTION_OPS_MAX * 2 + 1 })
  await first.close()
  const db = new Database(path)
  const insert = db.prepare('INSERT INTO replay_mark (mark, owner, expires_at) VALUES (unhex(?), ?, ?)')
  db.transaction(() => { for (let i = 0; i < MARKS_PAGE + 2; i++) insert.run(i.toString(16).padStart(32, '0'), '', START_MS + (i === 5 ? -1 : 9)) })()
  db.close()
  const store = await openSqliteStore(settings(path))
  t.teardown(() => store.close())
  const claim = (i: number): boolean | Promise<boolean> => store.claimMark({ mark: i.toString(16).padStart(32, '0'), owner: '', expiresAt: START_MS + 9 })
  t.same([0, 5, MARKS_PAGE - 1, MARKS_PAGE, MARKS_PAGE + 1, MARKS_PAGE + 2].map(claim), [false, true, false, false, false, true])
})

t.test('the replay memory has a limit, counts after a purge again, and purges by time', async t => {
  const memory = createReplayMemory(3)
  const mark = (name: string, expiresAt = START_MS + 60_000) => ({ mark: hexOf(name), owner: '', expiresAt })
  for (const name of ['a', 'b', 'c']) t.ok(memory.claim(mark(name), START_MS))
  t.throws(() => memory.claim(mark('d'), START_MS), { code: 'OVERLOADED' })
  t.notOk(memory.claim(mark('a'), START_MS), 'a known one is still answered')
  t.equal(await memory.purge(START_MS + 60_000), 0, 'not before their minute is over')
  t.equal(await memory.purge(START_MS + 240_000), 3)
  t.equal(memory.size(), 0)
  t.ok(memory.claim(mark('d'), START_MS))
  memory.claim(mark('e', START_MS + 1000), START_MS)
  t.ok(memory.claim(mark('e', START_MS + 500_000), START_MS + 2000), 'free after its time, before any purge')
  t.equal(await memory.purge(START_MS + 240_000), 1, 'the old entry of a mark that was claimed anew does not take the new one with it')
  t.notOk(memory.claim(mark('e', START_MS + 500_000), START_MS + 3000))
})

t.test('marks over the limit are OVERLOADED, and a closed store claims nothing', async t => {
  const store = await openSqliteStore({ ...settings(join(t.testdir(), 'x.db')), marksMax: 1 })
  t.ok(store.claimMark({ mark: hexOf('a'), owner: '', expiresAt: START_MS + 1 }))
  t.throws(() => store.claimMark({ mark: hexOf('b'), owner: '', expiresAt: START_MS + 1 }), { code: 'OVERLOADED' })
  await store.close()
  t.throws(() => store.claimMark({ mark: hexOf('a'), owner: '', expiresAt: START_MS + 1 }), { code: 'STORE_FAILED' })
})

const THREAD = `
import { parentPort, workerData } from 'node:worker_threads'
import { appendFileSync, readFileSync } from 'node:fs'
appendFileSync(workerData.file, 'x')
if (readFileSync(workerData.file, 'utf8').length <= workerData.failStarts) throw new Error('does not start')
parentPort.postMessage(JSON.stringify({ ready: true }))
parentPort.on('message', text => {
  const request = JSON.parse(text)
  if (request.close) return parentPort.close()
  if (request.ops.some(([name]) => name === 'die')) process.exit(1)
  parentPort.postMessage(JSON.stringify({ values: request.ops.map(([, argument]) => argument), failures: [], fault: null, count: request.ops.length }))
})`

t.test('a thread that dies has its calls refused and is started again', async t => {
  const dir = t.testdir({ 'thread.mjs': THREAD, starts: '' })
  const log = collectLog()
  const open = (failStarts: number): Promise<WorkerLink> => openWorkerLink({
    script: new URL(`file://${join(dir, 'thread.mjs')}`), data: { file: join(dir, 'starts'), failStarts }, name: 'test', queueMax: 10, log, onReply: () => {}
  })
  const link = await open(0)
  t.equal(await link.call('echo', 5), 5)
  const [one, two] = await Promise.allSettled([link.call('die', 1), link.call('echo', 2)])
  t.match([one, two], [{ status: 'rejected', reason: { code: 'STORE_FAILED' } }, { status: 'rejected', reason: { code: 'STORE_FAILED' } }])
  await t.rejects(link.call('echo', 1), { code: 'STORE_FAILED' }, 'while it is down')
  for (let answer: unknown; answer !== 7;) answer = await link.call('echo', 7).catch(() => new Promise(resolve => { setTimeout(resolve, 20) }))
  t.equal(readFileSync(join(dir, 'starts'), 'utf8'), 'xx')
  t.match(log.lines, [{ level: 'error', sentence: 'database thread ended, starting it again' }])
  await link.close()
  await t.rejects(link.call('echo', 1), { code: 'STORE_FAILED' })
  await t.rejects(open(99), { code: 'STORE_FAILED' }, 'one that does not start at all is an error')
})
