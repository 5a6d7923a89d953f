// The technician's command: what scripts rely on. Exit codes and signals on real processes, shapes of --json in this one.
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import t from 'tap'
import { ERRORS, type ErrorCode, SoundboxError } from '../../protocol/index.js'
import { addAdminCommands } from '../../gateway/cli/admin-commands.js'
import { curlLines, prepareTrigger } from '../../gateway/cli/bank-client.js'
import { type Client, findTarget, openClient } from '../../gateway/cli/client.js'
import { cellText, describeFailure, EXIT, openOutput } from '../../gateway/cli/output.js'
import type { BankSecrets } from '../../gateway/store/directory.js'
import { eventually, payment, type Rig, startRig, tempDir } from '../support/rig.js'

type Ended = { code: number | null, stdout: string, stderr: string }

/** The command as a process of its own. */
function soundbox (args: readonly string[], more: { onLine?: (line: string, kill: (signal: NodeJS.Signals) => void) => void, env?: Record<string, string> } = {}): Promise<Ended> {
  const child = spawn(process.execPath, ['dist/gateway/cli/main.js', ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env['PATH'], NO_COLOR: '1', ...more.env } })
  const out = { stdout: '', stderr: '' }
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => { out.stderr += chunk })
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    out.stdout += chunk
    more.onLine?.(chunk, signal => { child.kill(signal) })
  })
  return new Promise(resolve => { child.once('close', code => { resolve({ code, ...out }) }) })
}

/** The same commands in this process, with what they print. */
async function say (client: Client, args: readonly string[], json = true): Promise<string> {
  let text = ''
  const program = new Command().exitOverride().configureOutput({ writeErr: () => {} })
  addAdminCommands(program, { client: () => client, output: () => openOutput(json, chunk => { text += chunk }), interrupted: () => AbortSignal.timeout(300) })
  await program.parseAsync(['node', 'soundbox', ...args])
  return text
}
const lines = (text: string): Record<string, unknown>[] => text.trim().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)

t.test('each fault has its exit code, and --json says it as an object', async t => {
  const want: Partial<Record<ErrorCode, number>> = {
    GATEWAY_UNREACHABLE: 3, NOT_FOUND: 4, ALREADY_EXISTS: 5, PAYMENT_CONFLICT: 5, UNAUTHORIZED: 6, FORBIDDEN: 6, INPUT_INVALID: 2, LANGUAGE_UNKNOWN: 2, AMOUNT_INVALID: 2, CONFIG_INVALID: 2
  }
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    const { text, exit } = describeFailure(new SoundboxError(code, 'why'), true)
    t.equal(exit, want[code] ?? EXIT.failed, code)
    t.same(JSON.parse(text), { error: code, message: 'why', remedy: ERRORS[code].remedy })
  }
  t.match(describeFailure(new TypeError('x'), true), { exit: 1, text: /SERVER_FAULT/ })
  t.notMatch(describeFailure(new SoundboxError('NOT_FOUND', 'a\u001b[31mb\nc'), false).text.split('\n')[0], /a\u001b\[31mb/, 'foreign control characters do not reach the terminal')
  t.equal(cellText('\u001b]0;x\u0007\u202e'), '?]0;x??')
  t.match(cellText(null), '-')
  let text = ''
  openOutput(false, chunk => { text += chunk }).one({ broker: { ready: true, ports: { mqtt: 1 } }, jobs: [{ name: 'a', lastAt: null }, { name: 'b\u001b[31m' }], may: ['x', 'y'], none: [] })
  t.equal(text.replace(/\u001b\[\d+m/g, ''), 'broker  ready=true ports=(mqtt=1)\njobs    name=a lastAt=-\n        name=b?[31m\nmay     x, y\nnone    -\n', 'no JSON for people')
})

t.test('processes end with the codes that scripts branch on', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank()
  await rig.addBox('SB-0001')
  const dir = tempDir(t)
  const file = join(dir, 'bank.json')
  writeFileSync(file, JSON.stringify(bank))
  const data = ['--data-dir', rig.dir]
  const pay = ['trigger', '--bank', file, '--to', rig.url, '--merchant', 'shop@upi']
  const [help, usage, away, missing, twice, denied, ok, done, again, other, badAmount] = await Promise.all([
    soundbox(['--help']), soundbox(['bank', 'explode']), soundbox(['--data-dir', join(dir, 'none'), 'status']), soundbox([...data, 'device', 'show', 'NOBODY', '--json']),
    soundbox([...data, 'bank', 'add', 'bank']), soundbox(['--url', rig.url, '--token', 'wrong', 'tail']), soundbox(['status', '--json'], { env: { SOUNDBOX_DATA_DIR: rig.dir } }),
    soundbox([...pay, '--amount', '19', '--txn', 'C1', '--json']).then(async first =>
      [first, await soundbox([...pay, '--amount', '19', '--txn', 'C1', '--json']), await soundbox([...pay, '--amount', '20', '--txn', 'C1', '--json'])]),
    soundbox([...pay, '--amount', 'nineteen', '--json']), soundbox(['trigger', '--bank', join(dir, 'nothing.json'), '--amount', '1']),
    soundbox(['trigger', '--bank', file, '--amount', '1', '--to', 'http://127.0.0.1:9'])
  ])
  t.match(help, { code: 0, stdout: /bank[\s\S]*device[\s\S]*history[\s\S]*tail/ })
  t.match(usage, { code: 2 })
  t.match(away, { code: 3, stderr: /GATEWAY_UNREACHABLE/ })
  t.match(missing, { code: 4, stdout: '' })
  t.match(JSON.parse(missing.stderr), { error: 'NOT_FOUND' })
  t.match(twice, { code: 5, stderr: /ALREADY_EXISTS/ })
  t.match(denied, { code: 6, stderr: /UNAUTHORIZED/ })
  t.match(ok, { code: 0 })
  t.match(JSON.parse(ok.stdout), { banks: 1, devices: 1, broker: { ready: true } })
  t.match(done.map(({ code }) => code), [0, 0, 1])
  t.match(done.map(({ stdout }) => JSON.parse(stdout) as object), [{ http: 200, repeated: false, status: '0' }, { http: 200, repeated: true }, { http: 409, statusDesc: /^ERR0009/ }])
  t.match(again, { code: 1, stdout: /txn_amount must be/ })
  t.match(other, { code: 2, stderr: /bank add --json/ })
  t.match(badAmount, { code: 3 })
  let n = 0
  const timer = setInterval(() => { void rig.trigger(bank, payment(`TAIL-${n++}`)).catch(() => {}) }, 200)
  const tail = await soundbox([...data, 'tail', '--json'], { onLine (text, kill) { if (text.includes('"payment"')) kill('SIGINT') } })
  clearInterval(timer)
  t.match(tail, { code: 0, stdout: /"transactionId":"TAIL-/ }, 'Ctrl-C ends a tail in peace')
})

t.test('the programs get their own options, and a trigger finds the gateway of the data directory', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank()
  const box = await rig.addBox('SB-0001')
  const dir = tempDir(t)
  const file = (name: string): string => join(dir, name)
  writeFileSync(file('bank.json'), JSON.stringify(bank))
  writeFileSync(file('boxes.jsonl'), `${JSON.stringify(box)}\n`)
  const mqtt = `mqtt://127.0.0.1:${rig.gateway().ports.mqtt ?? 0}`
  const pay = ['trigger', '--bank', file('bank.json'), '--merchant', 'shop@upi', '--amount', '19', '--json']
  const [sim, agent, gateway, before, byDir, byUrl, nowhere] = await Promise.all([
    soundbox(['sim', 'mqtt', '--url', mqtt, '--credentials', file('boxes.jsonl'), '--speak-ms', '0', '--seconds', '2', '--every', '0', '--json']),
    soundbox(['agent', '--data-dir', file('boxes.jsonl'), '--gateway', mqtt, '--tid', 'SB-0001', '--password', 'x', '--signing-key', 'x', '--speaker', 'silent']),
    soundbox(['gateway', '--data-dir', file('other')]), soundbox(['--data-dir', file('other'), 'gateway']),
    soundbox([...pay, '--data-dir', rig.dir]), soundbox([...pay], { env: { SOUNDBOX_DATA_DIR: rig.dir } }), soundbox([...pay, '--url', 'http://127.0.0.1:9'])
  ])
  t.match(sim, { code: 0 })
  t.match(JSON.parse(sim.stdout), { boxes: 1, connects: 1 }, '--url and --json reach the simulator')
  t.match(agent, { code: 1, stderr: /DATA_DIR_UNUSABLE/ }, '--data-dir reaches the agent: this one is a file')
  t.match(gateway, { code: 2, stderr: /environment variables/ })
  t.match(before, { code: 2, stderr: /behind its name/ })
  t.match([byDir, byUrl].map(({ stdout }) => JSON.parse(stdout) as object), [{ http: 200 }, { http: 200 }])
  t.match(nowhere, { code: 3 })
})

t.test('--json gives the shapes that others script against', async t => {
  const rig = await startRig(t)
  const { client } = rig
  const [bank] = lines(await say(client, ['bank', 'add', 'pnb', '--profile', 'aes-256-cbc', '--rename', 'column1=tr_id', 'column8=txn_amount', '--rate', '50', '--numeric-status']))
  t.same(Object.keys(bank ?? {}), ['bank', 'base', 'passKey', 'clientId', 'clientSecret', 'headerKey', 'payloadKey', 'profile'])
  t.match(await client.call('GET', '/banks'), {
    banks: [{ id: 'pnb', fieldNames: { column1: 'tr_id', column8: 'txn_amount' }, ratePerSecond: 50, numericStatus: true, database: true, headerReuse: 'forbid' }]
  })
  const [box] = lines(await say(client, ['device', 'add', 'SB-0001', '--type', 'QS1', '--language', 'hindi', '--volume', '60', '--min-volume', '10']))
  t.same(Object.keys(box ?? {}), ['tid', 'type', 'mqttUsername', 'mqttPassword', 'signingKey'])
  await say(client, ['device', 'activate', 'SB-0001'])
  t.match(lines(await say(client, ['device', 'set', 'SB-0001', '--quiet', '22:00-06:30', '--utc-offset', '-60', '--display', 'Namaste']))[0],
    { quietHours: { startMinute: 1320, endMinute: 390, utcOffsetMinutes: -60 }, display: 'Namaste', volume: 60 })
  t.match(lines(await say(client, ['device', 'set', 'SB-0001', '--quiet', 'off']))[0], { quietHours: null })
  await say(client, ['merchant', 'map', '--bank', 'pnb', '--merchant', 'shop@upi', '--device', 'SB-0001'])
  t.match(lines(await say(client, ['merchant', 'list'])), [{ bankId: 'pnb', merchant: 'shop@upi', tid: 'SB-0001' }])
  t.match(lines(await say(client, ['device', 'add', 'FLEET', '--count', '2', '--bank', 'pnb'])), [{ tid: 'FLEET-0001', type: 'SB1' }, { tid: 'FLEET-0002' }])
  for (const count of ['0', '10000']) await t.rejects(say(client, ['device', 'add', 'MORE', '--count', count]), { code: 'INPUT_INVALID' })
  t.match((await client.call('GET', '/merchants'))['mappings'], [{}, { merchant: 'fleet-0001@upi' }, { merchant: 'fleet-0002@upi' }])
  for (const tid of ['FLEET-0001', 'FLEET-0002']) await say(client, ['merchant', 'unmap', '--bank', 'pnb', '--merchant', `${tid.toLowerCase()}@upi`, '--device', tid])
  const fleet = [{ tid: 'FLEET-0001', status: 'active' }, { tid: 'FLEET-0002', status: 'active' }]
  t.match(lines(await say(client, ['device', 'list'])), [{ tid: 'SB-0001', presence: 'offline', status: 'active' }, ...fleet])
  await say(client, ['bank', 'add', 'blind', '--no-database', '--allow-header-reuse', '--announce-failed', '--pass-key', 'my-own-pass-key', '--base', 'BLIND', '--name', 'Blind'])
  const blind = { id: 'blind', database: false, headerReuse: 'allow', announceFailed: true, passKey: 'my-own-pass-key', base: 'BLIND', name: 'Blind' }
  t.match((await client.call('GET', '/banks'))['banks'], [{ id: 'pnb' }, blind])

  const secrets = bank as unknown as BankSecrets
  for (let n = 1; n <= 7; n++) {
    t.match(await rig.trigger(secrets, { tr_id: `T${n}`, column2: 'shop@upi', txn_amount: `${n}.00`, column15: 'success' }), { httpStatus: 200 })
    rig.clock.advance(1000)
  }
  const rows = lines(await say(client, ['history']))
  t.equal(rows.length, 7, 'one object a line')
  for (const key of ['bank', 'transactionId', 'amount', 'currency', 'merchant', 'status', 'acceptedAt', 'deliveries']) t.ok(key in (rows[0] ?? {}), key)
  const deliveries = rows[0]?.['deliveries'] as object[] | undefined
  for (const key of ['tid', 'state', 'publishedAt', 'deliveredAt', 'spokenAt']) t.ok(key in (deliveries?.[0] ?? {}), key)
  const calls: string[] = []
  const paged: Client = { ...client, call: (method, path, body) => {
    calls.push(path)
    return client.call(method, path.replace(/limit=\d+/, 'limit=3'), body)
  } }
  t.same(lines(await say(paged, ['history', '--limit', '7'])).map(row => row['transactionId']), ['T7', 'T6', 'T5', 'T4', 'T3', 'T2', 'T1'])
  t.equal(calls.length, 3, 'page after page')
  t.same(lines(await say(client, ['history', '--limit', '2', '--merchant', 'shop@upi', '--device', 'SB-0001', '--bank', 'pnb', '--since', '1h'])).map(row => row['transactionId']), ['T7', 'T6'])
  t.equal(await say(client, ['history', '--transaction', 'NONE']), '')
  t.match(await say(client, ['history', '--limit', '1'], false), /T7.*7\.00.*shop@upi/, 'a table for people')
  t.match(await say(client, ['history', '--transaction', 'NONE'], false), /nothing found/)
  t.equal(await say(client, ['tail']), '', 'signs of life are not printed')
  const wrong = [
    ['history', '--limit', 'many'], ['history', '--limit', '0'], ['history', '--since', 'yesterday'], ['device', 'set', 'SB-0001', '--volume', '101'], ['device', 'set', 'SB-0001', '--volume', 'loud'],
    ['device', 'set', 'SB-0001', '--quiet', '25:00-26:00'], ['device', 'set', 'SB-0001', '--quiet', '22:00-06:00', '--utc-offset', 'x'], ['bank', 'add', 'xx', '--rename', 'column1'],
    ['bank', 'add', 'xx', '--rename', 'colum1=a'],
    ['bank', 'rotate-key', 'pnb', '--overlap', 'x']
  ]
  for (const args of wrong) await t.rejects(say(client, args), { code: 'INPUT_INVALID' }, args.join(' '))
  await t.rejects(say(client, ['device', 'set', 'SB-0001', '--language', 'klingon']), { code: 'LANGUAGE_UNKNOWN' })
  t.match(await say(client, ['token', 'create', 'app', '--role', 'partner'], false), /permissions\S*\s+customer_search, [\s\S]*createdAt\S*\s+\d{4}-\d\d-\d\dT/, 'names and times as people read them')
  t.match(lines(await say(client, ['bank', 'rotate-key', 'pnb', '--overlap', '60']))[0], { bank: 'pnb', clientSecret: /./ })
  t.match(lines(await say(client, ['bank', 'disable', 'pnb']))[0], { bank: 'pnb', disabled: true })
  t.match(lines(await say(client, ['bank', 'enable', 'pnb']))[0], { disabled: false })
  t.match(lines(await say(client, ['merchant', 'unmap', '--bank', 'pnb', '--merchant', 'shop@upi', '--device', 'SB-0001']))[0], { outcome: 'unmapped' })
})

t.test('the command finds its gateway, or says what is missing', async t => {
  const rig: Pick<Rig, 'dir'> = { dir: tempDir(t) }
  writeFileSync(join(rig.dir, 'gateway.sock'), '')
  t.same(findTarget({ dataDir: rig.dir }, {}), { socketPath: join(rig.dir, 'gateway.sock') })
  t.same(findTarget({}, { SOUNDBOX_DATA_DIR: rig.dir }), { socketPath: join(rig.dir, 'gateway.sock') })
  t.match(findTarget({ url: 'https://host:8443', token: 'T' }, {}), { token: 'T', url: { hostname: 'host' } })
  t.match(findTarget({ url: 'http://[::1]:8080' }, { SOUNDBOX_TOKEN: 'E' }), { token: 'E' })
  writeFileSync(join(rig.dir, 'token'), 'F\n')
  t.match(findTarget({ url: 'http://host', tokenFile: join(rig.dir, 'token') }, {}), { token: 'F' })
  for (const options of [{ url: 'host:8080' }, { url: 'ftp://host' }, { url: 'http://host' }, { url: 'http://host', tokenFile: join(rig.dir, 'none') }]) {
    t.throws(() => findTarget(options, {}), { code: 'INPUT_INVALID' }, JSON.stringify(options))
  }
  t.throws(() => findTarget({ dataDir: join(rig.dir, 'none') }, {}), { code: 'GATEWAY_UNREACHABLE' })
  await t.rejects(openClient({ socketPath: join(rig.dir, 'gateway.sock') }).call('GET', '/status'), { code: 'GATEWAY_UNREACHABLE' }, 'a socket nobody listens on')
})

t.test('--print curl is what a bank could paste, for every profile that openssl knows', async t => {
  const rig = await startRig(t)
  const [cbc, plain, gcm] = await Promise.all([rig.addBank({ id: 'cbc' }), rig.addBank({ id: 'plain', profile: 'none' }), rig.addBank({ id: 'gcm', profile: 'aes-256-gcm' })])
  await rig.addBox('SB-0001', { bank: 'cbc' })
  await rig.client.call('POST', '/merchants/map', { bank: 'plain', merchant: 'shop@upi', tid: 'SB-0001' })
  for (const bank of [cbc, plain]) {
    const script = curlLines({ url: `${rig.url}/`, bank, columns: payment('CURL-1', '250.50') })
    const { stdout, code } = await new Promise<Ended>(resolve => {
      const child = spawn('bash', [], { stdio: ['pipe', 'pipe', 'inherit'] })
      let text = ''
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
      child.once('close', exit => { resolve({ code: exit, stdout: text, stderr: '' }) })
      child.stdin.end(script)
    })
    t.equal(code, 0)
    t.match(JSON.parse(stdout), { status: '0', data: { tr_id: 'CURL-1', txn_amount: '250.50' } }, bank.profile)
  }
  t.equal((await eventually(() => rig.history(), rows => rows.length === 2)).length, 2)
  t.throws(() => curlLines({ url: rig.url, bank: gcm, columns: {} }), { code: 'INPUT_INVALID' })
  t.throws(() => prepareTrigger({ url: rig.url, bank: { ...cbc, headerKey: 'short' }, columns: {}, nowMs: 0 }), { code: 'INPUT_INVALID' })
  t.notMatch(curlLines({ url: "http://x'; rm -rf /; '", bank: { ...cbc, clientId: '$(id)"`id`' }, columns: { column1: "'$(id)" } }), /[^'\\]'; rm -rf/, 'nothing of the file or the line runs')
  t.ok(readFileSync(join(rig.dir, 'gateway.json'), 'utf8').endsWith('\n'))
})
