// A gateway as a process of its own, with a bank, a merchant, a soundbox and a peers file: for tests that kill it.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt, { type MqttClient } from 'mqtt'
import { type Client, openClient } from '../../gateway/cli/client.js'
import type { DeviceSecrets } from '../../gateway/store/directory.js'
import { formatTopic, isSoundboxError, openAnnouncement } from '../../protocol/index.js'

export type ProcessPorts = { pid: number, http: number, mqtt: number, iso: number }
export type GatewayProcess = { child: ChildProcess, ports: ProcessPorts, kill: (signal: 'SIGKILL' | 'SIGTERM') => Promise<void> }
const START_MS = 60_000

/** Started and ready; `kill` resolves when it is gone. */
export async function startGatewayProcess (t: { teardown: (callback: () => unknown) => void }, dir: string): Promise<GatewayProcess> {
  const file = join(dir, 'gateway.json')
  rmSync(file, { force: true })
  writeFileSync(join(dir, 'peers.json'), JSON.stringify({ peers: [{ name: 'switch-a', bank: 'bank', addresses: ['127.0.0.1'] }] }))
  const env = {
    ...process.env, SOUNDBOX_DATA_DIR: dir, SOUNDBOX_HTTP_PORT: '0', SOUNDBOX_MQTT_PORT: '0', SOUNDBOX_ISO_PORT: '0', SOUNDBOX_SPOOL_BYTES: '2097152', SOUNDBOX_BACKUP_KEEP: '0',
    SOUNDBOX_ISO_PEERS_FILE: join(dir, 'peers.json'), SOUNDBOX_LOG_LEVEL: 'silent'
  }
  const child = spawn(process.execPath, ['dist/gateway/main.js'], { env, stdio: 'ignore' })
  const gone = new Promise<void>(resolve => child.once('exit', () => { resolve() }))
  const kill = async (signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
    child.kill(signal)
    await gone
  }
  t.teardown(() => kill('SIGKILL'))
  for (let waited = 0; waited < START_MS; waited += 20) {
    if (child.exitCode !== null) throw new Error(`the gateway ended with ${child.exitCode}`)
    const ports = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8') || '{}') as ProcessPorts : undefined
    if (ports?.pid === child.pid && ports !== undefined) return { child, ports, kill }
    await sleep(20)
  }
  throw new Error('the gateway did not start')
}

/** The operator's socket; a gateway that says it is busy is asked again. */
export async function askPatiently (dir: string, ...call: Parameters<Client['call']>): Promise<Record<string, unknown>> {
  const client = openClient({ socketPath: join(dir, 'gateway.sock') })
  for (let left = 200; ; left--) {
    try {
      return await client.call(...call)
    } catch (error) {
      if (!isSoundboxError(error, 'OVERLOADED') || left === 0) throw error
      await sleep(100)
    }
  }
}

/** Bank, soundbox and mapping, through the operator's socket. */
export async function provision (dir: string, merchant: string): Promise<DeviceSecrets> {
  const client = { call: (...call: Parameters<Client['call']>) => askPatiently(dir, ...call) }
  await client.call('POST', '/banks', { id: 'bank' })
  const secrets = await client.call('POST', '/devices', { tid: 'SB-0001', type: 'QS1' }) as unknown as DeviceSecrets
  await client.call('POST', '/devices/SB-0001/activate')
  await client.call('POST', '/merchants/map', { bank: 'bank', merchant, tid: 'SB-0001' })
  return secrets
}

/** Everything that made a sound, by announcement id; a box keeps it over its power cuts, so an id sounds once. */
export type Voice = { sounds: string[], client: MqttClient }

/** A box that says it has it, speaks, and says that it spoke. `journal` is what it remembers from earlier connections. */
export async function connectVoice (port: number, { tid, mqttPassword, signingKey }: DeviceSecrets, journal: Set<string>): Promise<Voice> {
  const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { clientId: tid, username: tid, password: mqttPassword, protocolVersion: 4, clean: true, reconnectPeriod: 0 })
  const sounds: string[] = []
  const say = (id: string, result: string, more: object = {}): void => { client.publish(formatTopic(tid, 'ack'), JSON.stringify({ id, result, ...more }), { qos: 1 }) }
  client.on('error', () => {})
  client.on('message', (topic, payload) => {
    if (!topic.endsWith('/announce')) return
    const { id } = openAnnouncement(payload, tid, signingKey)
    if (journal.has(id)) return say(id, 'duplicate', { was: 'spoken' })
    journal.add(id)
    sounds.push(id)
    say(id, 'received')
    say(id, 'spoken')
  })
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => { resolve() })
    client.once('close', () => { reject(new Error('the box was not let in')) })
  })
  await client.subscribeAsync(formatTopic(tid, 'announce'), { qos: 1 })
  await client.publishAsync(formatTopic(tid, 'hello'), JSON.stringify({ model: 'test', firmware: '1', bootId: `${journal.size}` }), { qos: 1 })
  return { sounds, client }
}
