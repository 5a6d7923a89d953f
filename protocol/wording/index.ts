// The door of wording/: an announcement becomes a sentence for a voice and a clip list for a box without one.
import { type Language, LANGUAGES } from '../languages.js'
import type { Announcement } from '../messages.js'
import { FALLBACK, WORDINGS } from './registry.js'
import { type Sayable, type WordOptions, wordIn } from './sentence.js'

/** The fields of an announcement that decide what is said. */
export type Wordable = Sayable & Pick<Announcement, 'language'>

/**
 * `text`: for a voice, see isSafeText. `clips`: ids in playing order, each in clipInventory(language). `language`: the one it is worded
 * in; a voice must speak that one. `isFallback`: the announcement's language has no wording yet.
 */
export type Wording = { text: string, clips: readonly string[], language: Language, isFallback: boolean }

const SAFE_TEXT = /^[\p{L}\p{M}\p{N} .,]+$/u

/**
 * What to say; `options` in sentence.ts.
 * Throws AMOUNT_INVALID for an amount that is not 1..AMOUNT_MINOR_MAX where one is said (a test may have 0), MESSAGE_INVALID for a
 * currency other than INR, or a prompt or count that is missing or out of range.
 */
export function wordAnnouncement (announcement: Wordable, options: WordOptions = {}): Wording {
  const own = WORDINGS[announcement.language]
  return {
    ...wordIn(own ?? FALLBACK.wording, announcement, options),
    language: own === undefined ? FALLBACK.language : announcement.language,
    isFallback: own === undefined
  }
}

/** True when announcements in this language are worded in it, false when they fall back to English. */
export function hasWording (language: Language): boolean {
  return WORDINGS[language] !== undefined
}

/** The languages that have a wording of their own, and whether a native speaker has approved it. */
export function wordedLanguages (): readonly { language: Language, reviewed: boolean }[] {
  return LANGUAGES.flatMap(language => {
    const wording = WORDINGS[language]
    return wording === undefined ? [] : [{ language, reviewed: wording.reviewed }]
  })
}

/** Every clip of a language, or of its fallback: id and the words of the recording. Position + 1 is its number on modules that play by number. */
export function clipInventory (language: Language): readonly { id: string, text: string }[] {
  return Object.entries((WORDINGS[language] ?? FALLBACK.wording).clips).map(([id, text]) => ({ id, text }))
}

/** True for text that any voice may be given: letters, marks, digits, space, full stop, comma; nothing that a shell, Scheme or SSML reads. */
export function isSafeText (text: string): boolean {
  return SAFE_TEXT.test(text)
}

