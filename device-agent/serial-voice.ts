// The voice of a box that plays announcements itself, at the other end of a serial line. The box has its own queue, gap and journal; what
// stays here is what it cannot know: signatures, the gateway's clock, quiet hours, and which acks the gateway has.
//
//   announce -> known? expired? quiet? -> journal: asked -> box.announce -> RESULT -> final ack
//
// An id that was asked before a restart of this process is asked again as such: the box tells how it ended, and says nothing twice.
// Only WINDOW announcements are confirmed as received at a time; the gateway's pump (one in flight) waits with the rest.
import {
  type Ack, type Announcement, type BoxCommand, type CommandArgs, type CommandName, type Log, type SerialResult, safeErrorText, SoundboxError, TEXT_BYTES_MAX, type Timers
} from '../protocol/index.js'
import { wordAnnouncement } from '../protocol/wording/index.js'
import type { BoxSettings } from './box-state.js'
import type { Journal, JournalEntry } from './journal.js'
import { isQuiet, type Phrase, phraseOf, type PlaybackPolicy } from './playback.js'
import type { SerialBox } from './serial-box.js'
import type { OwnSpeech, Voice, VoiceEvents } from './voice.js'

/** Announcements that are with the box or on their way to it, and received; one more is kept, one after that refused. */
export const SERIAL_WINDOW = 8
/** A prompt or a repeat that cannot start sooner is not worth saying. */
const OWN_TTL_MS = 30_000
/** What the box does itself; replay, volume and the rest are made of announcements and settings. */
const BOX_DOES: readonly CommandName[] = ['reboot', 'locate', 'display-qr', 'clear-display', 'collect-log']

export type SerialVoiceDeps = {
  /** The box, while one is known for this serial number. */
  box: () => SerialBox | undefined
  journal: Journal
  clock: Timers
  policy: () => PlaybackPolicy
  /** 32 random hex digits. */
  newId: () => string
  log: Log
}
type Shell = SerialVoiceDeps & { events: VoiceEvents, open: Map<string, { announcement: Announcement, owed: boolean }>, closed: boolean }

/** Speaks through a box on a serial line. `journal` must have been opened with `keepStarted`. */
export function openSerialVoice (deps: SerialVoiceDeps, events: VoiceEvents): Voice {
  const shell: Shell = { ...deps, events, open: new Map(), closed: false }
  return {
    announce: announcement => announce(shell, announcement),
    say: speech => { sayOwn(shell, speech).catch((err: unknown) => deps.log.error({ err }, 'prompt could not be said')) },
    apply: ({ volume, minVolume, language, clockOffsetMs }: BoxSettings) => {
      const time = Math.round(deps.clock.nowMs() + clockOffsetMs)
      deps.box()?.set({ volume, minVolume, language, time }).catch((err: unknown) => deps.log.warn({ err }, 'settings did not reach the soundbox'))
    },
    command: (name, args) => BOX_DOES.includes(name) ? commandBox(shell, name as BoxCommand, args) : undefined,
    close: async () => { shell.closed = true }
  }
}

function announce (shell: Shell, announcement: Announcement): void {
  const { open, events, journal } = shell
  const { id } = announcement
  const entry = journal.find(id)
  const here = open.get(id)
  if (here !== undefined) {
    if (!here.owed) events.onAck({ id, result: 'received' })
  } else if (entry?.final !== undefined) {
    if (entry.settled) events.onAck({ id, result: 'duplicate', was: entry.final.result })
    else events.onFinal(id)
  } else if (open.size > SERIAL_WINDOW) finish(shell, { id, result: 'failed', reason: 'queue full' })
  else {
    const silent = entry === undefined ? reasonForSilence(shell, announcement) : undefined
    if (silent === undefined) accept(shell, announcement, entry)
    else finish(shell, { id, ...silent })
  }
}

function reasonForSilence ({ clock, policy }: Shell, { expiresAt, prompt }: Announcement): Pick<Ack, 'result' | 'reason'> | undefined {
  const { clockOffsetMs, quietHours, volume, minVolume } = policy()
  const gatewayMs = clock.nowMs() + clockOffsetMs
  if (gatewayMs >= expiresAt) return { result: 'expired' }
  if (Math.max(volume, minVolume) === 0) return { result: 'muted', reason: 'volume 0' }
  return isQuiet(quietHours, gatewayMs) && prompt !== 'code' ? { result: 'muted', reason: 'quiet hours' } : undefined
}

function accept (shell: Shell, announcement: Announcement, entry: JournalEntry | undefined): void {
  const { open, events, log } = shell
  const { id } = announcement
  const owed = open.size === SERIAL_WINDOW
  open.set(id, { announcement, owed })
  if (!owed) events.onAck({ id, result: 'received' })
  askBox(shell, announcement, entry !== undefined).then(ack => {
    open.delete(id)
    if (shell.closed) return // The journal has it as asked: the next life asks again.
    finish(shell, ack)
    for (const other of open.values()) {
      if (!other.owed) continue
      other.owed = false
      events.onAck({ id: other.announcement.id, result: 'received' })
    }
  }, (err: unknown) => log.error({ err, id }, 'announcement could not be handed to the soundbox'))
}

async function askBox (shell: Shell, announcement: Announcement, wasAsked: boolean): Promise<Ack> {
  const { journal, clock, policy, events, log, box } = shell
  const { id, expiresAt, issuedAt } = announcement
  const phrase = phraseOf(announcement)
  try {
    const { text, clips, language } = wordAnnouncement(phrase)
    if (!wasAsked) await journal.start([phrase.kind === 'payment' ? { id, payment: phrase } : { id }])
    const ttlMs = Math.max(0, Math.floor(expiresAt - clock.nowMs() - policy().clockOffsetMs))
    const result = await box()?.announce({ id, ...boxPhrase(phrase), language, ttlMs, clips, ...boxText(text) }, { wasAsked })
    const ack = ackFromResult(id, result)
    if (ack.result === 'spoken') {
      const { audioMs = 0, queuedMs = 0 } = ack
      const fromIssuedMs = wasAsked ? null : Math.max(0, Math.round(clock.nowMs() - audioMs + policy().clockOffsetMs - issuedAt))
      events.onSpoken({ ids: [id], phrase, text, language, queuedMs, audioMs, fromIssuedMs, wav: null })
    }
    return ack
  } catch (err) {
    log.error({ err, ids: [id] }, 'announcement could not be spoken')
    return { id, result: 'failed', reason: err instanceof SoundboxError ? err.code : 'speaker fault' }
  }
}

function boxPhrase ({ kind, amountMinor, currency, count, prompt }: Phrase): Pick<Announcement, 'kind' | 'amountMinor' | 'currency' | 'count' | 'prompt'> {
  return { kind, amountMinor, currency, ...(count === undefined ? {} : { count }), ...(prompt === undefined ? {} : { prompt }) }
}

/** For a display or a voice inside the box, as far as a frame has room for it. */
function boxText (text: string): { text?: string } {
  return Buffer.byteLength(text) <= TEXT_BYTES_MAX ? { text } : {}
}

/** How the box ended it. `duplicate` tells how the first one ended, and that is the end of this one. */
export function ackFromResult (id: string, result: SerialResult | undefined): Ack {
  if (result === undefined) return { id, result: 'failed', reason: 'no soundbox' }
  const end = result.result === 'duplicate' ? result.was ?? 'failed' : result.result
  return {
    id,
    result: end === 'done' ? 'spoken' : end,
    ...(result.queuedMs === undefined ? {} : { queuedMs: result.queuedMs }),
    ...(result.audioMs === undefined ? {} : { audioMs: result.audioMs }),
    ...(result.reason === undefined ? {} : { reason: result.reason })
  }
}

function finish ({ journal, events, clock, policy }: Shell, ack: Ack): void {
  journal.finish({ ...ack, at: Math.max(0, Math.round(clock.nowMs() + policy().clockOffsetMs)) }).then(() => events.onFinal(ack.id))
}

async function sayOwn ({ box, clock, policy, newId, events }: Shell, { phrases, repeat = false, always = false, commandId }: OwnSpeech): Promise<void> {
  const { quietHours, clockOffsetMs } = policy()
  const end = (ok: boolean, reason?: string): void => {
    if (commandId !== undefined) events.onCommandEnd(commandId, { ok, ...(reason === undefined ? {} : { reason }) })
  }
  if (!always && isQuiet(quietHours, clock.nowMs() + clockOffsetMs)) {
    end(false, 'quiet hours')
    return
  }
  try {
    const results = await Promise.all(phrases.map(async phrase => {
      const { text, clips, language } = wordAnnouncement(phrase, { repeat })
      const result = await box()?.announce({ id: newId(), ...boxPhrase(phrase), language, ttlMs: OWN_TTL_MS, clips, ...boxText(text) })
      if (result?.result !== 'spoken') return result?.reason ?? result?.result ?? 'no soundbox'
      events.onSpoken({ ids: [], phrase, text, language, queuedMs: result.queuedMs ?? 0, audioMs: result.audioMs ?? 0, fromIssuedMs: null, wav: null })
      return undefined
    }))
    const reason = results.find(one => one !== undefined)
    end(reason === undefined, reason)
  } catch (error) {
    end(false, error instanceof SoundboxError ? error.code : 'speaker fault')
  }
}

async function commandBox ({ box }: Shell, name: BoxCommand, args: CommandArgs): Promise<{ ok: boolean, reason?: string, data?: string }> {
  try {
    const result = await box()?.command(name, args)
    if (result === undefined) return { ok: false, reason: 'no soundbox' }
    const { reason, data } = result
    return { ok: result.result === 'done', ...(reason === undefined ? {} : { reason }), ...(data === undefined ? {} : { data }) }
  } catch (error) {
    return { ok: false, reason: error instanceof SoundboxError ? error.code : safeErrorText(error) }
  }
}
