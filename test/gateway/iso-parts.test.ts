// The pure parts of ISO 8583 and its profiles: sessions, names of payments, what may be sent again, keys on their way.
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { answerTo, codeOfError, formatStan, isAdvice, isApproved, networkCodeOf, networkRequest, openStans, transmissionTime } from '../../gateway/iso8583/dialect.js'
import { demoHandler } from '../../gateway/iso8583/demo.js'
import { correlationKey, noCounters, openHooks } from '../../gateway/iso8583/hooks.js'
import { isNamed, isPartialReversal, originalOf, paymentFromIso } from '../../gateway/iso8583/payment.js'
import { openPending, PENDING_MAX } from '../../gateway/iso8583/pending.js'
import { parsePeers, PEERS_MAX } from '../../gateway/iso8583/peers.js'
import { backoffMs, repeatOf, reversalOf, safetyOf } from '../../gateway/iso8583/safety.js'
import { newSession, type Session, type SessionEvent, type SessionPolicy, stepSession } from '../../gateway/iso8583/session.js'
import { simulatedCbs } from '../../gateway/iso8583/simulated-cbs.js'
import { KEY_OVERLAP_MS, openWire, type WireSettings } from '../../gateway/iso8583/wire.js'
import { MAC_ALGORITHMS, openWorkingKey, sealWorkingKey } from '../../gateway/iso8583/working-key.js'
import { SoundboxError } from '../../protocol/index.js'
import { compileFraming, compileShippedSpec, type Message, pack, unpack } from '../../protocol/iso8583/index.js'
import { network, purchase, reversal } from '../support/raw-switch.js'
import { forSeeds } from '../support/random.js'

const POLICY: SessionPolicy = { role: 'server', signOn: true, signOnMs: 1000, echoIdleMs: 500, echoMissesMax: 2, answerMs: 100 }
const START = Date.UTC(2026, 10, 29, 13, 14, 11)

function play (policy: SessionPolicy, events: readonly (readonly [SessionEvent, number?])[]): { phase: string, effects: string[] } {
  let session: Session = newSession(0)
  const effects: string[] = []
  for (const [event, atMs = 0] of events) {
    const { next, effect } = stepSession(session, event, atMs, policy)
    session = next
    if (effect !== null) effects.push(effect.kind === 'ask' ? `ask ${effect.code}` : `close: ${effect.reason}`)
  }
  return { phase: session.phase, effects }
}

t.test('a session goes the way that sign-on, echo and sign-off take it', async t => {
  const client: SessionPolicy = { ...POLICY, role: 'client' }
  const open: readonly [SessionEvent] = [{ kind: 'open' }]
  const asked = (code: '001' | '002' | '101' | '301'): readonly [SessionEvent] => [{ kind: 'asked', code }]
  const answered = (code: '001' | '002' | '101' | '301', approved = true): readonly [SessionEvent] => [{ kind: 'answered', code, approved }]
  const missed = (code: '001' | '002' | '101' | '301'): readonly [SessionEvent] => [{ kind: 'missed', code }]
  const tick = (atMs: number, heardMs = 0): readonly [SessionEvent, number] => [{ kind: 'tick', heardMs }, atMs]
  const close: readonly [SessionEvent] = [{ kind: 'close' }]
  const rows: [SessionPolicy, (readonly [SessionEvent, number?])[], string, string[], string][] = [
    [POLICY, [open], 'waiting', [], 'a server waits'],
    [POLICY, [open, asked('301'), asked('101')], 'waiting', [], 'an echo or a key is no sign-on'],
    [POLICY, [open, asked('001')], 'ready', [], 'the peer signs on'],
    [POLICY, [open, asked('001'), asked('002'), asked('001')], 'ready', [], 'off and on again'],
    [POLICY, [open, tick(999)], 'waiting', [], 'at the limit of patience'],
    [POLICY, [open, tick(1000)], 'closed', ['close: no sign-on in time'], 'one past it'],
    [{ ...POLICY, signOn: false }, [open], 'ready', [], 'a peer without sign-on'],
    [{ ...POLICY, signOn: false }, [open, close], 'closed', ['close: closed'], 'gets no sign-off'],
    [POLICY, [open, asked('001'), tick(499)], 'ready', [], 'quiet, not yet idle'],
    [POLICY, [open, asked('001'), tick(500), tick(501)], 'ready', ['ask 301'], 'idle: one echo at a time'],
    [POLICY, [open, asked('001'), tick(500), answered('301'), tick(600, 590)], 'ready', ['ask 301'], 'answered: rest again'],
    [POLICY, [open, asked('001'), tick(500), missed('301'), missed('301')], 'closed', ['ask 301', 'ask 301', 'close: 2 echoes were not answered'], 'two misses'],
    [POLICY, [open, asked('001'), tick(500), missed('301'), answered('301'), tick(1100), missed('301')], 'ready', ['ask 301', 'ask 301', 'ask 301', 'ask 301'], 'an answer forgives'],
    [POLICY, [open, asked('001'), close, answered('002')], 'closed', ['ask 002', 'close: signed off'], 'a close signs off first'],
    [POLICY, [open, asked('001'), close, missed('002')], 'closed', ['ask 002', 'close: the sign-off was not answered'], 'and does not wait for ever'],
    [POLICY, [open, asked('001'), tick(500), close, missed('301')], 'signed-off', ['ask 301', 'ask 002'], 'a missed echo while signing off starts no other'],
    [{ ...POLICY, echoIdleMs: 0 }, [open, asked('001'), tick(9e9)], 'ready', [], 'echo switched off'],
    [client, [open], 'waiting', ['ask 001'], 'a client asks'],
    [client, [open, asked('001')], 'waiting', ['ask 001'], 'and the peer\'s own sign-on does not replace it'],
    [client, [open, answered('001')], 'ready', ['ask 001'], 'approved'],
    [client, [open, answered('001', false)], 'closed', ['ask 001', 'close: the peer refused the sign-on'], 'refused'],
    [client, [open, missed('001')], 'closed', ['ask 001', 'close: the sign-on was not answered'], 'not answered'],
    [client, [open, answered('001'), asked('002')], 'signed-off', ['ask 001'], 'the peer goes'],
    [client, [open, answered('001'), asked('002'), asked('001')], 'ready', ['ask 001'], 'and comes back'],
    [client, [open, answered('001'), missed('101')], 'ready', ['ask 001'], 'a key that was not answered is the caller\'s business'],
    [client, [close, open, answered('001')], 'closed', ['close: closed'], 'closed absorbs everything']
  ]
  for (const [policy, events, phase, effects, why] of rows) t.same(play(policy, events), { phase, effects }, why)
})

t.test('an answer has its request\'s type plus 10, what names it, and no card data but the number', async t => {
  const request: Message = { mti: '0421', fields: { ...purchase(1).fields, 14: '3012', 35: '4761739001010119=3012', 52: '0011223344556677', 90: '0'.repeat(42) } }
  const answer = answerTo(request, '00', { 38: 'ABC123' })
  t.equal(answer.mti, '0430')
  t.same(Object.keys(answer.fields).map(Number), [2, 3, 4, 7, 11, 12, 13, 32, 37, 38, 39, 41, 42, 49, 90])
  for (const [mti, code, want] of [['0200', '91', '91'], ['1200', '91', '907'], ['1200', '00', '000'], ['1420', '00', '400'], ['1804', '00', '800'], ['2800', '12', '902']] as const) {
    t.equal(answerTo({ mti, fields: {} }, code).fields['39'], want, `${mti} ${code}`)
  }
  t.throws(() => answerTo({ mti: '0210', fields: {} }, '00'), { code: 'ISO_PACK_INVALID' }, 'an answer has no answer')
  for (const code of ['00', '000', '400', '800']) t.ok(isApproved({ mti: '0210', fields: { 39: code } }))
  for (const code of ['91', '5', '']) t.notOk(isApproved({ mti: '0210', fields: { 39: code } }))
  t.notOk(isApproved({ mti: '0210', fields: {} }))
})

t.test('errors become DE 39 by the table, anything else is 96', async t => {
  const rows = [['VPA_UNKNOWN', '03'], ['ISO_NOT_SUPPORTED', '12'], ['AMOUNT_INVALID', '13'], ['FIELD_INVALID', '30'], ['ISO_NOT_PERMITTED', '58'], ['DEVICE_INACTIVE', '58'],
    ['ISO_TIMEOUT', '91'], ['PUBLISH_FAILED', '91'], ['PAYMENT_CONFLICT', '94'], ['STORE_FAILED', '96'], ['SECRET_UNREADABLE', '96']] as const
  for (const [code, want] of rows) t.equal(codeOfError(new SoundboxError(code, 'x')), want, code)
  t.equal(codeOfError(new TypeError('x')), '96')
})

t.test('network functions are read and written in both versions', async t => {
  for (const version of ['0', '1', '2']) {
    for (const code of ['001', '002', '101', '301'] as const) {
      const request = networkRequest(code, { version, stan: 7, nowMs: START })
      t.match(request, { mti: `${version}800`, fields: { 7: '1129131411', 11: '000007' } })
      t.equal(networkCodeOf(request), code)
    }
  }
  t.equal(networkCodeOf(network('999', 1)), undefined)
  t.equal(networkCodeOf({ mti: '0800', fields: {} }), undefined)
  const stans = openStans(999_998)
  t.same([stans(), stans(), stans()].map(formatStan), ['999998', '999999', '000001'])
  t.equal(transmissionTime(START), '1129131411')
})

t.test('a payment has one name, and parts that could be mistaken for each other stay apart', async t => {
  const spec = compileShippedSpec('1987-ascii')
  const names = new Set<string>()
  const seen = new Set<string>()
  forSeeds(20, (rand, seed) => {
    const some = (alphabet: string, length: number): string => Array.from({ length }, () => alphabet[Math.floor(rand() * alphabet.length)]!).join('')
    for (let n = 0; n < 200; n++) {
      const fields = { 7: some('01', 10), 11: some('01', 6), 37: some('A1 ', 12), 41: some('A1-% _', 8) }
      const message = purchase(1, fields)
      unpack(spec, pack(spec, message))
      const { transactionId } = paymentFromIso(message)
      const parts = [fields[37].trimEnd(), fields[11], fields[41].trimEnd(), fields[7]].join('\0')
      if (!/^[\x21-\x7e]{1,64}$/.test(transactionId)) t.fail(`SEED=${seed}: ${transactionId} is no transaction id`)
      if (seen.has(parts) !== names.has(transactionId)) t.fail(`SEED=${seed}: ${transactionId} stands for two payments`)
      seen.add(parts)
      names.add(transactionId)
    }
  })
  t.equal(names.size, seen.size)
  const longest = paymentFromIso(purchase(1, { 37: `A${' '.repeat(10)}A`, 41: `%${'%'.repeat(7)}` })).transactionId
  t.ok(longest.length <= 64, `the longest has ${longest.length}`)
})

t.test('a payment is read or refused field by field', async t => {
  t.match(paymentFromIso(purchase(42, { 41: 'TERM 1  ' })), {
    transactionId: '633400000042-000042-TERM%_1-1129131411', merchant: 'merchant0000001', terminal: 'TERM 1', amountMinor: 1900, currency: 'INR', txnType: 'CARD'
  })
  t.match(paymentFromIso(purchase(1, { 22: '031' })), { txnType: 'QR' })
  t.match(paymentFromIso(purchase(1, { 3: '280000' })), { txnType: 'UPI' })
  const { 49: _currency, 41: _terminal, 37: _rrn, 22: _entry, ...few } = purchase(1).fields
  t.match(paymentFromIso({ mti: '0220', fields: few }), { transactionId: '-000001--1129131411', currency: 'INR', terminal: '' }, 'what may be absent')
  const rows: [Record<string, string>, string][] = [
    [{ 3: '' }, 'ISO_NOT_SUPPORTED'], [{ 3: '200000' }, 'ISO_NOT_SUPPORTED'], [{ 49: '840' }, 'ISO_NOT_SUPPORTED'], [{ 4: '000000000000' }, 'AMOUNT_INVALID'],
    [{ 4: '100000000000' }, 'AMOUNT_INVALID'], [{ 4: '' }, 'FIELD_INVALID'], [{ 7: '' }, 'FIELD_INVALID'],
    [{ 11: '' }, 'FIELD_INVALID'], [{ 42: '   ' }, 'FIELD_INVALID'], [{ 37: 'A-1' }, 'FIELD_INVALID'],
    [{ 41: 'é' }, 'FIELD_INVALID']
  ]
  for (const [fields, code] of rows) t.throws(() => paymentFromIso(purchase(1, fields)), { code }, JSON.stringify(fields))
  t.equal(paymentFromIso(purchase(1, { 4: '099999999999' })).amountMinor, 99_999_999_999, 'at the limit')
})

t.test('a reversal names its original', async t => {
  const original = purchase(42)
  const { transactionId } = paymentFromIso(original)
  const { prefix, transmission } = originalOf(reversal(original, 43))
  t.equal(`${prefix}${transmission ?? ''}`, transactionId)
  const bare = originalOf({ mti: '0400', fields: { ...original.fields, 7: '1129131500' } })
  t.same(bare, { prefix, transmission: null }, 'without DE 90: RRN, own trace number, terminal')
  t.same(originalOf({ mti: '0400', fields: { ...original.fields, 90: '0200'.padEnd(42, '0') } }), bare, 'a DE 90 of zeros says nothing')
  t.same(originalOf({ mti: '1420', fields: { ...original.fields, 11: '000777', 56: '1200000042261129131411' } }), bare, '1993: DE 56')
  t.ok(isNamed(transactionId, prefix))
  t.notOk(isNamed(`${prefix}X-1129131411`, prefix), 'another terminal whose name begins so')
  t.notOk(isNamed(`${prefix}112913141`, prefix))
  t.ok(isPartialReversal({ mti: '0400', fields: { 95: `000000000900${'0'.repeat(30)}` } }))
  t.notOk(isPartialReversal({ mti: '0400', fields: { 95: `000000000000000000000900${'0'.repeat(18)}` } }))
})

t.test('what may be sent again, told again, or must be taken back', async t => {
  const rows: [Message, string][] = [[purchase(1), 'reverse'], [purchase(1, {}, '0100'), 'reverse'], [purchase(1, {}, '0220'), 'repeat'],
    [reversal(purchase(1), 2, '0420'), 'repeat'], [network('301', 1), 'again'],
    [purchase(1, { 3: '310000' }), 'again'], [purchase(1, { 3: '380000' }, '0100'), 'again'], [purchase(1, { 3: '010000' }), 'reverse'], [reversal(purchase(1), 2), 'reverse']]
  for (const [message, want] of rows) t.equal(safetyOf(message), want, `${message.mti} ${message.fields['3'] ?? ''}`)
  t.same(['0220', '0221', '0420', '1420'].map(mti => repeatOf({ mti, fields: {} }).mti), ['0221', '0221', '0421', '1421'])
  const spec = compileShippedSpec('1987-ascii')
  const undo = reversalOf(purchase(42, { 33: '123' }), { stan: 43, nowMs: START + 60_000 })
  t.match(undo, { mti: '0420', fields: { 7: '1129131511', 11: '000043', 37: '633400000042', 90: '0200000042112913141100000423935' + '00000000123' } })
  t.equal(`${originalOf(undo).prefix}${originalOf(undo).transmission ?? ''}`, paymentFromIso(purchase(42)).transactionId, 'the gateway finds what the client reverses')
  t.same(unpack(spec, pack(spec, undo)).fields, undo.fields)
  const undo1993 = reversalOf({ mti: '1200', fields: { 7: '1129131411', 11: '000042', 12: '261129131411' } }, { stan: 43, nowMs: START })
  t.match(undo1993, { mti: '1420', fields: { 24: '400', 56: '1200000042261129131411' } })
  t.same([0, 1, 2, 10, 1000].map(attempt => backoffMs(attempt, { firstMs: 100, maxMs: 1000 }, () => 0.5)), [50, 100, 200, 500, 500])
  t.equal(backoffMs(3, { firstMs: 100, maxMs: 1000 }, () => 0), 0, 'full jitter begins at nothing')
})

t.test('a new key arrives sealed, and a wrong one is noticed', async t => {
  for (const algorithm of MAC_ALGORITHMS) {
    const [kek, other, key] = [randomBytes(16), randomBytes(16), randomBytes(16)]
    const sealed = sealWorkingKey({ algorithm, kek }, key)
    t.match(sealed, /^[0-9A-F]{38}$/)
    t.ok(openWorkingKey({ algorithm, kek }, sealed).equals(key), algorithm)
    t.throws(() => openWorkingKey({ algorithm, kek: other }, sealed), { code: 'SECRET_UNREADABLE' })
    for (const text of ['', sealed.slice(1), `${sealed}0`, sealed.replace(/.$/, last => last === '0' ? '1' : '0')]) t.throws(() => openWorkingKey({ algorithm, kek }, text),
      { code: 'SECRET_UNREADABLE' })
  }
})

t.test('messages are authenticated under the key of the profile, then of the exchange, and the old one for a while', async t => {
  let now = 0
  const [kek, first, second] = [randomBytes(16), randomBytes(16), randomBytes(16)]
  const settings: WireSettings = { spec: compileShippedSpec('1987-bcd'), framing: compileFraming(), leniencies: {}, mac: { algorithm: 'aes-cmac', key: first, kek } }
  const [ours, theirs, plain] = [openWire(settings, () => now), openWire(settings, () => now), openWire({ ...settings, mac: null }, () => now)]
  const before = theirs.encode(purchase(1))
  t.match(ours.decode(before).fields, { 64: /^[0-9A-F]{16}$/ })
  t.throws(() => ours.decode(plain.encode(purchase(1))), { code: 'ISO_UNPACK_INVALID', message: /^mac/ }, 'without a code')
  const tampered = Buffer.from(before)
  tampered[20]! ^= 1
  t.throws(() => ours.decode(tampered), { code: 'ISO_UNPACK_INVALID' })
  t.match(ours.decode(theirs.encode(network('301', 1))).fields, { 64: undefined }, 'network management carries none')
  const sealed = theirs.offerKey(second)
  ours.takeKey(sealed)
  t.match(theirs.decode(ours.encode(purchase(2))).mti, '0200', 'who offered the key reads it at once')
  t.match(ours.decode(theirs.encode(purchase(3))).mti, '0200', 'the old one is still read')
  theirs.takeKey(sealed)
  now = KEY_OVERLAP_MS - 1
  t.match(ours.decode(before).mti, '0200', 'until the overlap ends')
  now = KEY_OVERLAP_MS
  t.throws(() => ours.decode(before), { code: 'ISO_UNPACK_INVALID', message: /^mac/ })
  t.throws(() => plain.takeKey(sealed), { code: 'ISO_NOT_SUPPORTED' })
  const keyless = openWire({ ...settings, mac: { algorithm: 'x9.19', key: null, kek } }, () => now)
  t.throws(() => keyless.encode(purchase(1)), { code: 'ISO_UNAVAILABLE' }, 'no key yet')
})

t.test('a request waits by its key, in time, late or in vain', async t => {
  let now = 0
  const counters = noCounters()
  const hooks = openHooks('x', counters, { describe: () => [] })
  const pending = openPending({ nowMs: () => now, keyOf: correlationKey, hooks })
  const first = pending.add(purchase(1), 100)
  await t.rejects(async () => pending.add(purchase(1), 100), { code: 'ISO_DUPLICATE_KEY' })
  pending.settle(answerTo(purchase(1), '00'))
  t.match(await first, { mti: '0210' })
  const second = pending.add(purchase(2), 100)
  now = 99
  pending.expire()
  t.equal(pending.size(), 1, 'at the limit')
  now = 100
  pending.expire()
  await t.rejects(second, { code: 'ISO_TIMEOUT' })
  pending.settle(answerTo(purchase(2), '00'))
  pending.settle(answerTo(purchase(2), '00'))
  pending.settle(answerTo(purchase(1), '00'))
  t.match(counters, { matched: 1, timeout: 1, late: 1, unmatched: 2 })
  const many = Array.from({ length: PENDING_MAX }, (_, index) => pending.add(purchase(index), 100))
  await t.rejects(async () => pending.add(purchase(PENDING_MAX), 100), { code: 'OVERLOADED' })
  pending.failAll(new SoundboxError('ISO_UNAVAILABLE', 'gone'))
  for (const outcome of await Promise.allSettled(many)) if (outcome.status !== 'rejected') t.fail('all fail')
  t.equal(pending.size(), 0)
})

t.test('the peers file is checked word by word', async t => {
  const files: Record<string, string> = { 'mac.key': `${'0123456789ABCDEF'.repeat(2)}\n`, 'short.key': '00', 'spec.json': JSON.stringify({ mti: { enc: 'bcd' },
    bitmap: { enc: 'binary', primaryBytes: 8 }, fields: { 2: { type: 'n', len: 2, max: 19, count: 'digits', enc: 'bcd', lenEnc: 'bcd', pad: 'left0' } } }) }
  const read = (path: string): string => {
    const text = files[path]
    if (text === undefined) throw new Error('no such file')
    return text
  }
  const good = { name: 'a', bank: 'pnb', addresses: ['10.0.0.0/8', '::1', '192.168.1.7'] }
  const parse = (...peers: object[]) => parsePeers(JSON.stringify({ peers }), read)
  const [peer] = parse({ ...good, spec: 'spec.json', mac: { algorithm: 'cbc-mac', keyFile: 'mac.key' }, merchants: ['SHOP*', 'Exact'], terminals: ['T1'],
    leniencies: ['anyPad'], framing: { prefix: 'ascii4' }, echoSeconds: 0 })
  t.match(peer, { name: 'a', certificate: null, port: null, session: { role: 'server', signOn: true, echoIdleMs: 0 }, limits: { inFlightMax: 256 }, onParseError: 'close', sayReversed: false })
  const rows: [string, boolean][] = [['10.1.2.3', true], ['::ffff:10.1.2.3', true], ['11.0.0.1', false], ['::1', true], ['192.168.1.7', true], ['192.168.1.8', false], ['', false], ['nonsense', false]]
  for (const [address, want] of rows) t.equal(peer?.allowsAddress(address), want, address)
  t.same(['shop1', 'exact', 'exactly', 'other'].map(name => peer?.allowsMerchant(name)), [true, true, false, false])
  t.same(['T1', 'T2', 't1'].map(name => peer?.allowsTerminal(name)), [true, false, false])
  t.ok(parse(good)[0]?.allowsMerchant('anything') === true)
  const bad: [object, RegExp][] = [
    [{ ...good, colour: 1 }, /not known: colour/], [{ ...good, name: ' ' }, /name must/], [{ ...good, bank: 'PNB' }, /bank must/], [{ ...good, addresses: undefined }, /certificate .* or addresses/],
    [{ ...good, certificate: 'x' }, /one of the two/], [{ ...good, addresses: ['10.0.0.0/33'] }, /addresses/], [{ ...good, addresses: ['host'] }, /addresses/], [{ ...good, addresses: 'x' }, /list/],
    [{ ...good, port: 70_000 }, /port must/], [{ ...good, spec: 'nowhere.json' }, /cannot be read/], [{ ...good, spec: 'mac.key' }, /spec must/],
    [{ ...good, spec: {} }, /peers\[0\] spec: mti/], [{ ...good, framing: { prefix: 'x' } }, /framing/],
    [{ ...good, leniencies: ['anyThing'] }, /leniencies/], [{ ...good, mac: 1 }, /mac must/], [{ ...good, mac: {} }, /keyFile, kekFile/], [{ ...good, mac: { keyFile: 'short.key' } }, /32 hex/],
    [{ ...good, mac: { keyFile: 'mac.key', algorithm: 'rot13' } }, /algorithm/], [{ ...good, inFlightMax: 0 }, /inFlightMax/], [{ ...good, inFlightMax: 10_001 }, /inFlightMax/],
    [{ ...good, signOn: 'yes' }, /signOn/],
    [{ ...good, onParseError: 'ignore' }, /onParseError/], [{ ...good, merchants: [''] }, /merchants/], [[], /object/]
  ]
  for (const [profile, message] of bad) t.throws(() => parse(profile), { code: 'CONFIG_INVALID', message }, String(message))
  t.throws(() => parse(good, good), { message: /listed twice/ })
  const tls = (name: string): object => ({ name, bank: 'pnb', certificate: 'cn' })
  t.throws(() => parse(tls('a'), tls('b')), { message: /certificate of another peer/ })
  for (const text of ['{', '{}', '{"peers":[]}', 'null']) t.throws(() => parsePeers(text, read), { code: 'CONFIG_INVALID' }, text)
  t.equal(parse(...Array.from({ length: PEERS_MAX }, (_, index) => ({ ...good, name: `p${index}` }))).length, PEERS_MAX, 'at the limit')
  t.throws(() => parse(...Array.from({ length: PEERS_MAX + 1 }, (_, index) => ({ ...good, name: `p${index}` }))), { message: /1 to 256/ })
  t.throws(() => parse({ ...good, mac: { keyFile: 'mac.key', kekFile: 'none' } }), { code: 'CONFIG_INVALID', message: /^(?!.*0123)/ }, 'a key is in no message')
})

t.test('the demo handler and the small table answer like an issuer', async t => {
  const demo = demoHandler(simulatedCbs(() => START))
  t.match(await demo(purchase(1)), { mti: '0210', fields: { 38: '000001', 39: '00' } })
  t.match(await demo(purchase(1, {}, '0220')), { mti: '0230', fields: { 39: '00' } })
  t.match(await demo(reversal(purchase(1), 2)), { mti: '0410', fields: { 39: '00' } })
  t.match(await demo(purchase(1, { 3: '310000', 102: '0150245000200' })), { fields: { 39: '00', 54: '0001356C0000000000990002356D000000200000' } })
  t.match(await demo(purchase(1, { 3: '380000', 102: '0150245000100' })), { fields: { 39: '00', 125: /^261129130211C000000190000/ } })
  t.match(await demo(purchase(1, { 3: '310000' })), { fields: { 39: '12' } })
  t.match(await demo({ mti: '0600', fields: {} }), { mti: '0610', fields: { 39: '12' } })
  await t.rejects(demo(purchase(1, { 42: 'NO-SUCH-SHOP   ' })), { code: 'VPA_UNKNOWN' })
  await t.rejects(demo(purchase(1, { 49: '840' })), { code: 'ISO_NOT_SUPPORTED' })
  t.ok(isAdvice('0220') && !isAdvice('0200'))
})
