// Who may connect, and how each of them speaks: the peers file (SOUNDBOX_ISO_PEERS_FILE), one profile a switch. README.md shows one.
import { BlockList, isIP } from 'node:net'
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import {
  compileFraming, compileShippedSpec, compileSpec, type FramingJson, type IsoOptions, pack, SHIPPED_SPECS, type ShippedSpec, type Spec
} from '../../protocol/iso8583/index.js'
import { LINK_LIMITS, type LinkLimits } from './link.js'
import type { SessionPolicy } from './session.js'
import type { MacSettings, WireSettings } from './wire.js'
import { MAC_ALGORITHMS, MAC_KEY_BYTES } from './working-key.js'

export const PEERS_MAX = 256
export const CONNECTIONS_PER_PEER = 16
/** Echo after a minute of silence, three misses, as switches commonly do it. */
const SESSION_DEFAULTS = { signOn: true, signOnMs: 30_000, echoIdleMs: 60_000, echoMissesMax: 3, answerMs: 5_000 }

/** True for what the peer may name; the profile holds exact names, and beginnings with a `*` at the end. */
export type Allows = (name: string) => boolean
export type PeerProfile = {
  name: string
  bank: string
  /** Common name of the client certificate; null for a peer that connects without TLS. */
  certificate: string | null
  /** Where a peer without TLS may come from. */
  allowsAddress: Allows
  /** A port of its own, beside the one for all; null = the common one. */
  port: number | null
  wire: WireSettings
  allowsMerchant: Allows
  allowsTerminal: Allows
  /** It may ask for balances and mini statements. */
  mayAsk: boolean
  session: SessionPolicy
  limits: LinkLimits
  connectionsMax: number
  onParseError: 'close' | 'reject'
  /** A payment that was spoken already and is then reversed: say so. */
  sayReversed: boolean
}

type Row = Record<string, unknown>
const FILE = 'SOUNDBOX_ISO_PEERS_FILE'
const KEYS = [
  'name', 'bank', 'certificate', 'addresses', 'port', 'spec', 'framing', 'leniencies', 'mac', 'merchants', 'terminals', 'mayAsk', 'signOn', 'signOnSeconds', 'echoSeconds',
  'echoMisses', 'inFlightMax', 'handlerMs', 'partialFrameMs', 'writeStallMs', 'connectionsMax', 'onParseError', 'sayReversed'
]

/** The profiles in the text of a peers file. `readText` reads the files of specs and keys. Throws CONFIG_INVALID naming the peer and the word. */
export function parsePeers (text: string, readText: (path: string) => string): PeerProfile[] {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    throw wrong(FILE, 'must be JSON')
  }
  const rows = (json as Row | null)?.['peers']
  if (!Array.isArray(rows) || rows.length === 0 || rows.length > PEERS_MAX) throw wrong(FILE, `must hold a list "peers" of 1 to ${PEERS_MAX} profiles`)
  const peers = rows.map((row: unknown, index) => parsePeer(row, `${FILE}: peers[${index}]`, readText))
  for (const [index, peer] of peers.entries()) {
    if (peers.findIndex(other => other.name === peer.name) !== index) throw wrong(`${FILE}: peer ${peer.name}`, 'is listed twice')
    if (peer.certificate !== null && peers.findIndex(other => other.certificate === peer.certificate) !== index) throw wrong(`${FILE}: peer ${peer.name}`, 'has the certificate of another peer')
  }
  return peers
}

/** One profile, as an object of the peers file. Throws CONFIG_INVALID. */
export function parsePeer (value: unknown, where: string, readText: (path: string) => string): PeerProfile {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'must be an object')
  const row = value as Row
  const stranger = Object.keys(row).find(key => !KEYS.includes(key))
  if (stranger !== undefined) throw wrong(where, `has a word that is not known: ${stranger.slice(0, 32)}`)
  const read = readerOf(row, where)
  const name = read.text('name', /^[A-Za-z0-9][\w.-]{0,31}$/, '1 to 32 letters, digits, . _ -')
  const certificate = row['certificate'] === undefined ? null : read.text('certificate', /^[^\0]{1,64}$/, 'the common name of a certificate')
  const addresses = row['addresses'] === undefined ? null : read.list('addresses')
  const spec = specOf(row['spec'], where, readText)
  if ((certificate === null) === (addresses === null)) throw wrong(where, 'needs certificate (over TLS) or addresses (without), one of the two')
  return {
    name,
    bank: read.text('bank', /^[a-z0-9][a-z0-9-]{1,31}$/, 'the id of a bank'),
    certificate,
    allowsAddress: addressCheck(addresses ?? [], where),
    port: row['port'] === undefined ? null : read.whole('port', 0, 0, 65_535),
    wire: {
      spec, framing: named(where, () => compileFraming(row['framing'] as FramingJson | undefined)),
      leniencies: leniencesOf(row['leniencies'] === undefined ? [] : read.list('leniencies'), spec, where), mac: macOf(row['mac'], where, readText)
    },
    allowsMerchant: nameCheck(row['merchants'] === undefined ? ['*'] : read.list('merchants').map(merchant => merchant.toLowerCase())),
    allowsTerminal: nameCheck(row['terminals'] === undefined ? ['*'] : read.list('terminals')),
    mayAsk: read.flag('mayAsk', true),
    session: {
      role: 'server', signOn: read.flag('signOn', SESSION_DEFAULTS.signOn), signOnMs: read.whole('signOnSeconds', SESSION_DEFAULTS.signOnMs / 1000, 1, 3600) * 1000,
      echoIdleMs: read.whole('echoSeconds', SESSION_DEFAULTS.echoIdleMs / 1000, 0, 86_400) * 1000, echoMissesMax: read.whole('echoMisses', SESSION_DEFAULTS.echoMissesMax, 1, 100),
      answerMs: SESSION_DEFAULTS.answerMs
    },
    limits: {
      inFlightMax: read.whole('inFlightMax', LINK_LIMITS.inFlightMax, 1, 10_000), handlerMs: read.whole('handlerMs', LINK_LIMITS.handlerMs, 100, 120_000),
      partialFrameMs: read.whole('partialFrameMs', LINK_LIMITS.partialFrameMs, 100, 120_000), writeStallMs: read.whole('writeStallMs', LINK_LIMITS.writeStallMs, 100, 120_000)
    },
    connectionsMax: read.whole('connectionsMax', CONNECTIONS_PER_PEER, 1, 1024),
    onParseError: read.word('onParseError', ['close', 'reject'], 'close'),
    sayReversed: read.flag('sayReversed', false)
  }
}

function readerOf (row: Row, where: string) {
  return {
    text (key: string, shape: RegExp, form: string): string {
      const value = row[key]
      if (typeof value !== 'string' || !shape.test(value)) throw wrong(where, `${key} must be ${form}`)
      return value
    },
    list (key: string): string[] {
      const value = row[key]
      if (!Array.isArray(value) || value.length > 10_000 || value.some(item => typeof item !== 'string' || item === '')) throw wrong(where, `${key} must be a list of texts`)
      return value as string[]
    },
    whole (key: string, fallback: number, min: number, max: number): number {
      const value = row[key] ?? fallback
      if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) throw wrong(where, `${key} must be a whole number from ${min} to ${max}`)
      return value
    },
    flag (key: string, fallback: boolean): boolean {
      const value = row[key] ?? fallback
      if (typeof value !== 'boolean') throw wrong(where, `${key} must be true or false`)
      return value
    },
    word<T extends string> (key: string, words: readonly T[], fallback: T): T {
      const value = row[key] ?? fallback
      const found = words.find(word => word === value)
      if (found === undefined) throw wrong(where, `${key} must be one of ${words.join(', ')}`)
      return found
    }
  }
}

function specOf (value: unknown, where: string, readText: (path: string) => string): Spec {
  if (value === undefined) return compileShippedSpec('1987-ascii')
  if (typeof value === 'string' && Object.hasOwn(SHIPPED_SPECS, value)) return compileShippedSpec(value as ShippedSpec)
  const json = typeof value === 'string' ? parsed(readFile(value, where, readText), where) : value
  return named(where, () => compileSpec(json))
}

/** The codec knows its own words: it is asked here, so that a typing mistake is not found by the first message. */
function leniencesOf (names: readonly string[], spec: Spec, where: string): IsoOptions {
  const leniencies = Object.fromEntries(names.map(name => [name, true])) as IsoOptions
  try {
    pack(spec, { mti: '0800', fields: {} }, { ...leniencies, anyMti: true })
  } catch {
    throw wrong(where, 'leniencies has a name that the codec does not know')
  }
  return leniencies
}

function macOf (value: unknown, where: string, readText: (path: string) => string): MacSettings | null {
  if (value === undefined) return null
  if (typeof value !== 'object' || value === null) throw wrong(where, 'mac must be an object')
  const row = value as Row
  const algorithm = readerOf(row, `${where}.mac`).word('algorithm', MAC_ALGORITHMS, 'x9.19')
  const keyOf = (key: string): Buffer | null => {
    const path = row[key]
    if (path === undefined) return null
    const hex = typeof path === 'string' ? readFile(path, where, readText).trim() : ''
    if (!/^[0-9A-Fa-f]+$/.test(hex) || hex.length !== MAC_KEY_BYTES * 2) throw wrong(where, `mac.${key} must name a file with ${MAC_KEY_BYTES * 2} hex digits`)
    return Buffer.from(hex, 'hex')
  }
  const settings = { algorithm, key: keyOf('keyFile'), kek: keyOf('kekFile') }
  if (settings.key === null && settings.kek === null) throw wrong(where, 'mac needs keyFile, kekFile or both')
  return settings
}

/** The codec's own refusal, with the peer in front. */
function named<T> (where: string, compile: () => T): T {
  try {
    return compile()
  } catch (error) {
    throw isSoundboxError(error) ? wrong(where, error.message) : error
  }
}

function readFile (path: string, where: string, readText: (path: string) => string): string {
  try {
    return readText(path)
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', `${where}: a file that it names cannot be read`, { cause })
  }
}

function parsed (text: string, where: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw wrong(where, 'spec must be the name of a shipped spec, a file of JSON, or a spec')
  }
}

function nameCheck (patterns: readonly string[]): Allows {
  const exact = new Set(patterns.filter(pattern => !pattern.endsWith('*')))
  const beginnings = patterns.filter(pattern => pattern.endsWith('*')).map(pattern => pattern.slice(0, -1))
  return name => exact.has(name) || beginnings.some(beginning => name.startsWith(beginning))
}

/** Addresses and networks (`10.0.0.0/8`); IPv4 in IPv6 form counts as IPv4. */
function addressCheck (addresses: readonly string[], where: string): Allows {
  const list = new BlockList()
  for (const text of addresses) {
    const [address = '', bits] = text.split('/')
    const family = isIP(address)
    const most = family === 4 ? 32 : 128
    if (family === 0 || (bits !== undefined && (!/^\d{1,3}$/.test(bits) || Number(bits) > most))) throw wrong(where, 'addresses must be IP addresses or networks, as 10.0.0.0/8')
    list.addSubnet(address, bits === undefined ? most : Number(bits), family === 4 ? 'ipv4' : 'ipv6')
  }
  return address => {
    const plain = address.replace(/^::ffff:(?=\d+\.)/i, '')
    const family = isIP(plain)
    return family !== 0 && list.check(plain, family === 4 ? 'ipv4' : 'ipv6')
  }
}

function wrong (where: string, what: string): SoundboxError {
  return new SoundboxError('CONFIG_INVALID', `${where} ${what}`)
}
