// The messages between gateway and soundbox: UTF-8 JSON, times in milliseconds since 1970 (UTC), amounts in minor units as strings.
// Readers are strict about what they use and blind to what they do not know, so that a newer peer may add fields.
import { flag, invalid, oneOf, text, texts, WORD, whole } from './fields.js'
import { isLanguage, type Language } from './languages.js'
import { AMOUNT_MINOR_MAX } from './money.js'

/** No message is larger; a box needs one receive buffer of this size. */
export const MESSAGE_BYTES_MAX = 4096

export const ANNOUNCEMENT_KINDS = ['payment', 'summary', 'failed-payment', 'reversed-payment', 'test', 'prompt'] as const
export type AnnouncementKind = typeof ANNOUNCEMENT_KINDS[number]
export const PROMPTS = ['starting', 'connected', 'connection-lost', 'battery-low', 'volume', 'no-payments', 'day-total', 'code'] as const
export type Prompt = typeof PROMPTS[number]

/** What a soundbox is to say. `seq` grows per device. `count`: payments in a summary or a day total, or the number a prompt names. */
export type Announcement = {
  v: 1
  id: string
  seq: number
  kind: AnnouncementKind
  amountMinor: number
  currency: string
  language: Language
  issuedAt: number
  expiresAt: number
  txnType?: string
  count?: number
  prompt?: Prompt
}
export type SignedAnnouncement = Announcement & { sig: string }

/** `received` frees the pump; every other is final. `done` is the final of a command. */
export const ACK_RESULTS = ['received', 'spoken', 'duplicate', 'expired', 'muted', 'failed', 'summarised', 'done'] as const
export type AckResult = typeof ACK_RESULTS[number]
/** `was`: with `duplicate`, how the first one ended. `at`: when the sound ended, by the device's clock corrected to the gateway's. */
export type Ack = { id: string, result: AckResult, queuedMs?: number, audioMs?: number, at?: number, reason?: string, was?: AckResult, data?: string }

export const COMMAND_NAMES = ['replay', 'test', 'reboot', 'locate', 'display-qr', 'clear-display', 'collect-log', 'volume', 'language', 'firmware', 'day-total'] as const
export type CommandName = typeof COMMAND_NAMES[number]
export type Command = { id: string, name: CommandName, args: Record<string, string | number | boolean>, expiresAt: number }

/** State that the operator wants; the device answers with `reported`. Quiet hours are local minutes of the day, start inclusive, end exclusive. */
export type Desired = {
  version: number
  time: number
  volume: number
  minVolume: number
  language: Language
  quietHours: { startMinute: number, endMinute: number, utcOffsetMinutes: number } | null
  display?: string
  firmware?: { version: string, url?: string, sha256?: string }
}
export type Hello = { model: string, firmware: string, bootId: string, lastSpokenId?: string, reportedVersion?: number }
export type Reported = { version: number, volume: number, language: Language, clipPacks?: readonly string[], firmware?: string }
export type Telemetry = {
  battery?: number, charging?: boolean, rssi?: number, network?: string, volume?: number, uptimeS?: number, freeBytes?: number, resetReason?: string
}

/** Clip packs that a box may report. */
export const CLIP_PACKS_MAX = 32
const ID = /^[0-9a-f]{32}$/
const CURRENCY = /^[A-Z]{3}$/

/** True for an announcement or command id: 32 lower-case hex digits. */
export function isMessageId (text: unknown): text is string {
  return typeof text === 'string' && ID.test(text)
}

/** Bytes of a message. Throws MESSAGE_INVALID above MESSAGE_BYTES_MAX. */
export function encodeMessage (message: object): Buffer {
  const bytes = Buffer.from(JSON.stringify(message), 'utf8')
  if (bytes.length > MESSAGE_BYTES_MAX) throw invalid(`message of ${bytes.length} bytes is over the limit of ${MESSAGE_BYTES_MAX}`)
  return bytes
}

/** The fields of a message. Throws MESSAGE_INVALID for anything but a JSON object within MESSAGE_BYTES_MAX. */
export function decodeMessage (bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length > MESSAGE_BYTES_MAX) throw invalid(`message of ${bytes.length} bytes is over the limit of ${MESSAGE_BYTES_MAX}`)
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
  } catch {
    throw invalid('message is not JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid('message is not a JSON object')
  return value as Record<string, unknown>
}

/** The wire form of an announcement: `amountMinor` travels as the string `amount`. */
export function encodeAnnouncement (announcement: SignedAnnouncement): Buffer {
  const { amountMinor, ...rest } = announcement
  return encodeMessage({ ...rest, amount: String(amountMinor) })
}

/** An announcement whose shape is right; its signature is the device envelope's business. Throws MESSAGE_INVALID. */
export function decodeAnnouncement (bytes: Uint8Array): SignedAnnouncement {
  const m = decodeMessage(bytes)
  if (m['v'] !== 1) throw invalid('announcement version must be 1')
  const amount = text(m, 'amount', /^\d{1,11}$/)
  const language = text(m, 'language', WORD)
  if (!isLanguage(language)) throw invalid('announcement language is unknown')
  return {
    v: 1,
    id: text(m, 'id', ID),
    seq: whole(m, 'seq', 0, Number.MAX_SAFE_INTEGER),
    kind: oneOf(m, 'kind', ANNOUNCEMENT_KINDS),
    amountMinor: amountOf(amount),
    currency: text(m, 'currency', CURRENCY),
    language,
    issuedAt: whole(m, 'issuedAt', 0, Number.MAX_SAFE_INTEGER),
    expiresAt: whole(m, 'expiresAt', 0, Number.MAX_SAFE_INTEGER),
    sig: text(m, 'sig', /^[A-Za-z0-9_-]{43}$/),
    ...(m['txnType'] === undefined ? {} : { txnType: text(m, 'txnType', WORD) }),
    ...(m['count'] === undefined ? {} : { count: whole(m, 'count', 0, 1_000_000) }),
    ...(m['prompt'] === undefined ? {} : { prompt: oneOf(m, 'prompt', PROMPTS) })
  }
}

/** Throws MESSAGE_INVALID. */
export function decodeAck (bytes: Uint8Array): Ack {
  const m = decodeMessage(bytes)
  return {
    id: text(m, 'id', ID),
    result: oneOf(m, 'result', ACK_RESULTS),
    ...(m['queuedMs'] === undefined ? {} : { queuedMs: whole(m, 'queuedMs', 0, 86_400_000) }),
    ...(m['audioMs'] === undefined ? {} : { audioMs: whole(m, 'audioMs', 0, 86_400_000) }),
    ...(m['at'] === undefined ? {} : { at: whole(m, 'at', 0, Number.MAX_SAFE_INTEGER) }),
    ...(m['reason'] === undefined ? {} : { reason: text(m, 'reason', WORD) }),
    ...(m['was'] === undefined ? {} : { was: oneOf(m, 'was', ACK_RESULTS) }),
    ...(m['data'] === undefined ? {} : { data: text(m, 'data', /^[\s\S]{0,3000}$/) })
  }
}

/** Throws MESSAGE_INVALID. */
export function decodeHello (bytes: Uint8Array): Hello {
  const m = decodeMessage(bytes)
  return {
    model: text(m, 'model', WORD),
    firmware: text(m, 'firmware', WORD),
    bootId: text(m, 'bootId', WORD),
    ...(m['lastSpokenId'] === undefined ? {} : { lastSpokenId: text(m, 'lastSpokenId', ID) }),
    ...(m['reportedVersion'] === undefined ? {} : { reportedVersion: whole(m, 'reportedVersion', 0, Number.MAX_SAFE_INTEGER) })
  }
}

/** Throws MESSAGE_INVALID. */
export function decodeCommand (bytes: Uint8Array): Command {
  const m = decodeMessage(bytes)
  const args = m['args'] ?? {}
  if (typeof args !== 'object' || args === null || Array.isArray(args)) throw invalid('command args must be an object')
  const simple = Object.entries(args).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value))
  return {
    id: text(m, 'id', ID),
    name: oneOf(m, 'name', COMMAND_NAMES),
    args: Object.fromEntries(simple) as Command['args'],
    expiresAt: whole(m, 'expiresAt', 0, Number.MAX_SAFE_INTEGER)
  }
}

/** Throws MESSAGE_INVALID. */
export function decodeDesired (bytes: Uint8Array): Desired {
  const m = decodeMessage(bytes)
  const language = text(m, 'language', WORD)
  if (!isLanguage(language)) throw invalid('desired language is unknown')
  return {
    version: whole(m, 'version', 0, Number.MAX_SAFE_INTEGER),
    time: whole(m, 'time', 0, Number.MAX_SAFE_INTEGER),
    volume: whole(m, 'volume', 0, 100),
    minVolume: whole(m, 'minVolume', 0, 100),
    language,
    quietHours: quietHoursOf(m['quietHours']),
    ...(m['display'] === undefined ? {} : { display: text(m, 'display', /^[\s\S]{0,512}$/) }),
    ...(m['firmware'] === undefined ? {} : { firmware: firmwareOf(m['firmware']) })
  }
}

/** Throws MESSAGE_INVALID. */
export function decodeReported (bytes: Uint8Array): Reported {
  const m = decodeMessage(bytes)
  const language = text(m, 'language', WORD)
  if (!isLanguage(language)) throw invalid('reported language is unknown')
  return {
    version: whole(m, 'version', 0, Number.MAX_SAFE_INTEGER),
    volume: whole(m, 'volume', 0, 100),
    language,
    ...(m['clipPacks'] === undefined ? {} : { clipPacks: texts(m, 'clipPacks', WORD, CLIP_PACKS_MAX) }),
    ...(m['firmware'] === undefined ? {} : { firmware: text(m, 'firmware', WORD) })
  }
}

/** Throws MESSAGE_INVALID. */
export function decodeTelemetry (bytes: Uint8Array): Telemetry {
  const m = decodeMessage(bytes)
  return {
    ...(m['battery'] === undefined ? {} : { battery: whole(m, 'battery', 0, 100) }),
    ...(m['charging'] === undefined ? {} : { charging: flag(m, 'charging') }),
    ...(m['rssi'] === undefined ? {} : { rssi: whole(m, 'rssi', -200, 0) }),
    ...(m['network'] === undefined ? {} : { network: text(m, 'network', WORD) }),
    ...(m['volume'] === undefined ? {} : { volume: whole(m, 'volume', 0, 100) }),
    ...(m['uptimeS'] === undefined ? {} : { uptimeS: whole(m, 'uptimeS', 0, Number.MAX_SAFE_INTEGER) }),
    ...(m['freeBytes'] === undefined ? {} : { freeBytes: whole(m, 'freeBytes', 0, Number.MAX_SAFE_INTEGER) }),
    ...(m['resetReason'] === undefined ? {} : { resetReason: text(m, 'resetReason', WORD) })
  }
}

function quietHoursOf (value: unknown): Desired['quietHours'] {
  if (value === null || value === undefined) return null
  if (typeof value !== 'object') throw invalid('quietHours must be an object or null')
  const q = value as Record<string, unknown>
  return {
    startMinute: whole(q, 'startMinute', 0, 1439),
    endMinute: whole(q, 'endMinute', 0, 1439),
    utcOffsetMinutes: whole(q, 'utcOffsetMinutes', -840, 840)
  }
}

function firmwareOf (value: unknown): NonNullable<Desired['firmware']> {
  if (typeof value !== 'object' || value === null) throw invalid('firmware must be an object')
  const f = value as Record<string, unknown>
  return {
    version: text(f, 'version', WORD),
    ...(f['url'] === undefined ? {} : { url: text(f, 'url', /^[\x21-\x7e]{1,512}$/) }),
    ...(f['sha256'] === undefined ? {} : { sha256: text(f, 'sha256', /^[0-9a-f]{64}$/) })
  }
}

function amountOf (digits: string): number {
  const minor = Number(digits)
  if (minor > AMOUNT_MINOR_MAX) throw invalid(`amount is over ${AMOUNT_MINOR_MAX} minor units`)
  return minor
}
