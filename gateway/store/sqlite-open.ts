// How a SQLite connection of ours is opened, and what its errors mean. Runs in worker threads only: every call here blocks.
import { chmodSync, closeSync, openSync } from 'node:fs'
import Database from 'better-sqlite3'
import { SoundboxError } from '../../protocol/index.js'

export type Db = Database.Database
export type Statement = Database.Statement
export type DatabaseSetup = { path: string, busyTimeoutMs: number, readonly: boolean, mustExist?: boolean }

/** A locked database is given up after this long at the latest: the caller has a fallback and somebody waits for an answer. */
export const BUSY_TIMEOUT_MS_MAX = 100
/**
 * The write-ahead log is written back into the database at this size: under load half the work of SQLite's own 1,000 pages, because
 * index pages that change in every batch are written back once, and a log that stays in the page cache.
 */
export const WAL_PAGES_MAX = 4_000
export const PAGE_BYTES = 4_096
const CACHE_KIB = 65_536
const FULL = 2

/**
 * A connection with WAL, synchronous=FULL (better-sqlite3 is built with NORMAL for WAL), foreign keys and the busy time-out, each
 * read back. The file is made with mode 600; SQLite gives its -wal and -shm files the same. Throws DATA_DIR_UNUSABLE when a setting
 * does not hold, and what SQLite throws.
 */
export function openDatabase ({ path, busyTimeoutMs, readonly, mustExist = readonly }: DatabaseSetup): Db {
  if (!mustExist) closeSync(openSync(path, 'a', 0o600))
  if (!readonly) chmodSync(path, 0o600)
  const db = new Database(path, { readonly, timeout: Math.min(busyTimeoutMs, BUSY_TIMEOUT_MS_MAX) })
  try {
    if (!readonly) db.pragma('journal_mode = WAL')
    db.pragma('synchronous = FULL')
    db.pragma('foreign_keys = ON')
    db.pragma(`wal_autocheckpoint = ${WAL_PAGES_MAX}`)
    db.pragma(`journal_size_limit = ${WAL_PAGES_MAX * PAGE_BYTES}`)
    db.pragma(`cache_size = -${CACHE_KIB}`)
    db.pragma('temp_store = MEMORY')
    assertSetting(db, 'journal_mode', 'wal')
    assertSetting(db, 'synchronous', FULL)
    assertSetting(db, 'foreign_keys', 1)
    assertSetting(db, 'busy_timeout', Math.min(busyTimeoutMs, BUSY_TIMEOUT_MS_MAX))
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

function assertSetting (db: Db, name: string, want: string | number): void {
  const got: unknown = db.pragma(name, { simple: true })
  if (got !== want) throw new SoundboxError('DATA_DIR_UNUSABLE', `SQLite does not keep ${name}=${want} on this disk: it says ${String(got)}`)
}

/** The SQLITE_* code of an error of SQLite's own, '' for any other value. */
export function sqliteCode (error: unknown): string {
  return error instanceof Database.SqliteError ? error.code : ''
}

/** True when the database, not the one operation, is at fault: locked, full, broken, read-only. Constraint and binding errors are not. */
export function isStorageFault (error: unknown): boolean {
  const code = sqliteCode(error)
  return code !== '' && !/^SQLITE_(?:CONSTRAINT|MISMATCH|RANGE|TOOBIG)/.test(code)
}

/** True when the connection must be opened anew before it can be trusted again. */
export function needsReopen (error: unknown): boolean {
  return /^SQLITE_(?:IOERR|CORRUPT|NOTADB|CANTOPEN|READONLY|PROTOCOL|NOMEM|MISUSE|INTERNAL)/.test(sqliteCode(error))
}
