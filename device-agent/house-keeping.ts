// What a box says of itself: that it starts, is connected, lost its connection, or needs power; and the readings behind telemetry.
import type { Prompt, Telemetry } from '../protocol/index.js'
import type { Clock } from './clock.js'

/** `battery`: percent. */
export type Power = { battery: number, charging: boolean }

/** A connection that is gone for less is nobody's business. */
export const CONNECTION_LOST_MS = 15_000
export const BATTERY_LOW_PERCENT = 15
/** Above this, or charging, the next fall is told again. */
const BATTERY_FINE_PERCENT = 20

export type LinkPrompts = { onUp: () => void, onDown: () => void, close: () => void }

/** Says `connected` once at the start and after each loss that was told, and `connection-lost` when the link stays away. */
export function openLinkPrompts (clock: Clock, say: (prompt: Prompt) => void): LinkPrompts {
  let isTold = false
  let cancel = clock.after(CONNECTION_LOST_MS, () => say('connection-lost'))
  return {
    onUp: () => {
      cancel()
      if (!isTold) say('connected')
      isTold = true
    },
    onDown: () => {
      cancel()
      cancel = clock.after(CONNECTION_LOST_MS, () => {
        if (isTold) say('connection-lost')
        isTold = false
      })
    },
    close: () => cancel()
  }
}

/** Feeds on readings; true when this one is to be told: once each time the battery falls to BATTERY_LOW_PERCENT on its own power. */
export function openBatteryWatch (): (power: Power | undefined) => boolean {
  let isTold = false
  return power => {
    if (power === undefined) return false
    if (power.charging || power.battery > BATTERY_FINE_PERCENT) isTold = false
    if (isTold || power.charging || power.battery > BATTERY_LOW_PERCENT) return false
    isTold = true
    return true
  }
}

/** Telemetry of one moment. */
export function telemetryOf (now: { power: Power | undefined, volume: number, uptimeMs: number, freeBytes: number, resetReason: string }): Telemetry {
  return {
    ...(now.power === undefined ? {} : now.power),
    network: 'mqtt',
    volume: now.volume,
    uptimeS: Math.floor(now.uptimeMs / 1000),
    freeBytes: now.freeBytes,
    resetReason: now.resetReason
  }
}
