// What the two halves of the simulated firmware share: its state, and the few things that both a request and a button can cause.
import type { Button, Frame, LinkPolicy, LinkState, SerialMessage } from '../protocol/index.js'
import { type Flash, runningImage } from './flash.js'
import { type Sentence, type Sound, VOICE_QUEUE_MAX, type Voice } from './voice.js'

const OUTBOX_MAX = 16

/** `makerKey`: PEM of the Ed25519 key that signs images. `audioScale` 1: sounds take their real time. */
export type BoxOptions = { model: string, firmware: string, makerKey: string, audioScale: number, baudRate: number }
export type Ram = {
  link: LinkState, voice: Voice, outbox: readonly SerialMessage[], presses: Record<Button, number>
  bootedMs: number, statusAtMs: number, statusEveryMs: number, resetReason: string, isTested: boolean, display: string
  restart: { atMs: number, reason: string } | undefined
}
/** `ram` undefined: without power. */
export type FirmwareState = { flash: Flash, ram: Ram | undefined, options: BoxOptions }
export type FirmwareEvent =
  | { kind: 'boot', reason: string }
  | { kind: 'crash' }
  | { kind: 'frame', frame: Frame }
  | { kind: 'noise' }
  | { kind: 'press', button: Button }
  | { kind: 'tick' }
/** `restart`: the firmware resets itself; the shell boots it again. */
export type FirmwareEffect = { kind: 'write', bytes: Buffer } | { kind: 'sound', sound: Sound } | { kind: 'starts', id: string | undefined } | { kind: 'restart', reason: string }

/** What the handlers of one step share: state to be changed in place, and what comes out. */
export type Step = { flash: Flash, ram: Ram, options: BoxOptions, effects: FirmwareEffect[], nowMs: number, policy: LinkPolicy }

/** The version that runs. */
export function runningVersion (flash: Flash, options: BoxOptions): string {
  return runningImage(flash)?.header.version ?? options.firmware
}

/** Puts a sentence behind those that wait. False when the queue is full. */
export function enqueue (step: Step, sentence: Sentence): boolean {
  const { voice } = step.ram
  if (voice.queue.length >= VOICE_QUEUE_MAX) return false
  step.ram.voice = { ...voice, queue: [...voice.queue, sentence] }
  return true
}

/** Says the last payments again, newest first, each with the clip `repeat` in front; without any, that there are none. */
export function repeatRecents (step: Step): void {
  const { recents } = step.flash
  if (recents.length === 0) enqueue(step, ownSentence(step, 'prompt', ['no-payments'], true))
  for (const recent of recents) enqueue(step, { ...ownSentence(step, 'payment', ['repeat', ...recent.clips], true), text: `repeat: ${recent.text}`, amountMinor: recent.amountMinor })
}

/** A sentence of the box's own, without an id and without an end of its time. */
export function ownSentence (step: Step, kind: Sentence['kind'], clips: readonly string[], isRepeat: boolean): Sentence {
  return { kind, clips, text: clips.join(' '), amountMinor: 0, arrivedMs: step.nowMs, expiresMs: Infinity, isRepeat }
}

/** Puts a message for the host behind those that wait; when too many do, the oldest goes. */
export function send (step: Step, message: SerialMessage): void {
  step.ram.outbox = [...step.ram.outbox, message].slice(-OUTBOX_MAX)
}

/** The present state as a STATUS. */
export function sendStatus (step: Step, button?: { name: Button, presses: number }): void {
  const { flash, ram, nowMs } = step
  const uptimeS = Math.floor((nowMs - ram.bootedMs) / 1000)
  ram.statusAtMs = nowMs + ram.statusEveryMs
  send(step, {
    type: 'STATUS', volume: flash.volume, language: flash.language, quiet: flash.quiet, uptimeS, battery: Math.max(5, 100 - Math.floor(uptimeS / 600)),
    charging: false, rssi: -55 - uptimeS % 20, network: 'serial', freeBytes: 120_000, ...(flash.trial === undefined ? {} : { trial: true }), ...(button === undefined ? {} : { button })
  })
}
