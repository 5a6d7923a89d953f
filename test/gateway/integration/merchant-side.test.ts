// Where providers meet the shop: the stand-in voice, taking a merchant on, and the operator's daily mail.
import fc from 'fast-check'
import t from 'tap'
import { ERRORS, type ErrorCode, SILENT_LOG, SoundboxError } from '../../../protocol/index.js'
import { parseServiceRequest, smsParts, type ServiceName, type ServiceRequest, type ServiceResponse } from '../../../gateway/integration/contract.js'
import { BANKS_SHOWN_MAX, dailyReportMail, SILENT_DEVICES_SHOWN_MAX, type DayTotals } from '../../../gateway/integration/daily-report.js'
import { nameScore } from '../../../gateway/integration/name-match.js'
import { checkMerchant, decideOnboarding, type MerchantForm, type OnboardingEvidence } from '../../../gateway/integration/onboarding.js'
import { sendStandIn, standInCall, standInText, type CallProvider } from '../../../gateway/integration/stand-in-message.js'
import {
  openStandIns, STAND_IN_AFTER_MS_MAX, STAND_IN_AFTER_MS_MIN, STAND_IN_ATTEMPTS_MAX, STAND_IN_RETRY_MS, STAND_IN_STALE_MS, STAND_IN_STATES, STAND_IN_STUCK_MS, standInFromPayment,
  standInRef, stepStandIn, type StandIn, type StandInEvent, type StandInPolicy
} from '../../../gateway/integration/stand-in.js'

const NOW_MS = Date.UTC(2026, 0, 5, 4, 45)
const PAYMENT = { bankId: 'idfc', transactionId: 'TXN-7656-789878EE', merchant: 'shop@bank', amountMinor: 190_000, currency: 'INR', acceptedAt: NOW_MS }
const POLICY: StandInPolicy = { channel: 'sms', to: '+910000000001', afterMs: 15_000, amountMinorMin: 0 }
const ROW = standInFromPayment(PAYMENT, POLICY, NOW_MS)!

// --- the stand-in voice, as a table of steps

t.test('a policy decides whether, when and from which amount', async t => {
  t.match(ROW, { state: 'waiting', dueMs: NOW_MS + 15_000, attempts: 0 })
  t.equal(standInFromPayment(PAYMENT, undefined, NOW_MS), undefined)
  t.equal(standInFromPayment(PAYMENT, { ...POLICY, amountMinorMin: 190_001 }, NOW_MS), undefined)
  t.ok(standInFromPayment(PAYMENT, { ...POLICY, amountMinorMin: 190_000 }, NOW_MS))
  t.equal(standInFromPayment(PAYMENT, { ...POLICY, afterMs: 0 }, NOW_MS)?.dueMs, NOW_MS + STAND_IN_AFTER_MS_MIN)
  t.equal(standInFromPayment(PAYMENT, { ...POLICY, afterMs: 1e9 }, NOW_MS)?.dueMs, NOW_MS + STAND_IN_AFTER_MS_MAX)
})

t.test('each state goes where the drawing says', async t => {
  const at = (state: StandIn['state'], more: Partial<StandIn> = {}): StandIn => ({ ...ROW, state, ...more })
  const tick = (spoken: boolean): StandInEvent => ({ kind: 'tick', spoken })
  for (const [row, event, afterMs, state, send, why] of [
    [at('waiting'), tick(true), 20_000, 'unneeded', false, 'it was spoken'], [at('waiting'), tick(false), 14_999, 'waiting', false, 'not yet due'],
    [at('waiting'), tick(false), 15_000, 'sending', true, 'due'], [at('waiting'), tick(false), STAND_IN_STALE_MS, 'sending', true, 'just in time'],
    [at('waiting'), tick(false), STAND_IN_STALE_MS + 1, 'expired', false, 'too late'], [at('waiting'), tick(true), STAND_IN_STALE_MS + 1, 'unneeded', false, 'spoken, looked at late'],
    [at('waiting'), { kind: 'sent' }, 20_000, 'waiting', false, 'nothing was claimed'], [at('sending', { attempts: 1 }), { kind: 'sent' }, 20_000, 'sent', false, 'went'],
    [at('sending', { attempts: 1 }), { kind: 'refused', reason: 'r' }, 20_000, 'failed', false, 'refused'],
    [at('sending', { attempts: 1 }), { kind: 'unsure', reason: 'r' }, 20_000, 'unknown', false, 'unsure'],
    [at('sending', { attempts: 1 }), { kind: 'not-sent', reason: 'r' }, 20_000, 'waiting', false, 'later'],
    [at('sending', { attempts: STAND_IN_ATTEMPTS_MAX }), { kind: 'not-sent', reason: 'r' }, 20_000, 'failed', false, 'often enough'],
    [at('sending'), tick(false), STAND_IN_STUCK_MS - 1, 'sending', false, 'still under way'], [at('sending'), tick(false), STAND_IN_STUCK_MS, 'unknown', false, 'whoever sent it has died']
  ] as [StandIn, StandInEvent, number, string, boolean, string][]) {
    const { next, send: sends } = stepStandIn(row, event, NOW_MS + afterMs)
    t.same([next.state, sends], [state, send], why)
  }
  t.equal(stepStandIn(at('sending', { attempts: 1 }), { kind: 'not-sent', reason: 'r' }, NOW_MS + 20_000).next.dueMs, NOW_MS + 20_000 + STAND_IN_RETRY_MS)
})

t.test('whatever happens in whatever order, it is claimed at most three times and a final state stays', async () => {
  const event: fc.Arbitrary<StandInEvent> = fc.oneof(
    fc.boolean().map(spoken => ({ kind: 'tick' as const, spoken })), fc.constant({ kind: 'sent' as const }),
    fc.constantFrom('refused' as const, 'not-sent' as const, 'unsure' as const).map(kind => ({ kind, reason: 'r' })))
  fc.assert(fc.property(fc.array(fc.record({ event, waitMs: fc.integer({ min: 0, max: 60_000 }) }), { maxLength: 40 }), steps => {
    let row = ROW
    let claims = 0
    let nowMs = NOW_MS
    for (const { event: happened, waitMs } of steps) {
      nowMs += waitMs
      const { next, send } = stepStandIn(row, happened, nowMs)
      if (send) claims += 1
      if (!['waiting', 'sending'].includes(row.state) && next !== row) return false
      if (!STAND_IN_STATES.includes(next.state)) return false
      row = next
    }
    return claims <= STAND_IN_ATTEMPTS_MAX
  }))
})

/** The table of stand-ins in memory, a clock, and a channel that does what the script says. */
function openVoice (script: (Error | undefined)[] = []) {
  const table = new Map<string, StandIn>()
  const key = (row: Pick<StandIn, 'bankId' | 'transactionId'>): string => `${row.bankId}/${row.transactionId}`
  const sent: string[] = []
  const spoken = new Set<string>()
  const time = { nowMs: NOW_MS }
  const deps = {
    policyOf: (_bank: string, merchant: string) => merchant === 'shop@bank' ? POLICY : undefined,
    record: async (row: StandIn) => { if (!table.has(key(row))) table.set(key(row), row) },
    due: async (nowMs: number, stuckBefore: number, limit: number) =>
      [...table.values()].filter(row => (row.state === 'waiting' && row.dueMs <= nowMs) || (row.state === 'sending' && row.changedAt <= stuckBefore)).slice(0, limit),
    claim: async (from: StandIn, to: StandIn) => {
      const now = table.get(key(from))
      if (now?.state !== from.state || now.attempts !== from.attempts) return false
      table.set(key(to), to)
      return true
    },
    save: async (row: StandIn) => { table.set(key(row), row) },
    isSpoken: async (bankId: string, transactionId: string) => spoken.has(`${bankId}/${transactionId}`),
    send: async (_row: StandIn, ref: string) => {
      sent.push(ref)
      const fault = script.shift()
      if (fault !== undefined) throw fault
    },
    nowMs: () => time.nowMs, log: SILENT_LOG
  }
  const one = (): StandIn => [...table.values()][0]!
  return { voice: openStandIns(deps), deps, table, sent, spoken, time, one }
}

t.test('a payment that no box has confirmed is told by SMS, once, under one reference', async t => {
  const { voice, sent, time, one } = openVoice()
  await voice.plan(PAYMENT)
  await voice.plan(PAYMENT)
  await voice.plan({ ...PAYMENT, transactionId: 'other', merchant: 'no-policy' })
  await voice.run()
  t.same(sent, [], 'not before its time')
  time.nowMs += 15_000
  await Promise.all([voice.run(), voice.run()])
  await voice.run()
  t.same(sent, [standInRef(PAYMENT)])
  t.match(one(), { state: 'sent', attempts: 1 })
  t.match(standInRef(PAYMENT), /^si-[0-9a-f]{24}$/)
  await voice.close()
})

t.test('a payment that was spoken in the meantime is left alone', async t => {
  const { voice, sent, time, spoken, one } = openVoice()
  await voice.plan(PAYMENT)
  spoken.add(`${PAYMENT.bankId}/${PAYMENT.transactionId}`)
  time.nowMs += 20_000
  await voice.run()
  t.same(sent, [])
  t.equal(one().state, 'unneeded')
})

t.test('only what certainly did not leave is sent again, under the same reference', async t => {
  const busy = (): Error => new SoundboxError('PROVIDER_UNAVAILABLE', 'down')
  const { voice, sent, time, one } = openVoice([busy(), busy(), undefined])
  await voice.plan(PAYMENT)
  for (let turn = 0; turn < 4; turn++) {
    time.nowMs += 15_000
    await voice.run()
  }
  t.same(sent, [standInRef(PAYMENT), standInRef(PAYMENT), standInRef(PAYMENT)])
  t.equal(one().state, 'sent')
  for (const [error, state] of [
    [new SoundboxError('PROVIDER_STATE_UNKNOWN', 'x'), 'unknown'], [new SoundboxError('PROVIDER_REJECTED', 'x'), 'failed'], [new Error('a bug'), 'unknown'],
    [new SoundboxError('ALREADY_EXISTS', 'x'), 'unknown'], [new SoundboxError('PROVIDER_RESPONSE_INVALID', 'x'), 'unknown']
  ] as const) {
    const other = openVoice([error])
    await other.voice.plan(PAYMENT)
    other.time.nowMs += 15_000
    await other.voice.run()
    other.time.nowMs += 60_000
    await other.voice.run()
    t.equal(other.sent.length, 1)
    t.equal(other.one().state, state, String(error))
  }
})

t.test('two gateways and a crash: one sends, and what was claimed by the dead is never sent again', async t => {
  const { voice, deps, sent, time, one, table } = openVoice()
  await voice.plan(PAYMENT)
  time.nowMs += 15_000
  const other = openStandIns(deps)
  await Promise.all([voice.run(), other.run()])
  t.equal(sent.length, 1)
  table.set('idfc/crashed', { ...one(), transactionId: 'crashed', state: 'sending', changedAt: time.nowMs, attempts: 1 })
  time.nowMs += STAND_IN_STUCK_MS
  await voice.run()
  t.equal(table.get('idfc/crashed')?.state, 'unknown')
  t.equal(sent.length, 1)
})

t.test('a store that refuses never holds a payment', async t => {
  const { deps } = openVoice()
  await t.resolves(openStandIns({ ...deps, record: async () => { throw new SoundboxError('STORE_FAILED', 'x') } }).plan(PAYMENT))
})

t.test('the message is one SMS part, names no payer and little of the id, and fits its contract on every channel', async t => {
  const words = { utcOffsetMinutes: 330, senderId: 'SNDBOX' }
  t.equal(standInText(ROW, words), 'Received INR 1,900.00 at 10:15 (ref 9878EE). Your soundbox has not announced it.')
  t.equal(standInText({ ...ROW, currency: 'TZS', amountMinor: 123_456_700, transactionId: '--' }, { utcOffsetMinutes: 180 }), 'Received TZS 1,234,567.00 at 07:45. Your soundbox has not announced it.')
  t.same(smsParts(standInText({ ...ROW, amountMinor: 99_999_999_999 }, words)), { encoding: 'GSM7', parts: 1 })
  for (const [channel, to] of [['sms', '+910000000001'], ['push', 'fcm-token-0001'], ['email', 'shop@example.invalid']] as const) {
    const { service, input } = standInCall({ ...ROW, channel, to }, standInRef(ROW), words)
    t.doesNotThrow(() => parseServiceRequest(service, input), channel)
  }
})

t.test('a channel that answers but took nothing is a refusal', async t => {
  const answering = (answer: unknown): CallProvider => async <S extends ServiceName>(_service: S) => answer as ServiceResponse<S>
  const recipient = (status: string): object => ({ recipients: [{ status }] })
  for (const [channel, answer, code] of [
    ['sms', recipient('REJECTED'), 'PROVIDER_REJECTED'], ['sms', recipient('UNKNOWN'), 'PROVIDER_STATE_UNKNOWN'], ['push', { token_state: 'GONE' }, 'PROVIDER_REJECTED'],
    ['email', { accepted: [] }, 'PROVIDER_REJECTED']
  ] as const) await t.rejects(sendStandIn(answering(answer), { ...ROW, channel }, 'si-1', { utcOffsetMinutes: 330 }), { code }, channel)
  for (const [channel, answer] of [['sms', recipient('ACCEPTED')], ['sms', recipient('DUPLICATE')], ['push', { token_state: 'LIVE' }], ['email', { accepted: ['a'] }]] as const) {
    await t.resolves(sendStandIn(answering(answer), { ...ROW, channel }, 'si-1', { utcOffsetMinutes: 330 }), channel)
  }
})

// --- taking a merchant on

t.test('names are compared by words: order, case, accents, titles and legal forms do not matter', async t => {
  for (const [left, right, low, high, why] of [
    ['Asha Mfano', 'MFANO ASHA', 1, 1, 'order and case'],
    ['M/S Namuna Traders Pvt. Ltd.', 'NAMUNA TRADERS PRIVATE LIMITED', 1, 1, 'legal forms'], ['José Mfano', 'JOSE MFANO', 1, 1, 'accents'],
    ['A. Mfano', 'ASHA MFANO', 0.85, 0.95, 'an initial'], ['S Namuna', 'SALMA NAMUNA', 0.85, 0.95, 'an initial that is no M/S'],
    ['Asha Mfano', 'ASHA', 0.5, 0.5, 'half a name'], ['Lakshmi Namuna', 'LAXMI NAMUNA', 0.5, 0.5, 'two letters off is another word'],
    ['Kavitha Namuna', 'KAVITA NAMUNA', 0.85, 0.95, 'one letter less'], ['Kaivta Namuna', 'KAVITA NAMUNA', 0.85, 0.95, 'two letters swapped'], ['Asha Mfano', 'Juma Kielelezo', 0, 0, 'somebody else'],
    ['Mr S', 'Mr S', 1, 1, 'only words that are dropped'], ['आशा नमुना', 'आशा नमुना', 1, 1, 'another script'], ['रामा नमुना', 'रीमा नमुना', 0.5, 0.5, 'another vowel sign is another name'],
    ['Ravi Kumar', 'RAVI KUMAR NAMUNA', 0.66, 0.67, 'a part of it']
  ] as const) {
    const score = nameScore(left, right) ?? -1
    t.ok(score >= low && score <= high, `${why}: ${score}`)
    t.equal(nameScore(right, left), score, 'from both sides')
  }
  for (const [left, right] of [['A**** M****', 'Asha Mfano'], ['', 'Asha'], ['---', 'Asha']] as const) t.equal(nameScore(left, right), undefined)
})

const FORM: MerchantForm = { merchant: 'm-17', names: ['Duka la Mfano', 'Asha Mfano'], settlement: { kind: 'bank', fspId: '901', accountNo: '770000000001' }, kycSession: 's-1' }
const account = (name: string, isLive = true): OnboardingEvidence['account'] => ({ state: 'found', value: { name, lookupRef: 'L-1', isLive } })
const identity = (status: ServiceResponse<'fetch_decision_kyc'>['status'], vendorData: string | null = 'm-17'): OnboardingEvidence['kyc'] => ({ state: 'found', value: { status, vendorData } })

t.test('the strictest finding decides, and a missing answer never says yes or no', async t => {
  for (const [evidence, verdict, reasons] of [
    [{ account: account('ASHA MFANO'), kyc: identity('APPROVED') }, 'approve', ['name-matches', 'identity-approved']],
    [{ account: account('ASHA'), kyc: identity('APPROVED') }, 'review', ['name-matches-partly', 'identity-approved']],
    [{ account: account('A*** M****'), kyc: identity('APPROVED') }, 'review', ['name-is-masked', 'identity-approved']],
    [{ account: account('ASHA MFANO'), kyc: identity('IN_REVIEW') }, 'review', ['name-matches', 'identity-in-review']],
    [{ account: account('JUMA KIELELEZO'), kyc: identity('APPROVED') }, 'reject', ['name-differs', 'identity-approved']],
    [{ account: account('ASHA MFANO', false), kyc: identity('APPROVED') }, 'reject', ['account-not-live', 'identity-approved']],
    [{ account: { state: 'refused', code: 'PROVIDER_REJECTED' }, kyc: identity('APPROVED') }, 'reject', ['account-unknown', 'identity-approved']],
    [{ account: { state: 'unanswered', code: 'PROVIDER_TIMEOUT' }, kyc: identity('APPROVED') }, 'wait', ['account-unanswered', 'identity-approved']],
    [{ account: { state: 'unanswered', code: 'PROVIDER_TIMEOUT' }, kyc: identity('DECLINED') }, 'reject', ['account-unanswered', 'identity-declined']],
    [{ account: account('ASHA MFANO'), kyc: { state: 'unanswered', code: 'PROVIDER_BUSY' } }, 'wait', ['name-matches', 'identity-unanswered']],
    [{ account: account('ASHA MFANO'), kyc: { state: 'none' } }, 'wait', ['name-matches', 'identity-missing']],
    [{ account: account('ASHA MFANO'), kyc: { state: 'refused', code: 'PROVIDER_REJECTED' } }, 'wait', ['name-matches', 'identity-missing']],
    [{ account: account('ASHA MFANO'), kyc: identity('APPROVED', 'm-18') }, 'reject', ['name-matches', 'identity-of-another']],
    [{ account: account('ASHA MFANO'), kyc: identity('APPROVED', null) }, 'reject', ['name-matches', 'identity-of-another']],
    ...(['NOT_STARTED', 'IN_PROGRESS', 'AWAITING_USER', 'RESUBMITTED', 'ABANDONED', 'EXPIRED'] as const).map(status =>
      [{ account: account('ASHA MFANO'), kyc: identity(status) }, 'wait', ['name-matches', 'identity-unfinished']])
  ] as [OnboardingEvidence, string, string[]][]) {
    const decision = decideOnboarding(FORM, evidence)
    t.same([decision.verdict, decision.reasons], [verdict, reasons], reasons.join(' '))
    t.notMatch(JSON.stringify(decision), /ASHA|JUMA/i, 'a decision holds no names')
  }
})

/** Answers or errors by service; keeps what was asked. */
function openCalls (answers: Partial<Record<ServiceName, unknown>>): { call: CallProvider, asked: [string, unknown][] } {
  const asked: [string, unknown][] = []
  return {
    asked,
    call: async <S extends ServiceName>(service: S, input: unknown) => {
      asked.push([service, parseServiceRequest(service, input)])
      const answer = answers[service]
      if (answer instanceof Error) throw answer
      return answer as ServiceResponse<S>
    }
  }
}

t.test('bank account or wallet, and identity, are asked at the providers', async t => {
  const bank = openCalls({
    interbank_account_name_cbs: { account_name: 'DUKA LA MFANO', lookup_ref: 'L-1' }, fetch_decision_kyc: { status: 'APPROVED', vendor_data: 'm-17' }
  })
  t.match(await checkMerchant(bank.call, FORM), { verdict: 'approve', nameScore: 1, lookupRef: 'L-1' })
  t.same(bank.asked, [['interbank_account_name_cbs', { fsp_id: '901', account_no: '770000000001', identifier_type: 'BANK' }], ['fetch_decision_kyc', { session_id: 's-1' }]])
  const byBic = openCalls({ interbank_account_name_cbs: { account_name: 'DUKA LA MFANO', lookup_ref: 'L-1' } })
  t.equal((await checkMerchant(byBic.call, { ...FORM, settlement: { kind: 'bank', bic: 'MFNOTZT0', accountNo: '770000000001' }, kycSession: null })).verdict, 'wait')
  t.match(byBic.asked, [['interbank_account_name_cbs', { bic: 'MFNOTZT0' }]])
  const wallet: MerchantForm = { ...FORM, settlement: { kind: 'wallet', mno: 'MFANOPESA', msisdn: '+255000000007' } }
  const frozen = openCalls({ mno_validate_cbs: { registered_name: 'ASHA MFANO', lookup_ref: 'L-2', wallet_status: 'FROZEN' }, fetch_decision_kyc: { status: 'APPROVED', vendor_data: 'm-17' } })
  t.match(await checkMerchant(frozen.call, wallet), { verdict: 'reject', reasons: ['account-not-live', 'identity-approved'] })
  const live = openCalls({ mno_validate_cbs: { registered_name: 'ASHA MFANO', lookup_ref: 'L-2', wallet_status: 'ACTIVE' }, fetch_decision_kyc: { status: 'APPROVED', vendor_data: 'm-17' } })
  t.equal((await checkMerchant(live.call, wallet)).verdict, 'approve')
})

t.test('no error of a provider becomes a yes, and only a refusal becomes a no', async t => {
  for (const code of Object.keys(ERRORS).filter(name => name.startsWith('PROVIDER_')) as ErrorCode[]) {
    const calls = openCalls({ interbank_account_name_cbs: new SoundboxError(code, 'x'), fetch_decision_kyc: { status: 'APPROVED', vendor_data: 'm-17' } })
    t.equal((await checkMerchant(calls.call, FORM)).verdict, code === 'PROVIDER_REJECTED' ? 'reject' : 'wait', code)
  }
  await t.rejects(checkMerchant(openCalls({}).call, { ...FORM, settlement: { kind: 'bank', accountNo: '770000000001' } }), { code: 'INPUT_INVALID' })
  await t.rejects(checkMerchant(openCalls({ interbank_account_name_cbs: new Error('a bug') }).call, { ...FORM, kycSession: null }), { code: 'SERVER_FAULT' })
})

// --- the operator's daily mail

const DAY: DayTotals = {
  day: '2026-01-05', gateway: 'gateway-1', banks: [{ name: 'IDFC', currency: 'INR', payments: 1200, amountMinor: 123_456_700, failed: 3, reversed: 1 }],
  deliveries: { spoken: 1190, duplicate: 2, summarised: 10, muted: 4, expired: 0, failed: 0, handed: 0, open: 0 }, latency: { p50Ms: 640, p99Ms: 2100 },
  devices: { active: 40, silent: [] }, standIns: { sent: 0, failed: 0, unknown: 0 }, fallback: { waiting: 0 },
  providers: [{ issuer: 'sms', calls: 100, failed: 2, unknown: 0 }], audit: { rows: 5000, ok: true }
}

t.test('a quiet day says so in its subject and first lines', async t => {
  const mail = dailyReportMail(DAY, ['ops@example.invalid'])
  t.equal(mail.subject, 'Soundbox 2026-01-05: 1200 payments, 100 % heard')
  t.match(mail.text, /Nothing needs you\./)
  t.match(mail.text, /IDFC: 1200 payments, INR 12,34,567\.00; 3 failed, 1 reversed/)
  t.match(mail.text, /half within 640 ms, 99 of 100 within 2100 ms/)
  t.equal(mail.client_ref, 'daily-2026-01-05')
  t.doesNotThrow(() => parseServiceRequest('send_email_message', mail))
})

t.test('what needs a person stands first, each with its number', async t => {
  const silent = Array.from({ length: SILENT_DEVICES_SHOWN_MAX + 2 }, (_, index) => `SB${String(index).padStart(4, '0')}`)
  const mail = dailyReportMail({
    ...DAY, deliveries: { ...DAY.deliveries, expired: 3, failed: 2, open: 1 }, devices: { active: 60, silent }, standIns: { sent: 4, failed: 1, unknown: 2 }, fallback: { waiting: 7 },
    providers: [{ issuer: 'cbs', calls: 10, failed: 5, unknown: 0 }, { issuer: 'sms', calls: 9, failed: 9, unknown: 1 }], audit: { rows: 1, ok: false }
  }, ['ops@example.invalid'])
  t.match(mail.subject, /6 to look at, 1200 payments, 99\.5 % heard$/)
  for (const line of [
    '5 payments were not heard in time', '52 active boxes were not seen', '7 records still wait', 'cbs: more than half of 10 calls failed', '2 stand-ins are of unknown state',
    'the audit trail is broken'
  ]) {
    t.match(mail.text, `! ${line}`, line)
  }
  t.notMatch(mail.text, /! sms/, 'nine calls say nothing')
  t.match(mail.text, /- SB0049\n {2}and 2 more/)
  t.notMatch(mail.text, /SB0050/)
})

t.test('an empty day and the largest day are mails as well', async t => {
  const empty = dailyReportMail({
    ...DAY, banks: [], deliveries: { spoken: 0, duplicate: 0, summarised: 0, muted: 0, expired: 0, failed: 0, handed: 0, open: 0 }, latency: null, providers: [], audit: null
  }, ['ops@example.invalid'])
  t.match(empty.subject, /0 payments, nothing heard/)
  const banks = Array.from({ length: BANKS_SHOWN_MAX + 1 }, (_, index) => ({ ...DAY.banks[0]!, name: `Bank ${index}`, currency: 'TZS' }))
  const large: ServiceRequest<'send_email_message'> = dailyReportMail({ ...DAY, banks }, ['ops@example.invalid'])
  t.doesNotThrow(() => parseServiceRequest('send_email_message', large))
  t.match(large.text, /Bank 199: .*\n {2}and 1 more banks/)
})
