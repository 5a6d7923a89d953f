// The pipe to the gateway: MQTT 3.1.1, clean session, one connection after another. A new mqtt.js client for each of them, so nothing
// of an old connection (its packet ids, its resend queue) lives on: what must arrive is kept by the agent, not by the client.
//
//   connect -> CONNACK -> subscribe announce, command, desired (QoS 1) -> SUBACK -> onUp -> … -> close -> onDown -> wait -> connect
//
// The wait is exponential back-off with full jitter: after a power cut in a market, a thousand boxes must not come back as one.
import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import { DOWN_TOPICS, type DownTopic, encodeMessage, formatTopic, type Log, parseTopic, type Secret, SoundboxError, type Timers, type UpTopic } from '../protocol/index.js'

/** PEM texts. `ca` absent: the system's. `cert` and `key`: the device's own certificate, with CN = tid. */
export type LinkTls = { ca?: string, cert?: string, key?: string }
export type BackoffPolicy = { baseMs: number, maxMs: number }
/** `url`: mqtt, mqtts, ws or wss. A connection that held for `stableMs` starts the back-off anew. */
export type LinkConfig = { url: string, tid: string, password: Secret, tls: LinkTls, backoff: BackoffPolicy, stableMs: number }

export type LinkEvents = {
  /** Subscribed: the time for `hello`. */
  onUp: () => void
  onDown: () => void
  /** A message on one of the device's own topics. PUBACK goes out when it resolves; a rejection is logged, and still confirmed. */
  onMessage: (name: DownTopic, payload: Buffer) => Promise<void> | void
}

export type Link = {
  isUp: () => boolean
  /** QoS 1: resolves on PUBACK, rejects when the connection ends before it. QoS 0: resolves when it is written. Rejects while down. */
  publish: (name: UpTopic, message: object, qos: 0 | 1) => Promise<void>
  /** Says goodbye (presence offline) and stays down. */
  close: () => Promise<void>
}
export type LinkDeps = { clock: Timers, random: () => number, log: Log }

const KEEPALIVE_S = 60
const CONNECT_TIMEOUT_MS = 15_000
/** CONNACK: bad user name or password, not authorized. */
const REFUSALS: ReadonlySet<unknown> = new Set([4, 5])
/** A broker that leaves a publish unconfirmed for so long is as good as gone: connect again. */
export const PUBACK_TIMEOUT_MS = 20_000
const GOODBYE_TIMEOUT_MS = 2000
/** The last will, and what a box says itself when it goes. */
export const PRESENCE_OFFLINE = { state: 'offline' }

/** The wait before connection attempt `attempt` (from 0): anything below base * 2^attempt, at most maxMs. */
export function backoffMs (attempt: number, random: () => number, { baseMs, maxMs }: BackoffPolicy): number {
  return Math.floor(random() * Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30)))
}

/** Connects, and goes on connecting until `close`. Never throws: what goes wrong is logged. */
export function openMqttLink (config: LinkConfig, events: LinkEvents, deps: LinkDeps): Link {
  const { clock, random, log } = deps
  let session: Session | undefined
  let attempt = 0
  let closing = false
  let cancelWait = (): void => {}
  let whenDown = (): void => {}
  const dial = (): void => {
    let upSince: number | undefined
    session = openSession(config, deps, {
      onUp: () => {
        upSince = clock.nowMs()
        log.info({ attempt }, 'connected to the gateway')
        events.onUp()
      },
      onMessage: events.onMessage,
      onEnd: () => {
        session = undefined
        if (upSince !== undefined) {
          if (clock.nowMs() - upSince >= config.stableMs) attempt = 0
          events.onDown()
        }
        if (closing) return whenDown()
        const waitMs = backoffMs(attempt, random, config.backoff)
        attempt += 1
        log.info({ waitMs, attempt }, 'not connected to the gateway')
        cancelWait = clock.after(waitMs, dial)
      }
    })
  }
  dial()
  return {
    isUp: () => session?.isUp() === true,
    publish: async (name, message, qos) => {
      if (session === undefined) throw linkDown()
      await session.publish(name, message, qos)
    },
    close: async () => {
      closing = true
      cancelWait()
      if (session === undefined) return
      const down = new Promise<void>(resolve => { whenDown = resolve })
      const last = session
      const cancelForce = clock.after(GOODBYE_TIMEOUT_MS, () => last.end(true))
      await last.publish('presence', PRESENCE_OFFLINE, 1).catch(() => {})
      last.end(false)
      await down
      cancelForce()
    }
  }
}

type SessionEvents = { onUp: () => void, onMessage: LinkEvents['onMessage'], onEnd: () => void }
type Session = { isUp: () => boolean, publish: Link['publish'], end: (force: boolean) => void }

/** One connection from CONNECT to its end. */
function openSession (config: LinkConfig, { clock, log }: LinkDeps, events: SessionEvents): Session {
  const client = connect(config.url, clientOptions(config))
  const unconfirmed = new Set<(error: SoundboxError) => void>()
  let isUp = false
  client.handleMessage = (packet, done) => {
    const name = parseTopic(packet.topic)?.name as DownTopic | undefined
    const payload = typeof packet.payload === 'string' ? Buffer.from(packet.payload) : packet.payload
    const handled = name === undefined ? Promise.resolve() : (async () => events.onMessage(name, payload))()
    handled.catch((err: unknown) => log.error({ err }, 'message could not be handled')).finally(() => done())
  }
  client.on('connect', () => {
    subscribe(client, config.tid).then(() => {
      isUp = true
      events.onUp()
    }, (err: unknown) => {
      log.error({ err }, 'subscriptions were refused')
      client.end(true)
    })
  })
  client.on('error', err => {
    if (REFUSALS.has((err as { code?: unknown }).code)) log.error({ err }, 'the gateway refuses this soundbox: check serial number, password and that it is active')
    else log.warn({ err }, 'connection to the gateway failed')
  })
  client.once('close', () => {
    isUp = false
    client.end(true)
    for (const reject of unconfirmed) reject(linkDown())
    unconfirmed.clear()
    events.onEnd()
  })
  return {
    isUp: () => isUp,
    publish: async (name, message, qos) => {
      if (!isUp) throw linkDown()
      const payload = encodeMessage(message)
      await new Promise<void>((resolve, reject) => {
        unconfirmed.add(reject)
        const cancel = clock.after(PUBACK_TIMEOUT_MS, () => client.end(true))
        client.publish(formatTopic(config.tid, name), payload, { qos }, err => {
          cancel()
          unconfirmed.delete(reject)
          if (err === undefined || err === null) resolve()
          else reject(linkDown(err))
        })
      })
    },
    end: force => { client.end(force) }
  }
}

async function subscribe (client: MqttClient, tid: string): Promise<void> {
  const granted = await client.subscribeAsync(DOWN_TOPICS.map(name => formatTopic(tid, name)), { qos: 1 })
  if (granted.some(grant => grant.qos === 128)) throw linkDown()
}

function clientOptions ({ tid, password, tls }: LinkConfig): IClientOptions {
  return {
    ...tls,
    clientId: tid,
    username: tid,
    password: password.reveal(),
    protocolVersion: 4,
    clean: true,
    keepalive: KEEPALIVE_S,
    connectTimeout: CONNECT_TIMEOUT_MS,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    will: { topic: formatTopic(tid, 'presence'), payload: encodeMessage(PRESENCE_OFFLINE), qos: 1, retain: false }
  }
}

function linkDown (cause?: unknown): SoundboxError {
  return new SoundboxError('GATEWAY_UNREACHABLE', 'the connection to the gateway is down', cause === undefined ? {} : { cause })
}
