// The rules of speaking, as one pure state machine. What it is asked for comes in as events, what must be done goes out as effects.
//
//   announce --+--> waiting ---> speaking --ended--> final ack, gap, next
//              |       |  \
//              |       |   `- more than `summariseOver` payments wait when the voice is free: one summary of them all
//              |       `----- past its expiry, or muted: final ack without a sound
//              `------------- its id is in the journal: `duplicate`, or the recorded final ack again while nobody confirmed it
//
// One voice at a time. Times are the device's own clock; `clockOffsetMs` turns them into the gateway's. A full queue is flow control:
// the announcement is kept and `received` is owed until the queue moves, so the gateway's pump (one in flight) waits with it.
import { type Ack, type Announcement, AMOUNT_MINOR_MAX, type Desired, type Prompt } from '../protocol/index.js'

/** What is said: the part of an announcement that the wording needs. */
export type Phrase = Pick<Announcement, 'kind' | 'amountMinor' | 'currency' | 'language' | 'txnType' | 'count' | 'prompt'>

/** gapMs: silence between two sounds. queueMax: announcements that may wait. speakTimeoutMs: a sound that takes longer has failed. */
export type PlaybackLimits = { gapMs: number, queueMax: number, summariseOver: number, speakTimeoutMs: number }
export type PlaybackPolicy = PlaybackLimits & Pick<Desired, 'volume' | 'minVolume' | 'quietHours'> & { clockOffsetMs: number }

type FromGateway = { source: 'gateway', id: string, phrase: Phrase, issuedAt: number, expiresAt: number, receivedAt: number, owed: boolean }
/** `always`: somebody stands at the box and asked for it, so quiet hours do not count. */
type FromHere = { source: 'here', phrase: Phrase, repeat: boolean, always: boolean, commandId: string | null, receivedAt: number }
export type Waiting = FromGateway | FromHere
export type Speaking = { token: number, members: readonly Waiting[], summary: boolean, startedAt: number }
export type Playback = { waiting: readonly Waiting[], speaking: Speaking | null, readyAt: number, token: number, stopped: boolean }

/** What the journal knows of an id that was finished before. `settled`: the gateway confirmed the final ack. */
export type Known = { result: Ack['result'], settled: boolean }

export type PlaybackEvent =
  | { kind: 'announce', announcement: Announcement, known: Known | undefined }
  | { kind: 'say', phrases: readonly Phrase[], repeat: boolean, always: boolean, commandId: string | null }
  | { kind: 'ended', token: number, ok: true, soundAt: number, audioMs: number }
  | { kind: 'ended', token: number, ok: false, reason: string }
  | { kind: 'tick' }
  | { kind: 'stop' }

/**
 * One sound. `members`: the announcements it is for, none for the box's own. `isOnline`: a summary made here, not of what was missed.
 * `receivedAt`, `issuedAt`: of the oldest of them.
 */
export type Sound = {
  token: number, members: readonly { id: string, phrase: Phrase }[], phrase: Phrase, repeat: boolean, isOnline: boolean
  volume: number, receivedAt: number, issuedAt: number | null
}

/** `final` is to be recorded, then sent until confirmed; `settle` sends a recorded one again. `speak` records its ids before the sound. */
export type Effect =
  | { kind: 'ack', ack: Ack }
  | { kind: 'final', ack: Ack }
  | { kind: 'settle', id: string }
  | { kind: 'speak', sound: Sound }
  | { kind: 'command-end', commandId: string, ok: boolean, reason?: string }

/** Prompts and repeats of this box itself that may wait; more are not worth saying. */
export const OWN_WAITING_MAX = 16
const ACK_MS_MAX = 86_400_000

/** Nothing waits, nothing sounds. */
export function emptyPlayback (): Playback {
  return { waiting: [], speaking: null, readyAt: 0, token: 0, stopped: false }
}

/** Is it quiet at this time of the gateway's clock? Start inclusive, end exclusive, over midnight when the end is the smaller one. */
export function isQuiet (quiet: Desired['quietHours'], gatewayMs: number): boolean {
  if (quiet === null) return false
  const minute = (((Math.floor(gatewayMs / 60_000) + quiet.utcOffsetMinutes) % 1440) + 1440) % 1440
  const { startMinute: start, endMinute: end } = quiet
  return start <= end ? minute >= start && minute < end : minute >= start || minute < end
}

/** When the machine wants a `tick`, by the device's clock; undefined when only events move it. */
export function wakeAt (state: Playback, limits: PlaybackLimits): number | undefined {
  if (state.speaking !== null) return state.speaking.startedAt + limits.speakTimeoutMs
  return state.waiting.length > 0 && !state.stopped ? state.readyAt : undefined
}

/** Next state, and what must be done, in order. Every announcement that got `received` gets exactly one `final`. */
export function stepPlayback (state: Playback, event: PlaybackEvent, nowMs: number, policy: PlaybackPolicy): { next: Playback, effects: readonly Effect[] } {
  const effects: Effect[] = []
  const taken = takeEvent(state, event, { nowMs, policy, effects })
  return { next: startNext(taken, { nowMs, policy, effects }), effects }
}

type Turn = { nowMs: number, policy: PlaybackPolicy, effects: Effect[] }

function takeEvent (state: Playback, event: PlaybackEvent, turn: Turn): Playback {
  switch (event.kind) {
    case 'announce': return takeAnnouncement(state, event.announcement, event.known, turn)
    case 'say': return takeOwn(state, event, turn)
    case 'ended': return event.token === state.speaking?.token ? endSound(state, event, turn) : state
    case 'tick': {
      const late = state.speaking !== null && turn.nowMs >= state.speaking.startedAt + turn.policy.speakTimeoutMs
      return late ? endSound(state, { kind: 'ended', token: state.token, ok: false, reason: 'speaker timeout' }, turn) : state
    }
    case 'stop': {
      for (const item of state.waiting) if (item.source === 'here') endOwn(item, { ok: false, reason: 'stopped' }, turn)
      return { ...state, stopped: true, waiting: state.waiting.filter(item => item.source === 'gateway') }
    }
    default: return event satisfies never
  }
}

function takeAnnouncement (state: Playback, announcement: Announcement, known: Known | undefined, turn: Turn): Playback {
  const { id, issuedAt, expiresAt } = announcement
  const here = [...state.waiting, ...(state.speaking?.members ?? [])].find(item => item.source === 'gateway' && item.id === id)
  if (here !== undefined) {
    if (here.source === 'gateway' && !here.owed) turn.effects.push({ kind: 'ack', ack: { id, result: 'received' } })
    return state
  }
  if (known !== undefined) {
    turn.effects.push(known.settled ? { kind: 'ack', ack: { id, result: 'duplicate', was: known.result } } : { kind: 'settle', id })
    return state
  }
  const ahead = state.waiting.filter(item => item.source === 'gateway').length
  if (ahead > turn.policy.queueMax) {
    final({ id, result: 'failed', reason: 'queue full' }, turn)
    return state
  }
  const owed = ahead === turn.policy.queueMax
  if (!owed) turn.effects.push({ kind: 'ack', ack: { id, result: 'received' } })
  const item: FromGateway = { source: 'gateway', id, phrase: phraseOf(announcement), issuedAt, expiresAt, receivedAt: turn.nowMs, owed }
  return { ...state, waiting: [...state.waiting, item] }
}

function takeOwn (state: Playback, { phrases, repeat, always, commandId }: Extract<PlaybackEvent, { kind: 'say' }>, turn: Turn): Playback {
  const makesStale = new Set(phrases.flatMap(phrase => phrase.prompt === undefined ? [] : [phrase.prompt, OPPOSITE[phrase.prompt]]))
  const isStale = (item: Waiting): boolean => item.source === 'here' && item.commandId === null && makesStale.has(item.phrase.prompt)
  const kept = commandId === null ? state.waiting.filter(item => !isStale(item)) : state.waiting
  const own = kept.filter(item => item.source === 'here').length
  if (state.stopped || own + phrases.length > OWN_WAITING_MAX) {
    if (commandId !== null) turn.effects.push({ kind: 'command-end', commandId, ok: false, reason: state.stopped ? 'stopped' : 'queue full' })
    return { ...state, waiting: kept }
  }
  const items = phrases.map((phrase, index): FromHere =>
    ({ source: 'here', phrase, repeat, always, commandId: index === phrases.length - 1 ? commandId : null, receivedAt: turn.nowMs }))
  return { ...state, waiting: [...kept, ...items] }
}

/** What a new prompt of the box makes untrue while it still waits. */
const OPPOSITE: Partial<Record<Prompt, Prompt>> = { connected: 'connection-lost', 'connection-lost': 'connected' }

function endSound (state: Playback, ended: Extract<PlaybackEvent, { kind: 'ended' }>, turn: Turn): Playback {
  const { members, summary } = state.speaking!
  for (const item of members) {
    if (item.source === 'here') {
      endOwn(item, ended.ok ? { ok: true } : { ok: false, reason: ended.reason }, turn)
      continue
    }
    if (!ended.ok) final({ id: item.id, result: 'failed', reason: ended.reason }, turn)
    else final({ id: item.id, result: summary ? 'summarised' : 'spoken', queuedMs: span(ended.soundAt - item.receivedAt), audioMs: span(ended.audioMs) }, turn)
  }
  return { ...state, speaking: null, readyAt: turn.nowMs + turn.policy.gapMs }
}

function endOwn (item: FromHere, end: { ok: boolean, reason?: string }, turn: Turn): void {
  if (item.commandId !== null) turn.effects.push({ kind: 'command-end', commandId: item.commandId, ...end })
}

/** Takes away what may not sound any more, then starts the next sound if the voice is free. */
function startNext (state: Playback, turn: Turn): Playback {
  if (state.speaking !== null || state.stopped || turn.nowMs < state.readyAt) return state
  const waiting = state.waiting.filter(item => maySound(item, turn)).map(item => payOwed(item, turn))
  const first = waiting.find(item => item.source === 'gateway') ?? waiting[0]
  if (first === undefined) return { ...state, waiting: [] }
  const members = summaryMembers(waiting, first, turn.policy)
  const token = state.token + 1
  const sound: Sound = {
    token,
    members: members.flatMap(item => item.source === 'gateway' ? [{ id: item.id, phrase: item.phrase }] : []),
    phrase: members.length === 1 ? first.phrase : summaryOf(members),
    repeat: first.source === 'here' && first.repeat,
    isOnline: members.length > 1,
    volume: Math.max(turn.policy.volume, turn.policy.minVolume),
    receivedAt: first.receivedAt,
    issuedAt: first.source === 'gateway' ? first.issuedAt : null
  }
  turn.effects.push({ kind: 'speak', sound })
  return {
    ...state,
    token,
    waiting: waiting.filter(item => !members.includes(item)),
    speaking: { token, members, summary: members.length > 1, startedAt: turn.nowMs }
  }
}

function maySound (item: Waiting, turn: Turn): boolean {
  const gatewayMs = turn.nowMs + turn.policy.clockOffsetMs
  if (item.source === 'gateway' && gatewayMs >= item.expiresAt) {
    final({ id: item.id, result: 'expired' }, turn)
    return false
  }
  const silent = Math.max(turn.policy.volume, turn.policy.minVolume) === 0
  const asked = item.source === 'here' ? item.always : item.phrase.prompt === 'code'
  if (!silent && (asked || !isQuiet(turn.policy.quietHours, gatewayMs))) return true
  const reason = silent ? 'volume 0' : 'quiet hours'
  if (item.source === 'gateway') final({ id: item.id, result: 'muted', reason }, turn)
  else endOwn(item, { ok: false, reason }, turn)
  return false
}

/** The queue moves: what was kept without `received` gets it now. */
function payOwed (item: Waiting, turn: Turn): Waiting {
  if (item.source === 'here' || !item.owed) return item
  turn.effects.push({ kind: 'ack', ack: { id: item.id, result: 'received' } })
  return { ...item, owed: false }
}

/** `first` alone, or with all payments of its currency that wait when they are too many; as far as every language can word the sum. */
function summaryMembers (waiting: readonly Waiting[], first: Waiting, policy: PlaybackPolicy): readonly Waiting[] {
  const payments = waiting.filter(item => item.source === 'gateway' && item.phrase.kind === 'payment' && item.phrase.currency === first.phrase.currency)
  if (!payments.includes(first) || payments.length <= policy.summariseOver) return [first]
  const members: Waiting[] = []
  let total = 0
  for (const item of payments) {
    if (total + item.phrase.amountMinor > AMOUNT_MINOR_MAX) break
    total += item.phrase.amountMinor
    members.push(item)
  }
  return members
}

function summaryOf (members: readonly Waiting[]): Phrase {
  const { currency, language } = members[0]!.phrase
  return { kind: 'summary', amountMinor: members.reduce((sum, item) => sum + item.phrase.amountMinor, 0), currency, language, count: members.length }
}

/** The part of an announcement that is said. */
export function phraseOf (a: Announcement): Phrase {
  return {
    kind: a.kind,
    amountMinor: a.amountMinor,
    currency: a.currency,
    language: a.language,
    ...(a.txnType === undefined ? {} : { txnType: a.txnType }),
    ...(a.count === undefined ? {} : { count: a.count }),
    ...(a.prompt === undefined ? {} : { prompt: a.prompt })
  }
}

function final (ack: Ack, turn: Turn): void {
  turn.effects.push({ kind: 'final', ack: { ...ack, at: Math.max(0, Math.round(turn.nowMs + turn.policy.clockOffsetMs)) } })
}

function span (ms: number): number {
  return Math.min(ACK_MS_MAX, Math.max(0, Math.round(ms)))
}
