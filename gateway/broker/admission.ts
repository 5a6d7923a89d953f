// Who may hold a socket at all: a limit on connections, in total and per address, and on failed logins per address (a token bucket).
// An address that failed too often is refused before its credentials are read, so that guessing and log flooding cost it, not us.
import type { BrokerLimits } from './limits.js'

export type Admission = {
  /** Counts the connection in, or tells why it may not come in. */
  enter: (address: string) => 'too many connections' | 'too many connections of this address' | undefined
  /** Undoes one `enter` that succeeded. */
  leave: (address: string) => void
  /** True when this failure was the one that barred the address. */
  loginFailed: (address: string) => boolean
  isBarred: (address: string) => boolean
  connections: () => number
}

type Bucket = { tokens: number, atMs: number }

/** The counters of one broker. Addresses as `node:net` gives them. */
export function openAdmission (limits: BrokerLimits, nowMs: () => number): Admission {
  const byAddress = new Map<string, number>()
  const buckets = new Map<string, Bucket>()
  let connections = 0

  const refilled = (key: string): Bucket => {
    const now = nowMs()
    const bucket = buckets.get(key)
    if (bucket === undefined) return { tokens: limits.failedLoginsMax, atMs: now }
    const earned = Math.max(0, now - bucket.atMs) / 1000 * limits.failedLoginsPerSecond
    return { tokens: Math.min(limits.failedLoginsMax, bucket.tokens + earned), atMs: now }
  }

  return {
    enter: address => {
      const key = addressKey(address)
      const held = byAddress.get(key) ?? 0
      if (connections >= limits.connectionsMax) return 'too many connections'
      if (held >= limits.connectionsPerAddressMax) return 'too many connections of this address'
      byAddress.set(key, held + 1)
      connections++
      return undefined
    },
    leave: address => {
      const key = addressKey(address)
      const held = (byAddress.get(key) ?? 1) - 1
      if (held > 0) byAddress.set(key, held)
      else byAddress.delete(key)
      connections--
    },
    loginFailed: address => {
      const key = addressKey(address)
      const bucket = refilled(key)
      const before = bucket.tokens
      bucket.tokens = Math.max(0, before - 1)
      buckets.delete(key)
      if (buckets.size >= limits.failedAddressesMax) buckets.delete(buckets.keys().next().value ?? '')
      buckets.set(key, bucket)
      return before >= 1 && bucket.tokens < 1
    },
    isBarred: address => refilled(addressKey(address)).tokens < 1,
    connections: () => connections
  }
}

/** IPv4 as it is, also out of its IPv6 form; an IPv6 address by its /64, which is what one customer gets. */
export function addressKey (address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '')
  if (!plain.includes(':')) return plain
  const [head = '', tail] = plain.replace(/%.*$/, '').toLowerCase().split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const middle = tail === undefined ? [] : new Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0')
  return `${[...left, ...middle, ...right].slice(0, 4).map(group => group.replace(/^0+(?=.)/, '')).join(':')}::/64`
}
