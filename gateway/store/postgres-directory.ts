// Banks, keys, devices, mappings and what was last seen of each device, in PostgreSQL. Each change of the directory wakes the other
// gateways in the same transaction.
import type { BankKeyRow, BankRow, DeviceRow, DeviceSeen, DeviceState, DirectoryRows, MappingRow } from './contract.js'
import type { Queryable } from './postgres-open.js'

/** Other gateways listen here; the payload is a topic. */
export const WAKE_CHANNEL = 'soundbox'
export const DIRECTORY_TOPIC = 'directory'

const BANK = 'id, base, name, pass_key, profile, database, header_reuse, field_names, numeric_status, announce_failed, rate_per_second, created_at, disabled_at'
const KEY = 'key_id, bank_id, client_id, client_secret_hash, header_key_sealed, payload_key_sealed, valid_from, valid_to'
const DEVICE = 'tid, type, status, language, volume, min_volume, quiet_hours, display, desired_version, mqtt_password_hash, signing_key_sealed, created_at, activated_at, deactivated_at'
const MAPPING = 'bank_id, merchant, tid, mapped_at'
const STATE = 'tid, at, online, online_since, takeovers, hello, reported, telemetry'
const JSON_COLUMNS = ['field_names', 'quiet_hours']

function camel (column: string): string {
  return column.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
}

function select (table: string, columns: string): string {
  return `SELECT ${columns.split(', ').map(name => `${name} AS "${camel(name)}"`).join(', ')} FROM ${table}`
}

/** Inserts or overwrites one row and wakes the others. */
async function upsert (db: Queryable, { table, columns, key, row }: { table: string, columns: string, key: string, row: Record<string, unknown> }): Promise<void> {
  const names = columns.split(', ')
  const sets = names.filter(name => !key.split(', ').includes(name)).map(name => `${name} = excluded.${name}`).join(', ')
  const values = names.map(name => {
    const value = row[camel(name)] ?? null
    return JSON_COLUMNS.includes(name) && value !== null ? JSON.stringify(value) : value
  })
  await db.query(`WITH saved AS (
    INSERT INTO ${table} (${columns}) VALUES (${names.map((_, index) => `$${index + 1}`).join(', ')}) ON CONFLICT (${key}) DO UPDATE SET ${sets} RETURNING 1
  ) SELECT pg_notify('${WAKE_CHANNEL}', '${DIRECTORY_TOPIC}') FROM saved`, values)
}

export async function saveBank (db: Queryable, row: BankRow): Promise<void> {
  await upsert(db, { table: 'bank', columns: BANK, key: 'id', row })
}

export async function saveBankKey (db: Queryable, row: BankKeyRow): Promise<void> {
  await upsert(db, { table: 'bank_key', columns: KEY, key: 'key_id', row })
}

export async function saveDevice (db: Queryable, row: DeviceRow): Promise<void> {
  await upsert(db, { table: 'device', columns: DEVICE, key: 'tid', row })
}

export async function saveMapping (db: Queryable, row: MappingRow): Promise<void> {
  await upsert(db, { table: 'mapping', columns: MAPPING, key: 'bank_id, merchant, tid', row })
}

export async function removeMapping (db: Queryable, { bankId, merchant, tid }: { bankId: string, merchant: string, tid: string }): Promise<void> {
  await db.query(`WITH gone AS (DELETE FROM mapping WHERE bank_id = $1 AND merchant = $2 AND tid = $3 RETURNING 1)
    SELECT pg_notify('${WAKE_CHANNEL}', '${DIRECTORY_TOPIC}') FROM gone`, [bankId, merchant, tid])
}

const SEEN = `INSERT INTO device_state AS s (${STATE})
  SELECT v.tid, v.at, v.online, CASE WHEN v.online THEN v.at END, CASE WHEN v.takeover THEN 1 ELSE 0 END, v.hello, v.reported, v.telemetry
  FROM json_to_recordset($1) AS v (tid text, at bigint, online boolean, takeover boolean, hello jsonb, reported jsonb, telemetry jsonb) ORDER BY v.tid
  ON CONFLICT (tid) DO UPDATE SET
    at = greatest(s.at, excluded.at),
    online_since = CASE WHEN excluded.at < s.at THEN s.online_since WHEN NOT excluded.online THEN NULL WHEN s.online THEN s.online_since ELSE excluded.at END,
    online = CASE WHEN excluded.at < s.at THEN s.online ELSE excluded.online END,
    takeovers = s.takeovers + excluded.takeovers,
    hello = coalesce(excluded.hello, s.hello), reported = coalesce(excluded.reported, s.reported), telemetry = coalesce(excluded.telemetry, s.telemetry)`

/** News of one device go one after the other, of many together. */
export async function saveDeviceSeen (db: Queryable, seen: readonly DeviceSeen[]): Promise<void> {
  for (let rest = seen; rest.length > 0;) {
    const first = new Map<string, DeviceSeen>()
    rest = rest.filter(news => {
      if (first.has(news.tid)) return true
      first.set(news.tid, news)
      return false
    })
    await db.query(SEEN, [JSON.stringify([...first.values()])])
  }
}

export async function loadDirectory (db: Queryable): Promise<DirectoryRows> {
  const all = async (sql: string): Promise<unknown[]> => (await db.query(sql)).rows
  return {
    banks: await all(`${select('bank', BANK)} ORDER BY id`) as BankRow[],
    keys: await all(`${select('bank_key', KEY)} ORDER BY bank_id, valid_from, key_id`) as BankKeyRow[],
    devices: await all(`${select('device', DEVICE)} ORDER BY tid`) as DeviceRow[],
    mappings: await all(`${select('mapping', MAPPING)} ORDER BY bank_id, merchant, tid`) as MappingRow[]
  }
}

export async function deviceStates (db: Queryable): Promise<DeviceState[]> {
  const { rows } = await db.query(`${select('device_state', STATE)} ORDER BY tid`)
  return (rows as Record<string, unknown>[]).map(({ hello, reported, telemetry, ...row }) => {
    const objects = Object.entries({ hello, reported, telemetry }).filter(([, value]) => value !== null)
    return { ...row, ...Object.fromEntries(objects) } as DeviceState
  })
}
