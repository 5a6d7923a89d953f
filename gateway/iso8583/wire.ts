// How one peer writes its messages: spec, leniencies, framing, and the message authentication code with its keys.
import { SoundboxError } from '../../protocol/index.js'
import { describe, type Framing, type IsoOptions, type MacHook, type Message, pack, type Spec, unpack } from '../../protocol/iso8583/index.js'
import { isNetwork } from './dialect.js'
import { macHook, type MacAlgorithm, openWorkingKey, sealWorkingKey } from './working-key.js'

/** After a key exchange what was on its way under the old key is still accepted for so long. */
export const KEY_OVERLAP_MS = 30_000

export type MacSettings = { algorithm: MacAlgorithm, key: Buffer | null, kek: Buffer | null }
export type WireSettings = { spec: Spec, framing: Framing, leniencies: IsoOptions, mac: MacSettings | null }

export type Wire = {
  framing: Framing
  /** First digit of the MTI of our own requests. */
  version: string
  /** Throws ISO_PACK_INVALID. */
  encode: (message: Message) => Buffer
  /** Throws ISO_UNPACK_INVALID, with reason `mac` for a code that is wrong or missing. */
  decode: (bytes: Uint8Array) => Message
  /** Masked lines, safe to log. */
  describe: (message: Message) => string[]
  /** Takes the key of a key exchange into use. Throws SECRET_UNREADABLE; ISO_NOT_SUPPORTED where the profile has no key-encrypting key. */
  takeKey: (sealed: string) => void
  /** DE 48 that brings the peer a new key, which is accepted from now on. Throws ISO_NOT_SUPPORTED. */
  offerKey: (key: Buffer) => string
}

/** The wire of one peer, shared by its connections. `nowMs`: monotonic. */
export function openWire ({ spec, framing, leniencies, mac }: WireSettings, nowMs: () => number): Wire {
  const plain = Object.keys(leniencies).length === 0 ? undefined : leniencies
  const keys = mac === null ? null : macKeys(mac, nowMs)
  return {
    framing,
    version: spec.mti.versions.charAt(0) || '0',
    encode: message => keys === null || isNetwork(message.mti) ? pack(spec, message, plain) : pack(spec, message, { ...leniencies, mac: keys.current() }),
    decode (bytes) {
      const message = unpack(spec, bytes, plain)
      if (keys === null || (isNetwork(message.mti) && !hasMac(message))) return message
      return keys.check(hook => unpack(spec, bytes, { ...leniencies, mac: hook }))
    },
    describe: message => describe(spec, message),
    takeKey (sealed) {
      const key = openWorkingKey(exchangeOf(mac), sealed)
      keys?.take(key)
    },
    offerKey (key) {
      const sealed = sealWorkingKey(exchangeOf(mac), key)
      keys?.accept(key)
      return sealed
    }
  }
}

function hasMac ({ fields }: Message): boolean {
  return fields['64'] !== undefined || fields['128'] !== undefined
}

function exchangeOf (mac: MacSettings | null): { algorithm: MacAlgorithm, kek: Buffer } {
  if (mac === null || mac.kek === null) throw new SoundboxError('ISO_NOT_SUPPORTED', 'this peer has no key-encrypting key: name mac.kekFile in its profile')
  return { algorithm: mac.algorithm, kek: mac.kek }
}

type Keys = { current: () => MacHook, check: (read: (hook: MacHook) => Message) => Message, take: (key: Buffer) => void, accept: (key: Buffer) => void }

/** One key to write with; the one before and the one after it are read as well, for a while. */
function macKeys ({ algorithm, key }: MacSettings, nowMs: () => number): Keys {
  let hook = key === null ? undefined : macHook(algorithm, key)
  let others: { hook: MacHook, untilMs: number }[] = []
  const current = (): MacHook => {
    if (hook === undefined) throw new SoundboxError('ISO_UNAVAILABLE', 'no key for message authentication yet: a key exchange (101) must come first')
    return hook
  }
  const keep = (other: MacHook | undefined): void => {
    others = others.filter(({ untilMs }) => nowMs() < untilMs).slice(-1)
    if (other !== undefined) others.push({ hook: other, untilMs: nowMs() + KEY_OVERLAP_MS })
  }
  return {
    current,
    check (read) {
      try {
        return read(current())
      } catch (error) {
        for (const other of others) {
          if (nowMs() >= other.untilMs) continue
          try {
            return read(other.hook)
          } catch {}
        }
        throw error
      }
    },
    take (next) {
      keep(hook)
      hook = macHook(algorithm, next)
    },
    accept (next) { keep(macHook(algorithm, next)) }
  }
}
