// What may be done with a request that had no answer: sent again, told again, or taken back. Pure.
//
//   again     questions and network management: nothing is changed by asking twice
//   repeat    advices (and reversals, which are advices): told until acknowledged, with the MTI of a repeat
//   reverse   everything that moves money: never sent twice; when its outcome is unknown, a reversal follows
import type { Message } from '../../protocol/iso8583/index.js'
import { formatStan, isAdvice, isNetwork, transmissionTime } from './dialect.js'
import { BALANCE_CODE, processingCode, STATEMENT_CODE } from './payment.js'

export type Safety = 'again' | 'repeat' | 'reverse'
export type Backoff = { firstMs: number, maxMs: number }

/** Fields of a request that its reversal carries as they are. */
const CARRIED = ['2', '3', '4', '12', '13', '14', '18', '22', '23', '25', '32', '33', '35', '37', '41', '42', '43', '49']

export function safetyOf (message: Message): Safety {
  if (isAdvice(message.mti)) return 'repeat'
  const code = processingCode(message)
  return isNetwork(message.mti) || code === BALANCE_CODE || code === STATEMENT_CODE ? 'again' : 'reverse'
}

/** The message as a repeat: 0220 -> 0221, 0420 -> 0421. */
export function repeatOf (message: Message): Message {
  return { ...message, mti: `${message.mti.slice(0, 3)}${Number(message.mti.charAt(3)) | 1}` }
}

/** The reversal advice of a request whose outcome is unknown. `stan` 1 to 999999. Original data in DE 90 (1987) or DE 56 (1993). */
export function reversalOf (request: Message, { stan, nowMs }: { stan: number, nowMs: number }): Message {
  const { mti, fields } = request
  const carried = Object.fromEntries(CARRIED.flatMap(key => fields[key] === undefined ? [] : [[key, fields[key]]]))
  const padded = (key: string): string => (fields[key] ?? '').padStart(11, '0')
  const original: Record<string, string> = mti.startsWith('0')
    ? { 90: `${mti}${fields['11'] ?? '000000'}${fields['7'] ?? '0000000000'}${padded('32')}${padded('33')}` }
    : { 24: '400', 56: `${mti}${fields['11'] ?? '000000'}${(fields['12'] ?? '').padStart(12, '0')}` }
  return { mti: `${mti.charAt(0)}420`, fields: { ...carried, 7: transmissionTime(nowMs), 11: formatStan(stan), ...original } }
}

/** Wait before attempt number `attempt` (0 = the first repeat): anything up to twice the one before, so that many clients do not come back at once. `random` 0 to 1. */
export function backoffMs (attempt: number, { firstMs, maxMs }: Backoff, random: () => number): number {
  return Math.floor(random() * Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 30)))
}
