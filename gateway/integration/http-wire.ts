// One request and one answer over undici, with every bound of ours and none of undici's generous ones.
//
//   dispatch -> [connect <= connectMs] -> started: bytes may leave -> [headers <= headersMs] -> [whole body <= bodyMs, <= bytesMax] -> end
//
// The dispatch interface is used rather than `request`, because it alone says when the first byte may leave: whether a call that changes
// something may be sent again hangs on exactly that. The address is judged after DNS, in the lookup that the socket itself uses, so there
// is no second lookup to fool. Redirects are not followed: nothing here reads a Location header.
import { type LookupAddress, type LookupOptions, lookup as systemLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { type Dispatcher, Pool } from 'undici'
import { SoundboxError } from '../../protocol/index.js'
import type { Cancel } from './cancel.js'
import type { LimitsConfig, TlsConfig } from './config.js'
import { type Clock, HEADER_BYTES_MAX } from './figures.js'
import { bareHost, blockedReason, type HostRule } from './hosts.js'
import type { AttemptFault } from './provider.js'

export type WireRequest = { method: Dispatcher.HttpMethod, path: string, headers: Record<string, string>, body: string | undefined, cancel: Cancel }
export type WireAnswer = { ok: true, status: number, headers: Record<string, string>, body: Buffer } | { ok: false, fault: AttemptFault }
/** Resolves names; tests give their own. Same shape as `dns.lookup` with `all`. */
export type Lookup = (host: string, options: LookupOptions & { all: true }, done: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void) => void
export type WireSettings = { origin: string, rule: HostRule, tls: TlsConfig, limits: LimitsConfig, clock: Clock, lookup?: Lookup }
export type Wire = { exchange: (request: WireRequest) => Promise<WireAnswer>, close: () => Promise<void> }

const BLOCKED = 'ERR_SOUNDBOX_BLOCKED'
const KEEP_ALIVE_MS = 4_000 // Shorter than the idle time of common servers, so that a reused socket is rarely one the server just closed.
const KEEP_ALIVE_MAX_MS = 30_000

/** The pool of one origin. Throws PROVIDER_CONFIG for TLS material that does not fit. */
export function openWire (settings: WireSettings): Wire {
  const { limits, tls } = settings
  try {
    const pool = new Pool(settings.origin, {
      connections: limits.activeMax, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, maxHeaderSize: HEADER_BYTES_MAX,
      keepAliveTimeout: KEEP_ALIVE_MS, keepAliveMaxTimeout: KEEP_ALIVE_MAX_MS,
      connect: {
        timeout: limits.connectMs, lookup: guardedLookup(settings), rejectUnauthorized: tls.mode === 'strict', minVersion: 'TLSv1.2',
        ...(tls.ca === undefined ? {} : { ca: tls.ca }), ...(tls.cert === undefined ? {} : { cert: tls.cert }), ...(tls.key === undefined ? {} : { key: tls.key.reveal() })
      }
    })
    const host = bareHost(new URL(settings.origin).hostname)
    const reason = isIP(host) === 0 ? undefined : blockedReason(settings.rule, host) // A literal address is never looked up, so it is judged here.
    return {
      exchange: request => (reason === undefined ? exchange(pool, settings, request) : Promise.resolve({ ok: false, fault: blocked(reason) })),
      close: async () => { await pool.destroy() }
    }
  } catch (cause) {
    throw new SoundboxError('PROVIDER_CONFIG', `the connection settings for ${settings.origin} are not usable`, { cause })
  }
}

function guardedLookup (settings: WireSettings): LookupFunction {
  const resolve: Lookup = settings.lookup ?? systemLookup
  return (host, options, done) => {
    resolve(host, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        done(error, [])
        return
      }
      const allowed = addresses.filter(({ address }) => blockedReason(settings.rule, address) === undefined)
      const [first] = allowed
      if (first === undefined) {
        const reason = blockedReason(settings.rule, addresses[0]?.address ?? '') ?? 'no address'
        done(Object.assign(new Error(reason), { code: BLOCKED }), [])
      } else if (options.all === true) done(null, allowed)
      else done(null, first.address, first.family)
    })
  }
}

const PHASES = {
  connect: { limit: 'connectMs', kind: 'connect', what: 'connecting' }, headers: { limit: 'headersMs', kind: 'timeout', what: 'the headers of the answer' },
  body: { limit: 'bodyMs', kind: 'timeout', what: 'the body of the answer' }
} as const satisfies Record<string, { limit: keyof LimitsConfig, kind: AttemptFault['kind'], what: string }>
type Phase = typeof PHASES[keyof typeof PHASES]

/** Ends the phase that is on when its time is over. One timer an exchange: firing early, it is set again for the rest of the phase of then. */
function openPhaseTimer ({ limits, clock }: Pick<WireSettings, 'limits' | 'clock'>, onLate: (phase: Phase) => void): { enter: (phase: Phase) => void, start: () => void, stop: () => void } {
  let phase: Phase = PHASES.connect
  let endMs = 0
  let stop = (): void => {}
  const tick = (): void => {
    const leftMs = endMs - clock.nowMs()
    if (leftMs > 0) stop = clock.after(leftMs, tick)
    else onLate(phase)
  }
  return {
    enter (next) {
      phase = next
      endMs = clock.nowMs() + limits[next.limit]
    },
    start: () => { stop = clock.after(Math.min(limits.connectMs, limits.headersMs, limits.bodyMs), tick) },
    stop: () => { stop() }
  }
}

/** Settles exactly once; whatever comes later is dropped, and a request that starts late is aborted before its first byte. */
function exchange (pool: Pool, { limits, clock }: WireSettings, request: WireRequest): Promise<WireAnswer> {
  return new Promise(resolve => {
    let isSettled = false
    let sent = false
    let controller: Dispatcher.DispatchController | undefined
    let status = 0
    let headers: Record<string, string> = {}
    let bytes = 0
    const chunks: Buffer[] = []
    let stopListening = (): void => {}

    const settle = (answer: WireAnswer): void => {
      if (isSettled) return
      isSettled = true
      timer.stop()
      stopListening()
      resolve(answer)
      if (!answer.ok) controller?.abort(new Error('given up'))
    }
    const fail = (kind: AttemptFault['kind'], message: string, more: { final?: boolean, cause?: unknown } = {}): void => {
      settle({ ok: false, fault: { kind, sent, final: more.final ?? false, message, cause: more.cause } })
    }
    stopListening = request.cancel.onFire(why => {
      if (why === 'caller gone') fail('aborted', 'the caller went away', { final: true })
      else fail('timeout', 'no answer in time')
    })
    const timer = openPhaseTimer({ limits, clock }, phase => fail(phase.kind, `${phase.what} took longer than ${limits[phase.limit]} ms`))

    if (isSettled) return
    timer.enter(PHASES.connect)
    pool.dispatch({ method: request.method, path: request.path, headers: request.headers, body: request.body ?? null }, {
      onRequestStart (control) {
        controller = control
        if (isSettled) {
          control.abort(new Error('given up'))
          return
        }
        sent = true
        timer.enter(PHASES.headers)
      },
      onResponseStart (_control, code, rawHeaders) {
        if (code < 200 || isSettled) return
        status = code
        headers = plainHeaders(rawHeaders)
        timer.enter(PHASES.body)
        if (Number(headers['content-length'] ?? 0) > limits.responseBytesMax) fail('invalid', `the answer is longer than ${limits.responseBytesMax} bytes`, { final: true })
      },
      onResponseData (_control, chunk) {
        if (isSettled) return
        bytes += chunk.length
        if (bytes > limits.responseBytesMax) fail('invalid', `the answer is longer than ${limits.responseBytesMax} bytes`, { final: true })
        else chunks.push(chunk)
      },
      onResponseEnd () { settle({ ok: true, status, headers, body: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) }) },
      onResponseError (_control, error) { settle({ ok: false, fault: faultFromError(error, sent) }) }
    })
    if (!isSettled) timer.start()
  })
}

/** Headers that came more than once are joined. The object is undici's and ours alone, so it is changed in place. */
function plainHeaders (raw: Record<string, string | string[] | undefined>): Record<string, string> {
  for (const name in raw) if (Array.isArray(raw[name])) raw[name] = raw[name].join(', ')
  return raw as Record<string, string>
}

function blocked (reason: string): AttemptFault {
  return { kind: 'blocked', sent: false, final: true, message: `not sent: ${reason}` }
}

const TLS_CODE = /^(?:ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH|EPROTO$)/
const ANSWER_CODE = /^(?:HPE_|UND_ERR_HEADERS_OVERFLOW|UND_ERR_RES_EXCEEDED)/

/** Only the code of a socket error is shown: its message may hold an address or a header. */
function faultFromError (error: Error, sent: boolean): AttemptFault {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  if (code === BLOCKED) return blocked(error.message)
  if (code === 'UND_ERR_INVALID_ARG') return blocked('method, path or a header is not valid HTTP')
  if (TLS_CODE.test(code)) return { kind: 'tls', sent, final: true, message: `the TLS connection failed (${code})`, cause: error }
  if (ANSWER_CODE.test(code)) return { kind: 'invalid', sent, final: true, message: `the answer is no HTTP (${code})`, cause: error }
  if (!sent) return { kind: 'connect', sent, final: false, message: `no connection (${code})`, cause: error }
  return { kind: 'reset', sent, final: false, message: `the connection broke (${code})`, cause: error }
}
