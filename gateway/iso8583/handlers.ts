// What a request of a switch does here, once its connection is ready.
//
//   0200 0220 0221   DE 3 00 26 28   payment: announced as one of an HTTP trigger is
//   0100 0200        DE 3 31 38      core banking system
//   0400 0420 0421                   reversal
//   anything else                    DE 39 = 12
// DE 39 is 00 when the payment is recorded and sent, else the code of the error table. An advice is a fact: 00 once it is recorded, sent or
// not, so that the switch stops repeating it.
//
// A reversal may overtake its payment. It carries the same fields, so the payment is recorded from it, reversed and without a voice; when
// the original comes, it is a repeat. The unique key of the payment decides who was first: no window is left between asking and recording.
import { announcementId, contentHash, isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import type { Fallback } from '../fallback/contract.js'
import type { Delivery, NewDelivery, Payment, Store, StoredPayment } from '../store/contract.js'
import type { Bank, Device, Directory } from '../store/directory.js'
import type { Announce, PaymentOrder } from '../trigger/announce.js'
import type { Meter } from '../trigger/meter.js'
import { answerTo, isAdvice } from './dialect.js'
import {
  BALANCE_CODE, isNamed, isPartialReversal, type IsoPayment, merchantOf, originalOf, PAYMENT_CODES, paymentFromIso, processingCode, STATEMENT_CODE, terminalOf
} from './payment.js'
import type { PeerProfile } from './peers.js'
import type { Cbs } from './cbs.js'

export type HandlerDeps = {
  directory: Pick<Directory, 'bankById' | 'devicesOf' | 'device'>
  announce: Announce
  reverse: (bankId: string, transactionId: string) => Promise<StoredPayment | undefined>
  notify: (device: Device, notice: NewDelivery) => Promise<void>
  nextSeq: () => number
  /** How long a "reversed" phrase may wait to be spoken. */
  speakMs: number
  store: Pick<Store, 'recordPayment' | 'findPayment' | 'findTransactions'>
  fallback: Pick<Fallback, 'findPayment'>
  cbs: Cbs
  nowMs: () => number
  meter: Meter
  log: Log
}
export type Handle = (request: Message, peer: PeerProfile) => Promise<Message>

/** Candidates that a reversal without DE 90 may find: same RRN, trace number and terminal at different times. */
const ORIGINALS_MAX = 8

/** Rejects with what `codeOfError` turns into DE 39. */
export function openHandlers (deps: HandlerDeps): Handle {
  return async (request, peer) => {
    try {
      const { answer, outcome } = await handle(deps, request, peer)
      deps.meter.outcome('iso8583', outcome)
      return answer
    } catch (error) {
      deps.meter.outcome('iso8583', isSoundboxError(error) ? error.code : 'SERVER_FAULT')
      throw error
    }
  }
}

type Done = { answer: Message, outcome: string }

async function handle (deps: HandlerDeps, request: Message, peer: PeerProfile): Promise<Done> {
  const kind = request.mti.charAt(1)
  const code = processingCode(request)
  if (kind === '4') return await reverse(deps, request, peer)
  if (kind === '2' && PAYMENT_CODES.includes(code)) return await pay(deps, request, peer)
  if ((kind === '1' || kind === '2') && !isAdvice(request.mti) && (code === BALANCE_CODE || code === STATEMENT_CODE)) {
    bankOf(deps, peer)
    if (!peer.mayAsk || !peer.allowsTerminal(terminalOf(request))) throw new SoundboxError('ISO_NOT_PERMITTED', 'the peer may not ask the core banking system, or not from this terminal')
    const reply = await deps.cbs(request)
    return { answer: answerTo(request, reply.code, reply.fields), outcome: reply.code === '00' ? 'OK' : 'CBS_REFUSED' }
  }
  throw new SoundboxError('ISO_NOT_SUPPORTED', `MTI ${request.mti} with this processing code is not handled here`)
}

async function pay (deps: HandlerDeps, request: Message, peer: PeerProfile): Promise<Done> {
  const bank = bankOf(deps, peer)
  const payment = paymentFromIso(request)
  checkPermitted(peer, payment)
  const order = orderOf(deps, bank, payment)
  try {
    const { repeated } = await deps.announce(order)
    return { answer: answerTo(request, '00'), outcome: repeated ? 'REPEAT' : 'OK' }
  } catch (error) {
    const isRecorded = isSoundboxError(error, 'PUBLISH_FAILED') || isSoundboxError(error, 'VENDOR_FAILED')
    if (isRecorded && isAdvice(request.mti)) return { answer: answerTo(request, '00'), outcome: error.code }
    if (isSoundboxError(error, 'PAYMENT_CONFLICT') && await wasReversedFirst(deps, order)) return { answer: answerTo(request, '00'), outcome: 'REPEAT' }
    throw error
  }
}

/** The same amount, reversed and never given to a box: recorded from a reversal that did not carry every field of the payment. */
async function wasReversedFirst (deps: HandlerDeps, order: PaymentOrder): Promise<boolean> {
  const stored = await deps.store.findPayment(order.bank.id, order.transactionId)
  return stored !== undefined && stored.reversedAt !== null && stored.deliveries.length === 0 && stored.payment.amountMinor === order.amountMinor
}

async function reverse (deps: HandlerDeps, request: Message, peer: PeerProfile): Promise<Done> {
  const bank = bankOf(deps, peer)
  if (isPartialReversal(request)) throw new SoundboxError('ISO_NOT_SUPPORTED', 'DE 95 asks for a partial reversal: only whole payments are reversed')
  const name = originalOf(request)
  const original = await findOriginal(deps, bank.id, name)
  checkPermitted(peer, { merchant: original?.payment.merchant ?? merchantOf(request), terminal: terminalOf(request) })
  const transactionId = original?.payment.transactionId ?? `${name.prefix}${name.transmission ?? request.fields['7'] ?? ''}`
  if (deps.fallback.findPayment(bank.id, transactionId) !== undefined) throw new SoundboxError('STORE_FAILED', 'the payment waits in the fallback: it can be reversed when it is in history')
  if (original === undefined) await recordEarly(deps, orderOf(deps, bank, { ...paymentFromIso(request), transactionId }))
  const startedAt = deps.nowMs()
  const reversed = await deps.reverse(bank.id, transactionId)
  const isFirst = reversed?.reversedAt !== null && reversed !== undefined && reversed.reversedAt >= startedAt
  if (peer.sayReversed && isFirst) await sayReversed(deps, reversed)
  deps.log.info({ peer: peer.name, bankId: bank.id, transactionId, early: original === undefined, repeated: !isFirst }, 'payment reversed')
  return { answer: answerTo(request, '00'), outcome: isFirst ? 'OK' : 'REPEAT' }
}

async function findOriginal (deps: HandlerDeps, bankId: string, { prefix, transmission }: ReturnType<typeof originalOf>): Promise<StoredPayment | undefined> {
  if (transmission !== null) return await deps.store.findPayment(bankId, `${prefix}${transmission}`)
  const names = (await deps.store.findTransactions(bankId, prefix, ORIGINALS_MAX)).filter(name => isNamed(name, prefix))
  return names.length === 0 ? undefined : await deps.store.findPayment(bankId, names.at(-1)!)
}

/** When it rejects (STORE_FAILED), the switch repeats its reversal: nothing was lost. */
async function recordEarly (deps: HandlerDeps, order: PaymentOrder): Promise<void> {
  const payment: Payment = {
    bankId: order.bank.id, transactionId: order.transactionId, merchant: order.merchant, amountMinor: order.amountMinor, currency: order.currency, txnType: order.txnType,
    language: order.language, status: order.status, source: order.source, contentHash: contentHash(order, order.currency), acceptedAt: deps.nowMs(), listed: true
  }
  await deps.store.recordPayment(payment, [])
}

/** For the boxes that have said it or may be about to. The id is derived, so that a repeat is no second voice. A failure is not the switch's business. */
async function sayReversed (deps: HandlerDeps, { payment, deliveries }: StoredPayment): Promise<void> {
  const now = deps.nowMs()
  for (const delivery of deliveries.filter(wasHeard)) {
    const device = deps.directory.device(delivery.tid)
    if (device === undefined) continue
    await deps.notify(device, {
      tid: delivery.tid, announcementId: announcementId(`reversed:${payment.bankId}`, payment.transactionId), kind: 'reversed-payment', language: delivery.language,
      seq: deps.nextSeq(), amountMinor: delivery.amountMinor, currency: delivery.currency, txnType: null, count: null, issuedAt: now, expiresAt: now + deps.speakMs
    }).catch((err: unknown) => { deps.log.warn({ err, tid: delivery.tid }, 'the reversed phrase was not sent') })
  }
}

function wasHeard ({ kind, state, publishedAt }: Delivery): boolean {
  return kind === 'payment' && (state === 'spoken' || state === 'duplicate' || (state === 'reversed' && publishedAt !== null))
}

/** Throws ISO_UNAVAILABLE: the operator has to add or enable the bank; the switch may try again. */
function bankOf (deps: HandlerDeps, peer: PeerProfile): Bank {
  const bank = deps.directory.bankById(peer.bank)
  const fault = bank === undefined ? 'is unknown: soundbox bank add' : bank.disabledAt !== null ? 'is disabled' : bank.database ? undefined : 'has no database: ISO 8583 needs one'
  if (bank !== undefined && fault === undefined) return bank
  deps.log.error({ peer: peer.name, bankId: peer.bank, fault }, 'a switch speaks for a bank that cannot be served')
  throw new SoundboxError('ISO_UNAVAILABLE', `bank ${peer.bank} of this peer ${fault ?? ''}`)
}

/** What a peer may not name is answered like what does not exist. Throws VPA_UNKNOWN, ISO_NOT_PERMITTED. */
function checkPermitted (peer: PeerProfile, { merchant, terminal }: Pick<IsoPayment, 'merchant' | 'terminal'>): void {
  if (!peer.allowsMerchant(merchant)) throw new SoundboxError('VPA_UNKNOWN', 'the peer may not name this merchant')
  if (!peer.allowsTerminal(terminal)) throw new SoundboxError('ISO_NOT_PERMITTED', 'the peer may not name this terminal')
}

/** A terminal that is a soundbox of the merchant names that box alone; any other leaves all boxes of the merchant. */
function orderOf (deps: HandlerDeps, bank: Bank, payment: IsoPayment): PaymentOrder {
  const { terminal, ...rest } = payment
  const tid = deps.directory.devicesOf(bank.id, payment.merchant).includes(terminal) ? terminal : null
  return { ...rest, tid, language: null, status: 'success', bank, source: 'iso8583' }
}
