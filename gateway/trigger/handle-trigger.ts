// A bank's request from its bytes to what is to be answered, whatever HTTP server brought it.
import { announcementId, type FieldError, parseTrigger, SoundboxError } from '../../protocol/index.js'
import type { Bank, BankKey } from '../store/directory.js'
import type { Announce, Announced } from './announce.js'
import { authenticate, type Authenticated, type AuthenticateDeps, EPOCH_AGE_MS_MAX, type TriggerHeaders, unnamedTransactionId } from './authenticate.js'
import type { RateLimit } from './rate.js'

/** Wrong credentials that one address may send a second, before it is told to wait. */
export const CREDENTIAL_FAULTS_PER_SECOND = 50
export const CURRENCY = 'INR'

/** `body` null: a call without one. */
export type BankRequest = { base: string | null, address: string, headers: TriggerHeaders, body: string | null }
export type TriggerOutcome =
  | { kind: 'announced', bank: Bank, key: BankKey, announced: Announced }
  | { kind: 'fields', bank: Bank, errors: readonly FieldError[] }
  | { kind: 'wait', waitMs: number }
  | { kind: 'refused', bank: Bank | undefined, error: unknown }
/** What is done for a caller who proved to be the bank. */
export type BankWork<T> = (caller: Authenticated) => Promise<T>

export type TriggerDeps = AuthenticateDeps & { announce: Announce, rate: RateLimit }

/** Never rejects: every fault is an outcome, with the bank where the caller proved to be it. */
export async function handleTrigger (deps: TriggerDeps, request: BankRequest): Promise<TriggerOutcome> {
  return await asBank<TriggerOutcome>(deps, request, async ({ bank, key, body, bodyMark }) => {
    const read = parseTrigger(body, bank)
    if ('errors' in read) return { kind: 'fields', bank, errors: read.errors }
    const transactionId = read.fields.transactionId ?? unnamedTransactionId(bodyMark)
    await claimBody(deps, bank, transactionId, bodyMark)
    const announced = await deps.announce({ ...read.fields, transactionId, bank, currency: CURRENCY, source: 'http' })
    return { kind: 'announced', bank, key, announced }
  })
}

/** Base path, rate limits and credentials, the same for every call of a bank; then the work. Never rejects. */
export async function asBank<T> (deps: Omit<TriggerDeps, 'announce'>, request: BankRequest, work: BankWork<T>): Promise<T | Extract<TriggerOutcome, { kind: 'wait' | 'refused' }>> {
  let bank: Bank | undefined
  try {
    if (request.base !== null && deps.directory.bankByBase(request.base) === undefined) throw new SoundboxError('BASE_URL_INVALID', 'Invalid Base url')
    if (deps.rate.isEmpty(`address:${request.address}`, CREDENTIAL_FAULTS_PER_SECOND)) return { kind: 'wait', waitMs: 1000 }
    const caller = await authenticate(deps, request.headers, request.body).catch((error: unknown) => {
      deps.rate.take(`address:${request.address}`, CREDENTIAL_FAULTS_PER_SECOND)
      throw error
    })
    bank = caller.bank
    const waitMs = deps.rate.take(`bank:${bank.id}`, bank.ratePerSecond)
    if (waitMs > 0) return { kind: 'wait', waitMs }
    if (request.base !== null && request.base !== bank.base) throw new SoundboxError('BASE_URL_INVALID', 'Invalid Base url')
    return await work(caller)
  } catch (error) {
    return { kind: 'refused', bank, error }
  }
}

/** The same encrypted bytes may name one payment only: with CBC, whoever flips bits of the IV could rename the transaction. */
async function claimBody (deps: TriggerDeps, bank: Bank, transactionId: string, bodyMark: string | null): Promise<void> {
  if (bodyMark === null) return
  const claimed = deps.store.claimMark({ mark: bodyMark, owner: announcementId(bank.id, transactionId), expiresAt: deps.nowMs() + EPOCH_AGE_MS_MAX })
  if (!(typeof claimed === 'boolean' ? claimed : await claimed)) throw new SoundboxError('CREDENTIALS_INVALID', 'Invalid credentials')
}
