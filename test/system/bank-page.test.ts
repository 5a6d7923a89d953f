// The samples of the bank integrator's page, taken out of it and run as they stand, against a gateway.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { BankSecrets } from '../../gateway/store/directory.js'
import { eventually, startRig, tempDir } from '../support/rig.js'

const PAGE = readFileSync('gateway/http/README.md', 'utf8')
const MERCHANT = 'test@isu'
const TIMEOUT_MS = 60_000

/** The one block of this language below `## Samples`. */
function sample (language: string): string {
  const blocks = [...PAGE.slice(PAGE.indexOf('## Samples')).matchAll(new RegExp('^```' + language + '\\n([\\s\\S]*?)^```$', 'gm'))]
  if (blocks.length !== 1) throw new Error(`the page has ${blocks.length} samples in ${language}`)
  return blocks[0]?.[1] ?? ''
}

/** A Python that has the package, or undefined. Debian's own has it where another Python comes first in the path. */
function findPython (): string | undefined {
  return ['python3', '/usr/bin/python3'].find(name => spawnSync(name, ['-c', 'import cryptography']).status === 0)
}

/** Skips visibly where a part is missing; on the build machine, which installs the parts, that is a failure. */
function missing (part: string, isThere: boolean): false | string {
  return isThere || process.env['CI'] === 'true' ? false : `needs ${part}`
}

type Ended = { code: number | null, stdout: string, stderr: string }
function run (command: string, args: readonly string[], cwd: string, gateway: string): Promise<Ended> {
  const child = spawn(command, args, { cwd, env: { PATH: process.env['PATH'], GATEWAY: gateway }, stdio: ['ignore', 'pipe', 'pipe'], signal: AbortSignal.timeout(TIMEOUT_MS) })
  const out = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) child[name].setEncoding('utf8').on('data', (chunk: string) => { out[name] += chunk })
  return new Promise(resolve => {
    child.once('error', error => { resolve({ code: null, ...out, stderr: error.message }) })
    child.once('close', code => { resolve({ code, ...out }) })
  })
}

type Shop = { folder: string, url: string, bank: BankSecrets, history: () => Promise<{ transactionId: string, amount: string, merchant: string | null }[]> }
/** A gateway, a bank of this profile with a mapped soundbox, and its bank.json as `bank add --json` prints it. */
async function openShop (t: Test, profile: BankSecrets['profile']): Promise<Shop> {
  const rig = await startRig(t)
  const bank = await rig.addBank({ id: 'pnb', profile })
  await rig.addBox('SB-0001', { bank: 'pnb', merchant: MERCHANT })
  const folder = tempDir(t)
  writeFileSync(join(folder, 'bank.json'), `${JSON.stringify(bank)}\n`)
  return { folder, url: rig.url, bank, history: () => rig.history() }
}

async function isAccepted (t: Test, shop: Shop, ended: Ended, transactionId: string): Promise<void> {
  t.equal(ended.code, 0, ended.stderr)
  t.match(JSON.parse(ended.stdout), { status: '0', message: 'success', statusDesc: 'Message successfully sent', data: { tr_id: transactionId, txn_amount: '19.00' } })
  const rows = await eventually(shop.history, found => found.length > 0)
  t.match(rows, [{ transactionId, amount: '19.00', merchant: MERCHANT }])
}

const hasShell = ['bash', 'curl', 'openssl'].every(name => spawnSync(name, ['--version']).error === undefined)
t.test('the openssl and curl sample', { skip: missing('bash, curl and openssl', hasShell) }, async t => {
  const shop = await openShop(t, 'aes-256-cbc')
  writeFileSync(join(shop.folder, 'sample.sh'), sample('bash'))
  await isAccepted(t, shop, await run('bash', ['sample.sh'], shop.folder, shop.url), 'CURL0001')
})

const python = findPython()
t.test('the Python sample', { skip: missing('python3 with the cryptography package (python3-cryptography)', python !== undefined) }, async t => {
  const shop = await openShop(t, 'aes-256-cbc')
  writeFileSync(join(shop.folder, 'sample.py'), sample('python'))
  await isAccepted(t, shop, await run(python ?? 'python3', ['sample.py'], shop.folder, shop.url), 'PYTHON0001')
})

for (const profile of ['aes-256-cbc', 'aes-256-gcm'] as const) {
  t.test(`the Node sample with ${profile}`, async t => {
    const shop = await openShop(t, profile)
    writeFileSync(join(shop.folder, 'sample.mjs'), sample('js'))
    await isAccepted(t, shop, await run(process.execPath, ['sample.mjs'], shop.folder, shop.url), 'NODE0001')
  })
}

t.test('a sample with wrong credentials says so', async t => {
  const shop = await openShop(t, 'aes-256-cbc')
  writeFileSync(join(shop.folder, 'bank.json'), JSON.stringify({ ...shop.bank, clientSecret: 'wrong' }))
  writeFileSync(join(shop.folder, 'sample.mjs'), sample('js'))
  const { stdout } = await run(process.execPath, ['sample.mjs'], shop.folder, shop.url)
  t.same(JSON.parse(stdout), { status: -1, statusDesc: 'Invalid credentials' })
  t.same(await shop.history(), [])
})
