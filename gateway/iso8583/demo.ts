// The demo request handler: what a small issuer would answer, without bank or soundbox. For trying a switch, and as the example of what a
// handler is: a function from a request to its answer, which throws what the error table turns into DE 39.
import { SoundboxError } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import { answerTo } from './dialect.js'
import { BALANCE_CODE, paymentFromIso, processingCode, STATEMENT_CODE } from './payment.js'
import type { Cbs } from './cbs.js'

/** Every merchant is known but this one. */
export const DEMO_STRANGER = 'no-such-shop'
const REVERSAL = '4'

/** Approves payments (with an approval code in DE 38), advices and reversals; balance and statement as `cbs` says; 12 for the rest. */
export function demoHandler (cbs: Cbs): (request: Message) => Promise<Message> {
  return async request => {
    const kind = request.mti.charAt(1)
    const code = processingCode(request)
    if (kind === REVERSAL) return answerTo(request, '00')
    if (kind !== '1' && kind !== '2') return answerTo(request, '12')
    if (code === BALANCE_CODE || code === STATEMENT_CODE) {
      const reply = await cbs(request)
      return answerTo(request, reply.code, reply.fields)
    }
    if (paymentFromIso(request).merchant === DEMO_STRANGER) throw new SoundboxError('VPA_UNKNOWN', 'the demo does not know this merchant')
    return answerTo(request, '00', { 38: request.fields['11'] ?? '' })
  }
}
