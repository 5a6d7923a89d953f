// The messages between gateway and soundbox: every decoder takes what is right, names what is wrong, and no forged or damaged
// announcement is ever opened.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  ACK_RESULTS, AMOUNT_MINOR_MAX, ANNOUNCEMENT_KINDS, type Announcement, announcementId, COMMAND_NAMES, decodeAck, decodeAnnouncement, decodeCommand, decodeDesired, decodeHello, decodeMessage,
  decodeReported, decodeTelemetry, encodeMessage, isMessageId, isSoundboxError, LANGUAGES, MESSAGE_BYTES_MAX, openAnnouncement, PROMPTS, sealAnnouncement
} from '../../protocol/index.js'
import { forSeeds } from '../support/random.js'

type Vectors = { announcementId: { bank: string, transaction: string, id: string }, signingKey: string, tid: string, wire: Record<string, unknown>[] }
const VECTORS = JSON.parse(readFileSync('test/vectors/announcements.json', 'utf8')) as Vectors
const ID = '0123456789abcdef0123456789abcdef'
const SAFE = Number.MAX_SAFE_INTEGER
const SIG = 'A'.repeat(43)

type Fields = Record<string, unknown>
type Decode = (bytes: Uint8Array) => object
/** A decoder, a message with every field, and values of each field that are right and wrong. A field without `undefined` in wrong is optional. */
type Row = { decode: Decode, full: Fields, fields: Record<string, { good: unknown[], bad: unknown[] }> }

const WORD = { good: ['a', 'x'.repeat(64), '1.2.3+build/7:a, b-c'], bad: ['', 'x'.repeat(65), 'a\nb', 'a;b', 'é', 5, {}] }
const UINT = { good: [0, SAFE], bad: [-1, SAFE + 1, 1.5, '1', true, {}] }
const PERCENT = { good: [0, 100], bad: [-1, 101, 0.5, '50'] }
const MS_OF_DAY = { good: [0, 86_400_000], bad: [-1, 86_400_001, 0.5, '1'] }
const LANGUAGE = { good: [...LANGUAGES], bad: ['english', 'FRENCH', '', 5] }
const HEX_ID = { good: [ID], bad: ['', ID.slice(1), `${ID}0`, ID.toUpperCase(), `${ID.slice(1)}g`, `${ID}\n`, 5] }
const must = ({ good, bad }: { good: unknown[], bad: unknown[] }) => ({ good, bad: [...bad, undefined, null] })

const ROWS: Record<string, Row> = {
  announcement: {
    decode: decodeAnnouncement,
    full: {
      v: 1, id: ID, seq: 7, kind: 'payment', amount: '1900', currency: 'INR', language: 'HINDI', issuedAt: 1, expiresAt: 2, sig: SIG, txnType: 'UPI', count: 3, prompt: 'code'
    },
    fields: {
      v: must({ good: [1], bad: [0, 2, '1', true] }), id: must(HEX_ID), seq: must(UINT), kind: must({ good: [...ANNOUNCEMENT_KINDS], bad: ['Payment', '', 'refund', 1] }),
      amount: must({ good: ['0', '1', String(AMOUNT_MINOR_MAX)], bad: ['', '-1', '1.0', String(AMOUNT_MINOR_MAX + 1), '999999999999', 1900] }),
      currency: must({ good: ['INR', 'USD'], bad: ['inr', 'IN', 'INRR', '', 5] }), language: must(LANGUAGE), issuedAt: must(UINT), expiresAt: must(UINT),
      sig: must({ good: [SIG], bad: ['', 'A'.repeat(42), 'A'.repeat(44), `${'A'.repeat(42)}=`, `${'A'.repeat(42)}+`, 5] }),
      txnType: WORD, count: { good: [0, 1_000_000], bad: [-1, 1_000_001, 0.5, '1'] }, prompt: { good: [...PROMPTS], bad: ['', 'shout', 1] }
    }
  },
  ack: {
    decode: decodeAck,
    full: { id: ID, result: 'duplicate', queuedMs: 1, audioMs: 2, at: 3, reason: 'because', was: 'spoken', data: 'two\nlines' },
    fields: {
      id: must(HEX_ID), result: must({ good: [...ACK_RESULTS], bad: ['', 'Spoken', 'heard', 1] }), queuedMs: MS_OF_DAY, audioMs: MS_OF_DAY, at: UINT, reason: WORD,
      was: { good: [...ACK_RESULTS], bad: ['', 'heard', 1] }, data: { good: ['', 'x'.repeat(3000), '\n\0"'], bad: ['x'.repeat(3001), 5, {}] }
    }
  },
  hello: {
    decode: decodeHello,
    full: { model: 'QS1', firmware: '1.2.3', bootId: 'b-1', lastSpokenId: ID, reportedVersion: 4 },
    fields: { model: must(WORD), firmware: must(WORD), bootId: must(WORD), lastSpokenId: HEX_ID, reportedVersion: UINT }
  },
  command: {
    decode: decodeCommand,
    full: { id: ID, name: 'replay', args: { count: 2, loud: true, text: 'x' }, expiresAt: 5 },
    fields: { id: must(HEX_ID), name: must({ good: [...COMMAND_NAMES], bad: ['', 'Reboot', 'explode', 1] }), expiresAt: must(UINT), args: { good: [{}], bad: [[], 'x', 5, true] } }
  },
  desired: {
    decode: decodeDesired,
    full: {
      version: 3, time: 4, volume: 70, minVolume: 20, language: 'TAMIL', quietHours: { startMinute: 0, endMinute: 1439, utcOffsetMinutes: 330 }, display: 'Namaste',
      firmware: { version: '1.2.4', url: 'https://example.com/f.bin', sha256: 'ab'.repeat(32) }
    },
    fields: {
      version: must(UINT), time: must(UINT), volume: must(PERCENT), minVolume: must(PERCENT), language: must(LANGUAGE),
      display: { good: ['', 'x'.repeat(512)], bad: ['x'.repeat(513), 5] },
      quietHours: {
        good: [null, { startMinute: 1439, endMinute: 0, utcOffsetMinutes: -840 }],
        bad: ['x', 5, {}, { startMinute: 1440, endMinute: 0, utcOffsetMinutes: 0 }, { startMinute: 0, endMinute: -1, utcOffsetMinutes: 0 }, { startMinute: 0, endMinute: 0, utcOffsetMinutes: 841 }]
      },
      firmware: {
        good: [{ version: '1' }],
        bad: ['1.2', null, {}, { version: '' }, { version: '1', url: 'a b' }, { version: '1', url: 'x'.repeat(513) }, { version: '1', sha256: 'AB'.repeat(32) }]
      }
    }
  },
  reported: {
    decode: decodeReported,
    full: { version: 3, volume: 70, language: 'URDU', clipPacks: ['hi-1', 'en-2'], firmware: '1.2.3' },
    fields: {
      version: must(UINT), volume: must(PERCENT), language: must(LANGUAGE), firmware: WORD,
      clipPacks: { good: [[], Array.from({ length: 32 }, (_, n) => `pack-${n}`)], bad: ['hi-1', {}, [5], ['a\nb'], ['x'.repeat(65)], Array.from({ length: 33 }, (_, n) => `pack-${n}`)] }
    }
  },
  telemetry: {
    decode: decodeTelemetry,
    full: { battery: 50, charging: true, rssi: -70, network: '4g', volume: 70, uptimeS: 100, freeBytes: 2000, resetReason: 'power' },
    fields: {
      battery: PERCENT, charging: { good: [true, false], bad: ['yes', 1, 0, {}] }, rssi: { good: [-200, 0], bad: [-201, 1, '-70'] }, network: WORD, volume: PERCENT, uptimeS: UINT, freeBytes: UINT,
      resetReason: WORD
    }
  }
}

for (const [name, { decode, full, fields }] of Object.entries(ROWS)) {
  t.test(`${name}: each field takes its limits, and its fault is named without quoting it`, async t => {
    const bytes = (message: Fields): Buffer => Buffer.from(JSON.stringify(message))
    const { amount, ...rest } = full
    t.same(decode(bytes(full)), amount === undefined ? full : { ...rest, amountMinor: Number(amount) }, 'with every field')
    t.same(decode(bytes({ ...full, somethingNew: { of: 'a newer peer' } })), decode(bytes(full)), 'unknown fields are passed over')
    t.same(new Set(Object.keys(fields)), new Set(Object.keys(full)), 'every field has its values')
    for (const [field, { good, bad }] of Object.entries(fields)) {
      for (const value of good) t.doesNotThrow(() => decode(bytes({ ...full, [field]: value })), `${field} ${JSON.stringify(value)?.slice(0, 40)}`)
      for (const value of bad) {
        try {
          decode(bytes({ ...full, [field]: value }))
          t.fail(`${field} took ${JSON.stringify(value)?.slice(0, 80)}`)
        } catch (error) {
          if (!isSoundboxError(error, 'MESSAGE_INVALID')) throw error
          if (typeof value === 'string' && value.length > 20) t.notMatch(error.message, value, `${field} is not quoted`)
        }
      }
      if (!bad.includes(undefined)) t.notOk(field in decode(bytes({ ...full, [field]: undefined })) && field !== 'args' && field !== 'quietHours', `${field} may be left out`)
    }
  })
}

t.test('a message is a JSON object within its size', async t => {
  const sized = (bytes: number): object => ({ pad: 'x'.repeat(bytes - '{"pad":""}'.length) })
  t.equal(encodeMessage(sized(MESSAGE_BYTES_MAX)).length, MESSAGE_BYTES_MAX)
  t.throws(() => encodeMessage(sized(MESSAGE_BYTES_MAX + 1)), { code: 'MESSAGE_INVALID' })
  t.ok(decodeMessage(encodeMessage(sized(MESSAGE_BYTES_MAX))))
  t.throws(() => decodeMessage(Buffer.from(JSON.stringify(sized(MESSAGE_BYTES_MAX + 1)))), { code: 'MESSAGE_INVALID' })
  for (const text of ['', ' ', 'x', 'null', '5', '"a"', '[]', '[{}]', '{', '{"a":1}x']) t.throws(() => decodeMessage(Buffer.from(text)), { code: 'MESSAGE_INVALID' }, text)
  const backing = Buffer.from('xx{"a":1}yy')
  t.same(decodeMessage(new Uint8Array(backing.buffer, backing.byteOffset + 2, 7)), { a: 1 }, 'a view of a larger buffer')
})

t.test('arguments of a command are plain values; anything deeper is passed over', async t => {
  const args = { n: 1, s: 'x', b: false, deep: { a: 1 }, list: [1], nothing: null }
  t.same(decodeCommand(encodeMessage({ id: ID, name: 'test', args, expiresAt: 1 })).args, { n: 1, s: 'x', b: false })
  t.same(decodeCommand(encodeMessage({ id: ID, name: 'test', expiresAt: 1 })).args, {})
})

t.test('random bytes never crash a decoder', async t => {
  forSeeds(300, (rand, seed) => {
    const bytes = Buffer.from(Array.from({ length: Math.floor(rand() * 64) }, () => Math.floor(rand() * 256)))
    for (const { decode } of Object.values(ROWS)) {
      try {
        decode(bytes)
        t.fail(`SEED=${seed} was taken`)
      } catch (error) {
        if (!isSoundboxError(error, 'MESSAGE_INVALID')) throw error
      }
    }
  })
})

t.test('the announcement vectors hold in both directions', async t => {
  const { bank, transaction, id } = VECTORS.announcementId
  t.equal(announcementId(bank, transaction), id)
  t.ok(isMessageId(id) && !isMessageId(id.toUpperCase()) && !isMessageId(`${id}0`) && !isMessageId(5))
  t.not(announcementId('pnb7', '656789878ee'), id, 'the border between bank and transaction counts')
  for (const wire of VECTORS.wire) {
    const { sig, amount, ...rest } = wire
    const announcement = { ...rest, amountMinor: Number(amount) } as Announcement
    t.same(JSON.parse(sealAnnouncement(announcement, VECTORS.tid, VECTORS.signingKey).toString()), wire)
    t.same(openAnnouncement(Buffer.from(JSON.stringify(wire)), VECTORS.tid, VECTORS.signingKey), { ...announcement, sig })
    const reordered = Object.fromEntries(Object.entries(wire).reverse())
    t.same(openAnnouncement(Buffer.from(JSON.stringify(reordered, null, 2)), VECTORS.tid, VECTORS.signingKey), { ...announcement, sig }, 'order and white space are free')
  }
})

t.test('no single flipped bit of an announcement is accepted', async t => {
  for (const wire of VECTORS.wire) {
    const bytes = Buffer.from(JSON.stringify(wire))
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const other = Buffer.from(bytes)
      other[bit >> 3]! ^= 1 << (bit & 7)
      try {
        openAnnouncement(other, VECTORS.tid, VECTORS.signingKey)
        t.fail(`bit ${bit & 7} of byte ${bit >> 3} was not noticed: ${other.toString()}`)
      } catch (error) {
        if (!isSoundboxError(error, 'SIGNATURE_INVALID') && !isSoundboxError(error, 'MESSAGE_INVALID')) throw error
      }
    }
  }
})

t.test('an announcement opens with the key of its own box only, and no field can be swapped for another', async t => {
  const payment: Announcement = { v: 1, id: ID, seq: 1, kind: 'payment', amountMinor: 1900, currency: 'INR', language: 'HINDI', issuedAt: 1, expiresAt: 2 }
  const bytes = sealAnnouncement(payment, 'SB-0001', 'key')
  t.throws(() => openAnnouncement(bytes, 'SB-0002', 'key'), { code: 'SIGNATURE_INVALID' }, 'another box with the same key')
  t.throws(() => openAnnouncement(bytes, 'SB-0001', 'other'), { code: 'SIGNATURE_INVALID' })
  const { sig } = JSON.parse(bytes.toString()) as { sig: string }
  const changes: Partial<Announcement>[] = [
    { id: `f${ID.slice(1)}` }, { seq: 2 }, { kind: 'summary' }, { amountMinor: 190_000 }, { currency: 'USD' }, { language: 'TAMIL' }, { issuedAt: 2 }, { expiresAt: 3 },
    { txnType: 'UPI' }, { count: 0 }, { prompt: 'code' }
  ]
  for (const change of changes) {
    const { amountMinor, ...rest } = { ...payment, ...change }
    t.throws(() => openAnnouncement(encodeMessage({ ...rest, amount: String(amountMinor), sig }), 'SB-0001', 'key'), { code: 'SIGNATURE_INVALID' }, Object.keys(change).join())
  }
})
