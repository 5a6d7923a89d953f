// The dispatcher: service by name -> permission -> issuer -> transport, with the contract checked on both sides of the provider.
// Two clients are made from it: one for a request (its token's permissions, its trace), one for a job of our own (all services, own trace).
import { type ErrorCode, isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import type { Audit } from './audit.js'
import type { CallLedger } from './calls.js'
import { ISSUERS, type Issuer, parseServiceRequest, parseServiceResponse, ROUTES, type ServiceName, type ServiceRequest, type ServiceResponse, SERVICES } from './contract.js'
import { backgroundContext, requestContext } from './context.js'
import type { Clock } from './figures.js'
import type { CallContext, Transport, TransportContext } from './provider.js'

/** Who asks: a token and what it may. */
export type Caller = { id: string, permissions: ReadonlySet<string> }
export type ServiceClient = {
  traceId: string
  /** Throws FORBIDDEN, INPUT_INVALID, ALREADY_EXISTS (client_ref), the PROVIDER_* codes, STORE_FAILED, OVERLOADED. */
  call: <S extends ServiceName>(service: S, input: unknown) => Promise<ServiceResponse<S>>
}
export type Services = {
  forRequest: (request: { caller: Caller, traceparent?: string | undefined, signal?: AbortSignal | undefined }) => ServiceClient
  forBackground: (job: string) => ServiceClient
  /** Asks providers about calls of unknown state; a job runs it. Returns how many were settled. */
  settleDue: () => Promise<number>
  /** Which transport serves which issuer; undefined = not configured. */
  transports: () => Readonly<Record<Issuer, { kind: Transport['kind'], name: string } | undefined>>
  close: () => Promise<void>
}
/** `makeReference`: 1 to 32 of [A-Za-z0-9], unique. `makeTraceId`: 32 hex digits. */
export type ServicesDeps = {
  transports: Partial<Record<Issuer, Transport>>, ledger: CallLedger, audit: Pick<Audit, 'record' | 'assertRoom'>, clock: Clock, log: Log
  makeTraceId: () => string, makeReference: () => string
}

const PERMISSION_OF: ReadonlyMap<ServiceName, string> = new Map(ROUTES.map(route => [route.service, route.permission]))

/** The dispatcher over these transports. */
export function openServices (deps: ServicesDeps): Services {
  const client = (context: CallContext, permissions: ReadonlySet<string> | 'all'): ServiceClient => ({
    traceId: context.traceId,
    call: async (service, input) => {
      assertPermission(service, permissions)
      return await perform(deps, context, service, parseServiceRequest(service, input))
    }
  })
  return {
    forRequest: ({ caller, traceparent, signal }) => client(requestContext({ actor: caller.id, traceparent, signal }, deps.makeTraceId), caller.permissions),
    forBackground: job => client(backgroundContext(job, deps.makeTraceId), 'all'),
    settleDue: async () => await settleDue(deps),
    transports: () => Object.fromEntries(ISSUERS.map(issuer => {
      const transport = deps.transports[issuer]
      return [issuer, transport === undefined ? undefined : { kind: transport.kind, name: transport.name }]
    })) as ReturnType<Services['transports']>,
    close: async () => { await Promise.all(Object.values(deps.transports).map(async transport => await transport.close())) }
  }
}

function assertPermission (service: ServiceName, permissions: ReadonlySet<string> | 'all'): void {
  const needed = PERMISSION_OF.get(service)
  if (permissions === 'all' || (needed !== undefined && permissions.has(needed))) return
  throw new SoundboxError('FORBIDDEN', needed === undefined ? `${service} is not offered to tokens` : `permission ${needed} is missing`)
}

async function perform<S extends ServiceName> (deps: ServicesDeps, context: CallContext, service: S, input: ServiceRequest<S>): Promise<ServiceResponse<S>> {
  const { issuer, changesState } = SERVICES[service]
  const transport = transportOf(deps, issuer, service)
  const send = async (reference: string): Promise<ServiceResponse<S>> => {
    const { traceId, actor, background, signal, deadlineMs } = context
    const ctx: TransportContext = { traceId, actor, background, signal, deadlineMs, service, reference }
    return await audited(deps, transport, ctx, async () => checked(service, changesState, await transport.call(service, input, ctx)))
  }
  const reference = deps.makeReference()
  if (!changesState) return await send(reference)
  const clientRef = (input as { client_ref: string }).client_ref
  return await deps.ledger.once({ issuer, service, input, clientRef, actor: context.actor, traceId: context.traceId, reference }, send)
}

function transportOf (deps: ServicesDeps, issuer: Issuer, service: ServiceName): Transport {
  const transport = deps.transports[issuer]
  if (transport === undefined) throw new SoundboxError('PROVIDER_CONFIG', `issuer ${issuer} is not configured`)
  if (!transport.has(service)) throw new SoundboxError('PROVIDER_CONFIG', `${transport.name} does not offer ${service}`)
  return transport
}

/** An answer that breaks the contract is an error; after a call that changed something it does not undo the change. */
function checked<S extends ServiceName> (service: S, changesState: boolean, answer: ServiceResponse<S>): ServiceResponse<S> {
  try {
    return parseServiceResponse(service, answer)
  } catch (cause) {
    if (!changesState || !isSoundboxError(cause)) throw cause
    throw new SoundboxError('PROVIDER_STATE_UNKNOWN', cause.message, { cause })
  }
}

/** Transports that run under the policy write their own rows, one an attempt; for the others the call is the attempt. */
async function audited<T> (deps: ServicesDeps, transport: Transport, ctx: TransportContext, send: () => Promise<T>): Promise<T> {
  if (transport.kind === 'http' || transport.kind === 'smtp') return await send()
  deps.audit.assertRoom()
  const startMs = deps.clock.nowMs()
  let outcome: ErrorCode | 'ok' | 'fault' = 'fault'
  let error: string | null = null
  try {
    const answer = await send()
    outcome = 'ok'
    return answer
  } catch (caught) {
    if (isSoundboxError(caught)) {
      outcome = caught.code
      error = caught.message
    }
    throw caught
  } finally {
    deps.audit.record({
      atMs: startMs, traceId: ctx.traceId, actor: ctx.actor, issuer: SERVICES[ctx.service].issuer, service: ctx.service, uriKey: ctx.service, method: transport.kind.toUpperCase(),
      url: `${transport.kind}:${transport.name}`, status: null, latencyMs: Math.round(deps.clock.nowMs() - startMs), attempt: 1, outcome, error, request: null, response: null
    })
  }
}

async function settleDue (deps: ServicesDeps): Promise<number> {
  return await deps.ledger.settleDue((call, record) => {
    const transport = deps.transports[SERVICES[call.service].issuer]
    if (transport?.settle === undefined || transport.canSettle?.(call.service) === false) return undefined
    const ctx = { ...backgroundContext('settle', deps.makeTraceId), traceId: record.traceId, service: call.service, reference: call.reference }
    return transport.settle(call, ctx).then(answer => (answer.state === 'done' ? { state: 'done', data: parseServiceResponse(call.service, answer.data) } : answer))
  })
}
