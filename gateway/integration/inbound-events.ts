// The messages of providers, as events of ours. Only what is used is read: a decision's documents, names and faces are never looked at,
// and a phone number is masked before it goes anywhere.
//
//   Didit             JSON {event_id?, webhook_type, session_id, status, vendor_data?, timestamp?}
//   Africa's Talking  form id, status, phoneNumber, failureReason?
//   MSG91             form data=JSON [{requestId, report: [{number, status, desc}]}], or JSON {requestId, number, status, desc}
//   Beem              JSON {request_id, dest_addr | recipient, status}
import { createHash } from 'node:crypto'
import { SoundboxError } from '../../protocol/index.js'
import { maskMsisdn } from './contract.js'
import { optionalTextAt, rowsAt, textAt } from './fields.js'
import { kycStatusFromDidit, type KycStatus } from './providers/kyc-didit.js'

export const INBOUND_KINDS = ['didit', 'africastalking', 'msg91', 'beem'] as const
export type InboundKind = typeof INBOUND_KINDS[number]
export type SmsOutcome = 'DELIVERED' | 'FAILED' | 'PENDING'

/** `eventId` is the same when the provider sends the same event again. `providerId`: the id that sending had answered. */
export type InboundEvent =
  | { kind: 'kyc', eventId: string, sessionId: string, vendorData: string | null, status: KycStatus, atMs: number | null }
  | { kind: 'sms', eventId: string, provider: string, providerId: string, toMasked: string, outcome: SmsOutcome, reason: string | null }

const DIDIT_EVENTS = ['status.updated', 'data.updated']
const REPORTS_MAX = 1000

/** Events of a message; none for a kind of message that concerns nothing here. Throws INPUT_INVALID for one that cannot be read. */
export function eventsFromInbound (kind: InboundKind, rawBody: Buffer, contentType: string): InboundEvent[] {
  const body = bodyFrom(rawBody, contentType)
  try {
    switch (kind) {
      case 'didit': return diditEvents(body, rawBody)
      case 'africastalking': return [africasTalkingEvent(body)]
      case 'msg91': return msg91Events(body)
      case 'beem': return rowsAt(body).map(row => smsEvent('beem', textAt(row, 'request_id'), optionalTextAt(row, 'dest_addr') ?? textAt(row, 'recipient'), textAt(row, 'status')))
      default: return kind satisfies never
    }
  } catch (error) {
    // The readers speak of provider answers; towards a provider that calls us, its message is input.
    throw new SoundboxError('INPUT_INVALID', error instanceof SoundboxError ? error.message : 'the message cannot be read', { cause: error })
  }
}

function bodyFrom (rawBody: Buffer, contentType: string): unknown {
  const text = rawBody.toString('utf8')
  if (contentType.startsWith('application/x-www-form-urlencoded')) return Object.fromEntries(new URLSearchParams(text))
  return jsonFrom(text)
}

function jsonFrom (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new SoundboxError('INPUT_INVALID', 'the message is not JSON')
  }
}

function diditEvents (body: unknown, rawBody: Buffer): InboundEvent[] {
  const type = optionalTextAt(body, 'webhook_type')
  if (type !== null && !DIDIT_EVENTS.includes(type)) return []
  const seconds = Number(optionalTextAt(body, 'timestamp') ?? 'none')
  return [{
    kind: 'kyc', eventId: optionalTextAt(body, 'event_id') ?? createHash('sha256').update(rawBody).digest('hex'), sessionId: textAt(body, 'session_id'),
    vendorData: optionalTextAt(body, 'vendor_data'), status: kycStatusFromDidit(textAt(body, 'status')), atMs: Number.isFinite(seconds) ? seconds * 1000 : null
  }]
}

const AFRICAS_TALKING_OUTCOMES: Readonly<Record<string, SmsOutcome>> = { SUCCESS: 'DELIVERED', FAILED: 'FAILED', REJECTED: 'FAILED' }
function africasTalkingEvent (body: unknown): InboundEvent {
  return smsEvent('africastalking', textAt(body, 'id'), textAt(body, 'phoneNumber'), textAt(body, 'status'), AFRICAS_TALKING_OUTCOMES, optionalTextAt(body, 'failureReason'))
}

const MSG91_OUTCOMES: Readonly<Record<string, SmsOutcome>> = { 1: 'DELIVERED', 2: 'FAILED', 9: 'FAILED', 16: 'FAILED', 17: 'FAILED', 25: 'FAILED', 26: 'FAILED' }
function msg91Events (body: unknown): InboundEvent[] {
  const data = optionalTextIn(body, 'data')
  return rowsAt(data === null ? body : jsonFrom(data)).flatMap(message => {
    const id = textAt(message, 'requestId')
    const reports = message['report'] === undefined ? [message] : rowsAt(message, 'report').slice(0, REPORTS_MAX)
    return reports.map(report => smsEvent('msg91', id, textAt(report, 'number'), textAt(report, 'status'), MSG91_OUTCOMES, optionalTextAt(report, 'failedReason')))
  })
}

function optionalTextIn (body: unknown, name: string): string | null {
  const value = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[name] : undefined
  return typeof value === 'string' && value !== '' ? value : null
}

const COMMON_OUTCOMES: Readonly<Record<string, SmsOutcome>> = {
  DELIVERED: 'DELIVERED', DELIVRD: 'DELIVERED', UNDELIVERED: 'FAILED', UNDELIV: 'FAILED', FAILED: 'FAILED', REJECTED: 'FAILED', REJECTD: 'FAILED', EXPIRED: 'FAILED'
}
function smsEvent (provider: string, providerId: string, to: string, status: string, outcomes = COMMON_OUTCOMES, reason: string | null = null): InboundEvent {
  const word = status.toUpperCase()
  const outcome = Object.hasOwn(outcomes, word) ? outcomes[word] ?? 'PENDING' : 'PENDING'
  const shown = reason !== null && /^[\w .-]{1,60}$/.test(reason) && !/\d{6}/.test(reason) ? reason : null
  const eventId = createHash('sha256').update(JSON.stringify([provider, providerId, to.replace(/\D/g, ''), word]), 'utf8').digest('hex')
  return { kind: 'sms', eventId, provider, providerId, toMasked: maskMsisdn(to.trim()), outcome, reason: shown }
}
