// The external broker against Debian's Mosquitto: shared subscriptions of two gateways, its own access rules, TLS, and its sudden end.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type ExternalBrokerOptions, openExternalBroker } from '../../gateway/broker/external.js'
import type { Broker, BrokerEvents } from '../../gateway/broker/contract.js'
import { loginRaw } from '../support/raw-mqtt.js'
import { collectingLog, type LogLine, until } from '../support/test-broker.js'
import { freePort } from '../support/free-port.js'

const MOSQUITTO = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto', '/opt/homebrew/sbin/mosquitto'].find(path => existsSync(path))
const SKIP = MOSQUITTO === undefined && process.env['CI'] !== 'true' ? 'mosquitto is not installed' : false
const DEVICES = Array.from({ length: 20 }, (_, n) => `SB${100 + n}`)

type Mosquitto = { port: number, tlsPort: number, ca: string, restart: () => Promise<void>, kill: () => Promise<void> }

/** A Mosquitto with the users `gateway` and DEVICES, and the access rules that an operator would write. */
async function startMosquitto (t: Test): Promise<Mosquitto> {
  if (MOSQUITTO === undefined) throw new Error('mosquitto is not installed: run test/system/install-parts.sh')
  const dir = t.testdir({
    acl: `user gateway\ntopic readwrite soundbox/v1/#\n\n${['hello', 'ack', 'reported', 'telemetry', 'presence'].map(name => `pattern write soundbox/v1/%u/${name}\n`).join('')}${
      ['announce', 'command', 'desired'].map(name => `pattern read soundbox/v1/%u/${name}\n`).join('')}`,
    passwords: ['gateway', ...DEVICES].map(name => `${name}:secret of ${name}\n`).join('')
  })
  const [port, tlsPort] = [await freePort(), await freePort()]
  const path = (name: string): string => join(dir, name)
  execFileSync('mosquitto_passwd', ['-U', path('passwords')])
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', path('key.pem'), '-out', path('cert.pem'), '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'], { stdio: 'ignore' })
  for (const name of ['acl', 'passwords']) chmodSync(path(name), 0o600)
  writeFileSync(path('mosquitto.conf'), [
    ...(process.getuid?.() === 0 ? ['user root'] : []), 'allow_anonymous false', `password_file ${path('passwords')}`, `acl_file ${path('acl')}`, 'persistence false',
    `listener ${port} 127.0.0.1`, `listener ${tlsPort} 127.0.0.1`, `certfile ${path('cert.pem')}`, `keyfile ${path('key.pem')}`, ''
  ].join('\n'))
  let child: ChildProcess | undefined
  const kill = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise(resolve => child?.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
  }
  const restart = async (): Promise<void> => {
    await kill()
    child = spawn(MOSQUITTO, ['-c', path('mosquitto.conf')], { stdio: 'ignore' })
    for (let n = 0; n < 500; n++) {
      const probe = await loginRaw({ port }, 'SB100').catch(() => undefined)
      if (probe !== undefined) return probe.end()
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    throw new Error('mosquitto does not answer')
  }
  t.teardown(kill)
  await restart()
  return { port, tlsPort, ca: readFileSync(path('cert.pem'), 'utf8'), restart, kill }
}

type Gateway = { broker: Broker, presence: string[], messages: string[], lines: LogLine[] }
async function openGateway (t: Test, options: Partial<ExternalBrokerOptions> & { url: string }, events: Partial<BrokerEvents> = {}): Promise<Gateway> {
  const [presence, messages, lines]: [string[], string[], LogLine[]] = [[], [], []]
  const broker = await openExternalBroker({
    username: 'gateway', password: 'secret of gateway', sharedGroup: 'soundbox', log: collectingLog(lines), random: () => 0.5,
    ...options,
    limits: { reconnectMinMs: 50, reconnectMaxMs: 200, ...options.limits }
  }, {
    authenticate: () => undefined,
    onConnected: ({ tid }) => { presence.push(`+${tid}`) },
    onDisconnected: (tid, reason) => { presence.push(`-${tid} ${reason}`) },
    onMessage: async (tid, name, payload) => { messages.push(`${tid} ${name} ${payload.toString('utf8')}`) },
    ...events
  })
  t.teardown(async () => await broker.close())
  return { broker, presence, messages, lines }
}
const up = (tid: string, name: string, text: string, messageId: number) =>
  ({ cmd: 'publish', topic: `soundbox/v1/${tid}/${name}`, payload: text, qos: 1, messageId, dup: false, retain: false }) as const

t.test('two gateways share the messages of all soundboxes, each handled once', { skip: SKIP }, async t => {
  const { port } = await startMosquitto(t)
  const one = await openGateway(t, { url: `mqtt://127.0.0.1:${port}`, receivers: 3 })
  const two = await openGateway(t, { url: `mqtt://127.0.0.1:${port}`, receivers: 2 })
  await until(() => [...one.lines, ...two.lines].filter(({ sentence }) => sentence === 'connected to the broker').length === 7, 'all receivers and both senders')
  const boxes = await Promise.all(DEVICES.map(async tid => ({ tid, raw: await loginRaw({ port }, tid) })))
  for (let n = 0; n < 25; n++) for (const { tid, raw } of boxes) raw.send(up(tid, 'ack', String(n), n + 1))
  const all = (): string[] => [...one.messages, ...two.messages]
  await until(() => all().length >= 500, 'every message', 15_000)
  t.equal(new Set(all()).size, 500)
  t.equal(all().length, 500, 'none came twice')
  t.ok(one.messages.length > 50 && two.messages.length > 50, `shared ${one.messages.length} : ${two.messages.length}`)
  await Promise.all([one.broker.publish(`soundbox/v1/${DEVICES[0]}/announce`, Buffer.from('from one')), two.broker.publish(`soundbox/v1/${DEVICES[1]}/announce`, Buffer.from('from two'))])
  t.match(await boxes[0]?.raw.next('publish'), { payload: Buffer.from('from one') })
  t.match(await boxes[1]?.raw.next('publish'), { payload: Buffer.from('from two') })
  const wills = (): number => [...one.presence, ...two.presence].filter(entry => entry === `-${DEVICES[0]} last will`).length
  for (let n = 1; n <= 4; n++) {
    boxes[0]?.raw.send(up(DEVICES[0] as string, 'presence', 'offline', 100 + n))
    await until(() => wills() === n, 'a last will is believed by whichever gateway gets it')
  }
  for (const { raw } of boxes) raw.end()
})

t.test('its access rules keep soundboxes apart, and a wrong password of the gateway is told', { skip: SKIP }, async t => {
  const { port } = await startMosquitto(t)
  const gateway = await openGateway(t, { url: `mqtt://127.0.0.1:${port}` })
  const spy = await loginRaw({ port }, 'SB100', { subscribe: false })
  spy.send({ cmd: 'subscribe', messageId: 2, subscriptions: [{ topic: 'soundbox/v1/+/announce', qos: 1 }, { topic: 'soundbox/v1/SB101/announce', qos: 1 }] })
  await spy.next('suback')
  const victim = await loginRaw({ port }, 'SB101')
  spy.send(up('SB101', 'ack', 'forged', 3))
  spy.send(up('SB100', 'ack', 'own', 4))
  await gateway.broker.publish('soundbox/v1/SB101/announce', Buffer.from('private'))
  t.match(await victim.next('publish'), { payload: Buffer.from('private') })
  await until(() => gateway.messages.length === 1, 'its own message')
  t.same(gateway.messages, ['SB100 ack own'])
  t.notOk(spy.packets.some(({ cmd }) => cmd === 'publish'))
  const stranger = await openExternalBroker({
    url: `mqtt://127.0.0.1:${port}`, username: 'gateway', password: 'guess', log: collectingLog(gateway.lines), random: () => 0, limits: { startTimeoutMs: 300 }
  }, { authenticate: () => undefined, onConnected: () => {}, onDisconnected: () => {}, onMessage: () => {} })
  t.equal(stranger.stats().ready, false)
  t.ok(gateway.lines.some(({ reason }) => /Not authorized|Bad username/.test(String(reason))))
  t.notMatch(JSON.stringify(gateway.lines), /guess|secret of/)
  await stranger.close()
  for (const raw of [spy, victim]) raw.end()
})

t.test('over TLS; killed and started again, it is found again and nothing is sent late', { skip: SKIP }, async t => {
  const mosquitto = await startMosquitto(t)
  const gateway = await openGateway(t, { url: `mqtts://localhost:${mosquitto.tlsPort}`, tls: { ca: mosquitto.ca } })
  const will = { topic: 'soundbox/v1/SB100/presence', payload: 'offline', qos: 1, retain: false } as const
  const box = await loginRaw({ port: mosquitto.port }, 'SB100', { changes: { will } })
  box.send(up('SB100', 'hello', '{}', 3))
  await until(() => gateway.presence.length === 1, 'present')
  box.end()
  await until(() => gateway.presence.length === 2, 'absent')
  t.same(gateway.presence, ['+SB100', '-SB100 last will'])
  await mosquitto.kill()
  await until(() => !gateway.broker.stats().ready, 'the loss is noticed')
  await t.rejects(gateway.broker.publish('soundbox/v1/SB100/announce', Buffer.from('lost')), { code: 'PUBLISH_FAILED' })
  await mosquitto.restart()
  const again = await loginRaw({ port: mosquitto.port }, 'SB100')
  await until(() => gateway.broker.stats().ready, 'found again')
  await gateway.broker.publish('soundbox/v1/SB100/announce', Buffer.from('kept'))
  t.match(await again.next('publish'), { payload: Buffer.from('kept') })
  again.end()
  const distrust = await openGateway(t, { url: `mqtts://localhost:${mosquitto.tlsPort}`, limits: { startTimeoutMs: 400 } })
  t.equal(distrust.broker.stats().ready, false, 'without its certificate it is not trusted')
})
