// The operator's side of the integration services, below /api/v1/admin: tokens (issue, list, revoke), the audit trail (read, verify), how
// the issuers stand. Who may call is judged by the scope that these are registered in.
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { SoundboxError } from '../../protocol/index.js'
import { type AuditStore, verifyAudit } from '../integration/audit.js'
import type { Integration } from '../integration/integration.js'
import { PERMISSIONS, ROLES } from '../integration/permissions.js'
import { type NewToken, TOKEN_LIFE_DAYS_MAX, TOKEN_RATE_PER_MINUTE, TOKEN_RATE_PER_MINUTE_MAX, type Tokens } from '../integration/tokens.js'

export const AUDIT_READ_ROWS_MAX = 500

export type IntegrationAdminDeps = { tokens: Pick<Tokens, 'issue' | 'list' | 'revoke'>, audit: AuditStore, auditKey: Buffer, integration: Pick<Integration, 'health' | 'transports'> }

const TokenBody = Type.Object({
  kind: Type.Enum(['operator', 'partner'], { description: 'whose token it is' }),
  name: Type.String({ minLength: 1, maxLength: 64, description: 'for people' }),
  lifeDays: Type.Integer({ minimum: 1, maximum: TOKEN_LIFE_DAYS_MAX }),
  role: Type.Optional(Type.Enum(Object.keys(ROLES), { description: 'a usual set of permissions; or name them' })),
  permissions: Type.Optional(Type.Array(Type.Enum([...PERMISSIONS]), { minItems: 1, uniqueItems: true })),
  ratePerMinute: Type.Optional(Type.Integer({ minimum: 1, maximum: TOKEN_RATE_PER_MINUTE_MAX, description: `calls a minute; default ${TOKEN_RATE_PER_MINUTE}` }))
}, { additionalProperties: false, examples: [{ kind: 'partner', name: 'shop app', lifeDays: 365, permissions: ['interbank_account_name', 'mno_validate'] }] })
const AuditQuery = Type.Object({
  after: Type.Optional(Type.String({ pattern: '^\\d{1,15}$', description: 'rows after this sequence number' })),
  limit: Type.Optional(Type.String({ pattern: '^[1-9]\\d{0,2}$', description: `1 to ${AUDIT_READ_ROWS_MAX}; default 100` }))
}, { additionalProperties: false })
const VerifyBody = Type.Object({
  anchor: Type.Optional(Type.Object({ seq: Type.Integer({ minimum: 1 }), hash: Type.String({ pattern: '^[0-9a-f]{64}$' }) },
    { additionalProperties: false, description: 'a head noted earlier: finds rows that were cut off' }))
}, { additionalProperties: false, examples: [{}] })

/** Registers the routes in a scope that only operators reach. */
export async function integrationAdminRoutes (app: FastifyInstance, deps: IntegrationAdminDeps): Promise<void> {
  const tags = ['integration admin']
  app.post('/tokens', { schema: { tags, summary: 'Issue a token; it is shown this once', body: TokenBody } }, async (request, reply) => {
    const { token, row } = await deps.tokens.issue(request.body as NewToken)
    return await reply.code(201).send({ token, ...row })
  })
  app.get('/tokens', { schema: { tags, summary: 'Tokens, without their secrets' } }, async () => ({ tokens: deps.tokens.list() }))
  app.delete('/tokens/:id', { schema: { tags, summary: 'End a token for good' } }, async (request, reply) => {
    await deps.tokens.revoke((request.params as { id: string }).id)
    return await reply.code(204).send()
  })
  app.get('/audit', { schema: { tags, summary: 'Audit rows of provider calls, oldest first', querystring: AuditQuery } }, async request => {
    const { after = '0', limit: limitText = '100' } = request.query as { after?: string, limit?: string }
    const limit = Math.min(AUDIT_READ_ROWS_MAX, Number(limitText))
    const rows = await deps.audit.page(Number(after), limit)
    return { rows, next: rows.length === limit ? rows.at(-1)?.seq ?? null : null }
  })
  app.post('/audit/verify', { schema: { tags, summary: 'Walk the chain of the audit trail', body: VerifyBody } }, async request => {
    const { anchor } = (request.body ?? {}) as { anchor?: { seq: number, hash: string } }
    const verdict = await verifyAudit(deps.audit, deps.auditKey, anchor === undefined ? {} : { anchor })
    if (!verdict.ok) throw new SoundboxError('AUDIT_TAMPERED', `the audit trail is broken at row ${verdict.seq}: ${verdict.problem}`)
    return { rows: verdict.rows, head: verdict.head ?? null }
  })
  app.get('/integration', { schema: { tags, summary: 'How the issuers stand: transport, circuit breakers, queues' } }, async () => ({
    issuers: deps.integration.health(), configured: deps.integration.transports()
  }))
}
