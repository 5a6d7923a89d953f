// Payments through the store: record, published, spoken. Beside it, in the same run, the same rows with one commit each on the main
// thread: the ratio is what can be compared between disks. Then the store at a fixed pace, and the spool. Alone: node dist/test/bench/store.bench.js
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { pathToFileURL } from 'node:url'
import { openSpool } from '../../gateway/fallback/spool.js'
import { migrateSqlite } from '../../gateway/store/migrate.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { openDatabase } from '../../gateway/store/sqlite-open.js'
import { writeOps } from '../../gateway/store/sqlite-ops.js'
import { SQLITE_MIGRATIONS } from '../../gateway/store/sqlite-schema.js'
import type { Store } from '../../gateway/store/contract.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { hexOf, someDelivery, somePayment, START_MS, stepOf } from '../support/store-records.js'

const PAYMENTS = 20_000
const AT_ONCE = 256
const SINGLE_PAYMENTS = 400
const PACE_PER_SECOND = 3_000
const PACED_PAYMENTS = 9_000
const TICK_MS = 5

type Measured = { perSecond: number, p50: number, p99: number, loopMax: number }

/** Records payment `i`, then tells of its two steps; resolves to the time that the record took. */
async function payOnce (store: Store, i: number): Promise<number> {
  const start = performance.now()
  const delivery = someDelivery(i, { tid: `box${i % 1000}`, announcementId: hexOf(`announcement ${i}`) })
  await store.recordPayment(somePayment(i, { merchant: `shop${i % 1000}@isu` }), [delivery])
  const took = performance.now() - start
  await Promise.all([store.stepDeliveries([stepOf(delivery, 'published', START_MS)]), store.stepDeliveries([stepOf(delivery, 'spoken', START_MS + 1)])])
  return took
}

async function measured (count: number, work: () => Promise<number[]>): Promise<Measured> {
  const loop = monitorEventLoopDelay({ resolution: 1 })
  loop.enable()
  const start = performance.now()
  const waits = (await work()).sort((a, b) => a - b)
  const seconds = (performance.now() - start) / 1000
  loop.disable()
  return { perSecond: count / seconds, p50: waits[waits.length >> 1] ?? 0, p99: waits[Math.floor(waits.length * 0.99)] ?? 0, loopMax: loop.max / 1e6 }
}

/** As many at once as there are slots; each takes the next payment when it is done. */
async function flood (count: number, once: (i: number) => Promise<number>): Promise<number[]> {
  const waits: number[] = []
  let next = 0
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < count) waits.push(await once(next++))
  }))
  return waits
}

/** A fixed number a second, whatever the answers do. */
async function paced (count: number, from: number, once: (i: number) => Promise<number>): Promise<number[]> {
  const start = performance.now()
  const going: Promise<number>[] = []
  while (going.length < count) {
    const due = Math.min(count, Math.floor((performance.now() - start) * PACE_PER_SECOND / 1000))
    while (going.length < due) going.push(once(from + going.length))
    await new Promise(resolve => { setTimeout(resolve, TICK_MS) })
  }
  return await Promise.all(going)
}

/** Payments a second when each is a commit of its own, on this thread. */
function commitEach (dir: string): number {
  const db = openDatabase({ path: join(dir, 'single.db'), busyTimeoutMs: 100, readonly: false })
  migrateSqlite(db, SQLITE_MIGRATIONS, START_MS)
  const ops = writeOps(db, { payments: 0, open: 0 })
  const start = performance.now()
  for (let i = 0; i < SINGLE_PAYMENTS; i++) {
    const delivery = someDelivery(i, { announcementId: hexOf(`announcement ${i}`) })
    ops.recordPayment({ payment: somePayment(i), deliveries: [delivery] })
    ops.stepDeliveries([stepOf(delivery, 'published', START_MS)])
    ops.stepDeliveries([stepOf(delivery, 'spoken', START_MS + 1)])
  }
  const perSecond = SINGLE_PAYMENTS / (performance.now() - start) * 1000
  db.close()
  return perSecond
}

function line (name: string, { perSecond, p50, p99, loopMax }: Measured, ratio = ''): void {
  console.log(`${name.padEnd(34)} ${Math.round(perSecond).toLocaleString('en').padStart(8)} ops/s  p50 ${p50.toFixed(1)} ms  p99 ${p99.toFixed(1)} ms  loop max ${loopMax.toFixed(0)} ms${ratio}`)
}

/** Prints one line a measurement: payments a second, the time until a record is confirmed, and the longest stop of the event loop. */
export async function run (): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'soundbox-bench-'))
  try {
    const single = commitEach(dir)
    const store = await openSqliteStore({ path: join(dir, 'x.db'), log: SILENT_LOG, nowMs: () => START_MS })
    await flood(2_000, i => payOnce(store, i + 1_000_000))
    const flooded = await measured(PAYMENTS, () => flood(PAYMENTS, i => payOnce(store, i)))
    line(`store, ${AT_ONCE} at once`, flooded, `  ${(flooded.perSecond / single).toFixed(1)} x one commit a row (${Math.round(single)})`)
    line(`store, ${PACE_PER_SECOND}/s`, await measured(PACED_PAYMENTS, () => paced(PACED_PAYMENTS, PAYMENTS, i => payOnce(store, i))))
    await store.close()
    const spool = await openSpool({ dir: join(dir, 'spool'), log: SILENT_LOG })
    line('spool, append', await measured(PAYMENTS, () => flood(PAYMENTS, async i => {
      const start = performance.now()
      await spool.append({ kind: 'payment', payment: somePayment(i), deliveries: [someDelivery(i)] })
      return performance.now() - start
    })))
    await spool.close()
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await run()
