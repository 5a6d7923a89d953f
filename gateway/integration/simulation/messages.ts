// SMS, e-mail, push and identity checks that go nowhere: the answers a provider would give, decided by outcome rules on the ending of the
// number, address, token or merchant id.
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { SoundboxError } from '../../../protocol/index.js'
import { maskMsisdn, smsParts, type IssuerServices, type ServiceRequest, type ServiceResponse } from '../contract.js'
import type { SimContext } from './cbs.js'
import { instantFromMs } from './format.js'
import { ruleFor, type Outcome, type OutcomeRule } from './outcome.js'

const SESSIONS_MAX = 10_000 // The oldest simulated identity check is forgotten beyond.
const KYC_STATUS: Partial<Record<Outcome, ServiceResponse<'fetch_decision_kyc'>['status']>> = {
  not_started: 'NOT_STARTED', in_progress: 'IN_PROGRESS', in_review: 'IN_REVIEW', declined: 'DECLINED', expired: 'EXPIRED'
}

type Answers<S extends IssuerServices<'sms' | 'email' | 'push' | 'kyc'>> = { [N in S]: (input: ServiceRequest<N>, ctx: SimContext) => ServiceResponse<N> }

/** SMS: rules by recipient. One of several recipients may be refused alone; a refusal of the only one refuses the call. */
export function simulatedSms (rules: readonly OutcomeRule[]): Answers<'send_sms_message'> {
  return {
    send_sms_message: (input, ctx) => ({
      client_ref: input.client_ref, provider_id: `sim-${ctx.reference}`, parts: smsParts(input.text).parts,
      recipients: input.to.map(to => {
        const { outcome } = ruleFor(rules, to)
        const status = outcome === 'rejected' ? 'REJECTED' as const : outcome === 'duplicate' ? 'DUPLICATE' as const : 'ACCEPTED' as const
        return { to_masked: maskMsisdn(to), status, code: outcome, cost: '0.00' }
      })
    })
  }
}

/** E-mail: rules by address. */
export function simulatedEmail (rules: readonly OutcomeRule[]): Answers<'send_email_message'> {
  return {
    send_email_message: input => {
      const all = [...input.to, ...input.cc ?? []]
      const isRejected = (address: string): boolean => ruleFor(rules, address).outcome === 'rejected'
      return {
        client_ref: input.client_ref, message_id: `<${input.client_ref}@simulated.invalid>`,
        accepted: all.filter(address => !isRejected(address)), rejected: all.filter(isRejected)
      }
    }
  }
}

/** Push: rules by registration token; `gone` is an app that was removed. */
export function simulatedPush (rules: readonly OutcomeRule[]): Answers<'send_push_message'> {
  return {
    send_push_message: (input, ctx) => ruleFor(rules, input.token).outcome === 'gone'
      ? { client_ref: input.client_ref, message_id: null, token_state: 'GONE' }
      : { client_ref: input.client_ref, message_id: `projects/simulated/messages/${ctx.reference}`, token_state: 'LIVE' }
  }
}

/** Identity checks: rules by `vendor_data`; without one the check is approved. Sessions live in memory. */
export function simulatedKyc (rules: readonly OutcomeRule[]): Answers<'start_session_kyc' | 'fetch_decision_kyc'> {
  const sessions = new LRUCache<string, { vendorData: string, startedMs: number }>({ max: SESSIONS_MAX })
  return {
    start_session_kyc: (input, ctx) => {
      const id = `sim-${createHash('sha256').update(`${input.vendor_data}/${input.client_ref}`, 'utf8').digest('hex').slice(0, 32)}`
      sessions.set(id, { vendorData: input.vendor_data, startedMs: ctx.nowMs })
      return { session_id: id, url: `https://simulated.invalid/session/${id}`, status: 'NOT_STARTED' }
    },
    fetch_decision_kyc: ({ session_id }) => {
      const session = sessions.get(session_id)
      if (session === undefined) throw new SoundboxError('PROVIDER_REJECTED', 'SESSION_NOT_FOUND: the identity check does not exist')
      const status = KYC_STATUS[ruleFor(rules, session.vendorData).outcome] ?? 'APPROVED'
      const isDecided = status === 'APPROVED' || status === 'DECLINED' || status === 'EXPIRED'
      return { session_id, vendor_data: session.vendorData, status, decided_at: isDecided ? instantFromMs(session.startedMs) : null }
    }
  }
}
