// What providers send to us: decisions of identity checks (Didit) and delivery reports of SMS. Each is proven genuine on the raw bytes,
// kept once, answered, and only then processed, so that a slow step of ours never makes a provider send again, and a crash in between
// loses nothing: what was kept and not processed is taken up again.
//
//   bytes -> verifyInbound -> eventsFromInbound -> keep (durable, new ones only) -> 200 -> process, again and again until done or dead
//
// Two secrets are live at once: a provider's rotation is instant on its side. Didit signs with HMAC-SHA256 and dates with X-Timestamp.
// SMS gateways do not sign: their reports come to an address that holds a secret token (see README), compared like any secret.
import { createHash, createHmac } from 'node:crypto'
import { isSameSecret, type Log, safeErrorText, type Secret, SoundboxError } from '../../protocol/index.js'
import type { IntegrationSettings } from './config.js'
import { eventsFromInbound, INBOUND_KINDS, type InboundEvent, type InboundKind } from './inbound-events.js'

export const INBOUND_BODY_BYTES_MAX = 262_144 // A Didit decision with its details is some tens of kilobytes.
export const INBOUND_WINDOW_S = 300
export const INBOUND_ATTEMPTS_MAX = 10
export const INBOUND_BATCH_MAX = 50
export const INBOUND_SECRETS_MAX = 2
const RETRY_BASE_MS = 5_000
const RETRY_CAP_MS = 3_600_000

/** `proof` hmac: X-Signature over the raw body, X-Timestamp in seconds. token: a secret in the address. At most two secrets, newest first. */
export type InboundSource = { name: string, kind: InboundKind, proof: 'hmac' | 'token', secrets: readonly Secret[] }
export type InboundRequest = { rawBody: Buffer, contentType: string, signature: string | undefined, timestamp: string | undefined, token: string | undefined }

/** One kept event. `key` is unique for ever: the same event twice is one row. `dueMs`: not before. */
export type InboundEntry = {
  key: string, source: string, event: InboundEvent, state: 'pending' | 'done' | 'dead', attempts: number, receivedMs: number, dueMs: number, problem: string | null
}

/** The sources that the settings name a secret for (`*_WEBHOOK_SECRET`, `*_WEBHOOK_SECRET_PREVIOUS`): Didit, and the SMS gateway in use. */
export function inboundSourcesFromSettings ({ kyc, sms }: Pick<IntegrationSettings, 'kyc' | 'sms'>): InboundSource[] {
  const reporting = INBOUND_KINDS.find(kind => kind !== 'didit' && kind === sms.provider)
  return [
    ...(kyc.webhookSecrets.length === 0 ? [] : [{ name: 'didit', kind: 'didit' as const, proof: 'hmac' as const, secrets: kyc.webhookSecrets }]),
    ...(reporting === undefined || sms.webhookSecrets.length === 0 ? [] : [{ name: reporting, kind: reporting, proof: 'token' as const, secrets: sms.webhookSecrets }])
  ]
}

/** Throws UNAUTHORIZED, with one and the same text whatever is wrong: missing, old, future, malformed, another secret. */
export function verifyInbound (source: InboundSource, request: InboundRequest, nowMs: number): void {
  const secrets = source.secrets.slice(0, INBOUND_SECRETS_MAX)
  const isGenuine = source.proof === 'hmac' ? isSigned(secrets, request, nowMs) : isOneOf(secrets, request.token ?? '')
  if (!isGenuine) throw new SoundboxError('UNAUTHORIZED', 'the message is not signed with a live secret, or not fresh')
}

function isSigned (secrets: readonly Secret[], { rawBody, signature, timestamp }: InboundRequest, nowMs: number): boolean {
  const isFresh = timestamp !== undefined && /^\d{1,12}$/.test(timestamp) && Math.abs(nowMs / 1000 - Number(timestamp)) <= INBOUND_WINDOW_S
  const given = signature?.toLowerCase() ?? ''
  const matches = secrets.filter(secret => isSameSecret(given, createHmac('sha256', secret.reveal()).update(rawBody).digest('hex')))
  return isFresh && matches.length > 0
}

/** Every secret is compared, so that the time tells nothing about which of them is right. */
function isOneOf (secrets: readonly Secret[], given: string): boolean {
  return secrets.filter(secret => isSameSecret(given, secret.reveal())).length > 0
}

/** What becomes of an entry after a try; done and dead stay so. A failed one waits twice as long each time, and is dead after INBOUND_ATTEMPTS_MAX. */
export function stepInbound (entry: InboundEntry, problem: string | null, nowMs: number): InboundEntry {
  if (entry.state !== 'pending') return entry
  const attempts = entry.attempts + 1
  if (problem === null) return { ...entry, state: 'done', attempts, problem: null }
  if (attempts >= INBOUND_ATTEMPTS_MAX) return { ...entry, state: 'dead', attempts, problem }
  return { ...entry, attempts, problem, dueMs: nowMs + Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** (attempts - 1)) }
}

/** `keep` is durable when it resolves and returns the rows that were not there before. `process` may run twice for one event. */
export type InboundDeps = {
  sources: readonly InboundSource[]
  keep: (entries: readonly InboundEntry[]) => Promise<readonly InboundEntry[]>
  due: (nowMs: number, limit: number) => Promise<readonly InboundEntry[]>
  save: (entry: InboundEntry) => Promise<void>
  process: (event: InboundEvent) => Promise<void>
  nowMs: () => number
  log: Log
}
export type Inbound = {
  /** Durable when it resolves; the caller then answers 200. Throws UNAUTHORIZED (also for an unknown source), INPUT_INVALID, STORE_FAILED. */
  accept: (source: string, request: InboundRequest) => Promise<{ received: number, known: number }>
  /** Processes what is due; one run at a time. For a job every few seconds, and right after an accept. */
  run: () => Promise<void>
  /** Resolves when a running `run` has ended. */
  close: () => Promise<void>
}

/** Opens the inbox. */
export function openInbound (deps: InboundDeps): Inbound {
  const sources = new Map(deps.sources.map(source => [source.name, source]))
  let running: Promise<void> | undefined
  let isClosed = false
  const run = async (): Promise<void> => {
    running ??= processDue(deps, () => isClosed).finally(() => { running = undefined })
    await running
  }
  return {
    async accept (name, request) {
      const source = sources.get(name)
      if (source === undefined) throw new SoundboxError('UNAUTHORIZED', 'the message is not signed with a live secret, or not fresh')
      verifyInbound(source, request, deps.nowMs())
      const entries = entriesFromRequest(source, request, deps.nowMs())
      const fresh = await deps.keep(entries)
      deps.log.info({ source: name, received: entries.length, known: entries.length - fresh.length }, 'provider message kept')
      if (fresh.length > 0) setImmediate(() => { void run().catch((err: unknown) => deps.log.error({ err }, 'provider messages wait: the store refuses')) })
      return { received: entries.length, known: entries.length - fresh.length }
    },
    run,
    async close () {
      isClosed = true
      await running?.catch(() => {})
    }
  }
}

function entriesFromRequest (source: InboundSource, { rawBody, contentType }: InboundRequest, nowMs: number): InboundEntry[] {
  return eventsFromInbound(source.kind, rawBody, contentType).map(event => ({
    key: createHash('sha256').update(`${source.name}\n${event.eventId}`, 'utf8').digest('hex'), source: source.name, event, state: 'pending', attempts: 0,
    receivedMs: nowMs, dueMs: nowMs, problem: null
  }))
}

async function processDue (deps: InboundDeps, isClosed: () => boolean): Promise<void> {
  for (;;) {
    const entries = await deps.due(deps.nowMs(), INBOUND_BATCH_MAX)
    for (const entry of entries) {
      if (isClosed()) return
      const problem = await deps.process(entry.event).then(() => null, safeErrorText)
      const next = stepInbound(entry, problem, deps.nowMs())
      if (next.state === 'dead') deps.log.error({ source: entry.source, key: entry.key, attempts: next.attempts, problem }, 'a provider message could not be processed')
      await deps.save(next)
    }
    if (entries.length < INBOUND_BATCH_MAX) return
  }
}
