// The four digits of a message type indicator: version, class, function, origin (ISO 8583:1987, :1993 and :2003, annex on MTI).
import { Iso8583Error } from './failure.js'

const VERSIONS: Record<string, MtiVersion> = { 0: '1987', 1: '1993', 2: '2003', 8: 'national', 9: 'private' }
const CLASSES = [
  undefined, 'authorization', 'financial', 'file action', 'reversal or chargeback', 'reconciliation', 'administrative', 'fee collection', 'network management'
] as const
const FUNCTIONS = ['request', 'request response', 'advice', 'advice response', 'notification', 'notification acknowledgement', 'instruction', 'instruction acknowledgement'] as const
const ORIGINS = ['acquirer', 'acquirer repeat', 'issuer', 'issuer repeat', 'other', 'other repeat'] as const

export type MtiVersion = '1987' | '1993' | '2003' | 'national' | 'private'
export type MtiClass = Exclude<typeof CLASSES[number], undefined>
export type MtiFunction = typeof FUNCTIONS[number]
export type MtiOrigin = typeof ORIGINS[number]
export type MtiParts = { version: MtiVersion, class: MtiClass, function: MtiFunction, origin: MtiOrigin }

/** What an MTI says, or undefined if it is not four digits or one of them is reserved. */
export function parseMti (mti: string): MtiParts | undefined {
  if (!/^\d{4}$/.test(mti)) return undefined
  const version = VERSIONS[mti.charAt(0)]
  const kind = CLASSES[Number(mti.charAt(1))]
  const role = FUNCTIONS[Number(mti.charAt(2))]
  const origin = ORIGINS[Number(mti.charAt(3))]
  if (version === undefined || kind === undefined || role === undefined || origin === undefined) return undefined
  return { version, class: kind, function: role, origin }
}

/** True for a request, advice, notification or instruction, which may be answered; false for an answer and for reserved digits. */
export function isMtiRequest (mti: string): boolean {
  const parts = parseMti(mti)
  return parts !== undefined && Number(mti.charAt(2)) % 2 === 0
}

/**
 * The MTI that answers one: 0200 -> 0210, 0421 -> 0430 (an answer to a repeat is no repeat), 0800 -> 0810.
 * Throws ISO_PACK_INVALID for an answer and for anything that `parseMti` does not know.
 */
export function answerMti (mti: string): string {
  if (isMtiRequest(mti)) return `${mti.slice(0, 2)}${Number(mti.charAt(2)) + 1}${Number(mti.charAt(3)) & ~1}`
  throw new Iso8583Error('ISO_PACK_INVALID', { reason: 'mti', path: 'mti', expected: 'the MTI of a request', found: parseMti(mti) === undefined ? 'no known MTI' : 'the MTI of an answer' })
}
