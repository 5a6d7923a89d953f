// The door for switches: plain and TLS ports, who may come in, and the life of each connection from accept to drain.
//
// A peer is known by its client certificate (TLS port) or by its address (the common port, or one of its own). What no profile knows is
// closed without a word. Everything is counted and limited: connections in all and for each peer, requests in work, time.
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { isSoundboxError, type Log, SoundboxError, type Timers } from '../../protocol/index.js'
import { type Iso8583Error, isMtiRequest, type Message } from '../../protocol/iso8583/index.js'
import { answerTo, codeOfError, isNetwork, openStans } from './dialect.js'
import { type Audit, correlationKey, type Counters, type IsoMeter, type LinkHooks, noCounters, openHooks } from './hooks.js'
import { type Link, openLink, TICK_MS } from './link.js'
import { type Network, openNetwork } from './network.js'
import type { PeerProfile } from './peers.js'
import { openWire, type Wire } from './wire.js'

export const CONNECTIONS_MAX = 1024
/** A TLS handshake must be done by then. */
export const HANDSHAKE_MS = 10_000
/** On close: the peer's answer to our sign-off is awaited so long, and what is in work so long. */
export const SIGN_OFF_MS = 1_000
export const DRAIN_MS = 10_000

export type IsoTls = { port: number, key: string | Buffer, cert: string | Buffer, ca: string | Buffer }
export type IsoServerDeps = {
  host: string
  /** Common port of the peers without TLS; 0 = any free one. Opened only if there is such a peer. */
  port: number
  /** Client certificates are demanded, and must be signed by `ca`. */
  tls: IsoTls | null
  peers: readonly PeerProfile[]
  handle: (request: Message, peer: PeerProfile) => Message | undefined | Promise<Message | undefined>
  timers: Timers
  /** Wall clock. */
  nowMs: () => number
  log: Log
  audit?: Audit | undefined
  meter?: IsoMeter | undefined
  connectionsMax?: number
}
export type IsoServerStats = Counters & { connections: number, ready: number, inFlight: number, refused: number }
export type IsoServer = { port: number | null, tlsPort: number | null, stats: () => IsoServerStats, close: () => Promise<void> }

type Peer = { profile: PeerProfile, wire: Wire, hooks: LinkHooks, connections: number }
type Connection = { peer: Peer, link: Link, network: Network }
type House = IsoServerDeps & { connections: Set<Connection>, counters: Counters, all: readonly Peer[], nextStan: () => number, refused: number }

/** Opens the ports. Throws PORT_TAKEN, CONFIG_INVALID (certificate or key cannot be used). */
export async function openIsoServer (deps: IsoServerDeps): Promise<IsoServer> {
  const counters = noCounters()
  const all = deps.peers.map(profile => {
    const wire = openWire(profile.wire, deps.timers.nowMs)
    return { profile, wire, hooks: openHooks(profile.name, counters, { audit: deps.audit, meter: deps.meter, describe: wire.describe }), connections: 0 }
  })
  const house: House = { ...deps, connections: new Set(), counters, all, nextStan: openStans(1), refused: 0 }
  const servers: Server[] = []
  const stopTicks = startTicks(house)
  const close = async (): Promise<void> => {
    const closed = servers.map(server => new Promise(resolve => server.close(resolve)))
    await drain(house)
    stopTicks()
    await Promise.all(closed)
  }
  try {
    const { port, tlsPort } = await openDoors(house, servers)
    return {
      port, tlsPort, close,
      stats: () => ({
        ...counters, parseErrors: { ...counters.parseErrors }, connections: house.connections.size, refused: house.refused,
        ready: count(house, ({ network }) => network.isReady() ? 1 : 0), inFlight: count(house, ({ link }) => link.inFlight())
      })
    }
  } catch (error) {
    await close()
    throw error
  }
}

function count (house: House, of: (connection: Connection) => number): number {
  let sum = 0
  for (const connection of house.connections) sum += of(connection)
  return sum
}

async function openDoors (house: House, servers: Server[]): Promise<{ port: number | null, tlsPort: number | null }> {
  const open = async (server: Server, port: number, setting: string): Promise<number> => {
    server.maxConnections = 2 * (house.connectionsMax ?? CONNECTIONS_MAX) // Those that are not yet known to be peers count, too.
    await listen(server, { port, host: house.host, setting })
    servers.push(server)
    return (server.address() as AddressInfo).port
  }
  const plain = house.all.filter(({ profile }) => profile.certificate === null)
  const ports: { port: number | null, tlsPort: number | null } = { port: null, tlsPort: null }
  for (const wanted of new Set(plain.map(({ profile }) => profile.port))) {
    const here = plain.filter(({ profile }) => profile.port === wanted)
    const server = createTcpServer({ noDelay: true, allowHalfOpen: true }, socket => { accept(house, socket, byAddress(here, socket)) })
    const opened = await open(server, wanted ?? house.port, wanted === null ? 'SOUNDBOX_ISO_PORT' : 'the port of the peer')
    if (wanted === null) ports.port = opened
  }
  if (house.tls !== null) ports.tlsPort = await open(tlsDoor(house, house.tls), house.tls.port, 'SOUNDBOX_ISO_TLS_PORT')
  return ports
}

function tlsDoor (house: House, { key, cert, ca }: IsoTls): Server {
  let server: Server
  try {
    server = createTlsServer({ key, cert, ca, requestCert: true, rejectUnauthorized: true, handshakeTimeout: HANDSHAKE_MS, noDelay: true, allowHalfOpen: true }, socket => {
      accept(house, socket, byCertificate(house, socket))
    })
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', 'the TLS files of ISO 8583 cannot be used: check that key and certificate are PEM and belong together', { cause })
  }
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
    house.refused++
    house.log.warn({ address: socket.remoteAddress, reason: error.code }, 'TLS handshake of a switch failed')
    socket.destroy()
  })
  return server
}

function byAddress (candidates: readonly Peer[], socket: Socket): Peer | undefined {
  return candidates.find(({ profile }) => profile.allowsAddress(socket.remoteAddress ?? ''))
}

function byCertificate (house: House, socket: TLSSocket): Peer | undefined {
  const name: unknown = socket.getPeerCertificate().subject?.CN
  return typeof name === 'string' ? house.all.find(({ profile }) => profile.certificate === name) : undefined
}

async function listen (server: Server, { port, host, setting }: { port: number, host: string, setting: string }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const code = cause.code === 'EADDRINUSE' ? 'PORT_TAKEN' : 'CONFIG_INVALID'
      reject(new SoundboxError(code, `ISO 8583 port ${port} of ${host} cannot be opened (${cause.code ?? 'unknown fault'}): see ${setting}`, { cause }))
    })
    server.listen(port, host, resolve)
  })
  server.removeAllListeners('error')
  server.on('error', () => {}) // accept() may fail for want of descriptors; the next one may succeed.
}

function accept (house: House, socket: Socket, peer: Peer | undefined): void {
  const address = socket.remoteAddress
  const reason = peer === undefined ? 'no profile knows this peer'
    : house.connections.size >= (house.connectionsMax ?? CONNECTIONS_MAX) ? 'too many connections' : peer.connections >= peer.profile.connectionsMax ? 'too many connections of this peer' : undefined
  if (peer === undefined || reason !== undefined) {
    house.refused++
    house.log.warn({ address, peer: peer?.profile.name, reason }, 'connection of a switch refused')
    socket.on('error', () => {})
    socket.destroy()
    return
  }
  const { profile } = peer
  const log = house.log.child({ peer: profile.name, address })
  const link = openLink({
    socket, wire: peer.wire, limits: profile.limits, nowMs: house.timers.nowMs, keyOf: correlationKey, hooks: peer.hooks,
    onRequest: request => serve(house, connection, request),
    onFault: (request, error) => faultAnswer(house, connection, request, error),
    onUnreadable: error => unreadableAnswer(connection, error, log),
    onClosed (why) {
      house.connections.delete(connection)
      peer.connections--
      log.info({ reason: why }, 'switch disconnected')
    }
  })
  const network = openNetwork({
    link, wire: peer.wire, policy: profile.session, nowMs: house.timers.nowMs, wallMs: house.nowMs, nextStan: house.nextStan,
    onReady: ready => { log.info({ ready }, ready ? 'switch signed on' : 'switch signed off') }
  })
  const connection: Connection = { peer, link, network }
  house.connections.add(connection)
  peer.connections++
  log.info({}, 'switch connected')
  network.open()
}

function serve (house: House, { network, peer }: Connection, request: Message): Message | undefined | Promise<Message | undefined> {
  if (isNetwork(request.mti)) return network.handle(request)
  if (!network.isReady()) throw new SoundboxError('ISO_UNAVAILABLE', 'the switch has not signed on')
  return house.handle(request, peer.profile)
}

/** The one place where an error becomes DE 39. */
function faultAnswer (house: House, { peer }: Connection, request: Message, error: unknown): Message {
  if (!isSoundboxError(error)) {
    peer.hooks.count('handler-fault')
    house.log.error({ err: error, peer: peer.profile.name, mti: request.mti }, 'a request of a switch failed')
  } else house.log.warn({ code: error.code, peer: peer.profile.name, mti: request.mti }, 'a request of a switch was refused')
  return answerTo(request, codeOfError(error))
}

/** What could be read before the fault is enough for an answer if it has the MTI of a request and a trace number. */
function unreadableAnswer ({ peer }: Connection, error: Iso8583Error, log: Log): Message | undefined {
  log.warn({ reason: error.reason, path: error.path, offset: error.offset }, 'a message of a switch cannot be read')
  const mti = error.decoded?.mti
  if (peer.profile.onParseError === 'close' || mti === undefined || !isMtiRequest(mti) || error.decoded?.fields['11'] === undefined) return undefined
  return answerTo({ mti, fields: error.decoded.fields }, '30')
}

function startTicks (house: House): () => void {
  let stop = (): void => {}
  const again = (): void => {
    stop = house.timers.after(TICK_MS, () => {
      for (const { link, network } of house.connections) {
        link.tick()
        network.tick()
      }
      again()
    })
  }
  again()
  return () => { stop() }
}

/** Signs off everywhere, lets what is in work be answered, then ends. */
async function drain (house: House): Promise<void> {
  const startedMs = house.timers.nowMs()
  for (const { network } of [...house.connections]) network.close()
  while (house.connections.size > 0) {
    await new Promise<void>(resolve => { house.timers.after(Math.min(TICK_MS, 10), resolve) })
    const passedMs = house.timers.nowMs() - startedMs
    for (const { link } of [...house.connections]) {
      if (passedMs >= DRAIN_MS) link.destroy('closing')
      else if (passedMs >= SIGN_OFF_MS) link.end('closing')
    }
  }
}
