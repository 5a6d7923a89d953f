// Message authentication codes for DE 64, 128 and 192. A hook gets exactly the bytes before the code and answers the code; the three here
// are what peers use. Single DES, which OpenSSL 3 no longer offers, is triple DES with one key three times over.
//   CBC-MAC:    ISO/IEC 9797-1 algorithm 1; with an 8-byte key ANSI X9.9, with 16 or 24 bytes triple DES in every step.
//   Retail MAC: ANSI X9.19 = ISO/IEC 9797-1 algorithm 3: single DES in every step, triple DES in the last.
//   CMAC:       RFC 4493 and NIST SP 800-38B with AES-128, 192 or 256.
import { createCipheriv } from 'node:crypto'
import { SoundboxError } from '../errors.js'

/** Takes the bytes of the message before the code; answers as many bytes as the field has. */
export type MacHook = (bytes: Uint8Array) => Uint8Array

/** `zeros`: ISO/IEC 9797-1 method 1, zeros up to a block. `mark`: method 2, a byte 80 and then zeros. */
export type MacPadding = 'zeros' | 'mark'
export type DesMacOptions = { key: Uint8Array, padding?: MacPadding, macBytes?: number }

const DES_BLOCK = 8
const AES_BLOCK = 16
const CMAC_RB = 0x87 // RFC 4493 2.3.

/** ANSI X9.19 retail MAC. `key` 16 bytes, `macBytes` 4 to 8 (default 8) from the left. Throws INPUT_INVALID. */
export function retailMac (options: DesMacOptions): MacHook {
  const { key, macBytes } = checked(options, [16])
  const first = key.subarray(0, 8)
  const step = Buffer.concat([first, first, first])
  const last = Buffer.concat([first, key.subarray(8), first])
  return bytes => {
    const blocks = padBlocks(bytes, options.padding ?? 'zeros')
    const body = blocks.subarray(0, blocks.length - DES_BLOCK)
    const chain = body.length === 0 ? Buffer.alloc(DES_BLOCK) : lastBlock('des-ede3-cbc', step, body)
    return lastBlock('des-ede3-cbc', last, xor(chain, blocks.subarray(body.length))).subarray(0, macBytes)
  }
}

/** CBC-MAC with DES (8-byte key) or triple DES (16 or 24). `macBytes` 4 to 8 (default 8) from the left. Throws INPUT_INVALID. */
export function cbcMac (options: DesMacOptions): MacHook {
  const { key, macBytes } = checked(options, [8, 16, 24])
  const full = Buffer.concat([key, key, key]).subarray(0, 24)
  return bytes => lastBlock('des-ede3-cbc', full, padBlocks(bytes, options.padding ?? 'zeros')).subarray(0, macBytes)
}

/** AES-CMAC (RFC 4493). `key` 16, 24 or 32 bytes, `macBytes` 4 to 16 (default 8, what DE 64 holds) from the left. Throws INPUT_INVALID. */
export function aesCmac (options: { key: Uint8Array, macBytes?: number }): MacHook {
  const key = Buffer.from(options.key)
  if (![16, 24, 32].includes(key.length)) throw wrong('a CMAC key has 16, 24 or 32 bytes')
  const macBytes = checkedSize(options.macBytes, AES_BLOCK)
  const cipher = `aes-${key.length * 8}-cbc`
  const whole = doubled(lastBlock(cipher, key, Buffer.alloc(AES_BLOCK)))
  const padded = doubled(whole)
  return bytes => {
    const cut = Math.max(0, Math.ceil(bytes.length / AES_BLOCK) - 1) * AES_BLOCK
    const tail = Buffer.alloc(AES_BLOCK)
    tail.set(bytes.subarray(cut))
    const isWhole = bytes.length - cut === AES_BLOCK
    if (!isWhole) tail[bytes.length - cut] = 0x80
    return lastBlock(cipher, key, Buffer.concat([bytes.subarray(0, cut), xor(tail, isWhole ? whole : padded)])).subarray(0, macBytes)
  }
}

function checked (options: DesMacOptions, sizes: readonly number[]): { key: Buffer, macBytes: number } {
  const key = Buffer.from(options.key)
  if (!sizes.includes(key.length)) throw wrong(`a key of this code has ${sizes.join(' or ')} bytes`)
  return { key, macBytes: checkedSize(options.macBytes, DES_BLOCK) }
}

function checkedSize (macBytes: number | undefined, blockBytes: number): number {
  const size = macBytes ?? DES_BLOCK
  if (!Number.isInteger(size) || size < 4 || size > blockBytes) throw wrong(`macBytes is 4 to ${blockBytes}`)
  return size
}

function wrong (why: string): SoundboxError {
  return new SoundboxError('INPUT_INVALID', why)
}

/** Whole blocks; no bytes at all are one block of padding. */
function padBlocks (bytes: Uint8Array, padding: MacPadding): Buffer {
  const used = bytes.length + (padding === 'mark' ? 1 : 0)
  const blocks = Buffer.alloc(Math.max(1, Math.ceil(used / DES_BLOCK)) * DES_BLOCK)
  blocks.set(bytes)
  if (padding === 'mark') blocks[bytes.length] = 0x80
  return blocks
}

/** The last block of a CBC encryption with a zero vector. */
function lastBlock (cipher: string, key: Buffer, blocks: Buffer): Buffer {
  const size = cipher.startsWith('aes') ? AES_BLOCK : DES_BLOCK
  const encrypted = createCipheriv(cipher, key, Buffer.alloc(size)).setAutoPadding(false).update(blocks)
  return encrypted.subarray(encrypted.length - size)
}

function xor (left: Uint8Array, right: Uint8Array): Buffer {
  return Buffer.from(left.map((byte, index) => byte ^ right[index]!))
}

/** Multiplication by x in GF(2^128): RFC 4493 2.3. */
function doubled (block: Buffer): Buffer {
  const result = Buffer.alloc(AES_BLOCK)
  for (let index = 0; index < AES_BLOCK; index++) result[index] = block[index]! << 1 & 255 | (block[index + 1] ?? 0) >> 7
  if (block[0]! >= 0x80) result[AES_BLOCK - 1]! ^= CMAC_RB
  return result
}
