// The client of a switch against a scripted switch on loopback: what is asked again, what is repeated, what is taken back, and when it gives up.
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { type ClientPolicy, CLIENT_POLICY, type IsoClient, type IsoClientDeps, openIsoClient } from '../../gateway/iso8583/client.js'
import { type Cbs, openCbsTransport, servicesCbs } from '../../gateway/iso8583/cbs.js'
import { answerTo, codeOfError } from '../../gateway/iso8583/dialect.js'
import { parsePeer } from '../../gateway/iso8583/peers.js'
import { openReversals, REVERSALS_PAGE } from '../../gateway/iso8583/reversals.js'
import { openIsoServer } from '../../gateway/iso8583/server.js'
import { ENDPOINTS_MAX, parseTarget } from '../../gateway/iso8583/target.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { makeTimers, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { compileFraming, compileShippedSpec, encodeFrame, isMtiRequest, type Message, openFrameReader, pack, unpack } from '../../protocol/iso8583/index.js'
import { makeCertificates, network, purchase } from '../support/raw-switch.js'
import { eventually, tempDir } from '../support/rig.js'

type Test = Pick<typeof t, 'teardown'>
type Script = (message: Message, send: (message: Message) => void, socket: Socket) => void
type Switch = { port: number, got: Message[], sockets: Set<Socket>, stop: () => Promise<void>, start: () => Promise<void>, script: Script }

const SPEC = compileShippedSpec('1987-ascii')
const FRAMING = compileFraming()
const SESSION = CLIENT_POLICY.session
const QUICK: Partial<ClientPolicy> = {
  connections: 1, deadlineMs: 3_000, attemptMs: 150, retry: { firstMs: 1, maxMs: 5 }, reconnect: { firstMs: 5, maxMs: 20 }, session: { ...SESSION, echoIdleMs: 0, answerMs: 500 }
}

/** Answers network management itself; what else comes is for the script. */
async function openSwitch (t: Test, script: Script = (message, send) => { send(answerTo(message, '00')) }): Promise<Switch> {
  const sockets = new Set<Socket>()
  let server: Server
  const control: Switch = {
    port: 0, got: [], sockets, script,
    start: () => new Promise(resolve => {
      server = createServer(socket => {
        sockets.add(socket)
        socket.on('close', () => sockets.delete(socket)).on('error', () => {})
        const reader = openFrameReader(FRAMING)
        const send = (message: Message): void => { if (!socket.destroyed) socket.write(encodeFrame(FRAMING, pack(SPEC, message))) }
        socket.on('data', (chunk: Buffer) => {
          for (const event of reader.push(chunk)) {
            if (event.kind !== 'frame') continue
            const message = unpack(SPEC, event.payload)
            control.got.push(message)
            if (isMtiRequest(message.mti)) control.script(message, send, socket)
          }
        })
      }).listen(control.port, '127.0.0.1', () => {
        control.port = (server.address() as { port: number }).port
        resolve()
      })
    }),
    stop: () => new Promise(resolve => {
      server.close(() => { resolve() })
      for (const socket of sockets) socket.destroy()
    })
  }
  await control.start()
  t.teardown(() => control.stop())
  return control
}

function openClient (t: Test, ports: readonly number[], policy: Partial<ClientPolicy> = {}, deps: Partial<IsoClientDeps> = {}): IsoClient {
  const client = openIsoClient({
    name: 'cbs', endpoints: ports.map(port => ({ host: '127.0.0.1', port })), wire: { spec: SPEC, framing: FRAMING, leniencies: {}, mac: null }, policy: { ...QUICK, ...policy },
    reversals: null, timers: makeTimers(() => performance.now()), nowMs: Date.now, random: () => 0.5, log: SILENT_LOG, ...deps
  })
  t.teardown(() => client.close())
  return client
}

const question = (stan: number): Message => purchase(stan, { 3: '310000', 102: '1' })
const isNetworkMessage = (message: Message): boolean => message.mti === '0800' || message.mti === '0810'
const asked = (peer: Switch): string[] => peer.got.filter(message => !isNetworkMessage(message)).map(message => `${message.mti} ${message.fields['11'] ?? ''}`)
/** Network management is answered; money and questions are not. */
const silent: Script = (message, send) => { if (message.mti === '0800') send(answerTo(message, '00')) }

t.test('answers find their requests in any order, spread over the connections with the fewest in flight', async t => {
  const held: (() => void)[] = []
  let isHolding = true
  const perSocket = new Map<Socket, number>()
  const peer = await openSwitch(t, (message, send, socket) => {
    if (message.mti === '0800') return send(answerTo(message, '00'))
    perSocket.set(socket, (perSocket.get(socket) ?? 0) + 1)
    held.push(() => { send(answerTo(message, '00', { 38: message.fields['11']! })) })
    isHolding &&= held.length < 12
    if (!isHolding) for (const release of held.splice(0).reverse()) release()
  })
  const client = openClient(t, [peer.port], { connections: 3, attemptMs: 10_000, deadlineMs: 10_000 })
  await eventually(() => client.stats().ready, ready => ready === 3)
  const answers = Promise.all(Array.from({ length: 12 }, (_, index) => client.request(question(index))))
  await t.rejects(client.request(question(3)), { code: 'ISO_DUPLICATE_KEY' })
  t.same((await answers).map(answer => answer.fields['38']), Array.from({ length: 12 }, (_, index) => String(index).padStart(6, '0')))
  t.same([...perSocket.values()], [4, 4, 4])
  t.match(client.stats(), { matched: 15, pending: 0, queued: 0 })
  t.match(await client.request(question(3)), { mti: '0210' }, 'the key is free again')
})

t.test('requests wait for a connection within their deadline and the queue\'s limit, and are refused unsent', async t => {
  const peer = await openSwitch(t)
  await peer.stop()
  const client = openClient(t, [peer.port], { queueMax: 2, deadlineMs: 250, breaker: { ...CLIENT_POLICY.breaker, callsMin: 1_000_000 } })
  const waiting = [client.request(purchase(1)), client.request(purchase(2))]
  await t.rejects(client.request(purchase(3)), { code: 'OVERLOADED' })
  for (const one of waiting) await t.rejects(one, { code: 'ISO_UNAVAILABLE' })
  await t.rejects(client.whenReady(1), { code: 'ISO_UNAVAILABLE' })
  const late = client.request(purchase(4), { deadlineMs: 5_000 })
  await peer.start()
  t.match(await late, { mti: '0210', fields: { 39: '00' } })
  t.same(asked(peer), ['0200 000004'])
  t.equal(client.stats().reversals, 0, 'what was not sent is not reversed')
  await t.rejects(client.request({ mti: '0200', fields: { 4: 'x' } }), { code: 'ISO_PACK_INVALID' })
})

t.test('money without an answer is not sent twice: the outcome is unknown and a reversal is on disk until it is acknowledged', async t => {
  const dir = tempDir(t)
  const store = await openSqliteStore({ path: join(dir, 'x.db'), log: SILENT_LOG, nowMs: Date.now })
  t.teardown(() => store.close())
  const peer = await openSwitch(t, silent)
  const client = openClient(t, [peer.port], { deadlineMs: 150 }, { reversals: store })
  await client.whenReady(5_000)
  await t.rejects(client.request(purchase(42)), { code: 'ISO_TIMEOUT', message: /reversal/ })
  const message = { mti: '0420', fields: { 4: '000000001900', 37: '633400000042', 90: /^02000000421129131411/ } }
  t.match(await store.waitingReversals('cbs', 10), [{ reference: '02|1129131411|000042|TERM0200', message }])
  t.match(client.stats(), { reversals: 1 })
  await eventually(() => asked(peer), list => list.some(mti => mti.startsWith('0420')))
  await client.close()
  t.equal(peer.got.filter(message => message.mti === '0200').length, 1)
  const second = openClient(t, [peer.port], {}, { reversals: store })
  await eventually(() => peer.got.filter(message => message.mti === '0420').length, count => count === 2)
  peer.script = (message, send) => { send(answerTo(message, message.mti === '0421' ? '00' : '91')) }
  const rows = await eventually(() => store.waitingReversals('cbs', 10), list => list.length === 0)
  t.same(rows, [])
  t.ok(asked(peer).some(mti => mti.startsWith('0421')), 'its repeat says that it is one')
  t.equal(second.stats().reversals, 0)
})

t.test('money on a connection that is lost is reversed; an answer that comes too late is counted and changes nothing', async t => {
  const peer = await openSwitch(t, (message, send, socket) => {
    if (message.mti === '0200' && message.fields['11'] === '000001') socket.destroy()
    else if (message.mti === '0200') setTimeout(() => { send(answerTo(message, '00')) }, 300)
    else send(answerTo(message, '00'))
  })
  const client = openClient(t, [peer.port])
  await t.rejects(client.request(purchase(1)), { code: 'ISO_TIMEOUT' })
  await t.rejects(client.request(purchase(2), { deadlineMs: 150 }), { code: 'ISO_TIMEOUT' })
  await eventually(() => client.stats(), stats => stats.late === 1 && stats.reversals === 0)
  t.same(asked(peer).map(line => line.slice(0, 4)), ['0200', '0420', '0200', '0420'])
})

t.test('a question is asked again, an advice is told again as a repeat, each at most so often', async t => {
  let ignored = 2
  const peer = await openSwitch(t, (message, send, socket) => {
    if (message.mti === '0800') return send(answerTo(message, '00'))
    if (ignored-- > 0) return ignored === 1 ? socket.destroy() : undefined
    send(answerTo(message, '00'))
  })
  const client = openClient(t, [peer.port])
  t.match(await client.request(question(1)), { mti: '0210' })
  ignored = 2
  t.match(await client.request(purchase(2, {}, '0220')), { mti: '0230' })
  ignored = 99
  await t.rejects(client.request(question(3), { deadlineMs: 600 }), { code: 'ISO_TIMEOUT' })
  t.same(asked(peer).slice(0, 6), ['0200 000001', '0200 000001', '0200 000001', '0220 000002', '0221 000002', '0221 000002'])
  t.equal(asked(peer).length, 9, 'three attempts')
})

t.test('a switch that goes away is found again, and one that refuses the sign-on is not used', async t => {
  const peer = await openSwitch(t)
  const client = openClient(t, [peer.port], { breaker: { ...CLIENT_POLICY.breaker, callsMin: 1_000_000 } })
  await client.whenReady(5_000)
  await peer.stop()
  await eventually(() => client.stats().ready, ready => ready === 0)
  peer.script = (message, send) => { send(answerTo(message, '58')) }
  await peer.start()
  await eventually(() => peer.got.filter(message => message.fields['70'] === '001').length, count => count >= 3)
  t.equal(client.stats().ready, 0)
  peer.script = (message, send) => { send(answerTo(message, '00')) }
  await client.whenReady(5_000)
  t.match(await client.request(purchase(1)), { mti: '0210' })
})

t.test('after too many failures the breaker refuses at once, and a probe that is answered closes it', async t => {
  const peer = await openSwitch(t, silent)
  const client = openClient(t, [peer.port], { attemptMs: 60, attemptsMax: 1, breaker: { windowMs: 60_000, callsMin: 3, failureShare: 0.5, openMs: 400 } })
  await client.whenReady(5_000)
  for (const stan of [1, 2, 3]) await t.rejects(client.request(question(stan), { deadlineMs: 60 }), { code: 'ISO_TIMEOUT' })
  t.same(client.stats().breakers, ['open'])
  const before = peer.got.length
  await t.rejects(client.request(question(4)), { code: 'ISO_UNAVAILABLE', message: /breaker/ })
  t.equal(peer.got.length, before, 'nothing was sent')
  await new Promise(resolve => { setTimeout(resolve, 450) })
  await t.rejects(client.request({ mti: '0200', fields: { 3: '310000', 4: 'x' } }), { code: 'ISO_PACK_INVALID' }, 'a probe that cannot be packed proves nothing')
  peer.script = (message, send) => { send(answerTo(message, '00')) }
  t.match(await client.request(question(5)), { mti: '0210' })
  t.same(client.stats().breakers, ['closed'])
})

t.test('with two endpoints the one that works is used', async t => {
  const [dead, alive] = [await openSwitch(t, silent), await openSwitch(t)]
  await dead.stop()
  const client = openClient(t, [dead.port, alive.port], { breaker: { windowMs: 60_000, callsMin: 2, failureShare: 0.5, openMs: 60_000 } })
  await eventually(() => client.stats().breakers, states => states[0] === 'open')
  for (let stan = 1; stan <= 5; stan++) t.match(await client.request(purchase(stan)), { mti: '0210' })
  t.same(client.stats().breakers, ['open', 'closed'])
})

t.test('both ends ask on one connection: the switch is answered, its sign-off takes the connection out of use', async t => {
  const peer = await openSwitch(t)
  const client = openClient(t, [peer.port], {}, { onRequest: request => answerTo(request, '00', { 48: 'ours' }) })
  await client.whenReady(5_000)
  const [socket] = peer.sockets
  const send = (message: Message): void => { socket?.write(encodeFrame(FRAMING, pack(SPEC, message))) }
  peer.script = () => {}
  send(network('301', 7))
  send(purchase(8))
  await eventually(() => peer.got.length, count => count >= 3)
  t.match(peer.got.slice(-2), [{ mti: '0810', fields: { 11: '000007', 39: '00' } }, { mti: '0210', fields: { 11: '000008', 48: 'ours' } }])
  send(network('002', 9))
  await eventually(() => client.stats().ready, ready => ready === 0)
  send(network('001', 10))
  await eventually(() => client.stats().ready, ready => ready === 1)
  peer.script = (message, answer) => { answer(answerTo(message, '00')) }
  t.ok((await client.echo())[0]! >= 0)
  const plain = openClient(t, [peer.port])
  await plain.whenReady(5_000)
  const other = [...peer.sockets].at(-1)
  other?.write(encodeFrame(FRAMING, pack(SPEC, purchase(11))))
  await eventually(() => peer.got.at(-1), message => message?.fields['11'] === '000011')
  t.match(peer.got.at(-1), { mti: '0210', fields: { 39: '12' } }, 'without a handler')
})

t.test('a close waits for what is in flight, signs off, and refuses what comes', async t => {
  let release = (): void => {}
  const peer = await openSwitch(t, (message, send) => {
    if (message.mti === '0800') send(answerTo(message, '00'))
    else release = () => { send(answerTo(message, '00')) }
  })
  const client = openClient(t, [peer.port])
  const last = client.request(purchase(1))
  await eventually(() => asked(peer).length, count => count === 1)
  const closed = client.close()
  await t.rejects(client.request(purchase(2)), { code: 'ISO_UNAVAILABLE' })
  release()
  t.match(await last, { mti: '0210' })
  await closed
  t.match(peer.got.at(-1), { mti: '0800', fields: { 70: '002' } })
})

t.test('mutual TLS and a key exchange with the gateway\'s own server', async t => {
  const { ca, pairs } = makeCertificates(tempDir(t), ['gateway', 'client'])
  const key = '0123456789ABCDEF'.repeat(2)
  const mac = { algorithm: 'x9.19', keyFile: 'key', kekFile: 'kek' }
  const profile = parsePeer({ name: 'a', bank: 'pnb', certificate: 'client', mac }, 'test', () => key)
  const server = await openIsoServer({
    host: '127.0.0.1', port: 0, tls: { port: 0, ca, ...pairs['gateway']! }, peers: [profile], handle: request => answerTo(request, '00'),
    timers: makeTimers(() => performance.now()), nowMs: Date.now, log: SILENT_LOG
  })
  t.teardown(() => server.close())
  const endpoint = { host: '127.0.0.1', port: server.tlsPort ?? 0 }
  const client = openClient(t, [], { connections: 2 }, { endpoints: [{ ...endpoint, tls: { ca, ...pairs['client']! } }], wire: profile.wire })
  await client.whenReady(10_000)
  t.match(await client.request(purchase(1)), { fields: { 39: '00', 64: /^[0-9A-F]{16}$/ } })
  await client.exchangeKey(Buffer.alloc(16, 0x5a))
  t.match(await Promise.all([2, 3, 4, 5].map(stan => client.request(purchase(stan)))), [{ fields: { 39: '00' } }, {}, {}, {}])
  const other = openClient(t, [], { wire: undefined } as never, { endpoints: [{ ...endpoint, tls: { ca } }], wire: profile.wire })
  await t.rejects(other.whenReady(400), { code: 'ISO_UNAVAILABLE' }, 'no certificate, no connection')
  const otherKek = { ...profile.wire, mac: { algorithm: 'x9.19' as const, key: Buffer.from(key, 'hex'), kek: Buffer.alloc(16, 3) } }
  const wrongKek = openClient(t, [], {}, { endpoints: [{ ...endpoint, tls: { ca, ...pairs['client']! } }], wire: otherKek })
  await wrongKek.whenReady(10_000)
  await t.rejects(wrongKek.exchangeKey(Buffer.alloc(16, 1)), { code: 'ISO_UNAVAILABLE', message: /refused/ })
})

t.test('reversals beyond a page wait on disk, and a store that refuses does not lose one', async t => {
  const saved: { reference: string }[] = []
  let isBroken = false
  const sent: string[] = []
  const reversals = openReversals({
    peer: 'x', timers: makeTimers(() => performance.now()), nowMs: Date.now, random: () => 0, backoff: { firstMs: 1, maxMs: 1 }, log: SILENT_LOG,
    send: async message => {
      if (sent.length === 0) await new Promise(resolve => { setTimeout(resolve, 50) })
      sent.push(message.fields['11'] ?? '')
      return answerTo(message, message.fields['11'] === '000003' ? '12' : '00')
    },
    store: {
      saveReversal: async reversal => {
        if (isBroken) throw new SoundboxError('STORE_FAILED', 'locked')
        saved.push(reversal)
      },
      removeReversal: async (_peer, reference) => { saved.splice(0, saved.length, ...saved.filter(row => row.reference !== reference)) },
      waitingReversals: async (_peer, limit) => saved.slice(0, limit) as never
    }
  })
  t.teardown(reversals.close)
  const count = REVERSALS_PAGE + 7
  for (let stan = 1; stan <= count; stan++) await reversals.add(String(stan), purchase(stan, {}, '0420'))
  t.ok(reversals.waiting() <= REVERSALS_PAGE, 'memory holds a page')
  isBroken = true
  await reversals.add('broken', purchase(999, {}, '0420'))
  await eventually(() => sent.length, length => length === count + 1)
  t.equal(new Set(sent).size, count + 1, 'each was sent, also the one that is refused for good')
  t.same(saved, [])
})

t.test('the core banking system is asked through a switch, and a switch asks it through us', async t => {
  const asked: [string, unknown][] = []
  const balance = { account_no: '0150245000100', currency: 'INR', ledger: '152000.00', available: '-20.50', cleared: null, held: null, overdraft_limit: null, as_of: '2026-01-05T09:15:00.000Z' }
  const row = { id: '1', booked_at: '2026-01-05T09:10:11Z', value_date: '2026-01-05', dr_cr: 'CR', amount: '1900.00', running_balance: null, narration: 'QR PAYMENT', reference: 'R1', type: 'QR' }
  const cbs = servicesCbs({
    call: async (service, input) => {
      asked.push([service, input])
      if ((input as { account_no: string }).account_no === '9999') throw new SoundboxError('PROVIDER_REJECTED', 'no such account')
      return (service === 'account_balance_cbs' ? balance : { opening: null, closing: '152000.00', next: null, rows: [row] }) as never
    }
  })
  const answer = async (message: Message): Promise<Message> => {
    const reply = await cbs(message).catch((error: unknown): Awaited<ReturnType<Cbs>> => ({ code: codeOfError(error), fields: {} }))
    return answerTo(message, reply.code, reply.fields)
  }
  const peer = await openSwitch(t, (message, send) => { void (message.mti === '0800' ? Promise.resolve(answerTo(message, '00')) : answer(message)).then(send) })
  const target = parseTarget(JSON.stringify({ name: 'cbs', endpoints: [`127.0.0.1:${peer.port}`], connections: 1, deadlineMs: 5_000 }), 'test', () => '')
  const transport = openCbsTransport({ target, timers: makeTimers(() => performance.now()), nowMs: () => Date.parse('2026-01-05T09:15:00Z'), random: () => 0.5, log: SILENT_LOG })
  t.teardown(() => transport.close())
  const ctx = { traceId: '0'.repeat(32), actor: 'test', background: false, reference: 'ABC1' } as never
  t.match(await transport.call('account_balance_cbs', { account_no: '0150245000100' }, ctx), { currency: 'INR', ledger: '152000.00', available: '-20.50' })
  const statement = { closing: '152000.00', rows: [{ amount: '1900.00', dr_cr: 'CR', narration: 'QR PAYMENT', reference: 'R1' }] }
  t.match(await transport.call('mini_statement_cbs', { account_no: '0150245000100' }, ctx), statement)
  await t.rejects(transport.call('account_balance_cbs', { account_no: '9999' }, ctx), { code: 'PROVIDER_REJECTED' })
  t.same(asked.map(([service]) => service), ['account_balance_cbs', 'mini_statement_cbs', 'account_balance_cbs'])
  await t.rejects(cbs(purchase(1)), { code: 'ISO_NOT_SUPPORTED' })
  await t.rejects(cbs(purchase(1, { 3: '310000' })), { code: 'ISO_UNPACK_INVALID' })
})

t.test('a target file is checked word by word', async t => {
  const good = { name: 'cbs', endpoints: ['switch.bank:8583', '[::1]:1'], tls: { caFile: 'ca', certFile: 'cert', keyFile: 'key', serverName: 'x' } }
  const parse = (target: object): unknown => parseTarget(JSON.stringify(target), 'cbs.json', path => {
    if (path === 'none') throw new Error('no such file')
    return path
  })
  t.match(parse(good), { name: 'cbs', endpoints: [{ host: 'switch.bank', port: 8583, tls: { ca: 'ca', cert: 'cert', key: 'key', servername: 'x' } }, { host: '::1', port: 1 }],
    policy: { connections: 2, session: { role: 'client', signOn: true } } })
  const bad: [object, RegExp][] = [
    [{ ...good, endpoints: [] }, /list of 1/], [{ ...good, endpoints: ['host'] }, /host:port/], [{ ...good, endpoints: ['host:0'] }, /host:port/],
    [{ ...good, endpoints: Array(ENDPOINTS_MAX + 1).fill('a:1') }, /list of 1/],
    [{ ...good, tls: { certFile: 'cert' } }, /caFile/], [{ ...good, tls: { caFile: 'ca', certFile: 'cert' } }, /together/],
    [{ ...good, tls: { caFile: 'none' } }, /cannot be read/], [{ ...good, connections: 65 }, /connections/],
    [{ ...good, deadlineMs: 1 }, /deadlineMs/], [{ ...good, colour: 1 }, /colour/], [[], /object/]
  ]
  for (const [target, message] of bad) t.throws(() => parse(target), { code: 'CONFIG_INVALID', message }, String(message))
  t.throws(() => parseTarget('{', 'cbs.json', () => ''), { code: 'CONFIG_INVALID' })
  t.match(parse({ ...good, endpoints: Array(ENDPOINTS_MAX).fill('a:1') }), { name: 'cbs' }, 'at the limit')
})
