// Two independent libraries word the same numbers. They know nothing of our tables, so where all three agree a slip is unlikely; where
// they differ, the language's json file says how and why, and a difference that no longer occurs must be struck out.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { ToWords } from 'to-words'
import { LANGUAGE_CODES, type Language } from '../../protocol/languages.js'
import { clipInventory, wordedLanguages } from '../../protocol/wording/index.js'
import { WORDINGS } from '../../protocol/wording/registry.js'

type Witness = { locale: string, differences: [theirs: string, ours: string, why: string][] }
type Voice = (n: number) => string
const RANDOM_NUMBERS = 4000

function witnesses (language: Language): Record<string, Witness> {
  const file = new URL(`wording/${LANGUAGE_CODES[language]}.json`, import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { witnesses: Record<string, Witness> }).witnesses
}

async function openVoice (library: string, locale: string): Promise<Voice> {
  if (library === 'to-words') {
    const toWords = new ToWords({ localeCode: locale })
    return n => toWords.convert(n)
  }
  const { toCardinal } = await import(`n2words/${locale}`) as { toCardinal: Voice }
  return toCardinal
}

const plain = (text: string): string => text.normalize('NFC').toLowerCase().replaceAll('-', ' ')

function numbers (): number[] {
  let state = 20261129
  const rand = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 4294967296
  }
  return [...Array.from({ length: 1100 }, (_, n) => n), ...Array.from({ length: RANDOM_NUMBERS }, () => Math.floor(10 ** (rand() * 9))), 999_999_999]
}

for (const { language } of wordedLanguages()) {
  for (const [library, { locale, differences }] of Object.entries(witnesses(language))) {
    t.test(`${language}: ${library} words the numbers as we do, but for ${differences.length} listed differences`, async t => {
      const voice = await openVoice(library, locale)
      const wording = WORDINGS[language]!
      const words = new Map(clipInventory(language).map(({ id, text }) => [id, text]))
      const rules = differences.map(([theirs, ours, why]) => {
        t.ok(why.length > 10, `${theirs} is explained`)
        return { theirs: new RegExp(theirs, 'gu'), ours, hits: 0 }
      })
      const faults: string[] = []
      for (const n of numbers()) {
        let theirs = plain(voice(n))
        for (const rule of rules) {
          const next = theirs.replace(rule.theirs, rule.ours)
          if (next !== theirs) rule.hits++
          theirs = next
        }
        const ours = plain(wording.number(n).map(clip => words.get(clip)).join(' '))
        if (ours !== theirs) faults.push(`${n}: ours ${ours}, ${library} ${theirs}`)
      }
      t.same(faults.slice(0, 20), [])
      t.same(rules.filter(rule => rule.hits === 0).map(rule => rule.theirs.source), [], 'listed differences that do not occur')
    })
  }
}

t.test('every worded language has at least one witness', async t => {
  for (const { language } of wordedLanguages()) t.ok(Object.keys(witnesses(language)).length > 0, language)
})
