// The tables of the SQLite store, as migrations: only ever add one at the end; a released one is frozen by its checksum.
//
// Ids of 16 bytes are BLOBs; states are numbers, the index in DELIVERY_STATES, so that "forward" is "greater" and "open" is "< 3".
// Payments have an integer key: random text keys would spread every insert over the whole file. Each index below serves one
// question; the history ones end in (accepted_at, rowid), the key that pages are cut by. A delivery repeats its payment's accepted_at
// and listed, so that the history of one soundbox is a walk along one index too.
import type { Migration } from './migrate.js'
import { INTEGRATION_TABLES } from './sqlite-integration.js'
import { ISO_TABLES } from './sqlite-iso.js'
import { MERCHANT_SIDE_TABLES, STAND_IN_REPORTS } from './sqlite-merchant-side.js'

const FIRST = `
CREATE TABLE payment (
  id INTEGER PRIMARY KEY,
  bank_id TEXT NOT NULL,
  transaction_id TEXT NOT NULL,
  merchant TEXT,
  amount_minor INTEGER NOT NULL CHECK (amount_minor >= 0),
  currency TEXT NOT NULL,
  txn_type TEXT,
  language TEXT,
  status TEXT NOT NULL CHECK (status IN ('success', 'failed')),
  source TEXT NOT NULL CHECK (source IN ('http', 'iso8583')),
  content_hash BLOB NOT NULL CHECK (length(content_hash) = 16),
  accepted_at INTEGER NOT NULL,
  listed INTEGER NOT NULL CHECK (listed IN (0, 1)),
  reversed_at INTEGER
) STRICT;
CREATE UNIQUE INDEX payment_transaction ON payment (transaction_id, bank_id);
CREATE INDEX payment_time ON payment (listed, accepted_at);
CREATE INDEX payment_bank ON payment (bank_id, accepted_at) WHERE listed = 1;
CREATE INDEX payment_merchant ON payment (merchant, accepted_at) WHERE listed = 1;
CREATE INDEX payment_failed ON payment (accepted_at) WHERE listed = 1 AND status = 'failed';
CREATE INDEX payment_failed_bank ON payment (bank_id, accepted_at) WHERE listed = 1 AND status = 'failed';
CREATE INDEX payment_failed_merchant ON payment (merchant, accepted_at) WHERE listed = 1 AND status = 'failed';

CREATE TABLE delivery (
  id INTEGER PRIMARY KEY,
  tid TEXT NOT NULL,
  announcement_id BLOB NOT NULL CHECK (length(announcement_id) = 16),
  kind TEXT NOT NULL,
  language TEXT NOT NULL,
  seq INTEGER NOT NULL,
  amount_minor INTEGER NOT NULL,
  currency TEXT NOT NULL,
  txn_type TEXT,
  count INTEGER,
  issued_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  payment_id INTEGER REFERENCES payment (id),
  accepted_at INTEGER,
  listed INTEGER,
  state INTEGER NOT NULL DEFAULT 0 CHECK (state >= 0),
  published_at INTEGER,
  delivered_at INTEGER,
  final_at INTEGER,
  queued_ms INTEGER,
  audio_ms INTEGER,
  reason TEXT,
  summary_id BLOB
) STRICT;
CREATE UNIQUE INDEX delivery_announcement ON delivery (tid, announcement_id);
CREATE INDEX delivery_payment ON delivery (payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX delivery_history ON delivery (tid, listed, accepted_at, payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX delivery_open ON delivery (tid, seq) WHERE state < 3;
CREATE INDEX delivery_open_issued ON delivery (issued_at) WHERE state < 3;
CREATE INDEX delivery_summary ON delivery (summary_id) WHERE summary_id IS NOT NULL;
CREATE INDEX delivery_notice ON delivery (issued_at) WHERE payment_id IS NULL;

CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('payments', 0), ('open', 0);

CREATE TABLE bank (
  id TEXT PRIMARY KEY,
  base TEXT NOT NULL,
  name TEXT NOT NULL,
  pass_key TEXT NOT NULL,
  profile TEXT NOT NULL CHECK (profile IN ('aes-256-cbc', 'aes-256-gcm', 'none')),
  database INTEGER NOT NULL CHECK (database IN (0, 1)),
  header_reuse TEXT NOT NULL CHECK (header_reuse IN ('forbid', 'allow')),
  field_names TEXT NOT NULL,
  numeric_status INTEGER NOT NULL CHECK (numeric_status IN (0, 1)),
  announce_failed INTEGER NOT NULL CHECK (announce_failed IN (0, 1)),
  rate_per_second INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  disabled_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX bank_pass_key ON bank (pass_key);

CREATE TABLE bank_key (
  key_id TEXT PRIMARY KEY,
  bank_id TEXT NOT NULL REFERENCES bank (id),
  client_id TEXT NOT NULL,
  client_secret_hash TEXT NOT NULL,
  header_key_sealed TEXT NOT NULL,
  payload_key_sealed TEXT NOT NULL,
  valid_from INTEGER NOT NULL,
  valid_to INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
  tid TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
  language TEXT NOT NULL,
  volume INTEGER NOT NULL,
  min_volume INTEGER NOT NULL,
  quiet_hours TEXT,
  display TEXT,
  desired_version INTEGER NOT NULL,
  mqtt_password_hash TEXT NOT NULL,
  signing_key_sealed TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  activated_at INTEGER,
  deactivated_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE mapping (
  bank_id TEXT NOT NULL REFERENCES bank (id),
  merchant TEXT NOT NULL,
  tid TEXT NOT NULL REFERENCES device (tid),
  mapped_at INTEGER NOT NULL,
  PRIMARY KEY (bank_id, merchant, tid)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_state (
  tid TEXT PRIMARY KEY,
  at INTEGER NOT NULL,
  online INTEGER NOT NULL CHECK (online IN (0, 1)),
  online_since INTEGER,
  takeovers INTEGER NOT NULL DEFAULT 0,
  hello TEXT,
  reported TEXT,
  telemetry TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE replay_mark (
  id INTEGER PRIMARY KEY,
  mark BLOB NOT NULL CHECK (length(mark) = 16),
  owner TEXT NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX replay_mark_expiry ON replay_mark (expires_at);
`

export const SQLITE_MIGRATIONS: readonly Migration[] = [
  { id: 1, name: 'payments, deliveries, directory, device states, replay marks', sql: FIRST },
  { id: 2, name: 'audit trail, provider calls, tokens, one-time codes', sql: INTEGRATION_TABLES },
  { id: 3, name: 'reversals on their way to ISO 8583 peers', sql: ISO_TABLES },
  { id: 4, name: 'messages of providers, stand-ins, identity checks', sql: MERCHANT_SIDE_TABLES },
  { id: 5, name: 'delivery reports of stand-ins', sql: STAND_IN_REPORTS }
]
