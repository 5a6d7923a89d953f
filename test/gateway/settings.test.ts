// Settings, data directory and directory of banks and boxes: what a gateway stands on before the first payment.
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SILENT_LOG } from '../../protocol/index.js'
import { describeConfig, isCron, parseConfig, SETTINGS } from '../../gateway/config.js'
import { openDataDir } from '../../gateway/data-dir.js'
import { DEVICES_PER_MERCHANT_MAX, openDirectory } from '../../gateway/store/directory.js'
import type { DirectoryRows, Store } from '../../gateway/store/contract.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { handClock, memoryStore } from '../support/heart-fakes.js'
import { START_MS } from '../support/store-records.js'
import { startRig, tempDir } from '../support/rig.js'

t.test('nothing set is a configuration that works, frozen', async t => {
  const config = parseConfig({})
  t.match(config, { dataDir: 'data', host: '127.0.0.1', httpPort: 8080, mqttPort: 1883, isoPort: 8583, mqttsPort: null, tls: null, speakMs: 60_000, summaryMs: 600_000, logLevel: 'info' })
  t.ok(Object.isFrozen(config))
  t.equal(new Set(SETTINGS.map(({ name }) => name)).size, SETTINGS.length)
})

t.test('each setting has its limits, and a wrong one is named', async t => {
  const rows: [string, string[], string[]][] = [
    ['SOUNDBOX_HTTP_PORT', ['0', '65535'], ['-1', '65536', 'x', '', '80.5']], ['SOUNDBOX_MQTT_PORT', ['0'], ['65536']], ['SOUNDBOX_ISO_PORT', ['0'], ['65536']],
    ['SOUNDBOX_MQTT_WEBSOCKET_PORT', ['', '0'], ['65536']], ['SOUNDBOX_HOST', ['0.0.0.0', '::', 'localhost'], ['', 'a b', 'http://x']], ['SOUNDBOX_DATA_DIR', ['x'], ['']],
    ['SOUNDBOX_STORE', ['sqlite', 'postgres://u:p@h/d', 'postgresql://h/d'], ['mysql://h', '']], ['SOUNDBOX_BROKER', ['embedded', 'mqtt://h', 'mqtts://u:p@h:8883'], ['amqp://h', '']],
    ['SOUNDBOX_FALLBACK', ['spool'], ['kafka://h', 'pubsub://project']], ['SOUNDBOX_SPOOL_BYTES', ['1048576', '17179869184'], ['1048575', '17179869185']],
    ['SOUNDBOX_RETENTION_DAYS', ['1', '3650'], ['0', '3651']], ['SOUNDBOX_BACKUP_KEEP', ['0', '366'], ['367']], ['SOUNDBOX_SPEAK_SECONDS', ['5', '600'], ['4', '601']],
    ['SOUNDBOX_SUMMARY_SECONDS', ['60', '86400'], ['59', '86401']], ['SOUNDBOX_RECEIVED_TIMEOUT_MS', ['100', '60000'], ['99', '60001']], ['SOUNDBOX_LOG_LEVEL', ['debug', 'silent'], ['loud', '']],
    ['SOUNDBOX_TRUST_PROXY', ['true', 'false'], ['yes', '1', '']], ['SOUNDBOX_HTTP_TLS', ['false'], ['on']],
    ['SOUNDBOX_BACKUP_CRON', ['30 2 * * *', '*/5 0-6 1,15 * 1-5'], ['', '* * * *', '60 * * * *', 'daily']]
  ]
  for (const [name, good, bad] of rows) {
    t.ok(SETTINGS.some(setting => setting.name === name), name)
    for (const value of good) t.doesNotThrow(() => parseConfig({ [name]: value }), `${name}=${value}`)
    for (const value of bad) t.throws(() => parseConfig({ [name]: value }), { code: 'CONFIG_INVALID', message: new RegExp(name) }, `${name}=${value}`)
  }
  const all = Object.fromEntries(rows.map(([name, , bad]) => [name, bad[0] ?? '']))
  t.throws(() => parseConfig(all), { code: 'CONFIG_INVALID' })
  try {
    parseConfig(all)
  } catch (error) {
    for (const name of Object.keys(all)) t.match((error as Error).message, name, `${name} is among all problems at once`)
  }
})

t.test('settings that need each other are told so', async t => {
  const files = { SOUNDBOX_TLS_CERT_FILE: 'c', SOUNDBOX_TLS_KEY_FILE: 'k' }
  const bad: [Record<string, string>, RegExp][] = [
    [{ SOUNDBOX_HTTP_TLS: 'true' }, /are needed for TLS/], [{ SOUNDBOX_MQTTS_PORT: '8883' }, /are needed for TLS/], [{ SOUNDBOX_TLS_CERT_FILE: 'c' }, /go together/],
    [{ ...files, SOUNDBOX_TLS_CLIENT_CERT: 'true' }, /SOUNDBOX_TLS_CA_FILE/], [{ SOUNDBOX_SPEAK_SECONDS: '600', SOUNDBOX_SUMMARY_SECONDS: '599' }, /must not be below/],
    [{ SOUNDBOX_FALLBACK: 'pubsub://project/topic' }, /SOUNDBOX_PUBSUB_KEY_FILE/], [{ SOUNDBOX_ISO_TLS_PORT: '1' }, /SOUNDBOX_ISO_TLS_CERT_FILE/]
  ]
  for (const [env, message] of bad) t.throws(() => parseConfig(env), { code: 'CONFIG_INVALID', message }, Object.keys(env).join())
  t.match(parseConfig({ ...files, SOUNDBOX_MQTTS_PORT: '8883', SOUNDBOX_HTTP_TLS: 'true', SOUNDBOX_SPEAK_SECONDS: '600' }), { mqttsPort: 8883, httpTls: true, tls: { certFile: 'c',
    keyFile: 'k', caFile: null } })
  t.ok(parseConfig({ SOUNDBOX_FALLBACK: 'pubsub://project/topic', PUBSUB_EMULATOR_HOST: 'localhost:1' }))
})

t.test('what is printed at start hides every password', async t => {
  const shown = JSON.stringify(describeConfig(parseConfig({ SOUNDBOX_STORE: 'postgres://user:geh@im@host:5432/db', SOUNDBOX_BROKER: 'mqtts://gw:geheim@broker:8883' })))
  t.notMatch(shown, /geh/)
  t.match(shown, /host:5432/)
})

t.test('a cron expression has five fields within their ranges', async t => {
  for (const text of ['* * * * *', '0 0 1 1 0', '59 23 31 12 7', '*/15 1-5,9 * * *', '1-59/2 * * * *']) t.ok(isCron(text), text)
  const bad = ['', '* * * *', '* * * * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 13 *', '* * * * 8', '5-1 * * * *', '*/0 * * * *', '1,,2 * * * *', '@daily', 'a b c d e']
  for (const text of bad) t.notOk(isCron(text), text)
})

const modeOf = (path: string): number => statSync(path).mode & 0o777

t.test('a first start makes what it needs, closed to others; a second finds it again', async t => {
  const path = join(tempDir(t), 'deep', 'data')
  const first = openDataDir(path, null, process.pid)
  t.same(['', 'spool', 'backup'].map(name => modeOf(join(path, name))), [0o700, 0o700, 0o700])
  t.same(['master.key', 'operator.token', 'gateway.pid'].map(name => modeOf(join(path, name))), [0o600, 0o600, 0o600])
  first.writePorts({ http: 1 })
  t.equal(modeOf(join(path, 'gateway.json')), 0o600)
  t.same(JSON.parse(readFileSync(join(path, 'gateway.json'), 'utf8')), { http: 1 })
  first.close()
  t.notOk(existsSync(join(path, 'gateway.pid')) || existsSync(join(path, 'gateway.json')))
  const second = openDataDir(path, null, process.pid)
  t.same(second.masterKey, first.masterKey)
  t.equal(second.operatorToken, first.operatorToken)
  t.ok(second.operatorToken.length >= 32)
  second.close()
})

t.test('one gateway at a time: a living one is respected, a dead one and a broken file are not', async t => {
  const path = tempDir(t)
  const other = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'])
  const gone = new Promise(resolve => { other.once('exit', resolve) })
  openDataDir(path, null, other.pid ?? 0)
  t.throws(() => openDataDir(path, null, process.pid), { code: 'DATA_DIR_UNUSABLE', message: new RegExp(String(other.pid)) })
  other.kill('SIGKILL')
  await gone
  openDataDir(path, null, process.pid).close()
  for (const text of ['', 'not a number', String(process.pid), '0', '-5']) {
    writeFileSync(join(path, 'gateway.pid'), text)
    openDataDir(path, null, process.pid).close()
  }
  const stranger = spawn('sleep', ['60'])
  writeFileSync(join(path, 'gateway.pid'), String(stranger.pid))
  if (existsSync('/proc/self/cmdline')) t.doesNotThrow(() => openDataDir(path, null, process.pid).close(), 'a number that now belongs to some other program does not lock')
  stranger.kill()
})

t.test('keys and tokens that are missing, open, short or of another directory are refused', async t => {
  const path = tempDir(t)
  openDataDir(path, null, process.pid).close()
  const refused = (code: string, why: string, change: () => void, mend: () => void): void => {
    change()
    t.throws(() => openDataDir(path, null, process.pid), { code }, why)
    t.notOk(existsSync(join(path, 'gateway.pid')), `${why}: the lock is given back`)
    mend()
  }
  const key = readFileSync(join(path, 'master.key'), 'utf8')
  const token = readFileSync(join(path, 'operator.token'), 'utf8')
  const write = (name: string, text: string) => (): void => { writeFileSync(join(path, name), text, { mode: 0o600 }) }
  for (const wrong of ['', 'short', Buffer.alloc(31).toString('base64'), Buffer.alloc(33).toString('base64')]) {
    refused('SECRET_UNREADABLE', `key ${wrong}`, write('master.key', wrong), write('master.key', key))
  }
  for (const wrong of ['', '\n', 'short']) refused('DATA_DIR_UNUSABLE', `token ${JSON.stringify(wrong)} lets in whoever sends none`, write('operator.token', wrong), write('operator.token', token))
  for (const name of ['master.key', 'operator.token']) {
    refused('DATA_DIR_UNUSABLE', `${name} open to others`, () => { chmodSync(join(path, name), 0o640) }, () => { chmodSync(join(path, name), 0o600) })
  }
  refused('SECRET_UNREADABLE', 'no key beside a database', () => {
    write('soundbox.db', '')()
    rmSync(join(path, 'master.key'))
  }, write('master.key', key))
  t.throws(() => openDataDir(path, join(path, 'elsewhere.key'), process.pid), { code: 'SECRET_UNREADABLE' }, 'a named key file is never made')
  write('elsewhere.key', key)()
  openDataDir(path, join(path, 'elsewhere.key'), process.pid).close()
})

t.test('a folder that is open to others is closed when it is ours or empty, and left alone when it is not', async t => {
  const path = join(tempDir(t), 'data')
  mkdirSync(path, { mode: 0o755 })
  openDataDir(path, null, process.pid).close()
  t.equal(modeOf(path), 0o700)
  chmodSync(path, 0o755)
  openDataDir(path, null, process.pid).close()
  t.equal(modeOf(path), 0o700, 'it holds a gateway')
  const foreign = join(tempDir(t), 'foreign')
  mkdirSync(foreign)
  chmodSync(foreign, 0o755)
  writeFileSync(join(foreign, 'letters.txt'), '')
  t.throws(() => openDataDir(foreign, null, process.pid), { code: 'DATA_DIR_UNUSABLE' })
  t.equal(modeOf(foreign), 0o755)
  writeFileSync(join(foreign, 'a-file'), '')
  t.throws(() => openDataDir(join(foreign, 'a-file'), null, process.pid), { code: 'DATA_DIR_UNUSABLE' }, 'a file is no folder')
})

t.test('a gateway on a directory of another master key does not start, and leaves nothing open', async t => {
  const rig = await startRig(t)
  await rig.addBank()
  await rig.gateway().close()
  t.equal(modeOf(join(rig.dir, 'soundbox.db')), 0o600)
  const key = readFileSync(join(rig.dir, 'master.key'))
  writeFileSync(join(rig.dir, 'master.key'), Buffer.alloc(32, 1).toString('base64'))
  await t.rejects(rig.restart(), { code: 'SECRET_UNREADABLE' })
  t.notOk(existsSync(join(rig.dir, 'gateway.pid')))
  writeFileSync(join(rig.dir, 'master.key'), key)
  await rig.restart()
  t.match(await rig.client.call('GET', '/banks'), { banks: [{ id: 'bank' }] })
})

async function openBook (store: Store) {
  const clock = handClock()
  return { clock, directory: await openDirectory({ store, masterKey: Buffer.alloc(32, 7), nowMs: clock.nowMs }) }
}

t.test('the directory tells what the disk tells, and never half a bank after a failed write', async t => {
  const dir = tempDir(t)
  const store = await openSqliteStore({ path: join(dir, 'x.db'), log: SILENT_LOG, nowMs: () => START_MS })
  t.teardown(() => store.close())
  const { directory } = await openBook(store)
  const secrets = await directory.addBank({ id: 'pnb' })
  const box = await directory.addDevice({ tid: 'BOX1', type: 'QS1' })
  await directory.patchDevice('BOX1', { status: 'active', volume: 5 })
  await Promise.all([directory.patchDevice('BOX1', { volume: 6 }), directory.patchDevice('BOX1', { minVolume: 7 })])
  for (const merchant of ['a@b', 'c@d']) await directory.map('pnb', merchant, 'BOX1')
  await directory.unmap('pnb', 'A@B', 'BOX1')
  await directory.setBankDisabled('pnb', true)
  const again = (await openBook(store)).directory
  t.same(again.device('BOX1'), directory.device('BOX1'))
  t.match(again.device('BOX1'), { volume: 6, minVolume: 7, status: 'active', desiredVersion: 4, signingKey: box.signingKey })
  t.same(again.bankByPassKey(secrets.passKey), directory.bankById('pnb'))
  t.same(again.bankById('pnb')?.keys[0]?.payloadKey.toString('base64'), secrets.payloadKey)
  t.same([again.devicesOf('pnb', 'c@d'), again.devicesOf('pnb', 'a@b'), again.mappingsOf('BOX1').map(({ merchant }) => merchant)], [['BOX1'], [], ['c@d']])
  t.equal(again.hashOf(box.mqttPassword), again.device('BOX1')?.mqttPasswordHash)
  const text = JSON.stringify(await store.loadDirectory())
  for (const secret of [secrets.clientSecret, secrets.payloadKey, box.mqttPassword, box.signingKey]) t.notOk(text.includes(secret), 'only sealed or hashed on disk')
})

t.test('a write that fails changes nothing in memory, and the next one works', async t => {
  const store = memoryStore(() => START_MS)
  const { directory, clock } = await openBook(store)
  store.refuses.writes = true
  await t.rejects(directory.addBank({ id: 'pnb' }), { code: 'STORE_FAILED' })
  await t.rejects(directory.addDevice({ tid: 'BOX1', type: 'QS1' }), { code: 'STORE_FAILED' })
  t.same([directory.banks(), directory.devices()], [[], []])
  store.refuses.writes = false
  await directory.addBank({ id: 'pnb' })
  await directory.addDevice({ tid: 'BOX0', type: 'QS1' })
  const saved = store.saveBankKey
  let writes = 0
  store.saveBankKey = row => ++writes === 2 ? Promise.reject(new Error('power cut')) : saved(row)
  await t.rejects(directory.rotateBankKey('pnb', 1000))
  clock.advance(1)
  await directory.rotateBankKey('pnb', 1000)
  t.equal(directory.bankById('pnb')?.keys.length, 2, 'a rotation that was cut short is done again')
  for (let n = 0; n < DEVICES_PER_MERCHANT_MAX; n++) {
    if (n > 0) await directory.addDevice({ tid: `BOX${n}`, type: 'QS1' })
    await directory.map('pnb', 'shop@upi', `BOX${n}`)
  }
  await directory.addDevice({ tid: 'ONE-MORE', type: 'QS1' })
  await t.rejects(directory.map('pnb', 'shop@upi', 'ONE-MORE'), { code: 'INPUT_INVALID' }, 'one past the limit of boxes')
})

t.test('a row that the master key does not open stops the start', async t => {
  const rows: DirectoryRows = { banks: [], keys: [], devices: [], mappings: [] }
  const store: Store = { ...memoryStore(() => START_MS), loadDirectory: async () => rows, saveDevice: async row => { rows.devices.push(row) } }
  await (await openBook(store)).directory.addDevice({ tid: 'BOX1', type: 'QS1' })
  t.ok((await openBook(store)).directory.device('BOX1'))
  await t.rejects(openDirectory({ store, masterKey: Buffer.alloc(32, 8), nowMs: () => START_MS }), { code: 'SECRET_UNREADABLE' })
  rows.devices[0] = { ...rows.devices[0]!, tid: 'BOX2' }
  await t.rejects(openBook(store), { code: 'SECRET_UNREADABLE' }, 'a secret moved to another row')
})
