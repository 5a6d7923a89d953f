// Google Pub/Sub by its REST API, as far as a queue of records needs it: create, publish, pull, acknowledge, give back.
// https://cloud.google.com/pubsub/docs/reference/rest. Against the emulator (a host without TLS) no token is sent.
//
// Token: a JWT signed with the service account's key (RS256) is exchanged for an access token that lives an hour (RFC 7523 2.1).
import { createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { SoundboxError } from '../../protocol/index.js'

export const PUBSUB_HOST = 'https://pubsub.googleapis.com'
/** Somebody waits for each publish: the local spool is the quicker answer after this. */
export const REQUEST_TIMEOUT_MS = 2_000
export const RESPONSE_BYTES_MAX = 32 * 1024 * 1024
const TOKEN_LIFE_S = 3_600
const TOKEN_EARLY_MS = 60_000
const SCOPE = 'https://www.googleapis.com/auth/pubsub'
/** Records wait for a week at most: Pub/Sub keeps them no longer. */
const RETENTION = '604800s'
const ACK_DEADLINE_S = 60

/** What a service account's key file holds; more fields are ignored. */
export type ServiceAccount = { clientEmail: string, privateKey: string, privateKeyId: string, tokenUri: string }
/** `host`: 'localhost:8085' as PUBSUB_EMULATOR_HOST has it, or a URL. `account`: null for the emulator. */
export type PubsubSettings = { host: string, project: string, topic: string, subscription: string, account: ServiceAccount | null, nowMs: () => number }
export type PulledMessage = { ackId: string, data: Buffer }
export type PubsubRest = {
  /** Creates topic and subscription where they are missing. */
  ensure: () => Promise<void>
  publish: (messages: readonly Buffer[], orderingKey: string) => Promise<void>
  /** What is there now, at most `max`. */
  pull: (max: number) => Promise<readonly PulledMessage[]>
  acknowledge: (ackIds: readonly string[]) => Promise<void>
  /** To be delivered again at once. */
  giveBack: (ackIds: readonly string[]) => Promise<void>
}

/** The account in a key file's text. Throws CONFIG_INVALID, without a word of the file. */
export function parseServiceAccount (text: string): ServiceAccount {
  let file: Record<string, unknown>
  try {
    file = JSON.parse(text) as Record<string, unknown>
  } catch {
    throw new SoundboxError('CONFIG_INVALID', 'the service account key file is not JSON')
  }
  const field = (name: string): string => {
    const value = file[name]
    if (typeof value !== 'string' || value === '') throw new SoundboxError('CONFIG_INVALID', `the service account key file has no ${name}`)
    return value
  }
  return { clientEmail: field('client_email'), privateKey: field('private_key'), privateKeyId: field('private_key_id'), tokenUri: field('token_uri') }
}

/** Calls reject with STORE_FAILED, naming the HTTP status or the kind of fault, never a body. Throws CONFIG_INVALID for an unusable key. */
export function createPubsubRest (settings: PubsubSettings): PubsubRest {
  const base = /^https?:\/\//.test(settings.host) ? settings.host.replace(/\/$/, '') : `http://${settings.host}`
  const topic = `projects/${settings.project}/topics/${settings.topic}`
  const subscription = `projects/${settings.project}/subscriptions/${settings.subscription}`
  const tokens = settings.account === null ? undefined : createTokens(settings.account, settings.nowMs)

  const send = async (method: string, path: string, body: object): Promise<{ status: number, answer: unknown }> => {
    const headers: Record<string, string> = { 'content-type': 'application/json' }
    if (tokens !== undefined) headers['authorization'] = `Bearer ${await tokens.current()}`
    return await request(`${base}/v1/${path}`, { method, headers, body: JSON.stringify(body) })
  }
  const call = async (method: string, path: string, body: object, alsoFine: readonly number[] = []): Promise<unknown> => {
    let reply = await send(method, path, body)
    if (reply.status === 401 && tokens !== undefined) {
      tokens.forget()
      reply = await send(method, path, body)
    }
    if (reply.status !== 200 && !alsoFine.includes(reply.status)) throw failed(`Pub/Sub answers ${reply.status}`)
    return reply.answer
  }
  return {
    async ensure () {
      await call('PUT', topic, {}, [409])
      const wanted = { topic, enableMessageOrdering: true, ackDeadlineSeconds: ACK_DEADLINE_S, messageRetentionDuration: RETENTION, expirationPolicy: {} }
      await call('PUT', subscription, wanted, [409])
    },
    async publish (messages, orderingKey) {
      await call('POST', `${topic}:publish`, { messages: messages.map(data => ({ data: data.toString('base64'), orderingKey })) })
    },
    async pull (max) {
      const answer = await call('POST', `${subscription}:pull`, { maxMessages: max, returnImmediately: true }) as { receivedMessages?: { ackId?: string, message?: { data?: string } }[] } | null
      return (answer?.receivedMessages ?? []).map(({ ackId, message }) => ({ ackId: ackId ?? '', data: Buffer.from(message?.data ?? '', 'base64') }))
    },
    async acknowledge (ackIds) {
      if (ackIds.length > 0) await call('POST', `${subscription}:acknowledge`, { ackIds })
    },
    async giveBack (ackIds) {
      if (ackIds.length > 0) await call('POST', `${subscription}:modifyAckDeadline`, { ackIds, ackDeadlineSeconds: 0 })
    }
  }
}

function createTokens (account: ServiceAccount, nowMs: () => number): { current: () => Promise<string>, forget: () => void } {
  const key = privateKeyOf(account)
  let token: { text: string, untilMs: number } | undefined
  let asking: Promise<string> | undefined
  const ask = async (): Promise<string> => {
    const issuedAt = nowMs()
    const form = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: assertionFor(account, key, issuedAt) })
    const { status, answer } = await request(account.tokenUri, { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: form.toString() })
    const { access_token: text, expires_in: seconds } = (answer ?? {}) as { access_token?: unknown, expires_in?: unknown }
    if (status !== 200 || typeof text !== 'string') throw failed(`the token endpoint answers ${status}`)
    token = { text, untilMs: issuedAt + (typeof seconds === 'number' ? seconds : TOKEN_LIFE_S) * 1_000 - TOKEN_EARLY_MS }
    return text
  }
  return {
    current: async () => {
      if (token !== undefined && nowMs() < token.untilMs) return token.text
      asking ??= ask().finally(() => { asking = undefined })
      return await asking
    },
    forget: () => { token = undefined }
  }
}

function privateKeyOf (account: ServiceAccount): KeyObject {
  try {
    return createPrivateKey(account.privateKey)
  } catch {
    throw new SoundboxError('CONFIG_INVALID', 'the private key of the service account cannot be read')
  }
}

/** The signed statement that is exchanged for a token. */
function assertionFor (account: ServiceAccount, key: KeyObject, nowMs: number): string {
  const issuedAt = Math.floor(nowMs / 1_000)
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const head = part({ alg: 'RS256', typ: 'JWT', kid: account.privateKeyId })
  const claims = part({ iss: account.clientEmail, scope: SCOPE, aud: account.tokenUri, iat: issuedAt, exp: issuedAt + TOKEN_LIFE_S })
  return `${head}.${claims}.${sign('RSA-SHA256', Buffer.from(`${head}.${claims}`), key).toString('base64url')}`
}

/** Redirects are not followed: a token goes to the host that was configured and to no other. */
async function request (url: string, options: { method: string, headers: Record<string, string>, body: string }): Promise<{ status: number, answer: unknown }> {
  try {
    const response = await fetch(url, { ...options, redirect: 'manual', signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) })
    const text = await readLimited(response)
    return { status: response.status, answer: text === '' ? null : JSON.parse(text) }
  } catch (cause) {
    if (cause instanceof SoundboxError) throw cause
    throw failed(cause instanceof Error && cause.name === 'TimeoutError' ? 'Pub/Sub does not answer in time' : 'Pub/Sub cannot be reached or answers no JSON', cause)
  }
}

async function readLimited (response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength
    if (bytes > RESPONSE_BYTES_MAX) throw failed(`an answer of Pub/Sub is over the limit of ${RESPONSE_BYTES_MAX} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function failed (why: string, cause?: unknown): SoundboxError {
  return new SoundboxError('STORE_FAILED', why, { cause })
}
