// Amounts are integer minor units (paise) in a JavaScript number: the largest, 99,99,99,999.99 rupees, is far below 2^53.
import { SoundboxError } from './errors.js'

/** 99,99,99,999.99 rupees in paise: the largest amount that every language words without "arab". */
export const AMOUNT_MINOR_MAX = 99_999_999_999
const AMOUNT_TEXT = /^(?:0|[1-9]\d{0,8})(?:\.\d{1,2})?$/
const MINOR_TEXT = /^[1-9]\d{0,10}$/
const LEADING_ZEROS = /^0+(?=\d)/

/**
 * Paise of a rupee amount as banks write it: `19`, `19.5`, `19.00`, leading zeros allowed. No sign, no exponent, no grouping.
 * Throws AMOUNT_INVALID for any other text, for zero and above AMOUNT_MINOR_MAX.
 */
export function parseAmount (text: string): number {
  const plain = text.length <= 24 ? text.replace(LEADING_ZEROS, '') : text
  if (!AMOUNT_TEXT.test(plain)) throw new SoundboxError('AMOUNT_INVALID', 'amount must be rupees with at most two decimals, up to 999999999.99')
  const dot = plain.indexOf('.')
  const rupees = Number(dot < 0 ? plain : plain.slice(0, dot))
  const paise = dot < 0 ? 0 : Number(plain.slice(dot + 1).padEnd(2, '0'))
  const minor = rupees * 100 + paise
  if (minor === 0) throw new SoundboxError('AMOUNT_INVALID', 'amount must be above zero')
  return minor
}

/** Paise of a decimal string of minor units, as it stands in announcements and in ISO 8583 DE 4. Throws AMOUNT_INVALID. */
export function parseMinor (text: string): number {
  const plain = text.length <= 24 ? text.replace(LEADING_ZEROS, '') : text
  if (!MINOR_TEXT.test(plain)) throw new SoundboxError('AMOUNT_INVALID', 'amount must be a whole number of minor units from 1 to 99999999999')
  return Number(plain)
}

/** `1900` -> `19.00`: rupees.paise without grouping, for histories and answers. */
export function formatAmount (amountMinor: number): string {
  const paise = amountMinor % 100
  return `${(amountMinor - paise) / 100}.${paise < 10 ? '0' : ''}${paise}`
}

/** `12345678900` -> `12,34,56,789.00`: Indian 2-2-3 grouping, for people. */
export function formatAmountGrouped (amountMinor: number): string {
  const [rupees = '0', paise = '00'] = formatAmount(amountMinor).split('.')
  const head = rupees.slice(0, -3)
  const grouped = head === '' ? rupees : `${head.replace(/\B(?=(\d{2})+$)/g, ',')},${rupees.slice(-3)}`
  return `${grouped}.${paise}`
}
