// Between rows of the PostgreSQL tables and the contract's types.
import { type Delivery, DELIVERY_STATES, type Payment, type StoredPayment } from './contract.js'
import type { Queryable } from './postgres-open.js'

export const PAYMENT_COLUMNS = `p.id, p.bank_id AS "bankId", p.transaction_id AS "transactionId", p.merchant, p.amount_minor AS "amountMinor", p.currency,
  p.txn_type AS "txnType", p.language, p.status, p.source, encode(p.content_hash, 'hex') AS "contentHash", p.accepted_at AS "acceptedAt", p.listed,
  p.reversed_at AS "reversedAt"`
export type PaymentRow = Payment & { id: number, reversedAt: number | null }

export const DELIVERY_COLUMNS = `d.payment_id AS "paymentId", d.tid, encode(d.announcement_id, 'hex') AS "announcementId", d.kind, d.language, d.seq,
  d.amount_minor AS "amountMinor", d.currency, d.txn_type AS "txnType", d.count, d.issued_at AS "issuedAt", d.expires_at AS "expiresAt", d.state,
  d.published_at AS "publishedAt", d.delivered_at AS "deliveredAt", d.final_at AS "finalAt", d.queued_ms AS "queuedMs", d.audio_ms AS "audioMs", d.reason,
  encode(d.summary_id, 'hex') AS "summaryId"`
export type DeliveryRow = Omit<Delivery, 'state' | 'bankId' | 'transactionId'> & { state: number, paymentId: number | null }

/** A delivery as the contract has it; `of` is its payment, null for a notice or a summary. */
export function deliveryFromRow ({ paymentId: _, ...row }: DeliveryRow, of: { bankId: string, transactionId: string } | null): Delivery {
  return { ...row, bankId: of === null ? null : of.bankId, transactionId: of === null ? null : of.transactionId, state: DELIVERY_STATES[row.state]! }
}

/** The rows with their deliveries, in their order. */
export async function storedPayments (db: Queryable, rows: readonly PaymentRow[]): Promise<StoredPayment[]> {
  if (rows.length === 0) return []
  const { rows: found } = await db.query(`SELECT ${DELIVERY_COLUMNS} FROM delivery d WHERE d.payment_id = ANY($1::bigint[]) ORDER BY d.id`, [rows.map(row => row.id)])
  const byPayment = new Map<number | null, DeliveryRow[]>(rows.map(row => [row.id, []]))
  for (const delivery of found as DeliveryRow[]) byPayment.get(delivery.paymentId)?.push(delivery)
  return rows.map(({ id, reversedAt, ...payment }) =>
    ({ payment, deliveries: (byPayment.get(id) ?? []).map(delivery => deliveryFromRow(delivery, payment)), reversedAt }))
}

type PaymentName = { bankId: string, transactionId: string }

/** The payments of these names, in any order. */
export async function findPayments (db: Queryable, names: readonly PaymentName[]): Promise<StoredPayment[]> {
  const { rows } = await db.query(`SELECT ${PAYMENT_COLUMNS} FROM payment p
    JOIN unnest($1::text[], $2::text[]) AS n (bank_id, transaction_id) ON p.transaction_id = n.transaction_id AND p.bank_id = n.bank_id`,
  [names.map(name => name.bankId), names.map(name => name.transactionId)])
  return await storedPayments(db, rows as PaymentRow[])
}
