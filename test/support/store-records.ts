// Payments, deliveries and directory rows for tests of store and fallback: everything follows from one number.
import { createHash } from 'node:crypto'
import { announcementId, type Log } from '../../protocol/index.js'
import type { BankRow, DeliveryChange, DeliveryState, DeviceRow, NewDelivery, Payment } from '../../gateway/store/contract.js'

export const START_MS = 1_727_954_878_000

/** 32 hex digits that follow from a text. */
export function hexOf (text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}

export function somePayment (i: number, more: Partial<Payment> = {}): Payment {
  return {
    bankId: 'pnb', transactionId: `T${i}`, merchant: `shop${i % 7}@isu`, amountMinor: 100 + i, currency: 'INR', txnType: 'UPI', language: null,
    status: 'success', source: 'http', contentHash: hexOf(`content ${i}`), acceptedAt: START_MS + i, listed: true, ...more
  }
}

/** The delivery of payment `i` to one soundbox. */
export function someDelivery (i: number, more: Partial<NewDelivery> = {}): NewDelivery {
  return {
    tid: `box${i % 5}`, announcementId: announcementId('pnb', `T${i}`), kind: 'payment', language: 'ENGLISH', seq: i, amountMinor: 100 + i, currency: 'INR', txnType: 'UPI',
    count: null, issuedAt: START_MS + i, expiresAt: START_MS + i + 60_000, ...more
  }
}

export function someSummary (name: string, more: Partial<NewDelivery> = {}): NewDelivery {
  return { ...someDelivery(0), announcementId: hexOf(name), kind: 'summary', txnType: null, count: 2, ...more }
}

export function stepOf ({ tid, announcementId: id }: Pick<NewDelivery, 'tid' | 'announcementId'>, state: DeliveryState, at: number, more: Partial<DeliveryChange> = {}): DeliveryChange {
  return { tid, announcementId: id, state, at, ...more }
}

export function someBank (id: string, more: Partial<BankRow> = {}): BankRow {
  return {
    id, base: id, name: `Bank ${id}`, passKey: `pass-${id}`, profile: 'aes-256-cbc', database: true, headerReuse: 'forbid', fieldNames: { merchant: 'merchant_vpa' },
    numericStatus: false, announceFailed: true, ratePerSecond: 100, createdAt: START_MS, disabledAt: null, ...more
  }
}

export function someDevice (tid: string, more: Partial<DeviceRow> = {}): DeviceRow {
  return {
    tid, type: 'QS1', status: 'active', language: 'HINDI', volume: 70, minVolume: 20, quietHours: { startMinute: 1320, endMinute: 360, utcOffsetMinutes: 330 }, display: null,
    desiredVersion: 1, mqttPasswordHash: 'aa', signingKeySealed: 'bb', createdAt: START_MS, activatedAt: START_MS, deactivatedAt: null, ...more
  }
}

/** Seeded numbers in [0, 1): mulberry32. */
export function seededRandom (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6D2B79F5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

export type CollectedLog = Log & { lines: { level: string, fields: object, sentence: string }[] }

/** A log that keeps what it was told. */
export function collectLog (): CollectedLog {
  const lines: CollectedLog['lines'] = []
  const at = (level: string) => (fields: object, sentence: string): void => { lines.push({ level, fields, sentence }) }
  const log: CollectedLog = { lines, info: at('info'), warn: at('warn'), error: at('error'), debug: at('debug'), child: () => log }
  return log
}
