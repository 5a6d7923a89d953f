// The two paths of the bank trigger API. The body is taken as text, whatever its content type says, so that a request with a broken
// body costs and tells the same as one with wrong keys.
import type {} from '@fastify/swagger'
import type { Log } from '../../protocol/index.js'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Meter } from '../trigger/meter.js'
import { type BankRequest, handleTrigger, type TriggerDeps, type TriggerOutcome } from '../trigger/handle-trigger.js'
import { overloadedAnswer, triggerAnswer, type TriggerAnswer } from './trigger-answer.js'

/** Triggers looked at at once; beyond, the answer is 503 at once and nothing is recorded. */
export const TRIGGERS_IN_FLIGHT_MAX = 4000
export const BODY_BYTES_MAX = 64 * 1024

const DESCRIPTION = [
  'Encrypted by the client\'s cipher profile. `header_secrets` and `RequestData` are base64( IV[16] || AES-256-CBC-PKCS7( JSON ) ) for `aes-256-cbc`,',
  'base64( nonce[12] || ciphertext || tag[16] ) with AAD = pass_key for `aes-256-gcm`; a plaintext client sends `client_id` and `client_secret` and the columns themselves.',
  'Success (HTTP 200) is encrypted in `ResponseData`, every other answer is plain JSON.'
].join(' ')
const SCHEMA = {
  tags: ['trigger'],
  summary: 'A customer has paid: announce it',
  description: DESCRIPTION,
  headers: Type.Object({
    pass_key: Type.Optional(Type.String({ description: 'public id of the client' })),
    header_secrets: Type.Optional(Type.String({ description: 'encrypted {"client_id","client_secret","epoch"}, made anew for each call' }))
  }),
  response: {
    200: Type.Object({ ResponseData: Type.Optional(Type.String({ examples: ['8PHy8/T19vf4+fr7/P3+/7oKreoQacYeMZn5YSew1Xa63Ac6ZyADrsrkdwfdfkYI'] })) }, { additionalProperties: true }),
    '4xx': Type.Object({ status: Type.Unknown(), statusDesc: Type.String({ examples: ['ERR0001 VPA Not found in database'] }) }, { additionalProperties: true })
  }
}

const NOT_POST: TriggerAnswer = { status: 405, body: '{"ResponseData":"Invalid Request"}', code: 'METHOD_NOT_ALLOWED', headers: {} }

export type TriggerRouteDeps = TriggerDeps & { meter: Meter, log: Log }

/** Registers both paths; encapsulated, so that its body parser is nobody else's. */
export async function triggerRoutes (app: FastifyInstance, deps: TriggerRouteDeps): Promise<void> {
  takeBodiesAsText(app)
  let inFlight = 0
  const handle = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    if (inFlight >= TRIGGERS_IN_FLIGHT_MAX) return send(deps, reply, overloadedAnswer())
    inFlight++
    try {
      const startedAt = deps.nowMs()
      const outcome = await handleTrigger(deps, requestOf(request))
      const answer = triggerAnswer(outcome)
      const ms = deps.nowMs() - startedAt
      deps.meter.stage('answered', ms)
      deps.log.info({ traceId: request.id, ...outcomeFields(outcome), code: answer.code, ms }, 'trigger answered')
      if (outcome.kind === 'refused' && answer.code === 'SERVER_FAULT') deps.log.error({ err: outcome.error, traceId: request.id }, 'trigger failed')
      return send(deps, reply.header('x-trace-id', request.id), answer)
    } finally {
      inFlight--
    }
  }
  const paths = ['/:base/isu_soundbox/txn/encr/trigger', '/api/v1/soundbox/trigger']
  for (const path of paths) {
    app.post(path, { schema: SCHEMA, validatorCompiler: () => () => true, serializerCompiler: () => String }, handle)
    app.route({ method: ['GET', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'], url: path, schema: { hide: true }, handler: (_request, reply) => send(deps, reply, NOT_POST) })
  }
}

/** In this scope a body is text, whatever its content type says. */
export function takeBodiesAsText (app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string', bodyLimit: BODY_BYTES_MAX }, (_request, body, done) => { done(null, body) })
}

/** What the log may say of a trigger: ids of ours, never what the bank sent. The announcement id goes on through store, MQTT and ack. */
function outcomeFields (outcome: TriggerOutcome): object {
  if (outcome.kind === 'announced') return { bankId: outcome.bank.id, announcementId: outcome.announced.announcementId }
  return outcome.kind === 'wait' || outcome.bank === undefined ? {} : { bankId: outcome.bank.id }
}

/** A bank's call as the heart takes it. */
export function requestOf (request: FastifyRequest): BankRequest {
  const { base } = request.params as { base?: string }
  return {
    base: base ?? null,
    address: request.ip,
    headers: {
      passKey: header(request, 'pass_key'), headerSecrets: header(request, 'header_secrets'), clientId: header(request, 'client_id'), clientSecret: header(request, 'client_secret')
    },
    body: request.method === 'GET' ? null : typeof request.body === 'string' ? request.body : ''
  }
}

function header (request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name]
  return typeof value === 'string' ? value : undefined
}

function send (deps: TriggerRouteDeps, reply: FastifyReply, answer: TriggerAnswer): FastifyReply {
  deps.meter.outcome('http', answer.code)
  return reply.code(answer.status).headers({ 'content-type': 'application/json; charset=utf-8', ...answer.headers }).send(answer.body)
}
