// Where a record goes when the store refuses it. What is appended is durable when the promise resolves, and is drained into the
// store later, in order, idempotently. spool.ts (preallocated segments) is the default, pubsub.ts (Google Pub/Sub by REST) the other.
import type { DeliveryChange, NewDelivery, Payment } from '../store/contract.js'

export type FallbackRecord =
  | { kind: 'payment', payment: Payment, deliveries: readonly NewDelivery[] }
  | { kind: 'changes', changes: readonly DeliveryChange[] }
  | { kind: 'reversal', bankId: string, transactionId: string, at: number }

export type DrainReport = { drained: number, left: number, setAside: number }

export type Fallback = {
  /** Durable when it resolves. Rejects with SPOOL_FULL or STORE_FAILED. */
  append: (record: FallbackRecord) => Promise<void>
  /** A payment that waits here undrained, for the duplicate check while the store is away. */
  findPayment: (bankId: string, transactionId: string) => { payment: Payment, deliveries: readonly NewDelivery[] } | undefined
  /**
   * Applies waiting records in order; stops at the first that `apply` rejects with a retryable error (or one that is not ours); sets
   * aside what can never be applied. Records go in groups: the payments of a group first and at once, then the rest one by one,
   * neighbouring changes as one record. Two drains at once are one. Rejects when the fallback itself fails.
   */
  drain: (apply: (record: FallbackRecord) => Promise<void>) => Promise<DrainReport>
  /** Records that wait, as far as this gateway knows: what other gateways left in Pub/Sub is known to a drain only. */
  depth: () => number
  close: () => Promise<void>
}
