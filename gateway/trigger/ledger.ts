// The book of what became of each announcement. Steps on the way (published, delivered) are written lazily, gathered over a moment and
// over the final that often follows; finals are on disk before anyone is told. What the store refuses goes to the fallback.
import { isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import type { Fallback } from '../fallback/contract.js'
import type { DeliveryChange, Store } from '../store/contract.js'

/** Lazily written steps that may wait at once; beyond, the oldest are written at once. */
export const NOTES_MAX = 4096
export const NOTE_DELAY_MS = 100
/** Finals of ids that nobody here has sent (a restart forgets them) which one box may put into the fallback until that is empty again. */
export const STRANGE_FINALS_MAX = 1000

export type Ledger = {
  note: (change: DeliveryChange) => void
  /**
   * Durable when it resolves: in the store, else in the fallback. Rejects only when both refuse. `isOurs` false: a box said so of an id
   * that nobody here has sent; it goes nowhere when the store does not know it either and nothing waits in the fallback, and rejects with
   * STORE_FAILED beyond STRANGE_FINALS_MAX: a box that invents ids must not fill the fallback, which payments need.
   */
  settle: (changes: readonly DeliveryChange[], isOurs?: boolean) => Promise<void>
  flush: () => Promise<void>
  close: () => Promise<void>
}
type LedgerDeps = {
  store: Pick<Store, 'stepDeliveries'>
  fallback: Pick<Fallback, 'append' | 'depth'>
  log: Log
  startTimer: (callback: () => void, ms: number) => { stop: () => void }
}

/** Starts with nothing noted. `startTimer` runs a callback again and again. */
export function openLedger (deps: LedgerDeps): Ledger {
  let notes = new Map<string, DeliveryChange[]>()
  const strange = new Map<string, number>()
  const timer = deps.startTimer(() => { void flush().catch(() => {}) }, NOTE_DELAY_MS)

  const takeNotes = (change: DeliveryChange): DeliveryChange[] => {
    const key = `${change.tid}/${change.announcementId}`
    const found = notes.get(key)
    if (found === undefined) return []
    notes.delete(key)
    return found
  }
  const flush = async (): Promise<void> => {
    if (notes.size === 0) return
    const changes = [...notes.values()].flat()
    notes = new Map()
    await write(deps, changes).catch((err: unknown) => { deps.log.error({ err, changes: changes.length }, 'steps of deliveries were not recorded') })
  }
  return {
    note (change) {
      const key = `${change.tid}/${change.announcementId}`
      notes.set(key, [...notes.get(key) ?? [], change])
      if (notes.size > NOTES_MAX) void flush()
    },
    settle: (changes, isOurs = true) => write(deps, changes.flatMap(change => [...takeNotes(change), change]), isOurs ? undefined : strange),
    flush,
    async close () {
      timer.stop()
      await flush()
    }
  }
}

/** `strange`: how many such finals each box has in the fallback; undefined when the changes are ours. */
async function write (deps: LedgerDeps, changes: readonly DeliveryChange[], strange?: Map<string, number>): Promise<void> {
  const refused = await step(deps, changes)
  if (refused.length === 0) return
  if (refused === changes || strange === undefined || deps.fallback.depth() > 0) {
    if (strange !== undefined) countStrange(deps, refused, strange)
    return await deps.fallback.append({ kind: 'changes', changes: refused })
  }
  // Nothing waits in the fallback now: a row that came out of it in between is there, one that is still missing belongs to no payment.
  const unknown = await step(deps, refused)
  if (unknown === refused) await deps.fallback.append({ kind: 'changes', changes: refused })
  else if (unknown.length > 0) deps.log.warn({ changes: unknown.length, tid: unknown[0]?.tid }, 'steps of deliveries that are not known')
}

function countStrange ({ fallback, log }: LedgerDeps, changes: readonly DeliveryChange[], strange: Map<string, number>): void {
  if (fallback.depth() === 0) strange.clear()
  const tid = changes[0]?.tid ?? ''
  const count = (strange.get(tid) ?? 0) + changes.length
  if (count > STRANGE_FINALS_MAX) {
    log.warn({ tid }, 'soundbox tells too much of what nobody has sent')
    throw new SoundboxError('STORE_FAILED', 'what the soundbox tells cannot be recorded now')
  }
  strange.set(tid, count)
}

/** The changes whose row is missing: their payment may wait in the fallback. The very list that was given when the store fails. */
async function step (deps: LedgerDeps, changes: readonly DeliveryChange[]): Promise<readonly DeliveryChange[]> {
  try {
    return [...await deps.store.stepDeliveries(changes)]
  } catch (error) {
    if (!isSoundboxError(error, 'STORE_FAILED')) throw error
    return changes
  }
}
