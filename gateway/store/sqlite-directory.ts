// Banks, keys, devices, mappings and what was last seen of each device: small tables, read whole at start, written row by row.
import type { BankKeyRow, BankRow, DeviceRow, DeviceSeen, DeviceState, DirectoryRows, MappingRow } from './contract.js'
import type { Db } from './sqlite-open.js'

const BANK_COLUMNS = 'id, base, name, pass_key, profile, database, header_reuse, field_names, numeric_status, announce_failed, rate_per_second, created_at, disabled_at'
const KEY_COLUMNS = 'key_id, bank_id, client_id, client_secret_hash, header_key_sealed, payload_key_sealed, valid_from, valid_to'
const DEVICE_COLUMNS = 'tid, type, status, language, volume, min_volume, quiet_hours, display, desired_version, mqtt_password_hash, signing_key_sealed, created_at, activated_at, deactivated_at'
const MAPPING_COLUMNS = 'bank_id, merchant, tid, mapped_at'
const STATE_COLUMNS = 'tid, at, online, online_since, takeovers, hello, reported, telemetry'

type Fields = Record<string, unknown>

/** `INSERT … ON CONFLICT DO UPDATE` of named columns: parameters are the camel-case names. */
function upsert (table: string, columns: string, key: string): string {
  const names = columns.split(', ')
  const keys = key.split(', ')
  const values = names.map(name => `:${camel(name)}`).join(', ')
  const sets = names.filter(name => !keys.includes(name)).map(name => `${name} = excluded.${name}`).join(', ')
  return `INSERT INTO ${table} (${columns}) VALUES (${values}) ON CONFLICT (${key}) DO UPDATE SET ${sets}`
}

function camel (column: string): string {
  return column.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
}

function select (table: string, columns: string): string {
  return `SELECT ${columns.split(', ').map(name => `${name} AS ${camel(name)}`).join(', ')} FROM ${table}`
}

/** The writer's operations on the directory. */
export function directoryWriteOps (db: Db) {
  const bank = db.prepare(upsert('bank', BANK_COLUMNS, 'id'))
  const key = db.prepare(upsert('bank_key', KEY_COLUMNS, 'key_id'))
  const device = db.prepare(upsert('device', DEVICE_COLUMNS, 'tid'))
  const mapping = db.prepare(upsert('mapping', MAPPING_COLUMNS, 'bank_id, merchant, tid'))
  const unmap = db.prepare('DELETE FROM mapping WHERE bank_id = ? AND merchant = ? AND tid = ?')
  return {
    saveBank: (row: BankRow): void => {
      bank.run({
        ...row, database: Number(row.database), numericStatus: Number(row.numericStatus), announceFailed: Number(row.announceFailed), fieldNames: JSON.stringify(row.fieldNames)
      })
    },
    saveBankKey: (row: BankKeyRow): void => { key.run(row) },
    saveDevice: (row: DeviceRow): void => { device.run({ ...row, quietHours: jsonText(row.quietHours) }) },
    saveMapping: (row: MappingRow): void => { mapping.run(row) },
    removeMapping: ({ bankId, merchant, tid }: { bankId: string, merchant: string, tid: string }): void => { unmap.run(bankId, merchant, tid) },
    saveDeviceSeen: deviceSeen(db)
  }
}

/** News older than what is known does not change presence; whole objects replace their predecessor. */
function deviceSeen (db: Db): (seen: readonly DeviceSeen[]) => void {
  const save = db.prepare(`INSERT INTO device_state AS s (${STATE_COLUMNS})
    VALUES (:tid, :at, :online, CASE WHEN :online = 1 THEN :at END, :takeover, :hello, :reported, :telemetry)
    ON CONFLICT (tid) DO UPDATE SET
      at = max(s.at, excluded.at),
      online_since = CASE WHEN excluded.at < s.at THEN s.online_since WHEN excluded.online = 0 THEN NULL WHEN s.online = 1 THEN s.online_since ELSE excluded.at END,
      online = CASE WHEN excluded.at < s.at THEN s.online ELSE excluded.online END,
      takeovers = s.takeovers + excluded.takeovers,
      hello = coalesce(excluded.hello, s.hello), reported = coalesce(excluded.reported, s.reported), telemetry = coalesce(excluded.telemetry, s.telemetry)`)
  return seen => {
    for (const { tid, at, online, takeover, hello, reported, telemetry } of seen) {
      save.run({
        tid, at, online: Number(online), takeover: Number(takeover === true), hello: jsonText(hello), reported: jsonText(reported), telemetry: jsonText(telemetry)
      })
    }
  }
}

/** The reader's operations on the directory. */
export function directoryReadOps (db: Db) {
  const banks = db.prepare(`${select('bank', BANK_COLUMNS)} ORDER BY id`)
  const keys = db.prepare(`${select('bank_key', KEY_COLUMNS)} ORDER BY bank_id, valid_from, key_id`)
  const devices = db.prepare(`${select('device', DEVICE_COLUMNS)} ORDER BY tid`)
  const mappings = db.prepare(`${select('mapping', MAPPING_COLUMNS)} ORDER BY bank_id, merchant, tid`)
  const states = db.prepare(`${select('device_state', STATE_COLUMNS)} ORDER BY tid`)
  return {
    loadDirectory: (): DirectoryRows => ({
      banks: (banks.all() as Fields[]).map(bankFromRow),
      keys: keys.all() as BankKeyRow[],
      devices: (devices.all() as Fields[]).map(row => ({ ...row, quietHours: jsonValue(row['quietHours']) ?? null }) as DeviceRow),
      mappings: mappings.all() as MappingRow[]
    }),
    deviceStates: (): DeviceState[] => (states.all() as Fields[]).map(stateFromRow)
  }
}

function bankFromRow (row: Fields): BankRow {
  return {
    ...row, database: row['database'] === 1, numericStatus: row['numericStatus'] === 1, announceFailed: row['announceFailed'] === 1, fieldNames: jsonValue(row['fieldNames'])
  } as BankRow
}

function stateFromRow ({ hello, reported, telemetry, ...row }: Fields): DeviceState {
  const objects = { hello: jsonValue(hello), reported: jsonValue(reported), telemetry: jsonValue(telemetry) }
  const known = Object.entries(objects).filter(([, value]) => value !== undefined)
  return { ...row, online: row['online'] === 1, ...Object.fromEntries(known) } as DeviceState
}

function jsonText (value: object | null | undefined): string | null {
  return value === undefined || value === null ? null : JSON.stringify(value)
}

function jsonValue (text: unknown): object | undefined {
  return typeof text === 'string' ? JSON.parse(text) as object : undefined
}
