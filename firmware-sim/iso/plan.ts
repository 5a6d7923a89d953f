// What the simulated switch does next, and what must come back. Pure: a seed makes the same plan every time.
//
// Every message is one exchange with its own trace number; an exchange may have messages before it that it depends on (a payment before its
// repeat), so a step is a list of exchanges that are done one after the other on one connection.
import type { Message } from '../../protocol/iso8583/index.js'

/** How the bytes of an exchange go out. `cut`: the connection is cut after writing, and the repeat comes over a new one. */
export type Delivery = 'whole' | 'slow' | 'split' | 'cut'
/** `code`: DE 39 that must come. A broken exchange has no answer: the other side must close the connection, or answer 30 where it is told to. */
export type Exchange = { kind: string, message: Message, code: string, delivery: Delivery } | Broken
export type Broken = { kind: 'broken', what: 'garbage' | 'length' | 'truncated', message: Message }
export type Step = readonly Exchange[]

export type PlanOptions = {
  merchant: string
  terminal: string
  /** A merchant that the gateway does not know. */
  stranger: string
  /** An account for balance and statement; null = none is asked for. */
  account: string | null
  faults: boolean
  random: () => number
  /** Wall clock of DE 7, 12 and 13. */
  nowMs: () => number
}
export type Plan = { next: () => Step }

/** Payments that may still be reversed. */
const SETTLED_MAX = 64
/** Above it are the trace numbers of sign-ons. */
export const TRACE_MAX = 998_999

/** Trace numbers count from a random one, so that a second run does not repeat the first. */
export function openPlan (options: PlanOptions): Plan {
  const { random, faults } = options
  let trace = Math.floor(random() * TRACE_MAX)
  const settled: Message[] = []
  const nextTrace = (): string => {
    trace = trace % TRACE_MAX + 1
    return String(trace).padStart(6, '0')
  }
  const paid = (message: Message): Message => {
    settled.push(message)
    if (settled.length > SETTLED_MAX) settled.shift()
    return message
  }
  const makers: readonly (readonly [weight: number, make: () => Step])[] = [
    [50, () => [right('purchase', paid(payment(options, nextTrace())), '00')]],
    [8, () => creditNotice(options, nextTrace(), paid)],
    [8, () => repeatedAdvice(paid(asAdvice(payment(options, nextTrace()))), 1 + Math.floor(random() * 3))],
    [6, () => reversalOfOne(settled, nextTrace, random)],
    [3, () => overtakingReversal(payment(options, nextTrace()), nextTrace())],
    [5, () => [right('echo', network('301', nextTrace(), options.nowMs()), '00')]],
    [options.account === null ? 0 : 4, () => question(options, nextTrace(), random() < 0.5 ? '310000' : '380000')],
    [4, () => refused(options, nextTrace(), random)],
    [faults ? 4 : 0, () => [{ kind: 'slow purchase', message: payment(options, nextTrace()), code: '00', delivery: 'slow' }]],
    [faults ? 4 : 0, () => [{ kind: 'split purchase', message: payment(options, nextTrace()), code: '00', delivery: 'split' }]],
    [faults ? 2 : 0, () => cutPurchase(payment(options, nextTrace()))],
    [faults ? 2 : 0, () => [{ kind: 'broken', what: (['garbage', 'length', 'truncated'] as const)[Math.floor(random() * 3)]!, message: payment(options, nextTrace()) }]]
  ]
  return { next: () => pick(makers, random)() }
}

function pick (makers: readonly (readonly [number, () => Step])[], random: () => number): () => Step {
  let left = random() * makers.reduce((sum, [weight]) => sum + weight, 0)
  for (const [weight, make] of makers) {
    left -= weight
    if (left < 0) return make
  }
  return makers[0]![1]
}

function right (kind: string, message: Message, code: string): Exchange {
  return { kind, message, code, delivery: 'whole' }
}

function creditNotice (options: PlanOptions, trace: string, paid: (message: Message) => Message): Step {
  const notice = payment(options, trace, { 3: options.random() < 0.5 ? '260000' : '280000', 22: '000' })
  return [right('credit notice', paid(asAdvice(notice)), '00')]
}

function repeatedAdvice (advice: Message, times: number): Step {
  const repeats = Array.from({ length: times }, () => right('advice repeat', { ...advice, mti: '0221' }, '00'))
  return [right('advice', advice, '00'), ...repeats]
}

/** The request is not answered as far as the switch knows: it says it again, as a repeat, over the next connection. */
function cutPurchase (message: Message): Step {
  return [{ kind: 'cut purchase', message, code: '00', delivery: 'cut' }, right('purchase repeat', { ...message, mti: '0201' }, '00')]
}

function reversalOfOne (settled: Message[], nextTrace: () => string, random: () => number): Step {
  const [original] = settled.splice(Math.floor(random() * settled.length), 1)
  if (original === undefined) return []
  const undo = reversal(original, nextTrace())
  return random() < 0.5 ? [right('reversal', undo, '00')] : [right('reversal advice', { ...undo, mti: '0420' }, '00'), right('reversal repeat', { ...undo, mti: '0421' }, '00')]
}

function overtakingReversal (original: Message, trace: string): Step {
  return [right('early reversal', { ...reversal(original, trace), mti: '0420' }, '00'), right('reversed purchase', original, '00')]
}

function question (options: PlanOptions, trace: string, code: string): Step {
  const message = payment(options, trace, { 3: code, 4: '000000000000', 102: options.account ?? '' })
  return [right(code === '310000' ? 'balance' : 'mini statement', message, '00')]
}

function refused (options: PlanOptions, trace: string, random: () => number): Step {
  const rows: readonly (readonly [string, string, Record<string, string>])[] = [
    ['unknown merchant', '03', { 42: options.stranger.padEnd(15).slice(0, 15) }], ['no amount', '13', { 4: '000000000000' }], ['other currency', '12', { 49: '840' }],
    ['other transaction', '12', { 3: '010000' }]
  ]
  const [kind, code, fields] = rows[Math.floor(random() * rows.length)]!
  return [right(kind, payment(options, trace, fields), code)]
}

/** A 0200 with what a card or UPI switch sends; the amount from 1.00 to 5000.00. */
function payment (options: PlanOptions, trace: string, more: Record<string, string> = {}): Message {
  const stamp = new Date(options.nowMs()).toISOString().replace(/\D/g, '')
  const amount = 100 + Math.floor(options.random() * 499_900)
  return {
    mti: '0200',
    fields: {
      2: '4761739001010119', 3: '000000', 4: String(amount).padStart(12, '0'), 7: stamp.slice(4, 14), 11: trace, 12: stamp.slice(8, 14), 13: stamp.slice(4, 8), 18: '5411', 22: '051',
      25: '00', 32: '423935', 37: `${stamp.slice(3, 9)}${trace}`, 41: options.terminal.padEnd(8).slice(0, 8), 42: options.merchant.padEnd(15).slice(0, 15), 49: '356', ...more
    }
  }
}

function asAdvice (message: Message): Message {
  return { ...message, mti: '0220' }
}

/** 0400 of a payment, named in DE 90. */
function reversal ({ mti, fields }: Message, trace: string): Message {
  const { 18: _merchantType, 25: _condition, ...carried } = fields
  const acquirer = (fields['32'] ?? '').padStart(11, '0')
  return { mti: '0400', fields: { ...carried, 11: trace, 90: `${mti}${fields['11'] ?? ''}${fields['7'] ?? ''}${acquirer}${'0'.repeat(11)}` } }
}

/** 0800 with a function in DE 70. */
export function network (code: string, trace: string, nowMs: number): Message {
  return { mti: '0800', fields: { 7: new Date(nowMs).toISOString().replace(/\D/g, '').slice(4, 14), 11: trace, 70: code } }
}
