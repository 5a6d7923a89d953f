// What a connection tells those who count and those who keep records. Everything is optional but the counters, which cost an addition.
import type { Message } from '../../protocol/iso8583/index.js'

/**
 * in, out: messages. matched, late, unmatched: answers to requests of ours, in time, after it, or to none. timeout: a request of ours had no
 * answer. keep-alive: empty frames. rejected: unreadable, and answered. handler-late: an answer came after its deadline and was dropped.
 * handler-fault: a handler failed with an error that is not ours.
 */
export const LINK_EVENTS = ['in', 'out', 'matched', 'late', 'unmatched', 'timeout', 'keep-alive', 'rejected', 'handler-late', 'handler-fault'] as const
export type LinkEvent = typeof LINK_EVENTS[number]

/** `key`: what the message is correlated by. `ms`: with an answer, the time since its request. `lines`: the masked message, made when called. */
export type AuditEntry = { peer: string, direction: 'in' | 'out', mti: string, key: string, code: string | null, ms: number | null, lines: () => string[] }
export type Audit = (entry: AuditEntry) => void

/** What http metrics are made of. `reason`: of a codec error, or `frame`. */
export type IsoMeter = {
  event: (peer: string, event: LinkEvent) => void
  parseError: (peer: string, reason: string) => void
  /** `ours`: we asked and the peer answered; otherwise the peer asked. */
  latency: (peer: string, ours: boolean, ms: number) => void
}

export type Counters = Record<LinkEvent, number> & { parseErrors: Record<string, number> }
export type LinkHooks = {
  count: (event: LinkEvent) => void
  parseError: (reason: string) => void
  latency: (ours: boolean, ms: number) => void
  audit: ((direction: 'in' | 'out', message: Message, ms: number | null) => void) | undefined
}
export type HookDeps = { audit?: Audit | undefined, meter?: IsoMeter | undefined, describe: (message: Message) => string[] }

/** All counters at nothing. */
export function noCounters (): Counters {
  return Object.assign(Object.fromEntries(LINK_EVENTS.map(event => [event, 0])) as Record<LinkEvent, number>, { parseErrors: {} })
}

/** The hooks of one peer's connections, over shared counters. */
export function openHooks (peer: string, counters: Counters, { audit, meter, describe }: HookDeps): LinkHooks {
  return {
    count (event) {
      counters[event]++
      meter?.event(peer, event)
    },
    parseError (reason) {
      counters.parseErrors[reason] = (counters.parseErrors[reason] ?? 0) + 1
      meter?.parseError(peer, reason)
    },
    latency (ours, ms) { meter?.latency(peer, ours, ms) },
    audit: audit === undefined ? undefined : (direction, message, ms) => {
      audit({ peer, direction, mti: message.mti, key: correlationKey(message), code: message.fields['39'] ?? null, ms, lines: () => describe(message) })
    }
  }
}

/** What a request and its answer have in common: version and class of the MTI, DE 7, DE 11, and DE 41 where it is present. */
export function correlationKey ({ mti, fields }: Message): string {
  return `${mti.substring(0, 2)}|${fields['7'] ?? ''}|${fields['11'] ?? ''}|${fields['41'] ?? ''}`
}
