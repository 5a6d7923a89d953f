// What the ISO 8583 part keeps, in PostgreSQL: as sqlite-iso.ts.
import type { OutgoingReversal } from './contract.js'
import type { Queryable } from './postgres-open.js'

export const ISO_TABLES = `
CREATE TABLE iso_reversal (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  peer TEXT NOT NULL,
  reference TEXT NOT NULL,
  message JSONB NOT NULL,
  created_at BIGINT NOT NULL,
  UNIQUE (peer, reference)
);
`

export const FIND_TRANSACTIONS = 'SELECT transaction_id AS id FROM payment WHERE bank_id = $1 AND transaction_id COLLATE "C" >= $2 AND transaction_id COLLATE "C" < $3 ' +
  'ORDER BY transaction_id COLLATE "C" LIMIT $4'

/** Transaction ids that begin so, in the order of their bytes. */
export async function findTransactions (db: Queryable, bankId: string, prefix: string, limit: number): Promise<string[]> {
  const { rows } = await db.query(FIND_TRANSACTIONS, [bankId, prefix, `${prefix}\u{10ffff}`, limit])
  return (rows as { id: string }[]).map(row => row.id)
}

export async function saveReversal (db: Queryable, { peer, reference, message, createdAt }: OutgoingReversal): Promise<void> {
  const sql = 'INSERT INTO iso_reversal (peer, reference, message, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (peer, reference) DO NOTHING'
  await db.query(sql, [peer, reference, JSON.stringify(message), createdAt])
}

export async function removeReversal (db: Queryable, peer: string, reference: string): Promise<void> {
  await db.query('DELETE FROM iso_reversal WHERE peer = $1 AND reference = $2', [peer, reference])
}

/** Oldest first. */
export async function waitingReversals (db: Queryable, peer: string, limit: number): Promise<OutgoingReversal[]> {
  const { rows } = await db.query('SELECT peer, reference, message, created_at AS "createdAt" FROM iso_reversal WHERE peer = $1 ORDER BY id LIMIT $2', [peer, limit])
  return rows as OutgoingReversal[]
}
