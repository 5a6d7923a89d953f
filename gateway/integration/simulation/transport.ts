// The simulator as a transport: what `*_API_SIMULATE=true` puts in the place of a provider. It keeps the promise of a transport, so that
// permissions, contract checks, audit and the callers above cannot tell the difference.
import { SoundboxError } from '../../../protocol/index.js'
import type { Issuer, ServiceName, ServiceRequest, ServiceResponse } from '../contract.js'
import type { Transport } from '../provider.js'
import { simulatedBill } from './bill.js'
import { simulatedCbs, type SimContext } from './cbs.js'
import { simulatedEmail, simulatedKyc, simulatedPush, simulatedSms } from './messages.js'
import { ruleFor, throwFor, type OutcomeRule } from './outcome.js'
import type { SIMTables } from './tables.js'

/** `wait` rejects when the signal aborts (timers/promises fits). `tables` is called once, by the first cbs or bill transport. */
export type SimulationDeps = {
  issuer: Issuer
  rules: readonly OutcomeRule[]
  tables: () => SIMTables
  /** Added to every answer, in milliseconds. */
  latencyMs: number
  nowMs: () => number
  wait: (ms: number, signal: AbortSignal | undefined) => Promise<void>
}

type Answer = (input: never, ctx: SimContext) => unknown

/** A transport that answers the services of one issuer from rules and SIM tables. */
export function simulatedTransport (deps: SimulationDeps): Transport {
  const answers = new Map<string, Answer>(Object.entries(answersOf(deps)))
  const answer = <S extends ServiceName>(service: S, input: ServiceRequest<S>, reference: string): ServiceResponse<S> => {
    const found = answers.get(service) as ((input: ServiceRequest<S>, ctx: SimContext) => ServiceResponse<S>) | undefined
    if (found === undefined) throw new SoundboxError('PROVIDER_CONFIG', `the simulator of ${deps.issuer} does not offer ${service}`)
    return found(input, { nowMs: deps.nowMs(), reference })
  }
  return {
    kind: 'simulated',
    name: `simulated-${deps.issuer}`,
    has: service => answers.has(service),
    call: async (service, input, ctx) => {
      const rule = callRule(deps.rules, subjectsOf(service, input))
      const delayMs = rule.delayMs + deps.latencyMs
      if (delayMs > 0) await deps.wait(delayMs, ctx.signal).catch(gone)
      throwFor(rule.outcome)
      return answer(service, input, ctx.reference)
    },
    settle: async call => callRule(deps.rules, subjectsOf(call.service, call.input)).outcome === 'lost'
      ? { state: 'not_done' }
      : { state: 'done', data: answer(call.service, call.input, call.reference) },
    close: async () => {}
  }
}

function gone (cause: unknown): never {
  throw new SoundboxError('PROVIDER_UNAVAILABLE', 'the caller went away', { cause })
}

function answersOf (deps: SimulationDeps): Record<string, Answer> {
  switch (deps.issuer) {
    case 'cbs': return simulatedCbs(deps.tables())
    case 'bill': return simulatedBill(deps.tables())
    case 'sms': return simulatedSms(deps.rules)
    case 'email': return simulatedEmail(deps.rules)
    case 'push': return simulatedPush(deps.rules)
    case 'kyc': return simulatedKyc(deps.rules)
    default: return deps.issuer satisfies never
  }
}

/** The rule for the whole call: the first subject whose rule is more than a word about that subject alone, else the first subject's. */
function callRule (rules: readonly OutcomeRule[], subjects: readonly string[]): OutcomeRule {
  const found = subjects.map(subject => ruleFor(rules, subject))
  const isOwn = ({ outcome }: OutcomeRule): boolean => outcome === 'rejected' && subjects.length > 1
  const general = found.find(rule => rule.outcome !== 'ok' && !isOwn(rule))
  if (general !== undefined) return general
  const isNoneLeft = found.length > 0 && found.every(rule => rule.outcome === 'rejected')
  return isNoneLeft ? found[0] ?? ruleFor([], '') : found.find(rule => rule.outcome === 'ok') ?? ruleFor([], '')
}

/** What the rules look at. A request that names nobody (a dictionary) is the subject `*`, which only the general rule fits. */
function subjectsOf<S extends ServiceName> (service: S, input: ServiceRequest<S>): readonly string[] {
  const fields = input as Readonly<Record<string, unknown>>
  const text = (...names: string[]): string => names.map(name => fields[name]).find((value): value is string => typeof value === 'string') ?? ''
  switch (service) {
    case 'send_sms_message': case 'send_email_message': return [...(fields['to'] as readonly string[]), ...(fields['cc'] as readonly string[] | undefined ?? [])]
    case 'send_push_message': return [text('token')]
    case 'start_session_kyc': return [text('vendor_data')]
    default: return [text('account_no', 'value', 'msisdn', 'cif', 'account_prefix', 'biller_code', 'category')]
  }
}
