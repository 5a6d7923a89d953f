// From a uri_key to a URL: the provider's uri_map says method and path, the request fills the `{name}` parameters and the query.
// A value can fill its own segment only: it is percent-encoded, and dots alone (which URL parsers fold away) are refused. A row may name
// another machine of the provider by an absolute URL (a token endpoint): the allow-list judges it as any other.
import { SoundboxError } from '../../protocol/index.js'
import type { ProviderRequest, UriEntry, UriMap } from './provider.js'

const METHODS = ['GET', 'POST', 'PUT', 'DELETE'] as const
const AUTHS = ['none', 'headers', 'basic', 'provider'] as const
export const URL_CHARS_MAX = 4096

/** Rows of a uri_map from JSON; wrong rows are reported and left out. */
export function parseUriMap (rows: Readonly<Record<string, unknown>>, problem: (what: string) => void): UriMap {
  return Object.fromEntries(Object.entries(rows).flatMap(([key, row]) => {
    const entry = uriEntryFrom(row)
    if (entry === undefined || !/^[a-z][a-z0-9_.-]{0,63}$/i.test(key)) {
      problem(`row ${/^[\w.-]{1,64}$/.test(key) ? key : '(unnamed)'} must be {method, path, idempotent, auth, timeoutMs?} with a path like /v1/accounts/{id}`)
      return []
    }
    return [[key, entry]]
  }))
}

function uriEntryFrom (row: unknown): UriEntry | undefined {
  if (typeof row !== 'object' || row === null) return undefined
  const { method, path, idempotent, auth = 'headers', timeoutMs, ...rest } = row as Record<string, unknown>
  const verb = METHODS.find(name => name === method)
  const kind = AUTHS.find(name => name === auth)
  const isTimeFine = timeoutMs === undefined || (Number.isInteger(timeoutMs) && Number(timeoutMs) >= 100 && Number(timeoutMs) <= 120_000)
  if (verb === undefined || kind === undefined || typeof idempotent !== 'boolean' || !isTimeFine || Object.keys(rest).length > 0) return undefined
  if (typeof path !== 'string' || !/^(?:https?:\/\/[A-Za-z0-9.:[\]-]+)?\/(?!\/)[^\s?#\\]*$/.test(path) || /(?:^|\/)\.\.?(?:\/|$)/.test(path)) return undefined
  return { method: verb, path, idempotent, auth: kind, ...(timeoutMs === undefined ? {} : { timeoutMs: Number(timeoutMs) }) }
}

/** The row of a uri_key. Throws PROVIDER_CONFIG. */
export function uriEntryOf (map: UriMap, uriKey: string): UriEntry {
  const entry = Object.hasOwn(map, uriKey) ? map[uriKey] : undefined
  if (entry === undefined) throw new SoundboxError('PROVIDER_CONFIG', `the uri_map has no row ${uriKey}`)
  return entry
}

/** The URL of a request. Throws PROVIDER_CONFIG for a parameter that is missing or not usable, and beyond URL_CHARS_MAX. */
export function urlFromRequest (baseUrl: string, entry: UriEntry, request: ProviderRequest): URL {
  const path = entry.path.replace(/\{([^}]*)\}/g, (_, name: string) => {
    const value = request.pathParams !== undefined && Object.hasOwn(request.pathParams, name) ? request.pathParams[name] : undefined
    if (value === undefined || value === '' || /^\.+$/.test(value)) throw new SoundboxError('PROVIDER_CONFIG', `path parameter ${name} of ${request.uriKey} is not usable`)
    return encodeURIComponent(value)
  })
  const url = new URL(absolute(baseUrl, path))
  for (const [name, value] of Object.entries(request.query ?? {})) url.searchParams.append(name, value)
  if (url.href.length > URL_CHARS_MAX) throw new SoundboxError('PROVIDER_CONFIG', `the URL of ${request.uriKey} is longer than ${URL_CHARS_MAX} characters`)
  return url
}

/** The URL for audit rows and logs: path parameters stay `{name}` (they may be accounts), query values show for the listed names only. */
export function shownUrl (baseUrl: string, entry: UriEntry, request: ProviderRequest, shownQuery: readonly string[]): string {
  const query = Object.entries(request.query ?? {}).map(([name, value]) => `${name}=${shownQuery.includes(name) ? encodeURIComponent(value) : '[hidden]'}`).join('&')
  return `${absolute(baseUrl, entry.path)}${query === '' ? '' : `?${query}`}`
}

function absolute (baseUrl: string, path: string): string {
  if (/^https?:/.test(path)) return path
  const base = new URL(baseUrl)
  return `${base.origin}${base.pathname.replace(/\/$/, '')}${path}`
}
