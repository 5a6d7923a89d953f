// Which machines a provider may be reached at. Names are checked when the URL is made, addresses after DNS has answered and right
// before the socket opens, so that a name that turns to an inner address (DNS rebinding) gets nothing.
//
//   host:port                     that name, at public addresses only; or that literal address
//   host:port@10.20.0.0/16        that name, also inside this private network
//
// Never, whatever a rule says: link-local (169.254/16, fe80::/10, where cloud metadata lives), the metadata addresses outside it,
// unspecified, multicast and reserved addresses. An IPv4 address inside IPv6 (::ffff:a.b.c.d, 64:ff9b::/96) is judged as the IPv4 one.
import { BlockList, isIP, isIPv4 } from 'node:net'

export type HostRule = { host: string, port: number, network: { address: string, bits: number } | undefined }

const NEVER = listOf([
  '169.254.0.0/16', '0.0.0.0/8', '224.0.0.0/4', '240.0.0.0/4', '168.63.129.16/32', '100.100.100.200/32', '192.0.0.192/32',
  'fe80::/10', 'ff00::/8', '::/128', 'fd00:ec2::254/128'
])
const PRIVATE = listOf([
  '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '127.0.0.0/8', '192.0.0.0/24', '198.18.0.0/15', '::1/128', 'fc00::/7', 'fec0::/10'
])
const LOOPBACK = listOf(['127.0.0.0/8', '::1/128'])

function listOf (networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits = ''] = network.split('/')
    list.addSubnet(address, Number(bits), isIPv4(address) ? 'ipv4' : 'ipv6')
  }
  return list
}

function isIn (list: BlockList, address: string): boolean {
  return list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6')
}

/** A rule from `host:port`, `[v6]:port`, with or without `@network/bits`; undefined for anything else. */
export function parseHostRule (entry: string): HostRule | undefined {
  const parts = /^(\[[0-9a-f:.]+\]|[a-z0-9.-]{1,253}):(\d{1,5})(?:@([0-9a-f:.]+)\/(\d{1,3}))?$/i.exec(entry)
  if (parts === null) return undefined
  const [, host = '', port = '', address, bits = ''] = parts
  if (Number(port) < 1 || Number(port) > 65_535) return undefined
  if (address !== undefined && (isIP(address) === 0 || Number(bits) > (isIPv4(address) ? 32 : 128))) return undefined
  return { host: bareHost(host), port: Number(port), network: address === undefined ? undefined : { address, bits: Number(bits) } }
}

/** The rule that a base URL itself stands for. */
export function hostRuleFromUrl (url: URL): HostRule {
  return { host: bareHost(url.hostname), port: portOf(url), network: undefined }
}

/** The rule that allows this URL, or undefined. Host and port must both be named. */
export function findHostRule (rules: readonly HostRule[], url: URL): HostRule | undefined {
  const host = bareHost(url.hostname)
  return rules.find(rule => rule.host === host && rule.port === portOf(url))
}

/** Why a connection under this rule to this address is refused; undefined = allowed. */
export function blockedReason (rule: HostRule, address: string): string | undefined {
  const plain = embeddedIPv4(address) ?? address.split('%')[0] ?? ''
  if (isIP(plain) === 0) return 'not an address'
  if (isIn(NEVER, plain)) return 'link-local, metadata and reserved addresses are never allowed'
  if (isIP(rule.host) !== 0) return plain === rule.host || address === rule.host ? undefined : 'not the address that the allow-list names'
  if (!isIn(PRIVATE, plain)) return undefined
  if (rule.host === 'localhost' && isIn(LOOPBACK, plain)) return undefined
  if (rule.network !== undefined && isIn(listOf([`${rule.network.address}/${rule.network.bits}`]), plain)) return undefined
  return 'a private address that the allow-list does not name'
}

/** True for 127/8, ::1 and localhost, written as such. */
export function isLoopbackLiteral (host: string): boolean {
  const bare = bareHost(host)
  return bare === 'localhost' || (isIP(bare) !== 0 && isIn(LOOPBACK, bare))
}

/** Host of a URL without brackets and trailing dot, in lower case. */
export function bareHost (host: string): string {
  return host.replace(/^\[|\]$/g, '').replace(/\.$/, '').toLowerCase()
}

export function portOf (url: URL): number {
  return url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port)
}

/** `::ffff:1.2.3.4`, `::ffff:102:304`, `64:ff9b::1.2.3.4` -> `1.2.3.4`. URL normalises all spellings to hexadecimal groups. */
function embeddedIPv4 (address: string): string | undefined {
  if (isIP(address) !== 6) return undefined
  const canonical = URL.canParse(`http://[${address.split('%')[0]}]`) ? bareHost(new URL(`http://[${address.split('%')[0]}]`).hostname) : ''
  const groups = /^(?:::ffff:|64:ff9b::)([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical)
  if (groups === null) return undefined
  const [high, low] = [Number.parseInt(groups[1] ?? '0', 16), Number.parseInt(groups[2] ?? '0', 16)]
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}
