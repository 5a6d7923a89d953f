import { readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { applyGroup } from '../../gateway/fallback/drain.js'
import type { FallbackRecord } from '../../gateway/fallback/contract.js'
import { CHANGES_PER_RECORD, createPaymentMemory, paymentKey, RECORD_BYTES_MAX } from '../../gateway/fallback/records.js'
import { APPEND_QUEUE_MAX, openSpool } from '../../gateway/fallback/spool.js'
import { HEADER_BYTES } from '../../gateway/fallback/spool-format.js'
import { SET_ASIDE_BYTES_MAX } from '../../gateway/fallback/spool-segments.js'
import { SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { drained, paymentRecord, recordName } from '../support/fallback-records.js'
import { seedsOf } from '../support/store-random.js'
import { collectLog, seededRandom, someDelivery, somePayment, stepOf } from '../support/store-records.js'

const SMALL = { segmentBytes: 8192, segmentsReady: 2, segmentsMax: 3 }

t.test('what is appended is found, drained in order, and gone', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  t.teardown(spool.close)
  await Promise.all([1, 2, 3].map(i => spool.append(paymentRecord(i))))
  await spool.append({ kind: 'reversal', bankId: 'pnb', transactionId: 'T2', at: 5 })
  t.equal(spool.depth(), 4)
  t.same(spool.findPayment('pnb', 'T2'), { payment: somePayment(2), deliveries: [someDelivery(2)] })
  t.equal(spool.findPayment('cboi', 'T2'), undefined)
  t.same(await drained(spool), ['T1', 'T2', 'T3', 'reversal T2'])
  t.equal(spool.depth(), 0)
  t.equal(spool.findPayment('pnb', 'T2'), undefined)
  t.same(await spool.drain(async () => { t.fail('nothing waits') }), { drained: 0, left: 0, setAside: 0 })
})

t.test('a payment is found before it is on disk, and no more when it was refused', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, segmentBytes: HEADER_BYTES + 700, segmentsReady: 1, segmentsMax: 1 })
  t.teardown(spool.close)
  const first = spool.append(paymentRecord(1))
  t.ok(spool.findPayment('pnb', 'T1'), 'found at once')
  await first
  await t.rejects(spool.append(paymentRecord(2)), { code: 'SPOOL_FULL' })
  t.equal(spool.findPayment('pnb', 'T2'), undefined)
  t.ok(spool.findPayment('pnb', 'T1'))
})

t.test('what waits survives a restart, what was drained does not come back', async t => {
  const dir = t.testdir()
  const first = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  for (let i = 0; i < 20; i++) await first.append(paymentRecord(i))
  let applied = 0
  await first.drain(async () => {
    applied += 1
    if (applied > 7) throw new SoundboxError('STORE_FAILED', 'locked again')
  })
  await first.close()
  const second = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  t.teardown(second.close)
  t.equal(second.depth(), 13)
  t.ok(second.findPayment('pnb', 'T19'))
  t.equal(second.findPayment('pnb', 'T6'), undefined)
  t.same(await drained(second), Array.from({ length: 13 }, (_, i) => `T${i + 7}`))
})

t.test('files are for their owner only', async t => {
  const dir = join(t.testdir(), 'spool')
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  t.teardown(spool.close)
  t.equal(statSync(dir).mode & 0o777, 0o700)
  t.same(readdirSync(dir).sort(), ['position', 'segment-000', 'segment-001', 'set-aside.jsonl'])
  for (const file of readdirSync(dir)) t.equal(statSync(join(dir, file)).mode & 0o777, 0o600, file)
})

t.test('segments fill up, are refused beyond the last, and serve again when drained', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, ...SMALL })
  t.teardown(spool.close)
  let fitted = 0
  for (let round = 0; round < 4; round++) {
    const results = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => spool.append(paymentRecord(round * 100 + i))))
    const kept = results.filter(result => result.status === 'fulfilled').length
    const refused = results.find(result => result.status === 'rejected')
    t.match(refused, { reason: { code: 'SPOOL_FULL' } })
    t.ok(kept > 25 && kept < 60, `${kept} fit into three segments`)
    t.equal(spool.depth(), kept)
    t.equal((await drained(spool)).length, kept)
    fitted += kept
  }
  t.ok(fitted > 100, 'room was used again and again')
})

t.test('a record is taken at its limit and refused one byte past it', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, segmentBytes: 1024 * 1024, segmentsReady: 1, segmentsMax: 1 })
  t.teardown(spool.close)
  const record = (bytes: number): FallbackRecord => ({ kind: 'reversal', bankId: 'b'.repeat(bytes), transactionId: 't', at: 1 })
  const frame = Buffer.byteLength(JSON.stringify(record(0)))
  await spool.append(record(RECORD_BYTES_MAX - frame))
  await t.rejects(spool.append(record(RECORD_BYTES_MAX - frame + 1)), { code: 'INPUT_INVALID' })
  t.equal(spool.depth(), 1)
})

t.test('the queue for one sync has a limit', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, segmentBytes: 4 * 1024 * 1024, segmentsReady: 1, segmentsMax: 1 })
  t.teardown(spool.close)
  const appends = Array.from({ length: APPEND_QUEUE_MAX }, (_, at) => spool.append({ kind: 'reversal', bankId: 'b', transactionId: 't', at }))
  await t.rejects(spool.append(paymentRecord(1)), { code: 'STORE_FAILED' })
  await Promise.all(appends)
  t.equal(spool.depth(), APPEND_QUEUE_MAX)
})

t.test('a long list of changes becomes several records', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, segmentBytes: 1024 * 1024, segmentsReady: 1, segmentsMax: 1 })
  t.teardown(spool.close)
  const changes = Array.from({ length: CHANGES_PER_RECORD + 1 }, (_, i) => stepOf(someDelivery(i), 'spoken', i))
  await spool.append({ kind: 'changes', changes: changes.slice(0, CHANGES_PER_RECORD) })
  t.equal(spool.depth(), 1)
  await spool.append({ kind: 'changes', changes })
  t.equal(spool.depth(), 3)
  const seen: FallbackRecord[] = []
  await spool.drain(async record => { seen.push(record) })
  t.same(seen, [{ kind: 'changes', changes: [...changes.slice(0, CHANGES_PER_RECORD), ...changes] }], 'neighbours are applied as one')
})

t.test('draining stops at what can wait and sets aside what can never be applied', async t => {
  const dir = t.testdir()
  const log = collectLog()
  const spool = await openSpool({ dir, log, ...SMALL })
  t.teardown(spool.close)
  for (let i = 0; i < 4; i++) await spool.append(paymentRecord(i))
  const apply = (locked: boolean) => async (record: FallbackRecord): Promise<void> => {
    if (recordName(record) === 'T1') throw new SoundboxError('INPUT_INVALID', 'a value is missing')
    if (recordName(record) === 'T2' && locked) throw new SoundboxError('STORE_FAILED', 'locked')
  }
  t.same(await spool.drain(apply(true)), { drained: 1, setAside: 1, left: 2 })
  t.match(JSON.parse(readFileSync(join(dir, 'set-aside.jsonl'), 'utf8')), { reason: 'INPUT_INVALID', record: { payment: { transactionId: 'T1' } } })
  t.match(log.lines, [{ level: 'error', fields: { reason: 'INPUT_INVALID' } }])
  t.same(await spool.drain(apply(true)), { drained: 0, setAside: 0, left: 2 })
  t.same(await spool.drain(apply(false)), { drained: 2, setAside: 0, left: 0 })
})

t.test('what is set aside has a limit: beyond it draining stops and nothing is lost', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  t.teardown(spool.close)
  for (let i = 0; i < 2; i++) await spool.append(paymentRecord(i))
  const refuse = async (): Promise<void> => { throw new SoundboxError('INPUT_INVALID', 'never') }
  truncateSync(join(dir, 'set-aside.jsonl'), SET_ASIDE_BYTES_MAX)
  await t.rejects(spool.drain(refuse), { code: 'SPOOL_FULL' })
  t.equal(spool.depth(), 2)
  truncateSync(join(dir, 'set-aside.jsonl'), SET_ASIDE_BYTES_MAX - 1)
  await t.rejects(spool.drain(refuse), { code: 'SPOOL_FULL' }, 'the first still fits, the second does not')
  truncateSync(join(dir, 'set-aside.jsonl'), 0)
  t.same(await spool.drain(refuse), { drained: 0, setAside: 2, left: 0 })
})

t.test('any mix of appends, broken drains and restarts applies all, in order, and nothing twice but what a restart repeats', async t => {
  for (const seed of seedsOf(3)) {
    const random = seededRandom(seed)
    const dir = join(t.testdir(), `seed-${seed}`)
    const settings = { dir, log: SILENT_LOG, segmentBytes: 8192, segmentsReady: 1, segmentsMax: 6 }
    let spool = await openSpool(settings)
    const waiting: string[] = []
    const applied: string[] = []
    let next = 0
    for (let round = 0; round < 40; round++) {
      const choice = random()
      if (choice < 0.55) {
        const records = Array.from({ length: 1 + Math.floor(random() * 6) }, () => paymentRecord(next++))
        const results = await Promise.allSettled(records.map(spool.append))
        waiting.push(...records.filter((_, index) => results[index]?.status === 'fulfilled').map(recordName))
      } else if (choice < 0.85) {
        let allowed = Math.floor(random() * 10)
        const report = await spool.drain(async record => {
          if (allowed-- <= 0) throw new SoundboxError('STORE_FAILED', 'locked')
          if (!applied.includes(recordName(record))) applied.push(recordName(record))
        })
        waiting.splice(0, report.drained)
        t.equal(report.left, waiting.length, `SEED=${seed} round ${round} left`)
      } else {
        await spool.close()
        spool = await openSpool(settings)
      }
      t.equal(spool.depth(), waiting.length, `SEED=${seed} round ${round} depth`)
      t.same([waiting[0], waiting.at(-1)].map(id => id === undefined || spool.findPayment('pnb', id)?.payment.transactionId === id), [true, true], `SEED=${seed} found`)
    }
    for (const id of await drained(spool)) if (!applied.includes(id)) applied.push(id)
    t.same(applied, Array.from({ length: next }, (_, i) => `T${i}`).filter(id => applied.includes(id)), `SEED=${seed} in order`)
    t.ok(waiting.every(id => applied.includes(id)), `SEED=${seed} all`)
    await spool.close()
  }
})

t.test('the memory of payments forgets the oldest at its limit', async t => {
  const memory = createPaymentMemory(2)
  for (const i of [1, 2, 2]) memory.add(paymentRecord(i))
  t.ok(memory.find(paymentKey(somePayment(1))), 'two fit')
  memory.add(paymentRecord(3))
  t.same([1, 2, 3].map(i => memory.find(paymentKey(somePayment(i))) !== undefined), [false, true, true])
  memory.add({ kind: 'reversal', bankId: 'pnb', transactionId: 'T2', at: 1 })
  memory.drop(paymentRecord(2))
  t.equal(memory.find(paymentKey(somePayment(2))), undefined)
})

t.test('two drains at once are one', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, ...SMALL })
  t.teardown(spool.close)
  await spool.append(paymentRecord(1))
  const seen: string[] = []
  const apply = async (record: FallbackRecord): Promise<void> => { seen.push(recordName(record)) }
  t.same(await Promise.all([spool.drain(apply), spool.drain(apply)]), [{ drained: 1, setAside: 0, left: 0 }, { drained: 1, setAside: 0, left: 0 }])
  t.same(seen, ['T1'])
})

t.test('a closed spool finishes what it has and refuses the rest', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  const append = spool.append(paymentRecord(1))
  await spool.close()
  await append
  await t.rejects(spool.append(paymentRecord(2)), { code: 'STORE_FAILED' })
  const again = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  t.equal(again.depth(), 1)
  await again.close()
})

t.test('a group applies payments first and together, then the rest in order', async t => {
  const order: string[] = []
  let atOnce = 0
  let most = 0
  const apply = async (record: FallbackRecord): Promise<void> => {
    most = Math.max(most, ++atOnce)
    order.push(recordName(record))
    await new Promise(resolve => setImmediate(resolve))
    atOnce -= 1
  }
  const change = (i: number): FallbackRecord => ({ kind: 'changes', changes: [stepOf(someDelivery(i), 'spoken', i)] })
  const verdicts = await applyGroup([paymentRecord(1), change(1), paymentRecord(2), change(2), { kind: 'reversal', bankId: 'pnb', transactionId: 'T1', at: 1 }, change(3)], apply)
  t.ok(verdicts.every(verdict => verdict.kind === 'applied'))
  t.same(order, ['T1', 'T2', 'changes 2', 'reversal T1', 'changes 1'])
  t.equal(most, 2)
})

t.test('one bad change among neighbours is found by trying each', async t => {
  const change = (i: number): FallbackRecord => ({ kind: 'changes', changes: [stepOf(someDelivery(i), 'spoken', i)] })
  const apply = async (record: FallbackRecord): Promise<void> => {
    if (record.kind === 'changes' && record.changes.some(({ at }) => at === 2)) throw new SoundboxError('INPUT_INVALID', 'bad')
  }
  const verdicts = await applyGroup([change(1), change(2), change(3)], apply)
  t.same(verdicts.map(verdict => verdict.kind), ['applied', 'reject', 'applied'])
})

t.test('an error that is not ours keeps the record', async t => {
  const verdicts = await applyGroup([paymentRecord(1), paymentRecord(2)], async record => {
    if (recordName(record) === 'T1') throw new TypeError('a bug')
  })
  t.same(verdicts.map(verdict => verdict.kind), ['retry', 'retry'], 'those behind wait too')
})

t.test('a directory that cannot be written is an error at the start', async t => {
  const dir = t.testdir({ spool: 'a file' })
  await t.rejects(openSpool({ dir: join(dir, 'spool'), log: SILENT_LOG, ...SMALL }), { code: 'DATA_DIR_UNUSABLE' })
})
