// What a simulated soundbox says and when: one voice at a time, a gap between sentences, a short queue, nothing after its time.
import type { AnnouncementKind } from '../protocol/index.js'

/** Sentences that may wait; one more is answered failed, queue-full. */
export const VOICE_QUEUE_MAX = 8
export const GAP_MS = 300
const CLIP_MS = 380
const LETTER_MS = 65

/** `id`: of an announcement; the box's own prompts and repeats have none. */
export type Sentence = {
  kind: AnnouncementKind | 'locate', clips: readonly string[], text: string, amountMinor: number
  arrivedMs: number, expiresMs: number, isRepeat: boolean, id?: string
}
/** What could be heard: `isWhole` is false when a reset cut it off. */
export type Sound = Omit<Sentence, 'arrivedMs' | 'expiresMs'> & { startedMs: number, endedMs: number, isWhole: boolean }
export type Playing = { sentence: Sentence, startedMs: number, endsMs: number }
export type Voice = { queue: readonly Sentence[], playing: Playing | undefined, restUntilMs: number }

export const SILENT_VOICE: Voice = { queue: [], playing: undefined, restUntilMs: 0 }

/** Length of a sentence as this box plays it: by its clips, or by its text where it has none. */
export function audioMs (sentence: { clips: readonly string[], text: string }, scale: number): number {
  return Math.round(scale * (sentence.clips.length > 0 ? sentence.clips.length * CLIP_MS : Math.max(1, sentence.text.length) * LETTER_MS))
}

/** The sound of what plays now, ended at this moment. */
export function soundFromPlaying (playing: Playing, nowMs: number, isWhole: boolean): Sound {
  const { arrivedMs: _arrivedMs, expiresMs: _expiresMs, ...said } = playing.sentence
  return { ...said, startedMs: playing.startedMs, endedMs: nowMs, isWhole }
}

/** When the voice has something to do next, or undefined. */
export function voiceDueMs (voice: Voice): number | undefined {
  if (voice.playing !== undefined) return voice.playing.endsMs
  return voice.queue.length > 0 ? voice.restUntilMs : undefined
}

/** May this be heard while the box is quiet? What a person at the box asked for may. */
export function isMutedByQuiet (sentence: Sentence): boolean {
  return !sentence.isRepeat && sentence.kind !== 'test' && sentence.kind !== 'prompt' && sentence.kind !== 'locate'
}
