// The embedded broker as gateway and soundbox use it: connect, speak, answer, take over, leave.
import t from 'tap'
import { collectingLog, type LogLine, openTestBroker, until } from '../support/test-broker.js'
import { loginRaw, openRawMqtt, connectPacket } from '../support/raw-mqtt.js'
import { openEmbeddedBroker } from '../../gateway/broker/embedded.js'

const ANNOUNCE = 'soundbox/v1/SB0001/announce'
const publishPacket = (tid: string, name: string, text: string, messageId = 7) =>
  ({ cmd: 'publish', topic: `soundbox/v1/${tid}/${name}`, payload: text, qos: 1, messageId, dup: false, retain: false }) as const

t.test('an announcement reaches its soundbox and no other', async t => {
  const { broker, port } = await openTestBroker(t)
  const one = await loginRaw({ port }, 'SB0001')
  const two = await loginRaw({ port }, 'SB0002')
  await broker.publish(ANNOUNCE, Buffer.from('nineteen'))
  await broker.publish('soundbox/v1/SB0002/command', Buffer.from('test'))
  t.match(await one.next('publish'), { topic: ANNOUNCE, payload: Buffer.from('nineteen'), qos: 1, retain: false, dup: false })
  t.match(await two.next('publish'), { topic: 'soundbox/v1/SB0002/command', payload: Buffer.from('test'), qos: 1 })
  t.equal([...one.packets, ...two.packets].filter(({ cmd }) => cmd === 'publish').length, 2)
  t.match(broker.stats(), { connected: 2, connects: 2, messagesOut: 2, refused: 0, ready: true })
})

t.test('a thousand messages handed over at once arrive complete and in order', async t => {
  const { broker, port } = await openTestBroker(t, { limits: { publishesWaitingMax: 1000 } })
  const box = await loginRaw({ port }, 'SB0001')
  await Promise.all(Array.from({ length: 1000 }, async (_, n) => await broker.publish(n % 3 === 0 ? ANNOUNCE : 'soundbox/v1/SB0001/desired', Buffer.from(String(n)))))
  await until(() => box.packets.length >= 1002, 'all messages')
  const texts = box.packets.flatMap(packet => packet.cmd === 'publish' ? [String(packet.payload)] : [])
  t.same(texts, Array.from({ length: 1000 }, (_, n) => String(n)))
  const ids = new Set(box.packets.flatMap(packet => packet.cmd === 'publish' ? [packet.messageId] : []))
  t.equal(ids.size, 1000, 'each has a packet id of its own')
})

t.test('what cannot be sent is refused at once', async t => {
  const { broker, port } = await openTestBroker(t)
  const refused = async (topic: string, bytes = 1) => await t.rejects(broker.publish(topic, Buffer.alloc(bytes)), { code: 'PUBLISH_FAILED' }, `${topic} ${bytes}`)
  await refused(ANNOUNCE)
  await loginRaw({ port }, 'SB0001', { subscribe: false })
  await refused(ANNOUNCE)
  const box = await loginRaw({ port }, 'SB0003')
  await refused('soundbox/v1/SB0003/ack')
  await refused('soundbox/v1/+/announce')
  await refused('$SYS/x')
  await refused('soundbox/v1/SB0003/announce', 4097)
  await broker.publish('soundbox/v1/SB0003/announce', Buffer.alloc(4096))
  box.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['soundbox/v1/SB0003/announce'] })
  await box.next('unsuback')
  await refused('soundbox/v1/SB0003/announce')
  await broker.publish('soundbox/v1/SB0003/command', Buffer.alloc(0))
  await broker.close()
  await refused('soundbox/v1/SB0003/command')
  t.equal(broker.stats().ready, false)
})

t.test('a message is confirmed only after it is recorded, and in the order of arrival', async t => {
  const waiting = new Map<string, () => void>()
  const { port } = await openTestBroker(t, {}, {
    onMessage: async (_tid, _name, payload) => await new Promise<void>(resolve => waiting.set(String(payload), resolve))
  })
  const box = await loginRaw({ port }, 'SB0001')
  box.send(publishPacket('SB0001', 'ack', 'first', 11))
  box.send(publishPacket('SB0001', 'ack', 'second', 12))
  await until(() => waiting.size === 2, 'both messages at the gateway')
  waiting.get('second')?.()
  await new Promise(resolve => setTimeout(resolve, 20))
  t.notOk(box.packets.some(({ cmd }) => cmd === 'puback'), 'nothing is confirmed before the first is recorded')
  waiting.get('first')?.()
  t.same([(await box.next('puback')).messageId, (await box.next('puback')).messageId], [11, 12])
})

t.test('a message that cannot be recorded ends the connection without PUBACK', async t => {
  for (const onMessage of [async () => { throw new Error('disk full') }, () => { throw new Error('bug') }]) {
    const { broker, port, lines, presence } = await openTestBroker(t, {}, { onMessage })
    const box = await loginRaw({ port }, 'SB0001')
    box.send(publishPacket('SB0001', 'ack', 'spoken'))
    await box.closed
    t.notOk(box.packets.some(({ cmd }) => cmd === 'puback'))
    await until(() => broker.stats().connected === 0, 'the session ended')
    t.equal(presence[0], '+SB0001')
    t.match(presence[1], /^-SB0001 /)
    t.ok(lines.some(({ level }) => level === 'error'), 'the operator is told')
    await loginRaw({ port }, 'SB0001')
  }
})

t.test('messages without a wait are confirmed too, QoS 0 silently', async t => {
  const { port, messages } = await openTestBroker(t)
  const box = await loginRaw({ port }, 'SB0001')
  box.send({ ...publishPacket('SB0001', 'telemetry', '{"battery":80}'), qos: 0 })
  box.send(publishPacket('SB0001', 'hello', '{}', 3))
  t.equal((await box.next('puback')).messageId, 3)
  box.send({ cmd: 'pingreq' })
  await box.next('pingresp')
  t.same(messages, ['SB0001 telemetry {"battery":80}', 'SB0001 hello {}'])
})

t.test('a newer connection takes over, and the gateway hears it in order', async t => {
  const { broker, port, presence, lines } = await openTestBroker(t)
  const will = { topic: 'soundbox/v1/SB0001/presence', payload: 'offline', qos: 1, retain: false } as const
  const older = await loginRaw({ port }, 'SB0001', { changes: { will } })
  const newer = await loginRaw({ port }, 'SB0001', { changes: { will } })
  await older.closed
  await broker.publish(ANNOUNCE, Buffer.from('to the newer'))
  t.match(await newer.next('publish'), { payload: Buffer.from('to the newer') })
  t.same(presence, ['+SB0001', '-SB0001 another connection of this soundbox took over', '+SB0001 takeover'])
  t.match(broker.stats(), { connected: 1, connects: 2, takeovers: 1 })
  t.match(lines.filter(({ level }) => level === 'warn'), [{ tid: 'SB0001', sentence: 'another connection of a soundbox took over' }])
  newer.end()
  await until(() => broker.stats().connected === 0, 'offline')
  t.equal(presence.length, 4)
})

t.test('ten connections of one soundbox at once leave one, and every end is told before the next start', async t => {
  const { broker, port, presence } = await openTestBroker(t)
  const boxes = await Promise.all(Array.from({ length: 10 }, async () => await openRawMqtt({ port })))
  for (const box of boxes) box.send(connectPacket('SB0001'))
  await until(() => broker.stats().connects === 10, 'ten logins')
  await until(() => boxes.filter(({ stream }) => stream.destroyed).length === 9, 'nine closed')
  t.same(presence.map(word => word[0]), Array.from({ length: 19 }, (_, n) => n % 2 === 0 ? '+' : '-'))
  t.match(broker.stats(), { connected: 1, takeovers: 9 })
  for (const box of boxes) box.end()
})

t.test('a login that is refused does not disturb the soundbox of that name', async t => {
  const { broker, port, presence } = await openTestBroker(t)
  const box = await loginRaw({ port }, 'SB0001')
  await t.rejects(loginRaw({ port }, 'SB0001', { changes: { password: Buffer.from('guess') } }), /CONNACK 5/)
  await broker.publish(ANNOUNCE, Buffer.from('still here'))
  await box.next('publish')
  t.same(presence, ['+SB0001'])
})

t.test('a clean DISCONNECT, a lost connection and the gateway itself end a session once each', async t => {
  const { broker, port, presence } = await openTestBroker(t)
  const polite = await loginRaw({ port }, 'SB0001')
  polite.send({ cmd: 'disconnect' })
  await until(() => presence.length === 2, 'polite end')
  const lost = await loginRaw({ port }, 'SB0001')
  lost.end()
  await until(() => presence.length === 4, 'lost connection')
  const kicked = await loginRaw({ port }, 'SB0001')
  broker.disconnect('SB0001')
  broker.disconnect('SB0002')
  await kicked.closed
  await loginRaw({ port }, 'SB0001')
  await broker.close()
  await broker.close()
  t.same(presence.map(word => word.slice(0, 7)), ['+SB0001', '-SB0001', '+SB0001', '-SB0001', '+SB0001', '-SB0001', '+SB0001', '-SB0001'])
  t.equal(presence[5], '-SB0001 ended by the gateway')
  t.equal(presence[7], '-SB0001 the gateway stops')
})

t.test('no session outlives its connection, whatever the soundbox asks for', async t => {
  const { broker, port } = await openTestBroker(t)
  const first = await loginRaw({ port }, 'SB0001', { changes: { clean: false } })
  first.end()
  await until(() => broker.stats().connected === 0, 'gone')
  await t.rejects(broker.publish(ANNOUNCE, Buffer.from('x')), { code: 'PUBLISH_FAILED' })
  const second = await openRawMqtt({ port })
  second.send(connectPacket('SB0001', { clean: false }))
  t.match(await second.next('connack'), { returnCode: 0, sessionPresent: false })
  await t.rejects(broker.publish(ANNOUNCE, Buffer.from('x')), { code: 'PUBLISH_FAILED' }, 'its subscriptions went with the first connection')
  second.end()
})

t.test('a fault of the gateway in an event harms nobody', async t => {
  const { broker, port, lines } = await openTestBroker(t, {}, {
    onConnected: () => { throw new Error('bug') },
    onDisconnected: () => { throw new Error('bug') },
    authenticate: ({ clientId }) => {
      if (clientId === 'SB0009') throw new Error('bug')
      return clientId
    }
  })
  await t.rejects(loginRaw({ port }, 'SB0009'), /CONNACK 5/)
  const box = await loginRaw({ port }, 'SB0001')
  await broker.publish(ANNOUNCE, Buffer.from('x'))
  await box.next('publish')
  box.end()
  await until(() => broker.stats().connected === 0, 'ended')
  t.equal(lines.filter(({ level }) => level === 'error').length, 3)
})

t.test('a taken port is named with its remedy, and nothing stays open', async t => {
  const { port } = await openTestBroker(t)
  const lines: LogLine[] = []
  const options = { host: '127.0.0.1', mqttPort: 0, websocketPort: port, log: collectingLog(lines), nowMs: () => 0 }
  const events = { authenticate: () => undefined, onConnected: () => {}, onDisconnected: () => {}, onMessage: () => {} }
  await t.rejects(openEmbeddedBroker(options, events), { code: 'PORT_TAKEN', message: new RegExp(`${port}.*SOUNDBOX_MQTT_WEBSOCKET_PORT`) })
  await t.rejects(openEmbeddedBroker({ ...options, mqttPort: port }, events), { code: 'PORT_TAKEN', message: /SOUNDBOX_MQTT_PORT/ })
  await t.rejects(openEmbeddedBroker({ ...options, host: '203.0.113.1' }, events), { code: 'CONFIG_INVALID', message: /EADDRNOTAVAIL/ })
})

t.test('close waits for messages that are being recorded, but not for ever', async t => {
  const gate: { open?: () => void } = {}
  let recorded = false
  const { broker, port } = await openTestBroker(t, { limits: { stopTimeoutMs: 5000 } }, {
    onMessage: async (_tid, _name, payload) => {
      await new Promise<void>(resolve => { if (String(payload) === 'soon') gate.open = resolve })
      recorded = true
    }
  })
  const box = await loginRaw({ port }, 'SB0001')
  box.send(publishPacket('SB0001', 'ack', 'soon'))
  await until(() => gate.open !== undefined, 'message at the gateway')
  const closing = broker.close()
  gate.open?.()
  await closing
  t.ok(recorded)
  let arrived = false
  const other = await openTestBroker(t, { limits: { stopTimeoutMs: 20 } }, {
    onMessage: async () => {
      arrived = true
      await new Promise(() => {})
    }
  })
  const stuck = await loginRaw({ port: other.port }, 'SB0001')
  stuck.send(publishPacket('SB0001', 'ack', 'never'))
  await until(() => arrived, 'message at the other gateway')
  await other.broker.close()
  await stuck.closed
})
