// A process that records payments without end and says on standard output what was confirmed: for tests that kill it.
// Usage: node store-writer.js DIR FIRST    lines: `ready`, then `store N`, `spool N`, `refused N`
import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { openSpool } from '../../gateway/fallback/spool.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { hexOf, someDelivery, somePayment, START_MS } from './store-records.js'

const [dir = '', first = '0'] = process.argv.slice(2)
const AT_ONCE = 20

function say (line: string): void {
  writeSync(1, `${line}\n`)
}

const store = await openSqliteStore({ path: join(dir, 'x.db'), log: SILENT_LOG, nowMs: () => START_MS })
const spool = await openSpool({ dir: join(dir, 'spool'), log: SILENT_LOG, segmentBytes: 256 * 1024, segmentsReady: 2, segmentsMax: 40 })
say('ready')

let next = Number(first)
async function work (kind: 'store' | 'spool'): Promise<void> {
  for (;;) {
    const i = next++
    const [payment, deliveries] = [somePayment(i), [someDelivery(i), someDelivery(i, { tid: 'second' })]]
    try {
      if (kind === 'store') {
        store.claimMark({ mark: hexOf(`mark ${i}`), owner: '', expiresAt: START_MS + 1000 })
        await store.recordPayment(payment, deliveries)
      } else await spool.append({ kind: 'payment', payment, deliveries })
      say(`${kind} ${i}`)
    } catch {
      say(`refused ${i}`)
    }
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => work(i % 2 === 0 ? 'store' : 'spool')))
