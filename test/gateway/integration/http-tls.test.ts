import { generateKeyPairSync } from 'node:crypto'
import { CompactEncrypt, compactDecrypt } from 'jose'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import t from 'tap'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { isDetachedJwsOf, isHmacOf } from '../../../gateway/integration/signing.js'
import { Secret } from '../../../protocol/index.js'
import { makeCertificate } from '../../support/test-certificates.js'
import { openWorld, type World } from '../../support/integration-world.js'
import { openProviderDouble, type ProviderDouble, type Step } from '../../support/provider-double.js'
import { until } from '../../support/manual-clock.js'

const OK: Step = { do: 'answer', json: { code: 600, balance: '19.00' } }
const NOW = Date.now()
const DAY = 86_400_000
const authority = makeCertificate({ commonName: 'test authority', isCa: true }, NOW)
const server = makeCertificate({ commonName: 'server', hosts: ['localhost', '127.0.0.1'], issuer: authority }, NOW)

type Teardown = { teardown: (close: () => Promise<void>) => void }
async function over (t: Teardown, tls: NonNullable<Parameters<typeof openProviderDouble>[1]>['tls'], env: Record<string, string>, steps: readonly Step[] = [OK]): Promise<{ world: World, double: ProviderDouble }> {
  const double = await openProviderDouble({ '/balance': steps, '/statement': steps }, { host: 'localhost', ...(tls === undefined ? {} : { tls }) })
  const world = await openWorld({ URL: double.url, ...env })
  t.teardown(async () => {
    await world.close()
    await double.close()
  })
  return { world, double }
}

t.test('a certificate of the configured authority is trusted', async t => {
  const { world } = await over(t, server, { TLS_CA: authority.cert })
  t.match(await world.balance(), { ledger: '19.00' })
})

t.test('a certificate that is self-signed, expired, not yet valid, of another host or of another authority is refused, once and for good', async t => {
  const cases: [string, ReturnType<typeof makeCertificate>, string, RegExp][] = [
    ['self-signed', makeCertificate({ commonName: 'self', hosts: ['localhost'] }, NOW), '', /DEPTH_ZERO_SELF_SIGNED_CERT/],
    ['unknown authority', server, '', /UNABLE_TO_/],
    ['expired', makeCertificate({ commonName: 'old', hosts: ['localhost'], issuer: authority, fromMs: NOW - 3 * DAY, untilMs: NOW - DAY }, NOW), authority.cert, /CERT_HAS_EXPIRED/],
    ['not yet valid', makeCertificate({ commonName: 'new', hosts: ['localhost'], issuer: authority, fromMs: NOW + DAY, untilMs: NOW + 2 * DAY }, NOW), authority.cert, /CERT_NOT_YET_VALID/],
    ['wrong host', makeCertificate({ commonName: 'localhost', hosts: ['bank.example'], issuer: authority }, NOW), authority.cert, /ERR_TLS_CERT_ALTNAME_INVALID/]
  ]
  for (const [why, certificate, ca, code] of cases) {
    const { world, double } = await over(t, certificate, ca === '' ? {} : { TLS_CA: ca })
    await t.rejects(world.balance(), { code: 'PROVIDER_UNAVAILABLE', message: code }, why)
    t.equal(double.connections(), 1, `${why}: one attempt`)
    t.equal(double.seen.length, 0, `${why}: no request`)
    t.match(await world.rows(), [{ outcome: 'tls', attempt: 1 }], `${why}: row`)
    const relaxed = await over(t, certificate, { TLS: 'relaxed' })
    t.match(await relaxed.world.balance(), { ledger: '19.00' }, `${why}: relaxed by its switch`)
  }
  t.throws(() => parseIntegrationConfig({ CBS_API_TLS: 'relaxed' }, () => ''), { code: 'CONFIG_INVALID' }, 'in production there is no such switch')
})

t.test('a server that speaks no TLS, and a plain call to a TLS server', async t => {
  const plain = await openProviderDouble({ '/balance': [OK] })
  t.teardown(plain.close)
  const world = await openWorld({ URL: plain.url.replace('http:', 'https:') })
  t.teardown(world.close)
  await t.rejects(world.balance(), { code: 'PROVIDER_UNAVAILABLE' })
  t.match(await world.rows(), [{ outcome: 'tls' }])
  const { double } = await over(t, server, {})
  const other = await openWorld({ URL: double.url.replace('https:', 'http:'), ATTEMPTS_MAX: '1' })
  t.teardown(other.close)
  await t.rejects(other.change(), { code: 'PROVIDER_STATE_UNKNOWN' })
})

t.test('a client certificate is shown when it is configured', async t => {
  const client = makeCertificate({ commonName: 'gateway', issuer: authority }, NOW)
  const tls = { ...server, ca: authority.cert, requestCert: true }
  const { world } = await over(t, tls, { TLS_CA: authority.cert, TLS_CERT: client.cert, TLS_KEY: client.key })
  t.match(await world.balance(), { ledger: '19.00' })
  const without = await over(t, tls, { TLS_CA: authority.cert, ATTEMPTS_MAX: '1' })
  await t.rejects(without.world.balance(), { code: 'PROVIDER_UNAVAILABLE' })
  t.equal(without.double.seen.length, 0)
  t.throws(() => parseIntegrationConfig({ CBS_API_TLS_CERT: client.cert }, () => ''), { code: 'CONFIG_INVALID' })
  await t.rejects(openWorld({ URL: 'https://localhost:1', TLS_CERT: 'no pem', TLS_KEY: 'no pem', ATTEMPTS_MAX: '1' }).then(async broken => await broken.balance().finally(broken.close)), { code: /PROVIDER_(?:CONFIG|UNAVAILABLE)/ })
})

t.test('requests are signed by HMAC over what is on the wire, anew on every attempt', async t => {
  const { world, double } = await over(t, undefined, { SIGN: 'hmac', SIGN_KEY: 'signing-secret', SIGN_TEMPLATE: '{timestamp}\\n{nonce}\\n{method}\\n{path}\\n{body}' }, [{ do: 'answer', status: 500 }, OK])
  const call = world.balance()
  await until(() => world.attempts() === 1, 'the first attempt')
  world.clock.advance(2000)
  await call
  const nonces = double.seen.map(({ headers, body }) => {
    const [timestamp, nonce, signature] = [String(headers['x-timestamp']), String(headers['x-nonce']), String(headers['x-signature'])]
    t.ok(isHmacOf([new Secret('signing-secret')], Buffer.from(`${timestamp}\n${nonce}\nPOST\n/balance\n${body}`), signature, 'hex'))
    return `${timestamp} ${nonce}`
  })
  t.equal(new Set(nonces).size, 2)
  t.notMatch(JSON.stringify([world.store.rows, world.log.lines]), /signing-secret/)
})

t.test('requests are encrypted as JWE and signed as JWS, and then only an encrypted answer counts', async t => {
  const pair = (): { open: string, secret: string } => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    return { open: publicKey.export({ type: 'spki', format: 'pem' }).toString(), secret: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
  }
  const [bank, ours, signing] = [pair(), pair(), pair()]
  const sealed = await new CompactEncrypt(Buffer.from('{"code":600,"balance":"7.50"}')).setProtectedHeader({ alg: 'ECDH-ES+A256KW', enc: 'A256GCM' }).encrypt(createPublicKey(ours.open))
  const env = {
    ENCRYPT: 'jwe', ENCRYPT_ALGORITHM: 'ECDH-ES+A256KW', ENCRYPT_KEY: bank.open, DECRYPT_KEY: ours.secret, SIGN: 'jws', SIGN_ALGORITHM: 'ES256', SIGN_KEY: signing.secret, SIGN_KEY_ID: 'k1'
  }
  const { world, double } = await over(t, undefined, env, [{ do: 'answer', type: 'application/jose', text: sealed }, OK])
  t.match(await world.balance(), { ledger: '7.50' })
  const [request] = double.seen
  t.equal(request?.headers['content-type'], 'application/jose')
  t.notMatch(request?.body, /0150245000100/)
  t.match(JSON.parse(Buffer.from((await compactDecrypt(request?.body ?? '', createPrivateKey(bank.secret))).plaintext).toString()), { account: '0150245000100' })
  t.ok(await isDetachedJwsOf(signing.open, ['ES256'], Buffer.from(request?.body ?? ''), String(request?.headers['x-jws-signature'])))
  await t.rejects(world.balance(), { code: 'PROVIDER_RESPONSE_INVALID', message: /not encrypted/ }, 'a plain answer')
  t.match(await world.rows(), [{ request: '{"account":"*********0100","pin":"[hidden]"}', response: '{"code":600,"balance":"7.50"}' }, { outcome: 'invalid' }])
})
