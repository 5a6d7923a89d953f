// The voice of a box that this process makes speak itself: the shell around playback.ts. It feeds events in and carries effects out:
// the journal before the sound, the speaker, and the acks after it.
import { type Ack, type Announcement, type Command, type CommandName, type Log, SoundboxError, type Timers } from '../protocol/index.js'
import { wordAnnouncement } from '../protocol/wording/index.js'
import type { BoxSettings } from './box-state.js'
import type { Journal } from './journal.js'
import { type Effect, emptyPlayback, type Phrase, type PlaybackEvent, type PlaybackPolicy, type Sound, stepPlayback, wakeAt } from './playback.js'
import type { Speaker } from './speaker.js'

/** How a sound went, for people and scripts. `fromIssuedMs`: from the payment's time at the gateway to the start of the sound. */
export type SpokenReport = {
  ids: readonly string[], phrase: Phrase, text: string, language: string, queuedMs: number, audioMs: number, fromIssuedMs: number | null, wav: string | null
}

export type OwnSpeech = { phrases: readonly Phrase[], repeat?: boolean, always?: boolean, commandId?: string }

/** What a box does with announcements, whoever makes the sound: this process (openVoice) or a box on a serial line. */
export type Voice = {
  /** A verified announcement. Answers through `onAck` and `onFinal`, exactly one final each. */
  announce: (announcement: Announcement) => void
  /** Prompts, repeats and tests of the box's own. */
  say: (speech: OwnSpeech) => void
  /** Brings new settings to a box that keeps them itself. */
  apply?: (settings: BoxSettings) => void
  /** Does a command that only a real box can do; undefined for the rest. */
  command?: (name: CommandName, args: Command['args']) => Promise<{ ok: boolean, reason?: string, data?: string }> | undefined
  /** Starts no more sounds and resolves when the present one has ended and is in the journal. What waits stays open: the gateway sends it again. */
  close: () => Promise<void>
}

export type VoiceEvents = {
  /** `received` and `duplicate`: sent once, not kept. */
  onAck: (ack: Ack) => void
  /** The journal holds a final ack that the gateway has not confirmed. */
  onFinal: (id: string) => void
  onCommandEnd: (commandId: string, end: { ok: boolean, reason?: string }) => void
  onSpoken: (report: SpokenReport) => void
}

export type VoiceDeps = { clock: Timers, journal: Journal, speaker: Speaker, policy: () => PlaybackPolicy, log: Log }

/** The voice that speaks through a Speaker of this process. Never throws: a sound that fails ends as `failed` with its reason. */
export function openVoice (deps: VoiceDeps, events: VoiceEvents): Voice {
  const { clock, journal, policy } = deps
  let state = emptyPlayback()
  let cancelWake = (): void => {}
  let whenIdle = (): void => {}
  let recorded: Promise<void> = Promise.resolve()
  const step = (event: PlaybackEvent): void => {
    const { next, effects } = stepPlayback(state, event, clock.nowMs(), policy())
    state = next
    for (const effect of effects) carryOut(effect)
    cancelWake()
    const at = wakeAt(state, policy())
    cancelWake = at === undefined ? () => {} : clock.after(at - clock.nowMs(), () => step({ kind: 'tick' }))
    if (state.speaking === null) whenIdle()
  }
  const carryOut = (effect: Effect): void => {
    switch (effect.kind) {
      case 'ack':
        events.onAck(effect.ack)
        break
      case 'settle':
        events.onFinal(effect.id)
        break
      case 'final':
        recorded = journal.finish(effect.ack).then(() => events.onFinal(effect.ack.id))
        break
      case 'speak':
        makeSound(deps, events, effect.sound).then(step)
        break
      case 'command-end':
        events.onCommandEnd(effect.commandId, { ok: effect.ok, ...(effect.reason === undefined ? {} : { reason: effect.reason }) })
        break
      default: effect satisfies never
    }
  }
  return {
    announce: announcement => {
      const entry = journal.find(announcement.id)
      step({ kind: 'announce', announcement, known: entry?.final === undefined ? undefined : { result: entry.final.result, settled: entry.settled } })
    },
    say: ({ phrases, repeat = false, always = false, commandId = null }) => step({ kind: 'say', phrases, repeat, always, commandId }),
    close: async () => {
      const idle = new Promise<void>(resolve => { whenIdle = resolve })
      step({ kind: 'stop' })
      await idle
      cancelWake()
      await recorded
    }
  }
}

/** Words, journal, sound, in this order: what is not on disk does not sound. The event that tells how it ended. */
async function makeSound ({ clock, journal, speaker, policy, log }: VoiceDeps, events: VoiceEvents, sound: Sound): Promise<PlaybackEvent> {
  const { token, members, phrase, repeat, isOnline, volume, receivedAt, issuedAt } = sound
  const ids = members.map(member => member.id)
  try {
    const { text, clips, language } = wordAnnouncement(phrase, { repeat, isOnline })
    if (members.length > 0) await journal.start(members.map(member => member.phrase.kind === 'payment' ? { id: member.id, payment: member.phrase } : { id: member.id }))
    const calledAt = clock.nowMs()
    const { audioMs, soundAfterMs, wav } = await speaker.say({ text, clips, language, volume })
    const soundAt = calledAt + soundAfterMs
    const fromIssuedMs = issuedAt === null ? null : Math.round(soundAt + policy().clockOffsetMs - issuedAt)
    events.onSpoken({ ids, phrase, text, language, queuedMs: Math.round(soundAt - receivedAt), audioMs, fromIssuedMs, wav })
    return { kind: 'ended', token, ok: true, soundAt, audioMs }
  } catch (err) {
    log.error({ err, ids }, 'announcement could not be spoken')
    return { kind: 'ended', token, ok: false, reason: err instanceof SoundboxError ? err.code : 'speaker fault' }
  }
}
