// The data directory: what a first start makes, with which modes, and that one gateway at a time uses it.
//
//   master.key       32 bytes, base64            600     operator.token   bearer token of the HTTP admin API   600
//   soundbox.db      history and directory       600     gateway.sock     the technician's way in              600
//   gateway.json     real ports and process id   600     spool/ backup/                                        700
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeSecret, MASTER_KEY_BYTES, parseKey, SoundboxError } from '../protocol/index.js'

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
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    chmodSync(path, 0o700)
    for (const name of ['spool', 'backup']) mkdirSync(join(path, name), { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new SoundboxError('DATA_DIR_UNUSABLE', `the data directory ${path} cannot be made or used`, { cause })
  }
  const file = (name: string): string => join(path, name)
  lock(file('gateway.pid'), pid)
  const hasDatabase = existsSync(file('soundbox.db'))
  return {
    path,
    masterKey: readMasterKey(masterKeyFile ?? file('master.key'), masterKeyFile === null && !hasDatabase),
    operatorToken: readOrMake(file('operator.token'), () => makeSecret(32)),
    file,
    writePorts: ports => { writeFileSync(file('gateway.json'), `${JSON.stringify(ports)}\n`, { mode: 0o600 }) },
    close () {
      rmSync(file('gateway.json'), { force: true })
      rmSync(file('gateway.pid'), { force: true })
    }
  }
}

/** A second gateway on the same directory would speak everything twice. A lock of a process that is gone is taken over. */
function lock (path: string, pid: number): void {
  const other = existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0
  if (other > 0 && other !== pid && isGateway(other)) throw new SoundboxError('DATA_DIR_UNUSABLE', `process ${other} uses this data directory (${path})`)
  writeFileSync(path, String(pid), { mode: 0o600 })
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
  if (!existsSync(path) && !mayMake) throw new SoundboxError('SECRET_UNREADABLE', `the master key ${path} is missing, and this data directory was sealed with it`)
  const key = parseKey(readOrMake(path, () => randomBytes(MASTER_KEY_BYTES).toString('base64')))
  if (key === undefined) throw new SoundboxError('SECRET_UNREADABLE', `${path} must hold ${MASTER_KEY_BYTES} bytes in base64`)
  return key
}

function readOrMake (path: string, make: () => string): string {
  if (!existsSync(path)) writeFileSync(path, `${make()}\n`, { mode: 0o600, flag: 'wx' })
  if ((statSync(path).mode & 0o077) !== 0) throw new SoundboxError('DATA_DIR_UNUSABLE', `${path} may be read by others: chmod 600 it`)
  return readFileSync(path, 'utf8').trim()
}
