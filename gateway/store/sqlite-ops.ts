// All operations of the SQLite store by name, gathered from their files: a new group is one more file and one more line here.
import type { Counters } from './sqlite-batch.js'
import { deliveryOps } from './sqlite-deliveries.js'
import { directoryReadOps, directoryWriteOps } from './sqlite-directory.js'
import { historyOps } from './sqlite-history.js'
import { integrationReadOps, integrationWriteOps } from './sqlite-integration.js'
import { isoReadOps, isoWriteOps } from './sqlite-iso.js'
import { markReadOps, markWriteOps } from './sqlite-marks.js'
import { merchantSideReadOps, merchantSideWriteOps } from './sqlite-merchant-side.js'
import type { Db } from './sqlite-open.js'
import { paymentOps } from './sqlite-payments.js'

/** What the writer can do. Each runs inside the transaction of its batch; what it adds to `counters` is rolled back with it. */
export function writeOps (db: Db, counters: Counters) {
  return {
    ...paymentOps(db, counters),
    ...deliveryOps(db, counters),
    ...directoryWriteOps(db),
    ...markWriteOps(db),
    ...integrationWriteOps(db),
    ...isoWriteOps(db),
    ...merchantSideWriteOps(db)
  }
}

/** What the reader can do. */
export function readOps (db: Db) {
  return {
    ...historyOps(db),
    ...directoryReadOps(db),
    ...markReadOps(db),
    ...integrationReadOps(db),
    ...isoReadOps(db),
    ...merchantSideReadOps(db)
  }
}

export type WriteOps = ReturnType<typeof writeOps>
export type ReadOps = ReturnType<typeof readOps>
