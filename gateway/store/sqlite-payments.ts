// Writing payments: recorded once, reversed once, removed after their time.
import type { NewDelivery, Payment, Recorded, StoredPayment } from './contract.js'
import { STATE_CODES } from './delivery-steps.js'
import type { Counters } from './sqlite-batch.js'
import type { Db } from './sqlite-open.js'
import { deliveryValues, INSERT_DELIVERY, INSERT_PAYMENT, paymentValues, storedPayments } from './sqlite-rows.js'

/** The writer's operations on payments. */
export function paymentOps (db: Db, counters: Counters) {
  const insertPayment = db.prepare(INSERT_PAYMENT)
  const insertDelivery = db.prepare(INSERT_DELIVERY)
  const stored = storedPayments(db)
  const reverse = db.prepare('UPDATE payment SET reversed_at = ? WHERE id = ? AND reversed_at IS NULL')
  const reverseDeliveries = db.prepare(`UPDATE delivery SET state = ${STATE_CODES.reversed}, final_at = ? WHERE payment_id = ? AND state < 3`)
  return {
    recordPayment: ({ payment, deliveries }: { payment: Payment, deliveries: readonly NewDelivery[] }): Recorded => {
      const inserted = insertPayment.run(...paymentValues(payment))
      if (inserted.changes === 0) return known(payment, stored.find(payment.bankId, payment.transactionId)!.stored)
      for (const delivery of deliveries) insertDelivery.run(...deliveryValues(delivery, inserted.lastInsertRowid, payment))
      counters.payments += 1
      counters.open += deliveries.length
      return { outcome: 'new' }
    },

    reversePayment: ({ bankId, transactionId, at }: { bankId: string, transactionId: string, at: number }): StoredPayment | null => {
      const found = stored.find(bankId, transactionId)
      if (found === undefined) return null
      if (reverse.run(at, found.id).changes === 0) return found.stored
      counters.open -= reverseDeliveries.run(at, found.id).changes
      return stored.find(bankId, transactionId)!.stored
    },

    purgeHistory: historyPurge(db, counters)
  }
}

function known (payment: Payment, stored: StoredPayment): Recorded {
  return { outcome: stored.payment.contentHash === payment.contentHash ? 'same' : 'different', ...stored }
}

/** Payments first, then, within what is left of the limit, the deliveries that never had one (notices and summaries). */
function historyPurge (db: Db, counters: Counters): (argument: { acceptedBefore: number, limit: number }) => number {
  const due = db.prepare(`SELECT p.id FROM payment p WHERE p.listed = ? AND p.accepted_at < ?
    AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.payment_id = p.id AND d.state < 3) ORDER BY p.accepted_at LIMIT ?`).pluck()
  const removeDeliveries = db.prepare('DELETE FROM delivery WHERE payment_id = ?')
  const removePayment = db.prepare('DELETE FROM payment WHERE id = ?')
  const removeNotices = db.prepare(`DELETE FROM delivery WHERE id IN
    (SELECT id FROM delivery WHERE payment_id IS NULL AND issued_at < ? AND state >= 3 ORDER BY issued_at LIMIT ?)`)
  return ({ acceptedBefore, limit }) => {
    const unlisted = due.all(0, acceptedBefore, limit) as number[]
    const ids = [...unlisted, ...due.all(1, acceptedBefore, limit - unlisted.length) as number[]]
    for (const id of ids) {
      removeDeliveries.run(id)
      removePayment.run(id)
    }
    counters.payments -= ids.length
    return ids.length + removeNotices.run(acceptedBefore, limit - ids.length).changes
  }
}
