// What the client costs on top of bare undici: the same requests to the same server, in one run, many short rounds in turn.
// The quietest tenth of each one's rounds is compared: on a shared machine the others measure the neighbours.
//   client   uri_map, allow-list, deadline, bulkhead, retry, breaker, time-outs, decoding, masked and chained audit row: goal below 25 percent
//   service  the same with permission, contract checks on both sides and mapping
// The server is a process of its own. Audit rows go to a store in memory; a disk is not measured here (rows are written behind the calls).
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import { Pool } from 'undici'
import { openAudit } from '../../gateway/integration/audit.js'
import { parseIntegrationConfig } from '../../gateway/integration/config.js'
import { openClock } from '../../gateway/integration/figures.js'
import { openHttpClient } from '../../gateway/integration/http-client.js'
import { httpTargetFrom, httpTransport } from '../../gateway/integration/http-transport.js'
import { openPolicy } from '../../gateway/integration/policy.js'
import { openServices } from '../../gateway/integration/services.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { TOY } from '../support/integration-world.js'

const ROUNDS = 60
const CALLS = 300
const WARM_UP_ROUNDS = 10
const AT_ONCE = 8
const OVERHEAD_GOAL = 0.25
const REQUEST = { uriKey: 'balance', format: 'json', body: { account: '0150245000100', pin: 'pin-43', note: 'note' } } as const
const ACCOUNT = '0150245000100'
const SERVER = `
import { createServer } from 'node:http'
const answer = JSON.stringify({ code: 600, message: 'Success', balance: '152000.00',
  body: { custAcNo: '${ACCOUNT}', branchName: 'SAMORA', currency: 'TZS', firstName: 'ASHA', lastName: 'JUMA' } })
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
  const times = { bare: [] as number[], client: [] as number[], service: [] as number[] }
  for (let round = 0; round < ROUNDS + WARM_UP_ROUNDS; round++) {
    const [bareMs, clientMs, serviceMs] = [await timeOf(bare.call), await timeOf(ours.client), await timeOf(ours.service)]
    if (round < WARM_UP_ROUNDS) continue
    times.bare.push(bareMs)
    times.client.push(clientMs)
    times.service.push(serviceMs)
  }
  const rows = await ours.close()
  await bare.close()
  const rowsMin = 2 * (ROUNDS + WARM_UP_ROUNDS) * CALLS
  if (rows < rowsMin) throw new Error(`${rows} audit rows of ${rowsMin}`)
  const bareMs = quiet(times.bare)
  for (const name of ['client', 'service'] as const) {
    const ms = quiet(times[name])
    const overhead = ms / bareMs - 1
    const note = name === 'client' && overhead > OVERHEAD_GOAL ? ` (above the goal of ${OVERHEAD_GOAL * 100} %)` : ''
    console.log(`integration ${name} ${perSecond(ms)} calls/s, bare undici ${perSecond(bareMs)} calls/s, ratio ${(bareMs / ms).toFixed(2)}, overhead ${(overhead * 100).toFixed(0)} %${note}`)
  }
}

function openBare (url: string): { call: () => Promise<unknown>, close: () => Promise<void> } {
  const pool = new Pool(url, { connections: AT_ONCE, pipelining: 1 })
  return {
    async call () {
      const { statusCode, body } = await pool.request({
        path: '/balance', method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json' }, body: JSON.stringify(REQUEST.body)
      })
      if (statusCode !== 200) throw new Error(`HTTP ${statusCode}`)
      return await body.json()
    },
    close: async () => { await pool.close() }
  }
}

async function openOurs (url: string): Promise<{ client: () => Promise<unknown>, service: () => Promise<unknown>, close: () => Promise<number> }> {
  const clock = openClock(Date.now)
  const { cbs: config } = parseIntegrationConfig({ CBS_API_URL: url, CBS_API_CONCURRENCY_MAX: String(AT_ONCE) }, () => '')
  let rows = 0
  const audit = await openAudit({ store: { append: async batch => { rows += batch.length }, last: async () => undefined, page: async () => [] }, key: Buffer.alloc(32, 1),
    clock, log: SILENT_LOG })
  const policy = openPolicy({ issuer: 'cbs', limits: config.limits, clock, random: Math.random, audit, log: SILENT_LOG })
  let references = 0
  const makeReference = (): string => `r${++references}`
  const makeTraceId = (): string => 'a'.repeat(32)
  const deps = { run: policy.run, clock, nonce: makeReference, log: SILENT_LOG, makeTraceId, makeReference }
  const http = openHttpClient(httpTargetFrom(TOY, config), deps)
  const transport = httpTransport(TOY, config, deps)
  const ctx = { traceId: makeTraceId(), actor: 'system:bench', background: true, service: 'account_balance_cbs', reference: 'r' } as const
  const ledger = { once: async () => { throw new Error('nothing is changed here') }, settleDue: async () => 0 }
  const services = openServices({ transports: { cbs: transport }, ledger, audit, clock, log: SILENT_LOG, makeTraceId, makeReference })
  const job = services.forBackground('bench')
  return {
    client: async () => await http.send(ctx, REQUEST, response => response.body),
    service: async () => await job.call('account_balance_cbs', { account_no: ACCOUNT }),
    async close () {
      await services.close()
      await http.close()
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

function quiet (values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 10)]!
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
