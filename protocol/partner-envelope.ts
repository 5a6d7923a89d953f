// The envelope of the bank trigger API: header_secrets, RequestData and ResponseData share one layout per cipher profile.
//
//   aes-256-cbc   base64( IV[16] || AES-256-CBC-PKCS7( utf8 JSON ) )                  the vendor's: no MAC, no KDF
//   aes-256-gcm   base64( nonce[12] || ciphertext || tag[16] ), AAD = pass_key        ours
//   none          plain JSON; credentials stand in headers of their own
//
// CBC without a MAC is malleable, so nothing here tells two faults apart: every decrypt, padding, base64 and JSON fault is the one
// `undefined` of openEnvelope, and the caller answers with one constant text after the same work.
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

export type CipherProfile = 'aes-256-cbc' | 'aes-256-gcm' | 'none'
export const KEY_BYTES = 32
const IV_BYTES = 16
const NONCE_BYTES = 12
const TAG_BYTES = 16
const BLOCK_BYTES = 16
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/
const WHITE_SPACE = /[\t\n\r ]/
const ALL_WHITE_SPACE = /[\t\n\r ]+/g
const EPOCH_SECONDS = /^\d{10}$/
const EPOCH_MILLISECONDS = /^\d{13}$/
const MARK_HEX_DIGITS = 32
/** Random bytes are asked of the system in blocks: one call for many messages. */
const RANDOM_BLOCK_BYTES = 4096

export type EnvelopeKey = { profile: Exclude<CipherProfile, 'none'>, key: Buffer, passKey: string }
/** `mark`: 32 hex digits that name these encrypted bytes whatever their base64 spelling, IV or tail; see `markOf`. */
export type Opened = { value: Record<string, unknown>, mark: string }

const freshBytes = makeRandomSource()

/** Bytes of a block are given out once. */
function makeRandomSource (): (count: number) => Buffer {
  let block = Buffer.alloc(0)
  let used = 0
  return count => {
    if (used + count > block.length) {
      block = randomBytes(RANDOM_BLOCK_BYTES)
      used = 0
    }
    used += count
    return block.subarray(used - count, used)
  }
}

/** The bytes of a base64 text; white space inside is allowed, any other foreign character or wrong padding gives undefined. */
export function decodeBase64 (text: string): Buffer | undefined {
  const plain = WHITE_SPACE.test(text) ? text.replace(ALL_WHITE_SPACE, '') : text
  return BASE64.test(plain) ? Buffer.from(plain, 'base64') : undefined
}

/** The 32-byte AES key of its base64 form, or undefined. */
export function parseKey (text: string): Buffer | undefined {
  const key = decodeBase64(text)
  return key?.length === KEY_BYTES ? key : undefined
}

/** Encrypts UTF-8 text. `iv` is for vectors only: leave it out, and fresh random bytes are used. */
export function sealEnvelope (how: EnvelopeKey, text: string, iv?: Buffer): string {
  if (how.profile === 'aes-256-cbc') {
    const start = iv ?? freshBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-cbc', how.key, start)
    return Buffer.concat([start, cipher.update(text, 'utf8'), cipher.final()]).toString('base64')
  }
  const nonce = iv ?? freshBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', how.key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(Buffer.from(how.passKey, 'utf8'))
  return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64')
}

/** The JSON object inside, or undefined for every fault alike. */
export function openEnvelope (how: EnvelopeKey, text: string): Opened | undefined {
  const bytes = decodeBase64(text)
  const plain = bytes === undefined ? undefined : openBytes(how, bytes)
  const value = plain === undefined ? undefined : parseObject(plain.toString('utf8'))
  return bytes === undefined || plain === undefined || value === undefined ? undefined : { value, mark: markOf(how.profile, bytes, plain.length) }
}

/** The text inside, trimmed after its last brace as the vendor does, or undefined. */
export function openEnvelopeText (how: EnvelopeKey, text: string): string | undefined {
  const bytes = decodeBase64(text)
  return bytes === undefined ? undefined : openBytes(how, bytes)?.toString('utf8')
}

/** A JSON object of a text that may carry rubbish after its last `}` or `]`, or undefined. */
export function parseObject (text: string): Record<string, unknown> | undefined {
  const end = Math.max(text.lastIndexOf('}'), text.lastIndexOf(']'))
  try {
    const value: unknown = JSON.parse(end === text.length - 1 ? text : text.slice(0, end + 1))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : undefined
  } catch {
    return undefined
  }
}

/** Milliseconds of an epoch text: exactly 10 digits are seconds, exactly 13 are milliseconds, anything else is undefined. */
export function parseEpoch (text: unknown): number | undefined {
  if (typeof text !== 'string') return undefined
  if (EPOCH_SECONDS.test(text)) return Number(text) * 1000
  return EPOCH_MILLISECONDS.test(text) ? Number(text) : undefined
}

/** The replay mark of a plain text: first 16 bytes, hex, of its SHA-256. */
export function markOfText (text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex').slice(0, MARK_HEX_DIGITS)
}

/**
 * What names an encrypted text for replay checks. For CBC it is the one block that holds the last brace. Its bytes depend on all before
 * it and on the IV, so no two requests share it; and whoever wants to keep the end of a message must keep this block, while bits of the
 * IV may be flipped, blocks hung on behind (the text is trimmed) or cut off in front without anybody noticing. None of that may give a
 * fresh mark.
 */
function markOf (profile: EnvelopeKey['profile'], bytes: Buffer, plainBytes: number): string {
  const last = IV_BYTES + Math.floor((plainBytes - 1) / BLOCK_BYTES) * BLOCK_BYTES
  const named = profile === 'aes-256-cbc' ? bytes.subarray(last, last + BLOCK_BYTES) : bytes
  return createHash('sha256').update(named).digest('hex').slice(0, MARK_HEX_DIGITS)
}

/** The plain bytes up to their last brace (no byte of a longer UTF-8 character looks like one), or undefined. */
function openBytes (how: EnvelopeKey, bytes: Buffer): Buffer | undefined {
  const plain = how.profile === 'aes-256-cbc' ? openCbc(how.key, bytes) : openGcm(how, bytes)
  return plain?.subarray(0, Math.max(plain.lastIndexOf('}'), plain.lastIndexOf(']')) + 1)
}

function openCbc (key: Buffer, bytes: Buffer): Buffer | undefined {
  if (bytes.length < IV_BYTES + BLOCK_BYTES || bytes.length % BLOCK_BYTES !== 0) return undefined
  try {
    const decipher = createDecipheriv('aes-256-cbc', key, bytes.subarray(0, IV_BYTES))
    return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES)), decipher.final()])
  } catch {
    return undefined
  }
}

function openGcm (how: EnvelopeKey, bytes: Buffer): Buffer | undefined {
  if (bytes.length < NONCE_BYTES + TAG_BYTES) return undefined
  try {
    const decipher = createDecipheriv('aes-256-gcm', how.key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
    decipher.setAAD(Buffer.from(how.passKey, 'utf8'))
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES))
    return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, bytes.length - TAG_BYTES)), decipher.final()])
  } catch {
    return undefined
  }
}
