// A consistent copy of the database while it is in use: VACUUM INTO, then the copy's own integrity check. Blocks: for a worker thread.
import { closeSync, fsyncSync, openSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import Database from 'better-sqlite3'
import { SoundboxError } from '../../protocol/index.js'

/** What a backup is called until it is whole. One that was cut off is removed by the next. */
const PART = '.backup-part'

/**
 * Bytes of the copy at `target` (mode 600, on disk). It has the name of the target only when it is whole and checked. Throws
 * INPUT_INVALID when there is a file of that name, STORE_CORRUPT when the copy does not pass the check, and what SQLite throws.
 */
export function backupInto (path: string, target: string): number {
  const part = `${target}${PART}`
  const folder = dirname(target)
  for (const name of readdirSync(folder).filter(file => file.endsWith(PART))) rmSync(join(folder, name))
  if (statSync(target, { throwIfNoEntry: false }) !== undefined) throw new SoundboxError('INPUT_INVALID', 'a file of the name of the backup exists already')
  closeSync(openSync(part, 'wx', 0o600))
  try {
    copy(path, part)
    check(part)
    syncPath(part)
    renameSync(part, target)
    syncPath(folder)
    return statSync(target).size
  } finally {
    rmSync(part, { force: true })
  }
}

function copy (path: string, part: string): void {
  const db = new Database(path, { readonly: true, fileMustExist: true, timeout: 1_000 })
  try {
    db.prepare('VACUUM INTO ?').run(part)
  } finally {
    db.close()
  }
}

function check (part: string): void {
  const db = new Database(part, { readonly: true })
  try {
    const found: unknown = db.pragma('integrity_check', { simple: true })
    if (found !== 'ok') throw new SoundboxError('STORE_CORRUPT', 'the copy of the database does not pass its integrity check')
  } finally {
    db.close()
  }
}

function syncPath (path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
