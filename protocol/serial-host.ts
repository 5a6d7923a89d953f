// The host's side of the serial conversation: requests that end exactly once, whatever the line and the box do.
//
//   waiting ──▶ sending ──▶ asked ──▶ done          waiting: never on the line, so its end can be said with certainty.
//                  │  ▲       │                     asked:   the box has it (the link's ACK), its RESULT is to come.
//                  ▼  │       ▼                     unsure:  it was written and the session ended; only the box knows.
//                 unsure ◀────┘
//
// An unsure request is asked again in the next session under the same id, after its time to live with ttlMs 0: a box that knows the id
// says how it ended, a box that does not says expired. So a RESULT that was lost is fetched, and nothing is spoken twice or late.
// When no box answers until the grace is over, the end is `failed` with reason no-answer: the one case in which the host cannot know.
// A RESULT that comes for no open request (after no-answer, or of a host before this one) is handed up as `late`.
import { type LinkEffect, type LinkEvent, type LinkPolicy, type LinkState, linkDueMs, type LostWhy, makeLink, stepLink } from './link.js'
import type { BoxHello, BoxStatus, SerialMessage, SerialResult } from './serial-messages.js'

/** Requests that are not done; one more ends at once as failed, host-full. */
export const HOST_REQUESTS_MAX = 64
/** Announcements a box may hold before it has spoken them. */
export const ANNOUNCE_WINDOW = 4

/** Reasons of the host for a request that no box answered. A box gives its own; `refused` and `too-large` are of the message itself. */
export const UNANSWERED_REASONS = ['link-down', 'no-answer', 'reset', 'host-full'] as const

type RequestState = 'waiting' | 'sending' | 'asked' | 'unsure'
type Request = { id: string, message: SerialMessage, state: RequestState, deadlineMs: number, giveUpMs: number, wasAsked: boolean }

export type HostState = { link: LinkState, requests: readonly Request[] }
/**
 * `ttlMs` to start it, then `graceMs` for the answer. A message without an id (chunk, ping) is done when it is delivered. `wasAsked`: a
 * host before this one may have asked, so the box may know it: it is unsure from the beginning.
 */
export type HostRequest = { id: string, message: SerialMessage, ttlMs: number, graceMs: number, wasAsked?: boolean }
export type HostEvent = LinkEvent | { kind: 'request' } & HostRequest
export type HostEffect =
  | { kind: 'write', bytes: Buffer }
  | { kind: 'done', id: string, result: SerialResult }
  | { kind: 'late', result: SerialResult }
  | { kind: 'status', status: BoxStatus }
  | { kind: 'up', box: BoxHello, isReboot: boolean }
  | { kind: 'down', why: string }

/** A host without a line. */
export function makeHost (): HostState {
  return { link: makeLink('host'), requests: [] }
}

/** One step. Pure: the state given is not changed. */
export function stepHost (state: HostState, event: HostEvent, nowMs: number, policy: LinkPolicy): { next: HostState, effects: HostEffect[] } {
  const step: Step = { link: state.link, requests: [...state.requests], effects: [], nowMs, policy }
  if (event.kind === 'request') takeRequest(step, event)
  else driveLink(step, event)
  endOverdue(step)
  pump(step)
  return { next: { link: step.link, requests: step.requests }, effects: step.effects }
}

/** When the next `tick` is due, or undefined. */
export function hostDueMs (state: HostState, policy: LinkPolicy): number | undefined {
  const due = state.requests.map(request => request.state === 'waiting' ? request.deadlineMs : request.giveUpMs)
  const first = Math.min(linkDueMs(state.link, policy) ?? Infinity, ...due)
  return first === Infinity ? undefined : first
}

/** True when no box has answered: another try may help. */
export function isUnanswered (result: SerialResult): boolean {
  return (UNANSWERED_REASONS as readonly (string | undefined)[]).includes(result.reason)
}

type Step = { link: LinkState, requests: Request[], effects: HostEffect[], nowMs: number, policy: LinkPolicy }

function takeRequest (step: Step, event: HostRequest): void {
  const { id, message, wasAsked = false } = event
  if (step.requests.some(request => request.id === id)) return
  if (step.requests.length >= HOST_REQUESTS_MAX) {
    finish(step, id, { id, result: 'failed', reason: 'host-full' })
    return
  }
  const deadlineMs = step.nowMs + event.ttlMs
  step.requests.push({ id, message, state: wasAsked ? 'unsure' : 'waiting', deadlineMs, giveUpMs: deadlineMs + event.graceMs, wasAsked })
}

function driveLink (step: Step, event: LinkEvent): void {
  const { next, effects } = stepLink(step.link, event, step.nowMs, step.policy)
  step.link = next
  for (const effect of effects) takeLinkEffect(step, effect)
}

function takeLinkEffect (step: Step, effect: LinkEffect): void {
  switch (effect.kind) {
    case 'write': step.effects.push(effect); break
    case 'deliver': takeMessage(step, effect.message); break
    case 'sent': handleSent(step, effect.token); break
    case 'lost': handleLost(step, effect); break
    case 'up': if (effect.box !== undefined) step.effects.push({ kind: 'up', box: effect.box, isReboot: effect.isReboot }); break
    case 'down':
      for (const request of step.requests.filter(request => request.state === 'asked')) change(step, request.id, 'unsure')
      step.effects.push(effect)
      break
    default: effect satisfies never
  }
}

function takeMessage (step: Step, message: SerialMessage): void {
  if (message.type === 'STATUS') {
    const { type: _type, ...status } = message
    step.effects.push({ kind: 'status', status })
  } else if (message.type === 'RESULT') {
    const { type: _type, ...result } = message
    const request = step.requests.find(request => request.id === result.id)
    if (request === undefined) step.effects.push({ kind: 'late', result })
    else finish(step, result.id, request.wasAsked ? resultOfRepeat(result) : result)
  }
}

/** What a box answers to a request that this host had asked before is how the first one ended. */
function resultOfRepeat (result: SerialResult): SerialResult {
  if (result.result !== 'duplicate' || result.was === undefined) return result
  const { was, ...rest } = result
  return { ...rest, result: was }
}

function handleSent (step: Step, id: string): void {
  const request = step.requests.find(request => request.id === id)
  if (request === undefined) return
  if (!hasAnswer(request.message)) finish(step, id, { id, result: 'done' })
  else change(step, id, 'asked')
}

function handleLost (step: Step, { token: id, why, wasWritten }: { token: string, why: LostWhy, wasWritten: boolean }): void {
  const request = step.requests.find(request => request.id === id)
  if (request === undefined) return
  if (why === 'refused') finish(step, id, { id, result: 'failed', reason: 'refused' })
  else if (why === 'unencodable') finish(step, id, { id, result: 'failed', reason: 'too-large' })
  else if (!hasAnswer(request.message)) finish(step, id, { id, result: 'failed', reason: 'reset' })
  else if (wasWritten || request.wasAsked) change(step, id, 'unsure')
  else change(step, id, 'waiting')
}

function endOverdue (step: Step): void {
  for (const { id, state, message, deadlineMs, giveUpMs } of [...step.requests]) {
    if (state === 'waiting' && step.nowMs >= deadlineMs) {
      finish(step, id, { id, result: message.type === 'ANNOUNCE' ? 'expired' : 'failed', reason: 'link-down' })
    } else if (step.nowMs >= giveUpMs) finish(step, id, { id, result: 'failed', reason: 'no-answer' })
  }
}

/** Hands the link one request at a time, so that the time to live is that of the moment. */
function pump (step: Step): void {
  while (step.link.isUp && !step.requests.some(request => request.state === 'sending')) {
    const held = step.requests.filter(request => request.state === 'asked' && request.message.type === 'ANNOUNCE').length
    const next = step.requests.find(({ state, message }) =>
      (state === 'waiting' || state === 'unsure') && (message.type !== 'ANNOUNCE' || held < ANNOUNCE_WINDOW))
    if (next === undefined) return
    const ttlMs = Math.max(0, Math.floor(next.deadlineMs - step.nowMs))
    change(step, next.id, 'sending')
    driveLink(step, { kind: 'send', token: next.id, message: next.message.type === 'ANNOUNCE' ? { ...next.message, ttlMs } : next.message })
  }
}

function finish (step: Step, id: string, result: SerialResult): void {
  step.requests = step.requests.filter(request => request.id !== id)
  step.effects.push({ kind: 'done', id, result })
}

function change (step: Step, id: string, state: RequestState): void {
  step.requests = step.requests.map(request => request.id === id ? { ...request, state, wasAsked: state === 'unsure' || request.wasAsked } : request)
}

function hasAnswer (message: SerialMessage): boolean {
  return 'id' in message
}
