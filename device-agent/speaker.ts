// What the agent asks of anything that makes sound. Kinds of speaker differ in how; the agent knows only this file and speaker-kinds.ts.
//
// One voice at a time: `say` is called again only after the last one has settled. The queue, the gap, expiry and the volume floor are the
// playback's business, not the speaker's.
import { type Language, SoundboxError } from '../protocol/index.js'
import { isSafeText } from '../protocol/wording/index.js'

/** One sentence as wording/ makes it. `language`: the one the text is in. `volume`: 0 (no sound) to 100 (as loud as it gets), whole. */
export type Utterance = { text: string, clips: readonly string[], language: Language, volume: number }

/**
 * How a sound went. `audioMs`: length of the sound, 0 where none was made. `soundAfterMs`: from the call of `say` to the start of the
 * sound, 0 where it cannot be known. `wav`: the file that holds exactly what was played, null for speakers that have none; it is
 * overwritten WAV_FILES sounds later.
 */
export type SoundMade = { audioMs: number, soundAfterMs: number, wav: string | null }

/**
 * `say` resolves when the sound has ended (espeak without a sound device: when its file is written, or after its length with `pace`).
 * It throws INPUT_INVALID for an utterance that checkUtterance refuses, SPEECH_FAILED when no sound came: nobody heard it, say it again.
 * After `close` it throws SPEECH_FAILED; a sound in progress is cut off.
 */
export type Speaker = { name: string, say: (utterance: Utterance) => Promise<SoundMade>, close: () => Promise<void> }

/** Longer than any sentence of any language; wording's own tests hold it to 400. */
export const UTTERANCE_CHARS_MAX = 500
export const VOLUME_MAX = 100

/** Throws INPUT_INVALID unless text is 1..UTTERANCE_CHARS_MAX safe characters and volume a whole number 0..VOLUME_MAX. */
export function checkUtterance ({ text, volume }: Utterance): void {
  if (text.length > UTTERANCE_CHARS_MAX) throw new SoundboxError('INPUT_INVALID', `a text to speak has at most ${UTTERANCE_CHARS_MAX} characters`)
  if (!isSafeText(text)) throw new SoundboxError('INPUT_INVALID', 'a text to speak holds letters, marks, digits, space, full stop and comma only')
  if (!Number.isInteger(volume) || volume < 0 || volume > VOLUME_MAX) {
    throw new SoundboxError('INPUT_INVALID', `volume is a whole number from 0 to ${VOLUME_MAX}`)
  }
}

/** Why a sound cannot be written. */
export const FOLDER_REMEDY = 'the folder for WAV files cannot be written: free space there, or name one that this user may write'

/** The error of every speaker: what failed, and what to do. Details that may name files stay in `cause`. */
export function speechFailed (what: string, cause?: unknown): SoundboxError {
  return new SoundboxError('SPEECH_FAILED', what, { cause })
}
