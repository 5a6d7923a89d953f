// The stand-in voice: when no box of a merchant has confirmed "spoken" N seconds after a payment, the merchant gets an SMS, a push or an
// e-mail instead, where his policy says so. Once: a row a payment is claimed on disk before anything is sent, and a row that was found
// claimed after a crash is of unknown state and is never sent again. Never stale: a message that could not go in time is dropped.
//
//   waiting -- spoken ----> unneeded          sending -- sent ------> sent
//   waiting -- too late --> expired           sending -- refused ---> failed
//   waiting -- due -------> sending           sending -- not sent --> waiting (later), failed after STAND_IN_ATTEMPTS_MAX
//                                             sending -- unsure, or found so after a crash --> unknown
import { createHash } from 'node:crypto'
import { type ErrorCode, isSoundboxError, type Log, safeErrorText } from '../../protocol/index.js'

export const STAND_IN_ATTEMPTS_MAX = 3
export const STAND_IN_RETRY_MS = 10_000
export const STAND_IN_STALE_MS = 300_000 // Five minutes after the payment the customer has left; a late message only confuses.
export const STAND_IN_STUCK_MS = 180_000 // Longer than the longest total of a provider call: who claimed it has died.
export const STAND_IN_BATCH_MAX = 50
export const STAND_IN_AT_ONCE_MAX = 8 // A provider that answers slowly must not make the others of a batch stale.
const REASON_CHARS_MAX = 300
export const STAND_IN_AFTER_MS_MIN = 3_000
export const STAND_IN_AFTER_MS_MAX = 120_000

export type StandInChannel = 'sms' | 'push' | 'email'
/** Of one merchant. `afterMs`: from acceptance of the payment. `amountMinorMin`: smaller payments get none. `to`: number, token or address. */
export type StandInPolicy = { channel: StandInChannel, to: string, afterMs: number, amountMinorMin: number }

export const STAND_IN_STATES = ['waiting', 'sending', 'sent', 'unneeded', 'expired', 'failed', 'unknown'] as const
export type StandInState = typeof STAND_IN_STATES[number]
/** One row a payment: (bankId, transactionId) is its key. */
export type StandIn = {
  bankId: string, transactionId: string, merchant: string, amountMinor: number, currency: string, channel: StandInChannel, to: string
  acceptedAt: number, state: StandInState, dueMs: number, attempts: number, changedAt: number, reason: string | null
}
export type StandInPayment = Pick<StandIn, 'bankId' | 'transactionId' | 'merchant' | 'amountMinor' | 'currency' | 'acceptedAt'>

export type StandInEvent =
  | { kind: 'tick', spoken: boolean }
  | { kind: 'sent' }
  | { kind: 'refused', reason: string }
  | { kind: 'not-sent', reason: string }
  | { kind: 'unsure', reason: string }

/** The row for a payment under a policy, or undefined where the policy wants none. */
export function standInFromPayment (payment: StandInPayment, policy: StandInPolicy | undefined, nowMs: number): StandIn | undefined {
  if (policy === undefined || payment.amountMinor < policy.amountMinorMin) return undefined
  const afterMs = Math.min(STAND_IN_AFTER_MS_MAX, Math.max(STAND_IN_AFTER_MS_MIN, policy.afterMs))
  return {
    ...payment, channel: policy.channel, to: policy.to, state: 'waiting', dueMs: payment.acceptedAt + afterMs, attempts: 0, changedAt: nowMs, reason: null
  }
}

/** Next row, and whether the caller must claim it and send. Final states absorb every event. */
export function stepStandIn (now: StandIn, event: StandInEvent, nowMs: number): { next: StandIn, send: boolean } {
  const to = (state: StandInState, reason: string | null = null, more: Partial<StandIn> = {}): { next: StandIn, send: boolean } =>
    ({ next: { ...now, state, reason, changedAt: nowMs, ...more }, send: state === 'sending' })
  if (now.state === 'waiting') {
    if (event.kind !== 'tick') return { next: now, send: false }
    if (event.spoken) return to('unneeded')
    if (nowMs - now.acceptedAt > STAND_IN_STALE_MS) return to('expired', now.reason)
    return nowMs < now.dueMs ? { next: now, send: false } : to('sending', null, { attempts: now.attempts + 1 })
  }
  if (now.state !== 'sending') return { next: now, send: false }
  switch (event.kind) {
    case 'tick': return nowMs - now.changedAt >= STAND_IN_STUCK_MS ? to('unknown', 'the gateway stopped while it was sending') : { next: now, send: false }
    case 'sent': return to('sent')
    case 'refused': return to('failed', event.reason)
    case 'unsure': return to('unknown', event.reason)
    case 'not-sent': return now.attempts >= STAND_IN_ATTEMPTS_MAX ? to('failed', event.reason) : to('waiting', event.reason, { dueMs: nowMs + STAND_IN_RETRY_MS })
    default: return event satisfies never
  }
}

/** `record`: idempotent, keeps the first row of a payment. `claim`: durable, true for exactly one caller per attempt (compares state and attempts). */
export type StandInDeps = {
  policyOf: (bankId: string, merchant: string) => StandInPolicy | undefined
  record: (row: StandIn) => Promise<void>
  /** Rows in `waiting` with dueMs <= now, and rows in `sending` since before `stuckBefore`; oldest first. */
  due: (nowMs: number, stuckBefore: number, limit: number) => Promise<readonly StandIn[]>
  claim: (from: StandIn, to: StandIn) => Promise<boolean>
  save: (row: StandIn) => Promise<void>
  /** Has any box of the merchant said it (spoken, or as part of a summary)? */
  isSpoken: (bankId: string, transactionId: string) => Promise<boolean>
  /** Sends by the channel; `clientRef` is the same on every attempt. Throws the PROVIDER_* codes. */
  send: (row: StandIn, clientRef: string) => Promise<void>
  nowMs: () => number
  log: Log
}
export type StandIns = {
  /** After a successful payment was recorded. Never throws: a stand-in must not hold a payment. */
  plan: (payment: StandInPayment) => Promise<void>
  /** Looks after what is due; one run at a time. For a job every second or two. */
  run: () => Promise<void>
  close: () => Promise<void>
}

/** Opens the stand-in voice. */
export function openStandIns (deps: StandInDeps): StandIns {
  let running: Promise<void> | undefined
  let isClosed = false
  return {
    async plan (payment) {
      const row = standInFromPayment(payment, deps.policyOf(payment.bankId, payment.merchant), deps.nowMs())
      if (row === undefined) return
      await deps.record(row).catch((err: unknown) => deps.log.warn({ err, bankId: payment.bankId }, 'a stand-in could not be planned'))
    },
    async run () {
      running ??= runDue(deps, () => isClosed).finally(() => { running = undefined })
      await running
    },
    async close () {
      isClosed = true
      await running?.catch(() => {})
    }
  }
}

/** The reference that makes two sends of one stand-in one to the provider: short, and tells nothing of the payment. */
export function standInRef (row: Pick<StandIn, 'bankId' | 'transactionId'>): string {
  return `si-${createHash('sha256').update(JSON.stringify([row.bankId, row.transactionId]), 'utf8').digest('hex').slice(0, 24)}`
}

async function runDue (deps: StandInDeps, isClosed: () => boolean): Promise<void> {
  const nowMs = deps.nowMs()
  const rows = await deps.due(nowMs, nowMs - STAND_IN_STUCK_MS, STAND_IN_BATCH_MAX)
  for (let from = 0; from < rows.length && !isClosed(); from += STAND_IN_AT_ONCE_MAX) {
    const outcomes = await Promise.allSettled(rows.slice(from, from + STAND_IN_AT_ONCE_MAX).map(row => lookAfter(deps, row)))
    const failed = outcomes.find(outcome => outcome.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }
}

async function lookAfter (deps: StandInDeps, row: StandIn): Promise<void> {
  const spoken = row.state === 'waiting' && await deps.isSpoken(row.bankId, row.transactionId)
  const { next, send } = stepStandIn(row, { kind: 'tick', spoken }, deps.nowMs())
  if (next === row) return
  if (!send) await deps.save(next)
  else if (await deps.claim(row, next)) await sendClaimed(deps, next)
}

async function sendClaimed (deps: StandInDeps, row: StandIn): Promise<void> {
  const event = await deps.send(row, standInRef(row)).then((): StandInEvent => ({ kind: 'sent' }), eventFromError)
  const { next } = stepStandIn(row, event, deps.nowMs())
  await deps.save(next)
  const fields = { bankId: row.bankId, channel: row.channel, state: next.state, attempts: next.attempts, reason: next.reason }
  if (next.state === 'sent') deps.log.info(fields, 'stand-in sent')
  else deps.log.warn(fields, next.state === 'unknown' ? 'nobody knows whether a stand-in went' : 'stand-in was not sent')
}

const NOT_SENT: readonly ErrorCode[] = ['PROVIDER_UNAVAILABLE', 'PROVIDER_TIMEOUT', 'PROVIDER_BUSY', 'OVERLOADED', 'STORE_FAILED'] // A call that was sent and lost is PROVIDER_STATE_UNKNOWN.
const REFUSED: readonly ErrorCode[] = ['PROVIDER_REJECTED', 'PROVIDER_CONFIG', 'PROVIDER_AUTH_MISSING', 'INPUT_INVALID']

/** What an error of the provider call means: only what is known not to have left is tried again. */
function eventFromError (error: unknown): StandInEvent {
  const reason = safeErrorText(error).slice(0, REASON_CHARS_MAX)
  const code = isSoundboxError(error) ? error.code : undefined
  if (code !== undefined && NOT_SENT.includes(code)) return { kind: 'not-sent', reason }
  return code !== undefined && REFUSED.includes(code) ? { kind: 'refused', reason } : { kind: 'unsure', reason }
}
