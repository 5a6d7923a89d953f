// The codec and the framing on one core, beside the npm package iso_8583 in the same run: the ratio is what can be compared between
// machines. Alone: node dist/test/bench/iso8583.bench.js
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { compileFraming, compileShippedSpec, describe, encodeFrame, iso8583JsonFromMessage, type Message, openFrameReader, pack,
  unpack } from '../../protocol/iso8583/index.js'

type Peer = new (json?: Record<string, string>) => { getRawMessage: () => Buffer, getIsoJSON: (bytes: Buffer, config: object) => Record<string, string> }
type Row = { name: string, run: (index: number) => unknown, against?: string }

const ROUNDS = 5
const ROUND_MS = 250
const VARIANTS = 16
const PEER_CONFIG = { lenHeader: false }

/** A 0200 with 15 fields; `index` varies what varies in traffic, so that no string is packed twice in a row. */
function financialRequest (index: number): Message {
  const stan = String(100_000 + index)
  return {
    mti: '0200',
    fields: {
      2: '4761739001010119', 3: '000000', 4: String(125_000 + index).padStart(12, '0'), 7: '0911131411', 11: stan, 12: '131411', 13: '0911', 18: '5411',
      22: '051', 25: '00', 32: '423935', 37: `000000${stan}`, 41: 'TERM0200', 42: 'MERCHANT0000001', 49: '356'
    }
  }
}

/** Median operations a second of several rounds after a warm-up. */
function measure (run: (index: number) => unknown): number {
  const rates: number[] = []
  for (let round = 0; round <= ROUNDS; round++) {
    const start = process.hrtime.bigint()
    let count = 0
    let elapsedNs = 0
    while (elapsedNs < ROUND_MS * 1e6) {
      for (let index = 0; index < 500; index++) run(index % VARIANTS)
      count += 500
      elapsedNs = Number(process.hrtime.bigint() - start)
    }
    if (round > 0) rates.push(count / elapsedNs * 1e9)
  }
  return rates.sort((a, b) => a - b)[ROUNDS >> 1]!
}

function rows (): Row[] {
  const Peer = createRequire(import.meta.url)('iso_8583') as Peer
  const ascii = compileShippedSpec('1987-ascii')
  const bcd = compileShippedSpec('1987-bcd')
  const messages = Array.from({ length: VARIANTS }, (_, index) => financialRequest(index))
  const jsons = messages.map(iso8583JsonFromMessage)
  const peerBytes = jsons.map(json => new Peer(json).getRawMessage())
  const asciiBytes = messages.map(message => pack(ascii, message))
  const bcdBytes = messages.map(message => pack(bcd, message))
  const framing = compileFraming()
  const stream = Buffer.concat(asciiBytes.map(bytes => encodeFrame(framing, bytes)))
  const reader = openFrameReader(framing)
  if (peerBytes.some(bytes => new Peer().getIsoJSON(bytes, PEER_CONFIG)['11'] === undefined)) throw new Error('iso_8583 does not read its own bytes')
  return [
    { name: 'iso_8583 pack', run: index => new Peer(jsons[index]).getRawMessage() },
    { name: 'iso_8583 unpack', run: index => new Peer().getIsoJSON(peerBytes[index]!, PEER_CONFIG) },
    { name: 'iso8583 ascii pack', run: index => pack(ascii, messages[index]!), against: 'iso_8583 pack' },
    { name: 'iso8583 ascii unpack', run: index => unpack(ascii, asciiBytes[index]!), against: 'iso_8583 unpack' },
    { name: 'iso8583 bcd pack', run: index => pack(bcd, messages[index]!), against: 'iso_8583 pack' },
    { name: 'iso8583 bcd unpack', run: index => unpack(bcd, bcdBytes[index]!), against: 'iso_8583 unpack' },
    { name: 'iso8583 describe', run: index => describe(ascii, messages[index]!) },
    { name: 'iso8583 frame encode', run: index => encodeFrame(framing, asciiBytes[index]!) },
    { name: `iso8583 frame read, ${VARIANTS} a chunk`, run: () => reader.push(stream) }
  ]
}

/** Measures every row and prints one line for each: `name ops/s`, with the ratio to iso_8583 where there is one. */
export async function run (): Promise<void> {
  const rates = new Map<string, number>()
  for (const { name, run: once, against } of rows()) {
    const rate = measure(once)
    rates.set(name, rate)
    const peer = against === undefined ? undefined : rates.get(against)
    console.log(`${name.padEnd(34)} ${Math.round(rate).toLocaleString('en').padStart(11)} ops/s${peer === undefined ? '' : `  ${(rate / peer).toFixed(1)} x ${against}`}`)
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await run()
