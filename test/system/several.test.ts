// Several gateways as one: PostgreSQL, Mosquitto, two gateway processes, a simulated fleet. Payments alternate between the gateways,
// duplicates go to both at once, one gateway is killed in the middle and another takes its place. Nothing acknowledged is lost, nothing
// is spoken twice, and each shop hears its payments in the order in which they were acknowledged. Then: what one was told the other
// knows, one that stops hands over at once, the database goes away, and both stop and one comes back.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type Fleet, startFleet } from '../../firmware-sim/fleet.js'
import { postTrigger, prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets, DeviceSecrets } from '../../gateway/store/directory.js'
import { DEAD_AFTER_MS, HEARTBEAT_MS } from '../../gateway/trigger/relay.js'
import { announcementId, isSoundboxError } from '../../protocol/index.js'
import { fleetKeys, type GatewayProcess, provision, startGatewayProcess } from '../support/gateway-process.js'
import { findPostgres, type PostgresServer, startPostgres } from '../support/postgres-server.js'
import { eventually, tempDir } from '../support/rig.js'
import { freePort } from '../support/free-port.js'

const POSTGRES = findPostgres()
const MOSQUITTO = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto', '/opt/homebrew/sbin/mosquitto'].find(path => existsSync(path))
const IS_MISSING = POSTGRES === undefined || MOSQUITTO === undefined
const SKIP = IS_MISSING && process.env['CI'] !== 'true' ? 'PostgreSQL or Mosquitto is not installed: test/system/install-parts.sh' : false

const BOXES = 10
const PAYMENTS = 200
/** One worker a shop, so that its payments are acknowledged one after the other. */
const KILL_AFTER = 80
type HistoryRow = { transactionId: string, deliveries: { tid: string, state: string }[] }
type Acked = { id: string, shop: number }

/** A Mosquitto that knows the gateway, and later the boxes. */
function openMosquitto (t: Test, port: number): { admit: (devices: readonly DeviceSecrets[]) => Promise<void> } {
  const dir = join(tempDir(t), 'mosquitto')
  mkdirSync(dir)
  const path = (name: string): string => join(dir, name)
  writeFileSync(path('acl'), `user gateway\ntopic readwrite soundbox/v1/#\n\npattern readwrite soundbox/v1/%u/#\n`, { mode: 0o600 })
  writeFileSync(path('mosquitto.conf'), [
    ...(process.getuid?.() === 0 ? ['user root'] : []), 'allow_anonymous false', `password_file ${path('passwords')}`, `acl_file ${path('acl')}`, 'persistence false',
    `listener ${port} 127.0.0.1`, ''
  ].join('\n'))
  let child: ChildProcess | undefined
  t.teardown(() => { child?.kill('SIGKILL') })
  return {
    async admit (devices) {
      writeFileSync(path('passwords'), ['gateway:secret', ...devices.map(({ tid, mqttPassword }) => `${tid}:${mqttPassword}`), ''].join('\n'))
      execFileSync('mosquitto_passwd', ['-U', path('passwords')])
      chmodSync(path('passwords'), 0o600)
      child?.kill('SIGHUP')
      child ??= spawn(MOSQUITTO ?? '', ['-c', path('mosquitto.conf')], { stdio: 'ignore' })
    }
  }
}

async function pay (gateway: GatewayProcess, bank: BankSecrets, { id, shop }: Acked): Promise<boolean> {
  const columns = { column1: id, column2: `shop${shop}@upi`, column8: `${10 + shop}.00`, column12: 'UPI', column15: 'success' }
  try {
    return (await postTrigger(prepareTrigger({ url: gateway.url, bank, columns, nowMs: Date.now() }), bank, Date.now, 20_000)).httpStatus === 200
  } catch {
    return false
  }
}

type Scene = {
  postgres: PostgresServer, gateways: [GatewayProcess, GatewayProcess], bank: BankSecrets, devices: DeviceSecrets[], fleet: Fleet
  start: (index: number) => Promise<void>, acked: Acked[], more: Fleet[]
  addBox: (tid: string) => Promise<void>
}
const scene = {} as Scene

/** History, when all of it has ended. A gateway that has just lost the database says so for a moment, and is asked again. */
async function settled (gateway: GatewayProcess): Promise<HistoryRow[]> {
  const isOpen = ({ deliveries }: HistoryRow): boolean => deliveries.some(({ state }) => ['accepted', 'published', 'delivered'].includes(state))
  const ask = async (): Promise<HistoryRow[] | undefined> => {
    try {
      return (await gateway.client.call('GET', '/history?limit=500'))['payments'] as HistoryRow[]
    } catch (error) {
      if (isSoundboxError(error, 'STORE_FAILED')) return undefined
      throw error
    }
  }
  return await eventually(ask, rows => rows?.every(row => !isOpen(row)) === true, 60_000) ?? []
}

/** Milliseconds until the box has spoken it. */
async function untilSpoken (id: string, fleet = scene.fleet, timeoutMs = 30_000): Promise<number> {
  const since = Date.now()
  await eventually(() => fleet.spoken().some(sound => sound.id === announcementId('bank', id)), isSpoken => isSpoken, timeoutMs)
  return Date.now() - since
}

async function payAll (t: Test, gateway: GatewayProcess, name: string): Promise<Acked[]> {
  const orders = Array.from({ length: BOXES }, (_, shop) => ({ id: `${name}-${shop}`, shop }))
  const answers = await Promise.all(orders.map(order => pay(gateway, scene.bank, order)))
  t.same(answers, orders.map(() => true), `${name}: all answered with success`)
  scene.acked.push(...orders)
  return orders
}

t.setTimeout(400_000)
t.test('two gateways over PostgreSQL and Mosquitto', { skip: SKIP }, async t => {
  const [postgres, mqttPort] = [await startPostgres(POSTGRES ?? ''), await freePort()]
  t.teardown(postgres.remove)
  await postgres.createDatabase('soundbox')
  const mosquitto = openMosquitto(t, mqttPort)
  await mosquitto.admit([])
  const dirs = [tempDir(t), tempDir(t)] as const
  const keyFile = join(dirs[0], 'shared.key')
  writeFileSync(keyFile, randomBytes(32).toString('base64'), { mode: 0o600 })
  const env = {
    SOUNDBOX_STORE: postgres.url('soundbox'), SOUNDBOX_BROKER: `mqtt://gateway:secret@127.0.0.1:${mqttPort}`, SOUNDBOX_MASTER_KEY_FILE: keyFile, SOUNDBOX_SPOOL_BYTES: '2097152'
  }
  const gateways = [await startGatewayProcess(dirs[0], { env }), await startGatewayProcess(dirs[1], { env })] as [GatewayProcess, GatewayProcess]
  t.teardown(() => Promise.all(gateways.map(gateway => gateway.end('SIGKILL'))))
  const { bank, devices } = await provision(gateways[0].client, BOXES)
  await mosquitto.admit(devices)
  const fleetOf = (boxes: readonly DeviceSecrets[]): Fleet => startFleet({
    url: `mqtt://127.0.0.1:${mqttPort}`, devices: boxes.map(fleetKeys), seed: 1, nowMs: Date.now, speakMs: [1, 20], backoff: { baseMs: 50, maxMs: 300 }
  })
  const fleet = fleetOf(devices)
  const more: Fleet[] = []
  t.teardown(async () => { await Promise.all([fleet, ...more].map(one => one.close())) })
  await eventually(async () => (await gateways[1].client.call('GET', `/devices/${devices.at(-1)?.tid}`).catch(() => undefined)) !== undefined, isThere => isThere)
  await fleet.whenUp(60_000)
  Object.assign(scene, {
    postgres, gateways, bank, devices, fleet, more, acked: [],
    start: async (index: number) => { gateways[index] = await startGatewayProcess(dirs[index] ?? '', { env }) },
    addBox: async (tid: string) => {
      const secrets = await gateways[0].client.call('POST', '/devices', { tid, type: 'QS1' }) as unknown as DeviceSecrets
      await gateways[0].client.call('POST', `/devices/${tid}/activate`)
      await gateways[0].client.call('POST', '/merchants/map', { bank: 'bank', merchant: `shop${BOXES}@upi`, tid })
      await mosquitto.admit([...devices, secrets])
      more.push(fleetOf([secrets]))
      await more.at(-1)?.whenUp(30_000)
    }
  } satisfies Scene)

  await t.test('one is killed and replaced: all that was acknowledged is in history once, spoken once, in order', killedAndReplaced)
  await t.test('what one is told of boxes and keys the other knows', changesAreKnown)
  await t.test('one that stops hands over at once, one that is killed within the time of its heartbeats', endsAndIsFollowed)
  await t.test('the database goes away: both go on, and history has it all afterwards', databaseGoes)
  await t.test('both stop; one comes back alone to boxes that do not say hello', comesBackAlone)
})

async function killedAndReplaced (t: Test): Promise<void> {
  const { gateways, bank, devices, fleet, acked } = scene
  let unanswered = 0
  let next = 0
  const worker = async (shop: number): Promise<void> => {
    for (let n = 0; n < PAYMENTS / BOXES; n++) {
      const order = { id: `PAY-${shop}-${n}`, shop }
      let isAcked = false
      for (let attempt = 0; attempt < 400 && !isAcked; attempt++) {
        const first = gateways[next++ % 2] as GatewayProcess
        const answers = await Promise.all((n % 4 === 0 ? gateways : [first]).map(gateway => pay(gateway, bank, order)))
        isAcked = answers.includes(true)
        if (answers.includes(false)) unanswered++
        if (!isAcked) await sleep(20)
      }
      acked.push(order)
    }
  }
  const killer = async (): Promise<void> => {
    while (acked.length < KILL_AFTER) await sleep(1)
    await gateways[1].end('SIGKILL')
    while (acked.length < 2 * KILL_AFTER) await sleep(1)
    await scene.start(1)
  }
  await Promise.all([killer(), ...Array.from({ length: BOXES }, (_, shop) => worker(shop))])
  t.ok(unanswered > 0, 'some requests were cut off and sent again')
  const rows = await settled(gateways[0])
  t.same(rows.map(row => row.transactionId).sort(), acked.map(({ id }) => id).sort(), 'history holds what was acknowledged, once')
  t.equal(fleet.report().doubles, 0, 'nothing is spoken twice')
  t.same(rows.map(row => row.deliveries[0]?.state).filter(state => state !== 'spoken'), [], 'all spoken')
  for (const [shop, { tid }] of devices.entries()) {
    const expected = acked.filter(order => order.shop === shop).map(({ id }) => announcementId('bank', id))
    t.same(fleet.spoken().filter(sound => sound.kind === 'payment' && sound.tid === tid).map(({ id }) => id), expected, `${tid} speaks in the order of the acknowledgements`)
  }
}

async function changesAreKnown (t: Test): Promise<void> {
  const { gateways: [one, two], bank, addBox } = scene
  await addBox('BOX-LATER')
  const fresh = { id: 'PAY-NEW-BOX', shop: BOXES }
  await eventually(() => pay(two, bank, fresh), isDone => isDone, 5000)
  await untilSpoken(fresh.id, scene.more[0])
  const rotated = await one.client.call('POST', '/banks/bank/rotate-key', { overlapSeconds: 3600 }) as unknown as BankSecrets
  const byNewKey = { id: 'PAY-NEW-KEY', shop: 0 }
  await eventually(() => pay(two, rotated, byNewKey), isDone => isDone, 5000)
  await untilSpoken(byNewKey.id)
  await one.client.call('POST', '/merchants/unmap', { bank: 'bank', merchant: `shop${BOXES}@upi`, tid: 'BOX-LATER' })
  let n = 0
  await eventually(() => pay(two, bank, { id: `PAY-GONE-${n++}`, shop: BOXES }), isDone => !isDone, 5000)
  t.ok(n <= 20, 'a mapping that was taken away is gone at the other, too')
}

async function endsAndIsFollowed (t: Test): Promise<void> {
  const { gateways } = scene
  for (const { signal, limitMs } of [{ signal: 'SIGTERM', limitMs: DEAD_AFTER_MS / 2 }, { signal: 'SIGKILL', limitMs: DEAD_AFTER_MS + 2 * HEARTBEAT_MS }] as const) {
    await gateways[1].end(signal)
    const orders = await payAll(t, gateways[0], signal)
    const waits = await Promise.all(orders.map(({ id }) => untilSpoken(id)))
    t.ok(Math.max(...waits) < limitMs, `${signal}: the last is spoken after ${Math.max(...waits)} ms`)
    await scene.start(1)
    for (const { id } of await payAll(t, gateways[1], `AFTER-${signal}`)) await untilSpoken(id)
  }
}

async function databaseGoes (t: Test): Promise<void> {
  const { gateways, postgres, fleet } = scene
  await settled(gateways[0])
  await postgres.kill()
  const orders = [...await payAll(t, gateways[0], 'AWAY-ONE'), ...await payAll(t, gateways[1], 'AWAY-TWO')]
  const both = { id: 'AWAY-BOTH', shop: 1 }
  t.same(await Promise.all(gateways.map(gateway => pay(gateway, scene.bank, both))), [true, true], 'one transaction, two gateways that cannot ask each other')
  orders.push(both)
  t.same(await Promise.all(gateways.map(gateway => pay(gateway, scene.bank, { id: 'AWAY-STRANGER', shop: 999 }))), [false, false], 'no success for a shop that is not known')
  for (const { id } of orders) await untilSpoken(id, fleet, 60_000)
  await postgres.start()
  await eventually(async () => (await settled(gateways[0])).filter(row => row.transactionId.startsWith('AWAY-')).length, count => count === orders.length, 60_000)
  const rows = (await settled(gateways[1])).filter(row => row.transactionId.startsWith('AWAY-'))
  t.same(rows.flatMap(row => row.deliveries.map(({ state }) => state)).filter(state => state !== 'spoken'), [])
  t.equal(fleet.report().doubles, 0, 'nothing is spoken twice')
  for (const { id } of [...await payAll(t, gateways[0], 'AGAIN-ONE'), ...await payAll(t, gateways[1], 'AGAIN-TWO')]) await untilSpoken(id)
}

async function comesBackAlone (t: Test): Promise<void> {
  const { gateways, fleet, devices } = scene
  const { connects } = fleet.report()
  await Promise.all(gateways.map(gateway => gateway.end('SIGTERM')))
  await scene.start(0)
  for (const { id } of await payAll(t, gateways[0], 'LAST')) await untilSpoken(id)
  t.equal(fleet.report().connects, connects)
  t.equal(fleet.report().doubles, 0)
  t.equal(connects, devices.length)
}
