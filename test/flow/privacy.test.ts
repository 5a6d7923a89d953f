// What must not be written down: a whole day in the life of a gateway with the log at its most talkative, then a search through the log
// and every file for what banks, boxes and payers would not want to find there.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import Database from 'better-sqlite3'
import t from 'tap'
import { postTrigger, prepareTrigger } from '../../gateway/cli/bank-client.js'
import { describeError } from '../../gateway/log-error.js'
import { eventually, payment, startRig } from '../support/rig.js'

const PAYER = 'Ramesh Kumar Gupta'
const PAN = '4111111111111111'
const PHONE = '9876543210'

function filesIn (folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => entry.isDirectory() ? filesIn(join(folder, entry.name)) : entry.isFile() ? [join(folder, entry.name)] : [])
}

t.test('no secret, no raw payload and nothing of the payer is in the log or on the disk', async t => {
  let text = ''
  const stream = new Writable({ write (chunk: Buffer, _encoding, done) { text += chunk.toString('utf8'); done() } })
  const log = pino({ level: 'debug', serializers: { err: describeError } }, stream)
  const rig = await startRig(t, { log })
  const token = readFileSync(join(rig.dir, 'operator.token'), 'utf8').trim()
  const masterKey = readFileSync(join(rig.dir, 'master.key'), 'utf8').trim()
  const banks = [await rig.addBank({ id: 'pnb' }), await rig.addBank({ id: 'gcm', profile: 'aes-256-gcm' }), await rig.addBank({ id: 'plain', profile: 'none' })] as const
  const secrets = await rig.addBox('SB-0001', { bank: 'pnb' })
  for (const { bank } of banks.slice(1)) await rig.client.call('POST', '/merchants/map', { bank, merchant: 'shop@upi', tid: 'SB-0001' })
  const box = await rig.connect(secrets)
  const sent: string[] = []
  const raw: string[] = []
  for (const [index, bank] of banks.entries()) {
    const columns = { ...payment(`PRIV-${index}`, '19.00'), payer_name: PAYER, payer_phone: PHONE, card: PAN, column20: `${PAYER} ${PAN}` }
    const prepared = prepareTrigger({ url: rig.url, bank, columns, nowMs: rig.clock.nowMs() })
    raw.push(prepared.body, JSON.stringify(columns), ...[prepared.headers['header_secrets']].filter(text => text !== undefined))
    sent.push(JSON.stringify(await postTrigger(prepared, bank, rig.clock.nowMs, 60_000)))
    for (const body of ['{', JSON.stringify({ RequestData: PAN }), `{"payer":"${PAYER}"`]) {
      await fetch(prepared.url, { method: 'POST', headers: { ...prepared.headers, pass_key: bank.passKey }, body })
    }
    await fetch(prepared.url, { method: 'POST', headers: { ...prepared.headers, header_secrets: `${PAN}${PHONE}` }, body: prepared.body })
    await rig.trigger(bank, { ...payment(`PRIV-${index}`, '20.00'), payer_name: PAYER })
    await rig.trigger(bank, { ...payment(`BAD-${index}`), column2: `${PAYER}; DROP`, column8: PAN, column12: `card ${PAN} ${PHONE}` })
  }
  await fetch(`${rig.url}/api/v1/admin/banks`, { headers: { authorization: `Bearer wrong-${PHONE}` } })
  await fetch(`${rig.url}/api/v1/admin/banks?token=${token}`)
  await rig.client.call('POST', '/devices', { tid: 'SB-0001', type: 'QS1' }).catch(() => {})
  await rig.connect({ ...secrets, mqttPassword: `wrong-${PHONE}` }).catch(() => {})
  await box.ack('ffffffffffffffffffffffffffffffff', 'spoken', { reason: PAYER })
  await box.mqtt.publishAsync('soundbox/v1/SB-0001/ack', `{"id":"${PAN}"}`, { qos: 1 }).catch(() => {})
  await box.hasSpoken(3)
  await eventually(() => rig.history(), rows => rows.length === 3 && rows.every(row => row.deliveries[0]?.state === 'spoken'))
  const rotated = await rig.client.call('POST', '/banks/pnb/rotate-key', { overlapSeconds: 60 })
  const rekeyed = await rig.client.call('POST', '/devices/SB-0001/rekey')
  await rig.gateway().close()

  t.equal(sent.filter(reply => reply.includes('"httpStatus":200')).length, 3)
  t.match(text, /trigger answered/, 'the log did talk')
  t.match(text, /"level":20/, 'at its most talkative')
  const secretOf = ({ clientSecret, headerKey, payloadKey }: Record<string, unknown>): unknown[] => [clientSecret, headerKey, payloadKey]
  const ofBox = [secrets.mqttPassword, secrets.signingKey, rekeyed['mqttPassword'], rekeyed['signingKey']]
  const hidden = [...banks, rotated].flatMap(of => secretOf(of as Record<string, unknown>)).concat(ofBox).map(String)
  const ofPayer = [PAYER, PAN, PHONE]
  for (const [index, word] of [...hidden, ...ofPayer, ...raw, token, masterKey].entries()) t.notOk(text.includes(word), `the log has word ${index}`)

  const files = filesIn(rig.dir).filter(path => statSync(path).size > 0)
  t.ok(files.some(path => path.endsWith('soundbox.db')))
  for (const path of files) {
    const bytes = readFileSync(path).toString('latin1')
    const name = path.slice(rig.dir.length)
    for (const [index, word] of [...hidden, ...ofPayer, ...raw].entries()) t.notOk(bytes.includes(word), `${name} has word ${index}`)
    for (const key of hidden.filter(word => /^[A-Za-z0-9+/]{43}=$/.test(word))) t.notOk(bytes.includes(Buffer.from(key, 'base64').toString('latin1')), `${name} has the bytes of a key`)
    if (!name.endsWith('operator.token')) t.notOk(bytes.includes(token), `${name} has the operator's token`)
    if (!name.endsWith('master.key')) t.notOk(bytes.includes(masterKey), `${name} has the master key`)
  }
  const db = new Database(join(rig.dir, 'soundbox.db'), { readonly: true })
  t.teardown(() => { db.close() })
  const keys = db.prepare('SELECT client_secret_hash AS hash, header_key_sealed AS header, payload_key_sealed AS payload FROM bank_key').all() as Record<'hash' | 'header' | 'payload', string>[]
  t.ok(keys.length === 4 && keys.every(({ hash }) => /^[0-9a-f]{64}$/.test(hash)), 'client secrets are hashed with a key')
  t.ok(keys.every(({ header, payload }) => [header, payload].every(sealed => Buffer.from(sealed, 'base64')[0] === 1)), 'keys are sealed')
  const device = db.prepare('SELECT mqtt_password_hash AS hash, signing_key_sealed AS sealed FROM device').get() as Record<'hash' | 'sealed', string>
  t.match(device.hash, /^[0-9a-f]{64}$/)
  t.equal(Buffer.from(device.sealed, 'base64')[0], 1)
})
