// The fleet put together: presence, desired state and commands over one store and one broker. The door of this folder.
import type { Ack, Hello, Log, Reported, Telemetry } from '../../protocol/index.js'
import type { Broker, DeviceConnection } from '../broker/contract.js'
import type { Store } from '../store/contract.js'
import { type Commands, openCommands } from './commands.js'
import { type DesiredSource, type DesiredState, openDesired } from './desired.js'
import { openPresence, type PresenceBook } from './presence.js'

export type FleetDeps = {
  store: Pick<Store, 'saveDeviceSeen' | 'deviceStates'>
  broker: () => Pick<Broker, 'publish'>
  device: (tid: string) => DesiredSource | undefined
  /** True with an external broker, where soundboxes stay connected while the gateway restarts. */
  staysOnline: boolean
  /** 32 lower-case hex digits. */
  newId: () => string
  nowMs: () => number
  startTimer: (callback: () => void, ms: number) => { stop: () => void }
  log: Log
}
/** The handlers never throw for what a device sent; none of them waits for the disk. */
export type Fleet = {
  presence: Pick<PresenceBook, 'find' | 'isOnline' | 'all' | 'onlineCount'>
  desired: Pick<DesiredState, 'isPending' | 'pendingCount'>
  commands: Pick<Commands, 'send' | 'open'>
  handleConnected: (connection: DeviceConnection) => void
  handleDisconnected: (tid: string, reason: string) => void
  /** Another gateway saw the box come or go. */
  learn: (tid: string, online: boolean) => void
  learnReported: (tid: string, reported: Reported) => void
  handleHello: (tid: string, hello: Hello) => void
  handleReported: (tid: string, reported: Reported) => void
  handleTelemetry: (tid: string, telemetry: Telemetry) => void
  /** True when the ack ended a command; it is then nobody else's. */
  handleAck: (tid: string, ack: Ack) => boolean
  /** After the operator changed the device. */
  handleChanged: (tid: string) => void
  /** Writes what still waits. */
  close: () => Promise<void>
}

export const FLEET_TICK_MS = 1000

/** Loads what is known of all soundboxes and starts the timer. Rejects with STORE_FAILED. */
export async function openFleet (deps: FleetDeps): Promise<Fleet> {
  const { nowMs, log } = deps
  const publish: Broker['publish'] = async (topic, payload) => await deps.broker().publish(topic, payload)
  const isKnown = (tid: string): boolean => deps.device(tid) !== undefined
  const presence = await openPresence({ store: deps.store, isKnown, staysOnline: deps.staysOnline, nowMs, log })
  const { isOnline } = presence
  const desired = openDesired({ publish, device: deps.device, isOnline, nowMs, log })
  const commands = openCommands({ publish, isOnline, newId: deps.newId, nowMs, log })
  const timer = deps.startTimer(() => {
    desired.tick()
    commands.tick()
    void presence.flush()
  }, FLEET_TICK_MS)
  return {
    presence, desired, commands,
    handleConnected: ({ tid, address, takeover }) => presence.note(tid, { kind: 'connected', address, takeover }),
    handleDisconnected (tid, reason) {
      presence.note(tid, { kind: 'disconnected', reason })
      desired.handleOffline(tid)
    },
    learn: (tid, online) => presence.learn(tid, online ? { kind: 'connected', address: '', takeover: false } : { kind: 'disconnected', reason: 'told by another gateway' }),
    learnReported (tid, reported) {
      presence.learn(tid, { kind: 'reported', reported })
      desired.handleReported(tid, reported)
    },
    handleHello (tid, hello) {
      presence.note(tid, { kind: 'hello', hello })
      desired.handleHello(tid, hello)
    },
    handleReported (tid, reported) {
      presence.note(tid, { kind: 'reported', reported })
      desired.handleReported(tid, reported)
    },
    handleTelemetry: (tid, telemetry) => presence.note(tid, { kind: 'telemetry', telemetry }),
    handleAck: (tid, ack) => commands.handleAck(tid, ack),
    handleChanged: tid => desired.handleChanged(tid),
    async close () {
      timer.stop()
      await presence.flush()
    }
  }
}
