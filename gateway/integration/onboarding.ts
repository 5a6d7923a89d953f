// May this merchant be taken on? Two proofs: the settlement account or wallet belongs to the name on the form, and the identity check has
// approved him. The decision is pure; the orchestrator asks the providers and never turns "could not ask" into yes or no.
//
//   name matches well, identity approved       approve
//   name matches partly, is masked, or the identity check is in review    review by a person
//   other name, no such account, frozen wallet, identity declined         reject
//   a provider did not answer, or the merchant has not finished the check wait, ask again
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import type { ServiceResponse } from './contract.js'
import type { CallProvider } from './stand-in-message.js'
import { nameScore } from './name-match.js'

export const NAME_SCORE_APPROVE = 0.85
export const NAME_SCORE_REVIEW = 0.5

export type Settlement = { kind: 'bank', fspId?: string, bic?: string, accountNo: string } | { kind: 'wallet', mno: string, msisdn: string }
/** `names`: legal and trade name; the better match counts. `kycSession`: of an identity check that was opened for this merchant. */
export type MerchantForm = {
  merchant: string, names: readonly [string, ...string[]], settlement: Settlement, kycSession: string | null
  /** False: a merchant without identity check is no reason to wait. Default true. */
  needsIdentity?: boolean
}

type Found<T> = { state: 'found', value: T } | { state: 'refused', code: string } | { state: 'unanswered', code: string }
export type OnboardingEvidence = {
  account: Found<{ name: string, lookupRef: string, isLive: boolean }>
  kyc: Found<{ status: ServiceResponse<'fetch_decision_kyc'>['status'], vendorData: string | null }> | { state: 'none' }
}
export type OnboardingReason =
  | 'name-matches' | 'name-matches-partly' | 'name-is-masked' | 'name-differs' | 'account-unknown' | 'account-not-live' | 'account-unanswered'
  | 'identity-approved' | 'identity-not-asked' | 'identity-in-review' | 'identity-declined' | 'identity-unfinished' | 'identity-missing' | 'identity-of-another' | 'identity-unanswered'
export type OnboardingVerdict = 'approve' | 'review' | 'reject' | 'wait'
/** `nameScore`: 0 to 1, null when there was nothing to compare. Names themselves are not in it: it may be logged and kept. */
export type OnboardingDecision = { verdict: OnboardingVerdict, reasons: readonly OnboardingReason[], nameScore: number | null, lookupRef: string | null }

type Finding = { verdict: OnboardingVerdict, reason: OnboardingReason }
const WEIGHT: Record<OnboardingVerdict, number> = { reject: 3, wait: 2, review: 1, approve: 0 }

/** The decision that this evidence carries: the strictest finding wins, and a clear no is not postponed by a missing answer. */
export function decideOnboarding (form: MerchantForm, evidence: OnboardingEvidence): OnboardingDecision {
  const score = scoreOf(form, evidence)
  const findings = [accountFinding(evidence, score), kycFinding(form, evidence)]
  const verdict = findings.reduce<OnboardingVerdict>((worst, finding) => WEIGHT[finding.verdict] > WEIGHT[worst] ? finding.verdict : worst, 'approve')
  return {
    verdict, reasons: findings.map(finding => finding.reason), nameScore: score,
    lookupRef: evidence.account.state === 'found' ? evidence.account.value.lookupRef : null
  }
}

function scoreOf (form: MerchantForm, { account }: OnboardingEvidence): number | null {
  if (account.state !== 'found') return null
  const scores = form.names.map(name => nameScore(name, account.value.name)).filter(score => score !== undefined)
  return scores.length === 0 ? null : Math.max(...scores)
}

function accountFinding ({ account }: OnboardingEvidence, score: number | null): Finding {
  switch (account.state) {
    case 'refused': return { verdict: 'reject', reason: 'account-unknown' }
    case 'unanswered': return { verdict: 'wait', reason: 'account-unanswered' }
    case 'found': break
    default: return account satisfies never
  }
  if (!account.value.isLive) return { verdict: 'reject', reason: 'account-not-live' }
  if (score === null) return { verdict: 'review', reason: 'name-is-masked' }
  if (score >= NAME_SCORE_APPROVE) return { verdict: 'approve', reason: 'name-matches' }
  return score >= NAME_SCORE_REVIEW ? { verdict: 'review', reason: 'name-matches-partly' } : { verdict: 'reject', reason: 'name-differs' }
}

function kycFinding (form: MerchantForm, { kyc }: OnboardingEvidence): Finding {
  switch (kyc.state) {
    case 'none': return form.needsIdentity === false ? { verdict: 'approve', reason: 'identity-not-asked' } : { verdict: 'wait', reason: 'identity-missing' }
    case 'refused': return { verdict: 'wait', reason: 'identity-missing' }
    case 'unanswered': return { verdict: 'wait', reason: 'identity-unanswered' }
    case 'found': break
    default: return kyc satisfies never
  }
  // A session that was opened for somebody else proves nothing about this merchant.
  if (kyc.value.vendorData !== form.merchant) return { verdict: 'reject', reason: 'identity-of-another' }
  switch (kyc.value.status) {
    case 'APPROVED': return { verdict: 'approve', reason: 'identity-approved' }
    case 'DECLINED': return { verdict: 'reject', reason: 'identity-declined' }
    case 'IN_REVIEW': return { verdict: 'review', reason: 'identity-in-review' }
    case 'NOT_STARTED': case 'IN_PROGRESS': case 'AWAITING_USER': case 'RESUBMITTED': case 'ABANDONED': case 'EXPIRED': return { verdict: 'wait', reason: 'identity-unfinished' }
    default: return kyc.value.status satisfies never
  }
}

/** Asks the providers (account or wallet, and identity, at the same time) and decides. Throws INPUT_INVALID for a form without fsp id and BIC. */
export async function checkMerchant (call: CallProvider, form: MerchantForm): Promise<OnboardingDecision> {
  const [account, kyc] = await Promise.all([
    outcomeOf(async () => await accountEvidence(call, form.settlement)),
    form.kycSession === null ? { state: 'none' as const } : outcomeOf(async () => await kycEvidence(call, form.kycSession ?? ''))
  ])
  return decideOnboarding(form, { account, kyc })
}

async function accountEvidence (call: CallProvider, settlement: Settlement): Promise<{ name: string, lookupRef: string, isLive: boolean }> {
  if (settlement.kind === 'wallet') {
    const wallet = await call('mno_validate_cbs', { mno: settlement.mno, msisdn: settlement.msisdn })
    return { name: wallet.registered_name, lookupRef: wallet.lookup_ref, isLive: wallet.wallet_status === 'ACTIVE' }
  }
  const { fspId, bic, accountNo } = settlement
  const answer = await call('interbank_account_name_cbs', {
    ...(fspId !== undefined ? { fsp_id: fspId } : { bic }), account_no: accountNo, identifier_type: 'BANK'
  })
  return { name: answer.account_name, lookupRef: answer.lookup_ref, isLive: true }
}

async function kycEvidence (call: CallProvider, session: string): Promise<{ status: ServiceResponse<'fetch_decision_kyc'>['status'], vendorData: string | null }> {
  const decision = await call('fetch_decision_kyc', { session_id: session })
  return { status: decision.status, vendorData: decision.vendor_data }
}

/** A refusal of the provider is an answer; a fault of the wire or of our settings is none. A wrong form is the caller's error. */
async function outcomeOf<T> (ask: () => Promise<T>): Promise<Found<T>> {
  try {
    return { state: 'found', value: await ask() }
  } catch (error) {
    if (!isSoundboxError(error)) throw new SoundboxError('SERVER_FAULT', 'a merchant could not be checked', { cause: error })
    if (error.code === 'INPUT_INVALID') throw error
    return { state: error.code === 'PROVIDER_REJECTED' ? 'refused' : 'unanswered', code: error.code }
  }
}
