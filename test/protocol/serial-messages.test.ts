import t from 'tap'
import type { Random } from '../../firmware-sim/faults.js'
import {
  BOX_COMMANDS, BUTTONS, CHUNK_BYTES_MAX, CLIPS_MAX, COMMAND_ARGS_MAX, decodeSerialMessage, describeSerialMessage, encodeSerialMessage, FIRMWARE_HEADER_BYTES, LANGUAGES, NAK_REASONS,
  PAYLOAD_BYTES_MAX, RESULT_DATA_CHARS_MAX, SERIAL_RESULTS, SERIAL_TYPES, type SerialMessage, serialTypeName, TEXT_BYTES_MAX, TTL_MS_MAX
} from '../../protocol/index.js'
import { announcementOf, forSeeds } from '../support/serial-world.js'

const ID = '0123456789abcdef0123456789abcdef'
const BOX = { model: 'sb-1', firmware: '1.0.0', bootId: 'boot-1', volume: 70, language: 'HINDI', quiet: false } as const
const STATUS = { volume: 70, language: 'TAMIL', quiet: true, uptimeS: 5 } as const

const EXAMPLES: SerialMessage[] = [
  { type: 'HELLO', session: 0xffff_ffff },
  { type: 'HELLO', session: 0, box: { ...BOX, tid: 'SB-0001', keyId: '1f2e', resetReason: 'power', lastSpokenId: ID, clipPacks: ['en-1', 'hi-1'] } },
  { type: 'ANNOUNCE', ...announcementOf(1, { count: 3, prompt: 'code' }) },
  { type: 'ANNOUNCE', ...announcementOf(2, { clips: [], text: 'उन्नीस रुपये प्राप्त हुए', language: 'HINDI', kind: 'summary' }) },
  ...SERIAL_RESULTS.map((name): SerialMessage => ({ type: 'RESULT', id: ID, result: name, queuedMs: 1, audioMs: 2, reason: 'reset', was: 'spoken', offset: 720, data: 'a log\nof two lines' })),
  { type: 'STATUS', ...STATUS },
  ...BUTTONS.map((name): SerialMessage => ({ type: 'STATUS', ...STATUS, battery: 50, charging: true, rssi: -70, network: '4g', freeBytes: 1000, trial: true, button: { name, presses: 2 } })),
  { type: 'SET', id: ID, volume: 0, minVolume: 100, language: 'URDU', quiet: true, time: 1_790_000_000_000, statusEveryS: 30 },
  { type: 'SET', id: ID },
  ...BOX_COMMANDS.map((name): SerialMessage => ({ type: 'COMMAND', id: ID, name, args: { data: 'upi://pay?pa=shop@bank', times: 3, loud: true } })),
  { type: 'CREDENTIALS', id: ID, tid: 'SB-0001', keyId: '1f2e', broker: 'mqtts://broker.example:8883', password: 'p'.repeat(200), signingKey: 'k', replace: true },
  { type: 'FIRMWARE_BEGIN', id: ID, header: Buffer.alloc(FIRMWARE_HEADER_BYTES, 7), force: true },
  { type: 'FIRMWARE_CHUNK', offset: 1_048_000, data: Buffer.alloc(CHUNK_BYTES_MAX, 0xff) },
  { type: 'FIRMWARE_END', id: ID },
  { type: 'ACK' },
  ...NAK_REASONS.map((reason): SerialMessage => ({ type: 'NAK', reason, why: 'volume must be a whole number' })),
  { type: 'PING' }
]

t.test('every message comes back as it was sent', async t => {
  for (const message of EXAMPLES) {
    const { type, payload } = encodeSerialMessage(message)
    t.same(decodeSerialMessage(type, payload), message, message.type)
    t.equal(serialTypeName(type), message.type)
  }
  t.same(new Set(EXAMPLES.map(message => message.type)), new Set(Object.keys(SERIAL_TYPES)), 'every type has an example')
  t.equal(serialTypeName(0), undefined)
})

t.test('fields that nobody knows are left out, so that a newer peer may add them', async t => {
  const payload = Buffer.from(JSON.stringify({ ...STATUS, colour: 'red', button: { name: 'replay', presses: 1, heldMs: 5 } }))
  t.same(decodeSerialMessage(SERIAL_TYPES.STATUS, payload), { type: 'STATUS', ...STATUS, button: { name: 'replay', presses: 1 } })
})

t.test('each limit holds, and one past it does not', async t => {
  const announce = (changes: object): object => ({ ...announcementOf(1), amount: '1900', ...changes })
  const rows: [number, object, object, string][] = [
    [SERIAL_TYPES.HELLO, { session: 0xffff_ffff }, { session: 0x1_0000_0000 }, 'session'],
    [SERIAL_TYPES.HELLO, { session: 1, box: BOX }, { session: 1, box: { ...BOX, volume: 101 } }, 'volume of a box'],
    [SERIAL_TYPES.HELLO, { session: 1, box: { ...BOX, tid: 'a'.repeat(32) } }, { session: 1, box: { ...BOX, tid: 'a'.repeat(33) } }, 'tid'],
    [SERIAL_TYPES.ANNOUNCE, announce({ ttlMs: TTL_MS_MAX }), announce({ ttlMs: TTL_MS_MAX + 1 }), 'ttlMs'],
    [SERIAL_TYPES.ANNOUNCE, announce({ amount: '99999999999' }), announce({ amount: '100000000000' }), 'amount'],
    [SERIAL_TYPES.ANNOUNCE, announce({ clips: Array(CLIPS_MAX).fill('n1') }), announce({ clips: Array(CLIPS_MAX + 1).fill('n1') }), 'clips'],
    [SERIAL_TYPES.ANNOUNCE, announce({ clips: ['a'.repeat(32)] }), announce({ clips: ['a'.repeat(33)] }), 'clip id'],
    [SERIAL_TYPES.ANNOUNCE, announce({ text: 'क'.repeat(TEXT_BYTES_MAX / 3) }), announce({ text: 'क'.repeat(TEXT_BYTES_MAX / 3 + 1) }), 'text'],
    [SERIAL_TYPES.ANNOUNCE, announce({ count: 1_000_000 }), announce({ count: 1_000_001 }), 'count'],
    [SERIAL_TYPES.RESULT, { id: ID, result: 'done', data: 'x'.repeat(RESULT_DATA_CHARS_MAX) }, { id: ID, result: 'done', data: 'x'.repeat(RESULT_DATA_CHARS_MAX + 1) }, 'data'],
    [SERIAL_TYPES.RESULT, { id: ID, result: 'done', audioMs: 86_400_000 }, { id: ID, result: 'done', audioMs: 86_400_001 }, 'audioMs'],
    [SERIAL_TYPES.STATUS, { ...STATUS, battery: 100 }, { ...STATUS, battery: 101 }, 'battery'],
    [SERIAL_TYPES.STATUS, { ...STATUS, rssi: -200 }, { ...STATUS, rssi: -201 }, 'rssi'],
    [SERIAL_TYPES.STATUS, { ...STATUS, button: { name: 'replay', presses: 1 } }, { ...STATUS, button: { name: 'replay', presses: 0 } }, 'presses'],
    [SERIAL_TYPES.SET, { id: ID, statusEveryS: 86_400 }, { id: ID, statusEveryS: 86_401 }, 'statusEveryS'],
    [SERIAL_TYPES.CREDENTIALS, { id: ID, tid: 'SB-1', password: 'p'.repeat(200) }, { id: ID, tid: 'SB-1', password: 'p'.repeat(201) }, 'password'],
    [SERIAL_TYPES.COMMAND, { id: ID, name: 'test', args: args(COMMAND_ARGS_MAX) }, { id: ID, name: 'test', args: args(COMMAND_ARGS_MAX + 1) }, 'args'],
    [SERIAL_TYPES.FIRMWARE_CHUNK, { offset: 0, data: base64(CHUNK_BYTES_MAX) }, { offset: 0, data: base64(CHUNK_BYTES_MAX + 1) }, 'chunk'],
    [SERIAL_TYPES.FIRMWARE_BEGIN, { id: ID, header: base64(FIRMWARE_HEADER_BYTES) }, { id: ID, header: base64(FIRMWARE_HEADER_BYTES - 1) }, 'header'],
    [SERIAL_TYPES.NAK, { reason: 'refused', why: 'x'.repeat(120) }, { reason: 'refused', why: 'x'.repeat(121) }, 'why']
  ]
  for (const [type, at, past, what] of rows) {
    t.doesNotThrow(() => decodeSerialMessage(type, Buffer.from(JSON.stringify(at))), `${what} at its limit`)
    t.throws(() => decodeSerialMessage(type, Buffer.from(JSON.stringify(past))), { code: 'MESSAGE_INVALID' }, `${what} past it`)
  }
})

function args (count: number): object {
  return Object.fromEntries(Array.from({ length: count }, (_, index) => [`a${index}`, index]))
}

function base64 (bytes: number): string {
  return Buffer.alloc(bytes).toString('base64')
}

t.test('what has a field out of its form is refused', async t => {
  const announce = { ...announcementOf(1), amount: '1900' }
  const rows: [number, unknown, string][] = [
    [0, {}, 'type'], [14, {}, 'type'], [SERIAL_TYPES.PING, [], 'no object'], [SERIAL_TYPES.PING, 'x', 'no object'], [SERIAL_TYPES.HELLO, { session: '1' }, 'session as text'],
    [SERIAL_TYPES.HELLO, { session: 1, box: [] }, 'box as list'], [SERIAL_TYPES.HELLO, { session: 1, box: { ...BOX, language: 'LATIN' } }, 'language'],
    [SERIAL_TYPES.ANNOUNCE, { ...announce, amount: 1900 }, 'amount as number'], [SERIAL_TYPES.ANNOUNCE, { ...announce, clips: ['../n1'] }, 'clip as path'],
    [SERIAL_TYPES.ANNOUNCE, { ...announce, clips: 'n1' }, 'clips as text'], [SERIAL_TYPES.ANNOUNCE, { ...announce, text: 'two\nlines' }, 'text with a line feed'],
    [SERIAL_TYPES.ANNOUNCE, { ...announce, id: ID.toUpperCase() }, 'id in capitals'], [SERIAL_TYPES.RESULT, { id: ID, result: 'sung' }, 'result'],
    [SERIAL_TYPES.RESULT, { id: ID, result: 'duplicate', was: 'duplicate' }, 'duplicate of a duplicate'], [SERIAL_TYPES.STATUS, { ...STATUS, quiet: 1 }, 'flag as number'],
    [SERIAL_TYPES.COMMAND, { id: ID, name: 'explode', args: {} }, 'command'], [SERIAL_TYPES.COMMAND, { id: ID, name: 'test', args: { a: {} } }, 'argument as object'],
    [SERIAL_TYPES.CREDENTIALS, { id: ID, tid: 'a b' }, 'tid with a space'], [SERIAL_TYPES.CREDENTIALS, { id: ID, tid: 'SB-1', password: 'a b' }, 'password with a space'],
    [SERIAL_TYPES.FIRMWARE_CHUNK, { offset: 0, data: 'A?==' }, 'no base64'], [SERIAL_TYPES.FIRMWARE_CHUNK, { offset: 0, data: 'AAAAA' }, 'base64 of no whole bytes'],
    [SERIAL_TYPES.NAK, { reason: 'mood' }, 'reason']
  ]
  for (const [type, content, what] of rows) t.throws(() => decodeSerialMessage(type, Buffer.from(JSON.stringify(content))), { code: 'MESSAGE_INVALID' }, what)
  t.throws(() => decodeSerialMessage(SERIAL_TYPES.PING, Buffer.from('{')), { code: 'MESSAGE_INVALID' })
})

t.test('the longest announcement of every language fits a frame, and a larger message is not sent', async t => {
  for (const language of LANGUAGES) {
    const longest = announcementOf(1, { language, clips: Array(38).fill('thousand'), amountMinor: 99_999_999_999, text: '', count: 1_000_000 })
    t.ok(encodeSerialMessage({ type: 'ANNOUNCE', ...longest }).payload.length <= PAYLOAD_BYTES_MAX - TEXT_BYTES_MAX / 4, language)
  }
  const tooLarge: SerialMessage = { type: 'ANNOUNCE', ...announcementOf(1, { clips: Array(CLIPS_MAX).fill('payment-reversed'), text: 'x'.repeat(TEXT_BYTES_MAX) }) }
  t.throws(() => encodeSerialMessage(tooLarge), { code: 'MESSAGE_INVALID' })
})

t.test('a trace shows what was said and no secret', async t => {
  const shown = EXAMPLES.map(describeSerialMessage).join('\n')
  t.match(shown, /^CREDENTIALS .*tid=SB-0001.*password=\[secret\] signingKey=\[secret\]/m)
  t.match(shown, /FIRMWARE_CHUNK offset=1048000 data=\[720 bytes\]/)
  t.notMatch(shown, /ppp|signingKey=k/)
})

t.test('random payloads are messages or MESSAGE_INVALID, never anything else', async t => {
  await forSeeds(400, (random, seed) => {
    const type = Math.floor(random() * 16)
    const payload = random() < 0.3 ? Buffer.from(Array.from({ length: Math.floor(random() * 60) }, () => Math.floor(random() * 256))) : Buffer.from(JSON.stringify(randomValue(random, 3)))
    try {
      decodeSerialMessage(type, payload)
    } catch (error) {
      if ((error as { code?: string }).code !== 'MESSAGE_INVALID') t.fail(`SEED=${seed} ${String(error)}`)
    }
  })
  t.pass('400 payloads')
})

const NAMES = ['id', 'session', 'box', 'clips', 'amount', 'text', 'result', 'button', 'args', 'header', 'data', 'offset', 'volume', 'language', '__proto__']

function randomValue (random: Random, depth: number): unknown {
  const scalars: unknown[] = [null, true, -1, 1.5, 1e300, 70, ID, 'ENGLISH', '', 'x'.repeat(50), 'क', '\0']
  if (depth === 0 || random() < 0.3) return scalars[Math.floor(random() * scalars.length)]
  if (random() < 0.3) return Array.from({ length: Math.floor(random() * 4) }, () => randomValue(random, depth - 1))
  return Object.fromEntries(Array.from({ length: Math.floor(random() * 6) }, () => [NAMES[Math.floor(random() * NAMES.length)]!, randomValue(random, depth - 1)]))
}
