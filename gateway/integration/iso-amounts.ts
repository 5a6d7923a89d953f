// Balances and entries inside ISO 8583 fields, as text.
//
// DE 54 (ISO 8583:1987), up to six blocks of 20:
//   account type 2 | amount type 2 | currency 3 (ISO 4217 numeric) | sign C or D | amount 12 (minor units of that currency)
//
// Mini statement rows have no standard; switches agree on a layout. Ours, in DE 125 unless the profile names another, up to 15 rows of 62:
//   date YYMMDD | time hhmmss (UTC) | C or D | amount 12 | reference 12 | narration 25, left justified, space filled
import { SoundboxError } from '../../protocol/index.js'

export const DE54_BLOCKS_MAX = 6
export const ISO_STATEMENT_ROWS_MAX = 15
const BLOCK = /^(\d{2})(\d{2})(\d{3})([CD])(\d{12})$/
const BLOCK_CHARS = 20
const ROW_CHARS = 62
const ROW = /^(\d{6})(\d{6})([CD])(\d{12})([ -~]{12})([ -~]{25})$/

/** Amount types of DE 54 in use here. */
export const AMOUNT_LEDGER = '01'
export const AMOUNT_AVAILABLE = '02'

/** ISO 4217: numeric code and digits after the point, for the currencies of the countries served. */
const CURRENCIES: Readonly<Record<string, { numeric: string, digits: number }>> = {
  INR: { numeric: '356', digits: 2 }, TZS: { numeric: '834', digits: 2 }, KES: { numeric: '404', digits: 2 }, UGX: { numeric: '800', digits: 0 }, RWF: { numeric: '646', digits: 0 },
  NGN: { numeric: '566', digits: 2 }, GHS: { numeric: '936', digits: 2 }, ZMW: { numeric: '967', digits: 2 }, ZAR: { numeric: '710', digits: 2 }, BDT: { numeric: '050', digits: 2 },
  LKR: { numeric: '144', digits: 2 }, NPR: { numeric: '524', digits: 2 }, AED: { numeric: '784', digits: 2 }, USD: { numeric: '840', digits: 2 }, EUR: { numeric: '978', digits: 2 },
  GBP: { numeric: '826', digits: 2 }
}

/** `amount`: decimal text in major units, negative for D. */
export type IsoBalance = { accountType: string, amountType: string, currency: string, amount: string }
export type IsoEntry = { bookedAt: string, drCr: 'DR' | 'CR', amount: string, reference: string, narration: string }

/** Balances of DE 54. Throws PROVIDER_RESPONSE_INVALID naming the block that is wrong. */
export function parseAdditionalAmounts (text: string): IsoBalance[] {
  const blocks = Math.ceil(text.length / BLOCK_CHARS)
  if (text === '' || text.length % BLOCK_CHARS !== 0 || blocks > DE54_BLOCKS_MAX) {
    throw invalid(`DE 54 must hold 1 to ${DE54_BLOCKS_MAX} blocks of ${BLOCK_CHARS} characters, it has ${text.length}`)
  }
  return Array.from({ length: blocks }, (_, index) => {
    const [, accountType = '', amountType = '', numeric = '', sign = '', digits = ''] = BLOCK.exec(text.slice(index * BLOCK_CHARS, (index + 1) * BLOCK_CHARS)) ?? []
    const currency = currencyFromNumeric(numeric)
    if (accountType === '' || currency === undefined) throw invalid(`DE 54 block ${index + 1} is not account type, amount type, known currency, C or D, 12 digits`)
    return { accountType, amountType, currency, amount: decimalFromDigits(digits, currency, sign) }
  })
}

/** DE 54 of balances. Throws INPUT_INVALID for an unknown currency, an amount beyond 12 digits and above DE54_BLOCKS_MAX. */
export function formatAdditionalAmounts (balances: readonly IsoBalance[]): string {
  if (balances.length > DE54_BLOCKS_MAX) throw new SoundboxError('INPUT_INVALID', `DE 54 takes ${DE54_BLOCKS_MAX} balances at most`)
  return balances.map(({ accountType, amountType, currency, amount }) =>
    `${accountType}${amountType}${currencyOf(currency).numeric}${amount.startsWith('-') ? 'D' : 'C'}${digitsFromDecimal(amount, currency)}`).join('')
}

/** Entries of a mini statement field, in the order they stand. Throws PROVIDER_RESPONSE_INVALID naming the row that is wrong. */
export function parseStatementRows (text: string, currency: string): IsoEntry[] {
  const padded = text.padEnd(Math.ceil(text.length / ROW_CHARS) * ROW_CHARS, ' ') // Some stacks strip the spaces at the end of a field.
  const rows = padded.length / ROW_CHARS
  if (rows > ISO_STATEMENT_ROWS_MAX) throw invalid(`the statement field holds more than ${ISO_STATEMENT_ROWS_MAX} rows`)
  return Array.from({ length: rows }, (_, index) => {
    const [, date = '', time = '', side, digits = '', reference = '', narration = ''] = ROW.exec(padded.slice(index * ROW_CHARS, (index + 1) * ROW_CHARS)) ?? []
    const bookedAt = instantFromDigits(date, time)
    if (bookedAt === undefined) throw invalid(`statement row ${index + 1} is not date, time, C or D, 12 digits, reference and narration`)
    return { bookedAt, drCr: side === 'D' ? 'DR' : 'CR', amount: decimalFromDigits(digits, currency, 'C'), reference: reference.trimEnd(), narration: narration.trimEnd() }
  })
}

/** The mini statement field of entries; texts are cut to their width and to printable ASCII. Throws INPUT_INVALID above ISO_STATEMENT_ROWS_MAX. */
export function formatStatementRows (entries: readonly IsoEntry[], currency: string): string {
  if (entries.length > ISO_STATEMENT_ROWS_MAX) throw new SoundboxError('INPUT_INVALID', `a statement field takes ${ISO_STATEMENT_ROWS_MAX} rows at most`)
  return entries.map(({ bookedAt, drCr, amount, reference, narration }) => {
    const [date = '', time = ''] = new Date(bookedAt).toISOString().split('T')
    return `${date.slice(2).replaceAll('-', '')}${time.slice(0, 8).replaceAll(':', '')}${drCr === 'DR' ? 'D' : 'C'}${digitsFromDecimal(amount, currency)}` +
      plainText(reference, 12) + plainText(narration, 25)
  }).join('')
}

/** `356` -> `INR`, or undefined. */
export function currencyFromNumeric (numeric: string): string | undefined {
  return Object.entries(CURRENCIES).find(([, row]) => row.numeric === numeric)?.[0]
}

function currencyOf (currency: string): { numeric: string, digits: number } {
  const found = Object.hasOwn(CURRENCIES, currency) ? CURRENCIES[currency] : undefined
  if (found === undefined) throw new SoundboxError('INPUT_INVALID', 'the currency has no ISO 4217 number here')
  return found
}

function decimalFromDigits (digits: string, currency: string, sign: string): string {
  const { digits: places } = currencyOf(currency)
  const whole = digits.slice(0, digits.length - places).replace(/^0+(?=\d)/, '')
  const plain = places === 0 ? whole : `${whole}.${digits.slice(-places)}`
  return sign === 'D' && /[1-9]/.test(plain) ? `-${plain}` : plain
}

function digitsFromDecimal (amount: string, currency: string): string {
  const { digits: places } = currencyOf(currency)
  const [, whole = '', fraction = ''] = /^-?(\d+)(?:\.(\d+))?$/.exec(amount) ?? []
  const digits = `${whole}${fraction.slice(0, places).padEnd(places, '0')}`.replace(/^0+/, '')
  if (whole === '' || /[1-9]/.test(fraction.slice(places)) || digits.length > 12) {
    throw new SoundboxError('INPUT_INVALID', `an amount must be decimal text of at most 12 digits with ${places} after the point`)
  }
  return digits.padStart(12, '0')
}

function instantFromDigits (date: string, time: string): string | undefined {
  if (date === '') return undefined
  const text = `20${date.slice(0, 2)}-${date.slice(2, 4)}-${date.slice(4)}T${time.slice(0, 2)}:${time.slice(2, 4)}:${time.slice(4)}Z`
  const ms = Date.parse(text)
  return Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== text.slice(0, 10) ? undefined : text
}

function plainText (text: string, width: number): string {
  return text.replace(/[^ -~]/g, '?').slice(0, width).padEnd(width, ' ')
}

function invalid (message: string): SoundboxError {
  return new SoundboxError('PROVIDER_RESPONSE_INVALID', message)
}
