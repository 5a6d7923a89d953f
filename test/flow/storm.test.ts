// A thousand boxes that come back at once while payments keep coming, and one box that stops reading.
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { startFleet } from '../../firmware-sim/fleet.js'
import { postTrigger, prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets, DeviceSecrets } from '../../gateway/store/directory.js'
import { fleetKeys, provision, startGatewayProcess } from '../support/gateway-process.js'
import { eventually, tempDir } from '../support/rig.js'

const BOXES = 1000
const PAYMENTS = 1500

t.test('a reconnect storm loses nothing, reorders nothing and leaves nobody stuck', async t => {
  const gateway = await startGatewayProcess(tempDir(t))
  t.teardown(() => gateway.end('SIGTERM'))
  const { bank, devices } = await provision(gateway.client, BOXES)
  const options = { url: `mqtt://127.0.0.1:${gateway.mqttPort}`, devices: devices.map(fleetKeys), nowMs: Date.now, connectsPerSecond: 0, backoff: { baseMs: 20, maxMs: 200 } }
  const fleet = startFleet({ ...options, seed: 1 })
  t.teardown(() => fleet.close())
  await fleet.whenUp(120_000)
  let sent = 0
  const pay = async (): Promise<void> => {
    for (let n = sent++; n < PAYMENTS; n = sent++) t.equal(await payOnce(gateway.url, bank, `S-${n}`, n % BOXES), 200)
  }
  const storm = async (): Promise<void> => {
    await sleep(50)
    for (const box of fleet.boxes) box.cut()
  }
  await Promise.all([storm(), ...Array.from({ length: 10 }, pay)])
  await fleet.whenUp(120_000)
  await eventually(() => fleet.report(), report => report.spoken >= PAYMENTS, 120_000)
  const report = fleet.report()
  t.equal(report.doubles, 0)
  t.equal(report.outOfOrder, 0)
  t.ok(report.connects >= 2 * BOXES, 'every box came back')
  const status = await gateway.client.call('GET', '/status')
  t.match(status, { pump: { waiting: 0 } })
})

t.test('a box that stops reading moves nobody else', async t => {
  const gateway = await startGatewayProcess(tempDir(t))
  t.teardown(() => gateway.end('SIGTERM'))
  const { bank, devices } = await provision(gateway.client, 20)
  const [deaf, ...others] = devices as [DeviceSecrets, ...DeviceSecrets[]]
  const fleet = startFleet({ url: `mqtt://127.0.0.1:${gateway.mqttPort}`, devices: others.map(fleetKeys), seed: 1, nowMs: Date.now })
  t.teardown(() => fleet.close())
  await fleet.whenUp(60_000)
  const quiet = await round(gateway.url, bank, 'A', 200)
  const deafFleet = startFleet({ url: `mqtt://127.0.0.1:${gateway.mqttPort}`, devices: [fleetKeys(deaf)], seed: 2, nowMs: Date.now })
  t.teardown(() => deafFleet.close())
  await deafFleet.whenUp(60_000)
  deafFleet.boxes[0]?.pauseReading()
  for (let n = 0; n < 300; n++) t.equal(await payOnce(gateway.url, bank, `DEAF-${n}`, 0), 200)
  const beside = await round(gateway.url, bank, 'B', 200)
  await eventually(() => fleet.report(), report => report.spoken >= 400)
  t.ok(beside < Math.max(quiet * 5, 250), `p99 of the answers stays: ${quiet} ms without, ${beside} ms with the box that does not read`)
})

async function round (url: string, bank: BankSecrets, name: string, count: number): Promise<number> {
  const times: number[] = []
  for (let n = 0; n < count; n++) {
    const startedAt = performance.now()
    await payOnce(url, bank, `${name}-${n}`, 1 + n % 19)
    times.push(performance.now() - startedAt)
  }
  return Math.round(times.sort((a, b) => a - b)[Math.floor(count * 0.99)] ?? 0)
}

async function payOnce (url: string, bank: BankSecrets, id: string, shop: number): Promise<number> {
  const columns = { column1: id, column2: `shop${shop}@upi`, column8: '19.00', column12: 'UPI', column15: 'success' }
  return (await postTrigger(prepareTrigger({ url, bank, columns, nowMs: Date.now() }), bank, Date.now, 60_000)).httpStatus
}
