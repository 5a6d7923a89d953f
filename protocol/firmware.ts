// A firmware image: what a box checks before it lets bytes become its program.
//
//    0  "SBFW"                        20  model, ASCII, zero-padded [24]
//    4  format u8 = 1, three zeros    44  SHA-256 of the body [32]
//    8  body size u32                 76  Ed25519 signature [64] over bytes 0..75 (RFC 8032)
//   12  major, minor, patch u16 each  140 body
//   18  two zeros                     numbers big-endian
//
// The signature covers the header alone and the header covers the body by its hash: a box refuses a foreign image from its first 140
// bytes, before a megabyte is moved and a slot erased. A signature over the whole body would come out only at the end.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, timingSafeEqual, verify } from 'node:crypto'
import { SoundboxError } from './errors.js'

export const FIRMWARE_HEADER_BYTES = 140
/** One slot of a box with 4 MiB of flash: two programs, clips, journal. */
export const FIRMWARE_BODY_BYTES_MAX = 1_048_576
const SIGNED_BYTES = 76
const MODEL_BYTES_MAX = 24
const MAGIC = Buffer.from('SBFW\x01\0\0\0', 'latin1')
const VERSION = /^(\d{1,5})\.(\d{1,5})\.(\d{1,5})$/
const MODEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,23}$/

/** `version` is `major.minor.patch`, each 0..65535; `sha256` is hex. */
export type FirmwareHeader = { model: string, version: string, size: number, sha256: string }

/** A key pair for images, as PEM: the private one stays with the maker, the public one is in every box of the maker. */
export function makeFirmwareKeys (): { privateKey: string, publicKey: string } {
  return generateKeyPairSync('ed25519', { publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' } })
}

/** The signed image of a body. Throws FIRMWARE_INVALID for a model, version or size out of its form. */
export function sealFirmware (body: Buffer, about: { model: string, version: string, privateKey: string }): Buffer {
  const numbers = versionNumbers(about.version)
  if (!MODEL.test(about.model)) throw invalid(`model must be 1 to ${MODEL_BYTES_MAX} letters, digits, dot, - or _`)
  if (body.length === 0 || body.length > FIRMWARE_BODY_BYTES_MAX) throw invalid(`body must be 1 to ${FIRMWARE_BODY_BYTES_MAX} bytes`)
  const header = Buffer.alloc(FIRMWARE_HEADER_BYTES)
  MAGIC.copy(header)
  header.writeUInt32BE(body.length, 8)
  numbers.forEach((number, index) => { header.writeUInt16BE(number, 12 + 2 * index) })
  header.write(about.model, 20, 'latin1')
  createHash('sha256').update(body).digest().copy(header, 44)
  sign(null, header.subarray(0, SIGNED_BYTES), keyFromPem(about.privateKey, createPrivateKey)).copy(header, SIGNED_BYTES)
  return Buffer.concat([header, body])
}

/** What a header says, its signature checked. Throws FIRMWARE_INVALID for a wrong form, size or signature. */
export function openFirmwareHeader (header: Uint8Array, publicKey: string): FirmwareHeader {
  const said = decodeFirmwareHeader(header)
  const isSigned = verify(null, header.subarray(0, SIGNED_BYTES), keyFromPem(publicKey, createPublicKey), header.subarray(SIGNED_BYTES))
  if (!isSigned) throw invalid('image is not signed with the key of this maker')
  return said
}

/** What a header says, its signature not looked at: for who moves an image and leaves the judgement to the box. Throws FIRMWARE_INVALID. */
export function decodeFirmwareHeader (header: Uint8Array): FirmwareHeader {
  const bytes = Buffer.from(header.buffer, header.byteOffset, header.byteLength)
  if (bytes.length !== FIRMWARE_HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw invalid('this is no firmware header of format 1')
  const model = bytes.toString('latin1', 20, 44).replace(/\0+$/, '')
  const size = bytes.readUInt32BE(8)
  if (!MODEL.test(model) || size === 0 || size > FIRMWARE_BODY_BYTES_MAX) throw invalid('header names no usable model or size')
  return {
    model, size, version: [12, 14, 16].map(at => bytes.readUInt16BE(at)).join('.'), sha256: bytes.toString('hex', 44, SIGNED_BYTES)
  }
}

/** Header (checked) and body (hash checked) of a whole image. Throws FIRMWARE_INVALID. */
export function openFirmware (image: Uint8Array, publicKey: string): { header: FirmwareHeader, body: Buffer } {
  const header = openFirmwareHeader(image.subarray(0, FIRMWARE_HEADER_BYTES), publicKey)
  const body = Buffer.from(image.buffer, image.byteOffset + FIRMWARE_HEADER_BYTES, image.byteLength - FIRMWARE_HEADER_BYTES)
  if (!isFirmwareBody(header, [body])) throw invalid('body does not match the header')
  return { header, body }
}

/** True when these pieces, in order, are the body that the header names. */
export function isFirmwareBody (header: FirmwareHeader, pieces: readonly Uint8Array[]): boolean {
  const hash = createHash('sha256')
  let size = 0
  for (const piece of pieces) {
    hash.update(piece)
    size += piece.length
  }
  return size === header.size && timingSafeEqual(hash.digest(), Buffer.from(header.sha256, 'hex'))
}

/** Below 0, 0 or above 0 as the left version is older, the same or newer. Throws FIRMWARE_INVALID for what is no `major.minor.patch`. */
export function compareVersions (left: string, right: string): number {
  const [a, b] = [versionNumbers(left), versionNumbers(right)]
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2]
}

function keyFromPem (pem: string, create: (pem: string) => KeyObject): KeyObject {
  let key: KeyObject | undefined
  try {
    key = create(pem)
  } catch {
    // No cause: it could quote the key.
  }
  if (key?.asymmetricKeyType !== 'ed25519') throw invalid('the key must be an Ed25519 key as PEM')
  return key
}

function versionNumbers (version: string): [number, number, number] {
  const match = VERSION.exec(version)
  const numbers = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])] as [number, number, number]
  if (match === null || numbers.some(number => number > 0xffff)) throw invalid('version must be major.minor.patch, each 0 to 65535')
  return numbers
}

function invalid (why: string): SoundboxError {
  return new SoundboxError('FIRMWARE_INVALID', why)
}
