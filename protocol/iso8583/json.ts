// The JSON shape of the npm package iso_8583, `{ 0: '0200', 2: '…' }`, both ways: code written for it moves over by changing one call.
import { Iso8583Error, kindOf } from './failure.js'
import type { Message, Spec } from './plan.js'

export type Iso8583Json = Record<string, string>

/**
 * A message from `{ 0: mti, 2: …, 3: … }`. Hex of binary fields may be of either case, as that package writes it lower and takes both.
 * Throws ISO_PACK_INVALID for a missing MTI, a value that is no text, and for its sub-fields of 127 (`127.2`), which have no place here.
 */
export function messageFromIso8583Json (spec: Spec, json: Iso8583Json): Message {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw wrong('message', 'an object', kindOf(json))
  const mti: unknown = json['0']
  if (typeof mti !== 'string') throw wrong('mti', 'the MTI under the key 0', kindOf(mti))
  const fields: Record<string, string> = {}
  for (const [key, value] of Object.entries(json)) {
    if (key === '0') continue
    const field = spec.byKey[key]
    if (field === undefined) throw wrong(/^\d{1,3}$/.test(key) ? key : 'fields', 'numbers of fields of this spec', 'another key')
    if (typeof value !== 'string') throw wrong(key, 'a text', kindOf(value))
    fields[key] = field.isHex ? value.toUpperCase() : value
  }
  return { mti, fields }
}

/** `{ 0: mti, 2: …, 3: … }` of a message. Hex stays in upper case. */
export function iso8583JsonFromMessage (message: Message): Iso8583Json {
  return { 0: message.mti, ...message.fields }
}

function wrong (path: string, expected: string, found: string): Iso8583Error {
  return new Iso8583Error('ISO_PACK_INVALID', { reason: 'input', path, expected, found })
}
