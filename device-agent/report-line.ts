// One line for each sound that was made: for people, or as JSON for the program that started this one.
import { formatAmount } from '../protocol/index.js'
import type { SpokenReport } from './voice.js'

/** `SB-0001 [HINDI] "…" in 87 ms, wav: path`. The time is from the payment to the start of the sound; the box's own prompts have none. */
export function formatPrintLine (tid: string, { text, language, fromIssuedMs, wav }: SpokenReport): string {
  return `${tid} [${language}] "${text}"${fromIssuedMs === null ? '' : ` in ${fromIssuedMs} ms`}${wav === null ? '' : `, wav: ${wav}`}`
}

/** `id` null: the box's own sound. `ids`: all members, where a summary stands for many. `amount`: rupees. */
export function formatJsonLine (tid: string, { ids, phrase, text, language, queuedMs, audioMs, fromIssuedMs, wav }: SpokenReport): string {
  const what = phrase.prompt === undefined ? { kind: phrase.kind, amount: formatAmount(phrase.amountMinor) } : { kind: phrase.kind, prompt: phrase.prompt }
  return JSON.stringify({ tid, id: ids[0] ?? null, ids, ...what, text, language, queuedMs, audioMs, fromIssuedMs, wav })
}
