// The data directory: what a first start makes, with which modes, and that one gateway at a time uses it.
//
//   master.key       32 bytes, base64            600     operator.token   bearer token of the HTTP admin API   600
//   soundbox.db      history and directory       600     gateway.sock     the technician's way in              600
//   gateway.json     real ports and process id   600     spool/ backup/                                        700
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeSecret, MASTER_KEY_BYTES, parseKey, SoundboxError } from '../protocol/index.js'

const TOKEN_CHARS_MIN = 16
const LOCK_TRIES = 3
const OURS = ['master.key', 'operator.token', 'soundbox.db', 'spool']

export type DataDir = {
  path: string
  masterKey: Buffer
  operatorToken: string
  file: (name: string) => string
  /** Tells others where this gateway listens. */
  writePorts: (ports: object) => void
  close: () => void
}

/** Makes or opens the directory. Throws DATA_DIR_UNUSABLE, SECRET_UNREADABLE. */
export function openDataDir (path: string, masterKeyFile: string | null, pid: number): DataDir {
  makeFolders(path)
  const file = (name: string): string => join(path, name)
  lock(file('gateway.pid'), pid)
  try {
    return openLocked(path, masterKeyFile)
  } catch (error) {
    rmSync(file('gateway.pid'), { force: true })
    throw error
  }
}

function makeFolders (path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    close(path)
    for (const name of ['spool', 'backup']) mkdirSync(join(path, name), { recursive: true, mode: 0o700 })
  } catch (cause) {
    if (cause instanceof SoundboxError) throw cause
    throw new SoundboxError('DATA_DIR_UNUSABLE', `the data directory ${path} cannot be made or used`, { cause })
  }
}

/** A folder that others may read is closed to them, unless it holds what is not ours: that would take it away from others. */
function close (path: string): void {
  if ((statSync(path).mode & 0o077) === 0) return
  const names = readdirSync(path).filter(name => name !== 'lost+found')
  if (names.length > 0 && !names.some(name => OURS.includes(name))) {
    throw new SoundboxError('DATA_DIR_UNUSABLE', `${path} is open to others and holds files that are not of a gateway: choose another folder, or chmod 700 it`)
  }
  chmodSync(path, 0o700)
}

function openLocked (path: string, masterKeyFile: string | null): DataDir {
  const file = (name: string): string => join(path, name)
  const hasDatabase = existsSync(file('soundbox.db'))
  const operatorToken = readOrMake(file('operator.token'), () => makeSecret(32))
  // An empty token, of a disk that was full when it was written, would let everybody in.
  if (operatorToken.length < TOKEN_CHARS_MIN) throw new SoundboxError('DATA_DIR_UNUSABLE', `${file('operator.token')} is too short: remove it, and a new one is made`)
  return {
    path,
    masterKey: readMasterKey(masterKeyFile ?? file('master.key'), masterKeyFile === null && !hasDatabase),
    operatorToken,
    file,
    writePorts (ports) {
      writeFileSync(file('gateway.json.part'), `${JSON.stringify(ports)}\n`, { mode: 0o600 })
      renameSync(file('gateway.json.part'), file('gateway.json'))
    },
    close () {
      rmSync(file('gateway.json'), { force: true })
      rmSync(file('gateway.pid'), { force: true })
    }
  }
}

/** A second gateway on the same directory would speak everything twice. A lock of a process that is gone is taken over. */
function lock (path: string, pid: number): void {
  for (let tries = 0; tries < LOCK_TRIES; tries++) {
    try {
      writeFileSync(path, String(pid), { mode: 0o600, flag: 'wx' })
      return
    } catch (cause) {
      if (!(cause instanceof Error && 'code' in cause && cause.code === 'EEXIST')) throw new SoundboxError('DATA_DIR_UNUSABLE', `${path} cannot be written`, { cause })
    }
    const other = Number(readFileSync(path, 'utf8'))
    if (other > 0 && other !== pid && isGateway(other)) throw new SoundboxError('DATA_DIR_UNUSABLE', `process ${other} uses this data directory (${path})`)
    rmSync(path, { force: true })
  }
  throw new SoundboxError('DATA_DIR_UNUSABLE', `another gateway starts on this data directory (${path})`)
}

/** True when that process lives and, where the system tells, looks like one of ours: process ids are used again after a restart. */
function isGateway (pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('node')
  } catch {
    return true
  }
}

function readMasterKey (path: string, mayMake: boolean): Buffer {
  if (!existsSync(path) && !mayMake) {
    throw new SoundboxError('SECRET_UNREADABLE', `the master key ${path} is missing: put back the one that sealed this data directory, or make one for a new directory`)
  }
  const key = parseKey(readOrMake(path, () => randomBytes(MASTER_KEY_BYTES).toString('base64')))
  if (key === undefined) throw new SoundboxError('SECRET_UNREADABLE', `${path} must hold ${MASTER_KEY_BYTES} bytes in base64`)
  return key
}

function readOrMake (path: string, make: () => string): string {
  if (!existsSync(path)) writeFileSync(path, `${make()}\n`, { mode: 0o600, flag: 'wx' })
  if ((statSync(path).mode & 0o077) !== 0) throw new SoundboxError('DATA_DIR_UNUSABLE', `${path} may be read by others: chmod 600 it`)
  return readFileSync(path, 'utf8').trim()
}
