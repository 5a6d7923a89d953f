// What a simulated soundbox keeps without power: identity, settings, the journal of ids, the last payments, two program slots.
//
// Journal: the newest 256 ids. `started` is written before the first sound, so that no crash lets a payment be heard twice; what is
// still `started` at the next boot was cut off and becomes `failed`, reset. A final entry is sent as RESULT until the host has it.
// Slots: a whole image goes into the slot that does not run, then gets one boot on trial. Only a self test and a session with a host
// within the health window make it the program for good; any reset before that boots the old slot again.
import {
  type BoxCredentials, compareVersions, type FirmwareHeader, isFirmwareBody, isSoundboxError, type Language, openFirmwareHeader, type SerialResult
} from '../protocol/index.js'

export const JOURNAL_MAX = 256
/** Payments that the replay button repeats. */
export const RECENTS_MAX = 3
export const HEALTH_WINDOW_MS = 60_000

export type JournalEntry = Omit<SerialResult, 'result' | 'was'> & { state: 'started' | Exclude<SerialResult['result'], 'duplicate'>, isReported: boolean }
export type Recent = { id: string, clips: readonly string[], text: string, amountMinor: number }
export type Image = { header: FirmwareHeader, pieces: readonly Buffer[], size: number }
export type Flash = {
  identity: Omit<BoxCredentials, 'replace'> | undefined
  volume: number, minVolume: number, language: Language, quiet: boolean
  journal: readonly JournalEntry[], recents: readonly Recent[], bootCount: number
  slots: readonly [Image | undefined, Image | undefined], activeSlot: 0 | 1
  trial: { slot: 0 | 1, boots: number } | undefined
  download: Image | undefined
}

/** A box as it leaves the factory; with a tid, one that a technician has provisioned. */
export function makeFlash (tid?: string): Flash {
  return {
    identity: tid === undefined ? undefined : { tid }, volume: 70, minVolume: 20, language: 'ENGLISH', quiet: false,
    journal: [], recents: [], bootCount: 0, slots: [undefined, undefined], activeSlot: 0, trial: undefined, download: undefined
  }
}

/** The journal's entry of an id. */
export function findEntry (flash: Flash, id: string): JournalEntry | undefined {
  return flash.journal.find(entry => entry.id === id)
}

/** Flash with this entry in the journal, in the place of the one with its id or as the newest. */
export function saveEntry (flash: Flash, entry: JournalEntry): Flash {
  const isKnown = flash.journal.some(other => other.id === entry.id)
  const journal = isKnown ? flash.journal.map(other => other.id === entry.id ? entry : other) : [...flash.journal, entry].slice(-JOURNAL_MAX)
  return { ...flash, journal }
}

/** The RESULT of a final entry: the first one plain, a repetition as `duplicate`. */
export function resultFromEntry (entry: JournalEntry, isRepeat: boolean): SerialResult | undefined {
  const { state, isReported: _isReported, ...rest } = entry
  if (state === 'started') return undefined
  return isRepeat ? { ...rest, result: 'duplicate', was: state } : { ...rest, result: state }
}

/** Flash after a reset, and why the box says it was reset: `rollback` when a program on trial did not prove itself. */
export function bootFlash (flash: Flash, reason: string): { flash: Flash, resetReason: string } {
  const journal = flash.journal.map(entry => entry.state === 'started' ? { ...entry, state: 'failed' as const, reason: 'reset', isReported: false } : entry)
  const booted = { ...flash, journal, bootCount: flash.bootCount + 1 }
  if (flash.trial === undefined) return { flash: booted, resetReason: reason }
  if (flash.trial.boots > 0) return { flash: { ...booted, trial: undefined }, resetReason: 'rollback' }
  return { flash: { ...booted, trial: { ...flash.trial, boots: 1 } }, resetReason: reason }
}

/** The image that runs; undefined for the factory's program. */
export function runningImage (flash: Flash): Image | undefined {
  return flash.slots[flash.trial?.slot ?? flash.activeSlot]
}

/** The program on trial becomes the one for good. */
export function confirmTrial (flash: Flash): Flash {
  return flash.trial === undefined ? flash : { ...flash, activeSlot: flash.trial.slot, trial: undefined }
}

/** The self test of an image: the simulated one fails when its body begins with UNHEALTHY. */
export function isHealthy (image: Image | undefined): boolean {
  return image?.pieces[0]?.subarray(0, 9).toString('latin1') !== 'UNHEALTHY'
}

export type UpdateAnswer = { flash: Flash, result: Omit<SerialResult, 'id'> }

/** FIRMWARE_BEGIN: the offset held, or why this image may not come in. `force` lets an older or equal version in, nothing else. */
export function beginUpdate (flash: Flash, begin: { header: Buffer, force?: boolean }, box: { model: string, makerKey: string, version: string }): UpdateAnswer {
  let header: FirmwareHeader
  try {
    header = openFirmwareHeader(begin.header, box.makerKey)
  } catch (error) {
    if (!isSoundboxError(error, 'FIRMWARE_INVALID')) throw error
    return { flash, result: { result: 'failed', reason: 'signature' } }
  }
  if (header.model !== box.model) return { flash, result: { result: 'failed', reason: 'model' } }
  if (flash.trial !== undefined) return { flash, result: { result: 'failed', reason: 'on-trial' } }
  if (begin.force !== true && compareVersions(header.version, box.version) <= 0) return { flash, result: { result: 'failed', reason: 'downgrade' } }
  const isSame = flash.download?.header.sha256 === header.sha256 && flash.download.header.version === header.version
  const download = isSame ? flash.download! : { header, pieces: [], size: 0 }
  return { flash: { ...flash, download }, result: { result: 'done', offset: download.size } }
}

/** FIRMWARE_CHUNK: kept when it continues what is held; any other offset is left to the sender's next FIRMWARE_BEGIN. */
export function takeChunk (flash: Flash, chunk: { offset: number, data: Buffer }): Flash {
  const { download } = flash
  if (download === undefined || chunk.offset !== download.size || chunk.offset + chunk.data.length > download.header.size) return flash
  return { ...flash, download: { ...download, pieces: [...download.pieces, chunk.data], size: download.size + chunk.data.length } }
}

/** FIRMWARE_END: done puts the image on trial at the next boot. */
export function endUpdate (flash: Flash): UpdateAnswer {
  const { download } = flash
  if (download === undefined) return { flash, result: { result: 'failed', reason: 'no-image' } }
  if (download.size < download.header.size) return { flash, result: { result: 'failed', reason: 'incomplete', offset: download.size } }
  if (!isFirmwareBody(download.header, download.pieces)) return { flash: { ...flash, download: undefined }, result: { result: 'failed', reason: 'hash' } }
  const slot = flash.activeSlot === 0 ? 1 : 0
  const slots: Flash['slots'] = slot === 0 ? [download, flash.slots[1]] : [flash.slots[0], download]
  return { flash: { ...flash, slots, trial: { slot, boots: 0 }, download: undefined }, result: { result: 'done' } }
}
