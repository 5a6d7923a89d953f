// Readers for a provider's answer, which is `unknown` until each field has been looked at. A wrong field is PROVIDER_RESPONSE_INVALID
// with the path of the field and what was expected; the value itself is never shown, it may be a name or an account.
import { SoundboxError } from '../../protocol/index.js'

export type Fields = Readonly<Record<string, unknown>>

/** The object at `path` (names joined by dots; '' = the value itself). Throws PROVIDER_RESPONSE_INVALID. */
export function objectAt (value: unknown, path = ''): Fields {
  const found = at(value, path)
  if (typeof found !== 'object' || found === null || Array.isArray(found)) throw wrong(path, 'an object')
  return found as Fields
}

/** The rows at `path`. An absent field or null is no row; a lone object is one row (XML has no lists). Throws PROVIDER_RESPONSE_INVALID. */
export function rowsAt (value: unknown, path = ''): Fields[] {
  const found = at(value, path)
  if (found === undefined || found === null || found === '') return []
  return (Array.isArray(found) ? found : [found]).map((row, index) => {
    if (typeof row !== 'object' || row === null || Array.isArray(row)) throw wrong(`${path}[${index}]`, 'an object')
    return row as Fields
  })
}

/** Text at `path`, trimmed; a number is written out. Throws PROVIDER_RESPONSE_INVALID when absent or empty. */
export function textAt (value: unknown, path: string): string {
  const found = optionalTextAt(value, path)
  if (found === null) throw wrong(path, 'text')
  return found
}

/** Text at `path`, or null when absent, null or blank. Throws PROVIDER_RESPONSE_INVALID for an object or a list. */
export function optionalTextAt (value: unknown, path: string): string | null {
  const found = at(value, path)
  if (found === undefined || found === null) return null
  if (typeof found !== 'string' && typeof found !== 'number' && typeof found !== 'boolean') throw wrong(path, 'text')
  if (typeof found === 'number' && !Number.isFinite(found)) throw wrong(path, 'text')
  if (typeof found === 'number' && Number.isInteger(found) && !Number.isSafeInteger(found)) throw wrong(path, 'text: it is a number that lost digits')
  const plain = String(found).trim()
  return plain === '' ? null : plain
}

/** Decimal text at `path`: `19.00`, `-3`, or a JSON number within the exact range. Throws PROVIDER_RESPONSE_INVALID. */
export function decimalAt (value: unknown, path: string): string {
  const found = optionalDecimalAt(value, path)
  if (found === null) throw wrong(path, 'a decimal amount')
  return found
}

/** As decimalAt, null when absent, null or blank. A JSON number gets two decimals: banks that send numbers send 19 for 19.00. */
export function optionalDecimalAt (value: unknown, path: string): string | null {
  const found = at(value, path)
  if (typeof found === 'number') {
    if (!Number.isFinite(found) || Math.abs(found) > 9e12) throw wrong(path, 'a decimal amount')
    return found.toFixed(2)
  }
  const plain = optionalTextAt(value, path)
  if (plain !== null && !/^-?\d{1,15}(?:\.\d{1,4})?$/.test(plain)) throw wrong(path, 'a decimal amount')
  return plain
}

/** True or false at `path`; the texts true/false, yes/no, Y/N, 1/0 count. Absent = `otherwise`. Throws PROVIDER_RESPONSE_INVALID. */
export function booleanAt (value: unknown, path: string, otherwise: boolean): boolean {
  const plain = optionalTextAt(value, path)?.toLowerCase()
  if (plain === undefined) return otherwise
  if (['true', 'yes', 'y', '1'].includes(plain)) return true
  if (['false', 'no', 'n', '0'].includes(plain)) return false
  throw wrong(path, 'true or false')
}

/** The normalised word for a provider's word, matched without regard to case; `otherwise` for any other. */
export function wordFrom<W extends string> (word: string | null, words: Readonly<Record<string, W>>, otherwise: W): W {
  const key = word?.toUpperCase() ?? ''
  return Object.hasOwn(words, key) ? words[key] ?? otherwise : otherwise
}

function at (value: unknown, path: string): unknown {
  let found = value
  for (const name of path === '' ? [] : path.split('.')) {
    if (typeof found !== 'object' || found === null || !Object.hasOwn(found, name)) return undefined
    found = (found as Record<string, unknown>)[name]
  }
  return found
}

function wrong (path: string, expected: string): SoundboxError {
  return new SoundboxError('PROVIDER_RESPONSE_INVALID', `the answer has no ${expected} at ${path === '' ? 'its root' : path}`)
}
