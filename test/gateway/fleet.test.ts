// The fleet: presence in batches, desired state until it is reported, commands until they are answered, device types as data.
import t from 'tap'
import { COMMAND_TIMEOUT_MS, COMMANDS_MAX, COMMANDS_PER_DEVICE_MAX, checkCommand, openCommands } from '../../gateway/fleet/commands.js'
import { DESIRED_ATTEMPTS_MAX, DESIRED_RETRY_MS, desiredOf, openDesired, type DesiredSource } from '../../gateway/fleet/desired.js'
import { BUILT_IN_TYPES, DEVICE_TYPES_MAX, openDeviceTypes, parseDeviceTypes } from '../../gateway/fleet/device-types.js'
import { openFleet } from '../../gateway/fleet/fleet.js'
import { mergeNotes, NOTES_MAX, openPresence, rowsOfNote, SEEN_BATCH_MAX, stepNote, stepPresence, type Presence, type PresenceEvent } from '../../gateway/fleet/presence.js'
import type { DeviceSeen, DeviceState } from '../../gateway/store/contract.js'
import { decodeCommand, decodeDesired, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { collectingLog, type LogLine } from '../support/test-broker.js'

const HELLO = { model: 'SB1', firmware: '1.0.0', bootId: 'b1' }
const turn = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))

/** A store that keeps what it got, and refuses on demand. */
function seenStore (states: readonly DeviceState[] = []) {
  const batches: DeviceSeen[][] = []
  const fault = { on: false, hold: undefined as Promise<void> | undefined }
  return {
    batches,
    fault,
    rows: () => batches.flat(),
    deviceStates: async () => states,
    saveDeviceSeen: async (seen: readonly DeviceSeen[]) => {
      await fault.hold
      if (fault.on) throw new SoundboxError('STORE_FAILED', 'locked')
      batches.push([...seen])
    }
  }
}

/** What a broker was asked to publish. */
function outbox () {
  const sent: { topic: string, payload: Buffer }[] = []
  const fault = { on: false }
  return {
    sent,
    fault,
    publish: async (topic: string, payload: Buffer) => {
      if (fault.on) throw new SoundboxError('PUBLISH_FAILED', 'down')
      sent.push({ topic, payload })
    }
  }
}

t.test('presence: a soundbox comes, speaks of itself, is pushed out and goes', async t => {
  const clock = { nowMs: 1000 }
  const store = seenStore()
  const presence = await openPresence({ store, isKnown: tid => tid !== 'NOBODY', staysOnline: false, nowMs: () => clock.nowMs, log: SILENT_LOG })
  t.equal(presence.isOnline('SB0001'), false)
  presence.note('SB0001', { kind: 'connected', address: '10.0.0.1', takeover: false })
  clock.nowMs = 1500
  presence.note('SB0001', { kind: 'hello', hello: HELLO })
  presence.note('SB0001', { kind: 'telemetry', telemetry: { battery: 80 } })
  presence.note('NOBODY', { kind: 'connected', address: '10.0.0.9', takeover: false })
  t.same(presence.find('SB0001'), { tid: 'SB0001', online: true, sinceMs: 1000, seenAt: 1500, address: '10.0.0.1', reason: null, takeovers: 0, hello: HELLO, telemetry: { battery: 80 } })
  await presence.flush()
  t.same(store.rows(), [{ tid: 'SB0001', at: 1500, online: true, hello: HELLO, telemetry: { battery: 80 } }], 'one row for three events')
  clock.nowMs = 2000
  for (let n = 0; n < 2; n++) {
    presence.note('SB0001', { kind: 'disconnected', reason: 'another connection took over' })
    presence.note('SB0001', { kind: 'connected', address: '10.0.0.2', takeover: true })
  }
  t.match(presence.find('SB0001'), { online: true, sinceMs: 2000, takeovers: 2, address: '10.0.0.2', reason: null })
  await presence.flush()
  t.same(store.batches[1], [
    { tid: 'SB0001', at: 2000, online: false }, { tid: 'SB0001', at: 2000, online: true, takeover: true }, { tid: 'SB0001', at: 2000, online: true, takeover: true }
  ], 'never offline at the end, both take-overs counted')
  clock.nowMs = 3000
  presence.note('SB0001', { kind: 'disconnected', reason: 'keep alive timeout' })
  presence.note('SB0001', { kind: 'disconnected', reason: 'again' })
  t.match(presence.find('SB0001'), { online: false, sinceMs: 3000, reason: 'keep alive timeout', seenAt: 2000 })
  await presence.flush()
  t.same(store.batches[2], [{ tid: 'SB0001', at: 3000, online: false }])
  await presence.flush()
  t.equal(store.batches.length, 3, 'nothing new, nothing written')
  t.same([presence.onlineCount(), presence.all().length], [0, 1])
})

t.test('presence: a store that refuses loses nothing, and writes come in batches', async t => {
  const clock = { nowMs: 1000 }
  const lines: LogLine[] = []
  const store = seenStore()
  const presence = await openPresence({ store, isKnown: () => true, staysOnline: false, nowMs: () => clock.nowMs, log: collectingLog(lines) })
  const tids = Array.from({ length: SEEN_BATCH_MAX + 1 }, (_, n) => `SB${1000 + n}`)
  for (const tid of tids) presence.note(tid, { kind: 'connected', address: '', takeover: false })
  store.fault.on = true
  await presence.flush()
  await presence.flush()
  presence.note('SB1000', { kind: 'hello', hello: HELLO })
  clock.nowMs = 2000
  presence.note('SB1001', { kind: 'disconnected', reason: 'gone' })
  presence.note('SB1001', { kind: 'connected', address: '', takeover: false })
  store.fault.on = false
  await presence.flush()
  t.same(store.batches.map(batch => batch.length), [SEEN_BATCH_MAX, 2], 'at the limit of a batch, and the rest')
  t.same(store.rows().filter(({ tid }) => tid === 'SB1000'), [{ tid: 'SB1000', at: 1000, online: true, hello: HELLO }])
  t.same(store.rows().filter(({ tid }) => tid === 'SB1001'), [{ tid: 'SB1001', at: 2000, online: false }, { tid: 'SB1001', at: 2000, online: true }])
  t.same(lines.map(({ level }) => level), ['warn', 'info'], 'told once when it starts and once when it ends')
})

t.test('presence: what waits for a store that is away is bounded', async t => {
  const store = seenStore()
  const presence = await openPresence({ store, isKnown: () => true, staysOnline: false, nowMs: () => 1, log: SILENT_LOG })
  for (let n = 0; n <= NOTES_MAX; n++) presence.note(`SB${n}`, { kind: 'connected', address: '', takeover: false })
  await presence.flush()
  t.equal(store.rows().length, NOTES_MAX)
  t.equal(presence.isOnline(`SB${NOTES_MAX}`), true, 'memory knows the one past the limit')
  presence.note(`SB${NOTES_MAX}`, { kind: 'telemetry', telemetry: {} })
  await presence.flush()
  t.match(store.rows().at(-1), { tid: `SB${NOTES_MAX}`, online: true }, 'its next news is written')
})

t.test('presence: a slow store does not collect writes', async t => {
  let release = (): void => {}
  const store = seenStore()
  store.fault.hold = new Promise(resolve => { release = resolve })
  const presence = await openPresence({ store, isKnown: () => true, staysOnline: false, nowMs: () => 1, log: SILENT_LOG })
  presence.note('SB0001', { kind: 'connected', address: '', takeover: false })
  const first = presence.flush()
  await turn()
  presence.note('SB0001', { kind: 'telemetry', telemetry: { battery: 1 } })
  const later = [presence.flush(), presence.flush(), presence.flush()]
  release()
  await Promise.all([first, ...later])
  t.same(store.batches.map(batch => batch[0]?.telemetry), [undefined, { battery: 1 }])
})

t.test('presence: after a restart nobody is online at a broker of our own, everybody stays so at an external one', async t => {
  const states: DeviceState[] = [
    { tid: 'SB0001', at: 500, online: true, onlineSince: 400, takeovers: 3, hello: HELLO },
    { tid: 'SB0002', at: 300, online: false, onlineSince: null, takeovers: 0 }
  ]
  const own = seenStore(states)
  const presence = await openPresence({ store: own, isKnown: () => true, staysOnline: false, nowMs: () => 1000, log: SILENT_LOG })
  t.match(presence.find('SB0001'), { online: false, sinceMs: 1000, takeovers: 3, hello: HELLO, reason: 'the gateway was restarted' })
  t.match(presence.find('SB0002'), { online: false, sinceMs: 300 })
  await presence.flush()
  t.same(own.rows(), [{ tid: 'SB0001', at: 1000, online: false }])
  const external = await openPresence({ store: seenStore(states), isKnown: () => true, staysOnline: true, nowMs: () => 1000, log: SILENT_LOG })
  t.match(external.find('SB0001'), { online: true, sinceMs: 400 })
})

t.test('presence: whatever the order of events and refusals, the rows end as memory does', async t => {
  const kinds: ((n: number) => PresenceEvent)[] = [
    n => ({ kind: 'connected', address: '', takeover: n % 2 === 0 }), () => ({ kind: 'disconnected', reason: 'x' }),
    n => ({ kind: 'telemetry', telemetry: { battery: n % 100 } }), () => ({ kind: 'hello', hello: HELLO })
  ]
  for (let seed = 0; seed < 4 ** 5; seed++) {
    let memory: Presence = { tid: 'SB0001', online: false, sinceMs: null, seenAt: 0, address: null, reason: null, takeovers: 0 }
    let waiting: ReturnType<typeof stepNote> | undefined
    let refused: ReturnType<typeof stepNote> | undefined
    for (let n = 0; n < 5; n++) {
      const event = kinds[Math.floor(seed / 4 ** n) % 4]?.(n) as PresenceEvent
      memory = stepPresence(memory, event, n)
      waiting = stepNote(waiting, memory, event, n)
      if (n === 2) [refused, waiting] = [waiting, undefined]
    }
    const rows = rowsOfNote(mergeNotes(refused as NonNullable<typeof refused>, waiting))
    const last = rows.at(-1)
    const takeovers = rows.filter(({ takeover }) => takeover === true).length
    const said = { hello: rows.findLast(({ hello }) => hello !== undefined)?.hello, telemetry: rows.findLast(({ telemetry }) => telemetry !== undefined)?.telemetry }
    const [told, known] = [[last?.online, takeovers, said.hello, said.telemetry], [memory.online, memory.takeovers, memory.hello, memory.telemetry]].map(value => JSON.stringify(value))
    if (told !== known) t.fail(`SEED=${seed}: the rows tell ${told}, memory ${known}`)
    if (rows.some(({ at }, index) => index > 0 && at < (rows[index - 1]?.at ?? 0))) t.fail(`SEED=${seed}: rows go back in time`)
  }
})

const QUIET_HOURS = { startMinute: 1320, endMinute: 360, utcOffsetMinutes: 330 }
const DEVICE: DesiredSource = { tid: 'SB0001', language: 'HINDI', volume: 70, minVolume: 20, quietHours: QUIET_HOURS, display: null, desiredVersion: 4 }

t.test('desired: the wire form says all that the operator set, and the time', async t => {
  t.same(desiredOf(DEVICE, 99), { version: 4, time: 99, volume: 70, minVolume: 20, language: 'HINDI', quietHours: DEVICE.quietHours })
  t.equal(desiredOf({ ...DEVICE, display: 'closed' }, 99).display, 'closed')
})

t.test('desired: told after hello and on change, again until reported, then left alone', async t => {
  const clock = { nowMs: 0 }
  const devices = new Map([['SB0001', { ...DEVICE }]])
  const online = new Set<string>()
  const lines: LogLine[] = []
  const box = outbox()
  const desired = openDesired({ publish: box.publish, device: tid => devices.get(tid), isOnline: tid => online.has(tid), nowMs: () => clock.nowMs, log: collectingLog(lines) })
  const versions = (): number[] => box.sent.map(({ payload }) => decodeDesired(payload).version)
  desired.handleChanged('SB0001')
  desired.handleHello('NOBODY', HELLO)
  t.equal(box.sent.length, 0, 'a box that is away hears it after its hello')
  online.add('SB0001')
  desired.handleHello('SB0001', { ...HELLO, reportedVersion: 4 })
  await turn()
  t.equal(box.sent[0]?.topic, 'soundbox/v1/SB0001/desired')
  t.same([versions(), desired.isPending('SB0001')], [[4], false], 'a box that has it already still gets the time')
  devices.set('SB0001', { ...DEVICE, volume: 10, desiredVersion: 5 })
  desired.handleChanged('SB0001')
  await turn()
  t.same([versions(), desired.isPending('SB0001'), desired.pendingCount()], [[4, 5], true, 1])
  clock.nowMs = DESIRED_RETRY_MS - 1
  desired.tick()
  await turn()
  t.equal(box.sent.length, 2, 'not before its time')
  clock.nowMs = DESIRED_RETRY_MS
  desired.tick()
  await turn()
  t.equal(box.sent.length, 3)
  desired.handleReported('SB0001', { version: 5, volume: 10, language: 'HINDI' })
  t.equal(desired.isPending('SB0001'), false)
  for (let n = 2; n < 20; n++) {
    clock.nowMs = n * DESIRED_RETRY_MS
    desired.tick()
    await turn()
  }
  t.equal(box.sent.length, 3, 'reported, so nothing more')
  devices.set('SB0001', { ...DEVICE, desiredVersion: 6 })
  desired.handleChanged('SB0001')
  for (let n = 20; n < 40; n++) {
    clock.nowMs = n * DESIRED_RETRY_MS
    await turn()
    desired.tick()
  }
  await turn()
  t.equal(box.sent.length, 3 + DESIRED_ATTEMPTS_MAX, 'a box that never reports is not asked for ever')
  t.equal(lines.filter(({ level }) => level === 'warn').length, 1)
  desired.handleHello('SB0001', { ...HELLO, reportedVersion: 9 })
  await turn()
  t.same([versions().at(-1), desired.isPending('SB0001')], [6, true], 'a box that is ahead (a restored backup) is pending too')
  desired.handleOffline('SB0001')
  t.equal(desired.pendingCount(), 0)
  desired.handleReported('SB0001', { version: 6, volume: 1, language: 'HINDI' })
})

t.test('desired: a change while the last is on its way is sent after it, and a publish that fails is tried again', async t => {
  const clock = { nowMs: 0 }
  let device = { ...DEVICE }
  const box = outbox()
  const gates: (() => void)[] = []
  const held = async (topic: string, payload: Buffer): Promise<void> => {
    await new Promise<void>(resolve => gates.push(resolve))
    await box.publish(topic, payload)
  }
  const desired = openDesired({ publish: held, device: () => device, isOnline: () => true, nowMs: () => clock.nowMs, log: SILENT_LOG })
  desired.handleHello('SB0001', HELLO)
  for (let version = 5; version < 8; version++) {
    device = { ...device, desiredVersion: version }
    desired.handleChanged('SB0001')
  }
  t.equal(gates.length, 1, 'one at a time')
  gates.shift()?.()
  await turn()
  gates.shift()?.()
  await turn()
  t.same(box.sent.map(({ payload }) => decodeDesired(payload).version), [4, 7], 'the newest, once')
  box.fault.on = true
  clock.nowMs = DESIRED_RETRY_MS
  desired.tick()
  gates.shift()?.()
  await turn()
  box.fault.on = false
  clock.nowMs = 2 * DESIRED_RETRY_MS
  desired.tick()
  gates.shift()?.()
  await turn()
  t.equal(box.sent.length, 3)
})

t.test('commands: answered, refused, late, unknown', async t => {
  const clock = { nowMs: 1000 }
  const box = outbox()
  let serial = 0
  const newId = (): string => (++serial).toString(16).padStart(32, '0')
  const commands = openCommands({ publish: box.publish, isOnline: tid => tid !== 'AWAY01', newId, nowMs: () => clock.nowMs, log: SILENT_LOG })
  const replay = commands.send('SB0001', { name: 'replay', args: { count: 2 } })
  await turn()
  t.match(box.sent[0], { topic: 'soundbox/v1/SB0001/command' })
  t.same(decodeCommand(box.sent[0]?.payload ?? Buffer.alloc(0)), { id: newIdOf(1), name: 'replay', args: { count: 2 }, expiresAt: 1000 + COMMAND_TIMEOUT_MS })
  t.equal(commands.handleAck('SB0002', { id: newIdOf(1), result: 'done' }), false, 'the ack of another box is not its answer')
  t.equal(commands.handleAck('SB0001', { id: newIdOf(9), result: 'done' }), false)
  t.equal(commands.handleAck('SB0001', { id: newIdOf(1), result: 'received' }), true)
  clock.nowMs = 1200
  t.equal(commands.handleAck('SB0001', { id: newIdOf(1), result: 'done' }), true)
  t.same(await replay, { id: newIdOf(1), tid: 'SB0001', name: 'replay', result: 'done', reason: null, data: null, tookMs: 200 })
  const log = commands.send('SB0001', { name: 'collect-log' })
  await turn()
  commands.handleAck('SB0001', { id: newIdOf(2), result: 'failed', reason: 'no log', data: 'x' })
  t.match(await log, { result: 'failed', reason: 'no log', data: 'x' })
  const late = commands.send('SB0001', { name: 'reboot', timeoutMs: 500 })
  await turn()
  clock.nowMs = 1699
  commands.tick()
  t.equal(commands.open(), 1)
  clock.nowMs = 1700
  commands.tick()
  await t.rejects(late, { code: 'DEVICE_OFFLINE', message: /500 ms/ })
  t.equal(commands.handleAck('SB0001', { id: newIdOf(3), result: 'done' }), false)
  await t.rejects(commands.send('AWAY01', { name: 'test' }), { code: 'DEVICE_OFFLINE' })
  for (const timeoutMs of [0, 120_001, 1.5]) await t.rejects(commands.send('SB0001', { name: 'test', timeoutMs }), { code: 'INPUT_INVALID' })
  box.fault.on = true
  await t.rejects(commands.send('SB0001', { name: 'test' }), { code: 'PUBLISH_FAILED' })
  t.equal(commands.open(), 0)
})

function newIdOf (serial: number): string {
  return serial.toString(16).padStart(32, '0')
}

t.test('commands: at their limits, and one past them', async t => {
  let serial = 0
  const commands = openCommands({ publish: async () => {}, isOnline: () => true, newId: () => newIdOf(++serial), nowMs: () => 0, log: SILENT_LOG })
  const open = (tid: string): void => { commands.send(tid, { name: 'test' }).catch(() => {}) }
  for (let n = 0; n < COMMANDS_PER_DEVICE_MAX; n++) open('SB0001')
  await t.rejects(commands.send('SB0001', { name: 'test' }), { code: 'OVERLOADED' })
  for (let n = COMMANDS_PER_DEVICE_MAX; n < COMMANDS_MAX; n++) open(`SB${10_000 + n}`)
  t.equal(commands.open(), COMMANDS_MAX)
  await t.rejects(commands.send('SB0002', { name: 'test' }), { code: 'OVERLOADED' })
  commands.handleAck('SB0001', { id: newIdOf(1), result: 'done' })
  open('SB0002')
  t.equal(commands.open(), COMMANDS_MAX)
})

t.test('commands: names and arguments are checked before anything is sent', async t => {
  const good: [string, Record<string, string | number | boolean>][] = [
    ['replay', {}], ['replay', { count: 5 }], ['test', {}], ['locate', {}], ['volume', { volume: 0 }], ['volume', { volume: 100 }], ['language', { language: 'TAMIL' }],
    ['display-qr', { payload: 'upi://pay?pa=test@isu' }], ['display-qr', { payload: 'x'.repeat(512) }], ['clear-display', {}], ['reboot', {}], ['collect-log', {}],
    ['firmware', { version: '1.2.3' }], ['firmware', { version: '1', url: 'https://host/image', sha256: 'a'.repeat(64) }], ['day-total', { count: 0, amountMinor: 0 }]
  ]
  for (const [name, args] of good) t.equal(checkCommand(name, args), name, JSON.stringify(args))
  const bad: [string, Record<string, string | number | boolean>][] = [
    ['', {}], ['format', {}], ['constructor', {}], ['replay', { count: 0 }], ['replay', { count: 6 }], ['replay', { count: 1.5 }], ['replay', { times: 1 }], ['test', { constructor: 1 }],
    ['volume', {}], ['volume', { volume: 101 }], ['volume', { volume: '50' }], ['language', { language: 'KLINGON' }], ['display-qr', {}], ['display-qr', { payload: 'x'.repeat(513) }],
    ['display-qr', { payload: 'a\nb' }], ['firmware', { version: '1', url: 'file:///etc/passwd' }], ['firmware', { version: '1', sha256: 'A'.repeat(64) }], ['day-total', { count: 1 }]
  ]
  for (const [name, args] of bad) t.throws(() => checkCommand(name, args), { code: 'INPUT_INVALID' }, `${name} ${JSON.stringify(args)}`)
})

t.test('device types: found by name, extended by a file', async t => {
  const types = openDeviceTypes()
  t.equal(types.typeOf('ypp').transport, 'vendor_http')
  t.equal(types.typeOf('qs1').type, 'QS1')
  t.equal(types.all().length, BUILT_IN_TYPES.length)
  for (const type of ['', 'toaster', 'constructor', '__proto__']) t.throws(() => types.typeOf(type), { code: 'DEVICE_TYPE_INVALID' }, type)
  const more = openDeviceTypes(parseDeviceTypes(JSON.stringify([
    { type: 'YPP', transport: 'vendor_http', base_url: 'https://vendor.example/soundbox' }, { type: 'X9', transport: 'mqtt', audio: 'clips', display: true }
  ])))
  t.same(more.typeOf('ypp'), { type: 'YPP', transport: 'vendor_http', audio: 'tts', display: false, baseUrl: 'https://vendor.example/soundbox' })
  t.same(more.typeOf('X9'), { type: 'X9', transport: 'mqtt', audio: 'clips', display: true, baseUrl: undefined })
  t.equal(more.all().length, BUILT_IN_TYPES.length + 1)
})

t.test('device types: a file that is wrong is refused with place and field', async t => {
  const entry = { type: 'X9', transport: 'mqtt' }
  const vendor = { type: 'V1', transport: 'vendor_http', base_url: 'https://v.example' }
  const rows: [unknown, RegExp][] = [
    ['{', /not JSON/], [{}, /array/], [[1], /device type 1/], [[entry, null], /device type 2/], [[{ ...entry, type: '' }], /type must/], [[{ ...entry, type: 'a b' }], /type must/],
    [[{ ...entry, type: 'x'.repeat(33) }], /type must/], [[{ ...entry, transport: 'pigeon' }], /transport/], [[{ ...entry, audio: 'song' }], /audio/], [[{ ...entry, display: 'yes' }], /display/],
    [[{ ...entry, colour: 'red' }], /only type/], [[{ ...entry, base_url: 'https://v.example' }], /base_url/], [[{ ...vendor, base_url: undefined }], /base_url/],
    [[{ ...vendor, base_url: 'ftp://v.example' }], /base_url/], [[{ ...vendor, base_url: 'https://u:p@v.example' }], /base_url/], [[{ ...vendor, base_url: 'https://v.example/?k=1' }], /base_url/],
    [[{ ...vendor, base_url: `https://v.example/${'x'.repeat(512)}` }], /base_url/], [[entry, { ...entry, type: 'x9' }], /device type 2.*already/],
    [Array.from({ length: DEVICE_TYPES_MAX + 1 }, (_, n) => ({ ...entry, type: `X${n}` })), /limit/]
  ]
  for (const [value, message] of rows) t.throws(() => parseDeviceTypes(typeof value === 'string' ? value : JSON.stringify(value)), { code: 'DEVICE_TYPE_INVALID', message })
  t.equal(parseDeviceTypes(JSON.stringify(Array.from({ length: DEVICE_TYPES_MAX }, (_, n) => ({ ...entry, type: `X${n}` })))).length, DEVICE_TYPES_MAX)
})

t.test('the fleet put together: one timer, and what waits is written at the end', async t => {
  const clock = { nowMs: 1000 }
  const store = seenStore()
  const box = outbox()
  const timer: { tick: () => void, stopped: boolean } = { tick: () => {}, stopped: false }
  const fleet = await openFleet({
    store, broker: () => box, device: tid => tid === 'SB0001' ? DEVICE : undefined, staysOnline: false, newId: () => newIdOf(1), nowMs: () => clock.nowMs, log: SILENT_LOG,
    startTimer: callback => {
      timer.tick = callback
      return { stop: () => { timer.stopped = true } }
    }
  })
  fleet.handleConnected({ tid: 'SB0001', address: '10.0.0.1', tls: false, takeover: false })
  fleet.handleHello('SB0001', HELLO)
  t.equal(fleet.desired.isPending('SB0001'), true)
  fleet.handleReported('SB0001', { version: 4, volume: 70, language: 'HINDI' })
  fleet.handleTelemetry('SB0001', { battery: 50 })
  fleet.handleChanged('SB0001')
  const test = fleet.commands.send('SB0001', { name: 'test' })
  await turn()
  t.equal(fleet.handleAck('SB0001', { id: newIdOf(1), result: 'done' }), true)
  t.match(await test, { result: 'done' })
  t.same(box.sent.map(({ topic }) => topic.split('/')[3]), ['desired', 'command', 'desired'], 'for the hello, the command, for the change')
  timer.tick()
  await turn()
  t.match(store.rows(), [{ tid: 'SB0001', online: true, hello: HELLO, telemetry: { battery: 50 }, reported: { version: 4 } }])
  fleet.handleDisconnected('SB0001', 'gone')
  t.same([fleet.presence.isOnline('SB0001'), fleet.desired.pendingCount()], [false, 0])
  const lost = fleet.commands.send('SB0001', { name: 'test' })
  await t.rejects(lost, { code: 'DEVICE_OFFLINE' })
  await fleet.close()
  t.ok(timer.stopped)
  t.match(store.rows().at(-1), { tid: 'SB0001', online: false })
})
