// The codec under seeded random messages and damage: what goes in comes out, and no damaged buffer is read as something else.
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { compileSpec, Iso8583Error, type Message, pack, type Spec, type SpecJson, unpack } from '../../../protocol/iso8583/index.js'
import { EASE } from '../../../protocol/iso8583/options.js'
import { CHARACTERS, damaged, forSeeds, type Rand, someMessage } from './random-message.js'

const SPECS = Object.values(JSON.parse(readFileSync('test/vectors/iso8583-specs.json', 'utf8')) as Record<string, SpecJson>)
const EBCDIC: SpecJson = {
  ...SPECS[0]!, name: 'ebcdic', mti: { enc: 'ebcdic' }, bitmap: { enc: 'binary', primaryBytes: 8 }, codepage: '500',
  fields: Object.fromEntries(Object.entries(SPECS[0]!.fields).filter(([, field]) => field.type !== 'b').map(([key, field]) =>
    [key, { ...field, enc: 'ebcdic', ...field.len > 0 && { lenEnc: 'ebcdic' as const } } as const]))
}
const PAIRS: Array<{ json: SpecJson, spec: Spec }> = [...SPECS, EBCDIC].map(json => ({ json, spec: compileSpec(json) }))

Error.stackTraceLimit = 0 // Tens of thousands of refusals are looked at here; none for its stack.

/** The message, or undefined if it is refused as it should be. Anything else that is thrown fails the test. */
function unpacked (spec: Spec, bytes: Buffer, lenient?: Record<string, boolean>): Message | undefined {
  try {
    return unpack(spec, bytes, lenient)
  } catch (error) {
    if (error instanceof Iso8583Error && error.code === 'ISO_UNPACK_INVALID') return undefined
    throw error
  }
}

t.test('unpack gives back what pack was given, for every spec', async t => {
  forSeeds(300, (rand, seed) => {
    for (const { json, spec } of PAIRS) {
      const message = someMessage(rand, json)
      if (!isDeepStrictEqual(unpack(spec, pack(spec, message)), message)) t.fail(`SEED=${seed} ${json.name}`)
    }
  })
  t.pass()
})

t.test('every single truncation is refused', async t => {
  forSeeds(60, (rand, seed) => {
    for (const { json, spec } of PAIRS) {
      const bytes = pack(spec, someMessage(rand, json, 8))
      for (let cut = 0; cut < bytes.length; cut++) {
        if (unpacked(spec, bytes.subarray(0, cut)) !== undefined) t.fail(`SEED=${seed} ${json.name} cut at ${cut}`)
      }
    }
  })
  t.pass()
})

t.test('a control byte anywhere in a message of characters is refused', async t => {
  forSeeds(100, (rand, seed) => {
    const { json, spec } = PAIRS[0]!
    const bytes = pack(spec, someMessage(rand, json))
    for (let at = 0; at < bytes.length; at++) {
      const before = bytes[at]!
      bytes[at] = rand.below(32)
      if (unpacked(spec, bytes) !== undefined) t.fail(`SEED=${seed} byte ${at}`)
      bytes[at] = before
    }
  })
  t.pass()
})

function packFailure (spec: Spec, message: Message): Iso8583Error | undefined {
  try {
    pack(spec, message)
    return undefined
  } catch (error) {
    if (error instanceof Iso8583Error && error.code === 'ISO_PACK_INVALID') return error
    throw error
  }
}

t.test('a value with one character of another class is never packed', async t => {
  const all = Array.from({ length: 300 }, (_, code) => String.fromCharCode(code))
  forSeeds(300, (rand, seed) => {
    for (const { json, spec } of PAIRS) {
      const message = someMessage(rand, json, 6)
      const key = rand.pick(Object.keys(message.fields))
      const { type, enc } = json.fields[key]!
      const value = message.fields[key]!
      if (value === '') continue
      const at = rand.below(value.length)
      const allowed = CHARACTERS[type] + (type === 'z' && enc !== 'bcd' ? '=' : type === 'xn' ? 'CD' : '')
      const wrong = rand.pick(all.filter(character => !allowed.includes(character)))
      const fields = { ...message.fields, [key]: value.slice(0, at) + wrong + value.slice(at + 1) }
      const failure = packFailure(spec, { mti: message.mti, fields })
      if (failure?.reason !== 'character' || failure.path !== key) t.fail(`SEED=${seed} ${json.name} ${key}: ${failure?.message}`)
    }
  })
  t.pass()
})

/** A damaged buffer is refused, or is another message that packs to exactly these bytes; whatever is accepted is in the classes of the spec. */
function checkDamaged (spec: Spec, json: SpecJson, bytes: Buffer): 'refused' | 'same bytes' | 'WRONG' {
  const message = unpacked(spec, bytes)
  if (message === undefined) return 'refused'
  const inClass = Object.entries(message.fields).every(([key, value]) => {
    const { type } = json.fields[key]!
    const allowed = `${CHARACTERS[type]}${type === 'z' ? '=' : ''}`
    return [...type === 'xn' ? value.slice(1) : value].every(character => allowed.includes(character))
  })
  return inClass && pack(spec, message).equals(bytes) ? 'same bytes' : 'WRONG'
}

t.test('of 10,000 damaged buffers none crashes the reader and none is read as something it is not', async t => {
  const counts = { refused: 0, 'same bytes': 0, WRONG: 0 }
  const seeds = forSeeds(10_000, (rand, seed) => {
    const { json, spec } = rand.pick(PAIRS)
    const bytes = damaged(rand, pack(spec, someMessage(rand, json, 12)))
    const verdict = checkDamaged(spec, json, bytes)
    counts[verdict]++
    if (verdict === 'WRONG') t.fail(`SEED=${seed} ${json.name} ${bytes.toString('hex')}`)
  })
  t.equal(counts.WRONG, 0)
  t.ok(counts.refused >= seeds / 2, `${counts.refused} refused, ${counts['same bytes']} are another valid message`)
})

t.test('random bytes behind a valid head never crash, with any leniencies', async t => {
  const names = Object.keys(EASE)
  let accepted = 0
  const seeds = forSeeds(5000, (rand, seed) => {
    const { json, spec } = rand.pick(PAIRS)
    const head = pack(spec, { mti: '0200', fields: {} }).subarray(0, spec.mti.bytes)
    const bytes = damaged(rand, Buffer.concat([head, someBytes(rand, 200)]))
    const lenient = Object.fromEntries(names.filter(() => rand.below(2) === 0).map(name => [name, true]))
    const message = unpacked(spec, rand.below(2) === 0 ? bytes : damaged(rand, pack(spec, someMessage(rand, json, 8))), lenient)
    if (message === undefined) return
    accepted++
    if (!Object.values(message.fields).every(value => typeof value === 'string')) t.fail(`SEED=${seed}`)
  })
  t.ok(accepted >= seeds / 50, `${accepted} were accepted with leniencies`)
})

function someBytes (rand: Rand, limit: number): Buffer {
  return Buffer.from(Array.from({ length: rand.below(limit) }, () => rand.below(256)))
}

t.test('pack refuses or packs any odd message, and what it packs unpacks the same', async t => {
  const odd: unknown[] = ['', '0', 'x', '\u0000', 'D', '=', 'C1', 'FF',
    '1'.repeat(50), 'a'.repeat(1500), 5, null, undefined, true, {}, [], Symbol('s'), 1n, '\ud83d\ude00']
  let packed = 0
  const seeds = forSeeds(4000, (rand, seed) => {
    const { spec } = rand.pick(PAIRS)
    const fields = Object.fromEntries(Array.from({ length: rand.below(4) }, () => [String(rand.below(200)), rand.pick(odd)]))
    const message = { mti: rand.pick(['0200', '0800', '02', 'abcd', 7]), fields } as Message
    if (packFailure(spec, message) !== undefined) return
    packed++
    if (!isDeepStrictEqual(unpack(spec, pack(spec, message)), message)) t.fail(`SEED=${seed}`)
  })
  t.ok(packed >= seeds / 50, `${packed} of ${seeds} were packed`)
})

t.test('a spec with one random injury compiles or is refused by its code', async t => {
  const junk: unknown[] = [undefined, null, 0, -1, 1e9, 1.5, '', 'x', 'bcd', 'hex', 'n', 'b', [], {}, true]
  let compiled = 0
  const seeds = forSeeds(600, (rand, seed) => {
    const json = structuredClone({ ...rand.pick(SPECS), fields: Object.fromEntries(Object.entries(rand.pick(SPECS).fields).slice(0, 60)) })
    const target = rand.pick<unknown>([json, json.mti, json.bitmap, ...Object.values(json.fields)]) as Record<string, unknown>
    target[rand.pick([...Object.keys(target), 'mask', 'tlv', 'mac', 'subfields', 'constructor'])] = rand.pick(junk)
    try {
      const spec = compileSpec(json)
      compiled++
      if (spec.fields.length === 0) t.fail(`SEED=${seed}`)
    } catch (error) {
      if (!(error instanceof Iso8583Error) || error.code !== 'ISO_SPEC_INVALID' || error.path === '') t.fail(`SEED=${seed} ${String(error)}`)
    }
  })
  t.ok(compiled >= seeds / 50 && compiled <= seeds * 0.9 + 1, `${compiled} of the injured specs still mean something`)
})
