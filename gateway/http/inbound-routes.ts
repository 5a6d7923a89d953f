// POST /api/v1/integration/inbound/{source}: where providers send decisions and delivery reports. The body stays raw bytes, because the
// signature covers exactly those; the answer goes out as soon as the events are kept. Whoever logs URLs must leave the query out: an SMS
// gateway that cannot sign proves itself with `?token=`.
import type {} from '@fastify/swagger'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { BASE_PATH } from '../integration/contract.js'
import { INBOUND_BODY_BYTES_MAX, type Inbound, type InboundRequest } from '../integration/inbound.js'

export const INBOUND_PATH = `${BASE_PATH}/inbound/:source`

const SCHEMA = {
  tags: ['integration'],
  summary: 'A provider reports: identity decision or SMS delivery',
  description: 'Signed with X-Signature (hex HMAC-SHA256 of the raw body) and X-Timestamp (seconds, within 300), or proven by the token of the address. The same event twice is kept once.',
  params: Type.Object({ source: Type.String({ maxLength: 40 }) }),
  querystring: Type.Object({ token: Type.Optional(Type.String({ maxLength: 200 })) }),
  headers: Type.Object({ 'x-signature': Type.Optional(Type.String({ maxLength: 200 })), 'x-timestamp': Type.Optional(Type.String({ maxLength: 20 })) }),
  response: { 200: Type.Object({ received: Type.Integer({ examples: [1] }), known: Type.Integer({ description: 'of these, seen before', examples: [0] }) }) }
}

/** Registers the route; encapsulated, so that its body parser is nobody else's. Errors are left to the server: 401, 400, 413, 400 STORE_FAILED. */
export async function inboundRoutes (app: FastifyInstance, deps: { inbound: Pick<Inbound, 'accept'> }): Promise<void> {
  await app.register(async scope => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: INBOUND_BODY_BYTES_MAX }, (_request, body, done) => { done(null, body) })
    scope.post(INBOUND_PATH, { schema: SCHEMA, bodyLimit: INBOUND_BODY_BYTES_MAX }, async request => {
      const { source } = request.params as { source: string }
      return await deps.inbound.accept(source, inboundRequest(request))
    })
  })
}

function inboundRequest (request: FastifyRequest): InboundRequest {
  const header = (name: string): string | undefined => {
    const value = request.headers[name]
    return typeof value === 'string' ? value : undefined
  }
  return {
    rawBody: Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0), contentType: header('content-type')?.toLowerCase() ?? '',
    signature: header('x-signature'), timestamp: header('x-timestamp'), token: (request.query as { token?: string }).token
  }
}
