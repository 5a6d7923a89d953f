// The door to the speakers: a kind by name becomes a Speaker. The rest of the agent imports this file and the types of speaker.ts.
import { type Log, SoundboxError, type Timers } from '../protocol/index.js'
import { type EspeakSettings, openEspeakSpeaker } from './espeak-speaker.js'
import { openSaySpeaker } from './say-speaker.js'
import { openPrintSpeaker, openSilentSpeaker } from './simple-speaker.js'
import type { Speaker } from './speaker.js'

export const SPEAKER_KINDS = ['espeak', 'say', 'print', 'silent'] as const
export type SpeakerKind = typeof SPEAKER_KINDS[number]

/** `wavDir`: where espeak writes its sounds, bounded to WAV_FILES; the other kinds write none. The rest has sensible values when left out. */
export type SpeakerSettings = { kind: SpeakerKind, wavDir: string } & Partial<Omit<EspeakSettings, 'wavDir'>>
export type SpeakerDeps = { clock: Timers, log: Log, print: (sentence: string) => void }

/** The kind of that name. Throws INPUT_INVALID. */
export function parseSpeakerKind (text: string): SpeakerKind {
  const kind = SPEAKER_KINDS.find(name => name === text)
  if (kind === undefined) throw new SoundboxError('INPUT_INVALID', `a speaker is one of ${SPEAKER_KINDS.join(', ')}`)
  return kind
}

/** Opens the speaker; the caller closes it. Throws SPEECH_FAILED when this machine lacks what the kind needs. */
export async function openSpeaker (settings: SpeakerSettings, { clock, log, print }: SpeakerDeps): Promise<Speaker> {
  switch (settings.kind) {
    case 'espeak': return openEspeakSpeaker({ play: true, pace: false, englishVoice: 'flite', ...settings }, { clock, log })
    case 'say': return openSaySpeaker(clock)
    case 'print': return openPrintSpeaker(print)
    case 'silent': return openSilentSpeaker()
    default: return settings.kind satisfies never
  }
}
