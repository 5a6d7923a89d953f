// What every command gets, and the one check of a number that they share.
import { SoundboxError } from '../../protocol/index.js'
import type { Client } from './client.js'
import type { Output } from './output.js'

/** A client on demand, where to print, and a signal that Ctrl-C aborts. */
export type Context = { client: () => Client, output: () => Output, interrupted: () => AbortSignal }
export type Row = Record<string, unknown>

/** Throws INPUT_INVALID. */
export function wholeNumber (value: unknown, name: string): number {
  if (!/^\d{1,15}$/.test(String(value))) throw new SoundboxError('INPUT_INVALID', `${name} must be a whole number`)
  return Number(value)
}
