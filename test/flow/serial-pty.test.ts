// The real thing but for the box: serialport on pseudo-terminals, simulated soundboxes behind them, real time.
import { generateKeyPairSync } from 'node:crypto'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { openDfPlayer } from '../../device-agent/dfplayer.js'
import { openSerialBox, type SerialBox } from '../../device-agent/serial-box.js'
import { openSerialFleet } from '../../device-agent/serial-fleet.js'
import { openSerialPort } from '../../device-agent/serial-link.js'
import { openPty } from '../../firmware-sim/pty.js'
import { runSerialCommand } from '../../firmware-sim/serial-command.js'
import { parseSerialSettings, serialHelp } from '../../firmware-sim/serial-settings.js'
import { type SerialSim, type SerialSimOptions, startSerialSim } from '../../firmware-sim/serial-sim.js'
import { type BoxStatus, lineMs, makeFirmwareKeys, makeTimers, sealFirmware, SILENT_LOG } from '../../protocol/index.js'
import { announcementOf, BAUD } from '../support/serial-world.js'

const noFile = (): string => { throw new Error('no file is read') }
t.jobs = 8 // They mostly wait for their lines, each for its own.
const timers = makeTimers(() => performance.now())
const SHORT = 0.05
/** Two rough lines whose boxes reset in mid-sentence but do not hang: hanging costs real time. */
const ROUGH_SEED = 2418

function sim (t: Test, options: Partial<SerialSimOptions> = {}): SerialSim {
  const started = startSerialSim({ count: 1, timers, audioScale: SHORT, ...options })
  t.teardown(started.close)
  return started
}

function open (t: Test, path: string, events: { hellos?: string[], statuses?: BoxStatus[], losses?: string[] } = {}): SerialBox {
  const box = openSerialBox({
    path, log: SILENT_LOG, timers, onHello: hello => { events.hellos?.push(hello.bootId) }, onStatus: status => { events.statuses?.push(status) }, onLost: why => { events.losses?.push(why) }
  })
  t.teardown(box.close)
  return box
}

/** Waits until it is so, for at most 8 seconds. */
async function until (isSo: () => boolean): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < 8000 && !isSo(); waitedMs += 10) await sleep(10)
  return isSo()
}

t.test('a box on a pseudo-terminal is found, speaks, and its buttons arrive', { buffered: true }, async t => {
  const { ports: [port = ''], boxes } = sim(t)
  const events = { hellos: [] as string[], statuses: [] as BoxStatus[] }
  const box = open(t, port, events)
  t.ok(await until(() => box.hello() !== undefined))
  t.match(box.hello(), { tid: 'SIM-0001', model: 'sb-sim-1' })
  for (let n = 1; n <= 3; n++) t.match(await box.announce(announcementOf(n)), { result: 'spoken' })
  t.same(boxes[0]?.sounds.filter(sound => sound.id !== undefined && sound.isWhole).length, 3)
  boxes[0]?.press('volume-up')
  t.ok(await until(() => events.statuses.some(status => status.button?.name === 'volume-up')))
  await t.rejects(openSerialPort({ path: port, baudRate: BAUD, onBytes: () => {}, onClosed: () => {} }), { code: 'SERIAL_UNAVAILABLE', message: /held by another program/ })
})

t.test('a port passes every byte as it is, in both directions', { buffered: true }, async t => {
  const toSim: Buffer[] = []
  const toHost: Buffer[] = []
  const pty = openPty(bytes => { toSim.push(bytes) })
  t.teardown(pty.close)
  const port = await openSerialPort({ path: pty.path, baudRate: BAUD, onBytes: bytes => { toHost.push(bytes) }, onClosed: () => {} })
  t.teardown(port.close)
  const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
  port.write(all)
  pty.write(all)
  await until(() => Buffer.concat(toSim).length >= 256 && Buffer.concat(toHost).length >= 256)
  t.same(Buffer.concat(toSim), all)
  t.same(Buffer.concat(toHost), all)
})

t.test('a plug that is pulled is noticed at once, and what was asked ends', { buffered: true }, async t => {
  const started = sim(t, { audioScale: 1 })
  const losses: string[] = []
  const box = open(t, started.ports[0] ?? '', { losses })
  t.ok(await until(() => box.hello() !== undefined))
  const cut = box.announce(announcementOf(1))
  t.ok(await until(() => started.boxes[0]?.flash().journal.some(entry => entry.state === 'started') === true))
  started.unplug(0)
  t.ok(await until(() => losses.length > 0))
  t.match(losses[0], /was lost/)
  t.equal(box.hello(), undefined)
  t.notOk(existsSync(started.ports[0] ?? '') && box.error() === undefined)
  t.match(box.error(), { code: 'SERIAL_UNAVAILABLE' })
  await box.close()
  t.match(await cut, { result: 'failed', reason: 'no-answer' }, 'it had left: only the box knows')
})

t.test('a port that hangs up while bytes arrive is noticed within seconds and takes no core', { buffered: true }, async t => {
  const closed: string[] = []
  for (let n = 0; n < 6; n++) {
    const pty = openPty(() => {})
    const port = await openSerialPort({ path: pty.path, baudRate: BAUD, onBytes: () => {}, onClosed: why => { closed.push(why) } })
    t.teardown(port.close)
    pty.write(Buffer.alloc(300 * n))
    if (n % 2 === 1) await new Promise(setImmediate) // With bytes just on their way serialport misses the end of the line.
    pty.close()
  }
  t.ok(await until(() => closed.length === 6), `${closed.length} of 6 noticed`)
})

t.test('faults on real ports: each announcement ends once, as it was heard', { buffered: true }, async t => {
  const { ports, boxes } = sim(t, { count: 2, faults: ROUGH_SEED, audioScale: 0.02 })
  const hosts = ports.map(port => open(t, port))
  t.ok(await until(() => hosts.every(host => host.hello() !== undefined)))
  const all = hosts.flatMap((host, index) => Array.from({ length: 6 }, async (_, n) => ({ index, ...await host.announce(announcementOf(n + 1, { ttlMs: 4000 })) })))
  for (const { index, id, result, reason } of await Promise.all(all)) {
    const heard = boxes[index]?.sounds.filter(sound => sound.id === id) ?? []
    t.ok(result === 'spoken' ? heard.length === 1 && heard[0]?.isWhole : heard.every(sound => !sound.isWhole) && heard.length <= 1, `${id.slice(-2)} ${result} ${reason ?? ''} ${heard.length}`)
  }
})

t.test('an agent finds its boxes, refuses a twin and updates a program', { buffered: true }, async t => {
  const started = sim(t, { count: 3, tids: ['SB-A', 'SB-B', 'SB-A'], baudRate: 921_600 })
  const fleet = openSerialFleet({ ports: started.ports, log: SILENT_LOG, timers, onBox: () => {}, onStatus: () => {}, onLost: () => {} })
  t.teardown(fleet.close)
  t.ok(await until(() => fleet.ports().some(port => port.problem?.code === 'ALREADY_EXISTS') && fleet.box('SB-B') !== undefined))
  t.equal(fleet.ports().filter(port => port.tid === 'SB-A').length, 1)
  const image = sealFirmware(Buffer.alloc(20_000, 7), { model: 'sb-sim-1', version: '1.0.1', privateKey: started.privateKey ?? '' })
  await fleet.box('SB-B')?.updateFirmware(image)
  t.match(fleet.box('SB-B')?.hello(), { firmware: '1.0.1' })
})

t.test('the line takes the time of its baud rate', { buffered: true }, async t => {
  const { ports: [port = ''] } = sim(t, { baudRate: 9600 })
  const box = openSerialBox({ path: port, baudRate: 9600, log: SILENT_LOG, timers, onHello: () => {}, onStatus: () => {}, onLost: () => {} })
  t.teardown(box.close)
  t.ok(await until(() => box.hello() !== undefined))
  const startedMs = performance.now()
  await box.command('clear-display')
  t.ok(performance.now() - startedMs >= lineMs(100, 9600), 'a hundred bytes there and back take a tenth of a second')
})

t.test('the command prints its ports and what is heard there, acts on its input, and a plain module speaks too', { buffered: true }, async t => {
  const lines: string[] = []
  const settings = parseSerialSettings(['--count', '1', '--dfplayers', '1', '--audio-scale', '0.8'], noFile)
  const running = runSerialCommand(settings!, { timers, print: line => { lines.push(line) } })
  t.teardown(running.close)
  t.equal(running.ports.length, 2)
  t.same(lines, [`port ${running.ports[0]} SIM-0001`, `port ${running.ports[1]} dfplayer-1`])
  const player = openDfPlayer({ path: running.ports[1] ?? '', log: SILENT_LOG, timers, inventory: { ENGLISH: ['received', 'rupees', 'n19'] } })
  t.teardown(player.close)
  const events = { hellos: [] as string[], statuses: [] as BoxStatus[] }
  const box = open(t, running.ports[0] ?? '', events)
  t.ok(await until(() => player.isReady() && box.hello() !== undefined))
  const said = box.announce(announcementOf(1))
  t.match(await player.say({ clips: ['n19'], language: 'ENGLISH', volume: 50 }), { wav: null })
  t.match(await said, { result: 'spoken' })
  t.ok(lines.includes('heard dfplayer-1 track 3'))
  t.ok(lines.some(line => /^heard SIM-0001 payment 0{31}1 "Received/.test(line)), lines.join('\n'))
  running.act('press SIM-0001 volume-up')
  running.act('reboot SIM-0001')
  t.ok(await until(() => events.hellos.length === 2))
  t.throws(() => { running.act('press SIM-0002 replay') }, { code: 'NOT_FOUND' })
  for (const line of ['press SIM-0001 eject', 'dance SIM-0001']) t.throws(() => { running.act(line) }, { code: 'INPUT_INVALID' }, line)
  running.act('unplug SIM-0001')
  t.ok(await until(() => box.error() !== undefined))
})

t.test('flags of the command are checked all at once', async t => {
  t.equal(parseSerialSettings(['--help'], noFile), undefined)
  t.match(serialHelp(), /--faults/)
  const expected = { count: 3, dfplayers: 0, tids: ['SB-A', '', 'SB-C'], faults: 42, audioScale: 1, baudRate: 115_200, makerKey: undefined }
  t.same(parseSerialSettings(['--tids', 'SB-A,-,SB-C', '--faults', '42'], noFile), expected)
  const { publicKey } = makeFirmwareKeys()
  t.match(parseSerialSettings(['--maker-key', 'key.pem'], () => publicKey), { makerKey: publicKey })
  for (const readText of [noFile, () => 'no key', () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'pem' }).toString()]) {
    t.throws(() => parseSerialSettings(['--maker-key', 'key.pem'], readText), { code: 'CONFIG_INVALID', message: /maker-key/ })
  }
  t.throws(() => parseSerialSettings(['--count', '65', '--baud', '1234', '--faults', '1.5', '--tids', 'a b'], noFile), { code: 'CONFIG_INVALID', message: /tids.*count.*faults.*baud/ })
  t.throws(() => parseSerialSettings(['--count'], noFile), { code: 'CONFIG_INVALID' })
  t.throws(() => startSerialSim({ count: 65, timers }), { code: 'INPUT_INVALID' })
})
