// The broker inside the gateway: aedes 1.2 speaks MQTT 3.1.1 to the soundboxes, and this folder decides everything else.
// Only the embedded-*.ts files know aedes. Its parser, keepalive and CONNACK order are used; its routing and memory are not
// (embedded-void.ts tells why).
//
//   up     socket -> frame meter -> aedes -> authorizePublish: policy, onMessage (durable) -> PUBACK
//   down   publish(topic) -> the device's own connection, one message at a time -> socket
//
// One live connection a serial number. A newer one takes over; the gateway hears onDisconnected(old), then onConnected(new, takeover),
// always in turn.
import type { Duplex } from 'node:stream'
import { Aedes, type Client } from 'aedes'
import type { Log, SoundboxError } from '../../protocol/index.js'
import { openAdmission } from './admission.js'
import type { Broker, BrokerEvents } from './contract.js'
import { brokerHooks, type Counters, type HookDeps, type Session } from './embedded-hooks.js'
import { voidEmitter, voidPersistence } from './embedded-void.js'
import { openFrameMeter } from './frame-meter.js'
import { BROKER_LIMITS, type BrokerLimits } from './limits.js'
import { type BrokerTls, openDoors, type Origin } from './listeners.js'
import { checkDown, unsent } from './policy.js'

/** Ports: 0 = any free one; `mqttPort` null = no plain MQTT. `limits` changes single defaults of BROKER_LIMITS. */
export type EmbeddedBrokerOptions = {
  host: string
  mqttPort: number | null
  tls?: BrokerTls
  websocketPort?: number
  limits?: Partial<BrokerLimits>
  log: Log
  nowMs: () => number
}
type State = HookDeps & { live: Map<string, Session>, origins: WeakMap<object, Origin>, closed: boolean }

/** Starts the broker; its ports are open when it resolves. Throws PORT_TAKEN, CONFIG_INVALID. */
export async function openEmbeddedBroker (options: EmbeddedBrokerOptions, events: BrokerEvents): Promise<Broker> {
  const limits = { ...BROKER_LIMITS, ...options.limits }
  const state = newState(options, limits, events)
  const aedes = await startAedes(state)
  const doors = await openDoors({ ...options, limits }, {
    admission: state.admission,
    onRefused: (address, reason) => {
      state.counters.refused++
      state.log.debug({ address, reason }, 'connection refused')
    },
    onStream: (stream, origin) => accept(state, aedes, stream, origin)
  }).catch(async (error: unknown) => {
    await stopAedes(aedes)
    throw error
  })
  return {
    ports: doors.ports,
    publish: async (topic, payload) => await publish(state, topic, payload),
    disconnect: tid => endSession(state.live.get(tid), 'ended by the gateway'),
    stats: () => ({ connected: state.live.size, ...state.counters, ready: !state.closed }),
    close: async () => {
      if (state.closed) return
      state.closed = true
      const sessions = [...state.live.values()]
      const recorded = Promise.all(sessions.map(async session => await session.handling))
      for (const session of sessions) endSession(session, 'the gateway stops')
      await stopAedes(aedes)
      await doors.close()
      await within(recorded, limits.stopTimeoutMs)
    }
  }
}

function newState (options: EmbeddedBrokerOptions, limits: BrokerLimits, events: BrokerEvents): State {
  const origins = new WeakMap<object, Origin>()
  const live = new Map<string, Session>()
  const counters: Counters = { connects: 0, refused: 0, takeovers: 0, messagesIn: 0, messagesOut: 0 }
  return {
    events, limits, counters, live, origins,
    log: options.log,
    admission: openAdmission(limits, options.nowMs),
    originOf: client => origins.get(client.conn),
    sessions: new WeakMap(),
    current: tid => live.get(tid),
    closed: false
  }
}

async function startAedes (state: State): Promise<Aedes> {
  const { limits, log } = state
  const aedes = await Aedes.createBroker({
    ...brokerHooks(state),
    mq: voidEmitter(),
    persistence: voidPersistence(),
    concurrency: 0, // 100, the default, lets one reader that stops stall all the others.
    drainTimeout: limits.drainTimeoutMs,
    connectTimeout: limits.connectTimeoutMs,
    queueLimit: limits.earlyPacketsMax,
    maxInflightInbound: 1, // QoS 2 in flight; the hooks refuse QoS 2 before.
    maxClientsIdLength: 32
  })
  aedes.on('client', client => contained(state, () => sessionStarted(state, client)))
  aedes.on('clientDisconnect', client => contained(state, () => sessionEnded(state, client)))
  aedes.on('clientError', (client, error) => noteReason(state, client, error))
  aedes.on('connectionError', (client, error) => noteReason(state, client, error))
  aedes.on('subscribe', (subscriptions, client) => {
    const session = state.sessions.get(client)
    // A refused filter is in this list too, with the granted QoS 128 [MQTT-3.9.3-2].
    for (const { topic, qos } of subscriptions) if ((qos as number) < 128) session?.topics.add(topic)
  })
  aedes.on('unsubscribe', (topics, client) => {
    for (const topic of topics) state.sessions.get(client)?.topics.delete(topic)
  })
  ;(aedes as NodeJS.EventEmitter).on('error', (err: unknown) => log.error({ err }, 'the embedded broker reports a fault'))
  return aedes
}

/** Gives a stream to aedes, behind a meter that closes it when a packet announces too much. */
function accept (state: State, aedes: Aedes, stream: Duplex, origin: Origin): void {
  const { connectBytesMax, frameBytesMax } = state.limits
  const fits = openFrameMeter(connectBytesMax, frameBytesMax)
  const read = stream.read.bind(stream)
  stream.read = (size?: number) => {
    const chunk: unknown = read(size)
    if (!(chunk instanceof Uint8Array) || fits(chunk)) return chunk
    if (!state.sessions.has(client)) state.counters.refused++
    state.log.warn({ address: origin.address, frameBytesMax }, 'packet over the size limit; the connection is closed')
    stream.destroy()
    return null
  }
  state.origins.set(stream, origin)
  const client = aedes.handle(stream)
}

function sessionStarted (state: State, client: Client): void {
  const session = state.sessions.get(client)
  if (session === undefined || client.closed) return
  state.live.set(session.tid, session)
  state.counters.connects++
  const { tid, origin: { address, tls }, takeover } = session
  state.log.debug({ tid, address, tls, takeover }, 'soundbox connected')
  state.events.onConnected({ tid, address, tls, takeover })
}

function sessionEnded (state: State, client: Client): void {
  const session = state.sessions.get(client)
  if (session === undefined || state.live.get(session.tid) !== session) return
  state.live.delete(session.tid)
  const reason = session.closeReason ?? 'connection closed'
  state.log.debug({ tid: session.tid, reason }, 'soundbox disconnected')
  state.events.onDisconnected(session.tid, reason)
}

function noteReason (state: State, client: Client, error: NodeJS.ErrnoException): void {
  const session = state.sessions.get(client)
  const reason = error.code ?? error.message.slice(0, 100)
  if (session !== undefined) session.closeReason ??= reason
  else state.log.debug({ address: state.origins.get(client.conn)?.address, reason }, 'connection ended before its login')
}

function endSession (session: Session | undefined, reason: string): void {
  if (session === undefined) return
  session.closeReason ??= reason
  session.client.close()
}

async function publish (state: State, topic: string, payload: Buffer): Promise<void> {
  if (state.closed) throw unsent('the broker is closed')
  const { tid, name } = checkDown(topic, payload.length, state.limits.payloadBytesMax)
  const session = state.live.get(tid)
  if (session === undefined) throw unsent(`soundbox ${tid} is not connected`)
  if (!session.topics.has(topic)) throw unsent(`soundbox ${tid} has not subscribed to ${name}`)
  if (session.sendingCount >= state.limits.publishesWaitingMax) throw tooSlow(session, state.log)
  session.sendingCount++
  const mine = session.sending.then(async () => await handOver(session, topic, payload))
  session.sending = mine.catch(() => {})
  try {
    await mine
    state.counters.messagesOut++
  } finally {
    session.sendingCount--
  }
}

/** Resolves when the socket has taken the message; a socket that is full takes it when it drains. */
async function handOver (session: Session, topic: string, payload: Buffer): Promise<void> {
  const { client, tid } = session
  const lost = (): SoundboxError => unsent(`the connection of soundbox ${tid} closed before the message was sent`)
  if (client.closed) throw lost()
  await new Promise<void>((resolve, reject) => {
    // aedes calls back without the error; whether the connection still stands is the answer.
    client.publish({ cmd: 'publish', topic, payload, qos: 1, retain: false, dup: false }, () => client.closed ? reject(lost()) : resolve())
  })
}

function tooSlow (session: Session, log: Log): SoundboxError {
  if (session.client.conn.writableNeedDrain) {
    log.warn({ tid: session.tid, waiting: session.sendingCount }, 'soundbox does not read; its connection is closed')
    endSession(session, 'it does not read')
  }
  return unsent(`${session.sendingCount} messages wait for soundbox ${session.tid} already`)
}

function contained (state: State, run: () => void): void {
  try {
    run()
  } catch (err) {
    state.log.error({ err }, 'the gateway failed on an event of the broker')
  }
}

async function stopAedes (aedes: Aedes): Promise<void> {
  await new Promise<void>(resolve => aedes.close(() => resolve()))
}

async function within (work: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([work, new Promise(resolve => { timer = setTimeout(resolve, ms) })])
  clearTimeout(timer)
}
