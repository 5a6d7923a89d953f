// The serial line over pseudo-terminals, paced as 115200 baud: round trips, announcements and firmware against what the bare line
// allows (the ratio), and what an agent with eight ports costs. Alone: node dist/test/bench/serial.bench.js
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { openSerialBox, type SerialBox } from '../../device-agent/serial-box.js'
import { BAUD_RATE_DEFAULT, CHUNK_BYTES_MAX, encodeFrame, encodeSerialMessage, lineMs, makeTimers, type SerialMessage, sealFirmware, SILENT_LOG } from '../../protocol/index.js'
import { announcementOf } from '../support/serial-world.js'

const ROUND_TRIPS = 200
const ANNOUNCEMENTS = 200
const BODY_BYTES = 72_000
const PORTS = 8
const WATCH_MS = 5000
const ID = '0'.repeat(32)
const timers = makeTimers(() => performance.now())

type Sim = { child: ChildProcess, ports: string[], privateKey: string }

/** Boxes in a process of their own: what is measured here is the agent's side alone. Sounds take no time. */
async function startSim (count: number): Promise<Sim> {
  const script = `
    const { startSerialSim } = await import('./dist/firmware-sim/serial-sim.js')
    const { makeTimers } = await import('./dist/protocol/index.js')
    const sim = startSerialSim({ count: ${count}, audioScale: 0.0001, timers: makeTimers(() => performance.now()) })
    console.log(JSON.stringify({ ports: sim.ports, privateKey: sim.privateKey }))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await new Promise<string[]>(resolve => { createInterface({ input: child.stdout! }).once('line', first => { resolve([first]) }) })
  return { child, ...JSON.parse(line ?? '') as { ports: string[], privateKey: string } }
}

async function openBox (path: string): Promise<SerialBox> {
  return await new Promise(resolve => {
    const box: SerialBox = openSerialBox({ path, log: SILENT_LOG, timers, onHello: () => { resolve(box) }, onStatus: () => {}, onLost: () => {} })
  })
}

function wireMs (message: SerialMessage): number {
  return lineMs(encodeFrame({ seq: 1, ...encodeSerialMessage(message) }).length, BAUD_RATE_DEFAULT)
}

/** What the line itself takes for a request and its RESULT: the two frames one after the other. */
function idealMs (message: SerialMessage, result: SerialMessage): number {
  return wireMs(message) + wireMs(result)
}

function print (name: string, timesMs: readonly number[], ideal: number): void {
  const sorted = [...timesMs].sort((a, b) => a - b)
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
  const rate = 1000 * timesMs.length / timesMs.reduce((sum, ms) => sum + ms, 0)
  const against = `line ${ideal.toFixed(2)} ms  ratio ${(ideal / at(0.5)).toFixed(2)}`
  console.log(`${name.padEnd(34)} ${rate.toFixed(1).padStart(11)} ops/s  p50 ${at(0.5).toFixed(2)} ms  p99 ${at(0.99).toFixed(2)} ms  ${against}`)
}

async function measure (times: number, once: (index: number) => Promise<unknown>): Promise<number[]> {
  const timesMs: number[] = []
  for (let index = 0; index < times; index++) {
    const start = performance.now()
    await once(index)
    timesMs.push(performance.now() - start)
  }
  return timesMs
}

async function measureLine (box: SerialBox, privateKey: string): Promise<void> {
  const command: SerialMessage = { type: 'COMMAND', id: ID, name: 'clear-display', args: {} }
  print('serial round trip', await measure(ROUND_TRIPS, () => box.command('clear-display')), idealMs(command, { type: 'RESULT', id: ID, result: 'done' }))
  const announce: SerialMessage = { type: 'ANNOUNCE', ...announcementOf(1) }
  const result: SerialMessage = { type: 'RESULT', id: ID, result: 'spoken', queuedMs: 1, audioMs: 1 }
  print('serial announcement', await measure(ANNOUNCEMENTS, index => box.announce(announcementOf(index + 1))), idealMs(announce, result))
  const start = performance.now()
  await Promise.all(Array.from({ length: 60 }, (_, index) => box.announce(announcementOf(1000 + index))))
  const eachMs = (performance.now() - start) / 60
  print('serial announcement, 4 in flight', Array(60).fill(eachMs), wireMs(announce))
  const image = sealFirmware(Buffer.alloc(BODY_BYTES, 7), { model: 'sb-sim-1', version: '1.0.1', privateKey })
  const times: number[] = []
  let last = performance.now()
  await box.updateFirmware(image, { onProgress: () => {
    times.push(performance.now() - last)
    last = performance.now()
  } })
  print(`serial firmware chunk, ${CHUNK_BYTES_MAX} bytes`, times.slice(1), wireMs({ type: 'FIRMWARE_CHUNK', offset: 50_000, data: Buffer.alloc(CHUNK_BYTES_MAX, 7) }) + wireMs({ type: 'ACK' }))
}

/** CPU of this process, in percent of one core, over so many milliseconds. */
async function cpuPercent (ms: number): Promise<number> {
  const before = process.cpuUsage()
  const start = performance.now()
  await sleep(ms)
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 10 / (performance.now() - start)
}

async function measureAgent (boxes: readonly SerialBox[]): Promise<void> {
  await sleep(500)
  console.log(`${`serial agent, ${PORTS} ports idle`.padEnd(34)} ${(await cpuPercent(WATCH_MS)).toFixed(1).padStart(11)} % of a core  ${Math.round(process.memoryUsage().rss / 1e6)} MB`)
  let isRunning = true
  let count = 0
  const busy = boxes.map(async (box, port) => {
    for (let n = 0; isRunning; n++) {
      await box.announce(announcementOf(2000 + n + port * 100_000))
      count += 1
    }
  })
  const percent = await cpuPercent(WATCH_MS)
  isRunning = false
  await Promise.all(busy)
  const rate = `${(count / WATCH_MS * 1000).toFixed(0)} announcements/s`
  console.log(`${`serial agent, ${PORTS} ports busy`.padEnd(34)} ${percent.toFixed(1).padStart(11)} % of a core  ${Math.round(process.memoryUsage().rss / 1e6)} MB  ${rate}`)
}

/** Measures and prints one line a row. Where there are no pseudo-terminals, says so. */
export async function run (): Promise<void> {
  const sim = await startSim(PORTS)
  const boxes: SerialBox[] = []
  try {
    for (const port of sim.ports) boxes.push(await openBox(port))
    await measureLine(boxes[0]!, sim.privateKey)
    await measureAgent(boxes)
  } finally {
    for (const box of boxes) await box.close()
    sim.child.kill()
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await run()
