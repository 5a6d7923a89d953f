// Records of a fallback for tests, and what a drain made of them.
import type { Fallback, FallbackRecord } from '../../gateway/fallback/contract.js'
import { someDelivery, somePayment } from './store-records.js'

export function paymentRecord (i: number): FallbackRecord {
  return { kind: 'payment', payment: somePayment(i), deliveries: [someDelivery(i)] }
}

/** A short name of a record. */
export function recordName (record: FallbackRecord): string {
  return record.kind === 'payment' ? record.payment.transactionId : record.kind === 'reversal' ? `reversal ${record.transactionId}` : `changes ${record.changes.length}`
}

/** All that a drain applies, by name. */
export async function drained (fallback: Fallback): Promise<string[]> {
  const seen: string[] = []
  await fallback.drain(async record => { seen.push(recordName(record)) })
  return seen
}
