// What several mappings need: settings that must be there, the normalised words for statuses, and a phone number as the scheme wants it.
import { SoundboxError } from '../../../protocol/index.js'
import { optionalTextAt } from '../fields.js'
import type { MappingContext, ProviderResponse, Rejection } from '../provider.js'

/** The `*_PARAM_<NAME>` setting. Throws PROVIDER_CONFIG when it is not set. */
export function requiredParam (ctx: Pick<MappingContext, 'params'>, name: string): string {
  const value = ctx.params[name]
  if (value === undefined || value === '') throw new SoundboxError('PROVIDER_CONFIG', `the setting *_PARAM_${name.toUpperCase()} of this provider is missing`)
  return value
}

export const ACCOUNT_STATUS_WORDS = {
  ACTIVE: 'ACTIVE', OPEN: 'ACTIVE', A: 'ACTIVE', NORMAL: 'ACTIVE', DORMANT: 'DORMANT', D: 'DORMANT', INACTIVE: 'DORMANT', I: 'DORMANT',
  FROZEN: 'FROZEN', BLOCKED: 'FROZEN', SUSPENDED: 'FROZEN', F: 'FROZEN', CLOSED: 'CLOSED', C: 'CLOSED'
} as const

export const ACCOUNT_TYPE_WORDS = {
  SAVINGS: 'SAVINGS', SA: 'SAVINGS', SB: 'SAVINGS', CURRENT: 'CURRENT', CA: 'CURRENT', CHEQUE: 'CURRENT', LOAN: 'LOAN', DEPOSIT: 'DEPOSIT', FIXED: 'DEPOSIT',
  TD: 'DEPOSIT', WALLET: 'WALLET'
} as const

export const CATEGORY_WORDS = { PERSON: 'PERSON', INDIVIDUAL: 'PERSON', PERSONAL: 'PERSON', BUSINESS: 'BUSINESS', MERCHANT: 'BUSINESS', CORPORATE: 'BUSINESS' } as const

export const ok2xx = (response: ProviderResponse): boolean => response.status >= 200 && response.status < 300

/** The first word or number at one of these paths, or null. Unlike the field readers it never throws: it asks whether an answer is one. */
export function codeAt (response: Pick<ProviderResponse, 'body'>, ...paths: readonly string[]): string | null {
  for (const path of paths) {
    try {
      const code = optionalTextAt(response.body, path)
      if (code !== null) return code
    } catch {
      // An object or a list where a code belongs is no code.
    }
  }
  return null
}

/** The list below these names, or an empty one. Never throws. */
export function listAt (response: Pick<ProviderResponse, 'body'>, path: string): readonly unknown[] {
  let found: unknown = response.body
  for (const name of path.split('.')) found = typeof found === 'object' && found !== null ? (found as Record<string, unknown>)[name] : undefined
  return Array.isArray(found) ? found : []
}

/** A provider's code as it may be shown: a short word or number; anything else is only its HTTP status. */
export function rejectionFromCode (code: string | null, response: ProviderResponse, meanings: Readonly<Record<string, string>> = {}): Rejection {
  const shown = code !== null && /^[\w.-]{1,40}$/.test(code) ? code : `HTTP_${response.status}`
  return { code: shown, message: Object.hasOwn(meanings, shown) ? meanings[shown]! : 'the provider refused the request' }
}

/** E.164 with its plus. */
export function plusMsisdn (value: string): string {
  return value.startsWith('+') ? value : `+${value}`
}
