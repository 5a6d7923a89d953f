// The two speakers without sound: one shows the sentence, one does nothing. Both check what they are given as the others do.
import { checkUtterance, type Speaker } from './speaker.js'

/** Writes each sentence through `print`, for machines without a voice and for people who watch. */
export function openPrintSpeaker (print: (sentence: string) => void): Speaker {
  return {
    name: 'print',
    say: async utterance => {
      checkUtterance(utterance)
      print(utterance.text)
      return { audioMs: 0, soundAfterMs: 0, wav: null }
    },
    close: async () => {}
  }
}

/** For fleets of boxes that nobody listens to. */
export function openSilentSpeaker (): Speaker {
  return { ...openPrintSpeaker(() => {}), name: 'silent' }
}
