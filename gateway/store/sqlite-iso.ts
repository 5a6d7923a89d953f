// What the ISO 8583 part keeps: payments found by the beginning of their transaction id, and reversals of ours that a peer has not yet
// acknowledged (store and forward).
import type { OutgoingReversal } from './contract.js'
import type { Db } from './sqlite-open.js'

export const ISO_TABLES = `
CREATE TABLE iso_reversal (
  id INTEGER PRIMARY KEY,
  peer TEXT NOT NULL,
  reference TEXT NOT NULL,
  message TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (peer, reference)
) STRICT;
`

/** The writer's operations. */
export function isoWriteOps (db: Db) {
  const save = db.prepare('INSERT INTO iso_reversal (peer, reference, message, created_at) VALUES (:peer, :reference, :message, :createdAt) ON CONFLICT (peer, reference) DO NOTHING')
  const remove = db.prepare('DELETE FROM iso_reversal WHERE peer = :peer AND reference = :reference')
  return {
    saveReversal: (reversal: OutgoingReversal): void => { save.run({ ...reversal, message: JSON.stringify(reversal.message) }) },
    removeReversal: (name: { peer: string, reference: string }): void => { remove.run(name) }
  }
}

/** The reader's operations. */
export function isoReadOps (db: Db) {
  const begins = db.prepare('SELECT transaction_id FROM payment WHERE transaction_id >= :prefix AND transaction_id < :end AND bank_id = :bankId ORDER BY transaction_id LIMIT :limit').pluck()
  const reversals = db.prepare('SELECT peer, reference, message, created_at AS createdAt FROM iso_reversal WHERE peer = :peer ORDER BY id LIMIT :limit')
  return {
    findTransactions: ({ prefix, ...rest }: { bankId: string, prefix: string, limit: number }): string[] =>
      begins.all({ ...rest, prefix, end: `${prefix}\u{10ffff}` }) as string[],
    waitingReversals: (of: { peer: string, limit: number }): OutgoingReversal[] =>
      (reversals.all(of) as (Omit<OutgoingReversal, 'message'> & { message: string })[]).map(row => ({ ...row, message: JSON.parse(row.message) as OutgoingReversal['message'] }))
  }
}
