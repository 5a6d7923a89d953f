// The firmware of a simulated soundbox behind a serial line: a pure state machine, written from protocol/README.md.
//
// state = flash (outlives a reset) + ram (does not) + options. Frames, time, buttons and resets come in; bytes to write and sounds to
// hear come out. The shell (serial-sim.ts) has the line and the clock and no opinion. A crash is the event `crash` at any moment:
// whatever the journal says then is what the next boot knows.
import { type BoxHello, type Button, type LinkEffect, type LinkEvent, type LinkPolicy, linkDueMs, makeLink, stepLink } from '../protocol/index.js'
import { handleMessage } from './firmware-requests.js'
import {
  enqueue, type FirmwareEffect, type FirmwareEvent, type FirmwareState, ownSentence, type Ram, repeatRecents, runningVersion, type Step, sendStatus
} from './firmware-step.js'
import { bootFlash, confirmTrial, findEntry, HEALTH_WINDOW_MS, isHealthy, RECENTS_MAX, resultFromEntry, runningImage, saveEntry } from './flash.js'
import { audioMs, GAP_MS, isMutedByQuiet, SILENT_VOICE, soundFromPlaying, voiceDueMs } from './voice.js'

export type { BoxOptions, FirmwareEffect, FirmwareEvent, FirmwareState } from './firmware-step.js'
export { runningVersion } from './firmware-step.js'

export const SELF_TEST_MS = 200
export const STATUS_EVERY_MS = 60_000
const VOLUME_STEP = 10
const REPORT = 'report:'
const OUT = 'out'

/** One step. Pure: the state given is not changed. Events without power do nothing, but for `boot`. */
export function stepFirmware (state: FirmwareState, event: FirmwareEvent, nowMs: number, policy: LinkPolicy): { next: FirmwareState, effects: FirmwareEffect[] } {
  const { flash, options } = state
  if (event.kind === 'boot') return boot(state, event.reason, nowMs, policy)
  if (state.ram === undefined) return { next: state, effects: [] }
  const step: Step = { flash, ram: { ...state.ram }, options, effects: [], nowMs, policy }
  if (event.kind === 'crash') return { next: { ...state, ram: undefined }, effects: cutOff(step) }
  if (event.kind === 'press') press(step, event.button)
  else driveLink(step, event)
  passTime(step)
  if (nowMs >= restartDueMs(step.ram)) {
    const reason = step.ram.restart?.reason ?? ''
    return { next: { flash: step.flash, ram: undefined, options }, effects: [...step.effects, ...cutOff({ ...step, effects: [] }), { kind: 'restart', reason }] }
  }
  return { next: { flash: step.flash, ram: step.ram, options }, effects: step.effects }
}

/** When the next `tick` is due, or undefined without power. */
export function firmwareDueMs (state: FirmwareState, policy: LinkPolicy): number | undefined {
  const { ram, flash } = state
  if (ram === undefined) return undefined
  return Math.min(
    linkDueMs(ram.link, policy) ?? Infinity, ram.restart === undefined ? voiceDueMs(ram.voice) ?? Infinity : restartDueMs(ram),
    ram.isTested ? Infinity : ram.bootedMs + SELF_TEST_MS, flash.trial === undefined ? Infinity : ram.bootedMs + HEALTH_WINDOW_MS,
    ram.link.isUp ? ram.statusAtMs : Infinity
  )
}

/** A reset that was asked for lets the present sound end; a program that failed its test does not. */
function restartDueMs (ram: Ram): number {
  if (ram.restart === undefined) return Infinity
  const isGraceful = ram.restart.reason !== 'self-test' && ram.restart.reason !== 'health'
  return isGraceful ? Math.max(ram.restart.atMs, ram.voice.playing?.endsMs ?? 0) : ram.restart.atMs
}

function boot (state: FirmwareState, reason: string, nowMs: number, policy: LinkPolicy): { next: FirmwareState, effects: FirmwareEffect[] } {
  const { flash, resetReason } = bootFlash(state.flash, reason)
  const ram: Ram = {
    link: makeLink('box'), voice: SILENT_VOICE, outbox: [], presses: { replay: 0, 'volume-up': 0, 'volume-down': 0 },
    bootedMs: nowMs, statusAtMs: nowMs, statusEveryMs: STATUS_EVERY_MS, resetReason, isTested: false, display: '', restart: undefined
  }
  const step: Step = { flash, ram, options: state.options, effects: [], nowMs, policy }
  if (reason === 'power') enqueue(step, ownSentence(step, 'prompt', ['starting'], false))
  driveLink(step, { kind: 'open', hello: helloFrom(step) })
  passTime(step)
  return { next: { flash: step.flash, ram: step.ram, options: state.options }, effects: step.effects }
}

function helloFrom (step: Step): BoxHello {
  const { flash, ram, options } = step
  const { tid, keyId } = flash.identity ?? {}
  const lastSpokenId = flash.journal.findLast(entry => entry.state === 'spoken')?.id
  return {
    model: options.model, firmware: runningVersion(flash, options), bootId: `boot-${flash.bootCount}`, volume: flash.volume, language: flash.language,
    quiet: flash.quiet, resetReason: ram.resetReason, ...(tid === undefined ? {} : { tid }), ...(keyId === undefined ? {} : { keyId }),
    ...(lastSpokenId === undefined ? {} : { lastSpokenId })
  }
}

function driveLink (step: Step, event: LinkEvent): void {
  if (event.kind !== 'open') step.ram.link = { ...step.ram.link, hello: helloFrom(step) }
  const { next, effects } = stepLink(step.ram.link, event, step.nowMs, step.policy)
  step.ram.link = next
  for (const effect of effects) takeLinkEffect(step, effect)
}

function takeLinkEffect (step: Step, effect: LinkEffect): void {
  switch (effect.kind) {
    case 'write': step.effects.push(effect); break
    case 'deliver': handleMessage(step, effect.message); break
    case 'sent': handleSent(step, effect.token); break
    case 'lost': break // A report stays in the journal until it is sent; a status is made anew in the next session.
    case 'up':
      step.ram.outbox = []
      sendStatus(step)
      break
    case 'down': if (effect.why === 'silent') enqueue(step, ownSentence(step, 'prompt', ['connection-lost'], false)); break
    default: effect satisfies never
  }
}

function handleSent (step: Step, token: string): void {
  if (!token.startsWith(REPORT)) return
  const entry = findEntry(step.flash, token.slice(REPORT.length))
  if (entry !== undefined) step.flash = saveEntry(step.flash, { ...entry, isReported: true })
}

function press (step: Step, button: Button): void {
  const { ram, flash } = step
  ram.presses = { ...ram.presses, [button]: ram.presses[button] + 1 }
  if (button === 'replay') repeatRecents(step)
  else {
    const volume = flash.volume + (button === 'volume-up' ? VOLUME_STEP : -VOLUME_STEP)
    step.flash = { ...flash, volume: Math.min(100, Math.max(flash.minVolume, volume)) }
  }
  sendStatus(step, { name: button, presses: ram.presses[button] })
}

function passTime (step: Step): void {
  const { ram, nowMs } = step
  checkHealth(step)
  endSound(step)
  startSound(step)
  if (ram.link.isUp && nowMs >= ram.statusAtMs) sendStatus(step)
  pump(step)
}

/** A program on trial stays when it passes its self test and a host has found it within the window. */
function checkHealth (step: Step): void {
  const { ram, flash, nowMs } = step
  if (!ram.isTested && nowMs - ram.bootedMs >= SELF_TEST_MS) {
    ram.isTested = true
    if (!isHealthy(runningImage(flash))) ram.restart = { atMs: nowMs, reason: 'self-test' }
  }
  if (flash.trial === undefined || ram.restart !== undefined) return
  if (ram.isTested && ram.link.isUp) {
    step.flash = confirmTrial(flash)
    sendStatus(step)
  } else if (nowMs - ram.bootedMs >= HEALTH_WINDOW_MS) ram.restart = { atMs: nowMs, reason: 'health' }
}

function endSound (step: Step): void {
  const { ram, nowMs } = step
  const { playing } = ram.voice
  if (playing === undefined || nowMs < playing.endsMs) return
  step.effects.push({ kind: 'sound', sound: soundFromPlaying(playing, nowMs, true) })
  ram.voice = { ...ram.voice, playing: undefined, restUntilMs: nowMs + GAP_MS * step.options.audioScale }
  const { id, kind, clips, text, amountMinor, arrivedMs } = playing.sentence
  if (id === undefined) return
  const queuedMs = Math.round(playing.startedMs - arrivedMs)
  step.flash = saveEntry(step.flash, { id, state: 'spoken', isReported: false, queuedMs, audioMs: Math.round(nowMs - playing.startedMs) })
  if (kind === 'payment') step.flash = { ...step.flash, recents: [{ id, clips, text, amountMinor }, ...step.flash.recents].slice(0, RECENTS_MAX) }
}

/** Takes sentences from the queue until one sounds: those whose time is over and those that quiet mutes end here. */
function startSound (step: Step): void {
  const { ram, nowMs, options } = step
  while (ram.voice.playing === undefined && ram.restart === undefined && nowMs >= ram.voice.restUntilMs) {
    const [sentence, ...queue] = ram.voice.queue
    if (sentence === undefined) return
    ram.voice = { ...ram.voice, queue }
    const { id } = sentence
    const queuedMs = Math.round(nowMs - sentence.arrivedMs)
    const isMuted = isMutedByQuiet(sentence) && (step.flash.quiet || step.flash.volume === 0)
    if (id !== undefined && nowMs >= sentence.expiresMs) step.flash = saveEntry(step.flash, { id, state: 'expired', isReported: false, queuedMs })
    else if (isMuted && id !== undefined) step.flash = saveEntry(step.flash, { id, state: 'muted', isReported: false, queuedMs, reason: 'quiet' })
    else if (!isMuted) {
      if (id !== undefined) step.flash = saveEntry(step.flash, { id, state: 'started', isReported: false, queuedMs })
      step.effects.push({ kind: 'starts', id })
      ram.voice = { ...ram.voice, playing: { sentence, startedMs: nowMs, endsMs: nowMs + audioMs(sentence, options.audioScale) } }
    }
  }
}

/** Hands the link one message at a time: results that the host does not have yet first. */
function pump (step: Step): void {
  const { link } = step.ram
  if (!link.isUp || link.inFlight !== undefined) return
  const report = step.flash.journal.find(entry => entry.state !== 'started' && !entry.isReported)
  const result = report === undefined ? undefined : resultFromEntry(report, false)
  const [message, ...outbox] = step.ram.outbox
  if (result !== undefined) driveLink(step, { kind: 'send', token: `${REPORT}${result.id}`, message: { type: 'RESULT', ...result } })
  else if (message !== undefined) {
    step.ram.outbox = outbox
    driveLink(step, { kind: 'send', token: OUT, message })
  }
}

function cutOff (step: Step): FirmwareEffect[] {
  const { playing } = step.ram.voice
  return playing === undefined ? [] : [{ kind: 'sound', sound: soundFromPlaying(playing, step.nowMs, false) }]
}
