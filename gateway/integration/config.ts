// Settings of the integration services, read from the environment by prefix into one frozen object.
//
//   CBS_API_*  BILL_API_*  SMS_API_*  DIDIT_API_*  FIREBASE_FCM_*   HTTP issuers: all of IntegrationConfig
//   EMAIL_SMTP_*                                                    e-mail
//   CBS_API_SIM_*                                                   the simulated bank behind CBS_API_SIMULATE=true
//   TOTP_*                                                          one-time codes for operators
//
// An issuer is configured when it has a provider or is simulated; the others answer PROVIDER_CONFIG. SOUNDBOX_ENV is `production` unless it
// says `development` or `test`: in production certificates are checked and http:// goes to this machine only, whatever the switches say.
import { isIP } from 'node:net'
import { type Secret, SoundboxError } from '../../protocol/index.js'
import { type Env, openReader, type ReadFile, type Reader } from './config-reader.js'
import {
  ATTEMPTS_MAX, BODY_TIMEOUT_MS, BULKHEAD_ACTIVE_MAX, BULKHEAD_QUEUE_MAX, CONNECT_TIMEOUT_MS, HEADERS_TIMEOUT_MS, RESPONSE_BYTES_MAX, TOTAL_TIMEOUT_MS
} from './figures.js'
import { type HostRule, isLoopbackLiteral, parseHostRule } from './hosts.js'
import { parseUriMap } from './uri-map.js'
import type { UriMap } from './provider.js'

/** What every HTTP issuer has. Absent `baseUrl`, `hosts`, `uriMap` rows: the provider's own defaults. */
export type IntegrationConfig = {
  prefix: string
  /** Name in the registry; undefined = this issuer is not configured (unless it is simulated). */
  provider: string | undefined
  simulate: boolean
  /** Rules of the simulation (`*_SIM_RULES`, JSON object), as the simulator reads them. */
  simulationRules: Readonly<Record<string, unknown>>
  baseUrl: string | undefined
  hosts: readonly HostRule[] | undefined
  uriMap: UriMap
  headers: Readonly<Record<string, Secret>>
  requiredAuthHeaders: readonly string[] | undefined
  rejectUnauthorized: boolean
  basic: { user: string, password: Secret } | undefined
  params: Readonly<Record<string, string>>
  secrets: Readonly<Record<string, Secret>>
  tls: TlsConfig
  limits: LimitsConfig
  signing: SigningConfig | undefined
  encryption: EncryptionConfig | undefined
  /** Two live secrets of inbound webhooks, newest first. */
  webhookSecrets: readonly Secret[]
}
export type TlsConfig = { mode: 'strict' | 'relaxed', ca: string | undefined, cert: string | undefined, key: Secret | undefined }
export type LimitsConfig = {
  connectMs: number, headersMs: number, bodyMs: number, totalMs: number, attemptsMax: number, activeMax: number, queueMax: number, responseBytesMax: number
}
/** `template` holds {timestamp}, {method}, {path}, {body}, {nonce}. */
export type SigningConfig =
  | { kind: 'hmac', key: Secret, header: string, timestampHeader: string, template: string, encoding: 'hex' | 'base64', keyId: string | undefined }
  | { kind: 'jws', key: Secret, header: string, algorithm: 'RS256' | 'PS256' | 'ES256' | 'EdDSA', keyId: string | undefined }
export type EncryptionConfig = { encryptKey: string, decryptKey: Secret | undefined, algorithm: 'RSA-OAEP-256' | 'ECDH-ES+A256KW', keyId: string | undefined }

/** `isoTarget`: JSON of the switch behind `iso8583`, as gateway/iso8583/target.ts reads it. */
export type CBSAPIConfig = IntegrationConfig & { transport: 'http' | 'iso8583', isoTarget: string | undefined, temporal: TemporalCBSConfig }
/** The simulated bank: how many invented customers, from which seed, and how slow it answers. */
export type TemporalCBSConfig = { seed: number, customers: number, latencyMs: number, country: string, currency: string }
export type BILLAPIConfig = IntegrationConfig
export type SMSAPIConfig = IntegrationConfig & { senderId: string | undefined }
export type FirebaseFCMConfig = IntegrationConfig & { serviceAccount: Secret | undefined }
export type DiditAPIConfig = IntegrationConfig & { workflowId: string | undefined }
export type EmailSMTPConfig = {
  prefix: string, simulate: boolean, simulationRules: Readonly<Record<string, unknown>>, host: string | undefined, port: number, security: 'tls' | 'starttls' | 'none'
  user: string | undefined, password: Secret | undefined, from: string | undefined, domain: string | undefined, tls: TlsConfig, limits: LimitsConfig, ratePerMinuteMax: number
}
export type TOTPConfig = { issuer: string, digits: 6 | 8, periodS: number, algorithm: 'SHA1' | 'SHA256' | 'SHA512' }

export type IntegrationSettings = {
  isProduction: boolean
  cbs: CBSAPIConfig, bill: BILLAPIConfig, sms: SMSAPIConfig, email: EmailSMTPConfig, push: FirebaseFCMConfig, kyc: DiditAPIConfig, totp: TOTPConfig
  /** Variables of these prefixes that mean nothing: most likely typing errors; the caller logs them. */
  unknown: readonly string[]
}

/** All settings. Pure. Throws one CONFIG_INVALID that names every wrong variable and no value. */
export function parseIntegrationConfig (env: Env, readFile: ReadFile): IntegrationSettings {
  const problems: string[] = []
  const isProduction = !['development', 'test'].includes(env['SOUNDBOX_ENV']?.trim().toLowerCase() ?? '')
  const readers = new Map(['CBS_API', 'BILL_API', 'SMS_API', 'EMAIL_SMTP', 'FIREBASE_FCM', 'DIDIT_API', 'TOTP'].map(prefix => [prefix, openReader(prefix, env, readFile, problems)]))
  const at = (prefix: string): Reader => readers.get(prefix)!
  const http = (prefix: string, providerByDefault?: string): IntegrationConfig => httpConfig(at(prefix), prefix, isProduction, providerByDefault)
  const settings = {
    isProduction,
    cbs: { ...http('CBS_API'), transport: at('CBS_API').word('TRANSPORT', ['http', 'iso8583'], 'http'), isoTarget: at('CBS_API').fileText('ISO_TARGET'), temporal: temporalConfig(at('CBS_API')) },
    bill: http('BILL_API'),
    sms: { ...http('SMS_API'), senderId: at('SMS_API').text('SENDER_ID') },
    email: emailConfig(at('EMAIL_SMTP'), isProduction),
    push: pushConfig(at('FIREBASE_FCM'), http('FIREBASE_FCM')),
    kyc: kycConfig(at('DIDIT_API'), http('DIDIT_API')),
    totp: totpConfig(at('TOTP')),
    unknown: [] as string[]
  }
  if (problems.length > 0) throw new SoundboxError('CONFIG_INVALID', problems.join('; '))
  settings.unknown.push(...[...readers.values()].flatMap(reader => reader.unknown()))
  return deepFreeze(settings)
}

function httpConfig (read: Reader, prefix: string, isProduction: boolean, providerByDefault?: string): IntegrationConfig {
  const baseUrl = read.text('URL')
  if (baseUrl !== undefined) checkBaseUrl(read, baseUrl, isProduction)
  const user = read.text('USER')
  const password = read.secret('PASSWORD')
  if ((user === undefined) !== (password === undefined)) read.problem('USER', `and ${prefix}_PASSWORD belong together: set both or none`)
  const secrets = [read.secret('WEBHOOK_SECRET'), read.secret('WEBHOOK_SECRET_PREVIOUS')]
  return {
    prefix,
    provider: read.text('PROVIDER', providerByDefault)?.toLowerCase(),
    simulate: read.flag('SIMULATE', false),
    simulationRules: read.json('SIM_RULES') ?? {},
    baseUrl,
    hosts: hostRules(read),
    uriMap: uriMapOf(read),
    headers: headersOf(read),
    requiredAuthHeaders: read.list('REQUIRED_AUTH_HEADERS')?.map(name => name.toLowerCase()),
    rejectUnauthorized: read.flag('REJECT_UNAUTHORIZED', true),
    basic: user === undefined || password === undefined ? undefined : { user, password },
    params: read.family('PARAM'),
    secrets: read.secretFamily('SECRET'),
    tls: tlsConfig(read, isProduction),
    limits: limitsConfig(read),
    signing: signingConfig(read),
    encryption: encryptionConfig(read),
    webhookSecrets: secrets.filter(secret => secret !== undefined)
  }
}

function checkBaseUrl (read: Reader, baseUrl: string, isProduction: boolean): void {
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.search !== '' || url.hash !== '') {
    read.problem('URL', 'must be an http(s) URL without user, query and fragment')
  } else if (url.protocol === 'http:' && isProduction && !isLoopbackLiteral(url.hostname)) read.problem('URL', 'must be https in production (SOUNDBOX_ENV)')
}

function hostRules (read: Reader): HostRule[] | undefined {
  return read.list('HOSTS')?.flatMap(entry => {
    const rule = parseHostRule(entry)
    if (rule === undefined) read.problem('HOSTS', 'must list host:port, or host:port@network/bits for a host inside a private network')
    return rule ?? []
  })
}

function uriMapOf (read: Reader): UriMap {
  const rows = read.json('URI_MAP')
  return rows === undefined ? {} : parseUriMap(rows, what => read.problem('URI_MAP', what))
}

function headersOf (read: Reader): Record<string, Secret> {
  const named = read.secretFamily('HEADER')
  return Object.fromEntries(Object.entries(named).map(([name, value]) => {
    if (/[\r\n\0]/.test(value.reveal())) read.problem(`HEADER_${name.toUpperCase()}`, 'must be one line')
    return [name.replaceAll('_', '-'), value]
  }))
}

function tlsConfig (read: Reader, isProduction: boolean): TlsConfig {
  const mode = read.word('TLS', ['strict', 'relaxed'], 'strict')
  if (mode === 'relaxed' && isProduction) read.problem('TLS', 'may be relaxed only when SOUNDBOX_ENV says development or test')
  const cert = read.fileText('TLS_CERT')
  const key = read.secret('TLS_KEY')
  if ((cert === undefined) !== (key === undefined)) read.problem('TLS_CERT', 'and TLS_KEY belong together: set both or none')
  return { mode, ca: read.fileText('TLS_CA'), cert, key }
}

function limitsConfig (read: Reader): LimitsConfig {
  const limits = {
    connectMs: read.integer('CONNECT_TIMEOUT_MS', { min: 50, max: 30_000, otherwise: CONNECT_TIMEOUT_MS }),
    headersMs: read.integer('HEADERS_TIMEOUT_MS', { min: 50, max: 60_000, otherwise: HEADERS_TIMEOUT_MS }),
    bodyMs: read.integer('BODY_TIMEOUT_MS', { min: 50, max: 60_000, otherwise: BODY_TIMEOUT_MS }),
    totalMs: read.integer('TIMEOUT_MS', { min: 100, max: 120_000, otherwise: TOTAL_TIMEOUT_MS }),
    attemptsMax: read.integer('ATTEMPTS_MAX', { min: 1, max: ATTEMPTS_MAX, otherwise: ATTEMPTS_MAX }),
    activeMax: read.integer('CONCURRENCY_MAX', { min: 1, max: 256, otherwise: BULKHEAD_ACTIVE_MAX }),
    queueMax: read.integer('QUEUE_MAX', { min: 0, max: 1024, otherwise: BULKHEAD_QUEUE_MAX }),
    responseBytesMax: read.integer('RESPONSE_BYTES_MAX', { min: 1024, max: 16_777_216, otherwise: RESPONSE_BYTES_MAX })
  }
  if (limits.connectMs > limits.totalMs) read.problem('CONNECT_TIMEOUT_MS', 'must not be longer than TIMEOUT_MS')
  return limits
}

function signingConfig (read: Reader): SigningConfig | undefined {
  const kind = read.word('SIGN', ['none', 'hmac', 'jws'], 'none')
  const key = read.secret('SIGN_KEY')
  const header = read.text('SIGN_HEADER', kind === 'jws' ? 'x-jws-signature' : 'x-signature')!.toLowerCase()
  const keyId = read.text('SIGN_KEY_ID')
  const timestampHeader = read.text('SIGN_TIMESTAMP_HEADER', 'x-timestamp')!.toLowerCase()
  const template = read.text('SIGN_TEMPLATE', '{timestamp}.{method}.{path}.{body}')!
  const encoding = read.word('SIGN_ENCODING', ['hex', 'base64'], 'hex')
  const algorithm = read.text('SIGN_ALGORITHM', 'RS256')!
  if (kind === 'none') return undefined
  if (!template.includes('{body}')) read.problem('SIGN_TEMPLATE', 'must hold {body}')
  if (key === undefined) {
    read.problem('SIGN_KEY', `must be set for SIGN=${kind}`)
    return undefined
  }
  if (kind === 'hmac') return { kind, key, header, timestampHeader, template: template.replaceAll('\\n', '\n'), encoding, keyId }
  if (algorithm !== 'RS256' && algorithm !== 'PS256' && algorithm !== 'ES256' && algorithm !== 'EdDSA') {
    read.problem('SIGN_ALGORITHM', 'must be RS256, PS256, ES256 or EdDSA')
    return undefined
  }
  return { kind, key, header, algorithm, keyId }
}

function encryptionConfig (read: Reader): EncryptionConfig | undefined {
  const kind = read.word('ENCRYPT', ['none', 'jwe'], 'none')
  const encryptKey = read.fileText('ENCRYPT_KEY')
  const decryptKey = read.secret('DECRYPT_KEY')
  const keyId = read.text('ENCRYPT_KEY_ID')
  const algorithm = read.text('ENCRYPT_ALGORITHM', 'RSA-OAEP-256')!
  if (kind === 'none') return undefined
  if (encryptKey === undefined) read.problem('ENCRYPT_KEY', 'must be set for ENCRYPT=jwe')
  if (algorithm !== 'RSA-OAEP-256' && algorithm !== 'ECDH-ES+A256KW') {
    read.problem('ENCRYPT_ALGORITHM', 'must be RSA-OAEP-256 or ECDH-ES+A256KW')
    return undefined
  }
  return { encryptKey: encryptKey ?? '', decryptKey, algorithm, keyId }
}

function temporalConfig (read: Reader): TemporalCBSConfig {
  const country = read.text('SIM_COUNTRY', 'TZ')!
  const currency = read.text('SIM_CURRENCY', 'TZS')!
  if (!/^[A-Z]{2}$/.test(country)) read.problem('SIM_COUNTRY', 'must be two capital letters')
  if (!/^[A-Z]{3}$/.test(currency)) read.problem('SIM_CURRENCY', 'must be three capital letters')
  return {
    seed: read.integer('SIM_SEED', { min: 0, max: 4_294_967_295, otherwise: 1 }),
    customers: read.integer('SIM_CUSTOMERS', { min: 1, max: 5_000, otherwise: 200 }),
    latencyMs: read.integer('SIM_LATENCY_MS', { min: 0, max: 60_000, otherwise: 0 }),
    country,
    currency
  }
}

function pushConfig (read: Reader, base: IntegrationConfig): FirebaseFCMConfig {
  const serviceAccount = read.secret('SERVICE_ACCOUNT')
  const project = serviceAccount === undefined ? undefined : projectOf(serviceAccount)
  return {
    ...base, provider: base.provider ?? (serviceAccount === undefined ? undefined : 'fcm'), serviceAccount, params: { ...(project === undefined ? {} : { project }), ...base.params }
  }
}

/** The project that the account belongs to; a file that cannot be read is reported when it signs. */
function projectOf (account: Secret): string | undefined {
  try {
    const { project_id: id } = JSON.parse(account.reveal()) as { project_id?: unknown }
    return typeof id === 'string' && id !== '' ? id : undefined
  } catch {
    return undefined
  }
}

function kycConfig (read: Reader, base: IntegrationConfig): DiditAPIConfig {
  const key = read.secret('KEY')
  const headers = key === undefined ? base.headers : { 'x-api-key': key, ...base.headers }
  return { ...base, provider: base.provider ?? (key === undefined ? undefined : 'didit'), headers, workflowId: read.text('WORKFLOW_ID') }
}

function emailConfig (read: Reader, isProduction: boolean): EmailSMTPConfig {
  const security = read.word('SECURITY', ['starttls', 'tls', 'none'], 'starttls')
  const host = read.text('HOST')
  const from = read.text('FROM')
  const user = read.text('USER')
  const password = read.secret('PASSWORD')
  if (host !== undefined && from === undefined) read.problem('FROM', 'must be set with EMAIL_SMTP_HOST')
  if (from !== undefined && !/^[^\s@<>,;]{1,64}@[A-Za-z0-9.-]{1,190}$/.test(from)) read.problem('FROM', 'must be one plain e-mail address')
  if ((user === undefined) !== (password === undefined)) read.problem('USER', 'and EMAIL_SMTP_PASSWORD belong together: set both or none')
  if (security === 'none' && isProduction && host !== undefined && !isLoopbackLiteral(host)) read.problem('SECURITY', 'may be none in production only for this machine')
  if (host !== undefined && isIP(host) === 0 && !/^[A-Za-z0-9.-]{1,253}$/.test(host)) read.problem('HOST', 'must be a host name or address')
  return {
    prefix: 'EMAIL_SMTP', simulate: read.flag('SIMULATE', false), simulationRules: read.json('SIM_RULES') ?? {}, host, security, user, password, from,
    port: read.integer('PORT', { min: 1, max: 65_535, otherwise: security === 'tls' ? 465 : 587 }),
    domain: read.text('DOMAIN', from?.split('@')[1]), tls: tlsConfig(read, isProduction), limits: limitsConfig(read),
    ratePerMinuteMax: read.integer('RATE_PER_MINUTE_MAX', { min: 1, max: 10_000, otherwise: 120 })
  }
}

function totpConfig (read: Reader): TOTPConfig {
  const issuer = read.text('ISSUER', 'Soundbox')!
  if (/[:\r\n]/.test(issuer) || issuer.length > 64) read.problem('ISSUER', 'must be at most 64 characters without a colon')
  const digits = read.integer('DIGITS', { min: 6, max: 8, otherwise: 6 })
  if (digits === 7) read.problem('DIGITS', 'must be 6 or 8')
  const algorithm = read.word('ALGORITHM', ['sha1', 'sha256', 'sha512'], 'sha1').toUpperCase() as TOTPConfig['algorithm']
  return { issuer, digits: digits === 8 ? 8 : 6, periodS: read.integer('PERIOD_S', { min: 15, max: 120, otherwise: 30 }), algorithm }
}

function deepFreeze<T> (value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const inner of Object.values(value)) deepFreeze(inner)
  return Object.freeze(value)
}
