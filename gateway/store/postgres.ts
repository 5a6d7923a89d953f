// The store of several gateways: PostgreSQL. Any number of them write at once; unique keys decide what is new, advisory locks which
// of them runs a job. The SQL is in postgres-*.ts.
import { createHash } from 'node:crypto'
import { type Log, SoundboxError } from '../../protocol/index.js'
import type { NewDelivery, Store, StoreStats } from './contract.js'
import { deviceStates, loadDirectory, removeMapping, saveBank, saveBankKey, saveDevice, saveDeviceSeen, saveMapping } from './postgres-directory.js'
import { findTransactions, removeReversal, saveReversal, waitingReversals } from './postgres-iso.js'
import { createMarkClaims } from './postgres-marks.js'
import { createLane, createPool, LANES, type Pool, preparePostgres, type Queryable, sqlState, storeErrorFrom } from './postgres-open.js'
import { createWriteQueue, type WriteQueue } from './postgres-queue.js'
import { countRows, openDeliveries, queryHistory, totalSince, waitingTids } from './postgres-reads.js'
import { findPayments } from './postgres-rows.js'
import { POSTGRES_MIGRATIONS } from './postgres-schema.js'
import { createWakes, type Wakes } from './postgres-wake.js'
import { type Counted, expireDeliveries, purgeHistory, recordNotice, recordSummary, recordSummaryOnce, reversePayment } from './postgres-writes.js'
import { createReplayMemory, REPLAY_MARKS_MAX } from './replay-marks.js'

/** Calls that may wait for the database; the next is refused at once. */
export const POSTGRES_QUEUE_MAX = 20_000
/** After a lost connection calls are refused at once for this long, so that not each waits for its own time-out. */
const BROKEN_PAUSE_MS = 250
/** The counts of all gateways are read anew after this; in between this one's own changes are added. */
const STATS_AGE_MS = 60_000
const JOB_LOCKS = 0x736F
const NO_SERVER = /^(?:08|57|53)/

export type PostgresSettings = { url: string, log: Log, nowMs: () => number, queueMax?: number, marksMax?: number }
export type PostgresStore = Store & Pick<Wakes, 'wake' | 'onWake'> & {
  /** As recordSummary; but false, and nothing is recorded, when a member has ended already or is not there. */
  recordSummaryOnce: (summary: NewDelivery, members: readonly string[], at: number) => Promise<boolean>
  /** Boxes that are there, for which something waits that was issued in between (from inclusive) and that no gateway has sent. */
  waitingTids: (query: { issuedFrom: number, issuedBefore: number, limit: number }) => Promise<readonly string[]>
}

/**
 * Connects and runs the migrations. Rejects with STORE_FAILED (no connection), DATA_DIR_UNUSABLE (the server does not sync, or a newer
 * version wrote the database) or STORE_CORRUPT (a changed migration). `backup` is PostgreSQL's own business and rejects.
 */
export async function openPostgresStore (settings: PostgresSettings): Promise<PostgresStore> {
  const { url, log, nowMs } = settings
  const pool = createPool(url, log)
  try {
    await preparePostgres(url, POSTGRES_MIGRATIONS, nowMs())
    const counts = await countRows(pool)
    return storeOver(pool, settings, { writeQueue: 0, committedBatches: 0, committedOps: 0, failedBatches: 0, ...counts })
  } catch (error) {
    await pool.end().catch(() => {})
    throw storeErrorFrom(error)
  }
}

function storeOver (pool: Pool, { url, log, nowMs, ...settings }: PostgresSettings, stats: StoreStats): PostgresStore {
  const queueMax = settings.queueMax ?? POSTGRES_QUEUE_MAX
  const [reads, db] = failingFast(pool, [LANES.reads, LANES.writes]) as [Queryable, Queryable]
  const jobs = createLane(LANES.jobs)
  const writes = createWriteQueue(db, queueMax, {
    onCounted: ({ payments, open }) => { Object.assign(stats, { payments: stats.payments + payments, openDeliveries: stats.openDeliveries + open }) },
    onBatch: (ok, ops) => {
      if (ok) Object.assign(stats, { committedBatches: stats.committedBatches + 1, committedOps: stats.committedOps + ops })
      else stats.failedBatches += 1
    }
  })
  const marks = createMarkClaims({ db, memory: createReplayMemory(settings.marksMax ?? REPLAY_MARKS_MAX), nowMs, log })
  const wakes = createWakes(url, db, log)
  const gate = createGate(queueMax)
  const fresh = freshCounts(reads, stats, log)
  return {
    ...writeCalls(writes, gate),
    ...readCalls(reads, gate),
    claimMark: mark => gate.open() ? marks.claim(mark) : Promise.reject(gate.refusal()),
    purgeMarks: expiredBefore => gate.pass(() => marks.purge(expiredBefore)),
    backup: async () => { throw new SoundboxError('INPUT_INVALID', 'PostgreSQL is backed up with its own tools (pg_dump, pg_basebackup)') },
    exclusively: async (job, work) => {
      if (!gate.open()) throw gate.refusal()
      return await jobs(() => runExclusively(pool, job, work))
    },
    wake: topic => gate.pass(() => wakes.wake(topic)),
    onWake: handler => gate.pass(() => wakes.onWake(handler)),
    waitingTids: query => gate.pass(() => waitingTids(db, query)),
    stats: () => {
      fresh()
      return { ...stats, writeQueue: writes.waiting() }
    },
    close: async () => {
      if (!gate.open()) return
      gate.close()
      await writes.idle()
      await marks.idle()
      await wakes.close()
      await pool.end()
    }
  }
}

type Gate = { open: () => boolean, close: () => void, refusal: () => SoundboxError, pass: <T>(work: () => Promise<T>) => Promise<T> }

/** Lets calls in while the store is open and not too many are inside; their errors leave as ours. */
function createGate (callsMax: number): Gate {
  let isOpen = true
  let inside = 0
  const refusal = (): SoundboxError => new SoundboxError('STORE_FAILED', isOpen ? `${callsMax} calls wait for the database already` : 'the store is closed')
  return {
    open: () => isOpen,
    close: () => { isOpen = false },
    refusal,
    async pass (work) {
      if (!isOpen || inside >= callsMax) throw refusal()
      inside += 1
      try {
        return await work()
      } catch (error) {
        throw storeErrorFrom(error)
      } finally {
        inside -= 1
      }
    }
  }
}

/** One door to the pool for each width. All refuse at once for a moment after the server could not be reached. */
function failingFast (pool: Pool, widths: readonly number[]): Queryable[] {
  let brokenUntil = 0
  const query: Queryable['query'] = async (sql, values) => {
    if (performance.now() < brokenUntil) throw new SoundboxError('STORE_FAILED', 'the database could not be reached a moment ago')
    try {
      return await pool.query(sql, values)
    } catch (error) {
      const state = sqlState(error)
      if (state === '' || NO_SERVER.test(state)) brokenUntil = performance.now() + BROKEN_PAUSE_MS
      throw error
    }
  }
  return widths.map(width => {
    const lane = createLane(width)
    return { query: (sql, values) => lane(() => query(sql, values)) }
  })
}

type WriteCalls = 'recordPayment' | 'reversePayment' | 'stepDeliveries' | 'recordSummary' | 'recordNotice' | 'expireDeliveries' | 'purgeHistory' |
  'saveBank' | 'saveBankKey' | 'saveDevice' | 'saveMapping' | 'removeMapping' | 'saveDeviceSeen' | 'saveReversal' | 'removeReversal'

function writeCalls (writes: WriteQueue, gate: Gate): Pick<PostgresStore, WriteCalls | 'recordSummaryOnce'> {
  const add = async (op: Parameters<WriteQueue['add']>[0]): Promise<unknown> => {
    if (!gate.open()) throw gate.refusal()
    return await writes.add(op)
  }
  const counted = async <T>(run: (db: Queryable) => Promise<Counted<T>>): Promise<T> => await add({ kind: 'run', run }) as T
  const plain = async (run: (db: Queryable) => Promise<void>): Promise<void> => { await add({ kind: 'run', run: async db => ({ value: await run(db), payments: 0, open: 0 }) }) }
  return {
    recordPayment: async (payment, deliveries) => await add({ kind: 'record', item: { payment, deliveries } }) as Awaited<ReturnType<Store['recordPayment']>>,
    stepDeliveries: async changes => await add({ kind: 'step', changes }) as Awaited<ReturnType<Store['stepDeliveries']>>,
    reversePayment: (bankId, transactionId, at) => counted(db => reversePayment(db, { bankId, transactionId, at })),
    recordSummary: (summary, members, at) => counted(db => recordSummary(db, { summary, members, at })),
    recordSummaryOnce: (summary, members, at) => counted(db => recordSummaryOnce(db, { summary, members, at })),
    recordNotice: notice => counted(db => recordNotice(db, notice)),
    expireDeliveries: (issuedBefore, at, limit) => counted(db => expireDeliveries(db, { issuedBefore, at, limit })),
    purgeHistory: (acceptedBefore, limit) => counted(db => purgeHistory(db, { acceptedBefore, limit })),
    saveBank: bank => plain(db => saveBank(db, bank)),
    saveBankKey: key => plain(db => saveBankKey(db, key)),
    saveDevice: device => plain(db => saveDevice(db, device)),
    saveMapping: mapping => plain(db => saveMapping(db, mapping)),
    removeMapping: (bankId, merchant, tid) => plain(db => removeMapping(db, { bankId, merchant, tid })),
    saveDeviceSeen: seen => plain(db => saveDeviceSeen(db, seen)),
    saveReversal: reversal => plain(db => saveReversal(db, reversal)),
    removeReversal: (peer, reference) => plain(db => removeReversal(db, peer, reference))
  }
}

type ReadCalls = 'findPayment' | 'openDeliveries' | 'queryHistory' | 'totalSince' | 'loadDirectory' | 'deviceStates' | 'findTransactions' | 'waitingReversals'

function readCalls (db: Queryable, gate: Gate): Pick<Store, ReadCalls> {
  return {
    findPayment: (bankId, transactionId) => gate.pass(async () => (await findPayments(db, [{ bankId, transactionId }]))[0]),
    openDeliveries: (tid, limit) => gate.pass(() => openDeliveries(db, tid, limit)),
    queryHistory: query => gate.pass(() => queryHistory(db, query)),
    totalSince: (tid, since) => gate.pass(() => totalSince(db, tid, since)),
    loadDirectory: () => gate.pass(() => loadDirectory(db)),
    deviceStates: () => gate.pass(() => deviceStates(db)),
    findTransactions: (bankId, prefix, limit) => gate.pass(() => findTransactions(db, bankId, prefix, limit)),
    waitingReversals: (peer, limit) => gate.pass(() => waitingReversals(db, peer, limit))
  }
}

/** Reads the counts of all gateways again when they are old, without making anyone wait. */
function freshCounts (db: Queryable, stats: StoreStats, log: Log): () => void {
  let readAt = performance.now()
  return () => {
    if (performance.now() - readAt < STATS_AGE_MS) return
    readAt = performance.now()
    countRows(db).then(counts => { Object.assign(stats, counts) }, (err: unknown) => { log.warn({ err }, 'rows could not be counted') })
  }
}

/** The lock belongs to a connection: it is free as soon as its gateway is gone. What `work` throws is thrown. */
async function runExclusively (pool: Pool, job: string, work: () => Promise<void>): Promise<boolean> {
  const key = [JOB_LOCKS, createHash('sha256').update(job).digest().readInt32BE(0)]
  const client = await pool.connect().catch((error: unknown) => { throw storeErrorFrom(error) })
  let broken: Error | undefined
  client.on('error', error => { broken = error })
  try {
    const { rows } = await client.query('SELECT pg_try_advisory_lock($1, $2) AS locked', key).catch((error: Error) => {
      broken = error
      throw storeErrorFrom(error)
    })
    if (!(rows[0] as { locked: boolean }).locked) return false
    try {
      await work()
      return true
    } finally {
      await client.query('SELECT pg_advisory_unlock($1, $2)', key).catch((error: Error) => { broken = error })
    }
  } finally {
    client.removeAllListeners('error')
    client.release(broken ?? false)
  }
}
