// The store on one machine: SQLite in two threads of its own, one that writes and one that reads, so that neither a locked nor a
// slow disk stops the event loop. Writes of one turn share one transaction and one fsync. What SQL runs is in sqlite-*.ts.
import { Worker } from 'node:worker_threads'
import { type ErrorCode, type Log, SoundboxError } from '../../protocol/index.js'
import type { ReplayMark, Store, StoreStats } from './contract.js'
import type { IntegrationStore } from './integration-records.js'
import { createReplayMemory, REPLAY_MARKS_MAX, type ReplayMemory } from './replay-marks.js'
import type { Counters } from './sqlite-batch.js'
import { BUSY_TIMEOUT_MS_MAX } from './sqlite-open.js'
import { integrationStoreOver } from './sqlite-integration.js'
import { merchantSideStoreOver } from './sqlite-merchant-side.js'
import type { ReadOps, WriteOps } from './sqlite-ops.js'
import { type LinkSetup, openWorkerLink, type WorkerLink, type WorkerReply } from './worker-link.js'

/** Calls that may wait for one database thread; the next is refused at once. */
export const STORE_QUEUE_MAX = 20_000
/** Marks that are read at once at the start. */
export const MARKS_PAGE = 20_000
/** Marks that one operation removes, or writes down late. */
const MARKS_PURGE_SLICE = 5_000
/** Marks from a time when the database failed that go along with the next one. */
const UNSAVED_MARKS_SLICE = 500
const WORKER = new URL('./sqlite-worker.js', import.meta.url)

export type SqliteSettings = {
  path: string
  log: Log
  nowMs: () => number
  /** At most BUSY_TIMEOUT_MS_MAX, the default. */
  busyTimeoutMs?: number
  queueMax?: number
  marksMax?: number
}

/** `integration`: what integration-records.ts describes; it stays on this machine. */
export type SqliteStore = Store & { integration: IntegrationStore }

type Call<Ops extends Record<string, (argument: never) => unknown>> =
  <Name extends keyof Ops & string>(name: Name, argument: Parameters<Ops[Name]>[0]) => Promise<Awaited<ReturnType<Ops[Name]>>>

/**
 * Opens or creates the database and runs its migrations. Rejects with STORE_CORRUPT (not a database, or a migration that was changed),
 * DATA_DIR_UNUSABLE (written by a newer version, no right to the file) or STORE_FAILED (locked, full).
 */
export async function openSqliteStore (settings: SqliteSettings): Promise<SqliteStore> {
  const { path, log, nowMs } = settings
  const busyTimeoutMs = settings.busyTimeoutMs ?? BUSY_TIMEOUT_MS_MAX
  if (busyTimeoutMs < 0 || busyTimeoutMs > BUSY_TIMEOUT_MS_MAX) throw new SoundboxError('CONFIG_INVALID', `busyTimeoutMs must be from 0 to ${BUSY_TIMEOUT_MS_MAX}`)
  const stats: StoreStats = { writeQueue: 0, committedBatches: 0, committedOps: 0, failedBatches: 0, payments: 0, openDeliveries: 0 }
  const gate = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
  const openGate = (to: 1 | 2): void => {
    Atomics.store(new Int32Array(gate), 0, to)
    Atomics.notify(new Int32Array(gate), 0)
  }
  const link = (role: 'writer' | 'reader', more: Pick<LinkSetup, 'onReady' | 'onReply'>): Promise<WorkerLink> => openWorkerLink({
    script: WORKER, data: { role, path, busyTimeoutMs, nowMs: nowMs(), gate }, name: `sqlite-${role}`, queueMax: settings.queueMax ?? STORE_QUEUE_MAX, log, ...more
  })
  const writing = link('writer', { onReady: ready => { countRows(stats, ready) }, onReply: reply => { countBatch(stats, reply) } })
  writing.then(() => { openGate(1) }, () => { openGate(2) })
  const [writer, reader] = await bothOrNone(writing, link('reader', { onReply: () => {} }))
  try {
    const memory = createReplayMemory(settings.marksMax ?? REPLAY_MARKS_MAX)
    await restoreMarks(reader.call as Call<ReadOps>, memory, nowMs())
    return storeOver({ writer, reader, memory, settings, stats })
  } catch (error) {
    await Promise.all([writer.close(), reader.close()])
    throw error
  }
}

/** Throws the writer's error rather than the reader's: it knows why. */
async function bothOrNone (writer: Promise<WorkerLink>, reader: Promise<WorkerLink>): Promise<[WorkerLink, WorkerLink]> {
  const links = await Promise.allSettled([writer, reader])
  const failed = links.find(link => link.status === 'rejected')
  if (failed === undefined) return [await writer, await reader]
  for (const link of links) if (link.status === 'fulfilled') await link.value.close()
  throw failed.reason
}

/** The writer's messages carry the row counts as of their transaction. */
function countRows (stats: StoreStats, message: object): void {
  const { counters } = message as { counters?: Counters }
  if (counters !== undefined) Object.assign(stats, { payments: counters.payments, openDeliveries: counters.open })
}

function countBatch (stats: StoreStats, reply: WorkerReply): void {
  countRows(stats, reply)
  if (reply.fault !== null) stats.failedBatches += 1
  else {
    stats.committedBatches += 1
    stats.committedOps += reply.count - reply.failures.length
  }
}

async function restoreMarks (read: Call<ReadOps>, memory: ReplayMemory, notBefore: number): Promise<void> {
  for (let id = 0; ;) {
    const page = await read('marksAfter', { id, notBefore, limit: MARKS_PAGE })
    for (const { mark, owner, expiresAt } of page) memory.restore({ mark, owner, expiresAt })
    if (page.length < MARKS_PAGE) return
    id = page.at(-1)!.id
  }
}

type Parts = { writer: WorkerLink, reader: WorkerLink, memory: ReplayMemory, settings: SqliteSettings, stats: StoreStats }

function storeOver ({ writer, reader, memory, settings, stats }: Parts): SqliteStore {
  const write = writer.call as Call<WriteOps>
  const read = reader.call as Call<ReadOps>
  const marks = markKeeper(write, memory, settings.nowMs)
  const backups = createBackups(settings.path)
  const running = new Set<string>()
  let closed = false
  return {
    recordPayment: (payment, deliveries) => write('recordPayment', { payment, deliveries }),
    findPayment: async (bankId, transactionId) => await read('findPayment', { bankId, transactionId }) ?? undefined,
    reversePayment: async (bankId, transactionId, at) => await write('reversePayment', { bankId, transactionId, at }) ?? undefined,
    stepDeliveries: changes => write('stepDeliveries', changes),
    recordSummary: async (summary, members, at) => { await write('recordSummary', { summary, members, at }) },
    recordNotice: async notice => { await write('recordNotice', notice) },
    openDeliveries: (tid, limit) => read('openDeliveries', { tid, limit }),
    expireDeliveries: (issuedBefore, at, limit) => write('expireDeliveries', { issuedBefore, at, limit }),
    queryHistory: query => read('queryHistory', query),
    totalSince: (tid, since) => read('totalSince', { tid, since }),

    findTransactions: (bankId, prefix, limit) => read('findTransactions', { bankId, prefix, limit }),
    saveReversal: async reversal => { await write('saveReversal', reversal) },
    removeReversal: async (peer, reference) => { await write('removeReversal', { peer, reference }) },
    waitingReversals: (peer, limit) => read('waitingReversals', { peer, limit }),

    loadDirectory: () => read('loadDirectory', null as never),
    saveBank: async bank => { await write('saveBank', bank) },
    saveBankKey: async key => { await write('saveBankKey', key) },
    saveDevice: async device => { await write('saveDevice', device) },
    saveMapping: async mapping => { await write('saveMapping', mapping) },
    removeMapping: async (bankId, merchant, tid) => { await write('removeMapping', { bankId, merchant, tid }) },
    saveDeviceSeen: async seen => { await write('saveDeviceSeen', seen) },
    deviceStates: () => read('deviceStates', null as never),

    integration: { ...integrationStoreOver(write, read), ...merchantSideStoreOver(write, read) },
    claimMark: mark => {
      if (closed) throw new SoundboxError('STORE_FAILED', 'the store is closed')
      return marks.claimMark(mark)
    },
    purgeMarks: marks.purgeMarks,
    purgeHistory: (acceptedBefore, limit) => write('purgeHistory', { acceptedBefore, limit }),
    backup: backups.backup,
    exclusively: async (job, work) => {
      if (running.has(job)) return false
      running.add(job)
      try {
        await work()
        return true
      } finally {
        running.delete(job)
      }
    },
    stats: () => ({ ...stats, writeQueue: writer.waiting() }),
    close: async () => {
      closed = true
      await Promise.all([writer.close(), reader.close(), backups.stop()])
    }
  }
}

/** Marks go into the writer's queue as they are claimed, so before the payment they guard. Those that could not be written go again. */
function markKeeper (write: Call<WriteOps>, memory: ReplayMemory, nowMs: () => number): { claimMark: (mark: ReplayMark) => boolean, purgeMarks: (expiredBefore: number) => Promise<number> } {
  const unsaved: ReplayMark[] = []
  const save = (marks: readonly ReplayMark[]): void => {
    write('addMarks', marks).catch(() => { unsaved.push(...marks) })
  }
  return {
    claimMark: mark => {
      if (!memory.claim(mark, nowMs())) return false
      save([...unsaved.splice(0, UNSAVED_MARKS_SLICE), mark])
      return true
    },
    purgeMarks: async expiredBefore => {
      const purged = await memory.purge(expiredBefore)
      while (await write('purgeMarks', { expiredBefore, limit: MARKS_PURGE_SLICE }) === MARKS_PURGE_SLICE);
      const again = unsaved.splice(0, unsaved.length).filter(mark => mark.expiresAt >= expiredBefore)
      for (let from = 0; from < again.length; from += MARKS_PURGE_SLICE) save(again.slice(from, from + MARKS_PURGE_SLICE))
      return purged
    }
  }
}

/** One backup at a time, in a thread of its own, so that neither payments nor queries wait for it. */
function createBackups (path: string): { backup: (target: string) => Promise<{ bytes: number }>, stop: () => Promise<void> } {
  let worker: Worker | undefined
  return {
    backup: target => {
      if (worker !== undefined) return Promise.reject(new SoundboxError('STORE_FAILED', 'a backup is being made already'))
      const thread = new Worker(WORKER, { workerData: { role: 'backup', path, target }, name: 'sqlite-backup', execArgv: [] })
      worker = thread
      return new Promise<{ bytes: number }>((resolve, reject) => {
        let answer: { ready: true, bytes: number } | { failed: { code: ErrorCode, message: string } } | undefined
        let cause: unknown
        thread.once('message', (text: string) => { answer = JSON.parse(text) as typeof answer })
        thread.once('error', error => { cause = error })
        thread.once('exit', () => {
          worker = undefined
          if (answer === undefined) reject(new SoundboxError('STORE_FAILED', 'the backup ended early', { cause }))
          else if ('ready' in answer) resolve({ bytes: answer.bytes })
          else reject(new SoundboxError(answer.failed.code, answer.failed.message))
        })
      })
    },
    stop: async () => { await worker?.terminate() }
  }
}
