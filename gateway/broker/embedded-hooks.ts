// What aedes asks on the way of a packet, answered from policy.ts and from the connection's own record. In order:
//   preConnect -> authenticate -> (registered) -> authorizeSubscribe, authorizePublish per packet -> authorizeForward per delivery
// A throw inside a hook would end the process, so each runs contained: the fault is logged and the one connection closed.
import type { AedesOptions, AuthenticateError, Client, ConnectPacket, PublishPacket, Subscription } from 'aedes'
import { isTid, type Log } from '../../protocol/index.js'
import type { Admission } from './admission.js'
import type { BrokerEvents } from './contract.js'
import type { BrokerLimits } from './limits.js'
import type { Origin } from './listeners.js'
import { authorizeConnect, authorizeTopic, type ConnectDecision, upTopicOf, type Will } from './policy.js'

/** One connection. `handling` ends with the confirmation of the last message that arrived, `sending` with the last that was handed over. */
export type Session = {
  client: Client
  origin: Origin
  tid: string
  connect: { clientId: string, keepaliveSeconds: number, will: Will | undefined }
  topics: Set<string>
  takeover: boolean
  closeReason: string | undefined
  handling: Promise<void>
  handlingCount: number
  sending: Promise<void>
  sendingCount: number
}
export type Counters = { connects: number, refused: number, takeovers: number, messagesIn: number, messagesOut: number }
export type HookDeps = {
  events: BrokerEvents
  limits: BrokerLimits
  admission: Admission
  counters: Counters
  log: Log
  originOf: (client: Client) => Origin | undefined
  sessions: WeakMap<Client, Session>
  /** The connection that a serial number has now. */
  current: (tid: string) => Session | undefined
}

type Hooks = Required<Pick<AedesOptions, 'preConnect' | 'authenticate' | 'authorizePublish' | 'authorizeSubscribe' | 'authorizeForward'>>
const UNACCEPTABLE_VERSION = 5

/** The hooks of one broker. */
export function brokerHooks (deps: HookDeps): Hooks {
  const contained = (hook: string, client: Client, run: () => void): void => {
    try {
      run()
    } catch (err) {
      deps.log.error({ err, hook }, 'a hook of the broker failed; the connection is closed')
      client.conn.destroy()
    }
  }
  return {
    preConnect: (client, packet, done) => contained('preConnect', client, () => {
      const session = openSession(deps, client, packet)
      if (session === undefined) return done(new Error('the connection has gone'), false)
      if ((packet.protocolVersion ?? 4) >= UNACCEPTABLE_VERSION) {
        deps.counters.refused++
        deps.log.debug({ address: session.origin.address }, 'MQTT 5 is not served: use MQTT 3.1.1')
      }
      packet.clean = true // No session outlives its connection; CONNACK says so (session present = 0).
      delete packet.will // The end of the connection itself tells; nobody else may hear a will.
      done(null, true)
    }),
    authenticate: (client, username, password, done) => contained('authenticate', client, () => {
      const session = deps.sessions.get(client)
      const decision = session === undefined ? undefined : decideConnect(deps, session, username, password)
      if (session !== undefined && decision?.ok === true) {
        admit(deps, session, decision.tid)
        return done(null, true)
      }
      const code = decision?.ok === false ? decision.code : 3
      const reason = decision?.ok === false ? decision.reason : 'the connection has gone'
      done(Object.assign(new Error(reason), { returnCode: code }) as AuthenticateError, null)
    }),
    authorizePublish: (client, packet, done) => {
      if (client === null) return done(null) // A notice of aedes to itself; nobody hears it.
      contained('authorizePublish', client, () => receive(deps, client, packet, error => contained('authorizePublish', client, () => done(error))))
    },
    authorizeSubscribe: (client, subscription, done) => contained('authorizeSubscribe', client, () => {
      done(null, isSubscribable(deps, client, subscription) ? subscription : null)
    }),
    authorizeForward: (client, packet) => {
      const session = deps.sessions.get(client)
      return session?.topics.has(packet.topic) === true && authorizeTopic({ tid: session.tid, action: 'subscribe', topic: packet.topic }, 0).ok ? packet : null
    }
  }
}

function openSession (deps: HookDeps, client: Client, packet: ConnectPacket): Session | undefined {
  const origin = deps.originOf(client)
  if (origin === undefined) return undefined
  const { clientId, keepalive, will } = packet
  const session: Session = {
    client,
    origin,
    tid: '',
    connect: {
      clientId,
      keepaliveSeconds: keepalive ?? 0,
      will: will && { topic: will.topic, payloadBytes: Buffer.byteLength(will.payload), qos: will.qos ?? 0, retain: will.retain === true }
    },
    topics: new Set(),
    takeover: false,
    closeReason: undefined,
    handling: Promise.resolve(),
    handlingCount: 0,
    sending: Promise.resolve(),
    sendingCount: 0
  }
  deps.sessions.set(client, session)
  return session
}

function decideConnect (deps: HookDeps, session: Session, username: string | undefined, password: Buffer | undefined): ConnectDecision {
  const { connect: { clientId, keepaliveSeconds, will }, origin: { address, certificateName } } = session
  if (deps.admission.isBarred(address)) {
    deps.counters.refused++
    return { ok: false, code: 3, reason: 'too many failed logins of this address', isLoginFailure: false }
  }
  const request = { clientId, username, password: password?.toString('utf8'), certificateName, keepaliveSeconds, ...(will === undefined ? {} : { will }) }
  const decision = authorizeConnect(request, credentials => authenticateContained(deps, credentials), deps.limits)
  if (decision.ok) return decision
  deps.counters.refused++
  deps.log.warn({ tid: isTid(clientId) ? clientId : undefined, address, reason: decision.reason }, 'connection of a soundbox refused')
  if (decision.isLoginFailure && deps.admission.loginFailed(address)) {
    deps.log.warn({ address }, 'too many failed logins of an address: all its logins are refused for a while')
  }
  return decision
}

function authenticateContained (deps: HookDeps, credentials: Parameters<BrokerEvents['authenticate']>[0]): string | undefined {
  try {
    return deps.events.authenticate(credentials)
  } catch (err) {
    deps.log.error({ err, tid: credentials.clientId }, 'checking the credentials of a soundbox failed')
    return undefined
  }
}

/** From here on the connection stands for this serial number; aedes closes the older one of the same name. */
function admit (deps: HookDeps, session: Session, tid: string): void {
  session.tid = tid
  const older = deps.current(tid)
  if (older === undefined) return
  older.closeReason ??= 'another connection of this soundbox took over'
  session.takeover = true
  deps.counters.takeovers++
  deps.log.warn({ tid, address: session.origin.address, olderAddress: older.origin.address }, 'another connection of a soundbox took over')
}

function isSubscribable (deps: HookDeps, client: Client, subscription: Subscription): boolean {
  const session = deps.sessions.get(client)
  if (session === undefined) return false
  const decision = authorizeTopic({ tid: session.tid, action: 'subscribe', topic: subscription.topic }, 0)
  if (!decision.ok) deps.log.warn({ tid: session.tid, topic: subscription.topic.slice(0, 128), reason: decision.reason }, 'subscription of a soundbox refused')
  return decision.ok
}

/** Hands a device's message to the gateway; `done` (the PUBACK) comes after it is recorded, and in the order of arrival [MQTT-4.6.0-2]. */
function receive (deps: HookDeps, client: Client, packet: PublishPacket, done: (error?: Error | null) => void): void {
  const session = deps.sessions.get(client)
  const { topic, qos, retain } = packet
  const payload = Buffer.isBuffer(packet.payload) ? packet.payload : Buffer.from(packet.payload)
  const request = { tid: session?.tid ?? '', action: 'publish' as const, topic, qos, retain: retain === true, payloadBytes: payload.length }
  const decision = authorizeTopic(request, deps.limits.payloadBytesMax)
  if (session === undefined || !decision.ok) {
    const reason = decision.ok ? 'the connection has gone' : decision.reason
    deps.log.warn({ tid: session?.tid, topic: topic.slice(0, 128), reason }, 'message of a soundbox refused; its connection is closed')
    done(new Error(reason))
    return
  }
  deps.counters.messagesIn++
  const work = deps.events.onMessage(session.tid, upTopicOf(topic), payload)
  if (work === undefined && session.handlingCount === 0) {
    done(null)
    return
  }
  const outcome = Promise.resolve(work).then(() => null, (err: unknown) => {
    deps.log.error({ err, tid: session.tid, topic }, 'message of a soundbox was not recorded; its connection is closed')
    return new Error('the message was not recorded')
  })
  session.handlingCount++
  session.handling = session.handling.then(async () => {
    const error = await outcome
    session.handlingCount--
    done(error)
  })
}
