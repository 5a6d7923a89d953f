// Values and secrets that every other part stands on: money, languages, topics, columns of a trigger, the bank's envelope, sealed secrets.
import { createCipheriv, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  AMOUNT_MINOR_MAX, COLUMNS, contentHash, decodeBase64, deriveKey, DOWN_TOPICS, type EnvelopeKey, ERRORS, formatAmount, formatAmountGrouped, formatTopic, isLanguage, isSameSecret,
  isSoundboxError, isTid, KEY_BYTES, keyedHash, LANGUAGE_CODES, LANGUAGES, makeSecret, markOfText, mayPublish, maySubscribe, openEnvelope, openEnvelopeText, openSecret, parseAmount,
  parseEpoch, parseKey, parseLanguage, parseMinor, parseObject, parseTopic, parseTrigger, safeErrorText, sealEnvelope, sealSecret, Secret, SoundboxError, UP_TOPICS
} from '../../protocol/index.js'
import { forSeeds } from '../support/random.js'

type EnvelopeVectors = { key: string, passKey: string, vectors: { source: string, profile: EnvelopeKey['profile'], iv: string, text: string, sealed: string }[] }
const VECTORS = JSON.parse(readFileSync('test/vectors/partner-envelope.json', 'utf8')) as EnvelopeVectors
const KEY = parseKey(VECTORS.key) ?? Buffer.alloc(0)
const CBC: EnvelopeKey = { profile: 'aes-256-cbc', key: KEY, passKey: VECTORS.passKey }
const GCM: EnvelopeKey = { ...CBC, profile: 'aes-256-gcm' }

t.test('an amount in rupees is read to the paisa, and nothing but an amount is', async t => {
  const good: [string, number][] = [
    ['19', 1900], ['19.5', 1950], ['19.05', 1905], ['19.00', 1900], ['0.01', 1], ['0019.00', 1900], ['000000000000000000019.00', 1900], ['999999999.99', AMOUNT_MINOR_MAX]
  ]
  for (const [text, want] of good) t.equal(parseAmount(text), want, text)
  const bad = [
    '', ' ', '0', '0.0', '0.00', '-1', '+1', '1.', '.5', '1.234', '1,000', '1e3', '1 ', ' 1', '१९', '1000000000', '1000000000.00', '999999999.999', 'NaN', 'Infinity', '0x10', '19.00\n',
    '0000000000000000000000019.00', '9'.repeat(5000)
  ]
  for (const text of bad) t.throws(() => parseAmount(text), { code: 'AMOUNT_INVALID' }, JSON.stringify(text.slice(0, 30)))
})

t.test('minor units are whole numbers from one to the largest amount', async t => {
  t.equal(parseMinor('1'), 1)
  t.equal(parseMinor('000000001900'), 1900, 'as ISO 8583 field 4 writes it')
  t.equal(parseMinor(String(AMOUNT_MINOR_MAX)), AMOUNT_MINOR_MAX)
  for (const text of ['', '0', '000', '-1', '1.0', '1e2', ' 1', String(AMOUNT_MINOR_MAX + 1)]) t.throws(() => parseMinor(text), { code: 'AMOUNT_INVALID' }, JSON.stringify(text))
})

t.test('what is formatted is read back', async t => {
  t.equal(formatAmount(5), '0.05')
  t.equal(formatAmount(AMOUNT_MINOR_MAX), '999999999.99')
  const grouped: [number, string][] = [[5, '0.05'], [99_999, '999.99'], [100_000, '1,000.00'], [10_000_000, '1,00,000.00'], [12_345_678_900, '12,34,56,789.00'], [AMOUNT_MINOR_MAX, '99,99,99,999.99']]
  for (const [minor, want] of grouped) t.equal(formatAmountGrouped(minor), want)
  forSeeds(200, (rand, seed) => {
    const minor = 1 + Math.floor(rand() * AMOUNT_MINOR_MAX)
    t.equal(parseAmount(formatAmount(minor)), minor, `SEED=${seed}`)
    t.equal(parseAmount(formatAmountGrouped(minor).replaceAll(',', '')), minor, `SEED=${seed}`)
  })
})

t.test('thirteen languages are known by their API names, in any case', async t => {
  t.equal(LANGUAGES.length, 13)
  for (const name of LANGUAGES) t.equal(parseLanguage(` ${name.toLowerCase()} `), name)
  t.equal(new Set(Object.values(LANGUAGE_CODES)).size, 13, 'no code is used twice')
  for (const text of ['', 'FRENCH', 'en', '__proto__', 'constructor', 'HINDI2']) {
    t.notOk(isLanguage(text), text)
    t.throws(() => parseLanguage(text), { code: 'LANGUAGE_UNKNOWN' }, text)
  }
})

t.test('a soundbox reaches its own topics, by name, in its direction, and no others', async t => {
  for (const name of [...DOWN_TOPICS, ...UP_TOPICS]) {
    const topic = formatTopic('SB-0001', name)
    t.same(parseTopic(topic), { tid: 'SB-0001', name })
    t.equal(maySubscribe('SB-0001', topic), (DOWN_TOPICS as readonly string[]).includes(name), `subscribe ${name}`)
    t.equal(mayPublish('SB-0001', topic), (UP_TOPICS as readonly string[]).includes(name), `publish ${name}`)
    t.notOk(mayPublish('SB-0002', topic) || maySubscribe('SB-0002', topic), `${name} of another`)
  }
  const foreign = [
    '', '#', '+', 'soundbox/v1/#', 'soundbox/v1/+/announce', 'soundbox/v1/SB-0001/+', 'soundbox/v1/SB-0001/#', 'soundbox/v1/SB-0001', 'soundbox/v1/SB-0001/', 'soundbox/v1//announce',
    'soundbox/v1/SB-0001/announce/', 'soundbox/v1/SB-0001/announce/x', 'soundbox/v2/SB-0001/announce', '/soundbox/v1/SB-0001/announce', '$share/g/soundbox/v1/SB-0001/announce', '$SYS/broker',
    'soundbox/v1/SB-0001/constructor', 'soundbox/v1/SB-0001/Announce'
  ]
  for (const topic of foreign) t.notOk(mayPublish('SB-0001', topic) || maySubscribe('SB-0001', topic), topic)
  for (const tid of ['abc', 'a'.repeat(32), '123456787654', 'A_b-1']) t.ok(isTid(tid), tid)
  for (const tid of ['', 'ab', 'a'.repeat(33), '-abc', '_abc', 'a/b', 'a+b', 'a#b', 'a b', 'abc\n', 'åbc']) t.notOk(isTid(tid), JSON.stringify(tid))
})

const WITH = { database: true, fieldNames: {} }
const WITHOUT = { database: false, fieldNames: {} }
const FULL = { column1: '7656789878ee', column2: 'Test@ISU', column3: '123456787654', column7: 'hindi', column8: '19.00', column12: 'UPI', column15: 'SUCCESS' }

t.test('both tables of mandatory columns hold, and an empty text counts as missing', async t => {
  for (const [rules, mandatory] of [[WITH, ['column1', 'column2', 'column8', 'column15']], [WITHOUT, ['column3', 'column7', 'column8', 'column12']]] as const) {
    t.match(parseTrigger(FULL, rules), {
      fields: { transactionId: '7656789878ee', merchant: 'test@isu', tid: '123456787654', language: 'HINDI', amountMinor: 1900, txnType: 'UPI', status: 'success' }
    })
    for (const [column, { label }] of Object.entries(COLUMNS)) {
      const isMandatory = (mandatory as readonly string[]).includes(column)
      for (const missing of ['', null, undefined]) {
        const want = isMandatory ? { errors: [{ type: 'field', msg: `${label} is mandatory`, path: label, location: 'body' }] } : { errors: undefined }
        t.match(parseTrigger({ ...FULL, [column]: missing }, rules), want, `database ${rules.database}, ${column} ${missing === '' ? 'empty' : String(missing)}`)
      }
    }
    t.same('errors' in parseTrigger({}, rules) && parseTrigger({}, rules), { errors: mandatory.map(column => {
      const { label } = COLUMNS[column]
      return { type: 'field', msg: `${label} is mandatory`, path: label, location: 'body' }
    }) }, 'all faults at once, in the order of the columns')
  }
  const least = { column8: '19', column3: 'BOX1', column7: 'ENGLISH', column12: 'UPI' }
  t.match(parseTrigger(least, WITHOUT), { fields: { transactionId: null, merchant: null, status: 'success' } }, 'no status means success')
})

t.test('each column takes its form, at the limit, and nothing beyond', async t => {
  const rows: [keyof typeof COLUMNS, unknown[], unknown[]][] = [
    ['column1', ['a', '!~', 'x'.repeat(64)], ['x'.repeat(65), 'a b', 'a\n', 'é', 7, {}, []]],
    ['column2', ['a', 'shop.1_2-3@bank', 'x'.repeat(128)], ['x'.repeat(129), '@a', 'a b', "a'b", 5]],
    ['column3', ['abc', 'x'.repeat(32)], ['ab', 'x'.repeat(33), 'a/b', 123]],
    ['column7', ['ENGLISH', 'odia', ' Tamil '], ['FRENCH', '__proto__', 5]],
    ['column8', ['0.01', '999999999.99'], ['0', '0.00', '1000000000', '-5', '1,000', '19.001', 19, 'free', ' 19']],
    ['column12', ['UPI', 'mATM', 'POS / card', 'x'.repeat(32)], ['x'.repeat(33), ' UPI', 'a;b', 'ü', true]],
    ['column15', ['success', 'failed', 'FAILED'], ['pending', 'success ', '0', 0]]
  ]
  for (const [column, good, bad] of rows) {
    for (const value of good) t.match(parseTrigger({ ...FULL, [column]: value }, WITH), { fields: {} }, `${column} ${String(value).slice(0, 40)}`)
    const { label, form } = COLUMNS[column]
    for (const value of bad) {
      t.match(parseTrigger({ ...FULL, [column]: value }, WITH), { errors: [{ type: 'field', path: label, msg: `${label} must be ${form}` }] }, `${column} ${JSON.stringify(value)}`)
    }
  }
  t.match(parseTrigger({ ...FULL, column15: 'failed' }, WITH), { fields: { status: 'failed' } })
  t.equal((parseTrigger({ column1: 'a b', column2: '', column8: 'x', column15: 'y' }, WITH) as { errors: object[] }).errors.length, 4, 'all at once')
})

t.test('a bank may call the columns by its own names, and is answered in them', async t => {
  const rules = { database: true, fieldNames: { column1: 'tr_id', column2: 'merchant_vpa', column8: 'txn_amount', column15: 'status' } }
  const own = { tr_id: 'T1', merchant_vpa: 'a@b', txn_amount: '5', status: 'success', column12: 'UPI' }
  t.match(parseTrigger(own, rules), { fields: { transactionId: 'T1', merchant: 'a@b', amountMinor: 500, txnType: 'UPI' } })
  t.match(parseTrigger({ ...FULL }, rules), { errors: [{ path: 'tr_id' }, { path: 'merchant_vpa' }, { path: 'txn_amount' }, { path: 'status' }] }, 'the old names are nothing to it')
  t.match(parseTrigger(JSON.parse('{"__proto__":{"column1":"T1"}}') as Record<string, unknown>, WITH), { errors: [{ path: 'tr_id' }, {}, {}, {}] }, 'inherited members are no columns')
})

t.test('content is the same whatever the id, and another with any other value', async t => {
  const read = parseTrigger(FULL, WITH)
  if ('errors' in read) throw new Error('a full trigger reads')
  const { transactionId: _, ...fields } = read.fields
  const hash = contentHash(fields, 'INR')
  t.match(hash, /^[0-9a-f]{32}$/)
  t.equal(contentHash({ ...fields }, 'INR'), hash)
  const others = [{ merchant: 'other@isu' }, { tid: null }, { language: null }, { amountMinor: 1901 }, { txnType: null }, { status: 'failed' as const }]
  for (const other of others) t.not(contentHash({ ...fields, ...other }, 'INR'), hash, JSON.stringify(other))
  t.not(contentHash(fields, 'USD'), hash)
})

t.test('the envelope vectors hold in both directions', async t => {
  for (const { source, profile, iv, text, sealed } of VECTORS.vectors) {
    const how = profile === 'aes-256-cbc' ? CBC : GCM
    t.equal(sealEnvelope(how, text, Buffer.from(iv, 'hex')), sealed, source)
    t.same(openEnvelope(how, sealed)?.value, JSON.parse(text), source)
    t.equal(openEnvelopeText(how, sealed), text, source)
  }
  for (const how of [CBC, GCM]) {
    t.not(sealEnvelope(how, '{}'), sealEnvelope(how, '{}'), 'fresh random bytes each time')
    t.same(openEnvelope(how, sealEnvelope(how, '{"a":"é"}'))?.value, { a: 'é' })
    t.equal(openEnvelope({ ...how, key: Buffer.alloc(KEY_BYTES, 1) }, sealEnvelope(how, '{}')), undefined, 'another key')
  }
  t.equal(openEnvelope({ ...GCM, passKey: 'another' }, sealEnvelope(GCM, '{}')), undefined, 'bound to the pass_key')
})

t.test('base64 is strict, but for white space', async t => {
  t.same(decodeBase64(' QU\tJD\r\n'), Buffer.from('ABC'))
  t.same(decodeBase64(''), Buffer.alloc(0))
  for (const text of ['QUJD=', 'QUI', 'QQ', 'Q', 'QUJ-', 'QUJ_', 'QU=D', '=QUJ', 'QUJD!', 'QUJD\u00a0', 'QUJD\v', '====']) t.equal(decodeBase64(text), undefined, JSON.stringify(text))
  t.equal(parseKey(Buffer.alloc(31).toString('base64')), undefined)
  t.equal(parseKey(Buffer.alloc(33).toString('base64')), undefined)
  t.same(parseKey(`${Buffer.alloc(32).toString('base64')}\n`), Buffer.alloc(32))
})

t.test('every flipped bit of a GCM envelope, and every shorter tag, is refused', async t => {
  const bytes = Buffer.from(sealEnvelope(GCM, '{"a":1}'), 'base64')
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const other = Buffer.from(bytes)
    other[bit >> 3]! ^= 1 << (bit & 7)
    if (openEnvelope(GCM, other.toString('base64')) !== undefined) t.fail(`bit ${bit} was not noticed`)
  }
  for (const tagBytes of [4, 8, 12, 13, 14, 15]) {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', KEY, nonce, { authTagLength: tagBytes })
    cipher.setAAD(Buffer.from(GCM.passKey))
    const sealed = Buffer.concat([nonce, cipher.update('{}'), cipher.final(), cipher.getAuthTag()])
    t.equal(openEnvelope(GCM, sealed.toString('base64')), undefined, `a tag of ${tagBytes} bytes`)
  }
  for (let length = 0; length < 29; length++) t.equal(openEnvelope(GCM, Buffer.alloc(length).toString('base64')), undefined, `${length} bytes`)
})

t.test('rubbish after the last brace is cut, and anything but an object is refused', async t => {
  for (const text of ['{"a":1}\0\0\0', '{"a":1} \n', '{"a":1}abc"', '  {"a":1}']) {
    t.same(openEnvelope(CBC, sealEnvelope(CBC, text))?.value, { a: 1 }, JSON.stringify(text))
    t.same(JSON.parse(openEnvelopeText(CBC, sealEnvelope(CBC, text)) ?? ''), { a: 1 }, JSON.stringify(text))
  }
  for (const text of ['', 'x', '[1]', '"a"', '5', 'null', '{', '{"a":1}}', '{"a":1}]', 'x{"a":1}', '{"a":1}{"b":2}']) {
    t.equal(openEnvelope(CBC, sealEnvelope(CBC, text)), undefined, text)
    t.equal(parseObject(text), undefined, text)
  }
  for (const length of [0, 1, 16, 31, 33]) t.equal(openEnvelope(CBC, Buffer.alloc(length).toString('base64')), undefined, `${length} bytes`)
  t.doesNotThrow(() => parseObject('['.repeat(65_536)))
})

t.test('an encrypted text keeps its mark whatever its spelling, its IV, or what is hung on it', async t => {
  for (const text of ['{"client_id":"demo-client","epoch":"1727954878"}', `{"client_id":"demo-client","epoch":"1727954878"${' '.repeat(16)}}`, `{"a":"${'é'.repeat(40)}"}`]) {
    const bytes = Buffer.from(sealEnvelope(CBC, text), 'base64')
    const mark = openEnvelope(CBC, bytes.toString('base64'))?.mark
    t.match(mark, /^[0-9a-f]{32}$/)
    t.equal(openEnvelope(CBC, bytes.toString('base64').replace(/(.{7})/g, '$1 '))?.mark, mark, 'white space')
    const renamed = Buffer.from(bytes)
    renamed[2]! ^= 1
    t.equal(openEnvelope(CBC, renamed.toString('base64'))?.mark, mark, 'a flipped bit of the IV changes the content and not the mark')
    let opened = 0
    for (let tries = 0; tries < 3000 && opened < 3; tries++) {
      const longer = openEnvelope(CBC, Buffer.concat([bytes, randomBytes(16)]).toString('base64'))
      if (longer === undefined) continue
      opened++
      t.equal(longer.mark, mark, 'a block hung on that happens to end like padding')
    }
    t.ok(opened > 0, 'such blocks are found by trying')
  }
  const first = sealEnvelope(CBC, '{"a":"0123456789"}')
  t.not(openEnvelope(CBC, first)?.mark, openEnvelope(CBC, sealEnvelope(CBC, '{"a":"0123456789"}'))?.mark, 'the same text encrypted again is another')
  const shifted = Buffer.from(sealEnvelope(CBC, '{"version":"1.1","client_id":"demo"}'), 'base64')
  const mark = openEnvelope(CBC, shifted.toString('base64'))?.mark ?? 'none'
  const cut = Buffer.from(shifted.subarray(16))
  cut[0]! ^= ','.charCodeAt(0) ^ '{'.charCodeAt(0)
  t.match(openEnvelope(CBC, cut.toString('base64')), { value: { client_id: 'demo' }, mark }, 'blocks cut off in front and the seam repaired')
  t.not(openEnvelope(GCM, sealEnvelope(GCM, '{}'))?.mark, openEnvelope(GCM, sealEnvelope(GCM, '{}'))?.mark)
  t.not(markOfText('a'), markOfText('b'))
})

t.test('an epoch is ten digits of seconds or thirteen of milliseconds', async t => {
  t.equal(parseEpoch('1727954878'), 1_727_954_878_000)
  t.equal(parseEpoch('1727954878123'), 1_727_954_878_123)
  const bad = ['', '172795487', '17279548781', '172795487812', '17279548781234', '1727954878.0', '-727954878', '+727954878', ' 1727954878', '1727954878\n', '1e9', 'abcdefghij']
  for (const value of [...bad, 1727954878, null, {}]) {
    t.equal(parseEpoch(value), undefined, JSON.stringify(value))
  }
})

t.test('a sealed secret opens with its key and for its owner only, and no bit of it may change', async t => {
  const key = deriveKey(Buffer.alloc(32, 7), 'seal')
  const sealed = sealSecret(key, 'bank:pnb', 'geheim')
  t.equal(openSecret(key, 'bank:pnb', sealed), 'geheim')
  t.not(sealSecret(key, 'bank:pnb', 'geheim'), sealed, 'never the same bytes twice')
  t.notMatch(sealed, 'geheim')
  t.throws(() => openSecret(key, 'bank:idbi', sealed), { code: 'SECRET_UNREADABLE' }, 'moved to another row')
  t.throws(() => openSecret(deriveKey(Buffer.alloc(32, 8), 'seal'), 'bank:pnb', sealed), { code: 'SECRET_UNREADABLE' }, 'another master key')
  t.throws(() => openSecret(deriveKey(Buffer.alloc(32, 7), 'hash'), 'bank:pnb', sealed), { code: 'SECRET_UNREADABLE' }, 'the key of another purpose')
  const bytes = Buffer.from(sealed, 'base64')
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const other = Buffer.from(bytes)
    other[bit >> 3]! ^= 1 << (bit & 7)
    try {
      openSecret(key, 'bank:pnb', other.toString('base64'))
      t.fail(`bit ${bit} was not noticed`)
    } catch (error) {
      if (!isSoundboxError(error, 'SECRET_UNREADABLE')) throw error
    }
  }
  for (const text of ['', 'AQ==', sealed.slice(0, 36)]) t.throws(() => openSecret(key, 'bank:pnb', text), { code: 'SECRET_UNREADABLE' })
})

t.test('secrets are random, compared whole, hashed with a key and never printed', async t => {
  t.equal(new Set(Array.from({ length: 200 }, () => makeSecret())).size, 200)
  t.match(makeSecret(16), /^[\w-]{22}$/)
  t.ok(isSameSecret('abc', 'abc'))
  for (const [left, right] of [['abc', 'abd'], ['abc', 'ab'], ['ab', 'abc'], ['', 'a'], ['a', ''], ['é', 'e']] as const) t.notOk(isSameSecret(left, right), `${left} ${right}`)
  t.match(keyedHash(Buffer.alloc(32), 'a'), /^[0-9a-f]{64}$/)
  t.not(keyedHash(Buffer.alloc(32), 'a'), keyedHash(Buffer.alloc(32, 1), 'a'))
  const secret = new Secret('geheim')
  t.equal(secret.reveal(), 'geheim')
  for (const shown of [String(secret), JSON.stringify({ secret }), inspect(secret), inspect({ deep: { secret } }), `${secret}`]) t.notMatch(shown, 'geheim')
})

t.test('what is shown of an error is its code, its words and its remedy, and of a foreign one its name', async t => {
  const error = new SoundboxError('STORE_FAILED', 'the disk is full', { cause: new Error('secret detail') })
  t.match(error, { status: ERRORS.STORE_FAILED.status, retryable: true })
  t.ok(isSoundboxError(error) && isSoundboxError(error, 'STORE_FAILED') && !isSoundboxError(error, 'NOT_FOUND') && !isSoundboxError(new Error('x')))
  t.equal(safeErrorText(error), `STORE_FAILED: the disk is full (${ERRORS.STORE_FAILED.remedy})`)
  t.equal(safeErrorText(new TypeError('secret detail')), 'unexpected TypeError')
  t.equal(safeErrorText('secret detail'), 'unexpected fault')
})
