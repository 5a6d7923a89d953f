// What one language must bring, so that everything a soundbox says can be said in it.
//
// A sentence is a list of clip ids. The clip table gives the words of each clip, so the text for a voice and the list for a box that
// plays recordings come from one truth and cannot drift apart:
//
//   payment of 19.50  ->  received rupees n19 and n50 paise  ->  "Received rupees nineteen and fifty paise"
//
// Sentences are functions of the language, not templates: word order, agreement with one ("प्राप्त हुआ") and joining forms of
// numbers (Tamil, Telugu, Kannada, Malayalam) differ too much for slots in a string.
import type { AnnouncementKind, Prompt } from '../messages.js'

/** Clip ids in speaking order. PAUSE may stand between them. */
export type Spoken = readonly string[]

/** A short rest: a comma in the text, nothing in the clip list. */
export const PAUSE = ','

/** How the money came, where a language has words for it. */
export const VIAS = ['upi', 'card', 'pos', 'matm', 'aeps'] as const
export type Via = typeof VIAS[number]

/** Whole rupees and 0..99 paise. */
export type Money = { rupees: number, paise: number }

/** What a sentence is about. `money` is zero and `count` 0 where the sentence has none; `via` is empty or one clip. */
export type Said = { money: Money, count: number, via: Spoken }

/** Clips that the core names itself; a language names the others as it likes. */
type RequiredClip = 'repeat' | `via-${Via}` | keyof typeof BARE_PROMPTS

export type SentenceName = Exclude<AnnouncementKind, 'prompt'> | Prompt

export type LanguageWording = {
  /** Has a native speaker read the clip table and the test vectors of this language, and approved them? */
  reviewed: boolean
  /** Clip id -> the words of its recording. The order is the clip number on modules that play by number: append, never insert. */
  clips: Readonly<Record<string, string> & Record<RequiredClip, string>>
  /** A whole number, 0..NUMBER_MAX of numbers.ts. */
  number: (n: number) => Spoken
  sentences: Readonly<Record<SentenceName, (said: Said) => Spoken>>
  /** Last touch on the joined text, for scripts that write number words as one (Malayalam). Absent: words stand side by side. */
  sandhi?: (text: string) => string
}

/** Prompts that are one clip of their own name in every language. */
export const BARE_PROMPTS = {
  starting: () => ['starting'],
  connected: () => ['connected'],
  'connection-lost': () => ['connection-lost'],
  'battery-low': () => ['battery-low'],
  'no-payments': () => ['no-payments']
} as const satisfies Partial<Record<Prompt, () => Spoken>>

/** True when there is nothing to say about money. */
export function isNothing (money: Money): boolean {
  return money.rupees === 0 && money.paise === 0
}

/** True for exactly one rupee and for exactly one paisa: verbs agree with it. */
export function isSingular (money: Money): boolean {
  return money.rupees + money.paise === 1
}
