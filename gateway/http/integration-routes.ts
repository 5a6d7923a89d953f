// /api/v1/integration: the fourteen routes over the dispatcher, made from the route table of integration/contract.ts.
//
//   Authorization -> token (401, 429) -> permission (403) -> JSON body (400, 413) -> service -> { status, trace_id, data }
//
// Token and permission are judged before the body is read. Every failure has one shape: { status: 'failed', error, message, remedy, trace_id }.
// Bodies are checked by the contract itself, not by Fastify's compiler (which drops unknown keys and turns numbers to text by default); the
// schemas stand here for OpenAPI. A caller that hangs up ends a lookup, but never a call that changes something.
import type { Readable } from 'node:stream'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type TSchema, Type } from 'typebox'
import { ERRORS, type ErrorCode, isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import { BASE_PATH, REPORT_ROUTE, ROUTES, SERVICES } from '../integration/contract.js'
import { type Rate, stepRate } from '../integration/rate.js'
import type { Caller, Services } from '../integration/services.js'
import type { Tokens } from '../integration/tokens.js'

export const BODY_BYTES_MAX = 65_536
export const EMAIL_BODY_BYTES_MAX = 1_048_576
export const REPORTS_PER_MINUTE = 12 // Of all callers together: making one takes seconds of CPU.
const BUSY_RETRY_S = 1
const REPORT_RETRY_S = 5

export type ReportFile = { fileName: string, contentType: string, stream: Readable }
export type IntegrationRouteDeps = {
  services: Pick<Services, 'forRequest'>
  tokens: Pick<Tokens, 'admit'>
  /** The simulated CBS report; undefined = the simulator is off. Throws INPUT_INVALID for another format or table. */
  report: ((query: { format?: string, table?: string }) => Promise<ReportFile>) | undefined
  makeTraceId: () => string
  nowMs: () => number
  log: Log
}

declare module 'fastify' {
  interface FastifyRequest { integrationCaller: Caller | undefined, integrationTraceId: string }
}

/** Registers the routes under BASE_PATH. */
export async function integrationRoutes (app: FastifyInstance, deps: IntegrationRouteDeps): Promise<void> {
  await app.register(async scope => {
    scope.decorateRequest('integrationCaller', undefined)
    scope.decorateRequest('integrationTraceId', '')
    scope.setValidatorCompiler(() => value => ({ value }))
    scope.setSerializerCompiler(() => value => JSON.stringify(value))
    scope.setErrorHandler(async (error, request, reply) => { await fail(deps, request, reply, error) })
    for (const route of ROUTES) addServiceRoute(scope, deps, route)
    addReportRoute(scope, deps)
  }, { prefix: BASE_PATH })
}

function addServiceRoute (scope: FastifyInstance, deps: IntegrationRouteDeps, route: typeof ROUTES[number]): void {
  const { summary, changesState, example, request: body, response } = SERVICES[route.service]
  scope.route({
    method: route.method,
    url: route.path,
    bodyLimit: route.service === 'send_email_message' ? EMAIL_BODY_BYTES_MAX : BODY_BYTES_MAX,
    schema: {
      tags: ['integration'], summary, operationId: route.service,
      description: `Needs the permission \`${route.permission}\`.`,
      headers: Type.Object({ authorization: Type.String({ description: 'Bearer and a live token', examples: ['Bearer sbx_0123456789ab_…'] }) }),
      body: withExample(body, example.request),
      response: {
        200: withExample(Type.Object({ status: Type.Literal('success'), trace_id: Type.String(), data: response }), { status: 'success', trace_id: EXAMPLE_TRACE, data: example.response }),
        ...failures('INPUT_INVALID', 'UNAUTHORIZED', 'FORBIDDEN', 'PROVIDER_REJECTED', 'RATE_LIMITED', 'PROVIDER_UNAVAILABLE', 'PROVIDER_BUSY', 'PROVIDER_TIMEOUT')
      }
    },
    onRequest: async request => { admit(deps, request, route.permission) },
    handler: async (request, reply) => {
      const gone = changesState ? undefined : goneSignal(reply)
      const client = deps.services.forRequest({ caller: request.integrationCaller!, traceparent: textOf(request.headers['traceparent']), signal: gone })
      request.integrationTraceId = client.traceId
      const data = await client.call(route.service, request.body)
      return await reply.header('x-trace-id', client.traceId).send({ status: 'success', trace_id: client.traceId, data })
    }
  })
}

/** Marks the request with its caller. Throws UNAUTHORIZED, RATE_LIMITED, FORBIDDEN. */
function admit (deps: IntegrationRouteDeps, request: FastifyRequest, permission: string): void {
  request.integrationTraceId = deps.makeTraceId()
  const admission = deps.tokens.admit(request.headers.authorization, request.ip)
  if (!admission.ok) throw withRetryAfter(admission.error, admission.retryAfterS)
  if (!admission.caller.permissions.has(permission)) throw new SoundboxError('FORBIDDEN', `permission ${permission} is missing`)
  request.integrationCaller = admission.caller
}

function addReportRoute (scope: FastifyInstance, deps: IntegrationRouteDeps): void {
  let running: symbol | undefined
  let rate: Rate | undefined
  scope.route({
    method: REPORT_ROUTE.method,
    url: REPORT_ROUTE.path,
    schema: {
      tags: ['integration'], summary: 'The simulated bank as CSV (one table) or XLSX (all)', operationId: REPORT_ROUTE.service,
      description: 'Holds invented customers only, so it needs no token. One download at a time.',
      querystring: Type.Object({ format: Type.Optional(Type.Enum(['csv', 'xlsx'])), table: Type.Optional(Type.String({ examples: ['accounts'] })) }),
      response: failures('INPUT_INVALID', 'NOT_FOUND', 'OVERLOADED', 'RATE_LIMITED')
    },
    handler: async (request, reply) => {
      request.integrationTraceId = deps.makeTraceId()
      if (deps.report === undefined) throw new SoundboxError('NOT_FOUND', 'the simulated bank is off (CBS_API_SIMULATE)')
      if (running !== undefined) throw withRetryAfter(new SoundboxError('OVERLOADED', 'another report is being made'), REPORT_RETRY_S)
      const step = stepRate(rate, deps.nowMs(), { perMinute: REPORTS_PER_MINUTE, burst: REPORTS_PER_MINUTE })
      rate = step.next
      if (step.waitS > 0) throw withRetryAfter(new SoundboxError('RATE_LIMITED', `${REPORTS_PER_MINUTE} reports a minute`), step.waitS)
      const mine = Symbol('report')
      const done = (): void => { if (running === mine) running = undefined }
      running = mine
      try {
        const { fileName, contentType, stream } = await deps.report(request.query as { format?: string, table?: string })
        reply.raw.once('close', () => stream.destroy()) // Also when the caller goes away before the first byte.
        for (const end of ['end', 'close']) stream.once(end, done)
        return await reply.header('content-disposition', `attachment; filename="${fileName}"`).type(contentType).send(stream)
      } catch (error) {
        done()
        throw error
      }
    }
  })
}

const RETRY_AFTER = new WeakMap<Error, number>()

function withRetryAfter (error: SoundboxError, seconds: number | undefined): SoundboxError {
  if (seconds !== undefined) RETRY_AFTER.set(error, seconds)
  return error
}

async function fail (deps: IntegrationRouteDeps, request: FastifyRequest, reply: FastifyReply, error: unknown): Promise<void> {
  const known = isSoundboxError(error) ? error : errorFromFastify(error as FastifyError)
  const traceId = request.integrationTraceId === '' ? deps.makeTraceId() : request.integrationTraceId
  const isOurs = known.code === 'SERVER_FAULT'
  deps.log[isOurs ? 'error' : 'debug']({ ...(isOurs ? { err: error } : {}), code: known.code, traceId, route: request.routeOptions.url, actor: request.integrationCaller?.id },
    'integration call failed')
  const retryAfterS = RETRY_AFTER.get(known) ?? (known.code === 'PROVIDER_BUSY' || known.code === 'OVERLOADED' ? BUSY_RETRY_S : undefined)
  if (retryAfterS !== undefined) reply.header('retry-after', String(retryAfterS))
  if (known.code === 'UNAUTHORIZED') reply.header('www-authenticate', 'Bearer')
  await reply.code(isOurs ? 500 : known.status).header('x-trace-id', traceId)
    .send({ status: 'failed', error: known.code, message: known.message, remedy: ERRORS[known.code].remedy, trace_id: traceId })
}

function errorFromFastify (error: FastifyError): SoundboxError {
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new SoundboxError('BODY_TOO_LARGE', 'the body is longer than this route takes')
  if (error.code?.startsWith('FST_ERR_CTP') === true || error.statusCode === 400) return new SoundboxError('INPUT_INVALID', 'the body must be JSON with content-type application/json')
  return new SoundboxError('SERVER_FAULT', 'the gateway could not serve this call', { cause: error })
}

/** Fires when the connection closes before the answer is out. */
function goneSignal (reply: FastifyReply): AbortSignal {
  const controller = new AbortController()
  reply.raw.once('close', () => { if (!reply.raw.writableFinished) controller.abort() })
  return controller.signal
}

const EXAMPLE_TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'

function failures (...codes: ErrorCode[]): Record<number, TSchema> {
  return Object.fromEntries(codes.map(code => [ERRORS[code].status, withExample(
    Type.Object({ status: Type.Literal('failed'), error: Type.String(), message: Type.String(), remedy: Type.String(), trace_id: Type.String() }),
    { status: 'failed', error: code, message: 'what is wrong, without any value', remedy: ERRORS[code].remedy, trace_id: EXAMPLE_TRACE })]))
}

function withExample<S extends TSchema> (schema: S, example: unknown): S {
  return { ...schema, examples: [example] }
}

function textOf (header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : undefined
}
