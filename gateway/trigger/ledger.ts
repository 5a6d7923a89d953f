// The book of what became of each announcement. Steps on the way (published, delivered) are written lazily, gathered over a moment and
// over the final that often follows; finals are on disk before anyone is told. What the store refuses goes to the fallback.
import { isSoundboxError, type Log } from '../../protocol/index.js'
import type { Fallback } from '../fallback/contract.js'
import type { DeliveryChange, Store } from '../store/contract.js'

/** Lazily written steps that may wait at once; beyond, the oldest are written at once. */
export const NOTES_MAX = 4096
export const NOTE_DELAY_MS = 100

export type Ledger = {
  note: (change: DeliveryChange) => void
  /**
   * Durable when it resolves: in the store, else in the fallback. Rejects only when both refuse. `isOurs` false: a box said so of an id
   * that nobody here has sent; it goes nowhere when the store does not know it either and nothing waits in the fallback.
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
    await write(deps, changes, true).catch((err: unknown) => { deps.log.error({ err, changes: changes.length }, 'steps of deliveries were not recorded') })
  }
  return {
    note (change) {
      const key = `${change.tid}/${change.announcementId}`
      notes.set(key, [...notes.get(key) ?? [], change])
      if (notes.size > NOTES_MAX) void flush()
    },
    settle: (changes, isOurs = true) => write(deps, changes.flatMap(change => [...takeNotes(change), change]), isOurs),
    flush,
    async close () {
      timer.stop()
      await flush()
    }
  }
}

async function write (deps: LedgerDeps, changes: readonly DeliveryChange[], isOurs: boolean): Promise<void> {
  const refused = await step(deps, changes)
  if (refused.length === 0) return
  if (refused === changes || isOurs || deps.fallback.depth() > 0) return await deps.fallback.append({ kind: 'changes', changes: refused })
  // Nothing waits in the fallback now: a row that came out of it in between is there, one that is still missing belongs to no payment.
  const unknown = await step(deps, refused)
  if (unknown === refused) await deps.fallback.append({ kind: 'changes', changes: refused })
  else if (unknown.length > 0) deps.log.warn({ changes: unknown.length, tid: unknown[0]?.tid }, 'steps of deliveries that are not known')
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
