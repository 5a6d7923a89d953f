// The pure parts of the broker: who may connect, who may use which topic, how many may come, how large a packet may be.
import mqttPacket from 'mqtt-packet'
import t from 'tap'
import { addressKey, openAdmission } from '../../gateway/broker/admission.js'
import { openFrameMeter } from '../../gateway/broker/frame-meter.js'
import { BROKER_LIMITS } from '../../gateway/broker/limits.js'
import { authorizeConnect, authorizeTopic, checkDown, type ConnectRequest } from '../../gateway/broker/policy.js'
import { connectPacket } from '../support/raw-mqtt.js'

const GOOD: ConnectRequest = { clientId: 'SB0001', username: 'SB0001', password: 'right', certificateName: undefined, keepaliveSeconds: 60 }
const WILL = { topic: 'soundbox/v1/SB0001/presence', payloadBytes: 7, qos: 1, retain: false }

t.test('a soundbox connects as itself only', async t => {
  const rows: [Partial<ConnectRequest>, number | 'ok', string][] = [
    [{}, 'ok', 'as it should be'],
    [{ will: WILL }, 'ok', 'with its last will'],
    [{ will: { ...WILL, payloadBytes: BROKER_LIMITS.willBytesMax } }, 'ok', 'will at the limit'],
    [{ will: { ...WILL, payloadBytes: BROKER_LIMITS.willBytesMax + 1 } }, 5, 'will one past the limit'],
    [{ will: { ...WILL, topic: 'soundbox/v1/SB0002/presence' } }, 5, 'will of another'],
    [{ will: { ...WILL, topic: 'soundbox/v1/SB0001/announce' } }, 5, 'will that would speak'],
    [{ will: { ...WILL, retain: true } }, 5, 'will retained'],
    [{ will: { ...WILL, qos: 2 } }, 5, 'will of QoS 2'],
    [{ keepaliveSeconds: BROKER_LIMITS.keepaliveSecondsMax }, 'ok', 'keepalive at the limit'],
    [{ keepaliveSeconds: BROKER_LIMITS.keepaliveSecondsMax + 1 }, 5, 'keepalive one past the limit'],
    [{ keepaliveSeconds: 0 }, 5, 'no keepalive'],
    [{ clientId: '' }, 2, 'empty client id'],
    [{ clientId: 'constructor', username: 'constructor', password: 'hunter2' }, 2, 'a client id that is a property of every object'],
    [{ clientId: '__proto__', username: '__proto__' }, 2, 'another such, no serial number'],
    [{ clientId: 'SB 001' }, 2, 'a blank'],
    [{ clientId: 'SB/+/#' }, 2, 'topic characters'],
    [{ clientId: 'x'.repeat(32), username: 'x'.repeat(32) }, 'ok', 'longest serial number'],
    [{ clientId: 'x'.repeat(33), username: 'x'.repeat(33) }, 2, 'one longer'],
    [{ username: 'SB0002' }, 4, 'user name of another'],
    [{ username: undefined }, 4, 'no user name'],
    [{ password: undefined }, 4, 'no password'],
    [{ password: 'hunter2' }, 5, 'wrong password'],
    [{ username: undefined, password: undefined, certificateName: 'SB0001' }, 'ok', 'certificate instead of password'],
    [{ username: undefined, password: undefined, certificateName: 'SB0002' }, 5, 'certificate of another'],
    [{ certificateName: 'SB0002' }, 5, 'certificate of another, password right']
  ]
  for (const [changes, want, why] of rows) {
    const decision = authorizeConnect({ ...GOOD, ...changes }, asked => asked.password === 'right' || asked.certificateName !== undefined ? asked.clientId : undefined, BROKER_LIMITS)
    t.equal(decision.ok ? 'ok' : decision.code, want, why)
    t.notMatch(JSON.stringify(decision), /SB0002|hunter2/, 'the reason repeats nothing that the client sent')
  }
  t.same(authorizeConnect(GOOD, () => 'SB0002', BROKER_LIMITS), { ok: false, code: 5, reason: 'the credentials are wrong or the soundbox is not active', isLoginFailure: true })
})

t.test('a soundbox uses its own topics only', async t => {
  const payloadBytesMax = BROKER_LIMITS.payloadBytesMax
  const publish = (topic: string, qos = 1, retain = false, payloadBytes = 10) => authorizeTopic({ tid: 'SB0001', action: 'publish', topic, qos, retain, payloadBytes }, payloadBytesMax).ok
  const subscribe = (topic: string) => authorizeTopic({ tid: 'SB0001', action: 'subscribe', topic }, payloadBytesMax).ok
  for (const name of ['hello', 'ack', 'reported', 'telemetry', 'presence']) {
    t.ok(publish(`soundbox/v1/SB0001/${name}`), `publishes ${name}`)
    t.notOk(subscribe(`soundbox/v1/SB0001/${name}`), `does not hear ${name}`)
    t.notOk(publish(`soundbox/v1/SB0002/${name}`), `does not publish another's ${name}`)
  }
  for (const name of ['announce', 'command', 'desired']) {
    t.ok(subscribe(`soundbox/v1/SB0001/${name}`), `hears ${name}`)
    t.notOk(publish(`soundbox/v1/SB0001/${name}`), `does not publish ${name}`)
    t.notOk(subscribe(`soundbox/v1/SB0002/${name}`), `does not hear another's ${name}`)
  }
  const foreign = ['#', '+', 'soundbox/#', 'soundbox/v1/+/announce', 'soundbox/v1/SB0001/#', 'soundbox/v1/SB0001/+', '$SYS/#', '$share/g/soundbox/v1/SB0001/announce', '', '/', 'soundbox/v1/SB0001']
  for (const filter of foreign) {
    t.notOk(subscribe(filter), `does not subscribe to ${filter}`)
    t.notOk(publish(filter), `does not publish to ${filter}`)
  }
  t.notOk(publish('soundbox/v1/SB0001/ack', 2), 'QoS 2')
  t.notOk(publish('soundbox/v1/SB0001/ack', 1, true), 'retained')
  t.ok(publish('soundbox/v1/SB0001/ack', 1, false, payloadBytesMax), 'size at the limit')
  t.notOk(publish('soundbox/v1/SB0001/ack', 1, false, payloadBytesMax + 1), 'size one past it')
  t.same(checkDown('soundbox/v1/SB0001/announce', 4096, 4096), { tid: 'SB0001', name: 'announce' })
  t.throws(() => checkDown('soundbox/v1/SB0001/announce', 4097, 4096), { code: 'PUBLISH_FAILED' })
  t.throws(() => checkDown('soundbox/v1/SB0001/ack', 1, 4096), { code: 'PUBLISH_FAILED' })
})

t.test('connections are limited in total and per address', async t => {
  const admission = openAdmission({ ...BROKER_LIMITS, connectionsMax: 3, connectionsPerAddressMax: 2 }, () => 0)
  t.equal(admission.enter('10.0.0.1'), undefined)
  t.equal(admission.enter('::ffff:10.0.0.1'), undefined)
  t.equal(admission.enter('10.0.0.1'), 'too many connections of this address')
  t.equal(admission.enter('10.0.0.2'), undefined)
  t.equal(admission.enter('10.0.0.3'), 'too many connections')
  admission.leave('10.0.0.1')
  t.equal(admission.enter('10.0.0.1'), undefined, 'one left, one may come')
  for (const address of ['10.0.0.1', '10.0.0.1', '10.0.0.2']) admission.leave(address)
  t.equal(admission.connections(), 0)
})

t.test('an address that fails too often is barred until it earned a try', async t => {
  let nowMs = 0
  const admission = openAdmission({ ...BROKER_LIMITS, failedLoginsMax: 3, failedLoginsPerSecond: 1, failedAddressesMax: 2 }, () => nowMs)
  t.same([admission.loginFailed('a'), admission.loginFailed('a'), admission.isBarred('a')], [false, false, false])
  t.equal(admission.loginFailed('a'), true, 'the third bars it, and is told once')
  t.same([admission.isBarred('a'), admission.isBarred('b')], [true, false])
  nowMs = 999
  t.equal(admission.isBarred('a'), true)
  nowMs = 1000
  t.equal(admission.isBarred('a'), false)
  nowMs = 500
  t.equal(admission.isBarred('a'), true, 'a clock that steps back earns nothing')
  nowMs = 1000
  t.equal(admission.loginFailed('a'), true)
  admission.loginFailed('b')
  t.equal(admission.isBarred('a'), true)
  admission.loginFailed('c')
  t.equal(admission.isBarred('a'), false, 'beyond the limit of addresses the oldest is forgotten')
})

t.test('an IPv6 customer is one address', async t => {
  const rows: [string, string][] = [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0db8:0001:0002::9', '2001:db8:1:2::/64'],
    ['2001:db8::9', '2001:db8:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['unknown', 'unknown']
  ]
  for (const [address, want] of rows) t.equal(addressKey(address), want, address)
})

t.test('a packet is measured however its bytes arrive', async t => {
  const frame = (bytes: number): Buffer => {
    const head = [0x30]
    let length = bytes
    do {
      head.push(length >= 128 ? (length % 128) | 0x80 : length)
      length = Math.floor(length / 128)
    } while (length > 0)
    return Buffer.concat([Buffer.from(head), Buffer.alloc(bytes)])
  }
  const passes = (bytes: Buffer, step: number): boolean => {
    const fits = openFrameMeter(200, 65_536)
    for (let at = 0; at < bytes.length; at += step) if (!fits(bytes.subarray(at, at + step))) return false
    return true
  }
  for (const step of [1, 2, 3, 7, 1000, 1e6]) {
    t.ok(passes(Buffer.concat([frame(200), frame(0), frame(1), frame(127), frame(128), frame(16_384), frame(65_536), frame(65_536)]), step), `at the limits, in steps of ${step}`)
    t.notOk(passes(frame(201), step), `first packet one past its limit, in steps of ${step}`)
    t.notOk(passes(Buffer.concat([frame(10), frame(65_537)]), step), `later packet one past its limit, in steps of ${step}`)
    t.notOk(passes(Buffer.from([0x10, 0xff, 0xff, 0xff, 0x7f]), step), 'an announced 256 MiB')
    t.notOk(passes(Buffer.from([0x10, 0x80, 0x80, 0x80, 0x80, 0x01]), step), 'a fifth length byte')
    t.notOk(passes(Buffer.concat([frame(10), Buffer.from([0x10, 0x80, 0x80, 0x80, 0x80])]), step), 'four length bytes that want a fifth')
  }
  t.ok(passes(mqttPacket.generate(connectPacket('SB0001')), 5), 'a real CONNECT')
})
