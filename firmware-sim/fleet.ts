// A fleet of simulated soundboxes on MQTT in one process: for demonstrations, load and fault tests, and a bench's other end.
import { encodeMessage, formatTopic, type Log, SILENT_LOG, SoundboxError } from '../protocol/index.js'
import { type BoxKeys, type FleetBox, type FleetClock, openFleetBox } from './fleet-box.js'
import { type FleetFaults, NO_FAULTS, openRandom, type Range } from './fleet-faults.js'
import { type Endpoint, openMqttClient } from './mqtt-client.js'
import { type FleetReport, type Heard, openFleetMeter } from './report.js'

/**
 * `url`: mqtt://host:port or mqtts://host:port. `ca`: PEM, for mqtts. `speakMs`: how long a sound takes, 0 = no time at all.
 * `connectsPerSecond`: pace of the first connections, 0 = all at once. `telemetryMs`: 0 = none. `nowMs` must agree with the gateway's clock.
 */
export type FleetOptions = {
  url: string
  ca?: string
  devices: readonly BoxKeys[]
  seed: number
  nowMs: () => number
  faults?: Partial<FleetFaults>
  speakMs?: number | Range
  connectsPerSecond?: number
  backoff?: { baseMs: number, maxMs: number }
  telemetryMs?: number
  keepaliveS?: number
  log?: Log
}

export type Fleet = {
  boxes: readonly FleetBox[]
  /** Resolves when `count` boxes (all of them by default) are up at one moment. Rejects with GATEWAY_UNREACHABLE after `limitMs`. */
  whenUp: (limitMs: number, count?: number) => Promise<void>
  /** Every sound, oldest first, up to HEARD_MAX of report.ts. */
  spoken: () => readonly Heard[]
  report: () => FleetReport
  close: () => Promise<void>
}

const BACKOFF = { baseMs: 1000, maxMs: 30_000 }
const KEEPALIVE_S = 60
const TICK_MS = 5000
/** What a closing fleet gives its connections to say goodbye. */
const GOODBYE_MS = 2000

/** Switches the fleet on. Throws INPUT_INVALID for a wrong url. */
export function startFleet (options: FleetOptions): Fleet {
  const { devices, seed, nowMs, log = SILENT_LOG, telemetryMs = 0, speakMs = 0, connectsPerSecond = 1000, backoff = BACKOFF, keepaliveS = KEEPALIVE_S } = options
  const endpoint = parseEndpoint(options.url, options.ca)
  const meter = openFleetMeter()
  const { clock, cancelAll } = openFleetClock(nowMs)
  const open = new Set<object>()
  const { look, until } = openWatch()
  const bootPrefix = Math.round(nowMs()).toString(36)
  const faults = { ...NO_FAULTS, ...options.faults }
  const boxes = devices.map((keys, index) => {
    return openFleetBox(keys, {
      clock, faults, backoff, telemetryMs, bootPrefix, meter,
      random: openRandom(seed * 1_000_003 + index),
      startAfterMs: connectsPerSecond === 0 ? 0 : Math.floor(index * 1000 / connectsPerSecond),
      onUp: look,
      speakMs: typeof speakMs === 'number' ? [speakMs, speakMs] : speakMs,
      connect: ({ tid, password }, events) => {
        const will = { topic: formatTopic(tid, 'presence'), payload: encodeMessage({ state: 'offline' }) }
        const client = openMqttClient({ ...endpoint, clientId: tid, password, keepaliveS, will }, {
          ...events,
          onClosed: reason => {
            open.delete(client)
            log.debug({ tid, reason }, 'connection of a simulated soundbox ended')
            events.onClosed(reason)
            look()
          }
        })
        open.add(client)
        return client
      }
    })
  })
  const ticker = setInterval(() => { for (const box of boxes) box.tick(nowMs()) }, Math.min(TICK_MS, keepaliveS * 250))
  const countUp = (): number => boxes.reduce((up, box) => up + (box.isUp() ? 1 : 0), 0)
  return {
    boxes,
    whenUp: async (limitMs, count = boxes.length) => {
      if (!await until(() => countUp() >= count, limitMs)) throw new SoundboxError('GATEWAY_UNREACHABLE', `${countUp()} of ${count} simulated soundboxes are connected after ${limitMs} ms`)
    },
    spoken: meter.heard,
    report: () => meter.report(boxes.length, countUp()),
    close: async () => {
      clearInterval(ticker)
      for (const box of boxes) box.close()
      cancelAll()
      await until(() => open.size === 0, GOODBYE_MS)
    }
  }
}

/** `until` resolves with true when `isTrue` holds at a `look`, with false after `limitMs`. */
function openWatch (): { look: () => void, until: (isTrue: () => boolean, limitMs: number) => Promise<boolean> } {
  const watchers = new Set<() => void>()
  return {
    look: () => { for (const watcher of watchers) watcher() },
    until: (isTrue, limitMs) => new Promise(resolve => {
      const end = (outcome: boolean): void => {
        clearTimeout(timer)
        watchers.delete(check)
        resolve(outcome)
      }
      const check = (): void => { if (isTrue()) end(true) }
      const timer = setTimeout(() => end(false), limitMs)
      watchers.add(check)
      check()
    })
  }
}

/** Timers of the whole fleet, so that closing it leaves none behind. */
function openFleetClock (nowMs: () => number): { clock: FleetClock, cancelAll: () => void } {
  const timers = new Set<NodeJS.Timeout>()
  return {
    clock: {
      nowMs,
      after: (delayMs, work) => {
        const timer = setTimeout(() => {
          timers.delete(timer)
          work()
        }, Math.max(0, delayMs))
        timers.add(timer)
        return () => {
          clearTimeout(timer)
          timers.delete(timer)
        }
      }
    },
    cancelAll: () => {
      for (const timer of timers) clearTimeout(timer)
      timers.clear()
    }
  }
}

function parseEndpoint (url: string, ca: string | undefined): Endpoint {
  const [, scheme, host = '', port] = /^(mqtts?):\/\/(\[[\da-fA-F:]+\]|[\w.-]+)(?::(\d{1,5}))?\/?$/.exec(url) ?? []
  if (scheme === undefined || Number(port ?? 1) > 65_535) throw new SoundboxError('INPUT_INVALID', 'the gateway of a fleet is mqtt://host:port or mqtts://host:port')
  const tls = scheme === 'mqtts' ? (ca === undefined ? {} : { ca }) : null
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port ?? (scheme === 'mqtts' ? 8883 : 1883)), tls }
}
