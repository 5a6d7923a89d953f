// How waiting records are applied: in groups, so that a group costs the store two commits and not one a record.
//
// Within a group the payments go first and together (the store keeps their order), then the rest in order, neighbouring changes as
// one. Nothing is lost by that: a payment does not depend on what is in front of it, and all else only on payments.
import { isSoundboxError } from '../../protocol/index.js'
import type { DeliveryChange } from '../store/contract.js'
import type { FallbackRecord } from './contract.js'

export type Apply = (record: FallbackRecord) => Promise<void>
/** `retry`: this record cannot be applied now. `reject`: it can never be, and why (a code, safe to log). */
export type Verdict = { kind: 'applied' } | { kind: 'retry' } | { kind: 'reject', code: string }

const APPLIED: Verdict = { kind: 'applied' }

/** What became of each record of the group, in its order. After a `retry` those behind it count as `retry` too. Never rejects. */
export async function applyGroup (records: readonly FallbackRecord[], apply: Apply): Promise<readonly Verdict[]> {
  const verdicts: Verdict[] = records.map(() => ({ kind: 'retry' }))
  const payments = indexesOf(records, record => record.kind === 'payment')
  await Promise.all(payments.map(async index => { verdicts[index] = await attempt(records[index]!, apply) }))
  if (payments.some(index => verdicts[index]!.kind === 'retry')) return stopAtRetry(verdicts)
  for (const run of runsOf(records)) {
    const merged = await attempt(mergedRecord(records, run), apply)
    for (const index of run) verdicts[index] = merged.kind === 'reject' && run.length > 1 ? await attempt(records[index]!, apply) : merged
    if (run.some(index => verdicts[index]!.kind === 'retry')) break
  }
  return stopAtRetry(verdicts)
}

function stopAtRetry (verdicts: readonly Verdict[]): readonly Verdict[] {
  const first = verdicts.findIndex(verdict => verdict.kind === 'retry')
  return first === -1 ? verdicts : verdicts.map((verdict, index) => index < first ? verdict : { kind: 'retry' })
}

/** Indexes of what is not a payment, neighbouring changes together. */
function runsOf (records: readonly FallbackRecord[]): number[][] {
  const runs: number[][] = []
  for (const index of indexesOf(records, record => record.kind !== 'payment')) {
    const last = runs.at(-1)
    if (last !== undefined && records[index]!.kind === 'changes' && records[last[0]!]!.kind === 'changes') last.push(index)
    else runs.push([index])
  }
  return runs
}

function mergedRecord (records: readonly FallbackRecord[], run: readonly number[]): FallbackRecord {
  if (run.length === 1) return records[run[0]!]!
  return { kind: 'changes', changes: run.flatMap(index => (records[index] as { changes: readonly DeliveryChange[] }).changes) }
}

function indexesOf (records: readonly FallbackRecord[], test: (record: FallbackRecord) => boolean): number[] {
  return records.flatMap((record, index) => test(record) ? [index] : [])
}

/** An error that is not ours is a fault of this code: the record waits until it is repaired. */
async function attempt (record: FallbackRecord, apply: Apply): Promise<Verdict> {
  try {
    await apply(record)
    return APPLIED
  } catch (error) {
    return isSoundboxError(error) && !error.retryable ? { kind: 'reject', code: error.code } : { kind: 'retry' }
  }
}
