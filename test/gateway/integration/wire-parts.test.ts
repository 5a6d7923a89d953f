import { createHmac, generateKeyPairSync } from 'node:crypto'
import { compactDecrypt, CompactEncrypt } from 'jose'
import t from 'tap'
import { AUDIT_ROWS_MAX, AUDIT_TEXT_CHARS_MAX, allowListFrom, maskedJson, maskText } from '../../../gateway/integration/audit-mask.js'
import { decodeBody, encodeBody } from '../../../gateway/integration/bodies.js'
import { type IntegrationSettings, parseIntegrationConfig } from '../../../gateway/integration/config.js'
import type { Env } from '../../../gateway/integration/config-reader.js'
import { backgroundContext, requestContext } from '../../../gateway/integration/context.js'
import { BACKOFF_BASE_MS, CONNECT_TIMEOUT_MS, TOTAL_TIMEOUT_MS } from '../../../gateway/integration/figures.js'
import { hmacText, isDetachedJwsOf, isHmacOf, openSealer, openSigner } from '../../../gateway/integration/signing.js'
import { parseUriMap, shownUrl, URL_CHARS_MAX, uriEntryOf, urlFromRequest } from '../../../gateway/integration/uri-map.js'
import { formatXml, parseXml, XML_ATTRIBUTES_MAX, XML_CHARS_MAX, XML_DEPTH_MAX, XML_TAG_CHARS_MAX, XML_TAGS_MAX } from '../../../gateway/integration/xml.js'
import { Secret } from '../../../protocol/index.js'

const noFile = (): string => { throw new Error('no such file') }
const parse = (env: Env, readFile: (path: string) => string = noFile): IntegrationSettings => parseIntegrationConfig(env, readFile)

t.test('an empty environment is no configured issuer, with the figures of the policy', async t => {
  const settings = parse({})
  t.equal(settings.isProduction, true, 'production unless something else is said')
  for (const issuer of ['cbs', 'bill', 'sms', 'push', 'kyc'] as const) {
    t.equal(settings[issuer].provider, undefined, issuer)
    t.equal(settings[issuer].simulate, false)
    t.match(settings[issuer].limits, { connectMs: CONNECT_TIMEOUT_MS, headersMs: 5000, bodyMs: 5000, totalMs: TOTAL_TIMEOUT_MS, attemptsMax: 3, activeMax: 16, queueMax: 32,
      responseBytesMax: 1_048_576 })
    t.equal(settings[issuer].tls.mode, 'strict')
    t.equal(settings[issuer].rejectUnauthorized, true)
  }
  t.equal(settings.email.host, undefined)
  t.same({ ...settings.totp }, { issuer: 'Soundbox', digits: 6, periodS: 30, algorithm: 'SHA1' })
  t.equal(BACKOFF_BASE_MS, 100)
  t.ok(Object.isFrozen(settings) && Object.isFrozen(settings.cbs.limits))
})

t.test('settings are read by prefix, secrets also from files, and none of them prints', async t => {
  const settings = parse({
    SOUNDBOX_ENV: 'test', CBS_API_PROVIDER: 'TIPS', CBS_API_URL: 'https://cbs.bank.example/api', CBS_API_HOSTS: 'cbs.bank.example:443, 127.0.0.1:8443',
      CBS_API_HEADER_X_API_KEY: 'key-in-env',
    CBS_API_REQUIRED_AUTH_HEADERS: 'X-Api-Key, Authorization', CBS_API_TIMEOUT_MS: '3000', CBS_API_PARAM_CLIENT_ID: 'shop', CBS_API_SECRET_PIN_FILE: '/secrets/pin',
    CBS_API_URI_MAP: '{"account":{"method":"POST","path":"/v1/a/{id}","idempotent":true,"timeoutMs":900}}', CBS_API_TLS: 'relaxed', CBS_API_TRANSPORT: 'iso8583',
    CBS_API_SIM_SEED: '7', CBS_API_SIM_CUSTOMERS: '5000', SMS_API_PROVIDER: 'beem', SMS_API_USER: 'u', SMS_API_PASSWORD_FILE: '/secrets/sms', SMS_API_SENDER_ID: 'SHOP',
      SMS_API_SIMULATE: 'true',
    SMS_API_SIM_RULES: '{"0001":"rejected"}', SMS_API_WEBHOOK_SECRET: 'new', SMS_API_WEBHOOK_SECRET_PREVIOUS: 'old', DIDIT_API_KEY: 'didit-key', DIDIT_API_WORKFLOW_ID: 'w1',
    FIREBASE_FCM_SERVICE_ACCOUNT_FILE: '/secrets/fcm', EMAIL_SMTP_HOST: 'smtp.example', EMAIL_SMTP_FROM: 'box@shop.example', TOTP_DIGITS: '8', CBS_API_TIMOUT_MS: '1'
  }, path => `content of ${path}\n`)
  t.equal(settings.cbs.provider, 'tips')
  t.same(settings.cbs.hosts?.map(rule => `${rule.host}:${rule.port}`), ['cbs.bank.example:443', '127.0.0.1:8443'])
  t.equal(settings.cbs.headers['x-api-key']?.reveal(), 'key-in-env')
  t.same(settings.cbs.requiredAuthHeaders, ['x-api-key', 'authorization'])
  t.same(settings.cbs.uriMap['account'], { method: 'POST', path: '/v1/a/{id}', idempotent: true, auth: 'headers', timeoutMs: 900 })
  t.equal(settings.cbs.secrets['pin']?.reveal(), 'content of /secrets/pin', 'one line feed at the end goes')
  t.same(settings.cbs.params, { client_id: 'shop' })
  t.match(settings.cbs, { limits: { totalMs: 3000 }, tls: { mode: 'relaxed' }, transport: 'iso8583', temporal: { seed: 7, customers: 5000 } })
  t.match(settings.sms, { basic: { user: 'u' }, senderId: 'SHOP', simulate: true, simulationRules: { '0001': 'rejected' } })
  t.same(settings.sms.webhookSecrets.map(secret => secret.reveal()), ['new', 'old'])
  t.match(settings.kyc, { provider: 'didit', workflowId: 'w1' })
  t.equal(settings.kyc.headers['x-api-key']?.reveal(), 'didit-key')
  t.equal(settings.push.provider, 'fcm')
  t.match(settings.email, { host: 'smtp.example', port: 587, security: 'starttls', domain: 'shop.example' })
  t.equal(settings.totp.digits, 8)
  t.same(settings.unknown, ['CBS_API_TIMOUT_MS'], 'a typing error is told')
  t.notMatch(JSON.stringify(settings), /key-in-env|content of|didit-key|"new"/)
})

t.test('every wrong setting is named at once, without its value', async t => {
  const env = {
    CBS_API_URL: 'http://cbs.bank.example', CBS_API_TLS: 'relaxed', CBS_API_TIMEOUT_MS: '99', BILL_API_URL: 'ftp://secret@x', BILL_API_HOSTS: 'nonsense',
      BILL_API_ATTEMPTS_MAX: '4',
    SMS_API_USER: 'only-user', SMS_API_SIMULATE: 'perhaps', SMS_API_SIGN: 'hmac', SMS_API_ENCRYPT: 'jwe', SMS_API_URI_MAP: '{"send":{"method":"PATCH"}}',
      SMS_API_PASSWORD_FILE: '/none',
    DIDIT_API_HEADER_X: 'a\nb', FIREBASE_FCM_SIM_RULES: '[1]', EMAIL_SMTP_HOST: 'smtp.example', EMAIL_SMTP_SECURITY: 'none', TOTP_DIGITS: '7', TOTP_ALGORITHM: 'md5',
    DIDIT_API_KEY: 'inline-secret', DIDIT_API_KEY_FILE: '/both', CBS_API_SIM_COUNTRY: 'tz', CBS_API_TLS_CERT: 'pem'
  }
  try {
    parse(env, path => { if (path === '/both') return 'file-secret'; throw new Error('no') })
    t.fail('accepted')
  } catch (error) {
    const { code, message } = error as { code: string, message: string }
    t.equal(code, 'CONFIG_INVALID')
    for (const name of [
      'CBS_API_URL', 'CBS_API_TLS', 'CBS_API_TIMEOUT_MS', 'BILL_API_URL', 'BILL_API_HOSTS', 'BILL_API_ATTEMPTS_MAX', 'SMS_API_USER', 'SMS_API_SIMULATE', 'SMS_API_SIGN_KEY',
        'SMS_API_ENCRYPT_KEY',
      'SMS_API_URI_MAP', 'SMS_API_PASSWORD_FILE', 'DIDIT_API_HEADER_X', 'FIREBASE_FCM_SIM_RULES', 'EMAIL_SMTP_FROM', 'EMAIL_SMTP_SECURITY', 'TOTP_DIGITS', 'TOTP_ALGORITHM',
        'DIDIT_API_KEY',
      'CBS_API_SIM_COUNTRY', 'CBS_API_TLS_CERT'
    ]) t.match(message, new RegExp(`${name}\\b`), name)
    t.notMatch(message, /secret@|only-user|perhaps|nonsense|inline-secret|file-secret/)
  }
  for (const [name, value] of [['CBS_API_TIMEOUT_MS', '100'], ['CBS_API_TIMEOUT_MS', '120000'], ['BILL_API_ATTEMPTS_MAX', '3'], ['SMS_API_QUEUE_MAX', '0'],
    ['CBS_API_SIM_CUSTOMERS', '1']] as const) {
    t.doesNotThrow(() => parse({ [name]: value, CBS_API_CONNECT_TIMEOUT_MS: '50' }), `${name}=${value}`)
  }
  for (const [name, value] of [['CBS_API_TIMEOUT_MS', '120001'], ['SMS_API_QUEUE_MAX', '1025'], ['CBS_API_SIM_CUSTOMERS', '0'], ['CBS_API_SIM_CUSTOMERS', '5001']] as const) {
    t.throws(() => parse({ [name]: value }), { code: 'CONFIG_INVALID' }, `${name}=${value}`)
  }
  t.doesNotThrow(() => parse({ CBS_API_URL: 'http://127.0.0.1:4010' }), 'http to this machine')
  t.doesNotThrow(() => parse({ CBS_API_URL: 'http://cbs.bank.example', SOUNDBOX_ENV: 'development' }), 'http elsewhere only outside production')
  t.throws(() => parse({ CBS_API_TLS: 'relaxed', SOUNDBOX_ENV: 'production' }), { code: 'CONFIG_INVALID' })
})

t.test('a uri_map makes URLs in which a value fills its own segment only', async t => {
  const problems: string[] = []
  const map = parseUriMap({
    one: { method: 'GET', path: '/v1/{id}/x', idempotent: true, auth: 'none' }, token: { method: 'POST', path: 'https://login.example/token', idempotent: true },
    dots: { method: 'GET', path: '/a/../b', idempotent: true }, slashes: { method: 'GET', path: '//evil/x', idempotent: true },
      query: { method: 'GET', path: '/a?b', idempotent: true },
    extra: { method: 'GET', path: '/a', idempotent: true, retries: 9 }, vague: { method: 'GET', path: '/a' }
  }, what => problems.push(what))
  t.same(Object.keys(map), ['one', 'token'])
  t.equal(problems.length, 5)
  const url = (id: string, query?: Record<string, string>): string => urlFromRequest('https://api.example/base/', uriEntryOf(map, 'one'),
    { uriKey: 'one', format: 'none', pathParams: { id }, ...(query === undefined ? {} : { query }) }).href
  t.equal(url('a/b?c#d é'), 'https://api.example/base/v1/a%2Fb%3Fc%23d%20%C3%A9/x')
  t.equal(url('1', { q: 'a&b=c' }), 'https://api.example/base/v1/1/x?q=a%26b%3Dc')
  for (const bad of ['', '.', '..', '...']) t.throws(() => url(bad), { code: 'PROVIDER_CONFIG' }, `segment "${bad}"`)
  t.throws(() => url('x'.repeat(URL_CHARS_MAX)), { code: 'PROVIDER_CONFIG' }, 'too long')
  t.throws(() => uriEntryOf(map, 'toString'), { code: 'PROVIDER_CONFIG' })
  t.equal(urlFromRequest('https://api.example/base', uriEntryOf(map, 'token'), { uriKey: 'token', format: 'none' }).href, 'https://login.example/token')
  t.equal(shownUrl('https://api.example/base/', uriEntryOf(map, 'one'),
    { uriKey: 'one', format: 'none', pathParams: { id: '4111111111111111' }, query: { page: '2', key: 'secret' } }, ['page']),
    'https://api.example/base/v1/{id}/x?page=2&key=[hidden]')
})

t.test('XML keeps text as text, and bombs do not go off', async t => {
  t.same(parseXml('<?xml version="1.0"?><s:a xmlns:s="u" x="01"><b>19.00</b><c>0150</c><b> 7 </b><d/><e><![CDATA[<&]]></e><f>&lt;&amp;&#65;&#x42;&nbsp;</f></s:a>'),
    { a: { '@x': '01', b: ['19.00', '7'], c: '0150', d: '', e: '<&', f: '<&AB&nbsp;' } })
  const back = { a: { '@x': '1 & 2', b: ['19.00', '<7>'], c: '' } }
  t.same(parseXml(formatXml(back)), back)
  const deep = (depth: number): string => '<a>'.repeat(depth) + '</a>'.repeat(depth)
  t.doesNotThrow(() => parseXml(deep(XML_DEPTH_MAX)), 'at the depth')
  t.throws(() => parseXml(deep(XML_DEPTH_MAX + 1)), { code: 'PROVIDER_RESPONSE_INVALID' }, 'one deeper')
  t.doesNotThrow(() => parseXml(`<a>${'<b/>'.repeat(XML_TAGS_MAX - 2)}</a>`), 'at the number of tags')
  t.throws(() => parseXml(`<a>${'<b/>'.repeat(XML_TAGS_MAX - 1)}</a>`), { code: 'PROVIDER_RESPONSE_INVALID' }, 'one tag more')
  t.doesNotThrow(() => parseXml(`<a>${'x'.repeat(XML_CHARS_MAX - 7)}</a>`), 'at the length')
  t.throws(() => parseXml(`<a>${'x'.repeat(XML_CHARS_MAX - 6)}</a>`), { code: 'PROVIDER_RESPONSE_INVALID' }, 'one longer')
  const attributes = (count: number): string => `<a>${'<b x="1" y="2"/>'.repeat(count / 2)}</a>`
  t.doesNotThrow(() => parseXml(attributes(XML_ATTRIBUTES_MAX)), 'at the number of attributes')
  t.throws(() => parseXml(attributes(XML_ATTRIBUTES_MAX + 2)), { code: 'PROVIDER_RESPONSE_INVALID' }, 'more attributes')
  t.doesNotThrow(() => parseXml(`<a x="${'1'.repeat(XML_TAG_CHARS_MAX - 8)}"/>`), 'the longest tag')
  t.throws(() => parseXml(`<a x="${'1'.repeat(XML_TAG_CHARS_MAX - 7)}"/>`), { code: 'PROVIDER_RESPONSE_INVALID' }, 'one character longer')
  const laughs = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>'
  for (const [xml, why] of [
    [laughs, 'entity bomb'], ['<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', 'external'], ['<a><!-- ', 'open comment'], ['<a><![CDATA[x', 'open CDATA'], ['<a><b></a>', 'crossed'],
    ['<a>', 'open'], ['', 'empty'], ['{"a":1}', 'JSON'], ['<a', 'half a tag'], [`${deep(20_000)}`, 'very deep']
  ] as const) t.throws(() => parseXml(xml), { code: 'PROVIDER_RESPONSE_INVALID' }, why)
  t.equal(({} as Record<string, unknown>)['polluted'], undefined)
  for (const bad of [undefined, [], { a: 1, b: 2 }, 'x']) t.throws(() => formatXml(bad), { code: 'PROVIDER_CONFIG' })
})

t.test('bodies are encoded by format and decoded by what came', async t => {
  t.same(encodeBody({ uriKey: 'k', format: 'json', body: { a: 1 } }), { body: '{"a":1}', contentType: 'application/json' })
  t.same(encodeBody({ uriKey: 'k', format: 'form', body: { a: 'x y', b: ['1', '2'] } }), { body: 'a=x+y&b=1&b=2', contentType: 'application/x-www-form-urlencoded' })
  t.same(encodeBody({ uriKey: 'k', format: 'none' }), { body: undefined, contentType: undefined })
  t.match(encodeBody({ uriKey: 'k', format: 'xml', body: { a: { b: '1' } } }).body, /<a><b>1<\/b><\/a>$/)
  for (const body of [undefined, [], { a: 1 }]) t.throws(() => encodeBody({ uriKey: 'k', format: 'form', body }), { code: 'PROVIDER_CONFIG' })
  const decode = (type: string | undefined, text: string, format: 'json' | 'xml' = 'json', status = 200): unknown =>
    decodeBody(format, type === undefined ? {} : { 'content-type': type }, Buffer.from(text), undefined, status)
  t.same(decode('application/json; charset=utf-8', '{"a":1}'), { a: 1 })
  t.same(decode('application/problem+json', '[1]'), [1])
  t.same(decode('text/html', ' {"a":1}'), { a: 1 }, 'JSON with a wrong label')
  t.same(decode(undefined, '<a>1</a>', 'xml'), { a: '1' })
  t.equal(decode('text/plain', 'OK: 12'), 'OK: 12')
  t.equal(decode('application/json', ' '), undefined)
  t.equal(decode('application/json', '<html>bad gateway', 'json', 502), '<html>bad gateway', 'an error page is no error of ours')
  t.throws(() => decode('application/json', '{"a":'), { code: 'PROVIDER_RESPONSE_INVALID' })
  t.throws(() => decodeBody('json', { 'content-encoding': 'gzip' }, Buffer.from('x'), undefined, 200), { code: 'PROVIDER_RESPONSE_INVALID' }, 'compressed')
})

t.test('only named fields reach an audit row, and of those only what their kind allows', async t => {
  const allowed = allowListFrom(['statusCode', 'message', 'payload.account~account', 'to.addr~phone', 'body.name~name', 'ok', 'odd~unheard'])
  const masked = JSON.parse(maskedJson({
    statusCode: 600, ok: true, message: 'card 4111 1111 1111 1111 and 4111111111111111\n', payload: { account: '0150245000100', pin: '1234' }, secret: 'x',
    to: [{ addr: '255712345678', text: 'private' }, { addr: '+919812345678' }, { addr: 'nonsense' }], body: { name: 'Asha Juma', name2: 'x' }, odd: '12345678'
  }, allowed)!) as Record<string, unknown>
  t.same(masked, {
    statusCode: 600, ok: true, message: 'card 411111******1111 and 411111******1111 ', payload: { account: '*********0100' },
    to: [{ addr: '2557****5678' }, { addr: '9198****5678' }, { addr: '[hidden]' }], body: { name: 'A* J*' }, odd: '****5678'
  })
  t.equal(maskedJson({ secret: 1 }, allowed), null)
  t.equal(maskedJson(undefined, allowed), null)
  t.equal(maskedJson({ statusCode: { inner: 'x' } }, allowed), null, 'an object where a value was listed')
  t.equal(maskedJson({ message: 41_111_111_111_111_11 }, allowed), '{"message":"411111******1111"}', 'a number is masked too')
  t.equal((JSON.parse(maskedJson({ to: Array.from({ length: AUDIT_ROWS_MAX + 1 }, () => ({ addr: '255712345678' })) }, allowed)!) as { to: unknown[] }).to.length, AUDIT_ROWS_MAX)
  t.equal(maskText('x'.repeat(AUDIT_TEXT_CHARS_MAX + 1)).length, AUDIT_TEXT_CHARS_MAX)
  t.notMatch(maskText(`${'x'.repeat(AUDIT_TEXT_CHARS_MAX - 12)}4111111111111111`), /\d{7}/, 'a number that the cut would halve')
  t.equal(maskText('123456789012'), '123456789012', 'twelve digits are no card')
  t.equal(maskText('1234567890123'), '123456***0123', 'thirteen may be one')
})

t.test('HMAC signatures follow RFC 4231 and fill the template', async t => {
  t.equal(hmacText(new Secret('Jefe'), 'what do ya want for nothing?', 'hex'), '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843', 'RFC 4231 4.3')
  const sign = openSigner({ kind: 'hmac', key: new Secret('k'), header: 'x-signature', timestampHeader: 'x-timestamp',
    template: '{timestamp}.{nonce}.{method}.{path}.{body}', encoding: 'base64', keyId: 'key-1' })
  const headers = await sign({ method: 'POST', path: '/a?b=1', body: '{"path":"{body}"}', timestampS: 1700000000, nonce: 'n1' })
  t.same(headers, {
    'x-timestamp': '1700000000', 'x-nonce': 'n1', 'x-key-id': 'key-1',
    'x-signature': createHmac('sha256', 'k').update('1700000000.n1.POST./a?b=1.{"path":"{body}"}').digest('base64')
  })
  const bytes = Buffer.from('raw \xff bytes', 'latin1')
  const [current, previous] = [new Secret('current'), new Secret('previous')]
  t.ok(isHmacOf([current, previous], bytes, hmacText(previous, bytes, 'hex'), 'hex'), 'the older of two keys')
  t.ok(isHmacOf([current, previous], bytes, hmacText(current, bytes, 'base64'), 'base64'))
  for (const got of ['', 'zz', hmacText(new Secret('other'), bytes, 'hex'), `${hmacText(current, bytes, 'hex')}00`, hmacText(current, Buffer.from('other'), 'hex')]) {
    t.notOk(isHmacOf([current, previous], bytes, got, 'hex'), got.slice(0, 8))
  }
  t.notOk(isHmacOf([], bytes, hmacText(current, bytes, 'hex'), 'hex'), 'no key')
})

t.test('a detached JWS signs exactly the body; a JWE opens with the right key only', async t => {
  const pem = (pair: { privateKey: { export: (options: { type: 'pkcs8', format: 'pem' }) => string | Buffer },
    publicKey: { export: (options: { type: 'spki', format: 'pem' }) => string | Buffer } }): { secret: string, open: string } =>
    ({ secret: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), open: pair.publicKey.export({ type: 'spki', format: 'pem' }).toString() })
  const ec = pem(generateKeyPairSync('ec', { namedCurve: 'prime256v1' }))
  const sign = openSigner({ kind: 'jws', key: new Secret(ec.secret), header: 'x-jws-signature', algorithm: 'ES256', keyId: 'k1' })
  const { 'x-jws-signature': jws = '' } = await sign({ method: 'POST', path: '/', body: '{"a":1}', timestampS: 1, nonce: '' })
  t.match(jws, /^[\w-]+\.\.[\w-]+$/)
  t.ok(await isDetachedJwsOf(ec.open, ['ES256'], Buffer.from('{"a":1}'), jws))
  t.notOk(await isDetachedJwsOf(ec.open, ['ES256'], Buffer.from('{"a":2}'), jws), 'another body')
  t.notOk(await isDetachedJwsOf(ec.open, ['RS256'], Buffer.from('{"a":1}'), jws), 'another algorithm')
  t.notOk(await isDetachedJwsOf(ec.open, ['ES256'], Buffer.from('{"a":1}'), jws.replace('..', '.e30.')), 'not detached')
  const theirs = pem(generateKeyPairSync('ec', { namedCurve: 'prime256v1' }))
  const ours = pem(generateKeyPairSync('ec', { namedCurve: 'prime256v1' }))
  const sealer = openSealer({ encryptKey: theirs.open, decryptKey: new Secret(ours.secret), algorithm: 'ECDH-ES+A256KW', keyId: undefined })
  const sealed = await sealer.seal('{"pin":"1234"}')
  t.notMatch(sealed, /1234/)
  const { createPrivateKey, createPublicKey } = await import('node:crypto')
  t.equal(Buffer.from((await compactDecrypt(sealed, createPrivateKey(theirs.secret))).plaintext).toString(), '{"pin":"1234"}')
  const answer = await new CompactEncrypt(Buffer.from('{"ok":true}')).setProtectedHeader({ alg: 'ECDH-ES+A256KW', enc: 'A256GCM' }).encrypt(createPublicKey(ours.open))
  t.equal(await sealer.open(answer), '{"ok":true}')
  await t.rejects(sealer.open(sealed), { code: 'PROVIDER_RESPONSE_INVALID' }, 'sealed for somebody else')
  await t.rejects(sealer.open('nonsense'), { code: 'PROVIDER_RESPONSE_INVALID' })
  t.throws(() => openSealer({ encryptKey: 'nonsense', decryptKey: undefined, algorithm: 'RSA-OAEP-256', keyId: undefined }), { code: 'PROVIDER_CONFIG' })
  t.throws(() => openSigner({ kind: 'jws', key: new Secret('nonsense'), header: 'x', algorithm: 'RS256', keyId: undefined }), { code: 'PROVIDER_CONFIG' })
})

t.test("a request follows the caller's trace, a job begins its own", async t => {
  const make = (): string => 'a'.repeat(32)
  const trace = '4bf92f3577b34da6a3ce929d0e0e4736'
  t.equal(requestContext({ actor: 't1', traceparent: `00-${trace}-00f067aa0ba902b7-01` }, make).traceId, trace)
  for (const odd of [undefined, '', 'x', `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`, `00-${trace}-01`]) t.equal(requestContext({ actor: 't1', traceparent: odd },
    make).traceId, make(), String(odd))
  t.same(backgroundContext('daily-report', make), { traceId: make(), actor: 'system:daily-report', background: true })
})
