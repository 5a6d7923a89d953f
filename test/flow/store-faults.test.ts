// What the disk, the lock and the power switch may do to store and spool: calls are refused soon, nothing confirmed is lost, and all
// goes on by itself when the fault is over.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmdirSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import t from 'tap'
import { openSpool } from '../../gateway/fallback/spool.js'
import type { Store } from '../../gateway/store/contract.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { type Log, SILENT_LOG } from '../../protocol/index.js'
import { collectLog, hexOf, seededRandom, someDelivery, somePayment, START_MS } from '../support/store-records.js'
import { seedsOf } from '../support/store-random.js'
import { allPages, type Test } from '../support/store-suite.js'

const WRITER = fileURLToPath(new URL('../support/store-writer.js', import.meta.url))
const REFUSED_WITHIN_MS = 2000

const openStore = (path: string, log: Log = SILENT_LOG): Promise<Store> => openSqliteStore({ path, log, nowMs: () => START_MS })
const pause = (ms: number): Promise<void> => new Promise(resolve => { setTimeout(resolve, ms) })

/** Tries until it works, for at most five seconds. */
async function eventually<T> (work: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries > 100) throw error
      await pause(50)
    }
  }
}

t.test('a locked database refuses writes soon, answers reads, and goes on when it is free', async t => {
  const path = join(t.testdir(), 'x.db')
  const log = collectLog()
  const store = await openStore(path, log)
  t.teardown(() => store.close())
  await store.recordPayment(somePayment(1), [someDelivery(1)])
  const other = new Database(path)
  other.exec('BEGIN EXCLUSIVE')
  const waits: number[] = []
  for (let i = 10; i < 14; i++) {
    const start = performance.now()
    const results = await Promise.allSettled([store.recordPayment(somePayment(i), []), store.stepDeliveries([]), store.saveDeviceSeen([])])
    waits.push(performance.now() - start)
    t.match(results, [1, 2, 3].map(() => ({ status: 'rejected', reason: { code: 'STORE_FAILED', message: /SQLITE_BUSY/ } })))
    t.ok(await store.findPayment('pnb', 'T1'), 'readers see what was committed')
  }
  t.ok(Math.min(...waits) < REFUSED_WITHIN_MS, `refused after ${waits.map(Math.round).join(', ')} ms`)
  t.equal(store.claimMark({ mark: 'ab'.repeat(16), owner: '', expiresAt: START_MS + 1000 }), true)
  await pause(150)
  other.exec('COMMIT')
  other.close()
  t.same(await store.recordPayment(somePayment(10), []), { outcome: 'new' })
  t.equal(store.claimMark({ mark: 'cd'.repeat(16), owner: '', expiresAt: START_MS + 1000 }), true)
  await store.recordPayment(somePayment(11), [])
  t.equal(store.stats().failedBatches >= 4, true)
  t.same(log.lines.map(line => line.sentence), ['database fails', 'database works again'], 'the log says it once, not once a call')
  const db = new Database(path, { readonly: true })
  t.equal(db.prepare('SELECT count(*) FROM replay_mark').pluck().get(), 2, 'a mark claimed while it was locked is written with the next')
  db.close()
})

t.test('a locked database opens for reading at the start, once its tables are there', async t => {
  const path = join(t.testdir(), 'x.db')
  await (await openStore(path)).close()
  const other = new Database(path)
  other.exec('BEGIN EXCLUSIVE')
  const store = await openStore(path)
  t.teardown(() => store.close())
  t.equal(await store.findPayment('pnb', 'T1'), undefined)
  await t.rejects(store.recordPayment(somePayment(1), []), { code: 'STORE_FAILED' })
  other.exec('ROLLBACK')
  other.close()
  t.same(await store.recordPayment(somePayment(1), []), { outcome: 'new' })
})

const smallDisk = (at: string): boolean => spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', at]).status === 0
const MOUNT_SKIP = whyNot('a file system of three megabytes cannot be mounted here (root may)', () => {
  const at = mkdtempSync(join(tmpdir(), 'soundbox-'))
  const isMounted = smallDisk(at)
  if (isMounted) execFileSync('umount', [at])
  rmdirSync(at)
  return isMounted
})
const STRACE_SKIP = whyNot('strace cannot inject faults here', () => spawnSync('strace', ['-f', '-o', '/dev/null', '-e', 'inject=fsync:error=EIO', 'true']).status === 0)

/** For the option `skip`: the reason, or false. */
function whyNot (reason: string, works: () => boolean): string | false {
  return works() ? false : reason
}

t.test('a full disk refuses the store, not the spool, and both go on when there is room', { skip: MOUNT_SKIP }, async t => {
  const mount = join(t.testdir({ disk: {} }), 'disk')
  t.ok(smallDisk(mount))
  await fillAndFree(t, mount).finally(() => { execFileSync('umount', ['-l', mount]) })
})

async function fillAndFree (t: Test, mount: string): Promise<void> {
  const store = await openStore(join(mount, 'x.db'))
  const spool = await openSpool({ dir: join(mount, 'spool'), log: SILENT_LOG, segmentBytes: 256 * 1024, segmentsReady: 2, segmentsMax: 9 })
  await store.recordPayment(somePayment(0), [someDelivery(0)])
  const filler = openSync(join(mount, 'filler'), 'w')
  for (let bytes = 64 * 1024; bytes >= 64; bytes = bytes / 2) {
    try {
      for (;;) writeSync(filler, Buffer.alloc(bytes))
    } catch {}
  }
  closeSync(filler)
  let i = 1
  for (let full = false; !full; i++) full = await store.recordPayment(somePayment(i), [someDelivery(i)]).then(() => false, () => true)
  await t.rejects(store.recordPayment(somePayment(i), []), { code: 'STORE_FAILED', message: /SQLITE_(?:FULL|IOERR)/ })
  t.ok(await store.findPayment('pnb', 'T0'), 'reading goes on')
  for (let j = 0; j < 300; j++) await spool.append({ kind: 'payment', payment: somePayment(i + j), deliveries: [someDelivery(i + j)] })
  t.equal(spool.depth(), 300, 'preallocated segments need no room')
  t.match(await spool.drain(async record => {
    if (record.kind === 'payment') await store.recordPayment(record.payment, record.deliveries)
  }), { drained: 0, left: 300 })
  rmSync(join(mount, 'filler'))
  const report = await eventually(async () => {
    const done = await spool.drain(async record => {
      if (record.kind === 'payment') await store.recordPayment(record.payment, record.deliveries)
    })
    if (done.left > 0) throw new Error('not yet')
    return done
  })
  t.equal(report.setAside, 0)
  t.equal(store.stats().payments, i - 1 + 300, 'all are in history, none twice')
  await spool.close()
  await store.close()
}

t.test('pages that cannot be read refuse the call; repaired, all goes on without a restart', async t => {
  const dir = t.testdir()
  const path = join(dir, 'x.db')
  const first = await openStore(path)
  await Promise.all(Array.from({ length: 300 }, (_, i) => first.recordPayment(somePayment(i), [someDelivery(i)])))
  await first.close()
  const log = collectLog()
  const store = await openStore(path, log)
  t.teardown(() => store.close())
  copyFileSync(path, join(dir, 'good'))
  const size = statSync(path).size
  const file = openSync(path, 'r+')
  t.teardown(() => { closeSync(file) })
  const keptPages = pagesToKeep(path)
  for (let page = 0; page < size / 4096; page++) if (!keptPages.has(page + 1)) writeSync(file, Buffer.alloc(4096, 0xAA), 0, 4096, page * 4096)
  await t.rejects(store.findPayment('pnb', 'T7'), { code: 'STORE_FAILED' })
  await t.rejects(store.recordPayment(somePayment(999), []), { code: 'STORE_FAILED' })
  t.match(log.lines.filter(line => line.level === 'error').map(line => line.fields), [{ thread: 'sqlite-reader', code: /^SQLITE_CORRUPT/ }, { thread: 'sqlite-writer', code: /^SQLITE_CORRUPT/ }])
  writeSync(file, readFileSync(join(dir, 'good')), 0, size, 0)
  t.ok(await eventually(async () => await store.findPayment('pnb', 'T7')))
  t.same(await eventually(() => store.recordPayment(somePayment(999), [])), { outcome: 'new' })
})

t.test('a database file that is moved away takes no more payments until it is back', async t => {
  const path = join(t.testdir(), 'x.db')
  const store = await openStore(path)
  t.teardown(() => store.close())
  await store.recordPayment(somePayment(1), [])
  renameSync(path, `${path}.away`)
  await t.rejects(store.recordPayment(somePayment(2), []), { code: 'STORE_FAILED' })
  await t.rejects(store.findPayment('pnb', 'T1'), { code: 'STORE_FAILED' })
  t.notOk(existsSync(path), 'nothing is made in its place')
  renameSync(`${path}.away`, path)
  t.same(await eventually(() => store.recordPayment(somePayment(2), [])), { outcome: 'new' })
  t.ok(await eventually(() => store.findPayment('pnb', 'T1')))
})

/** The first page and what every connection reads when it opens. */
function pagesToKeep (path: string): Set<number> {
  const db = new Database(path, { readonly: true })
  const roots = db.prepare(`SELECT rootpage FROM sqlite_schema WHERE tbl_name NOT IN ('payment', 'delivery')`).pluck().all() as number[]
  const schema = db.prepare(`SELECT pageno FROM dbstat WHERE name = 'sqlite_schema'`).pluck().all() as number[]
  db.close()
  return new Set([1, ...roots, ...schema])
}

type Confirmed = { store: number[], spool: number[], refused: number[] }

/** Starts the writer and reads what it confirms; `stop` kills it without a warning once `enough` says so. */
async function runWriter (dir: string, first: number, enough: (confirmed: Confirmed) => boolean, wrap: string[] = []): Promise<Confirmed> {
  const [command = '', ...rest] = [...wrap, process.execPath, WRITER, dir, String(first)]
  const child: ChildProcess = spawn(command, rest, { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
  const confirmed: Confirmed = { store: [], spool: [], refused: [] }
  const exited = once(child, 'exit')
  for await (const line of createInterface({ input: child.stdout! })) {
    const [kind = '', i] = line.split(' ')
    if (kind !== 'ready') confirmed[kind as keyof Confirmed].push(Number(i))
    if (enough(confirmed)) {
      try {
        process.kill(-child.pid!, 'SIGKILL')
      } catch {}
    }
  }
  await exited
  return confirmed
}

t.test('kill -9 while writing loses nothing that was confirmed, and leaves no half payment', async t => {
  const dir = t.testdir()
  const random = seededRandom(7)
  let first = 0
  const all: Confirmed = { store: [], spool: [], refused: [] }
  for (let round = 0; round < 3; round++) {
    const enough = 100 + Math.floor(random() * 400)
    const confirmed = await runWriter(dir, first, ({ store, spool }) => store.length + spool.length >= enough)
    t.ok(confirmed.store.length > 10 && confirmed.spool.length > 10, `${confirmed.store.length} in the store, ${confirmed.spool.length} in the spool`)
    all.store.push(...confirmed.store)
    all.spool.push(...confirmed.spool)
    first += 10_000
  }
  const store = await openStore(join(dir, 'x.db'))
  const spool = await openSpool({ dir: join(dir, 'spool'), log: SILENT_LOG, segmentBytes: 256 * 1024, segmentsReady: 2, segmentsMax: 40 })
  const rows = await allPages(store, {}, 500)
  const ids = new Set(rows.map(row => row.payment.transactionId))
  t.same(all.store.filter(i => !ids.has(`T${i}`)), [], 'all of the store')
  t.same(rows.filter(row => row.deliveries.length !== 2).map(row => row.payment.transactionId), [], 'each with both deliveries')
  t.match(store.stats(), { payments: rows.length, openDeliveries: rows.length * 2 })
  t.same(all.store.filter(i => store.claimMark({ mark: hexOf(`mark ${i}`), owner: '', expiresAt: START_MS + 1000 })), [], 'each request mark that came before')
  t.same(all.spool.filter(i => spool.findPayment('pnb', `T${i}`) === undefined), [], 'all of the spool')
  await spool.close()
  await store.close()
})

t.test('a write-ahead log that is torn at any byte opens, with whole payments only', async t => {
  const dir = t.testdir()
  const confirmed = await runWriter(dir, 0, ({ store }) => store.length >= 150)
  t.ok(confirmed.store.length >= 150)
  const size = statSync(join(dir, 'x.db-wal')).size
  for (const seed of seedsOf(4)) {
    const random = seededRandom(seed)
    const copy = join(dir, `copy-${seed}`)
    mkdirSync(copy)
    for (const name of ['x.db', 'x.db-wal']) cpSync(join(dir, name), join(copy, name))
    const at = Math.floor(random() * size)
    if (seed % 2 === 0) truncateSync(join(copy, 'x.db-wal'), at)
    else {
      const bytes = readFileSync(join(copy, 'x.db-wal'))
      bytes[at]! ^= 0x40
      writeFileSync(join(copy, 'x.db-wal'), bytes)
    }
    const outcome = await openStore(join(copy, 'x.db')).then(store => store, (error: { code: string }) => error.code)
    if (typeof outcome === 'string') {
      t.fail(`SEED=${seed} torn at ${at} of ${size}: ${outcome}`)
      continue
    }
    const rows = await allPages(outcome, {}, 500)
    t.same(rows.filter(row => row.deliveries.length !== 2), [], `SEED=${seed} torn at ${at} of ${size}: ${rows.length} whole payments`)
    t.match(outcome.stats(), { payments: rows.length, openDeliveries: rows.length * 2 })
    await outcome.close()
  }
})

t.test('a sync that fails is not confirmed, and what was confirmed before and after is there', { skip: STRACE_SKIP }, async t => {
  const trace = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'trace=fdatasync,fsync', '-e', 'inject=fdatasync,fsync:error=EIO:when=15..20']
  const dir = t.testdir()
  let after = 0
  const confirmed = await runWriter(dir, 0, ({ store, spool, refused }) => {
    if (refused.length === 0) after = store.length + spool.length
    return refused.length > 0 && store.length + spool.length > after + 200
  }, trace)
  t.ok(confirmed.refused.length > 0, `${confirmed.refused.length} were refused, ${confirmed.store.length} and ${confirmed.spool.length} confirmed`)
  const store = await openStore(join(dir, 'x.db'))
  const spool = await openSpool({ dir: join(dir, 'spool'), log: SILENT_LOG, segmentBytes: 256 * 1024, segmentsReady: 2, segmentsMax: 40 })
  const ids = new Set((await allPages(store, {}, 500)).map(row => row.payment.transactionId))
  t.same(confirmed.store.filter(i => !ids.has(`T${i}`)), [])
  t.same(confirmed.spool.filter(i => spool.findPayment('pnb', `T${i}`) === undefined), [])
  await spool.close()
  await store.close()
})
