// The gateway is killed between a 0200 and its 0210, again and again; the switch repeats what was not answered. One row, one voice.
// And a whole simulated switch with its faults against a gateway: every answer as it must be, and history agrees with what was heard.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { runIsoSim } from '../../firmware-sim/iso/iso-sim.js'
import { makeTimers } from '../../protocol/index.js'
import { compileFraming, compileShippedSpec } from '../../protocol/iso8583/index.js'
import { askPatiently, connectVoice, provision, startGatewayProcess } from '../support/iso-world.js'
import { connectSwitch, purchase } from '../support/raw-switch.js'
import { openRandom, seedsOf } from '../support/random.js'
import { eventually, type HistoryRow, startRig, tempDir } from '../support/rig.js'

const MERCHANT = 'merchant0000001'
const KILLS = 3
const PURCHASES = 25

t.test('kill -9 between 0200 and 0210, then the repeat: one row, one voice', async t => {
  for (const seed of seedsOf(1)) {
    const rand = openRandom(seed)
    const dir = tempDir(t)
    const journal = new Set<string>()
    const answered = new Set<string>()
    const sounds: string[] = []
    let gateway = await startGatewayProcess(t, dir)
    const secrets = await provision(dir, MERCHANT)
    for (let round = 0; round < KILLS; round++) {
      const voice = await connectVoice(gateway.ports.mqtt, secrets, journal)
      const raw = await connectSwitch(t, { port: gateway.ports.iso })
      await raw.signOn()
      const isSwallowed = round % 2 === 1 // Its answers are lost on the way: recorded, heard in the shop, and unknown to the switch.
      if (!isSwallowed) raw.socket.on('data', () => { for (const { mti, fields } of raw.got) if (mti === '0210' && fields['39'] === '00') answered.add(fields['11'] ?? '') })
      const fatal = 1 + Math.floor(rand() * PURCHASES)
      const delayMs = rand() * 4
      for (let n = 1; n <= fatal; n++) raw.send(purchase(round * 100 + n))
      if (isSwallowed) await eventually(() => voice.sounds.length, length => length > 0)
      else await sleep(delayMs)
      await gateway.kill('SIGKILL')
      sounds.push(...voice.sounds)
      voice.client.end(true)
      await raw.closed
      gateway = await startGatewayProcess(t, dir)
      const again = await connectSwitch(t, { port: gateway.ports.iso })
      await again.signOn()
      const back = await connectVoice(gateway.ports.mqtt, secrets, journal)
      for (let n = 1; n <= fatal; n++) {
        const message = purchase(round * 100 + n, {}, '0201')
        if (answered.has(message.fields['11'] ?? '') && rand() < 0.5) continue
        t.match(await again.ask(message), { mti: '0210', fields: { 39: '00' } }, `SEED=${seed} round ${round}`)
      }
      const rows = await eventually(() => openHistory(dir), found => found.every(row => row.deliveries[0]?.state === 'spoken'))
      sounds.push(...back.sounds)
      back.client.end(true)
      const names = rows.map(row => row.transactionId)
      t.equal(new Set(names).size, names.length, `SEED=${seed}: one row each`)
      for (const trace of answered) t.ok(names.some(name => name.split('-')[1] === trace), `SEED=${seed}: what was answered is in history`)
      t.same(sounds.length, new Set(sounds).size, `SEED=${seed}: one voice each`)
      t.same([...sounds].sort(), rows.map(row => row.deliveries[0]?.announcementId).sort(), `SEED=${seed}: history and shop agree`)
    }
    await gateway.kill('SIGTERM')
  }
})

async function openHistory (dir: string): Promise<HistoryRow[]> {
  return (await askPatiently(dir, 'GET', '/history?limit=500'))['payments'] as HistoryRow[]
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
