// The doors of the embedded broker: TLS, client certificates, WebSocket. Certificates are made here, by openssl.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { createWebSocketStream, WebSocket } from 'ws'
import { openEmbeddedBroker } from '../../gateway/broker/embedded.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { loginRaw, openRawMqtt } from '../support/raw-mqtt.js'
import { openTestBroker, until } from '../support/test-broker.js'

const run = promisify(execFile)
type Pair = { key: string, cert: string }

/** A certificate authority of the test, and what it signs. */
async function certificates (t: Test, names: readonly string[]): Promise<{ ca: string, pairs: Record<string, Pair> }> {
  const dir = t.testdir()
  const path = (name: string): string => join(dir, name)
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await run('openssl', ['req', '-x509', ...newKey, '-keyout', path('ca.key'), '-out', path('ca.crt'), '-days', '2', '-subj', '/CN=test CA'])
  const pairs: Record<string, Pair> = {}
  for (const name of names) {
    const [key, csr, cert, ext] = ['key', 'csr', 'crt', 'ext'].map(end => path(`${name}.${end}`)) as [string, string, string, string]
    writeFileSync(ext, 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
    await run('openssl', ['req', ...newKey, '-keyout', key, '-out', csr, '-subj', `/CN=${name}`])
    const signer = name.startsWith('stranger') ? ['-signkey', key] : ['-CA', path('ca.crt'), '-CAkey', path('ca.key'), '-CAcreateserial']
    await run('openssl', ['x509', '-req', '-in', csr, ...signer, '-out', cert, '-days', '2', '-extfile', ext])
    pairs[name] = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  }
  return { ca: readFileSync(path('ca.crt'), 'utf8'), pairs }
}

t.test('TLS: by password, by certificate, and by nothing less', async t => {
  const { ca, pairs } = await certificates(t, ['gateway', 'SB0001', 'stranger'])
  const { gateway, SB0001, stranger } = pairs as Record<'gateway' | 'SB0001' | 'stranger', Pair>
  const test = await openTestBroker(t, { mqttPort: null, tls: { port: 0, ...gateway, ca, requestClientCert: true } })
  const { broker } = test
  const port = broker.ports.mqtts ?? 0
  t.equal(broker.ports.mqtt, null)

  const byPassword = await loginRaw({ port, tls: { ca } }, 'SB0002')
  await broker.publish('soundbox/v1/SB0002/announce', Buffer.from('over TLS'))
  t.match(await byPassword.next('publish'), { payload: Buffer.from('over TLS') })

  const noPassword = { changes: { username: undefined, password: undefined } } as unknown as { changes: object }
  const byCertificate = await loginRaw({ port, tls: { ca, ...SB0001 } }, 'SB0001', noPassword)
  await broker.publish('soundbox/v1/SB0001/announce', Buffer.from('by certificate'))
  t.match(await byCertificate.next('publish'), { payload: Buffer.from('by certificate') })

  await t.rejects(loginRaw({ port, tls: { ca } }, 'SB0001', noPassword), /CONNACK 4/, 'neither')
  await t.rejects(loginRaw({ port, tls: { ca, ...SB0001 } }, 'SB0002', noPassword), /CONNACK 5/, 'the certificate of another')
  await t.rejects(loginRaw({ port, tls: { ca, ...SB0001 } }, 'SB0002'), /CONNACK 5/, 'the certificate of another, with the right password')
  await t.rejects(loginRaw({ port, tls: { ca, ...stranger } }, 'stranger', noPassword), /CONNACK 4/, 'a certificate that our CA did not sign')
  await t.rejects(openRawMqtt({ port, tls: {} }), { code: 'SELF_SIGNED_CERT_IN_CHAIN' }, 'a client that checks the server refuses an unknown CA')

  const plain = connect({ port, host: '127.0.0.1' })
  plain.on('error', () => {})
  plain.end(Buffer.from('this is no TLS'))
  await new Promise(resolve => plain.once('close', resolve))
  t.same(test.presence, ['+SB0002', '+SB0001'])
  byPassword.end()
  byCertificate.end()
})

t.test('a TLS handshake that never ends is closed in time', async t => {
  const { pairs: { gateway } } = await certificates(t, ['gateway'])
  const { broker } = await openTestBroker(t, { tls: { port: 0, ...gateway as Pair }, limits: { connectTimeoutMs: 60, connectionsMax: 1 } })
  const port = broker.ports.mqtts ?? 0
  const lazy = connect({ port, host: '127.0.0.1' })
  lazy.on('error', () => {})
  await new Promise(resolve => lazy.once('close', resolve))
  await t.rejects(Promise.all([openRawMqtt({ port, tls: { rejectUnauthorized: false } }), openRawMqtt({ port, tls: { rejectUnauthorized: false } })]), 'the second is over the limit')
})

t.test('a key that is none is refused before any port opens', async t => {
  const events = { authenticate: () => undefined, onConnected: () => {}, onDisconnected: () => {}, onMessage: () => {} }
  const options = { host: '127.0.0.1', mqttPort: 0, log: SILENT_LOG, nowMs: () => 0 }
  await t.rejects(openEmbeddedBroker({ ...options, tls: { port: 0, key: 'secret nonsense', cert: 'nonsense' } }, events), { code: 'CONFIG_INVALID', message: /PEM/ })
})

t.test('MQTT over WebSocket, round and round', async t => {
  const test = await openTestBroker(t, { websocketPort: 0 })
  const port = test.broker.ports.websocket ?? 0
  const box = await loginRaw({ port, websocket: true }, 'SB0001')
  await test.broker.publish('soundbox/v1/SB0001/announce', Buffer.from('over WebSocket'))
  t.match(await box.next('publish'), { payload: Buffer.from('over WebSocket') })
  box.send({ cmd: 'publish', topic: 'soundbox/v1/SB0001/ack', payload: 'spoken', qos: 1, messageId: 4, dup: false, retain: false })
  await box.next('puback')
  t.same(test.messages, ['SB0001 ack spoken'])
  const newer = await loginRaw({ port: test.port }, 'SB0001')
  await box.closed
  t.same(test.presence.slice(1).map(word => word.slice(0, 1)), ['-', '+'], 'a TCP connection takes over from it')
  newer.end()
})

t.test('the WebSocket door wants the subprotocol mqtt and small frames', async t => {
  const test = await openTestBroker(t, { websocketPort: 0, limits: { frameBytesMax: 4000, connectTimeoutMs: 200 } })
  const port = test.broker.ports.websocket ?? 0
  const other = new WebSocket(`ws://127.0.0.1:${port}/`, 'chat')
  const stream = createWebSocketStream(other)
  stream.on('error', () => {})
  await new Promise(resolve => stream.once('close', resolve))
  const huge = await openRawMqtt({ port, websocket: true })
  huge.sendBytes(Buffer.alloc(4001))
  await huge.closed
  const status = await new Promise<number | undefined>((resolve, reject) => {
    request({ port, host: '127.0.0.1', path: '/', agent: false }, response => {
      response.resume()
      resolve(response.statusCode)
    }).on('error', reject).end()
  })
  t.equal(status, 426, 'a browser is told')
  const lazy = connect({ port, host: '127.0.0.1' })
  lazy.on('error', () => {})
  await new Promise(resolve => lazy.once('close', resolve))
  await until(() => test.broker.stats().connected === 0, 'nobody connected')
  t.notOk(test.lines.some(({ level }) => level === 'error'))
})
