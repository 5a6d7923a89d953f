// The wiring of one gateway: every part is opened here, from the ground up, and closed in the opposite order.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Log, makeTimers, SoundboxError } from '../protocol/index.js'
import type { Broker, BrokerEvents } from './broker/contract.js'
import { openEmbeddedBroker } from './broker/embedded.js'
import { openExternalBroker } from './broker/external.js'
import type { GatewayConfig } from './config.js'
import { openDataDir } from './data-dir.js'
import { localMidnight } from './day-mail.js'
import { deviceEvents } from './device-events.js'
import type { Fallback } from './fallback/contract.js'
import { openPubsubFallback, parsePubsubUrl } from './fallback/pubsub.js'
import { parseServiceAccount } from './fallback/pubsub-rest.js'
import { openSpool } from './fallback/spool.js'
import { openDeviceTypes, parseDeviceTypes } from './fleet/device-types.js'
import { openFleet } from './fleet/fleet.js'
import { type GaugeReader, type Metrics, openMetrics } from './http/metrics.js'
import { openHttpServer } from './http/server.js'
import { openHandlers } from './iso8583/handlers.js'
import { openIntegrationParts } from './integration-wiring.js'
import type { IntegrationSettings } from './integration/config.js'
import type { Cbs } from './iso8583/cbs.js'
import { openIsoMeter } from './iso8583/meter.js'
import { parsePeers } from './iso8583/peers.js'
import { type IsoServer, type IsoTls, openIsoServer } from './iso8583/server.js'
import { simulatedCbs } from './iso8583/simulated-cbs.js'
import { scheduleCron } from './jobs/cron.js'
import { drainFallback, houseJobs } from './jobs/house-jobs.js'
import { startJobs } from './jobs/table.js'
import { followDirectory, nodeDeps } from './nodes.js'
import type { Store } from './store/contract.js'
import { type Directory, openDirectory } from './store/directory.js'
import { openPostgresStore } from './store/postgres.js'
import { openSqliteStore, type SqliteStore } from './store/sqlite.js'
import type { Announce } from './trigger/announce.js'
import { type Heart, openHeart } from './trigger/heart.js'
import { openPrompter } from './trigger/prompter.js'
import { openRateLimit } from './trigger/rate.js'

/** How long the box's `received` is asked for before the connection is ended. */
const ATTEMPTS_MAX = 4
/** India, where a box has no quiet hours that name another zone. */
const UTC_OFFSET_MINUTES = 330

export type Ports = { http: number, mqtt: number | null, mqtts: number | null, websocket: number | null, iso: number | null, isoTls: number | null }
export type Gateway = { ports: Ports, close: () => Promise<void> }
/** `integration`: of the same environment as `config`. */
export type GatewayDeps = { config: GatewayConfig, integration: IntegrationSettings, log: Log, nowMs: () => number, pid: number }

/** Starts everything or nothing: what was opened is closed again when a later part fails. Throws the typed errors of the parts. */
export async function startGateway (deps: GatewayDeps): Promise<Gateway> {
  const closers: (() => Promise<void> | void)[] = []
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    return { ports: await openParts(deps, closers), close }
  } catch (error) {
    await close().catch((err: unknown) => { deps.log.error({ err }, 'closing after a failed start failed too') })
    throw error
  }
}

async function openParts ({ config, integration: settings, log, nowMs, pid }: GatewayDeps, closers: (() => Promise<void> | void)[]): Promise<Ports> {
  const opened = <T extends { close: () => Promise<void> | void }>(part: T): T => {
    closers.push(() => part.close())
    return part
  }
  const dataDir = opened(openDataDir(config.dataDir, config.masterKeyFile, pid))
  const shared = config.store === 'sqlite' ? null : opened(await openPostgresStore({ url: config.store, log, nowMs }))
  const store: Store | SqliteStore = shared ?? opened(await openSqliteStore({ path: dataDir.file('soundbox.db'), log, nowMs }))
  const directory = await openDirectory({ store, masterKey: dataDir.masterKey, nowMs })
  if (shared !== null) opened(await followDirectory({ store: shared, reload: directory.reload, startTimer, log }))
  const fallback = opened(await openFallback(config, dataDir.file('spool'), log, nowMs))
  const types = openDeviceTypes(config.deviceTypesFile === null ? [] : parseDeviceTypes(readSetting('SOUNDBOX_DEVICE_TYPES_FILE', config.deviceTypesFile)))
  const metrics = openMetrics()
  const parts: { broker?: Broker } = {}
  const broker = (): Broker => parts.broker ?? fail()
  const heart = opened(openHeart({
    directory, store, fallback, broker, typeOf: types.typeOf, meter: metrics.meter, nowMs, startTimer, log,
    ...(config.broker === 'embedded' ? {} : { nodes: nodeDeps(newId(), shared, () => ({ fleet, prompter })) }),
    policy: { speakMs: config.speakMs, summaryMs: config.summaryMs, receivedTimeoutMs: config.receivedTimeoutMs, attemptsMax: ATTEMPTS_MAX }
  }))
  const fleet = opened(await openFleet({ store, broker, device: directory.device, staysOnline: config.broker !== 'embedded', newId, nowMs, startTimer, log }))
  const integration = opened(await openIntegrationParts({ config, settings, dataDir, store, directory, fallback, presenceOf: fleet.presence.find, newId, nowMs, log }))
  const announce = integration.withStandIns(heart.announce)
  const prompter = openPrompter({ broker, isOnline: fleet.presence.isOnline, newId, nowMs, nextSeq: heart.nextSeq })
  closers.push(startTimer(() => { prompter.tick() }, 1000).stop)
  await drainFallback({ store, fallback, log })
  await heart.join()
  parts.broker = opened(await openBroker(config, deviceEvents({ directory, fleet, heart, prompter, log, nowMs }), log, nowMs))
  await heart.resume()
  const backup = { dir: dataDir.file('backup'), prefix: shared === null ? 'soundbox' : 'integration', make: integration.backup }
  const table = houseJobs({ store, fallback, sweepVendors: heart.sweepVendors, backup, settings: config, nowMs, log })
  const jobs = opened(startJobs([...table, ...integration.jobs], { store, schedule: scheduleCron, nowMs, log }))
  closers.push(integration.stop)
  const iso = await openIso({ config, heart, announce, cbs: integration.cbs ?? simulatedCbs(nowMs), directory, store, fallback, metrics, nowMs, log })
  if (iso !== undefined) opened(iso)
  metrics.addGauges([...integration.gauges, ...houseGauges({ broker, heart, store, fallback })])
  const status = async (): Promise<object> => ({
    broker: broker().stats(), store: store.stats(), fallbackDepth: fallback.depth(), pump: heart.depth(), jobs: jobs.report(), iso: iso?.stats() ?? null,
    banks: directory.banks().length, devices: directory.devices().length
  })
  const http = opened(await openHttpServer({
    host: config.host, port: config.httpPort, socketPath: dataDir.file('gateway.sock'), tls: config.httpTls ? tlsOf(config) : null, trustProxy: config.trustProxy,
    signIn: integration.signIn, log, metrics, more: integration.more, open: integration.open,
    trigger: { directory, store, announce, rate: openRateLimit(nowMs), meter: metrics.meter, log, nowMs },
    admin: {
      directory, checkType: types.typeOf, checkMerchant: integration.checkMerchant, onDeviceChanged: fleet.handleChanged, onDeviceBarred: tid => { broker().disconnect(tid) },
      presenceOf: fleet.presence.find, sendCommand: (tid, command) => fleet.commands.send(tid, command), say: prompter.say,
      totalToday: device => store.totalSince(device.tid, localMidnight(nowMs(), device.quietHours?.utcOffsetMinutes ?? UTC_OFFSET_MINUTES))
    },
    look: { store, feed: heart.feed, status },
    isReady: () => ({ ready: broker().stats().ready, why: broker().stats().ready ? [] : ['the broker cannot be reached'] })
  }))
  const ports: Ports = { http: http.port, ...broker().ports, iso: iso?.port ?? null, isoTls: iso?.tlsPort ?? null }
  dataDir.writePorts({ ...ports, pid })
  log.info({ ...ports, dataDir: config.dataDir }, 'gateway ready')
  return ports
}

/** Read when somebody looks. */
function houseGauges ({ broker, heart, store, fallback }: { broker: () => Broker, heart: Heart, store: Store, fallback: Fallback }): readonly GaugeReader[] {
  return [
    { name: 'soundbox_devices_connected', help: 'soundboxes connected', read: () => broker().stats().connected },
    { name: 'soundbox_pump_waiting', help: 'announcements that wait in memory', read: () => heart.depth().waiting },
    { name: 'soundbox_pump_in_flight', help: 'announcements sent and not yet received', read: () => heart.depth().inFlight },
    { name: 'soundbox_vendor_waiting', help: 'announcements that wait for a vendor server', read: () => heart.depth().vendorWaiting },
    { name: 'soundbox_store_queue', help: 'writes that wait for the database', read: () => store.stats().writeQueue },
    { name: 'soundbox_fallback_depth', help: 'records that wait in the fallback', read: () => fallback.depth() }
  ]
}

async function openFallback (config: GatewayConfig, dir: string, log: Log, nowMs: () => number): Promise<Fallback> {
  const spool = await openSpool({ dir, log, ...spoolSegments(config.spoolBytes) })
  if (config.fallback === 'spool') return spool
  const account = config.pubsubKeyFile === null ? null : parseServiceAccount(readSetting('SOUNDBOX_PUBSUB_KEY_FILE', config.pubsubKeyFile))
  return openPubsubFallback({ ...parsePubsubUrl(config.fallback), ...(config.pubsubHost === null ? {} : { host: config.pubsubHost }), account, spool, log, nowMs })
}

async function openBroker (config: GatewayConfig, events: BrokerEvents, log: Log, nowMs: () => number): Promise<Broker> {
  if (config.broker !== 'embedded') {
    const url = new URL(config.broker)
    const [username, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)]
    url.username = url.password = ''
    return await openExternalBroker({ url: url.href, ...(username === '' ? {} : { username, password }), sharedGroup: 'soundbox', receivers: 4, log, random: Math.random }, events)
  }
  const tls = config.mqttsPort === null ? {} : { tls: { port: config.mqttsPort, ...tlsOf(config), requestClientCert: config.tls?.requestClientCert ?? false } }
  const websocket = config.websocketPort === null ? {} : { websocketPort: config.websocketPort }
  return await openEmbeddedBroker({ host: config.host, mqttPort: config.mqttPort, ...tls, ...websocket, log, nowMs }, events)
}

type IsoDeps = { config: GatewayConfig, heart: Heart, announce: Announce, cbs: Cbs, directory: Directory, store: Store, fallback: Fallback, metrics: Metrics, nowMs: () => number, log: Log }

/** The door for switches, when there is a peers file. */
async function openIso ({ config, heart, announce, cbs, directory, store, fallback, metrics, nowMs, log }: IsoDeps): Promise<IsoServer | undefined> {
  if (config.isoPeersFile === null) return undefined
  const read = (path: string): string => readText(path, 'SOUNDBOX_ISO_PEERS_FILE, or a file it names,')
  const handle = openHandlers({
    directory, store, fallback, announce, reverse: heart.reverse, notify: heart.notify, nextSeq: heart.nextSeq, speakMs: config.speakMs, cbs,
    meter: metrics.meter, nowMs, log
  })
  const tls = config.isoTls === null ? null : isoTlsOf(config.isoTls)
  const server = await openIsoServer({
    host: config.host, port: config.isoPort, tls, peers: parsePeers(read(config.isoPeersFile), read), handle, timers: makeTimers(() => performance.now()), nowMs, log,
    meter: openIsoMeter(metrics.registry),
    audit: config.logLevel === 'debug' ? ({ lines, ...entry }) => { log.debug({ ...entry, message: lines() }, 'ISO 8583 message') } : undefined
  })
  metrics.addGauges([
    { name: 'soundbox_iso_connections', help: 'switches connected', read: () => server.stats().connections },
    { name: 'soundbox_iso_in_flight', help: 'requests of switches in work', read: () => server.stats().inFlight }
  ])
  return server
}

function isoTlsOf ({ port, certFile, keyFile, caFile }: NonNullable<GatewayConfig['isoTls']>): IsoTls {
  const read = (path: string): string => readText(path, 'a file of SOUNDBOX_ISO_TLS_*_FILE')
  return { port, cert: read(certFile), key: read(keyFile), ca: read(caFile) }
}

function readText (path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', `${what} cannot be read: check path and mode`, { cause })
  }
}

function tlsOf (config: GatewayConfig): { cert: Buffer, key: Buffer, ca?: Buffer } {
  if (config.tls === null) throw new SoundboxError('CONFIG_INVALID', 'SOUNDBOX_TLS_CERT_FILE and SOUNDBOX_TLS_KEY_FILE are needed for TLS')
  const { certFile, keyFile, caFile } = config.tls
  try {
    return { cert: readFileSync(certFile), key: readFileSync(keyFile), ...(caFile === null ? {} : { ca: readFileSync(caFile) }) }
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', 'a TLS file cannot be read: check the paths and modes of SOUNDBOX_TLS_*_FILE', { cause })
  }
}

const SEGMENT_BYTES = 16 * 1024 * 1024
function spoolSegments (bytes: number): { segmentBytes: number, segmentsMax: number } {
  const segmentBytes = Math.min(SEGMENT_BYTES, Math.floor(bytes / 2))
  return { segmentBytes, segmentsMax: Math.floor(bytes / segmentBytes) }
}

function startTimer (callback: () => void, ms: number): { stop: () => void } {
  const timer = setInterval(callback, ms)
  return { stop: () => { clearInterval(timer) } }
}

function newId (): string {
  return randomBytes(16).toString('hex')
}

function readSetting (name: string, path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', `${name}: ${path} cannot be read`, { cause })
  }
}

function fail (): never {
  throw new Error('the broker is used before it is open')
}
