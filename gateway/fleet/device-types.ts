// Which kinds of soundbox there are, as data: how one is reached, how it makes its sound, whether it has a display.
// Further types come from a JSON file of the operator: [{"type": "ypp", "transport": "vendor_http", "audio": "tts", "display": false,
// "base_url": "https://vendor.example/soundbox"}]. A type of the same name replaces the one below.
import { SoundboxError } from '../../protocol/index.js'

export const TRANSPORTS = ['mqtt', 'vendor_http'] as const
export const AUDIO_KINDS = ['tts', 'clips'] as const
/** `vendor_http`: the vendor's own server at `baseUrl` speaks to the box. `audio`: tts makes any sentence, clips joins recorded words. */
export type DeviceType = {
  type: string
  transport: typeof TRANSPORTS[number]
  audio: typeof AUDIO_KINDS[number]
  display: boolean
  baseUrl: string | undefined
}
export type DeviceTypes = {
  /** By name in any letter case. Throws DEVICE_TYPE_INVALID. */
  typeOf: (type: string) => DeviceType
  all: () => readonly DeviceType[]
}

export const DEVICE_TYPES_MAX = 200
const BASE_URL_LENGTH_MAX = 512
const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/
const FIELDS = ['type', 'transport', 'audio', 'display', 'base_url']

/** `ypp` works once an operator has named its vendor's server. */
export const BUILT_IN_TYPES: readonly DeviceType[] = [
  { type: 'ypp', transport: 'vendor_http', audio: 'tts', display: false, baseUrl: undefined },
  { type: 'QS1', transport: 'mqtt', audio: 'tts', display: false, baseUrl: undefined },
  { type: 'QS2', transport: 'mqtt', audio: 'tts', display: true, baseUrl: undefined },
  { type: 'SB1', transport: 'mqtt', audio: 'tts', display: false, baseUrl: undefined },
  { type: 'SB2', transport: 'mqtt', audio: 'tts', display: true, baseUrl: undefined },
  { type: 'SB3', transport: 'mqtt', audio: 'clips', display: false, baseUrl: undefined }
]

/** The registry: the types above, and `extra` over them. */
export function openDeviceTypes (extra: readonly DeviceType[] = []): DeviceTypes {
  const byName = new Map([...BUILT_IN_TYPES, ...extra].map(entry => [entry.type.toLowerCase(), entry]))
  return {
    typeOf: type => byName.get(type.toLowerCase()) ?? invalid(`device type must be one of ${[...byName.values()].map(entry => entry.type).join(', ')}`),
    all: () => [...byName.values()]
  }
}

/** The types in the text of an operator's JSON file. Throws DEVICE_TYPE_INVALID naming entry and field. */
export function parseDeviceTypes (text: string): readonly DeviceType[] {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch {
    invalid('the list of device types is not JSON')
  }
  if (!Array.isArray(list)) invalid('the list of device types is not a JSON array')
  const entries = list as readonly unknown[]
  if (entries.length > DEVICE_TYPES_MAX) invalid(`${entries.length} device types are over the limit of ${DEVICE_TYPES_MAX}`)
  const types = entries.map(typeFromEntry)
  const names = types.map(({ type }) => type.toLowerCase())
  const twice = names.findIndex((name, at) => names.indexOf(name) !== at)
  if (twice >= 0) invalid(`device type ${twice + 1}: type is in the list already`)
  return types
}

function typeFromEntry (entry: unknown, index: number): DeviceType {
  const at = `device type ${index + 1}`
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) invalid(`${at} is not a JSON object`)
  const { type, transport, audio, display, base_url: baseUrl, ...rest } = entry as Record<string, unknown>
  if (Object.keys(rest).length > 0) invalid(`${at}: only ${FIELDS.join(', ')} are known`)
  if (typeof type !== 'string' || !NAME.test(type)) invalid(`${at}: type must be 1 to 32 letters, digits, - or _`)
  if (display !== undefined && typeof display !== 'boolean') invalid(`${at}: display must be true or false`)
  const way = TRANSPORTS.find(known => known === transport) ?? invalid(`${at}: transport must be one of ${TRANSPORTS.join(', ')}`)
  const sound = audio === undefined ? 'tts' : AUDIO_KINDS.find(known => known === audio) ?? invalid(`${at}: audio must be one of ${AUDIO_KINDS.join(', ')}`)
  if ((way === 'vendor_http') !== (baseUrl !== undefined)) invalid(`${at}: base_url is needed with vendor_http, and with it only`)
  if (baseUrl !== undefined && !isBaseUrl(baseUrl)) invalid(`${at}: base_url must be an http or https URL without user, query and fragment`)
  return { type: type as string, transport: way, audio: sound, display: display === true, baseUrl: baseUrl as string | undefined }
}

function isBaseUrl (value: unknown): boolean {
  if (typeof value !== 'string' || value.length > BASE_URL_LENGTH_MAX || !URL.canParse(value)) return false
  const { protocol, username, password, search, hash } = new URL(value)
  return /^https?:$/.test(protocol) && username === '' && password === '' && search === '' && hash === ''
}

function invalid (why: string): never {
  throw new SoundboxError('DEVICE_TYPE_INVALID', why)
}
