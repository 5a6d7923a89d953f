// What is written to PostgreSQL: many payments or many steps as one statement, everything else as one statement a call. Rows are
// touched in the order of their keys, so that gateways that write at once wait for each other instead of dead-locking.
import type { DeliveryChange, NewDelivery, Payment, Recorded, StoredPayment } from './contract.js'
import { deliveryKey, foldChanges, isUnheard, STATE_CODES } from './delivery-steps.js'
import { isClash, type Queryable } from './postgres-open.js'
import { findPayments } from './postgres-rows.js'

export type NewPayment = { payment: Payment, deliveries: readonly NewDelivery[] }
/** What a statement changed in the counts that the statistics tell. */
export type Counted<T> = { value: T, payments: number, open: number }

const DELIVERY_FIELDS = `tid text, "announcementId" text, kind text, language text, seq bigint, "amountMinor" bigint, currency text, "txnType" text, count bigint,
  "issuedAt" bigint, "expiresAt" bigint`
const DELIVERY_TARGET = 'tid, announcement_id, kind, language, seq, amount_minor, currency, txn_type, count, issued_at, expires_at'
const DELIVERY_VALUES = `v.tid, decode(v."announcementId", 'hex'), v.kind, v.language, v.seq, v."amountMinor", v.currency, v."txnType", v.count, v."issuedAt", v."expiresAt"`

const RECORD = `WITH added AS (
  INSERT INTO payment (bank_id, transaction_id, merchant, amount_minor, currency, txn_type, language, status, source, content_hash, accepted_at, listed)
  SELECT v."bankId", v."transactionId", v.merchant, v."amountMinor", v.currency, v."txnType", v.language, v.status, v.source, decode(v."contentHash", 'hex'),
    v."acceptedAt", v.listed
  FROM json_to_recordset($1) AS v ("bankId" text, "transactionId" text, merchant text, "amountMinor" bigint, currency text, "txnType" text, language text, status text,
    source text, "contentHash" text, "acceptedAt" bigint, listed boolean)
  ON CONFLICT (transaction_id, bank_id) DO NOTHING RETURNING id, bank_id, transaction_id, accepted_at, listed
), said AS (
  INSERT INTO delivery (${DELIVERY_TARGET}, payment_id, accepted_at, listed) SELECT ${DELIVERY_VALUES}, added.id, added.accepted_at, added.listed
  FROM json_to_recordset($2) AS v (${DELIVERY_FIELDS}, "bankId" text, "transactionId" text, n int)
  JOIN added ON added.bank_id = v."bankId" AND added.transaction_id = v."transactionId" ORDER BY v.n RETURNING 1
) SELECT bank_id AS "bankId", transaction_id AS "transactionId", (SELECT count(*) FROM said) AS said FROM added`

/** Records payments that have different names. One statement; the second one only when some were there already. */
export async function recordPayments (db: Queryable, items: readonly NewPayment[]): Promise<Counted<Recorded[]>> {
  const sorted = [...items].sort((a, b) => nameOf(a.payment) < nameOf(b.payment) ? -1 : 1)
  const deliveries = sorted.flatMap(({ payment: { bankId, transactionId }, deliveries }) => deliveries.map((delivery, n) => ({ ...delivery, bankId, transactionId, n })))
  const { rows } = await again(() => db.query(RECORD, [JSON.stringify(sorted.map(({ payment }) => payment)), JSON.stringify(deliveries)]))
  const inserted = rows as { bankId: string, transactionId: string, said: number }[]
  const isNew = new Set(inserted.map(nameOf))
  const known = items.filter(({ payment }) => !isNew.has(nameOf(payment)))
  const stored = known.length === 0 ? [] : await findPayments(db, known.map(({ payment }) => payment))
  const byName = new Map(stored.map(found => [nameOf(found.payment), found]))
  const value = items.map(({ payment }): Recorded => isNew.has(nameOf(payment)) ? { outcome: 'new' } : knownAs(payment, byName.get(nameOf(payment))!))
  return { value, payments: inserted.length, open: inserted[0]?.said ?? 0 }
}

/** One name for a payment, in a Map and for sorting. */
export function nameOf ({ bankId, transactionId }: { bankId: string, transactionId: string }): string {
  return `${bankId}\0${transactionId}`
}

function knownAs (payment: Payment, stored: StoredPayment): Recorded {
  return { outcome: stored.payment.contentHash === payment.contentHash ? 'same' : 'different', ...stored }
}

const STEP = `WITH step AS (
  SELECT * FROM json_to_recordset($1) AS v (tid text, "announcementId" text, code int, "publishedAt" bigint, "deliveredAt" bigint, "finalAt" bigint, "queuedMs" bigint,
    "audioMs" bigint, reason text, "summaryId" text)
), old AS MATERIALIZED (
  SELECT d.id, d.state < 3 AND step.code > d.state AS forward, step.* FROM step JOIN delivery d ON d.tid = step.tid AND d.announcement_id = decode(step."announcementId", 'hex')
  ORDER BY d.id FOR UPDATE OF d
), moved AS (
  UPDATE delivery d SET published_at = coalesce(d.published_at, old."publishedAt"), delivered_at = coalesce(d.delivered_at, old."deliveredAt"),
    state = CASE WHEN old.forward THEN old.code ELSE d.state END, final_at = CASE WHEN old.forward THEN old."finalAt" ELSE d.final_at END,
    queued_ms = CASE WHEN old.forward THEN old."queuedMs" ELSE d.queued_ms END, audio_ms = CASE WHEN old.forward THEN old."audioMs" ELSE d.audio_ms END,
    reason = CASE WHEN old.forward THEN old.reason ELSE d.reason END, summary_id = CASE WHEN old.forward THEN decode(old."summaryId", 'hex') ELSE d.summary_id END
  FROM old WHERE d.id = old.id
) SELECT tid, "announcementId", forward AND code >= 3 AS ended FROM old`

const END_MEMBERS = `WITH step AS (
  SELECT * FROM json_to_recordset($1) AS v (tid text, "announcementId" text, code int, "finalAt" bigint, reason text)
), due AS MATERIALIZED (
  SELECT d.id, step.code, step."finalAt", step.reason FROM step JOIN delivery s ON s.tid = step.tid AND s.announcement_id = decode(step."announcementId", 'hex') AND s.kind = 'summary'
    AND s.state = step.code AND s.final_at = step."finalAt"
  JOIN delivery d ON d.summary_id = s.announcement_id AND d.tid = s.tid AND d.state = ${STATE_CODES.summarised} ORDER BY d.id FOR UPDATE OF d
) UPDATE delivery d SET state = due.code, final_at = due."finalAt", reason = due.reason FROM due WHERE d.id = due.id`

/** Returns the changes whose delivery is not there. */
export async function stepDeliveries (db: Queryable, changes: readonly DeliveryChange[]): Promise<Counted<DeliveryChange[]>> {
  const steps = [...foldChanges(changes).values()]
  if (steps.length === 0) return { value: [], payments: 0, open: 0 }
  const { rows } = await again(() => db.query(STEP, [JSON.stringify(steps)]))
  const unheard = steps.filter(isUnheard)
  if (unheard.length > 0) await again(() => db.query(END_MEMBERS, [JSON.stringify(unheard)]))
  const found = rows as { tid: string, announcementId: string, ended: boolean }[]
  const keys = new Set(found.map(deliveryKey))
  return { value: changes.filter(change => !keys.has(deliveryKey(change))), payments: 0, open: -found.filter(row => row.ended).length }
}

/** A delivery without a payment, once. */
export async function recordNotice (db: Queryable, notice: NewDelivery): Promise<Counted<void>> {
  const { rowCount } = await db.query(`INSERT INTO delivery (${DELIVERY_TARGET}) SELECT ${DELIVERY_VALUES}
    FROM json_to_recordset($1) AS v (${DELIVERY_FIELDS}) ON CONFLICT (tid, announcement_id) DO NOTHING`, [JSON.stringify([notice])])
  return { value: undefined, payments: 0, open: rowCount ?? 0 }
}

const SUMMARY = `WITH said AS (
  INSERT INTO delivery (${DELIVERY_TARGET}) SELECT ${DELIVERY_VALUES} FROM json_to_recordset($1) AS v (${DELIVERY_FIELDS})
  ON CONFLICT (tid, announcement_id) DO NOTHING RETURNING 1
), joined AS (
  UPDATE delivery SET state = ${STATE_CODES.summarised}, final_at = $2, summary_id = decode($3, 'hex')
  WHERE tid = $4 AND announcement_id IN (SELECT decode(m, 'hex') FROM unnest($5::text[]) AS m) AND state < 3 RETURNING 1
) SELECT (SELECT count(*) FROM said) - (SELECT count(*) FROM joined) AS open`

/** A summary and its members, in one statement. */
export async function recordSummary (db: Queryable, { summary, members, at }: { summary: NewDelivery, members: readonly string[], at: number }): Promise<Counted<void>> {
  const { rows } = await again(() => db.query(SUMMARY, [JSON.stringify([summary]), at, summary.announcementId, summary.tid, members]))
  return { value: undefined, payments: 0, open: (rows[0] as { open: number }).open }
}

const EXPIRE = `WITH due AS MATERIALIZED (
  SELECT id, tid, kind, announcement_id FROM delivery WHERE state < 3 AND issued_at < $1 ORDER BY issued_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
), ended AS (
  UPDATE delivery d SET state = ${STATE_CODES.expired}, final_at = $2 FROM due WHERE d.id = due.id RETURNING 1
), members AS (
  UPDATE delivery d SET state = ${STATE_CODES.expired}, final_at = $2 FROM due
  WHERE due.kind = 'summary' AND d.summary_id = due.announcement_id AND d.tid = due.tid AND d.state = ${STATE_CODES.summarised} RETURNING 1
) SELECT count(*) AS ended FROM ended`

/** Rows that another gateway works on are left to it. */
export async function expireDeliveries (db: Queryable, { issuedBefore, at, limit }: { issuedBefore: number, at: number, limit: number }): Promise<Counted<number>> {
  const { rows } = await again(() => db.query(EXPIRE, [issuedBefore, at, limit]))
  const { ended } = rows[0] as { ended: number }
  return { value: ended, payments: 0, open: -ended }
}

const REVERSE = `WITH p AS (
  UPDATE payment SET reversed_at = $3 WHERE transaction_id = $2 AND bank_id = $1 AND reversed_at IS NULL RETURNING id
) UPDATE delivery SET state = ${STATE_CODES.reversed}, final_at = $3 WHERE payment_id IN (SELECT id FROM p) AND state < 3`

/** Undefined for a payment that is not there. */
export async function reversePayment (db: Queryable, { bankId, transactionId, at }: { bankId: string, transactionId: string, at: number }): Promise<Counted<StoredPayment | undefined>> {
  const { rowCount } = await again(() => db.query(REVERSE, [bankId, transactionId, at]))
  return { value: (await findPayments(db, [{ bankId, transactionId }]))[0], payments: 0, open: -(rowCount ?? 0) }
}

const PURGE = `WITH due AS MATERIALIZED (
  SELECT p.id FROM payment p WHERE p.accepted_at < $1 AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.payment_id = p.id AND d.state < 3)
  ORDER BY p.accepted_at, p.id LIMIT $2 FOR UPDATE SKIP LOCKED
), unsaid AS (DELETE FROM delivery WHERE payment_id IN (SELECT id FROM due)
), gone AS (DELETE FROM payment WHERE id IN (SELECT id FROM due) RETURNING 1
), notices AS (
  DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE payment_id IS NULL AND issued_at < $1 AND state >= 3 ORDER BY issued_at
    LIMIT greatest(0, $2 - (SELECT count(*) FROM due))) RETURNING 1
) SELECT (SELECT count(*) FROM gone) AS payments, (SELECT count(*) FROM notices) AS notices`

/** Counts payments and notices. */
export async function purgeHistory (db: Queryable, { acceptedBefore, limit }: { acceptedBefore: number, limit: number }): Promise<Counted<number>> {
  const { rows } = await again(() => db.query(PURGE, [acceptedBefore, limit]))
  const { payments, notices } = rows[0] as { payments: number, notices: number }
  return { value: payments + notices, payments: -payments, open: 0 }
}

/** Once more after a deadlock or a serialization failure: the statement did nothing. */
async function again<T> (run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    if (!isClash(error)) throw error
    return await run()
  }
}
