// Many at once: a storm of reconnecting soundboxes while messages keep coming, and ten thousand connections that leave nothing behind.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import type { ChurnResult, StormResult } from '../support/broker-load.js'

const run = async (load: 'storm' | 'churn'): Promise<unknown> => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', 'dist/test/support/broker-load.js', load], { timeout: 55_000 })
  return JSON.parse(stdout)
}

t.test('300 soundboxes reconnect twice while messages keep coming', async t => {
  const result = await run('storm') as StormResult
  t.match(result, { connects: 900, connected: 300, refused: 0, wentBack: 0, missing: 0, notInTurn: 0 }, JSON.stringify(result))
  t.ok(result.sent > 600, 'each round moved messages')
  t.ok(result.received >= result.sent, 'what was sent was received')
})

t.test('ten thousand connections leave nothing behind', async t => {
  const result = await run('churn') as ChurnResult
  // Of 100: 15 leave silently, 17 of the others are refused.
  t.match(result, { connects: 6800, refused: 1700, connected: 0 }, JSON.stringify(result))
  t.ok(result.endMiB - result.warmMiB < 3, `heap ${result.warmMiB.toFixed(1)} -> ${result.endMiB.toFixed(1)} MiB`)
})
