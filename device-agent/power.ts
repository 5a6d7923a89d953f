// The battery of this machine, where Linux tells of one.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** `battery`: percent. */
export type Power = { battery: number, charging: boolean }

/** Where Linux lists batteries and chargers. */
export const POWER_SUPPLY = '/sys/class/power_supply'

/** The first battery below `folder`, or undefined on a machine without one. */
export function readPower (folder: string = POWER_SUPPLY): Power | undefined {
  try {
    for (const name of readdirSync(folder)) {
      const read = (file: string): string => readFileSync(join(folder, name, file), 'utf8').trim()
      if (read('type') !== 'Battery') continue
      const battery = Number(read('capacity'))
      if (Number.isInteger(battery) && battery >= 0 && battery <= 100) return { battery, charging: ['Charging', 'Full'].includes(read('status')) }
    }
  } catch {
    return undefined
  }
  return undefined
}
