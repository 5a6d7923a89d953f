// One-time codes for operator sign-in (RFC 6238). A code is good in its own step and the one on either side, works once, and five wrong
// ones within five minutes close the door until the oldest of them is five minutes old. The seed has 20 bytes and is sealed at rest.
//
// The core is pure: what is known of an operator + code + time -> what is known next + verdict. The shell saves with a version number, so
// that of two sign-ins with the same code at the same moment (also on two gateways) one loses.
import { randomBytes } from 'node:crypto'
import { Secret as Seed, TOTP } from 'otpauth'
import { openSecret, sealSecret, SoundboxError } from '../../protocol/index.js'
import type { TotpStore } from '../store/integration-records.js'
import type { TOTPConfig } from './config.js'

export const TOTP_SEED_BYTES = 20 // RFC 4226 section 4 R6 asks for 16 at least and recommends 20.
export const TOTP_WINDOW_STEPS = 1
export const TOTP_TRIES_MAX = 5
export const TOTP_TRIES_WINDOW_MS = 300_000
const SAVE_TURNS_MAX = 5

/** `lastStep`: the newest step whose code was accepted. `failures`: times of wrong codes within the window. */
export type TotpState = { lastStep: number | null, failures: readonly number[] }
export type TotpVerdict = { ok: true } | { ok: false, retryAfterMs: number | undefined }

/** Judges a code. Pure. A locked door does not look at the code; a used code counts as wrong. */
export function stepTotp (state: TotpState, code: string, nowMs: number, seed: Uint8Array, config: TOTPConfig): { next: TotpState, verdict: TotpVerdict } {
  const failures = state.failures.filter(at => at > nowMs - TOTP_TRIES_WINDOW_MS)
  const [oldest] = failures
  if (failures.length >= TOTP_TRIES_MAX && oldest !== undefined) {
    return { next: { ...state, failures }, verdict: { ok: false, retryAfterMs: oldest + TOTP_TRIES_WINDOW_MS - nowMs } }
  }
  const step = stepOfCode(code, nowMs, seed, config)
  if (step === undefined || (state.lastStep !== null && step <= state.lastStep)) {
    return { next: { ...state, failures: [...failures, nowMs] }, verdict: { ok: false, retryAfterMs: undefined } }
  }
  return { next: { lastStep: step, failures: [] }, verdict: { ok: true } }
}

function stepOfCode (code: string, nowMs: number, seed: Uint8Array, config: TOTPConfig): number | undefined {
  if (code.length !== config.digits || !/^\d+$/.test(code)) return undefined
  const delta = totpOf(seed, config).validate({ token: code, timestamp: nowMs, window: TOTP_WINDOW_STEPS })
  return delta === null ? undefined : Math.floor(nowMs / 1000 / config.periodS) + delta
}

/** The code of a moment: for tests and for nobody else. */
export function totpCode (seed: Uint8Array, nowMs: number, config: TOTPConfig): string {
  return totpOf(seed, config).generate({ timestamp: nowMs })
}

function totpOf (seed: Uint8Array, config: TOTPConfig, label = 'operator'): TOTP {
  if (seed.length < TOTP_SEED_BYTES) throw new SoundboxError('SECRET_UNREADABLE', `a TOTP seed has at least ${TOTP_SEED_BYTES} bytes`)
  const copy = Uint8Array.from(seed)
  return new TOTP({ issuer: config.issuer, label, algorithm: config.algorithm, digits: config.digits, period: config.periodS, secret: new Seed({ buffer: copy.buffer }) })
}

export type { TotpRow, TotpStore } from '../store/integration-records.js'
export type Totp = {
  /** A new seed and its otpauth:// link, shown once. Replaces a seed that was never confirmed. Throws ALREADY_EXISTS, STORE_FAILED. */
  enrol: (operator: string) => Promise<{ uri: string, seed: string }>
  /** Checks a code; the first right one confirms the enrolment. Throws TOTP_INVALID, RATE_LIMITED, NOT_FOUND, STORE_FAILED. */
  verify: (operator: string, code: string) => Promise<void>
  /** True when sign-in of this operator needs a code. */
  isGuarded: (operator: string) => Promise<boolean>
  remove: (operator: string) => Promise<void>
}

/** The shell. `key` seals the seeds. */
export function openTotp ({ store, key, config, nowMs }: { store: TotpStore, key: Buffer, config: TOTPConfig, nowMs: () => number }): Totp {
  return {
    async enrol (operator) {
      const known = await store.findTotp(operator)
      if (known !== undefined && known.confirmedAt !== null) throw new SoundboxError('ALREADY_EXISTS', 'this operator has an authenticator: remove it first')
      const seed = randomBytes(TOTP_SEED_BYTES)
      const row = { operator, seedSealed: sealSecret(key, ownerOf(operator), seed.toString('base64')), confirmedAt: null, lastStep: null, failures: [], version: (known?.version ?? 0) + 1 }
      if (!await store.saveTotp(row)) throw new SoundboxError('ALREADY_EXISTS', 'this operator is being enrolled elsewhere')
      const otp = totpOf(seed, config, operator)
      return { uri: otp.toString(), seed: otp.secret.base32 }
    },
    async verify (operator, code) {
      for (let turn = 1; turn <= SAVE_TURNS_MAX; turn++) {
        const row = await store.findTotp(operator)
        if (row === undefined) throw new SoundboxError('NOT_FOUND', 'this operator has no authenticator')
        const seed = Buffer.from(openSecret(key, ownerOf(operator), row.seedSealed), 'base64')
        const { next, verdict } = stepTotp(row, code, nowMs(), seed, config)
        if (!verdict.ok && verdict.retryAfterMs !== undefined) {
          throw new SoundboxError('RATE_LIMITED', `too many wrong codes: try again in ${Math.ceil(verdict.retryAfterMs / 1000)} s`)
        }
        const confirmedAt = row.confirmedAt ?? (verdict.ok ? nowMs() : null)
        if (!await store.saveTotp({ ...row, ...next, confirmedAt, version: row.version + 1 })) continue
        if (!verdict.ok) throw new SoundboxError('TOTP_INVALID', 'the code is wrong, old or used')
        return
      }
      throw new SoundboxError('TOTP_INVALID', 'the code is wrong, old or used')
    },
    isGuarded: async operator => (await store.findTotp(operator))?.confirmedAt != null,
    remove: async operator => { await store.removeTotp(operator) }
  }
}

function ownerOf (operator: string): string {
  return `totp:${operator}`
}
