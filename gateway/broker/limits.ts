// Every bound of the embedded broker, by name. A box that behaves never meets one of them.
import { MESSAGE_BYTES_MAX } from '../../protocol/index.js'

export type BrokerLimits = {
  /** Sockets at once, logged in or not. */
  connectionsMax: number
  /** Of them from one address (an IPv6 /64 counts as one). High, because a mobile carrier puts thousands of boxes behind one. */
  connectionsPerAddressMax: number
  /** Failed logins of one address before all its logins are refused unread, and how fast it earns them back. */
  failedLoginsMax: number
  failedLoginsPerSecond: number
  /** Addresses whose failures are remembered; the oldest is forgotten first. */
  failedAddressesMax: number
  /** From the first byte of TCP to a complete CONNECT. */
  connectTimeoutMs: number
  /** The longest keepalive a client may ask for; 0 (none) is refused. */
  keepaliveSecondsMax: number
  /** Bytes that a CONNECT, and any later packet, may announce after its fixed header. */
  connectBytesMax: number
  frameBytesMax: number
  /** Bytes of a device's message, and of its last will. */
  payloadBytesMax: number
  willBytesMax: number
  /** Packets that a client may send before its CONNACK. */
  earlyPacketsMax: number
  /** Messages for one device that wait for its socket; one more is refused. */
  publishesWaitingMax: number
  /** How long a socket may refuse to take more before the connection is closed. */
  drainTimeoutMs: number
  /** How long a stop waits for messages that are being recorded. */
  stopTimeoutMs: number
}

export const BROKER_LIMITS: Readonly<BrokerLimits> = Object.freeze({
  connectionsMax: 20_000,
  connectionsPerAddressMax: 10_000,
  failedLoginsMax: 300,
  failedLoginsPerSecond: 5,
  failedAddressesMax: 10_000,
  connectTimeoutMs: 10_000,
  keepaliveSecondsMax: 300,
  connectBytesMax: 2048,
  frameBytesMax: 65_536,
  payloadBytesMax: MESSAGE_BYTES_MAX,
  willBytesMax: 512,
  earlyPacketsMax: 16,
  publishesWaitingMax: 32,
  drainTimeoutMs: 10_000,
  stopTimeoutMs: 2000
})
