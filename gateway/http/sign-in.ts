// Who is the operator over HTTP. Three things open the operator's API, each as a bearer token:
//
//   operator.token of the data directory    everything; once an authenticator is confirmed only together with its code, at POST /session
//   sbs_…  session                          everything, for SESSION_LIFE_MS, in memory: a restart signs everybody out
//   sbx_…  token with operator permissions  what its permissions name, by method and path
//
// A wrong, old or missing one looks the same from outside. Whoever may open the unix socket is asked for nothing (server.ts).
import type {} from '@fastify/swagger'
import { createHash } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type Static, Type } from 'typebox'
import { isSameSecret, makeSecret, SoundboxError } from '../../protocol/index.js'
import { bodyMayBeLeftOut } from './admin-routes.js'
import type { OperatorPermission } from '../integration/permissions.js'
import type { Tokens } from '../integration/tokens.js'
import type { Totp } from '../integration/totp.js'

export const SESSION_LIFE_MS = 8 * 3_600_000 // A working day: then the code is asked again.
export const SESSIONS_MAX = 1_000
/** The one operator of `operator.token`; people of their own get tokens. */
const OPERATOR = 'operator'

export type SignIn = {
  /** Throws UNAUTHORIZED, FORBIDDEN, RATE_LIMITED, TOTP_INVALID (right token, but a code is needed). */
  admit: (request: FastifyRequest) => void
  /** `/session`: signs in by the operator token, so it stands beside the routes that `admit` guards. */
  sessionRoutes: (app: FastifyInstance) => Promise<void>
  /** `/totp`: behind `admit`. */
  totpRoutes: (app: FastifyInstance) => Promise<void>
}
export type SignInDeps = { operatorToken: string, tokens: Pick<Tokens, 'admit'>, totp: Totp, nowMs: () => number }

const CodeBody = Type.Object({ code: Type.String({ pattern: '^\\d{6,8}$' }) }, { additionalProperties: false, examples: [{ code: '123456' }] })
const SessionBody = Type.Partial(CodeBody, { additionalProperties: false, examples: [{ code: '123456' }] })

/** Reads whether an authenticator is confirmed. Throws STORE_FAILED. */
export async function openSignIn (deps: SignInDeps): Promise<SignIn> {
  let isGuarded = await deps.totp.isGuarded(OPERATOR)
  const sessions = openSessions(deps.nowMs)
  const needOperator = (request: FastifyRequest): void => {
    if (isSameSecret(bearerOf(request), deps.operatorToken)) return
    const refused = deps.tokens.admit(request.headers.authorization, request.ip)
    throw refused.ok ? new SoundboxError('FORBIDDEN', 'a session is for the operator token') : refused.error
  }
  return {
    admit (request) {
      const given = bearerOf(request)
      if (given.startsWith('sbs_') && sessions.isLive(given)) return
      if (isSameSecret(given, deps.operatorToken)) {
        if (isGuarded) throw codeNeeded()
        return
      }
      const admission = deps.tokens.admit(request.headers.authorization, request.ip)
      if (!admission.ok) throw admission.error
      const needed = permissionOf(request.method, request.routeOptions.url ?? '')
      if (!admission.caller.permissions.has(needed)) throw new SoundboxError('FORBIDDEN', `permission ${needed} is missing`)
    },
    async sessionRoutes (app) {
      const summary = 'Sign in by operator token, and by one-time code once an authenticator is confirmed; gives a token for hours'
      const hooks = { onRequest: async (request: FastifyRequest) => { needOperator(request) }, preValidation: bodyMayBeLeftOut }
      app.post('/session', { ...hooks, schema: { tags: ['sign-in'], summary, body: SessionBody } }, async request => {
        const { code } = request.body as Static<typeof SessionBody>
        if (isGuarded && code === undefined) throw codeNeeded() // No try: a page may ask first whether a code is needed.
        if (isGuarded && code !== undefined) await deps.totp.verify(OPERATOR, code)
        return sessions.open()
      })
      app.delete('/session', { schema: { tags: ['sign-in'], summary: 'End the session whose token is sent' } }, async (request, reply) => {
        sessions.end(bearerOf(request))
        return await reply.code(204).send()
      })
    },
    async totpRoutes (app) {
      const tags = ['sign-in']
      app.get('/totp', { schema: { tags, summary: 'Does the operator token need a one-time code?' } }, async () => ({ guarded: isGuarded }))
      app.post('/totp/enrol', { schema: { tags, summary: 'A new authenticator; its link and seed are shown once, here' } }, () => deps.totp.enrol(OPERATOR))
      app.post('/totp/confirm', { schema: { tags, summary: 'The first right code: from now on sign-in needs one, and all sessions end', body: CodeBody } }, async request => {
        await deps.totp.verify(OPERATOR, (request.body as Static<typeof CodeBody>).code)
        isGuarded = true
        sessions.endAll() // They were opened without a code, perhaps by whom it is to keep out.
        return { guarded: true }
      })
      app.post('/totp/disable', { schema: { tags, summary: 'Remove the authenticator' } }, async () => {
        await deps.totp.remove(OPERATOR)
        isGuarded = false
        return { guarded: false }
      })
    }
  }
}

/** Sessions by hash: a token is never kept. The oldest gives way beyond SESSIONS_MAX. */
function openSessions (nowMs: () => number): { open: () => { token: string, expiresAt: string }, isLive: (token: string) => boolean, end: (token: string) => void, endAll: () => void } {
  const ends = new Map<string, number>()
  const hashOf = (token: string): string => createHash('sha256').update(token, 'utf8').digest('base64')
  return {
    open () {
      for (const [hash, until] of ends) if (until <= nowMs()) ends.delete(hash)
      if (ends.size >= SESSIONS_MAX) ends.delete(ends.keys().next().value ?? '')
      const token = `sbs_${makeSecret(24)}`
      const until = nowMs() + SESSION_LIFE_MS
      ends.set(hashOf(token), until)
      return { token, expiresAt: new Date(until).toISOString() }
    },
    isLive: token => nowMs() < (ends.get(hashOf(token)) ?? 0),
    end: token => { ends.delete(hashOf(token)) },
    endAll: () => { ends.clear() }
  }
}

function codeNeeded (): SoundboxError {
  return new SoundboxError('TOTP_INVALID', 'a one-time code is needed: send it to POST /api/v1/admin/session')
}

function bearerOf (request: FastifyRequest): string {
  return /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
}

/** What a token needs for a route of the operator's API; what is not listed needs the strongest. Pure. */
export function permissionOf (method: string, url: string): OperatorPermission {
  const isRead = method === 'GET' || method === 'HEAD'
  switch (/^\/api\/v1\/admin\/([a-z-]+)/.exec(url)?.[1]) {
    case 'banks': return isRead ? 'fleet_read' : 'bank_manage'
    case 'devices': case 'merchants': case 'stand-ins': return isRead ? 'fleet_read' : 'fleet_manage'
    case 'history': case 'tail': return 'history_read'
    case 'status': case 'integration': return 'metrics_read'
    case 'audit': return 'audit_read'
    default: return 'token_manage'
  }
}
