// Which file of the card holds which clip: the files of the folder MP3 are numbered, clips have names.
//
//   track = 230 * (place of the language in LANGUAGES, from 0) + (place of the clip in the inventory of the language, from 0) + 1
//
// ENGLISH clips are 0001.mp3 to 0230.mp3, HINDI 0231.mp3 to 0460.mp3, and so on to URDU, 2761.mp3 to 2990.mp3: 13 languages fit the
// 3000 files that the module plays by number. An inventory only ever grows at its end, or every card made before would say other words.
import { LANGUAGES, type Language, SoundboxError } from '../protocol/index.js'

/** Clips of one language on a card. */
export const TRACKS_PER_LANGUAGE = 230

/** Clip ids of each language in the order of their files. */
export type ClipInventory = Partial<Record<Language, readonly string[]>>
export type TrackOf = (language: Language, clip: string) => number | undefined

/** Track number of a clip. Throws INPUT_INVALID for an inventory with more clips than tracks, or with one clip twice. */
export function trackTable (inventory: ClipInventory): TrackOf {
  const tables = new Map<Language, Map<string, number>>()
  for (const [place, language] of LANGUAGES.entries()) {
    const clips = inventory[language] ?? []
    if (clips.length > TRACKS_PER_LANGUAGE) throw new SoundboxError('INPUT_INVALID', `${language} has ${clips.length} clips, a card takes ${TRACKS_PER_LANGUAGE}`)
    const table = new Map(clips.map((clip, index) => [clip, place * TRACKS_PER_LANGUAGE + index + 1]))
    if (table.size !== clips.length) throw new SoundboxError('INPUT_INVALID', `${language} has a clip twice in its inventory`)
    tables.set(language, table)
  }
  return (language, clip) => tables.get(language)?.get(clip)
}

/** What to copy onto a card: `MP3/0231.mp3` with its language and clip. Throws as trackTable. */
export function cardListing (inventory: ClipInventory): { file: string, language: Language, clip: string }[] {
  const trackOf = trackTable(inventory)
  return LANGUAGES.flatMap(language => (inventory[language] ?? []).map(clip =>
    ({ file: `MP3/${String(trackOf(language, clip)).padStart(4, '0')}.mp3`, language, clip })))
}
