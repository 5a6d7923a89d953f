// The heart's surroundings without disk, network and time: a clock that the test holds, a store and a fallback in memory that can be
// made to refuse, a broker that hands over to simulated soundboxes, and those soundboxes with a journal that survives their restarts.
import type { Broker } from '../../gateway/broker/contract.js'
import type { Fallback, FallbackRecord } from '../../gateway/fallback/contract.js'
import type { Delivery, NewDelivery, ReplayMark, Store } from '../../gateway/store/contract.js'
import { createReplayMemory } from '../../gateway/store/replay-marks.js'
import type { Bank, BankKey, Device } from '../../gateway/store/directory.js'
import { type Ack, type AckResult, openAnnouncement, parseTopic, type SignedAnnouncement, SoundboxError } from '../../protocol/index.js'
import { createStoreModel, type StoreModel } from './store-model.js'
import { hexOf, someDevice, START_MS } from './store-records.js'

export const SIGNING_KEY = 'signing-key'

export type HandClock = { nowMs: () => number, advance: (ms: number) => void, startTimer: (callback: () => void, ms: number) => { stop: () => void }, timers: () => number }

/** A clock that stands still until it is moved; moving it runs the timers that fall due. */
export function handClock (startMs = START_MS): HandClock {
  let now = startMs
  const timers = new Set<{ callback: () => void, ms: number, at: number }>()
  return {
    nowMs: () => now,
    advance (ms) {
      const end = now + ms
      for (;;) {
        const next = [...timers].filter(timer => timer.at <= end).sort((a, b) => a.at - b.at)[0]
        if (next === undefined) break
        now = Math.max(now, next.at)
        next.at += next.ms
        next.callback()
      }
      now = end
    },
    startTimer (callback, ms) {
      const timer = { callback, ms, at: now + ms }
      timers.add(timer)
      return { stop: () => { timers.delete(timer) } }
    },
    timers: () => timers.size
  }
}

/** Lets everything that is under way come to rest. */
export async function settled (turns = 12): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise(resolve => setImmediate(resolve))
}

export type MemoryStore = Store & { model: StoreModel, refuses: { writes: boolean, reads: boolean }, calls: string[] }

/** The contract in memory. `refuses` makes writes or reads fail as a locked database does; `calls` names what was asked. */
export function memoryStore (nowMs: () => number): MemoryStore {
  const model = createStoreModel()
  const marks = createReplayMemory()
  const refuses = { writes: false, reads: false }
  const calls: string[] = []
  const serve = async <T>(kind: 'writes' | 'reads', name: string, work: () => T): Promise<T> => {
    calls.push(name)
    await Promise.resolve()
    if (refuses[kind]) throw new SoundboxError('STORE_FAILED', 'the database cannot serve this now')
    return work()
  }
  return {
    model, refuses, calls,
    recordPayment: (payment, deliveries) => serve('writes', 'recordPayment', () => model.recordPayment(payment, deliveries)),
    findPayment: (bankId, transactionId) => serve('reads', 'findPayment', () => model.findPayment(bankId, transactionId)),
    reversePayment: (bankId, transactionId, at) => serve('writes', 'reversePayment', () => model.reversePayment(bankId, transactionId, at)),
    stepDeliveries: changes => serve('writes', 'stepDeliveries', () => model.stepDeliveries(changes)),
    recordSummary: (summary, members, at) => serve('writes', 'recordSummary', () => { model.recordSummary(summary, members, at) }),
    recordNotice: notice => serve('writes', 'recordNotice', () => { model.recordNotice(notice) }),
    openDeliveries: (tid, limit) => serve('reads', 'openDeliveries', () => model.openDeliveries(tid, limit)),
    expireDeliveries: (before, at, limit) => serve('writes', 'expireDeliveries', () => model.expireDeliveries(before, at, limit)),
    queryHistory: query => serve('reads', 'queryHistory', () => ({ rows: model.queryHistory(query).slice(0, query.limit), next: null })),
    totalSince: (tid, since) => serve('reads', 'totalSince', () => model.totalSince(tid, since)),
    loadDirectory: () => serve('reads', 'loadDirectory', () => ({ banks: [], keys: [], devices: [], mappings: [] })),
    saveBank: () => serve('writes', 'saveBank', () => {}),
    saveBankKey: () => serve('writes', 'saveBankKey', () => {}),
    saveDevice: () => serve('writes', 'saveDevice', () => {}),
    saveMapping: () => serve('writes', 'saveMapping', () => {}),
    removeMapping: () => serve('writes', 'removeMapping', () => {}),
    saveDeviceSeen: () => serve('writes', 'saveDeviceSeen', () => {}),
    deviceStates: () => serve('reads', 'deviceStates', () => []),
    findTransactions: () => serve('reads', 'findTransactions', () => []),
    saveReversal: () => serve('writes', 'saveReversal', () => {}),
    removeReversal: () => serve('writes', 'removeReversal', () => {}),
    waitingReversals: () => serve('reads', 'waitingReversals', () => []),
    claimMark (mark: ReplayMark) {
      calls.push('claimMark')
      return marks.claim(mark, nowMs())
    },
    purgeMarks: before => marks.purge(before),
    purgeHistory: () => serve('writes', 'purgeHistory', () => 0),
    backup: () => serve('reads', 'backup', () => ({ bytes: 0 })),
    async exclusively (_job, work) {
      await work()
      return true
    },
    stats: () => ({ writeQueue: 0, committedBatches: 0, committedOps: 0, failedBatches: 0, ...model.counts() }),
    close: async () => {}
  }
}

export type MemoryFallback = Fallback & { records: FallbackRecord[], refuses: { appends: boolean } }

/** A fallback in memory. Records stay until they are drained. */
export function memoryFallback (): MemoryFallback {
  const records: FallbackRecord[] = []
  const refuses = { appends: false }
  return {
    records, refuses,
    async append (record) {
      await Promise.resolve()
      if (refuses.appends) throw new SoundboxError('SPOOL_FULL', 'the spool is full')
      records.push(record)
    },
    findPayment (bankId, transactionId) {
      const found = records.find(record => record.kind === 'payment' && record.payment.bankId === bankId && record.payment.transactionId === transactionId)
      return found?.kind === 'payment' ? { payment: found.payment, deliveries: found.deliveries } : undefined
    },
    async drain (apply) {
      let drained = 0
      for (let next = records[0]; next !== undefined; next = records[0]) {
        try {
          await apply(next)
        } catch {
          break
        }
        records.shift()
        drained++
      }
      return { drained, left: records.length, setAside: 0 }
    },
    depth: () => records.length,
    close: async () => {}
  }
}

/** What a simulated box does with what reaches it; 'lost' leaves no trace at all. */
export type BoxWay = { loseMessage: () => boolean, loseAck: (result: AckResult) => boolean, sound: (announcement: SignedAnnouncement) => AckResult }
export type SimBox = {
  tid: string
  online: boolean
  bootId: string
  heard: SignedAnnouncement[]
  /** Ids that made a sound, in order. */
  spoken: SignedAnnouncement[]
  /** Survives restarts. */
  journal: Map<string, AckResult>
  way: BoxWay
  /** Finals that got lost on the way: told again after the next hello, as an agent does. */
  unsettled: Map<string, Ack>
  /** The box takes a message off its connection and answers through `ack`. */
  take: (payload: Buffer, ack: (ack: Ack) => void) => void
}
export const FAITHFUL: BoxWay = { loseMessage: () => false, loseAck: () => false, sound: () => 'spoken' }

/** A box that keeps the rules: known ids are duplicates, expired ones are not spoken, the journal is written before the sound. */
export function simBox (tid: string, nowMs: () => number, way: BoxWay = FAITHFUL): SimBox {
  const box: SimBox = {
    tid, online: false, bootId: 'boot-1', heard: [], spoken: [], journal: new Map(), unsettled: new Map(), way,
    take (payload, ack) {
      if (box.way.loseMessage()) return
      const announcement = openAnnouncement(payload, tid, SIGNING_KEY)
      const { id } = announcement
      box.heard.push(announcement)
      const answer = (one: Ack): void => {
        if (!box.way.loseAck(one.result)) ack(one)
        else if (one.result !== 'received') box.unsettled.set(one.id, one)
      }
      const known = box.journal.get(id)
      if (known !== undefined) return answer({ id, result: 'duplicate', was: known })
      answer({ id, result: 'received' })
      const result = nowMs() >= announcement.expiresAt ? 'expired' : box.way.sound(announcement)
      box.journal.set(id, result)
      if (result === 'spoken') box.spoken.push(announcement)
      answer({ id, result, at: nowMs(), queuedMs: 0, audioMs: 900 })
    }
  }
  return box
}

export type FakeBroker = Pick<Broker, 'publish' | 'disconnect' | 'stats'> & {
  ready: boolean, disconnected: string[], published: string[]
  /** Where messages go; a box that is not here is not connected. */
  boxes: Map<string, SimBox>
  onAck: (tid: string, ack: Ack) => void
  /** Resolves publishes one by one when set. */
  hold: (() => Promise<void>) | null
}

/** Hands over in a later turn, as a socket does. */
export function fakeBroker (): FakeBroker {
  const broker: FakeBroker = {
    ready: true, disconnected: [], published: [], boxes: new Map(), onAck: () => {}, hold: null,
    async publish (topic, payload) {
      if (broker.hold !== null) await broker.hold()
      await Promise.resolve()
      const tid = parseTopic(topic)?.tid ?? ''
      const box = broker.boxes.get(tid)
      if (!broker.ready || box?.online !== true) throw new SoundboxError('PUBLISH_FAILED', `soundbox ${tid} is not connected`)
      broker.published.push(tid)
      setImmediate(() => { if (box.online) box.take(payload, ack => { setImmediate(() => { broker.onAck(tid, ack) }) }) })
    },
    disconnect (tid) { broker.disconnected.push(tid) },
    stats: () => ({ connected: broker.boxes.size, connects: 0, refused: 0, takeovers: 0, messagesIn: 0, messagesOut: 0, ready: broker.ready })
  }
  return broker
}

/** An active soundbox as the directory holds it. */
export function aDevice (tid: string, more: Partial<Device> = {}): Device {
  return { ...someDevice(tid, { language: 'ENGLISH', quietHours: null }), signingKey: SIGNING_KEY, ...more }
}

/** A bank as the directory holds it. */
export function aBank (id: string, more: Partial<Bank> = {}, keys: readonly BankKey[] = []): Bank {
  return {
    id, base: id, name: id, passKey: `pass-${id}`, profile: 'aes-256-cbc', database: true, headerReuse: 'forbid', fieldNames: {}, numericStatus: false, announceFailed: false,
    ratePerSecond: 1000, createdAt: START_MS, disabledAt: null, keys, ...more
  }
}

/** A payment's announcement that waits: `n` names it and orders it. */
export function anItem (n: number, issuedAt: number, more: Partial<NewDelivery> = {}): NewDelivery & { state: Delivery['state'] } {
  return {
    tid: 'BOX1', announcementId: hexOf(`item ${n}`), kind: 'payment', language: 'ENGLISH', seq: n, amountMinor: 100 * n, currency: 'INR', txnType: 'UPI', count: null,
    issuedAt, expiresAt: issuedAt + 60_000, ...more, state: 'accepted'
  }
}
