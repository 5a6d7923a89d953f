// What goes wrong with simulated soundboxes, from one seed: the same seed and the same announcements give the same faults.
import { SoundboxError } from '../protocol/index.js'

/** From and to, both included. */
export type Range = readonly [number, number]

/** Probabilities are per announcement that arrives. */
export type FleetFaults = {
  /** Work on an announcement begins so much later. */
  delayMs: Range
  /** An ack does not arrive: `received` is never sent, and instead of a final one the connection breaks. */
  ackLoss: number
  /** The announcement comes twice. */
  duplicate: number
  /** The box loses power: before the sound, during it, before its end is saved, or before its ack is sent. The flash survives. */
  reboot: number
  /** The box goes offline, for `offlineMs`. */
  offline: number
  offlineMs: Range
  /** From power to the first connection. */
  bootMs: Range
}

export const NO_FAULTS: Readonly<FleetFaults> = Object.freeze<FleetFaults>({
  delayMs: [0, 0], ackLoss: 0, duplicate: 0, reboot: 0, offline: 0, offlineMs: [1000, 10_000], bootMs: [0, 0]
})
export const REBOOT_STAGES = ['before', 'during', 'unsaved', 'unsent'] as const
export type RebootStage = typeof REBOOT_STAGES[number]
const MS_MAX = 3_600_000

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function openRandom (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6D2B79F5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296
  }
}

/** A whole number of the range. */
export function pickWithin ([from, to]: Range, random: () => number): number {
  return from + Math.floor(random() * (to - from + 1))
}

/**
 * `ack-loss=0.01,reboot=0.005,delay-ms=0-200,offline-ms=1000-5000`: probabilities 0 to 1, times up to an hour. Empty text: no faults.
 * Throws INPUT_INVALID.
 */
export function parseFaults (text: string): FleetFaults {
  const faults: Record<string, unknown> = { ...NO_FAULTS }
  for (const part of text.split(',').filter(one => one.trim() !== '')) {
    const [name = '', value = ''] = part.trim().split('=')
    const field = name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
    if (!Object.hasOwn(NO_FAULTS, field)) throw invalid(`a fault is one of ${Object.keys(NO_FAULTS).map(flagOf).join(', ')}`)
    faults[field] = field.endsWith('Ms') ? parseRange(name, value) : parseProbability(name, value)
  }
  return faults as FleetFaults
}

function flagOf (field: string): string {
  return field.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
}

function parseProbability (name: string, text: string): number {
  if (!/^(?:0|1|0?\.\d{1,6})$/.test(text)) throw invalid(`${name} must be a probability from 0 to 1`)
  return Number(text)
}

function parseRange (name: string, text: string): Range {
  const [, from = '', to = from] = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(text) ?? []
  if (from === '' || Number(from) > Number(to) || Number(to) > MS_MAX) throw invalid(`${name} must be milliseconds, as 200 or 0-200, up to ${MS_MAX}`)
  return [Number(from), Number(to)]
}

function invalid (why: string): SoundboxError {
  return new SoundboxError('INPUT_INVALID', why)
}
