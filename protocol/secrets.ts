// Keys and secrets: how they are made, compared, hashed and sealed at rest.
//
// sealed  = version 0x01 || nonce[12] || AES-256-GCM ciphertext || tag[16], base64; AAD = what the secret belongs to, so that a row's
//           secret cannot be moved to another row.
// derived = HKDF-SHA256(master, salt = "soundbox", info = purpose) (RFC 5869 2.2-2.3): one master key, one key a purpose.
// Device and client secrets are random 128 bits and more, so a keyed hash is enough; a slow hash would take minutes of CPU when
// 10,000 boxes reconnect.
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { SoundboxError } from './errors.js'

export const MASTER_KEY_BYTES = 32
const SEAL_VERSION = 1
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** A random secret of `bytes` bytes (16 or more), base64url: safe in URLs, MQTT passwords and shells. */
export function makeSecret (bytes = 24): string {
  return randomBytes(bytes).toString('base64url')
}

/** The 32-byte key for one purpose, from the master key. */
export function deriveKey (master: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', master, 'soundbox', purpose, 32))
}

/** Keyed hash of a secret for storage: HMAC-SHA256, hex. */
export function keyedHash (key: Buffer, secret: string): string {
  return createHmac('sha256', key).update(secret, 'utf8').digest('hex')
}

/** The one comparison of secrets: constant time for texts of equal length, and no early way out by length of the content. */
export function isSameSecret (left: string, right: string): boolean {
  const a = Buffer.from(left, 'utf8')
  const b = Buffer.from(right, 'utf8')
  const same = timingSafeEqual(a.length === b.length ? a : Buffer.alloc(b.length), b)
  return same && a.length === b.length
}

/** Encrypts a secret for the database. `owner` names the row it belongs to. */
export function sealSecret (key: Buffer, owner: string, secret: string): string {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(Buffer.from(owner, 'utf8'))
  const body = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()])
  return Buffer.concat([Buffer.of(SEAL_VERSION), nonce, body, cipher.getAuthTag()]).toString('base64')
}

/** The secret that `sealSecret` took. Throws SECRET_UNREADABLE for another key, another owner or damaged text. */
export function openSecret (key: Buffer, owner: string, sealed: string): string {
  const bytes = Buffer.from(sealed, 'base64')
  try {
    if (bytes.length < 1 + NONCE_BYTES + TAG_BYTES || bytes[0] !== SEAL_VERSION) throw new Error('not a sealed secret')
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(1, 1 + NONCE_BYTES), { authTagLength: TAG_BYTES })
    decipher.setAAD(Buffer.from(owner, 'utf8'))
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES))
    const body = bytes.subarray(1 + NONCE_BYTES, bytes.length - TAG_BYTES)
    return Buffer.concat([decipher.update(body), decipher.final()]).toString('utf8')
  } catch (cause) {
    throw new SoundboxError('SECRET_UNREADABLE', `a stored secret of ${owner} does not open with this master key`, { cause })
  }
}

/** Holds a secret so that logs, JSON and inspection print `[secret]`; `reveal` is the one way to it. */
export class Secret {
  readonly #value: string

  constructor (value: string) { this.#value = value }
  reveal (): string { return this.#value }
  toString (): string { return '[secret]' }
  toJSON (): string { return '[secret]' }
  [Symbol.for('nodejs.util.inspect.custom')] (): string { return '[secret]' }
}
