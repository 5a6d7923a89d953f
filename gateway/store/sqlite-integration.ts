// The audit trail, the ledger of provider calls, tokens and one-time-code state in SQLite. Audit rows are only ever appended.
import { SoundboxError } from '../../protocol/index.js'
import type { AuditCount, AuditHead, AuditRow, CallChange, CallRecord, IntegrationStore, TokenRow, TotpRow } from './integration-records.js'
import type { Db } from './sqlite-open.js'

export const INTEGRATION_TABLES = `
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  trace_id TEXT NOT NULL,
  actor TEXT NOT NULL,
  issuer TEXT NOT NULL,
  service TEXT NOT NULL,
  uri_key TEXT NOT NULL,
  method TEXT NOT NULL,
  url TEXT NOT NULL,
  status INTEGER,
  latency_ms INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  error TEXT,
  request TEXT,
  response TEXT,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_trace ON audit (trace_id);

CREATE TABLE provider_call (
  key TEXT PRIMARY KEY,
  issuer TEXT NOT NULL,
  service TEXT NOT NULL,
  actor TEXT NOT NULL,
  trace_id TEXT NOT NULL,
  content_hash TEXT NOT NULL,
  reference TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('sending', 'done', 'refused', 'unknown')),
  input_sealed TEXT NOT NULL,
  response_sealed TEXT,
  at_ms INTEGER NOT NULL,
  asks INTEGER NOT NULL,
  next_ask_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX provider_call_sending ON provider_call (at_ms) WHERE state = 'sending';
CREATE INDEX provider_call_unknown ON provider_call (next_ask_ms) WHERE state = 'unknown' AND next_ask_ms IS NOT NULL;
CREATE INDEX provider_call_age ON provider_call (at_ms);

CREATE TABLE token (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('operator', 'partner')),
  name TEXT NOT NULL,
  permissions TEXT NOT NULL,
  hash TEXT NOT NULL,
  rate_per_minute INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER,
  last_used_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE totp (
  operator TEXT PRIMARY KEY,
  seed_sealed TEXT NOT NULL,
  confirmed_at INTEGER,
  last_step INTEGER,
  failures TEXT NOT NULL,
  version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`

const AUDIT_COLUMNS = `seq, at_ms AS atMs, trace_id AS traceId, actor, issuer, service, uri_key AS uriKey, method, url, status, latency_ms AS latencyMs, attempt, outcome, error,
  request, response, prev_hash AS prevHash, hash`
const CALL_COLUMNS = `key, issuer, service, actor, trace_id AS traceId, content_hash AS contentHash, reference, state, input_sealed AS inputSealed, response_sealed AS responseSealed,
  at_ms AS atMs, asks, next_ask_ms AS nextAskMs`

/** The writer's operations. */
export function integrationWriteOps (db: Db) {
  const hasAudit = db.prepare('SELECT 1 FROM audit WHERE seq >= ? LIMIT 1')
  const addAudit = db.prepare(`INSERT INTO audit VALUES (:seq, :atMs, :traceId, :actor, :issuer, :service, :uriKey, :method, :url, :status, :latencyMs, :attempt, :outcome, :error,
    :request, :response, :prevHash, :hash)`)
  const findCall = db.prepare(`SELECT ${CALL_COLUMNS} FROM provider_call WHERE key = ?`)
  const addCall = db.prepare(`INSERT INTO provider_call VALUES (:key, :issuer, :service, :actor, :traceId, :contentHash, :reference, :state, :inputSealed, :responseSealed, :atMs, :asks, :nextAskMs)`)
  const restart = db.prepare("UPDATE provider_call SET state = 'sending', trace_id = :traceId, at_ms = :atMs WHERE key = :key AND state = 'refused'")
  const finish = db.prepare('UPDATE provider_call SET state = :state, response_sealed = :responseSealed, asks = :asks, next_ask_ms = :nextAskMs WHERE key = :key')
  const purge = db.prepare(`DELETE FROM provider_call WHERE key IN (
    SELECT key FROM provider_call WHERE at_ms < ? AND state <> 'sending' AND NOT (state = 'unknown' AND next_ask_ms IS NOT NULL) ORDER BY at_ms LIMIT ?)`)
  const saveToken = db.prepare(`INSERT INTO token VALUES (:id, :kind, :name, :permissions, :hash, :ratePerMinute, :createdAt, :expiresAt, :revokedAt, :lastUsedAt)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, permissions = excluded.permissions, rate_per_minute = excluded.rate_per_minute, expires_at = excluded.expires_at,
      revoked_at = coalesce(token.revoked_at, excluded.revoked_at)`)
  const touch = db.prepare('UPDATE token SET last_used_at = :at WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :at)')
  const addTotp = db.prepare('INSERT INTO totp VALUES (:operator, :seedSealed, :confirmedAt, :lastStep, :failures, :version) ON CONFLICT (operator) DO NOTHING')
  const saveTotp = db.prepare(`UPDATE totp SET seed_sealed = :seedSealed, confirmed_at = :confirmedAt, last_step = :lastStep, failures = :failures, version = :version
    WHERE operator = :operator AND version = :version - 1`)
  const removeTotp = db.prepare('DELETE FROM totp WHERE operator = ?')
  return {
    appendAudit: (rows: readonly AuditRow[]): void => {
      const [first] = rows
      if (first !== undefined && hasAudit.get(first.seq) !== undefined) throw new SoundboxError('ALREADY_EXISTS', `audit row ${first.seq} is written already`)
      for (const row of rows) addAudit.run(row)
    },
    beginCall: (record: CallRecord): CallRecord | null => {
      const known = findCall.get(record.key) as CallRecord | undefined
      if (known !== undefined) return known
      addCall.run(record)
      return null
    },
    restartCall: (record: CallRecord): boolean => restart.run({ key: record.key, traceId: record.traceId, atMs: record.atMs }).changes === 1,
    finishCall: ({ key, change }: { key: string, change: CallChange }): void => { finish.run({ ...change, key }) },
    purgeCalls: ({ atBeforeMs, limit }: { atBeforeMs: number, limit: number }): number => purge.run(atBeforeMs, limit).changes,
    saveToken: (row: TokenRow): void => { saveToken.run({ ...row, permissions: JSON.stringify(row.permissions) }) },
    touchTokens: (uses: readonly { id: string, at: number }[]): void => { for (const use of uses) touch.run(use) },
    saveTotp: (row: TotpRow): boolean => (row.version === 1 ? addTotp : saveTotp).run({ ...row, failures: JSON.stringify(row.failures) }).changes === 1,
    removeTotp: (operator: string): void => { removeTotp.run(operator) }
  }
}

/** The reader's. */
export function integrationReadOps (db: Db) {
  const last = db.prepare('SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1')
  const page = db.prepare(`SELECT ${AUDIT_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?`)
  const counts = db.prepare(`SELECT issuer, count(*) AS calls, sum(outcome <> 'ok') AS failed, sum(outcome = 'PROVIDER_STATE_UNKNOWN') AS unknown FROM audit
    WHERE at_ms >= :since AND at_ms < :until GROUP BY issuer ORDER BY issuer`)
  const due = db.prepare(`SELECT * FROM (
      SELECT ${CALL_COLUMNS} FROM provider_call WHERE state = 'unknown' AND next_ask_ms IS NOT NULL AND next_ask_ms <= :nowMs
      UNION ALL SELECT ${CALL_COLUMNS} FROM provider_call WHERE state = 'sending' AND at_ms < :lostBeforeMs) ORDER BY atMs LIMIT :limit`)
  const tokens = db.prepare(`SELECT id, kind, name, permissions, hash, rate_per_minute AS ratePerMinute, created_at AS createdAt, expires_at AS expiresAt, revoked_at AS revokedAt,
    last_used_at AS lastUsedAt FROM token ORDER BY created_at, id`)
  const totp = db.prepare('SELECT operator, seed_sealed AS seedSealed, confirmed_at AS confirmedAt, last_step AS lastStep, failures, version FROM totp WHERE operator = ?')
  return {
    lastAudit: (): AuditHead | null => last.get() as AuditHead | undefined ?? null,
    countAudit: (time: { since: number, until: number }) => counts.all(time) as AuditCount[],
    pageAudit: ({ afterSeq, limit }: { afterSeq: number, limit: number }) => page.all(afterSeq, limit) as AuditRow[],
    dueCalls: (when: { nowMs: number, lostBeforeMs: number, limit: number }) => due.all(when) as CallRecord[],
    loadTokens: () => (tokens.all() as (Omit<TokenRow, 'permissions'> & { permissions: string })[]).map(row => ({ ...row, permissions: JSON.parse(row.permissions) as string[] })),
    findTotp: (operator: string): TotpRow | null => {
      const row = totp.get(operator) as (Omit<TotpRow, 'failures'> & { failures: string }) | undefined
      return row === undefined ? null : { ...row, failures: JSON.parse(row.failures) as number[] }
    }
  }
}

type Writes = ReturnType<typeof integrationWriteOps>
type Reads = ReturnType<typeof integrationReadOps>
type Call<Ops extends Record<string, (argument: never) => unknown>> =
  <Name extends keyof Ops & string>(name: Name, argument: Parameters<Ops[Name]>[0]) => Promise<Awaited<ReturnType<Ops[Name]>>>

/** The integration's part of the store over the two threads. TOTP state is read by the writer's side of time: after every save that answered. */
export function integrationStoreOver (write: Call<Writes>, read: Call<Reads>): Pick<IntegrationStore, 'audit' | 'calls' | 'tokens' | 'totp'> {
  return {
    audit: {
      append: async rows => { await write('appendAudit', rows) },
      last: async () => await read('lastAudit', null as never) ?? undefined,
      page: (afterSeq, limit) => read('pageAudit', { afterSeq, limit }),
      countByIssuer: (since, until) => read('countAudit', { since, until })
    },
    calls: {
      begin: async record => await write('beginCall', record) ?? undefined,
      restart: record => write('restartCall', record),
      finish: async (key, change) => { await write('finishCall', { key, change }) },
      due: (nowMs, lostBeforeMs, limit) => read('dueCalls', { nowMs, lostBeforeMs, limit }),
      purge: (atBeforeMs, limit) => write('purgeCalls', { atBeforeMs, limit })
    },
    tokens: {
      loadTokens: () => read('loadTokens', null as never),
      saveToken: async row => { await write('saveToken', row) },
      touchTokens: async uses => { await write('touchTokens', uses) }
    },
    totp: {
      findTotp: async operator => await read('findTotp', operator) ?? undefined,
      saveTotp: row => write('saveTotp', row),
      removeTotp: async operator => { await write('removeTotp', operator) }
    }
  }
}
