// One payment in, one voice out: decide who speaks, record, send, tell the caller. Every step may run twice.
//
//   decide   merchant -> soundboxes, from memory            VPA_UNKNOWN, DEVICE_INACTIVE, DEVICE_TYPE_INVALID
//   record   store, else the fallback, else STORE_FAILED    PAYMENT_CONFLICT for known id with other content
//   send     pump or vendor push                            PUBLISH_FAILED, VENDOR_FAILED: recorded, the caller may try again
//
// Requests for the same payment that arrive while the first is under way wait for it and share its outcome; with other content they wait
// too, since only what was recorded can contradict them.
import { LRUCache } from 'lru-cache'
import { announcementId, contentHash, isSoundboxError, type Language, type Log, SoundboxError, type TriggerFields } from '../../protocol/index.js'
import type { Fallback } from '../fallback/contract.js'
import type { Delivery, NewDelivery, Payment, PaymentSource, Store } from '../store/contract.js'
import { ANY_MERCHANT, type Bank, type Device, type Directory } from '../store/directory.js'
import { type Waiting, waitingOf } from './backlog.js'
import type { Meter } from './meter.js'

/** Payments answered lately that are known without asking the store. */
export const RECENT_MAX = 50_000

export type PaymentOrder = Omit<TriggerFields, 'transactionId'> & { transactionId: string, bank: Bank, currency: string, source: PaymentSource }
/** `repeated`: this was known before; `payment` and `tids` are those of the first time. */
export type Announced = { repeated: boolean, announcementId: string, payment: Payment, tids: readonly string[] }

export type AnnounceDeps = {
  directory: Pick<Directory, 'device' | 'devicesOf'>
  store: Pick<Store, 'recordPayment' | 'findPayment'>
  fallback: Pick<Fallback, 'append' | 'findPayment'>
  /** Sends to one box by its transport. Rejects with PUBLISH_FAILED, VENDOR_FAILED or BASE_URL_INVALID. */
  send: (device: Device, item: Waiting) => Promise<void>
  /** Throws DEVICE_TYPE_INVALID for a type that is not registered. */
  checkType: (type: string) => void
  speakMs: number
  nowMs: () => number
  nextSeq: () => number
  meter: Meter
  log: Log
}
export type Announce = (order: PaymentOrder) => Promise<Announced>

/** The one way for a payment, whichever wire it came by. */
export function openAnnounce (deps: AnnounceDeps): Announce {
  const underWay = new Map<string, { hash: string, outcome: Promise<Announced> }>()
  const recent = new LRUCache<string, { hash: string, announced: Announced }>({ max: RECENT_MAX })

  return async order => {
    const id = announcementId(order.bank.id, order.transactionId)
    const hash = contentHash(order, order.currency)
    for (let first = underWay.get(id); first !== undefined; first = underWay.get(id)) {
      if (first.hash === hash) return { ...await first.outcome, repeated: true }
      await first.outcome.catch(() => {})
    }
    const known = recent.get(id)
    if (known !== undefined) {
      if (known.hash !== hash) throw conflict(order)
      return { ...known.announced, repeated: true }
    }
    const outcome = announceOnce(deps, order, id, hash)
    underWay.set(id, { hash, outcome })
    try {
      const announced = await outcome
      recent.set(id, { hash, announced })
      return announced
    } finally {
      underWay.delete(id)
    }
  }
}

async function announceOnce (deps: AnnounceDeps, order: PaymentOrder, id: string, hash: string): Promise<Announced> {
  const now = deps.nowMs()
  const payment = paymentOf(order, hash, now)
  const devices = await speakersOf(deps, order, payment)
  if (!Array.isArray(devices)) return devices
  const deliveries = order.status === 'failed' && !order.bank.announceFailed ? [] : devices.map(device => deliveryOf(deps, order, device, id, now))
  const recorded = await recordSomewhere(deps, payment, deliveries)
  if (recorded.outcome === 'different') throw conflict(order)
  deps.meter.stage('recorded', deps.nowMs() - now)
  await sendAll(deps, recorded.outcome === 'same' ? recorded.due : deliveries.map(waitingOf))
  return recorded.outcome === 'same' ? repeatOf(id, recorded) : { repeated: false, announcementId: id, payment, tids: deliveries.map(delivery => delivery.tid) }
}

/** The active soundboxes for this payment; or, when there are none now but the payment is known, what was answered then. */
async function speakersOf (deps: AnnounceDeps, order: PaymentOrder, payment: Payment): Promise<Device[] | Announced> {
  try {
    return decideSpeakers(deps, order)
  } catch (error) {
    const known = await findKnown(deps, payment)
    if (known === undefined) throw error
    if (known.payment.contentHash !== payment.contentHash) throw conflict(order)
    return repeatOf(announcementId(order.bank.id, order.transactionId), known)
  }
}

type Known = { payment: Payment, deliveries: readonly (NewDelivery | Delivery)[] }

/** What waits in the fallback, else what the reader of the store still finds. */
async function findKnown (deps: AnnounceDeps, { bankId, transactionId }: Payment): Promise<Known | undefined> {
  return deps.fallback.findPayment(bankId, transactionId) ?? await deps.store.findPayment(bankId, transactionId).catch(() => undefined)
}

function decideSpeakers (deps: AnnounceDeps, order: PaymentOrder): Device[] {
  const merchant = order.bank.database ? order.merchant ?? '' : ANY_MERCHANT
  const mapped = deps.directory.devicesOf(order.bank.id, merchant)
  if (order.bank.database && mapped.length === 0) throw new SoundboxError('VPA_UNKNOWN', 'VPA Not found in database')
  const named = order.tid === null ? mapped : mapped.filter(tid => tid === order.tid)
  const devices = named.map(tid => deps.directory.device(tid)).filter(device => device !== undefined && device.status === 'active') as Device[]
  if (devices.length === 0) throw new SoundboxError('DEVICE_INACTIVE', 'Device is inactive')
  for (const device of devices) deps.checkType(device.type)
  return devices
}

function paymentOf (order: PaymentOrder, hash: string, now: number): Payment {
  return {
    bankId: order.bank.id, transactionId: order.transactionId, merchant: order.bank.database ? order.merchant : null, amountMinor: order.amountMinor, currency: order.currency,
    txnType: order.txnType, language: order.language, status: order.status, source: order.source, contentHash: hash, acceptedAt: now, listed: order.bank.database
  }
}

function deliveryOf (deps: AnnounceDeps, order: PaymentOrder, device: Device, id: string, now: number): NewDelivery {
  const language: Language = order.language ?? device.language
  return {
    tid: device.tid, announcementId: id, kind: order.status === 'success' ? 'payment' : 'failed-payment', language, seq: deps.nextSeq(), amountMinor: order.amountMinor,
    currency: order.currency, txnType: order.txnType, count: null, issuedAt: now, expiresAt: now + deps.speakMs
  }
}

/** `due`: deliveries of a known payment that nobody has sent yet, as far as the records know. */
type Outcome = { outcome: 'new' } | { outcome: 'different' } | (Known & { outcome: 'same', due: readonly Waiting[] })

/**
 * What waits in the fallback is known, even when history takes payments again and has not been told of it yet. Then history; while it
 * refuses, what its reader still finds decides whether this is new.
 */
async function recordSomewhere (deps: AnnounceDeps, payment: Payment, deliveries: readonly NewDelivery[]): Promise<Outcome> {
  const waiting = deps.fallback.findPayment(payment.bankId, payment.transactionId)
  if (waiting !== undefined) return knownOutcome(payment, waiting)
  try {
    const recorded = await deps.store.recordPayment(payment, deliveries)
    return recorded.outcome === 'new' ? recorded : knownOutcome(payment, recorded)
  } catch (error) {
    if (!isSoundboxError(error, 'STORE_FAILED')) throw error
    deps.log.warn({ err: error, bankId: payment.bankId }, 'history refused a payment, using the fallback')
  }
  deps.meter.fallbackUsed()
  const known = await findKnown(deps, payment)
  if (known !== undefined) return knownOutcome(payment, known)
  if (payment.listed) await appendOrFail(deps, payment, deliveries)
  return { outcome: 'new' }
}

function knownOutcome (payment: Payment, known: Known): Outcome {
  if (known.payment.contentHash !== payment.contentHash) return { outcome: 'different' }
  return { ...known, outcome: 'same', due: known.deliveries.filter(isDue).map(delivery => ({ ...waitingOf(delivery), doubtful: true })) }
}

function isDue (delivery: NewDelivery | Delivery): boolean {
  return !('state' in delivery) || delivery.state === 'accepted'
}

async function appendOrFail (deps: AnnounceDeps, payment: Payment, deliveries: readonly NewDelivery[]): Promise<void> {
  try {
    await deps.fallback.append({ kind: 'payment', payment, deliveries })
  } catch (cause) {
    throw new SoundboxError('STORE_FAILED', 'Database error', { cause })
  }
}

/** All at once: one slow box or vendor must not keep the others waiting. One that was reached makes it a success; sweep and hello see to the rest. */
async function sendAll (deps: AnnounceDeps, due: readonly Waiting[]): Promise<void> {
  const attempts = await Promise.allSettled(due.map(async item => {
    const device = deps.directory.device(item.tid)
    if (device !== undefined) await deps.send(device, item)
  }))
  const failures = attempts.flatMap((attempt, index) => attempt.status === 'rejected' ? [{ err: attempt.reason as unknown, item: due[index] }] : [])
  for (const { err, item } of failures) deps.log.warn({ err, tid: item?.tid, announcementId: item?.announcementId }, 'announcement not handed over')
  if (failures.length > 0 && failures.length === due.length) throw failures[0]?.err
}

function repeatOf (id: string, stored: Known): Announced {
  return { repeated: true, announcementId: id, payment: stored.payment, tids: stored.deliveries.map(delivery => delivery.tid) }
}

function conflict (order: PaymentOrder): SoundboxError {
  return new SoundboxError('PAYMENT_CONFLICT', `transaction ${order.transactionId} was recorded with other content`)
}
