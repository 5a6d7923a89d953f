// A message as lines for a log, under the masks of its spec. Reads only.
import { maskValue } from './mask.js'
import { parseMti } from './mti.js'
import type { Message, Spec } from './plan.js'

/**
 * One line for the MTI and one for each field: `MTI 0200 1987 financial request, acquirer`, `DE 2 476173******0119`.
 * PIN, track and chip data never show; a field that the spec does not know shows its length alone. Never throws on a Message, never changes it.
 */
export function describe (spec: Spec, message: Message): string[] {
  const parts = parseMti(message.mti)
  const kind = parts === undefined ? 'unknown type' : `${parts.version} ${parts.class} ${parts.function}, ${parts.origin}`
  const lines = [`MTI ${maskValue(String(message.mti), 'clear', 'an')} ${kind}`]
  for (const [key, value] of Object.entries(message.fields)) {
    const field = spec.byKey[key]
    const shown = typeof value !== 'string' ? '[no text]' : maskValue(value, field?.mask ?? 'hidden', field?.type ?? 'ans')
    lines.push(`DE ${maskValue(key, 'clear', 'ans')}${field?.title === undefined ? '' : ` ${field.title}`} ${shown}`)
  }
  return lines
}
