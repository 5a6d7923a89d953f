// The external broker against a bare MQTT broker in this process, and against one that misbehaves.
// test/system/mosquitto.test.ts does the same with a real cluster part and shared subscriptions.
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { Aedes, type AedesOptions } from 'aedes'
import mqttPacket, { type Packet } from 'mqtt-packet'
import t, { type Test } from 'tap'
import type { Broker, BrokerEvents } from '../../gateway/broker/contract.js'
import { type ExternalBrokerOptions, openExternalBroker } from '../../gateway/broker/external.js'
import { loginRaw } from '../support/raw-mqtt.js'
import { collectingLog, type LogLine, until } from '../support/test-broker.js'

const ANNOUNCE = 'soundbox/v1/SB0001/announce'
const QUICK = { reconnectMinMs: 20, reconnectMaxMs: 50, startTimeoutMs: 5000, recordPauseMs: 1 }

type Cluster = { port: number, aedes: Aedes, stop: () => Promise<void> }
async function openCluster (t: Test, options: AedesOptions = {}, port = 0): Promise<Cluster> {
  const aedes = await Aedes.createBroker(options)
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    aedes.handle(socket)
  })
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  const stop = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy()
    await Promise.all([new Promise<void>(resolve => aedes.close(() => resolve())), new Promise<void>(resolve => server.close(() => resolve()))])
  }
  t.teardown(async () => { if (server.listening) await stop() })
  return { port: (server.address() as AddressInfo).port, aedes, stop }
}

type Gateway = { broker: Broker, presence: string[], messages: string[], lines: LogLine[] }
async function openGateway (t: Test, options: Partial<ExternalBrokerOptions> & { port?: number }, events: Partial<BrokerEvents> = {}): Promise<Gateway> {
  const presence: string[] = []
  const messages: string[] = []
  const lines: LogLine[] = []
  const { port, ...rest } = options
  const broker = await openExternalBroker({ url: `mqtt://127.0.0.1:${port}`, log: collectingLog(lines), random: () => 0.5, ...rest, limits: { ...QUICK, ...rest.limits } }, {
    authenticate: () => undefined,
    onConnected: ({ tid }) => { presence.push(`+${tid}`) },
    onDisconnected: (tid, reason) => { presence.push(`-${tid} ${reason}`) },
    onMessage: (tid, name, payload) => { messages.push(`${tid} ${name} ${payload.toString('utf8')}`) },
    ...events
  })
  t.teardown(async () => await broker.close())
  return { broker, presence, messages, lines }
}
const up = (tid: string, name: string, text: string, messageId = 5) =>
  ({ cmd: 'publish', topic: `soundbox/v1/${tid}/${name}`, payload: text, qos: 1, messageId, dup: false, retain: false }) as const

t.test('messages go both ways through the cluster', async t => {
  const { port } = await openCluster(t)
  const { broker, messages, presence } = await openGateway(t, { port })
  t.equal(broker.stats().ready, true)
  const box = await loginRaw({ port }, 'SB0001')
  await broker.publish(ANNOUNCE, Buffer.from('nineteen'))
  t.match(await box.next('publish'), { topic: ANNOUNCE, payload: Buffer.from('nineteen'), qos: 1, retain: false })
  for (const [n, name] of ['hello', 'ack', 'reported', 'telemetry', 'presence'].entries()) box.send(up('SB0001', name, String(n), 10 + n))
  await until(() => messages.length === 5, 'five messages')
  t.same(messages.toSorted(), ['SB0001 ack 1', 'SB0001 hello 0', 'SB0001 presence 4', 'SB0001 reported 2', 'SB0001 telemetry 3'])
  t.same(presence, ['+SB0001', '-SB0001 last will'])
  box.send({ ...up('SB0001', 'ack', 'x'.repeat(4097), 20) })
  box.send({ ...up('SB0001', 'ack', 'x'.repeat(4096), 21) })
  await until(() => messages.length === 6, 'the message at the size limit, not the larger one')
  t.equal(messages[5]?.length, 4096 + 'SB0001 ack '.length)
  t.match(broker.stats(), { messagesIn: 6, messagesOut: 1, connected: 1 })
  await t.rejects(broker.publish('soundbox/v1/SB0001/ack', Buffer.from('x')), { code: 'PUBLISH_FAILED' })
  await t.rejects(broker.publish(ANNOUNCE, Buffer.alloc(4097)), { code: 'PUBLISH_FAILED' })
  broker.disconnect('SB0001')
  box.end()
})

t.test('a soundbox is present from its first word to its last will', async t => {
  const { port } = await openCluster(t)
  const { broker, presence, messages } = await openGateway(t, { port })
  const will = { topic: 'soundbox/v1/SB0001/presence', payload: 'offline', qos: 1, retain: false } as const
  const box = await loginRaw({ port }, 'SB0001', { changes: { will } })
  box.send(up('SB0001', 'ack', 'a'))
  box.send(up('SB0001', 'hello', 'b'))
  await until(() => messages.length === 2, 'two messages')
  box.end()
  await until(() => messages.length === 3, 'the last will')
  t.same(presence, ['+SB0001', '-SB0001 it said hello anew', '+SB0001', '-SB0001 last will'], 'start and end in turn')
  t.equal(broker.stats().connected, 0)
})

t.test('a message is confirmed to the cluster only after it is recorded', async t => {
  const cluster = await openCluster(t)
  const acked: string[] = []
  cluster.aedes.on('ack', (_packet, client) => { acked.push(client.id) })
  let finish: (() => void) | undefined
  await openGateway(t, { port: cluster.port, clientId: 'gateway' }, {
    onMessage: async () => await new Promise<void>(resolve => { finish = resolve })
  })
  const box = await loginRaw({ port: cluster.port }, 'SB0001')
  box.send(up('SB0001', 'ack', 'spoken'))
  await until(() => finish !== undefined, 'message at the gateway')
  await new Promise(resolve => setTimeout(resolve, 20))
  t.same(acked, [])
  finish?.()
  await until(() => acked.length === 1, 'PUBACK')
  t.same(acked, ['gateway'])
  box.end()
})

t.test('a message that cannot be recorded is tried again, then left unconfirmed', async t => {
  const { port, aedes } = await openCluster(t)
  let acks = 0
  aedes.on('ack', () => { acks++ })
  let faults = 2
  let attempts = 0
  const { broker, lines, messages } = await openGateway(t, { port, limits: { recordAttemptsMax: 3 } }, {
    onMessage: async (_tid, _name, payload) => {
      attempts++
      if (faults-- > 0) throw new Error('database is locked')
      messages.push(String(payload))
    }
  })
  const box = await loginRaw({ port }, 'SB0001')
  box.send(up('SB0001', 'ack', 'first'))
  await until(() => acks === 1, 'recorded at the third attempt')
  t.same(messages, ['first'])
  faults = 3
  box.send(up('SB0001', 'ack', 'second'))
  await until(() => lines.some(({ reason }) => reason === 'a message could not be recorded'), 'given up')
  t.equal(attempts, 6)
  t.equal(acks, 1)
  await until(() => broker.stats().ready, 'connected anew')
  box.send(up('SB0001', 'ack', 'third'))
  await until(() => messages.includes('third'), 'it goes on')
  box.end()
})

t.test('whoever publishes while it handles a message does not wait for itself', async t => {
  const { port } = await openCluster(t)
  const said: string[] = []
  const gateway: { broker?: Broker } = {}
  const { broker, lines } = await openGateway(t, { port, limits: { publishTimeoutMs: 1000, recordAttemptsMax: 1 } }, {
    onMessage: async (tid, _name, payload) => {
      await gateway.broker?.publish(ANNOUNCE, Buffer.from(`next after ${payload.toString('utf8')}`))
      said.push(`${tid} ${payload.toString('utf8')}`)
    }
  })
  gateway.broker = broker
  const box = await loginRaw({ port }, 'SB0001')
  for (const n of [1, 2, 3]) box.send(up('SB0001', 'ack', String(n), n))
  await until(() => said.length === 3, 'all three are handled, in less than the broker has to confirm')
  t.same(said, ['SB0001 1', 'SB0001 2', 'SB0001 3'])
  t.same(lines.filter(({ level }) => level === 'error'), [])
  t.match(broker.stats(), { messagesOut: 3, ready: true })
  box.end()
})

t.test('without a connection nothing is queued, and the gateway finds the cluster again by itself', async t => {
  const cluster = await openCluster(t)
  const { port } = cluster
  const { broker } = await openGateway(t, { port })
  await cluster.stop()
  await until(() => !broker.stats().ready, 'the loss is noticed')
  await t.rejects(broker.publish(ANNOUNCE, Buffer.from('lost')), { code: 'PUBLISH_FAILED' })
  await openCluster(t, {}, port)
  const box = await loginRaw({ port }, 'SB0001')
  await until(() => broker.stats().ready, 'connected again')
  await broker.publish(ANNOUNCE, Buffer.from('kept'))
  t.match(await box.next('publish'), { payload: Buffer.from('kept') }, 'the refused message did not come before it')
  box.end()
})

t.test('after its receivers were away the gateway is told once of a gap for each, and not at the start', async t => {
  const cluster = await openCluster(t)
  const { port } = cluster
  let gaps = 0
  const { broker } = await openGateway(t, { port }, { onGap: () => { gaps++ } })
  t.equal(gaps, 0)
  await cluster.stop()
  await until(() => !broker.stats().ready, 'the loss is noticed')
  await openCluster(t, {}, port)
  await until(() => broker.stats().ready, 'connected again')
  t.equal(gaps, 1, 'one receiver; what publishes hears nothing and misses nothing')
})

t.test('a cluster that is down does not stop the start', async t => {
  const probe = await openCluster(t)
  await probe.stop()
  const { broker, lines } = await openGateway(t, { port: probe.port, limits: { startTimeoutMs: 60 } })
  t.equal(broker.stats().ready, false)
  t.ok(lines.some(({ reason }) => reason === 'ECONNREFUSED'))
  const waits = lines.filter(({ clientId }) => String(clientId).endsWith('-sender')).map(({ waitMs }) => waitMs)
  t.same(waits.slice(0, 2), [15, 30], 'pauses double, three quarters of them with this jitter')
  await openCluster(t, {}, probe.port)
  await until(() => broker.stats().ready, 'found later')
})

t.test('a subscription that the cluster refuses is no connection', async t => {
  const { port } = await openCluster(t, { authorizeSubscribe: (_client, _subscription, done) => done(null, null) })
  const { broker, lines } = await openGateway(t, { port, limits: { startTimeoutMs: 200 } })
  t.equal(broker.stats().ready, false)
  t.ok(lines.some(({ reason }) => reason === 'the broker refuses the subscription'))
})

/** A cluster that logs in and subscribes whoever comes, and then does what the test says with each publish. */
async function openDeafCluster (t: Test, onPublish: (packet: Packet, socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>()
  const server: Server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    const parser = mqttPacket.parser({ protocolVersion: 4 })
    socket.on('data', chunk => parser.parse(chunk))
    parser.on('packet', (packet: Packet) => {
      if (packet.cmd === 'connect') socket.write(mqttPacket.generate({ cmd: 'connack', returnCode: 0, sessionPresent: false }))
      if (packet.cmd === 'subscribe') socket.write(mqttPacket.generate({ cmd: 'suback', messageId: packet.messageId ?? 0, granted: packet.subscriptions.map(() => 1) }))
      if (packet.cmd === 'publish') onPublish(packet, socket)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => server.close(resolve))
  })
  return (server.address() as AddressInfo).port
}

t.test('what the cluster does not confirm in time has failed, and so has all else that waits', async t => {
  let publishes = 0
  const port = await openDeafCluster(t, () => { publishes++ })
  const { broker } = await openGateway(t, { port, limits: { publishTimeoutMs: 80, publishesInFlightMax: 3 } })
  const three = [1, 2, 3].map(async n => await broker.publish(ANNOUNCE, Buffer.from(String(n))))
  await t.rejects(broker.publish(ANNOUNCE, Buffer.from('4')), { code: 'PUBLISH_FAILED', message: /3 messages wait/ }, 'one past the limit')
  for (const one of three) await t.rejects(one, { code: 'PUBLISH_FAILED' })
  await until(() => broker.stats().ready, 'connected anew')
  t.equal(publishes, 3, 'nothing was sent again')
  const last = broker.publish(ANNOUNCE, Buffer.from('5'))
  await Promise.all([broker.close(), t.rejects(last, { code: 'PUBLISH_FAILED' }, 'a stop fails what waits')])
  await t.rejects(broker.publish(ANNOUNCE, Buffer.from('6')), { code: 'PUBLISH_FAILED' })
})

t.test('a cluster that hangs up on a publish fails it', async t => {
  const port = await openDeafCluster(t, (_packet, socket) => socket.destroy())
  const { broker } = await openGateway(t, { port })
  await t.rejects(broker.publish(ANNOUNCE, Buffer.from('x')), { code: 'PUBLISH_FAILED' })
  await until(() => broker.stats().ready, 'connected anew')
})

t.test('settings that cannot work are refused', async t => {
  const refused = async (options: Partial<ExternalBrokerOptions>) => await t.rejects(openGateway(t, { port: 1, ...options }), { code: 'CONFIG_INVALID' }, JSON.stringify(options))
  for (const url of ['', 'http://broker', 'mqtt://', 'broker:1883', 'mqtt:// x']) await refused({ url })
  await refused({ sharedGroup: 'a/b' })
  await refused({ receivers: 2 })
  await refused({ receivers: 0 })
  await refused({ receivers: 17, sharedGroup: 'g' })
})
