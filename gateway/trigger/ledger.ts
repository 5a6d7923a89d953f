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
  /** Durable when it resolves: in the store, else in the fallback. Rejects only when both refuse. */
  settle: (changes: readonly DeliveryChange[]) => Promise<void>
  flush: () => Promise<void>
  close: () => Promise<void>
}
type LedgerDeps = {
  store: Pick<Store, 'stepDeliveries'>
  fallback: Pick<Fallback, 'append'>
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
    await write(deps, changes).catch((err: unknown) => { deps.log.error({ err, changes: changes.length }, 'steps of deliveries were not recorded') })
  }
  return {
    note (change) {
      const key = `${change.tid}/${change.announcementId}`
      notes.set(key, [...notes.get(key) ?? [], change])
      if (notes.size > NOTES_MAX) void flush()
    },
    settle: changes => write(deps, changes.flatMap(change => [...takeNotes(change), change])),
    flush,
    async close () {
      timer.stop()
      await flush()
    }
  }
}

async function write (deps: LedgerDeps, changes: readonly DeliveryChange[]): Promise<void> {
  let refused: readonly DeliveryChange[]
  try {
    refused = await deps.store.stepDeliveries(changes)
  } catch (error) {
    if (!isSoundboxError(error, 'STORE_FAILED')) throw error
    refused = changes
  }
  if (refused.length > 0) await deps.fallback.append({ kind: 'changes', changes: refused })
}
