// Several gateways as one: PostgreSQL, Mosquitto, two gateway processes, a simulated fleet. Payments alternate between the gateways,
// duplicates go to both at once, one gateway is killed in the middle and another takes its place. Nothing acknowledged is lost, nothing
// is spoken twice, and each shop hears its payments in the order in which they were acknowledged.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { startFleet } from '../../firmware-sim/fleet.js'
import { postTrigger, prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets, DeviceSecrets } from '../../gateway/store/directory.js'
import { announcementId } from '../../protocol/index.js'
import { fleetKeys, type GatewayProcess, provision, startGatewayProcess } from '../support/gateway-process.js'
import { findPostgres, startPostgres } from '../support/postgres-server.js'
import { eventually, tempDir } from '../support/rig.js'

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

async function freePort (): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => { server.close(resolve) })
  return port
}

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

async function settled (gateway: GatewayProcess): Promise<HistoryRow[]> {
  const isOpen = ({ deliveries }: HistoryRow): boolean => deliveries.some(({ state }) => ['accepted', 'published', 'delivered'].includes(state))
  let rows: HistoryRow[] = []
  await eventually(async () => {
    rows = (await gateway.client.call('GET', '/history?limit=500'))['payments'] as HistoryRow[]
    return rows.filter(isOpen)
  }, open => open.length === 0, 60_000)
  return rows
}

t.setTimeout(240_000)
t.test('two gateways, one killed and replaced: all acknowledged payments in history once, spoken once, in order', { skip: SKIP }, async t => {
  const [postgres, mqttPort] = [await startPostgres(POSTGRES ?? ''), await freePort()]
  t.teardown(postgres.remove)
  await postgres.createDatabase('soundbox')
  const mosquitto = openMosquitto(t, mqttPort)
  await mosquitto.admit([])
  const [one, two] = [tempDir(t), tempDir(t)]
  const keyFile = join(one, 'shared.key')
  writeFileSync(keyFile, randomBytes(32).toString('base64'), { mode: 0o600 })
  const env = {
    SOUNDBOX_STORE: postgres.url('soundbox'), SOUNDBOX_BROKER: `mqtt://gateway:secret@127.0.0.1:${mqttPort}`, SOUNDBOX_MASTER_KEY_FILE: keyFile, SOUNDBOX_SPOOL_BYTES: '2097152'
  }
  const gateways: GatewayProcess[] = []
  t.teardown(() => Promise.all(gateways.map(gateway => gateway.end('SIGKILL'))))
  for (const dir of [one, two]) gateways.push(await startGatewayProcess(dir, { env }))
  const { bank, devices } = await provision((gateways[0] as GatewayProcess).client, BOXES)
  await mosquitto.admit(devices)
  await eventually(async () => (await gateways[1]?.client.call('GET', `/devices/BOX-0000${BOXES - 1}`).catch(() => undefined)) !== undefined, isThere => isThere)
  const fleet = startFleet({ url: `mqtt://127.0.0.1:${mqttPort}`, devices: devices.map(fleetKeys), seed: 1, nowMs: Date.now, speakMs: [1, 20], backoff: { baseMs: 50, maxMs: 300 } })
  t.teardown(() => fleet.close())
  await fleet.whenUp(60_000)

  const acked: Acked[] = []
  let unanswered = 0
  let next = 0
  const worker = async (shop: number): Promise<void> => {
    for (let n = 0; n < PAYMENTS / BOXES; n++) {
      const order = { id: `PAY-${shop}-${n}`, shop }
      let isAcked = false
      for (let attempt = 0; attempt < 400 && !isAcked; attempt++) {
        const first = gateways[next++ % 2] as GatewayProcess
        const both = n % 4 === 0 ? gateways : [first]
        const answers = await Promise.all(both.map(gateway => pay(gateway, bank, order)))
        isAcked = answers.includes(true)
        if (answers.includes(false)) unanswered++
        if (!isAcked) await sleep(20)
      }
      acked.push(order)
    }
  }
  const killer = async (): Promise<void> => {
    while (acked.length < KILL_AFTER) await sleep(1)
    await gateways[1]?.end('SIGKILL')
    while (acked.length < 2 * KILL_AFTER) await sleep(1)
    gateways[1] = await startGatewayProcess(two, { env })
  }
  await Promise.all([killer(), ...Array.from({ length: BOXES }, (_, shop) => worker(shop))])
  t.ok(unanswered > 0, 'some requests were cut off and sent again')
  const rows = await settled(gateways[0] as GatewayProcess)
  t.same(rows.map(row => row.transactionId).sort(), acked.map(({ id }) => id).sort(), 'history holds what was acknowledged, once')
  t.equal(fleet.report().doubles, 0, 'nothing is spoken twice')
  const states = rows.map(row => row.deliveries[0]?.state)
  t.same(states.filter(state => state !== 'spoken'), [], 'all spoken')
  const spoken = fleet.spoken().filter(sound => sound.kind === 'payment')
  for (const [shop, { tid }] of devices.entries()) {
    const expected = acked.filter(order => order.shop === shop).map(({ id }) => announcementId('bank', id))
    t.same(spoken.filter(sound => sound.tid === tid).map(({ id }) => id), expected, `${tid} speaks in the order of the acknowledgements`)
  }

  // One alone, started anew: the boxes stay connected and do not say hello.
  const connects = fleet.report().connects
  await Promise.all(gateways.map(gateway => gateway.end('SIGTERM')))
  gateways[0] = await startGatewayProcess(one, { env })
  t.ok(await pay(gateways[0], bank, { id: 'PAY-LAST', shop: 3 }))
  await eventually(() => fleet.spoken().some(({ id }) => id === announcementId('bank', 'PAY-LAST')), isSpoken => isSpoken, 20_000)
  t.equal(fleet.report().connects, connects)
})
