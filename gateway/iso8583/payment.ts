// A financial message as a payment: which fields are read, what they must hold, and by what name the payment is known for ever. Pure.
//
//   DE 3   processing code: 00 purchase, 26 and 28 credit notices are payments; 31 balance and 38 mini statement are questions
//   DE 4   amount in minor units     DE 49 currency, 356 (rupees, also when absent): the only one that is worded
//   DE 42  merchant: spaces at the end cut off, lower-cased, as `merchant map` stores it     DE 41 terminal
//   name   RRN - STAN - terminal - DE 7, of DE 37, 11, 41 and 7
import { parseMinor, SoundboxError } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'

export const PAYMENT_CODES: readonly string[] = ['00', '26', '28']
export const BALANCE_CODE = '31'
export const STATEMENT_CODE = '38'
const RUPEES = { numeric: '356', currency: 'INR' }
const DE7_DIGITS = 10
const DE90 = /^\d{4}(\d{6})(\d{10})\d{22}$/
const DE56_1993 = /^\d{4}(\d{6})\d{12}/

export type IsoPayment = { transactionId: string, merchant: string, terminal: string, amountMinor: number, currency: string, txnType: string }
/** `prefix` of a transaction id, and its DE 7, null if the message does not tell it. */
export type OriginalName = { prefix: string, transmission: string | null }

/** What a 0200, 0220 or a reversal says of its payment. Throws FIELD_INVALID, AMOUNT_INVALID, ISO_NOT_SUPPORTED. */
export function paymentFromIso (message: Message): IsoPayment {
  const { fields } = message
  if (!PAYMENT_CODES.includes(processingCode(message))) throw new SoundboxError('ISO_NOT_SUPPORTED', 'DE 3 is no payment: 00, 26 and 28 are')
  if ((fields['49'] ?? RUPEES.numeric) !== RUPEES.numeric) throw new SoundboxError('ISO_NOT_SUPPORTED', `DE 49 must be ${RUPEES.numeric}: no other currency is worded`)
  return {
    transactionId: `${namePrefix(message, needed(message, '11'))}${needed(message, '7')}`,
    merchant: merchantOf(message), terminal: terminalOf(message), amountMinor: parseMinor(needed(message, '4')), currency: RUPEES.currency, txnType: txnTypeOf(message)
  }
}

/** First two digits of DE 3. */
export function processingCode ({ fields }: Message): string {
  return (fields['3'] ?? '').slice(0, 2)
}

/** DE 42 as merchants are mapped. Throws FIELD_INVALID when it is absent or blank. */
export function merchantOf (message: Message): string {
  return needed(message, '42').toLowerCase()
}

/** DE 41, or '' when absent. */
export function terminalOf ({ fields }: Message): string {
  return (fields['41'] ?? '').trimEnd()
}

/** The name of the payment that a reversal is about: DE 90 (1987), DE 56 (1993), else its own trace number and time. Throws FIELD_INVALID. */
export function originalOf (message: Message): OriginalName {
  const { fields, mti } = message
  const [, stan = '', transmission = ''] = DE90.exec(fields['90'] ?? '') ?? []
  if (/[1-9]/.test(stan) && /[1-9]/.test(transmission)) return { prefix: namePrefix(message, stan), transmission }
  const stan1993 = mti.startsWith('0') ? undefined : DE56_1993.exec(fields['56'] ?? '')?.[1]
  return { prefix: namePrefix(message, stan1993 ?? needed(message, '11')), transmission: null }
}

/** True if the name is the prefix and a DE 7: a terminal's own name may hold a `-`. */
export function isNamed (transactionId: string, prefix: string): boolean {
  return transactionId.length === prefix.length + DE7_DIGITS && transactionId.startsWith(prefix) && /^\d+$/.test(transactionId.slice(prefix.length))
}

/** True for a reversal of a part of the amount (DE 95, actual amount above zero). */
export function isPartialReversal ({ fields }: Message): boolean {
  return /[1-9]/.test((fields['95'] ?? '').slice(0, 12))
}

/** At most 47 characters, 57 with DE 7; digits, letters and what a terminal may be called, no space. RRN and STAN hold no `-`, so the parts stay apart. */
function namePrefix (message: Message, stan: string): string {
  const rrn = (message.fields['37'] ?? '').trimEnd()
  const terminal = terminalOf(message)
  if (!/^[0-9A-Za-z ]*$/.test(rrn)) throw new SoundboxError('FIELD_INVALID', 'DE 37 must be letters, digits and spaces')
  if (!/^[ -~]*$/.test(terminal)) throw new SoundboxError('FIELD_INVALID', 'DE 41 must be printable ASCII')
  return `${spaceless(rrn)}-${stan}-${spaceless(terminal)}-`
}

function spaceless (text: string): string {
  return text.replace(/[ %]/g, character => character === ' ' ? '%_' : '%%')
}

/** UPI credit notices; QR by the entry mode of DE 22 (03 bar code); else a card. */
function txnTypeOf (message: Message): string {
  if (processingCode(message) !== '00') return 'UPI'
  return (message.fields['22'] ?? '').startsWith('03') ? 'QR' : 'CARD'
}

function needed ({ fields }: Message, number: string): string {
  const value = (fields[number] ?? '').trimEnd()
  if (value === '') throw new SoundboxError('FIELD_INVALID', `DE ${number} is mandatory`)
  return value
}
