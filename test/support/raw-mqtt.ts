// An MQTT client that does exactly what a test says and nothing by itself: no ping, no PUBACK, no reconnect. For hostile packets too.
import { connect as connectTcp, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import mqttPacket, { type IConnectPacket, type Packet } from 'mqtt-packet'
import { createWebSocketStream, WebSocket } from 'ws'

export type RawMqtt = {
  stream: Duplex
  /** All that came, in order. */
  packets: Packet[]
  send: (packet: Packet) => void
  sendBytes: (bytes: Uint8Array) => void
  /** The first packet of this kind that no earlier call has taken. Rejects when the connection ends before it. */
  next: <T extends Packet['cmd']>(cmd: T) => Promise<Extract<Packet, { cmd: T }>>
  /** Resolves when the connection has ended, from whichever side. */
  closed: Promise<void>
  end: () => void
}
type Where = { port: number, host?: string, tls?: ConnectionOptions, websocket?: boolean }
type Waiter = { cmd: string, resolve: (packet: Packet) => void, reject: (error: Error) => void }

/** Connects the stream; sends nothing. */
export async function openRawMqtt (where: Where): Promise<RawMqtt> {
  const stream = await openStream(where)
  const parser = mqttPacket.parser({ protocolVersion: 4 })
  const packets: Packet[] = []
  const untaken: Packet[] = []
  const waiters: Waiter[] = []
  let ended = false
  parser.on('packet', (packet: Packet) => {
    packets.push(packet)
    const at = waiters.findIndex(waiter => waiter.cmd === packet.cmd)
    if (at < 0) untaken.push(packet)
    else waiters.splice(at, 1)[0]?.resolve(packet)
  })
  const closed = new Promise<void>(resolve => stream.once('close', () => {
    ended = true
    for (const waiter of waiters.splice(0)) waiter.reject(new Error(`connection ended before ${waiter.cmd}`))
    resolve()
  }))
  stream.on('error', () => {})
  stream.on('end', () => stream.destroy())
  stream.on('data', (chunk: Buffer) => parser.parse(chunk))
  return {
    stream,
    packets,
    send: packet => { stream.write(mqttPacket.generate(packet)) },
    sendBytes: bytes => { stream.write(bytes) },
    next: async <T extends Packet['cmd']>(cmd: T) => {
      const at = untaken.findIndex(packet => packet.cmd === cmd)
      if (at >= 0) return untaken.splice(at, 1)[0] as Extract<Packet, { cmd: T }>
      if (ended) throw new Error(`connection has ended; no ${cmd}`)
      return await new Promise<Packet>((resolve, reject) => waiters.push({ cmd, resolve, reject })) as Extract<Packet, { cmd: T }>
    },
    closed,
    end: () => stream.destroy()
  }
}

/** A CONNECT of a soundbox as it should be; `changes` spoil it. */
export function connectPacket (tid: string, changes: Partial<IConnectPacket> = {}): IConnectPacket {
  return {
    cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 60, clientId: tid, username: tid, password: Buffer.from(`secret of ${tid}`), ...changes
  }
}

/** A connected soundbox, subscribed to its three topics unless told otherwise. */
export async function loginRaw (where: Where, tid: string, options: { changes?: Partial<IConnectPacket>, subscribe?: boolean } = {}): Promise<RawMqtt> {
  const raw = await openRawMqtt(where)
  raw.send(connectPacket(tid, options.changes))
  const { returnCode } = await raw.next('connack')
  if (returnCode !== 0) throw new Error(`CONNACK ${returnCode}`)
  if (options.subscribe === false) return raw
  raw.send({ cmd: 'subscribe', messageId: 1, subscriptions: ['announce', 'command', 'desired'].map(name => ({ topic: `soundbox/v1/${tid}/${name}`, qos: 1 })) })
  await raw.next('suback')
  return raw
}

async function openStream (where: Where): Promise<Duplex> {
  const { port, host = '127.0.0.1', tls } = where
  if (where.websocket === true) return await openWebsocket(`ws://${host}:${port}/mqtt`)
  const socket: Socket = tls === undefined ? connectTcp({ port, host, noDelay: true }) : connectTls({ port, host, ...tls })
  await new Promise<void>((resolve, reject) => {
    socket.once(tls === undefined ? 'connect' : 'secureConnect', resolve)
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('connection closed while it opened')))
  })
  return socket
}

async function openWebsocket (url: string): Promise<Duplex> {
  const websocket = new WebSocket(url, 'mqtt')
  await new Promise<void>((resolve, reject) => {
    websocket.once('open', resolve)
    websocket.once('error', reject)
  })
  return createWebSocketStream(websocket)
}
