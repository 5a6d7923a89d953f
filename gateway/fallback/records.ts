// What both fallbacks do with a record before and after its way to disk or wire. Pure.
import { SoundboxError } from '../../protocol/index.js'
import type { FallbackRecord } from './contract.js'

/** A record's JSON is not longer: a payment with 32 soundboxes is 12 KiB, 256 changes are 64 KiB. */
export const RECORD_BYTES_MAX = 256 * 1024
/** Changes in one record; a longer list becomes several. */
export const CHANGES_PER_RECORD = 256

/** Bytes of a record. Throws INPUT_INVALID above RECORD_BYTES_MAX. */
export function encodeFallbackRecord (record: FallbackRecord): Buffer {
  const json = Buffer.from(JSON.stringify(record), 'utf8')
  if (json.length > RECORD_BYTES_MAX) throw new SoundboxError('INPUT_INVALID', `a record of ${json.length} bytes is over the limit of ${RECORD_BYTES_MAX}`)
  return json
}

/** The record in the bytes, undefined when they hold none. */
export function decodeFallbackRecord (json: Buffer | undefined): FallbackRecord | undefined {
  if (json === undefined) return undefined
  try {
    const record = JSON.parse(json.toString('utf8')) as FallbackRecord | null
    return record !== null && ['payment', 'changes', 'reversal'].includes(record.kind) ? record : undefined
  } catch {
    return undefined
  }
}

/** The record, or several when its list of changes is long. */
export function partsOf (record: FallbackRecord): FallbackRecord[] {
  if (record.kind !== 'changes' || record.changes.length <= CHANGES_PER_RECORD) return [record]
  const count = Math.ceil(record.changes.length / CHANGES_PER_RECORD)
  return Array.from({ length: count }, (_, part) => ({ kind: 'changes', changes: record.changes.slice(part * CHANGES_PER_RECORD, (part + 1) * CHANGES_PER_RECORD) }))
}

/** Names a payment in a Map. */
export function paymentKey ({ bankId, transactionId }: { bankId: string, transactionId: string }): string {
  return `${bankId}\0${transactionId}`
}

/** The payment that a record is about; null for a record that is not a payment. */
export function keyOfRecord (record: FallbackRecord): string | null {
  return record.kind === 'payment' ? paymentKey(record.payment) : null
}

export type PaymentRecord = Extract<FallbackRecord, { kind: 'payment' }>
export type PaymentMemory = { add: (record: FallbackRecord) => void, drop: (record: FallbackRecord) => void, clear: () => void, find: (key: string) => PaymentRecord | undefined }

/** Payments by name, at most `max`: the oldest is forgotten for the next. The first of a name stays. */
export function createPaymentMemory (max: number): PaymentMemory {
  const held = new Map<string, PaymentRecord>()
  return {
    add (record) {
      if (record.kind !== 'payment' || held.has(paymentKey(record.payment))) return
      if (held.size >= max) held.delete(held.keys().next().value as string)
      held.set(paymentKey(record.payment), record)
    },
    drop (record) {
      if (record.kind === 'payment') held.delete(paymentKey(record.payment))
    },
    clear: () => { held.clear() },
    find: key => held.get(key)
  }
}
