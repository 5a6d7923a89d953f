// Runs what the main thread sent. A batch of writes is one transaction; it is run in the hope that all is well, and when one
// operation throws, it is rolled back and run again with a savepoint around each, so that only the bad one fails.
import { isSoundboxError } from '../../protocol/index.js'
import type { DeliveryChange } from './contract.js'
import { deliveryKey } from './delivery-steps.js'
import { type Db, isStorageFault, needsReopen, type Statement, sqliteCode } from './sqlite-open.js'

/** Rows that the statistics tell, counted in the same transaction as the rows themselves. */
export type Counters = { payments: number, open: number }
export type Op = readonly [name: string, argument: unknown]
export type Ops = Record<string, (argument: never) => unknown>
/** `code` is an ErrorCode of ours. */
export type OpFailure = { index: number, code: string, message: string }
/** Answers in the order of the operations; `fault` says that the database failed, and `reopen` that its connection is to be replaced. */
export type BatchReply = { values: unknown[], failures: OpFailure[], counters: Counters, fault: string | null, reopen: boolean }
export type WriteTarget = { db: Db, ops: Ops, counters: Counters }

/** Operations whose order against a step does not matter to anyone: no answer was given yet to either. */
const COMMUTES_WITH_STEPS = new Set(['recordPayment', 'recordNotice', 'addMarks', 'saveDeviceSeen'])

/** The transaction statements and the counter rows of one connection. */
export function createBatchWriter ({ db, ops, counters }: WriteTarget): (batch: readonly Op[]) => BatchReply {
  const [begin, commit, rollback] = ['BEGIN IMMEDIATE', 'COMMIT', 'ROLLBACK'].map(sql => db.prepare(sql)) as [Statement, Statement, Statement]
  const [save, release, undo] = ['SAVEPOINT op', 'RELEASE op', 'ROLLBACK TO op'].map(sql => db.prepare(sql)) as [Statement, Statement, Statement]
  const count = db.prepare('UPDATE counter SET value = value + ? WHERE name = ?')
  const load = db.prepare('SELECT value FROM counter WHERE name = ?').pluck()
  Object.assign(counters, { payments: load.get('payments'), open: load.get('open') })

  const transaction = (work: () => void): void => {
    const before = { ...counters }
    try {
      begin.run()
      work()
      if (counters.payments !== before.payments) count.run(counters.payments - before.payments, 'payments')
      if (counters.open !== before.open) count.run(counters.open - before.open, 'open')
      commit.run()
    } catch (error) {
      Object.assign(counters, before)
      if (db.inTransaction) rollback.run()
      throw error
    }
  }

  const single = (op: Op, index: number, reply: BatchReply): void => {
    const before = { ...counters }
    save.run()
    try {
      reply.values[index] = runOp(ops, op)
    } catch (error) {
      if (isStorageFault(error)) throw error
      undo.run()
      Object.assign(counters, before)
      reply.failures.push(failureOf(error, index))
    }
    release.run()
  }

  return batch => {
    const reply: BatchReply = { values: [], failures: [], counters, fault: null, reopen: false }
    try {
      try {
        transaction(() => { reply.values = runMerged(ops, batch) })
      } catch (error) {
        if (isStorageFault(error)) throw error
        reply.values = batch.map(() => null)
        transaction(() => { batch.forEach((op, index) => { single(op, index, reply) }) })
      }
    } catch (error) {
      if (!isStorageFault(error)) throw error
      return { values: [], failures: [], counters, fault: sqliteCode(error), reopen: needsReopen(error) }
    }
    return reply
  }
}

/** Steps of a stretch are gathered and applied as one, at its end. */
function runMerged (ops: Ops, batch: readonly Op[]): unknown[] {
  const values: unknown[] = batch.map(() => null)
  let steps: number[] = []
  const applySteps = (): void => {
    if (steps.length === 0) return
    const missing = runOp(ops, ['stepDeliveries', steps.flatMap(index => batch[index]![1] as DeliveryChange[])]) as DeliveryChange[]
    const keys = new Set(missing.map(deliveryKey))
    for (const index of steps) values[index] = keys.size === 0 ? [] : (batch[index]![1] as DeliveryChange[]).filter(change => keys.has(deliveryKey(change)))
    steps = []
  }
  for (const [index, op] of batch.entries()) {
    if (op[0] === 'stepDeliveries') {
      steps.push(index)
      continue
    }
    if (!COMMUTES_WITH_STEPS.has(op[0])) applySteps()
    values[index] = runOp(ops, op)
  }
  applySteps()
  return values
}

/** Reads, each for itself: the failure of one is not the failure of the next. */
export function runReads (ops: Ops, batch: readonly Op[]): BatchReply {
  const reply: BatchReply = { values: batch.map(() => null), failures: [], counters: { payments: 0, open: 0 }, fault: null, reopen: false }
  for (const [index, op] of batch.entries()) {
    try {
      reply.values[index] = runOp(ops, op)
    } catch (error) {
      if (isStorageFault(error)) reply.fault = sqliteCode(error)
      if (needsReopen(error)) reply.reopen = true
      reply.failures.push(failureOf(error, index))
    }
  }
  return reply
}

function runOp (ops: Ops, [name, argument]: Op): unknown {
  return ops[name]!(argument as never) ?? null
}

function failureOf (error: unknown, index: number): OpFailure {
  if (isSoundboxError(error)) return { index, code: error.code, message: error.message }
  if (isStorageFault(error)) return { index, code: 'STORE_FAILED', message: `the database cannot serve this now (${sqliteCode(error)})` }
  const why = sqliteCode(error) === '' ? 'a value is missing or of the wrong type' : (error as Error).message
  return { index, code: 'INPUT_INVALID', message: `the record cannot be stored: ${why}` }
}
