// What is read from PostgreSQL: one payment, a page of history, open deliveries of a device, its day total, the statistics.
import { SoundboxError } from '../../protocol/index.js'
import { type Delivery, HISTORY_PAGE_MAX, type HistoryPage, type HistoryQuery } from './contract.js'
import { cursorFrom, parseCursor } from './history-cursor.js'
import type { Queryable } from './postgres-open.js'
import { DELIVERY_COLUMNS, type DeliveryRow, deliveryFromRow, PAYMENT_COLUMNS, type PaymentRow, storedPayments } from './postgres-rows.js'

/** Above this an estimate is as good as a count, and takes no time. */
const EXACT_COUNT_MAX = 1_000_000

/** Throws INPUT_INVALID for a limit or a cursor that is not ours. */
export async function queryHistory (db: Queryable, query: HistoryQuery): Promise<HistoryPage> {
  const { sql, values } = historySql(query)
  const rows = (await db.query(sql, values)).rows as PaymentRow[]
  const page = rows.slice(0, query.limit)
  const last = page.at(-1)
  return { rows: await storedPayments(db, page), next: rows.length > query.limit && last !== undefined ? cursorFrom(last) : null }
}

/** One row over the page, by the key of the table that the filters walk: deliveries for a device, else payments. */
export function historySql (query: HistoryQuery): { sql: string, values: unknown[] } {
  if (!Number.isInteger(query.limit) || query.limit < 1 || query.limit > HISTORY_PAGE_MAX) {
    throw new SoundboxError('INPUT_INVALID', `limit must be a whole number from 1 to ${HISTORY_PAGE_MAX}`)
  }
  const byDevice = query.tid !== undefined
  const [time, id] = byDevice ? ['d.accepted_at', 'd.payment_id'] : ['p.accepted_at', 'p.id']
  const where = [byDevice ? 'd.listed = true' : 'p.listed']
  const values: unknown[] = []
  const filter = (sql: (...names: string[]) => string, ...given: unknown[]): void => {
    values.push(...given)
    where.push(sql(...given.map((_, index) => `$${values.length - given.length + index + 1}`)))
  }
  if (query.tid !== undefined) filter(tid => `d.tid = ${tid} AND d.payment_id IS NOT NULL`, query.tid)
  if (query.transactionId !== undefined) filter(name => `p.transaction_id = ${name}`, query.transactionId)
  if (query.bankId !== undefined) filter(name => `p.bank_id = ${name}`, query.bankId)
  if (query.merchant !== undefined) filter(name => `p.merchant = ${name}`, query.merchant)
  if (query.status !== undefined) where.push(query.status === 'failed' ? `p.status = 'failed'` : `p.status = 'success'`)
  if (query.since !== undefined) filter(since => `${time} >= ${since}`, query.since)
  if (query.until !== undefined) filter(until => `${time} < ${until}`, query.until)
  if (query.cursor !== undefined) {
    const key = parseCursor(query.cursor)
    filter((at, row) => `(${time}, ${id}) < (${at}, ${row})`, key.acceptedAt, key.id)
  }
  const from = byDevice ? 'delivery d JOIN payment p ON p.id = d.payment_id' : 'payment p'
  return { sql: `SELECT ${PAYMENT_COLUMNS} FROM ${from} WHERE ${where.join(' AND ')} ORDER BY ${time} DESC, ${id} DESC LIMIT ${query.limit + 1}`, values }
}

/** Oldest `seq` first. */
export async function openDeliveries (db: Queryable, tid: string, limit: number): Promise<Delivery[]> {
  const { rows } = await db.query(`SELECT ${DELIVERY_COLUMNS}, p.bank_id AS "bankId", p.transaction_id AS "transactionId"
    FROM delivery d LEFT JOIN payment p ON p.id = d.payment_id WHERE d.tid = $1 AND d.state < 3 ORDER BY d.seq, d.id LIMIT $2`, [tid, limit])
  return (rows as (DeliveryRow & { bankId: string | null, transactionId: string | null })[]).map(({ bankId, transactionId, ...row }) =>
    deliveryFromRow(row, bankId === null || transactionId === null ? null : { bankId, transactionId }))
}

/** Boxes that are there, for which something waits that was issued in between and was not sent. */
export async function waitingTids (db: Queryable, { issuedFrom, issuedBefore, limit }: { issuedFrom: number, issuedBefore: number, limit: number }): Promise<string[]> {
  const { rows } = await db.query(`SELECT DISTINCT d.tid FROM delivery d JOIN device_state s ON s.tid = d.tid AND s.online
    WHERE d.state = 0 AND d.issued_at >= $1 AND d.issued_at < $2 LIMIT $3`, [issuedFrom, issuedBefore, limit])
  return (rows as { tid: string }[]).map(({ tid }) => tid)
}

/** Successful payments that were not reversed. */
export async function totalSince (db: Queryable, tid: string, since: number): Promise<{ count: number, amountMinor: number }> {
  const { rows } = await db.query(`SELECT count(*) AS count, coalesce(sum(p.amount_minor), 0)::bigint AS "amountMinor" FROM delivery d JOIN payment p ON p.id = d.payment_id
    WHERE d.tid = $1 AND d.payment_id IS NOT NULL AND d.listed IN (true, false) AND d.accepted_at >= $2 AND p.status = 'success' AND p.reversed_at IS NULL`, [tid, since])
  return rows[0] as { count: number, amountMinor: number }
}

/** Payments (an estimate when there are very many) and open deliveries of all gateways. */
export async function countRows (db: Queryable): Promise<{ payments: number, openDeliveries: number }> {
  const { rows: [guess] } = await db.query(`SELECT reltuples::bigint AS payments FROM pg_class WHERE oid = 'payment'::regclass`)
  const estimate = (guess as { payments: number }).payments
  const { rows: [counted] } = await db.query(estimate > EXACT_COUNT_MAX ? 'SELECT $1::bigint AS payments' : 'SELECT count(*) + 0 * $1::bigint AS payments FROM payment', [estimate])
  const { rows: [open] } = await db.query('SELECT count(*) AS "openDeliveries" FROM delivery WHERE state < 3')
  return { ...counted as { payments: number }, ...open as { openDeliveries: number } }
}
