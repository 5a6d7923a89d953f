// How a request proves that it is ours and unchanged, and how it is hidden on its way: HMAC over a template, a detached JWS (RFC 7515
// appendix F), and a compact JWE (RFC 7516) by jose. The same HMAC, turned round, checks inbound webhooks.
//
//   hmac   header: HMAC-SHA256(key, template with {timestamp} {nonce} {method} {path} {body} filled in), hex or base64
//   jws    header: protected..signature, the payload is the raw body
//   jwe    the body itself becomes a compact JWE (content type application/jose), and so may the answer
import { createHmac, createPrivateKey, createPublicKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { CompactEncrypt, CompactSign, compactDecrypt, compactVerify } from 'jose'
import { type Secret, SoundboxError } from '../../protocol/index.js'
import type { EncryptionConfig, SigningConfig } from './config.js'

export const JWE_CHARS_MAX = 2_097_152
const JWE_CONTENT_ALGORITHM = 'A256GCM'

/** What is signed. `path` holds the query; `body` is the exact text on the wire; `timestampS` are Unix seconds. */
export type Signable = { method: string, path: string, body: string, timestampS: number, nonce: string }

/** Headers that sign a request. */
export type Signer = (signable: Signable) => Promise<Readonly<Record<string, string>>>

/** HMAC-SHA256 of a text. */
export function hmacText (key: Secret, text: string | Uint8Array, encoding: 'hex' | 'base64'): string {
  return createHmac('sha256', key.reveal()).update(text).digest(encoding)
}

/** True when `got` is the HMAC of exactly these bytes under one of the keys. Two keys are live while one is being replaced. */
export function isHmacOf (keys: readonly Secret[], bytes: Uint8Array, got: string, encoding: 'hex' | 'base64'): boolean {
  const shape = encoding === 'hex' ? /^[0-9a-f]{64}$/i : /^[A-Za-z0-9+/]{43}=$/
  const gotBytes = Buffer.from(shape.test(got) ? got : '', encoding)
  let found = false
  for (const key of keys) {
    const want = createHmac('sha256', key.reveal()).update(bytes).digest()
    if (gotBytes.length === want.length && timingSafeEqual(gotBytes, want)) found = true
  }
  return found
}

/** The signer of these settings. Reads the key at once. Throws PROVIDER_CONFIG for a key that does not fit. */
export function openSigner (config: SigningConfig): Signer {
  if (config.kind === 'hmac') {
    return async signable => {
      const { timestampS, ...texts } = signable
      const parts: Readonly<Record<string, string>> = { ...texts, timestamp: String(timestampS) }
      const text = config.template.replace(/\{(timestamp|nonce|method|path|body)\}/g, (_, name: string) => parts[name] ?? '')
      return {
        [config.timestampHeader]: String(timestampS), [config.header]: hmacText(config.key, text, config.encoding),
        ...(config.keyId === undefined ? {} : { 'x-key-id': config.keyId }), ...(config.template.includes('{nonce}') ? { 'x-nonce': signable.nonce } : {})
      }
    }
  }
  const key = keyFrom(() => createPrivateKey(config.key.reveal()), 'SIGN_KEY')
  const header = { alg: config.algorithm, ...(config.keyId === undefined ? {} : { kid: config.keyId }) }
  return async signable => {
    const jws = await new CompactSign(Buffer.from(signable.body, 'utf8')).setProtectedHeader({ ...header, iat: signable.timestampS }).sign(key)
    const [head = '', , signature = ''] = jws.split('.')
    return { [config.header]: `${head}..${signature}` }
  }
}

/** True when a detached JWS signs exactly this body with this key and one of these algorithms. */
export async function isDetachedJwsOf (publicKeyPem: string, algorithms: readonly string[], body: Uint8Array, detached: string): Promise<boolean> {
  const [head = '', middle, signature = ''] = detached.split('.')
  if (middle !== '') return false
  try {
    await compactVerify(`${head}.${Buffer.from(body).toString('base64url')}.${signature}`, createPublicKey(publicKeyPem), { algorithms: [...algorithms] })
    return true
  } catch {
    return false
  }
}

/** Encrypts requests and decrypts answers. `opens`: there is a key for answers, so a plain one is not accepted. */
export type Sealer = { opens: boolean, seal: (body: string) => Promise<string>, open: (jwe: string) => Promise<string> }

/** The sealer of these settings. Throws PROVIDER_CONFIG for a key that does not fit; `open` throws PROVIDER_RESPONSE_INVALID, always the same text. */
export function openSealer (config: EncryptionConfig): Sealer {
  const encryptKey = keyFrom(() => createPublicKey(config.encryptKey), 'ENCRYPT_KEY')
  const decryptKey = config.decryptKey === undefined ? undefined : keyFrom(() => createPrivateKey(config.decryptKey?.reveal() ?? ''), 'DECRYPT_KEY')
  const header = { alg: config.algorithm, enc: JWE_CONTENT_ALGORITHM, ...(config.keyId === undefined ? {} : { kid: config.keyId }) }
  return {
    opens: decryptKey !== undefined,
    seal: async body => await new CompactEncrypt(Buffer.from(body, 'utf8')).setProtectedHeader(header).encrypt(encryptKey),
    async open (jwe) {
      try {
        if (decryptKey === undefined || jwe.length > JWE_CHARS_MAX) throw new Error('no key or too long')
        const { plaintext } = await compactDecrypt(jwe.trim(), decryptKey, {
          keyManagementAlgorithms: [config.algorithm], contentEncryptionAlgorithms: [JWE_CONTENT_ALGORITHM]
        })
        return Buffer.from(plaintext).toString('utf8')
      } catch (cause) {
        throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'the encrypted answer does not open with DECRYPT_KEY', { cause })
      }
    }
  }
}

function keyFrom (read: () => KeyObject, name: string): KeyObject {
  try {
    return read()
  } catch (cause) {
    throw new SoundboxError('PROVIDER_CONFIG', `${name} is not a usable PEM key`, { cause })
  }
}
