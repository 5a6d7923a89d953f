// A ten-dollar voice: a DFPlayer-Mini class module on a serial port, made to speak by the numbers of its clips.
import {
  DFPLAYER, DFPLAYER_BAUD_RATE, DFPLAYER_VOLUME_MAX, encodeDfFrame, type Language, type Log, makeDfReader, SoundboxError, type Timers
} from '../protocol/index.js'
import { type Player, type PlayerEffect, type PlayerEvent, stepPlayer } from './dfplayer-player.js'
import { type ClipInventory, trackTable } from './dfplayer-tracks.js'
import { openSerialLine, type SerialLine } from './serial-line.js'
import type { OpenPort } from './serial-link.js'

/** A module needs this long to read its card; it says READY when it has. Without a word it is tried all the same. */
export const READY_MS_MAX = 4000

export type DfPlayerOptions = {
  path: string, log: Log, timers: Timers, openPort?: OpenPort
  /** Clip ids in the order of the files on the card; see dfplayer-tracks.ts. */
  inventory: ClipInventory
}
export type DfPlayer = {
  name: string
  /**
   * Plays the clips as one sentence. `volume` 0 to 100; at 0 nothing is played. `soundAfterMs`: from the call to the first sound. Throws
   * SPEECH_FAILED: no module, a clip that the card does not have, no answer; whether a part was heard before is not known.
   */
  say: (utterance: { clips: readonly string[], language: Language, volume: number }) => Promise<{ audioMs: number, soundAfterMs: number, wav: null }>
  /** True when the port is open and the module has had its time to read its card. */
  isReady: () => boolean
  close: () => Promise<void>
}

/** Drives the module at a port. Throws INPUT_INVALID for an inventory that no card can hold. */
export function openDfPlayer (options: DfPlayerOptions): DfPlayer {
  const { path, log, timers, openPort } = options
  const trackOf = trackTable(options.inventory)
  const reader = makeDfReader()
  const live: Live = { timers, player: undefined, line: undefined, readiness: 'away', cancelTick: undefined, cancelReady: undefined, waiting: undefined, sleepers: [], isClosed: false }
  live.line = openSerialLine({
    path, baudRate: DFPLAYER_BAUD_RATE, log, timers, openPort,
    onOpen: () => { greet(live) },
    onBytes: bytes => {
      for (const frame of reader.push(bytes)) {
        if (frame.command === DFPLAYER.READY && live.readiness === 'waking') turn(live, 'ready')
        else apply(live, { kind: 'frame', frame })
      }
    },
    onLost: () => {
      turn(live, 'away')
      apply(live, { kind: 'lost' })
    }
  })
  return {
    name: 'dfplayer',
    isReady: () => live.readiness === 'ready',
    async say ({ clips, language, volume }) {
      if (volume === 0 || clips.length === 0) return { audioMs: 0, soundAfterMs: 0, wav: null }
      const tracks = clips.map(clip => {
        const track = trackOf(language, clip)
        if (track === undefined) throw failed(`the card has no clip ${clip} of ${language}`)
        return track
      })
      if (live.readiness === 'waking') await new Promise<void>(resolve => { live.sleepers.push(resolve) })
      if (live.readiness === 'away' || live.isClosed) throw failed(live.line?.error()?.message ?? `port ${path} is not open yet`)
      if (live.waiting !== undefined) throw failed('the module speaks already')
      return await new Promise((resolve, reject) => {
        live.waiting = { resolve, reject }
        apply(live, { kind: 'say', tracks, volume: Math.max(1, Math.round(volume * DFPLAYER_VOLUME_MAX / 100)) })
      })
    },
    async close () {
      live.isClosed = true
      turn(live, 'away')
      apply(live, { kind: 'lost' })
      live.cancelTick?.()
      await live.line?.close()
    }
  }
}

type Made = { audioMs: number, soundAfterMs: number, wav: null }
type Live = {
  timers: Timers, player: Player, line: SerialLine | undefined, readiness: 'away' | 'waking' | 'ready'
  cancelTick: (() => void) | undefined, cancelReady: (() => void) | undefined
  waiting: { resolve: (made: Made) => void, reject: (error: SoundboxError) => void } | undefined
  /** Who waits for the module to wake. */
  sleepers: (() => void)[], isClosed: boolean
}

/** Resets the module, so that its volume, track and mood are ours. */
function greet (live: Live): void {
  turn(live, 'waking')
  live.line?.write(encodeDfFrame({ command: DFPLAYER.RESET, param: 0, wantsFeedback: false }))
  live.cancelReady = live.timers.after(READY_MS_MAX, () => { turn(live, 'ready') })
}

function turn (live: Live, readiness: Live['readiness']): void {
  live.cancelReady?.()
  live.readiness = readiness
  if (readiness !== 'waking') for (const wake of live.sleepers.splice(0)) wake()
}

function apply (live: Live, event: PlayerEvent): void {
  const { timers } = live
  const { next, effects } = stepPlayer(live.player, event, timers.nowMs())
  live.player = next
  for (const effect of effects) handleEffect(live, effect)
  live.cancelTick?.()
  live.cancelTick = live.player === undefined ? undefined : timers.after(live.player.dueMs - timers.nowMs(), () => { apply(live, { kind: 'tick' }) })
}

function handleEffect (live: Live, effect: PlayerEffect): void {
  const { waiting } = live
  switch (effect.kind) {
    case 'write': live.line?.write(encodeDfFrame(effect.frame)); break
    case 'done':
      live.waiting = undefined
      waiting?.resolve({ audioMs: effect.audioMs, soundAfterMs: effect.soundAfterMs, wav: null })
      break
    case 'failed':
      live.waiting = undefined
      waiting?.reject(failed(`the module failed at track ${effect.track ?? '-'}: ${effect.reason}`))
      break
    default: effect satisfies never
  }
}

function failed (why: string): SoundboxError {
  return new SoundboxError('SPEECH_FAILED', why)
}
