// A whole gateway in this process, on free ports and a folder of its own, with a bank, merchants and simple soundboxes. The clock can be
// moved on; everything is closed with the test.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt, { type MqttClient } from 'mqtt'
import type { BankInput, BankSecrets, DeviceSecrets } from '../../gateway/store/directory.js'
import { type GatewayConfig, parseConfig } from '../../gateway/config.js'
import { parseIntegrationConfig } from '../../gateway/integration/config.js'
import { type Gateway, startGateway } from '../../gateway/gateway.js'
import { postTrigger, prepareTrigger, type TriggerReply } from '../../gateway/cli/bank-client.js'
import { type Client, openClient } from '../../gateway/cli/client.js'
import { type AckResult, formatTopic, type Log, openAnnouncement, SILENT_LOG, type SignedAnnouncement } from '../../protocol/index.js'

type Teardown = { teardown: (callback: () => unknown) => void }
export type RigOptions = { env?: Record<string, string>, log?: Log, dir?: string }
export type Rig = {
  dir: string
  url: string
  client: Client
  gateway: () => Gateway
  clock: { nowMs: () => number, advance: (ms: number) => void }
  addBank: (input?: Partial<BankInput>) => Promise<BankSecrets>
  /** An active soundbox, mapped to the merchant of the bank. */
  addBox: (tid: string, more?: { bank?: string, merchant?: string, language?: string, type?: string }) => Promise<DeviceSecrets>
  connect: (secrets: DeviceSecrets, behaviour?: BoxBehaviour) => Promise<TestBox>
  /** As a bank does: comes again while the gateway is too busy to look. */
  trigger: (bank: BankSecrets, columns: Record<string, string>) => Promise<TriggerReply>
  history: (query?: string) => Promise<HistoryRow[]>
  /** Stops and starts the gateway on the same data. */
  restart: () => Promise<void>
}
export type HistoryRow = {
  bank: string, transactionId: string, amount: string, currency: string, merchant: string | null, status: string, acceptedAt: string, reversedAt: string | null
  deliveries: { tid: string, state: string, announcementId: string, publishedAt: string | null, deliveredAt: string | null, spokenAt: string | null, summaryId: string | null, reason: string | null }[]
}

/** Generous: the machine may be busy with other tests. */
const REPLY_TIMEOUT_MS = 60_000

/** Columns of a payment that a bank with database may send. */
export function payment (transactionId: string, amount = '19.00', merchant = 'shop@upi'): Record<string, string> {
  return { column1: transactionId, column2: merchant, column8: amount, column12: 'UPI', column15: 'success' }
}

/** A folder that goes with the test; short, because a unix socket's path has at most 107 bytes. */
export function tempDir (t: Teardown): string {
  const dir = mkdtempSync(join(tmpdir(), 'soundbox-'))
  t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
  return dir
}

/** Starts it; closed by the test's teardown. */
export async function startRig (t: Teardown, options: RigOptions = {}): Promise<Rig> {
  const dir = options.dir ?? tempDir(t)
  let offset = 0
  const nowMs = (): number => Date.now() + offset
  const config: GatewayConfig = parseConfig({
    SOUNDBOX_DATA_DIR: dir, SOUNDBOX_HTTP_PORT: '0', SOUNDBOX_MQTT_PORT: '0', SOUNDBOX_ISO_PORT: '0', SOUNDBOX_SPOOL_BYTES: '2097152', SOUNDBOX_BACKUP_KEEP: '0', ...options.env
  })
  const integration = parseIntegrationConfig({ SOUNDBOX_ENV: 'test', ...options.env }, path => readFileSync(path, 'utf8'))
  const start = (): Promise<Gateway> => startGateway({ config, integration, log: options.log ?? SILENT_LOG, nowMs, pid: process.pid })
  let gateway = await start()
  const boxes: TestBox[] = []
  t.teardown(async () => {
    for (const box of boxes) box.end()
    await gateway.close()
  })
  const client: Client = { call: (...args) => openClient({ socketPath: `${dir}/gateway.sock` }).call(...args), stream: (...args) => openClient({ socketPath: `${dir}/gateway.sock` }).stream(...args) }
  return {
    dir,
    get url () { return `http://127.0.0.1:${gateway.ports.http}` },
    client,
    gateway: () => gateway,
    clock: { nowMs, advance: ms => { offset += ms } },
    addBank: async (input = {}) => await client.call('POST', '/banks', { id: 'bank', ...input }) as unknown as BankSecrets,
    async addBox (tid, { bank = 'bank', merchant = 'shop@upi', language = 'ENGLISH', type = 'QS1' } = {}) {
      const secrets = await client.call('POST', '/devices', { tid, type, language })
      await client.call('POST', `/devices/${tid}/activate`)
      await client.call('POST', '/merchants/map', { bank, merchant, tid })
      return secrets as unknown as DeviceSecrets
    },
    async connect (secrets, behaviour = {}) {
      const box = await connectBox({ secrets, port: gateway.ports.mqtt ?? 0, nowMs, behaviour })
      boxes.push(box)
      return box
    },
    async trigger (bank, columns) {
      for (;;) {
        const reply = await postTrigger(prepareTrigger({ url: `http://127.0.0.1:${gateway.ports.http}`, bank, columns, nowMs: nowMs() }), bank, nowMs, REPLY_TIMEOUT_MS)
        if (reply.httpStatus !== 503) return reply
        await new Promise(resolve => { setTimeout(resolve, 500) })
      }
    },
    history: async (query = '') => (await client.call('GET', `/history?${query}`))['payments'] as HistoryRow[],
    async restart () {
      await gateway.close()
      gateway = await start()
    }
  }
}

/** `answer`: the final result of an announcement; undefined = none yet. `received: false`: stays silent altogether. */
export type BoxBehaviour = { answer?: (announcement: SignedAnnouncement) => AckResult | undefined, received?: boolean, bootId?: string, journal?: Map<string, AckResult> }
export type TestBox = {
  heard: SignedAnnouncement[]
  /** Announcements that made a sound: never the same id twice by this box's own journal. */
  spoken: SignedAnnouncement[]
  journal: Map<string, AckResult>
  mqtt: MqttClient
  ack: (id: string, result: AckResult, more?: object) => Promise<void>
  /** Resolves when `count` announcements were spoken. */
  hasSpoken: (count: number) => Promise<void>
  hasHeard: (count: number) => Promise<void>
  end: () => void
}
type ConnectOptions = { secrets: DeviceSecrets, port: number, nowMs: () => number, behaviour: BoxBehaviour }

async function connectBox ({ secrets, port, nowMs, behaviour }: ConnectOptions): Promise<TestBox> {
  const { tid } = secrets
  const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { clientId: tid, username: tid, password: secrets.mqttPassword, protocolVersion: 4, clean: true, reconnectPeriod: 0 })
  const waiting: { list: () => unknown[], count: number, resolve: () => void }[] = []
  const box: TestBox = {
    heard: [], spoken: [], journal: behaviour.journal ?? new Map(), mqtt: client,
    ack: async (id, result, more = {}) => { await client.publishAsync(formatTopic(tid, 'ack'), JSON.stringify({ id, result, ...more }), { qos: 1 }).catch(() => {}) },
    hasSpoken: count => until(() => box.spoken, count),
    hasHeard: count => until(() => box.heard, count),
    end: () => { client.end(true) }
  }
  const until = (list: () => unknown[], count: number): Promise<void> => new Promise(resolve => {
    waiting.push({ list, count, resolve })
    wake()
  })
  const wake = (): void => {
    for (const waiter of [...waiting]) if (waiter.list().length >= waiter.count) waiter.resolve()
  }
  const speak = (announcement: SignedAnnouncement): void => {
    const { id } = announcement
    box.heard.push(announcement)
    const known = box.journal.get(id)
    if (behaviour.received === false) return wake()
    if (known !== undefined) void box.ack(id, 'duplicate', { was: known })
    else {
      const isLate = nowMs() >= announcement.expiresAt
      const result = isLate ? 'expired' : behaviour.answer === undefined ? 'spoken' : behaviour.answer(announcement)
      void box.ack(id, 'received')
      if (result !== undefined) void box.ack(id, result, { at: Math.floor(nowMs()), queuedMs: 1, audioMs: 900 })
      if (result === 'spoken') {
        box.journal.set(id, 'spoken')
        box.spoken.push(announcement)
      }
    }
    wake()
  }
  client.on('error', () => {})
  client.on('message', (topic, payload) => { if (topic.endsWith('/announce')) speak(openAnnouncement(payload, tid, secrets.signingKey)) })
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => { resolve() })
    client.once('error', reject)
    client.once('close', () => { reject(new Error('connection closed')) })
  })
  await client.subscribeAsync([formatTopic(tid, 'announce'), formatTopic(tid, 'command'), formatTopic(tid, 'desired')], { qos: 1 })
  await client.publishAsync(formatTopic(tid, 'hello'), JSON.stringify({ model: 'test', firmware: '1', bootId: behaviour.bootId ?? `boot-${nowMs()}` }), { qos: 1 })
  return box
}

/** Asks again until the answer pleases; fails after `timeoutMs` of real time. */
export async function eventually<T> (ask: () => Promise<T> | T, isRight: (value: T) => boolean, timeoutMs = 45_000): Promise<T> {
  const end = Date.now() + timeoutMs
  for (;;) {
    const value = await ask()
    if (isRight(value)) return value
    if (Date.now() > end) throw new Error(`not so after ${timeoutMs} ms: ${JSON.stringify(value)}`)
    await new Promise(resolve => { setTimeout(resolve, 20) })
  }
}
