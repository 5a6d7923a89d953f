// What a simulated soundbox does with each request of the host. Everything with an id ends in one RESULT of that id: at once from here,
// or through the journal when it is over.
import type { SerialMessage, SerialResult } from '../protocol/index.js'
import { enqueue, ownSentence, repeatRecents, runningVersion, type Step, send, sendStatus } from './firmware-step.js'
import { beginUpdate, endUpdate, findEntry, makeFlash, resultFromEntry, saveEntry, takeChunk } from './flash.js'

/** Time for the RESULT to leave before a reset that was asked for. */
export const RESTART_DELAY_MS = 500

type Of<T extends SerialMessage['type']> = Extract<SerialMessage, { type: T }>

/** Does what a message asks. Messages that only a box sends are left out. */
export function handleMessage (step: Step, message: SerialMessage): void {
  switch (message.type) {
    case 'ANNOUNCE': announce(step, message); break
    case 'SET': applySettings(step, message); break
    case 'COMMAND': once(step, message.id, () => runCommand(step, message)); break
    case 'CREDENTIALS': answer(step, message.id, writeCredentials(step, message)); break
    case 'FIRMWARE_BEGIN': beginFirmware(step, message); break
    case 'FIRMWARE_CHUNK': step.flash = takeChunk(step.flash, message); break
    case 'FIRMWARE_END': once(step, message.id, () => endFirmware(step)); break
    case 'HELLO': case 'RESULT': case 'STATUS': case 'ACK': case 'NAK': case 'PING': break
    default: message satisfies never
  }
}

function beginFirmware (step: Step, message: Of<'FIRMWARE_BEGIN'>): void {
  const box = { model: step.options.model, makerKey: step.options.makerKey, version: runningVersion(step.flash, step.options) }
  const { flash, result } = beginUpdate(step.flash, message, box)
  step.flash = flash
  answer(step, message.id, result)
}

function endFirmware (step: Step): Omit<SerialResult, 'id'> {
  const { flash, result } = endUpdate(step.flash)
  step.flash = flash
  if (result.result === 'done') step.ram.restart = { atMs: step.nowMs + RESTART_DELAY_MS, reason: 'update' }
  return result
}

function announce (step: Step, message: Of<'ANNOUNCE'>): void {
  const { id, kind, clips, amountMinor, ttlMs } = message
  const { voice } = step.ram
  const known = findEntry(step.flash, id)
  if (known !== undefined) {
    const result = resultFromEntry(known, true)
    if (result !== undefined) send(step, { type: 'RESULT', ...result })
    return
  }
  if (voice.queue.some(sentence => sentence.id === id)) return // Asked again while it waits: its RESULT comes in its time.
  if (step.flash.identity === undefined && kind !== 'test' && kind !== 'prompt') {
    answer(step, id, { result: 'failed', reason: 'not-provisioned' })
    return
  }
  const sentence = {
    kind, clips, text: message.text ?? clips.join(' '), amountMinor, arrivedMs: step.nowMs, expiresMs: step.nowMs + ttlMs, isRepeat: false, id
  }
  if (!enqueue(step, sentence)) answer(step, id, { result: 'failed', reason: 'queue-full' })
}

function applySettings (step: Step, message: Of<'SET'>): void {
  const { volume, minVolume = step.flash.minVolume, language = step.flash.language, quiet = step.flash.quiet, statusEveryS } = message
  step.flash = { ...step.flash, minVolume, language, quiet, volume: Math.max(minVolume, volume ?? step.flash.volume) }
  if (statusEveryS !== undefined) step.ram.statusEveryMs = statusEveryS * 1000
  answer(step, message.id, { result: 'done' })
  sendStatus(step)
}

/** The tid of a box that has one changes only when the host says that it means to. */
function writeCredentials (step: Step, message: Of<'CREDENTIALS'>): Omit<SerialResult, 'id'> {
  const { type: _type, id: _id, replace, ...identity } = message
  const held = step.flash.identity
  if (held !== undefined && held.tid !== identity.tid && replace !== true) return { result: 'failed', reason: 'provisioned' }
  step.flash = { ...step.flash, identity }
  return { result: 'done' }
}

function runCommand (step: Step, message: Of<'COMMAND'>): Omit<SerialResult, 'id'> {
  const { ram, nowMs } = step
  switch (message.name) {
    case 'replay':
      repeatRecents(step)
      return { result: 'done' }
    case 'test':
      enqueue(step, ownSentence(step, 'test', ['test'], false))
      return { result: 'done' }
    case 'locate':
      enqueue(step, ownSentence(step, 'locate', [], false))
      return { result: 'done' }
    case 'display-qr': case 'clear-display':
      ram.display = message.name === 'clear-display' ? '' : String(message.args['payload'] ?? '')
      return { result: 'done' }
    case 'collect-log':
      return { result: 'done', data: `boots ${step.flash.bootCount}, reset ${ram.resetReason}, journal ${step.flash.journal.length}` }
    case 'factory-reset':
      step.flash = { ...makeFlash(), bootCount: step.flash.bootCount, slots: step.flash.slots, activeSlot: step.flash.activeSlot }
      ram.restart = { atMs: nowMs + RESTART_DELAY_MS, reason: 'factory-reset' }
      return { result: 'done' }
    case 'reboot':
      ram.restart = { atMs: nowMs + RESTART_DELAY_MS, reason: 'command' }
      return { result: 'done' }
  }
}

/** Does a thing that must not be done twice, and keeps its end in the journal, from where it is reported. */
function once (step: Step, id: string, work: () => Omit<SerialResult, 'id'>): void {
  const known = findEntry(step.flash, id)
  if (known !== undefined) {
    const result = resultFromEntry(known, true)
    if (result !== undefined) send(step, { type: 'RESULT', ...result })
    return
  }
  const { result, was: _was, ...rest } = work()
  step.flash = saveEntry(step.flash, { ...rest, id, state: result === 'duplicate' ? 'failed' : result, isReported: false })
}

function answer (step: Step, id: string, result: Omit<SerialResult, 'id'>): void {
  send(step, { type: 'RESULT', id, ...result })
}
