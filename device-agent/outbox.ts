// Final acks on their way to the gateway. The journal holds them until PUBACK; this sends them, a few at a time, oldest first, and
// again after each reconnect and restart.
import type { Ack, Log } from '../protocol/index.js'
import type { Journal } from './journal.js'

/** Acks on the wire without PUBACK. Brokers limit what one client may have in flight. */
export const ACKS_IN_FLIGHT_MAX = 8

export type Outbox = {
  /** Sends what the journal holds unsettled. Call it when something was finished, and when the link came up. */
  flush: () => void
  /** Resolves when nothing that can be sent is on its way. */
  whenIdle: () => Promise<void>
}

/** `publish` rejects while the link is down; what it rejects is sent by the next `flush`. */
export function openOutbox ({ journal, publish, log }: { journal: Journal, publish: (ack: Ack) => Promise<void>, log: Log }): Outbox {
  const onTheWay = new Set<string>()
  let idleWaiters: (() => void)[] = []
  const send = async (ack: Ack): Promise<void> => {
    const sent = await publish(ack).then(() => true, (err: unknown) => {
      log.debug({ err }, 'ack waits for the link')
      return false
    })
    if (sent) await journal.settle(ack.id)
    onTheWay.delete(ack.id)
    if (sent) flush()
    if (onTheWay.size > 0) return
    for (const resolve of idleWaiters) resolve()
    idleWaiters = []
  }
  const flush = (): void => {
    for (const ack of journal.unsettled()) {
      if (onTheWay.size >= ACKS_IN_FLIGHT_MAX) return
      if (onTheWay.has(ack.id)) continue
      onTheWay.add(ack.id)
      void send(ack)
    }
  }
  return {
    flush,
    whenIdle: () => onTheWay.size === 0 ? Promise.resolve() : new Promise(resolve => { idleWaiters.push(resolve) })
  }
}
