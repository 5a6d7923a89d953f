// Identity checks through Didit v3: a session is opened, the merchant goes through it on Didit's page, the decision comes by webhook
// (inbound.ts) or is fetched. Only the state is kept: documents and faces stay with Didit.
// Settings: DIDIT_API_KEY (header x-api-key), DIDIT_API_WORKFLOW_ID.
import { optionalTextAt, textAt } from '../fields.js'
import type { ServiceResponse } from '../contract.js'
import type { Provider } from '../provider.js'
import { ok2xx, rejectionFromCode, requiredParam } from './parts.js'
import { SoundboxError } from '../../../protocol/index.js'

export type KycStatus = ServiceResponse<'fetch_decision_kyc'>['status']
const STATUS_WORDS: Readonly<Record<string, KycStatus>> = {
  'NOT STARTED': 'NOT_STARTED', 'IN PROGRESS': 'IN_PROGRESS', 'AWAITING USER': 'AWAITING_USER', 'IN REVIEW': 'IN_REVIEW', APPROVED: 'APPROVED', DECLINED: 'DECLINED',
  ABANDONED: 'ABANDONED', RESUBMITTED: 'RESUBMITTED', EXPIRED: 'EXPIRED', 'KYC EXPIRED': 'EXPIRED'
}

/** Our word for Didit's. Throws PROVIDER_RESPONSE_INVALID for a new one: a state that nobody knows must not pass for any other. */
export function kycStatusFromDidit (word: string): KycStatus {
  const status = STATUS_WORDS[word.toUpperCase()]
  if (status === undefined || !Object.hasOwn(STATUS_WORDS, word.toUpperCase())) throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'Didit answered an unknown status')
  return status
}

export const DIDIT: Provider<'kyc'> = {
  issuer: 'kyc',
  name: 'didit',
  baseUrl: 'https://verification.didit.me',
  hosts: ['verification.didit.me:443'],
  uriMap: {
    session: { method: 'POST', path: '/v3/session/', idempotent: false, auth: 'headers' },
    decision: { method: 'GET', path: '/v3/session/{session}/decision/', idempotent: true, auth: 'headers' }
  },
  requiredAuthHeaders: ['x-api-key'],
  isSuccess: ok2xx,
  rejectionFrom: response => rejectionFromCode(null, response, {
    HTTP_404: 'the identity check does not exist', HTTP_400: 'Didit refused the request: check workflow, callback and credits'
  }),
  services: {
    start_session_kyc: {
      toRequest: (input, ctx) => ({
        uriKey: 'session', format: 'json',
        body: {
          workflow_id: requiredParam(ctx, 'workflow_id'), vendor_data: input.vendor_data, ...(input.callback === undefined ? {} : { callback: input.callback }),
          metadata: { client_ref: input.client_ref }
        }
      }),
      fromResponse: ({ body }) => ({ session_id: textAt(body, 'session_id'), url: textAt(body, 'url'), status: kycStatusFromDidit(textAt(body, 'status')) })
    },
    fetch_decision_kyc: {
      toRequest: input => ({ uriKey: 'decision', format: 'none', pathParams: { session: input.session_id } }),
      fromResponse: ({ body }) => ({
        session_id: textAt(body, 'session_id'), vendor_data: optionalTextAt(body, 'vendor_data'), status: kycStatusFromDidit(textAt(body, 'status')), decided_at: null
      })
    }
  },
  auditFields: ['workflow_id', 'metadata.client_ref', 'session_id', 'status']
}
