// A switch as a test plays it: one socket, framed messages out, everything that comes back in order. Knows the codec, nothing of the
// gateway's own connections.
import { writeFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { compileFraming, compileShippedSpec, encodeFrame, type Framing, type Message, openFrameReader, pack, type Spec, unpack } from '../../protocol/iso8583/index.js'
import { makeCertificate } from './test-certificates.js'

const ANSWER_TIMEOUT_MS = 60_000

export type RawSwitchOptions = { port: number, tls?: { ca: string, cert?: string, key?: string }, spec?: Spec, framing?: Framing, answers?: boolean }
export type RawSwitch = {
  socket: Socket
  /** All messages that came, answers and requests. */
  got: Message[]
  send: (message: Message) => void
  sendBytes: (bytes: Uint8Array) => void
  /** The next message that the predicate likes, come or still to come; each is given once. */
  next: (is?: (message: Message) => boolean) => Promise<Message>
  /** Sends, and waits for the answer with the same trace number. */
  ask: (message: Message) => Promise<Message>
  signOn: () => Promise<Message>
  closed: Promise<void>
  end: () => void
}
type Teardown = { teardown: (callback: () => unknown) => void }
type Waiter = { is: (message: Message) => boolean, resolve: (message: Message) => void }

/** Connected; not signed on. `answers: false`: leaves the gateway's own 0800 without an answer. */
export async function connectSwitch (t: Teardown, { port, tls, spec = compileShippedSpec('1987-ascii'), framing = compileFraming(), answers = true }: RawSwitchOptions): Promise<RawSwitch> {
  const socket = tls === undefined ? connectTcp(port, '127.0.0.1') : connectTls({ port, host: '127.0.0.1', ...tls, servername: 'gateway' })
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {})
  const closed = new Promise<void>(resolve => socket.once('close', () => { resolve() }))
  await new Promise<void>((resolve, reject) => {
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => { resolve() })
    socket.once('error', reject)
    socket.once('close', () => { reject(new Error('closed before it was open')) })
  })
  const reader = openFrameReader(framing)
  const got: Message[] = []
  const fresh: Message[] = []
  const waiters: Waiter[] = []
  socket.on('data', (chunk: Buffer) => {
    for (const event of reader.push(chunk)) {
      if (event.kind !== 'frame') continue
      const message = unpack(spec, event.payload)
      got.push(message)
      if (message.mti === '0800' && answers) send({ mti: '0810', fields: { ...message.fields, 39: '00' } })
      const at = waiters.findIndex(waiter => waiter.is(message))
      if (at < 0) fresh.push(message)
      else waiters.splice(at, 1)[0]?.resolve(message)
    }
  })
  const next: RawSwitch['next'] = (is = () => true) => {
    const at = fresh.findIndex(is)
    if (at >= 0) return Promise.resolve(fresh.splice(at, 1)[0]!)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => { reject(new Error('no such message came')) }, ANSWER_TIMEOUT_MS)
      waiters.push({ is, resolve: message => { clearTimeout(timer); resolve(message) } })
      void closed.then(() => { clearTimeout(timer); reject(new Error('the connection was closed')) })
    })
  }
  const send = (message: Message): void => { socket.write(encodeFrame(framing, pack(spec, message))) }
  const raw: RawSwitch = {
    socket, got, send, next, closed,
    sendBytes: bytes => { socket.write(bytes) },
    ask (message) {
      const answer = next(other => other.fields['11'] === message.fields['11'] && Number(other.mti.charAt(2)) % 2 === 1)
      send(message)
      return answer
    },
    signOn: () => raw.ask(network('001', 1)),
    end: () => { socket.end() }
  }
  return raw
}

/** 0800 with DE 70. */
export function network (code: string, stan: number, more: Record<string, string> = {}): Message {
  return { mti: '0800', fields: { 7: '1129131411', 11: String(stan).padStart(6, '0'), 70: code, ...more } }
}

/** A purchase at a shop, as a switch sends it: 0200 unless told otherwise. */
export function purchase (stan: number, more: Record<string, string> = {}, mti = '0200'): Message {
  const trace = String(stan).padStart(6, '0')
  return {
    mti,
    fields: {
      2: '4761739001010119', 3: '000000', 4: '000000001900', 7: '1129131411', 11: trace, 12: '184411', 13: '1129', 18: '5411', 22: '051', 25: '00', 32: '423935',
      37: `633400${trace}`, 41: 'TERM0200', 42: 'MERCHANT0000001', 49: '356', ...more
    }
  }
}

/** The reversal of a purchase; DE 90 names it. */
export function reversal (original: Message, stan: number, mti = '0400'): Message {
  const { 18: _18, 25: _25, ...fields } = original.fields
  const acquirer = (fields['32'] ?? '').padStart(11, '0')
  return {
    mti,
    fields: { ...fields, 7: '1129131455', 11: String(stan).padStart(6, '0'), 90: `${original.mti}${fields['11'] ?? ''}${fields['7'] ?? ''}${acquirer}00000000000` }
  }
}

export type Certificates = { ca: string, pairs: Record<string, { cert: string, key: string }>, path: (name: string) => string }

/** A certificate authority of the test and what it signs for NAME and 127.0.0.1, in `dir` as ca.crt, NAME.crt and NAME.key. */
export function makeCertificates (dir: string, names: readonly string[]): Certificates {
  const path = (name: string): string => join(dir, name)
  const issuer = makeCertificate({ commonName: 'test CA', isCa: true }, Date.now())
  writeFileSync(path('ca.crt'), issuer.cert)
  const pairs: Certificates['pairs'] = {}
  for (const name of names) {
    const { cert, key } = makeCertificate({ commonName: name, hosts: [name, '127.0.0.1'], issuer }, Date.now())
    writeFileSync(path(`${name}.crt`), cert)
    writeFileSync(path(`${name}.key`), key)
    pairs[name] = { cert, key }
  }
  return { ca: issuer.cert, pairs, path }
}
