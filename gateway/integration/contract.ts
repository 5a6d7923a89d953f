// The contract of the integration services as data: which routes exist, which permission each needs, which issuer serves it, and the
// normalised request and answer of each service. Providers map to and from these; nothing else crosses that line.
//
//   route -> permission -> service -> issuer -> provider's mapping -> transport
//
// Two kinds of rules stand beside the schemas: shapes (TypeBox, below) and the few rules across fields (`CROSS_RULES`).
import type { Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { SoundboxError } from '../../protocol/index.js'
import { BILL_SERVICES } from './contract-bill.js'
import { CBS_SERVICES } from './contract-cbs.js'
import { MESSAGE_SERVICES, smsParts } from './contract-message.js'
import { EMAIL_RECIPIENTS_MAX, PUSH_PAYLOAD_BYTES_MAX, SMS_PARTS_MAX } from './contract-parts.js'

export { digitsOfMsisdn, maskMsisdn } from './contract-parts.js'
export { KYC_STATUSES, smsParts } from './contract-message.js'

export const ISSUERS = ['cbs', 'bill', 'sms', 'email', 'push', 'kyc'] as const
export type Issuer = typeof ISSUERS[number]

export const SERVICES = { ...CBS_SERVICES, ...BILL_SERVICES, ...MESSAGE_SERVICES } as const
export type ServiceName = keyof typeof SERVICES
export type ServiceRequest<S extends ServiceName> = Static<typeof SERVICES[S]['request']>
export type ServiceResponse<S extends ServiceName> = Static<typeof SERVICES[S]['response']>
export type IssuerServices<I extends Issuer> = { [S in ServiceName]: typeof SERVICES[S]['issuer'] extends I ? S : never }[ServiceName]
export const SERVICE_NAMES = Object.keys(SERVICES) as readonly ServiceName[]

export const BASE_PATH = '/api/v1/integration'

/** The thirteen provider routes. `permission` is also the name that a token must carry. */
export const ROUTES = [
  { path: '/customer/search', method: 'POST', permission: 'customer_search', issuer: 'cbs', service: 'customer_search_cbs' },
  { path: '/account/search', method: 'POST', permission: 'account_search', issuer: 'cbs', service: 'account_search_cbs' },
  { path: '/account/details', method: 'POST', permission: 'account_details', issuer: 'cbs', service: 'account_details_cbs' },
  { path: '/statement/search', method: 'POST', permission: 'mini_statement', issuer: 'cbs', service: 'mini_statement_cbs' },
  { path: '/account/balance', method: 'POST', permission: 'account_balance', issuer: 'cbs', service: 'account_balance_cbs' },
  { path: '/mno/validate', method: 'POST', permission: 'mno_validate', issuer: 'cbs', service: 'mno_validate_cbs' },
  { path: '/dictionary/bank', method: 'POST', permission: 'bank_dictionary', issuer: 'cbs', service: 'bank_dictionary_cbs' },
  { path: '/interbank/account-name', method: 'POST', permission: 'interbank_account_name', issuer: 'cbs', service: 'interbank_account_name_cbs' },
  { path: '/biller/category', method: 'POST', permission: 'biller_category', issuer: 'bill', service: 'biller_category_bill' },
  { path: '/biller/fetch', method: 'POST', permission: 'biller_fetch', issuer: 'bill', service: 'biller_fetch_bill' },
  { path: '/biller/package', method: 'POST', permission: 'biller_package', issuer: 'bill', service: 'biller_package_bill' },
  { path: '/sms/send', method: 'POST', permission: 'send_sms', issuer: 'sms', service: 'send_sms_message' },
  { path: '/email/send', method: 'POST', permission: 'send_email', issuer: 'email', service: 'send_email_message' }
] as const satisfies readonly { path: string, method: 'POST', permission: string, issuer: Issuer, service: ServiceName }[]

/** The fourteenth route: the report of the simulator, which holds invented customers only and so needs no permission. */
export const REPORT_ROUTE = { path: '/simulator/download', method: 'GET', service: 'generate_simulated_cbs_report' } as const

export type IntegrationPermission = typeof ROUTES[number]['permission']
export const INTEGRATION_PERMISSIONS: readonly IntegrationPermission[] = ROUTES.map(route => route.permission)

type Checker = { Check: (value: unknown) => boolean, Errors: (value: unknown) => { instancePath: string, message: string }[] }
const compiled = new Map<ServiceName, { request: Checker, response: Checker }>()

function checkers (service: ServiceName): { request: Checker, response: Checker } {
  const known = compiled.get(service)
  if (known !== undefined) return known
  const made = { request: Compile(SERVICES[service].request), response: Compile(SERVICES[service].response) }
  compiled.set(service, made)
  return made
}

/** Rules that no single field can state; undefined = fine, else which field and why. */
const CROSS_RULES: { [S in ServiceName]?: (input: ServiceRequest<S>) => string | undefined } = {
  mini_statement_cbs: input => (input.from !== undefined && input.to !== undefined && input.from > input.to ? '/from is after /to' : undefined),
  interbank_account_name_cbs: input => ((input.fsp_id === undefined) === (input.bic === undefined) ? '/fsp_id or /bic must be given, not both' : undefined),
  send_sms_message: input => (smsParts(input.text).parts > SMS_PARTS_MAX ? `/text takes more than ${SMS_PARTS_MAX} parts` : undefined),
  send_email_message: input => {
    if (input.text === undefined && input.html === undefined) return '/text or /html must be given'
    return input.to.length + (input.cc?.length ?? 0) > EMAIL_RECIPIENTS_MAX ? `/to and /cc name more than ${EMAIL_RECIPIENTS_MAX} recipients` : undefined
  },
  send_push_message: input => (Buffer.byteLength(JSON.stringify(input)) > PUSH_PAYLOAD_BYTES_MAX ? `the message is longer than ${PUSH_PAYLOAD_BYTES_MAX} bytes` : undefined)
}

/** The request of a service, checked. Throws INPUT_INVALID naming the first wrong field, never its value. */
export function parseServiceRequest<S extends ServiceName> (service: S, value: unknown): ServiceRequest<S> {
  const { request } = checkers(service)
  if (!request.Check(value)) throw new SoundboxError('INPUT_INVALID', firstProblem(request, value))
  const rule = CROSS_RULES[service] as ((input: ServiceRequest<S>) => string | undefined) | undefined
  const problem = rule?.(value as ServiceRequest<S>)
  if (problem !== undefined) throw new SoundboxError('INPUT_INVALID', problem)
  return value as ServiceRequest<S>
}

/** The normalised answer of a service, checked. Throws PROVIDER_RESPONSE_INVALID naming the first wrong field, never its value. */
export function parseServiceResponse<S extends ServiceName> (service: S, value: unknown): ServiceResponse<S> {
  const { response } = checkers(service)
  if (!response.Check(value)) throw new SoundboxError('PROVIDER_RESPONSE_INVALID', `${service}: ${firstProblem(response, value)}`)
  return value as ServiceResponse<S>
}

function firstProblem (checker: Checker, value: unknown): string {
  const [first] = checker.Errors(value)
  return `${first?.instancePath === '' || first === undefined ? 'the body' : first.instancePath} ${first?.message ?? 'is not valid'}`
}
