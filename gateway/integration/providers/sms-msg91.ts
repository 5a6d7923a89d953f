// SMS through MSG91 (India): the text travels as the variable of a template that is registered with the operators (DLT), so free text is
// possible only where the template has one variable for it. `type: "error"` comes with HTTP 200 as well.
// Settings: SMS_API_HEADER_AUTHKEY, SMS_API_PARAM_TEMPLATE_ID, SMS_API_PARAM_TEMPLATE_VARIABLE (default `text`), SMS_API_SENDER_ID (optional).
import { textAt } from '../fields.js'
import { digitsOfMsisdn, maskMsisdn, smsParts } from '../contract.js'
import type { Provider, ProviderResponse, ServiceMapping } from '../provider.js'
import { codeAt, ok2xx, rejectionFromCode, requiredParam } from './parts.js'

const send: ServiceMapping<'send_sms_message'> = {
  toRequest: (input, ctx) => {
    const sender = input.sender_id ?? ctx.params['sender_id']
    const variable = ctx.params['template_variable'] ?? 'text'
    return {
      uriKey: 'flow', format: 'json',
      body: {
        template_id: requiredParam(ctx, 'template_id'), short_url: '0', ...(sender === undefined ? {} : { sender }),
        recipients: input.to.map(to => ({ mobiles: digitsOfMsisdn(to), [variable]: input.text }))
      }
    }
  },
  fromResponse: ({ body }, input) => ({
    client_ref: input.client_ref, provider_id: textAt(body, 'message'), parts: smsParts(input.text).parts,
    recipients: input.to.map(to => ({ to_masked: maskMsisdn(to), status: 'ACCEPTED' as const, code: 'success', cost: null }))
  })
}

const typeOf = (response: ProviderResponse): string | null => codeAt(response, 'type')

export const MSG91: Provider<'sms'> = {
  issuer: 'sms',
  name: 'msg91',
  baseUrl: 'https://control.msg91.com',
  hosts: ['control.msg91.com:443'],
  uriMap: { flow: { method: 'POST', path: '/api/v5/flow', idempotent: false, auth: 'headers' } },
  requiredAuthHeaders: ['authkey'],
  isSuccess: response => ok2xx(response) && typeOf(response) === 'success',
  rejectionFrom: response => rejectionFromCode(codeAt(response, 'code', 'type'), response, { error: 'MSG91 refused the request: check template, sender and key' }),
  services: { send_sms_message: send },
  auditFields: ['template_id', 'short_url', 'sender', 'recipients.mobiles~phone', 'type', 'code']
}
