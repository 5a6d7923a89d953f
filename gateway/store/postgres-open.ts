// How PostgreSQL is connected to, brought to our tables, and what its errors mean.
import pg from 'pg'
import { type Log, SoundboxError } from '../../protocol/index.js'
import { type Migration, migrationChecksum, pendingMigrations } from './migrate.js'

export type Pool = pg.Pool
/** A pool or one of its connections. */
export type Queryable = { query: (sql: string, values?: unknown[]) => Promise<{ rows: unknown[], rowCount: number | null }> }

/** Work of one gateway that goes on at once. What is over waits here and not in the pool, whose time-out is for the network. */
export const LANES = { reads: 6, writes: 3, jobs: 5 } as const
const CONNECTIONS_MAX = LANES.reads + LANES.writes + LANES.jobs
/** Somebody waits for each answer, and there is a fallback: give up soon. */
const CONNECT_TIMEOUT_MS = 2_000
const STATEMENT_TIMEOUT_MS = 2_000
const LOCK_TIMEOUT_MS = 500
const QUERY_TIMEOUT_MS = 3_000
/** Two gateways that start at once migrate one after the other. */
const MIGRATION_LOCK = 0x50_42_4F_58
const INT8 = 20

/** Numbers of ours are below 2^53: BIGINT comes as a number. */
const types = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') => oid === INT8 ? Number : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser
}

/** Connections are made when they are needed. */
export function createPool (url: string, log: Log): Pool {
  const pool = new pg.Pool({
    connectionString: url, max: CONNECTIONS_MAX, connectionTimeoutMillis: CONNECT_TIMEOUT_MS, statement_timeout: STATEMENT_TIMEOUT_MS, lock_timeout: LOCK_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS, idle_in_transaction_session_timeout: QUERY_TIMEOUT_MS, application_name: 'soundbox', keepAlive: true, types
  })
  pool.on('error', err => { log.warn({ err }, 'an idle PostgreSQL connection was lost') })
  return pool
}

/** Lets `width` works go on at once; the others wait their turn. */
export function createLane (width: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = []
  let busy = 0
  return async work => {
    if (busy < width) busy += 1
    else await new Promise<void>(resolve => { waiting.push(resolve) })
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) busy -= 1
      else next()
    }
  }
}

/** A connection of its own, outside the pool and without its time-outs: for LISTEN and for migrations. */
export function createConnection (url: string): pg.Client {
  return new pg.Client({ connectionString: url, connectionTimeoutMillis: CONNECT_TIMEOUT_MS, application_name: 'soundbox-listen', keepAlive: true, types })
}

/**
 * Runs the missing migrations, each in one transaction, and makes sure that commits are durable. Returns how many ran. Throws
 * DATA_DIR_UNUSABLE when the server does not sync or a newer version wrote the database, STORE_CORRUPT for a changed migration.
 */
export async function preparePostgres (url: string, known: readonly Migration[], nowMs: number): Promise<number> {
  const client = createConnection(url)
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows: [settings] } = await client.query(`SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit`)
    const { fsync, commit } = settings as { fsync: string, commit: string }
    if (fsync !== 'on' || commit === 'off') {
      throw new SoundboxError('DATA_DIR_UNUSABLE', `PostgreSQL runs with fsync=${fsync}, synchronous_commit=${commit}: what it confirms would not be on disk`)
    }
    await client.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK])
    return await migrate(client, known, nowMs)
  } finally {
    await client.end().catch(() => {})
  }
}

async function migrate (client: pg.Client, known: readonly Migration[], nowMs: number): Promise<number> {
  await client.query('CREATE TABLE IF NOT EXISTS schema_migration (id INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)')
  const { rows } = await client.query('SELECT id, checksum FROM schema_migration ORDER BY id')
  const pending = pendingMigrations(known, rows as { id: number, checksum: string }[])
  for (const migration of pending) {
    await client.query('BEGIN')
    await client.query(migration.sql)
    await client.query('INSERT INTO schema_migration VALUES ($1, $2, $3, $4)', [migration.id, migration.name, migrationChecksum(migration), nowMs])
    await client.query('COMMIT')
  }
  return pending.length
}

/** The SQLSTATE of a server's error, '' for any other. */
export function sqlState (error: unknown): string {
  return error instanceof pg.DatabaseError ? error.code ?? '' : ''
}

/** True when the record is at fault, not the database: data exceptions and constraints. */
export function isRecordFault (error: unknown): boolean {
  return /^2[23]/.test(sqlState(error)) || error instanceof TypeError
}

/** True for a deadlock or a serialization failure: the statement may be run again. */
export function isClash (error: unknown): boolean {
  return /^40/.test(sqlState(error))
}

/** What the caller gets: INPUT_INVALID for the record's fault, STORE_FAILED for all else. A server's error is not its cause: that holds values. */
export function storeErrorFrom (error: unknown): SoundboxError {
  if (error instanceof SoundboxError) return error
  const state = sqlState(error)
  const cause = error instanceof pg.DatabaseError ? undefined : error
  if (!isRecordFault(error)) {
    const why = state || (error as NodeJS.ErrnoException).code || 'no connection'
    return new SoundboxError('STORE_FAILED', `the database cannot serve this now (${why})`, { cause })
  }
  const name = error instanceof pg.DatabaseError ? error.constraint ?? error.column : undefined
  return new SoundboxError('INPUT_INVALID', `the record cannot be stored: ${name ?? 'a value is missing or of the wrong type'}${state === '' ? '' : ` (${state})`}`, { cause })
}
