// Sends a provider's request: uri_map -> allow-list -> auth headers -> encrypt -> sign -> wire -> decrypt -> decode -> judge.
// Everything that can be wrong on our side is found before a byte leaves, and still makes an audit row. The judgement of an answer:
//
//   3xx                       never followed, never read: PROVIDER_RESPONSE_INVALID
//   401, 403                  our credentials: PROVIDER_CONFIG, and a fetched token is forgotten
//   408, 425, 429, 5xx        may come again (retry.ts); 429, 425 and 503 with Retry-After were certainly not done
//   the provider's isSuccess  decides on all others; then its rejectionFrom words the refusal
import { type Log, SoundboxError, isSoundboxError } from '../../protocol/index.js'
import { maskText } from './audit-mask.js'
import { decodeBody, encodeBody } from './bodies.js'
import type { Cancel } from './cancel.js'
import type { EncryptionConfig, IntegrationConfig, SigningConfig } from './config.js'
import type { Issuer } from './contract.js'
import { type Clock, REQUEST_BYTES_MAX } from './figures.js'
import { findHostRule, type HostRule } from './hosts.js'
import { type Lookup, openWire, type Wire } from './http-wire.js'
import type { Attempt, AttemptFault, AttemptTrail, CallRunner, Provider, ProviderAuth, ProviderRequest, ProviderResponse, TransportContext, UriEntry, UriMap } from './provider.js'
import { parseRetryAfter } from './retry.js'
import { openSealer, openSigner, type Sealer, type Signer } from './signing.js'
import { shownUrl, uriEntryOf, urlFromRequest } from './uri-map.js'

/** An issuer's settings laid over its provider's defaults. */
export type HttpTarget = {
  issuer: Issuer, baseUrl: string, hosts: readonly HostRule[], uriMap: UriMap, requiredAuthHeaders: readonly string[], auditFields: readonly string[]
  config: Pick<IntegrationConfig, 'headers' | 'rejectUnauthorized' | 'basic' | 'tls' | 'limits'>
  signing: SigningConfig | undefined, encryption: EncryptionConfig | undefined
  isSuccess: Provider['isSuccess'], rejectionFrom: NonNullable<Provider['rejectionFrom']>
}
/** `nonce`: random text for signatures. */
export type HttpClientDeps = { run: CallRunner, clock: Clock, nonce: () => string, log: Log, auth?: ProviderAuth, lookup?: Lookup }
export type HttpClient = {
  /** Sends under the whole policy; `read` turns a successful answer into a value and may throw PROVIDER_RESPONSE_INVALID or PROVIDER_REJECTED. */
  send: <T>(ctx: TransportContext, request: ProviderRequest, read: (response: ProviderResponse) => T) => Promise<T>
  close: () => Promise<void>
}

type Parts = { target: HttpTarget, deps: HttpClientDeps, wires: Map<string, Wire>, places: Map<string, Place>, sign: Signer | undefined, sealer: Sealer | undefined }

/** The client of one issuer: its own pools. Throws PROVIDER_CONFIG for keys that do not fit. */
export function openHttpClient (target: HttpTarget, deps: HttpClientDeps): HttpClient {
  const parts: Parts = {
    target, deps, wires: new Map(), places: new Map(),
    sign: target.signing === undefined ? undefined : openSigner(target.signing),
    sealer: target.encryption === undefined ? undefined : openSealer(target.encryption)
  }
  return {
    async send (ctx, request, read) {
      const prepared = prepare(parts, request)
      const { entry, place } = prepared
      let deadlineMs: number | undefined
      if (entry.auth === 'provider' && deps.auth !== undefined) {
        deadlineMs = deps.clock.nowMs() + target.config.limits.totalMs // Fetching a token takes its time out of the call's own.
        Object.assign(prepared.headers, await deps.auth.headersFor(request.uriKey))
      }
      return await deps.run(ctx, {
        issuer: target.issuer, host: place.host, uriKey: request.uriKey, idempotent: entry.idempotent, auditFields: target.auditFields, timeoutMs: entry.timeoutMs, deadlineMs
      }, ({ cancel }) => attemptCall(parts, prepared, cancel, read))
    },
    async close () {
      const open = [...parts.wires.values()]
      parts.wires.clear()
      await Promise.all(open.map(async wire => await wire.close()))
    }
  }
}

/** Where a request goes, found once for rows without parameters. `path` holds the query; `rule` undefined = not on the allow-list. */
type Place = { origin: string, host: string, path: string, shown: string, rule: HostRule | undefined }
type Prepared = { request: ProviderRequest, entry: UriEntry, place: Place, trail: AttemptTrail, headers: Record<string, string>, body: string | undefined }

/** What does not change between attempts. Throws PROVIDER_CONFIG for a mapping or uri_map that does not fit. */
function prepare (parts: Parts, request: ProviderRequest): Prepared {
  const { target } = parts
  const entry = uriEntryOf(target.uriMap, request.uriKey)
  const place = placeOf(parts, entry, request)
  const { body, contentType } = encodeBody(request)
  if (body !== undefined && Buffer.byteLength(body) > REQUEST_BYTES_MAX) throw new SoundboxError('PROVIDER_CONFIG', `the body of ${request.uriKey} is longer than ${REQUEST_BYTES_MAX} bytes`)
  const headers: Record<string, string> = { accept: request.format === 'xml' ? 'application/xml, text/xml' : 'application/json', 'accept-encoding': 'identity' }
  if (contentType !== undefined) headers['content-type'] = contentType
  for (const [name, value] of Object.entries(request.headers ?? {})) headers[name.toLowerCase()] = value
  addAuthHeaders(headers, target, entry)
  return { request, entry, place, headers, body, trail: { method: entry.method, url: place.shown, request: request.body } }
}

function placeOf ({ target, places }: Parts, entry: UriEntry, request: ProviderRequest): Place {
  const isFixed = request.pathParams === undefined && request.query === undefined
  const known = isFixed ? places.get(request.uriKey) : undefined
  if (known !== undefined) return known
  const url = urlFromRequest(target.baseUrl, entry, request)
  const place = {
    origin: url.origin, host: url.host, path: `${url.pathname}${url.search}`, shown: shownUrl(target.baseUrl, entry, request, target.auditFields), rule: findHostRule(target.hosts, url)
  }
  if (isFixed) places.set(request.uriKey, place)
  return place
}

function addAuthHeaders (headers: Record<string, string>, { config }: HttpTarget, entry: UriEntry): void {
  if (entry.auth === 'none') return
  for (const [name, value] of Object.entries(config.headers)) headers[name] = value.reveal()
  if (entry.auth === 'basic' && config.basic !== undefined) {
    headers['authorization'] = `Basic ${Buffer.from(`${config.basic.user}:${config.basic.password.reveal()}`, 'utf8').toString('base64')}`
  }
}

async function attemptCall<T> (parts: Parts, call: Prepared, cancel: Cancel, read: (response: ProviderResponse) => T): Promise<Attempt<T>> {
  const { target } = parts
  const refuse = (fault: AttemptFault): Attempt<T> => ({ ok: false, fault, trail: call.trail })
  const { place } = call
  if (place.rule === undefined) return refuse(localFault('blocked', `${place.host} is not on the allow-list of ${target.issuer}`))
  const missing = call.entry.auth === 'none' ? [] : target.requiredAuthHeaders.filter(name => (call.headers[name] ?? '') === '')
  if (missing.length > 0 && target.config.rejectUnauthorized) return refuse(localFault('auth', `required headers are not configured: ${missing.join(', ')}; nothing was sent`))
  const { headers, body } = parts.sign === undefined && parts.sealer === undefined ? call : await seal(parts, call)
  const answer = await wireOf(parts, place.origin, place.rule).exchange({ method: call.entry.method, path: place.path, headers, body, cancel })
  if (!answer.ok) return refuse(answer.fault)
  const { method, url, request } = call.trail
  const early = faultFromStatus(parts, answer)
  const decoded = early === undefined ? parts.sealer === undefined ? decode(call, answer) : await unseal(parts.sealer, call, answer) : { fault: early }
  if ('fault' in decoded) return { ok: false, fault: decoded.fault, trail: { method, url, request, status: answer.status } }
  const trail = { method, url, request, status: answer.status, response: decoded.response.body }
  const judged = judge(parts, call, decoded.response, read)
  return 'fault' in judged ? { ok: false, fault: judged.fault, trail } : { ok: true, value: judged.value, trail }
}

async function seal ({ sign, sealer, deps }: Parts, call: Prepared): Promise<{ headers: Record<string, string>, body: string | undefined }> {
  const body = sealer === undefined || call.body === undefined ? call.body : await sealer.seal(call.body)
  const headers = sealer === undefined || call.body === undefined ? call.headers : { ...call.headers, 'content-type': 'application/jose', accept: 'application/jose, application/json' }
  if (sign === undefined) return { headers, body }
  const signed = await sign({
    method: call.entry.method, path: call.place.path, body: body ?? '', timestampS: Math.floor(deps.clock.nowMs() / 1000), nonce: deps.nonce()
  })
  return { headers: { ...headers, ...signed }, body }
}

type Received = { status: number, headers: Record<string, string>, body: Buffer }
type Decoded = { response: ProviderResponse } | { fault: AttemptFault }

/** What the status alone says is wrong. */
function faultFromStatus ({ deps }: Parts, { status, headers }: Received): AttemptFault | undefined {
  if (status >= 200 && status < 300) return undefined
  if (status >= 300 && status < 400) return { kind: 'invalid', sent: true, final: true, message: `a redirect (HTTP ${status}) is not followed` }
  if (status === 401) deps.auth?.forget()
  if (status === 401 || status === 403) return { kind: 'auth', sent: true, final: true, refused: true, message: `the provider refuses our credentials (HTTP ${status})` }
  return laterFault(status, parseRetryAfter(headers['retry-after'], deps.clock.nowMs()))
}

function decode (call: Prepared, { status, headers, body }: Received, opened?: string): Decoded {
  try {
    return { response: { status, headers, body: decodeBody(call.request.format, headers, body, opened, status) } }
  } catch (cause) {
    return { fault: invalidFault(cause) }
  }
}

/** As decode, for an issuer that encrypts: where there is a key for answers, a plain one counts as none. */
async function unseal (sealer: Sealer, call: Prepared, received: Received): Promise<Decoded> {
  const isSealed = /\bapplication\/jose\b/i.test(received.headers['content-type'] ?? '')
  try {
    if (sealer.opens && !isSealed && received.status < 300) throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'the answer is not encrypted')
    return decode(call, received, isSealed ? await sealer.open(received.body.toString('utf8')) : undefined)
  } catch (cause) {
    return { fault: invalidFault(cause) }
  }
}

function laterFault (status: number, retryAfterMs: number | undefined): AttemptFault | undefined {
  if (status !== 408 && status !== 425 && status !== 429 && status < 500) return undefined
  const hasWait = (status === 429 || status === 503) && retryAfterMs !== undefined
  const refused = status === 425 || status === 429 || (status === 503 && hasWait)
  return { kind: 'status', sent: true, final: false, refused, message: `the provider answers HTTP ${status}`, ...(hasWait ? { retryAfterMs } : {}) }
}

function judge<T> ({ target }: Parts, call: Prepared, response: ProviderResponse, read: (response: ProviderResponse) => T): { value: T } | { fault: AttemptFault } {
  try {
    if (target.isSuccess(response, call.request.uriKey)) return { value: read(response) }
    const { code, message, retryAfterMs } = target.rejectionFrom(response, call.request.uriKey)
    const shown = maskText(`the provider answers ${code}: ${message}`)
    return { fault: { kind: 'rejected', sent: true, final: retryAfterMs === undefined, refused: true, message: shown, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) } }
  } catch (cause) {
    if (isSoundboxError(cause, 'PROVIDER_REJECTED')) return { fault: { kind: 'rejected', sent: true, final: true, refused: true, message: maskText(cause.message) } }
    return { fault: invalidFault(cause) }
  }
}

function invalidFault (cause: unknown): AttemptFault {
  return { kind: 'invalid', sent: true, final: true, message: isSoundboxError(cause) ? maskText(cause.message) : 'the answer does not fit its mapping', cause }
}

function localFault (kind: 'blocked' | 'auth', message: string): AttemptFault {
  return { kind, sent: false, final: true, message }
}

function wireOf ({ wires, target, deps }: Parts, origin: string, rule: HostRule): Wire {
  const known = wires.get(origin)
  if (known !== undefined) return known
  const made = openWire({
    origin, rule, tls: target.config.tls, limits: target.config.limits, clock: deps.clock, ...(deps.lookup === undefined ? {} : { lookup: deps.lookup })
  })
  wires.set(origin, made)
  return made
}
