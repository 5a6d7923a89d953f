// What leaves to a person: SMS, e-mail, push; and the identity check. SMS, e-mail, push and the start of a check change something at the
// provider, so each carries a client_ref and is never repeated on a guess.
//
// SMS parts (3GPP TS 23.038): text in the GSM 7-bit alphabet is 160 septets, or 153 a part; any other text is UCS-2 with 70 units,
// or 67 a part. A character of the extension table takes two septets, and neither an escape pair nor a surrogate pair is torn apart.
import { Type } from 'typebox'
import {
  clientRef, closed, decimal, EMAIL_BODY_CHARS_MAX, EMAIL_RECIPIENTS_MAX, EMAIL_SUBJECT_CHARS_MAX, emailAddress, instant, masked, msisdn, oneOf, orNull, rowsOf,
  SMS_PARTS_MAX, SMS_RECIPIENTS_MAX, text
} from './contract-parts.js'

const GSM_BASIC = new Set('@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà')
const GSM_EXTENDED = new Set('\f^{}\\[~]|€')

/** Encoding and number of parts of an SMS text. */
export function smsParts (message: string): { encoding: 'GSM7' | 'UCS2', parts: number } {
  const characters = [...message]
  const isGsm = characters.every(character => GSM_BASIC.has(character) || GSM_EXTENDED.has(character))
  const widths = characters.map(character => (isGsm ? (GSM_EXTENDED.has(character) ? 2 : 1) : character.length))
  const [single, part] = isGsm ? [160, 153] : [70, 67]
  const total = widths.reduce((sum, width) => sum + width, 0)
  if (total <= single) return { encoding: isGsm ? 'GSM7' : 'UCS2', parts: 1 }
  let parts = 1
  let used = 0
  for (const width of widths) {
    if (used + width > part) { parts += 1; used = 0 }
    used += width
  }
  return { encoding: isGsm ? 'GSM7' : 'UCS2', parts }
}

export const KYC_STATUSES = ['NOT_STARTED', 'IN_PROGRESS', 'AWAITING_USER', 'IN_REVIEW', 'APPROVED', 'DECLINED', 'ABANDONED', 'RESUBMITTED', 'EXPIRED'] as const
const kycStatus = oneOf([...KYC_STATUSES], 'state of the identity check')
const sessionId = Type.String({ pattern: '^[A-Za-z0-9_-]{1,64}$', description: 'id of the identity check at its provider' })
const httpsUrl = Type.String({ maxLength: 2000, pattern: '^https://[^\\s]+$' })

export const MESSAGE_SERVICES = {
  send_sms_message: {
    issuer: 'sms', changesState: true, summary: `Send an SMS of at most ${SMS_PARTS_MAX} parts`,
    request: closed({
      to: Type.Array(msisdn, { minItems: 1, maxItems: SMS_RECIPIENTS_MAX, uniqueItems: true }), text: Type.String({ minLength: 1, maxLength: SMS_PARTS_MAX * 153 }),
      sender_id: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9 ]{1,15}$' })), client_ref: clientRef
    }),
    response: closed({
      client_ref: clientRef, provider_id: orNull(text(128, 'id at the provider')), parts: Type.Integer({ minimum: 1, maximum: SMS_PARTS_MAX }),
      recipients: rowsOf(closed({
        to_masked: masked, status: oneOf(['ACCEPTED', 'REJECTED', 'DUPLICATE', 'UNKNOWN'], 'what the provider did with it'), code: orNull(text(32, "the provider's code")),
        cost: orNull(decimal)
      }), SMS_RECIPIENTS_MAX)
    }),
    example: {
      request: { to: ['+255712345678'], text: 'Received TZS 1,900.00', sender_id: 'SOUNDBOX', client_ref: 'n-1001' },
      response: { client_ref: 'n-1001', provider_id: '3f2a', parts: 1, recipients: [{ to_masked: '2557****5678', status: 'ACCEPTED', code: '100', cost: null }] }
    }
  },
  send_email_message: {
    issuer: 'email', changesState: true, summary: 'Send an e-mail as text, HTML or both',
    request: closed({
      to: Type.Array(emailAddress, { minItems: 1, maxItems: EMAIL_RECIPIENTS_MAX }), cc: Type.Optional(Type.Array(emailAddress, { maxItems: EMAIL_RECIPIENTS_MAX })),
      subject: text(EMAIL_SUBJECT_CHARS_MAX, 'one line'), text: Type.Optional(Type.String({ minLength: 1, maxLength: EMAIL_BODY_CHARS_MAX })),
      html: Type.Optional(Type.String({ minLength: 1, maxLength: EMAIL_BODY_CHARS_MAX })), client_ref: clientRef
    }),
    response: closed({
      client_ref: clientRef, message_id: text(256, 'Message-ID of the mail'), accepted: rowsOf(emailAddress, 2 * EMAIL_RECIPIENTS_MAX),
        rejected: rowsOf(emailAddress, 2 * EMAIL_RECIPIENTS_MAX)
    }),
    example: {
      request: { to: ['shop@example.com'], subject: 'Takings of 5 January', text: '42 payments, 80,300.00', client_ref: 'r-20260105' },
      response: { client_ref: 'r-20260105', message_id: '<r-20260105@soundbox.example>', accepted: ['shop@example.com'], rejected: [] }
    }
  },
  send_push_message: {
    issuer: 'push', changesState: true, summary: 'Send a push notification to one app',
    request: closed({
      token: Type.String({ pattern: '^[A-Za-z0-9_:.-]{8,512}$', description: 'registration token of the app' }), title: text(120, 'title'), body: text(1000, 'text'),
      data: Type.Optional(Type.Record(Type.String({ pattern: '^[A-Za-z0-9_]{1,40}$' }), Type.String({ maxLength: 1000 }), { maxProperties: 20 })),
      priority: Type.Optional(oneOf(['NORMAL', 'HIGH'], 'HIGH wakes the phone')), ttl_s: Type.Optional(Type.Integer({ minimum: 0, maximum: 2_419_200 })), client_ref: clientRef
    }),
    response: closed({
      client_ref: clientRef, message_id: orNull(text(256, 'name of the message at the provider')),
      token_state: oneOf(['LIVE', 'GONE'], 'GONE: the app is gone; forget the token, nothing was sent')
    }),
    example: {
      request: { token: 'fcm-token-0001', title: 'Payment received', body: '1,900.00', priority: 'HIGH', ttl_s: 60, client_ref: 'n-1002' },
      response: { client_ref: 'n-1002', message_id: 'projects/demo/messages/0:1', token_state: 'LIVE' }
    }
  },
  start_session_kyc: {
    issuer: 'kyc', changesState: true, summary: 'Open an identity check for a merchant',
    request: closed({ vendor_data: text(128, 'our id of the merchant'), callback: Type.Optional(httpsUrl), client_ref: clientRef }),
    response: closed({ session_id: sessionId, url: httpsUrl, status: kycStatus }),
    example: {
      request: { vendor_data: 'merchant-17', callback: 'https://gateway.example/kyc/done', client_ref: 'k-17' },
      response: { session_id: '11111111-2222-3333-4444-555555555555', url: 'https://verify.example/session/abc', status: 'NOT_STARTED' }
    }
  },
  fetch_decision_kyc: {
    issuer: 'kyc', changesState: false, summary: 'How an identity check stands',
    request: closed({ session_id: sessionId }),
    response: closed({ session_id: sessionId, vendor_data: orNull(text(128, 'our id of the merchant')), status: kycStatus, decided_at: orNull(instant) }),
    example: {
      request: { session_id: '11111111-2222-3333-4444-555555555555' },
      response: { session_id: '11111111-2222-3333-4444-555555555555', vendor_data: 'merchant-17', status: 'APPROVED', decided_at: '2026-01-05T09:15:00Z' }
    }
  }
} as const
