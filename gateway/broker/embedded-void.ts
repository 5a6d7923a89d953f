// What aedes would route and keep, routed and kept nowhere. A message to a device goes straight to that device's own connection
// (embedded.ts knows it by serial number), a device's message goes to the gateway alone, sessions are clean and nothing is retained.
// So its topic matcher and its memory of subscriptions, wills, queues and retained messages would only cost time, grow, and bring the
// faults measured in them: reordering while a queue drains, a message lost when two publishes meet, a stalled reader that holds up all.
import { Readable } from 'node:stream'

const nothing = async (): Promise<void> => {}
const none = async (): Promise<never[]> => []

/** aedes' `mq`: emits to nobody, at once. Synchronous, so that aedes closes a connection within the turn, before its successor registers. */
export function voidEmitter (): object {
  return {
    on: (_topic: string, _listener: unknown, done?: () => void) => done?.(),
    removeListener: (_topic: string, _listener: unknown, done?: () => void) => done?.(),
    emit: (_packet: unknown, done?: () => void) => done?.(),
    close: (done?: () => void) => done?.()
  }
}

/** aedes' `persistence`: always empty. QoS 2 never reaches it: the hooks refuse such a message. */
export function voidPersistence (): object {
  return {
    setup: nothing,
    storeRetained: nothing,
    subscriptionsByTopic: none,
    subscriptionsByClient: none,
    addSubscriptions: nothing,
    removeSubscriptions: nothing,
    cleanSubscriptions: nothing,
    outgoingEnqueue: nothing,
    outgoingEnqueueCombi: nothing,
    outgoingUpdate: nothing,
    outgoingClearMessageId: nothing,
    outgoingStream: () => Readable.from([]),
    createRetainedStreamCombi: () => Readable.from([]),
    incomingGetPacket: nothing,
    incomingStorePacket: nothing,
    incomingDelPacket: nothing,
    cleanIncoming: nothing,
    putWill: nothing,
    delWill: nothing,
    streamWill: () => Readable.from([])
  }
}
