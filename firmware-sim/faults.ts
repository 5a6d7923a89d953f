// Seeded faults of a serial line and of a soundbox: the same seed gives the same run.
import { openRandom } from './fleet-faults.js'

/** Numbers in [0, 1). */
export type Random = () => number

/**
 * Chances 0..1. Of each write on the line: `flip` one bit, `loss` of one byte, `burst` of garbage in front, `half` of it cut off,
 * `stall` up to `stallMsMax`. Of each sound: `reboot` in its middle, `stick` for up to `stuckMsMax` until the watchdog bites.
 */
export type FaultProfile = {
  flip: number, loss: number, burst: number, half: number, stall: number, stallMsMax: number, reboot: number, stick: number, stuckMsMax: number
}
export const NO_FAULTS: FaultProfile = { flip: 0, loss: 0, burst: 0, half: 0, stall: 0, stallMsMax: 0, reboot: 0, stick: 0, stuckMsMax: 0 }
export const BURST_BYTES_MAX = 200

/** A profile drawn from a seed: some lines are nearly clean, some lose a third of what is written. */
export function profileFromSeed (seed: number): FaultProfile {
  const random = openRandom(seed)
  const roughness = random() ** 2 * 0.3
  const chance = (): number => random() * roughness
  return {
    flip: chance(), loss: chance(), burst: chance(), half: chance(), stall: chance(), stallMsMax: 2500,
    reboot: random() < 0.5 ? 0 : random() * 0.3, stick: random() < 0.7 ? 0 : random() * 0.1, stuckMsMax: 12_000
  }
}

/** What arrives of a write, and how much later than it should. */
export function spoilBytes (bytes: Buffer, profile: FaultProfile, random: Random): { bytes: Buffer, stallMs: number } {
  let spoilt = bytes
  if (random() < profile.flip && spoilt.length > 0) {
    spoilt = Buffer.from(spoilt)
    const at = Math.floor(random() * spoilt.length)
    spoilt[at] = spoilt[at]! ^ (1 << Math.floor(random() * 8))
  }
  if (random() < profile.loss && spoilt.length > 0) {
    const at = Math.floor(random() * spoilt.length)
    spoilt = Buffer.concat([spoilt.subarray(0, at), spoilt.subarray(at + 1)])
  }
  if (random() < profile.half) spoilt = spoilt.subarray(0, Math.floor(random() * spoilt.length))
  if (random() < profile.burst) {
    const garbage = Buffer.from(Array.from({ length: 1 + Math.floor(random() * BURST_BYTES_MAX) }, () => Math.floor(random() * 256)))
    spoilt = Buffer.concat([garbage, spoilt])
  }
  return { bytes: spoilt, stallMs: random() < profile.stall ? random() * profile.stallMsMax : 0 }
}
