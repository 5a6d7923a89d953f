// ISO 8583 over TCP on loopback, 64 in flight on one connection.
//   (a) the echo family (0800 -> 0810) with all hooks on, plain and TLS, against a bare socket that sends the same frames back, in one run:
//       the same load, one after the other, several rounds, medians.  Targets on a quiet machine: 60,000/s plain, 50,000/s TLS, p99 < 3 ms.
//   (b) the whole path on a gateway: 0200 -> recorded on disk -> published to the soundbox -> 0210.
// Server and load are processes of their own. PROFILE_DIR=folder leaves CPU profiles of the servers there.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHistogram } from 'node:perf_hooks'
import { connect as connectTls } from 'node:tls'
import { pathToFileURL } from 'node:url'
import { startFleet } from '../../firmware-sim/fleet.js'
import { compileFraming, compileShippedSpec, encodeFrame, openFrameReader, pack, unpack } from '../../protocol/iso8583/index.js'
import { fleetKeys, provision, startGatewayProcess } from '../support/gateway-process.js'
import { network, purchase } from '../support/raw-switch.js'

const IN_FLIGHT = 64
const ROUNDS = 5
const ROUND_MS = 1_500
const WARM_UP_MS = 1_000
const SHOPS = 50
const PATH_MS = 5_000
const SPEC = compileShippedSpec('1987-ascii')
const FRAMING = compileFraming()

type Target = { port: number, ca: string, cert: string, key: string }
type Result = { perSecond: number, p50: number, p99: number }

/** Measures and prints a line for each case. */
export async function run (): Promise<void> {
  for (const wire of ['plain', 'tls'] as const) {
    const echo = frameOf(network('301', 7))
    const bare = await withServer('bare', wire, target => rounds(target, wire, () => echo))
    const ours = await withServer('ours', wire, target => rounds(target, wire, () => echo))
    print(`bare echo ${wire}`, bare)
    print(`iso8583 echo ${wire}`, ours, ours.perSecond / bare.perSecond)
  }
  await runPath()
}

async function withServer (kind: 'bare' | 'ours', wire: 'plain' | 'tls', work: (target: Target) => Promise<Result>): Promise<Result> {
  const profile = process.env['PROFILE_DIR']
  const flags = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${kind}-${wire}.cpuprofile`]
  const child: ChildProcess = spawn(process.execPath, [...flags, join('dist', 'test', 'support', 'iso-bench-server.js'), kind, wire], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(child.stdout!, 'data') as [Buffer]
  try {
    return await work(JSON.parse(line.toString('utf8')) as Target)
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
}

async function rounds (target: Target, wire: 'plain' | 'tls', frame: (n: number) => Buffer): Promise<Result> {
  const socket = await open(target, wire)
  await load(socket, frame, WARM_UP_MS)
  const results: Result[] = []
  for (let round = 0; round < ROUNDS; round++) results.push(await load(socket, frame, ROUND_MS))
  socket.destroy()
  results.sort((left, right) => left.perSecond - right.perSecond)
  return results[ROUNDS >> 1]!
}

/** Signed on where the other end understands it: a bare server sends the sign-on back, which is as good an answer. */
async function open ({ port, ca, cert, key }: Target, wire: 'plain' | 'tls'): Promise<Socket> {
  const socket = wire === 'plain' ? connectTcp({ port, host: '127.0.0.1', noDelay: true }) : connectTls({ port, host: '127.0.0.1', ca, cert, key })
  await once(socket, wire === 'plain' ? 'connect' : 'secureConnect')
  socket.setNoDelay(true)
  socket.write(frameOf(network('001', 1)))
  await once(socket, 'data')
  return socket
}

/** Keeps IN_FLIGHT frames on the way; frames come back in order on one connection. What is gathered in a turn is sent in one write. */
async function load (socket: Socket, frame: (n: number) => Buffer, ms: number, check: (payload: Buffer) => void = () => {}): Promise<Result> {
  const reader = openFrameReader(FRAMING)
  const histogram = createHistogram()
  const sentAt: number[] = []
  const started = performance.now()
  let [sent, done] = [0, 0]
  const send = (count: number): void => {
    const now = performance.now()
    const frames: Buffer[] = []
    for (let n = 0; n < count; n++) {
      frames.push(frame(sent++))
      sentAt.push(now)
    }
    if (count > 0) socket.write(Buffer.concat(frames))
  }
  return await new Promise(resolve => {
    let [head, isOver] = [0, false]
    const take = (chunk: Buffer): void => {
      const events = reader.push(chunk)
      const now = performance.now()
      for (const event of events) {
        if (event.kind !== 'frame') throw new Error('no frame came back')
        check(event.payload)
        histogram.record(Math.max(1, Math.round((now - sentAt[head++]!) * 1000)))
        done++
      }
      if (!isOver && now - started < ms) return send(events.length)
      isOver = true
      if (done < sent) return
      socket.off('data', take)
      resolve({ perSecond: done / (performance.now() - started) * 1000, p50: histogram.percentile(50) / 1000, p99: histogram.percentile(99) / 1000 })
    }
    socket.on('data', take)
    send(IN_FLIGHT)
  })
}

async function runPath (): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'soundbox-bench-'))
  writeFileSync(join(dir, 'peers.json'), JSON.stringify({ peers: [{ name: 'bench', bank: 'bank', addresses: ['127.0.0.1'] }] }))
  const profile = process.env['PROFILE_DIR']
  const nodeFlags = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, '--cpu-prof-name=path.cpuprofile']
  const gateway = await startGatewayProcess(dir, { env: { SOUNDBOX_ISO_PEERS_FILE: join(dir, 'peers.json') }, nodeFlags })
  try {
    const { devices } = await provision(gateway.client, SHOPS)
    const fleet = startFleet({ url: `mqtt://127.0.0.1:${gateway.mqttPort}`, devices: devices.map(fleetKeys), seed: 1, nowMs: Date.now })
    await fleet.whenUp(60_000)
    const { iso } = JSON.parse(readFileSync(join(dir, 'gateway.json'), 'utf8')) as { iso: number }
    const socket = await open({ port: iso, ca: '', cert: '', key: '' }, 'plain')
    let traces = 0
    const next = (): Buffer => {
      const n = traces++ % 999_999
      return frameOf(purchase(n, { 42: `SHOP${n % SHOPS}@UPI`.padEnd(15) }))
    }
    const approved = (payload: Buffer): void => {
      const { fields } = unpack(SPEC, payload)
      if (fields['39'] !== '00') throw new Error(`DE 39 ${fields['39'] ?? ''}`)
    }
    await load(socket, next, WARM_UP_MS, approved)
    print('iso8583 0200 recorded, published, 0210', await load(socket, next, PATH_MS, approved))
    socket.destroy()
    await fleet.close()
  } finally {
    await gateway.end('SIGTERM')
    rmSync(dir, { recursive: true, force: true })
  }
}

function frameOf (message: Parameters<typeof pack>[1]): Buffer {
  return encodeFrame(FRAMING, pack(SPEC, message))
}

function print (name: string, { perSecond, p50, p99 }: Result, ratio?: number): void {
  const figures = `${Math.round(perSecond).toLocaleString('en').padStart(9)} /s  p50 ${p50.toFixed(2)} ms  p99 ${p99.toFixed(2)} ms`
  console.log(`${name.padEnd(40)} ${figures}${ratio === undefined ? '' : `  ratio ${ratio.toFixed(2)}`}`)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await run()
