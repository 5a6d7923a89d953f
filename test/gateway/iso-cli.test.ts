// `soundbox iso` and `soundbox sim iso` as processes: a demo server, and every command against it.
import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { isoSimHelp, parseIsoSimSettings } from '../../firmware-sim/iso/settings.js'
import { compileFraming, compileShippedSpec, encodeFrame, pack } from '../../protocol/iso8583/index.js'
import { purchase } from '../support/raw-switch.js'
import { tempDir } from '../support/rig.js'

type Ended = { code: number | null, stdout: string, stderr: string }
type Demo = { to: string, lines: string[], child: ChildProcess, ended: Promise<number | null> }

function soundbox (...args: string[]): Promise<Ended> {
  const child = spawn(process.execPath, ['dist/gateway/cli/main.js', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const out = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => { out.stdout += chunk.toString() })
  child.stderr.on('data', (chunk: Buffer) => { out.stderr += chunk.toString() })
  return new Promise(resolve => child.once('close', code => { resolve({ code, ...out }) }))
}

async function startDemo (t: { teardown: (callback: () => unknown) => void }): Promise<Demo> {
  const child = spawn(process.execPath, ['dist/gateway/cli/main.js', 'iso', 'demo-server', '--port', '0', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>(resolve => child.once('exit', resolve))
  t.teardown(async () => {
    child.kill('SIGINT')
    await ended
  })
  const lines: string[] = []
  const port = await new Promise<number>(resolve => {
    createInterface({ input: child.stdout! }).on('line', line => {
      lines.push(line)
      const { listening } = JSON.parse(line) as { listening?: number }
      if (listening !== undefined) resolve(listening)
    })
  })
  return { to: `127.0.0.1:${port}`, lines, child, ended }
}

t.test('ping, send and the simulated switch talk to a demo server; nothing shows a card number', async t => {
  const demo = await startDemo(t)
  const file = join(tempDir(t), 'message.json')
  writeFileSync(file, JSON.stringify(purchase(7)))
  const [ping, good, bad, other, sim] = await Promise.all([
    soundbox('iso', 'ping', '--to', demo.to, '--count', '2', '--json', '--timeout', '60000'),
    soundbox('iso', 'send', '--to', demo.to, '--file', file, '--field', '4=000000000700', '--json', '--timeout', '60000'),
    soundbox('iso', 'send', '--to', demo.to, '--file', file, '--field', '49=840', '--field', '11=000008', '--timeout', '60000'),
    soundbox('iso', 'send', '--to', demo.to, '--no-sign-on', '--mti', '0200', '--field', '3=000000', '--json', '--timeout', '60000'),
    soundbox('sim', 'iso', '--to', demo.to, '--rate', '40', '--connections', '2', '--seconds', '2', '--faults', '7', '--on-parse-error', 'reject', '--answer-ms', '60000', '--json')
  ])
  t.match(ping, { code: 0, stdout: /"echo":"answered"[\s\S]*"echo":"answered"/ })
  t.equal(good.code, 0, good.stderr)
  t.match(JSON.parse(good.stdout), { mti: '0210', code: '00', ms: Number, lines: [/MTI 0210/, /DE 2 476173\*{6}0119/] })
  t.match(bad, { code: 1, stdout: /DE 39 12/ })
  t.equal(other.code, 1)
  t.match(JSON.parse(other.stdout), { code: '91' }, 'without sign-on')
  t.equal(sim.code, 0, sim.stdout + sim.stderr)
  t.match(JSON.parse(sim.stdout), { ok: true, seed: 7, wrong: 0, missing: 0 })
  demo.child.kill('SIGINT')
  t.equal(await demo.ended, 0)
  t.notMatch([ping, good, bad, other, sim].map(({ stdout, stderr }) => stdout + stderr).join() + demo.lines.join(), /4761739001010119/)
})

t.test('describe reads a message or frames, in the spec and framing that are named, and wrong input has its exit code', async t => {
  const bcd = compileShippedSpec('1987-bcd')
  const framed = Buffer.concat([purchase(1), purchase(2)].map(message => encodeFrame(compileFraming({ prefix: 'ascii4' }), pack(bcd, message))))
  const profile = join(tempDir(t), 'peer.json')
  writeFileSync(profile, JSON.stringify({ name: 'x', bank: 'pnb', addresses: [], spec: '1987-bcd', framing: { prefix: 'ascii4' } }))
  const [plain, frames, byProfile, damaged, half, noHex, noFile, noServer, help] = await Promise.all([
    soundbox('iso', 'describe', pack(compileShippedSpec('1987-ascii'), purchase(1)).toString('hex')),
    soundbox('iso', 'describe', framed.toString('hex'), '--framed', '--spec', '1987-bcd', '--prefix', 'ascii4', '--json'),
    soundbox('iso', 'describe', framed.toString('hex'), '--framed', '--peer', profile, '--json'),
    soundbox('iso', 'describe', '30323030'), soundbox('iso', 'describe', framed.subarray(0, -1).toString('hex'), '--framed', '--peer', profile),
    soundbox('iso', 'describe', 'xyz'), soundbox('iso', 'describe', '00', '--peer', 'nowhere.json'),
    soundbox('iso', 'ping', '--to', '127.0.0.1:1', '--timeout', '300'), soundbox('sim', 'iso', '--help')
  ])
  t.match(plain, { code: 0, stdout: /MTI 0200[\s\S]*DE 2 476173\*{6}0119[\s\S]*DE 42 MERCHANT0000001/ })
  t.equal(frames.stdout.trim().split('\n').length, 2)
  t.equal(byProfile.stdout, frames.stdout)
  t.match(damaged, { code: 1, stderr: /ISO_UNPACK_INVALID.*bitmap at byte 4/ })
  t.match(half, { code: 1, stderr: /ISO_FRAME_INVALID/ })
  t.match(noHex, { code: 2, stderr: /INPUT_INVALID/ })
  t.match(noFile, { code: 2, stderr: /cannot be read/ })
  t.match(noServer, { code: 1, stderr: /ISO_UNAVAILABLE/ })
  t.match(help, { code: 0, stdout: /--on-parse-error/ })
})

t.test('the settings of the simulated switch are checked all at once', async t => {
  const parse = (argv: string[], env: Record<string, string> = {}) => parseIsoSimSettings({
    env, argv, readText: path => {
      if (path === 'none') throw new Error('no such file')
      return path
    }
  })
  t.match(parse([]), { host: '127.0.0.1', port: 8583, rate: 100, connections: 4, seed: 1, faults: false, tls: null, account: '0150245000100', onParseError: 'close', json: false })
  t.match(parse(['--faults', '9', '--to', '[::1]:7', '--ca-file', 'ca', '--cert-file', 'c', '--key-file', 'k', '--server-name', 's', '--account', 'none', '--json'], { SOUNDBOX_SIM_ISO_RATE: '5' }),
    { host: '::1', port: 7, rate: 5, seed: 9, faults: true, tls: { ca: 'ca', cert: 'c', key: 'k', servername: 's' }, account: null, json: true })
  t.equal(parse(['-h']), undefined)
  t.throws(() => parse(['--to', 'x', '--rate', '0', '--connections', '65', '--spec', 'none', '--prefix', 'z', '--ca-file', 'none', '--on-parse-error', 'q']),
    { code: 'CONFIG_INVALID', message: /to must[\s\S]*spec must[\s\S]*prefix must[\s\S]*ca-file[\s\S]*rate must[\s\S]*connections must[\s\S]*on-parse-error must/ })
  t.throws(() => parse(['--ca-file', 'ca', '--cert-file', 'c']), { message: /go together/ })
  t.throws(() => parse(['--colour', '1']), { message: /--colour is unknown/ })
  t.match(isoSimHelp(), /--answer-ms/)
})
