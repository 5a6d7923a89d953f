// The recurring work: the table that runs it, and what each job of the house does.
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SoundboxError } from '../../protocol/index.js'
import { scheduleCron } from '../../gateway/jobs/cron.js'
import { backupsIn, drainFallback, houseJobs, PURGE_BATCH, PURGE_BATCHES_MAX } from '../../gateway/jobs/house-jobs.js'
import { type Job, startJobs } from '../../gateway/jobs/table.js'
import { anItem, handClock, memoryFallback, memoryStore, settled } from '../support/heart-fakes.js'
import { collectLog, hexOf, someDelivery, somePayment, START_MS, stepOf } from '../support/store-records.js'
import { tempDir } from '../support/rig.js'

function openTable (jobs: readonly Job[]) {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const log = collectLog()
  const fire = new Map<string, () => void>()
  const stopped: string[] = []
  const table = startJobs(jobs, { store, log, nowMs: clock.nowMs, schedule: (cron, callback) => {
    fire.set(cron, callback)
    return { stop: () => { stopped.push(cron) } }
  } })
  return { clock, store, log, fire, stopped, table }
}

t.test('a job of what this node alone has runs whoever holds the lock', async t => {
  const ran: string[] = []
  const job = (name: string, more: Partial<Job> = {}): Job => ({ name, cron: name, what: name, run: async () => { ran.push(name) }, ...more })
  const table = startJobs([job('shared'), job('local', { isLocal: true })], { store: { exclusively: async () => false }, log: collectLog(), nowMs: () => 0, schedule: () => ({ stop: () => {} }) })
  for (const name of ['shared', 'local']) t.equal(await table.runNow(name), true)
  t.same(ran, ['local'])
  await table.close()
})

t.test('a job runs at its time, never beside itself, and its failure is told and tried again', async t => {
  let running = 0
  let most = 0
  let end = (): void => {}
  let fails = false
  const { clock, log, fire, stopped, table } = openTable([
    { name: 'slow', cron: 'a', what: 'takes its time', async run () {
      most = Math.max(most, ++running)
      await new Promise<void>(resolve => { end = resolve })
      running--
    } },
    { name: 'frail', cron: 'b', what: 'fails', run: () => fails ? Promise.reject(new SoundboxError('STORE_FAILED', 'locked')) : Promise.resolve() }
  ])
  fire.get('a')?.()
  fire.get('a')?.()
  await settled()
  t.same([running, most], [1, 1])
  clock.advance(50)
  end()
  await settled()
  t.match(table.report(), [{ name: 'slow', runs: 1, failures: 0, lastAt: START_MS, lastMs: 50, lastError: null }, { name: 'frail', runs: 0, lastAt: null }])
  fails = true
  t.equal(await table.runNow('frail'), true)
  t.match(table.report()[1], { runs: 1, failures: 1, lastError: /^STORE_FAILED: locked/ })
  t.match(log.lines, [{ level: 'error', fields: { job: 'frail' }, sentence: 'job failed' }])
  fails = false
  fire.get('b')?.()
  await settled()
  t.match(table.report()[1], { runs: 2, failures: 1, lastError: null }, 'the next run is well again')
  t.equal(await table.runNow('nothing'), false)
  fire.get('a')?.()
  await settled()
  let closed = false
  const closing = table.close().then(() => { closed = true })
  await settled()
  t.same(stopped, ['a', 'b'])
  t.notOk(closed, 'a stop waits for the run that is under way')
  end()
  await closing
})

t.test('a cron of six fields fires by the second and ends when it is stopped', async t => {
  await new Promise<void>(resolve => {
    const timer = scheduleCron('* * * * * *', () => {
      timer.stop()
      resolve()
    })
  })
  t.throws(() => scheduleCron('nonsense', () => {}))
})

function openHouse (dir: string, more: { backupKeep?: number, expire?: () => number, sweep?: () => Promise<void> } = {}) {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const fallback = memoryFallback()
  const log = collectLog()
  const counts = { expire: 0, purge: 0 }
  if (more.expire !== undefined) store.expireDeliveries = async () => { counts.expire++; return more.expire?.() ?? 0 }
  store.backup = async path => {
    writeFileSync(path, 'copy')
    return { bytes: 4 }
  }
  const jobs = houseJobs({
    store, fallback, backup: { dir, prefix: 'soundbox', make: path => store.backup(path) }, sweepVendors: more.sweep ?? (async () => {}),
    settings: { retentionDays: 400, backupKeep: more.backupKeep ?? 3, backupCron: '30 2 * * *', summaryMs: 600_000 }, nowMs: clock.nowMs, log
  })
  const run = (name: string): Promise<void> => jobs.find(job => job.name === name)?.run() ?? Promise.reject(new Error(name))
  return { clock, store, fallback, log, counts, jobs, run }
}

t.test('the sweep expires what is too old to be said, in small batches, with an end', async t => {
  let swept = 0
  const house = openHouse(tempDir(t), { sweep: async () => { swept++ } })
  house.store.model.recordNotice(anItem(1, START_MS - 600_001))
  house.store.model.recordNotice(anItem(2, START_MS - 600_000))
  await house.run('deliveries-sweep')
  t.same(house.store.model.openDeliveries('BOX1', 10).map(({ announcementId }) => announcementId), [hexOf('item 2')])
  t.equal(swept, 1, 'vendors are tried again')
  const endless = openHouse(tempDir(t), { expire: () => PURGE_BATCH })
  await endless.run('deliveries-sweep')
  t.equal(endless.counts.expire, PURGE_BATCHES_MAX, 'the rest waits for the next run')
})

t.test('old history and old marks go, young ones stay', async t => {
  const house = openHouse(tempDir(t))
  const asked: unknown[][] = []
  house.store.purgeHistory = async (before, limit) => {
    asked.push([before, limit])
    return asked.length === 1 ? PURGE_BATCH : 3
  }
  await house.run('history-retention')
  t.same(asked, [[START_MS - 400 * 86_400_000, PURGE_BATCH], [START_MS - 400 * 86_400_000, PURGE_BATCH]])
  t.match(house.log.lines, [{ fields: { removed: PURGE_BATCH + 3 } }])
  let before = 0
  house.store.purgeMarks = async expiredBefore => { before = expiredBefore; return 0 }
  await house.run('replay-purge')
  t.equal(before, START_MS)
})

t.test('backups are kept to their number, the newest, and nothing else is removed', async t => {
  const dir = join(tempDir(t), 'backup')
  mkdirSync(dir)
  writeFileSync(join(dir, 'notes.txt'), 'mine')
  for (const name of ['integration-1.db', 'integration-2.db', 'integration-3.db']) writeFileSync(join(dir, name), 'of another database')
  const house = openHouse(dir, { backupKeep: 2 })
  for (let day = 0; day < 4; day++) {
    await house.run('backup')
    house.clock.advance(86_400_000)
  }
  t.equal(backupsIn(dir, 'soundbox').length, 2)
  t.match(backupsIn(dir, 'soundbox')[1], /^soundbox-2024-10-06T/)
  t.ok(readdirSync(dir).includes('notes.txt'))
  t.equal(backupsIn(dir, 'integration').length, 3)
  const none = openHouse(dir, { backupKeep: 0 })
  await none.run('backup')
  t.equal(backupsIn(dir, 'soundbox').length, 2, 'no backups wanted, none made and none removed')
  house.store.backup = () => Promise.reject(new SoundboxError('STORE_CORRUPT', 'the copy is damaged'))
  await t.rejects(house.run('backup'), { code: 'STORE_CORRUPT' })
  t.equal(backupsIn(dir, 'soundbox').length, 2, 'a failed backup costs no older one')
})

t.test('the drain brings payments, steps and reversals into history, and waits while history refuses', async t => {
  const house = openHouse(tempDir(t))
  const { store, fallback, log } = house
  const delivery = someDelivery(1)
  await fallback.append({ kind: 'payment', payment: somePayment(1), deliveries: [delivery] })
  await fallback.append({ kind: 'changes', changes: [stepOf(delivery, 'published', 5)] })
  await fallback.append({ kind: 'reversal', bankId: 'pnb', transactionId: 'T1', at: 9 })
  store.refuses.writes = true
  await house.run('spool-drain')
  t.equal(fallback.depth(), 3)
  t.equal(log.lines.length, 0, 'nothing moved, nothing said')
  store.refuses.writes = false
  await house.run('spool-drain')
  t.equal(fallback.depth(), 0)
  t.match(store.model.findPayment('pnb', 'T1'), { reversedAt: 9, deliveries: [{ state: 'reversed', publishedAt: 5 }] })
  t.match(log.lines, [{ fields: { drained: 3 } }])
  const rejects = { ...fallback, depth: () => 1, drain: () => Promise.reject(new SoundboxError('STORE_FAILED', 'spool unreadable')) }
  await drainFallback({ store, fallback: rejects, log })
  await t.rejects(drainFallback({ store, fallback: { ...rejects, drain: () => Promise.reject(new TypeError('ours')) }, log }), { name: 'TypeError' })
  let verdict: unknown
  const asks = { ...fallback, depth: () => 1, drain: async (apply: Parameters<typeof fallback.drain>[0]) => {
    verdict = await apply({ kind: 'payment', payment: somePayment(1, { contentHash: 'ab'.repeat(16) }), deliveries: [] }).catch((error: unknown) => error)
    return { drained: 0, left: 0, setAside: 1 }
  } }
  await drainFallback({ store, fallback: asks, log })
  t.match(verdict, { code: 'PAYMENT_CONFLICT', retryable: false }, 'what history has with other content can never be applied')
})
