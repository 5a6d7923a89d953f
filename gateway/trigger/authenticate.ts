// Who is calling, and what did they say: opens a bank's request in a fixed order that tells an attacker nothing.
//
//   1 pass_key and header_secrets are there                     PASS_KEY_MISSING, HEADER_SECRETS_MISSING, HEADER_SECRETS_EMPTY
//   2 open header_secrets with each live key, compare id+secret  \ always both, with stand-in keys for an unknown client,
//   3 open RequestData                                           / so that every fault costs the same work
//   4 header fault                                               CREDENTIALS_INVALID
//   5 epoch too old or too far ahead                             EPOCH_EXPIRED, whatever the body was: no oracle with an old header
//   6 header seen before                                         CREDENTIALS_INVALID, marked even when the body is bad: one try a header
//   7 body fault                                                 CREDENTIALS_INVALID, the same text
import { randomBytes } from 'node:crypto'
import { type EnvelopeKey, isSameSecret, markOfText, openEnvelope, type Opened, parseEpoch, parseObject, SoundboxError } from '../../protocol/index.js'
import type { Store } from '../store/contract.js'
import { type Bank, type BankKey, type Directory, isLive } from '../store/directory.js'

export const EPOCH_AGE_MS_MAX = 5 * 60_000
export const EPOCH_AHEAD_MS_MAX = 60_000
/** A header or body beyond this is refused before any work on it; the HTTP server's body limit is the same. */
export const ENVELOPE_CHARS_MAX = 64 * 1024

export type TriggerHeaders = { passKey: string | undefined, headerSecrets: string | undefined, clientId: string | undefined, clientSecret: string | undefined }
/** `bodyMark` names the encrypted bytes, null for a plaintext bank. */
export type Authenticated = { bank: Bank, key: BankKey, body: Record<string, unknown>, bodyMark: string | null }
export type AuthenticateDeps = { directory: Directory, store: Pick<Store, 'claimMark'>, nowMs: () => number }

const STAND_IN_KEY: BankKey = {
  keyId: '', clientId: randomBytes(24).toString('base64url'), clientSecretHash: randomBytes(32).toString('hex'),
  headerKey: randomBytes(32), payloadKey: randomBytes(32), validFrom: 0, validTo: null
}

/** `rawBody` null: a call without a body (GET). Throws the credential errors named above; CREDENTIALS_INVALID has one text for every cause. */
export async function authenticate (deps: AuthenticateDeps, headers: TriggerHeaders, rawBody: string | null): Promise<Authenticated> {
  const now = deps.nowMs()
  if (headers.passKey === undefined || headers.passKey === '') throw new SoundboxError('PASS_KEY_MISSING', 'Pass_key header is missing')
  const bank = deps.directory.bankByPassKey(headers.passKey)
  if (bank?.profile === 'none') return authenticatePlain(deps, bank, headers, rawBody, now)
  if (headers.headerSecrets === undefined) throw new SoundboxError('HEADER_SECRETS_MISSING', 'Header Secrets is missing')
  if (headers.headerSecrets.trim() === '') throw new SoundboxError('HEADER_SECRETS_EMPTY', 'Header Secrets value is empty')

  const keys = liveKeys(bank, now)
  const profile = bank?.profile === 'aes-256-gcm' ? 'aes-256-gcm' : 'aes-256-cbc'
  const envelope = (key: Buffer): EnvelopeKey => ({ profile, key, passKey: headers.passKey ?? '' })
  const header = openHeader(deps, keys, headers.headerSecrets, envelope)
  const body = openBody(rawBody ?? '', envelope((header?.key ?? keys[0] ?? STAND_IN_KEY).payloadKey))
  if (header === undefined || bank === undefined || bank.disabledAt !== null || header.epochMs === undefined) throw invalid()
  if (now - header.epochMs > EPOCH_AGE_MS_MAX || header.epochMs - now > EPOCH_AHEAD_MS_MAX) throw new SoundboxError('EPOCH_EXPIRED', 'Epoch Time Limit Exceeded')
  if (bank.headerReuse === 'forbid') {
    const expiresAt = header.epochMs + EPOCH_AGE_MS_MAX
    const claimed = deps.store.claimMark({ mark: header.mark, owner: '', expiresAt })
    if (!(typeof claimed === 'boolean' ? claimed : await claimed)) throw invalid()
  }
  if (rawBody === null) return { bank, key: header.key, body: {}, bodyMark: null }
  if (body === undefined) throw invalid()
  return { bank, key: header.key, body: body.value, bodyMark: body.mark }
}

function authenticatePlain (deps: AuthenticateDeps, bank: Bank, headers: TriggerHeaders, rawBody: string | null, now: number): Authenticated {
  const hash = deps.directory.hashOf(headers.clientSecret ?? '')
  let found: BankKey | undefined
  for (const key of liveKeys(bank, now)) {
    const isId = isSameSecret(headers.clientId ?? '', key.clientId)
    const isSecret = isSameSecret(hash, key.clientSecretHash)
    if (isId && isSecret) found = key
  }
  const body = rawBody === null ? {} : parseObject(rawBody)
  if (found === undefined || bank.disabledAt !== null || body === undefined) throw invalid()
  return { bank, key: found, body, bodyMark: null }
}

type OpenedHeader = { key: BankKey, epochMs: number | undefined, mark: string }

function openHeader (deps: AuthenticateDeps, keys: readonly BankKey[], text: string, envelope: (key: Buffer) => EnvelopeKey): OpenedHeader | undefined {
  let found: OpenedHeader | undefined
  for (const key of keys) {
    const opened = text.length <= ENVELOPE_CHARS_MAX ? openEnvelope(envelope(key.headerKey), text) : undefined
    const secrets = opened?.value ?? {}
    const clientId = textOf(secrets['client_id'] ?? secrets['Client_id'])
    const isId = isSameSecret(clientId, key.clientId)
    const isSecret = isSameSecret(deps.directory.hashOf(textOf(secrets['client_secret'])), key.clientSecretHash)
    if (opened !== undefined && isId && isSecret) found = { key, epochMs: parseEpoch(secrets['epoch']), mark: opened.mark }
  }
  return found
}

function openBody (rawBody: string, envelope: EnvelopeKey): Opened | undefined {
  const outer = parseObject(rawBody)
  const sealed = outer !== undefined && Object.hasOwn(outer, 'RequestData') ? outer['RequestData'] : undefined
  const opened = openEnvelope(envelope, typeof sealed === 'string' ? sealed : '')
  return typeof sealed === 'string' ? opened : undefined
}

function liveKeys (bank: Bank | undefined, now: number): readonly BankKey[] {
  const live = bank?.keys.filter(key => isLive(key, now)) ?? []
  return live.length > 0 ? live : [STAND_IN_KEY]
}

/** The transaction id of a request that names none: the encrypted bytes name it, a plaintext one is its own each time. */
export function unnamedTransactionId (bodyMark: string | null): string {
  return bodyMark === null ? `none-${randomBytes(16).toString('hex')}` : `body-${markOfText(bodyMark)}`
}

function textOf (value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function invalid (): SoundboxError {
  return new SoundboxError('CREDENTIALS_INVALID', 'Invalid credentials')
}
