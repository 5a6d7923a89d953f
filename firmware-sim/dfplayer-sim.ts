// A simulated DFPlayer-Mini: takes its 10-byte frames, plays numbered clips of a card, reports the end of each, often twice, as the
// real chips do. Written from their data sheet and protocol/README.md.
import { DFPLAYER, DFPLAYER_BAUD_RATE, DFPLAYER_VOLUME_MAX, encodeDfFrame, type DfFrame, makeDfReader, type Timers } from '../protocol/index.js'
import { type FaultProfile, NO_FAULTS, spoilBytes } from './faults.js'
import { openRandom } from './fleet-faults.js'
import { makeLine } from './line.js'

const CLIP_MS = 380
const RESET_MS = 900
const ECHO_MS = 12 // Real modules report the end of a clip a second time after a few milliseconds.

export type DfPlayerSimOptions = {
  timers: Timers, write: (bytes: Buffer) => void, audioScale: number
  /** Track numbers on the card; undefined: all. */
  tracks?: ReadonlySet<number>
  faults?: FaultProfile, seed?: number
  onTrack?: (track: number) => void
}
/** `played`: the tracks that were heard to their end. */
export type DfPlayerSim = { played: readonly number[], volume: () => number, take: (bytes: Uint8Array) => void, removeCard: () => void, close: () => void }

/** Switches a module on. */
export function startDfPlayerSim (options: DfPlayerSimOptions): DfPlayerSim {
  const { timers, faults = NO_FAULTS, seed = 1 } = options
  const random = openRandom(seed)
  const spoil = (bytes: Buffer): { bytes: Buffer, stallMs: number } => spoilBytes(bytes, faults, random)
  const reader = makeDfReader()
  const baudRate = DFPLAYER_BAUD_RATE
  const live: Live = { options, played: [], volume: DFPLAYER_VOLUME_MAX, playing: undefined, hasCard: true, cancels: new Set(), out: makeLine({ baudRate, timers, spoil, deliver: options.write }) }
  const into = makeLine({ baudRate, timers, spoil, deliver: bytes => { for (const frame of reader.push(bytes)) takeFrame(live, frame) } })
  return {
    played: live.played,
    volume: () => live.volume,
    take: bytes => { into.push(Buffer.from(bytes)) },
    removeCard () {
      live.hasCard = false
      stop(live)
      report(live, DFPLAYER.CARD_OUT, 2)
    },
    close () {
      for (const cancel of live.cancels) cancel()
      into.close()
      live.out.close()
    }
  }
}

type Live = {
  options: DfPlayerSimOptions, played: number[], volume: number, hasCard: boolean, cancels: Set<() => void>, out: { push: (bytes: Buffer) => void, close: () => void }
  playing: { track: number, cancel: () => void } | undefined
}

function takeFrame (live: Live, frame: DfFrame): void {
  const { command, param } = frame
  if (frame.wantsFeedback) report(live, DFPLAYER.ACK, 0)
  switch (command) {
    case DFPLAYER.SET_VOLUME: live.volume = Math.min(DFPLAYER_VOLUME_MAX, param); break
    case DFPLAYER.PLAY_MP3: play(live, param); break
    case DFPLAYER.STOP: stop(live); break
    case DFPLAYER.RESET:
      stop(live)
      later(live, RESET_MS, () => { report(live, DFPLAYER.READY, live.hasCard ? 2 : 0) })
      break
    case DFPLAYER.STATUS: report(live, DFPLAYER.STATUS, 0x0200 | (live.playing === undefined ? 0 : 1)); break
    case DFPLAYER.VOLUME: report(live, DFPLAYER.VOLUME, live.volume); break
    case DFPLAYER.FILES: report(live, DFPLAYER.FILES, live.options.tracks?.size ?? 3000); break
    default: break // A real module is silent to what it does not know.
  }
}

/** A new clip cuts off the one that plays, as in the real module. */
function play (live: Live, track: number): void {
  const { options } = live
  stop(live)
  if (!live.hasCard || options.tracks?.has(track) === false) {
    report(live, DFPLAYER.ERROR, live.hasCard ? 6 : 8)
    return
  }
  const cancel = later(live, CLIP_MS * options.audioScale, () => {
    live.playing = undefined
    live.played.push(track)
    options.onTrack?.(track)
    report(live, DFPLAYER.FINISHED, track)
    later(live, ECHO_MS, () => { report(live, DFPLAYER.FINISHED, track) })
  })
  live.playing = { track, cancel }
}

function stop (live: Live): void {
  live.playing?.cancel()
  live.playing = undefined
}

function report (live: Live, command: number, param: number): void {
  live.out.push(encodeDfFrame({ command, param, wantsFeedback: false }))
}

function later (live: Live, ms: number, run: () => void): () => void {
  const cancel = live.options.timers.after(ms, () => {
    live.cancels.delete(cancel)
    run()
  })
  live.cancels.add(cancel)
  return cancel
}
