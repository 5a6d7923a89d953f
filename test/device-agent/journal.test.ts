import { type FileHandle, open } from 'node:fs/promises'
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Ack, SILENT_LOG } from '../../protocol/index.js'
import { JOURNAL_IDS_MAX, openJournal, readEntries } from '../../device-agent/journal.js'
import type { Phrase } from '../../device-agent/playback.js'
import { forSeeds } from '../support/random.js'

const idOf = (n: number): string => n.toString(16).padStart(32, '0')
const rupees = (n: number): Phrase => ({ kind: 'payment', amountMinor: n * 100, currency: 'INR', language: 'HINDI' })
const spoken = (n: number): Ack => ({ id: idOf(n), result: 'spoken', queuedMs: 40, audioMs: 2000, at: 1_800_000_000_000 })
const openAt = (path: string, more: { open?: typeof open } = {}) => openJournal({ path, log: SILENT_LOG, ...more })

t.test('what was written is there after a restart', async t => {
  const path = join(t.testdir(), 'journal')
  const first = await openAt(path)
  t.same(first.interrupted, [])
  t.equal(first.find(idOf(1)), undefined)
  await first.start([{ id: idOf(1), payment: rupees(1) }])
  t.equal(first.find(idOf(1))?.final, undefined)
  await first.finish(spoken(1))
  await first.finish({ id: idOf(1), result: 'failed' })
  await first.finish({ id: idOf(2), result: 'expired' })
  t.same(first.unsettled().map(ack => ack.result), ['spoken', 'expired'])
  await first.settle(idOf(1))
  await first.settle(idOf(77))
  await first.close()

  const second = await openAt(path)
  t.same(second.find(idOf(1)), { id: idOf(1), payment: rupees(1), final: spoken(1), settled: true })
  t.same(second.unsettled(), [{ id: idOf(2), result: 'expired' }], 'an ack nobody confirmed is still to be sent')
  t.same(second.lastPayments(3), [rupees(1)])
  t.equal(second.lastSpokenId(), idOf(1))
  t.equal(statSync(path).mode & 0o777, 0o600)
  await second.close()
})

t.test('a sound that a crash cut off is failed after the restart, once', async t => {
  const path = join(t.testdir(), 'journal')
  const first = await openAt(path)
  await first.start([{ id: idOf(1), payment: rupees(1) }, { id: idOf(2), payment: rupees(2) }])
  await first.close()
  const second = await openAt(path)
  t.same(second.interrupted, [idOf(1), idOf(2)])
  t.same(second.unsettled(), [{ id: idOf(1), result: 'failed', reason: 'interrupted' }, { id: idOf(2), result: 'failed', reason: 'interrupted' }])
  t.same(second.lastPayments(3), [], 'nobody can say that it was heard')
  await second.close()
  const third = await openAt(path)
  t.same(third.interrupted, [])
  t.equal(third.unsettled().length, 2)
  await third.close()
})

t.test('start is on disk when it resolves', async t => {
  const path = join(t.testdir(), 'journal')
  const calls: string[] = []
  const journal = await openAt(path, { open: async (name, flags, mode) => recording(await open(name, flags, mode), calls) })
  calls.length = 0
  await journal.start([{ id: idOf(1) }])
  t.same(calls, ['write', 'sync'])
  t.ok(readEntries(readFileSync(path)).entries.has(idOf(1)))
  await journal.finish(spoken(1))
  t.same(calls, ['write', 'sync', 'write'])
  await journal.close()
})

t.test('the newest ids stay, the settled ones go first', async t => {
  const path = join(t.testdir(), 'journal')
  const journal = await openAt(path)
  await journal.finish({ id: idOf(1), result: 'muted' })
  for (let n = 2; n <= JOURNAL_IDS_MAX; n++) {
    await journal.finish(spoken(n))
    await journal.settle(idOf(n))
  }
  t.ok(journal.find(idOf(2)), 'as many as the limit')
  await journal.start([{ id: idOf(1000) }])
  t.equal(journal.find(idOf(2)), undefined, 'one more: the oldest settled one is forgotten')
  t.ok(journal.find(idOf(1)), 'an ack that nobody has yet is kept')
  for (let n = 2000; n < 2000 + JOURNAL_IDS_MAX; n++) await journal.finish({ id: idOf(n), result: 'expired' })
  t.equal(journal.find(idOf(1)), undefined, 'unless there are too many of them')
  t.ok(journal.find(idOf(1000)), 'and what is just being said stays longest')
  t.equal(journal.unsettled().length, JOURNAL_IDS_MAX - 1)
  await journal.close()
})

t.test('the file does not grow, and compaction loses nothing', async t => {
  const path = join(t.testdir(), 'journal')
  const journal = await openAt(path)
  let bytesMax = 0
  for (let n = 1; n <= 1500; n++) {
    await Promise.all([journal.start([{ id: idOf(n), payment: rupees(n) }]), journal.finish(spoken(n)), journal.settle(idOf(n))])
    if (n % 50 === 0) bytesMax = Math.max(bytesMax, statSync(path).size)
  }
  await journal.close()
  t.ok(bytesMax < 512 * 1024, `${bytesMax} bytes`)
  const again = await openAt(path)
  t.same(again.lastPayments(2), [rupees(1499), rupees(1500)])
  t.ok(again.find(idOf(1500 - JOURNAL_IDS_MAX + 1)))
  t.equal(again.find(idOf(1500 - JOURNAL_IDS_MAX)), undefined)
  await again.close()
})

t.test('a file torn at any byte opens, and tells what its whole lines tell', async t => {
  const dir = t.testdir()
  const path = join(dir, 'journal')
  const journal = await openAt(path)
  await journal.start([{ id: idOf(1), payment: rupees(1) }])
  await journal.finish(spoken(1))
  await journal.start([{ id: idOf(2), payment: { ...rupees(2), txnType: 'UPI' } }, { id: idOf(3), payment: rupees(3) }])
  await journal.settle(idOf(1))
  await journal.finish({ id: idOf(2), result: 'failed', reason: 'speaker fault' })
  await journal.close()
  const whole = readFileSync(path)
  for (let length = 0; length <= whole.length; length++) {
    const torn = whole.subarray(0, length)
    const { entries } = readEntries(torn)
    const lines = torn.toString('utf8').split('\n').slice(0, -1)
    t.equal(entries.has(idOf(1)), lines.some(line => line.includes(idOf(1))), `cut at ${length}`)
    t.equal(entries.get(idOf(1))?.settled === true, lines.some(line => line.includes('"settle"')), `cut at ${length}`)
    if (length % 7 !== 0) continue
    writeFileSync(path, torn)
    const again = await openAt(path)
    t.same(again.interrupted, [...entries.values()].filter(entry => entry.final === undefined).map(entry => entry.id), `cut at ${length}`)
    await again.start([{ id: idOf(9) }])
    await again.close()
    const after = readEntries(readFileSync(path))
    t.equal(after.damaged, 0, 'the tail is whole again')
    t.ok(after.entries.has(idOf(9)))
  }
})

t.test('damaged bytes cost their own lines only, and random files open', async t => {
  const path = join(t.testdir(), 'journal')
  const journal = await openAt(path)
  for (let n = 1; n <= 20; n++) await journal.start([{ id: idOf(n) }])
  await journal.close()
  const whole = readFileSync(path)
  forSeeds(200, (rand, seed) => {
    const bytes = Buffer.from(whole)
    const at = Math.floor(rand() * bytes.length)
    bytes[at] = bytes[at]! ^ (1 << Math.floor(rand() * 8))
    const { entries } = readEntries(bytes)
    t.ok(entries.size >= 18, `SEED=${seed} ${entries.size} entries`)
    t.same([...entries.keys()].filter(id => Number(`0x${id}`) > 20), [], `SEED=${seed}`)
    t.equal(readEntries(Buffer.from(Array.from({ length: 300 }, () => Math.floor(rand() * 256)))).entries.size, 0)
  })
})

t.test('what the disk refuses is not begun; the next write starts on a line of its own', async t => {
  const path = join(t.testdir(), 'journal')
  let isFull = false
  const failing = async (name: string, flags: string, mode: number): Promise<FileHandle> => {
    const handle = await open(name, flags, mode)
    const append = handle.appendFile.bind(handle)
    handle.appendFile = async data => {
      if (!isFull) return append(data)
      await append(String(data).slice(0, 20))
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    }
    return handle
  }
  const journal = await openAt(path, { open: failing as typeof open })
  await journal.start([{ id: idOf(1) }])
  isFull = true
  await t.rejects(journal.start([{ id: idOf(2) }]), { code: 'DATA_DIR_UNUSABLE' })
  await journal.finish({ id: idOf(2), result: 'failed', reason: 'ENOSPC' })
  t.equal(journal.find(idOf(2))?.final?.result, 'failed', 'known in memory for this life')
  isFull = false
  await journal.start([{ id: idOf(3) }])
  await journal.close()
  t.same([...readEntries(readFileSync(path)).entries.keys()], [idOf(1), idOf(3)])
})

t.test('a journal that cannot be used is a clear error', async t => {
  const dir = t.testdir({ journal: {} })
  await t.rejects(openAt(join(dir, 'journal')), { code: 'DATA_DIR_UNUSABLE' }, 'a directory')
  await t.rejects(openAt(join(dir, 'missing', 'journal')), { code: 'DATA_DIR_UNUSABLE' }, 'no directory')
})

t.test('a full disk at the start leaves the old file in use', async t => {
  const path = join(t.testdir(), 'journal')
  const first = await openAt(path)
  await first.start([{ id: idOf(1) }])
  await first.close()
  mkdirSync(`${path}.new`)
  chmodSync(`${path}.new`, 0o700)
  const second = await openAt(path)
  t.same(second.interrupted, [idOf(1)])
  await second.finish({ id: idOf(2), result: 'muted' })
  await second.close()
  t.ok(readEntries(readFileSync(path)).entries.has(idOf(2)))
})

function recording (handle: FileHandle, calls: string[]): FileHandle {
  const append = handle.appendFile.bind(handle)
  const sync = handle.datasync.bind(handle)
  handle.appendFile = (...args) => { calls.push('write'); return append(...args) }
  handle.datasync = () => { calls.push('sync'); return sync() }
  return handle
}
