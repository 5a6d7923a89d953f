// Who may connect, and what a connected device may do: pure decisions, the same for the hooks of the embedded broker and for the
// HTTP questions that an external broker asks.
//
//   connect     client id = user name = serial number (or = the certificate's common name); clean session; own last will or none
//   publish     own up topics, QoS 0 or 1, not retained, within the size limit
//   subscribe   own down topics by name; no wildcard
import { DOWN_TOPICS, type DownTopic, formatTopic, isTid, mayPublish, maySubscribe, parseTopic, SoundboxError, type UpTopic } from '../../protocol/index.js'
import type { DeviceCredentials } from './contract.js'
import type { BrokerLimits } from './limits.js'

/** CONNACK return codes [MQTT-3.2.2]: 2 identifier rejected, 3 server unavailable, 4 bad user name or password, 5 not authorized. */
export type RefusalCode = 2 | 3 | 4 | 5
export type Will = { topic: string, payloadBytes: number, qos: number, retain: boolean }
/** `keepaliveSeconds` and `will` are left out where the asker (an external broker) does not tell them. */
export type ConnectRequest = DeviceCredentials & { keepaliveSeconds?: number, will?: Will }
/** `isLoginFailure`: the credentials were wrong, which counts against the address. `reason` holds nothing that the client sent. */
export type ConnectDecision = { ok: true, tid: string } | { ok: false, code: RefusalCode, reason: string, isLoginFailure: boolean }
export type ConnectLimits = Pick<BrokerLimits, 'keepaliveSecondsMax' | 'willBytesMax'>

export type TopicRequest =
  | { tid: string, action: 'publish', topic: string, qos: number, retain: boolean, payloadBytes: number }
  | { tid: string, action: 'subscribe', topic: string }
export type TopicDecision = { ok: true } | { ok: false, reason: string }

/** May this client connect? `authenticate` is asked last, and only for a well-formed request. */
export function authorizeConnect (request: ConnectRequest, authenticate: (credentials: DeviceCredentials) => string | undefined, limits: ConnectLimits): ConnectDecision {
  const { clientId, username, password, certificateName } = request
  if (!isTid(clientId) || clientId in Object.prototype) return refused(2, 'the client id is not a serial number')
  const fault = willFault(clientId, request.will, limits.willBytesMax) ?? keepaliveFault(request.keepaliveSeconds, limits.keepaliveSecondsMax)
  if (fault !== undefined) return refused(5, fault)
  if (certificateName !== undefined && certificateName !== clientId) return failed(5, 'the certificate belongs to another serial number')
  if (username !== undefined && username !== clientId) return failed(4, 'the user name is not the client id')
  if (certificateName === undefined && (username === undefined || password === undefined)) return failed(4, 'user name or password is missing')
  const tid = authenticate({ clientId, username, password, certificateName })
  if (tid !== clientId) return failed(5, 'the credentials are wrong or the soundbox is not active')
  return { ok: true, tid }
}

/** May this device publish or subscribe here? */
export function authorizeTopic (request: TopicRequest, payloadBytesMax: number): TopicDecision {
  if (request.action === 'subscribe') {
    return maySubscribe(request.tid, request.topic) ? { ok: true } : { ok: false, reason: 'a soundbox subscribes to its own topics by name only' }
  }
  if (!mayPublish(request.tid, request.topic)) return { ok: false, reason: 'a soundbox publishes on its own topics only' }
  if (request.qos > 1) return { ok: false, reason: 'QoS 2 is not served' }
  if (request.retain) return { ok: false, reason: 'nothing is retained' }
  if (request.payloadBytes > payloadBytesMax) return { ok: false, reason: `the message is over ${payloadBytesMax} bytes` }
  return { ok: true }
}

/** The up topic of a device's message whose topic `authorizeTopic` let pass. */
export function upTopicOf (topic: string): UpTopic {
  return parseTopic(topic)?.name as UpTopic
}

/** The parts of a topic that the gateway may publish to. Throws PUBLISH_FAILED for any other, and for a message that is too large. */
export function checkDown (topic: string, payloadBytes: number, payloadBytesMax: number): { tid: string, name: DownTopic } {
  const parts = parseTopic(topic)
  const name = DOWN_TOPICS.find(down => down === parts?.name)
  if (parts === undefined || name === undefined) throw unsent('no topic that a soundbox listens to')
  if (payloadBytes > payloadBytesMax) throw unsent(`${payloadBytes} bytes are over the limit of ${payloadBytesMax}`)
  return { tid: parts.tid, name }
}

/** PUBLISH_FAILED with its cause in words. */
export function unsent (why: string): SoundboxError {
  return new SoundboxError('PUBLISH_FAILED', `message not sent: ${why}`)
}

function willFault (tid: string, will: Will | undefined, willBytesMax: number): string | undefined {
  if (will === undefined) return undefined
  if (will.topic !== formatTopic(tid, 'presence')) return 'the last will is not on the own presence topic'
  if (will.payloadBytes > willBytesMax) return `the last will is over ${willBytesMax} bytes`
  if (will.retain || will.qos > 1) return 'the last will is retained or of QoS 2'
  return undefined
}

function keepaliveFault (seconds: number | undefined, secondsMax: number): string | undefined {
  if (seconds === undefined || (seconds > 0 && seconds <= secondsMax)) return undefined
  return `the keepalive is not from 1 to ${secondsMax} seconds`
}

function refused (code: RefusalCode, reason: string): ConnectDecision {
  return { ok: false, code, reason, isLoginFailure: false }
}

function failed (code: RefusalCode, reason: string): ConnectDecision {
  return { ok: false, code, reason, isLoginFailure: true }
}
