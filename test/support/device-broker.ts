// The gateway's end of the line for tests of soundboxes: the embedded broker, with a list of what arrived and a hand on each valve.
import { openEmbeddedBroker } from '../../gateway/broker/embedded.js'
import type { Broker } from '../../gateway/broker/contract.js'
import type { BrokerLimits } from '../../gateway/broker/limits.js'
import type { BrokerTls } from '../../gateway/broker/listeners.js'
import {
  type Ack, type Announcement, decodeAck, decodeMessage, type Desired, type DownTopic, encodeMessage, formatTopic, sealAnnouncement, SILENT_LOG, type UpTopic
} from '../../protocol/index.js'

export type BoxKeys = { tid: string, password: string, signingKey: string }
export type Arrived = { tid: string, name: UpTopic, message: Record<string, unknown> }
export type DeviceBroker = {
  broker: Broker
  port: number
  url: string
  /** With TLS, when it was asked for. */
  tlsUrl: string
  arrived: Arrived[]
  connects: string[]
  /** Names on the certificates that boxes have shown. */
  certificateNames: (string | undefined)[]
  /** Called before a message is confirmed; a rejection closes the connection without PUBACK. */
  beforeConfirm: (message: Arrived) => Promise<void> | void
  acks: (tid: string) => Ack[]
  send: (tid: string, name: DownTopic, message: object) => Promise<void>
  announce: (tid: string, announcement: Announcement, signingKey?: string) => Promise<void>
  desire: (tid: string, changes?: Partial<Desired>) => Promise<void>
  /** Resolves when `isTrue` holds; looks whenever something arrived, connected or went. Rejects after `limitMs`. */
  until: (isTrue: () => boolean, what: string, limitMs?: number) => Promise<void>
  close: () => Promise<void>
}

/** Keys of box `n`. */
export function boxKeys (n: number): BoxKeys {
  return { tid: `SB-${String(n).padStart(4, '0')}`, password: `password-${n}`, signingKey: `signing-key-${n}` }
}

/** `mqttPort`: 0 = any free one; a fixed one for a broker that comes back. */
export async function openDeviceBroker (boxes: readonly BoxKeys[], options: { mqttPort?: number, limits?: Partial<BrokerLimits>, tls?: BrokerTls } = {}): Promise<DeviceBroker> {
  const keysOf = new Map(boxes.map(box => [box.tid, box]))
  const waiters = new Set<() => void>()
  const look = (): void => { for (const waiter of waiters) waiter() }
  const self: Omit<DeviceBroker, 'broker' | 'port' | 'url' | 'tlsUrl'> = {
    arrived: [],
    connects: [],
    certificateNames: [],
    beforeConfirm: () => {},
    acks: tid => self.arrived.filter(one => one.tid === tid && one.name === 'ack').map(one => decodeAck(encodeMessage(one.message))),
    send: (tid, name, message) => broker.publish(formatTopic(tid, name), encodeMessage(message)),
    announce: (tid, announcement, signingKey = keysOf.get(tid)?.signingKey ?? '') => broker.publish(formatTopic(tid, 'announce'), sealAnnouncement(announcement, tid, signingKey)),
    desire: (tid, changes) => self.send(tid, 'desired', { version: 1, time: Date.now(), volume: 80, minVolume: 0, language: 'ENGLISH', quietHours: null, ...changes }),
    until: (isTrue, what, limitMs = 10_000) => new Promise((resolve, reject) => {
      const check = (): void => {
        if (!isTrue()) return
        stop()
        resolve()
      }
      const timer = setTimeout(() => {
        stop()
        reject(new Error(`waited in vain: ${what}`))
      }, limitMs)
      const stop = (): void => {
        clearTimeout(timer)
        waiters.delete(check)
      }
      waiters.add(check)
      check()
    }),
    close: () => broker.close()
  }
  const broker = await openEmbeddedBroker({ host: '127.0.0.1', mqttPort: 0, log: SILENT_LOG, nowMs: Date.now, ...options }, {
    authenticate: ({ clientId, password, certificateName }) => {
      self.certificateNames.push(certificateName)
      return keysOf.get(clientId)?.password === password ? clientId : undefined
    },
    onConnected: ({ tid }) => {
      self.connects.push(tid)
      look()
    },
    onDisconnected: () => look(),
    onMessage: async (tid, name, payload) => {
      const message = { tid, name, message: decodeMessage(payload) }
      self.arrived.push(message)
      look()
      await self.beforeConfirm(message)
      look()
    }
  })
  const port = broker.ports.mqtt ?? 0
  return Object.assign(self, { broker, port, url: `mqtt://127.0.0.1:${port}`, tlsUrl: `mqtts://127.0.0.1:${broker.ports.mqtts ?? 0}` })
}
