// What differs between the versions of the standard, and how an answer is made from its request.
//
//   | meaning          | 1987       | 1993 and 2003 |
//   | response         | DE 39 an2  | DE 39 n3, action codes |
//   | network function | DE 70      | DE 24, function codes  |
// The rest of this folder speaks 1987; here it is translated.
import { ERRORS, isSoundboxError } from '../../protocol/index.js'
import { answerMti, type Message } from '../../protocol/iso8583/index.js'

/** DE 39 of ISO 8583:1987, as far as this side answers with it. */
export const RESPONSE_CODES = ['00', '03', '12', '13', '30', '58', '91', '94', '96'] as const
export type ResponseCode = typeof RESPONSE_CODES[number]

/** ISO 8583:1993 action codes. */
const ACTION_CODES: Record<ResponseCode, string> = { '00': '000', '03': '109', 12: '902', 13: '110', 30: '904', 58: '120', 91: '907', 94: '913', 96: '909' }
/** 1993 has an "accepted" of its own for reversals and for network management. */
const ACCEPTED: Readonly<Record<string, string>> = { 4: '400', 8: '800' }

export const NETWORK_CODES = { signOn: '001', signOff: '002', keyExchange: '101', echo: '301' } as const
export type NetworkCode = typeof NETWORK_CODES[keyof typeof NETWORK_CODES]
const FUNCTION_CODES: Record<NetworkCode, string> = { '001': '801', '002': '802', 101: '811', 301: '831' }

/** Fields of a request that stand unchanged in its answer. */
const ECHOED: Readonly<Record<string, true>> = Object.fromEntries(
  [2, 3, 4, 7, 11, 12, 13, 24, 32, 33, 37, 41, 42, 49, 70, 90, 100, 102].map(number => [number, true]))

/** Network management: sign-on, sign-off, key exchange, echo. */
export function isNetwork (mti: string): boolean {
  return mti.charCodeAt(1) === 0x38
}

/** An advice: it tells what has happened, and is repeated until it is acknowledged. */
export function isAdvice (mti: string): boolean {
  return mti.charCodeAt(2) === 0x32
}

/** The answer to a request: MTI + 10, the echoed fields, DE 39, and what else it says. */
export function answerTo (request: Message, code: ResponseCode, more?: Readonly<Record<string, string>>): Message {
  const fields: Record<string, string> = {}
  const given = request.fields
  for (const key of Object.keys(given)) {
    if (ECHOED[key] === true) fields[key] = given[key]!
  }
  fields['39'] = responseText(request.mti, code)
  if (more !== undefined) Object.assign(fields, more)
  return { mti: answerMti(request.mti), fields }
}

function responseText (mti: string, code: ResponseCode): string {
  if (mti.charCodeAt(0) === 0x30) return code
  return code === '00' ? ACCEPTED[mti.charAt(1)] ?? ACTION_CODES[code] : ACTION_CODES[code]
}

/** True if DE 39 of an answer says yes, in either version's words. */
export function isApproved (answer: Message): boolean {
  return ['00', '000', '400', '800'].includes(answer.fields['39'] ?? '')
}

/** DE 39 for an error: its own code in the error table, 96 for one that has none there. */
export function codeOfError (error: unknown): ResponseCode {
  const iso = isSoundboxError(error) ? ERRORS[error.code].iso : null
  return RESPONSE_CODES.find(code => code === iso) ?? '96'
}

/** What a network management message is about, in 1987's numbers; undefined when it does not say or is none of ours. */
export function networkCodeOf (message: Message): NetworkCode | undefined {
  const plain = message.fields['70']
  const asked = plain ?? (Object.entries(FUNCTION_CODES).find(([, code]) => code === message.fields['24'])?.[0])
  return Object.values(NETWORK_CODES).find(code => code === asked)
}

export type NetworkStamp = { version: string, stan: number, nowMs: number }

/** A network management request of ours. `version`: first digit of the MTI; `stan` 1 to 999999. */
export function networkRequest (code: NetworkCode, { version, stan, nowMs }: NetworkStamp, more: Readonly<Record<string, string>> = {}): Message {
  const about: Record<string, string> = version === '0' ? { 70: code } : { 24: FUNCTION_CODES[code] }
  return { mti: `${version}800`, fields: { 7: transmissionTime(nowMs), 11: formatStan(stan), ...about, ...more } }
}

/** DE 7: MMDDhhmmss, UTC. */
export function transmissionTime (nowMs: number): string {
  return new Date(nowMs).toISOString().replace(/\D/g, '').slice(4, 14)
}

/** DE 11 of a number from 1 to 999999. */
export function formatStan (stan: number): string {
  return String(stan).padStart(6, '0')
}

/** Trace numbers 1 to 999999, round and round, from a first one on. */
export function openStans (first: number): () => number {
  let last = first - 1
  return () => {
    last = last % 999_999 + 1
    return last
  }
}
