// What becomes of an announcement that could not be spoken at once. Pure: age and state in, a verdict out.
//
//   age of a payment    not sent yet (accepted)     sent, but the box never said how it ended (published, delivered)
//   up to speakMs       speak                       send again: the box knows whether it spoke (its journal)
//   up to summaryMs     part of one summary         ask: send it as it is; `expired` = never spoken, goes into the summary
//   older               expired: history only       ask, once more; then expired
// Everything but payments is spoken until its own expiry, or not at all.
import { AMOUNT_MINOR_MAX, announcementId } from '../../protocol/index.js'
import type { Delivery, DeliveryState, NewDelivery } from '../store/contract.js'

export type AgePolicy = { speakMs: number, summaryMs: number }
/** device-protocol: up to 60 s is spoken, up to 10 min summarised, older is history only. */
export const AGE_POLICY: AgePolicy = { speakMs: 60_000, summaryMs: 600_000 }
const SUMMARY_COUNT_MAX = 100_000

export type Waiting = NewDelivery & { state: DeliveryState }
export type Verdict = 'speak' | 'ask' | 'summarise' | 'expire'

/** The verdict over one open delivery at this time. */
export function judgeWaiting (item: Waiting, nowMs: number, policy: AgePolicy): Verdict {
  const isSent = item.state !== 'accepted'
  if (item.kind !== 'payment') {
    if (nowMs < item.expiresAt) return 'speak'
    return isSent && item.kind === 'summary' && nowMs - item.issuedAt <= policy.summaryMs ? 'ask' : 'expire'
  }
  const age = nowMs - item.issuedAt
  if (age <= policy.speakMs) return 'speak'
  if (isSent) return age <= policy.summaryMs ? 'ask' : 'expire'
  return age <= policy.summaryMs ? 'summarise' : 'expire'
}

/** What the pump needs of a stored delivery. */
export function waitingOf (delivery: Delivery): Waiting {
  const { bankId: _b, transactionId: _t, publishedAt: _p, deliveredAt: _d, finalAt: _f, queuedMs: _q, audioMs: _a, reason: _r, summaryId: _s, ...item } = delivery
  return item
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
