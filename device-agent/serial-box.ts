// One soundbox behind one serial port: the shell around protocol/serial-host.ts. It opens the port, opens it again when it is lost, and
// turns requests into promises that always settle: with the box's RESULT, or with a reason when the box cannot be asked any more.
import { randomBytes } from 'node:crypto'
import {
  BAUD_RATE_DEFAULT, type BoxAnnouncement, type BoxCommand, type BoxCredentials, type BoxHello, type BoxSettings, type BoxStatus, type CommandArgs,
  type HostEffect, type HostEvent, hostDueMs, type HostRequest, type HostState, isUnanswered, type LinkPolicy, linkPolicy, type Log, makeFrameReader, makeHost,
  type SerialMessage, type SerialResult, SoundboxError, stepHost, type Timers
} from '../protocol/index.js'
import { updateFirmware } from './serial-firmware.js'
import { openSerialLine, type SerialLine } from './serial-line.js'
import type { OpenPort } from './serial-link.js'

/** After the time to live: a sentence of half a minute, a queue in front of it, a reset and a new session. */
export const ANNOUNCE_GRACE_MS = 60_000
export const REQUEST_TTL_MS = 10_000
export const REQUEST_GRACE_MS = 10_000

export type SerialBoxOptions = {
  path: string
  baudRate?: number
  log: Log
  timers: Timers
  openPort?: OpenPort
  /** A session began: after opening, after a reset of the box (then with `isReboot`), after a loss of the line. */
  onHello: (hello: BoxHello, isReboot: boolean) => void
  onStatus: (status: BoxStatus) => void
  /** The end of an announcement that no promise waits for: it was given up before, or another process had asked. */
  onLate?: (result: SerialResult) => void
  /** The box cannot be reached now: why, in words. Requests stay open until their time is over. */
  onLost: (why: string) => void
}

/** Requests reject only where it says so; an announcement never does. */
export type SerialBox = {
  path: string
  /** What the box said of itself in this session; undefined while there is none. */
  hello: () => BoxHello | undefined
  /** Why the port is not open: SERIAL_UNAVAILABLE, with the remedy. */
  error: () => SoundboxError | undefined
  /**
   * Ends as the box says: spoken, duplicate (with `was`), expired, muted, failed (with `reason`); or as expired, link-down (it never left
   * this machine) or failed, no-answer (it did, and the box did not come back in time). `wasAsked`: the agent asked before it was
   * restarted, so the box may have it already; then how that one ended is the result.
   */
  announce: (announcement: BoxAnnouncement, options?: { wasAsked?: boolean }) => Promise<SerialResult>
  /** Throws SERIAL_TIMEOUT, INPUT_INVALID (the box refuses). */
  set: (settings: BoxSettings) => Promise<void>
  /** done or failed; throws SERIAL_TIMEOUT when the box does not answer. */
  command: (name: BoxCommand, args?: CommandArgs) => Promise<SerialResult>
  /** Throws SERIAL_TIMEOUT, INPUT_INVALID (the box has another tid and `replace` is not set). */
  sendCredentials: (credentials: BoxCredentials) => Promise<void>
  /** Resolves when the box runs the image for good. Throws FIRMWARE_INVALID (refused, rolled back), SERIAL_TIMEOUT. */
  updateFirmware: (image: Buffer, options?: { force?: boolean, onProgress?: (done: number, total: number) => void }) => Promise<void>
  /** What is open ends as failed: link-down if it never left this machine, no-answer if it did. */
  close: () => Promise<void>
}

/** Drives the box at a port, whether it is plugged in yet or not. */
export function openSerialBox (options: SerialBoxOptions): SerialBox {
  const live: Live = {
    options, policy: linkPolicy(options.baudRate ?? BAUD_RATE_DEFAULT), host: makeHost(), waiting: new Map(), statusWatchers: new Set(),
    line: undefined, hello: undefined, isClosed: false, cancelTick: undefined
  }
  const askHere: Ask = message => ask(live, message)
  const reader = makeFrameReader()
  live.line = openSerialLine({
    path: options.path, baudRate: live.policy.baudRate, log: options.log, timers: options.timers, openPort: options.openPort,
    onOpen: () => { apply(live, { kind: 'open', session: 1 + randomBytes(4).readUInt32BE(0) % 0xffff_fffe }) },
    onBytes: bytes => { for (const event of reader.push(bytes)) apply(live, event.kind === 'frame' ? event : { kind: 'noise' }) },
    onLost: error => { loseLine(live, error) }
  })
  return {
    path: options.path,
    hello: () => live.hello,
    error: () => live.line?.error(),
    announce: (announcement, { wasAsked = false } = {}) => {
      const { id, ttlMs } = announcement
      return request(live, { id, message: { type: 'ANNOUNCE', ...announcement }, ttlMs, graceMs: ANNOUNCE_GRACE_MS, wasAsked })
    },
    set: async settings => { mustBeDone(await askHere(id => ({ type: 'SET', id, ...settings }))) },
    async command (name, args = {}) {
      const result = await askHere(id => ({ type: 'COMMAND', id, name, args }))
      if (isUnanswered(result)) mustBeDone(result)
      return result
    },
    sendCredentials: async credentials => { mustBeDone(await askHere(id => ({ type: 'CREDENTIALS', id, ...credentials }))) },
    updateFirmware: (image, { force = false, onProgress } = {}) => updateFirmware({
      ask: askHere, timers: options.timers, hello: () => live.hello, isClosed: () => live.isClosed,
      watchStatus: watch => {
        live.statusWatchers.add(watch)
        return () => { live.statusWatchers.delete(watch) }
      }
    }, image, { force, ...(onProgress === undefined ? {} : { onProgress }) }),
    close: () => closeBox(live)
  }
}

type Ask = (message: (id: string) => SerialMessage) => Promise<SerialResult>
type Live = {
  options: SerialBoxOptions, policy: LinkPolicy, host: HostState
  waiting: Map<string, { promise: Promise<SerialResult>, resolve: (result: SerialResult) => void }>
  statusWatchers: Set<(status: BoxStatus) => void>
  line: SerialLine | undefined, hello: BoxHello | undefined, isClosed: boolean, cancelTick: (() => void) | undefined
}

function apply (live: Live, event: HostEvent): void {
  const { timers } = live.options
  const { next, effects } = stepHost(live.host, event, timers.nowMs(), live.policy)
  live.host = next
  for (const effect of effects) handleEffect(live, effect)
  live.cancelTick?.()
  const dueMs = live.isClosed ? undefined : hostDueMs(live.host, live.policy)
  live.cancelTick = dueMs === undefined ? undefined : timers.after(dueMs - timers.nowMs(), () => { apply(live, { kind: 'tick' }) })
}

function handleEffect (live: Live, effect: HostEffect): void {
  const { options } = live
  const { path, log } = options
  switch (effect.kind) {
    case 'write': live.line?.write(effect.bytes); break
    case 'done':
      live.waiting.get(effect.id)?.resolve(effect.result)
      live.waiting.delete(effect.id)
      break
    case 'late': options.onLate?.(effect.result); break
    case 'status':
      for (const watch of live.statusWatchers) watch(effect.status)
      options.onStatus(effect.status)
      break
    case 'up':
      live.hello = effect.box
      log.info({ path, model: effect.box.model, firmware: effect.box.firmware, resetReason: effect.box.resetReason }, 'soundbox answers')
      options.onHello(effect.box, effect.isReboot)
      break
    case 'down':
      live.hello = undefined
      if (live.isClosed) break
      log.warn({ path, why: effect.why }, 'soundbox does not answer')
      options.onLost(live.line?.error()?.message ?? effect.why)
      break
    default: effect satisfies never
  }
}

function loseLine (live: Live, error: SoundboxError): void {
  const wasUp = live.hello !== undefined
  apply(live, { kind: 'close' })
  if (!wasUp) live.options.onLost(error.message)
}

function request (live: Live, wanted: HostRequest): Promise<SerialResult> {
  const { id } = wanted
  const known = live.waiting.get(id)
  if (known !== undefined) return known.promise
  if (live.isClosed) return Promise.resolve({ id, result: 'failed', reason: 'link-down' })
  let resolve!: (result: SerialResult) => void
  const promise = new Promise<SerialResult>(settle => { resolve = settle })
  live.waiting.set(id, { promise, resolve })
  apply(live, { kind: 'request', ...wanted })
  return promise
}

function ask (live: Live, message: (id: string) => SerialMessage): Promise<SerialResult> {
  const id = randomBytes(16).toString('hex')
  return request(live, { id, message: message(id), ttlMs: REQUEST_TTL_MS, graceMs: REQUEST_GRACE_MS })
}

async function closeBox (live: Live): Promise<void> {
  live.isClosed = true
  apply(live, { kind: 'close' })
  for (const [id, { resolve }] of live.waiting) {
    const isUnsure = live.host.requests.some(one => one.id === id && one.state === 'unsure')
    resolve({ id, result: 'failed', reason: isUnsure ? 'no-answer' : 'link-down' })
  }
  live.waiting.clear()
  await live.line?.close()
}

/** Throws SERIAL_TIMEOUT when the box could not be asked, INPUT_INVALID when it refuses. */
function mustBeDone (result: SerialResult): void {
  if (result.result !== 'failed') return
  if (isUnanswered(result)) throw new SoundboxError('SERIAL_TIMEOUT', `soundbox did not answer: ${result.reason}`)
  throw new SoundboxError('INPUT_INVALID', `soundbox refuses: ${result.reason ?? 'without a reason'}`)
}
