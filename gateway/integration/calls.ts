// The ledger of calls that change something (SMS, e-mail, push, identity checks): recorded before they are sent, so that a client_ref is
// never sent twice and a call whose answer was lost is known, asked after, and never guessed.
//
//   sending --ok--> done          answers every repetition from the record
//           --refused--> refused  certainly not done: the same client_ref may try again
//           --lost--> unknown --status query--> done | refused, or stays unknown when nobody can tell
//
// A record left in `sending` by a crash is `unknown` after SENDING_LOST_MS. Request and answer are sealed: they hold phone numbers.
// The key is caller + service + client_ref: two partners may use the same client_ref.
import { createHash } from 'node:crypto'
import { type ErrorCode, isSoundboxError, type Log, openSecret, safeErrorText, sealSecret, SoundboxError } from '../../protocol/index.js'
import type { CallChange, CallRecord, CallStore } from '../store/integration-records.js'
import type { Issuer, ServiceName, ServiceRequest, ServiceResponse } from './contract.js'
import type { Settlement, UnknownCall } from './provider.js'

export const SENDING_LOST_MS = 600_000 // Longer than any deadline.
export const SETTLE_FIRST_MS = 30_000 // A provider's own status lags behind.
export const SETTLE_CAP_MS = 3_600_000
export const SETTLE_ASKS_MAX = 24
export const SETTLE_PAGE = 100
export const CALLS_KEEP_MS = 7 * 86_400_000

export type { CallChange, CallRecord, CallStore } from '../store/integration-records.js'

export type CallLedgerDeps = { store: CallStore, key: Buffer, nowMs: () => number, log: Log }
export type ChangingCall<S extends ServiceName> = { issuer: Issuer, service: S, input: ServiceRequest<S>, clientRef: string, actor: string, traceId: string, reference: string }
export type CallLedger = {
  /** Runs `send` at most once for a client_ref; after a refusal again, with the reference of the first time. Throws ALREADY_EXISTS (other content),
   *  PROVIDER_STATE_UNKNOWN, STORE_FAILED, and what `send` throws. */
  once: <S extends ServiceName>(call: ChangingCall<S>, send: (reference: string) => Promise<ServiceResponse<S>>) => Promise<ServiceResponse<S>>
  /** Asks about every due unknown call; `ask` is undefined for services that cannot be asked. Returns how many were settled. */
  settleDue: (ask: SettleAsk) => Promise<number>
}
export type SettleAsk = <S extends ServiceName>(call: UnknownCall<S>, record: { actor: string, traceId: string }) => Promise<Settlement<S>> | undefined

/** Errors after which nothing can have happened at the provider. */
const NOTHING_DONE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'INPUT_INVALID', 'PROVIDER_CONFIG', 'PROVIDER_AUTH_MISSING', 'PROVIDER_TIMEOUT', 'PROVIDER_UNAVAILABLE', 'PROVIDER_BUSY', 'PROVIDER_REJECTED', 'OVERLOADED'
])

/** The ledger over its store. `key` seals requests and answers at rest. */
export function openCallLedger (deps: CallLedgerDeps): CallLedger {
  const inFlight = new Map<string, { contentHash: string, answer: Promise<unknown> }>()
  return {
    async once (call, send) {
      const record = recordFrom(deps, call)
      const running = inFlight.get(record.key)
      if (running !== undefined) {
        if (running.contentHash !== record.contentHash) throw otherContent()
        return await running.answer as ServiceResponse<typeof call.service>
      }
      const answer = runOnce(deps, record, call.service, send)
      inFlight.set(record.key, { contentHash: record.contentHash, answer })
      try {
        return await answer
      } finally {
        inFlight.delete(record.key)
      }
    },
    async settleDue (ask) {
      const nowMs = deps.nowMs()
      const due = await deps.store.due(nowMs, nowMs - SENDING_LOST_MS, SETTLE_PAGE)
      let settled = 0
      for (const record of due) if (!inFlight.has(record.key) && await settleOne(deps, record, ask)) settled += 1
      return settled
    }
  }
}

function recordFrom<S extends ServiceName> (deps: CallLedgerDeps, call: ChangingCall<S>): CallRecord {
  const key = createHash('sha256').update(`${call.actor}\0${call.service}\0${call.clientRef}`).digest('hex')
  return {
    key, issuer: call.issuer, service: call.service, actor: call.actor, traceId: call.traceId, reference: call.reference, state: 'sending',
    contentHash: createHash('sha256').update(stableJson(call.input)).digest('hex'), inputSealed: sealSecret(deps.key, key, JSON.stringify(call.input)),
    responseSealed: null, atMs: deps.nowMs(), asks: 0, nextAskMs: null
  }
}

async function runOnce<S extends ServiceName> (deps: CallLedgerDeps, record: CallRecord, service: S, send: (reference: string) => Promise<ServiceResponse<S>>): Promise<ServiceResponse<S>> {
  const known = await deps.store.begin(record)
  if (known !== undefined) {
    if (known.contentHash !== record.contentHash) throw otherContent()
    if (known.state === 'done' && known.responseSealed !== null) return JSON.parse(openSecret(deps.key, known.key, known.responseSealed)) as ServiceResponse<S>
    if (known.state !== 'refused' || !await deps.store.restart({ ...record, reference: known.reference })) {
      throw new SoundboxError('PROVIDER_STATE_UNKNOWN', `${service}: this client_ref was sent before and its state is not known yet`)
    }
  }
  try {
    const response = await send(known?.reference ?? record.reference)
    await finish(deps, record, { state: 'done', responseSealed: sealSecret(deps.key, record.key, JSON.stringify(response)), asks: 0, nextAskMs: null })
    return response
  } catch (error) {
    const isNothingDone = isSoundboxError(error) && NOTHING_DONE.has(error.code)
    await finish(deps, record, isNothingDone
      ? { state: 'refused', responseSealed: null, asks: 0, nextAskMs: null }
      : { state: 'unknown', responseSealed: null, asks: 0, nextAskMs: deps.nowMs() + SETTLE_FIRST_MS })
    if (!isNothingDone) deps.log.warn({ err: error, issuer: record.issuer, service, traceId: record.traceId }, 'a provider call is of unknown state')
    throw error
  }
}

/** A store that refuses here leaves the record in `sending`: later it counts as unknown, which is the safe side. */
async function finish (deps: CallLedgerDeps, record: CallRecord, change: CallChange): Promise<void> {
  try {
    await deps.store.finish(record.key, change)
  } catch (err) {
    deps.log.error({ err, issuer: record.issuer, traceId: record.traceId, state: change.state }, 'the end of a provider call could not be recorded')
  }
}

async function settleOne (deps: CallLedgerDeps, record: CallRecord, ask: SettleAsk): Promise<boolean> {
  const asks = record.asks + 1
  const later = { state: 'unknown', responseSealed: null, asks, nextAskMs: asks >= SETTLE_ASKS_MAX ? null : deps.nowMs() + settleWaitMs(asks) } as const
  const input = JSON.parse(openSecret(deps.key, record.key, record.inputSealed)) as ServiceRequest<ServiceName>
  const facts = { issuer: record.issuer, service: record.service, traceId: record.traceId, asks }
  try {
    const answer = ask({ service: record.service as ServiceName, input, reference: record.reference, atMs: record.atMs }, record)
    if (answer === undefined) {
      await deps.store.finish(record.key, { ...later, nextAskMs: null })
      deps.log.error(facts, 'a provider call stays of unknown state: this provider cannot be asked')
      return false
    }
    const settlement = await answer
    if (settlement.state === 'open') {
      await deps.store.finish(record.key, later)
      if (later.nextAskMs === null) deps.log.error(facts, 'a provider call stays of unknown state: the provider does not know either')
      return false
    }
    await deps.store.finish(record.key, settlement.state === 'done'
      ? { state: 'done', responseSealed: sealSecret(deps.key, record.key, JSON.stringify(settlement.data)), asks, nextAskMs: null }
      : { state: 'refused', responseSealed: null, asks, nextAskMs: null })
    deps.log.info({ ...facts, state: settlement.state }, 'a provider call of unknown state is settled')
    return true
  } catch (err) {
    deps.log.warn({ ...facts, reason: safeErrorText(err) }, 'the state of a provider call could not be asked')
    await finish(deps, record, later)
    return false
  }
}

/** Wait before ask n + 1: doubling from SETTLE_FIRST_MS up to SETTLE_CAP_MS. */
export function settleWaitMs (asks: number): number {
  return Math.min(SETTLE_CAP_MS, SETTLE_FIRST_MS * 2 ** Math.min(asks, 20))
}

function otherContent (): SoundboxError {
  return new SoundboxError('ALREADY_EXISTS', 'this client_ref was used for another request')
}

/** JSON with sorted keys: the same request in another key order is the same request. */
function stableJson (value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(stableJson).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  return `{${Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, item]) => `${JSON.stringify(name)}:${stableJson(item)}`).join(',')}}`
}
