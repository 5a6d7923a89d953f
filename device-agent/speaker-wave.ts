// The speaker that makes its own sound: text -> engine -> samples -> volume -> WAV file -> player.
//
// Merchants hear the same sentences all day ("received rupees twenty"), so sounds are kept, at full volume, by language and text: the
// longest unused goes when either limit is passed. A kept phrase starts without the engine.
import { mkdirSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Timers } from '../protocol/index.js'
import { LRUCache } from 'lru-cache'
import type { Engine } from './speaker-engine.js'
import type { Player } from './speaker-player.js'
import { checkUtterance, FOLDER_REMEDY, type Speaker, speechFailed, type Utterance } from './speaker.js'
import { audioMsOf, encodeWav, type Pcm, scaleVolume } from './wav.js'

/** Kept phrases: a hundred or so of two seconds. */
export const CACHE_LIMITS = { phrasesMax: 256, bytesMax: 16 * 1024 * 1024 } as const
/** The folder holds this many files; the oldest is overwritten. */
export const WAV_FILES = 32

export type WaveSpeakerDeps = {
  engine: Engine
  /** Undefined: no sound device; the file is all there is. */
  player: Player | undefined
  wavDir: string
  clock: Timers
  /** Without a player, wait as long as the sound would last. */
  pace: boolean
  cacheLimits: { phrasesMax: number, bytesMax: number }
}

/** Writes into wavDir, which openSoundFolder made, and takes over engine and player: `close` ends them. */
export function openWaveSpeaker ({ engine, player, wavDir, clock, pace, cacheLimits }: WaveSpeakerDeps): Speaker {
  const phrases = new LRUCache<string, Pcm>({
    max: cacheLimits.phrasesMax, maxSize: cacheLimits.bytesMax, sizeCalculation: pcm => Math.max(1, pcm.samples.byteLength)
  })
  let isClosed = false
  let stopWaiting = (): void => {}
  const writeSound = soundWriter(wavDir)

  const soundOf = async ({ text, language }: Utterance): Promise<Pcm> => {
    const key = `${language}\n${text}`
    const kept = phrases.get(key)
    if (kept !== undefined) return kept
    const pcm = await engine.synthesize(text, language)
    phrases.set(key, pcm)
    return pcm
  }
  const waitFor = (ms: number): Promise<void> => new Promise(resolve => {
    const cancel = clock.after(ms, resolve)
    stopWaiting = () => {
      cancel()
      resolve()
    }
  })
  const refuseClosed = (): void => {
    if (isClosed) throw speechFailed('the speaker is closed')
  }

  return {
    name: `${engine.name} to ${player?.name ?? 'file'}`,
    say: async utterance => {
      checkUtterance(utterance)
      refuseClosed()
      const begunAt = clock.nowMs()
      const pcm = scaleVolume(await soundOf(utterance), utterance.volume)
      const wav = await writeSound(pcm)
      refuseClosed()
      const soundAfterMs = Math.round(clock.nowMs() - begunAt)
      const audioMs = audioMsOf(pcm)
      if (player !== undefined) await player.play(wav, audioMs)
      else if (pace) await waitFor(audioMs)
      refuseClosed()
      return { audioMs, soundAfterMs, wav }
    },
    close: async () => {
      isClosed = true
      engine.close()
      player?.stop()
      stopWaiting()
      phrases.clear()
    }
  }
}

/** Writes sounds into a ring of WAV_FILES files; each appears whole or not at all. */
function soundWriter (wavDir: string): (pcm: Pcm) => Promise<string> {
  let fileNumber = 0
  return async pcm => {
    const path = join(wavDir, `sound-${String(fileNumber).padStart(2, '0')}.wav`)
    fileNumber = (fileNumber + 1) % WAV_FILES
    try {
      await writeFile(`${path}.part`, encodeWav(pcm))
      await rename(`${path}.part`, path)
    } catch (cause) {
      throw speechFailed(FOLDER_REMEDY, cause)
    }
    return path
  }
}

/** Makes the folder if it is missing, for this user only. Throws SPEECH_FAILED. */
export function openSoundFolder (path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw speechFailed(FOLDER_REMEDY, cause)
  }
}
