// The smallest MQTT 3.1.1 client that a soundbox needs: CONNECT, SUBSCRIBE, PUBLISH at QoS 0 and 1, PUBACK, PINGREQ, DISCONNECT, on a
// bare socket. No queue, no timers and no reconnect of its own: ten thousand of them fit in a process, and the box above decides.
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { generate, type Packet, parser as openParser } from 'mqtt-packet'

/** `ca`: PEM; `null` with a plain port. */
export type Endpoint = { host: string, port: number, tls: { ca?: string } | null }
export type ConnectOptions = Endpoint & { clientId: string, password: string, keepaliveS: number, will: { topic: string, payload: Buffer } }

export type MqttClientEvents = {
  /** CONNACK said yes. */
  onConnected: () => void
  /** PUBACK goes out when it returns. */
  onMessage: (topic: string, payload: Buffer) => void
  /** Once, whatever ended it. */
  onClosed: (reason: string) => void
}

export type MqttClient = {
  subscribe: (topics: readonly string[], onGranted: () => void) => void
  /** `onConfirmed`: PUBACK came; never called when the connection ends before it. */
  publish: (topic: string, payload: Buffer, qos: 0 | 1, onConfirmed?: () => void) => void
  /** Keeps the connection alive; call it more often than the keepalive. Ends one whose other side went silent. */
  tick: (nowMs: number) => void
  /** Stops and resumes reading from the socket: a box that hangs. */
  pauseReading: () => void
  resumeReading: () => void
  /** DISCONNECT, then close. */
  end: () => void
  /** No goodbye: the will goes out. */
  destroy: () => void
}

/** From the first tick to CONNACK. */
export const CONNECT_TIMEOUT_MS = 15_000
/** A packet that announces more is not read. */
export const FRAME_BYTES_MAX = 65_536
/** Publishes without PUBACK; one more is a fault of the box and ends the connection. */
export const UNCONFIRMED_MAX = 1024

/** Connects at once. */
export function openMqttClient (options: ConnectOptions, events: MqttClientEvents): MqttClient {
  const { host, port, tls } = options
  const socket = tls === null ? connectTcp({ host, port, noDelay: true }) : connectTls({ host, port, ...tls })
  const session = openSession(socket, events)
  let reason = 'the other side closed'
  socket.once(tls === null ? 'connect' : 'secureConnect', () => session.send(connectPacket(options)))
  socket.on('error', error => { reason = (error as NodeJS.ErrnoException).code ?? error.name })
  socket.once('close', () => events.onClosed(session.fault() ?? reason))
  let openedAt: number | undefined
  let sentAt = 0
  let pingedAt: number | undefined
  return {
    subscribe: (topics, onGranted) => session.request({ cmd: 'subscribe', subscriptions: topics.map(topic => ({ topic, qos: 1 as const })) }, onGranted),
    publish: (topic, payload, qos, onConfirmed) => {
      const packet = { cmd: 'publish' as const, topic, payload, qos, dup: false, retain: false }
      if (qos === 0) session.send(packet)
      else session.request(packet, onConfirmed ?? (() => {}))
    },
    tick: nowMs => {
      openedAt ??= nowMs
      if (!session.isConnected()) {
        if (nowMs - openedAt > CONNECT_TIMEOUT_MS) socket.destroy()
        return
      }
      if (pingedAt !== undefined && session.takePong()) pingedAt = undefined
      if (pingedAt !== undefined && nowMs - pingedAt > options.keepaliveS * 1000) socket.destroy()
      if (pingedAt !== undefined || nowMs - sentAt < options.keepaliveS * 500) return
      sentAt = nowMs
      pingedAt = nowMs
      session.send({ cmd: 'pingreq' })
    },
    pauseReading: () => { socket.pause() },
    resumeReading: () => { socket.resume() },
    end: () => {
      session.send({ cmd: 'disconnect' })
      socket.end()
      socket.resume()
    },
    destroy: () => { socket.destroy() }
  }
}

type Session = { send: (packet: Packet) => void, request: (packet: Packet, onDone: () => void) => void, isConnected: () => boolean, takePong: () => boolean, fault: () => string | undefined }

/** The packets of one connection, both ways. */
function openSession (socket: Socket, events: MqttClientEvents): Session {
  const unconfirmed = new Map<number, () => void>()
  const parser = openParser({ protocolVersion: 4 })
  let nextId = 1
  let isConnected = false
  let hasPong = false
  let fault: string | undefined
  const give = (why: string): void => {
    fault ??= why
    socket.destroy()
  }
  const send = (packet: Packet): void => { if (socket.writable) socket.write(generate(packet, { protocolVersion: 4 })) }
  const confirm = (id: number | undefined): void => {
    const onDone = unconfirmed.get(id ?? 0)
    unconfirmed.delete(id ?? 0)
    onDone?.()
  }
  parser.on('error', () => give('not MQTT'))
  parser.on('packet', packet => {
    if (packet.cmd === 'connack' && packet.returnCode === 0) {
      isConnected = true
      events.onConnected()
    } else if (packet.cmd === 'connack') give(`refused with code ${packet.returnCode}`)
    else if (packet.cmd === 'suback' && packet.granted.includes(128)) give('subscription refused')
    else if (packet.cmd === 'suback' || packet.cmd === 'puback') confirm(packet.messageId)
    else if (packet.cmd === 'pingresp') hasPong = true
    else if (packet.cmd === 'publish') {
      events.onMessage(packet.topic, typeof packet.payload === 'string' ? Buffer.from(packet.payload) : packet.payload)
      if (packet.qos === 1 && packet.messageId !== undefined) send({ cmd: 'puback', messageId: packet.messageId })
    }
  })
  socket.on('data', chunk => { if (fault === undefined && parser.parse(chunk) > FRAME_BYTES_MAX) give('a packet over the limit') })
  return {
    send,
    request: (packet, onDone) => {
      if (unconfirmed.size >= UNCONFIRMED_MAX) {
        give('too many unconfirmed messages')
        return
      }
      while (unconfirmed.has(nextId)) nextId = nextId % 65_535 + 1
      unconfirmed.set(nextId, onDone)
      send({ ...packet, messageId: nextId })
      nextId = nextId % 65_535 + 1
    },
    isConnected: () => isConnected,
    takePong: () => {
      const had = hasPong
      hasPong = false
      return had
    },
    fault: () => fault
  }
}

function connectPacket ({ clientId, password, keepaliveS, will }: ConnectOptions): Packet {
  return {
    cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId, username: clientId, password: Buffer.from(password, 'utf8'),
    keepalive: keepaliveS, will: { topic: will.topic, payload: will.payload, qos: 1, retain: false }
  }
}
