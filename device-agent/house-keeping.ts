// What a box says of itself unasked: that it is connected, lost its connection, or needs power.
import type { Prompt, Telemetry, Timers } from '../protocol/index.js'

/** A connection that is gone for less is nobody's business. */
export const CONNECTION_LOST_MS = 15_000
export const BATTERY_LOW_PERCENT = 15
/** Above this, or charging, the next fall is told again. */
const BATTERY_FINE_PERCENT = 20

export type LinkPrompts = { onUp: () => void, onDown: () => void, close: () => void }

/** Says `connected` once at the start and after each loss that was told, and `connection-lost` when the link stays away. */
export function openLinkPrompts (clock: Timers, say: (prompt: Prompt) => void): LinkPrompts {
  let isTold = false
  let isClosed = false
  let cancel = clock.after(CONNECTION_LOST_MS, () => say('connection-lost'))
  return {
    onUp: () => {
      cancel()
      if (!isTold) say('connected')
      isTold = true
    },
    onDown: () => {
      cancel()
      if (isClosed) return
      cancel = clock.after(CONNECTION_LOST_MS, () => {
        if (isTold) say('connection-lost')
        isTold = false
      })
    },
    close: () => {
      isClosed = true
      cancel()
    }
  }
}

/** Feeds on readings; true when this one is to be told: once each time the battery falls to BATTERY_LOW_PERCENT on its own power. */
export function openBatteryWatch (): (readings: Pick<Telemetry, 'battery' | 'charging'>) => boolean {
  let isTold = false
  return ({ battery, charging }) => {
    if (battery === undefined) return false
    if (charging === true || battery > BATTERY_FINE_PERCENT) isTold = false
    if (isTold || charging === true || battery > BATTERY_LOW_PERCENT) return false
    isTold = true
    return true
  }
}
