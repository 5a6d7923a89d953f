// The Pub/Sub fallback against Google's own emulator (Cloud SDK, Java), where it is installed.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { FallbackRecord } from '../../gateway/fallback/contract.js'
import { openPubsubFallback } from '../../gateway/fallback/pubsub.js'
import { openSpool } from '../../gateway/fallback/spool.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { someDelivery, somePayment, stepOf } from '../support/store-records.js'
import { freePort } from '../support/free-port.js'

const PLACES = ['/usr/lib/google-cloud-sdk', '/opt/google-cloud-sdk', join(process.env['HOME'] ?? '/root', 'google-cloud-sdk')]

function findEmulator (): string | undefined {
  const folders = PLACES.map(place => join(place, 'platform/pubsub-emulator/lib')).filter(existsSync)
  return folders.flatMap(folder => readdirSync(folder).map(name => join(folder, name))).find(name => /cloud-pubsub-emulator.*\.jar$/.test(name))
}

async function startEmulator (jar: string): Promise<{ host: string, child: ChildProcess }> {
  const port = await freePort()
  const child = spawn('java', ['-jar', jar, '--host=127.0.0.1', `--port=${port}`], { stdio: 'ignore' })
  for (let tries = 0; ; tries++) {
    const answers = await fetch(`http://127.0.0.1:${port}/v1/projects/shop/topics`).then(response => response.ok, () => false)
    if (answers) return { host: `127.0.0.1:${port}`, child }
    if (tries > 200 || child.exitCode !== null) throw new Error('the emulator does not start')
    await new Promise(resolve => { setTimeout(resolve, 150) })
  }
}

t.setTimeout(180_000)
const jar = findEmulator()
const SKIP = jar === undefined ? 'the Pub/Sub emulator of the Google Cloud SDK is not installed' : false
t.test('records wait in the emulator, survive a restart of the gateway, and are drained in order by another', { skip: SKIP }, async t => {
  const { host, child } = await startEmulator(jar!)
  t.teardown(() => { child.kill('SIGKILL') })
  const dir = t.testdir()
  let now = Date.now()
  const open = async (name: string) => openPubsubFallback({
    project: 'shop', topic: 'history', host, account: null, log: SILENT_LOG, nowMs: () => now,
    spool: await openSpool({ dir: join(dir, name), log: SILENT_LOG, segmentBytes: 64 * 1024, segmentsReady: 1, segmentsMax: 2 })
  })
  const first = await open('a')
  const records: FallbackRecord[] = Array.from({ length: 500 }, (_, i) => i % 5 === 4
    ? { kind: 'changes', changes: [stepOf(someDelivery(i - 1), 'spoken', i)] }
    : { kind: 'payment', payment: somePayment(i), deliveries: [someDelivery(i)] })
  for (let from = 0; from < records.length; from += 50) await Promise.all(records.slice(from, from + 50).map(first.append))
  t.equal(first.depth(), 500)
  await first.close()
  const second = await open('b')
  t.teardown(second.close)
  const seen: FallbackRecord[] = []
  const report = await second.drain(async record => { seen.push(record) })
  t.match(report, { drained: 500, setAside: 0, left: 0 })
  t.same(seen.filter(record => record.kind === 'payment'), records.filter(record => record.kind === 'payment'))
  const changes = seen.flatMap(record => record.kind === 'changes' ? record.changes : [])
  t.same(changes, records.flatMap(record => record.kind === 'changes' ? record.changes : []))
  t.same(await second.drain(async () => { t.fail('nothing is left') }), { drained: 0, setAside: 0, left: 0 })
  child.kill('SIGKILL')
  await second.append(records[0]!)
  t.equal(second.depth(), 1, 'the emulator is gone, the record is in the spool')
  now += 60_000
  t.match(await second.drain(async () => {}), { drained: 1, left: 0 })
})
