// protocol/README.md is what firmware is written from: its examples must be what the code does.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  announcementId, BOX_COMMANDS, BUTTONS, COMMAND_NAMES, decodeAck, decodeAnnouncement, decodeCommand, decodeDesired, decodeHello, decodeReported, decodeSerialMessage, decodeTelemetry,
  DOWN_TOPICS, FRAME_BYTES_MAX, LANGUAGES, linkPolicy, makeDfReader, makeFrameReader, NAK_REASONS, openAnnouncement, PAYLOAD_BYTES_MAX, PROMPTS, sealAnnouncement, SERIAL_TYPES,
  type SerialType, serialTypeName, UP_TOPICS, WIRE_BYTES_MAX
} from '../../protocol/index.js'

const PAGE = readFileSync('protocol/README.md', 'utf8')
const FENCES = [...PAGE.matchAll(/```(json|canonical)(?: ([^\n]+))?\n([\s\S]*?)```/g)].map(([, language = '', name = '', body = '']) => ({ language, name, body: body.trim() }))
const KEY = 'example-key-of-SB-0001'

const DECODERS: Record<string, (bytes: Buffer) => object> = {
  hello: decodeHello, announce: decodeAnnouncement, ack: decodeAck, command: decodeCommand, desired: decodeDesired, reported: decodeReported, telemetry: decodeTelemetry
}

t.test('every example message is one, and loses nothing when it is read', async t => {
  const examples = FENCES.filter(fence => fence.language === 'json')
  t.ok(examples.length >= 19)
  for (const { name, body } of examples) {
    const type = name.replace('serial ', '') as SerialType
    const read = name.startsWith('serial ') ? decodeSerialMessage(SERIAL_TYPES[type], Buffer.from(body)) : DECODERS[name]?.(Buffer.from(body))
    const { type: _type, amountMinor, data, ...rest } = read as Record<string, unknown>
    const again = { ...rest, ...(amountMinor === undefined ? {} : { amount: String(amountMinor) }), ...(data === undefined ? {} : { data: Buffer.isBuffer(data) ? data.toString('base64') : data }) }
    t.same(again, JSON.parse(body), `${name} ${body.slice(0, 60)}`)
  }
})

t.test('the signatures and the canonical form of the page are ours', async t => {
  const announcements = FENCES.filter(fence => fence.name === 'announce').map(fence => Buffer.from(fence.body))
  t.equal(announcements.length, 2)
  for (const bytes of announcements) {
    const { sig, ...announcement } = openAnnouncement(bytes, 'SB-0001', KEY)
    t.equal(JSON.parse(sealAnnouncement(announcement, 'SB-0001', KEY).toString()).sig, sig)
    t.throws(() => openAnnouncement(bytes, 'SB-0002', KEY), { code: 'SIGNATURE_INVALID' })
  }
  const { id, amountMinor, seq, kind, currency, language, txnType = '', count = '', prompt = '', issuedAt, expiresAt } = decodeAnnouncement(announcements[0]!)
  const values = ['soundbox-v1', 'SB-0001', id, seq, kind, amountMinor, currency, language, txnType, count, prompt, issuedAt, expiresAt]
  t.equal(FENCES.find(fence => fence.language === 'canonical')?.body, values.join('\\n'))
  t.equal(announcementId('HDFC', 'TXN-1'), id)
})

t.test('the frames of the page are read as what they are said to be', async t => {
  const frames = [...PAGE.matchAll(/^\| (.+?) \| `(c0(?: [0-9a-f]{2})+ c0)` \|$/gm)].map(([, what = '', hex = '']) => ({ what, bytes: Buffer.from(hex.replaceAll(' ', ''), 'hex') }))
  t.equal(frames.length, 5)
  for (const { what, bytes } of frames) {
    const events = makeFrameReader().push(bytes)
    const [event] = events
    t.equal(events.length, 1)
    if (event?.kind !== 'frame') t.fail(`${what} is no frame`)
    else {
      t.match(what, new RegExp(`\\b${serialTypeName(event.frame.type)}\\b`), what)
      t.ok(decodeSerialMessage(event.frame.type, event.frame.payload))
    }
  }
  const module = /`(7e(?: [0-9a-f]{2})+ ef)`/.exec(PAGE)?.[1] ?? ''
  t.same(makeDfReader().push(Buffer.from(module.replaceAll(' ', ''), 'hex')), [{ command: 6, param: 30, wantsFeedback: true }])
})

t.test('types, words and numbers of the page are those of the code', async t => {
  for (const words of [LANGUAGES, PROMPTS, NAK_REASONS]) {
    for (const word of words) t.ok(PAGE.includes(word), word)
  }
  for (const word of [...BOX_COMMANDS, ...COMMAND_NAMES, ...BUTTONS, ...DOWN_TOPICS, ...UP_TOPICS]) t.ok(PAGE.includes(`\`${word}\``), word)
  for (const [name, type] of Object.entries(SERIAL_TYPES)) {
    if (!name.startsWith('FIRMWARE') && name !== 'ACK' && name !== 'NAK') t.match(PAGE, new RegExp(`^\\| ${type} \\| ${name} \\|`, 'm'), name)
  }
  const { turnMs, attemptsMax, helloEveryMs, pingEveryMs, silenceMaxMs, nakEveryMs } = linkPolicy(115_200)
  t.same([turnMs, attemptsMax, helloEveryMs, pingEveryMs, silenceMaxMs, nakEveryMs], [250, 6, 1000, 10_000, 35_000, 50], 'the numbers that the page names')
  t.same([PAYLOAD_BYTES_MAX, FRAME_BYTES_MAX, WIRE_BYTES_MAX], [1024, 1032, 2066])
})
