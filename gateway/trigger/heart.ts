// The heart put together: announce, ledger, pump and vendor push over one store, one fallback and one broker.
import type { Ack, Log, Reported } from '../../protocol/index.js'
import { formatAmount } from '../../protocol/index.js'
import type { Broker } from '../broker/contract.js'
import type { Fallback } from '../fallback/contract.js'
import type { DeliveryChange, NewDelivery, Store, StoredPayment } from '../store/contract.js'
import type { Device, Directory } from '../store/directory.js'
import { type Announce, openAnnounce } from './announce.js'
import { openFeed, type Feed } from './feed.js'
import { type Ledger, openLedger } from './ledger.js'
import type { Meter } from './meter.js'
import { openPump, type Pump } from './pump.js'
import { BACKLOG_PAGE, type PumpDeps, type PumpPolicy } from './pump-run.js'
import { type NodeDeps, openRelay } from './relay.js'
import { makeSequence } from './sequence.js'
import { openVendorPush, VENDOR_TIMEOUT_MS, type VendorPush } from './vendor-push.js'
import { type Waiting, waitingOf } from './backlog.js'

export type DeviceTypeInfo = { transport: 'mqtt' | 'vendor_http', baseUrl: string | undefined }
export type HeartDeps = {
  directory: Directory
  store: Store
  fallback: Fallback
  broker: () => Pick<Broker, 'publish' | 'disconnect' | 'stats'>
  /** Throws DEVICE_TYPE_INVALID. */
  typeOf: (type: string) => DeviceTypeInfo
  policy: PumpPolicy
  /** With an external broker, to which soundboxes stay connected and which other gateways may share. */
  nodes?: NodeDeps
  meter: Meter
  nowMs: () => number
  startTimer: (callback: () => void, ms: number) => { stop: () => void }
  log: Log
}

export type Heart = {
  announce: Announce
  feed: Feed
  /** Says something that is no payment: test, prompt, reversed phrase. Durable; spoken when the box is there in time. */
  notify: (device: Device, notice: NewDelivery) => Promise<void>
  /** Marks a payment reversed and takes back what was not sent yet; undefined when the payment is unknown. */
  reverse: (bankId: string, transactionId: string) => Promise<StoredPayment | undefined>
  handleHello: (tid: string, bootId: string) => void
  handleOffline: (tid: string) => void
  handleAck: (tid: string, ack: Ack) => Promise<void>
  /** For other gateways, one of which may have told the box what it should be. */
  handleReported: (tid: string, reported: Reported) => void
  /** Acks may have been lost: boxes are asked what became of what they have. */
  handleGap: () => void
  /** A last will that comes now is that of the connection before. */
  hasJustCome: (tid: string) => boolean
  sweepVendors: () => Promise<void>
  /** Learns which other gateways are there; before the broker is open. Rejects with STORE_FAILED. */
  join: () => Promise<void>
  /** Takes the boxes that are connected already. Open vendor deliveries of an earlier run are pushed again, by the next sweeps. */
  resume: () => Promise<void>
  nextSeq: () => number
  depth: () => { waiting: number, inFlight: number, vendorWaiting: number }
  close: () => Promise<void>
}

export const PUMP_TICK_MS = 1000

/** Opens the heart; nothing is sent until `resume` or the first payment. */
export function openHeart (deps: HeartDeps): Heart {
  const { directory, store, fallback, log, nowMs } = deps
  const feed = openFeed()
  const nextSeq = makeSequence(nowMs)
  const ledger = openLedger({ store, fallback, log, startTimer: deps.startTimer })
  const { note, settle } = toldTo(feed, ledger)
  const pump = openPump({
    directory, ...sharing(deps), isStoreBehind: () => fallback.depth() > 0, broker: deps.broker, note, settle, nowMs, nextSeq, policy: deps.policy, meter: deps.meter, log
  })
  const vendor = openVendorPush({ baseUrlOf: type => deps.typeOf(type).baseUrl, settle, nowMs, meter: deps.meter, log })
  const isBrokerReady = (): boolean => deps.broker().stats().ready
  const relay = deps.nodes === undefined ? undefined
    : openRelay({ ...deps.nodes, pump, settle, isBrokerReady, summaryMs: deps.policy.summaryMs, nowMs, startTimer: deps.startTimer, log })
  const boxes = relay ?? pump
  const send = sender(deps, { offer: boxes.offer, isAlone: () => relay?.isAlone() !== false, vendor })
  const announce = openAnnounce({ directory, store, fallback, send, checkType: type => { deps.typeOf(type) }, speakMs: deps.policy.speakMs, nowMs, nextSeq, meter: deps.meter, log })
  const timer = deps.startTimer(pump.tick, PUMP_TICK_MS)

  return {
    async announce (order) {
      const announced = await announce(order)
      if (!announced.repeated && feed.hasListeners()) feed.emit(paymentEvent(announced))
      return announced
    },
    feed,
    async notify (device, notice) {
      await store.recordNotice(notice)
      await send(device, { ...notice, state: 'accepted' })
    },
    async reverse (bankId, transactionId) {
      const reversed = await store.reversePayment(bankId, transactionId, nowMs())
      for (const { tid, announcementId } of reversed?.deliveries ?? []) {
        boxes.withdraw(tid, announcementId)
        vendor.withdraw(tid, announcementId)
      }
      return reversed
    },
    handleHello: (tid, bootId) => boxes.handleHello(tid, bootId),
    handleOffline: tid => { boxes.handleOffline(tid) },
    handleAck: (tid, ack) => boxes.handleAck(tid, ack),
    handleReported: (tid, reported) => relay?.handleReported(tid, reported),
    handleGap: () => relay?.handleGap(),
    hasJustCome: tid => relay?.hasJustCome(tid) === true,
    sweepVendors: () => vendor.sweep(),
    join: async () => { await relay?.join() },
    async resume () {
      relay?.start()
      // What another gateway has in its hands would be pushed twice.
      if (relay === undefined || relay.isAlone()) await resumeVendors(deps, vendor)
    },
    nextSeq,
    depth: () => ({ ...pump.depth(), vendorWaiting: vendor.waiting() }),
    async close () {
      timer.stop()
      await pump.close()
      await ledger.close()
      await relay?.close()
    }
  }
}

/** What the pump must know of other gateways. */
function sharing ({ store, nodes }: HeartDeps): Pick<PumpDeps, 'store' | 'isShared'> {
  const bus = nodes?.bus ?? undefined
  return { store: { openDeliveries: store.openDeliveries, recordSummary: bus?.recordSummaryOnce ?? store.recordSummary }, isShared: bus !== undefined }
}

type Ways = { offer: Pump['offer'], isAlone: () => boolean, vendor: VendorPush }

/** Sends to one box by its transport. */
function sender ({ typeOf, nowMs }: HeartDeps, { offer, isAlone, vendor }: Ways): (device: Device, item: Waiting) => Promise<void> {
  return async (device, item) => {
    if (typeOf(device.type).transport !== 'vendor_http') return await offer(device.tid, [item])
    // Another gateway may be handing it over at this moment; a vendor's box would say it twice.
    const isInOtherHands = item.doubtful === true && !isAlone() && nowMs() - item.issuedAt < 2 * VENDOR_TIMEOUT_MS
    if (!isInOtherHands) await vendor.push(device, item)
  }
}

/** The ledger, with everyone who listens told what goes into it. */
function toldTo (feed: Feed, ledger: Ledger): Pick<Ledger, 'note' | 'settle'> {
  const tell = (changes: readonly DeliveryChange[]): void => {
    if (!feed.hasListeners()) return
    for (const { tid, announcementId, state, at, reason } of changes) feed.emit({ kind: 'delivery', at, tid, announcementId, state, ...(reason === undefined ? {} : { reason }) })
  }
  return {
    note (change) {
      tell([change])
      ledger.note(change)
    },
    async settle (changes, isOurs) {
      await ledger.settle(changes, isOurs)
      tell(changes)
    }
  }
}

/** What a vendor's boxes were to say when the gateway stopped, if it is fresh still. */
async function resumeVendors (deps: HeartDeps, vendor: VendorPush): Promise<void> {
  const { directory, store, nowMs } = deps
  for (const device of directory.devices()) {
    if (!isVendorBox(deps, device)) continue
    for (const row of await store.openDeliveries(device.tid, BACKLOG_PAGE)) if (nowMs() < row.expiresAt) vendor.adopt(device, waitingOf(row))
  }
}

/** A box whose type was taken out of the registry stops itself, not the gateway. */
function isVendorBox ({ typeOf, log }: HeartDeps, { tid, type }: Device): boolean {
  try {
    return typeOf(type).transport === 'vendor_http'
  } catch (err) {
    log.warn({ err, tid, type }, 'soundbox of a type that is not registered')
    return false
  }
}

function paymentEvent ({ payment, tids }: Awaited<ReturnType<Announce>>): Parameters<Feed['emit']>[0] {
  return {
    kind: 'payment', at: payment.acceptedAt, bankId: payment.bankId, transactionId: payment.transactionId, merchant: payment.merchant,
    amount: formatAmount(payment.amountMinor), currency: payment.currency, status: payment.status, tids
  }
}
