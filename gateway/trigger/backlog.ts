// What becomes of an announcement that could not be spoken at once. Pure: age and state in, a verdict out.
//
//   age of a payment    not sent yet (accepted)     sent, but the box never said how it ended (published, delivered, doubtful)
//   up to speakMs       speak                       send again: the box knows whether it spoke (its journal)
//   up to summaryMs     part of one summary         ask: send it as it is; `expired` = never spoken, goes into the summary
//   older               expired: history only       expired
// Everything but payments is spoken until its own expiry, or not at all.
import { AMOUNT_MINOR_MAX, announcementId } from '../../protocol/index.js'
import type { Delivery, DeliveryState, NewDelivery } from '../store/contract.js'

export type AgePolicy = { speakMs: number, summaryMs: number }
/** device-protocol: up to 60 s is spoken, up to 10 min summarised, older is history only. */
export const AGE_POLICY: AgePolicy = { speakMs: 60_000, summaryMs: 600_000 }
/** Payments in one summary; a box words no higher count. */
export const SUMMARY_COUNT_MAX = 100_000

/**
 * `doubtful`: the row says accepted, but it may have been sent and even spoken: by a run of the gateway that was killed before it
 * wrote so, or the news waits in the fallback. Such a payment is asked about; counting it in a summary might say it twice.
 */
export type Waiting = NewDelivery & { state: DeliveryState, doubtful?: boolean }
export type Verdict = 'speak' | 'ask' | 'summarise' | 'expire'

/** The verdict over one open delivery at this time. */
export function judgeWaiting (item: Waiting, nowMs: number, policy: AgePolicy): Verdict {
  const isSent = item.state !== 'accepted' || item.doubtful === true
  if (item.kind !== 'payment') {
    if (nowMs < item.expiresAt) return 'speak'
    return isSent && item.kind === 'summary' && nowMs - item.issuedAt <= policy.summaryMs ? 'ask' : 'expire'
  }
  const age = nowMs - item.issuedAt
  if (age <= policy.speakMs) return 'speak'
  if (age > policy.summaryMs) return 'expire'
  return isSent ? 'ask' : 'summarise'
}

/** What the pump needs of a delivery, stored or new. */
export function waitingOf (delivery: NewDelivery | Delivery): Waiting {
  const { tid, announcementId: id, kind, language, seq, amountMinor, currency, txnType, count, issuedAt, expiresAt } = delivery
  return { tid, announcementId: id, kind, language, seq, amountMinor, currency, txnType, count, issuedAt, expiresAt, state: 'state' in delivery ? delivery.state : 'accepted' }
}

export type Step = { kind: 'none' } | { kind: 'summarise' } | { kind: 'expire', item: Waiting } | { kind: 'send', item: Waiting, asked: boolean }

/**
 * What to do next for a box that is free. `waiting` in the order of sending; `late`: asked about, never spoken. All that is to be asked
 * about goes first, so that one summary holds all that was missed; while none can be recorded (`maySummarise`), the fresh go ahead.
 */
export function nextStep ({ waiting, late }: { waiting: readonly Waiting[], late: readonly Waiting[] }, nowMs: number, policy: AgePolicy, maySummarise: boolean): Step {
  const tooLate = late.find(item => judgeWaiting(item, nowMs, policy) === 'expire')
  if (tooLate !== undefined) return { kind: 'expire', item: tooLate }
  let isMissed = late.length > 0
  for (const item of waiting) {
    const verdict = judgeWaiting(item, nowMs, policy)
    switch (verdict) {
      case 'expire': return { kind: 'expire', item }
      case 'ask': return { kind: 'send', item, asked: true }
      case 'summarise':
        isMissed = true
        break
      case 'speak': return isMissed && maySummarise ? { kind: 'summarise' } : { kind: 'send', item, asked: false }
      default: verdict satisfies never
    }
  }
  return isMissed && maySummarise ? { kind: 'summarise' } : { kind: 'none' }
}

type SummaryContext = { tid: string, language: NewDelivery['language'], nowMs: number, nextSeq: () => number, policy: AgePolicy }

/**
 * The summaries of what was missed: one per currency, more only where a total would pass AMOUNT_MINOR_MAX. The id is derived from the
 * members, so that a crash between recording and sending does not make a second voice.
 */
export function summariesOf (members: readonly NewDelivery[], context: SummaryContext): { summary: NewDelivery, members: string[] }[] {
  const groups: { currency: string, amountMinor: number, items: NewDelivery[] }[] = []
  for (const item of members) {
    const open = groups.find(group => group.currency === item.currency && group.amountMinor + item.amountMinor <= AMOUNT_MINOR_MAX && group.items.length < SUMMARY_COUNT_MAX)
    if (open === undefined) groups.push({ currency: item.currency, amountMinor: item.amountMinor, items: [item] })
    else {
      open.items.push(item)
      open.amountMinor += item.amountMinor
    }
  }
  return groups.map(({ currency, amountMinor, items }) => {
    const ids = items.map(item => item.announcementId)
    const newest = Math.max(...items.map(item => item.issuedAt))
    return {
      members: ids,
      summary: {
        tid: context.tid, announcementId: announcementId(`summary:${context.tid}`, ids.join(',')), kind: 'summary', language: context.language, seq: context.nextSeq(),
        amountMinor, currency, txnType: null, count: items.length, issuedAt: context.nowMs, expiresAt: Math.max(context.nowMs + context.policy.speakMs, newest + context.policy.summaryMs)
      }
    }
  })
}
