// What soundboxes send, brought to the parts that care: hello and acks to the heart, state and presence to the fleet.
import { decodeAck, decodeHello, decodeReported, decodeTelemetry, isSameSecret, isSoundboxError, type Log } from '../protocol/index.js'
import type { BrokerEvents, DeviceCredentials } from './broker/contract.js'
import type { Fleet } from './fleet/fleet.js'
import type { Directory } from './store/directory.js'
import type { Heart } from './trigger/heart.js'
import type { Prompter } from './trigger/prompter.js'

export type DeviceEventDeps = { directory: Directory, fleet: Fleet, heart: Heart, prompter: Prompter, log: Log, nowMs: () => number }

/** The broker's callbacks. A message that a soundbox gets wrong is logged and confirmed: it would only send it again. */
export function deviceEvents (deps: DeviceEventDeps): BrokerEvents {
  const { directory, fleet, heart, prompter, log, nowMs } = deps
  return {
    authenticate: credentials => authenticateDevice(directory, credentials),
    onConnected (connection) {
      const { tid, address, tls, takeover } = connection
      fleet.handleConnected(connection)
      log.info({ tid, address, tls, takeover }, 'soundbox connected')
      if (heart.feed.hasListeners()) heart.feed.emit({ kind: 'device', at: nowMs(), tid, state: 'online' })
    },
    onDisconnected (tid, reason) {
      if (heart.hasJustCome(tid)) return
      fleet.handleDisconnected(tid, reason)
      heart.handleOffline(tid)
      log.info({ tid, reason }, 'soundbox disconnected')
      if (heart.feed.hasListeners()) heart.feed.emit({ kind: 'device', at: nowMs(), tid, state: 'offline', reason })
    },
    onGap: () => { heart.handleGap() },
    onMessage (tid, name, payload) {
      try {
        switch (name) {
          case 'ack': {
            const ack = decodeAck(payload)
            log.debug({ tid, announcementId: ack.id, result: ack.result }, 'ack of a soundbox')
            return fleet.handleAck(tid, ack) || prompter.handleAck(tid, ack) ? undefined : heart.handleAck(tid, ack)
          }
          case 'hello': {
            const hello = decodeHello(payload)
            fleet.handleHello(tid, hello)
            return heart.handleHello(tid, hello.bootId)
          }
          case 'reported': {
            const reported = decodeReported(payload)
            fleet.handleReported(tid, reported)
            return heart.handleReported(tid, reported)
          }
          case 'telemetry': return fleet.handleTelemetry(tid, decodeTelemetry(payload))
          case 'presence': return undefined
          default: name satisfies never
        }
      } catch (err) {
        if (!isSoundboxError(err, 'MESSAGE_INVALID')) throw err
        log.warn({ err, tid, topic: name }, 'soundbox sent a message that cannot be read')
      }
      return undefined
    }
  }
}

/** A box may connect before it is activated, so that a technician can test it; not after it was deactivated. */
function authenticateDevice (directory: Directory, { clientId, username, password, certificateName }: DeviceCredentials): string | undefined {
  const device = directory.device(clientId)
  const isKnown = device !== undefined && username === clientId
  const isSecret = isSameSecret(directory.hashOf(password ?? ''), device?.mqttPasswordHash ?? directory.hashOf('no such soundbox'))
  const isBarred = device?.status === 'inactive' && device.deactivatedAt !== null
  return isKnown && !isBarred && (isSecret || certificateName === clientId) ? clientId : undefined
}
