import { readFileSync, writeFileSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { BATTERY_LOW_PERCENT, CONNECTION_LOST_MS } from '../../device-agent/house-keeping.js'
import { ACKS_IN_FLIGHT_MAX } from '../../device-agent/outbox.js'
import type { Power } from '../../device-agent/power.js'
import { formatJsonLine, formatPrintLine } from '../../device-agent/report-line.js'
import { encodeMessage, sealAnnouncement } from '../../protocol/index.js'
import { openRandom } from '../support/random.js'
import { idOf, openBench, openManualClock, payment, SIGNING_KEY, T0, TID } from './rig.js'

t.test('a payment: hello first, received at once, spoken, and known on both sides', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  t.match(bench.link.sent[0], { name: 'hello', qos: 1, message: { model: 'test', firmware: '1.2.3', reportedVersion: 0 } })
  bench.clock.advance(100)
  await bench.announce(payment(19))
  t.same(bench.texts(), ['Received rupees nineteen'])
  t.match(bench.speaker.spoken[0], { language: 'ENGLISH', volume: 80, clips: ['received', 'rupees', 'n19'] })
  t.same(bench.acks(), [{ id: idOf(19), result: 'received' }])
  await bench.endSound({ audioMs: 1500, soundAfterMs: 45, wav: 'box.wav' })
  t.same(bench.acks()[1], { id: idOf(19), result: 'spoken', queuedMs: 45, audioMs: 1500, at: T0 + 1600 })
  t.equal(formatPrintLine('SB-0001', bench.reports[0]!), 'SB-0001 [ENGLISH] "Received rupees nineteen" in 145 ms, wav: box.wav')
  t.same(JSON.parse(formatJsonLine('SB-0001', bench.reports[0]!)), {
    tid: 'SB-0001', id: idOf(19), ids: [idOf(19)], kind: 'payment', amount: '19.00', text: 'Received rupees nineteen', language: 'ENGLISH', queuedMs: 45, audioMs: 1500,
    fromIssuedMs: 145, wav: 'box.wav'
  })
  await bench.announce(payment(19))
  t.same(bench.acks()[2], { id: idOf(19), result: 'duplicate', was: 'spoken' })
  t.equal(bench.texts().length, 1)
  await bench.stop()
})

t.test('payments that come faster than speech become one summary, and each is told', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  for (let n = 1; n <= 6; n++) await bench.announce(payment(n))
  await bench.endSound()
  await bench.endSound()
  t.same(bench.texts(), ['Received one rupee', 'Five payments, twenty rupees'])
  t.same(bench.finals(), ['1 spoken', ...[2, 3, 4, 5, 6].map(n => `${n} summarised`)])
  t.match(bench.reports.at(-1), { ids: [2, 3, 4, 5, 6].map(idOf), phrase: { kind: 'summary', count: 5, amountMinor: 2000 } })
  await bench.stop()
})

t.test('what does not verify is dropped: not spoken, not acknowledged, counted', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  await bench.announce(payment(1), 'a-key-of-somebody-else')
  await bench.deliver('announce', Buffer.from('{"v":1}'))
  await bench.deliver('announce', Buffer.from([0xff, 0x00, 0xfe]))
  await bench.deliver('command', Buffer.from('[]'))
  await bench.deliver('desired', encodeMessage({ version: 1 }))
  t.same([bench.acks(), bench.texts()], [[], []])
  t.match(bench.agent.counts(), { dropped: 5, announcements: 0 })
  await bench.announce(payment(1))
  t.equal(bench.texts().length, 1, 'and the true one is spoken')
  await bench.endSound()
  await bench.stop()
})

t.test('random bytes on any topic change nothing', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  const rand = openRandom(Number(process.env['SEED'] ?? 1))
  const whole = sealAnnouncement(payment(1), TID, SIGNING_KEY)
  for (let round = 0; round < 300; round++) {
    const bytes = round % 2 === 0 ? Buffer.from(Array.from({ length: Math.floor(rand() * 200) }, () => Math.floor(rand() * 256))) : Buffer.from(whole)
    if (round % 2 === 1) bytes[Math.floor(rand() * bytes.length)]! ^= 1 << Math.floor(rand() * 8)
    await bench.link.events.onMessage((['announce', 'command', 'desired'] as const)[round % 3]!, bytes)
  }
  await bench.settle()
  t.same([bench.acks(), bench.texts()], [[], []])
  t.equal(bench.agent.counts().dropped, 300)
  await bench.stop()
})

t.test('a final ack is sent until the gateway confirms it: over a reconnect and over a restart', async t => {
  const dir = t.testdir()
  const bench = await openBench({ dir })
  await bench.goUp()
  await bench.announce(payment(1))
  await bench.goDown()
  await bench.endSound()
  t.same(bench.finals(), [])
  await bench.goUp()
  t.same(bench.finals(), ['1 spoken'], 'after the reconnect')
  await bench.announce(payment(2))
  bench.link.confirm = false
  await bench.endSound()
  t.same(bench.finals(), ['1 spoken', '2 spoken'], 'sent, but not confirmed')
  await bench.announce(payment(2))
  t.equal(bench.finals().length, 2, 'one on the way is enough')
  await bench.goDown()
  await bench.goUp()
  t.same(bench.finals(), ['1 spoken', '2 spoken', '2 spoken'])
  await bench.goDown()
  await bench.stop()

  const again = await openBench({ dir })
  await again.goUp()
  t.same(again.finals(), ['2 spoken'], 'after the restart')
  await again.announce(payment(2))
  t.match(again.acks().at(-1), { result: 'duplicate', was: 'spoken' }, 'confirmed: a duplicate from now on')
  await again.stop()
  const last = await openBench({ dir })
  await last.goUp()
  t.same(last.finals(), [], 'confirmed acks are not sent again')
  t.equal(last.link.sent[0]?.message['lastSpokenId'], idOf(2))
  await last.stop()
})

t.test('many unconfirmed acks go out a few at a time, oldest first', async t => {
  const dir = t.testdir()
  const first = await openBench({ dir })
  for (let n = 1; n <= 20; n++) await first.announce(payment(n, { expiresAt: T0 }))
  await first.stop()
  const again = await openBench({ dir })
  again.link.confirm = false
  await again.goUp()
  t.same(again.finals(), Array.from({ length: ACKS_IN_FLIGHT_MAX }, (_, i) => `${i + 1} expired`))
  await again.goDown()
  again.link.confirm = true
  await again.goUp()
  t.same(again.finals().slice(ACKS_IN_FLIGHT_MAX), Array.from({ length: 20 }, (_, i) => `${i + 1} expired`))
  await again.stop()
})

t.test('a box that lost power in the middle of a sound does not say it again', async t => {
  const dir = t.testdir()
  const bench = await openBench({ dir })
  await bench.goUp()
  await bench.announce(payment(1))
  await bench.announce(payment(2))
  t.equal(bench.speaker.sounding(), true)
  const disk = readFileSync(join(dir, 'journal'))

  const other = t.testdir({ crashed: { journal: disk } })
  const after = await openBench({ dir: join(other, 'crashed') })
  await after.goUp()
  t.match(after.acks(), [{ id: idOf(1), result: 'failed', reason: 'interrupted' }])
  await after.announce(payment(1))
  await after.announce(payment(2))
  t.same(after.texts(), ['Received rupees two'], 'what had not begun is spoken')
  await after.endSound()
  t.same(after.finals(), ['1 failed', '1 duplicate', '2 spoken'])
  await after.stop()
  await bench.endSound()
  await bench.stop()
})

t.test('a journal that cannot be written keeps the box silent, and says so', async t => {
  let isFull = false
  const openFile = async (path: string, flags: string, mode: number): Promise<FileHandle> => {
    const handle = await open(path, flags, mode)
    const append = handle.appendFile.bind(handle)
    handle.appendFile = data => isFull ? Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' })) : append(data)
    return handle
  }
  const bench = await openBench({ dir: t.testdir(), openFile })
  await bench.goUp()
  isFull = true
  await bench.announce(payment(1))
  t.same([bench.texts(), bench.finals()], [[], ['1 failed']])
  t.match(bench.acks().at(-1), { reason: 'DATA_DIR_UNUSABLE' })
  isFull = false
  bench.clock.advance(400)
  await bench.announce(payment(2))
  t.same(bench.texts(), ['Received rupees two'])
  await bench.stop()
})

t.test('what has no words, and a speaker that fails, end as failed', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  await bench.announce(payment(1, { currency: 'USD' }))
  t.match(bench.acks().at(-1), { id: idOf(1), result: 'failed', reason: 'MESSAGE_INVALID' })
  bench.clock.advance(400)
  await bench.announce(payment(2))
  bench.speaker.fail()
  await bench.settle()
  t.match(bench.acks().at(-1), { id: idOf(2), result: 'failed', reason: 'SPEECH_FAILED' })
  await bench.stop()
})

t.test('the clock of the box is corrected by the gateway, and the correction outlives a restart without network', async t => {
  const dir = t.testdir()
  const early = T0 - 86_400_000
  const bench = await openBench({ dir, clock: openManualClock(early) })
  await bench.goUp()
  await bench.desire({ time: T0 })
  await bench.announce(payment(1, { expiresAt: T0 + 1 }))
  await bench.announce(payment(2, { expiresAt: T0 }))
  await bench.endSound({ audioMs: 10 })
  t.same(bench.finals(), ['1 spoken', '2 expired'])
  t.equal(bench.acks().find(ack => ack.result === 'spoken')?.at, T0 + 10)
  await bench.stop()
  const again = await openBench({ dir, clock: openManualClock(early + 100) })
  await again.announce(payment(3, { expiresAt: T0 + 100 }))
  t.same(again.texts(), [], 'expired by the clock that it learned')
  await again.stop()
})

t.test('what the operator wants is applied, kept and reported', async t => {
  const dir = t.testdir()
  const bench = await openBench({ dir, prompts: true })
  await bench.goUp()
  while (bench.speaker.sounding()) await bench.endSound()
  await bench.desire({ version: 7, volume: 30, minVolume: 40, language: 'HINDI' })
  t.match(bench.link.sent.filter(sent => sent.name === 'reported').map(sent => [sent.message, sent.qos]), [[{ version: 7, volume: 30, language: 'HINDI', firmware: '1.2.3' }, 1]])
  t.match(bench.speaker.spoken.at(-1), { language: 'HINDI', volume: 40, clips: ['volume', 'n30', 'percent'] }, 'a new volume is said in the new volume, and never below the floor')
  await bench.endSound()
  await bench.command(90, 'volume', { volume: 60 })
  t.match(bench.acks().at(-1), { id: idOf(90), result: 'done' })
  t.match(bench.link.sent.filter(sent => sent.name === 'reported').at(-1)?.message, { version: 7, volume: 60 })
  await bench.endSound()
  await bench.desire({ version: 7, volume: 30, minVolume: 40, language: 'HINDI' })
  t.match(bench.link.sent.filter(sent => sent.name === 'reported').at(-1)?.message, { volume: 60 }, 'the same wish again does not undo what was changed at the box')
  await bench.stop()

  const again = await openBench({ dir })
  await again.announce(payment(1, { language: 'HINDI' }))
  t.equal(again.speaker.spoken[0]?.volume, 60)
  await again.goUp()
  t.equal(again.link.sent.find(sent => sent.name === 'hello')?.message['reportedVersion'], 7)
  await again.desire({ version: 8, quietHours: { startMinute: 0, endMinute: 1439, utcOffsetMinutes: 0 } })
  await again.endSound()
  await again.announce(payment(2))
  t.match(again.acks().at(-1), { id: idOf(2), result: 'muted', reason: 'quiet hours' })
  await again.stop()

  writeFileSync(join(dir, 'state.json'), '{"version":')
  const damaged = await openBench({ dir })
  await damaged.announce(payment(3))
  t.equal(damaged.speaker.spoken[0]?.volume, 80, 'a damaged state file is as good as none')
  await damaged.endSound()
  await damaged.stop()
})

t.test('commands are done once, within their time, and answered', async t => {
  const dir = t.testdir()
  const bench = await openBench({ dir })
  await bench.goUp()
  const rows: [Parameters<typeof bench.command>[1], Parameters<typeof bench.command>[2], object, string | undefined][] = [
    ['test', {}, { result: 'done' }, 'This is a test'],
    ['locate', {}, { result: 'done' }, 'This is a test'],
    ['replay', {}, { result: 'done' }, 'No payments yet'],
    ['replay', { count: 6 }, { result: 'failed', reason: 'count must be 1 to 5' }, undefined],
    ['day-total', { count: 2, amountMinor: 4500 }, { result: 'done' }, 'Today, two payments, forty five rupees'],
    ['day-total', {}, { result: 'failed' }, undefined],
    ['volume', { volume: 101 }, { result: 'failed', reason: 'volume must be 0 to 100' }, undefined],
    ['language', { language: 'HINDI' }, { result: 'done' }, undefined],
    ['language', { language: 'KLINGON' }, { result: 'failed' }, undefined],
    ['display-qr', { text: 'upi' }, { result: 'failed', reason: 'no display' }, undefined],
    ['clear-display', {}, { result: 'failed' }, undefined],
    ['firmware', {}, { result: 'failed' }, undefined],
    ['collect-log', {}, { result: 'done', data: /command received/ }, undefined]
  ]
  for (const [index, [name, args, want, text]] of rows.entries()) {
    const before = bench.texts().length
    await bench.command(100 + index, name, args)
    t.equal(bench.texts()[before], text, `${name} ${JSON.stringify(args)}`)
    if (bench.speaker.sounding()) await bench.endSound()
    t.match(bench.acks().at(-1), { id: idOf(100 + index), ...want }, `${name} ${JSON.stringify(args)}`)
  }
  await bench.command(200, 'test', {}, T0)
  t.match(bench.acks().at(-1), { id: idOf(200), result: 'expired' })
  await bench.command(100, 'test')
  t.match(bench.acks().at(-1), { id: idOf(100), result: 'duplicate', was: 'done' })
  t.equal(bench.speaker.sounding(), false)
  await bench.stop()
})

t.test('a reboot that is delivered again after the reboot does not boot again', async t => {
  const dir = t.testdir()
  const bench = await openBench({ dir })
  await bench.goUp()
  bench.link.confirm = false
  await bench.command(1, 'reboot')
  t.equal(bench.reboots, 1)
  await bench.goDown()
  await bench.stop()
  const again = await openBench({ dir })
  await again.goUp()
  await again.command(1, 'reboot')
  t.equal(again.reboots, 0)
  t.same(again.finals(), ['1 done', '1 duplicate'])
  await again.stop()
})

t.test('replay repeats the last payments, oldest first, and says so; the button is heard at night too', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  for (const n of [1, 2, 3, 4]) {
    await bench.announce(payment(n))
    await bench.endSound()
  }
  await bench.announce(payment(5, { kind: 'failed-payment' }))
  await bench.endSound()
  await bench.command(90, 'replay')
  for (let n = 0; n < 3; n++) await bench.endSound()
  t.same(bench.texts().slice(5), ['Repeat, received rupees two', 'Repeat, received rupees three', 'Repeat, received rupees four'])
  t.match(bench.acks().at(-1), { id: idOf(90), result: 'done' })
  await bench.desire({ quietHours: { startMinute: 0, endMinute: 1439, utcOffsetMinutes: 0 } })
  await bench.command(91, 'replay', { count: 1 })
  t.match(bench.acks().at(-1), { id: idOf(91), result: 'failed', reason: 'quiet hours' })
  bench.agent.pressReplay()
  await bench.settle()
  t.equal(bench.texts().at(-1), 'Repeat, received rupees two')
  await bench.endSound()
  await bench.stop()
})

t.test('the box tells of itself in its language, and of a short loss not at all', async t => {
  const bench = await openBench({ dir: t.testdir(), prompts: true })
  await bench.settle()
  t.same(bench.texts(), ['Sound box is starting'])
  await bench.goUp()
  await bench.endSound()
  t.same(bench.texts().slice(1), ['Connected'])
  await bench.endSound()
  await bench.goDown()
  bench.clock.advance(CONNECTION_LOST_MS - 1)
  await bench.goUp()
  bench.clock.advance(CONNECTION_LOST_MS)
  t.equal(bench.texts().length, 2)
  await bench.goDown()
  bench.clock.advance(CONNECTION_LOST_MS)
  await bench.settle()
  t.equal(bench.texts()[2], 'Connection lost')
  await bench.endSound()
  bench.clock.advance(CONNECTION_LOST_MS * 3)
  await bench.goUp()
  t.same(bench.texts().slice(3), ['Connected'])
  await bench.endSound()
  await bench.stop()
})

t.test('a box that never reaches the gateway says so once', async t => {
  const bench = await openBench({ dir: t.testdir(), prompts: true })
  await bench.settle()
  await bench.endSound()
  bench.clock.advance(CONNECTION_LOST_MS * 10)
  await bench.settle()
  await bench.endSound()
  t.same(bench.texts(), ['Sound box is starting', 'Connection lost'])
  await bench.stop()
})

t.test('telemetry goes out at the hello and from time to time; a low battery is said once a fall', async t => {
  let power: Power | undefined = { battery: BATTERY_LOW_PERCENT + 1, charging: false }
  const bench = await openBench({ dir: t.testdir(), prompts: true, power: () => power })
  await bench.goUp()
  for (let n = 0; n < 2; n++) await bench.endSound()
  const telemetry = () => bench.link.sent.filter(sent => sent.name === 'telemetry')
  t.match(telemetry(), [{ qos: 0, message: { battery: BATTERY_LOW_PERCENT + 1, charging: false, volume: 80, uptimeS: 0, freeBytes: 1_000_000, network: 'mqtt', resetReason: 'start' } }])
  const rows: [number, boolean, boolean][] = [
    [15, false, true], [14, false, false], [20, false, false], [15, false, false], [15, true, false], [15, false, true], [21, false, false], [10, false, true]
  ]
  for (const [battery, charging, told] of rows) {
    power = { battery, charging }
    const before = bench.texts().length
    bench.clock.advance(60_000)
    await bench.settle()
    t.equal(bench.texts().length - before, told ? 1 : 0, `${battery} percent${charging ? ', charging' : ''}`)
    if (told) t.equal(bench.texts().at(-1), 'Battery low')
    if (bench.speaker.sounding()) await bench.endSound()
  }
  t.equal(telemetry().length, 1 + rows.length)
  await bench.goDown()
  bench.clock.advance(120_000)
  power = undefined
  t.equal(telemetry().length, 1 + rows.length, 'nothing is sent while there is no link')
  await bench.goUp()
  await bench.stop()
  t.equal(bench.clock.timers(), 0, 'nothing is left behind')
})

t.test('a stop lets the present sound end and sends its ack', async t => {
  const bench = await openBench({ dir: t.testdir() })
  await bench.goUp()
  await bench.announce(payment(1))
  await bench.announce(payment(2))
  const closed = bench.agent.close()
  await bench.settle()
  t.equal(bench.link.up, true)
  bench.speaker.end()
  await closed
  t.same(bench.finals(), ['1 spoken'], 'what waited stays open: the gateway sends it again')
  t.equal(bench.texts().length, 1)
})
