// Any MQTT 3.1.1 cluster as the broker (Mosquitto, EMQX, VerneMQ, HiveMQ, ...), by mqtt.js.
//
//   down   publish -> QoS 1 -> resolves with the cluster's PUBACK; never queued while there is no connection
//   up     $share/{group}/soundbox/v1/+/{hello,ack,...} -> onMessage (durable) -> PUBACK
//
// Several gateways share one group: each message reaches one of them. mqtt.js confirms one message at a time per connection, so
// `receivers` connections share the group too. Meanwhile it reads nothing else: whoever publishes while it handles a message would wait
// for a confirmation that stands behind that very message. So publishes have a connection of their own.
// A connection that ends is thrown away with all that waited on it and a fresh one is made after a pause with jitter: mqtt.js' own
// reconnect would send old publishes again behind the pump's back. Messages that were on their way to it are lost, though soundboxes
// have their confirmation from the cluster: onGap tells.
// Presence: a hello, or any other message, says that the soundbox is there; its last will (or its own word) says that it has gone.
// Who may connect and use which topic is the cluster's to enforce; policy.ts answers its HTTP questions.
import mqtt, { type IClientOptions, type IPublishPacket, type MqttClient } from 'mqtt'
import { type Log, makeSecret, parseTopic, SoundboxError, TOPIC_ROOT, UP_TOPICS, type UpTopic } from '../../protocol/index.js'
import type { Broker, BrokerEvents } from './contract.js'
import { BROKER_LIMITS } from './limits.js'
import { checkDown, unsent } from './policy.js'

export type ExternalLimits = {
  /** Pause before a new connection: doubled from the first to the last, then half of it at random. */
  reconnectMinMs: number
  reconnectMaxMs: number
  connectTimeoutMs: number
  /** How long the start waits for the cluster; then the gateway starts without it. */
  startTimeoutMs: number
  keepaliveSeconds: number
  /** A publish that the cluster has not confirmed by then ends the connection. */
  publishTimeoutMs: number
  publishesInFlightMax: number
  /** Attempts to record one message, the pause doubling from the first; then it stays unconfirmed and the connection ends. */
  recordAttemptsMax: number
  recordPauseMs: number
  receiversMax: number
}
export const EXTERNAL_LIMITS: Readonly<ExternalLimits> = Object.freeze({
  reconnectMinMs: 500,
  reconnectMaxMs: 30_000,
  connectTimeoutMs: 10_000,
  startTimeoutMs: 5000,
  keepaliveSeconds: 30,
  publishTimeoutMs: 5000,
  publishesInFlightMax: 1000,
  recordAttemptsMax: 5,
  recordPauseMs: 100,
  receiversMax: 16
})

/**
 * `url`: mqtt, mqtts, ws or wss. `sharedGroup`: set it when the cluster knows $share (needed for several gateways); without it one
 * gateway receives everything. `receivers`: connections that take messages, with a group only. `clientId` must differ between gateways.
 */
export type ExternalBrokerOptions = {
  url: string
  username?: string
  password?: string
  clientId?: string
  tls?: { ca?: string | Buffer, key?: string | Buffer, cert?: string | Buffer }
  sharedGroup?: string
  receivers?: number
  limits?: Partial<ExternalLimits>
  log: Log
  /** 0 <= x < 1, for the jitter. */
  random: () => number
}
type Link = { isReady: () => boolean, publish: (topic: string, payload: Buffer) => Promise<void>, close: () => Promise<void> }
type State = {
  options: ExternalBrokerOptions
  limits: ExternalLimits
  events: BrokerEvents
  log: Log
  online: Set<string>
  counters: { connects: number, refused: number, takeovers: number, messagesIn: number, messagesOut: number }
  inFlight: number
}
/** Hello and presence come over the first connection only, so that they keep their order. */
const OTHER_LINK_TOPICS: readonly UpTopic[] = ['ack', 'reported', 'telemetry']
const GROUP = /^[A-Za-z0-9_-]{1,64}$/

/** Connects to the cluster. Resolves also when it does not answer yet: `stats().ready` tells. Throws CONFIG_INVALID. */
export async function openExternalBroker (options: ExternalBrokerOptions, events: BrokerEvents): Promise<Broker> {
  const limits = { ...EXTERNAL_LIMITS, ...options.limits }
  const receivers = checkOptions(options, limits)
  const counters = { connects: 0, refused: 0, takeovers: 0, messagesIn: 0, messagesOut: 0 }
  const state: State = { options, limits, events, log: options.log, online: new Set(), counters, inFlight: 0 }
  const clientId = options.clientId ?? `soundbox-gateway-${makeSecret(9)}`
  let start = (): void => {}
  const started = new Promise<void>(resolve => { start = resolve })
  const timer = setTimeout(start, limits.startTimeoutMs)
  const isReady = (): boolean => sender.isReady() && links.some(link => link.isReady())
  const onReady = (): void => { if (isReady()) start() }
  const links = Array.from({ length: receivers }, (_, index) =>
    openLink(state, { clientId: index === 0 ? clientId : `${clientId}-${index}`, topics: index === 0 ? UP_TOPICS : OTHER_LINK_TOPICS, onReady }))
  const sender = openLink(state, { clientId: `${clientId}-sender`, topics: [], onReady })
  await started
  clearTimeout(timer)
  return {
    ports: { mqtt: null, mqtts: null, websocket: null },
    publish: async (topic, payload) => await publish(state, sender, topic, payload),
    disconnect: tid => state.log.warn({ tid }, 'an external broker ends the connection of a soundbox at its next login only'),
    stats: () => ({ connected: state.online.size, ...counters, ready: isReady() }),
    close: async () => { await Promise.all([sender, ...links].map(async link => await link.close())) }
  }
}

function checkOptions (options: ExternalBrokerOptions, limits: ExternalLimits): number {
  const receivers = options.receivers ?? 1
  if (!/^(?:mqtts?|wss?):\/\/[^/\s]+/.test(options.url) || !URL.canParse(options.url)) {
    throw new SoundboxError('CONFIG_INVALID', 'the URL of the broker must be mqtt://host:port, mqtts://, ws:// or wss://')
  }
  if (options.sharedGroup !== undefined && !GROUP.test(options.sharedGroup)) {
    throw new SoundboxError('CONFIG_INVALID', 'the shared group of the broker must be 1 to 64 letters, digits, - or _')
  }
  if (!Number.isInteger(receivers) || receivers < 1 || receivers > limits.receiversMax) {
    throw new SoundboxError('CONFIG_INVALID', `the receivers of the broker must be from 1 to ${limits.receiversMax}`)
  }
  if (receivers > 1 && options.sharedGroup === undefined) {
    throw new SoundboxError('CONFIG_INVALID', 'several receivers need a shared group: else each message would be handled by each of them')
  }
  return receivers
}

async function publish (state: State, link: Link, topic: string, payload: Buffer): Promise<void> {
  const { limits, counters } = state
  checkDown(topic, payload.length, BROKER_LIMITS.payloadBytesMax)
  if (!link.isReady()) throw unsent('there is no connection to the broker')
  if (state.inFlight >= limits.publishesInFlightMax) throw unsent(`${limits.publishesInFlightMax} messages wait for the broker already`)
  state.inFlight++
  try {
    await link.publish(topic, payload)
    counters.messagesOut++
  } finally {
    state.inFlight--
  }
}

/** One connection to the cluster, made anew for as long as the link is open. */
function openLink (state: State, role: { clientId: string, topics: readonly UpTopic[], onReady: () => void }): Link {
  const { limits, log, options } = state
  let client: MqttClient | undefined
  let isReady = false
  let wasReady = false
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let closed = false

  const drop = (old: MqttClient, reason: string): void => {
    if (client !== old) return
    client = undefined
    isReady = false
    old.end(true) // Also fails every publish that waits on it.
    if (closed) return
    const pauseMs = Math.min(limits.reconnectMaxMs, limits.reconnectMinMs * 2 ** Math.min(failures++, 20))
    const waitMs = Math.round(pauseMs * (0.5 + options.random() / 2))
    log.warn({ reason, waitMs, clientId: role.clientId }, 'no connection to the broker; trying again')
    timer = setTimeout(connect, waitMs)
  }
  const connect = (): void => {
    const fresh = mqtt.connect(options.url, clientOptions(options, limits, role.clientId))
    client = fresh
    let reason = 'connection closed'
    receive(state, fresh, () => drop(fresh, 'a message could not be recorded'))
    fresh.on('error', (error: Error & { code?: unknown }) => { reason = typeof error.code === 'string' ? error.code : error.message.slice(0, 100) })
    fresh.on('close', () => drop(fresh, reason))
    fresh.on('connect', () => {
      const filters = role.topics.map(name => filterOf(options.sharedGroup, name))
      const subscribed = filters.length === 0 ? Promise.resolve([]) : fresh.subscribeAsync(filters, { qos: 1 })
      subscribed.then(() => {
        if (client !== fresh) return
        if (wasReady && filters.length > 0) state.events.onGap?.()
        isReady = wasReady = true
        failures = 0
        log.info({ clientId: role.clientId }, 'connected to the broker')
        role.onReady()
      }, () => drop(fresh, 'the broker refuses the subscription'))
    })
  }
  connect()
  return {
    isReady: () => isReady,
    publish: async (topic, payload) => {
      const current = client
      if (current === undefined) throw unsent('there is no connection to the broker')
      await confirmed(current, { topic, payload, timeoutMs: limits.publishTimeoutMs, onTimeout: () => drop(current, 'the broker does not confirm') })
    },
    close: async () => {
      closed = true
      clearTimeout(timer)
      const last = client
      client = undefined
      isReady = false
      if (last === undefined) return
      await new Promise<void>(resolve => last.end(true, () => resolve()))
    }
  }
}

/** Confirms each message when it is recorded, not before. */
function receive (state: State, client: MqttClient, onRefused: () => void): void {
  client.handleMessage = (packet, confirm) => {
    void handle(state, packet).then(() => confirm(), () => {
      confirm(new Error('not recorded'))
      onRefused()
    })
  }
}

async function confirmed (client: MqttClient, message: { topic: string, payload: Buffer, timeoutMs: number, onTimeout: () => void }): Promise<void> {
  const timer = setTimeout(message.onTimeout, message.timeoutMs)
  try {
    await client.publishAsync(message.topic, message.payload, { qos: 1, retain: false })
  } catch (cause) {
    throw new SoundboxError('PUBLISH_FAILED', 'message not sent: the broker did not confirm it', { cause })
  } finally {
    clearTimeout(timer)
  }
}

function clientOptions (options: ExternalBrokerOptions, limits: ExternalLimits, clientId: string): IClientOptions {
  const { username, password, tls } = options
  return {
    clientId,
    protocolVersion: 4,
    clean: true,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    connectTimeout: limits.connectTimeoutMs,
    keepalive: limits.keepaliveSeconds,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...tls,
    rejectUnauthorized: true
  }
}

function filterOf (sharedGroup: string | undefined, name: UpTopic): string {
  return `${sharedGroup === undefined ? '' : `$share/${sharedGroup}/`}${TOPIC_ROOT}+/${name}`
}

/** Tells the gateway of one message, again while it cannot be recorded. Rejects when it gives up. */
async function handle (state: State, packet: IPublishPacket): Promise<void> {
  const parts = parseTopic(packet.topic)
  const name = UP_TOPICS.find(up => up === parts?.name)
  if (parts === undefined || name === undefined) return
  const payload = Buffer.isBuffer(packet.payload) ? packet.payload : Buffer.from(packet.payload)
  const { limits, log, events, counters } = state
  if (payload.length > BROKER_LIMITS.payloadBytesMax || packet.retain) {
    log.warn({ tid: parts.tid, topic: packet.topic }, 'message of a soundbox is too large or was retained; dropped')
    return
  }
  counters.messagesIn++
  notePresence(state, parts.tid, name)
  for (let attempt = 1; ; attempt++) {
    try {
      await events.onMessage(parts.tid, name, payload)
      return
    } catch (err) {
      log.error({ err, tid: parts.tid, topic: packet.topic, attempt }, 'message of a soundbox was not recorded')
      if (attempt >= limits.recordAttemptsMax) throw err
      await new Promise(resolve => setTimeout(resolve, limits.recordPauseMs * 2 ** (attempt - 1)))
    }
  }
}

function notePresence (state: State, tid: string, name: UpTopic): void {
  const { online, events, counters, log, options } = state
  try {
    // In a group another gateway may have seen it come.
    const mayBeOnline = online.has(tid) || (name === 'presence' && options.sharedGroup !== undefined)
    if (mayBeOnline && (name === 'presence' || name === 'hello')) {
      online.delete(tid)
      events.onDisconnected(tid, name === 'hello' ? 'it said hello anew' : 'last will')
    }
    if (name === 'presence' || online.has(tid)) return
    online.add(tid)
    counters.connects++
    events.onConnected({ tid, address: '', tls: state.options.url.startsWith('mqtts:') || state.options.url.startsWith('wss:'), takeover: false })
  } catch (err) {
    log.error({ err, tid }, 'the gateway failed on an event of the broker')
  }
}
