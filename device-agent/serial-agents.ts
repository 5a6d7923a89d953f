// One agent for each soundbox on the serial ports of this machine: it starts when a box with a known serial number answers, goes on while
// the box is gone for a moment, and says goodbye to the gateway when the box stays away.
import type { BoxHello, BoxStatus, Log, Telemetry, Timers } from '../protocol/index.js'
import type { Agent } from './agent.js'
import type { SerialBox } from './serial-box.js'
import { openSerialFleet } from './serial-fleet.js'
import type { OpenPort } from './serial-link.js'

/** A box that is away for less was only restarted, or its plug was touched. */
export const UNPLUGGED_MS = 15_000

/** What an agent may ask of its box at any time. */
export type BoxLine = { box: () => SerialBox | undefined, readings: () => Telemetry }
export type RunningAgent = { agent: Agent, close: () => Promise<void> }
export type SerialAgentsOptions = {
  /** Paths of ports; `auto` alone: every adapter that is plugged in. */
  ports: readonly string[]
  baudRate: number
  timers: Timers
  log: Log
  /** Starts the agent of a box; undefined when this serial number has no credentials here. */
  startAgent: (tid: string, line: BoxLine) => Promise<RunningAgent | undefined>
  openPort?: OpenPort
}
export type SerialAgents = { tids: () => readonly string[], close: () => Promise<void> }

type Seat = { hello: BoxHello, status: BoxStatus | undefined, running: Promise<RunningAgent | undefined>, cancelGoodbye: () => void }

/** Drives the ports until `close`. Throws what openSerialFleet throws. */
export function openSerialAgents (options: SerialAgentsOptions): SerialAgents {
  const { ports, baudRate, timers, log, startAgent, openPort } = options
  const seats = new Map<string, Seat>()
  let isClosed = false
  const isAuto = ports.includes('auto')
  const fleet = openSerialFleet({
    ports: isAuto ? [] : ports, ids: isAuto ? ['*'] : [], baudRate, timers, log, ...(openPort === undefined ? {} : { openPort }),
    onBox: (tid, _box, hello) => {
      const known = seats.get(tid)
      if (known === undefined) seats.set(tid, sitDown(tid, hello))
      else {
        known.cancelGoodbye()
        known.hello = hello
        known.running.then(running => running?.agent.refresh())
      }
    },
    onStatus: (tid, status) => {
      const seat = seats.get(tid)
      if (seat !== undefined) takeStatus(seat, status)
    },
    onLate: (tid, { id, result, reason }) => { log.warn({ tid, id, result, reason }, 'soundbox told how a request ended after it was given up') },
    onLost: tid => {
      const seat = seats.get(tid)
      if (seat === undefined || isClosed) return
      seat.cancelGoodbye()
      seat.cancelGoodbye = timers.after(UNPLUGGED_MS, () => {
        seats.delete(tid)
        log.warn({ tid }, 'soundbox stays away: its connection to the gateway is closed')
        seat.running.then(running => running?.close())
      })
    }
  })
  const sitDown = (tid: string, hello: BoxHello): Seat => {
    const line: BoxLine = { box: () => fleet.box(tid), readings: () => readingsOf(seats.get(tid)) }
    const running = startAgent(tid, line).then(started => {
      if (started === undefined) log.error({ tid }, 'soundbox on a serial port has no credentials here')
      else started.agent.refresh()
      return started
    }).catch((err: unknown) => {
      log.error({ err, tid }, 'agent of a soundbox could not be started')
      return undefined
    })
    return { hello, status: undefined, running, cancelGoodbye: () => {} }
  }
  return {
    tids: () => [...seats.keys()],
    close: async () => {
      isClosed = true
      for (const seat of seats.values()) seat.cancelGoodbye()
      await Promise.all([...seats.values()].map(async seat => (await seat.running)?.close()))
      await fleet.close()
    }
  }
}

/** A volume button that was pressed since the last status is the shop's own wish. */
function takeStatus (seat: Seat, status: BoxStatus): void {
  const before = seat.status?.button
  seat.status = status
  const { button, volume } = status
  if (button === undefined || button.name === 'replay' || (before?.name === button.name && before.presses === button.presses)) return
  seat.running.then(running => running?.agent.turnVolume(volume))
}

function readingsOf (seat: Seat | undefined): Telemetry {
  const { battery, charging, rssi, network = 'serial', freeBytes, uptimeS, volume } = seat?.status ?? {}
  const resetReason = seat?.hello.resetReason
  return {
    network,
    ...(battery === undefined ? {} : { battery }), ...(charging === undefined ? {} : { charging }), ...(rssi === undefined ? {} : { rssi }),
    ...(freeBytes === undefined ? {} : { freeBytes }), ...(uptimeS === undefined ? {} : { uptimeS }), ...(volume === undefined ? {} : { volume }),
    ...(resetReason === undefined ? {} : { resetReason })
  }
}
