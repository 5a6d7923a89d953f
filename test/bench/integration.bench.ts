// What the policy, the audit trail and the mapping cost on top of bare undici: the same requests to the same server, in one run, round by
// round in turn, medians. The server is a process of its own. Audit rows are masked, chained and appended to a store in memory; a disk
// is not measured here (rows are written behind the calls). Goal: overhead below 25 percent.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import { Pool } from 'undici'
import { openAudit } from '../../gateway/integration/audit.js'
import { parseIntegrationConfig } from '../../gateway/integration/config.js'
import { openClock } from '../../gateway/integration/figures.js'
import { httpTransport } from '../../gateway/integration/http-transport.js'
import { openPolicy } from '../../gateway/integration/policy.js'
import { openServices } from '../../gateway/integration/services.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { TOY } from '../support/integration-world.js'

const ROUNDS = 9
const CALLS = 1500
const AT_ONCE = 8
const OVERHEAD_GOAL = 0.25
const ACCOUNT = '0150245000100'
const SERVER = `
import { createServer } from 'node:http'
const answer = JSON.stringify({ code: 600, message: 'Success', balance: '152000.00', body: { custAcNo: '${ACCOUNT}', branchName: 'SAMORA', currency: 'TZS', firstName: 'ASHA', lastName: 'JUMA' } })
const server = createServer((request, response) => {
  request.resume()
  request.on('end', () => { response.writeHead(200, { 'content-type': 'application/json', 'content-length': answer.length }); response.end(answer) })
})
server.keepAliveTimeout = 60000
server.listen(0, '127.0.0.1', () => { process.stdout.write(server.address().port + '\\n') })
`

/** Measures and prints one line. */
export async function run (): Promise<void> {
  const server = spawn(process.execPath, ['--input-type=module', '-e', SERVER], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const [port] = await once(server.stdout, 'data') as [Buffer]
    await measure(`http://127.0.0.1:${Number(port)}`)
  } finally {
    await stop(server)
  }
}

async function measure (url: string): Promise<void> {
  const bare = openBare(url)
  const ours = await openOurs(url)
  const times = { bare: [] as number[], ours: [] as number[] }
  for (let round = 0; round <= ROUNDS; round++) {
    const bareMs = await timeOf(bare.call)
    const oursMs = await timeOf(ours.call)
    if (round === 0) continue // Warm-up.
    times.bare.push(bareMs)
    times.ours.push(oursMs)
  }
  const rows = await ours.close()
  await bare.close()
  if (rows !== (ROUNDS + 1) * CALLS) throw new Error(`${rows} audit rows of ${(ROUNDS + 1) * CALLS}`)
  const [bareMs, oursMs] = [median(times.bare), median(times.ours)]
  const overhead = oursMs / bareMs - 1
  console.log(`integration client ${perSecond(oursMs)} calls/s, bare undici ${perSecond(bareMs)} calls/s, ratio ${(bareMs / oursMs).toFixed(2)}, overhead ${(overhead * 100).toFixed(0)} %` +
    `${overhead > OVERHEAD_GOAL ? ` (above the goal of ${OVERHEAD_GOAL * 100} %)` : ''}`)
}

function openBare (url: string): { call: () => Promise<unknown>, close: () => Promise<void> } {
  const pool = new Pool(url, { connections: AT_ONCE, pipelining: 1 })
  return {
    async call () {
      const { statusCode, body } = await pool.request({
        path: '/balance', method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json' }, body: JSON.stringify({ account: ACCOUNT, pin: 'pin-43', note: 'note' })
      })
      if (statusCode !== 200) throw new Error(`HTTP ${statusCode}`)
      return await body.json()
    },
    close: async () => { await pool.close() }
  }
}

async function openOurs (url: string): Promise<{ call: () => Promise<unknown>, close: () => Promise<number> }> {
  const clock = openClock(Date.now)
  const { cbs: config } = parseIntegrationConfig({ CBS_API_URL: url, CBS_API_CONCURRENCY_MAX: String(AT_ONCE) }, () => '')
  let rows = 0
  const audit = await openAudit({ store: { append: async batch => { rows += batch.length }, last: async () => undefined, page: async () => [] }, key: Buffer.alloc(32, 1), clock, log: SILENT_LOG })
  const policy = openPolicy({ issuer: 'cbs', limits: config.limits, clock, random: Math.random, audit, log: SILENT_LOG })
  let references = 0
  const makeReference = (): string => `r${++references}`
  const makeTraceId = (): string => 'a'.repeat(32)
  const transport = httpTransport(TOY, config, { run: policy.run, clock, nonce: makeReference, log: SILENT_LOG, makeTraceId, makeReference })
  const ledger = { once: async () => { throw new Error('nothing is changed here') }, settleDue: async () => 0 }
  const services = openServices({ transports: { cbs: transport }, ledger, audit, clock, log: SILENT_LOG, makeTraceId, makeReference })
  const client = services.forBackground('bench')
  return {
    call: async () => await client.call('account_balance_cbs', { account_no: ACCOUNT }),
    async close () {
      await services.close()
      await audit.close()
      return rows
    }
  }
}

async function timeOf (call: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  let left = CALLS
  const worker = async (): Promise<void> => { while (left-- > 0) await call() }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return performance.now() - start
}

function median (values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}

function perSecond (ms: number): number {
  return Math.round(CALLS / ms * 1000)
}

async function stop (child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill()
  await ended
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await run()
