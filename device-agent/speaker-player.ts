// Playing a WAV file with what the machine has. A program that is installed says nothing about a sound device, so the way to find a player
// is to let each play a moment of silence: the first that can, is it.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Timers } from '../protocol/index.js'
import { type Command, runCommand } from './speaker-command.js'
import { FOLDER_REMEDY, speechFailed } from './speaker.js'
import { encodeWav } from './wav.js'

/** `play` resolves when the sound has ended, and throws SPEECH_FAILED when it could not be heard; `stop` cuts it off. */
export type Player = { name: string, play: (wavPath: string, audioMs: number) => Promise<void>, stop: () => void }
export type PlayCommand = Pick<Command, 'command' | 'args'> & { takes: 'path' | 'stdin' }

/** A player that has not ended this long after the sound should have is hung. */
export const PLAY_GRACE_MS = 5000
const PROBE_MS_MAX = 3000
const SILENCE = encodeWav({ rate: 8000, samples: new Int16Array(400) })

/** Players by platform, best first. The path of the file is added as the last argument, or the file goes to stdin. */
export const PLAY_COMMANDS: Readonly<Record<string, readonly PlayCommand[]>> = {
  linux: [{ command: 'aplay', args: ['-q'], takes: 'path' }, { command: 'paplay', args: [], takes: 'path' }, { command: 'pw-play', args: [], takes: 'path' }],
  darwin: [{ command: 'afplay', args: [], takes: 'path' }],
  win32: [{
    command: 'powershell',
    args: ['-NoProfile', '-NonInteractive', '-Command', '(New-Object Media.SoundPlayer ([Console]::OpenStandardInput())).PlaySync()'],
    takes: 'stdin'
  }]
}

/** The first of these players that plays silence, or undefined: no sound device, or no player. Throws SPEECH_FAILED when it cannot write. */
export async function findPlayer (commands: readonly PlayCommand[], folder: string, clock: Timers): Promise<Player | undefined> {
  const silence = join(folder, 'silence.wav')
  try {
    writeFileSync(silence, SILENCE)
  } catch (cause) {
    throw speechFailed(FOLDER_REMEDY, cause)
  }
  for (const command of commands) {
    const works = await runPlayer(command, silence, PROBE_MS_MAX, clock).done.then(() => true, () => false)
    if (works) return openPlayer(command, clock)
  }
  return undefined
}

function openPlayer (command: PlayCommand, clock: Timers): Player {
  let stop = (): void => {}
  return {
    name: command.command,
    play: async (wavPath, audioMs) => {
      const run = runPlayer(command, wavPath, audioMs + PLAY_GRACE_MS, clock)
      stop = run.stop
      await run.done.catch((cause: unknown) => {
        throw speechFailed(`${command.command} could not play the sound: check the sound device`, cause)
      })
    },
    stop: () => stop()
  }
}

function runPlayer ({ command, args, takes }: PlayCommand, wavPath: string, timeoutMs: number, clock: Timers): ReturnType<typeof runCommand> {
  return runCommand({ command, args: takes === 'path' ? [...args, wavPath] : args, ...(takes === 'stdin' ? { input: readFileSync(wavPath) } : {}), timeoutMs }, clock)
}
