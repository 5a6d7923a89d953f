// Bearer tokens of operators and partners: `sbx_<id>_<secret>`. The secret has 192 random bits and is kept as a keyed hash; the id finds the
// row, so a check costs one HMAC whether the token is right, wrong, expired or unknown, and all four look the same from outside.
// Rows live in memory, loaded once; every change is written through before it counts. Times of last use are written in groups.
import { randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { isSameSecret, keyedHash, makeSecret, SoundboxError } from '../../protocol/index.js'
import type { TokenRow, TokenStore } from '../store/integration-records.js'
import { PERMISSIONS, ROLES } from './permissions.js'
import { type Rate, stepRate } from './rate.js'
import type { Caller } from './services.js'

export const TOKENS_MAX = 5_000
export const TOKEN_NAME_CHARS_MAX = 64
export const TOKEN_LIFE_DAYS_MAX = 730
export const TOKEN_RATE_PER_MINUTE = 600
export const TOKEN_RATE_PER_MINUTE_MAX = 60_000
export const FAILURES_PER_MINUTE = 30 // Of one address; a right token is let through all the same.
const ADDRESSES_MAX = 10_000
const DAY_MS = 86_400_000
const TOKEN_SHAPE = /^Bearer sbx_([0-9a-f]{12})_([A-Za-z0-9_-]{32})$/
const NO_HASH = '0'.repeat(64)

export type { TokenRow, TokenStore } from '../store/integration-records.js'
/** Exactly one of `role` and `permissions`. */
export type NewToken = { kind: 'operator' | 'partner', name: string, lifeDays: number, role?: string, permissions?: readonly string[], ratePerMinute?: number }
export type Admission = { ok: true, caller: Caller } | { ok: false, error: SoundboxError, retryAfterS: number | undefined }
export type Tokens = {
  /** The only time that the token itself is seen. Throws INPUT_INVALID, STORE_FAILED. */
  issue: (token: NewToken) => Promise<{ token: string, row: Omit<TokenRow, 'hash'> }>
  /** Judges an Authorization header. `address` is the caller's, for counting failures. */
  admit: (authorization: string | undefined, address: string) => Admission
  list: () => readonly Omit<TokenRow, 'hash'>[]
  /** Ends a token for good; a second time changes nothing. Throws NOT_FOUND. */
  revoke: (id: string) => Promise<void>
  /** Writes times of last use; a job runs it. */
  flushUses: () => Promise<void>
}

/** Loads the tokens. `key` is the derived key of token hashes. */
export async function openTokens ({ store, key, nowMs }: { store: TokenStore, key: Buffer, nowMs: () => number }): Promise<Tokens> {
  const rows = new Map((await store.loadTokens()).map(row => [row.id, row]))
  const uses = new Map<string, number>()
  const rates = new Map<string, Rate>()
  const failures = new LRUCache<string, Rate>({ max: ADDRESSES_MAX })

  const refuse = (address: string): Admission => {
    const { next, waitS } = stepRate(failures.get(address), nowMs(), { perMinute: FAILURES_PER_MINUTE, burst: FAILURES_PER_MINUTE })
    failures.set(address, next)
    return waitS === 0
      ? { ok: false, error: new SoundboxError('UNAUTHORIZED', 'no live token was sent'), retryAfterS: undefined }
      : { ok: false, error: new SoundboxError('RATE_LIMITED', 'too many calls without a live token'), retryAfterS: waitS }
  }
  return {
    async issue (token) {
      if (rows.size >= TOKENS_MAX) throw new SoundboxError('INPUT_INVALID', `there are ${TOKENS_MAX} tokens already`)
      const secret = makeSecret(24)
      const row = { ...rowFrom(token, nowMs()), hash: keyedHash(key, secret) }
      await store.saveToken(row)
      rows.set(row.id, row)
      return { token: `sbx_${row.id}_${secret}`, row: shown(row) }
    },
    admit (authorization, address) {
      const [, id = '', secret = ''] = TOKEN_SHAPE.exec(authorization ?? '') ?? []
      const row = rows.get(id)
      const now = nowMs()
      const isRight = isSameSecret(keyedHash(key, secret), row?.hash ?? NO_HASH)
      if (row === undefined || !isRight || row.revokedAt !== null || now >= row.expiresAt) return refuse(address)
      const { next, waitS } = stepRate(rates.get(id), now, { perMinute: row.ratePerMinute, burst: row.ratePerMinute })
      rates.set(id, next)
      if (waitS > 0) return { ok: false, error: new SoundboxError('RATE_LIMITED', `this token may call ${row.ratePerMinute} times a minute`), retryAfterS: waitS }
      uses.set(id, now)
      return { ok: true, caller: { id: row.id, permissions: new Set(row.permissions) } }
    },
    list: () => [...rows.values()].map(row => shown({ ...row, lastUsedAt: uses.get(row.id) ?? row.lastUsedAt })),
    async revoke (id) {
      const row = rows.get(id)
      if (row === undefined) throw new SoundboxError('NOT_FOUND', 'there is no token of this id')
      if (row.revokedAt !== null) return
      const revoked = { ...row, revokedAt: nowMs() }
      rows.set(id, revoked) // At once: a store that refuses must not keep a stolen token alive.
      await store.saveToken(revoked)
    },
    async flushUses () {
      const batch = [...uses].map(([id, at]) => ({ id, at }))
      if (batch.length === 0) return
      await store.touchTokens(batch)
      for (const { id, at } of batch) {
        const row = rows.get(id)
        if (row !== undefined) rows.set(id, { ...row, lastUsedAt: at })
        if (uses.get(id) === at) uses.delete(id)
      }
    }
  }
}

function rowFrom (token: NewToken, now: number): Omit<TokenRow, 'hash'> {
  const { kind, name, lifeDays, role, ratePerMinute = TOKEN_RATE_PER_MINUTE } = token
  if (name.trim() === '' || name.length > TOKEN_NAME_CHARS_MAX) throw new SoundboxError('INPUT_INVALID', `a token needs a name of 1 to ${TOKEN_NAME_CHARS_MAX} characters`)
  if (!Number.isInteger(lifeDays) || lifeDays < 1 || lifeDays > TOKEN_LIFE_DAYS_MAX) throw new SoundboxError('INPUT_INVALID', `a token lives 1 to ${TOKEN_LIFE_DAYS_MAX} days`)
  if (!Number.isInteger(ratePerMinute) || ratePerMinute < 1 || ratePerMinute > TOKEN_RATE_PER_MINUTE_MAX) {
    throw new SoundboxError('INPUT_INVALID', `a token may call 1 to ${TOKEN_RATE_PER_MINUTE_MAX} times a minute`)
  }
  if ((role === undefined) === (token.permissions === undefined)) throw new SoundboxError('INPUT_INVALID', 'name a role or permissions, not both')
  const permissions = role === undefined ? token.permissions ?? [] : Object.hasOwn(ROLES, role) ? ROLES[role] ?? [] : undefined
  if (permissions === undefined) throw new SoundboxError('INPUT_INVALID', `role must be one of ${Object.keys(ROLES).join(', ')}`)
  const unknown = permissions.find(permission => !PERMISSIONS.includes(permission))
  if (unknown !== undefined) throw new SoundboxError('INPUT_INVALID', `permissions are ${PERMISSIONS.join(', ')}`)
  return { id: randomBytes(6).toString('hex'), kind, name, permissions: [...new Set(permissions)], ratePerMinute, createdAt: now, expiresAt: now + lifeDays * DAY_MS, revokedAt: null,
    lastUsedAt: null }
}

function shown ({ hash: _hash, ...row }: TokenRow): Omit<TokenRow, 'hash'> {
  return row
}
