// What a provider is, and what a transport is. A provider is data and pure functions: how a normalised request becomes its request, and
// how its answer becomes a normalised answer. Policy (time-outs, retries, breaker, audit, signing) is not its business: see policy.ts.
//
//   normalised request -> toRequest -> ProviderRequest -> [client: uri_map, auth headers, sign, send, decode] -> ProviderResponse
//                      <- fromResponse <- (isSuccess?)  <-
//
// Most providers speak HTTP. One that does not (SMTP, ISO 8583, the simulator) is a `Transport`: the same promise, other wire.
import type { Cancel } from './cancel.js'
import type { Issuer, IssuerServices, ServiceName, ServiceRequest, ServiceResponse } from './contract.js'

/** One row of a provider's uri_map. `path` may hold `{name}` parameters and is appended to the issuer's base URL.
 *  `idempotent: true` = may be sent again; false = only if no byte left, or on 429/503 with Retry-After. */
export type UriEntry = { method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, idempotent: boolean, timeoutMs?: number, auth: AuthKind }
/** How a call proves who we are. `headers`: the configured headers. `basic`: configured user and password. `provider`: `Provider.openAuth`.
 *  Signing and encryption (HMAC, JWS, JWE) are settings of the issuer and come on top. */
export type AuthKind = 'none' | 'headers' | 'basic' | 'provider'
export type UriMap = Readonly<Record<string, UriEntry>>

export type BodyFormat = 'json' | 'xml' | 'form' | 'none'

/** What to send: which row of the uri_map, and what fills it. Values of `pathParams` and `query` are encoded by the client. */
export type ProviderRequest = {
  uriKey: string
  format: BodyFormat
  pathParams?: Readonly<Record<string, string>>
  query?: Readonly<Record<string, string>>
  headers?: Readonly<Record<string, string>>
  /** json: any JSON value. xml: object with one root key. form: flat record of strings (repeat a key with an array). none: absent. */
  body?: unknown
}

/** What came back. `body`: the decoded JSON or XML, the text of any other content type, undefined when empty. Header names are lower case.
 *  `body` is `unknown` on purpose: read it through the field readers of `fields.ts`, which throw PROVIDER_RESPONSE_INVALID. */
export type ProviderResponse = { status: number, headers: Readonly<Record<string, string>>, body: unknown }

/** What a mapping may know beside the request. Plain values: a mapping reads no clock and makes no random number. */
export type MappingContext = {
  nowMs: number
  traceId: string
  /** Unique per call, 1 to 32 of [A-Za-z0-9]: the transaction reference for providers that want one. The same on every attempt. */
  reference: string
  /** The issuer's `*_PARAM_*` settings, by lower-case name: client ids, sender ids, project, workflow. No secrets. */
  params: Readonly<Record<string, string>>
}

/** One service at one provider. */
export type ServiceMapping<S extends ServiceName> = {
  toRequest: (input: ServiceRequest<S>, ctx: MappingContext) => ProviderRequest
  /** Runs when `isSuccess` says so. Throws PROVIDER_RESPONSE_INVALID (through the field readers), PROVIDER_REJECTED. */
  fromResponse: (response: ProviderResponse, input: ServiceRequest<S>, ctx: MappingContext) => ServiceResponse<S>
  /** For services that change something: how to ask later what became of a call whose answer was lost. */
  settle?: {
    toRequest: (call: UnknownCall<S>, ctx: MappingContext) => ProviderRequest
    fromResponse: (response: ProviderResponse, call: UnknownCall<S>, ctx: MappingContext) => Settlement<S>
  }
}

/** A call that may or may not have taken effect. */
export type UnknownCall<S extends ServiceName> = { service: S, input: ServiceRequest<S>, reference: string, atMs: number }
/** `open`: the provider does not know yet either; ask again later. */
export type Settlement<S extends ServiceName> = { state: 'done', data: ServiceResponse<S> } | { state: 'not_done' } | { state: 'open' }

/** How a provider says no. `code` and `message` are shown to the caller: the mapping must not copy personal data or secrets into them.
 *  `retryAfterMs` marks "not now": the call is tried again as on HTTP 429. */
export type Rejection = { code: string, message: string, retryAfterMs?: number }

/** A provider of an issuer. `services` lists the services it offers; the others answer PROVIDER_CONFIG. */
export type Provider<I extends Issuer = Issuer> = {
  issuer: I
  name: string
  uriMap: UriMap
  /** Header names (lower case) that must be configured before anything leaves. */
  requiredAuthHeaders: readonly string[]
  /** Default hosts of the allow-list, `host:port`; the environment may replace them. */
  hosts: readonly string[]
  baseUrl: string
  /** Some banks say success inside the body, and some SMS gateways answer HTTP 200 on errors. */
  isSuccess: (response: ProviderResponse, uriKey: string) => boolean
  /** Only called when `isSuccess` is false and the HTTP status is 2xx or a final 4xx. Default: the HTTP status. */
  rejectionFrom?: (response: ProviderResponse, uriKey: string) => Rejection
  services: { [S in IssuerServices<I>]?: ServiceMapping<S> }
  /** Names of body, query and reply fields that may stand in an audit row; all others are left out. Nested by dot, through rows too:
   *  `recipients.dest_addr`. A suffix hides part of the value: `~phone`, `~account`, `~name`, as in `payload.customerAccount~account`. */
  auditFields: readonly string[]
  /** For `auth: 'provider'` (OAuth tokens): headers for a call. `send` goes through the same client, policy and audit. */
  openAuth?: (deps: AuthDeps) => ProviderAuth
}
/** `forget` is called when the provider answered 401: the next call asks for a new token. `headersFor` shares one fetch among callers. */
export type ProviderAuth = { headersFor: (uriKey: string) => Promise<Readonly<Record<string, string>>>, forget: () => void }
export type AuthDeps = {
  send: (request: ProviderRequest) => Promise<ProviderResponse>
  params: Readonly<Record<string, string>>
  /** The issuer's `*_SECRET_*` setting of that lower-case name. Throws PROVIDER_CONFIG when it is not set. */
  secret: (name: string) => string
  nowMs: () => number
}

/** Who calls, for how long, and under which trace. Made by `requestContext` or `backgroundContext` only. */
export type CallContext = {
  traceId: string
  /** Token id, or `system:<job>` for a background call. */
  actor: string
  background: boolean
  /** The caller went away. */
  signal?: AbortSignal | undefined
  /** The call ends then, if that is sooner than the issuer's own total. */
  deadlineMs?: number | undefined
}

/** Anything that can perform services of one issuer. `http` is made by httpTransport(provider, …); others are written by hand. */
export type Transport = {
  kind: 'http' | 'simulated' | 'iso8583' | 'smtp'
  name: string
  has: (service: ServiceName) => boolean
  /** Normalised answer, not yet checked against the contract (the dispatcher does that). Throws the PROVIDER_* codes. */
  call: <S extends ServiceName>(service: S, input: ServiceRequest<S>, ctx: TransportContext) => Promise<ServiceResponse<S>>
  /** Asks what became of a call of unknown state. Only for services that `canSettle` says yes to (absent: all, when `settle` is there). */
  settle?: <S extends ServiceName>(call: UnknownCall<S>, ctx: TransportContext) => Promise<Settlement<S>>
  canSettle?: (service: ServiceName) => boolean
  close: () => Promise<void>
}
export type TransportContext = CallContext & { reference: string, service: ServiceName }

/** One attempt as the policy sees it. Values, not exceptions: what happened decides whether it may happen again. */
export type Attempt<T> = { ok: true, value: T, trail: AttemptTrail } | { ok: false, fault: AttemptFault, trail: AttemptTrail }
/** `sent` false = not one byte of the request left this machine. `final` true = repeating cannot help (TLS, auth, 4xx). */
export type AttemptFault = {
  kind: 'connect' | 'timeout' | 'reset' | 'status' | 'tls' | 'auth' | 'blocked' | 'rejected' | 'invalid' | 'aborted'
  sent: boolean
  final: boolean
  /** The provider certainly did not do it (a 4xx, a "later"). A call that changes something and was sent but not refused is of unknown state. */
  refused?: boolean
  /** The provider itself said "later". */
  retryAfterMs?: number
  /** Safe text for error and audit row. */
  message: string
  cause?: unknown
}
/** What the audit row of the attempt holds beside the call's own facts. Objects are filtered by the allow-list before they are written. */
export type AttemptTrail = { url: string, method: string, status?: number, request?: unknown, response?: unknown }

/** Runs attempts of one call under the whole policy and writes one audit row an attempt. Transports get it, providers do not see it.
 *  Throws PROVIDER_TIMEOUT, PROVIDER_UNAVAILABLE, PROVIDER_BUSY, PROVIDER_REJECTED, PROVIDER_RESPONSE_INVALID, PROVIDER_STATE_UNKNOWN. */
export type CallRunner = <T>(ctx: TransportContext, target: CallTarget, attempt: (info: AttemptInfo) => Promise<Attempt<T>>) => Promise<T>
/** `cancel` tells the attempt to stop (`cancel.signal()` is an AbortSignal); it must then answer within one turn of the event loop. */
export type AttemptInfo = { attempt: number, cancel: Cancel }
/** `host` is the breaker's key beside the issuer. `auditFields` as in Provider. `deadlineMs` as in CallContext: the sooner one counts. */
export type CallTarget = { issuer: Issuer, host: string, uriKey: string, idempotent: boolean, timeoutMs?: number | undefined, auditFields: readonly string[],
  deadlineMs?: number | undefined }
