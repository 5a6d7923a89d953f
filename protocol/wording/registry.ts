// The languages that have a wording: one line each. README.md beside this file tells how to add one.
import type { Language } from '../languages.js'
import { english } from './english.js'
import { hindi } from './hindi.js'
import type { LanguageWording } from './shape.js'

export const WORDINGS: Readonly<Partial<Record<Language, LanguageWording>>> = {
  ENGLISH: english,
  HINDI: hindi
}

/** What is said in a language that has no line yet. */
export const FALLBACK: { language: Language, wording: LanguageWording } = { language: 'ENGLISH', wording: english }
