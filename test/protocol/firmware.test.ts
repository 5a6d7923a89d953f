import { createHash, generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import {
  compareVersions, decodeFirmwareHeader, FIRMWARE_BODY_BYTES_MAX, FIRMWARE_HEADER_BYTES, isFirmwareBody, makeFirmwareKeys, openFirmware, openFirmwareHeader, sealFirmware
} from '../../protocol/index.js'

const KEYS = makeFirmwareKeys()
const BODY = Buffer.from('a program')
const ABOUT = { model: 'sb-1', version: '1.2.3', privateKey: KEYS.privateKey }
const IMAGE = sealFirmware(BODY, ABOUT)

t.test('an image opens to what was sealed, and its bytes stand where the contract says', async t => {
  const { header, body } = openFirmware(IMAGE, KEYS.publicKey)
  const sha256 = createHash('sha256').update(BODY).digest('hex')
  t.same(header, { model: 'sb-1', version: '1.2.3', size: BODY.length, sha256 })
  t.same(body, BODY)
  t.equal(IMAGE.length, FIRMWARE_HEADER_BYTES + BODY.length)
  t.equal(IMAGE.toString('hex', 0, 20), `534246570100000000000009${'000100020003'}0000`)
  t.equal(IMAGE.toString('latin1', 20, 44), 'sb-1'.padEnd(24, '\0'))
  t.equal(IMAGE.toString('hex', 44, 76), sha256)
  t.same(decodeFirmwareHeader(IMAGE.subarray(0, FIRMWARE_HEADER_BYTES)), header)
})

t.test('one flipped bit anywhere is refused', async t => {
  for (let bit = 0; bit < IMAGE.length * 8; bit++) {
    const flipped = Buffer.from(IMAGE)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    try {
      openFirmware(flipped, KEYS.publicKey)
      t.fail(`bit ${bit} was accepted`)
    } catch (error) {
      if ((error as { code?: string }).code !== 'FIRMWARE_INVALID') t.fail(`bit ${bit}: ${String(error)}`)
    }
  }
  t.pass(`${IMAGE.length * 8} bits`)
})

t.test('a foreign key, a cut image and a longer one are refused', async t => {
  t.throws(() => openFirmware(IMAGE, makeFirmwareKeys().publicKey), { code: 'FIRMWARE_INVALID' })
  t.throws(() => openFirmware(IMAGE.subarray(0, -1), KEYS.publicKey), { code: 'FIRMWARE_INVALID' })
  t.throws(() => openFirmware(Buffer.concat([IMAGE, Buffer.alloc(1)]), KEYS.publicKey), { code: 'FIRMWARE_INVALID' })
  t.throws(() => openFirmwareHeader(IMAGE.subarray(0, 139), KEYS.publicKey), { code: 'FIRMWARE_INVALID' })
  t.throws(() => openFirmwareHeader(Buffer.alloc(0), KEYS.publicKey), { code: 'FIRMWARE_INVALID' })
})

t.test('what cannot be sealed says why, without the key', async t => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048, publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' } })
  const rows: [Buffer, Partial<typeof ABOUT>, string][] = [
    [Buffer.alloc(0), {}, 'empty'], [Buffer.alloc(FIRMWARE_BODY_BYTES_MAX + 1), {}, 'too large'], [BODY, { model: 'm'.repeat(25) }, 'model'], [BODY, { model: '' }, 'model'],
    [BODY, { version: '1.2' }, 'version'], [BODY, { version: '1.2.65536' }, 'version'], [BODY, { privateKey: 'no key' }, 'key'], [BODY, { privateKey: rsa.privateKey }, 'key of another kind']
  ]
  for (const [body, changes, why] of rows) t.throws(() => sealFirmware(body, { ...ABOUT, ...changes }), { code: 'FIRMWARE_INVALID' }, why)
  t.throws(() => openFirmware(IMAGE, rsa.publicKey), { code: 'FIRMWARE_INVALID' })
  t.doesNotThrow(() => sealFirmware(Buffer.alloc(FIRMWARE_BODY_BYTES_MAX), { ...ABOUT, model: 'm'.repeat(24), version: '65535.0.1' }))
})

t.test('a body is known by its pieces', async t => {
  const { header } = openFirmware(IMAGE, KEYS.publicKey)
  t.ok(isFirmwareBody(header, [BODY.subarray(0, 4), BODY.subarray(4)]))
  t.notOk(isFirmwareBody(header, [BODY.subarray(4), BODY.subarray(0, 4)]))
  t.notOk(isFirmwareBody(header, [BODY.subarray(0, 4)]))
})

t.test('versions are compared by number', async t => {
  const rows: [string, string, number][] = [['1.2.3', '1.2.3', 0], ['1.2.9', '1.2.10', -1], ['2.0.0', '1.99.99', 1], ['0.10.0', '0.9.9', 1]]
  for (const [left, right, want] of rows) t.equal(Math.sign(compareVersions(left, right)), want, `${left} ${right}`)
  t.throws(() => compareVersions('1', '1.0.0'), { code: 'FIRMWARE_INVALID' })
})
