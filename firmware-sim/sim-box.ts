// A simulated soundbox with its line, clock and faults around the pure firmware. The transport (a PTY, a test's pipe) is given.
import { type Button, type LinkPolicy, linkPolicy, makeFrameReader, type Timers } from '../protocol/index.js'
import { type FaultProfile, NO_FAULTS, type Random, spoilBytes } from './faults.js'
import { openRandom } from './fleet-faults.js'
import { type BoxOptions, type FirmwareEffect, type FirmwareEvent, firmwareDueMs, type FirmwareState, stepFirmware } from './firmware.js'
import { type Flash, makeFlash } from './flash.js'
import { type Line, makeLine } from './line.js'
import type { Sound } from './voice.js'

export const BOOT_MS = 400

export type SimBoxOptions = BoxOptions & {
  tid?: string | undefined
  flash?: Flash
  /** Bytes to the host. */
  write: (bytes: Buffer) => void
  timers: Timers
  faults?: FaultProfile | undefined
  seed?: number
  onSound?: (sound: Sound) => void
}
/** `sounds`: everything that could be heard, in order, cut off or whole. */
export type SimBox = {
  sounds: readonly Sound[]
  flash: () => Flash
  isPowered: () => boolean
  take: (bytes: Uint8Array) => void
  press: (button: Button) => void
  /** Power off and on, as a crash: what plays is cut off, what waits is forgotten. */
  reboot: (reason: string) => void
  /** Hangs for so long (or for ever, with Infinity): reads nothing, says nothing. Then the watchdog resets it. */
  stick: (ms: number) => void
  /** From now on without faults: what is broken heals. */
  heal: () => void
  close: () => void
}

/** Switches a box on. */
export function startSimBox (options: SimBoxOptions): SimBox {
  const { timers, baudRate, seed = 1 } = options
  const random = openRandom(seed)
  const reader = makeFrameReader()
  const spoil = (bytes: Buffer): { bytes: Buffer, stallMs: number } => spoilBytes(bytes, live.faults, random)
  const live: Live = {
    options, random, policy: linkPolicy(baudRate), faults: options.faults ?? NO_FAULTS, sounds: [], isClosed: false, isStuck: false, cancels: new Set(), cancelTick: undefined,
    state: { flash: options.flash ?? makeFlash(options.tid), ram: undefined, options },
    out: makeLine({ baudRate, timers, spoil, deliver: options.write })
  }
  const into = makeLine({ baudRate, timers, spoil, deliver: bytes => {
    for (const event of reader.push(bytes)) apply(live, event.kind === 'frame' ? event : { kind: 'noise' })
  } })
  apply(live, { kind: 'boot', reason: 'power' })
  return {
    sounds: live.sounds,
    flash: () => live.state.flash,
    isPowered: () => live.state.ram !== undefined && !live.isStuck,
    take: bytes => { if (!live.isClosed) into.push(Buffer.from(bytes)) },
    press: button => { apply(live, { kind: 'press', button }) },
    reboot: reason => { reboot(live, reason) },
    stick: ms => { stick(live, ms) },
    heal: () => { live.faults = NO_FAULTS },
    close () {
      live.isStuck = false
      apply(live, { kind: 'crash' })
      live.isClosed = true
      live.cancelTick?.()
      for (const cancel of live.cancels) cancel()
      live.out.close()
      into.close()
    }
  }
}

type Live = {
  options: SimBoxOptions, random: Random, policy: LinkPolicy, faults: FaultProfile, state: FirmwareState, sounds: Sound[], out: Line
  isClosed: boolean, isStuck: boolean, cancels: Set<() => void>, cancelTick: (() => void) | undefined
}

function apply (live: Live, event: FirmwareEvent): void {
  if (live.isClosed || live.isStuck) return
  const { timers } = live.options
  const { next, effects } = stepFirmware(live.state, event, timers.nowMs(), live.policy)
  live.state = next
  for (const effect of effects) handleEffect(live, effect)
  live.cancelTick?.()
  const dueMs = firmwareDueMs(live.state, live.policy)
  live.cancelTick = dueMs === undefined ? undefined : timers.after(dueMs - timers.nowMs(), () => { apply(live, { kind: 'tick' }) })
}

function handleEffect (live: Live, effect: FirmwareEffect): void {
  switch (effect.kind) {
    case 'write': live.out.push(effect.bytes); break
    case 'sound':
      live.sounds.push(effect.sound)
      live.options.onSound?.(effect.sound)
      break
    case 'starts': drawFault(live); break
    case 'restart': bootLater(live, effect.reason); break
    default: effect satisfies never
  }
}

/** Some time in or shortly after the sound that begins now. */
function drawFault (live: Live): void {
  const { random, faults, options } = live
  const isReboot = random() < faults.reboot
  const isStick = random() < faults.stick
  if (!isReboot && !isStick) return
  const inMs = random() * 4000 * options.audioScale
  const stuckMs = random() * faults.stuckMsMax
  later(live, inMs, () => { isReboot ? reboot(live, 'power') : stick(live, stuckMs) })
}

function later (live: Live, ms: number, run: () => void): void {
  if (ms === Infinity) return
  const cancel = live.options.timers.after(ms, () => {
    live.cancels.delete(cancel)
    run()
  })
  live.cancels.add(cancel)
}

function bootLater (live: Live, reason: string): void {
  later(live, BOOT_MS, () => { if (live.state.ram === undefined) apply(live, { kind: 'boot', reason }) })
}

function reboot (live: Live, reason: string): void {
  live.isStuck = false
  apply(live, { kind: 'crash' })
  bootLater(live, reason)
}

function stick (live: Live, ms: number): void {
  if (live.state.ram === undefined || live.isStuck) return
  live.isStuck = true
  live.cancelTick?.()
  later(live, ms, () => { if (live.isStuck) reboot(live, 'watchdog') })
}
