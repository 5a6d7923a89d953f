// One announcement in one language: checks what the sentence needs, then lets the language say it.
import { SoundboxError } from '../errors.js'
import type { Announcement } from '../messages.js'
import { AMOUNT_MINOR_MAX } from '../money.js'
import { CODE_DIGITS } from './numbers.js'
import { type LanguageWording, PAUSE, type Said, type SentenceName, type Spoken, type Via } from './shape.js'

/** The fields of an announcement that decide what is said, but for the language. */
export type Sayable = Pick<Announcement, 'kind' | 'amountMinor' | 'currency' | 'txnType' | 'count' | 'prompt'>

/** Payments that one summary or day total can count: as many as a message can. */
const COUNT_MAX = 1_000_000
const CODE_MAX = 10 ** CODE_DIGITS - 1

/** What each sentence must be given; what is not named here is not looked at. A day total of 0 payments has no amount. */
const NEEDS: Readonly<Record<SentenceName, { amountMin?: number, countRange?: readonly [number, number] }>> = {
  payment: { amountMin: 1 },
  'failed-payment': { amountMin: 1 },
  'reversed-payment': { amountMin: 1 },
  summary: { amountMin: 1, countRange: [1, COUNT_MAX] },
  test: { amountMin: 0 },
  starting: {},
  connected: {},
  'connection-lost': {},
  'battery-low': {},
  volume: { countRange: [0, 100] },
  'no-payments': {},
  'day-total': { amountMin: 1, countRange: [0, COUNT_MAX] },
  code: { countRange: [0, CODE_MAX] }
}

/** Transaction types of the bank API, letters only and in upper case -> how the money came. Any other is not mentioned. */
const VIA_OF: Readonly<Record<string, Via>> = {
  UPI: 'upi', CARD: 'card', DEBITCARD: 'card', CREDITCARD: 'card', POS: 'pos', MATM: 'matm', MICROATM: 'matm', AEPS: 'aeps'
}

/** `repeat`: somebody asked for it again, and the sentence says so. `isOnline`: a summary of payments that came too fast, not while offline. */
export type WordOptions = { repeat?: boolean, isOnline?: boolean }

/** Text and clips of an announcement in this language. Throws what wordAnnouncement of the door throws. */
export function wordIn (wording: LanguageWording, announcement: Sayable, { repeat = false, isOnline = false }: WordOptions = {}): { text: string, clips: readonly string[] } {
  const name = sentenceName(announcement)
  const whole = wording.sentences[name](saidOf(announcement, name))
  const sentence = isOnline ? without(whole, 'while-offline') : whole
  const spoken = repeat ? ['repeat', PAUSE, ...sentence] : sentence
  return { text: textOf(wording, spoken), clips: spoken.filter(clip => clip !== PAUSE) }
}

/** Leaves out one clip, and the rest that would then stand at an end or beside another. */
function without (spoken: Spoken, gone: string): Spoken {
  const kept = spoken.filter(clip => clip !== gone)
  return kept.filter((clip, index) => clip !== PAUSE || (index > 0 && index < kept.length - 1 && kept[index - 1] !== PAUSE))
}

function textOf (wording: LanguageWording, spoken: Spoken): string {
  const joined = spoken.map(clip => clip === PAUSE ? PAUSE : ` ${wording.clips[clip] ?? unknownClip(clip)}`).join('').trim()
  const text = wording.sandhi === undefined ? joined : wording.sandhi(joined)
  return text.slice(0, 1).toUpperCase() + text.slice(1)
}

function unknownClip (clip: string): never {
  throw new Error(`a wording names the clip ${clip} but does not list it`)
}

function sentenceName ({ kind, prompt }: Sayable): SentenceName {
  if (kind !== 'prompt') return kind
  if (prompt === undefined) throw invalid('an announcement of kind prompt must name its prompt')
  return prompt
}

function saidOf (announcement: Sayable, name: SentenceName): Said {
  const { amountMin, countRange } = NEEDS[name]
  const count = countRange === undefined ? 0 : countWithin(announcement.count, ...countRange, name)
  const isEmptyDay = name === 'day-total' && count === 0
  const minor = amountMin === undefined || isEmptyDay ? 0 : amountWithin(announcement.amountMinor, amountMin)
  if (minor > 0 && announcement.currency !== 'INR') throw invalid('an amount is worded in INR only')
  const via = VIA_OF[(announcement.txnType ?? '').replace(/[^A-Za-z]/g, '').toUpperCase()]
  const paise = minor % 100
  return { money: { rupees: (minor - paise) / 100, paise }, count, via: via === undefined ? [] : [`via-${via}`] }
}

function amountWithin (amountMinor: number, min: number): number {
  if (Number.isSafeInteger(amountMinor) && amountMinor >= min && amountMinor <= AMOUNT_MINOR_MAX) return amountMinor
  throw new SoundboxError('AMOUNT_INVALID', `an amount to word is a whole number of minor units from ${min} to ${AMOUNT_MINOR_MAX}`)
}

function countWithin (count: number | undefined, min: number, max: number, name: SentenceName): number {
  if (count !== undefined && Number.isSafeInteger(count) && count >= min && count <= max) return count
  throw invalid(`${name} needs a count from ${min} to ${max}`)
}

function invalid (why: string): SoundboxError {
  return new SoundboxError('MESSAGE_INVALID', why)
}
