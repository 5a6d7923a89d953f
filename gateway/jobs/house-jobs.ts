// The jobs of the gateway itself: what waits is sent, drained, expired, purged and backed up.
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import type { Fallback, FallbackRecord } from '../fallback/contract.js'
import type { Store } from '../store/contract.js'
import type { Job } from './table.js'

/** Rows that one statement expires or purges: small, so that payments get in between. */
export const PURGE_BATCH = 500
/** Batches in one run; the rest waits for the next. */
export const PURGE_BATCHES_MAX = 200
const DAY_MS = 86_400_000

export type HouseDeps = {
  store: Store
  fallback: Fallback
  sweepVendors: () => Promise<void>
  /** `prefix`: of the file names, by which old ones are found. `make`: as `Store.backup`. */
  backup: { dir: string, prefix: string, make: Store['backup'] }
  settings: { retentionDays: number, backupKeep: number, backupCron: string, summaryMs: number }
  nowMs: () => number
  log: Log
}

/** The table of jobs; cron expressions with six fields start with seconds. */
export function houseJobs (deps: HouseDeps): readonly Job[] {
  const { store, settings, nowMs, log } = deps
  return [
    { name: 'deliveries-sweep', isLocal: true, cron: '*/5 * * * * *', what: 'expire what is too old to be spoken, push again to vendors', run: () => sweepDeliveries(deps) },
    { name: 'spool-drain', isLocal: true, cron: '*/3 * * * * *', what: 'bring records of the fallback into history', run: () => drainFallback(deps) },
    { name: 'replay-purge', cron: '20 * * * * *', what: 'forget request marks that are too old to matter', run: async () => { await store.purgeMarks(nowMs()) } },
    { name: 'history-retention', cron: '0 15 3 * * *', what: `remove history older than ${settings.retentionDays} days`, run: () => purgeHistory(deps) },
    {
      name: 'backup', isLocal: true, cron: settings.backupCron, what: `copy the database, keep ${settings.backupKeep} copies`, async run () {
        if (settings.backupKeep === 0) return
        const stamp = new Date(nowMs()).toISOString().replace(/[:.]/g, '-')
        const { dir, prefix, make } = deps.backup
        const { bytes } = await make(join(dir, `${prefix}-${stamp}.db`))
        for (const old of backupsIn(dir, prefix).slice(0, -settings.backupKeep)) rmSync(join(dir, old), { force: true })
        log.info({ bytes }, 'backup made and checked')
      }
    }
  ]
}

/** Backup files, oldest first. */
export function backupsIn (folder: string, prefix: string): string[] {
  return readdirSync(folder).filter(name => name.startsWith(`${prefix}-`) && name.endsWith('.db')).sort()
}

async function sweepDeliveries ({ store, settings, sweepVendors, nowMs }: HouseDeps): Promise<void> {
  await sweepVendors()
  await inBatches(() => store.expireDeliveries(nowMs() - settings.summaryMs, nowMs(), PURGE_BATCH))
}

async function purgeHistory ({ store, settings, nowMs, log }: HouseDeps): Promise<void> {
  const removed = await inBatches(() => store.purgeHistory(nowMs() - settings.retentionDays * DAY_MS, PURGE_BATCH))
  if (removed > 0) log.info({ removed }, 'old history removed')
}

/** Repeats a step that does PURGE_BATCH rows at most until nothing is left, or PURGE_BATCHES_MAX is reached. Returns how many rows it was. */
export async function inBatches (step: () => Promise<number>): Promise<number> {
  let total = 0
  for (let batch = 0; batch < PURGE_BATCHES_MAX; batch++) {
    const done = await step()
    total += done
    if (done < PURGE_BATCH) break
  }
  return total
}

/** Drains the fallback into the store. Its depth may be 0 while records of other nodes wait, so it is always asked. */
export async function drainFallback ({ store, fallback, log }: Pick<HouseDeps, 'store' | 'fallback' | 'log'>): Promise<void> {
  const { drained, left, setAside } = await fallback.drain(record => applyRecord(store, record)).catch((error: unknown) => {
    if (isSoundboxError(error, 'STORE_FAILED')) return { drained: 0, left: fallback.depth(), setAside: 0 }
    throw error
  })
  if (drained > 0 || setAside > 0) log.info({ drained, left, setAside }, 'fallback drained into history')
}

async function applyRecord (store: Store, record: FallbackRecord): Promise<void> {
  switch (record.kind) {
    case 'payment': {
      const recorded = await store.recordPayment(record.payment, record.deliveries)
      if (recorded.outcome === 'different') throw new SoundboxError('PAYMENT_CONFLICT', `transaction ${record.payment.transactionId} is in history with other content`)
      return
    }
    case 'changes': {
      await store.stepDeliveries(record.changes)
      return
    }
    case 'reversal': {
      await store.reversePayment(record.bankId, record.transactionId, record.at)
      return
    }
    default: record satisfies never
  }
}
