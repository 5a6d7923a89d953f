// A message authentication key on its way to the other side (network management 101, DE 48): encrypted under a key that both ends were
// given by hand, with a check value, so that a wrong one is noticed before it is used.
//
//   DE 48 = hex( ECB( key-encrypting key, key ) ) || first 3 bytes of ECB( key, zeros ) as hex
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { SoundboxError } from '../../protocol/index.js'
import { aesCmac, cbcMac, type MacHook, retailMac } from '../../protocol/iso8583/index.js'

/** Retail MAC with double-length DES, CBC-MAC with the same, CMAC with AES-128. */
export const MAC_ALGORITHMS = ['x9.19', 'cbc-mac', 'aes-cmac'] as const
export type MacAlgorithm = typeof MAC_ALGORITHMS[number]
export const MAC_KEY_BYTES = 16
const CHECK_BYTES = 3
const SEALED = /^([0-9A-Fa-f]{32})([0-9A-Fa-f]{6})$/

export type SealedKey = { algorithm: MacAlgorithm, kek: Buffer }

/** The hook for the codec. `key`: MAC_KEY_BYTES. */
export function macHook (algorithm: MacAlgorithm, key: Buffer): MacHook {
  switch (algorithm) {
    case 'x9.19': return retailMac({ key })
    case 'cbc-mac': return cbcMac({ key })
    case 'aes-cmac': return aesCmac({ key })
    default: return algorithm satisfies never
  }
}

/** Text of DE 48 for a new key. */
export function sealWorkingKey ({ algorithm, kek }: SealedKey, key: Buffer): string {
  return `${ecb(algorithm, kek, key).toString('hex')}${checkValue(algorithm, key)}`.toUpperCase()
}

/** The key in DE 48. Throws SECRET_UNREADABLE for a wrong shape and for a check value that does not fit. */
export function openWorkingKey ({ algorithm, kek }: SealedKey, text: string): Buffer {
  const [, sealed, check = ''] = SEALED.exec(text) ?? []
  if (sealed === undefined) throw new SoundboxError('SECRET_UNREADABLE', 'DE 48 of a key exchange must be 32 hex digits of key and 6 of check value')
  const decipher = createDecipheriv(cipherOf(algorithm), stretched(algorithm, kek), null).setAutoPadding(false)
  const key = Buffer.concat([decipher.update(Buffer.from(sealed, 'hex')), decipher.final()])
  if (checkValue(algorithm, key) !== check.toLowerCase()) throw new SoundboxError('SECRET_UNREADABLE', 'the check value of the new key does not fit: the two ends hold different key-encrypting keys')
  return key
}

function checkValue (algorithm: MacAlgorithm, key: Buffer): string {
  return ecb(algorithm, key, Buffer.alloc(16)).toString('hex').slice(0, CHECK_BYTES * 2)
}

function ecb (algorithm: MacAlgorithm, key: Buffer, plain: Buffer): Buffer {
  const cipher = createCipheriv(cipherOf(algorithm), stretched(algorithm, key), null).setAutoPadding(false)
  return Buffer.concat([cipher.update(plain), cipher.final()])
}

function cipherOf (algorithm: MacAlgorithm): string {
  return algorithm === 'aes-cmac' ? 'aes-128-ecb' : 'des-ede3'
}

/** Double-length DES is triple DES whose third key is the first. */
function stretched (algorithm: MacAlgorithm, key: Buffer): Buffer {
  return algorithm === 'aes-cmac' ? key : Buffer.concat([key, key.subarray(0, 8)])
}
