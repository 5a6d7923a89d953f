// Field readers that every decoder of JSON messages uses: strict about what is read, and a refusal names the field and its form.
import { SoundboxError } from './errors.js'

/** Digits, letters and plain punctuation, 1 to 64: names, versions, reasons. */
export const WORD = /^[\w .,:/+-]{1,64}$/

/** The text in a field. Throws MESSAGE_INVALID unless it is a string of this shape. */
export function text (m: Record<string, unknown>, field: string, shape: RegExp): string {
  const value = m[field]
  if (typeof value !== 'string' || !shape.test(value)) throw invalid(`${field} must be a text of the form ${shape.source}`)
  return value
}

/** The whole number in a field. Throws MESSAGE_INVALID outside min..max. */
export function whole (m: Record<string, unknown>, field: string, min: number, max: number): number {
  const value = m[field]
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw invalid(`${field} must be a whole number from ${min} to ${max}`)
  }
  return value
}

/** The word in a field. Throws MESSAGE_INVALID for any but the listed ones. */
export function oneOf<T extends string> (m: Record<string, unknown>, field: string, words: readonly T[]): T {
  const value = m[field]
  const found = words.find(word => word === value)
  if (found === undefined) throw invalid(`${field} must be one of ${words.join(', ')}`)
  return found
}

/** The truth value in a field. Throws MESSAGE_INVALID for anything else. */
export function flag (m: Record<string, unknown>, field: string): boolean {
  const value = m[field]
  if (typeof value !== 'boolean') throw invalid(`${field} must be true or false`)
  return value
}

/** The list of texts in a field. Throws MESSAGE_INVALID for more than `max`, or one of another shape. */
export function texts (m: Record<string, unknown>, field: string, shape: RegExp, max: number): readonly string[] {
  const value = m[field]
  const isRight = Array.isArray(value) && value.length <= max && value.every(one => typeof one === 'string' && shape.test(one))
  if (!isRight) throw invalid(`${field} must be a list of at most ${max} texts of the form ${shape.source}`)
  return value as string[]
}

/** MESSAGE_INVALID with its reason. */
export function invalid (why: string): SoundboxError {
  return new SoundboxError('MESSAGE_INVALID', why)
}
