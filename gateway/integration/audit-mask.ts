// What of a request or answer may stand in an audit row: only fields that an allow-list names, each cut, and hidden as its kind demands.
// Whatever the list says, a run of 13 to 19 digits is shown as first six and last four, and texts lose control characters.
//
//   'statusCode'                       shown
//   'payload.customerAccount~account'  last four
//   'recipients.dest_addr~phone'       country and last four; lists are walked through
//   'body.fullName~name'               first letter of each word
import { maskMsisdn } from './contract-parts.js'

export const AUDIT_TEXT_CHARS_MAX = 200
export const AUDIT_ROWS_MAX = 20 // Rows of one list that are shown.
const DEPTH_MAX = 8
const CONTROL = /[\u0000-\u001f\u007f]/

type Kind = 'plain' | 'phone' | 'account' | 'name'
export type AllowList = { kind: Kind | undefined, inner: Map<string, AllowList> }

/** The tree of an allow-list, made once a provider. An unknown suffix hides the value as an account. */
export function allowListFrom (fields: readonly string[]): AllowList {
  const root: AllowList = { kind: undefined, inner: new Map() }
  for (const field of fields) {
    const [path = '', suffix = 'plain'] = field.split('~')
    let node = root
    for (const name of path.split('.')) {
      const next = node.inner.get(name) ?? { kind: undefined, inner: new Map() }
      node.inner.set(name, next)
      node = next
    }
    node.kind = suffix === 'plain' || suffix === 'phone' || suffix === 'name' ? suffix : 'account'
  }
  return root
}

/** JSON of what the list allows of a value; null when nothing is left. */
export function maskedJson (value: unknown, allowed: AllowList): string | null {
  const shown = pick(value, allowed, 0)
  return shown === undefined ? null : JSON.stringify(shown)
}

function pick (value: unknown, allowed: AllowList, depth: number): unknown {
  if (depth > DEPTH_MAX || value === undefined || value === null) return undefined
  if (Array.isArray(value)) {
    const rows = value.slice(0, AUDIT_ROWS_MAX).map(row => pick(row, allowed, depth + 1)).filter(row => row !== undefined)
    return rows.length === 0 ? undefined : rows
  }
  if (typeof value !== 'object') return allowed.kind === undefined ? undefined : hidden(value, allowed.kind)
  let shown: Record<string, unknown> | undefined
  for (const [name, inner] of allowed.inner) {
    if (!Object.hasOwn(value, name)) continue
    const found = pick((value as Record<string, unknown>)[name], inner, depth + 1)
    if (found === undefined) continue
    shown ??= {}
    shown[name] = found
  }
  return shown
}

function hidden (value: unknown, kind: Kind): unknown {
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') return undefined
  if (typeof value === 'boolean') return value
  if (kind === 'plain') return typeof value === 'number' && Math.abs(value) < 1e12 ? value : maskText(String(value))
  const text = String(value)
  if (kind === 'phone') return /^\+?\d{8,15}$/.test(text) ? maskMsisdn(text) : '[hidden]'
  if (kind === 'account') return text.length <= 6 ? '[hidden]' : `${'*'.repeat(Math.min(30, text.length - 4))}${text.slice(-4)}`
  return text.slice(0, AUDIT_TEXT_CHARS_MAX).replace(/(\p{L})[\p{L}\p{M}'.-]*/gu, '$1*')
}

/** A text for rows and logs: one line, cut, every run of 13 to 19 digits (also written with spaces or hyphens) as 6+4. */
export function maskText (text: string): string {
  if (text.length < 13 && !CONTROL.test(text)) return text
  const line = text.slice(0, 5 * AUDIT_TEXT_CHARS_MAX).replace(/[\u0000-\u001f\u007f]+/g, ' ')
  const masked = line.replace(/\d(?:[ -]?\d){12,}/g, run => {
    const digits = run.replace(/\D/g, '')
    return `${digits.slice(0, 6)}${'*'.repeat(digits.length - 10)}${digits.slice(-4)}`
  })
  return masked.slice(0, AUDIT_TEXT_CHARS_MAX) // Cut last: a cut number would be too short to be seen as one.
}
