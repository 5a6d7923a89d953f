import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startAgent } from '../../device-agent/agent.js'
import { openBoxState } from '../../device-agent/box-state.js'
import { openJournal } from '../../device-agent/journal.js'
import { openMqttLink } from '../../device-agent/mqtt-link.js'
import { openSerialAgents, UNPLUGGED_MS } from '../../device-agent/serial-agents.js'
import type { SerialBox } from '../../device-agent/serial-box.js'
import { ackFromResult, openSerialVoice, SERIAL_WINDOW } from '../../device-agent/serial-voice.js'
import { startSerialSim } from '../../firmware-sim/serial-sim.js'
import { type Ack, type Announcement, type BoxAnnouncement, makeTimers, Secret, type SerialResult, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { boxKeys, openDeviceBroker } from '../support/device-broker.js'
import { idOf, LIMITS, openManualClock, openWatch, payment, T0, watchJournal } from './rig.js'

type Asked = BoxAnnouncement & { wasAsked: boolean, end: (result: Partial<SerialResult>) => void }

/** A voice on a bench, with a box that answers when the test says. */
async function openBench (t: Test, dir: string, policy: object = {}) {
  const clock = openManualClock()
  const { watch, settle } = openWatch()
  const journal = watchJournal(await openJournal({ path: join(dir, 'journal'), log: SILENT_LOG, keepStarted: true }), watch)
  t.teardown(async () => { await journal.close().catch(() => {}) }) // One test closes it itself.
  const asked: Asked[] = []
  const seen = { acks: [] as Ack[], finals: [] as string[], spoken: [] as string[], commands: [] as unknown[], sets: [] as object[] }
  const answering = (result: SerialResult) => async (name: string, args: object = {}): Promise<SerialResult> => {
    seen.commands.push([name, args])
    if (name === 'locate') throw new SoundboxError('SERIAL_TIMEOUT', 'no answer')
    return result
  }
  const box = {
    announce: (announcement: BoxAnnouncement, { wasAsked = false } = {}) => new Promise<SerialResult>(resolve => {
      asked.push({ ...announcement, wasAsked, end: result => resolve({ id: announcement.id, result: 'spoken', ...result }) })
    }),
    set: async (settings: object) => { seen.sets.push(settings) },
    command: answering({ id: idOf(0), result: 'done', data: 'log' })
  } as unknown as SerialBox
  let isPlugged = true
  let ids = 1000
  const voice = openSerialVoice({
    box: () => isPlugged ? box : undefined, journal, clock, log: SILENT_LOG, newId: () => idOf(ids++),
    policy: () => ({ ...LIMITS, volume: 80, minVolume: 0, quietHours: null, clockOffsetMs: 0, ...policy })
  }, {
    onAck: ack => seen.acks.push(ack),
    onFinal: id => seen.finals.push(`${Number(`0x${id}`)} ${journal.find(id)?.final?.result}`),
    onCommandEnd: (id, end) => seen.commands.push([Number(`0x${id}`), end]),
    onSpoken: report => seen.spoken.push(report.text)
  })
  const announce = async (announcement: Announcement): Promise<void> => {
    voice.announce(announcement)
    await settle()
  }
  return { clock, journal, asked, seen, voice, settle, announce, unplug: () => { isPlugged = false } }
}

t.test('the box is given words, clips, and the time that is left; its word is the final ack', async t => {
  const bench = await openBench(t, t.testdir())
  bench.clock.advance(1500)
  await bench.announce(payment(19, { expiresAt: T0 + 60_000 }))
  t.match(bench.asked, [{ id: idOf(19), kind: 'payment', ttlMs: 58_500, amountMinor: 1900, clips: ['received', 'rupees', 'n19'], text: 'Received rupees nineteen', wasAsked: false }])
  t.same(bench.seen.acks, [{ id: idOf(19), result: 'received' }])
  await bench.announce(payment(19))
  t.equal(bench.seen.acks.length, 2, 'received again while the box has it')
  bench.asked[0]?.end({ queuedMs: 12, audioMs: 1800 })
  await bench.settle()
  t.same(bench.seen.finals, ['19 spoken'])
  t.match(bench.journal.find(idOf(19))?.final, { queuedMs: 12, audioMs: 1800, at: T0 + 1500 })
  await bench.announce(payment(19))
  t.same(bench.seen.finals, ['19 spoken', '19 spoken'], 'not confirmed yet: the same final again')
  await bench.journal.settle(idOf(19))
  await bench.announce(payment(19))
  t.match(bench.seen.acks.at(-1), { result: 'duplicate', was: 'spoken' })
  t.equal(bench.asked.length, 1)
  t.same(bench.journal.lastPayments(1).map(phrase => phrase.amountMinor), [1900])
})

t.test('what the box may end with', async t => {
  const rows: [Partial<SerialResult> | undefined, object][] = [
    [{ result: 'spoken', audioMs: 5 }, { result: 'spoken', audioMs: 5 }], [{ result: 'expired', reason: 'link-down' }, { result: 'expired', reason: 'link-down' }],
    [{ result: 'failed', reason: 'no-answer' }, { result: 'failed', reason: 'no-answer' }], [{ result: 'muted' }, { result: 'muted' }],
    [{ result: 'duplicate', was: 'spoken' }, { result: 'spoken' }], [{ result: 'duplicate', was: 'failed' }, { result: 'failed' }], [{ result: 'duplicate' }, { result: 'failed' }],
    [undefined, { result: 'failed', reason: 'no soundbox' }]
  ]
  for (const [result, want] of rows) t.same(ackFromResult(idOf(1), result === undefined ? undefined : { id: idOf(1), result: 'failed', ...result }), { id: idOf(1), ...want })
})

t.test('after a restart of the agent the box is asked how it ended, not told to speak', async t => {
  const dir = t.testdir()
  const before = await openBench(t, dir)
  await before.announce(payment(1))
  await before.voice.close()
  await before.journal.close()
  const after = await openBench(t, dir)
  t.same(after.journal.unsettled(), [], 'not called failed')
  after.clock.advance(120_000)
  await after.announce(payment(1))
  t.match(after.asked, [{ wasAsked: true, ttlMs: 0 }])
  after.asked[0]?.end({ result: 'spoken', audioMs: 7 })
  await after.settle()
  t.same(after.seen.finals, ['1 spoken'])
})

t.test('expired, quiet and silent announcements do not reach the box; one without words fails', async t => {
  const rows: [object, Partial<Announcement>, string][] = [
    [{}, { expiresAt: T0 }, '1 expired'], [{ volume: 0 }, {}, '1 muted'], [{ quietHours: { startMinute: 0, endMinute: 1439, utcOffsetMinutes: 0 } }, {}, '1 muted'],
    [{}, { currency: 'USD' }, '1 failed']
  ]
  for (const [index, [policy, changes, want]] of rows.entries()) {
    const bench = await openBench(t, t.testdir({ [`box-${index}`]: {} }), policy)
    await bench.announce(payment(1, changes))
    t.same([bench.seen.finals, bench.asked], [[want], []])
  }
  const bench = await openBench(t, t.testdir())
  bench.unplug()
  await bench.announce(payment(1))
  t.same(bench.seen.finals, ['1 failed'])
})

t.test('so many at a time: the next is kept without `received`, one more is refused', async t => {
  const bench = await openBench(t, t.testdir())
  for (let n = 1; n <= SERIAL_WINDOW + 2; n++) await bench.announce(payment(n))
  t.equal(bench.seen.acks.length, SERIAL_WINDOW)
  t.same(bench.seen.finals, [`${SERIAL_WINDOW + 2} failed`])
  await bench.announce(payment(SERIAL_WINDOW + 1))
  t.equal(bench.seen.acks.length, SERIAL_WINDOW)
  bench.asked[0]?.end({})
  await bench.settle()
  t.match(bench.seen.acks.at(-1), { id: idOf(SERIAL_WINDOW + 1), result: 'received' })
})

t.test('prompts, repeats, settings and commands of the box', async t => {
  const bench = await openBench(t, t.testdir(), { clockOffsetMs: 500 })
  const phrases = [1, 2].map(n => ({ kind: 'payment' as const, amountMinor: n * 100, currency: 'INR', language: 'ENGLISH' as const }))
  bench.voice.say({ phrases, repeat: true, commandId: idOf(5) })
  await bench.settle()
  t.match(bench.asked.map(one => one.clips[0]), ['repeat', 'repeat'])
  bench.asked[0]?.end({})
  await bench.settle()
  t.same(bench.seen.commands, [])
  bench.asked[1]?.end({})
  await bench.settle()
  t.same(bench.seen.commands.splice(0), [[5, { ok: true }]])
  bench.voice.say({ phrases, commandId: idOf(6) })
  await bench.settle()
  for (const one of bench.asked.slice(2)) one.end({ result: 'failed', reason: 'queue-full' })
  await bench.settle()
  t.same(bench.seen.commands.splice(0), [[6, { ok: false, reason: 'queue-full' }]])
  bench.voice.apply?.({ volume: 70, minVolume: 10, language: 'HINDI', quietHours: null, version: 3, clockOffsetMs: 500, wish: '' })
  t.match(bench.seen.sets, [{ volume: 70, minVolume: 10, language: 'HINDI', time: T0 + 500 }])
  t.equal(bench.voice.command?.('replay', {}), undefined, 'a replay is made here')
  t.same(await bench.voice.command?.('display-qr', { payload: 'upi' }), { ok: true, data: 'log' })
  t.same(await bench.voice.command?.('locate', {}), { ok: false, reason: 'SERIAL_TIMEOUT' })
  const night = await openBench(t, t.testdir({ night: {} }), { quietHours: { startMinute: 0, endMinute: 1439, utcOffsetMinutes: 0 } })
  night.voice.say({ phrases, commandId: idOf(7) })
  await night.settle()
  t.same(night.seen.commands, [[7, { ok: false, reason: 'quiet hours' }]])
  night.unplug()
  t.same(await night.voice.command?.('reboot', {}), { ok: false, reason: 'no soundbox' })
})

t.test('gateway, agent, cable and box: two boxes on two ports, one of them unknown here', async t => {
  const keys = boxKeys(1)
  const gateway = await openDeviceBroker([keys])
  t.teardown(gateway.close)
  const timers = makeTimers(Date.now)
  const heard: string[] = []
  const sim = startSerialSim({ count: 2, timers, tids: [keys.tid, 'SB-9999'], audioScale: 0.02, baudRate: Infinity, onSound: (tid, sound) => heard.push(`${tid} ${sound.text}`) })
  t.teardown(sim.close)
  const dir = t.testdir()
  const unknown: string[] = []
  const agents = openSerialAgents({
    ports: sim.ports, baudRate: 115_200, timers, log: SILENT_LOG,
    startAgent: async (tid, { box, readings }) => {
      if (tid !== keys.tid) {
        unknown.push(tid)
        return undefined
      }
      const journal = await openJournal({ path: join(dir, 'journal'), log: SILENT_LOG, keepStarted: true })
      const state = await openBoxState(dir, { volume: 80, minVolume: 0, language: 'ENGLISH', quietHours: null, version: 0, clockOffsetMs: 0, wish: '' }, SILENT_LOG)
      const agent = startAgent({
        tid, signingKey: new Secret(keys.signingKey), model: 'agent', firmware: '1', bootId: 'b1', resetReason: 'start', telemetryMs: 60_000, prompts: false, limits: LIMITS
      }, {
        clock: timers, log: SILENT_LOG, journal, state, readings, lastLog: () => '', onSpoken: () => {}, onReboot: () => {},
        openLink: events => openMqttLink({
          url: gateway.url, tid, password: new Secret(keys.password), tls: {}, backoff: { baseMs: 5, maxMs: 50 }, stableMs: 1000
        }, events, { clock: timers, log: SILENT_LOG, random: Math.random }),
        openVoice: (policy, events) => openSerialVoice({ box, journal, clock: timers, policy, newId: () => idOf(Math.floor(Math.random() * 2 ** 48)), log: SILENT_LOG }, events)
      })
      return { agent, close: agent.close }
    }
  })
  t.teardown(agents.close)
  await gateway.until(() => gateway.arrived.some(one => one.name === 'hello'), 'the agent of the first box', 20_000)
  const issuedAt = Date.now()
  await gateway.announce(keys.tid, { ...payment(19), issuedAt, expiresAt: issuedAt + 60_000 })
  await gateway.until(() => gateway.acks(keys.tid).some(ack => ack.result === 'spoken'), 'spoken', 20_000)
  t.same(heard.filter(line => line.includes('Received')), [`${keys.tid} Received rupees nineteen`])
  await gateway.send(keys.tid, 'command', { id: idOf(77), name: 'collect-log', args: {}, expiresAt: Date.now() + 20_000 })
  await gateway.until(() => gateway.acks(keys.tid).some(ack => ack.id === idOf(77)), 'the log of the box', 20_000)
  t.match(gateway.acks(keys.tid).find(ack => ack.id === idOf(77)), { result: 'done' })
  t.same(unknown, ['SB-9999'])
  t.same([...agents.tids()].sort(), [keys.tid, 'SB-9999'])
  t.ok(UNPLUGGED_MS > 0)
})
