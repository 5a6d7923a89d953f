// How many calls of one issuer may be on the wire and how many may wait: the core is a pure state machine over tickets, the shell gives
// each waiting call a promise. A waiting call that gives up leaves the queue at once, so it can neither take a place later nor starve
// the calls behind it. Beyond the queue a call is refused: PROVIDER_BUSY.
import { SoundboxError } from '../../protocol/index.js'
import type { Cancel } from './cancel.js'

export type Bulkhead = { active: number, queue: readonly number[] }
export type BulkheadEvent = { kind: 'enter', ticket: number } | { kind: 'abandon', ticket: number } | { kind: 'leave' }
export type BulkheadPolicy = { activeMax: number, queueMax: number }
export const EMPTY: Bulkhead = { active: 0, queue: [] }

/** Next state, the ticket that may go now, and whether the entering one is refused. */
export function stepBulkhead (now: Bulkhead, event: BulkheadEvent, policy: BulkheadPolicy): { next: Bulkhead, admitted: number | undefined, refused: boolean } {
  switch (event.kind) {
    case 'enter':
      if (now.active < policy.activeMax) return { next: { active: now.active + 1, queue: now.queue }, admitted: event.ticket, refused: false }
      if (now.queue.length >= policy.queueMax) return { next: now, admitted: undefined, refused: true }
      return { next: { active: now.active, queue: [...now.queue, event.ticket] }, admitted: undefined, refused: false }
    case 'abandon':
      return { next: { active: now.active, queue: now.queue.filter(ticket => ticket !== event.ticket) }, admitted: undefined, refused: false }
    case 'leave': {
      const [first, ...rest] = now.queue
      return first === undefined
        ? { next: { active: now.active - 1, queue: now.queue }, admitted: undefined, refused: false }
        : { next: { active: now.active, queue: rest }, admitted: first, refused: false }
    }
    default:
      return event satisfies never
  }
}

/** The shell. `enter` resolves with the function that leaves (call it exactly once), or with undefined when the call is told to stop first;
 *  it throws PROVIDER_BUSY when the queue is full. */
export function openBulkhead (name: string, policy: BulkheadPolicy): { enter: (cancel: Cancel) => Promise<(() => void) | undefined>, now: () => Bulkhead } {
  let state = EMPTY
  let tickets = 0
  const waiting = new Map<number, () => void>()
  const step = (event: BulkheadEvent): { admitted: number | undefined, refused: boolean } => {
    const { next, admitted, refused } = stepBulkhead(state, event, policy)
    state = next
    return { admitted, refused }
  }
  const leave = (): void => {
    const { admitted } = step({ kind: 'leave' })
    if (admitted !== undefined) waiting.get(admitted)?.()
  }
  return {
    now: () => state,
    async enter (cancel) {
      if (cancel.reason() !== undefined) return undefined
      const ticket = ++tickets
      const { admitted, refused } = step({ kind: 'enter', ticket })
      if (refused) throw new SoundboxError('PROVIDER_BUSY', `${name}: ${policy.activeMax} calls are running and ${policy.queueMax} are waiting`)
      if (admitted === ticket) return leave
      return await new Promise(resolve => {
        const stop = cancel.onFire(() => {
          step({ kind: 'abandon', ticket })
          waiting.delete(ticket)
          resolve(undefined)
        })
        waiting.set(ticket, () => {
          stop()
          waiting.delete(ticket)
          resolve(leave)
        })
      })
    }
  }
}
