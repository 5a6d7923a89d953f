// The state of one connection between two switches, as a pure state machine. Both ends may ask; neither answers an answer.
//
//   server:  waiting --(peer: 001)--> ready --(peer: 002)--> signed off --(peer: 001)--> ready
//   client:  waiting --(open: ask 001, answered 00)--> ready --(close: ask 002)--> closed; a sign-off of the peer ends it, too
//   both:    silent for echoIdleMs: ask 301; echoMissesMax of them without an answer: closed
// Without sign-on a connection is ready at once.
import { NETWORK_CODES, type NetworkCode } from './dialect.js'

export type SessionPolicy = {
  role: 'server' | 'client'
  signOn: boolean
  /** A connection that has not signed on by then is closed. */
  signOnMs: number
  /** Silence after which an echo is asked for; 0 = never. */
  echoIdleMs: number
  echoMissesMax: number
  /** What we ask is answered within so long, or was missed. */
  answerMs: number
}
export type Session = { phase: 'waiting' | 'ready' | 'signed-off' | 'closed', sinceMs: number, asking: NetworkCode | null, misses: number }
/** `asked`: by the peer. `answered`, `missed`: what we asked. `heardMs`: when the peer was last heard. */
export type SessionEvent =
  | { kind: 'open' }
  | { kind: 'asked', code: NetworkCode }
  | { kind: 'answered', code: NetworkCode, approved: boolean }
  | { kind: 'missed', code: NetworkCode }
  | { kind: 'tick', heardMs: number }
  | { kind: 'close' }
export type SessionEffect = { kind: 'ask', code: NetworkCode } | { kind: 'close', reason: string } | null
type Step = { next: Session, effect: SessionEffect }

/** A connection that was just opened. */
export function newSession (nowMs: number): Session {
  return { phase: 'waiting', sinceMs: nowMs, asking: null, misses: 0 }
}

/** Next state, and what the caller must do: send a network request, or end the connection. */
export function stepSession (now: Session, event: SessionEvent, nowMs: number, policy: SessionPolicy): Step {
  if (now.phase === 'closed') return { next: now, effect: null }
  switch (event.kind) {
    case 'open': return stepOpen(now, nowMs, policy)
    case 'asked': return { next: stepAsked(now, event.code, nowMs, policy), effect: null }
    case 'answered': return stepAnswered(now, event, nowMs)
    case 'missed': return stepMissed(now, event.code, policy)
    case 'tick': return stepTick(now, event.heardMs, nowMs, policy)
    case 'close': return stepClose(now, policy)
    default: event satisfies never
  }
  return { next: now, effect: null }
}

function stepOpen (now: Session, nowMs: number, policy: SessionPolicy): Step {
  if (!policy.signOn) return { next: { ...now, phase: 'ready', sinceMs: nowMs }, effect: null }
  return policy.role === 'client' ? ask(now, NETWORK_CODES.signOn) : { next: now, effect: null }
}

/** On a client the peer's own sign-on only lifts its own sign-off: ready is what our sign-on made. */
function stepAsked (now: Session, code: NetworkCode, nowMs: number, policy: SessionPolicy): Session {
  if (code === NETWORK_CODES.signOff) return { ...now, phase: 'signed-off', sinceMs: nowMs }
  const lifts = code === NETWORK_CODES.signOn && (policy.role === 'server' || now.phase === 'signed-off')
  return lifts && now.phase !== 'ready' ? { ...now, phase: 'ready', sinceMs: nowMs } : now
}

function stepAnswered (now: Session, { code, approved }: { code: NetworkCode, approved: boolean }, nowMs: number): Step {
  const rested: Session = { ...now, asking: now.asking === code ? null : now.asking, misses: 0 }
  switch (code) {
    case '001': return approved ? { next: { ...rested, phase: 'ready', sinceMs: nowMs }, effect: null } : closed(rested, 'the peer refused the sign-on')
    case '002': return closed(rested, 'signed off')
    case '101': case '301': return { next: rested, effect: null }
    default: code satisfies never
  }
  return { next: rested, effect: null }
}

function stepMissed (now: Session, code: NetworkCode, policy: SessionPolicy): Step {
  const next: Session = { ...now, asking: null, misses: now.misses + 1 }
  switch (code) {
    case '001': return closed(next, 'the sign-on was not answered')
    case '002': return closed(next, 'the sign-off was not answered')
    case '301':
      if (next.misses >= policy.echoMissesMax) return closed(next, `${next.misses} echoes were not answered`)
      return next.phase === 'ready' ? ask(next, NETWORK_CODES.echo) : { next: { ...next, asking: now.asking === code ? null : now.asking }, effect: null }
    case '101': return { next: { ...next, misses: now.misses }, effect: null }
    default: code satisfies never
  }
  return { next, effect: null }
}

function stepTick (now: Session, heardMs: number, nowMs: number, policy: SessionPolicy): Step {
  if (now.phase === 'waiting' && nowMs - now.sinceMs >= policy.signOnMs) return closed(now, 'no sign-on in time')
  if (now.phase !== 'ready' || now.asking !== null) return { next: now, effect: null }
  return policy.echoIdleMs > 0 && nowMs - heardMs >= policy.echoIdleMs ? ask(now, NETWORK_CODES.echo) : { next: now, effect: null }
}

function stepClose (now: Session, policy: SessionPolicy): Step {
  return now.phase === 'ready' && policy.signOn ? ask({ ...now, phase: 'signed-off' }, NETWORK_CODES.signOff) : closed(now, 'closed')
}

function ask (now: Session, code: NetworkCode): Step {
  return { next: { ...now, asking: code }, effect: { kind: 'ask', code } }
}

function closed (now: Session, reason: string): Step {
  return { next: { ...now, phase: 'closed', asking: null }, effect: { kind: 'close', reason } }
}
