import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startFleet } from '../../firmware-sim/fleet.js'
import type { Announcement } from '../../protocol/index.js'
import { boxKeys, type BoxKeys, type DeviceBroker, openDeviceBroker } from '../support/device-broker.js'
import { seedsOf } from '../support/random.js'
import { openPump } from './pump.js'

const idOf = (n: number): string => n.toString(16).padStart(32, '0')
const boxesOf = (count: number): BoxKeys[] => Array.from({ length: count }, (_, index) => boxKeys(index + 1))

function payment (n: number, changes: Partial<Announcement> = {}): Announcement {
  const issuedAt = Date.now()
  return { v: 1, id: idOf(n), seq: n, kind: 'payment', amountMinor: n * 100, currency: 'INR', language: 'ENGLISH', issuedAt, expiresAt: issuedAt + 60_000, ...changes }
}

async function openFleet (devices: readonly BoxKeys[], more: Partial<Parameters<typeof startFleet>[0]> = {}) {
  const gateway = await openDeviceBroker(devices)
  const fleet = startFleet({ url: gateway.url, devices, seed: 1, nowMs: Date.now, connectsPerSecond: 0, backoff: { baseMs: 5, maxMs: 40 }, ...more })
  await fleet.whenUp(20_000)
  const close = async (): Promise<void> => {
    await fleet.close()
    await gateway.close()
  }
  return { gateway, fleet, close }
}

/** For what a box learns without a word to the gateway: PUBACK. */
async function eventually (isTrue: () => boolean): Promise<void> {
  for (let tries = 0; !isTrue() && tries < 5000; tries++) await new Promise(resolve => setTimeout(resolve, 2))
}

const isSpoken = (gateway: DeviceBroker, tid: string, n: number) => (): boolean => gateway.acks(tid).some(ack => ack.id === idOf(n) && ack.result === 'spoken')

t.test('a fleet connects, hears and speaks, and reports it', async t => {
  const boxes = boxesOf(20)
  const { gateway, fleet, close } = await openFleet(boxes)
  t.teardown(close)
  const pump = openPump(gateway)
  t.teardown(pump.close)
  for (let n = 1; n <= 10; n++) for (const { tid } of boxes) pump.offer(tid, payment(n))
  await gateway.until(() => pump.finals.size === 200, 'all ended')
  const report = fleet.report()
  t.match(report, {
    boxes: 20, up: 20, connects: 20, received: 200, repeats: 0, outOfOrder: 0, spoken: 200, doubles: 0, droppedSignatures: 0, droppedMessages: 0, reboots: 0,
    finals: { spoken: 200 }, deliverMs: { count: 200 }, speakMs: { count: 200 }
  })
  t.ok(report.speakMs.p50 <= report.speakMs.p99 && report.speakMs.p99 <= report.speakMs.max)
  t.same(fleet.spoken().filter(heard => heard.tid === 'SB-0007').map(heard => heard.amountMinor), [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000])
  await eventually(() => fleet.boxes.every(box => box.unsettled().length === 0))
  t.same(fleet.boxes.flatMap(box => box.unsettled()), [])
})

t.test('under all faults each announcement ends once and nothing is said twice', async t => {
  for (const seed of seedsOf(2)) {
    const boxes = boxesOf(12)
    const { gateway, fleet, close } = await openFleet(boxes, {
      seed, speakMs: [0, 4], faults: { delayMs: [0, 3], ackLoss: 0.1, duplicate: 0.15, reboot: 0.12, offline: 0.05, offlineMs: [5, 40], bootMs: [0, 10] }
    })
    const pump = openPump(gateway)
    for (let n = 1; n <= 10; n++) for (const { tid } of boxes) pump.offer(tid, payment(n))
    await gateway.until(() => pump.openCount() === 0, `SEED=${seed} all ended`, 30_000)
    const report = fleet.report()
    t.equal(report.doubles, 0, `SEED=${seed}`)
    t.ok(report.reboots > 0 && report.repeats > 0 && report.connects > 12, `SEED=${seed} the faults came: ${JSON.stringify(report)}`)
    t.equal(pump.finals.size, 120, `SEED=${seed}`)
    const heard = new Set(fleet.spoken().map(({ tid, id }) => `${tid} ${id}`))
    t.same([...pump.finals].filter(([key, result]) => !(result === 'spoken' ? heard.has(key) : result === 'failed')), [], `SEED=${seed} said as the ack tells, or failed`)
    pump.close()
    await close()
  }
})

t.test('a box drops what is not signed with its key, and what has no shape', async t => {
  const { gateway, fleet, close } = await openFleet(boxesOf(2))
  t.teardown(close)
  await gateway.announce('SB-0001', payment(1), 'signing-key-2')
  await gateway.send('SB-0001', 'announce', { v: 1 })
  await gateway.announce('SB-0001', payment(2))
  await gateway.until(isSpoken(gateway, 'SB-0001', 2), 'the true one')
  t.match(fleet.report(), { droppedSignatures: 1, droppedMessages: 1, spoken: 1 })
  t.same(gateway.acks('SB-0001').filter(ack => ack.id === idOf(1)), [])
})

t.test('power loss in the middle of a sound: failed afterwards, then known', async t => {
  const { gateway, fleet, close } = await openFleet(boxesOf(1), { speakMs: 60_000 })
  t.teardown(close)
  const box = fleet.boxes[0]!
  await gateway.announce(box.tid, payment(1))
  await gateway.until(() => gateway.acks(box.tid).length === 1, 'received')
  await gateway.announce(box.tid, payment(1))
  await gateway.until(() => gateway.acks(box.tid).length === 2, 'received again while it sounds')
  box.reboot()
  t.equal(box.isUp(), false)
  await gateway.until(() => gateway.acks(box.tid).some(ack => ack.result === 'failed'), 'interrupted')
  await fleet.whenUp(5000)
  await eventually(() => box.unsettled().length === 0)
  await gateway.announce(box.tid, payment(1))
  await gateway.until(() => gateway.acks(box.tid).some(ack => ack.result === 'duplicate'), 'known')
  t.match(gateway.acks(box.tid).at(-1), { result: 'duplicate', was: 'failed' })
  t.match(fleet.report(), { spoken: 1, doubles: 0, reboots: 1 })
  const boots = gateway.arrived.filter(one => one.name === 'hello').map(one => one.message['bootId'])
  t.equal(new Set(boots).size, 2)
})

t.test('expired, muted, and commands', async t => {
  const { gateway, fleet, close } = await openFleet(boxesOf(1))
  t.teardown(close)
  const { tid } = boxKeys(1)
  const last = () => gateway.acks(tid).at(-1)
  const ended = (n: number) => gateway.until(() => gateway.acks(tid).some(ack => ack.id === idOf(n) && ack.result !== 'received'), `end of ${n}`)
  await gateway.announce(tid, payment(1, { expiresAt: Date.now() - 1 }))
  await ended(1)
  t.match(last(), { result: 'expired' })
  const minute = Math.floor(Date.now() / 60_000) % 1440
  const quietHours = { startMinute: minute, endMinute: (minute + 30) % 1440, utcOffsetMinutes: 0 }
  for (const [n, changes] of [[2, { volume: 0 }], [3, { quietHours }]] as const) {
    await gateway.desire(tid, { version: n, ...changes })
    await gateway.announce(tid, payment(n))
    await ended(n)
    t.match(last(), { result: 'muted' })
  }
  t.match(gateway.arrived.filter(one => one.name === 'reported').at(-1)?.message, { version: 3, volume: 80 })
  const rows: [number, string, Record<string, unknown>, object][] = [
    [10, 'test', {}, { result: 'done' }], [11, 'volume', { volume: 33 }, { result: 'done' }], [12, 'volume', { volume: 133 }, { result: 'failed' }],
    [13, 'language', { language: 'TAMIL' }, { result: 'done' }], [14, 'firmware', {}, { result: 'failed' }], [15, 'collect-log', {}, { result: 'done', data: /SB-0001/ }],
    [16, 'reboot', {}, { result: 'done' }]
  ]
  for (const [n, name, args, want] of rows) {
    await gateway.send(tid, 'command', { id: idOf(n), name, args, expiresAt: Date.now() + 10_000 })
    await ended(n)
    t.match(last(), { id: idOf(n), ...want }, name)
  }
  t.match(gateway.arrived.filter(one => one.name === 'reported').at(-1)?.message, { volume: 33, language: 'TAMIL' })
  await gateway.until(() => gateway.connects.length === 2, 'the reboot')
  await fleet.whenUp(5000)
  await gateway.send(tid, 'command', { id: idOf(16), name: 'reboot', args: {}, expiresAt: Date.now() + 10_000 })
  await gateway.until(() => gateway.acks(tid).some(ack => ack.result === 'duplicate'), 'a reboot is done once')
  t.equal(fleet.report().reboots, 1)
  await gateway.send(tid, 'command', { id: idOf(17), name: 'test', args: {}, expiresAt: Date.now() - 1 })
  await ended(17)
  t.match(last(), { result: 'expired' })
})

t.test('a box that hangs does not hold up the others; cut and offline boxes come back', async t => {
  const { gateway, fleet, close } = await openFleet(boxesOf(3), { telemetryMs: 20 })
  t.teardown(close)
  const [first, second, third] = fleet.boxes
  first!.pauseReading()
  await gateway.announce('SB-0001', payment(1))
  await gateway.announce('SB-0002', payment(1))
  await gateway.until(isSpoken(gateway, 'SB-0002', 1), 'the second box')
  t.same(gateway.acks('SB-0001'), [])
  first!.resumeReading()
  await gateway.until(isSpoken(gateway, 'SB-0001', 1), 'the first box after all')
  second!.cut()
  third!.goOffline(60)
  await fleet.whenUp(5000, 1)
  await gateway.until(() => gateway.connects.length === 5, 'both are back')
  await fleet.whenUp(5000)
  await gateway.until(() => gateway.arrived.some(one => one.name === 'telemetry'), 'telemetry')
  t.match(gateway.arrived.find(one => one.name === 'telemetry')?.message, { network: 'sim', charging: false })
})

t.test('a fleet without its gateway', async t => {
  t.throws(() => startFleet({ url: 'http://x', devices: [], seed: 1, nowMs: Date.now }), { code: 'INPUT_INVALID' })
  const fleet = startFleet({ url: 'mqtt://127.0.0.1:1', devices: boxesOf(2), seed: 1, nowMs: Date.now, connectsPerSecond: 0, backoff: { baseMs: 1, maxMs: 5 } })
  await t.rejects(fleet.whenUp(50), { code: 'GATEWAY_UNREACHABLE', message: /0 of 2/ })
  await fleet.close()
})

t.test('the command: keys from a file, a fleet for a while, a report, an exit code', async t => {
  const boxes = boxesOf(3)
  const gateway = await openDeviceBroker(boxes)
  t.teardown(gateway.close)
  const dir = t.testdir()
  writeFileSync(join(dir, 'boxes.jsonl'), boxes.map(({ tid, password, signingKey }) => JSON.stringify({ tid, type: 'own', mqttUsername: tid, mqttPassword: password, signingKey })).join('\n'))
  const run = (argv: string[]) => {
    const child = spawn(process.execPath, ['dist/firmware-sim/main.js', ...argv], { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env['PATH'] } })
    const output = { text: '', errors: '' }
    child.stdout.on('data', (chunk: Buffer) => { output.text += chunk.toString('utf8') })
    child.stderr.on('data', (chunk: Buffer) => { output.errors += chunk.toString('utf8') })
    const code = new Promise<number | null>(resolve => { child.on('close', resolve) })
    return { child, output, code }
  }
  const sim = run(['mqtt', '--url', gateway.url, '--credentials', join(dir, 'boxes.jsonl'), '--devices', '2', '--speak-ms', '0', '--json'])
  await gateway.until(() => gateway.connects.length === 2, 'two of three connect', 20_000)
  await gateway.until(() => gateway.arrived.filter(one => one.name === 'hello').length === 2, 'hello')
  await gateway.announce('SB-0002', payment(1))
  await gateway.until(isSpoken(gateway, 'SB-0002', 1), 'spoken')
  sim.child.kill('SIGINT')
  t.equal(await sim.code, 0)
  t.match(JSON.parse(sim.output.text), { boxes: 2, up: 2, spoken: 1, doubles: 0, finals: { spoken: 1 } })
  const wrong = run(['mqtt', '--credentials', join(dir, 'missing'), '--seed', 'x'])
  t.equal(await wrong.code, 2)
  t.match(wrong.output.errors, /seed must be.*credentials|credentials.*seed must be/)
})

t.test('the command serial runs boxes on ports of their own until it is ended', async t => {
  const child = spawn(process.execPath, ['dist/firmware-sim/main.js', 'serial', '--tids', 'SIM-0007', '--audio-scale', '0.1'], { stdio: ['pipe', 'pipe', 'pipe'] })
  const output = { text: '', errors: '' }
  child.stderr.on('data', (chunk: Buffer) => { output.errors += chunk.toString('utf8') })
  const code = new Promise<number | null>(resolve => { child.on('close', resolve) })
  await new Promise<void>(resolve => {
    child.stdout.on('data', (chunk: Buffer) => {
      output.text += chunk.toString('utf8')
      if (output.text.includes('starting')) resolve()
    })
  })
  t.match(output.text, /^port \/\S+ SIM-0007$/m)
  child.stdin.write('press SIM-0008 replay\n')
  while (!output.errors.includes('NOT_FOUND')) await new Promise(resolve => child.stderr.once('data', resolve))
  child.kill('SIGTERM')
  t.equal(await code, 0)
})
