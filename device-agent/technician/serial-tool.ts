// What a technician does with a box on a serial cable: look for it, ask who it is, watch the line, write its identity and let it say a
// code that proves which box that was, bring new firmware into it.
import { randomBytes } from 'node:crypto'
import {
  type Announcement, BAUD_RATE_DEFAULT, type BoxCredentials, type BoxHello, type BoxStatus, decodeSerialMessage, describeSerialMessage, type FrameEvent, type Language, type Log,
  makeFrameReader, type SerialResult, serialTypeName, SoundboxError, type Timers
} from '../../protocol/index.js'
import { wordAnnouncement } from '../../protocol/wording/index.js'
import { openSerialBox, type SerialBox } from '../serial-box.js'
import { type OpenPort, openSerialPort } from '../serial-link.js'

/** A box answers a session within this, also while it starts. */
export const PROBE_TIMEOUT_MS = 8000
export const CODE_TTL_MS = 30_000

export type ToolDeps = { timers: Timers, log: Log, openPort?: OpenPort }
export type PortChoice = { path: string, baudRate?: number | undefined }
export type Probe = { path: string, baudRate: number, hello: BoxHello, status: BoxStatus | null }
type Talk = { box: SerialBox, hello: BoxHello, latest: () => BoxHello, status: () => BoxStatus | null }

/** Who is behind the port. Throws SERIAL_UNAVAILABLE (the port), SERIAL_TIMEOUT (nobody answers at this speed). */
export async function probePort (choice: PortChoice, deps: ToolDeps): Promise<Probe> {
  return await withBox(choice, deps, async ({ hello, status }) => {
    for (let waited = 0; waited < 1000 && status() === null; waited += 50) await pause(deps.timers, 50)
    return { path: choice.path, baudRate: choice.baudRate ?? BAUD_RATE_DEFAULT, hello, status: status() }
  })
}

/** Prints every frame of both directions, decoded and without secrets, until it is closed. The tool itself keeps the session alive. */
export function monitorPort (choice: PortChoice, deps: ToolDeps, print: (line: string) => void): { close: () => Promise<void> } {
  const openPort = deps.openPort ?? openSerialPort
  const [fromBox, toBox] = [makeFrameReader(), makeFrameReader()]
  const show = (arrow: string, events: readonly FrameEvent[]): void => {
    for (const event of events) print(`${new Date(deps.timers.nowMs()).toISOString().slice(11, 23)} ${arrow} ${frameLine(event)}`)
  }
  const box = openSerialBox({
    ...boxOptions(choice, deps),
    openPort: async port => {
      const handle = await openPort({
        ...port,
        onBytes: bytes => {
          show('box ->', fromBox.push(bytes))
          port.onBytes(bytes)
        }
      })
      return {
        write: bytes => {
          show('   <- ', toBox.push(bytes))
          handle.write(bytes)
        },
        close: handle.close
      }
    },
    onHello: () => {},
    onStatus: () => {},
    onLost: why => { print(`line lost: ${why}`) }
  })
  return { close: () => box.close() }
}

/** Writes the identity, then lets the box say the code. Throws INPUT_INVALID when the box has another tid and `replace` is not set. */
export async function provisionBox (choice: PortChoice, deps: ToolDeps, wish: { credentials: BoxCredentials, code: number }): Promise<{ hello: BoxHello, said: SerialResult }> {
  return await withBox(choice, deps, async ({ box, hello }) => {
    await box.sendCredentials(wish.credentials)
    return { hello, said: await box.announce(codeAnnouncement(wish.code, hello.language, deps.timers.nowMs())) }
  })
}

/** Brings a signed image into the box and waits until it runs it for good. Throws FIRMWARE_INVALID (refused, went back), SERIAL_TIMEOUT. */
export async function updateBox (choice: PortChoice, deps: ToolDeps, wish: { image: Buffer, force: boolean, onProgress: (done: number, total: number) => void }): Promise<Probe> {
  const { image, force, onProgress } = wish
  return await withBox(choice, deps, async ({ box, latest, status }) => {
    await box.updateFirmware(image, { force, onProgress })
    return { path: choice.path, baudRate: choice.baudRate ?? BAUD_RATE_DEFAULT, hello: latest(), status: status() }
  })
}

function codeAnnouncement (code: number, language: Language, nowMs: number): Parameters<SerialBox['announce']>[0] {
  const announcement: Announcement = {
    v: 1, id: randomBytes(16).toString('hex'), seq: 0, kind: 'prompt', amountMinor: 0, currency: 'INR', language, issuedAt: nowMs, expiresAt: nowMs + CODE_TTL_MS, prompt: 'code', count: code
  }
  const { text, clips, language: spoken } = wordAnnouncement(announcement)
  return { id: announcement.id, kind: 'prompt', language: spoken, ttlMs: CODE_TTL_MS, amountMinor: 0, currency: 'INR', clips, text, count: code, prompt: 'code' }
}

async function withBox<T> (choice: PortChoice, deps: ToolDeps, work: (talk: Talk) => Promise<T>): Promise<T> {
  let status: BoxStatus | null = null
  let latest: BoxHello | undefined
  let greet = (_hello: BoxHello): void => {}
  const greeted = new Promise<BoxHello>(resolve => { greet = resolve })
  const onHello = (hello: BoxHello): void => {
    latest = hello
    greet(hello)
  }
  const box = openSerialBox({ ...boxOptions(choice, deps), onHello, onStatus: news => { status = news }, onLost: () => {} })
  try {
    const hello = await Promise.race([greeted, pause(deps.timers, PROBE_TIMEOUT_MS).then(() => undefined)])
    if (hello === undefined) throw box.error() ?? new SoundboxError('SERIAL_TIMEOUT', `no soundbox answers on ${choice.path} at ${choice.baudRate ?? BAUD_RATE_DEFAULT} baud`)
    return await work({ box, hello, latest: () => latest ?? hello, status: () => status })
  } finally {
    await box.close()
  }
}

function boxOptions ({ path, baudRate }: PortChoice, { timers, log, openPort }: ToolDeps): Pick<Parameters<typeof openSerialBox>[0], 'path' | 'log' | 'timers'> {
  return { path, log, timers, ...(baudRate === undefined ? {} : { baudRate }), ...(openPort === undefined ? {} : { openPort }) }
}

function frameLine (event: FrameEvent): string {
  if (event.kind === 'bad') return `garbage of ${event.bytes} bytes (${event.why})`
  const { type, seq, payload } = event.frame
  try {
    return `${String(seq).padStart(5)} ${describeSerialMessage(decodeSerialMessage(type, payload))}`
  } catch {
    return `${String(seq).padStart(5)} ${serialTypeName(type) ?? `type ${type}`} of ${payload.length} bytes that cannot be read`
  }
}

function pause (timers: Timers, ms: number): Promise<void> {
  return new Promise(resolve => { timers.after(ms, resolve) })
}
