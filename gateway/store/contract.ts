// What the gateway needs of its durable memory, whichever database stands behind it: sqlite.ts (one machine) or postgres.ts (many).
//
// Every record operation is idempotent: it may run twice, after a crash or out of the fallback's drain. No call holds a transaction
// across an await of the caller. A call that cannot be served (locked, full, I/O error, closed) rejects with STORE_FAILED, soon: the
// caller has a fallback. Times are milliseconds since 1970, UTC. Amounts are minor units.
import type { AnnouncementKind, Language } from '../../protocol/index.js'

export type PaymentStatus = 'success' | 'failed'
export type PaymentSource = 'http' | 'iso8583'

/**
 * Money came in (or did not: status failed). `contentHash`: 32 hex digits over what makes two requests the same payment. `listed`:
 * false for a bank without database: kept for the duplicate check and for its deliveries, never shown by queryHistory.
 */
export type Payment = {
  bankId: string
  transactionId: string
  merchant: string | null
  amountMinor: number
  currency: string
  txnType: string | null
  language: Language | null
  status: PaymentStatus
  source: PaymentSource
  contentHash: string
  acceptedAt: number
  listed: boolean
}

/** published: with the broker. delivered: the box says it has it. All others are final. handed: a vendor's server took it and never tells more. */
export const DELIVERY_STATES = ['accepted', 'published', 'delivered', 'spoken', 'duplicate', 'expired', 'summarised', 'muted', 'failed', 'reversed', 'handed'] as const
export type DeliveryState = typeof DELIVERY_STATES[number]
export const OPEN_STATES: readonly DeliveryState[] = ['accepted', 'published', 'delivered']

/** How a summary may end without having been heard; its members end the same way. */
export const UNHEARD_STATES: readonly DeliveryState[] = ['expired', 'muted', 'failed']

/** True for the states that a delivery never leaves, but for `summarised`, whose summary may end unheard. */
export function isFinal (state: DeliveryState): boolean {
  return !OPEN_STATES.includes(state)
}

/** One announcement for one device. `seq` grows per device and orders what is said. `count` is set for a summary. */
export type NewDelivery = {
  tid: string
  announcementId: string
  kind: AnnouncementKind
  language: Language
  seq: number
  amountMinor: number
  currency: string
  txnType: string | null
  count: number | null
  issuedAt: number
  expiresAt: number
}

export type Delivery = NewDelivery & {
  bankId: string | null
  transactionId: string | null
  state: DeliveryState
  publishedAt: number | null
  deliveredAt: number | null
  finalAt: number | null
  queuedMs: number | null
  audioMs: number | null
  reason: string | null
  summaryId: string | null
}

/**
 * What is now known of a delivery. States only move forward (accepted, published, delivered, then one final). A step back changes no
 * state; it only fills in `publishedAt` or `deliveredAt` where an ack overtook the news of it. The four details belong to a final state.
 */
export type DeliveryChange = {
  tid: string
  announcementId: string
  state: DeliveryState
  at: number
  queuedMs?: number
  audioMs?: number
  reason?: string
  summaryId?: string
}

export type Recorded =
  | { outcome: 'new' }
  | { outcome: 'same' | 'different', payment: Payment, deliveries: readonly Delivery[], reversedAt: number | null }

export type StoredPayment = { payment: Payment, deliveries: readonly Delivery[], reversedAt: number | null }

/** Newest first. `since` inclusive, `until` exclusive. `cursor` is what the page before gave as `next`; pages are by key, so deep ones cost as little as the first. */
export type HistoryQuery = {
  bankId?: string, merchant?: string, tid?: string, since?: number, until?: number, status?: PaymentStatus, transactionId?: string
  limit: number, cursor?: string
}
export type HistoryPage = { rows: readonly StoredPayment[], next: string | null }
export const HISTORY_PAGE_MAX = 500

export type BankProfile = 'aes-256-cbc' | 'aes-256-gcm' | 'none'
/** One live set of credentials; two may be live during a rotation. Secrets are sealed (protocol/secrets.ts) with owner `bank:{id}`. */
export type BankKeyRow = {
  keyId: string, bankId: string, clientId: string, clientSecretHash: string, headerKeySealed: string, payloadKeySealed: string
  validFrom: number, validTo: number | null
}
export type BankRow = {
  id: string, base: string, name: string, passKey: string, profile: BankProfile, database: boolean, headerReuse: 'forbid' | 'allow'
  fieldNames: Readonly<Record<string, string>>, numericStatus: boolean, announceFailed: boolean, ratePerSecond: number
  createdAt: number, disabledAt: number | null
}
export type QuietHours = { startMinute: number, endMinute: number, utcOffsetMinutes: number }
/** `desiredVersion` grows with every change of what the device should be. `mqttPasswordHash`, `signingKeySealed`: owner `device:{tid}`. */
export type DeviceRow = {
  tid: string, type: string, status: 'active' | 'inactive', language: Language, volume: number, minVolume: number, quietHours: QuietHours | null
  display: string | null, desiredVersion: number, mqttPasswordHash: string, signingKeySealed: string
  createdAt: number, activatedAt: number | null, deactivatedAt: number | null
}
export type MappingRow = { bankId: string, merchant: string, tid: string, mappedAt: number }
export type DirectoryRows = { banks: BankRow[], keys: BankKeyRow[], devices: DeviceRow[], mappings: MappingRow[] }

/** A replay mark: 16 bytes as 32 hex digits. `owner` tells whose second use is allowed ('' = nobody's). */
export type ReplayMark = { mark: string, owner: string, expiresAt: number }

/** A reversal of ours that a peer has not acknowledged yet. One for each (peer, reference). */
export type OutgoingReversal = { peer: string, reference: string, message: { mti: string, fields: Record<string, string> }, createdAt: number }

/** `takeover`: this connection pushed out another of the same device; counted. Objects replace what was known, absent ones keep it. */
export type DeviceSeen = { tid: string, at: number, online: boolean, takeover?: boolean, hello?: object, reported?: object, telemetry?: object }
export type DeviceState = Omit<DeviceSeen, 'takeover'> & { onlineSince: number | null, takeovers: number }

export type StoreStats = { writeQueue: number, committedBatches: number, committedOps: number, failedBatches: number, payments: number, openDeliveries: number }

export type Store = {
  /** Payment and its deliveries in one transaction, on disk when it resolves. */
  recordPayment: (payment: Payment, deliveries: readonly NewDelivery[]) => Promise<Recorded>
  /** By the reader: works while the writer is locked. */
  findPayment: (bankId: string, transactionId: string) => Promise<StoredPayment | undefined>
  /** Marks a payment reversed (once) and its open deliveries `reversed`; tells what had been said by then. */
  reversePayment: (bankId: string, transactionId: string, at: number) => Promise<StoredPayment | undefined>
  /** Moves deliveries forward; rows that are not there are returned (their payment may still be in the fallback). */
  stepDeliveries: (changes: readonly DeliveryChange[]) => Promise<readonly DeliveryChange[]>
  /** A summary's own delivery, and its members set to `summarised` with its id, in one transaction. */
  recordSummary: (summary: NewDelivery, members: readonly string[], at: number) => Promise<void>
  /** A delivery without a payment: test, prompt, reversed phrase. */
  recordNotice: (notice: NewDelivery) => Promise<void>
  /** Open deliveries of one device, oldest `seq` first. */
  openDeliveries: (tid: string, limit: number) => Promise<readonly Delivery[]>
  /** Sets open deliveries issued before `issuedBefore` to expired, at most `limit`; members of an expired summary too (not counted). Returns how many. */
  expireDeliveries: (issuedBefore: number, at: number, limit: number) => Promise<number>
  queryHistory: (query: HistoryQuery) => Promise<HistoryPage>
  /** Count and total of successful, not reversed payments of a device since a time: the day total. */
  totalSince: (tid: string, since: number) => Promise<{ count: number, amountMinor: number }>

  /** Transaction ids of a bank that begin so, in order, at most `limit`. */
  findTransactions: (bankId: string, prefix: string, limit: number) => Promise<readonly string[]>
  /** Once for each (peer, reference): the first stays. */
  saveReversal: (reversal: OutgoingReversal) => Promise<void>
  removeReversal: (peer: string, reference: string) => Promise<void>
  /** Oldest first. */
  waitingReversals: (peer: string, limit: number) => Promise<readonly OutgoingReversal[]>

  loadDirectory: () => Promise<DirectoryRows>
  saveBank: (bank: BankRow) => Promise<void>
  saveBankKey: (key: BankKeyRow) => Promise<void>
  saveDevice: (device: DeviceRow) => Promise<void>
  saveMapping: (mapping: MappingRow) => Promise<void>
  removeMapping: (bankId: string, merchant: string, tid: string) => Promise<void>
  saveDeviceSeen: (seen: readonly DeviceSeen[]) => Promise<void>
  deviceStates: () => Promise<readonly DeviceState[]>

  /** True when the mark is new, or its owner is the same and not ''. Durable no later than the next recorded payment. */
  claimMark: (mark: ReplayMark) => boolean | Promise<boolean>
  purgeMarks: (expiredBefore: number) => Promise<number>
  /** Removes payments accepted before the time, with their deliveries, at most `limit`. Open deliveries keep their payment. Counts notices too. */
  purgeHistory: (acceptedBefore: number, limit: number) => Promise<number>
  /** A consistent copy, checked for integrity, at the path. */
  backup: (path: string) => Promise<{ bytes: number }>
  /** Runs `work` on one node only: true when this node had the lock. */
  exclusively: (job: string, work: () => Promise<void>) => Promise<boolean>
  stats: () => StoreStats
  /** Refuses new work, finishes what is queued. */
  close: () => Promise<void>
}
