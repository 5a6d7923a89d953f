import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { applyGroup } from '../../gateway/fallback/drain.js'
import type { Fallback, FallbackRecord } from '../../gateway/fallback/contract.js'
import { CHANGES_PER_RECORD, RECORD_BYTES_MAX } from '../../gateway/fallback/records.js'
import { APPEND_QUEUE_MAX, openSpool } from '../../gateway/fallback/spool.js'
import {
  decodeHeader, decodePosition, decodeRecord, encodeHeader, encodePosition, encodeRecord, HEADER_BYTES, recordBytes, scanSegment
} from '../../gateway/fallback/spool-format.js'
import { SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { collectLog, seededRandom, someDelivery, somePayment, stepOf } from '../support/store-records.js'

const SMALL = { segmentBytes: 8192, segmentsReady: 2, segmentsMax: 3 }

function paymentRecord (i: number): FallbackRecord {
  return { kind: 'payment', payment: somePayment(i), deliveries: [someDelivery(i)] }
}

function idOf (record: FallbackRecord): string {
  return record.kind === 'payment' ? record.payment.transactionId : record.kind === 'reversal' ? `reversal ${record.transactionId}` : `changes ${record.changes.length}`
}

/** All that a drain applies, by name. */
async function drained (spool: Fallback): Promise<string[]> {
  const seen: string[] = []
  await spool.drain(async record => { seen.push(idOf(record)) })
  return seen
}

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

t.test('a torn tail is cut at every byte, and writing goes on behind the whole records', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL, segmentsReady: 1 })
  for (let i = 0; i < 3; i++) await spool.append(paymentRecord(i))
  await spool.close()
  const file = join(dir, 'segment-000')
  const whole = readFileSync(file)
  const { records, tail } = scanSegment(whole, 1, HEADER_BYTES)
  const last = records[2]!
  for (let cut = last.offset; cut < tail; cut += 31) {
    writeFileSync(file, Buffer.concat([whole.subarray(0, cut), Buffer.alloc(whole.length - cut)]))
    const log = collectLog()
    const again = await openSpool({ dir, log, ...SMALL, segmentsReady: 1 })
    t.equal(again.depth(), 2, `cut at ${cut}`)
    t.same(log.lines, [], 'a torn tail is nothing to report')
    await again.append(paymentRecord(9))
    t.same(await drained(again), ['T0', 'T1', 'T9'])
    await again.close()
    writeFileSync(join(dir, 'position'), Buffer.alloc(1024))
  }
})

t.test('damage in the middle is set aside and reported, all else is kept', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL, segmentsReady: 1 })
  for (let i = 0; i < 5; i++) await spool.append(paymentRecord(i))
  await spool.close()
  const file = join(dir, 'segment-000')
  const whole = readFileSync(file)
  const { records } = scanSegment(whole, 1, HEADER_BYTES)
  const hurt = [
    { name: 'a flipped bit in the JSON', at: records[2]!.offset + 40, bytes: Buffer.of(0xFF), lost: 'T2' },
    { name: 'a wild length', at: records[1]!.offset, bytes: Buffer.of(0xFF, 0xFF, 0xFF, 0xFF), lost: 'T1' },
    { name: 'a length of zero', at: records[3]!.offset, bytes: Buffer.alloc(4), lost: 'T3' },
    { name: 'a length that reaches into the next', at: records[0]!.offset, bytes: Buffer.of(0, 0, 3, 0), lost: 'T0' }
  ]
  for (const { name, at, bytes, lost } of hurt) {
    const broken = Buffer.from(whole)
    bytes.copy(broken, at)
    writeFileSync(file, broken)
    writeFileSync(join(dir, 'set-aside.jsonl'), '')
    writeFileSync(join(dir, 'position'), Buffer.alloc(1024))
    const log = collectLog()
    const again = await openSpool({ dir, log, ...SMALL, segmentsReady: 1 })
    t.same(await drained(again), ['T0', 'T1', 'T2', 'T3', 'T4'].filter(id => id !== lost), name)
    t.match(log.lines, [{ level: 'error', sentence: 'damaged bytes were found in the spool' }, { level: 'error', fields: { reason: 'damaged' } }])
    const aside = JSON.parse(readFileSync(join(dir, 'set-aside.jsonl'), 'utf8')) as { bytes: string }
    t.ok(Buffer.from(aside.bytes, 'base64').includes(`"${lost}"`), 'what is left of it is in the file')
    await again.close()
  }
})

t.test('damage that comes after the start is set aside by the drain', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL, segmentsReady: 1 })
  t.teardown(spool.close)
  for (let i = 0; i < 3; i++) await spool.append(paymentRecord(i))
  const file = join(dir, 'segment-000')
  const bytes = readFileSync(file)
  bytes[scanSegment(bytes, 1, HEADER_BYTES).records[1]!.offset + 20]! ^= 1
  writeFileSync(file, bytes, { flag: 'r+' })
  t.equal(spool.findPayment('pnb', 'T1'), undefined)
  const seen: string[] = []
  t.same(await spool.drain(async record => { seen.push(idOf(record)) }), { drained: 2, setAside: 1, left: 0 })
  t.same(seen, ['T0', 'T2'])
})

t.test('a segment without a readable header is put aside, the others are used', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  for (let i = 0; i < 20; i++) await spool.append(paymentRecord(i))
  await spool.close()
  const file = join(dir, 'segment-000')
  const bytes = readFileSync(file)
  const inFirst = scanSegment(bytes, 1, HEADER_BYTES).records.length
  bytes.fill(0xAA, 0, 16)
  writeFileSync(file, bytes)
  const half = await openSpool({ dir, log: SILENT_LOG, ...SMALL })
  t.equal(half.depth(), 20, 'the second copy of the header serves')
  await half.close()
  bytes.fill(0xAA, 0, HEADER_BYTES)
  writeFileSync(file, bytes)
  const log = collectLog()
  const again = await openSpool({ dir, log, ...SMALL })
  t.teardown(again.close)
  t.match(log.lines, [{ level: 'error', fields: { file: 'segment-000' } }])
  t.equal(again.depth(), 20 - inFirst)
  t.equal(readdirSync(dir).filter(name => name.startsWith('segment-000.damaged')).length, 1)
})

t.test('what an earlier use left in a segment is never read again', async t => {
  const dir = t.testdir()
  const spool = await openSpool({ dir, log: SILENT_LOG, segmentBytes: 8192, segmentsReady: 1, segmentsMax: 2 })
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 12; i++) await spool.append(paymentRecord(round * 100 + i))
    await drained(spool)
  }
  await spool.append(paymentRecord(999))
  await spool.close()
  writeFileSync(join(dir, 'position'), Buffer.alloc(1024))
  const again = await openSpool({ dir, log: SILENT_LOG, segmentBytes: 8192, segmentsReady: 1, segmentsMax: 2 })
  t.teardown(again.close)
  const seen = await drained(again)
  t.equal(seen.at(-1), 'T999')
  t.equal(new Set(seen).size, seen.length, 'without a position, records of the last uses come again, each once')
})

t.test('draining stops at what can wait and sets aside what can never be applied', async t => {
  const dir = t.testdir()
  const log = collectLog()
  const spool = await openSpool({ dir, log, ...SMALL })
  t.teardown(spool.close)
  for (let i = 0; i < 4; i++) await spool.append(paymentRecord(i))
  const apply = (locked: boolean) => async (record: FallbackRecord): Promise<void> => {
    if (idOf(record) === 'T1') throw new SoundboxError('INPUT_INVALID', 'a value is missing')
    if (idOf(record) === 'T2' && locked) throw new SoundboxError('STORE_FAILED', 'locked')
  }
  t.same(await spool.drain(apply(true)), { drained: 1, setAside: 1, left: 2 })
  t.match(JSON.parse(readFileSync(join(dir, 'set-aside.jsonl'), 'utf8')), { reason: 'INPUT_INVALID', record: { payment: { transactionId: 'T1' } } })
  t.match(log.lines, [{ level: 'error', fields: { reason: 'INPUT_INVALID' } }])
  t.same(await spool.drain(apply(true)), { drained: 0, setAside: 0, left: 2 })
  t.same(await spool.drain(apply(false)), { drained: 2, setAside: 0, left: 0 })
})

t.test('two drains at once are one', async t => {
  const spool = await openSpool({ dir: t.testdir(), log: SILENT_LOG, ...SMALL })
  t.teardown(spool.close)
  await spool.append(paymentRecord(1))
  const seen: string[] = []
  const apply = async (record: FallbackRecord): Promise<void> => { seen.push(idOf(record)) }
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
    order.push(idOf(record))
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
    if (idOf(record) === 'T1') throw new TypeError('a bug')
  })
  t.same(verdicts.map(verdict => verdict.kind), ['retry', 'retry'], 'those behind wait too')
})

t.test('bytes: header, position and record in both directions, one flipped bit is never accepted', async t => {
  t.equal(decodeHeader(encodeHeader(7)), 7)
  t.equal(decodeHeader(Buffer.alloc(HEADER_BYTES)), undefined)
  const torn = Buffer.concat([encodeHeader(8).subarray(0, 512), encodeHeader(7).subarray(512)])
  t.equal(decodeHeader(torn), 8)
  const file = Buffer.alloc(1024)
  t.equal(decodePosition(file), undefined)
  for (let turn = 1; turn <= 3; turn++) {
    const { bytes, at } = encodePosition({ sequence: 4, offset: 100 * turn }, turn)
    bytes.copy(file, at)
  }
  t.same(decodePosition(file), { sequence: 4, offset: 300, turn: 3 })
  file[512]! ^= 1
  t.same(decodePosition(file), { sequence: 4, offset: 200, turn: 2 }, 'the older slot serves when the newer is damaged')
  const json = Buffer.from('{"kind":"reversal"}')
  const record = encodeRecord(json, 3)
  t.equal(record.length, recordBytes(json.length))
  t.same(decodeRecord(record, 0, 3), json)
  t.equal(decodeRecord(record, 0, 4), undefined, 'of another sequence')
  for (let bit = 0; bit < record.length * 8; bit++) {
    const hurt = Buffer.from(record)
    hurt[bit >> 3]! ^= 1 << (bit & 7)
    t.equal(decodeRecord(hurt, 0, 3), undefined, `bit ${bit}`)
  }
})

t.test('any damage at random: never a throw, and only the records it touched are missing', async t => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = seededRandom(seed)
    const jsons = Array.from({ length: 12 }, (_, i) => Buffer.from(JSON.stringify({ i, text: 'x'.repeat(Math.floor(random() * 80)) + '{"' })))
    const parts = jsons.map(json => encodeRecord(json, seed))
    const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, part) => sum + part.length, 0))
    const bytes = Buffer.concat([...parts, Buffer.alloc(200)])
    const from = Math.floor(random() * (bytes.length - 220))
    const to = from + 1 + Math.floor(random() * 60)
    for (let at = from; at < to; at++) bytes[at] = Math.floor(random() * 256)
    const found = new Set(scanSegment(bytes, seed, 0).records.map(record => record.offset))
    for (const [i, start] of starts.entries()) {
      const isTouched = start < to && from < start + parts[i]!.length
      if (!isTouched) t.ok(found.has(start), `SEED=${seed}: record ${i} at ${start} is whole (damage ${from} to ${to})`)
    }
  }
})

t.test('a directory that cannot be written is an error at the start', async t => {
  const dir = t.testdir({ spool: 'a file' })
  await t.rejects(openSpool({ dir: join(dir, 'spool'), log: SILENT_LOG, ...SMALL }), { code: 'DATA_DIR_UNUSABLE' })
})
