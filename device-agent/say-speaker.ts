// The speaker of the package `say`: the voices that macOS and Windows have, or festival on Linux. It plays by itself, so there is no WAV
// file, no kept phrase, and no volume but the machine's own (0 is obeyed: nothing is played). On Linux `say` pastes the text into a
// Scheme expression without escaping it: only what checkUtterance lets through may reach it, and that has no quote or bracket.
import type { ChildProcess } from 'node:child_process'
import type { Timers } from '../protocol/index.js'
import { checkUtterance, type Speaker, speechFailed } from './speaker.js'

/** What is used of `say`. It keeps the running program in `child`. */
export type Say = { speak: (text: string, voice: string | null, speed: number | null, callback: (error: unknown) => void) => void, child: ChildProcess | null }

/** No sentence takes longer to say; a program that does is hung. */
export const SAY_TIMEOUT_MS = 60_000

/** Loads `say` for this platform. Throws SPEECH_FAILED where it has none. */
export async function openSaySpeaker (clock: Timers): Promise<Speaker> {
  try {
    const { default: say } = await import('say')
    return speakThrough(say as unknown as Say, clock)
  } catch (cause) {
    throw speechFailed('the package say has no voice for this platform: choose the speaker espeak or print', cause)
  }
}

/** The speaker around a loaded `say`. */
export function speakThrough (say: Say, clock: Timers): Speaker {
  let isClosed = false
  let stop = (_why: string): void => {}
  const speak = (text: string): Promise<void> => new Promise((resolve, reject) => {
    const end = (why?: string, cause?: unknown): void => {
      cancel()
      if (why === undefined) resolve()
      else reject(speechFailed(why, cause))
    }
    stop = why => {
      say.child?.kill('SIGKILL')
      end(why)
    }
    const cancel = clock.after(SAY_TIMEOUT_MS, () => stop(`the voice did not end within ${SAY_TIMEOUT_MS} ms`))
    say.speak(text, null, null, error => error ? end('the voice failed: on Linux install festival and a voice for it', error) : end())
    const missing = (cause: unknown): void => end('the voice program cannot be started: on Linux install festival and a voice for it', cause)
    say.child?.once('error', missing)
    say.child?.stdin?.on('error', missing) // `say` listens for neither; unheard, they would end the agent.
  })
  return {
    name: 'say',
    say: async utterance => {
      checkUtterance(utterance)
      if (isClosed) throw speechFailed('the speaker is closed')
      if (utterance.volume === 0) return { audioMs: 0, soundAfterMs: 0, wav: null }
      const begunAt = clock.nowMs()
      await speak(utterance.text)
      return { audioMs: Math.round(clock.nowMs() - begunAt), soundAfterMs: 0, wav: null }
    },
    close: async () => {
      isClosed = true
      stop('the speaker is closed')
    }
  }
}
