// Simulated outcomes by rule: `{"0001":"rejected","0002":"timeout/1500","*":"ok"}` means that whoever ends in 0001 is refused, 0002 is a
// time-out after 1,500 ms, everybody else succeeds. The longest ending wins, so a rule for one number stands beside a rule for a range.
import { SoundboxError } from '../../../protocol/index.js'
import type { Issuer } from '../contract.js'

/** `unknown`: the answer was lost and the provider did it; `lost`: the answer was lost and the provider never did it. */
export const OUTCOMES = [
  'ok', 'rejected', 'duplicate', 'gone', 'timeout', 'unavailable', 'busy', 'invalid', 'unknown', 'lost',
  'not_started', 'in_progress', 'in_review', 'approved', 'declined', 'expired'
] as const
export type Outcome = typeof OUTCOMES[number]
const GENERAL: readonly Outcome[] = ['ok', 'rejected', 'timeout', 'unavailable', 'busy', 'invalid']
const SENT: readonly Outcome[] = [...GENERAL, 'unknown', 'lost']
/** The words that mean something for an issuer. */
export const OUTCOMES_OF: Record<Issuer, readonly Outcome[]> = {
  cbs: GENERAL, bill: GENERAL, sms: [...SENT, 'duplicate'], email: SENT, push: [...SENT, 'gone'],
  kyc: [...SENT, 'not_started', 'in_progress', 'in_review', 'approved', 'declined', 'expired']
}
export type OutcomeRule = { ending: string, outcome: Outcome, delayMs: number }

export const OUTCOME_RULES_MAX = 50
export const OUTCOME_DELAY_MS_MAX = 10_000
const ENDING = /^(?:\*|[A-Za-z0-9@._-]{1,64})$/
const WORD = /^([a-z_]+)(?:\/(\d{1,5}))?$/

/** The rules of an issuer's setting `{ENDING: 'OUTCOME' | 'OUTCOME/MS'}`, `*` for everybody else. Throws CONFIG_INVALID naming the rule by its place. */
export function parseOutcomeRules (issuer: Issuer, setting: Readonly<Record<string, unknown>>): readonly OutcomeRule[] {
  const entries = Object.entries(setting)
  if (entries.length > OUTCOME_RULES_MAX) throw new SoundboxError('CONFIG_INVALID', `at most ${OUTCOME_RULES_MAX} simulation rules`)
  return entries.map(([ending, value], index) => {
    const [, word = '', delay = '0'] = WORD.exec(typeof value === 'string' ? value : '') ?? []
    const outcome = OUTCOMES_OF[issuer].find(known => known === word)
    if (outcome === undefined || Number(delay) > OUTCOME_DELAY_MS_MAX || !ENDING.test(ending)) {
      const words = OUTCOMES_OF[issuer].join(' ')
      throw new SoundboxError('CONFIG_INVALID', `${issuer} simulation rule ${index + 1} must be "ENDING":"WORD" or "WORD/MS", MS up to ${OUTCOME_DELAY_MS_MAX}, a word of: ${words}`)
    }
    return { ending: ending === '*' ? '' : ending, outcome, delayMs: Number(delay) }
  })
}

/** The rule for a subject (number, address, token, account); `ok` without delay when none matches. */
export function ruleFor (rules: readonly OutcomeRule[], subject: string): OutcomeRule {
  return rules.filter(rule => subject.endsWith(rule.ending)).reduce<OutcomeRule>(
    (best, rule) => rule.ending.length >= best.ending.length ? rule : best, { ending: '', outcome: 'ok', delayMs: 0 })
}

/** Throws what a provider of this outcome would cause; returns for the outcomes that come with an answer. */
export function throwFor (outcome: Outcome): void {
  switch (outcome) {
    case 'rejected': throw new SoundboxError('PROVIDER_REJECTED', 'SIMULATED: refused by a simulation rule')
    case 'timeout': throw new SoundboxError('PROVIDER_TIMEOUT', 'simulated time-out')
    case 'unavailable': throw new SoundboxError('PROVIDER_UNAVAILABLE', 'simulated outage')
    case 'busy': throw new SoundboxError('PROVIDER_BUSY', 'simulated queue is full')
    case 'invalid': throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'simulated answer that nobody can read')
    case 'unknown': case 'lost': throw new SoundboxError('PROVIDER_STATE_UNKNOWN', 'simulated loss of the answer')
    case 'ok': case 'duplicate': case 'gone': case 'not_started': case 'in_progress': case 'in_review': case 'approved': case 'declined': case 'expired': return
    default: outcome satisfies never
  }
}
