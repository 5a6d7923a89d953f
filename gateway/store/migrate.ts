// Brings a SQLite database to the tables that this code expects: each migration in one transaction, remembered with its checksum.
import { createHash } from 'node:crypto'
import { SoundboxError } from '../../protocol/index.js'
import type { Db } from './sqlite-open.js'

export type Migration = { id: number, name: string, sql: string }
type AppliedRow = { id: number, checksum: string }

/** What a migration is remembered by: SHA-256 of its SQL, hex. */
export function migrationChecksum (migration: Migration): string {
  return createHash('sha256').update(migration.sql, 'utf8').digest('hex')
}

/**
 * The migrations that are still to run, in order. Throws DATA_DIR_UNUSABLE when the database knows a migration that this code does
 * not (it was written by a newer version), STORE_CORRUPT when one differs from what was applied, or is missing in between.
 */
export function pendingMigrations (known: readonly Migration[], applied: readonly AppliedRow[]): readonly Migration[] {
  const newest = applied.at(-1)?.id ?? 0
  const last = known.at(-1)?.id ?? 0
  if (newest > last) {
    throw new SoundboxError('DATA_DIR_UNUSABLE', `the database was written by a newer version: it has migration ${newest}, this version knows ${last}; install that version or restore a backup`)
  }
  for (const [index, row] of applied.entries()) {
    const migration = known[index]
    if (migration === undefined || migration.id !== row.id || migrationChecksum(migration) !== row.checksum) {
      throw new SoundboxError('STORE_CORRUPT', `migration ${row.id} of the database is not the one that this version knows`)
    }
  }
  return known.slice(applied.length)
}

/** Runs what is missing. Nothing is written, and no lock is taken, when nothing is. Returns how many ran. */
export function migrateSqlite (db: Db, known: readonly Migration[], nowMs: number): number {
  const exists = db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'schema_migration'`).get() !== undefined
  const applied = exists ? db.prepare('SELECT id, checksum FROM schema_migration ORDER BY id').all() as AppliedRow[] : []
  const pending = pendingMigrations(known, applied)
  if (pending.length === 0) return 0
  db.exec('CREATE TABLE IF NOT EXISTS schema_migration (id INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT')
  const remember = db.prepare('INSERT INTO schema_migration VALUES (?, ?, ?, ?)')
  for (const migration of pending) {
    db.transaction(() => {
      db.exec(migration.sql)
      remember.run(migration.id, migration.name, migrationChecksum(migration), nowMs)
    }).immediate()
  }
  return pending.length
}
