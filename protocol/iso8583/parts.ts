// Fields whose spec says how they are built: BER-TLV objects, or parts by position in the value. The value itself stays in `fields`.
import { charClass, type IsoFailure, Iso8583Error, kindOf } from './failure.js'
import { CHARS, type FieldPlan, type Message, PACKED, type Spec, type SubfieldPlan, type Subfields, type TlvItem } from './plan.js'
import { ALLOWED_WORDS } from './tables.js'
import { readTlv, writeTlv } from './tlv.js'

type PartSource = { start: number, ease: number, fail: (failure: IsoFailure) => Error }

/** The parts of a value that was read at byte `start`. Throws what `source.fail` makes. */
export function readParts (field: FieldPlan, value: string, source: PartSource): TlvItem[] | Subfields {
  if (field.subfields !== undefined) return readSubfields(field, field.subfields, value, source)
  return readTlv(Buffer.from(value, 'hex'), { ...source, path: field.path, scale: field.kind === CHARS ? 2 : 1 })
}

/** The fields of a message with the values of its `parts` built in. Throws ISO_PACK_INVALID, also where both are given and differ. */
export function fieldsWithParts (spec: Spec, message: Message): Record<string, string> {
  const fields = { ...message.fields }
  for (const [key, parts] of Object.entries(message.parts ?? {})) {
    const field = spec.parted.includes(Number(key)) ? spec.fields[Number(key)] : undefined
    if (field === undefined || field.path !== key) throw bad('subfield', 'parts', 'fields that have parts in this spec', 'another field')
    const value = field.subfields === undefined ? writeTlv(parts as TlvItem[], key) : writeSubfields(key, field.subfields, parts as Subfields)
    if (fields[key] !== undefined && fields[key] !== value) throw bad('conflict', key, 'the same value in fields and parts', 'two values')
    fields[key] = value
  }
  return fields
}

/** Checks values that came as text and not as parts, so that pack never writes what unpack refuses. */
export function checkParts (spec: Spec, fields: Record<string, string>, ease: number): void {
  const fail = (failure: IsoFailure): Error => {
    const { offset: _, ...rest } = failure
    return new Iso8583Error('ISO_PACK_INVALID', rest)
  }
  for (const number of spec.parted) {
    const value = fields[number]
    const field = spec.fields[number]
    if (field !== undefined && typeof value === 'string') readParts(field, value, { start: 0, ease, fail })
  }
}

function readSubfields (field: FieldPlan, plans: readonly SubfieldPlan[], value: string, source: PartSource): Subfields {
  const parts: Subfields = {}
  let at = 0
  for (const plan of plans) {
    if (plan.optional && at === value.length) break
    const path = `${field.path}.${plan.name}`
    const wrong = (expected: string, found: string): Error =>
      source.fail({ reason: 'subfield', path, offset: source.start + wireOffset(field, value.length, at), expected, found })
    let length = plan.max
    if (plan.lengthDigits > 0) {
      const prefix = value.slice(at, at + plan.lengthDigits)
      if (prefix.length < plan.lengthDigits || /\D/.test(prefix)) throw wrong(`${plan.lengthDigits} length digits`, 'other characters')
      length = Number(prefix)
      if (length > plan.max) throw wrong(`a length up to ${plan.max}`, `length ${length}`)
      at += plan.lengthDigits
    }
    const part = value.slice(at, at + length)
    if (part.length < length) throw wrong(`${length} characters`, `${part.length} to the end`)
    const fault = classFault(plan, part)
    if (fault !== undefined) throw wrong(ALLOWED_WORDS[plan.type], fault)
    parts[plan.name] = part
    at += length
  }
  if (at < value.length) {
    throw source.fail({
      reason: 'subfield', path: field.path, offset: source.start + wireOffset(field, value.length, at), expected: 'the end of the field', found: `${value.length - at} more characters`
    })
  }
  return parts
}

/** Bytes from the start of the value to the character at `at`. */
function wireOffset (field: FieldPlan, length: number, at: number): number {
  if (field.kind === CHARS) return at
  const padded = field.kind === PACKED && !field.padRight && length % 2 !== 0
  return (at + Number(padded)) >> 1
}

function classFault (plan: SubfieldPlan, part: string): string | undefined {
  for (let index = 0; index < part.length; index++) {
    const code = part.charCodeAt(index)
    if (code > 255 || plan.tables.toWire[code]! < 0) return charClass(code)
  }
  return undefined
}

function writeSubfields (key: string, plans: readonly SubfieldPlan[], parts: Subfields): string {
  if (typeof parts !== 'object' || parts === null || Array.isArray(parts)) throw bad('subfield', key, 'parts by name', kindOf(parts))
  const unknown = Object.keys(parts).some(name => !plans.some(plan => plan.name === name))
  if (unknown) throw bad('subfield', key, `the parts ${plans.map(plan => plan.name).join(', ')}`, 'another name')
  let value = ''
  let ended = false
  for (const plan of plans) {
    const path = `${key}.${plan.name}`
    const part = Object.hasOwn(parts, plan.name) ? parts[plan.name] : undefined
    if (part === undefined && plan.optional) {
      ended = true
      continue
    }
    if (typeof part !== 'string') throw bad('subfield', path, 'a text', kindOf(part))
    if (ended) throw bad('subfield', path, 'no part after a missing one', 'one')
    const fits = plan.lengthDigits === 0 ? part.length === plan.max : part.length <= plan.max
    if (!fits) throw bad('subfield', path, `${plan.lengthDigits === 0 ? '' : 'up to '}${plan.max} characters`, `${part.length}`)
    const fault = classFault(plan, part)
    if (fault !== undefined) throw bad('subfield', path, ALLOWED_WORDS[plan.type], fault)
    value += (plan.lengthDigits === 0 ? '' : String(part.length).padStart(plan.lengthDigits, '0')) + part
  }
  return value
}

function bad (reason: 'subfield' | 'conflict', path: string, expected: string, found: string): Iso8583Error {
  return new Iso8583Error('ISO_PACK_INVALID', { reason, path, expected, found })
}
