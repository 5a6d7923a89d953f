// A technician with a box on a cable: probe, monitor, provision with the code that was heard, and the doctor.
import { spawn } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startSerialSim } from '../../firmware-sim/serial-sim.js'
import type { Sound } from '../../firmware-sim/voice.js'
import { monitorPort, probePort } from '../../device-agent/technician/serial-tool.js'
import { makeTimers, SILENT_LOG } from '../../protocol/index.js'
import { eventually, startRig, tempDir } from '../support/rig.js'

const timers = makeTimers(() => Date.now())
const deps = { timers, log: SILENT_LOG }
const SLOW_MACHINE_MS = 120_000

t.test('a box is provisioned only when the technician types what it said', async t => {
  const rig = await startRig(t)
  const sounds: Sound[] = []
  const sim = startSerialSim({ count: 1, timers, tids: [''], audioScale: 0.05, baudRate: Infinity, onSound: (_tid, sound) => { sounds.push(sound) } })
  t.teardown(sim.close)
  const port = sim.ports[0] ?? ''
  const soundbox = (...args: string[]): ReturnType<typeof run> => run(['--data-dir', rig.dir, ...args])

  const probe = await probePort({ path: port }, deps)
  t.match(probe, { path: port, baudRate: 115_200, hello: { model: 'sb-sim-1', firmware: '1.0.0' } })
  t.equal(probe.hello.tid, undefined, 'no serial number yet')

  const wrong = await soundbox('device', 'provision', 'SB-CABLE', '--serial', port, '--json').typing(() => '000000\n000000\n000000\n')
  t.equal(wrong.code, 2, 'three times wrong')
  t.match(await rig.client.call('GET', '/devices/SB-CABLE'), { status: 'inactive' })

  const secretsFile = join(tempDir(t), 'box.json')
  const heardBefore = sounds.length
  const right = await soundbox('device', 'provision', 'SB-CABLE', '--serial', port, '--credentials-out', secretsFile, '--json').typing(async () => {
    const sound = await eventually(() => sounds[heardBefore], found => found !== undefined, SLOW_MACHINE_MS)
    return `${codeOf(sound)}\n`
  })
  t.equal(right.code, 0, right.stderr)
  t.match(JSON.parse(right.stdout), { tid: 'SB-CABLE', status: 'active', model: 'sb-sim-1' })
  t.match(await rig.client.call('GET', '/devices/SB-CABLE'), { status: 'active', type: 'SB3' })
  t.equal(statSync(secretsFile).mode & 0o777, 0o600)
  t.match(JSON.parse(readFileSync(secretsFile, 'utf8')), { tid: 'SB-CABLE', mqttUsername: 'SB-CABLE' })
  t.equal((await probePort({ path: port }, deps)).hello.tid, 'SB-CABLE')

  const other = await soundbox('device', 'provision', 'SB-OTHER', '--serial', port, '--heard', '123456')
  t.equal(other.code, 1, 'a box that has another serial number is not overwritten')
  t.match(other.stderr, /refuses: provisioned/)
  t.equal((await soundbox('device', 'provision', 'SB-X', '--serial', '/dev/does-not-exist', '--heard', '123456')).code, 1)
})

t.test('a maker signs an image, a technician brings it in, and a box refuses what another maker signed', async t => {
  const dir = tempDir(t)
  const file = (name: string): string => join(dir, name)
  const sign = (maker: string, version: string, out: string): ReturnType<typeof run> =>
    run(['serial', 'sign', file('program'), '--model', 'sb-sim-1', '--version', version, '--key', join(maker, 'maker-key.pem'), '--out', file(out)])
  writeFileSync(file('program'), 'a program of a soundbox '.repeat(200))
  for (const maker of ['ours', 'theirs']) t.equal((await run(['serial', 'keys', file(maker)])).code, 0)
  t.equal(statSync(join(dir, 'ours', 'maker-key.pem')).mode & 0o777, 0o600)
  t.equal((await sign(file('ours'), '1.1.0', 'new.image')).code, 0)
  t.equal((await sign(file('theirs'), '1.2.0', 'foreign.image')).code, 0)
  t.match(await sign(file('ours'), '1.1.1', 'new.image'), { code: 2, stderr: /there already/ }, 'an image is never written over')
  t.match(await sign(file('ours'), 'newest', 'other.image'), { code: 1, stderr: /version/ })

  const makerKey = readFileSync(join(dir, 'ours', 'maker-key-public.pem'), 'utf8')
  const sim = startSerialSim({ count: 1, timers, audioScale: 0.05, baudRate: Infinity, makerKey })
  t.teardown(sim.close)
  const port = sim.ports[0] ?? ''
  t.match(await run(['serial', 'update', port, file('foreign.image')]), { code: 1, stderr: /refuses the image/ })
  t.match(await run(['serial', 'update', port, file('none.image')]), { code: 2, stderr: /cannot be read/ })
  t.match(await run(['serial', 'update', port]), { code: 2, stderr: /name the file/ })
  const updated = await run(['serial', 'update', port, file('new.image'), '--json'])
  t.equal(updated.code, 0, updated.stderr)
  t.match(JSON.parse(updated.stdout), { path: port, hello: { firmware: '1.1.0' } })
})

t.test('the monitor shows both directions, decoded, and no secret', async t => {
  const sim = startSerialSim({ count: 1, timers, audioScale: 0.05, baudRate: Infinity })
  t.teardown(sim.close)
  const lines: string[] = []
  const monitor = monitorPort({ path: sim.ports[0] ?? '' }, deps, line => { lines.push(line) })
  t.teardown(monitor.close)
  await eventually(() => lines, found => found.some(line => /box -> .*HELLO/.test(line)) && found.some(line => / <- .*HELLO/.test(line)), SLOW_MACHINE_MS)
  t.ok(lines.every(line => /^\d\d:\d\d:\d\d\.\d{3} /.test(line)))
})

t.test('a port where nobody answers is told, with the speed', async t => {
  const deaf = { ...deps, openPort: async () => ({ write: () => {}, close: async () => {} }), timers: makeTimers(() => Date.now()) }
  await t.rejects(probePort({ path: '/dev/deaf', baudRate: 9600 }, deaf), { code: 'SERIAL_TIMEOUT', message: /9600/ })
})

t.test('the doctor names each finding with its remedy, and its exit code tells a fault', async t => {
  const rig = await startRig(t)
  const healthy = await run(['--data-dir', rig.dir, 'doctor', '--json'])
  const findings = healthy.stdout.trim().split('\n').map(line => JSON.parse(line) as { check: string, level: string, remedy: string | null })
  t.equal(healthy.code, findings.some(finding => finding.level === 'fault') ? 1 : 0)
  t.match(findings.find(finding => finding.check === 'gateway'), { level: 'ok' })
  t.match(findings.find(finding => finding.check === 'data directory'), { level: 'ok' })
  t.ok(findings.every(finding => finding.level === 'ok' || finding.remedy !== null), 'what is not well has a remedy')
  const ill = await run(['--data-dir', join(rig.dir, 'nothing'), 'doctor', '--json'])
  t.equal(ill.code, 1)
  t.match(ill.stdout, /"check":"gateway","level":"fault"/)
})

/** The digits in the sentence that the box said. */
function codeOf (sound: Sound | undefined): string {
  const words = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
  return (sound?.text ?? '').toLowerCase().split(/[^a-z]+/).map(word => words.indexOf(word)).filter(digit => digit >= 0).join('')
}

type Ended = { code: number, stdout: string, stderr: string }

function run (args: readonly string[]): Promise<Ended> & { typing: (text: () => string | Promise<string>) => Promise<Ended> } {
  const child = spawn(process.execPath, ['dist/gateway/cli/main.js', ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  const out = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) child[name].setEncoding('utf8').on('data', (chunk: string) => { out[name] += chunk })
  const ended = new Promise<Ended>(resolve => { child.once('close', code => { resolve({ code: code ?? -1, ...out }) }) })
  return Object.assign(ended, {
    async typing (text: () => string | Promise<string>): Promise<Ended> {
      await eventually(() => out.stderr, found => found.includes('Type the six digits'), SLOW_MACHINE_MS)
      child.stdin.end(await text())
      return await ended
    }
  })
}
