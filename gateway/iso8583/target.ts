// A switch that we connect to, as a file says it: where it is, and how it speaks. README.md shows one.
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import { CLIENT_POLICY, type ClientPolicy } from './client.js'
import type { Endpoint } from './lane.js'
import { parsePeer } from './peers.js'
import type { WireSettings } from './wire.js'

export const ENDPOINTS_MAX = 8
export type IsoTarget = { name: string, endpoints: readonly Endpoint[], wire: WireSettings, policy: Partial<ClientPolicy> }

type Row = Record<string, unknown>
/** What a target has and a peer has not. */
const OWN = ['endpoints', 'tls', 'connections', 'deadlineMs']

/** The target in the text of a file. `readText` reads specs, keys and certificates. Throws CONFIG_INVALID naming the word. */
export function parseTarget (text: string, where: string, readText: (path: string) => string): IsoTarget {
  let row: Row
  try {
    row = JSON.parse(text) as Row
  } catch {
    throw wrong(where, 'must be JSON')
  }
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw wrong(where, 'must be an object')
  const shared = Object.fromEntries(Object.entries(row).filter(([key]) => !OWN.includes(key)))
  const { name, wire, session } = parsePeer({ bank: 'none', addresses: [], ...shared }, where, readText)
  const tls = tlsOf(row['tls'], where, readText)
  return {
    name, wire, endpoints: endpointsOf(row['endpoints'], where).map(endpoint => ({ ...endpoint, ...tls })),
    policy: {
      session: { ...session, role: 'client' }, connections: whole(row['connections'], CLIENT_POLICY.connections, [1, 64], `${where} connections`),
      deadlineMs: whole(row['deadlineMs'], CLIENT_POLICY.deadlineMs, [100, 120_000], `${where} deadlineMs`)
    }
  }
}

function endpointsOf (value: unknown, where: string): { host: string, port: number }[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > ENDPOINTS_MAX) throw wrong(where, `endpoints must be a list of 1 to ${ENDPOINTS_MAX}, as host:port`)
  return value.map((text: unknown) => {
    const [, host = '', port = ''] = /^([\w.-]{1,255}|\[[0-9a-f:]{2,39}\]):(\d{1,5})$/i.exec(String(text)) ?? []
    if (host === '' || Number(port) < 1 || Number(port) > 65_535) throw wrong(where, 'endpoints must be host:port')
    return { host: host.replace(/[[\]]/g, ''), port: Number(port) }
  })
}

function tlsOf (value: unknown, where: string, readText: (path: string) => string): { tls?: NonNullable<Endpoint['tls']> } {
  if (value === undefined) return {}
  const { caFile, certFile, keyFile, serverName } = (value ?? {}) as Row
  const read = (path: unknown): string => {
    try {
      return readText(String(path))
    } catch (cause) {
      throw isSoundboxError(cause) ? cause : new SoundboxError('CONFIG_INVALID', `${where}: a file of tls cannot be read`, { cause })
    }
  }
  if (caFile === undefined || (certFile === undefined) !== (keyFile === undefined)) throw wrong(where, 'tls needs caFile, and certFile and keyFile together')
  const pair = certFile === undefined ? {} : { cert: read(certFile), key: read(keyFile) }
  return { tls: { ca: read(caFile), ...pair, ...(serverName === undefined ? {} : { servername: String(serverName) }) } }
}

function whole (value: unknown, fallback: number, [min, max]: readonly [number, number], what: string): number {
  const given = value ?? fallback
  if (typeof given !== 'number' || !Number.isInteger(given) || given < min || given > max) throw wrong(what, `must be a whole number from ${min} to ${max}`)
  return given
}

function wrong (where: string, what: string): SoundboxError {
  return new SoundboxError('CONFIG_INVALID', `${where} ${what}`)
}
