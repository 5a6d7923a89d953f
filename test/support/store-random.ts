// Random operations on a store and on its model at once. Every answer is compared, and in the end everything that can be asked for.
import { DELIVERY_STATES, type NewDelivery, type Store } from '../../gateway/store/contract.js'
import type { StoreModel } from './store-model.js'
import { seededRandom, someDelivery, somePayment, someSummary, START_MS, stepOf } from './store-records.js'
import type { Test } from './store-suite.js'

const PAYMENTS = 12
const BOXES = ['box0', 'box1', 'box2']

/** Tests whose operations follow from a seed run with these: SEED=17 one seed, SEEDS=50 so many. */
export function seedsOf (count: number): number[] {
  if (process.env['SEED'] !== undefined) return [Number(process.env['SEED'])]
  return Array.from({ length: Number(process.env['SEEDS'] ?? count) }, (_, i) => i + 1)
}

/** 150 rounds; a round is one operation that is awaited, or several of one turn. */
export async function runRandomOps (t: Test, seed: number, model: StoreModel, store: Store): Promise<void> {
  const random = seededRandom(seed)
  const pick = (below: number): number => Math.floor(random() * below)
  let clock = START_MS
  for (let round = 0; round < 150; round++) {
    const ops = Array.from({ length: random() < 0.3 ? 1 + pick(6) : 1 }, () => {
      clock += 1 + pick(50)
      return someOp(random, clock)
    })
    const got = Promise.all(ops.map(op => op.real(store)))
    const want = ops.map(op => op.model(model))
    if (ops.length === 1) t.same(await got, want, `SEED=${seed} round ${round} ${ops[0]!.name}`)
    else await got
  }
  t.match(store.stats(), model.counts(), `SEED=${seed} counts`)
  for (const tid of BOXES) {
    t.same(await store.openDeliveries(tid, 100), model.openDeliveries(tid, 100), `SEED=${seed} open of ${tid}`)
    t.same(await store.totalSince(tid, START_MS + 3), model.totalSince(tid, START_MS + 3), `SEED=${seed} total of ${tid}`)
  }
  const page = await store.queryHistory({ limit: 100 })
  t.same(page.rows, model.queryHistory({}), `SEED=${seed} history`)
}

type RandomOp = { name: string, real: (store: Store) => Promise<unknown>, model: (model: StoreModel) => unknown }

function someOp (random: () => number, at: number): RandomOp {
  const pick = (below: number): number => Math.floor(random() * below)
  const i = pick(PAYMENTS)
  const box = BOXES[pick(BOXES.length)]!
  const summary = someSummary(`summary ${pick(3)}`, { tid: box, issuedAt: at, seq: 1000 + pick(9) })
  const kind = pick(10)
  if (kind < 4) return recordOp(i, random, at)
  if (kind < 7) return stepOp(i, random, at)
  if (kind === 7) {
    return { name: `reverse T${i}`, real: store => store.reversePayment('pnb', `T${i}`, at), model: model => model.reversePayment('pnb', `T${i}`, at) }
  }
  if (kind === 8) {
    const members = [i, pick(PAYMENTS)].map(member => someDelivery(member).announcementId)
    return { name: 'summary', real: store => store.recordSummary(summary, members, at), model: model => model.recordSummary(summary, members, at) }
  }
  const before = at - pick(2000)
  const limit = 1 + pick(4)
  return { name: 'expire', real: store => store.expireDeliveries(before, at, limit), model: model => model.expireDeliveries(before, at, limit) }
}

function recordOp (i: number, random: () => number, at: number): RandomOp {
  const payment = somePayment(i, { acceptedAt: at, status: i % 4 === 0 ? 'failed' : 'success', listed: i % 5 !== 0, ...(random() < 0.1 ? { contentHash: 'ab'.repeat(16) } : {}) })
  const deliveries = BOXES.slice(0, i % 4).map(tid => someDelivery(i, { tid, issuedAt: at, seq: at }))
  return { name: `record T${i}`, real: store => store.recordPayment(payment, deliveries), model: model => model.recordPayment(payment, deliveries) }
}

function stepOp (i: number, random: () => number, at: number): RandomOp {
  const pick = (below: number): number => Math.floor(random() * below)
  const changes = Array.from({ length: 1 + pick(3) }, () => {
    const target: Pick<NewDelivery, 'tid' | 'announcementId'> = { tid: BOXES[pick(BOXES.length)]!, announcementId: someDelivery(random() < 0.7 ? i : pick(PAYMENTS)).announcementId }
    const details = random() < 0.5 ? { queuedMs: pick(100), audioMs: pick(100), reason: 'because' } : {}
    return stepOf(target, DELIVERY_STATES[pick(DELIVERY_STATES.length)]!, at, details)
  })
  return { name: 'step', real: store => store.stepDeliveries(changes), model: model => model.stepDeliveries(changes) }
}
