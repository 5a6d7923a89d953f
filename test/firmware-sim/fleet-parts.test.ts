import { createServer, type Server, type Socket } from 'node:net'
import t from 'tap'
import { NO_FAULTS, openRandom, parseFaults, pickWithin } from '../../firmware-sim/fleet-faults.js'
import { FLEET_SETTINGS, fleetHelp, parseCredentials, parseFleetSettings } from '../../firmware-sim/fleet-settings.js'
import { CONNECT_TIMEOUT_MS, FRAME_BYTES_MAX, openMqttClient, UNCONFIRMED_MAX } from '../../firmware-sim/mqtt-client.js'
import { formatReport, openFleetMeter } from '../../firmware-sim/report.js'
import type { Announcement } from '../../protocol/index.js'

const T0 = 1_800_000_000_000
const idOf = (n: number): string => n.toString(16).padStart(32, '0')
const payment = (n: number): Announcement => ({
  v: 1, id: idOf(n), seq: n, kind: 'payment', amountMinor: 100, currency: 'INR', language: 'ENGLISH', issuedAt: T0, expiresAt: T0 + 60_000
})

t.test('the report counts from outside: doubles, repeats, order, percentiles', async t => {
  const meter = openFleetMeter()
  t.match(formatReport(meter.report(0, 0)), 'to sound      none')
  for (let n = 1; n <= 100; n++) {
    meter.arrived('A', payment(n), T0 + 2)
    meter.sounded('A', payment(n), T0 + n)
    meter.final('spoken')
  }
  meter.arrived('B', payment(1), T0 + 2)
  meter.sounded('B', payment(1), T0 + 50)
  t.match(meter.report(2, 1), { received: 101, repeats: 0, spoken: 101, doubles: 0, outOfOrder: 0, speakMs: { count: 101, p50: 50, max: 100 } }, 'the same id on another box is no double')
  meter.arrived('A', payment(5), T0 + 3)
  meter.sounded('A', payment(5), T0 + 200)
  meter.arrived('A', { ...payment(200), seq: 3 }, T0 + 3)
  meter.final('failed')
  meter.count('reboots')
  const report = meter.report(2, 1)
  t.match(report, { received: 103, repeats: 1, spoken: 102, doubles: 1, outOfOrder: 1, reboots: 1, finals: { spoken: 100, failed: 1 } })
  t.match(formatReport(report), /spoken {8}102, doubles 1 {2}<-- must be 0/)
  t.equal(meter.heard().length, 102)
})

t.test('faults as text', async t => {
  t.same(parseFaults(''), NO_FAULTS)
  t.match(parseFaults('ack-loss=0.01, duplicate=1,reboot=.5,offline=0,offline-ms=5-10,delay-ms=7,boot-ms=0-3600000'), {
    ackLoss: 0.01, duplicate: 1, reboot: 0.5, offline: 0, offlineMs: [5, 10], delayMs: [7, 7], bootMs: [0, 3_600_000]
  })
  for (const wrong of ['fire=1', 'ack-loss=1.1', 'ack-loss=-0', 'ack-loss', 'delay-ms=9-5', 'delay-ms=0-3600001', 'delay-ms=a', 'constructor=1', 'delay-ms=1-2-3']) {
    t.throws(() => parseFaults(wrong), { code: 'INPUT_INVALID' }, wrong)
  }
  const [one, two] = [openRandom(7), openRandom(7)]
  for (let n = 0; n < 100; n++) {
    const value = pickWithin([3, 5], one)
    t.ok([3, 4, 5].includes(value))
    t.equal(pickWithin([3, 5], two), value, 'the same seed, the same faults')
  }
})

t.test('keys from a file', async t => {
  const entry = { tid: 'SIM-0001', mqttPassword: 'p', signingKey: 's' }
  const keys = { tid: 'SIM-0001', password: 'p', signingKey: 's' }
  t.same(parseCredentials(JSON.stringify(entry)), [keys])
  t.same(parseCredentials(`${JSON.stringify(entry)}\n\n${JSON.stringify({ ...keys, tid: 'SIM-0002' })}\n`).map(({ tid }) => tid), ['SIM-0001', 'SIM-0002'])
  t.same(parseCredentials(JSON.stringify([entry, entry])), [keys, keys])
  for (const [wrong, message] of [['{"tid"', /line 1/], ['{"tid":"x"}', /entry 1/], ['[null]', /entry 1/], [`${JSON.stringify(entry)}\nx`, /line 2/]] as const) {
    t.throws(() => parseCredentials(wrong), { code: 'CONFIG_INVALID', message }, wrong)
  }
})

t.test('settings of the fleet', async t => {
  const file = ['A-1', 'A-2', 'B-1'].map(tid => JSON.stringify({ tid: `${tid}00`, mqttPassword: 'hidden', signingKey: 'hidden' })).join('\n')
  const parse = (argv: string[], env = {}) => parseFleetSettings({ env, argv, readText: path => path === 'boxes' ? file : (() => { throw new Error('ENOENT') })() })
  const base = ['--credentials', 'boxes']
  t.match(parse(base), { url: 'mqtt://127.0.0.1:1883', seed: 1, faults: NO_FAULTS, speakMs: [1500, 3000], runMs: 0, telemetryMs: 60_000, json: false })
  t.same(parse(base)?.devices.length, 3)
  t.same(parse([...base, '--tid-prefix', 'A', '--devices', '2', '--json'])?.devices.map(({ tid }) => tid), ['A-100', 'A-200'])
  t.match(parse([], { SOUNDBOX_SIM_CREDENTIALS: 'boxes', SOUNDBOX_SIM_SPEAK_MS: '0' }), { speakMs: [0, 0] })
  t.throws(() => parse([...base, '--tid-prefix', 'A', '--devices', '3']), { code: 'CONFIG_INVALID', message: /holds 2 boxes/ })
  t.throws(() => parse([...base, '--tid-prefix', 'C']), { code: 'CONFIG_INVALID', message: /holds 0 boxes/ })
  const rows: [string, number, number][] = [['seed', 0, 999_999_999], ['connects-per-second', 0, 100_000], ['telemetry-seconds', 0, 86_400], ['seconds', 0, 2_592_000], ['every', 0, 86_400]]
  for (const [flag, min, max] of rows) {
    for (const value of [min, max]) t.doesNotThrow(() => parse([...base, `--${flag}=${value}`]), `${flag} ${value}`)
    for (const value of [min - 1, max + 1, 'x']) t.throws(() => parse([...base, `--${flag}=${value}`]), { code: 'CONFIG_INVALID', message: new RegExp(flag) }, `${flag} ${value}`)
  }
  for (const wrong of [['--devices', '0'], ['--devices', '20001'], ['--faults', 'fire=1'], ['--speak-ms', 'x'], ['--url', 'http://x'], ['--ca-file', 'missing'], ['--what'],
    ['--credentials', 'missing']]) {
    try {
      parse([...base, ...wrong])
      t.fail(wrong.join(' '))
    } catch (error) {
      t.match(error, { code: 'CONFIG_INVALID' }, wrong.join(' '))
      t.notMatch(String(error), 'hidden')
    }
  }
  t.equal(parse(['--help']), undefined)
  for (const { name } of FLEET_SETTINGS) t.match(fleetHelp(), `--${name.toLowerCase().replaceAll('_', '-')}`)
})

/** A server that answers as the test wants, and a client of it. */
async function openPair (t: Tap, onSocket: (socket: Socket) => void, more: { keepaliveS?: number } = {}) {
  const server: Server = createServer(onSocket)
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as { port: number }
  const seen = { connected: 0, messages: [] as string[] }
  let onClosed = (_reason: string): void => {}
  const closed = new Promise<string>(resolve => { onClosed = resolve })
  const client = openMqttClient({
    host: '127.0.0.1', port, tls: null, clientId: 'SB-0001', password: 'p', keepaliveS: more.keepaliveS ?? 60, will: { topic: 'soundbox/v1/SB-0001/presence', payload: Buffer.from('{}') }
  }, { onConnected: () => { seen.connected += 1 }, onMessage: (topic, payload) => seen.messages.push(`${topic} ${payload.toString('utf8')}`), onClosed })
  t.teardown(() => {
    client.destroy()
    server.close()
  })
  return { client, closed, seen }
}
type Tap = { teardown: (work: () => void) => void }
const CONNACK = Buffer.from([0x20, 0x02, 0x00, 0x00])

t.test('a server that refuses, floods, talks nonsense or hangs up ends the connection once', async t => {
  const rows: [string, (socket: Socket) => void, RegExp][] = [
    ['refuses', socket => socket.write(Buffer.from([0x20, 0x02, 0x00, 0x05])), /refused with code 5/],
    ['refuses a subscription', socket => socket.write(Buffer.concat([CONNACK, Buffer.from([0x90, 0x03, 0x00, 0x01, 0x80])])), /subscription refused/],
    ['announces 256 MiB', socket => {
      socket.write(Buffer.concat([CONNACK, Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f])]))
      for (let sent = 0; sent <= FRAME_BYTES_MAX; sent += 8192) socket.write(Buffer.alloc(8192))
    }, /over the limit/],
    ['talks nonsense', socket => socket.write(Buffer.from([0x36, 0x03, 0x00, 0x01, 0x61])), /not MQTT/],
    ['hangs up', socket => socket.end(), /closed|ECONN/]
  ]
  for (const [name, answer, want] of rows) {
    const { closed } = await openPair(t, socket => {
      socket.on('error', () => {})
      socket.once('data', () => answer(socket))
    })
    t.match(await closed, want, name)
  }
})

t.test('messages are confirmed, cut into single bytes or not', async t => {
  const publish = Buffer.from([0x32, 0x0a, 0x00, 0x03, 0x61, 0x2f, 0x62, 0x00, 0x07, 0x7b, 0x7d, 0x20])
  const received: Buffer[] = []
  let whenConfirmed = (): void => {}
  const confirmed = new Promise<void>(resolve => { whenConfirmed = resolve })
  const { seen, client } = await openPair(t, socket => {
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('data', chunk => {
      received.push(chunk)
      if (Buffer.concat(received).includes(Buffer.from([0x40, 0x02, 0x00, 0x07]))) whenConfirmed()
    })
    for (const byte of Buffer.concat([CONNACK, publish])) socket.write(Buffer.of(byte))
  })
  await confirmed
  t.same(seen, { connected: 1, messages: ['a/b {} '] })
  t.match(Buffer.concat(received).subarray(0, 12).toString('latin1'), /MQTT/)
  client.end()
})

t.test('a silent server is noticed by the keepalive; a living one is not troubled', async t => {
  let pings = 0
  const living = await openPair(t, socket => {
    socket.on('error', () => {})
    socket.on('data', chunk => {
      if (!chunk.includes(Buffer.from([0xc0, 0x00]))) return
      pings += 1
      socket.write(Buffer.from([0xd0, 0x00]))
    })
    socket.write(CONNACK)
  }, { keepaliveS: 10 })
  for (let now = T0; pings < 3; now += 6000) {
    living.client.tick(now)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  t.equal(pings, 3)
  const mute = await openPair(t, socket => { socket.on('error', () => {}) })
  mute.client.tick(T0)
  mute.client.tick(T0 + CONNECT_TIMEOUT_MS)
  mute.client.tick(T0 + CONNECT_TIMEOUT_MS + 1)
  t.match(await mute.closed, /closed/, 'no CONNACK')
  const silent = await openPair(t, socket => { socket.on('error', () => {}).write(CONNACK) }, { keepaliveS: 10 })
  while (silent.seen.connected === 0) await new Promise(resolve => setTimeout(resolve, 2))
  silent.client.tick(T0)
  silent.client.tick(T0 + 10_000)
  silent.client.tick(T0 + 10_001)
  t.match(await silent.closed, /closed/)
})

t.test('so many messages without confirmation and no more', async t => {
  const { client, closed } = await openPair(t, socket => { socket.on('error', () => {}).resume().write(CONNACK) })
  let isClosed = false
  closed.then(() => { isClosed = true })
  for (let n = 0; n < UNCONFIRMED_MAX; n++) client.publish('t', Buffer.from('x'), 1)
  await new Promise(resolve => setImmediate(resolve))
  t.equal(isClosed, false)
  client.publish('t', Buffer.from('x'), 1)
  t.match(await closed, /too many/)
})
