// Messages of providers, stand-ins with their policies, and identity checks in SQLite: what the integration services keep of merchants.
// Bank and merchant are names only, no references: with another store for payments these tables stand in a file of their own.
import type { IdentityRow, InboundRow, IntegrationStore, StandInPolicyRow, StandInRow } from './integration-records.js'
import type { Db } from './sqlite-open.js'

export const MERCHANT_SIDE_TABLES = `
CREATE TABLE inbound_event (
  key TEXT PRIMARY KEY,
  source TEXT NOT NULL,
  event TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'dead')),
  attempts INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  due_ms INTEGER NOT NULL,
  problem TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX inbound_event_pending ON inbound_event (due_ms) WHERE state = 'pending';
CREATE INDEX inbound_event_age ON inbound_event (received_ms);

CREATE TABLE stand_in (
  bank_id TEXT NOT NULL,
  transaction_id TEXT NOT NULL,
  merchant TEXT NOT NULL,
  amount_minor INTEGER NOT NULL,
  currency TEXT NOT NULL,
  channel TEXT NOT NULL CHECK (channel IN ('sms', 'push', 'email')),
  to_sealed TEXT NOT NULL,
  accepted_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'sent', 'unneeded', 'expired', 'failed', 'unknown')),
  due_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  reason TEXT,
  PRIMARY KEY (bank_id, transaction_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX stand_in_waiting ON stand_in (due_ms) WHERE state = 'waiting';
CREATE INDEX stand_in_sending ON stand_in (changed_at) WHERE state = 'sending';
CREATE INDEX stand_in_age ON stand_in (accepted_at);

CREATE TABLE stand_in_policy (
  bank_id TEXT NOT NULL,
  merchant TEXT NOT NULL,
  channel TEXT NOT NULL CHECK (channel IN ('sms', 'push', 'email')),
  to_sealed TEXT NOT NULL,
  after_ms INTEGER NOT NULL,
  amount_minor_min INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  PRIMARY KEY (bank_id, merchant)
) STRICT, WITHOUT ROWID;

CREATE TABLE identity_check (
  session_id TEXT PRIMARY KEY,
  bank_id TEXT NOT NULL,
  merchant TEXT NOT NULL,
  status TEXT NOT NULL,
  opened_at INTEGER NOT NULL,
  said_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_check_merchant ON identity_check (bank_id, merchant, opened_at);

CREATE INDEX audit_time ON audit (at_ms);
`

/** What the provider calls a message, so that its delivery report finds the stand-in. */
export const STAND_IN_REPORTS = `
ALTER TABLE stand_in ADD COLUMN provider_id TEXT;
CREATE INDEX stand_in_provider ON stand_in (provider_id) WHERE provider_id IS NOT NULL;
`

const INBOUND_COLUMNS = 'key, source, event, state, attempts, received_ms AS receivedMs, due_ms AS dueMs, problem'
const STAND_IN_COLUMNS = `bank_id AS bankId, transaction_id AS transactionId, merchant, amount_minor AS amountMinor, currency, channel, to_sealed AS toSealed,
  accepted_at AS acceptedAt, state, due_ms AS dueMs, attempts, changed_at AS changedAt, reason`
const IDENTITY_COLUMNS = 'session_id AS sessionId, bank_id AS bankId, merchant, status, opened_at AS openedAt, said_at AS saidAt'

type Purge = { beforeMs: number, limit: number }

/** The writer's operations. */
export function merchantSideWriteOps (db: Db) {
  const addInbound = db.prepare('INSERT INTO inbound_event VALUES (:key, :source, :event, :state, :attempts, :receivedMs, :dueMs, :problem) ON CONFLICT (key) DO NOTHING')
  const saveInbound = db.prepare('UPDATE inbound_event SET state = :state, attempts = :attempts, due_ms = :dueMs, problem = :problem WHERE key = :key')
  const purgeInbound = db.prepare(`DELETE FROM inbound_event WHERE key IN (
    SELECT key FROM inbound_event WHERE received_ms < :beforeMs AND state <> 'pending' ORDER BY received_ms LIMIT :limit)`)
  const addStandIn = db.prepare(`INSERT INTO stand_in VALUES (:bankId, :transactionId, :merchant, :amountMinor, :currency, :channel, :toSealed, :acceptedAt, :state, :dueMs, :attempts,
    :changedAt, :reason, NULL) ON CONFLICT (bank_id, transaction_id) DO NOTHING`)
  const change = 'UPDATE stand_in SET state = :state, due_ms = :dueMs, attempts = :attempts, changed_at = :changedAt, reason = :reason WHERE bank_id = :bankId AND transaction_id = :transactionId'
  const saveStandIn = db.prepare(change)
  const claimStandIn = db.prepare(`${change} AND state = :fromState AND attempts = :fromAttempts`)
  const noteSent = db.prepare('UPDATE stand_in SET provider_id = :providerId WHERE bank_id = :bankId AND transaction_id = :transactionId')
  const findSent = db.prepare('SELECT bank_id AS bankId, transaction_id AS transactionId, state FROM stand_in WHERE provider_id = ?')
  const noteReport = db.prepare('UPDATE stand_in SET state = :state, reason = :reason, changed_at = :at WHERE bank_id = :bankId AND transaction_id = :transactionId')
  const purgeStandIns = db.prepare(`DELETE FROM stand_in WHERE (bank_id, transaction_id) IN (
    SELECT bank_id, transaction_id FROM stand_in WHERE accepted_at < :beforeMs AND state NOT IN ('waiting', 'sending') ORDER BY accepted_at LIMIT :limit)`)
  const savePolicy = db.prepare(`INSERT INTO stand_in_policy VALUES (:bankId, :merchant, :channel, :toSealed, :afterMs, :amountMinorMin, :changedAt) ON CONFLICT (bank_id, merchant) DO UPDATE SET
    channel = excluded.channel, to_sealed = excluded.to_sealed, after_ms = excluded.after_ms, amount_minor_min = excluded.amount_minor_min, changed_at = excluded.changed_at`)
  const removePolicy = db.prepare('DELETE FROM stand_in_policy WHERE bank_id = :bankId AND merchant = :merchant')
  const saveIdentity = db.prepare('INSERT INTO identity_check VALUES (:sessionId, :bankId, :merchant, :status, :openedAt, :saidAt) ON CONFLICT (session_id) DO NOTHING')
  const noteIdentity = db.prepare(`UPDATE identity_check SET status = CASE WHEN :saidAt >= said_at THEN :status ELSE status END, said_at = max(said_at, :saidAt)
    WHERE session_id = :sessionId`)
  return {
    keepInbound: (rows: readonly InboundRow[]): string[] => rows.filter(row => addInbound.run(row).changes === 1).map(row => row.key),
    saveInbound: (row: InboundRow): void => { saveInbound.run(row) },
    purgeInbound: (purge: Purge): number => purgeInbound.run(purge).changes,
    recordStandIn: (row: StandInRow): void => { addStandIn.run(row) },
    claimStandIn: ({ from, row }: { from: Pick<StandInRow, 'state' | 'attempts'>, row: StandInRow }): boolean =>
      claimStandIn.run({ ...row, fromState: from.state, fromAttempts: from.attempts }).changes === 1,
    saveStandIn: (row: StandInRow): void => { saveStandIn.run(row) },
    noteStandInSent: (of: { bankId: string, transactionId: string, providerId: string }): void => { noteSent.run(of) },
    reportStandIn: ({ providerId, ...report }: { providerId: string, state: 'sent' | 'failed', reason: string, at: number }): 'noted' | 'sending' | 'unknown' => {
      const row = findSent.get(providerId) as Pick<StandInRow, 'bankId' | 'transactionId' | 'state'> | undefined
      if (row === undefined) return 'unknown'
      if (row.state === 'sending') return 'sending'
      if (row.state === 'sent') noteReport.run({ ...report, bankId: row.bankId, transactionId: row.transactionId })
      return 'noted'
    },
    purgeStandIns: (purge: Purge): number => purgeStandIns.run(purge).changes,
    saveStandInPolicy: (row: StandInPolicyRow): void => { savePolicy.run(row) },
    removeStandInPolicy: (of: { bankId: string, merchant: string }): void => { removePolicy.run(of) },
    saveIdentity: (row: IdentityRow): void => { saveIdentity.run(row) },
    noteIdentity: (word: Pick<IdentityRow, 'sessionId' | 'status' | 'saidAt'>): boolean => noteIdentity.run(word).changes === 1
  }
}

/** The reader's. */
export function merchantSideReadOps (db: Db) {
  const inbound = db.prepare(`SELECT ${INBOUND_COLUMNS} FROM inbound_event WHERE state = 'pending' AND due_ms <= ? ORDER BY due_ms LIMIT ?`)
  const standIns = db.prepare(`SELECT * FROM (
      SELECT ${STAND_IN_COLUMNS} FROM stand_in WHERE state = 'waiting' AND due_ms <= :nowMs
      UNION ALL SELECT ${STAND_IN_COLUMNS} FROM stand_in WHERE state = 'sending' AND changed_at < :stuckBefore) ORDER BY acceptedAt LIMIT :limit`)
  const newest = db.prepare(`SELECT ${STAND_IN_COLUMNS} FROM stand_in ORDER BY accepted_at DESC LIMIT ?`)
  const states = db.prepare('SELECT state, count(*) AS count FROM stand_in WHERE accepted_at >= :since AND accepted_at < :until GROUP BY state')
  const policies = db.prepare(`SELECT bank_id AS bankId, merchant, channel, to_sealed AS toSealed, after_ms AS afterMs, amount_minor_min AS amountMinorMin, changed_at AS changedAt
    FROM stand_in_policy ORDER BY bank_id, merchant`)
  const identity = db.prepare(`SELECT ${IDENTITY_COLUMNS} FROM identity_check WHERE bank_id = :bankId AND merchant = :merchant ORDER BY opened_at DESC LIMIT 1`)
  return {
    dueInbound: ({ nowMs, limit }: { nowMs: number, limit: number }) => inbound.all(nowMs, limit) as InboundRow[],
    dueStandIns: (when: { nowMs: number, stuckBefore: number, limit: number }) => standIns.all(when) as StandInRow[],
    newestStandIns: (limit: number) => newest.all(limit) as StandInRow[],
    countStandIns: (time: { since: number, until: number }) => states.all(time) as { state: StandInRow['state'], count: number }[],
    loadStandInPolicies: () => policies.all() as StandInPolicyRow[],
    findIdentity: (of: { bankId: string, merchant: string }): IdentityRow | null => identity.get(of) as IdentityRow | undefined ?? null
  }
}

type Writes = ReturnType<typeof merchantSideWriteOps>
type Reads = ReturnType<typeof merchantSideReadOps>
type Call<Ops extends Record<string, (argument: never) => unknown>> =
  <Name extends keyof Ops & string>(name: Name, argument: Parameters<Ops[Name]>[0]) => Promise<Awaited<ReturnType<Ops[Name]>>>

/** The merchants' part of the integration's store over the two threads. */
export function merchantSideStoreOver (write: Call<Writes>, read: Call<Reads>): Pick<IntegrationStore, 'inbound' | 'standIns' | 'identities'> {
  return {
    inbound: {
      keep: rows => write('keepInbound', rows),
      due: (nowMs, limit) => read('dueInbound', { nowMs, limit }),
      save: async row => { await write('saveInbound', row) },
      purge: (beforeMs, limit) => write('purgeInbound', { beforeMs, limit })
    },
    standIns: {
      record: async row => { await write('recordStandIn', row) },
      due: (nowMs, stuckBefore, limit) => read('dueStandIns', { nowMs, stuckBefore, limit }),
      claim: (from, row) => write('claimStandIn', { from: { state: from.state, attempts: from.attempts }, row }),
      save: async row => { await write('saveStandIn', row) },
      noteSent: async (bankId, transactionId, providerId) => { await write('noteStandInSent', { bankId, transactionId, providerId }) },
      report: (providerId, report) => write('reportStandIn', { providerId, ...report }),
      newest: limit => read('newestStandIns', limit),
      countByState: (since, until) => read('countStandIns', { since, until }),
      purge: (beforeMs, limit) => write('purgeStandIns', { beforeMs, limit }),
      loadPolicies: () => read('loadStandInPolicies', null as never),
      savePolicy: async row => { await write('saveStandInPolicy', row) },
      removePolicy: async (bankId, merchant) => { await write('removeStandInPolicy', { bankId, merchant }) }
    },
    identities: {
      saveIdentity: async row => { await write('saveIdentity', row) },
      findIdentity: async (bankId, merchant) => await read('findIdentity', { bankId, merchant }) ?? undefined,
      noteIdentity: word => write('noteIdentity', word)
    }
  }
}
