// `make run`: everything on one machine. Starts the gateway, provisions a bank, a merchant and three soundboxes, posts one encrypted
// trigger as the bank would, and shows what each box said. Stays up until Ctrl-C. A second run uses the same data.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import pc from 'picocolors'
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import type { BankSecrets, DeviceSecrets } from '../store/directory.js'
import { postTrigger, prepareTrigger } from './bank-client.js'
import { type Client, openClient } from './client.js'

const BANK = 'demo'
const MERCHANT = 'demo-shop@upi'
/** Two that speak by themselves, and a simulated box at the end of a serial cable, with an agent as its bridge. */
const BOXES = [
  { tid: 'SB-DEMO-EN', language: 'ENGLISH', type: 'SB1', isSerial: false },
  { tid: 'SB-DEMO-HI', language: 'HINDI', type: 'SB1', isSerial: false },
  { tid: 'SB-DEMO-SERIAL', language: 'ENGLISH', type: 'SB3', isSerial: true }
] as const
/** A switch of the demo bank, on this machine only. */
const DEMO_SWITCH = { name: 'demo-switch', bank: BANK, addresses: ['127.0.0.1'] }
const START_TIMEOUT_MS = 30_000
const SPEAK_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 15_000

export type DemoDeps = { dist: string, env: Readonly<Record<string, string | undefined>>, write: (text: string) => void }
type Running = { name: string, child: ChildProcess, ended: Promise<number> }
type Ports = { http: number, mqtt: number, iso: number | null }
type Said = { tid: string, id: string | null, text: string, language: string, fromIssuedMs: number | null, wav: string | null }

/** Resolves with the exit code once everything has stopped. */
export async function runDemo (deps: DemoDeps): Promise<number> {
  const dataDir = deps.env['SOUNDBOX_DATA_DIR'] ?? 'data'
  const running: Running[] = []
  const stopped = new Promise<'stop'>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { resolve('stop') })
  })
  try {
    const gateway = startGatewayProcess(deps, dataDir)
    running.push(gateway)
    const ports = await waitForGateway(gateway, dataDir)
    const client = openClient({ socketPath: join(dataDir, 'gateway.sock') })
    const bank = await provision(client, join(dataDir, 'demo'))
    const said: Said[] = []
    for (const { tid, isSerial } of BOXES) {
      const serialPort = isSerial ? await startSerialBox(deps, tid, running) : undefined
      running.push(startAgent(deps, { folder: join(dataDir, 'demo'), tid, mqttPort: ports.mqtt, serialPort, onLine: line => { onSaid(deps, said, line) } }))
    }
    await waitForBoxes(client, running)
    deps.write(introduction(ports, deps.env['SOUNDBOX_HOST'] ?? '127.0.0.1', dataDir))
    await payOnce(deps, bank, ports, said)
    deps.write(nextSteps(dataDir, ports))
    const first = await Promise.race([stopped, ...running.map(async part => { await part.ended; return part.name })])
    if (first !== 'stop') throw new SoundboxError('GATEWAY_UNREACHABLE', `${first} ended by itself; its log is in ${dataDir}`)
    deps.write('\nstopping\n')
    return 0
  } finally {
    for (const part of running.reverse()) await stopProcess(part)
  }
}

function startGatewayProcess (deps: DemoDeps, dataDir: string): Running {
  const folder = join(dataDir, 'demo')
  const peers = deps.env['SOUNDBOX_ISO_PEERS_FILE'] ?? join(folder, 'iso-peers.json')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  if (!existsSync(peers)) writeFileSync(peers, `${JSON.stringify({ peers: [DEMO_SWITCH] }, null, 2)}\n`, { mode: 0o600 })
  const env = { ...deps.env, SOUNDBOX_DATA_DIR: dataDir, SOUNDBOX_ISO_PEERS_FILE: peers, SOUNDBOX_LOG_FILE: deps.env['SOUNDBOX_LOG_FILE'] ?? join(dataDir, 'gateway.log') }
  return start('gateway', [join(deps.dist, 'gateway/main.js')], env, () => {})
}

type AgentStart = { folder: string, tid: string, mqttPort: number, serialPort: string | undefined, onLine: (line: string) => void }

function startAgent (deps: DemoDeps, { folder, tid, mqttPort, serialPort, onLine }: AgentStart): Running {
  const flags = ['--credentials-file', join(folder, `${tid}.json`), '--gateway', `mqtt://127.0.0.1:${mqttPort}`, '--data-dir', join(folder, tid), '--prompts', 'off', '--log-level', 'error', '--json']
  return start(tid, [join(deps.dist, 'device-agent/main.js'), ...flags, ...(serialPort === undefined ? [] : ['--serial', serialPort])], deps.env, onLine)
}

/** A simulated box on a pseudo-terminal; resolves with its port. */
async function startSerialBox (deps: DemoDeps, tid: string, running: Running[]): Promise<string> {
  return await new Promise((resolve, reject) => {
    const sim = start(`${tid} (simulated)`, [join(deps.dist, 'firmware-sim/main.js'), 'serial', '--tids', tid], deps.env, line => {
      const port = /^port (\S+)/.exec(line)?.[1]
      if (port !== undefined) resolve(port)
    })
    running.push(sim)
    void sim.ended.then(() => { reject(new SoundboxError('SERIAL_UNAVAILABLE', 'the simulated serial box did not start')) })
  })
}

/** A process group of its own, so that Ctrl-C reaches it through us, once, in order. */
function start (name: string, args: readonly string[], env: DemoDeps['env'], onLine: (line: string) => void): Running {
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  createInterface({ input: child.stdout }).on('line', onLine)
  const ended = new Promise<number>(resolve => {
    child.once('error', () => { resolve(1) })
    child.once('exit', code => { resolve(code ?? 1) })
  })
  return { name, child, ended }
}

async function stopProcess ({ child, ended }: Running): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const timer = setTimeout(() => { child.kill('SIGKILL') }, STOP_TIMEOUT_MS)
  await ended
  clearTimeout(timer)
}

async function waitForGateway (gateway: Running, dataDir: string): Promise<Ports> {
  const file = join(dataDir, 'gateway.json')
  for (let waited = 0; waited < START_TIMEOUT_MS; waited += 50) {
    if (gateway.child.exitCode !== null) throw new SoundboxError('GATEWAY_UNREACHABLE', 'the gateway did not start; its own words are above')
    if (existsSync(file)) {
      const ports = JSON.parse(readFileSync(file, 'utf8')) as Ports & { pid: number }
      if (ports.pid === gateway.child.pid) return ports
    }
    await sleep(50)
  }
  throw new SoundboxError('GATEWAY_UNREACHABLE', `the gateway was not ready after ${START_TIMEOUT_MS / 1000} s; its log is ${join(dataDir, 'gateway.log')}`)
}

/** Bank, boxes and mapping; what is there already is used, and its kept secrets with it. */
async function provision (client: Client, folder: string): Promise<BankSecrets> {
  const bank = await keep(join(folder, 'bank.json'), () => client.call('POST', '/banks', { id: BANK }), () => client.call('POST', `/banks/${BANK}/rotate-key`, { overlapSeconds: 0 }))
  for (const { tid, language, type } of BOXES) {
    await keep<DeviceSecrets>(join(folder, `${tid}.json`), () => client.call('POST', '/devices', { tid, type, language }), () => client.call('POST', `/devices/${tid}/rekey`))
    await client.call('POST', `/devices/${tid}/activate`)
    await client.call('POST', '/merchants/map', { bank: BANK, merchant: MERCHANT, tid })
  }
  return bank as BankSecrets
}

/** Secrets are told once: those in the file, else of a new row, else new ones for a row whose file was lost. */
async function keep<T> (path: string, add: () => Promise<object>, renew: () => Promise<object>): Promise<T> {
  if (!existsSync(path)) {
    const secrets = await add().catch((error: unknown) => {
      if (isSoundboxError(error, 'ALREADY_EXISTS')) return renew()
      throw error
    })
    writeFileSync(path, `${JSON.stringify(secrets)}\n`, { mode: 0o600 })
  }
  return JSON.parse(readFileSync(path, 'utf8')) as T
}

async function waitForBoxes (client: Client, running: readonly Running[]): Promise<void> {
  for (let waited = 0; waited < START_TIMEOUT_MS; waited += 50) {
    const gone = running.find(part => part.child.exitCode !== null)
    if (gone !== undefined) throw new SoundboxError('DEVICE_OFFLINE', `${gone.name} did not start; its own words are above`)
    const { devices } = await client.call('GET', '/devices') as { devices: { tid: string, presence: string, hello: object | null }[] }
    if (BOXES.every(box => devices.some(device => device.tid === box.tid && device.presence === 'online' && device.hello !== null))) return
    await sleep(50)
  }
  throw new SoundboxError('DEVICE_OFFLINE', 'the soundboxes did not connect in time')
}

function onSaid (deps: DemoDeps, said: Said[], line: string): void {
  const report = JSON.parse(line) as Said
  said.push(report)
  // A box knows the gateway's time to some milliseconds only.
  const when = report.fromIssuedMs === null ? '' : `, ${Math.max(0, report.fromIssuedMs)} ms after the payment`
  const where = report.wav === null ? '' : pc.dim(`\n      ${report.wav}`)
  deps.write(`  ${pc.bold(report.tid)} said ${pc.green(`"${report.text}"`)}${when}${where}\n`)
}

async function payOnce (deps: DemoDeps, bank: BankSecrets, ports: Ports, said: readonly Said[]): Promise<void> {
  const columns = { column1: `DEMO${Date.now()}`, column2: MERCHANT, column8: '19.00', column12: 'UPI', column15: 'success' }
  const reply = await postTrigger(prepareTrigger({ url: `http://127.0.0.1:${ports.http}`, bank, columns, nowMs: Date.now() }), bank, Date.now)
  deps.write(`The bank posts 19.00 rupees for ${MERCHANT}, encrypted: HTTP ${reply.httpStatus}, ${String(reply.answer['statusDesc'])}, ${reply.ms} ms\n`)
  const id = (reply.answer['data'] as { announcement_id?: string } | null)?.announcement_id
  for (let waited = 0; waited < SPEAK_TIMEOUT_MS; waited += 20) {
    if (BOXES.every(box => said.some(report => report.tid === box.tid && report.id === id))) return
    await sleep(20)
  }
  throw new SoundboxError('DEVICE_OFFLINE', 'not every soundbox spoke in time: see soundbox history')
}

function introduction (ports: Ports, host: string, dataDir: string): string {
  const rows = [
    ['gateway', `http://${host}:${ports.http}/docs   mqtt://${host}:${ports.mqtt}   data and log in ${dataDir}/`],
    ['bank', `${BANK}, aes-256-cbc, with database`],
    ['merchant', `${MERCHANT}, heard from ${BOXES.map(box => `${box.tid} (${box.language}${box.isSerial ? ', behind a serial line' : ''})`).join(', ')}`]
  ]
  return `${pc.bold('Soundbox is up.')}\n${rows.map(([name = '', text = '']) => `  ${pc.bold(name.padEnd(9))} ${text}`).join('\n')}\n\n`
}

function nextSteps (dataDir: string, ports: Ports): string {
  const trigger = `npx soundbox trigger --bank ${dataDir}/demo/bank.json --to http://127.0.0.1:${ports.http} --merchant ${MERCHANT} --amount 250.50`
  const where = dataDir === 'data' ? '' : ` --data-dir ${dataDir}`
  const iso = `npx soundbox iso send --to 127.0.0.1:${ports.iso} --field 3=000000 4=000000001900 22=031 41=TERM0001 '42=${MERCHANT.padEnd(15)}' 49=356`
  const overIso = ports.iso === null ? '' : `Or as a switch, by ISO 8583:\n  ${iso}\n`
  const look = `Look at it:\n  npx soundbox history${where}\n  npx soundbox tail${where}\n`
  return `\nThe next one by hand, in another terminal:\n  ${trigger}\n  ${trigger} --print curl | bash\n${overIso}${look}Ctrl-C stops.\n\n`
}
