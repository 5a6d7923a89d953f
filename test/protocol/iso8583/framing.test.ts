// Frames on a TCP stream: each prefix and header, any chunking, hostile lengths.
import t from 'tap'
import { SoundboxError } from '../../../protocol/errors.js'
import {
  answerTpdu, compileFraming, encodeFrame, encodeKeepAlive, FRAME_BYTES_MAX, type FrameEvent, type Framing, type FramingJson, HEADER_BYTES_MAX,
  openFrameReader, TPDU_BYTES
} from '../../../protocol/iso8583/index.js'
import { damaged, forSeeds, type Rand } from './random-message.js'

const hex = (text: string): Buffer => Buffer.from(text.replace(/ /g, ''), 'hex')
const TPDU = { kind: 'tpdu', hex: '6000010002' } as const
const FIXED = { kind: 'fixed', hex: '49534F303235' } as const
const FRAMINGS: FramingJson[] = (['binary2', 'bcd2', 'ascii4', 'binary4'] as const).flatMap(prefix =>
  [{}, { inclusive: true }, { header: TPDU }, { inclusive: true, header: FIXED }].map(rest => ({ prefix, keepAlive: true, ...rest })))

/** Events as plain text, so that they can be compared. */
function shown (events: FrameEvent[]): string[] {
  return events.map(event => {
    if (event.kind === 'frame') return `${event.header.toString('hex')}|${event.payload.toString('hex')}`
    return event.kind === 'error' ? `${event.error.code}: ${event.error.message}` : event.kind
  })
}

function readChunks (framing: Framing, bytes: Buffer, rand?: Rand): string[] {
  const reader = openFrameReader(framing)
  const events: FrameEvent[] = []
  for (let at = 0; at < bytes.length;) {
    const size = rand === undefined ? bytes.length : rand.pick([1, 1, 2, 3, 5, 50, 500])
    events.push(...reader.push(bytes.subarray(at, at + size)))
    at += size
  }
  return shown(events)
}

t.test('a frame has the bytes that its framing says', async t => {
  const payload = Buffer.from('0800')
  for (const [json, want] of [
    [{}, '0004 30383030'], [{ inclusive: true }, '0006 30383030'], [{ prefix: 'bcd2' }, '0004 30383030'],
    [{ prefix: 'bcd2', inclusive: true, header: { kind: 'fixed', hex: 'AABBCCDDEEFF' } }, '0012 AABBCCDDEEFF 30383030'],
    [{ prefix: 'ascii4' }, '30303034 30383030'], [{ prefix: 'ascii4', inclusive: true }, '30303038 30383030'], [{ prefix: 'binary4' }, '00000004 30383030'],
    [{ prefix: 'binary4', inclusive: true }, '00000008 30383030'],
    [{ header: TPDU }, '0009 6000010002 30383030']
  ] as Array<[FramingJson, string]>) t.same(encodeFrame(compileFraming(json), payload), hex(want), JSON.stringify(json))
  t.same(encodeKeepAlive(compileFraming({ keepAlive: true })), hex('0000'))
  t.same(encodeKeepAlive(compileFraming({ prefix: 'ascii4', inclusive: true, keepAlive: true })), Buffer.from('0004'))
})

t.test('any chunking of any frames reads the same', async t => {
  forSeeds(120, (rand, seed) => {
    const framing = compileFraming(rand.pick(FRAMINGS))
    const frames = Array.from({ length: 1 + rand.below(8) }, () => {
      const length = rand.below(5) === 0 ? 0 : 1 + rand.below(300)
      return Buffer.from(Array.from({ length }, () => rand.below(256)))
    })
    const stream = Buffer.concat(frames.map(frame => frame.length === 0 ? encodeKeepAlive(framing) : encodeFrame(framing, frame)))
    const want = frames.map(frame => frame.length === 0 ? 'keep-alive' : `${framing.header.toString('hex')}|${frame.toString('hex')}`)
    t.strictSame(readChunks(framing, stream), want, `SEED=${seed} in one`)
    t.strictSame(readChunks(framing, stream, rand), want, `SEED=${seed} in chunks`)
    const broken = damaged(rand, stream)
    t.strictSame(readChunks(framing, broken, rand), readChunks(framing, broken), `SEED=${seed} damaged`)
  })
})

t.test('random bytes never throw and never grow the reader past one frame', async t => {
  forSeeds(300, (rand, seed) => {
    const framing = compileFraming({ ...rand.pick(FRAMINGS), frameBytesMax: 64 })
    const reader = openFrameReader(framing)
    for (let round = 0; round < 20; round++) {
      const events = reader.push(Buffer.from(Array.from({ length: rand.below(40) }, () => rand.pick([0, 0, 0x30, 0x60, rand.below(256)]))))
      if (reader.pendingBytes() >= framing.prefixBytes + 64 || events.filter(event => event.kind === 'error').length > 1) t.fail(`SEED=${seed}`)
    }
  })
  t.pass()
})

t.test('a length at the limit is read and one past it is refused at the prefix', async t => {
  for (const json of FRAMINGS) {
    const framing = compileFraming(json)
    const room = FRAME_BYTES_MAX - framing.header.length
    const frame = encodeFrame(framing, Buffer.alloc(room, 7))
    t.strictSame(readChunks(framing, frame).length, 1)
    t.throws(() => encodeFrame(framing, Buffer.alloc(room + 1)), { code: 'ISO_FRAME_INVALID' })
    const wider = encodeFrame(compileFraming({ ...json, frameBytesMax: FRAME_BYTES_MAX + 1 }), Buffer.alloc(room + 1))
    const reader = openFrameReader(framing)
    t.strictSame(shown(reader.push(wider.subarray(0, framing.prefixBytes - 1))), [])
    t.strictSame(shown(reader.push(wider.subarray(framing.prefixBytes - 1, framing.prefixBytes))), ['ISO_FRAME_INVALID: the length says 8193 bytes, the limit is 8192'])
    t.equal(reader.pendingBytes(), 0, 'nothing is kept')
    t.strictSame(reader.push(frame), [], 'and the reader is dead')
  }
  const small = compileFraming({ frameBytesMax: 1 })
  t.strictSame(readChunks(small, hex('0001 FF')), ['|ff'])
  t.match(readChunks(small, hex('0002 FF')), [/limit is 1/])
})

t.test('a wrong length, header or empty frame is an error event', async t => {
  const rows: Array<[FramingJson, string, RegExp]> = [
    [{}, '0000', /no keep-alive/], [{ inclusive: true }, '0001', /smaller than its own bytes/],
    [{ inclusive: true, keepAlive: true }, '0000', /smaller than its own bytes/], [{ inclusive: true }, '0002', /no keep-alive/],
    [{ prefix: 'bcd2' }, '00A4', /not made of digits/], [{ prefix: 'ascii4' }, '30302034', /not made of digits/],
    [{ prefix: 'ascii4' }, '2B303034', /not made of digits/], [{ prefix: 'binary4' }, 'FFFFFFFF', /says 4294967295 bytes/],
    [{ header: TPDU }, '0005', /without a message/], [{ header: TPDU }, '0006 5000010002 00', /no TPDU/],
    [{ header: { kind: 'fixed', hex: 'AA' } }, '0002 AB00', /not the one/]
  ]
  for (const [json, bytes, want] of rows) {
    const events = openFrameReader(compileFraming(json)).push(hex(bytes))
    t.equal(events.length, 1)
    t.ok(events[0]?.kind === 'error' && events[0].error instanceof SoundboxError && want.test(events[0].error.message), `${bytes}: ${shown(events)}`)
  }
  const good = hex('0001 31 0000 0001 32')
  t.strictSame(readChunks(compileFraming(), good), ['|31',
    'ISO_FRAME_INVALID: a frame of no bytes, and this framing has no keep-alive'], 'what came before an error is kept')
  t.strictSame(shown(openFrameReader(compileFraming()).push(new Uint8Array(hex('0001 31')))), ['|31'], 'a plain Uint8Array is as good')
})

t.test('a reader tells how much of a frame is waiting', async t => {
  const reader = openFrameReader(compileFraming())
  t.equal(reader.pendingBytes(), 0)
  reader.push(hex('00'))
  t.equal(reader.pendingBytes(), 1)
  reader.push(hex('03'))
  t.equal(reader.pendingBytes(), 2)
  reader.push(hex('AABB'))
  t.equal(reader.pendingBytes(), 4)
  t.strictSame(shown(reader.push(hex('CC00'))), ['|aabbcc'])
  t.equal(reader.pendingBytes(), 1)
})

t.test('a TPDU goes back with its addresses changed over', async t => {
  const framing = compileFraming({ header: TPDU })
  const [event] = openFrameReader(framing).push(hex('0006 60AAAABBBB 31'))
  t.ok(event?.kind === 'frame')
  if (event?.kind !== 'frame') return
  const back = answerTpdu(framing, event.header)
  t.same(back, hex('60BBBBAAAA'))
  t.same(encodeFrame(framing, event.payload, back), hex('0006 60BBBBAAAA 31'))
  t.throws(() => encodeFrame(framing, event.payload, hex('61BBBBAAAA')), { code: 'ISO_FRAME_INVALID' })
  t.throws(() => encodeFrame(framing, event.payload, hex('60BBBBAA')), { code: 'ISO_FRAME_INVALID' })
  t.throws(() => encodeFrame(framing, Buffer.alloc(0)), { code: 'ISO_FRAME_INVALID' })
  t.throws(() => encodeKeepAlive(framing), { code: 'ISO_FRAME_INVALID' })
  const fixed = compileFraming({ header: { kind: 'fixed', hex: '0102030405' } })
  t.same(answerTpdu(fixed, fixed.header), fixed.header)
})

t.test('a framing with a wrong word is refused', async t => {
  t.equal(compileFraming({ header: { kind: 'fixed', hex: 'AB'.repeat(HEADER_BYTES_MAX) } }).header.length, HEADER_BYTES_MAX)
  t.equal(compileFraming({ prefix: 'bcd2', frameBytesMax: 9999 }).frameBytesMax, 9999)
  t.equal(compileFraming({ frameBytesMax: 65_535 }).frameBytesMax, 65_535)
  t.equal(TPDU_BYTES, 5)
  const wrong: unknown[] = [
    { prefix: 'binary3' }, { prefix: 'constructor' }, { frameBytesMax: 0 }, { frameBytesMax: 1.5 }, { frameBytesMax: 65_536 },
      { prefix: 'binary4', frameBytesMax: 65_536 }, { prefix: 'bcd2', frameBytesMax: 10_000 },
    { prefix: 'ascii4', inclusive: true, frameBytesMax: 9996 }, { frameBytesMax: 65_534, inclusive: true }, { header: { kind: 'fixed', hex: 'A' } },
      { header: { kind: 'fixed', hex: '' } }, { header: { kind: 'iso', hex: 'AA' } }, { header: { kind: 'fixed', hex: 'AB'.repeat(HEADER_BYTES_MAX + 1) } },
    { header: { kind: 'tpdu', hex: '5000010002' } }, { header: { kind: 'tpdu', hex: '60000100' } }, { header: TPDU, frameBytesMax: 5 }
  ]
  for (const json of wrong) t.throws(() => compileFraming(json as FramingJson), { code: 'CONFIG_INVALID' }, JSON.stringify(json))
})
