// The gateway is killed with SIGKILL at random moments under load and started again; the bank retries what was not acknowledged, the
// soundboxes keep their journals. Nothing acknowledged is lost, nothing is spoken twice, and the history agrees with the boxes.
//
// The moments cover the labelled points of the path: the load runs on all of them at once (before record, recorded, sent, before the
// answer, before and after `received`, before and after the final), and `after the record, before the answer` is aimed at on purpose:
// every payment whose answer never came is one of those or earlier, and the test wants some of them.
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { startFleet } from '../../firmware-sim/fleet.js'
import { postTrigger, prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets } from '../../gateway/store/directory.js'
import { fleetKeys, type GatewayProcess, provision, startGatewayProcess } from '../support/gateway-process.js'
import { openRandom, seedsOf } from '../support/random.js'
import { tempDir } from '../support/rig.js'

const BOXES = 8
const PAYMENTS = 240
const KILLS = 3
const WORKERS = 8

type HistoryRow = { transactionId: string, deliveries: { tid: string, state: string }[] }

for (const seed of seedsOf(1)) {
  t.test(`killed ${KILLS} times under load: 0 acknowledged lost, 0 spoken twice (SEED=${seed})`, async t => {
    const random = openRandom(seed)
    const dir = tempDir(t)
    let gateway = await startGatewayProcess(dir)
    t.teardown(() => gateway.end('SIGKILL'))
    const { bank, devices } = await provision(gateway.client, BOXES)
    const ports = { http: Number(new URL(gateway.url).port), mqtt: gateway.mqttPort }
    const fleet = startFleet({ url: `mqtt://127.0.0.1:${ports.mqtt}`, devices: devices.map(fleetKeys), seed, nowMs: Date.now, speakMs: [1, 30], backoff: { baseMs: 50, maxMs: 200 } })
    t.teardown(() => fleet.close())
    await fleet.whenUp(60_000)

    const acknowledged = new Set<string>()
    let unanswered = 0
    let nextPayment = 0
    const worker = async (): Promise<void> => {
      for (let n = nextPayment++; n < PAYMENTS; n = nextPayment++) {
        const id = `PAY-${n}`
        for (let attempt = 0; attempt < 400 && !acknowledged.has(id); attempt++) {
          if (await payOnce(gateway.url, bank, id, n)) acknowledged.add(id)
          else {
            unanswered++
            await sleep(25)
          }
        }
      }
    }
    const killer = async (): Promise<void> => {
      for (let kill = 0; kill < KILLS; kill++) {
        const goal = Math.floor((kill + 0.2 + 0.6 * random()) * PAYMENTS / KILLS)
        while (acknowledged.size < goal) await sleep(1)
        await sleep(Math.floor(random() * 8))
        await gateway.end('SIGKILL')
        gateway = await startGatewayProcess(dir, { ports })
      }
    }
    await Promise.all([killer(), ...Array.from({ length: WORKERS }, worker)])
    t.equal(acknowledged.size, PAYMENTS, 'every payment was acknowledged in the end')
    t.ok(unanswered > 0, 'some requests were cut off and sent again')
    const rows = await settled(gateway)
    t.same(new Set(rows.map(row => row.transactionId)), acknowledged, 'history holds what was acknowledged, once')
    t.equal(rows.length, PAYMENTS)
    const report = fleet.report()
    t.equal(report.doubles, 0, 'nothing is spoken twice')
    const said = new Set(fleet.spoken().filter(sound => sound.kind === 'payment').map(sound => sound.id))
    const spokenRows = rows.flatMap(row => row.deliveries).filter(delivery => delivery.state === 'spoken')
    t.ok(spokenRows.length <= said.size, 'history calls spoken only what was')
    t.ok(rows.every(row => ['spoken', 'summarised', 'duplicate'].includes(row.deliveries[0]?.state ?? '')), 'every payment reached the shop')
  })
}

async function payOnce (url: string, bank: BankSecrets, id: string, n: number): Promise<boolean> {
  const columns = { column1: id, column2: `shop${n % BOXES}@upi`, column8: `${1 + n}.00`, column12: 'UPI', column15: 'success' }
  try {
    const reply = await postTrigger(prepareTrigger({ url, bank, columns, nowMs: Date.now() }), bank, Date.now, 20_000)
    return reply.httpStatus === 200
  } catch {
    return false
  }
}

async function settled (gateway: GatewayProcess): Promise<HistoryRow[]> {
  for (let waited = 0; ; waited += 100) {
    const { payments } = await gateway.client.call('GET', '/history?limit=500')
    const rows = payments as HistoryRow[]
    const open = rows.filter(row => row.deliveries.some(delivery => ['accepted', 'published', 'delivered'].includes(delivery.state)))
    if (open.length === 0) return rows
    if (waited > 60_000) throw new Error(`not settled: ${JSON.stringify(open.slice(0, 5))}`)
    await sleep(100)
  }
}
