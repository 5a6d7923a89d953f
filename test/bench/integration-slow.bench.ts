// What slow providers do to triggers: the p99 of the answer to a trigger with 50 provider calls in flight that get no answer, against the
// p99 without any, in turn in one run. Goal: within 20 percent. The gateway is a process of its own; the silent provider shares this one.
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets } from '../../gateway/store/directory.js'
import { provision, startGatewayProcess } from '../support/gateway-process.js'

const CALLS_IN_FLIGHT = 50
const ROUNDS = 4
const ROUND_MS = 4_000
const PER_SECOND = 150
const SHOPS = 20
const GOAL = 0.2
const HANG_MS = '60000'

/** Measures and prints one line. */
export async function run (): Promise<void> {
  let waiting = 0
  const silent = createServer((request, response) => {
    waiting++
    request.resume()
    response.once('close', () => { waiting-- })
  })
  await new Promise<void>(resolve => { silent.listen(0, '127.0.0.1', resolve) })
  const dir = mkdtempSync(join(tmpdir(), 'soundbox-bench-'))
  const gateway = await startGatewayProcess(dir, {
    env: {
      CBS_API_PROVIDER: 'rest', CBS_API_URL: `http://127.0.0.1:${(silent.address() as AddressInfo).port}`, CBS_API_HEADER_AUTHORIZATION: 'Bearer bench', CBS_API_TIMEOUT_MS: HANG_MS,
      CBS_API_HEADERS_TIMEOUT_MS: HANG_MS, CBS_API_CONCURRENCY_MAX: String(CALLS_IN_FLIGHT)
    }
  })
  try {
    const { bank } = await provision(gateway.client, SHOPS)
    const { token } = await gateway.client.call('POST', '/tokens', { kind: 'partner', name: 'bench', lifeDays: 1, permissions: ['account_balance'] })
    const times = { without: [] as number[], slow: [] as number[] }
    await round(gateway.url, bank, 'warm', [])
    for (let number = 0; number < ROUNDS; number++) {
      await round(gateway.url, bank, `without-${number}`, times.without)
      const release = hang(gateway.url, String(token))
      while (waiting < CALLS_IN_FLIGHT) await sleep(20)
      await round(gateway.url, bank, `slow-${number}`, times.slow)
      await release()
      while (waiting > 0) await sleep(20)
    }
    const [without, slow] = [p99(times.without), p99(times.slow)]
    const note = slow > without * (1 + GOAL) ? ` (above the goal of ${GOAL * 100} %)` : ''
    console.log(`triggers beside ${CALLS_IN_FLIGHT} silent provider calls: p99 ${slow.toFixed(1)} ms, without ${without.toFixed(1)} ms, ratio ${(without / slow).toFixed(2)}${note}`)
  } finally {
    await gateway.end('SIGTERM')
    rmSync(dir, { recursive: true, force: true })
    silent.closeAllConnections()
    await new Promise(resolve => { silent.close(resolve) })
  }
}

/** Starts the calls; the result ends them, as callers that hang up. */
function hang (url: string, token: string): () => Promise<void> {
  const gone = new AbortController()
  const calls = Array.from({ length: CALLS_IN_FLIGHT }, () => fetch(`${url}/api/v1/integration/account/balance`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: '{"account_no":"0150245000100"}', signal: gone.signal
  }).catch(() => {}))
  return async () => {
    gone.abort()
    await Promise.all(calls)
  }
}

/** Triggers at a steady rate; adds the milliseconds to each answer. */
async function round (url: string, bank: BankSecrets, name: string, times: number[]): Promise<void> {
  const due = Array.from({ length: PER_SECOND * ROUND_MS / 1000 }, (_, index) => prepareTrigger({
    url, bank, nowMs: Date.now(), columns: { column1: `${name}-${index}`, column2: `shop${index % SHOPS}@upi`, column8: '19.00', column12: 'UPI', column15: 'success' }
  }))
  const startedAt = performance.now()
  const replies: Promise<void>[] = []
  for (const [index, one] of due.entries()) {
    const wait = startedAt + index * 1000 / PER_SECOND - performance.now()
    if (wait > 1) await sleep(wait)
    const sentAt = performance.now()
    replies.push(fetch(one.url, { method: 'POST', headers: one.headers, body: one.body }).then(async response => {
      await response.arrayBuffer()
      if (response.status !== 200) throw new Error(`HTTP ${response.status}`)
      times.push(performance.now() - sentAt)
    }))
  }
  await Promise.all(replies)
}

function p99 (times: readonly number[]): number {
  return [...times].sort((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await run()
