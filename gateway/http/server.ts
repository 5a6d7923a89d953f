// The HTTP server: one Fastify application behind a TCP port and a unix socket. Whoever may open the socket (file mode 600) is the
// operator; over TCP a token is asked for (sign-in.ts). Limits and time-outs are set here, for all routes.
import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import underPressure from '@fastify/under-pressure'
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { randomUUID } from 'node:crypto'
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { ERRORS, isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import { type AdminDeps, adminRoutes } from './admin-routes.js'
import { type LookDeps, lookRoutes } from './look-routes.js'
import { bankRoutes } from './bank-routes.js'
import type { Metrics } from './metrics.js'
import type { SignIn } from './sign-in.js'
import { BODY_BYTES_MAX, type TriggerRouteDeps, triggerRoutes } from './trigger-routes.js'

/** A request must be whole within this; a slow sender holds a socket, nothing else. */
export const REQUEST_TIMEOUT_MS = 10_000
export const CONNECTION_TIMEOUT_MS = 65_000
export const KEEP_ALIVE_TIMEOUT_MS = 60_000
/** How often slow requests are looked for; Node's own 30 s would let them live four times as long as they may. */
const SLOW_CHECK_MS = 1000
/** Sockets at once; one more is closed unread. Banks need dozens: this bounds what idle strangers can hold. */
export const HTTP_CONNECTIONS_MAX = 4096
/** An event loop this late cannot keep the promise of a quick answer: triggers get 503 until it recovers. */
export const LOOP_DELAY_MS_MAX = 2000
/** A connection that was busy when the stop began is let go this soon after its answer. */
const IDLE_CHECK_MS = 50
/** A stop waits so long for requests under way. */
export const STOP_TIMEOUT_MS = 10_000
const TRACE_ID = /^[\w-]{8,64}$/

export type HttpDeps = {
  host: string
  port: number
  socketPath: string | null
  tls: { cert: Buffer, key: Buffer } | null
  trustProxy: boolean
  connectionsMax?: number
  requestTimeoutMs?: number
  signIn: SignIn
  log: Log
  trigger: TriggerRouteDeps
  admin: AdminDeps
  look: LookDeps
  metrics: Metrics
  isReady: () => { ready: boolean, why: readonly string[] }
  /** Further routes of the operator's API, registered below /api/v1/admin. */
  more: readonly ((app: FastifyInstance) => Promise<void>)[]
  /** Routes with their own way of signing in, registered at the root. */
  open: readonly ((app: FastifyInstance) => Promise<void>)[]
}
export type HttpServer = { port: number, close: () => Promise<void> }

/** Throws PORT_TAKEN. */
export async function openHttpServer (deps: HttpDeps): Promise<HttpServer> {
  const trusted = new WeakSet<Socket>()
  const { connectionsMax = HTTP_CONNECTIONS_MAX, requestTimeoutMs = REQUEST_TIMEOUT_MS } = deps
  // Node exchanges the two when its own headersTimeout (60 s) is the longer one: then a slow body would have a minute.
  const times = { requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs, connectionsCheckingInterval: SLOW_CHECK_MS }
  const app = Fastify({
    logger: false, trustProxy: deps.trustProxy && isOwnProxy, bodyLimit: BODY_BYTES_MAX, requestTimeout: requestTimeoutMs, connectionTimeout: CONNECTION_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS, forceCloseConnections: 'idle', routerOptions: { maxParamLength: 128 },
    // A mistyped member is refused, not dropped, and a null is no number: fastify's defaults would set a volume of null to 0.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false } },
    genReqId: request => traceId(request.headers['x-trace-id']),
    ...(deps.tls === null ? { http: times } : { https: { ...deps.tls, ...times } })
  }) as unknown as FastifyInstance
  app.server.maxConnections = connectionsMax
  app.setErrorHandler((error, request, reply) => sendProblem(deps.log, error, request, reply))
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'NOT_FOUND', message: 'there is no such path; /docs lists them' }))
  await registerBasics(app, deps)
  await app.register(async scope => {
    await scope.register(underPressure, { maxEventLoopDelay: LOOP_DELAY_MS_MAX, exposeStatusRoute: false, pressureHandler: refuseUnderPressure })
    await triggerRoutes(scope, deps.trigger)
  })
  await app.register(async scope => {
    await bankRoutes(scope, { ...deps.trigger, checkType: deps.admin.checkType, onDeviceChanged: deps.admin.onDeviceChanged })
  })
  await app.register(async scope => {
    scope.addHook('onRequest', async request => { if (!trusted.has(request.raw.socket)) deps.signIn.admit(request) })
    await deps.signIn.totpRoutes(scope)
    await adminRoutes(scope, deps.admin)
    await lookRoutes(scope, deps.look)
    for (const register of deps.more) await register(scope)
  }, { prefix: '/api/v1/admin' })
  await app.register(deps.signIn.sessionRoutes, { prefix: '/api/v1/admin' })
  for (const register of deps.open) await app.register(register)
  return await listen(app, deps, trusted)
}

async function registerBasics (app: FastifyInstance, deps: HttpDeps): Promise<void> {
  await app.register(swagger, { openapi: { info: { title: 'Soundbox gateway', version: '1', description: 'Bank triggers, administration and history.' } } })
  await app.register(swaggerUi, { routePrefix: '/docs' })
  await app.register(helmet, { global: false })
  app.get('/healthz', { schema: { tags: ['look'], summary: 'The process answers' } }, async () => ({ status: 'ok' }))
  app.get('/readyz', { schema: { tags: ['look'], summary: 'Payments can be recorded and sent' } }, async (_request, reply) => {
    const { ready, why } = deps.isReady()
    return await reply.code(ready ? 200 : 503).send({ ready, why })
  })
  app.get('/metrics', { schema: { tags: ['look'], summary: 'Prometheus series' } }, async (_request, reply) => await reply.type(deps.metrics.contentType).send(await deps.metrics.text()))
}

async function listen (app: FastifyInstance, deps: HttpDeps, trusted: WeakSet<Socket>): Promise<HttpServer> {
  try {
    await app.listen({ host: deps.host, port: deps.port })
  } catch (cause) {
    await app.close()
    throw portError(cause, deps)
  }
  const local = deps.socketPath === null ? undefined : await listenLocally(app, deps.socketPath, trusted).catch(async (error: unknown) => {
    await app.close()
    throw error
  })
  return {
    port: (app.server.address() as AddressInfo).port,
    async close () {
      const localClosed = local === undefined ? undefined : closeServer(local)
      const idle = setInterval(() => { local?.closeIdleConnections() }, IDLE_CHECK_MS)
      const force = setTimeout(() => {
        local?.closeAllConnections()
        app.server.closeAllConnections()
      }, STOP_TIMEOUT_MS)
      try {
        await app.close()
        await localClosed
      } finally {
        clearTimeout(force)
        clearInterval(idle)
      }
    }
  }
}

function closeServer (server: Server): Promise<void> {
  return new Promise(resolve => {
    server.close(() => { resolve() })
    server.closeIdleConnections()
  })
}

async function listenLocally (app: FastifyInstance, path: string, trusted: WeakSet<Socket>): Promise<Server> {
  rmSync(path, { force: true })
  const server = createServer((request, response) => { app.routing(request, response) })
  server.requestTimeout = REQUEST_TIMEOUT_MS
  server.on('connection', socket => { trusted.add(socket) })
  await new Promise<void>((resolve, reject) => {
    server.once('error', cause => {
      reject(new SoundboxError('DATA_DIR_UNUSABLE', `the socket ${path} cannot be opened (a path has at most 107 bytes): use a shorter SOUNDBOX_DATA_DIR`, { cause }))
    })
    server.listen(path, resolve)
  })
  chmodSync(path, 0o600)
  return server
}

function refuseUnderPressure (): never {
  throw new SoundboxError('OVERLOADED', 'The gateway is busy')
}

/** The one place where an error becomes an HTTP answer outside the trigger API. */
function sendProblem (log: Log, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (isSoundboxError(error)) {
    if (error.status === 503 || error.status === 429) void reply.header('retry-after', '1')
    return reply.code(error.status).send({ error: error.code, message: error.message, remedy: ERRORS[error.code].remedy, traceId: request.id })
  }
  const status = (error as FastifyError).statusCode ?? 500
  if (status < 500) {
    const code = status === 413 ? 'BODY_TOO_LARGE' : 'INPUT_INVALID'
    const message = status === 413 ? `the body is over ${BODY_BYTES_MAX} bytes` : inputText(error as FastifyError)
    return reply.code(status).send({ error: code, message, remedy: ERRORS[code].remedy, traceId: request.id })
  }
  log.error({ err: error, traceId: request.id, method: request.method, path: request.routeOptions.url }, 'request failed')
  return reply.code(500).send({ error: 'SERVER_FAULT', message: 'Unhandled server error', remedy: ERRORS.SERVER_FAULT.remedy, traceId: request.id })
}

/** What is wrong, with the name of a member that nobody knows. */
function inputText (error: FastifyError): string {
  const [fault] = error.validation ?? []
  const stranger = fault?.keyword === 'additionalProperties' ? fault.params['additionalProperty'] : undefined
  return typeof stranger === 'string' ? `${error.validationContext ?? 'input'}${fault?.instancePath ?? ''} has a member that is not known: ${stranger.slice(0, 32)}` : error.message
}

function portError (cause: unknown, { host, port }: HttpDeps): unknown {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return new SoundboxError('CONFIG_INVALID', `SOUNDBOX_HOST ${host} is no address of this machine`, { cause })
  return code === 'EADDRINUSE' || code === 'EACCES' ? new SoundboxError('PORT_TAKEN', `HTTP port ${port} on ${host} is taken or not allowed: set SOUNDBOX_HTTP_PORT`, { cause }) : cause
}

/** Whoever connects to us is the proxy; what stands further left in X-Forwarded-For anybody may have written. */
function isOwnProxy (_address: string, hop: number): boolean {
  return hop === 0
}

function traceId (given: unknown): string {
  return typeof given === 'string' && TRACE_ID.test(given) ? given : randomUUID()
}

