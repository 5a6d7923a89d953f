// Replay marks on disk: appended, loaded at start, removed after their time. Uniqueness is the main thread's (replay-marks.ts).
import type { ReplayMark } from './contract.js'
import type { Db } from './sqlite-open.js'

/** The writer's operations on replay marks. */
export function markWriteOps (db: Db) {
  const add = db.prepare('INSERT INTO replay_mark (mark, owner, expires_at) VALUES (unhex(:mark), :owner, :expiresAt)')
  const purge = db.prepare('DELETE FROM replay_mark WHERE id IN (SELECT id FROM replay_mark WHERE expires_at < ? ORDER BY expires_at LIMIT ?)')
  return {
    addMarks: (marks: readonly ReplayMark[]): void => { for (const mark of marks) add.run(mark) },
    purgeMarks: ({ expiredBefore, limit }: { expiredBefore: number, limit: number }): number => purge.run(expiredBefore, limit).changes
  }
}

/** The reader's: one page of marks that are still valid, in the order they were made. */
export function markReadOps (db: Db) {
  const page = db.prepare('SELECT id, lower(hex(mark)) AS mark, owner, expires_at AS expiresAt FROM replay_mark WHERE id > ? AND expires_at >= ? ORDER BY id LIMIT ?')
  return {
    marksAfter: ({ id, notBefore, limit }: { id: number, notBefore: number, limit: number }) => page.all(id, notBefore, limit) as (ReplayMark & { id: number })[]
  }
}
