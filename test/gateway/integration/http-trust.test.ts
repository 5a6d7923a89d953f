import { generateKeyPairSync } from 'node:crypto'
import { CompactEncrypt, compactDecrypt } from 'jose'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import t from 'tap'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import type { Lookup } from '../../../gateway/integration/http-wire.js'
import { isDetachedJwsOf, isHmacOf } from '../../../gateway/integration/signing.js'
import { Secret } from '../../../protocol/index.js'
import { makeCertificate } from '../../support/test-certificates.js'
import { openWorld, over, TOY, type World } from '../../support/integration-world.js'
import { openProviderDouble, type ProviderDouble, type Step } from '../../support/provider-double.js'
import { until } from '../../support/manual-clock.js'

const OK: Step = { do: 'answer', json: { code: 600, balance: '19.00' } }
const NOW = Date.now()
const DAY = 86_400_000
const authority = makeCertificate({ commonName: 'test authority', isCa: true }, NOW)
const server = makeCertificate({ commonName: 'server', hosts: ['localhost', '127.0.0.1'], issuer: authority }, NOW)

type Teardown = { teardown: (close: () => Promise<void>) => void }
async function overTls (t: Teardown, tls: NonNullable<Parameters<typeof openProviderDouble>[1]>['tls'], env: Record<string, string>,
  steps: readonly Step[] = [OK]): Promise<{ world: World, double: ProviderDouble }> {
  const double = await openProviderDouble({ '/balance': steps, '/statement': steps }, { host: 'localhost', ...(tls === undefined ? {} : { tls }) })
  const world = await openWorld({ URL: double.url, ...env })
  t.teardown(async () => {
    await world.close()
    await double.close()
  })
  return { world, double }
}

t.test('a certificate of the configured authority is trusted', async t => {
  const { world } = await overTls(t, server, { TLS_CA: authority.cert })
  t.match(await world.balance(), { ledger: '19.00' })
})

t.test('a certificate that is self-signed, expired, not yet valid, of another host or of another authority is refused, once and for good', async t => {
  const cases: [string, ReturnType<typeof makeCertificate>, string, RegExp][] = [
    ['self-signed', makeCertificate({ commonName: 'self', hosts: ['localhost'] }, NOW), '', /DEPTH_ZERO_SELF_SIGNED_CERT/],
    ['unknown authority', server, '', /UNABLE_TO_/],
    ['expired', makeCertificate({ commonName: 'old', hosts: ['localhost'], issuer: authority, fromMs: NOW - 3 * DAY, untilMs: NOW - DAY }, NOW), authority.cert,
      /CERT_HAS_EXPIRED/],
    ['not yet valid', makeCertificate({ commonName: 'new', hosts: ['localhost'], issuer: authority, fromMs: NOW + DAY, untilMs: NOW + 2 * DAY }, NOW), authority.cert,
      /CERT_NOT_YET_VALID/],
    ['wrong host', makeCertificate({ commonName: 'localhost', hosts: ['bank.example'], issuer: authority }, NOW), authority.cert, /ERR_TLS_CERT_ALTNAME_INVALID/]
  ]
  for (const [why, certificate, ca, code] of cases) {
    const { world, double } = await overTls(t, certificate, ca === '' ? {} : { TLS_CA: ca })
    await t.rejects(world.balance(), { code: 'PROVIDER_UNAVAILABLE', message: code }, why)
    t.equal(double.connections(), 1, `${why}: one attempt`)
    t.equal(double.seen.length, 0, `${why}: no request`)
    t.match(await world.rows(), [{ outcome: 'tls', attempt: 1 }], `${why}: row`)
    const relaxed = await overTls(t, certificate, { TLS: 'relaxed' })
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
  const { double } = await overTls(t, server, {})
  const other = await openWorld({ URL: double.url.replace('https:', 'http:'), ATTEMPTS_MAX: '1' })
  t.teardown(other.close)
  await t.rejects(other.change(), { code: 'PROVIDER_STATE_UNKNOWN' })
})

t.test('a client certificate is shown when it is configured', async t => {
  const client = makeCertificate({ commonName: 'gateway', issuer: authority }, NOW)
  const tls = { ...server, ca: authority.cert, requestCert: true }
  const { world } = await overTls(t, tls, { TLS_CA: authority.cert, TLS_CERT: client.cert, TLS_KEY: client.key })
  t.match(await world.balance(), { ledger: '19.00' })
  const without = await overTls(t, tls, { TLS_CA: authority.cert, ATTEMPTS_MAX: '1' })
  await t.rejects(without.world.balance(), { code: 'PROVIDER_UNAVAILABLE' })
  t.equal(without.double.seen.length, 0)
  t.throws(() => parseIntegrationConfig({ CBS_API_TLS_CERT: client.cert }, () => ''), { code: 'CONFIG_INVALID' })
  await t.rejects(openWorld({ URL: 'https://localhost:1', TLS_CERT: 'no pem', TLS_KEY: 'no pem',
    ATTEMPTS_MAX: '1' }).then(async broken => await broken.balance().finally(broken.close)), { code: /PROVIDER_(?:CONFIG|UNAVAILABLE)/ })
})

t.test('requests are signed by HMAC over what is on the wire, anew on every attempt', async t => {
  const { world, double } = await overTls(t, undefined, { SIGN: 'hmac', SIGN_KEY: 'signing-secret', SIGN_TEMPLATE: '{timestamp}\\n{nonce}\\n{method}\\n{path}\\n{body}' },
    [{ do: 'answer', status: 500 }, OK])
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
  const sealed = await new CompactEncrypt(Buffer.from('{"code":600,"balance":"7.50"}')).setProtectedHeader({ alg: 'ECDH-ES+A256KW',
    enc: 'A256GCM' }).encrypt(createPublicKey(ours.open))
  const env = {
    ENCRYPT: 'jwe', ENCRYPT_ALGORITHM: 'ECDH-ES+A256KW', ENCRYPT_KEY: bank.open, DECRYPT_KEY: ours.secret, SIGN: 'jws', SIGN_ALGORITHM: 'ES256', SIGN_KEY: signing.secret,
      SIGN_KEY_ID: 'k1'
  }
  const { world, double } = await overTls(t, undefined, env, [{ do: 'answer', type: 'application/jose', text: sealed }, OK])
  t.match(await world.balance(), { ledger: '7.50' })
  const [request] = double.seen
  t.equal(request?.headers['content-type'], 'application/jose')
  t.notMatch(request?.body, /0150245000100/)
  t.match(JSON.parse(Buffer.from((await compactDecrypt(request?.body ?? '', createPrivateKey(bank.secret))).plaintext).toString()), { account: '0150245000100' })
  t.ok(await isDetachedJwsOf(signing.open, ['ES256'], Buffer.from(request?.body ?? ''), String(request?.headers['x-jws-signature'])))
  await t.rejects(world.balance(), { code: 'PROVIDER_RESPONSE_INVALID', message: /not encrypted/ }, 'a plain answer')
  t.match(await world.rows(), [{ request: '{"account":"*********0100","pin":"[hidden]"}', response: '{"code":600,"balance":"7.50"}' }, { outcome: 'invalid' }])
})

t.test('a redirect is not followed, least of all to a link-local address', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'answer', status: 302, headers: { location: 'http://169.254.169.254/latest/meta-data/' } }] })
  await t.rejects(world.balance(), { code: 'PROVIDER_RESPONSE_INVALID', message: /redirect \(HTTP 302\)/ })
  t.equal(double.seen.length, 1)
  t.match(await world.rows(), [{ outcome: 'invalid', status: 302 }])
})

t.test('only hosts on the list are reached, judged by name before and by address after DNS', async t => {
  const double = await openProviderDouble({ '/balance': [OK] })
  t.teardown(double.close)
  const resolving = (...addresses: string[]): Lookup => (_host, _options, done) => { done(null, addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 }))) }
  const cases: [Record<string, string>, Lookup | undefined, boolean, string][] = [
    [{ URL: double.url, HOSTS: 'other.example:443' }, undefined, false, 'not on the list'],
    [{ URL: double.url, HOSTS: `127.0.0.1:${double.port + 1}` }, undefined, false, 'another port'],
    [{ URL: double.url, HOSTS: `127.0.0.1:${double.port}` }, undefined, true, 'the literal on the list'],
    [{ URL: `http://bank.example:${double.port}` }, resolving('127.0.0.1'), false, 'a public name that turns to loopback'],
    [{ URL: `http://bank.example:${double.port}` }, resolving('169.254.169.254', '10.0.0.1'), false, 'a public name that turns to metadata'],
    [{ URL: `http://bank.example:${double.port}`, HOSTS: `bank.example:${double.port}@127.0.0.0/8` }, resolving('169.254.169.254', '127.0.0.1'), true,
      'the network that the list names; the other address is left out'],
    [{ URL: `http://169.254.169.254:${double.port}` }, undefined, false, 'a metadata literal, although the URL names it'],
    [{ URL: `http://localhost:${double.port}` }, undefined, true, 'localhost']
  ]
  for (const [env, lookup, reached, why] of cases) {
    const before = double.seen.length
    const world = await openWorld(env, lookup === undefined ? {} : { deps: { lookup } })
    if (reached) t.match(await world.balance(), { ledger: '19.00' }, why)
    else await t.rejects(world.balance(), { code: 'PROVIDER_CONFIG' }, why)
    t.equal(double.seen.length - before, reached ? 1 : 0, `${why}: requests`)
    t.match(await world.rows(), [{ outcome: reached ? 'ok' : 'blocked' }], `${why}: row`)
    await world.close()
  }
})

t.test('a required header that is not configured keeps everything here, with a row', async t => {
  const provider = { ...TOY, requiredAuthHeaders: ['x-api-key', 'x-tenant'] }
  const { world, double } = await over(t, { '/balance': [OK], '/statement': [OK] }, { HEADER_X_TENANT: 'a' }, { provider })
  await t.rejects(world.balance(), { code: 'PROVIDER_AUTH_MISSING', message: /x-api-key; nothing was sent/ })
  t.equal(double.connections(), 0, 'not even a connection')
  t.match(await world.rows(), [{ outcome: 'auth', status: null, attempt: 1 }])
  t.match(await world.change(), { opening: '19.00' }, 'a row with auth none needs none')
  const relaxed = await over(t, { '/balance': [OK] }, { REJECT_UNAUTHORIZED: 'false' }, { provider })
  t.match(await relaxed.world.balance(), { ledger: '19.00' }, 'the switch is off')
})

t.test('a fetched token is asked for under the deadline of the call and forgotten on 401', async t => {
  let fetched = 0
  let forgotten = 0
  const provider = {
    ...TOY,
    uriMap: { ...TOY.uriMap, balance: { ...TOY.uriMap['balance']!, auth: 'provider' as const },
      login: { method: 'POST' as const, path: '/login', idempotent: true, auth: 'none' as const } },
    openAuth: (deps: Parameters<NonNullable<typeof TOY.openAuth>>[0]) => ({
      headersFor: async () => {
        fetched += 1
        await deps.send({ uriKey: 'login', format: 'form', body: { assertion: deps.secret('account') } })
        return { authorization: `Bearer t${fetched}` }
      },
      forget: () => { forgotten += 1 }
    })
  }
  const { world, double } = await over(t, { '/login': [{ do: 'answer', json: { code: 600 } }], '/balance': [{ do: 'answer', status: 401 }, OK] },
    { SECRET_ACCOUNT: 'account-secret' }, { provider })
  await t.rejects(world.balance(), { code: 'PROVIDER_CONFIG', message: /refuses our credentials \(HTTP 401\)/ })
  t.equal(forgotten, 1)
  t.match(await world.balance(), { ledger: '19.00' })
  t.equal(double.seen.at(-1)?.headers['authorization'], 'Bearer t2')
  t.match(await world.rows(), [{ uriKey: 'login', actor: 'system:auth' }, { uriKey: 'balance' }, { uriKey: 'login' }, { uriKey: 'balance' }])
  t.notMatch(JSON.stringify([world.store.rows, world.log.lines]), /account-secret|Bearer/)
})
