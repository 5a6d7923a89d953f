// SMS through Infobip: POST /sms/2/text/advanced with one message for many destinations; the answer has a status group a destination.
// Settings: SMS_API_URL (the account's own host), SMS_API_HEADER_AUTHORIZATION (`App <API key>`), SMS_API_SENDER_ID.
import { optionalTextAt, rowsAt, type Fields } from '../fields.js'
import { digitsOfMsisdn, maskMsisdn, smsParts, type ServiceResponse } from '../contract.js'
import type { Provider, ServiceMapping } from '../provider.js'
import { codeAt, listAt, ok2xx, rejectionFromCode, requiredParam } from './parts.js'

type RecipientStatus = ServiceResponse<'send_sms_message'>['recipients'][number]['status']
const GROUPS: Readonly<Record<string, RecipientStatus>> = { 1: 'ACCEPTED', 2: 'REJECTED', 3: 'ACCEPTED', 4: 'REJECTED', 5: 'REJECTED' } // Pending, undeliverable, delivered, expired, rejected.

const send: ServiceMapping<'send_sms_message'> = {
  toRequest: (input, ctx) => ({
    uriKey: 'send', format: 'json',
    body: {
      bulkId: ctx.reference,
      messages: [{ from: input.sender_id ?? requiredParam(ctx, 'sender_id'), destinations: input.to.map(to => ({ to: digitsOfMsisdn(to) })), text: input.text }]
    }
  }),
  fromResponse: ({ body }, input) => {
    const rows = rowsAt(body, 'messages')
    const byNumber = new Map(rows.map(row => [digitsOfMsisdn(optionalTextAt(row, 'to') ?? ''), row]))
    return {
      client_ref: input.client_ref, provider_id: optionalTextAt(body, 'bulkId') ?? optionalTextAt(rows[0], 'messageId'), parts: smsParts(input.text).parts,
      recipients: input.to.map(to => recipientFrom(to, byNumber.get(digitsOfMsisdn(to))))
    }
  }
}

function recipientFrom (to: string, row: Fields | undefined): ServiceResponse<'send_sms_message'>['recipients'][number] {
  const group = optionalTextAt(row, 'status.groupId') ?? ''
  const status = Object.hasOwn(GROUPS, group) ? GROUPS[group] ?? 'UNKNOWN' : 'UNKNOWN'
  return { to_masked: maskMsisdn(to), status, code: optionalTextAt(row, 'status.name'), cost: null }
}

export const INFOBIP: Provider<'sms'> = {
  issuer: 'sms',
  name: 'infobip',
  baseUrl: 'https://infobip.invalid', // Every account has its own: SMS_API_URL.
  hosts: [],
  uriMap: { send: { method: 'POST', path: '/sms/2/text/advanced', idempotent: false, auth: 'headers' } },
  requiredAuthHeaders: ['authorization'],
  isSuccess: response => ok2xx(response) && listAt(response, 'messages').length > 0,
  rejectionFrom: response => rejectionFromCode(codeAt(response, 'requestError.serviceException.messageId'), response),
  services: { send_sms_message: send },
  auditFields: ['bulkId', 'messages.from', 'messages.destinations.to~phone', 'messages.to~phone', 'messages.messageId', 'messages.status.name']
}
