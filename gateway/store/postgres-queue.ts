// Writes of one gateway to PostgreSQL, in order: what arrives in one turn, and while the last batch was under way, goes together.
// Payments of a stretch are one statement and its steps another; any other operation is a barrier between stretches.
import { SoundboxError } from '../../protocol/index.js'
import type { DeliveryChange, Recorded } from './contract.js'
import { deliveryKey } from './delivery-steps.js'
import { isRecordFault, type Queryable, storeErrorFrom } from './postgres-open.js'
import { type Counted, nameOf, type NewPayment, recordPayments, stepDeliveries } from './postgres-writes.js'

/** Operations of one batch, so that the first of a flood is not answered with the last. */
export const BATCH_OPS_MAX = 1_000

export type WriteOp =
  | { kind: 'record', item: NewPayment }
  | { kind: 'step', changes: readonly DeliveryChange[] }
  | { kind: 'run', run: (db: Queryable) => Promise<Counted<unknown>> }
type Waiting<Op extends WriteOp = WriteOp> = { op: Op, resolve: (value: unknown) => void, reject: (error: unknown) => void }
export type QueueEvents = { onCounted: (change: { payments: number, open: number }) => void, onBatch: (ok: boolean, ops: number) => void }
export type WriteQueue = { add: (op: WriteOp) => Promise<unknown>, waiting: () => number, idle: () => Promise<void> }

/** `db` may throw STORE_FAILED at once while it knows that there is no connection. */
export function createWriteQueue (db: Queryable, queueMax: number, events: QueueEvents): WriteQueue {
  let queue: Waiting[] = []
  let running = 0
  let working: Promise<void> | undefined
  const work = async (): Promise<void> => {
    await new Promise(resolve => setImmediate(resolve))
    while (queue.length > 0) {
      const batch = queue.slice(0, BATCH_OPS_MAX)
      queue = queue.slice(batch.length)
      running = batch.length
      await runBatch(db, batch, events)
      running = 0
    }
    working = undefined
  }
  return {
    add: op => {
      if (queue.length + running >= queueMax) return Promise.reject(new SoundboxError('STORE_FAILED', `${queueMax} calls wait for the database already`))
      const done = new Promise((resolve, reject) => { queue.push({ op, resolve, reject }) })
      working ??= work()
      return done
    },
    waiting: () => queue.length + running,
    idle: async () => { await working }
  }
}

type Stretch = { records: Waiting<WriteOp & { kind: 'record' }>[], steps: Waiting<WriteOp & { kind: 'step' }>[], barrier?: Waiting<WriteOp & { kind: 'run' }> }

function stretchesOf (batch: readonly Waiting[]): Stretch[] {
  const stretches: Stretch[] = [{ records: [], steps: [] }]
  for (const waiting of batch) {
    const last = stretches.at(-1)!
    if (waiting.op.kind === 'record') last.records.push(waiting as Stretch['records'][number])
    else if (waiting.op.kind === 'step') last.steps.push(waiting as Stretch['steps'][number])
    else {
      last.barrier = waiting as NonNullable<Stretch['barrier']>
      stretches.push({ records: [], steps: [] })
    }
  }
  return stretches
}

/** Never rejects. When the database fails, the rest of the batch is refused with the same error and not tried. */
async function runBatch (db: Queryable, batch: readonly Waiting[], events: QueueEvents): Promise<void> {
  try {
    for (const { records, steps, barrier } of stretchesOf(batch)) {
      await runRecords(db, records, events)
      await runSteps(db, steps, events)
      if (barrier !== undefined) await runOne(barrier, async () => counted(events, await barrier.op.run(db)))
    }
    events.onBatch(true, batch.length)
  } catch (error) {
    for (const { reject } of batch) reject(storeErrorFrom(error))
    events.onBatch(false, batch.length)
  }
}

function counted<T> ({ onCounted }: QueueEvents, { value, payments, open }: Counted<T>): T {
  if (payments !== 0 || open !== 0) onCounted({ payments, open })
  return value
}

/** A record's own fault is its caller's; any other is thrown. */
async function runOne (waiting: Waiting, run: () => Promise<unknown>): Promise<void> {
  try {
    waiting.resolve(await run())
  } catch (error) {
    if (!isRecordFault(error)) throw error
    waiting.reject(storeErrorFrom(error))
  }
}

/** The second payment of one name in a stretch goes into the next round: it finds the first. */
async function runRecords (db: Queryable, records: Stretch['records'], events: QueueEvents): Promise<void> {
  for (let rest = records; rest.length > 0;) {
    const seen = new Set<string>()
    const round = rest.filter(({ op: { item } }) => !seen.has(nameOf(item.payment)) && seen.add(nameOf(item.payment)))
    const taken = new Set(round)
    rest = rest.filter(waiting => !taken.has(waiting))
    await together(round, async () => {
      const outcomes: Recorded[] = counted(events, await recordPayments(db, round.map(({ op }) => op.item)))
      for (const [index, { resolve }] of round.entries()) resolve(outcomes[index])
    }, async waiting => counted(events, await recordPayments(db, [(waiting as typeof round[number]).op.item]))[0])
  }
}

async function runSteps (db: Queryable, steps: Stretch['steps'], events: QueueEvents): Promise<void> {
  await together(steps, async () => {
    const missing = new Set(counted(events, await stepDeliveries(db, steps.flatMap(({ op }) => op.changes))).map(deliveryKey))
    for (const { op, resolve } of steps) resolve(op.changes.filter(change => missing.has(deliveryKey(change))))
  }, async waiting => counted(events, await stepDeliveries(db, (waiting as typeof steps[number]).op.changes)))
}

/** All in one statement; when a record in it is at fault, each by itself. */
async function together (waiting: readonly Waiting[], all: () => Promise<void>, single: (waiting: Waiting) => Promise<unknown>): Promise<void> {
  if (waiting.length === 0) return
  try {
    await all()
  } catch (error) {
    if (!isRecordFault(error)) throw error
    for (const one of waiting) await runOne(one, () => single(one))
  }
}
