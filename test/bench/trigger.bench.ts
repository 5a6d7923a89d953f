// The trigger path, as a whole.
//   (a) triggers/s over HTTP with durable history and subscribed soundboxes, against a bare Fastify POST of the same sizes, in one run:
//       the same load generator (autocannon, 50 connections) drives one after the other, several rounds, medians.
//   (b) from the bank's request to the soundbox's socket, at 300 triggers/s with 1,000 soundboxes connected.
// PROFILE_DIR=folder leaves CPU profiles of the gateway there.
// The gateway and the bare server are processes of their own; load and simulated soundboxes share this one.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import autocannon from 'autocannon'
import { startFleet } from '../../firmware-sim/fleet.js'
import { type PreparedTrigger, prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets } from '../../gateway/store/directory.js'
import { fleetKeys, type GatewayProcess, provision, startGatewayProcess } from '../support/gateway-process.js'

const CONNECTIONS = 50
const ROUND_SECONDS = 5
const ROUNDS = 3
const BOXES_A = 50
const BOXES_B = 1000
const RATE_B = 300
const SECONDS_B = 10
const PREPARED_MAX = 60_000
const BARE = `
import Fastify from 'fastify'
const app = Fastify({ logger: false })
const answer = { ResponseData: 'A'.repeat(Number(process.argv[1])) }
app.post('/bare', { schema: { body: { type: 'object', required: ['RequestData'], properties: { RequestData: { type: 'string' } } } } }, async () => answer)
await app.listen({ host: '127.0.0.1', port: 0 })
process.stdout.write(String(app.server.address().port) + '\\n')
`

type Round = { perSecond: number, p99: number, non2xx: number }

/** Measures and prints one line for (a) and one for (b). */
export async function run (): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'soundbox-bench-'))
  const profile = process.env['PROFILE_DIR']
  const gateway = await startGatewayProcess(dir, profile === undefined ? {} : { nodeFlags: ['--cpu-prof', '--cpu-prof-interval', '250', `--cpu-prof-dir=${profile}`] })
  try {
    const { bank, devices } = await provision(gateway.client, BOXES_B)
    await benchThroughput(gateway, bank, devices.slice(0, BOXES_A).map(fleetKeys))
    await benchLatency(gateway, bank, devices.map(fleetKeys))
  } finally {
    await gateway.end('SIGTERM')
    rmSync(dir, { recursive: true, force: true })
  }
}

async function benchThroughput (gateway: GatewayProcess, bank: BankSecrets, keys: readonly ReturnType<typeof fleetKeys>[]): Promise<void> {
  const fleet = startFleet({ url: `mqtt://127.0.0.1:${gateway.mqttPort}`, devices: keys, seed: 1, nowMs: Date.now })
  await fleet.whenUp(60_000)
  const [sample] = prepare(bank, gateway.url, 1, 'sample')
  const bare = await startBare(540)
  const ours: Round[] = []
  const theirs: Round[] = []
  let [cpu, loadCpu] = [0, 0]
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(await drive(`http://127.0.0.1:${bare.port}`, Array.from({ length: 100 }, () => ({ url: '/bare', headers: sample?.headers ?? {}, body: sample?.body ?? '' }))))
    const due = prepare(bank, gateway.url, PREPARED_MAX, `r${round}`).map(one => ({ ...one, url: new URL(one.url).pathname }))
    const before = { gateway: await cpuSeconds(gateway.url), load: process.cpuUsage() }
    ours.push(await drive(gateway.url, due))
    cpu += await cpuSeconds(gateway.url) - before.gateway
    const { user, system } = process.cpuUsage(before.load)
    loadCpu += (user + system) / 1e6
    await sleep(1500)
  }
  bare.child.kill('SIGTERM')
  const report = fleet.report()
  await fleet.close()
  const [mine, base] = [median(ours.map(round => round.perSecond)), median(theirs.map(round => round.perSecond))]
  const p99 = median(ours.map(round => round.p99))
  const refused = ours.reduce((sum, round) => sum + round.non2xx, 0)
  const each = (seconds: number): string => (seconds / ours.reduce((sum, round) => sum + round.perSecond * ROUND_SECONDS, 0) * 1e6).toFixed(0)
  const end = `CPU a trigger: gateway, all threads, ${each(cpu)} us, load and boxes ${each(loadCpu)} us; refused ${refused}; spoken ${report.spoken}, doubles ${report.doubles}`
  console.log(`trigger to answer ${mine.toFixed(0)}/s p99 ${p99} ms; bare Fastify POST ${base.toFixed(0)}/s; ratio ${(mine / base).toFixed(2)}; ${end}`)
}

async function benchLatency (gateway: GatewayProcess, bank: BankSecrets, keys: readonly ReturnType<typeof fleetKeys>[]): Promise<void> {
  const fleet = startFleet({ url: `mqtt://127.0.0.1:${gateway.mqttPort}`, devices: keys, seed: 2, nowMs: () => performance.timeOrigin + performance.now() })
  await fleet.whenUp(120_000)
  await sleep(1000)
  const due = prepare(bank, gateway.url, RATE_B * SECONDS_B, 'b', keys.length)
  const startedAt = performance.now()
  const replies: Promise<number>[] = []
  for (const [index, one] of due.entries()) {
    const wait = startedAt + index * 1000 / RATE_B - performance.now()
    if (wait > 1) await sleep(wait)
    replies.push(fetch(one.url, { method: 'POST', headers: one.headers, body: one.body }).then(async response => { await response.arrayBuffer(); return response.status }))
  }
  const statuses = await Promise.all(replies)
  await sleep(1000)
  const { deliverMs, doubles } = fleet.report()
  await fleet.close()
  const bad = statuses.filter(status => status !== 200).length
  const times = `p50 ${deliverMs.p50.toFixed(1)} ms p99 ${deliverMs.p99.toFixed(1)} ms p99.9 ${deliverMs.p999.toFixed(1)} ms`
  console.log(`trigger to device socket, ${RATE_B}/s, ${keys.length} boxes: ${times}, ${deliverMs.count} delivered, refused ${bad}, doubles ${doubles}`)
}

/** Encrypted ahead of the measurement, so that the bank's cipher work is not the gateway's. Good for five minutes. */
function prepare (bank: BankSecrets, url: string, count: number, name: string, shops = BOXES_A): PreparedTrigger[] {
  return Array.from({ length: count }, (_, n) => prepareTrigger({
    url, bank, nowMs: Date.now(), columns: { column1: `${name}-${n}`, column2: `shop${n % shops}@upi`, column8: `${1 + n % 500}.00`, column12: 'UPI', column15: 'success' }
  }))
}

async function drive (url: string, requests: readonly PreparedTrigger[]): Promise<Round> {
  let next = 0
  const result = await autocannon({
    url, connections: CONNECTIONS, duration: ROUND_SECONDS,
    requests: [{
      method: 'POST',
      setupRequest (request) {
        const one = requests[next++ % requests.length]
        return { ...request, path: one?.url ?? '/', headers: one?.headers ?? {}, body: one?.body ?? '' }
      }
    }]
  })
  return { perSecond: result.requests.average, p99: result.latency.p99, non2xx: result.non2xx + result.errors }
}

/** What the gateway's process has used so far, all threads. */
async function cpuSeconds (url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(/^process_cpu_seconds_total (\S+)/m.exec(text)?.[1])
}

async function startBare (answerChars: number): Promise<{ child: ChildProcess, port: number }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', BARE, String(answerChars)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(child.stdout as NodeJS.ReadableStream, 'data') as [Buffer]
  return { child, port: Number(line.toString()) }
}

function median (values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await run()
