// X.509 certificates made while a test runs, by node:crypto and a few lines of DER: no key is committed and no openssl is needed.
// Certificate (RFC 5280 4.1): P-256 keys, ECDSA with SHA-256, v3 with basicConstraints and subjectAltName.
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { isIPv4 } from 'node:net'

export type Certificate = { cert: string, key: string }
export type CertificateWish = {
  commonName: string
  /** Names and addresses; none = no subjectAltName. */
  hosts?: readonly string[]
  isCa?: boolean
  fromMs?: number
  untilMs?: number
  /** Signed by this one; absent = by itself. */
  issuer?: Certificate & { commonName: string }
}

const DAY_MS = 86_400_000
const ECDSA_SHA256 = der(0x30, oid('1.2.840.10045.4.3.2'))

export function makeCertificate (wish: CertificateWish, nowMs: number): Certificate & { commonName: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const signingKey: KeyObject = wish.issuer === undefined ? privateKey : createPrivateKey(wish.issuer.key)
  const extensions = [extension('2.5.29.19', der(0x30, ...(wish.isCa === true ? [der(0x01, Buffer.of(0xff))] : [])))]
  if (wish.hosts !== undefined) {
    const names = wish.hosts.map(host => (isIPv4(host) ? der(0x87, Buffer.from(host.split('.').map(Number))) : der(0x82, Buffer.from(host, 'ascii'))))
    extensions.push(extension('2.5.29.17', der(0x30, ...names)))
  }
  const tbs = der(0x30,
    der(0xa0, der(0x02, Buffer.of(2))), der(0x02, Buffer.concat([Buffer.of(1), randomBytes(8)])), ECDSA_SHA256, nameOf(wish.issuer?.commonName ?? wish.commonName),
    der(0x30, utcTime(wish.fromMs ?? nowMs - DAY_MS), utcTime(wish.untilMs ?? nowMs + DAY_MS)), nameOf(wish.commonName),
    publicKey.export({ type: 'spki', format: 'der' }), der(0xa3, der(0x30, ...extensions)))
  const signature = sign('sha256', tbs, { key: signingKey, dsaEncoding: 'der' })
  const certificate = der(0x30, tbs, ECDSA_SHA256, der(0x03, Buffer.of(0), signature))
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? []
  return {
    commonName: wish.commonName, cert: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  }
}

function der (tag: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const length = body.length < 0x80 ? Buffer.of(body.length) : body.length < 0x100 ? Buffer.of(0x81, body.length) : Buffer.of(0x82, body.length >> 8, body.length & 0xff)
  return Buffer.concat([Buffer.of(tag), length, body])
}

function oid (dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const number of rest) {
    const groups = [number & 0x7f]
    for (let left = number >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return der(0x06, Buffer.from(bytes))
}

function nameOf (commonName: string): Buffer {
  return der(0x30, der(0x31, der(0x30, oid('2.5.4.3'), der(0x0c, Buffer.from(commonName, 'utf8')))))
}

function extension (id: string, value: Buffer): Buffer {
  return der(0x30, oid(id), der(0x04, value))
}

function utcTime (ms: number): Buffer {
  return der(0x17, Buffer.from(`${new Date(ms).toISOString().slice(2, 19).replace(/[-T:]/g, '')}Z`, 'ascii'))
}
