// The gateway is killed between a 0200 and its 0210, again and again; the switch repeats what was not answered. One row, one voice.
// And a whole simulated switch with its faults against a gateway: every answer as it must be, and history agrees with what was heard.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startFleet } from '../../firmware-sim/fleet.js'
import { runIsoSim } from '../../firmware-sim/iso/iso-sim.js'
import { makeTimers } from '../../protocol/index.js'
import { compileFraming, compileShippedSpec } from '../../protocol/iso8583/index.js'
import { fleetKeys, type GatewayProcess, provision, startGatewayProcess } from '../support/gateway-process.js'
import { connectSwitch, purchase, type RawSwitch } from '../support/raw-switch.js'
import { openRandom, seedsOf } from '../support/random.js'
import { eventually, type HistoryRow, startRig, tempDir } from '../support/rig.js'

const KILLS = 3
const PURCHASES = 25

t.test('kill -9 between 0200 and 0210, then the repeat: one row, one voice', async t => {
  for (const seed of seedsOf(1)) {
    const rand = openRandom(seed)
    const dir = tempDir(t)
    writeFileSync(join(dir, 'peers.json'), JSON.stringify({ peers: [{ name: 'switch-a', bank: 'bank', addresses: ['127.0.0.1'] }] }))
    const start = (ports?: { http: number, mqtt: number }): Promise<GatewayProcess> =>
      startGatewayProcess(dir, { env: { SOUNDBOX_ISO_PEERS_FILE: join(dir, 'peers.json') }, ...(ports === undefined ? {} : { ports }) })
    let gateway = await start()
    t.teardown(() => gateway.end('SIGKILL'))
    const { devices } = await provision(gateway.client, 1)
    const ports = { http: Number(new URL(gateway.url).port), mqtt: gateway.mqttPort }
    const fleet = startFleet({ url: `mqtt://127.0.0.1:${ports.mqtt}`, devices: devices.map(fleetKeys), seed, nowMs: Date.now, backoff: { baseMs: 20, maxMs: 100 } })
    t.teardown(() => fleet.close())
    const answered = new Set<string>()
    let cutOff = 0
    for (let round = 0; round < KILLS; round++) {
      await fleet.whenUp(60_000)
      const heardBefore = fleet.spoken().length
      const raw = await signedOn(t, dir)
      const isSwallowed = round % 2 === 1 // Its answers are lost on the way: recorded, heard in the shop, and unknown to the switch.
      if (!isSwallowed) raw.socket.on('data', () => { for (const { mti, fields } of raw.got) if (mti === '0210' && fields['39'] === '00') answered.add(fields['11'] ?? '') })
      const sent = Array.from({ length: 5 + Math.floor(rand() * PURCHASES) }, (_, index) => purchase(round * 100 + index + 1, { 42: 'SHOP0@UPI      ' }))
      for (const message of sent) raw.send(message)
      if (isSwallowed) await eventually(() => fleet.spoken().length, length => length > heardBefore)
      else await sleep(rand() * 4)
      await gateway.end('SIGKILL')
      await raw.closed
      gateway = await start(ports)
      const again = await signedOn(t, dir)
      for (const message of sent) {
        const isAnswered = answered.has(message.fields['11'] ?? '')
        if (!isAnswered) cutOff++
        if (!isAnswered || rand() < 0.5) t.match(await again.ask({ ...message, mti: '0201' }), { mti: '0210', fields: { 39: '00' } }, `SEED=${seed} round ${round}`)
      }
    }
    const rows = await eventually(async () => (await gateway.client.call('GET', '/history?limit=500'))['payments'] as HistoryRow[], found => found.every(row => row.deliveries[0]?.state === 'spoken'))
    const names = new Set(rows.map(row => row.transactionId.split('-')[1]))
    t.equal(names.size, rows.length, `SEED=${seed}: one row each`)
    for (const trace of answered) t.ok(names.has(trace), `SEED=${seed}: what was answered is in history`)
    t.ok(cutOff > 0, `SEED=${seed}: ${cutOff} of ${rows.length} were cut off before their answer`)
    t.equal(fleet.report().doubles, 0, `SEED=${seed}: one voice each`)
    t.same(fleet.spoken().map(({ id }) => id).sort(), rows.map(row => row.deliveries[0]?.announcementId).sort(), `SEED=${seed}: history and shop agree`)
  }
})

async function signedOn (t: { teardown: (callback: () => unknown) => void }, dir: string): Promise<RawSwitch> {
  const { iso } = JSON.parse(readFileSync(join(dir, 'gateway.json'), 'utf8')) as { iso: number }
  const raw = await connectSwitch(t, { port: iso })
  await raw.signOn()
  return raw
}

t.test('a switch with faults gets every answer as it must be, and the shop hears each payment once', async t => {
  const dir = tempDir(t)
  writeFileSync(join(dir, 'peers.json'), JSON.stringify({ peers: [{ name: 'switch-a', bank: 'bank', addresses: ['127.0.0.1'], merchants: ['sim-shop'] }] }))
  const rig = await startRig(t, { dir, env: { SOUNDBOX_ISO_PEERS_FILE: join(dir, 'peers.json') } })
  await rig.addBank()
  const box = await rig.connect(await rig.addBox('SB-0001', { merchant: 'sim-shop' }))
  for (const seed of seedsOf(1)) {
    const report = await runIsoSim({
      host: '127.0.0.1', port: rig.gateway().ports.iso ?? 0, tls: null, spec: compileShippedSpec('1987-ascii'), framing: compileFraming(), rate: 150, connections: 2, seconds: 2, seed,
      faults: true, merchant: 'SIM-SHOP', terminal: 'SIMTERM1', stranger: 'NO-SUCH-SHOP', account: '0150245000100', answerMs: 60_000, slowMs: 100, onParseError: 'close',
      makeRandom: openRandom, timers: makeTimers(() => performance.now()), nowMs: Date.now
    })
    t.match(report, { ok: true, wrong: 0, missing: 0, unexpected: 0, lost: 0 }, `SEED=${seed} ${JSON.stringify(report.differences)}`)
    t.ok(Object.keys(report.byKind).length >= 12, `SEED=${seed}: ${Object.keys(report.byKind).join(', ')}`)
    const rows = await allHistory(rig.history)
    const open = ['accepted', 'published', 'delivered']
    await eventually(() => allHistory(rig.history), found => found.every(row => row.deliveries.every(delivery => !open.includes(delivery.state))))
    t.equal(new Set(rows.map(row => row.transactionId)).size, rows.length)
    t.equal(new Set(box.spoken.map(said => said.id)).size, box.spoken.length, `SEED=${seed}: one voice each`)
    const toBeHeard = rows.filter(row => row.reversedAt === null).length
    t.ok(toBeHeard > 50 && box.spoken.length >= toBeHeard, `SEED=${seed}: ${box.spoken.length} spoken, ${toBeHeard} stand`)
    const silent = rows.filter(row => row.deliveries.length === 0)
    t.equal(silent.length, report.byKind['early reversal'], `SEED=${seed}: reversed before they came, never given to a box`)
  }
})

async function allHistory (page: (query?: string) => Promise<HistoryRow[]>): Promise<HistoryRow[]> {
  return await page('limit=500')
}
