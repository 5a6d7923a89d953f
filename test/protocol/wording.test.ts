// Every language of the registry: hand-written sentences, and properties over amounts. SEED=17 replays one seed; SEEDS sets how many.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { LANGUAGE_CODES, LANGUAGES, type Language } from '../../protocol/languages.js'
import { ANNOUNCEMENT_KINDS, PROMPTS } from '../../protocol/messages.js'
import { AMOUNT_MINOR_MAX } from '../../protocol/money.js'
import { clipInventory, hasWording, isSafeText, type Wordable, wordAnnouncement, wordedLanguages } from '../../protocol/wording/index.js'
import { countingClips, NUMBER_MAX, numberFromGroups, sideBySide } from '../../protocol/wording/numbers.js'
import { WORDINGS } from '../../protocol/wording/registry.js'
import { wordIn } from '../../protocol/wording/sentence.js'
import { BARE_PROMPTS, type LanguageWording, PAUSE } from '../../protocol/wording/shape.js'

type Asked = Partial<Wordable> & { repeat?: boolean }
type Expectations = { sentences: [Asked, string, string][], clips: [Asked, string[]][] }

const CLIPS_MIN = 130
const CLIPS_MAX = 150
const TEXT_CHARS_MAX = 400
const SEEDS = process.env['SEED'] === undefined ? Array.from({ length: Number(process.env['SEEDS'] ?? 3) }, (_, i) => i + 1) : [Number(process.env['SEED'])]
const WORDED = wordedLanguages().map(({ language }) => language)

function expectations (language: Language): Expectations {
  return JSON.parse(readFileSync(new URL(`wording/${LANGUAGE_CODES[language]}.json`, import.meta.url), 'utf8')) as Expectations
}

function say (language: Language, { repeat = false, ...asked }: Asked) {
  return wordAnnouncement({ kind: 'payment', amountMinor: 0, currency: 'INR', language, ...asked }, { repeat })
}

function random (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6D2B79F5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296
  }
}

/** Paise, every edge of a scale with its neighbours, and seeded amounts of every size. */
function amounts (seed: number): number[] {
  const edges = [1, 2, 10, 99, 100, 101, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 999_999_999]
    .flatMap(rupees => [-101, -100, -99, -1, 0, 1, 99, 100, 101].map(step => rupees * 100 + step))
  const rand = random(seed)
  const any = Array.from({ length: 3000 }, () => Math.floor(10 ** (rand() * 11)))
  return [...new Set([...Array.from({ length: 300 }, (_, i) => i + 1), ...edges, ...any, AMOUNT_MINOR_MAX])].filter(minor => minor >= 1 && minor <= AMOUNT_MINOR_MAX)
}

for (const language of WORDED) {
  t.test(`${language} says what people expect`, async t => {
    for (const [asked, text, why] of expectations(language).sentences) t.equal(say(language, asked).text, text, why)
    for (const [asked, clips] of expectations(language).clips) t.same(say(language, asked).clips, clips)
    const rows = expectations(language).sentences.map(([asked]) => asked.prompt ?? asked.kind ?? 'payment')
    t.same([...ANNOUNCEMENT_KINDS.filter(kind => kind !== 'prompt'), ...PROMPTS].filter(name => !rows.includes(name)), [], 'every kind and prompt has a row')
  })

  t.test(`${language} words every amount safely, and no two alike`, async t => {
    const inventory = new Set(clipInventory(language).map(({ id }) => id))
    for (const seed of SEEDS) {
      const seen = new Map<string, string>()
      const faults: string[] = []
      for (const amountMinor of amounts(seed)) {
        for (const kind of ['payment', 'failed-payment'] as const) {
          const { text, clips } = say(language, { kind, amountMinor, txnType: 'UPI' })
          const what = `${kind} of ${amountMinor}`
          if (!isSafeText(text) || text.normalize('NFC') !== text || text.length > TEXT_CHARS_MAX || /\d| {2}|^ | $/.test(text)) faults.push(`${what}: ${text}`)
          if (clips.some(clip => !inventory.has(clip))) faults.push(`${what}: ${clips.join(' ')}`)
          for (const key of [text, clips.join(' ')]) {
            if (seen.has(key)) faults.push(`${what} sounds as ${seen.get(key)}`)
            seen.set(key, what)
          }
        }
      }
      t.same(faults, [], `SEED=${seed}`)
      t.ok(seen.size > 10_000, 'the seed made enough amounts')
    }
  })

  t.test(`${language} counts to a lakh without saying two numbers alike`, async t => {
    const wording = WORDINGS[language]!
    const words = new Set(Array.from({ length: 100_001 }, (_, n) => wording.number(n).map(clip => wording.clips[clip]).join(' ')))
    t.equal(words.size, 100_001)
    t.doesNotThrow(() => wording.number(NUMBER_MAX))
    t.throws(() => wording.number(NUMBER_MAX + 1), RangeError)
    t.throws(() => wording.number(-1), RangeError)
    t.throws(() => wording.number(1.5), RangeError)
  })

  t.test(`${language} has a clip inventory that a box can hold, and uses all of it`, async t => {
    const inventory = clipInventory(language)
    t.ok(inventory.length >= CLIPS_MIN && inventory.length <= CLIPS_MAX, `${inventory.length} clips`)
    for (const { id, text } of inventory) {
      t.match(id, /^[a-z][a-z0-9-]{0,23}$/)
      t.ok(isSafeText(text) && text.normalize('NFC') === text && text.trim() === text, `${id}: ${text}`)
    }
    for (let n = 0; n < 100; n++) t.equal(inventory[n]?.id, `n${n}`, 'numbers come first, so that clip numbers agree between languages')
    const vias = ['UPI', 'CARD', 'POS', 'MATM', 'AEPS']
    const used = new Set([
      ...amounts(1).flatMap(amountMinor => vias.flatMap(txnType => say(language, { amountMinor, txnType }).clips)),
      ...[0, 1, 2].flatMap(count => PROMPTS.flatMap(prompt => say(language, { kind: 'prompt', prompt, count, amountMinor: 100, repeat: true }).clips)),
      ...[1, 2].flatMap(count => (['summary', 'failed-payment', 'reversed-payment', 'test'] as const).flatMap(kind => say(language, { kind, count, amountMinor: 100 }).clips))
    ])
    t.same(inventory.map(({ id }) => id).filter(id => !used.has(id)), [], 'a clip that no announcement plays')
  })

  t.test(`${language} never lets another kind sound like money that came`, async t => {
    const wording = WORDINGS[language]!
    const some = [1, 50, 100, 101, 200, 12345]
    const money = new Set(some.flatMap(amountMinor => say(language, { kind: 'test', amountMinor }).clips))
    const came = some.flatMap(amountMinor => say(language, { amountMinor }).clips).filter(clip => !money.has(clip))
    t.ok(came.length > 0, 'a payment has words of its own')
    for (const name of Object.keys(wording.sentences).filter(key => key !== 'payment')) {
      const isPrompt = (PROMPTS as readonly string[]).includes(name)
      const asked = { ...(isPrompt ? { kind: 'prompt', prompt: name } : { kind: name }), count: 2, amountMinor: 12345, txnType: 'UPI' } as Asked
      const { clips, text } = say(language, asked)
      t.same(clips.filter(clip => came.includes(clip)), [], name)
      for (const clip of came) t.notOk(text.toLowerCase().includes((wording.clips[clip] ?? '').toLowerCase()), `${name}: ${text}`)
    }
  })
}

t.test('a language without a wording is said in English, and the caller can see it', async t => {
  t.ok(hasWording('ENGLISH') && hasWording('HINDI'))
  t.equal(say('HINDI', { amountMinor: 100 }).isFallback, false)
  t.equal(say('HINDI', { amountMinor: 100 }).language, 'HINDI')
  const english = say('ENGLISH', { amountMinor: 1950 })
  for (const language of LANGUAGES.filter(name => !hasWording(name))) {
    t.same(say(language, { amountMinor: 1950 }), { ...english, isFallback: true }, language)
    t.same(clipInventory(language), clipInventory('ENGLISH'))
  }
})

t.test('what cannot be said is refused by code, at the limit and one past it', async t => {
  const refused: [Asked, string, string][] = [
    [{ amountMinor: 0 }, 'AMOUNT_INVALID', 'nothing came'],
    [{ amountMinor: -1 }, 'AMOUNT_INVALID', 'negative'],
    [{ amountMinor: 1.5 }, 'AMOUNT_INVALID', 'half a paisa'],
    [{ amountMinor: Number.NaN }, 'AMOUNT_INVALID', 'not a number'],
    [{ amountMinor: AMOUNT_MINOR_MAX + 1 }, 'AMOUNT_INVALID', 'one past the limit'],
    [{ kind: 'test', amountMinor: -1 }, 'AMOUNT_INVALID', 'negative test'],
    [{ kind: 'summary', amountMinor: 0, count: 1 }, 'AMOUNT_INVALID', 'a summary has an amount'],
    [{ kind: 'prompt', prompt: 'day-total', count: 1 }, 'AMOUNT_INVALID', 'a day with payments has an amount'],
    [{ amountMinor: 100, currency: 'USD' }, 'MESSAGE_INVALID', 'dollars are not rupees'],
    [{ kind: 'summary', amountMinor: 100 }, 'MESSAGE_INVALID', 'no count'],
    [{ kind: 'summary', amountMinor: 100, count: 0 }, 'MESSAGE_INVALID', 'nothing to sum up'],
    [{ kind: 'summary', amountMinor: 100, count: 1_000_001 }, 'MESSAGE_INVALID', 'one past the limit'],
    [{ kind: 'prompt' }, 'MESSAGE_INVALID', 'no prompt named'],
    [{ kind: 'prompt', prompt: 'volume' }, 'MESSAGE_INVALID', 'no volume'],
    [{ kind: 'prompt', prompt: 'volume', count: 101 }, 'MESSAGE_INVALID', 'one past the limit'],
    [{ kind: 'prompt', prompt: 'code', count: 1_000_000 }, 'MESSAGE_INVALID', 'seven digits'],
    [{ kind: 'prompt', prompt: 'code', count: -1 }, 'MESSAGE_INVALID', 'negative'],
    [{ kind: 'prompt', prompt: 'day-total', count: 0.5 }, 'MESSAGE_INVALID', 'half a payment']
  ]
  for (const [asked, code, why] of refused) t.throws(() => say('ENGLISH', asked), { code }, why)
  t.equal(say('ENGLISH', { kind: 'prompt', prompt: 'code', count: 999_999 }).text, 'Code, nine nine nine, nine nine nine')
  t.match(say('ENGLISH', { kind: 'summary', count: 1_000_000, amountMinor: AMOUNT_MINOR_MAX }).text, /^Ten lakh payments, /)
  t.equal(say('ENGLISH', { kind: 'prompt', prompt: 'connected', currency: 'ZZZ' }).text, 'Connected', 'a prompt has no currency')
})

t.test('safe text is letters, marks, digits, space, full stop and comma', async t => {
  for (const text of ['Received rupees nineteen', 'यू पी आई', '19.50, ok', 'é']) t.ok(isSafeText(text), text)
  for (const char of '"\'`()[]{}<>$&|;:\\/*?!#%-_=+^~@\n\r\t\0\u00a0\u200d\u2028') t.notOk(isSafeText(`a${char}b`), `U+${char.codePointAt(0)?.toString(16)}`)
  t.notOk(isSafeText(''))
})

t.test('a language with joining forms and compound words fits into the shape', async t => {
  const plain = { payment: 'kodu', hundred: 'nuuru', 'hundred-join': 'nuutri', thousand: 'aayiram', 'thousand-join': 'aayirathi', rupees: 'ruupa', paise: 'paisa' }
  const number = (n: number) => numberFromGroups(n, (count, scale, isLast) => [...(count === 1 ? [] : [`n${count}`]), isLast ? scale : `${scale}-join`])
  const sentence = () => ['payment']
  const joining: LanguageWording = {
    reviewed: false,
    number,
    clips: {
      ...countingClips(['', 'onnu', 'randu']), ...plain, repeat: 're', 'via-upi': 'u', 'via-card': 'c', 'via-pos': 'p', 'via-matm': 'm', 'via-aeps': 'a',
      starting: 's', connected: 'c', 'connection-lost': 'l', 'battery-low': 'b', 'no-payments': 'n'
    },
    sentences: {
      ...BARE_PROMPTS, 'failed-payment': sentence, 'reversed-payment': sentence, summary: sentence, test: sentence, volume: sentence, 'day-total': sentence, code: sentence,
      payment: ({ money }) => ['payment', PAUSE, ...number(money.rupees), 'rupees']
    },
    sandhi: text => text.replaceAll('tri onnu', 'triyonnu')
  }
  const said = (rupees: number) => wordIn(joining, { kind: 'payment', amountMinor: rupees * 100, currency: 'INR' })
  t.equal(said(100).text, 'Kodu, nuuru ruupa')
  t.equal(said(101).text, 'Kodu, nuutriyonnu ruupa')
  t.same(said(101).clips, ['payment', 'hundred-join', 'n1', 'rupees'])
  t.equal(said(2000).text, 'Kodu, randu aayiram ruupa')
  t.equal(said(2202).text, 'Kodu, randu aayirathi randu nuutri randu ruupa')
  t.throws(() => said(3), /does not list/, 'a clip that is missing in the table is our own mistake and loud')
  t.same(numberFromGroups(10_01_00_000, sideBySide), ['n10', 'crore', 'n1', 'lakh'])
})

t.test('a summary of payments that came too fast does not speak of being offline', async t => {
  const summary = { kind: 'summary', amountMinor: 4500, currency: 'INR', count: 2 } as const
  for (const language of WORDED) {
    const offline = wordAnnouncement({ ...summary, language })
    const online = wordAnnouncement({ ...summary, language }, { isOnline: true })
    t.same(online.clips, offline.clips.filter(clip => clip !== 'while-offline'), language)
    t.ok(isSafeText(online.text) && online.text.length < offline.text.length, online.text)
    t.notMatch(online.text, /^,|,$|, ,/, language)
  }
  t.equal(wordAnnouncement({ ...summary, language: 'ENGLISH' }, { isOnline: true }).text, 'Two payments, forty five rupees')
})
