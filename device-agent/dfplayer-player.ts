// How a DFPlayer-Mini is made to play a list of tracks as one sentence: a pure state machine over its frames and the time.
//
//   idle ──▶ volume ──ACK──▶ starting ──ACK──▶ playing ──FINISHED──▶ resting ──▶ starting (next track) … ──▶ idle, done
//                               │  ▲               │
//                  no ACK in time  └─ it stands    └─ shortly after the start, and when FINISHED is late: does it play?
//                               ▼
//                            asking ── it plays ──▶ playing
//
// A clip said twice is a wrong amount, and so is one left out. So a clip is told to play again only while the module can say for certain
// that it has not (sooner than any clip is long), and a clip counts as heard only when its FINISHED came or the module was seen playing
// it; else the sentence fails, `unsure`. FINISHED carries the place of the file on the card and not its number, and comes twice from
// most chips: its echo falls into the rest between clips.
import { DFPLAYER, DFPLAYER_ERRORS, type DfFrame } from '../protocol/index.js'

export const ACK_MS = 100 // 21 ms on the wire both ways, and what slow chips take.
export const ATTEMPTS_MAX = 3
/** Quiet between FINISHED and the next clip, in which its echo arrives. */
export const REST_MS = 40
/** No clip of a card may be shorter: a FINISHED so early is an echo, and what stands so early has not played. */
export const CLIP_MS_MIN = 250
/** From the start of a clip to the question whether it plays, and from the last answer to the next question. */
export const CONFIRM_AFTER_MS = 60
export const ASK_AFTER_MS = 1200
/** No clip is this long. */
export const CLIP_MS_MAX = 10_000

type Phase = 'volume' | 'starting' | 'asking' | 'playing' | 'resting'
/** `attempts`: of what the phase waits for. `starts`: how often this track was told to play. `wasSeen`: playing. */
export type Player = undefined | {
  phase: Phase, volume: number, tracks: readonly number[], index: number, attempts: number, starts: number, dueMs: number
  clipAtMs: number, firstAtMs: number | undefined, askedAtMs: number, wasSeen: boolean
}
export type PlayerEvent = { kind: 'say', tracks: readonly number[], volume: number } | { kind: 'frame', frame: DfFrame } | { kind: 'tick' } | { kind: 'lost' }
/** `failed`: `heard` says whether any clip of the sentence had begun; `track` is the one that failed. */
export type PlayerEffect =
  | { kind: 'write', frame: DfFrame }
  | { kind: 'done', audioMs: number, soundAfterMs: number }
  | { kind: 'failed', reason: string, track: number | undefined }

/** One step. A sentence that is said while another plays is the caller's mistake and fails, `busy`. */
export function stepPlayer (player: Player, event: PlayerEvent, nowMs: number): { next: Player, effects: PlayerEffect[] } {
  if (event.kind === 'say') {
    if (player !== undefined) return { next: player, effects: [{ kind: 'failed', reason: 'busy', track: undefined }] }
    const { tracks, volume } = event
    const first: Player = { phase: 'volume', volume, tracks, index: 0, attempts: 0, starts: 0, dueMs: nowMs, clipAtMs: 0, firstAtMs: undefined, askedAtMs: nowMs, wasSeen: false }
    return attempt(first, nowMs)
  }
  if (player === undefined) return { next: undefined, effects: [] }
  if (event.kind === 'lost') return fail(player, 'port-lost')
  if (event.kind === 'frame') return takeFrame(player, event.frame, nowMs)
  return nowMs < player.dueMs ? { next: player, effects: [] } : passTime(player, nowMs)
}

type Now = NonNullable<Player>
type Stepped = { next: Player, effects: PlayerEffect[] }

function takeFrame (player: Now, { command, param }: DfFrame, nowMs: number): Stepped {
  const { phase } = player
  const stay: Stepped = { next: player, effects: [] }
  switch (command) {
    case DFPLAYER.ACK:
      if (phase === 'volume') return startTrack(player, nowMs)
      return phase === 'starting' ? { next: playingFrom(player, nowMs), effects: [] } : stay
    case DFPLAYER.FINISHED: {
      const isOurs = (phase === 'starting' || phase === 'asking' || phase === 'playing') && nowMs - player.clipAtMs >= CLIP_MS_MIN
      return isOurs ? endTrack(player, nowMs) : stay
    }
    case DFPLAYER.STATUS: return takeStatus(player, (param & 0xff) === 1, nowMs)
    case DFPLAYER.ERROR: return takeError(player, param, nowMs)
    case DFPLAYER.CARD_OUT: return fail(player, 'card-out')
    case DFPLAYER.READY: return fail(player, 'module-reset')
    default: return stay
  }
}

function takeStatus (player: Now, isPlaying: boolean, nowMs: number): Stepped {
  const { phase } = player
  if (phase !== 'asking' && phase !== 'playing') return { next: player, effects: [] }
  if (isPlaying) return { next: { ...playingFrom(player, nowMs), wasSeen: true, dueMs: nowMs + ASK_AFTER_MS }, effects: [] }
  if (phase === 'playing' && player.wasSeen) return endTrack(player, nowMs)
  if (nowMs - player.clipAtMs >= CLIP_MS_MIN) return fail(player, 'unsure')
  return attempt({ ...player, phase: 'starting', attempts: 0 }, nowMs)
}

function takeError (player: Now, param: number, nowMs: number): Stepped {
  const mayPass = param === 1 || param === 3 || param === 4 // Busy, and frames that arrived damaged.
  if (!mayPass) return fail(player, DFPLAYER_ERRORS[param] ?? `error-${param}`)
  // What is due for want of an answer is due now.
  return player.phase === 'playing' ? { next: player, effects: [] } : passTime(player, nowMs)
}

function passTime (player: Now, nowMs: number): Stepped {
  switch (player.phase) {
    case 'resting': return nowMs < player.dueMs ? { next: player, effects: [] } : startTrack({ ...player, index: player.index + 1 }, nowMs)
    case 'volume': return attempt(player, nowMs)
    case 'starting': return attempt({ ...player, phase: 'asking', attempts: 0 }, nowMs)
    case 'asking': return attempt(player, nowMs)
    case 'playing': return nowMs - player.clipAtMs >= CLIP_MS_MAX ? fail(player, 'clip-too-long') : askWhilePlaying(player, nowMs)
    default: return player.phase satisfies never
  }
}

/** Says once more what the phase waits for an answer to. */
function attempt (player: Now, nowMs: number): Stepped {
  const isStart = player.phase === 'starting'
  const starts = player.starts + (isStart ? 1 : 0)
  if (player.attempts >= ATTEMPTS_MAX || starts > ATTEMPTS_MAX) return fail(player, 'no-answer')
  const next = { ...player, starts, attempts: player.attempts + 1, dueMs: nowMs + ACK_MS, clipAtMs: isStart ? nowMs : player.clipAtMs }
  const write = (command: number, param: number, wantsFeedback: boolean): Stepped => ({ next, effects: [{ kind: 'write', frame: { command, param, wantsFeedback } }] })
  if (player.phase === 'volume') return write(DFPLAYER.SET_VOLUME, player.volume, true)
  return isStart ? write(DFPLAYER.PLAY_MP3, player.tracks[player.index] ?? 0, true) : write(DFPLAYER.STATUS, 0, false)
}

/** An answer that does not come is no fault while the clip may play: its FINISHED may still come. */
function askWhilePlaying (player: Now, nowMs: number): Stepped {
  const attempts = Math.min(ATTEMPTS_MAX, player.attempts + 1)
  const dueMs = nowMs + (attempts < ATTEMPTS_MAX ? ACK_MS : ASK_AFTER_MS)
  return { next: { ...player, attempts, dueMs }, effects: [{ kind: 'write', frame: { command: DFPLAYER.STATUS, param: 0, wantsFeedback: false } }] }
}

function startTrack (player: Now, nowMs: number): Stepped {
  return attempt({ ...player, phase: 'starting', attempts: 0, starts: 0, wasSeen: false }, nowMs)
}

function playingFrom (player: Now, nowMs: number): Now {
  return { ...player, phase: 'playing', attempts: 0, firstAtMs: player.firstAtMs ?? nowMs, dueMs: nowMs + CONFIRM_AFTER_MS }
}

function endTrack (player: Now, nowMs: number): Stepped {
  if (player.index + 1 < player.tracks.length) return { next: { ...player, phase: 'resting', attempts: 0, dueMs: nowMs + REST_MS }, effects: [] }
  const soundAt = player.firstAtMs ?? player.clipAtMs
  return { next: undefined, effects: [{ kind: 'done', audioMs: Math.round(nowMs - soundAt), soundAfterMs: Math.round(soundAt - player.askedAtMs) }] }
}

function fail (player: Now, reason: string): Stepped {
  const stop: PlayerEffect = { kind: 'write', frame: { command: DFPLAYER.STOP, param: 0, wantsFeedback: false } }
  return { next: undefined, effects: [stop, { kind: 'failed', reason, track: player.tracks[player.index] }] }
}
