// The door for switches on real sockets, with handlers of the test: who may come in, what a connection may do, and how it ends.
import { connect, type Socket } from 'node:net'
import t from 'tap'
import { answerTo } from '../../gateway/iso8583/dialect.js'
import type { AuditEntry } from '../../gateway/iso8583/hooks.js'
import { parsePeer, type PeerProfile } from '../../gateway/iso8583/peers.js'
import { type IsoServer, type IsoServerDeps, openIsoServer } from '../../gateway/iso8583/server.js'
import { sealWorkingKey } from '../../gateway/iso8583/working-key.js'
import { type Log, makeTimers, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { compileFraming, compileShippedSpec, encodeFrame, encodeKeepAlive, type Message, pack } from '../../protocol/iso8583/index.js'
import { connectSwitch, makeCertificates, network, purchase, type RawSwitch } from '../support/raw-switch.js'
import { eventually, tempDir } from '../support/rig.js'
import { openRandom, seedsOf } from '../support/random.js'

type Test = Pick<typeof t, 'teardown' | 'match'>
const SPEC = compileShippedSpec('1987-ascii')
const FRAMING = compileFraming()

function profile (more: object = {}): PeerProfile {
  return parsePeer({ name: 'a', bank: 'pnb', ...('certificate' in more ? {} : { addresses: ['127.0.0.1'] }), ...more }, 'test', () => '0123456789ABCDEF'.repeat(2))
}

async function openServer (t: Test, deps: Partial<IsoServerDeps> = {}): Promise<IsoServer> {
  const server = await openIsoServer({
    host: '127.0.0.1', port: 0, tls: null, peers: [profile()], handle: request => answerTo(request, '00'), timers: makeTimers(() => performance.now()), nowMs: Date.now, log: SILENT_LOG, ...deps
  })
  t.teardown(() => server.close())
  return server
}

async function signedOn (t: Test, server: IsoServer, options: object = {}): Promise<RawSwitch> {
  const raw = await connectSwitch(t, { port: server.port ?? 0, ...options })
  t.match(await raw.signOn(), { mti: '0810', fields: { 39: '00', 70: '001' } })
  return raw
}


t.test('network management is answered on one socket in both directions, and an answer is never answered', async t => {
  const server = await openServer(t, { peers: [profile({ echoSeconds: 1 })] })
  const raw = await signedOn(t, server)
  t.match(await raw.ask(network('301', 2)), { mti: '0810', fields: { 39: '00' } })
  t.match(await raw.ask(network('999', 3)), { mti: '0810', fields: { 39: '12' } }, 'no function of ours')
  t.match(await raw.ask(network('101', 4)), { mti: '0810', fields: { 39: '12' } }, 'a key for a peer without keys')
  raw.send({ mti: '0810', fields: { ...network('301', 5).fields, 39: '00' } })
  t.match(await raw.next(message => message.mti === '0800'), { fields: { 70: '301' } }, 'the gateway asks an idle peer')
  t.same(raw.got.filter(message => message.fields['11'] === '000005'), [])
  await eventually(() => server.stats(), stats => stats.matched > 0)
  t.match(server.stats(), { unmatched: 1, connections: 1, ready: 1 })
})

t.test('a peer that answers no echo is closed after its misses, one that never signs on, too', async t => {
  const peer = profile({ echoMisses: 1 })
  const server = await openServer(t, { peers: [{ ...peer, session: { ...peer.session, echoIdleMs: 50, answerMs: 100, signOnMs: 300 } }] })
  const deaf = await signedOn(t, server, { answers: false })
  const shy = await connectSwitch(t, { port: server.port ?? 0 })
  await Promise.all([deaf.closed, shy.closed])
  await eventually(() => server.stats().connections, connections => connections === 0)
})

t.test('the handler fails, is late or is wrong, and the switch gets its answer all the same', async t => {
  const audit: AuditEntry[] = []
  const faults: Record<string, () => ReturnType<IsoServerDeps['handle']>> = {
    1: () => { throw new TypeError('of ours') }, 2: () => Promise.reject(new TypeError('of ours')), 3: () => { throw new SoundboxError('VPA_UNKNOWN', 'x') },
    4: () => new Promise(resolve => { setTimeout(() => { resolve(answerTo(purchase(4), '00')) }, 400) }), 5: () => ({ mti: '0210', fields: { 4: 'not a number' } })
  }
  const server = await openServer(t, {
    peers: [profile({ handlerMs: 100 })], audit: entry => { audit.push(entry) }, handle: request => faults[Number(request.fields['11'])]?.() ?? answerTo(request, '00')
  })
  const raw = await signedOn(t, server)
  for (const [stan, code] of [[1, '96'], [2, '96'], [3, '03'], [4, '91'], [5, '30'], [6, '00']] as const) t.match(await raw.ask(purchase(stan)), { mti: '0210', fields: { 39: code } }, `case ${stan}`)
  await eventually(() => server.stats(), stats => stats['handler-late'] === 1)
  t.match(server.stats(), { 'handler-fault': 2, inFlight: 0 })
  const [, , request, answer] = audit
  t.match(request, { peer: 'a', direction: 'in', mti: '0200', ms: null })
  t.match(answer, { direction: 'out', mti: '0210', code: '96', ms: Number, key: request?.key.replace('0200', '') })
  t.match(request?.lines().join('\n'), /DE 2 476173\*{6}0119/, 'the record is masked')
  t.notMatch(JSON.stringify(audit.map(entry => entry.lines())), /4761739001010119/)
})

t.test('above the limit in flight a connection is not read, and goes on when answers went out', async t => {
  const waiting: (() => void)[] = []
  let most = 0
  const server = await openServer(t, {
    peers: [profile({ inFlightMax: 3 })],
    handle: request => new Promise(resolve => {
      waiting.push(() => { resolve(answerTo(request, '00')) })
      most = Math.max(most, waiting.length)
    })
  })
  const raw = await signedOn(t, server)
  raw.sendBytes(Buffer.concat(Array.from({ length: 10 }, (_, index) => encodeFrame(FRAMING, pack(SPEC, purchase(index))))))
  await eventually(() => server.stats().inFlight, inFlight => inFlight === 3)
  for (let answered = 0; answered < 10; answered++) {
    await eventually(() => waiting.length, length => length > 0)
    waiting.shift()?.()
    await raw.next(message => message.mti === '0210')
  }
  t.equal(most, 3)
  t.equal(raw.got.filter(message => message.mti === '0210').length, 10)
})

t.test('a peer that does not read is cut off, and its memory stays small', async t => {
  const big = '9'.repeat(900)
  const server = await openServer(t, { peers: [profile({ writeStallMs: 200, echoSeconds: 0 })], handle: request => answerTo(request, '00', { 48: big, 60: big, 61: big, 62: big, 63: big }) })
  const socket = connect(server.port ?? 0, '127.0.0.1')
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {})
  socket.pause()
  await new Promise(resolve => socket.once('connect', resolve))
  socket.write(encodeFrame(FRAMING, pack(SPEC, network('001', 1))))
  const frames = Buffer.concat(Array.from({ length: 500 }, (_, index) => encodeFrame(FRAMING, pack(SPEC, purchase(index)))))
  let isClosed = false
  socket.once('close', () => { isClosed = true })
  const flood = setInterval(() => { if (!isClosed && socket.writableLength < 1e6) socket.write(frames) }, 5)
  t.teardown(() => { clearInterval(flood) })
  await eventually(() => server.stats().connections, connections => connections === 0)
  t.ok(server.stats().out < 20_000, `${server.stats().out} answers were made for a peer that reads none`)
})

t.test('what cannot be read closes the connection, or is answered 30 where the profile says so', async t => {
  const bad = Buffer.concat([pack(SPEC, purchase(7)).subarray(0, -1), Buffer.from('X')])
  const strict = await openServer(t)
  const raw = await signedOn(t, strict)
  raw.send(purchase(1))
  raw.sendBytes(encodeFrame(FRAMING, bad))
  await raw.closed
  t.match(raw.got.at(-1), { mti: '0210', fields: { 11: '000001', 39: '00' } }, 'what came before is answered')
  t.match(strict.stats().parseErrors, { character: 1 })
  const lenient = await openServer(t, { peers: [profile({ onParseError: 'reject' })] })
  const other = await signedOn(t, lenient)
  other.sendBytes(encodeFrame(FRAMING, bad))
  t.match(await other.next(), { mti: '0210', fields: { 11: '000007', 39: '30' } })
  t.match(await other.ask(purchase(8)), { fields: { 39: '00' } }, 'and goes on')
  t.match(lenient.stats(), { rejected: 1 })
  other.sendBytes(encodeFrame(FRAMING, Buffer.from('0200')))
  await other.closed
  for (const [bytes, reason] of [[Buffer.from('ffff', 'hex'), 'frame'], [Buffer.from('0000', 'hex'), 'frame'], [Buffer.from('0004' + '30323030', 'hex').subarray(0, 4), 'partial-frame']] as const) {
    const server = await openServer(t, { peers: [profile({ partialFrameMs: 150 })] })
    const broken = await signedOn(t, server)
    broken.sendBytes(bytes)
    await broken.closed
    t.match(server.stats().parseErrors, { [reason]: 1 }, bytes.toString('hex'))
  }
})

t.test('frames may come in any pieces, and an empty one says still here where it may', async t => {
  const framing = compileFraming({ prefix: 'ascii4', keepAlive: true })
  const server = await openServer(t, { peers: [profile({ framing: { prefix: 'ascii4', keepAlive: true } })] })
  const raw = await signedOn(t, server, { framing })
  for (const byte of encodeFrame(framing, pack(SPEC, purchase(1)))) raw.sendBytes(Buffer.from([byte]))
  t.match(await raw.next(message => message.mti === '0210'), { fields: { 39: '00' } })
  raw.sendBytes(encodeKeepAlive(framing))
  await eventually(() => server.stats(), stats => stats['keep-alive'] === 1)
  raw.sendBytes(encodeFrame(framing, pack(SPEC, purchase(2))))
  raw.socket.end()
  t.match(await raw.next(message => message.fields['11'] === '000002'), { mti: '0210' }, 'a peer that has sent its end still gets its answer')
  await raw.closed
})

t.test('packed digits, a TPDU and a message authentication code under an exchanged key', async t => {
  const spec = compileShippedSpec('1987-bcd')
  const framing = compileFraming({ header: { kind: 'tpdu', hex: '6000010002' } })
  const kek = Buffer.from('0123456789ABCDEF'.repeat(2), 'hex')
  const server = await openServer(t, { peers: [profile({ spec: '1987-bcd', framing: { header: { kind: 'tpdu', hex: '6000020001' } }, mac: { algorithm: 'aes-cmac', kekFile: 'kek' } })] })
  const { openWire } = await import('../../gateway/iso8583/wire.js')
  const wire = openWire({ spec, framing, leniencies: {}, mac: { algorithm: 'aes-cmac', key: null, kek } }, () => 0)
  const raw = await signedOn(t, server, { spec, framing })
  const wrong = sealWorkingKey({ algorithm: 'aes-cmac', kek: Buffer.alloc(16, 7) }, Buffer.alloc(16, 1))
  t.match(await raw.ask(network('101', 2, { 48: wrong })), { fields: { 39: '96' } })
  const sealed = wire.offerKey(Buffer.alloc(16, 9))
  t.match(await raw.ask(network('101', 3, { 48: sealed })), { fields: { 39: '00' } })
  wire.takeKey(sealed)
  raw.sendBytes(encodeFrame(framing, wire.encode(purchase(4))))
  const answer = await raw.next(message => message.mti === '0210')
  t.match(answer, { fields: { 39: '00', 64: /^[0-9A-F]{16}$/ } })
  t.same(wire.decode(wire.encode({ ...answer, fields: { ...answer.fields, 64: '0000000000000000' } })).fields['64'], answer.fields['64'], 'the answer is authenticated, too')
  raw.send(purchase(5))
  await raw.closed
  t.match(server.stats().parseErrors, { mac: 1 })
})

t.test('who may come in: by address, by port, by certificate, and how many at once', async t => {
  const dir = tempDir(t)
  const { ca, pairs } = makeCertificates(dir, ['gateway', 'one', 'stranger'])
  const seen: string[] = []
  const tls = { port: 0, ca, ...pairs['gateway']! }
  const free = await new Promise<number>(resolve => {
    void openIsoServer({ host: '127.0.0.1', port: 0, tls: null, peers: [profile()], handle: () => undefined, timers: makeTimers(() => performance.now()), nowMs: Date.now, log: SILENT_LOG })
      .then(async probe => { await probe.close(); resolve(probe.port ?? 0) })
  })
  const server = await openServer(t, {
    tls, peers: [profile({ name: 'by-address', connectionsMax: 1 }), profile({ name: 'by-port', port: free }),
      profile({ name: 'elsewhere', addresses: ['10.0.0.0/8'] }), profile({ name: 'by-certificate', certificate: 'one' })],
    handle: (request, peer) => { seen.push(peer.name); return answerTo(request, '00') }
  })
  const first = await signedOn(t, server)
  await first.ask(purchase(1))
  await (await signedOn(t, { ...server, port: free })).ask(purchase(2))
  await (await signedOn(t, { ...server, port: server.tlsPort }, { tls: { ca, ...pairs['one']! } })).ask(purchase(3))
  t.same(seen, ['by-address', 'by-port', 'by-certificate'])
  const second = await connectSwitch(t, { port: server.port ?? 0 })
  await second.closed
  t.same(second.got, [], 'one past the limit of the peer')
  const stranger = await connectSwitch(t, { port: server.tlsPort ?? 0, tls: { ca, ...pairs['stranger']! } }).catch(() => undefined)
  await stranger?.closed
  t.equal(server.stats().connections, 3)
  t.equal(server.stats().refused, 2)
  first.end()
  await first.closed
  await eventually(() => server.stats().connections, connections => connections === 2)
  await signedOn(t, server)
  const small = await openServer(t, { connectionsMax: 1 })
  await signedOn(t, small)
  await (await connectSwitch(t, { port: small.port ?? 0 })).closed
  await t.rejects(openServer(t, { port: small.port ?? 0 }), { code: 'PORT_TAKEN' })
  await t.rejects(openServer(t, { tls: { ...tls, key: 'x' } }), { code: 'CONFIG_INVALID' })
  const shut = await openServer(t, { peers: [profile({ certificate: 'one' })], tls })
  t.equal(shut.port, null, 'no peer without TLS, no port without TLS')
})

t.test('a close signs off, lets the work in hand be answered, and ends', async t => {
  let finish = (): void => {}
  const server = await openServer(t, { handle: request => new Promise(resolve => { finish = () => { resolve(answerTo(request, '00')) } }) })
  const raw = await signedOn(t, server)
  const deaf = await signedOn(t, server, { answers: false })
  raw.send(purchase(1))
  await eventually(() => server.stats().inFlight, inFlight => inFlight === 1)
  const closed = server.close()
  t.match(await raw.next(message => message.mti === '0800'), { fields: { 70: '002' } })
  await deaf.closed
  finish()
  t.match(await raw.next(message => message.mti === '0210'), { fields: { 11: '000001', 39: '00' } })
  await Promise.all([closed, raw.closed])
  await t.rejects(connectSwitch(t, { port: server.port ?? 0 }))
})

t.test('no byte of a damaged stream crashes the door, and what is logged holds no card number', async t => {
  const lines: string[] = []
  const note = (fields: object, sentence: string): void => { lines.push(JSON.stringify(fields) + sentence) }
  const log: Log = { info: note, warn: note, error: note, debug: note, child: fields => ({ ...log, info: (more, sentence) => { note({ ...fields, ...more }, sentence) } }) }
  const server = await openServer(t, { peers: [profile({ onParseError: 'reject', connectionsMax: 1024 }), profile({ name: 'b', port: null })], log })
  const good = [network('001', 1), purchase(2), purchase(3, {}, '0220'), network('301', 4)].map(message => encodeFrame(FRAMING, pack(SPEC, message)))
  for (const seed of seedsOf(60)) {
    const rand = openRandom(seed)
    const bytes = Buffer.concat([good[0]!, ...good.slice(1).sort(() => rand() - 0.5)])
    for (let damage = Math.floor(rand() * 5); damage > 0; damage--) bytes[Math.floor(rand() * bytes.length)] = Math.floor(rand() * 256)
    const socket = connect(server.port ?? 0, '127.0.0.1')
    socket.on('error', () => {})
    const closed = new Promise(resolve => socket.once('close', resolve))
    socket.resume()
    for (let from = 0; from < bytes.length;) {
      const to = from + 1 + Math.floor(rand() * 200)
      socket.write(bytes.subarray(from, to))
      from = to
    }
    if (rand() < 0.5) socket.end()
    else await giveTurn(socket)
    await closed
  }
  await eventually(() => server.stats().connections, connections => connections === 0)
  t.equal(server.stats()['handler-fault'], 0)
  const raw = await signedOn(t, server)
  t.match(await raw.ask(purchase(9)), { fields: { 39: '00' } }, 'and the next one is served')
  t.notMatch(lines.join('\n'), /4761739001010119|MERCHANT0000001/)
  const reasons = Object.keys(server.stats().parseErrors)
  t.ok(reasons.length >= 3, `${reasons.join(', ')} were met`)
})

async function giveTurn (socket: Socket): Promise<void> {
  await new Promise(resolve => { setTimeout(resolve, 5) })
  socket.destroy()
}

t.test('a message of another version is answered in its own words', async t => {
  const server = await openServer(t, { peers: [profile({ spec: '1993-ascii' })] })
  const spec = compileShippedSpec('1993-ascii')
  const raw = await connectSwitch(t, { port: server.port ?? 0, spec, answers: false })
  const signOn: Message = { mti: '1804', fields: { 7: '1129131411', 11: '000001', 24: '801' } }
  raw.send({ ...signOn, mti: '1800' })
  t.match(await raw.next(), { mti: '1810', fields: { 24: '801', 39: '800' } })
  raw.send({ mti: '1200', fields: { 3: '000000', 4: '000000001900', 7: '1129131411', 11: '000002', 12: '261129131411' } })
  t.match(await raw.next(), { mti: '1210', fields: { 39: '000' } })
  const closed = server.close()
  t.match(await raw.next(), { mti: '1800', fields: { 24: '802' } })
  await closed
})
