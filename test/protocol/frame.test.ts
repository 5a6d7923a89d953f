import { crc32 } from 'node:zlib'
import t from 'tap'
import type { Random } from '../../firmware-sim/faults.js'
import { encodeFrame, type Frame, FRAME_BYTES_MAX, type FrameEvent, makeFrameReader, PAYLOAD_BYTES_MAX, SoundboxError, WIRE_BYTES_MAX } from '../../protocol/index.js'
import { forSeeds } from '../support/serial-world.js'

function randomBytes (random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)))
}

/** Bytes that need escaping come often. */
function randomFrame (random: Random): Frame {
  const payload = randomBytes(random, Math.floor(random() * 120)).map(byte => byte < 40 ? 0xc0 : byte < 80 ? 0xdb : byte)
  return { type: Math.floor(random() * 256), seq: Math.floor(random() * 65_536), payload: Buffer.from(payload) }
}

function readAll (bytes: Uint8Array): FrameEvent[] {
  return makeFrameReader().push(bytes)
}

function framesIn (events: readonly FrameEvent[]): Frame[] {
  return events.flatMap(event => event.kind === 'frame' ? [event.frame] : [])
}

t.test('a frame is the bytes of the contract', async t => {
  // Made with Python's zlib.crc32, not with this code.
  const rows: [Frame, string, string][] = [
    [{ type: 11, seq: 1, payload: Buffer.from('{}') }, 'c0010b00017b7deef3849cc0', 'an ACK'],
    [{ type: 1, seq: 0, payload: Buffer.from('{"session":7}') }, 'c0010100007b2273657373696f6e223a377dae136859c0', 'a HELLO of a host'],
    [{ type: 13, seq: 0xc0db, payload: Buffer.alloc(0) }, 'c0010ddbdcdbdd4bdbddf738c0', 'END and ESC are escaped, in the crc as well; an empty payload is one']
  ]
  for (const [frame, hex, why] of rows) {
    t.equal(encodeFrame(frame).toString('hex'), hex, why)
    t.same(readAll(Buffer.from(hex, 'hex')), [{ kind: 'frame', frame }], `${why}, read back`)
  }
})

t.test('a payload fits at the limit and not one past it', async t => {
  const largest = { type: 2, seq: 1, payload: Buffer.alloc(PAYLOAD_BYTES_MAX, 0xc0) }
  const wire = encodeFrame(largest)
  t.ok(wire.length <= WIRE_BYTES_MAX)
  t.same(readAll(wire), [{ kind: 'frame', frame: largest }])
  const rows: Frame[] = [
    { type: 2, seq: 1, payload: Buffer.alloc(PAYLOAD_BYTES_MAX + 1) },
    { type: 256, seq: 1, payload: Buffer.alloc(0) }, { type: -1, seq: 1, payload: Buffer.alloc(0) },
    { type: 1, seq: 65_536, payload: Buffer.alloc(0) }, { type: 1, seq: 1.5, payload: Buffer.alloc(0) }
  ]
  for (const frame of rows) t.throws(() => encodeFrame(frame), { code: 'FRAME_INVALID' })
  t.ok(encodeFrame({ type: 255, seq: 65_535, payload: Buffer.alloc(0) }) instanceof Buffer)
})

t.test('what is too long is let go at the next end, and what is too short is no frame', async t => {
  const good = encodeFrame({ type: 1, seq: 1, payload: Buffer.from('{}') })
  const events = readAll(Buffer.concat([Buffer.alloc(FRAME_BYTES_MAX + 1, 0x55), good]))
  t.same(events.map(event => event.kind === 'bad' ? event.why : event.kind), ['long', 'frame'])
  t.same(readAll(Buffer.concat([Buffer.alloc(FRAME_BYTES_MAX, 0x55), good])).map(event => event.kind === 'bad' ? event.why : event.kind), ['crc', 'frame'])
  t.same(readAll(Buffer.from('c00102030405060708c0', 'hex')).map(event => event.kind === 'bad' && event.why), ['crc'])
  t.same(readAll(Buffer.from('c001020304050607c0', 'hex')), [{ kind: 'bad', why: 'short', bytes: 7 }])
  t.same(readAll(Buffer.from('c0c0c0c0', 'hex')), [], 'ends alone are nothing')
})

t.test('a broken escape and another version are no frame, and the next one is read', async t => {
  const good = encodeFrame({ type: 1, seq: 1, payload: Buffer.from('{}') })
  const other = Buffer.from([2, 1, 0, 1, 0, 0, 0, 0])
  other.writeUInt32BE(crc32(other.subarray(0, 4)), 4)
  const rows: [string, string][] = [['c001db55c0', 'escape'], ['c001dbc0', 'escape'], [`c0${other.toString('hex')}c0`, 'version']]
  for (const [hex, why] of rows) {
    const events = readAll(Buffer.concat([Buffer.from(hex, 'hex'), good]))
    t.same(events.map(event => event.kind === 'bad' ? event.why : event.kind), [why, 'frame'], hex)
  }
})

t.test('any chunking of any frames with any garbage between them reads the same', async t => {
  await forSeeds(200, (random, seed) => {
    const frames = Array.from({ length: 1 + Math.floor(random() * 6) }, () => randomFrame(random))
    const wire = Buffer.concat(frames.flatMap(frame => [randomBytes(random, random() < 0.5 ? 0 : Math.floor(random() * 2500)), Buffer.from([0xc0]), encodeFrame(frame)]))
    const whole = readAll(wire)
    const reader = makeFrameReader()
    const chunked: FrameEvent[] = []
    for (let at = 0; at < wire.length;) {
      const length = 1 + Math.floor(random() ** 3 * 300)
      chunked.push(...reader.push(wire.subarray(at, at + length)))
      at += length
    }
    if (JSON.stringify(chunked) !== JSON.stringify(whole)) t.fail(`SEED=${seed} chunks read otherwise`)
    if (JSON.stringify(framesIn(whole)) !== JSON.stringify(frames)) t.fail(`SEED=${seed} frames are lost or made up`)
  })
  t.pass('200 streams')
})

t.test('one flipped, lost or added bit is never accepted as another frame', async t => {
  const frame = { type: 2, seq: 513, payload: Buffer.from('{"id":"00","clips":["n19"],"x":"\u00c0\u00db"}') }
  const wire = encodeFrame(frame)
  let tried = 0
  for (let bit = 0; bit < wire.length * 8; bit++) {
    const flipped = Buffer.from(wire)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    const seen = framesIn(readAll(Buffer.concat([flipped, wire])))
    const wrong = seen.filter(one => JSON.stringify(one) !== JSON.stringify(frame))
    if (wrong.length > 0 || seen.length > 1) t.fail(`bit ${bit} was accepted`)
    tried += 1
  }
  for (let at = 1; at < wire.length - 1; at++) {
    const without = Buffer.concat([wire.subarray(0, at), wire.subarray(at + 1)])
    if (framesIn(readAll(without)).length > 0) t.fail(`a frame without byte ${at} was accepted`)
  }
  t.equal(tried, wire.length * 8)
})

t.test('random bytes never throw, never make a frame and are forgotten at the next one', async t => {
  await forSeeds(200, (random, seed) => {
    const reader = makeFrameReader()
    const good = { type: 3, seq: seed % 65_536, payload: Buffer.from('{}') }
    const noise = randomBytes(random, Math.floor(random() * 5000))
    if (framesIn(reader.push(noise)).length > 0) t.fail(`SEED=${seed} noise is a frame`)
    if (framesIn(reader.push(Buffer.concat([Buffer.from([0xc0]), encodeFrame(good)]))).length !== 1) t.fail(`SEED=${seed} the frame behind noise is lost`)
  })
  t.pass('200 streams')
})

t.test('payloads are copies', async t => {
  const reader = makeFrameReader()
  const first = framesIn(reader.push(encodeFrame({ type: 1, seq: 1, payload: Buffer.from('first') })))
  reader.push(encodeFrame({ type: 1, seq: 2, payload: Buffer.from('other') }))
  t.equal(first[0]?.payload.toString(), 'first')
  t.ok(new SoundboxError('FRAME_INVALID', '').retryable)
})
