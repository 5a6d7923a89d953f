// Which field may be seen in a log and how: 6 + 4 digits of a card number; PIN, track, chip and verification data never; text for private
// use (it carries names, phone numbers, CVV2) only its length, unless the spec says `clear`.
import type { MaskMode } from './spec-json.js'
import type { FieldType } from './tables.js'

/** Track 2, track 3, track 1, PIN, chip data: a spec cannot make these visible. */
const NEVER = new Set([35, 36, 45, 52, 55])
/** Expiry date, additional and private data, keys. */
const HIDDEN = new Set([14, 44, 46, 47, 48, 53, 54, 56, 57, 58, 59, 60, 61, 62, 63, 72, 96])
const FIRST_PRIVATE = 104
const ACCOUNTS = new Set([102, 103])
const PANS = new Set([2, 34])
const PAN_DIGITS_MIN = 13
const CARD_IN_TEXT = /\d{13,19}/g

/** The mask of a field: what the spec asks for, else the default of the number. Undefined if the spec asks for less than is allowed. */
export function maskOf (number: number, type: FieldType, asked: MaskMode | undefined): MaskMode | undefined {
  if (NEVER.has(number) || type === 'z') return asked === undefined || asked === 'hidden' ? 'hidden' : undefined
  if (PANS.has(number)) return asked === undefined ? 'pan' : asked === 'pan' || asked === 'hidden' ? asked : undefined
  if (asked !== undefined) return asked
  if (ACCOUNTS.has(number)) return 'last4'
  return type === 'b' || HIDDEN.has(number) || number >= FIRST_PRIVATE ? 'hidden' : 'clear'
}

/** A value under its mask, printable whatever it holds. Card numbers that stand in a clear text are masked as well. */
export function maskValue (value: string, mask: MaskMode, type: FieldType): string {
  switch (mask) {
    case 'hidden': return `[${value.length} characters]`
    case 'pan': return maskPan(value)
    case 'last4': return value.length > 8 ? '*'.repeat(value.length - 4) + printable(value.slice(-4)) : '*'.repeat(value.length)
    case 'clear': return printable(type === 'n' || type === 'xn' ? value : value.replace(CARD_IN_TEXT, run => isLuhn(run) ? maskPan(run) : run))
    default: return mask satisfies never
  }
}

/** `476173******0119`; anything too short to be a card number is masked whole. */
function maskPan (pan: string): string {
  if (pan.length < PAN_DIGITS_MIN) return '*'.repeat(pan.length)
  return printable(pan.slice(0, 6)) + '*'.repeat(pan.length - 10) + printable(pan.slice(-4))
}

function printable (text: string): string {
  return text.replace(/[^ -~]/g, '?')
}

/** ISO/IEC 7812-1 annex B: the check digit of card numbers. */
function isLuhn (digits: string): boolean {
  let sum = 0
  for (let fromRight = 0; fromRight < digits.length; fromRight++) {
    const digit = digits.charCodeAt(digits.length - 1 - fromRight) - 0x30
    const doubled = fromRight % 2 === 0 ? digit : digit * 2
    sum += doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}
