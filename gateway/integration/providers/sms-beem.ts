// SMS through Beem (Tanzania): POST /v1/send with Basic authentication. A refusal comes with HTTP 200 and a code other than 100.
// Setting: SMS_API_USER and SMS_API_PASSWORD are API key and secret; SMS_API_SENDER_ID is the registered sender name.
//
// The answer counts valid, invalid and duplicate numbers but does not name them: of a mixed batch each recipient's state is UNKNOWN.
import { optionalTextAt, textAt } from '../fields.js'
import { digitsOfMsisdn, maskMsisdn, smsParts, type ServiceResponse } from '../contract.js'
import type { Provider, ProviderResponse, ServiceMapping } from '../provider.js'
import { codeAt, ok2xx, rejectionFromCode, requiredParam } from './parts.js'

type RecipientStatus = ServiceResponse<'send_sms_message'>['recipients'][number]['status']
const SUCCESS = '100'
const MEANINGS = {
  101: 'a phone number is not valid', 102: 'the SMS balance is used up', 103: 'the API key is missing or wrong', 104: 'the account is not active', 105: 'the account does not exist',
  106: 'a parameter is missing', 107: 'the phone number is blocked', 110: 'the sender name is not registered', 111: 'the sender name is not registered', 120: 'the API key is not valid'
}

const send: ServiceMapping<'send_sms_message'> = {
  toRequest: (input, ctx) => ({
    uriKey: 'send', format: 'json',
    body: {
      source_addr: input.sender_id ?? requiredParam(ctx, 'sender_id'), schedule_time: '', encoding: 0, message: input.text,
      recipients: input.to.map((to, index) => ({ recipient_id: index + 1, dest_addr: digitsOfMsisdn(to) }))
    }
  }),
  fromResponse: ({ body }, input) => {
    const status = statusOfAll(body, input.to.length)
    return {
      client_ref: input.client_ref, provider_id: textAt(body, 'request_id'), parts: smsParts(input.text).parts,
      recipients: input.to.map(to => ({ to_masked: maskMsisdn(to), status, code: SUCCESS, cost: null }))
    }
  }
}

function statusOfAll (body: unknown, sent: number): RecipientStatus {
  const count = (name: string): number => Number(optionalTextAt(body, name) ?? '0')
  const [invalid, duplicates] = [count('invalid'), count('duplicates')]
  if (invalid === 0 && duplicates === 0) return 'ACCEPTED'
  if (invalid >= sent) return 'REJECTED'
  return sent === 1 && duplicates > 0 ? 'DUPLICATE' : 'UNKNOWN'
}

const codeOf = (response: ProviderResponse): string | null => codeAt(response, 'code', 'data.code')

export const BEEM: Provider<'sms'> = {
  issuer: 'sms',
  name: 'beem',
  baseUrl: 'https://apisms.beem.africa',
  hosts: ['apisms.beem.africa:443'],
  uriMap: { send: { method: 'POST', path: '/v1/send', idempotent: false, auth: 'basic' } },
  requiredAuthHeaders: ['authorization'],
  isSuccess: response => ok2xx(response) && codeOf(response) === SUCCESS,
  rejectionFrom: response => rejectionFromCode(codeOf(response), response, MEANINGS),
  services: { send_sms_message: send },
  auditFields: ['source_addr', 'recipients.dest_addr~phone', 'encoding', 'successful', 'request_id', 'code', 'valid', 'invalid', 'duplicates']
}
