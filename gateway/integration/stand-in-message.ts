// What a stand-in says, and by which service it goes. Short and plain: one SMS part in the GSM alphabet, no name of the payer, and only
// the end of the transaction id, which is what a shop compares.
import { formatAmount, formatAmountGrouped, SoundboxError } from '../../protocol/index.js'
import type { ServiceName, ServiceRequest, ServiceResponse } from './contract.js'
import type { StandIn } from './stand-in.js'

const REFERENCE_CHARS = 6
const PUSH_TTL_S = 120 // As the voice: a push that comes later than this is not shown.

export type StandInWords = { utcOffsetMinutes: number, senderId?: string }
type StandInCall =
  | { service: 'send_sms_message', input: ServiceRequest<'send_sms_message'> }
  | { service: 'send_push_message', input: ServiceRequest<'send_push_message'> }
  | { service: 'send_email_message', input: ServiceRequest<'send_email_message'> }

/** `Received INR 1,900.00 at 10:15 (ref 6789EE). Your soundbox has not announced it.` */
export function standInText (row: StandIn, { utcOffsetMinutes }: Pick<StandInWords, 'utcOffsetMinutes'>): string {
  const time = new Date(row.acceptedAt + utcOffsetMinutes * 60_000).toISOString().slice(11, 16)
  const reference = row.transactionId.replace(/[^A-Za-z0-9]/g, '').slice(-REFERENCE_CHARS)
  return `Received ${row.currency} ${amountText(row)} at ${time}${reference === '' ? '' : ` (ref ${reference})`}. Your soundbox has not announced it.`
}

function amountText ({ amountMinor, currency }: StandIn): string {
  return currency === 'INR' ? formatAmountGrouped(amountMinor) : formatAmount(amountMinor).replace(/\B(?=(\d{3})+\.)/g, ',')
}

/** The call of a stand-in: service and normalised request. */
export function standInCall (row: StandIn, clientRef: string, words: StandInWords): StandInCall {
  const text = standInText(row, words)
  switch (row.channel) {
    case 'sms': return {
      service: 'send_sms_message', input: { to: [row.to], text, client_ref: clientRef, ...(words.senderId === undefined ? {} : { sender_id: words.senderId }) }
    }
    case 'push': return {
      service: 'send_push_message',
      input: { token: row.to, title: 'Payment received', body: text, priority: 'HIGH', ttl_s: PUSH_TTL_S, client_ref: clientRef }
    }
    case 'email': return { service: 'send_email_message', input: { to: [row.to], subject: `Payment received: ${row.currency} ${amountText(row)}`, text, client_ref: clientRef } }
    default: return row.channel satisfies never
  }
}

/** As ServiceClient.call of services.ts. */
export type CallProvider = <S extends ServiceName>(service: S, input: unknown) => Promise<ServiceResponse<S>>

/** Sends a stand-in; for StandInDeps.send. Returns what the provider calls an SMS: its report will name it.
 *  Throws the PROVIDER_* codes, and PROVIDER_REJECTED when the recipient was refused or the app is gone. */
export async function sendStandIn (call: CallProvider, row: StandIn, clientRef: string, words: StandInWords): Promise<string | null> {
  const { service, input } = standInCall(row, clientRef, words)
  switch (service) {
    case 'send_sms_message': {
      const { recipients, provider_id: id } = await call(service, input)
      if (recipients.every(recipient => recipient.status === 'REJECTED')) throw new SoundboxError('PROVIDER_REJECTED', 'the number was refused')
      if (recipients.some(recipient => recipient.status === 'UNKNOWN')) throw new SoundboxError('PROVIDER_STATE_UNKNOWN', 'the gateway does not say whether the number was accepted')
      return id
    }
    case 'send_push_message': {
      const { token_state: state } = await call(service, input)
      if (state === 'GONE') throw new SoundboxError('PROVIDER_REJECTED', 'the app is gone: register its token again')
      return null
    }
    case 'send_email_message': {
      const { accepted } = await call(service, input)
      if (accepted.length === 0) throw new SoundboxError('PROVIDER_REJECTED', 'the address was refused')
      return null
    }
    default: return service satisfies never
  }
}
