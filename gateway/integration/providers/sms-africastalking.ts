// SMS through Africa's Talking: a form to /version1/messaging with the header apiKey; the answer has one row a recipient with its own
// code. An empty list of recipients (a wrong sender name, for one) is a refusal although HTTP says 201.
// Settings: SMS_API_HEADER_APIKEY, SMS_API_PARAM_USERNAME, SMS_API_SENDER_ID (optional).
import { optionalTextAt, rowsAt, type Fields } from '../fields.js'
import { digitsOfMsisdn, maskMsisdn, smsParts, type ServiceResponse } from '../contract.js'
import type { Provider, ProviderResponse, ServiceMapping } from '../provider.js'
import { codeAt, listAt, ok2xx, plusMsisdn, rejectionFromCode, requiredParam } from './parts.js'

type Recipient = ServiceResponse<'send_sms_message'>['recipients'][number]
const ACCEPTED = ['100', '101', '102'] // Processed, sent, queued.
const UNKNOWN = ['500', '501'] // Their own fault or their operator's: it may still go out.
const ROWS = 'SMSMessageData.Recipients'

const send: ServiceMapping<'send_sms_message'> = {
  toRequest: (input, ctx) => {
    const sender = input.sender_id ?? ctx.params['sender_id']
    return {
      uriKey: 'send', format: 'form', headers: { accept: 'application/json' },
      body: {
        username: requiredParam(ctx, 'username'), to: input.to.map(plusMsisdn).join(','), message: input.text,
        ...(sender === undefined ? {} : { from: sender }), enqueue: '1'
      }
    }
  },
  fromResponse: ({ body }, input) => {
    const rows = rowsAt(body, ROWS)
    const byNumber = new Map(rows.map(row => [digitsOfMsisdn(optionalTextAt(row, 'number') ?? ''), row]))
    return {
      client_ref: input.client_ref, provider_id: messageId(rows), parts: smsParts(input.text).parts,
      recipients: input.to.map(to => recipientFrom(to, byNumber.get(digitsOfMsisdn(to))))
    }
  }
}

/** The first recipient's message id: what its delivery report will carry. */
function messageId (rows: readonly Fields[]): string | null {
  const ids = rows.map(row => optionalTextAt(row, 'messageId')).filter(id => id !== null && id !== 'None')
  return ids[0] ?? null
}

function recipientFrom (to: string, row: Fields | undefined): Recipient {
  const code = row === undefined ? null : optionalTextAt(row, 'statusCode')
  const status = code === null || UNKNOWN.includes(code) ? 'UNKNOWN' : ACCEPTED.includes(code) ? 'ACCEPTED' : 'REJECTED'
  const cost = /^[A-Z]{3} (\d{1,9}(?:\.\d{1,4})?)$/.exec(optionalTextAt(row, 'cost') ?? '')?.[1] ?? null
  return { to_masked: maskMsisdn(to), status, code, cost }
}

/** Their refusals are one word (InvalidSenderId); counts and sums are sentences, which are not shown. */
const refusal = (response: ProviderResponse): string | null => codeAt(response, 'SMSMessageData.Message')

export const AFRICAS_TALKING: Provider<'sms'> = {
  issuer: 'sms',
  name: 'africastalking',
  baseUrl: 'https://api.africastalking.com',
  hosts: ['api.africastalking.com:443', 'api.sandbox.africastalking.com:443'],
  uriMap: { send: { method: 'POST', path: '/version1/messaging', idempotent: false, auth: 'headers' } },
  requiredAuthHeaders: ['apikey'],
  isSuccess: response => ok2xx(response) && listAt(response, ROWS).length > 0,
  rejectionFrom: response => rejectionFromCode(refusal(response), response),
  services: { send_sms_message: send },
  auditFields: ['username', 'from', 'to~phone', 'enqueue', 'SMSMessageData.Recipients.statusCode', 'SMSMessageData.Recipients.messageId', 'SMSMessageData.Recipients.number~phone']
}
