// The tables of the PostgreSQL store, as migrations: only ever add one at the end; a released one is frozen by its checksum.
//
// The same tables as sqlite-schema.ts, in PostgreSQL's types. Replay marks are unique here: several gateways share them.
import type { Migration } from './migrate.js'
import { ISO_TABLES } from './postgres-iso.js'

const FIRST = `
CREATE TABLE payment (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  bank_id TEXT NOT NULL,
  transaction_id TEXT NOT NULL,
  merchant TEXT,
  amount_minor BIGINT NOT NULL CHECK (amount_minor >= 0),
  currency TEXT NOT NULL,
  txn_type TEXT,
  language TEXT,
  status TEXT NOT NULL CHECK (status IN ('success', 'failed')),
  source TEXT NOT NULL CHECK (source IN ('http', 'iso8583')),
  content_hash BYTEA NOT NULL CHECK (length(content_hash) = 16),
  accepted_at BIGINT NOT NULL,
  listed BOOLEAN NOT NULL,
  reversed_at BIGINT
);
CREATE UNIQUE INDEX payment_transaction ON payment (transaction_id, bank_id);
CREATE INDEX payment_time ON payment (accepted_at, id);
CREATE INDEX payment_bank ON payment (bank_id, accepted_at, id) WHERE listed;
CREATE INDEX payment_merchant ON payment (merchant, accepted_at, id) WHERE listed;
CREATE INDEX payment_failed ON payment (accepted_at, id) WHERE listed AND status = 'failed';
CREATE INDEX payment_failed_bank ON payment (bank_id, accepted_at, id) WHERE listed AND status = 'failed';
CREATE INDEX payment_failed_merchant ON payment (merchant, accepted_at, id) WHERE listed AND status = 'failed';

CREATE TABLE delivery (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tid TEXT NOT NULL,
  announcement_id BYTEA NOT NULL CHECK (length(announcement_id) = 16),
  kind TEXT NOT NULL,
  language TEXT NOT NULL,
  seq BIGINT NOT NULL,
  amount_minor BIGINT NOT NULL,
  currency TEXT NOT NULL,
  txn_type TEXT,
  count BIGINT,
  issued_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  payment_id BIGINT REFERENCES payment (id),
  accepted_at BIGINT,
  listed BOOLEAN,
  state SMALLINT NOT NULL DEFAULT 0 CHECK (state >= 0),
  published_at BIGINT,
  delivered_at BIGINT,
  final_at BIGINT,
  queued_ms BIGINT,
  audio_ms BIGINT,
  reason TEXT,
  summary_id BYTEA
);
CREATE UNIQUE INDEX delivery_announcement ON delivery (tid, announcement_id);
CREATE INDEX delivery_payment ON delivery (payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX delivery_history ON delivery (tid, listed, accepted_at, payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX delivery_open ON delivery (tid, seq) WHERE state < 3;
CREATE INDEX delivery_open_issued ON delivery (issued_at) WHERE state < 3;
CREATE INDEX delivery_summary ON delivery (summary_id) WHERE summary_id IS NOT NULL;
CREATE INDEX delivery_notice ON delivery (issued_at) WHERE payment_id IS NULL;

CREATE TABLE bank (
  id TEXT PRIMARY KEY,
  base TEXT NOT NULL,
  name TEXT NOT NULL,
  pass_key TEXT NOT NULL UNIQUE,
  profile TEXT NOT NULL CHECK (profile IN ('aes-256-cbc', 'aes-256-gcm', 'none')),
  database BOOLEAN NOT NULL,
  header_reuse TEXT NOT NULL CHECK (header_reuse IN ('forbid', 'allow')),
  field_names JSONB NOT NULL,
  numeric_status BOOLEAN NOT NULL,
  announce_failed BOOLEAN NOT NULL,
  rate_per_second BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  disabled_at BIGINT
);

CREATE TABLE bank_key (
  key_id TEXT PRIMARY KEY,
  bank_id TEXT NOT NULL REFERENCES bank (id),
  client_id TEXT NOT NULL,
  client_secret_hash TEXT NOT NULL,
  header_key_sealed TEXT NOT NULL,
  payload_key_sealed TEXT NOT NULL,
  valid_from BIGINT NOT NULL,
  valid_to BIGINT
);

CREATE TABLE device (
  tid TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
  language TEXT NOT NULL,
  volume BIGINT NOT NULL,
  min_volume BIGINT NOT NULL,
  quiet_hours JSONB,
  display TEXT,
  desired_version BIGINT NOT NULL,
  mqtt_password_hash TEXT NOT NULL,
  signing_key_sealed TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  activated_at BIGINT,
  deactivated_at BIGINT
);

CREATE TABLE mapping (
  bank_id TEXT NOT NULL REFERENCES bank (id),
  merchant TEXT NOT NULL,
  tid TEXT NOT NULL REFERENCES device (tid),
  mapped_at BIGINT NOT NULL,
  PRIMARY KEY (bank_id, merchant, tid)
);

CREATE TABLE device_state (
  tid TEXT PRIMARY KEY,
  at BIGINT NOT NULL,
  online BOOLEAN NOT NULL,
  online_since BIGINT,
  takeovers BIGINT NOT NULL DEFAULT 0,
  hello JSONB,
  reported JSONB,
  telemetry JSONB
);

CREATE TABLE replay_mark (
  mark BYTEA PRIMARY KEY CHECK (length(mark) = 16),
  owner TEXT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX replay_mark_expiry ON replay_mark (expires_at);
`

export const POSTGRES_MIGRATIONS: readonly Migration[] = [
  { id: 1, name: 'payments, deliveries, directory, device states, replay marks', sql: FIRST },
  { id: 2, name: 'reversals on their way to ISO 8583 peers', sql: ISO_TABLES },
  { id: 3, name: 'payments by the beginning of their transaction id', sql: 'CREATE INDEX payment_transaction_bytes ON payment (bank_id, transaction_id COLLATE "C")' }
]
