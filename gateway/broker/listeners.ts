// The doors of the embedded broker: MQTT over TCP, over TLS (also with client certificates) and over WebSocket [MQTT-6.0.0].
// Each door counts its sockets in before anything is read from them, and out when they close.
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { createWebSocketStream, WebSocketServer } from 'ws'
import { type Log, SoundboxError } from '../../protocol/index.js'
import type { Admission } from './admission.js'
import type { BrokerLimits } from './limits.js'

export type BrokerTls = { port: number, key: string | Buffer, cert: string | Buffer, ca?: string | Buffer, requestClientCert?: boolean }
/** Ports: 0 = any free one, null = this door stays shut. */
export type DoorOptions = { host: string, mqttPort: number | null, tls?: BrokerTls, websocketPort?: number, limits: BrokerLimits, log: Log }
/** Where a stream comes from. `certificateName`: common name of a client certificate that our CA signed. */
export type Origin = { address: string, tls: boolean, certificateName: string | undefined }
export type Doors = { ports: { mqtt: number | null, mqtts: number | null, websocket: number | null }, close: () => Promise<void> }
type DoorDeps = { admission: Admission, onRefused: (address: string, reason: string) => void, onStream: (stream: Duplex, origin: Origin) => void }

/** Opens the doors. Throws PORT_TAKEN, CONFIG_INVALID (certificate or key unreadable, port not allowed); then none is open. */
export async function openDoors (options: DoorOptions, deps: DoorDeps): Promise<Doors> {
  const sockets = new Set<Socket>()
  const servers: (Server | HttpServer)[] = []
  const close = async (): Promise<void> => {
    const closing = servers.map(async server => await new Promise<void>(resolve => server.close(() => resolve())))
    for (const socket of sockets) socket.destroy()
    await Promise.all(closing)
  }
  const open = async (server: Server | HttpServer, port: number, setting: string): Promise<number> => {
    server.prependListener('connection', (socket: Socket) => countIn(socket, sockets, deps))
    await listen(server, { port, host: options.host, setting })
    server.on('error', err => options.log.error({ err, port }, 'a connection could not be accepted')) // As for want of descriptors; the next may succeed.
    servers.push(server)
    return (server.address() as AddressInfo).port
  }
  try {
    const { mqttPort, tls, websocketPort } = options
    const ports = {
      mqtt: mqttPort === null ? null : await open(tcpDoor(deps), mqttPort, 'SOUNDBOX_MQTT_PORT'),
      mqtts: tls === undefined ? null : await open(tlsDoor(tls, options, deps), tls.port, 'SOUNDBOX_MQTTS_PORT'),
      websocket: websocketPort === undefined ? null : await open(websocketDoor(options, deps), websocketPort, 'SOUNDBOX_MQTT_WEBSOCKET_PORT')
    }
    return { ports, close }
  } catch (error) {
    await close()
    throw error
  }
}

function countIn (socket: Socket, sockets: Set<Socket>, deps: DoorDeps): void {
  const address = socket.remoteAddress ?? 'unknown'
  socket.on('error', () => {}) // The owner of the stream hears of it too; before there is one, an error needs a listener.
  const reason = deps.admission.enter(address)
  if (reason !== undefined) {
    deps.onRefused(address, reason)
    socket.destroy()
    return
  }
  sockets.add(socket)
  socket.once('close', () => {
    sockets.delete(socket)
    deps.admission.leave(address)
  })
}

function tcpDoor (deps: DoorDeps): Server {
  const server = createTcpServer({ noDelay: true })
  server.on('connection', socket => {
    if (!socket.destroyed) deps.onStream(socket, { address: socket.remoteAddress ?? 'unknown', tls: false, certificateName: undefined })
  })
  return server
}

function tlsDoor (tls: BrokerTls, options: DoorOptions, deps: DoorDeps): Server {
  const { key, cert, ca } = tls
  const settings = { key, cert, ...(ca === undefined ? {} : { ca }), requestCert: tls.requestClientCert === true, rejectUnauthorized: false }
  let server: Server
  try {
    server = createTlsServer({ ...settings, noDelay: true, handshakeTimeout: options.limits.connectTimeoutMs })
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', 'the TLS key or certificate of the broker cannot be used: check that both are PEM and belong together', { cause })
  }
  server.on('secureConnection', (socket: TLSSocket) => {
    deps.onStream(socket, { address: socket.remoteAddress ?? 'unknown', tls: true, certificateName: certificateNameOf(socket) })
  })
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
    options.log.debug({ address: socket.remoteAddress, reason: error.code }, 'TLS handshake failed')
    socket.destroy()
  })
  return server
}

function certificateNameOf (socket: TLSSocket): string | undefined {
  if (!socket.authorized) return undefined
  const name: unknown = socket.getPeerCertificate().subject?.CN
  return typeof name === 'string' ? name : undefined
}

function websocketDoor (options: DoorOptions, deps: DoorDeps): HttpServer {
  const { limits, log } = options
  const server = createHttpServer({ noDelay: true, connectionsCheckingInterval: limits.connectTimeoutMs }, (_request, response) => {
    response.writeHead(426, { connection: 'close', 'content-type': 'text/plain' }).end('MQTT over WebSocket only\n')
  })
  server.timeout = limits.connectTimeoutMs // Says nothing at all; ws lifts it from a socket that became a WebSocket.
  server.headersTimeout = limits.connectTimeoutMs
  server.requestTimeout = limits.connectTimeoutMs
  const websockets = new WebSocketServer({
    server,
    maxPayload: limits.frameBytesMax,
    perMessageDeflate: false,
    handleProtocols: offered => offered.has('mqtt') ? 'mqtt' : false
  })
  websockets.on('error', () => {}) // The HTTP server reports its own.
  websockets.on('connection', (websocket, request) => {
    const stream = createWebSocketStream(websocket)
    if (websocket.protocol === 'mqtt') {
      deps.onStream(stream, { address: request.socket.remoteAddress ?? 'unknown', tls: false, certificateName: undefined })
      return
    }
    log.debug({ address: request.socket.remoteAddress }, 'WebSocket without the subprotocol mqtt refused')
    stream.on('error', () => {})
    websocket.close(1002, 'subprotocol mqtt is required')
  })
  return server
}

async function listen (server: Server | HttpServer, where: { port: number, host: string, setting: string }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(listenFault(cause, where)))
    server.listen(where.port, where.host, () => resolve())
  })
  server.removeAllListeners('error')
}

function listenFault (cause: NodeJS.ErrnoException, where: { port: number, host: string, setting: string }): SoundboxError {
  if (cause.code === 'EADDRINUSE') {
    return new SoundboxError('PORT_TAKEN', `port ${where.port} of ${where.host} is taken by another program: stop it or set ${where.setting} to another port`, { cause })
  }
  return new SoundboxError('CONFIG_INVALID', `port ${where.port} of ${where.host} cannot be opened (${cause.code ?? 'unknown fault'}): correct ${where.setting} or the host`, { cause })
}
