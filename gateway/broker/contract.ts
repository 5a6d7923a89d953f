// The one small port to an MQTT broker. embedded.ts (aedes) is the default, external.ts (any MQTT 3.1.1 cluster) the other.
// The gateway's delivery rows are the truth: clean sessions, nothing retained, no queue of the broker is relied upon.
import type { UpTopic } from '../../protocol/index.js'

export type DeviceCredentials = { clientId: string, username: string | undefined, password: string | undefined, certificateName: string | undefined }
export type DeviceConnection = { tid: string, address: string, tls: boolean, takeover: boolean }

/** What the broker asks and tells. A throw inside is the broker's to contain: it refuses the packet, it never crashes. */
export type BrokerEvents = {
  /** Pure and quick: may this client connect? The tid on success. */
  authenticate: (credentials: DeviceCredentials) => string | undefined
  onConnected: (connection: DeviceConnection) => void
  onDisconnected: (tid: string, reason: string) => void
  /**
   * A message of a device on one of its own topics. Awaited before the broker confirms it (PUBACK), so the durable write happens in
   * here; a rejection closes the connection without PUBACK and the device sends it again.
   */
  onMessage: (tid: string, name: UpTopic, payload: Buffer) => Promise<void> | void
  /** Messages that soundboxes believe to be delivered may have been lost. */
  onGap?: () => void
}

export type BrokerStats = { connected: number, connects: number, refused: number, takeovers: number, messagesIn: number, messagesOut: number, ready: boolean }

export type Broker = {
  /** Resolves when the message is with the broker. Rejects with PUBLISH_FAILED when it is not (closed, not connected, queue full). QoS 1. */
  publish: (topic: string, payload: Buffer) => Promise<void>
  /** Ends the device's connection, if any (deactivated, credentials changed). */
  disconnect: (tid: string) => void
  /** Real TCP ports, for the log line `gateway ready`. */
  ports: { mqtt: number | null, mqtts: number | null, websocket: number | null }
  stats: () => BrokerStats
  close: () => Promise<void>
}
