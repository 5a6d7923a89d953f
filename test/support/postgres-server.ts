// A PostgreSQL of a test's own, from Debian's packages, in a directory that the test removes.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { freePort } from './free-port.js'

const VERSIONS = '/usr/lib/postgresql'

/** The newest installed server's programs, undefined when there is none. */
export function findPostgres (): string | undefined {
  if (!existsSync(VERSIONS)) return undefined
  const folders = readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a)).map(version => join(VERSIONS, version, 'bin'))
  return folders.find(folder => existsSync(join(folder, 'initdb')))
}

export type PostgresServer = {
  url: (database: string) => string
  createDatabase: (name: string) => Promise<void>
  sql: (database: string, sql: string) => Promise<unknown[]>
  /** SIGKILL: as if the machine had gone. */
  kill: () => Promise<void>
  start: (settings?: string[]) => Promise<void>
  remove: () => Promise<void>
}

/** root may not run a server: Debian's user may. */
function owner (): { uid: number, gid: number } | Record<string, never> {
  if (process.getuid?.() !== 0) return {}
  const line = readFileSync('/etc/passwd', 'utf8').split('\n').find(entry => entry.startsWith('postgres:'))?.split(':')
  if (line === undefined) throw new Error('there is no user postgres')
  return { uid: Number(line[2]), gid: Number(line[3]) }
}

/** The command so that it ends with this process, however that ends. */
function tied (command: string, words: string[]): [string, string[]] {
  return existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', ['--pdeathsig', 'KILL', command, ...words]] : [command, words]
}

/** A fresh cluster, started, on loopback only. */
export async function startPostgres (bin: string): Promise<PostgresServer> {
  const dir = mkdtempSync(join(tmpdir(), 'soundbox-pg-'))
  const user = owner()
  if (user.uid !== undefined) chownSync(dir, user.uid, user.gid)
  chmodSync(dir, 0o700)
  const data = join(dir, 'data')
  execFileSync(join(bin, 'initdb'), ['-D', data, '-U', 'soundbox', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync'], { ...user, cwd: dir, stdio: 'ignore' })
  const port = await freePort()
  let child: ChildProcess | undefined
  const url = (database: string): string => `postgres://soundbox@127.0.0.1:${port}/${database}`
  const sql = async (database: string, text: string): Promise<unknown[]> => {
    const client = new pg.Client({ connectionString: url(database) })
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query(text)).rows as unknown[]
    } finally {
      await client.end()
    }
  }
  const kill = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise(resolve => { child!.once('exit', resolve) })
    child.kill('SIGKILL')
    await ended
  }
  const start = async (settings: string[] = []): Promise<void> => {
    rmSync(join(data, 'postmaster.pid'), { force: true })
    const wanted = ['listen_addresses=127.0.0.1', 'max_connections=60', 'recovery_init_sync_method=syncfs', ...settings].flatMap(setting => ['-c', setting])
    child = spawn(...tied(join(bin, 'postgres'), ['-D', data, '-p', String(port), '-k', dir, ...wanted]), { ...user, cwd: dir, stdio: 'ignore' })
    for (let tries = 0; ; tries++) {
      if (await sql('postgres', 'SELECT 1').then(() => true, () => false)) return
      if (tries > 300 || child.exitCode !== null) throw new Error('PostgreSQL does not start')
      await new Promise(resolve => { setTimeout(resolve, 50) })
    }
  }
  await start()
  return {
    url, sql, kill, start,
    createDatabase: async name => { await sql('postgres', `CREATE DATABASE ${name}`) },
    remove: async () => {
      await kill()
      rmSync(dir, { recursive: true, force: true })
    }
  }
}
