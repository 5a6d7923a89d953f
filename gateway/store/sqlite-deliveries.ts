// Writing deliveries: forward steps, notices, summaries, expiry.
import type { DeliveryChange, NewDelivery } from './contract.js'
import { deliveryKey, type FoldedStep, foldChanges, isUnheard, STATE_CODES } from './delivery-steps.js'
import type { Counters } from './sqlite-batch.js'
import type { Db } from './sqlite-open.js'
import { deliveryValues, INSERT_DELIVERY } from './sqlite-rows.js'

const INSERT_ONCE = `${INSERT_DELIVERY} ON CONFLICT (tid, announcement_id) DO NOTHING`

/** The writer's operations on deliveries. */
export function deliveryOps (db: Db, counters: Counters) {
  const insertOnce = db.prepare(INSERT_ONCE)
  const recordNotice = (notice: NewDelivery): void => {
    counters.open += insertOnce.run(...deliveryValues(notice, null, null)).changes
  }
  return { stepDeliveries: deliverySteps(db, counters), recordNotice, recordSummary: summaryRecord(db, counters, recordNotice), expireDeliveries: expiry(db, counters) }
}

/** Returns the changes whose delivery is not in the database. */
function deliverySteps (db: Db, counters: Counters): (changes: readonly DeliveryChange[]) => DeliveryChange[] {
  const advance = db.prepare(`UPDATE delivery SET state = ?, published_at = coalesce(published_at, ?), delivered_at = coalesce(delivered_at, ?), final_at = ?,
    queued_ms = ?, audio_ms = ?, reason = ?, summary_id = unhex(?) WHERE tid = ? AND announcement_id = unhex(?) AND state < 3 AND state < ?`)
  const fill = db.prepare(`UPDATE delivery SET published_at = coalesce(published_at, ?), delivered_at = coalesce(delivered_at, ?)
    WHERE tid = ? AND announcement_id = unhex(?)`)
  const endMembers = db.prepare(`UPDATE delivery SET state = ?, final_at = ?, reason = ? WHERE summary_id = unhex(?) AND tid = ? AND state = ${STATE_CODES.summarised}`)
  const apply = (s: FoldedStep): boolean => {
    if (advance.run(s.code, s.publishedAt, s.deliveredAt, s.finalAt, s.queuedMs, s.audioMs, s.reason, s.summaryId, s.tid, s.announcementId, s.code).changes === 1) {
      counters.open -= s.finalAt === null ? 0 : 1
      if (isUnheard(s)) endMembers.run(s.code, s.finalAt, s.reason, s.announcementId, s.tid)
      return true
    }
    return fill.run(s.publishedAt, s.deliveredAt, s.tid, s.announcementId).changes === 1
  }
  return changes => {
    const missing = new Set<string>()
    for (const [key, step] of foldChanges(changes)) if (!apply(step)) missing.add(key)
    return missing.size === 0 ? [] : changes.filter(change => missing.has(deliveryKey(change)))
  }
}

function summaryRecord (db: Db, counters: Counters, recordNotice: (notice: NewDelivery) => void): (argument: { summary: NewDelivery, members: readonly string[], at: number }) => void {
  const join = db.prepare(`UPDATE delivery SET state = ${STATE_CODES.summarised}, final_at = ?, summary_id = unhex(?)
    WHERE tid = ? AND announcement_id = unhex(?) AND state < 3`)
  return ({ summary, members, at }) => {
    recordNotice(summary)
    for (const member of members) counters.open -= join.run(at, summary.announcementId, summary.tid, member).changes
  }
}

function expiry (db: Db, counters: Counters): (argument: { issuedBefore: number, at: number, limit: number }) => number {
  const due = db.prepare('SELECT id, tid, kind, announcement_id AS announcementId FROM delivery WHERE state < 3 AND issued_at < ? ORDER BY issued_at LIMIT ?')
  const expire = db.prepare(`UPDATE delivery SET state = ${STATE_CODES.expired}, final_at = ? WHERE id = ?`)
  const expireMembers = db.prepare(`UPDATE delivery SET state = ${STATE_CODES.expired}, final_at = ? WHERE summary_id = ? AND tid = ? AND state = ${STATE_CODES.summarised}`)
  return ({ issuedBefore, at, limit }) => {
    const rows = due.all(issuedBefore, limit) as { id: number, tid: string, kind: string, announcementId: Buffer }[]
    for (const row of rows) {
      expire.run(at, row.id)
      if (row.kind === 'summary') expireMembers.run(at, row.announcementId, row.tid)
    }
    counters.open -= rows.length
    return rows.length
  }
}
