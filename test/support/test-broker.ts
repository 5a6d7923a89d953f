// An embedded broker on free ports for one test, with what the gateway was told written down, and a clock that the test holds.
import type { Test } from 'tap'
import type { Broker, BrokerEvents } from '../../gateway/broker/contract.js'
import { type EmbeddedBrokerOptions, openEmbeddedBroker } from '../../gateway/broker/embedded.js'
import type { Log } from '../../protocol/index.js'

export type LogLine = { level: string, sentence: string } & Record<string, unknown>
export type TestBroker = {
  broker: Broker
  port: number
  /** `+tid`, `+tid takeover`, `-tid reason`, in order. */
  presence: string[]
  /** `tid name text`, in order. */
  messages: string[]
  lines: LogLine[]
  clock: { nowMs: number }
}

/** A logger that keeps every line. */
export function collectingLog (lines: LogLine[]): Log {
  const call = (level: string) => (fields: object, sentence: string): void => { lines.push({ ...fields, level, sentence }) }
  const log: Log = { info: call('info'), warn: call('warn'), error: call('error'), debug: call('debug'), child: () => log }
  return log
}

/** Closed when the test ends. A soundbox's password is `secret of {tid}`; its certificate serves as well. */
export async function openTestBroker (t: Test, options: Partial<EmbeddedBrokerOptions> = {}, events: Partial<BrokerEvents> = {}): Promise<TestBroker> {
  const presence: string[] = []
  const messages: string[] = []
  const lines: LogLine[] = []
  const clock = { nowMs: 1_000_000 }
  const broker = await openEmbeddedBroker({ host: '127.0.0.1', mqttPort: 0, log: collectingLog(lines), nowMs: () => clock.nowMs, ...options }, {
    authenticate: ({ clientId, password, certificateName }) => certificateName === clientId || password === `secret of ${clientId}` ? clientId : undefined,
    onConnected: ({ tid, takeover }) => { presence.push(takeover ? `+${tid} takeover` : `+${tid}`) },
    onDisconnected: (tid, reason) => { presence.push(`-${tid} ${reason}`) },
    onMessage: (tid, name, payload) => { messages.push(`${tid} ${name} ${payload.toString('utf8')}`) },
    ...events
  })
  t.teardown(async () => await broker.close())
  return { broker, port: broker.ports.mqtt ?? 0, presence, messages, lines, clock }
}

/** Resolves once the condition holds; looks again each turn of the loop. Rejects after `timeoutMs` of wall time. */
export async function until (condition: () => boolean, what: string, timeoutMs = 5000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}
