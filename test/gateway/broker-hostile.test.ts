// The embedded broker against clients that mean harm or are broken. After each attack a well-behaved soundbox is still served.
import mqttPacket, { type IConnectPacket } from 'mqtt-packet'
import t, { type Test } from 'tap'
import { openTestBroker, type TestBroker, until } from '../support/test-broker.js'
import { connectPacket, loginRaw, openRawMqtt, type RawMqtt } from '../support/raw-mqtt.js'

const SEEDS = Number(process.env['SEEDS'] ?? 3)

/** A small generator of repeatable numbers (mulberry32). */
function seeded (seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

async function isServed (t: Test, { broker, port }: TestBroker, after: string): Promise<void> {
  const box = await loginRaw({ port }, 'GOOD01')
  await broker.publish('soundbox/v1/GOOD01/announce', Buffer.from(after))
  t.match(await box.next('publish'), { payload: Buffer.from(after) }, `a good soundbox is served after ${after}`)
  box.end()
}

async function refusal (port: number, packet: IConnectPacket): Promise<number | 'closed'> {
  const raw = await openRawMqtt({ port })
  raw.send(packet)
  const code = await raw.next('connack').then(connack => connack.returnCode ?? -1, () => 'closed' as const)
  await raw.closed
  return code
}

t.test('a login that is not right is refused with its code, and the connection ends', async t => {
  const test = await openTestBroker(t)
  const rows: [Partial<IConnectPacket>, number, string][] = [
    [{ password: Buffer.from('wrong') }, 5, 'wrong password'],
    [{ password: Buffer.from('secret of SB0002') }, 5, 'password of another'],
    [{ username: 'SB0002', password: Buffer.from('secret of SB0002') }, 4, 'user name of another'],
    [{ clientId: 'constructor', username: 'constructor' }, 2, 'constructor'],
    [{ clientId: '__proto__', username: '__proto__' }, 2, '__proto__'],
    [{ clientId: '', username: 'SB0001' }, 2, 'empty client id'],
    [{ clientId: '', clean: true, username: '' }, 2, 'empty client id and name'],
    [{ clientId: 'a'.repeat(33), username: 'a'.repeat(33) }, 2, 'client id one too long'],
    [{ protocolVersion: 5 }, 1, 'MQTT 5'],
    [{ keepalive: 0 }, 5, 'no keepalive'],
    [{ keepalive: 301 }, 5, 'keepalive over the limit'],
    [{ will: { topic: 'soundbox/v1/SB0002/presence', payload: 'offline', qos: 1 } }, 5, 'will of another'],
    [{ will: { topic: 'soundbox/v1/SB0001/announce', payload: '{"amount":"1"}', qos: 1 } }, 5, 'will that would speak'],
    [{ will: { topic: '#', payload: 'x', qos: 0 } }, 5, 'will everywhere']
  ]
  for (const [changes, code, why] of rows) {
    t.equal(await refusal(test.port, connectPacket('SB0001', { password: Buffer.from(`secret of ${changes.clientId ?? 'SB0001'}`), ...changes })), code, why)
  }
  t.same(test.presence, [])
  t.equal(test.broker.stats().refused, rows.length)
  t.notMatch(JSON.stringify(test.lines), /secret of|wrong password/, 'no password in the log')
  await isServed(t, test, 'bad logins')
})

t.test('MQTT 3.1 is served, with any serial number', async t => {
  const { port } = await openTestBroker(t)
  const tid = 'S'.repeat(32)
  const box = await loginRaw({ port }, tid, { changes: { protocolId: 'MQIsdp', protocolVersion: 3 } })
  box.end()
})

t.test('only CONNECT may come first, and only once', async t => {
  const test = await openTestBroker(t)
  const first: [string, Uint8Array][] = [
    ['PUBLISH', mqttPacket.generate({ cmd: 'publish', topic: 'soundbox/v1/SB0001/ack', payload: 'x', qos: 0, dup: false, retain: false })],
    ['SUBSCRIBE', mqttPacket.generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] })],
    ['PINGREQ', mqttPacket.generate({ cmd: 'pingreq' })],
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
    ['a TLS hello', Buffer.from([0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5])]
  ]
  for (const [what, bytes] of first) {
    const raw = await openRawMqtt({ port: test.port })
    raw.sendBytes(bytes)
    await raw.closed
    t.equal(raw.packets.length, 0, what)
  }
  const twice = await loginRaw({ port: test.port }, 'SB0001')
  twice.send(connectPacket('SB0001'))
  await twice.closed
  const atOnce = await openRawMqtt({ port: test.port })
  atOnce.sendBytes(Buffer.concat([mqttPacket.generate(connectPacket('SB0001')), mqttPacket.generate(connectPacket('SB0002'))]))
  await atOnce.closed
  await until(() => test.broker.stats().connected === 0, 'all gone')
  await isServed(t, test, 'wrong first packets')
})

t.test('what a soundbox may not publish ends its connection and reaches nobody', async t => {
  const test = await openTestBroker(t)
  const victim = await loginRaw({ port: test.port }, 'SB0002')
  const rows: [string, { topic: string, qos?: 0 | 1 | 2, retain?: boolean, payload?: Buffer }][] = [
    ['an announcement for itself', { topic: 'soundbox/v1/SB0001/announce' }],
    ['an announcement for another', { topic: 'soundbox/v1/SB0002/announce' }],
    ['an ack of another', { topic: 'soundbox/v1/SB0002/ack' }],
    ['a retained ack', { topic: 'soundbox/v1/SB0001/ack', retain: true }],
    ['QoS 2', { topic: 'soundbox/v1/SB0001/ack', qos: 2 }],
    ['a system topic', { topic: '$SYS/x' }],
    ['a foreign topic', { topic: 'home/lamp' }],
    ['a topic of a hundred levels', { topic: 'a/'.repeat(150) }],
    ['an unknown name', { topic: 'soundbox/v1/SB0001/constructor' }],
    ['a message one byte too large', { topic: 'soundbox/v1/SB0001/ack', payload: Buffer.alloc(4097, 32) }]
  ]
  for (const [what, { topic, qos = 1, retain = false, payload = Buffer.from('{}') }] of rows) {
    const box = await loginRaw({ port: test.port }, 'SB0001')
    box.send({ cmd: 'publish', topic, qos, retain, payload, messageId: 9, dup: false })
    await box.closed
    t.notOk(box.packets.some(({ cmd }) => cmd === 'puback' || cmd === 'pubrec'), what)
  }
  const box = await loginRaw({ port: test.port }, 'SB0001')
  box.send({ cmd: 'publish', topic: 'soundbox/v1/SB0001/ack', qos: 1, retain: false, payload: Buffer.alloc(4096, 32), messageId: 9, dup: false })
  await box.next('puback')
  t.equal(test.messages.length, 1, 'only the last, at the size limit, reached the gateway')
  t.notOk(victim.packets.some(({ cmd }) => cmd === 'publish'))
  await isServed(t, test, 'forbidden messages')
})

t.test('what a soundbox may not subscribe to is refused in the SUBACK', async t => {
  const test = await openTestBroker(t)
  const spy = await loginRaw({ port: test.port }, 'SB0001', { subscribe: false })
  const filters = ['#', '+/+/+/+', 'soundbox/v1/+/announce', 'soundbox/v1/SB0002/announce', 'soundbox/v1/SB0001/#', '$SYS/#', '__proto__', 'constructor']
  spy.send({ cmd: 'subscribe', messageId: 5, subscriptions: [...filters, 'soundbox/v1/SB0001/announce'].map(topic => ({ topic, qos: 1 })) })
  t.same((await spy.next('suback')).granted, [...filters.map(() => 128), 1])
  spy.send({ cmd: 'unsubscribe', messageId: 6, unsubscriptions: ['__proto__', 'constructor', 'soundbox/v1/SB0002/announce'] })
  await spy.next('unsuback')
  await isServed(t, test, 'a spy')
  const victim = await loginRaw({ port: test.port }, 'SB0002')
  await test.broker.publish('soundbox/v1/SB0002/announce', Buffer.from('private'))
  await victim.next('publish')
  await test.broker.publish('soundbox/v1/SB0001/announce', Buffer.from('own'))
  t.match(await spy.next('publish'), { payload: Buffer.from('own') }, 'it hears its own')
  t.equal(spy.packets.filter(({ cmd }) => cmd === 'publish').length, 1, 'and nothing else')
  for (const topic of ['a//#b', 'soundbox/#/x', '']) {
    const silly = await loginRaw({ port: test.port }, 'SB0003', { subscribe: false })
    silly.sendBytes(subscribeBytes(topic))
    await silly.closed
  }
})

/** A SUBSCRIBE that mqtt-packet itself would not write. */
function subscribeBytes (topic: string): Buffer {
  return Buffer.concat([Buffer.from([0x82, 5 + topic.length, 0, 1, 0, topic.length]), Buffer.from(topic), Buffer.from([1])])
}

t.test('a packet that announces too much ends the connection before its bytes come', async t => {
  const limits = { connectBytesMax: 300, frameBytesMax: 5000 }
  const test = await openTestBroker(t, { limits })
  const huge = await openRawMqtt({ port: test.port })
  huge.sendBytes(Buffer.from([0x10, 0xff, 0xff, 0xff, 0x7f]))
  await huge.closed
  const connectOf = (bytes: number): IConnectPacket => {
    const bare = mqttPacket.generate(connectPacket('SB0001', { password: Buffer.alloc(128, 'x') })).length - 3
    return connectPacket('SB0001', { password: Buffer.alloc(128 + bytes - bare, 'x') })
  }
  t.equal(await refusal(test.port, connectOf(300)), 5, 'a CONNECT at the limit is read')
  t.equal(await refusal(test.port, connectOf(301)), 'closed', 'one past it is not')
  const box = await loginRaw({ port: test.port }, 'SB0001')
  const pingPast = Buffer.from([0x30, 0x89, 0x27]) // PUBLISH of 5001 bytes.
  box.sendBytes(pingPast)
  await box.closed
  t.equal(test.lines.filter(({ sentence }) => sentence === 'packet over the size limit; the connection is closed').length, 3)
  t.equal(test.broker.stats().refused, 3)
  await isServed(t, test, 'oversize packets')
})

t.test('a connection that says nothing, or half a CONNECT, is closed in time', async t => {
  const test = await openTestBroker(t, { limits: { connectTimeoutMs: 400 } })
  const silent = await openRawMqtt({ port: test.port })
  const half = await openRawMqtt({ port: test.port })
  half.sendBytes(mqttPacket.generate(connectPacket('SB0001')).subarray(0, 20))
  await Promise.all([silent.closed, half.closed])
  await isServed(t, test, 'silence')
})

t.test('a soundbox that falls silent is offline after one and a half keepalives', async t => {
  const { broker, port, presence } = await openTestBroker(t)
  const box = await loginRaw({ port }, 'SB0001', { changes: { keepalive: 1 } })
  box.stream.pause()
  await until(() => broker.stats().connected === 0, 'offline', 4000)
  t.same(presence, ['+SB0001', '-SB0001 keep alive timeout'])
  box.end()
})

t.test('a half-closed connection is closed', async t => {
  const { broker, port } = await openTestBroker(t)
  const box = await loginRaw({ port }, 'SB0001')
  box.stream.end()
  await until(() => broker.stats().connected === 0, 'offline')
  await box.closed
})

t.test('connections over the limits are refused, and places become free again', async t => {
  const test = await openTestBroker(t, { limits: { connectionsMax: 3, connectionsPerAddressMax: 3 } })
  const boxes = await Promise.all(['SB0001', 'SB0002', 'SB0003'].map(async tid => await loginRaw({ port: test.port }, tid)))
  await t.rejects(loginRaw({ port: test.port }, 'SB0004'))
  t.equal(test.broker.stats().refused, 1)
  boxes[0]?.end()
  await until(() => test.broker.stats().connected === 2, 'one left')
  const fourth = await loginRaw({ port: test.port }, 'SB0004')
  fourth.end()
})

t.test('an address that guesses is barred for a while, logged once, and its connected soundboxes stay', async t => {
  const test = await openTestBroker(t, { limits: { failedLoginsMax: 5, failedLoginsPerSecond: 1 } })
  const box = await loginRaw({ port: test.port }, 'SB0001')
  const guess = connectPacket('SB0002', { password: Buffer.from('guess') })
  for (let n = 0; n < 5; n++) t.equal(await refusal(test.port, guess), 5)
  t.equal(await refusal(test.port, guess), 3, 'unread')
  t.equal(await refusal(test.port, connectPacket('SB0003')), 3, 'even the right password')
  t.equal(test.lines.filter(({ level }) => level === 'warn').length, 6, 'five refusals and one notice')
  test.clock.nowMs += 1000
  const fresh = await loginRaw({ port: test.port }, 'SB0003')
  await test.broker.publish('soundbox/v1/SB0001/announce', Buffer.from('x'))
  await box.next('publish')
  fresh.end()
})

t.test('a soundbox that stops reading delays nobody, and is closed at its limit', async t => {
  const test = await openTestBroker(t, { limits: { drainTimeoutMs: 8000, publishesWaitingMax: 8 } })
  const { broker, port } = test
  const slow = await loginRaw({ port }, 'SLOW01')
  const quick = await loginRaw({ port }, 'SB0001')
  slow.stream.pause()
  const page = Buffer.alloc(4096, 'x')
  let refused = 0
  let worstMs = 0
  for (let n = 0; n < 20_000 && broker.stats().connected === 2; n++) {
    void broker.publish('soundbox/v1/SLOW01/announce', page).catch(() => { refused++ })
    if (n % 20 !== 0) continue
    const began = performance.now()
    await broker.publish('soundbox/v1/SB0001/announce', Buffer.from('quick'))
    await quick.next('publish')
    worstMs = Math.max(worstMs, performance.now() - began)
  }
  await until(() => broker.stats().connected === 1, 'the slow one is closed')
  t.ok(refused >= 8, `what waited for it was refused (${refused})`)
  t.ok(worstMs < 3000, `the other waited at most ${worstMs.toFixed(1)} ms`)
  t.match(test.presence.at(-1), /^-SLOW01 it does not read/)
  slow.end()
})

t.test('a soundbox that stops reading with little to send is closed by time', async t => {
  const test = await openTestBroker(t, { limits: { drainTimeoutMs: 100, publishesWaitingMax: 5000 } })
  const slow = await loginRaw({ port: test.port }, 'SLOW01')
  slow.stream.pause()
  const sent = await Promise.allSettled(Array.from({ length: 4000 }, async () => await test.broker.publish('soundbox/v1/SLOW01/announce', Buffer.alloc(4096))))
  t.ok(sent.some(({ status }) => status === 'rejected'), 'what the socket never took is reported')
  t.same(test.presence, ['+SLOW01', '-SLOW01 drain timeout'])
  slow.end()
})

t.test('random bytes, before and after the login, harm nobody', async t => {
  const test = await openTestBroker(t, { limits: { failedLoginsMax: 1e6 } })
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed)
    const bytes = (max: number): Buffer => Buffer.from(Array.from({ length: 1 + Math.floor(random() * max) }, () => Math.floor(random() * 256)))
    const spoiled = (): Buffer => {
      const ack = { cmd: 'publish', topic: 'soundbox/v1/SB0001/ack', payload: bytes(40), qos: 1, messageId: 1, dup: false, retain: false } as const
      const good = mqttPacket.generate(random() < 0.5 ? connectPacket('SB0001') : ack)
      for (let n = 0; n < 3; n++) good[Math.floor(random() * good.length)] = Math.floor(random() * 256)
      return good
    }
    const raws: RawMqtt[] = []
    for (let n = 0; n < 60; n++) {
      const raw = n % 2 === 0 ? await openRawMqtt({ port: test.port }) : await loginRaw({ port: test.port }, `SB1${n}`)
      for (let packets = 0; packets < 6; packets++) raw.sendBytes(random() < 0.4 ? bytes(60) : spoiled())
      raws.push(raw)
    }
    for (const raw of raws) raw.stream.end()
    await Promise.all(raws.map(async raw => await raw.closed))
    await isServed(t, test, `SEED=${seed}`)
  }
  await until(() => test.broker.stats().connected === 0, 'all gone')
  t.equal(test.lines.filter(({ level }) => level === 'error').length, 0)
})
