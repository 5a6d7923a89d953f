// Reading: one payment, a page of history, open deliveries of a device, its day total. Every query walks an index from its end.
import { SoundboxError } from '../../protocol/index.js'
import { type Delivery, HISTORY_PAGE_MAX, type HistoryPage, type HistoryQuery, type StoredPayment } from './contract.js'
import { cursorFrom, parseCursor } from './history-cursor.js'
import type { Db, Statement } from './sqlite-open.js'
import { DELIVERY_COLUMNS, type DeliveryRow, deliveryFromRow, PAYMENT_COLUMNS, type PaymentRow, storedPayments } from './sqlite-rows.js'

/** The reader's operations on payments and deliveries. */
export function historyOps (db: Db) {
  const stored = storedPayments(db)
  const open = db.prepare(`SELECT ${DELIVERY_COLUMNS}, p.bank_id AS bankId, p.transaction_id AS transactionId
    FROM delivery d INDEXED BY delivery_open LEFT JOIN payment p ON p.id = d.payment_id WHERE d.tid = ? AND d.state < 3 ORDER BY d.seq LIMIT ?`)
  const total = db.prepare(`SELECT count(*) AS count, coalesce(sum(p.amount_minor), 0) AS amountMinor
    FROM delivery d INDEXED BY delivery_history CROSS JOIN payment p ON p.id = d.payment_id
    WHERE d.tid = ? AND d.payment_id IS NOT NULL AND d.listed IN (0, 1) AND d.accepted_at >= ? AND p.status = 'success' AND p.reversed_at IS NULL`)
  const statements = new Map<string, Statement>()
  return {
    findPayment: ({ bankId, transactionId }: { bankId: string, transactionId: string }): StoredPayment | null => stored.find(bankId, transactionId)?.stored ?? null,
    openDeliveries: ({ tid, limit }: { tid: string, limit: number }): Delivery[] =>
      (open.all(tid, limit) as (DeliveryRow & { bankId: string | null, transactionId: string | null })[]).map(({ bankId, transactionId, ...row }) =>
        deliveryFromRow(row, bankId === null || transactionId === null ? null : { bankId, transactionId })),
    totalSince: ({ tid, since }: { tid: string, since: number }) => total.get(tid, since) as { count: number, amountMinor: number },
    queryHistory: (query: HistoryQuery): HistoryPage => {
      const { sql, values } = historySql(query)
      const statement = statements.get(sql) ?? db.prepare(sql)
      statements.set(sql, statement)
      const rows = statement.all(values) as PaymentRow[]
      const page = rows.slice(0, query.limit)
      const last = page.at(-1)
      return { rows: page.map(stored.fromRow), next: rows.length > query.limit && last !== undefined ? cursorFrom(last) : null }
    }
  }
}

/** `time` and `id` are the columns of the key that pages are cut by, on the table that `from` walks. */
type Walk = { from: string, time: string, id: string, where: string[] }

/**
 * SQL of one page, one row over. The index is named, the most selective filter first, because a guess of the planner that is right
 * today is a full scan next year. Throws INPUT_INVALID for a limit or a cursor that is not ours.
 */
export function historySql (query: HistoryQuery): { sql: string, values: (string | number)[] } {
  if (!Number.isInteger(query.limit) || query.limit < 1 || query.limit > HISTORY_PAGE_MAX) {
    throw new SoundboxError('INPUT_INVALID', `limit must be a whole number from 1 to ${HISTORY_PAGE_MAX}`)
  }
  const walk = walkFor(query)
  const where = [...walk.where]
  const values: (string | number)[] = []
  const filter = (sql: string, ...given: (string | number)[]): void => {
    where.push(sql)
    values.push(...given)
  }
  if (query.tid !== undefined) filter('d.tid = ?', query.tid)
  if (query.transactionId !== undefined) filter('p.transaction_id = ?', query.transactionId)
  if (query.bankId !== undefined) filter('p.bank_id = ?', query.bankId)
  if (query.merchant !== undefined) filter('p.merchant = ?', query.merchant)
  if (query.status === 'success') filter(`p.status = 'success'`)
  if (query.since !== undefined) filter(`${walk.time} >= ?`, query.since)
  if (query.until !== undefined) filter(`${walk.time} < ?`, query.until)
  if (query.cursor !== undefined) {
    const { acceptedAt, id } = parseCursor(query.cursor)
    filter(`${walk.time} <= ? AND (${walk.time} < ? OR ${walk.id} < ?)`, acceptedAt, acceptedAt, id)
  }
  const conditions = where.length === 0 ? '' : `WHERE ${where.join(' AND ')}`
  return { sql: `SELECT ${PAYMENT_COLUMNS} FROM ${walk.from} ${conditions} ORDER BY ${walk.time} DESC, ${walk.id} DESC LIMIT ?`, values: [...values, query.limit + 1] }
}

function walkFor ({ transactionId, tid, merchant, bankId, status }: HistoryQuery): Walk {
  const failed = status === 'failed'
  const where = failed ? ['p.listed = 1', `p.status = 'failed'`] : ['p.listed = 1']
  const along = (index: string): Walk => ({ from: `payment p INDEXED BY ${index}`, time: 'p.accepted_at', id: 'p.id', where })
  if (tid !== undefined) {
    const first = transactionId === undefined
      ? 'delivery d INDEXED BY delivery_history CROSS JOIN payment p'
      : 'payment p INDEXED BY payment_transaction CROSS JOIN delivery d INDEXED BY delivery_payment'
    return { from: `${first} ON p.id = d.payment_id AND d.payment_id IS NOT NULL`, time: 'd.accepted_at', id: 'd.payment_id', where: ['d.listed = 1', ...where.slice(1)] }
  }
  if (transactionId !== undefined) return along('payment_transaction')
  if (merchant !== undefined) return along(failed ? 'payment_failed_merchant' : 'payment_merchant')
  if (bankId !== undefined) return along(failed ? 'payment_failed_bank' : 'payment_bank')
  return along(failed ? 'payment_failed' : 'payment_time')
}
