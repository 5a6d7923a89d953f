// What the frames of the serial line carry. Payloads are UTF-8 JSON objects, as on MQTT: readers are strict about what they use and
// blind to what they do not know, so that a newer peer may add fields.
//
// Whatever a box may refuse carries an `id` (32 hex digits) and is answered by exactly one RESULT of that id; a repeated id is answered
// `duplicate` with `was`, without doing it again. FIRMWARE_CHUNK and PING have no answer but the link's ACK. ACK and NAK are the link's.
import { invalid, oneOf, text, WORD, whole } from './fields.js'
import { FIRMWARE_HEADER_BYTES } from './firmware.js'
import { PAYLOAD_BYTES_MAX } from './frame.js'
import { isLanguage, type Language } from './languages.js'
import { ANNOUNCEMENT_KINDS, type AnnouncementKind, decodeMessage, PROMPTS, type Prompt } from './messages.js'
import { AMOUNT_MINOR_MAX } from './money.js'
import { isTid } from './topics.js'

/** Type byte of each message. Numbers are never reused. */
export const SERIAL_TYPES = {
  HELLO: 1, ANNOUNCE: 2, RESULT: 3, STATUS: 4, SET: 5, COMMAND: 6, CREDENTIALS: 7,
  FIRMWARE_BEGIN: 8, FIRMWARE_CHUNK: 9, FIRMWARE_END: 10, ACK: 11, NAK: 12, PING: 13
} as const
export type SerialType = keyof typeof SERIAL_TYPES

/** More clips than any announcement has: the longest sentence of the largest amount needs fewer than 40. */
export const CLIPS_MAX = 48
/** Text for a display or a voice inside the box; UTF-8 bytes. A longer one is left out by the sender. */
export const TEXT_BYTES_MAX = 480
export const TTL_MS_MAX = 86_400_000
/** 720 bytes are 960 of base64: with offset and braces one payload. */
export const CHUNK_BYTES_MAX = 720
export const COMMAND_ARGS_MAX = 8
export const RESULT_DATA_CHARS_MAX = 600

export const SERIAL_RESULTS = ['spoken', 'duplicate', 'expired', 'muted', 'failed', 'done'] as const
export const BUTTONS = ['replay', 'volume-up', 'volume-down'] as const
export const BOX_COMMANDS = ['replay', 'test', 'reboot', 'locate', 'display-qr', 'clear-display', 'collect-log', 'factory-reset'] as const
/** `corrupt`: bytes arrived that were no frame. `session`: there is none, or seq is off. `refused`: a good frame whose content is not. */
export const NAK_REASONS = ['corrupt', 'session', 'refused'] as const

export type SerialResultName = typeof SERIAL_RESULTS[number]
export type Button = typeof BUTTONS[number]
export type BoxCommand = typeof BOX_COMMANDS[number]
export type NakReason = typeof NAK_REASONS[number]

/** What a box says of itself. `bootId` changes with every start; no `tid` before it is provisioned. */
export type BoxHello = {
  model: string, firmware: string, bootId: string, volume: number, language: Language, quiet: boolean
  tid?: string, keyId?: string, resetReason?: string, lastSpokenId?: string, clipPacks?: readonly string[]
}
/** `ttlMs`: from now until it must not start any more. `clips` are ids in speaking order. */
export type BoxAnnouncement = {
  id: string, kind: AnnouncementKind, language: Language, ttlMs: number, amountMinor: number, currency: string, clips: readonly string[]
  text?: string, count?: number, prompt?: Prompt
}
/** `queuedMs`: from arrival to sound. `was`: with `duplicate`, how the first one ended. `offset`: bytes of a firmware image held. */
export type SerialResult = {
  id: string, result: SerialResultName, queuedMs?: number, audioMs?: number, reason?: string
  was?: Exclude<SerialResultName, 'duplicate'>, offset?: number, data?: string
}
/** `button`: what was pressed, and how often since the start. `trial`: a new program has not proved itself yet. */
export type BoxStatus = {
  volume: number, language: Language, quiet: boolean, uptimeS: number
  battery?: number, charging?: boolean, rssi?: number, network?: string, freeBytes?: number, trial?: boolean
  button?: { name: Button, presses: number }
}
export type BoxSettings = { volume?: number, minVolume?: number, language?: Language, quiet?: boolean, time?: number, statusEveryS?: number }
/** What provisioning writes. Only `tid` and `keyId` can be read back; broker, password and signingKey are for a box with its own network. */
export type BoxCredentials = { tid: string, keyId?: string, broker?: string, password?: string, signingKey?: string, replace?: boolean }
export type CommandArgs = Record<string, string | number | boolean>

export type SerialMessage =
  | { type: 'HELLO', session: number, box?: BoxHello }
  | { type: 'ANNOUNCE' } & BoxAnnouncement
  | { type: 'RESULT' } & SerialResult
  | { type: 'STATUS' } & BoxStatus
  | { type: 'SET', id: string } & BoxSettings
  | { type: 'COMMAND', id: string, name: BoxCommand, args: CommandArgs }
  | { type: 'CREDENTIALS', id: string } & BoxCredentials
  | { type: 'FIRMWARE_BEGIN', id: string, header: Buffer, force?: boolean }
  | { type: 'FIRMWARE_CHUNK', offset: number, data: Buffer }
  | { type: 'FIRMWARE_END', id: string }
  | { type: 'ACK' }
  | { type: 'NAK', reason: NakReason, why?: string }
  | { type: 'PING' }

type Fields = Record<string, unknown>

const ID = /^[0-9a-f]{32}$/
const CLIP = /^[a-z0-9][a-z0-9-]{0,31}$/
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/
const SECRET_TEXT = /^[\x21-\x7e]{1,200}$/
const U32_MAX = 0xffff_ffff
const SAFE_MAX = Number.MAX_SAFE_INTEGER
const DAY_MS = 86_400_000

/** Type byte and payload of a message. Throws MESSAGE_INVALID when it does not fit a frame. */
export function encodeSerialMessage (message: SerialMessage): { type: number, payload: Buffer } {
  const { type, ...fields } = message
  const payload = Buffer.from(JSON.stringify(wireFields(type, fields)), 'utf8')
  if (payload.length > PAYLOAD_BYTES_MAX) throw invalid(`${type} of ${payload.length} bytes is over the limit of ${PAYLOAD_BYTES_MAX}`)
  return { type: SERIAL_TYPES[type], payload }
}

/** The message in a frame. Throws MESSAGE_INVALID for an unknown type, for what is no JSON object, and for a field out of its form. */
export function decodeSerialMessage (type: number, payload: Uint8Array): SerialMessage {
  const decode = DECODERS[type]
  if (decode === undefined) throw invalid(`serial message type ${type} is unknown`)
  return decode(decodeMessage(payload))
}

/** One line for a trace, without any secret. */
export function describeSerialMessage (message: SerialMessage): string {
  const { type, ...fields } = message
  const shown = Object.entries(fields).map(([name, value]) => `${name}=${shownValue(name, value)}`)
  return [type, ...shown].join(' ')
}

/** The name of a type byte, or undefined. */
export function serialTypeName (type: number): SerialType | undefined {
  return (Object.keys(SERIAL_TYPES) as SerialType[]).find(name => SERIAL_TYPES[name] === type)
}

function shownValue (name: string, value: unknown): string {
  if (name === 'password' || name === 'signingKey') return '[secret]'
  if (Buffer.isBuffer(value)) return `[${value.length} bytes]`
  return typeof value === 'string' && WORD.test(value) ? value : JSON.stringify(value)
}

/** Amounts travel as strings of minor units, bytes as base64. */
function wireFields (type: SerialType, fields: Fields): Fields {
  if (type === 'ANNOUNCE') {
    const { amountMinor, ...rest } = fields
    return { ...rest, amount: String(amountMinor) }
  }
  if (type === 'FIRMWARE_BEGIN') return { ...fields, header: (fields['header'] as Buffer).toString('base64') }
  if (type === 'FIRMWARE_CHUNK') return { ...fields, data: (fields['data'] as Buffer).toString('base64') }
  return fields
}

const DECODERS: Record<number, (m: Fields) => SerialMessage> = {
  [SERIAL_TYPES.HELLO]: m => ({
    type: 'HELLO', session: whole(m, 'session', 0, U32_MAX), ...(m['box'] === undefined ? {} : { box: boxHelloOf(fieldsOf(m, 'box')) })
  }),
  [SERIAL_TYPES.ANNOUNCE]: announceOf,
  [SERIAL_TYPES.RESULT]: resultOf,
  [SERIAL_TYPES.STATUS]: statusOf,
  [SERIAL_TYPES.SET]: m => ({
    type: 'SET',
    id: text(m, 'id', ID),
    ...optional(m, 'volume', () => whole(m, 'volume', 0, 100)),
    ...optional(m, 'minVolume', () => whole(m, 'minVolume', 0, 100)),
    ...optional(m, 'language', () => languageOf(m)),
    ...optional(m, 'quiet', () => flag(m, 'quiet')),
    ...optional(m, 'time', () => whole(m, 'time', 0, SAFE_MAX)),
    ...optional(m, 'statusEveryS', () => whole(m, 'statusEveryS', 1, 86_400))
  }),
  [SERIAL_TYPES.COMMAND]: m => ({ type: 'COMMAND', id: text(m, 'id', ID), name: oneOf(m, 'name', BOX_COMMANDS), args: argsOf(m) }),
  [SERIAL_TYPES.CREDENTIALS]: m => ({
    type: 'CREDENTIALS',
    id: text(m, 'id', ID),
    tid: tidOf(m),
    ...optional(m, 'keyId', () => text(m, 'keyId', WORD)),
    ...optional(m, 'broker', () => text(m, 'broker', SECRET_TEXT)),
    ...optional(m, 'password', () => text(m, 'password', SECRET_TEXT)),
    ...optional(m, 'signingKey', () => text(m, 'signingKey', SECRET_TEXT)),
    ...optional(m, 'replace', () => flag(m, 'replace'))
  }),
  [SERIAL_TYPES.FIRMWARE_BEGIN]: m => {
    const header = bytesOf(m, 'header', FIRMWARE_HEADER_BYTES)
    if (header.length !== FIRMWARE_HEADER_BYTES) throw invalid(`header must hold ${FIRMWARE_HEADER_BYTES} bytes`)
    return { type: 'FIRMWARE_BEGIN', id: text(m, 'id', ID), header, ...optional(m, 'force', () => flag(m, 'force')) }
  },
  [SERIAL_TYPES.FIRMWARE_CHUNK]: m => ({ type: 'FIRMWARE_CHUNK', offset: whole(m, 'offset', 0, U32_MAX), data: bytesOf(m, 'data', CHUNK_BYTES_MAX) }),
  [SERIAL_TYPES.FIRMWARE_END]: m => ({ type: 'FIRMWARE_END', id: text(m, 'id', ID) }),
  [SERIAL_TYPES.ACK]: () => ({ type: 'ACK' }),
  [SERIAL_TYPES.NAK]: m => ({ type: 'NAK', reason: oneOf(m, 'reason', NAK_REASONS), ...optional(m, 'why', () => text(m, 'why', /^[\x20-\x7e]{0,120}$/)) }),
  [SERIAL_TYPES.PING]: () => ({ type: 'PING' })
}

function boxHelloOf (m: Fields): BoxHello {
  const packs = m['clipPacks']
  return {
    model: text(m, 'model', WORD),
    firmware: text(m, 'firmware', WORD),
    bootId: text(m, 'bootId', WORD),
    volume: whole(m, 'volume', 0, 100),
    language: languageOf(m),
    quiet: flag(m, 'quiet'),
    ...optional(m, 'tid', () => tidOf(m)),
    ...optional(m, 'keyId', () => text(m, 'keyId', WORD)),
    ...optional(m, 'resetReason', () => text(m, 'resetReason', WORD)),
    ...optional(m, 'lastSpokenId', () => text(m, 'lastSpokenId', ID)),
    ...(Array.isArray(packs) ? { clipPacks: packs.filter((pack): pack is string => typeof pack === 'string' && WORD.test(pack)).slice(0, 16) } : {})
  }
}

function announceOf (m: Fields): SerialMessage {
  const amountMinor = Number(text(m, 'amount', /^\d{1,11}$/))
  if (amountMinor > AMOUNT_MINOR_MAX) throw invalid(`amount is over ${AMOUNT_MINOR_MAX} minor units`)
  return {
    type: 'ANNOUNCE',
    id: text(m, 'id', ID),
    kind: oneOf(m, 'kind', ANNOUNCEMENT_KINDS),
    language: languageOf(m),
    ttlMs: whole(m, 'ttlMs', 0, TTL_MS_MAX),
    amountMinor,
    currency: text(m, 'currency', /^[A-Z]{3}$/),
    clips: clipsOf(m),
    ...optional(m, 'text', () => spokenText(m)),
    ...optional(m, 'count', () => whole(m, 'count', 0, 1_000_000)),
    ...optional(m, 'prompt', () => oneOf(m, 'prompt', PROMPTS))
  }
}

function resultOf (m: Fields): SerialMessage {
  return {
    type: 'RESULT',
    id: text(m, 'id', ID),
    result: oneOf(m, 'result', SERIAL_RESULTS),
    ...optional(m, 'queuedMs', () => whole(m, 'queuedMs', 0, DAY_MS)),
    ...optional(m, 'audioMs', () => whole(m, 'audioMs', 0, DAY_MS)),
    ...optional(m, 'reason', () => text(m, 'reason', WORD)),
    ...optional(m, 'was', () => oneOf(m, 'was', ['spoken', 'expired', 'muted', 'failed', 'done'] as const)),
    ...optional(m, 'offset', () => whole(m, 'offset', 0, U32_MAX)),
    ...optional(m, 'data', () => text(m, 'data', DATA))
  }
}
const DATA = new RegExp(`^[\\s\\S]{0,${RESULT_DATA_CHARS_MAX}}$`)

function statusOf (m: Fields): SerialMessage {
  return {
    type: 'STATUS',
    volume: whole(m, 'volume', 0, 100),
    language: languageOf(m),
    quiet: flag(m, 'quiet'),
    uptimeS: whole(m, 'uptimeS', 0, SAFE_MAX),
    ...optional(m, 'battery', () => whole(m, 'battery', 0, 100)),
    ...optional(m, 'charging', () => flag(m, 'charging')),
    ...optional(m, 'rssi', () => whole(m, 'rssi', -200, 0)),
    ...optional(m, 'network', () => text(m, 'network', WORD)),
    ...optional(m, 'freeBytes', () => whole(m, 'freeBytes', 0, SAFE_MAX)),
    ...optional(m, 'trial', () => flag(m, 'trial')),
    ...optional(m, 'button', () => {
      const button = fieldsOf(m, 'button')
      return { name: oneOf(button, 'name', BUTTONS), presses: whole(button, 'presses', 1, SAFE_MAX) }
    })
  }
}

/** `{ [field]: read() }` where the field is there, nothing where it is not. */
function optional<F extends string, T> (m: Fields, field: F, read: () => T): { [K in F]?: T } {
  return m[field] === undefined ? {} : { [field]: read() } as { [K in F]?: T }
}

function fieldsOf (m: Fields, field: string): Fields {
  const value = m[field]
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`${field} must be an object`)
  return value as Fields
}

function flag (m: Fields, field: string): boolean {
  const value = m[field]
  if (typeof value !== 'boolean') throw invalid(`${field} must be true or false`)
  return value
}

function languageOf (m: Fields): Language {
  const language = text(m, 'language', WORD)
  if (!isLanguage(language)) throw invalid('language is unknown')
  return language
}

function tidOf (m: Fields): string {
  const tid = m['tid']
  if (typeof tid !== 'string' || !isTid(tid)) throw invalid('tid must be 3 to 32 letters, digits, - or _')
  return tid
}

function clipsOf (m: Fields): string[] {
  const clips = m['clips']
  if (!Array.isArray(clips) || clips.length > CLIPS_MAX) throw invalid(`clips must be a list of at most ${CLIPS_MAX}`)
  return clips.map(clip => {
    if (typeof clip !== 'string' || !CLIP.test(clip)) throw invalid(`a clip id must be a text of the form ${CLIP.source}`)
    return clip
  })
}

function spokenText (m: Fields): string {
  const value = text(m, 'text', /^[^\0-\x1f\x7f]*$/)
  if (Buffer.byteLength(value, 'utf8') > TEXT_BYTES_MAX) throw invalid(`text is over ${TEXT_BYTES_MAX} bytes`)
  return value
}

function bytesOf (m: Fields, field: string, bytesMax: number): Buffer {
  const base64 = text(m, field, BASE64)
  const bytes = Buffer.from(base64, 'base64')
  if (base64.length % 4 !== 0 || bytes.length > bytesMax) throw invalid(`${field} must be base64 of at most ${bytesMax} bytes`)
  return bytes
}

function argsOf (m: Fields): CommandArgs {
  const entries = Object.entries(m['args'] === undefined ? {} : fieldsOf(m, 'args'))
  if (entries.length > COMMAND_ARGS_MAX) throw invalid(`args must be at most ${COMMAND_ARGS_MAX}`)
  return Object.fromEntries(entries.map(([name, value]) => {
    if (!WORD.test(name) || !['string', 'number', 'boolean'].includes(typeof value)) throw invalid('args must be texts, numbers or booleans')
    return [name, value as CommandArgs[string]]
  }))
}
