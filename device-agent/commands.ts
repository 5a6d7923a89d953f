// What each command of the operator makes this box do, as data. agent.ts carries it out.
import type { Announcement, Command, Language } from '../protocol/index.js'
import { isLanguage } from '../protocol/index.js'
import type { Phrase } from './playback.js'

/** What a plan may look at. `lastPayments`: oldest first. */
export type CommandContext = { language: Language, lastPayments: (count: number) => readonly Phrase[] }

export type CommandPlan =
  | { kind: 'say', phrases: readonly Phrase[], repeat: boolean, always: boolean }
  | { kind: 'volume', volume: number }
  | { kind: 'language', language: Language }
  | { kind: 'reboot' }
  | { kind: 'collect-log' }
  | { kind: 'refuse', reason: string }

/** Payments that a replay says when it does not name a number, and at most. */
export const REPLAY_COUNT = 3
export const REPLAY_COUNT_MAX = 5
const CURRENCY = 'INR'

/** A prompt of the box itself. `count`: the number it names; `amountMinor` for the day total. */
export function promptPhrase (prompt: NonNullable<Announcement['prompt']>, language: Language, { count, amountMinor = 0 }: { count?: number, amountMinor?: number } = {}): Phrase {
  return { kind: 'prompt', prompt, language, amountMinor, currency: CURRENCY, ...(count === undefined ? {} : { count }) }
}

/** The last payments again, or the prompt that there is none. */
export function replayPlan (count: number, { language, lastPayments }: CommandContext): CommandPlan {
  const payments = lastPayments(count)
  if (payments.length === 0) return { kind: 'say', phrases: [promptPhrase('no-payments', language)], repeat: false, always: false }
  return { kind: 'say', phrases: payments, repeat: true, always: false }
}

/** Pure. A command with wrong arguments, or for a part that this box does not have, is refused with a reason of at most 64 letters. */
export function planCommand (command: Command, context: CommandContext): CommandPlan {
  const { name, args } = command
  const number = (field: string, min: number, max: number): number | undefined => {
    const value = args[field]
    return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : undefined
  }
  switch (name) {
    case 'replay': {
      const count = args['count'] === undefined ? REPLAY_COUNT : number('count', 1, REPLAY_COUNT_MAX)
      return count === undefined ? { kind: 'refuse', reason: `count must be 1 to ${REPLAY_COUNT_MAX}` } : replayPlan(count, context)
    }
    case 'test':
    case 'locate': {
      const test: Phrase = { kind: 'test', language: context.language, amountMinor: 0, currency: CURRENCY }
      return { kind: 'say', phrases: [test], repeat: false, always: name === 'locate' }
    }
    case 'day-total': {
      const count = number('count', 0, 1_000_000)
      const amountMinor = number('amountMinor', 0, Number.MAX_SAFE_INTEGER)
      if (count === undefined || amountMinor === undefined) return { kind: 'refuse', reason: 'count and amountMinor are needed' }
      return { kind: 'say', phrases: [promptPhrase('day-total', context.language, { count, amountMinor })], repeat: false, always: true }
    }
    case 'volume': {
      const volume = number('volume', 0, 100)
      return volume === undefined ? { kind: 'refuse', reason: 'volume must be 0 to 100' } : { kind: 'volume', volume }
    }
    case 'language': {
      const language = args['language']
      return typeof language === 'string' && isLanguage(language) ? { kind: 'language', language } : { kind: 'refuse', reason: 'language is unknown' }
    }
    case 'reboot': return { kind: 'reboot' }
    case 'collect-log': return { kind: 'collect-log' }
    case 'display-qr':
    case 'clear-display': return { kind: 'refuse', reason: 'no display' }
    case 'firmware': return { kind: 'refuse', reason: 'software is updated with its host' }
    default: return name satisfies never
  }
}
