// All the soundboxes on the serial ports of one machine: which ports there are, who is behind them, and that no two say the same tid.
//
// Ports are named outright, or found: `ids` are parts of the stable names under /dev/serial/by-id, `*` is every one. A port that is named
// is tried for ever; one that was found goes when its name stays away: a box that resets takes its USB port away for a moment, and what it
// was asked is still its to answer. Of two boxes with one tid the second is closed and tried again later:
// a payment must not be heard in two shops.
import { type BoxHello, type BoxStatus, type Log, type SerialResult, SoundboxError, type Timers } from '../protocol/index.js'
import { openSerialBox, type SerialBox } from './serial-box.js'
import { listSerialPorts, type OpenPort, type PortInfo, portsFingerprint } from './serial-link.js'

/** Ports of one agent; more are refused when named and left alone when found. */
export const PORTS_MAX = 32
export const RESCAN_MS = 2000
export const REFUSED_RETRY_MS = 30_000
/** An announcement's time to live and the wait for its answer: what was asked of a box that is gone has ended by then. */
export const ABSENT_MS = 120_000
const FULL_SCAN_EVERY = 15 // Every so many looks the system is asked in full: it may have no folder of stable names.

export type SerialFleetOptions = {
  ports: readonly string[]
  ids?: readonly string[]
  baudRate?: number
  log: Log
  timers: Timers
  openPort?: OpenPort
  /** For machines without such ports, and for tests. */
  listPorts?: () => Promise<readonly PortInfo[]>
  fingerprint?: () => Promise<string>
  /** A box with this tid answers: the first time, after a loss, or after a reset (`isReboot`). */
  onBox: (tid: string, box: SerialBox, hello: BoxHello, isReboot: boolean) => void
  onStatus: (tid: string, status: BoxStatus) => void
  onLate?: (tid: string, result: SerialResult) => void
  onLost: (tid: string, why: string) => void
}
/** `problem`: why there is no box of ours behind the port now, SERIAL_UNAVAILABLE or ALREADY_EXISTS. */
export type FleetPort = { path: string, tid?: string, isUp: boolean, problem?: SoundboxError }
export type SerialFleet = {
  /** The box with this tid, while it answers. */
  box: (tid: string) => SerialBox | undefined
  ports: () => FleetPort[]
  /** Looks for ports now instead of at the next turn. */
  rescan: () => Promise<void>
  close: () => Promise<void>
}
/** `absentAtMs`: since when the name of a port that was found is not listed. */
type Entry = {
  path: string, isNamed: boolean, absentAtMs: number | undefined, box: SerialBox | undefined, tid: string | undefined
  refusal: SoundboxError | undefined, cancelRetry: (() => void) | undefined
}
type Live = { options: SerialFleetOptions, entries: Map<string, Entry>, fingerprint: string, looks: number, isClosed: boolean, cancelScan: (() => void) | undefined }

/** Starts to drive every port. Throws INPUT_INVALID above PORTS_MAX named ports. */
export function openSerialFleet (options: SerialFleetOptions): SerialFleet {
  const named = [...new Set(options.ports)]
  if (named.length > PORTS_MAX) throw new SoundboxError('INPUT_INVALID', `at most ${PORTS_MAX} serial ports can be driven by one agent`)
  const live: Live = { options, entries: new Map(), fingerprint: '', looks: 0, isClosed: false, cancelScan: undefined }
  for (const path of named) drive(live, path, true)
  void scanAndAgain(live)
  return {
    box: tid => [...live.entries.values()].find(entry => entry.tid === tid && entry.box?.hello() !== undefined)?.box,
    ports: () => [...live.entries.values()].map(portFromEntry),
    rescan: () => rescan(live),
    async close () {
      live.isClosed = true
      live.cancelScan?.()
      await Promise.all([...live.entries.values()].map(closeEntry))
      live.entries.clear()
    }
  }
}

function portFromEntry ({ path, tid, box, refusal }: Entry): FleetPort {
  const problem = refusal ?? box?.error()
  return { path, isUp: box?.hello() !== undefined, ...(tid === undefined ? {} : { tid }), ...(problem === undefined ? {} : { problem }) }
}

function drive (live: Live, path: string, isNamed: boolean): void {
  const entry: Entry = { path, isNamed, absentAtMs: undefined, box: undefined, tid: undefined, refusal: undefined, cancelRetry: undefined }
  live.entries.set(path, entry)
  openEntry(live, entry)
}

function openEntry (live: Live, entry: Entry): void {
  const { options } = live
  const { baudRate, openPort, log, timers } = options
  entry.box = openSerialBox({
    path: entry.path, log, timers, ...(baudRate === undefined ? {} : { baudRate }), ...(openPort === undefined ? {} : { openPort }),
    onHello: (hello, isReboot) => { greet(live, entry, { hello, isReboot }) },
    onStatus: status => { if (entry.tid !== undefined) options.onStatus(entry.tid, status) },
    onLate: result => { if (entry.tid !== undefined) options.onLate?.(entry.tid, result) },
    onLost: why => { if (entry.tid !== undefined) options.onLost(entry.tid, why) }
  })
}

function greet (live: Live, entry: Entry, { hello, isReboot }: { hello: BoxHello, isReboot: boolean }): void {
  const { log, onBox, onLost } = live.options
  const { tid } = hello
  if (entry.box === undefined) return
  if (entry.tid !== undefined && entry.tid !== tid) onLost(entry.tid, 'the soundbox at its port has another serial number')
  entry.tid = undefined
  const other = [...live.entries.values()].find(one => tid !== undefined && one.tid === tid && one.box?.hello() !== undefined)
  if (tid === undefined) log.warn({ path: entry.path, model: hello.model }, 'soundbox is not provisioned')
  else if (other !== undefined) refuse(live, entry, `soundbox ${tid} is at ${other.path} and again at ${entry.path}: provision one of them with its own serial number`)
  else {
    entry.tid = tid
    onBox(tid, entry.box, hello, isReboot)
  }
}

function refuse (live: Live, entry: Entry, why: string): void {
  const { log, timers } = live.options
  entry.refusal = new SoundboxError('ALREADY_EXISTS', why)
  log.error({ path: entry.path, err: entry.refusal }, 'two soundboxes have one serial number')
  void closeEntry(entry)
  entry.cancelRetry = timers.after(REFUSED_RETRY_MS, () => {
    entry.refusal = undefined
    openEntry(live, entry)
  })
}

async function closeEntry (entry: Entry): Promise<void> {
  const { box } = entry
  Object.assign(entry, { box: undefined, tid: undefined })
  entry.cancelRetry?.()
  await box?.close()
}

async function rescan (live: Live): Promise<void> {
  const { ids = [], listPorts = listSerialPorts, fingerprint = portsFingerprint } = live.options
  const isFull = live.looks++ % FULL_SCAN_EVERY === 0
  const now = await fingerprint()
  if (!isFull && now === live.fingerprint) return
  live.fingerprint = now
  const listed = await listPorts()
  if (live.isClosed) return
  const wanted = listed.filter(port => ids.some(id => id === '*' || port.stablePath.includes(id))).map(port => port.stablePath)
  await dropAbsent(live, wanted)
  for (const path of wanted) {
    if (!live.entries.has(path) && live.entries.size < PORTS_MAX) drive(live, path, false)
  }
}

async function dropAbsent (live: Live, wanted: readonly string[]): Promise<void> {
  const nowMs = live.options.timers.nowMs()
  for (const entry of [...live.entries.values()].filter(entry => !entry.isNamed)) {
    entry.absentAtMs = wanted.includes(entry.path) ? undefined : entry.absentAtMs ?? nowMs
    if (entry.absentAtMs === undefined || nowMs - entry.absentAtMs < ABSENT_MS) continue
    live.entries.delete(entry.path)
    await closeEntry(entry)
  }
}

async function scanAndAgain (live: Live): Promise<void> {
  const { ids = [], log, timers } = live.options
  if (ids.length === 0 || live.isClosed) return
  await rescan(live).catch((error: unknown) => { log.warn({ err: error }, 'serial ports cannot be listed') })
  if (!live.isClosed) live.cancelScan = timers.after(RESCAN_MS, () => { void scanAndAgain(live) })
}
