// The spool's bytes: what damage of any kind does to them.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSpool } from '../../gateway/fallback/spool.js'
import { decodeHeader, decodePosition, decodeRecord, encodeHeader, encodePosition, encodeRecord, HEADER_BYTES, recordBytes, scanSegment } from '../../gateway/fallback/spool-format.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { drained, paymentRecord, recordName } from '../support/fallback-records.js'
import { collectLog, seededRandom } from '../support/store-records.js'

const SMALL = { segmentBytes: 8192, segmentsReady: 2, segmentsMax: 3 }

t.test('a torn tail is cut wherever it is torn, and writing goes on behind the whole records', async t => {
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
  t.same(await spool.drain(async record => { seen.push(recordName(record)) }), { drained: 2, setAside: 1, left: 0 })
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
