// Stand-ins over the store: policies a merchant (in memory, loaded at start, written through), rows a payment, and the question whether a
// box has said it. Where a message goes (number, push token, address) is sealed in both tables.
import { type ErrorCode, isSoundboxError, type Log, openSecret, sealSecret, SoundboxError } from '../protocol/index.js'
import { maskMsisdn, parseServiceRequest } from './integration/contract.js'
import type { Integration } from './integration/integration.js'
import { openStandIns, type StandIn, type StandInPayment, type StandInPolicy, type StandIns } from './integration/stand-in.js'
import { sendStandIn, standInCall } from './integration/stand-in-message.js'
import type { DeliveryState, Store } from './store/contract.js'
import type { Directory } from './store/directory.js'
import type { StandInPolicyRow, StandInRow, StandInStore } from './store/integration-records.js'
import type { Announce, PaymentOrder } from './trigger/announce.js'

/** Merchants with a policy; all are in memory. */
export const STAND_IN_POLICIES_MAX = 200_000
/** In these states the box has said it, or a vendor has it who never tells more. */
const HEARD: readonly DeliveryState[] = ['spoken', 'duplicate', 'summarised', 'handed']
const NOT_HANDED_OVER: readonly ErrorCode[] = ['PUBLISH_FAILED', 'VENDOR_FAILED']

export type StandInBookDeps = {
  records: StandInStore, store: Pick<Store, 'findPayment'>, directory: Pick<Directory, 'bankById'>, integration: Pick<Integration, 'forBackground' | 'transports'>
  sealKey: Buffer, utcOffsetMinutes: number, senderId: string | undefined, nowMs: () => number, log: Log
}
export type MerchantName = { bankId: string, merchant: string }
/** What may be shown: `to` is masked. */
export type ShownPolicy = MerchantName & StandInPolicy
export type StandInBook = {
  standIns: StandIns
  /** The same announce, with a stand-in planned for what it recorded. */
  wrap: (announce: Announce) => Announce
  policies: () => readonly ShownPolicy[]
  /** Durable when it resolves. Throws NOT_FOUND, INPUT_INVALID, PROVIDER_CONFIG (nobody could send it), STORE_FAILED. */
  setPolicy: (of: MerchantName, policy: StandInPolicy) => Promise<ShownPolicy>
  /** Throws NOT_FOUND. */
  removePolicy: (of: MerchantName) => Promise<void>
  /** Newest first, `to` masked. */
  newest: (limit: number) => Promise<readonly StandIn[]>
}

/** Loads the policies. Throws SECRET_UNREADABLE when another master key sealed them. */
export async function openStandInBook (deps: StandInBookDeps): Promise<StandInBook> {
  const { records, sealKey, nowMs } = deps
  const policies = new Map((await records.loadPolicies()).map(row => [keyOf(row), policyFromRow(sealKey, row)]))
  const standIns = openStandIns({
    policyOf: (bankId, merchant) => policies.get(keyOf({ bankId, merchant })),
    record: row => records.record(rowFrom(sealKey, row)),
    due: async (now, stuckBefore, limit) => (await records.due(now, stuckBefore, limit)).map(row => standInFromRow(sealKey, row)),
    claim: (from, to) => records.claim(from, rowFrom(sealKey, to)),
    save: row => records.save(rowFrom(sealKey, row)),
    isSpoken: (bankId, transactionId) => isSpoken(deps, bankId, transactionId),
    send: (row, clientRef) => send(deps, row, clientRef),
    nowMs, log: deps.log
  })
  return {
    standIns,
    wrap: announce => announceWith(announce, standIns, nowMs),
    policies: () => [...policies.values()].map(shown),
    async setPolicy (of, policy) {
      const name = checkedName(deps, of)
      checkPolicy(deps, name, policy)
      if (policies.size >= STAND_IN_POLICIES_MAX && !policies.has(keyOf(name))) throw new SoundboxError('INPUT_INVALID', `there are ${STAND_IN_POLICIES_MAX} stand-in policies already`)
      const { to, ...rest } = policy
      await records.savePolicy({ ...name, ...rest, toSealed: sealSecret(sealKey, ownerOf(name), to), changedAt: nowMs() })
      policies.set(keyOf(name), { ...name, ...policy })
      return shown({ ...name, ...policy })
    },
    async removePolicy (of) {
      const name = { ...of, merchant: of.merchant.toLowerCase() }
      if (!policies.has(keyOf(name))) throw new SoundboxError('NOT_FOUND', `merchant ${name.merchant} of bank ${name.bankId} has no stand-in`)
      await records.removePolicy(name.bankId, name.merchant)
      policies.delete(keyOf(name))
    },
    newest: async limit => (await records.newest(limit)).map(row => masked(standInFromRow(sealKey, row)))
  }
}

/** Once it has gone, a name that cannot be kept costs the report of the provider, and nothing else. */
async function send ({ integration, records, utcOffsetMinutes, senderId, log }: StandInBookDeps, row: StandIn, clientRef: string): Promise<void> {
  const words = { utcOffsetMinutes, ...(senderId === undefined ? {} : { senderId }) }
  const id = await sendStandIn(integration.forBackground('stand-in').call, row, clientRef, words)
  if (id !== null) await records.noteSent(row.bankId, row.transactionId, id).catch((err: unknown) => { log.warn({ err, bankId: row.bankId }, 'what the provider calls a stand-in was not kept') })
}

/** A payment that was recorded and could not be sent has a stand-in too. Planning is one write behind the payment's own, and never fails. */
function announceWith (announce: Announce, standIns: StandIns, nowMs: () => number): Announce {
  return async order => {
    try {
      const announced = await announce(order)
      if (announced.payment.status === 'success') await plan(standIns, announced.payment)
      return announced
    } catch (error) {
      if (order.status === 'success' && isSoundboxError(error) && NOT_HANDED_OVER.includes(error.code)) await plan(standIns, paymentFromOrder(order, nowMs()))
      throw error
    }
  }
}

async function plan (standIns: StandIns, { bankId, transactionId, merchant, amountMinor, currency, acceptedAt }: Omit<StandInPayment, 'merchant'> & { merchant: string | null }): Promise<void> {
  if (merchant !== null) await standIns.plan({ bankId, transactionId, merchant, amountMinor, currency, acceptedAt })
}

function paymentFromOrder (order: PaymentOrder, nowMs: number): Omit<StandInPayment, 'merchant'> & { merchant: string | null } {
  const { bank, transactionId, merchant, amountMinor, currency } = order
  return { bankId: bank.id, transactionId, merchant: bank.database ? merchant : null, amountMinor, currency, acceptedAt: nowMs }
}

/** Rejects while history cannot be asked: nothing is sent on a guess. A payment that was reversed needs no word either. */
async function isSpoken ({ store }: StandInBookDeps, bankId: string, transactionId: string): Promise<boolean> {
  const stored = await store.findPayment(bankId, transactionId)
  return stored !== undefined && (stored.reversedAt !== null || stored.deliveries.some(delivery => HEARD.includes(delivery.state)))
}

function checkedName ({ directory }: StandInBookDeps, { bankId, merchant }: MerchantName): MerchantName {
  const bank = directory.bankById(bankId)
  if (bank === undefined) throw new SoundboxError('NOT_FOUND', `there is no bank ${bankId}`)
  if (!bank.database || merchant === '') throw new SoundboxError('INPUT_INVALID', 'a stand-in needs a merchant of a bank with database')
  return { bankId, merchant: merchant.toLowerCase() }
}

/** The message that it would send is judged by the contract of its service. */
function checkPolicy ({ integration, nowMs }: StandInBookDeps, name: MerchantName, policy: StandInPolicy): void {
  if (integration.transports()[policy.channel] === undefined) throw new SoundboxError('PROVIDER_CONFIG', `issuer ${policy.channel} is not configured: nobody could send this stand-in`)
  const row: StandIn = {
    ...name, ...policy, transactionId: 'T00000001', amountMinor: 100, currency: 'INR', acceptedAt: nowMs(), state: 'waiting', dueMs: 0, attempts: 0, changedAt: 0, reason: null
  }
  const { service, input } = standInCall(row, 'stand-in-check', { utcOffsetMinutes: 0 })
  parseServiceRequest(service, input)
}

function keyOf ({ bankId, merchant }: MerchantName): string {
  return `${bankId}\0${merchant}`
}

function ownerOf ({ bankId, merchant }: MerchantName): string {
  return `stand-in:${bankId}/${merchant}`
}

function rowFrom (key: Buffer, { to, ...row }: StandIn): StandInRow {
  return { ...row, toSealed: sealSecret(key, ownerOf(row), to) }
}

function standInFromRow (key: Buffer, { toSealed, ...row }: StandInRow): StandIn {
  return { ...row, to: openSecret(key, ownerOf(row), toSealed) }
}

function policyFromRow (key: Buffer, { toSealed, changedAt: _, ...row }: StandInPolicyRow): ShownPolicy {
  return { ...row, to: openSecret(key, ownerOf(row), toSealed) }
}

function shown (policy: ShownPolicy): ShownPolicy {
  return { bankId: policy.bankId, merchant: policy.merchant, channel: policy.channel, to: maskedTo(policy), afterMs: policy.afterMs, amountMinorMin: policy.amountMinorMin }
}

function masked (row: StandIn): StandIn {
  return { ...row, to: maskedTo(row) }
}

function maskedTo ({ channel, to }: Pick<StandIn, 'channel' | 'to'>): string {
  if (channel === 'sms') return maskMsisdn(to)
  if (channel === 'push') return `${to.slice(0, 4)}…`
  const [name = '', host = ''] = to.split('@')
  return `${name.slice(0, 1)}***@${host}`
}
