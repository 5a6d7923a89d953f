import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readEntries } from '../../device-agent/journal.js'
import { backoffMs, type LinkEvents, type LinkTls, openMqttLink } from '../../device-agent/mqtt-link.js'
import { type Announcement, type Log, makeTimers, Secret, SILENT_LOG } from '../../protocol/index.js'
import { startFleet } from '../../firmware-sim/fleet.js'
import { makeAuthority } from '../support/certificates.js'
import { boxKeys, openDeviceBroker } from '../support/device-broker.js'
import { openRandom } from '../support/random.js'

const KEYS = boxKeys(1)
const { tid } = KEYS
const idOf = (n: number): string => n.toString(16).padStart(32, '0')
const clock = makeTimers(Date.now)

function payment (n: number): Announcement {
  const issuedAt = Date.now()
  return { v: 1, id: idOf(n), seq: n, kind: 'payment', amountMinor: n * 100, currency: 'INR', language: 'ENGLISH', issuedAt, expiresAt: issuedAt + 60_000 }
}

function openLink (url: string, events: Partial<LinkEvents> = {}, { password = KEYS.password, tls = {}, log = SILENT_LOG }: { password?: string, tls?: LinkTls, log?: Log } = {}) {
  const config = { url, tid, password: new Secret(password), tls, backoff: { baseMs: 1, maxMs: 20 }, stableMs: 1000 }
  return openMqttLink(config, { onUp: () => {}, onDown: () => {}, onMessage: () => {}, ...events }, { clock, log, random: openRandom(1) })
}

t.test('the wait before a new connection: full jitter below a ceiling that doubles', async t => {
  const policy = { baseMs: 1000, maxMs: 60_000 }
  const rows: [number, number, number][] = [[0, 0, 0], [0, 0.999, 999], [1, 0.999, 1998], [5, 0.5, 16_000], [6, 0.5, 30_000], [6, 0.999, 59_940], [1_000_000, 0.999, 59_940]]
  for (const [attempt, random, want] of rows) t.equal(backoffMs(attempt, () => random, policy), want, `attempt ${attempt}`)
})

t.test('up after the subscriptions; PUBACK confirms; a message is confirmed when it is handled', async t => {
  const gateway = await openDeviceBroker([KEYS])
  t.teardown(gateway.close)
  const got: string[] = []
  let handle = (): void => {}
  const ups = { count: 0 }
  const link = openLink(gateway.url, {
    onUp: () => { ups.count += 1 },
    onMessage: async (name, payload) => {
      got.push(`${name} ${payload.toString('utf8')}`)
      await new Promise<void>(resolve => { handle = resolve })
    }
  })
  t.teardown(link.close)
  await t.rejects(link.publish('hello', {}, 1), { code: 'GATEWAY_UNREACHABLE' }, 'not up yet')
  await waitFor(() => ups.count === 1)
  await link.publish('hello', { a: 1 }, 1)
  t.match(gateway.arrived, [{ tid, name: 'hello', message: { a: 1 } }])
  await gateway.send(tid, 'command', { n: 1 })
  await waitFor(() => got.length === 1)
  await gateway.send(tid, 'desired', { n: 2 })
  handle()
  await waitFor(() => got.length === 2)
  t.same(got, ['command {"n":1}', 'desired {"n":2}'])
  handle()
  await t.rejects(link.publish('ack', { data: 'x'.repeat(5000) }, 1), { code: 'MESSAGE_INVALID' })
})

t.test('a publish that the gateway did not confirm is rejected, and the link comes back', async t => {
  const gateway = await openDeviceBroker([KEYS])
  t.teardown(gateway.close)
  const seen = { ups: 0, downs: 0 }
  const link = openLink(gateway.url, { onUp: () => { seen.ups += 1 }, onDown: () => { seen.downs += 1 } })
  await waitFor(() => seen.ups === 1)
  gateway.beforeConfirm = () => Promise.reject(new Error('the disk is full'))
  await t.rejects(link.publish('ack', { id: 'x' }, 1), { code: 'GATEWAY_UNREACHABLE' })
  await waitFor(() => seen.ups === 2)
  t.equal(seen.downs, 1)
  gateway.beforeConfirm = () => {}
  await link.publish('ack', { id: 'x' }, 1)
  gateway.broker.disconnect(tid)
  await waitFor(() => seen.ups === 3)
  await link.close()
  t.match(gateway.arrived.at(-1), { name: 'presence', message: { state: 'offline' } }, 'it says goodbye')
  t.equal(link.isUp(), false)
  await gateway.until(() => gateway.broker.stats().connected === 0, 'the connection has gone')
})

t.test('a gateway that is away, refuses, or comes back on the same port', async t => {
  const first = await openDeviceBroker([KEYS])
  const seen = { ups: 0, downs: 0 }
  const link = openLink(first.url, { onUp: () => { seen.ups += 1 }, onDown: () => { seen.downs += 1 } })
  t.teardown(link.close)
  await waitFor(() => seen.ups === 1)
  await first.close()
  await waitFor(() => seen.downs === 1)
  await t.rejects(link.publish('ack', {}, 1), { code: 'GATEWAY_UNREACHABLE' })
  const second = await openDeviceBroker([KEYS], { mqttPort: first.port })
  t.teardown(second.close)
  await waitFor(() => seen.ups === 2)
  const wrong = openLink(second.url, { onUp: () => { t.fail('wrong password') } }, { password: 'wrong' })
  await waitFor(() => second.broker.stats().refused >= 3)
  await wrong.close()
})

t.test('TLS: the gateway must be signed by the authority that was named; the box shows its own certificate', async t => {
  const dir = t.testdir()
  const [ours, theirs] = await Promise.all([makeAuthority(dir, 'ours'), makeAuthority(dir, 'theirs')])
  const [server, box] = await Promise.all([ours.sign('gateway'), ours.sign(tid)])
  const gateway = await openDeviceBroker([KEYS], { tls: { port: 0, ...server, ca: ours.ca, requestClientCert: true } })
  t.teardown(gateway.close)
  let failures = 0
  const log: Log = { ...SILENT_LOG, info: (_, sentence) => { if (sentence.startsWith('not connected')) failures += 1 } }
  const fooled = openLink(gateway.tlsUrl, { onUp: () => { t.fail('a gateway of another authority') } }, { tls: { ca: theirs.ca, ...box }, log })
  await waitFor(() => failures >= 3)
  await fooled.close()
  t.same([gateway.connects, gateway.certificateNames], [[], []], 'it was not told the password')
  const ups = { count: 0 }
  const link = openLink(gateway.tlsUrl, { onUp: () => { ups.count += 1 } }, { tls: { ca: ours.ca, ...box } })
  t.teardown(link.close)
  await waitFor(() => ups.count === 1)
  await link.publish('hello', { secure: true }, 1)
  t.match(gateway.arrived, [{ tid, name: 'hello' }])
  t.same(gateway.certificateNames, [tid])
})

t.test('TLS: a fleet of simulated boxes', async t => {
  const authority = await makeAuthority(t.testdir(), 'ours')
  const server = await authority.sign('gateway')
  const gateway = await openDeviceBroker([KEYS], { tls: { port: 0, ...server } })
  t.teardown(gateway.close)
  const fleet = startFleet({ url: gateway.tlsUrl, ca: authority.ca, devices: [KEYS], seed: 1, nowMs: Date.now, connectsPerSecond: 0 })
  t.teardown(fleet.close)
  await fleet.whenUp(20_000)
  await gateway.announce(tid, payment(1))
  await gateway.until(() => gateway.acks(tid).some(ack => ack.result === 'spoken'), 'spoken over TLS')
  t.match(fleet.report(), { up: 1, spoken: 1 })
})

t.test('a real agent process, killed between journal and end of sound, fails that one and speaks the next', async t => {
  const gateway = await openDeviceBroker([KEYS])
  t.teardown(gateway.close)
  const dir = t.testdir()
  const begun = (): boolean => existsSync(join(dir, 'journal')) && readEntries(readFileSync(join(dir, 'journal'))).entries.has(idOf(1))
  const hello = (count: number) => gateway.until(() => gateway.arrived.filter(one => one.name === 'hello').length === count, `hello ${count}`, 20_000)

  const first = startAgentProcess(t, gateway.url, dir)
  await hello(1)
  await gateway.desire(tid)
  await gateway.announce(tid, payment(1))
  await gateway.announce(tid, payment(2))
  await waitFor(begun)
  first.child.kill('SIGKILL')
  await first.exited
  t.same(first.lines.filter(line => line.kind === 'payment'), [], 'the sound had not ended')

  const second = startAgentProcess(t, gateway.url, dir)
  await hello(2)
  await gateway.until(() => gateway.acks(tid).some(ack => ack.result === 'failed'), 'the interrupted one')
  await gateway.announce(tid, payment(1))
  await gateway.announce(tid, payment(2))
  await gateway.until(() => gateway.acks(tid).some(ack => ack.result === 'spoken'), 'the next one', 20_000)
  t.match(gateway.acks(tid).find(ack => ack.result === 'failed'), { id: idOf(1), reason: 'interrupted' })
  t.same(second.lines.filter(line => line.kind === 'payment').map(line => line.text), ['Received rupees two'])
  t.match(second.lines.at(-1), { tid, id: idOf(2), language: 'ENGLISH', amount: '2.00' })
  const boots = gateway.arrived.filter(one => one.name === 'hello').map(one => one.message['bootId'])
  t.not(boots[0], boots[1], 'a new life has a new boot id')
  second.child.kill('SIGTERM')
  t.equal(await second.exited, 0, 'a stop in good order')
  t.match(gateway.arrived.at(-1), { name: 'presence' })
})

t.test('wrong settings end the process with a clear sentence', async t => {
  const { child, exited, errors } = startAgentProcess(t, 'http://nowhere', t.testdir(), ['--volume', '101'])
  t.ok(child.pid)
  t.equal(await exited, 2)
  t.match(errors.join(''), /CONFIG_INVALID: gateway must be .*; volume must be a whole number from 0 to 100/)
  t.notMatch(errors.join(''), KEYS.password)
})

type Line = { tid: string, id: string, kind: string, text: string }

function startAgentProcess (t: Test, url: string, dir: string, more: string[] = []) {
  const flags = ['--tid', tid, '--gateway', url, '--data-dir', dir, '--speaker', 'espeak', '--pace', 'on', '--play', 'off', '--prompts', 'off', '--json', '--log-level', 'error']
  const env = { PATH: process.env['PATH'], SOUNDBOX_AGENT_PASSWORD: KEYS.password, SOUNDBOX_AGENT_SIGNING_KEY: KEYS.signingKey }
  const child = spawn(process.execPath, ['dist/device-agent/main.js', ...flags, ...more], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const lines: Line[] = []
  const errors: string[] = []
  let rest = ''
  child.stdout.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString('utf8')).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts.map(part => JSON.parse(part) as Line))
  })
  child.stderr.on('data', (chunk: Buffer) => { errors.push(chunk.toString('utf8')) })
  const exited = new Promise<number | null>(resolve => { child.on('close', resolve) })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  return { child, lines, errors, exited }
}

async function waitFor (isTrue: () => boolean, limitMs = 15_000): Promise<void> {
  const until = Date.now() + limitMs
  while (!isTrue()) {
    if (Date.now() > until) throw new Error(`waited in vain for ${isTrue.toString()}`)
    await new Promise(resolve => setTimeout(resolve, 3))
  }
}
