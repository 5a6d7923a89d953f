// The thread in which SQLite runs: as the writer, as the reader, or for one backup. Messages are JSON texts: for small records
// that is the quickest way between threads (measured against structured clones and flat arrays).
//
//   main -> worker  { ops: [name, argument][] } | { close: true }
//   worker -> main  { ready: true, migrated } | { failed: { code, message } } once, then one BatchReply with `count` a transaction
//
// The writer takes everything that has arrived while it committed as its next transaction (group commit).
import { statSync } from 'node:fs'
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import { migrateSqlite } from './migrate.js'
import { backupInto } from './sqlite-backup.js'
import { type BatchReply, type Counters, createBatchWriter, type Op, type Ops, runReads } from './sqlite-batch.js'
import { openDatabase, sqliteCode, type Db } from './sqlite-open.js'
import { readOps, writeOps } from './sqlite-ops.js'
import { SQLITE_MIGRATIONS } from './sqlite-schema.js'

/** `gate`: one Int32. Both threads start at once; the reader waits until it is no longer 0: the writer is ready (1) or failed (2). */
type ThreadSetup = { role: 'writer' | 'reader', path: string, busyTimeoutMs: number, nowMs: number, gate: SharedArrayBuffer }
export type WorkerSetup = ThreadSetup | { role: 'backup', path: string, target: string }
type Request = { ops: Op[] } | { close: true }

/** One transaction is not larger, so that the first of a flood is not answered with the last. */
export const TRANSACTION_OPS_MAX = 2_000
/** The write-ahead log is written back into the database after this much rest. */
const CHECKPOINT_IDLE_MS = 200
/** After a failed open the next is tried no sooner. */
const REOPEN_PAUSE_MS = 100

/** `inode`: of the file that was opened. */
type Connection = { db: Db, inode: number, run: (batch: readonly Op[]) => BatchReply }

if (parentPort !== null) serve(parentPort, workerData as WorkerSetup)

function serve (port: MessagePort, setup: WorkerSetup): void {
  try {
    if (setup.role === 'backup') {
      port.postMessage(JSON.stringify({ ready: true, bytes: backupInto(setup.path, setup.target) }))
      return
    }
    const migrated = setup.role === 'writer' ? prepare(setup) : waitForWriter(setup)
    const session = openSession(setup, port)
    port.postMessage(JSON.stringify({ ready: true, migrated, counters: session.counters }))
  } catch (error) {
    const failure = isSoundboxError(error)
      ? { code: error.code, message: error.message }
      : { code: startFault(sqliteCode(error)), message: `the database cannot be opened (${sqliteCode(error) || (error as NodeJS.ErrnoException).code || 'unexpected fault'})` }
    port.postMessage(JSON.stringify({ failed: failure }))
  }
}

function startFault (code: string): string {
  if (/^SQLITE_(?:CORRUPT|NOTADB)/.test(code)) return 'STORE_CORRUPT'
  return /^SQLITE_(?:CANTOPEN|READONLY|PERM)|^$/.test(code) ? 'DATA_DIR_UNUSABLE' : 'STORE_FAILED'
}

/** Migrations, and the log of the last run written back: what a failed sync left in it is not built upon. */
function prepare (setup: ThreadSetup): number {
  const db = openDatabase({ ...setup, readonly: false })
  try {
    const migrated = migrateSqlite(db, SQLITE_MIGRATIONS, setup.nowMs)
    db.pragma('wal_checkpoint(TRUNCATE)')
    return migrated
  } finally {
    db.close()
  }
}

function waitForWriter (setup: ThreadSetup): number {
  const gate = new Int32Array(setup.gate)
  Atomics.wait(gate, 0, 0)
  if (Atomics.load(gate, 0) !== 1) throw new SoundboxError('STORE_FAILED', 'the writer could not open the database')
  return 0
}

function connect (setup: ThreadSetup, counters: Counters): Connection {
  const db = openDatabase({ ...setup, readonly: setup.role === 'reader', mustExist: true })
  try {
    const inode = statSync(setup.path).ino
    if (setup.role === 'writer') return { db, inode, run: createBatchWriter({ db, ops: writeOps(db, counters) as Ops, counters }) }
    const ops = readOps(db) as Ops
    return { db, inode, run: batch => runReads(ops, batch) }
  } catch (error) {
    db.close()
    throw error
  }
}

function openSession (setup: ThreadSetup, port: MessagePort): { counters: Counters } {
  const counters: Counters = { payments: 0, open: 0 }
  let connection: Connection | undefined = connect(setup, counters)
  let idle: NodeJS.Timeout | undefined
  let lastTryMs = 0

  const drop = (): void => {
    closeQuietly(connection?.db)
    connection = undefined
  }
  /** A file that was moved away still takes writes, which nobody would find again. */
  const isMoved = (): boolean => connection !== undefined && statSync(setup.path, { throwIfNoEntry: false })?.ino !== connection.inode
  const run = (batch: readonly Op[]): BatchReply => {
    try {
      if (isMoved()) drop()
      if (connection === undefined && performance.now() - lastTryMs < REOPEN_PAUSE_MS) return faultReply('SQLITE_CANTOPEN', counters)
      lastTryMs = performance.now()
      connection ??= connect(setup, counters)
    } catch (error) {
      return faultReply(sqliteCode(error) || 'SQLITE_CANTOPEN', counters)
    }
    const reply = connection.run(batch)
    if (reply.reopen) drop()
    return reply
  }

  port.on('message', (first: string) => {
    clearTimeout(idle)
    const { ops, close } = gather(port, first)
    for (let from = 0; from < ops.length; from += TRANSACTION_OPS_MAX) {
      const batch = ops.slice(from, from + TRANSACTION_OPS_MAX)
      port.postMessage(JSON.stringify({ ...run(batch), count: batch.length }))
    }
    if (close) {
      if (connection !== undefined) finish(connection.db, setup.role)
      port.close()
    } else if (setup.role === 'writer') idle = setTimeout(() => checkpoint(connection?.db, 'PASSIVE'), CHECKPOINT_IDLE_MS).unref()
  })
  return { counters }
}

/** The operations of this message and of those that wait behind it. */
function gather (port: MessagePort, first: string): { ops: readonly Op[], close: boolean } {
  const batches: Op[][] = []
  let count = 0
  for (let text: string | undefined = first; text !== undefined; text = receiveMessageOnPort(port)?.message as string | undefined) {
    const request = JSON.parse(text) as Request
    if ('close' in request) return { ops: batches.flat(), close: true }
    batches.push(request.ops)
    count += request.ops.length
    if (count >= TRANSACTION_OPS_MAX) break
  }
  return { ops: batches.length === 1 ? batches[0]! : batches.flat(), close: false }
}

function faultReply (fault: string, counters: Counters): BatchReply {
  return { values: [], failures: [], counters, fault, reopen: false }
}

function finish (db: Db, role: 'writer' | 'reader'): void {
  if (role === 'writer') checkpoint(db, 'TRUNCATE')
  closeQuietly(db)
}

/** A checkpoint that fails is tried again after the next batch: the log is complete without it. */
function checkpoint (db: Db | undefined, mode: 'PASSIVE' | 'TRUNCATE'): void {
  try {
    db?.pragma(`wal_checkpoint(${mode})`)
  } catch {}
}

function closeQuietly (db: Db | undefined): void {
  try {
    db?.close()
  } catch {}
}
