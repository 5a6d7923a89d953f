// Push through Firebase Cloud Messaging HTTP v1. A service account signs a JWT (RS256, RFC 7523), the token endpoint turns it into an
// access token of an hour, and that token sends. 404 UNREGISTERED means that the app is gone: the caller forgets the registration token.
// Settings: FIREBASE_FCM_SERVICE_ACCOUNT(_FILE), the JSON file as Google gives it; FIREBASE_FCM_PARAM_PROJECT only where it sends for another project.
import { importPKCS8, SignJWT } from 'jose'
import { SoundboxError } from '../../../protocol/index.js'
import { textAt } from '../fields.js'
import { PUSH_PAYLOAD_BYTES_MAX } from '../contract-parts.js'
import type { ServiceRequest } from '../contract.js'
import type { AuthDeps, Provider, ProviderAuth, ProviderResponse, ServiceMapping } from '../provider.js'
import { codeAt, listAt, ok2xx, rejectionFromCode, requiredParam } from './parts.js'

const SCOPE = 'https://www.googleapis.com/auth/firebase.messaging'
const GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
const TOKEN_URL = 'https://oauth2.googleapis.com/token'
const ASSERTION_LIFE_S = 3600
const RENEW_BEFORE_MS = 5 * 60_000 // A token must outlive the call that carries it, and clocks differ.
const RESERVED_KEY = /^(?:from|message_type|google.*|gcm.*)$/

const send: ServiceMapping<'send_push_message'> = {
  toRequest: (input, ctx) => ({
    uriKey: 'send', format: 'json', pathParams: { project: requiredParam(ctx, 'project') }, body: { message: messageFrom(input) }
  }),
  fromResponse: (response, input) => isUnregistered(response)
    ? { client_ref: input.client_ref, message_id: null, token_state: 'GONE' }
    : { client_ref: input.client_ref, message_id: textAt(response.body, 'name'), token_state: 'LIVE' }
}

/** The message of a request. Throws INPUT_INVALID for a data key that Firebase keeps for itself and above PUSH_PAYLOAD_BYTES_MAX. */
function messageFrom (input: ServiceRequest<'send_push_message'>): object {
  const reserved = Object.keys(input.data ?? {}).find(key => RESERVED_KEY.test(key))
  if (reserved !== undefined) throw new SoundboxError('INPUT_INVALID', '/data must not use from, message_type or a key that begins with google or gcm')
  const payload = { notification: { title: input.title, body: input.body }, ...(input.data === undefined ? {} : { data: input.data }) }
  const bytes = Buffer.byteLength(JSON.stringify(payload), 'utf8')
  if (bytes > PUSH_PAYLOAD_BYTES_MAX) throw new SoundboxError('INPUT_INVALID', `the push payload of ${bytes} bytes is over the limit of ${PUSH_PAYLOAD_BYTES_MAX}`)
  return {
    token: input.token, ...payload,
    android: { priority: input.priority ?? 'NORMAL', ...(input.ttl_s === undefined ? {} : { ttl: `${input.ttl_s}s` }) }
  }
}

function errorCode (response: ProviderResponse): string | null {
  const details = listAt(response, 'error.details').map(row => codeAt({ body: row }, 'errorCode')).find(code => code !== null)
  return details ?? codeAt(response, 'error.status')
}

function isUnregistered (response: ProviderResponse): boolean {
  return response.status === 404 && errorCode(response) === 'UNREGISTERED'
}

type ServiceAccount = { email: string, key: string, keyId: string | undefined, tokenUrl: string }

/** The fields used of a service account file. Throws PROVIDER_CONFIG. */
export function serviceAccountFromJson (json: string): ServiceAccount {
  let fields: unknown
  try {
    fields = JSON.parse(json)
  } catch {
    throw new SoundboxError('PROVIDER_CONFIG', 'the Firebase service account is not JSON')
  }
  const field = (name: string): string | undefined => {
    const value = typeof fields === 'object' && fields !== null ? (fields as Record<string, unknown>)[name] : undefined
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  const [email, key] = [field('client_email'), field('private_key')]
  if (email === undefined || key === undefined) throw new SoundboxError('PROVIDER_CONFIG', 'the Firebase service account lacks client_email or private_key')
  return { email, key, keyId: field('private_key_id'), tokenUrl: field('token_uri') ?? TOKEN_URL }
}

/** The signed assertion for the token endpoint. Throws PROVIDER_CONFIG for a key that is not RSA PKCS#8. */
export async function assertionFromAccount (account: ServiceAccount, nowMs: number): Promise<string> {
  const nowS = Math.floor(nowMs / 1000)
  try {
    const key = await importPKCS8(account.key, 'RS256')
    return await new SignJWT({ scope: SCOPE })
      .setProtectedHeader({ alg: 'RS256', typ: 'JWT', ...(account.keyId === undefined ? {} : { kid: account.keyId }) })
      .setIssuer(account.email).setAudience(account.tokenUrl).setIssuedAt(nowS).setExpirationTime(nowS + ASSERTION_LIFE_S).sign(key)
  } catch (cause) {
    throw new SoundboxError('PROVIDER_CONFIG', 'the private key of the Firebase service account cannot be used', { cause })
  }
}

/** Headers with a live access token. Calls that come while one is fetched share it; a failed fetch is not remembered. */
export function openFcmAuth (deps: AuthDeps): ProviderAuth {
  let live: { token: string, untilMs: number } | undefined
  let pending: Promise<string> | undefined
  const fetchToken = async (): Promise<string> => {
    const account = serviceAccountFromJson(deps.secret('service_account'))
    const assertion = await assertionFromAccount(account, deps.nowMs())
    const response = await deps.send({ uriKey: 'token', format: 'form', body: { grant_type: GRANT, assertion } })
    const token = textAt(response.body, 'access_token')
    const lifeS = Number(textAt(response.body, 'expires_in'))
    live = { token, untilMs: deps.nowMs() + lifeS * 1000 - RENEW_BEFORE_MS }
    return token
  }
  return {
    headersFor: async () => {
      if (live !== undefined && deps.nowMs() < live.untilMs) return { authorization: `Bearer ${live.token}` }
      pending ??= fetchToken().finally(() => { pending = undefined })
      return { authorization: `Bearer ${await pending}` }
    },
    forget: () => { live = undefined }
  }
}

export const FCM: Provider<'push'> = {
  issuer: 'push',
  name: 'fcm',
  baseUrl: 'https://fcm.googleapis.com',
  hosts: ['fcm.googleapis.com:443', 'oauth2.googleapis.com:443'],
  uriMap: {
    send: { method: 'POST', path: '/v1/projects/{project}/messages:send', idempotent: false, auth: 'provider' },
    token: { method: 'POST', path: TOKEN_URL, idempotent: true, auth: 'none' }
  },
  requiredAuthHeaders: [],
  isSuccess: (response, uriKey) => ok2xx(response) || (uriKey === 'send' && isUnregistered(response)),
  rejectionFrom: response => rejectionFromCode(errorCode(response), response, {
    INVALID_ARGUMENT: 'the message or the registration token is not valid', SENDER_ID_MISMATCH: 'the registration token belongs to another project',
    THIRD_PARTY_AUTH_ERROR: 'the APNs or web push credentials of the project are not valid'
  }),
  services: { send_push_message: send },
  auditFields: ['message.android.priority', 'message.android.ttl', 'name', 'error.status', 'error.code'],
  openAuth: openFcmAuth
}
