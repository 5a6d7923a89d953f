// Folds many changes of deliveries into one change a delivery: what a database then needs is one UPDATE a row. Pure.
import { DELIVERY_STATES, type DeliveryChange, type DeliveryState, isFinal, UNHEARD_STATES } from './contract.js'

/** The numbers that stand for states on disk, so that "forward" is "greater" and "open" is "< 3": the order of DELIVERY_STATES is frozen. */
export const STATE_CODES = Object.fromEntries(DELIVERY_STATES.map((state, code) => [state, code])) as Record<DeliveryState, number>

const UNHEARD_CODES: readonly number[] = UNHEARD_STATES.map(state => STATE_CODES[state])

/** True for an end that the members of a summary share. */
export function isUnheard ({ code }: FoldedStep): boolean {
  return UNHEARD_CODES.includes(code)
}

/** All that is known at once: the furthest state, and the first time each state was told. Details come with a final state only. */
export type FoldedStep = {
  tid: string
  announcementId: string
  code: number
  publishedAt: number | null
  deliveredAt: number | null
  finalAt: number | null
  queuedMs: number | null
  audioMs: number | null
  reason: string | null
  summaryId: string | null
}

/** Names a delivery in a Map. */
export function deliveryKey ({ tid, announcementId }: { tid: string, announcementId: string }): string {
  return `${announcementId} ${tid}`
}

/** One step a delivery, in the order of first mention. Applying it gives what applying the changes one by one gives. */
export function foldChanges (changes: readonly DeliveryChange[]): Map<string, FoldedStep> {
  const steps = new Map<string, FoldedStep>()
  for (const change of changes) {
    const key = deliveryKey(change)
    const step = steps.get(key) ?? emptyStep(change)
    steps.set(key, step)
    foldInto(step, change)
  }
  return steps
}

function emptyStep ({ tid, announcementId }: DeliveryChange): FoldedStep {
  return { tid, announcementId, code: -1, publishedAt: null, deliveredAt: null, finalAt: null, queuedMs: null, audioMs: null, reason: null, summaryId: null }
}

function foldInto (step: FoldedStep, change: DeliveryChange): void {
  if (!Number.isSafeInteger(change.at)) throw new TypeError('the time of a change must be a whole number')
  if (change.state === 'published') step.publishedAt ??= change.at
  if (change.state === 'delivered') step.deliveredAt ??= change.at
  if (step.finalAt !== null) return
  step.code = Math.max(step.code, DELIVERY_STATES.indexOf(change.state))
  if (!isFinal(change.state)) return
  step.finalAt = change.at
  step.queuedMs = change.queuedMs ?? null
  step.audioMs = change.audioMs ?? null
  step.reason = change.reason ?? null
  step.summaryId = change.summaryId ?? null
}
