// Between rows of the SQLite tables and the contract's types.
import type { Delivery, NewDelivery, Payment, StoredPayment } from './contract.js'
import { DELIVERY_STATES } from './contract.js'
import type { Db } from './sqlite-open.js'

export const PAYMENT_COLUMNS = `p.id, p.bank_id AS bankId, p.transaction_id AS transactionId, p.merchant, p.amount_minor AS amountMinor, p.currency,
  p.txn_type AS txnType, p.language, p.status, p.source, lower(hex(p.content_hash)) AS contentHash, p.accepted_at AS acceptedAt, p.listed, p.reversed_at AS reversedAt`
export type PaymentRow = Omit<Payment, 'listed'> & { id: number, listed: number, reversedAt: number | null }

export const DELIVERY_COLUMNS = `d.tid, lower(hex(d.announcement_id)) AS announcementId, d.kind, d.language, d.seq, d.amount_minor AS amountMinor, d.currency,
  d.txn_type AS txnType, d.count, d.issued_at AS issuedAt, d.expires_at AS expiresAt, d.state, d.published_at AS publishedAt,
  d.delivered_at AS deliveredAt, d.final_at AS finalAt, d.queued_ms AS queuedMs, d.audio_ms AS audioMs, d.reason, lower(hex(d.summary_id)) AS summaryId`
export type DeliveryRow = Omit<Delivery, 'state' | 'bankId' | 'transactionId' | 'summaryId'> & { state: number, summaryId: string }

/** A delivery as the contract has it; `of` is its payment, null for a notice or a summary. */
export function deliveryFromRow (row: DeliveryRow, of: { bankId: string, transactionId: string } | null): Delivery {
  return {
    ...row,
    bankId: of === null ? null : of.bankId,
    transactionId: of === null ? null : of.transactionId,
    state: DELIVERY_STATES[row.state]!,
    summaryId: row.summaryId === '' ? null : row.summaryId
  }
}

/** Values are bound by position: by name they cost a third of the whole insert. */
export const INSERT_DELIVERY = `INSERT INTO delivery
  (tid, announcement_id, kind, language, seq, amount_minor, currency, txn_type, count, issued_at, expires_at, payment_id, accepted_at, listed)
  VALUES (?, unhex(?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

/** The values of INSERT_DELIVERY; `id` is the key of its payment. */
export function deliveryValues (d: NewDelivery, id: number | bigint | null, payment: Payment | null): unknown[] {
  return [
    d.tid, d.announcementId, d.kind, d.language, d.seq, d.amountMinor, d.currency, d.txnType, d.count, d.issuedAt, d.expiresAt,
    id, payment === null ? null : payment.acceptedAt, payment === null ? null : Number(payment.listed)
  ]
}

export const INSERT_PAYMENT = `INSERT INTO payment
  (bank_id, transaction_id, merchant, amount_minor, currency, txn_type, language, status, source, content_hash, accepted_at, listed)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, unhex(?), ?, ?) ON CONFLICT (transaction_id, bank_id) DO NOTHING`

/** The values of INSERT_PAYMENT. */
export function paymentValues (p: Payment): unknown[] {
  return [
    p.bankId, p.transactionId, p.merchant, p.amountMinor, p.currency, p.txnType, p.language, p.status, p.source, p.contentHash, p.acceptedAt, Number(p.listed)
  ]
}

/** Reads payments with their deliveries. */
export function storedPayments (db: Db): { find: (bankId: string, transactionId: string) => { id: number, stored: StoredPayment } | undefined, fromRow: (row: PaymentRow) => StoredPayment } {
  const payment = db.prepare(`SELECT ${PAYMENT_COLUMNS} FROM payment p WHERE p.transaction_id = ? AND p.bank_id = ?`)
  const deliveries = db.prepare(`SELECT ${DELIVERY_COLUMNS} FROM delivery d WHERE d.payment_id = ? ORDER BY d.id`)
  const fromRow = ({ id, reversedAt, listed, ...rest }: PaymentRow): StoredPayment =>
    ({ payment: { ...rest, listed: listed === 1 }, deliveries: (deliveries.all(id) as DeliveryRow[]).map(row => deliveryFromRow(row, rest)), reversedAt })
  return {
    fromRow,
    find: (bankId, transactionId) => {
      const row = payment.get(transactionId, bankId) as PaymentRow | undefined
      return row === undefined ? undefined : { id: row.id, stored: fromRow(row) }
    }
  }
}
