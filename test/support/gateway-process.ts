// A gateway as a process of its own, for tests that kill it and benches that must not share its event loop.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BankSecrets, DeviceSecrets } from '../../gateway/store/directory.js'
import { type Client, openClient } from '../../gateway/cli/client.js'

export type GatewayProcess = {
  dir: string
  url: string
  mqttPort: number
  client: Client
  child: ChildProcess
  /** SIGKILL, or SIGTERM for a clean stop; resolves when it is gone. */
  end: (signal: 'SIGKILL' | 'SIGTERM') => Promise<number | null>
}
const START_TIMEOUT_MS = 60_000

/** Starts it on this data directory. `ports` keeps those of an earlier life, so that boxes find it again. */
export async function startGatewayProcess (dir: string, more: { env?: Record<string, string>, ports?: { http: number, mqtt: number }, nodeFlags?: readonly string[] } = {}): Promise<GatewayProcess> {
  rmSync(join(dir, 'gateway.json'), { force: true })
  const env = {
    PATH: process.env['PATH'], SOUNDBOX_DATA_DIR: dir, SOUNDBOX_HTTP_PORT: String(more.ports?.http ?? 0), SOUNDBOX_MQTT_PORT: String(more.ports?.mqtt ?? 0), SOUNDBOX_ISO_PORT: '0',
    SOUNDBOX_BACKUP_KEEP: '0', SOUNDBOX_LOG_FILE: join(dir, 'gateway.log'), SOUNDBOX_LOG_LEVEL: 'warn', ...more.env
  }
  const child = spawn(process.execPath, [...more.nodeFlags ?? [], 'dist/gateway/main.js'], { env, stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = new Promise<number | null>(resolve => { child.once('exit', code => { resolve(code) }) })
  let ports: { http: number, mqtt: number } | undefined
  for (let waited = 0; ports === undefined; waited += 20) {
    if (child.exitCode !== null) throw new Error('the gateway ended while starting')
    if (waited > START_TIMEOUT_MS) {
      child.kill('SIGKILL')
      throw new Error('the gateway does not start')
    }
    await sleep(20)
    ports = readPorts(join(dir, 'gateway.json'))
  }
  return {
    dir, child, url: `http://127.0.0.1:${ports.http}`, mqttPort: ports.mqtt, client: openClient({ socketPath: join(dir, 'gateway.sock') }),
    end (signal) {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal)
      return ended
    }
  }
}

/** Undefined while the file is not there, or not written to its end. */
function readPorts (path: string): { http: number, mqtt: number } | undefined {
  if (!existsSync(path)) return undefined
  const text = readFileSync(path, 'utf8')
  return text.endsWith('\n') ? JSON.parse(text) as { http: number, mqtt: number } : undefined
}

/** A bank, and `count` active boxes, each with a merchant of its own: box n speaks for `shop{n}@upi`. */
export async function provision (client: Client, count: number, bankInput: object = {}): Promise<{ bank: BankSecrets, devices: DeviceSecrets[] }> {
  const bank = await client.call('POST', '/banks', { id: 'bank', ratePerSecond: 100_000, ...bankInput }) as unknown as BankSecrets
  const devices: DeviceSecrets[] = []
  const addOne = async (n: number): Promise<void> => {
    const tid = `BOX-${String(n).padStart(5, '0')}`
    devices[n] = await client.call('POST', '/devices', { tid, type: 'QS1' }) as unknown as DeviceSecrets
    await client.call('POST', `/devices/${tid}/activate`)
    await client.call('POST', '/merchants/map', { bank: 'bank', merchant: `shop${n}@upi`, tid })
  }
  for (let start = 0; start < count; start += 50) await Promise.all(Array.from({ length: Math.min(50, count - start) }, (_, index) => addOne(start + index)))
  return { bank, devices }
}

/** What the simulated fleet needs of a device's secrets. */
export function fleetKeys ({ tid, mqttPassword, signingKey }: DeviceSecrets): { tid: string, password: string, signingKey: string } {
  return { tid, password: mqttPassword, signingKey }
}
