// The store's contract in the plainest words: arrays in memory. What a real store answers is compared with this.
import {
  DELIVERY_STATES, type Delivery, type DeliveryChange, type HistoryQuery, isFinal, type NewDelivery, type Payment, type Recorded, type StoredPayment, UNHEARD_STATES
} from '../../gateway/store/contract.js'

type Held = { payment: Payment, reversedAt: number | null, order: number }

/** A store without a disk, for the operations that a property test mixes. */
export function createStoreModel () {
  const payments: Held[] = []
  const deliveries: Delivery[] = []

  const find = (bankId: string, transactionId: string): Held | undefined =>
    payments.find(({ payment }) => payment.bankId === bankId && payment.transactionId === transactionId)
  const stored = ({ payment, reversedAt }: Held): StoredPayment => ({ payment, deliveries: ofPayment(payment).map(copy), reversedAt })
  const ofPayment = ({ bankId, transactionId }: Payment): Delivery[] => deliveries.filter(delivery => delivery.bankId === bankId && delivery.transactionId === transactionId)
  const add = (delivery: NewDelivery, payment: Payment | null): void => { deliveries.push(fresh(delivery, payment)) }
  const isOpen = (delivery: Delivery): boolean => !isFinal(delivery.state)
  const endMembers = ({ tid, announcementId, state, finalAt, reason }: Delivery): void => {
    for (const member of deliveries.filter(other => other.tid === tid && other.summaryId === announcementId && other.state === 'summarised')) Object.assign(member, { state, finalAt, reason })
  }

  return {
    recordPayment (payment: Payment, news: readonly NewDelivery[]): Recorded {
      const known = find(payment.bankId, payment.transactionId)
      if (known !== undefined) return { outcome: known.payment.contentHash === payment.contentHash ? 'same' : 'different', ...stored(known) }
      payments.push({ payment, reversedAt: null, order: payments.length })
      for (const delivery of news) add(delivery, payment)
      return { outcome: 'new' }
    },
    findPayment (bankId: string, transactionId: string): StoredPayment | undefined {
      const known = find(bankId, transactionId)
      return known === undefined ? undefined : stored(known)
    },
    reversePayment (bankId: string, transactionId: string, at: number): StoredPayment | undefined {
      const known = find(bankId, transactionId)
      if (known === undefined) return undefined
      if (known.reversedAt === null) {
        known.reversedAt = at
        for (const delivery of ofPayment(known.payment).filter(isOpen)) Object.assign(delivery, { state: 'reversed', finalAt: at })
      }
      return stored(known)
    },
    stepDeliveries (changes: readonly DeliveryChange[]): DeliveryChange[] {
      return changes.filter(change => {
        const delivery = deliveries.find(other => other.tid === change.tid && other.announcementId === change.announcementId)
        if (delivery !== undefined && step(delivery, change) && delivery.kind === 'summary' && UNHEARD_STATES.includes(delivery.state)) endMembers(delivery)
        return delivery === undefined
      })
    },
    recordNotice (notice: NewDelivery): void {
      if (!deliveries.some(other => other.tid === notice.tid && other.announcementId === notice.announcementId)) add(notice, null)
    },
    recordSummary (summary: NewDelivery, members: readonly string[], at: number): void {
      this.recordNotice(summary)
      for (const delivery of deliveries.filter(other => other.tid === summary.tid && members.includes(other.announcementId) && isOpen(other))) {
        Object.assign(delivery, { state: 'summarised', finalAt: at, summaryId: summary.announcementId })
      }
    },
    expireDeliveries (issuedBefore: number, at: number, limit: number): number {
      const due = deliveries.filter(delivery => isOpen(delivery) && delivery.issuedAt < issuedBefore).sort((a, b) => a.issuedAt - b.issuedAt).slice(0, limit)
      for (const delivery of due) {
        Object.assign(delivery, { state: 'expired', finalAt: at })
        if (delivery.kind === 'summary') endMembers(delivery)
      }
      return due.length
    },
    openDeliveries: (tid: string, limit: number): Delivery[] =>
      deliveries.filter(delivery => delivery.tid === tid && isOpen(delivery)).sort((a, b) => a.seq - b.seq).slice(0, limit).map(copy),
    /** All matching rows, unpaged, newest first. */
    queryHistory (query: Omit<HistoryQuery, 'limit' | 'cursor'>): StoredPayment[] {
      return payments.filter(held => matches(held, query, ofPayment(held.payment)))
        .sort((a, b) => b.payment.acceptedAt - a.payment.acceptedAt || b.order - a.order).map(stored)
    },
    totalSince (tid: string, since: number): { count: number, amountMinor: number } {
      const counted = payments.filter(({ payment, reversedAt }) =>
        payment.status === 'success' && reversedAt === null && payment.acceptedAt >= since && ofPayment(payment).some(delivery => delivery.tid === tid))
      return { count: counted.length, amountMinor: counted.reduce((sum, { payment }) => sum + payment.amountMinor, 0) }
    },
    counts: () => ({ payments: payments.length, openDeliveries: deliveries.filter(isOpen).length })
  }
}
export type StoreModel = ReturnType<typeof createStoreModel>

/** A delivery as it is right after it was recorded. */
export function fresh (delivery: NewDelivery, payment: Payment | null): Delivery {
  return {
    ...delivery, bankId: payment?.bankId ?? null, transactionId: payment?.transactionId ?? null, state: 'accepted', publishedAt: null, deliveredAt: null, finalAt: null,
    queuedMs: null, audioMs: null, reason: null, summaryId: null
  }
}

function copy (delivery: Delivery): Delivery {
  return { ...delivery }
}

/** True when it has ended now. */
function step (delivery: Delivery, change: DeliveryChange): boolean {
  if (change.state === 'published') delivery.publishedAt ??= change.at
  if (change.state === 'delivered') delivery.deliveredAt ??= change.at
  if (isFinal(delivery.state) || DELIVERY_STATES.indexOf(change.state) <= DELIVERY_STATES.indexOf(delivery.state)) return false
  delivery.state = change.state
  if (!isFinal(change.state)) return false
  const { queuedMs = null, audioMs = null, reason = null, summaryId = null } = change
  Object.assign(delivery, { finalAt: change.at, queuedMs, audioMs, reason, summaryId })
  return true
}

function matches ({ payment }: Held, query: Omit<HistoryQuery, 'limit' | 'cursor'>, deliveries: readonly Delivery[]): boolean {
  return payment.listed &&
    (query.bankId === undefined || payment.bankId === query.bankId) && (query.merchant === undefined || payment.merchant === query.merchant) &&
    (query.status === undefined || payment.status === query.status) && (query.transactionId === undefined || payment.transactionId === query.transactionId) &&
    (query.since === undefined || payment.acceptedAt >= query.since) && (query.until === undefined || payment.acceptedAt < query.until) &&
    (query.tid === undefined || deliveries.some(delivery => delivery.tid === query.tid))
}
