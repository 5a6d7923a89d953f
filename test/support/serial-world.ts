// A serial line in memory: the agent's real driver at one end, the simulated box at the other, a clock that jumps, faults from a seed.
import { openSerialBox, type SerialBox } from '../../device-agent/serial-box.js'
import type { OpenPort } from '../../device-agent/serial-link.js'
import type { FaultProfile, Random } from '../../firmware-sim/faults.js'
import { openRandom } from '../../firmware-sim/fleet-faults.js'
import { type SimBox, startSimBox } from '../../firmware-sim/sim-box.js'
import { type BoxAnnouncement, type BoxHello, type BoxStatus, makeFirmwareKeys, type SerialResult, SILENT_LOG, SoundboxError, type Timers } from '../../protocol/index.js'
import { seedsOf } from './random.js'

export const MAKER = makeFirmwareKeys()
export const BAUD = 115_200

/** A clock that moves only when told to; what is due runs in order of time, promises between. */
export type FakeClock = Timers & { advance: (ms: number) => Promise<void>, runUntil: (isDone: () => boolean, limitMs: number) => Promise<boolean> }

/** `eventsATurn`: promises go on after so many events. 1 is exact; a test runner's hooks make each turn dear, and a thousand runs take fewer. */
export function makeFakeClock (eventsATurn = 1): FakeClock {
  let now = 0
  let count = 0
  const due: { atMs: number, order: number, run: () => void }[] = []

  function step (limitMs: number): boolean {
    const next = due.at(-1)
    if (next === undefined || next.atMs > limitMs) return false
    due.pop()
    now = Math.max(now, next.atMs)
    next.run()
    return true
  }

  return {
    nowMs: () => now,
    after (ms, run) {
      // On a grid, upwards: rounding must never make a timer run a hair before the moment it was set for.
      const atMs = Math.ceil((now + Math.max(0, ms)) * 1024 + 1e-6) / 1024
      const entry = { atMs, order: count++, run }
      let at = due.length // Latest first: most timers are short and go near the end.
      while (at > 0 && due[at - 1]!.atMs <= entry.atMs) at--
      due.splice(at, 0, entry)
      return () => {
        const index = due.indexOf(entry)
        if (index >= 0) due.splice(index, 1)
      }
    },
    async advance (ms) {
      const limitMs = now + ms
      await settle()
      for (let events = 1; step(limitMs); events++) if (events % eventsATurn === 0) await null
      await settle()
      now = limitMs
    },
    async runUntil (isDone, limitMs) {
      await settle()
      for (let events = 1; !isDone() && step(limitMs); events++) if (events % eventsATurn === 0) await null
      await settle()
      return isDone()
    }
  }
}

/** Lets every promise that can go on do so. */
async function settle (): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await null
}

export type World = {
  clock: FakeClock
  sim: SimBox
  hellos: { hello: BoxHello, isReboot: boolean }[]
  statuses: BoxStatus[]
  late: SerialResult[]
  losses: string[]
  host: () => SerialBox
  /** Pulls the plug: the port is gone and cannot be opened until `plug`. */
  unplug: () => void
  plug: () => void
  /** The agent dies as by SIGKILL: nothing is said, nothing settles. A new one opens the port. */
  killHost: () => void
  close: () => Promise<void>
}

/** A world with one box, its host already opening. */
export function startWorld (options: { seed?: number, faults?: FaultProfile, tid?: string | undefined, audioScale?: number, firmware?: string, eventsATurn?: number } = {}): World {
  const clock = makeFakeClock(options.eventsATurn)
  const hellos: World['hellos'] = []
  const statuses: BoxStatus[] = []
  const late: SerialResult[] = []
  const losses: string[] = []
  let isPlugged = true
  let current: { onBytes: (bytes: Buffer) => void, onClosed: (why: string) => void } | undefined
  const openPortOf = (mine: { isDead: boolean }): OpenPort => async ({ path, onBytes, onClosed }) => {
    if (mine.isDead) return await new Promise<never>(() => {})
    if (!isPlugged) throw new SoundboxError('SERIAL_UNAVAILABLE', `port ${path} is not there`)
    const port = { onBytes, onClosed }
    current = port
    return { write: bytes => { if (current === port) sim.take(bytes) }, close: async () => { if (current === port) current = undefined } }
  }
  const sim = startSimBox({
    model: 'sb-1', firmware: options.firmware ?? '1.0.0', makerKey: MAKER.publicKey, audioScale: options.audioScale ?? 1, baudRate: BAUD,
    tid: 'tid' in options ? options.tid : 'SB-0001', write: bytes => { current?.onBytes(bytes) }, timers: clock, seed: options.seed ?? 1, faults: options.faults
  })
  const open = (): SerialBox => {
    const mine = { isDead: false }
    const box = openSerialBox({
      path: '/dev/fake', log: SILENT_LOG, timers: clock, openPort: openPortOf(mine), baudRate: BAUD,
      onHello: (hello, isReboot) => { if (!mine.isDead) hellos.push({ hello, isReboot }) },
      onStatus: status => { if (!mine.isDead) statuses.push(status) },
      onLate: result => { if (!mine.isDead) late.push(result) },
      onLost: why => { if (!mine.isDead) losses.push(why) }
    })
    kill = () => { mine.isDead = true }
    return box
  }
  let kill = (): void => {}
  let host = open()
  return {
    clock, sim, hellos, statuses, late, losses,
    host: () => host,
    unplug () {
      isPlugged = false
      const lost = current
      current = undefined
      lost?.onClosed('unplugged')
    },
    plug () { isPlugged = true },
    killHost () {
      kill()
      current = undefined // The dead one hears and writes nothing from here on.
      host = open()
    },
    async close () {
      sim.close()
      await host.close()
    }
  }
}

/** A payment's announcement; `n` makes its id. */
export function announcementOf (n: number, changes: Partial<BoxAnnouncement> = {}): BoxAnnouncement {
  return {
    id: n.toString(16).padStart(32, '0'), kind: 'payment', language: 'ENGLISH', ttlMs: 60_000, amountMinor: 1900, currency: 'INR',
    clips: ['received', 'rupees', 'n19'], text: 'Received rupees nineteen', ...changes
  }
}

/** Runs `test` once a seed, one after the other; how many and which as in random.ts. */
export async function forSeeds (count: number, test: (random: Random, seed: number) => void | Promise<void>): Promise<void> {
  for (const seed of seedsOf(count)) await test(openRandom(seed), seed)
}
