// The languages a soundbox may be asked for. Which of them have a wording is what wording/index.ts answers.
import { SoundboxError } from './errors.js'

/** API name -> ISO 639-1 code, as the bank API and the device protocol use them. */
export const LANGUAGE_CODES = {
  ENGLISH: 'en', HINDI: 'hi', TAMIL: 'ta', TELUGU: 'te', KANNADA: 'kn', MALAYALAM: 'ml', MARATHI: 'mr', BENGALI: 'bn',
  GUJARATI: 'gu', PUNJABI: 'pa', ODIA: 'or', ASSAMESE: 'as', URDU: 'ur'
} as const

export type Language = keyof typeof LANGUAGE_CODES
export const LANGUAGES = Object.keys(LANGUAGE_CODES) as readonly Language[]

/** True for one of the thirteen API names. */
export function isLanguage (text: string): text is Language {
  return Object.hasOwn(LANGUAGE_CODES, text)
}

/** The language of an API name in any letter case. Throws LANGUAGE_UNKNOWN. */
export function parseLanguage (text: string): Language {
  const name = text.trim().toUpperCase()
  if (!isLanguage(name)) throw new SoundboxError('LANGUAGE_UNKNOWN', `language must be one of ${LANGUAGES.join(', ')}`)
  return name
}
