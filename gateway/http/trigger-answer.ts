// The exact bodies of the trigger API (facts: bank trigger API). Only success is encrypted; every refusal is plain JSON.
import { ERRORS, type ErrorCode, formatAmount, isSoundboxError, sealEnvelope, SoundboxError } from '../../protocol/index.js'
import type { Bank, BankKey } from '../store/directory.js'
import type { Announced } from '../trigger/announce.js'
import type { TriggerOutcome } from '../trigger/handle-trigger.js'

export type TriggerAnswer = { status: number, body: string, code: string, headers: Readonly<Record<string, string>> }

/** What a bank gets for this outcome. `code` is for the metrics: OK, REPEAT or the error's code. */
export function triggerAnswer (outcome: TriggerOutcome): TriggerAnswer {
  switch (outcome.kind) {
    case 'announced': return success(outcome.bank, outcome.key, outcome.announced)
    case 'fields': {
      const body = { status: statusOf(outcome.bank, 1), message: 'fail', statusDesc: outcome.errors[0]?.msg ?? 'a field is invalid', errors: outcome.errors, data: null }
      return { status: 400, body: JSON.stringify(body), code: 'FIELD_INVALID', headers: {} }
    }
    case 'wait': return refusal(undefined, new SoundboxError('RATE_LIMITED', 'Too many requests'), { 'retry-after': String(Math.max(1, Math.ceil(outcome.waitMs / 1000))) })
    case 'refused': return refusal(outcome.bank, outcome.error, {})
    default: outcome satisfies never
  }
  return refusal(undefined, undefined, {})
}

/** For a request that cannot be looked at now; nothing was recorded. */
export function overloadedAnswer (): TriggerAnswer {
  return refusal(undefined, new SoundboxError('OVERLOADED', 'The gateway is busy'), { 'retry-after': '1' })
}

function success (bank: Bank, key: BankKey, announced: Announced): TriggerAnswer {
  const { payment } = announced
  const data = {
    tr_id: payment.transactionId, merchant_vpa: payment.merchant, serial_number: announced.tids, txn_amount: formatAmount(payment.amountMinor), currency: payment.currency,
    status: payment.status, announcement_id: announced.announcementId, accepted_at: new Date(payment.acceptedAt).toISOString()
  }
  const body = sealAnswer(bank, key, { status: statusOf(bank, 0), message: 'success', statusDesc: 'Message successfully sent', data })
  return { status: 200, body, code: announced.repeated ? 'REPEAT' : 'OK', headers: announced.repeated ? { 'x-served-from-cache': 'true' } : {} }
}

/** The body of a success for this bank: encrypted, unless it is a plaintext one. */
export function sealAnswer (bank: Bank, key: BankKey, answer: object): string {
  const plain = JSON.stringify(answer)
  if (bank.profile === 'none') return plain
  return JSON.stringify({ ResponseData: sealEnvelope({ profile: bank.profile, key: key.payloadKey, passKey: bank.passKey }, plain) })
}

function refusal (bank: Bank | undefined, error: unknown, headers: Readonly<Record<string, string>>): TriggerAnswer {
  const code: ErrorCode = isSoundboxError(error) ? error.code : 'SERVER_FAULT'
  const row = ERRORS[code]
  const text = isSoundboxError(error) ? error.message : 'Unhandled server error'
  if (row.partner === null) return { status: row.status, body: JSON.stringify({ status: -1, statusDesc: text }), code, headers }
  const body = { status: statusOf(bank, 1), message: 'fail', statusDesc: `${row.partner} ${text}`, data: null }
  return { status: row.status, body: JSON.stringify(body), code, headers }
}

/** "0" and "1" as the vendor has them, or numbers where the bank's profile asks for it. */
export function statusOf (bank: Bank | undefined, status: 0 | 1): string | number {
  return bank?.numericStatus === true ? status : String(status)
}
