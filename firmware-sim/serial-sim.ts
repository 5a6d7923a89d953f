// Simulated soundboxes on serial ports of their own: one pseudo-terminal a box, paced as its baud rate says, with faults from a seed.
import { BAUD_RATE_DEFAULT, makeFirmwareKeys, SoundboxError, type Timers } from '../protocol/index.js'
import { type FaultProfile, NO_FAULTS, profileFromSeed } from './faults.js'
import { openPty, type Pty } from './pty.js'
import { type SimBox, startSimBox } from './sim-box.js'
import type { Sound } from './voice.js'

/** Boxes of one simulator. */
export const SIM_BOXES_MAX = 64
export const SIM_MODEL = 'sb-sim-1'
export const SIM_FIRMWARE = '1.0.0'

export type SerialSimOptions = {
  count: number
  timers: Timers
  /** Serial numbers of the boxes in order; a missing one is `SIM-0001` and so on, `''` is a box that is not provisioned. */
  tids?: readonly string[]
  /** Seed of the faults; undefined is a clean line and a healthy box. */
  faults?: number | undefined
  /** 1: sounds take their time; 0.1: a tenth of it. */
  audioScale?: number
  /** Bytes take the time of this rate; Infinity: none. */
  baudRate?: number
  /** PEM of the key that signs images for these boxes; a new pair is made where none is given. */
  makerKey?: string
  onSound?: (tid: string, sound: Sound) => void
}
export type SerialSim = {
  ports: readonly string[]
  boxes: readonly SimBox[]
  /** PEM to sign images with, when the key pair was made here. */
  privateKey: string | undefined
  /** Pulls the plug of one box: its port goes away for good. */
  unplug: (index: number) => void
  close: () => void
}

/** Starts boxes and returns when their ports can be opened. Throws SERIAL_UNAVAILABLE (no pseudo-terminals), INPUT_INVALID (too many). */
export function startSerialSim (options: SerialSimOptions): SerialSim {
  const { count, timers, tids = [], faults, audioScale = 1, baudRate = BAUD_RATE_DEFAULT } = options
  if (count > SIM_BOXES_MAX) throw new SoundboxError('INPUT_INVALID', `at most ${SIM_BOXES_MAX} boxes run in one simulator`)
  const keys = options.makerKey === undefined ? makeFirmwareKeys() : undefined
  const plugged: { pty: Pty, box: SimBox }[] = []
  const close = (): void => {
    for (const { pty, box } of plugged) {
      box.close()
      pty.close()
    }
  }
  try {
    for (let index = 0; index < count; index++) {
      const tid = tids[index] ?? `SIM-${String(index + 1).padStart(4, '0')}`
      const seed = (faults ?? 0) + index
      const profile = faults === undefined ? NO_FAULTS : profileFromSeed(seed)
      plugged.push(plugIn({ options, tid, profile, audioScale, baudRate, timers, seed, makerKey: options.makerKey ?? keys!.publicKey }))
    }
  } catch (error) {
    close()
    throw error
  }
  return {
    ports: plugged.map(({ pty }) => pty.path),
    boxes: plugged.map(({ box }) => box),
    privateKey: keys?.privateKey,
    unplug: index => {
      plugged[index]?.box.close()
      plugged[index]?.pty.close()
    },
    close
  }
}

function plugIn (about: {
  options: SerialSimOptions, tid: string, profile: FaultProfile, audioScale: number, baudRate: number, timers: Timers, seed: number, makerKey: string
}): { pty: Pty, box: SimBox } {
  const { options, tid, profile, ...rest } = about
  const pty = openPty(bytes => { box.take(bytes) })
  const box = startSimBox({
    ...rest, model: SIM_MODEL, firmware: SIM_FIRMWARE, tid: tid === '' ? undefined : tid, faults: profile, write: pty.write,
    onSound: sound => { options.onSound?.(tid, sound) }
  })
  return { pty, box }
}
