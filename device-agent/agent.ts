// One soundbox: link in -> envelope -> voice -> ack out, and what surrounds it: the operator's wishes, commands, prompts, telemetry.
//
//   onUp       hello, then the final acks that nobody confirmed
//   announce   openAnnouncement (dropped, counted, never answered when the signature is wrong) -> voice
//   desired    clock offset, settings on disk, reported
//   command    once by its id, within its time; the answer goes the way of every final ack: journal, outbox, PUBACK
import {
  type Ack, type Command, decodeCommand, decodeDesired, type DownTopic, type Hello, isSoundboxError, type Log, openAnnouncement, type Prompt,
  type Reported, type Secret, type Telemetry, type Timers, type UpTopic
} from '../protocol/index.js'
import type { BoxSettings, BoxState } from './box-state.js'
import { type CommandPlan, planCommand, promptPhrase, REPLAY_COUNT, replayPlan } from './commands.js'
import { openBatteryWatch, openLinkPrompts } from './house-keeping.js'
import type { Journal } from './journal.js'
import type { Link, LinkEvents } from './mqtt-link.js'
import { openOutbox, type Outbox } from './outbox.js'
import type { PlaybackLimits, PlaybackPolicy } from './playback.js'
import type { SpokenReport, Voice, VoiceEvents } from './voice.js'

export type AgentConfig = {
  tid: string, signingKey: Secret, model: string, firmware: string, bootId: string, resetReason: string
  telemetryMs: number, prompts: boolean, limits: PlaybackLimits
}

/** The parts of a box. `lastLog`: for collect-log. `onReboot`: asked to start anew; the process closes this agent and opens another. */
export type AgentDeps = {
  clock: Timers, log: Log, journal: Journal, state: BoxState
  openLink: (events: LinkEvents) => Link
  openVoice: (policy: () => PlaybackPolicy, events: VoiceEvents) => Voice
  /** Battery, memory, network and so on, as far as they are known. */
  readings: () => Telemetry
  lastLog: () => string
  onSpoken: (report: SpokenReport) => void
  onReboot: () => void
}

export type AgentCounts = { announcements: number, dropped: number, spoken: number, commands: number }
export type Agent = {
  /** The replay button: the last payments again. */
  pressReplay: () => void
  /** Somebody turned the volume at the box. */
  turnVolume: (volume: number) => void
  /** A box on a serial line answers again: it is told its settings. */
  refresh: () => void
  counts: () => Readonly<AgentCounts>
  /** Ends the present sound, sends its ack, says goodbye. Within about CLOSE_SOUND_MS + CLOSE_ACKS_MS. */
  close: () => Promise<void>
}

const CLOSE_SOUND_MS = 10_000
const CLOSE_ACKS_MS = 2000
/** After so many bad signatures only every thousandth is logged. */
const DROPS_LOGGED = 10

type Box = AgentDeps & { config: AgentConfig, link: Link, voice: Voice, outbox: Outbox, counts: AgentCounts, running: Set<string>, startedAt: number }

/** Starts a box: it connects, and goes on until `close`. */
export function startAgent (config: AgentConfig, deps: AgentDeps): Agent {
  const { clock, log, journal, state } = deps
  const box = { ...deps, config, counts: { announcements: 0, dropped: 0, spoken: 0, commands: 0 }, running: new Set<string>(), startedAt: clock.nowMs() } as Box // The rest follows at once.
  if (journal.interrupted.length > 0) log.warn({ ids: journal.interrupted }, 'sounds were interrupted by a crash')
  box.outbox = openOutbox({ journal, log, publish: ack => box.link.publish('ack', ack, 1) })
  box.voice = deps.openVoice(() => ({ ...config.limits, ...state.settings() }), {
    onAck: ack => send(box, 'ack', ack),
    onFinal: () => box.outbox.flush(),
    onCommandEnd: (id, { ok, reason }) => { endCommand(box, { id, result: ok ? 'done' : 'failed', ...(reason === undefined ? {} : { reason }) }) },
    onSpoken: report => {
      box.counts.spoken += 1
      deps.onSpoken(report)
    }
  })
  const prompt = (name: Prompt): void => {
    if (config.prompts) box.voice.say({ phrases: [promptPhrase(name, state.settings().language)] })
  }
  prompt('starting')
  const linkPrompts = openLinkPrompts(clock, prompt)
  const readings = openReadings(box, () => prompt('battery-low'))
  box.link = deps.openLink({
    onUp: () => {
      send(box, 'hello', helloOf(box))
      box.outbox.flush()
      readings.report()
      linkPrompts.onUp()
    },
    onDown: linkPrompts.onDown,
    onMessage: (name, payload) => handleMessage(box, name, payload)
  })
  return {
    pressReplay: () => carryOut(box, null, replayPlan(REPLAY_COUNT, contextOf(box))),
    turnVolume: volume => { applySettings(box, { ...state.settings(), volume }, false) },
    refresh: () => box.voice.apply?.(state.settings()),
    counts: () => ({ ...box.counts }),
    close: async () => {
      linkPrompts.close()
      readings.close()
      await within(clock, CLOSE_SOUND_MS, box.voice.close())
      await within(clock, CLOSE_ACKS_MS, journalled(box))
      await box.link.close()
      await journal.close()
    }
  }
}

async function journalled ({ outbox }: Box): Promise<void> {
  await new Promise<void>(resolve => setImmediate(resolve))
  outbox.flush()
  await outbox.whenIdle()
}

/** Resolves with `work`, or after `limitMs`, whichever comes first. */
async function within (clock: Timers, limitMs: number, work: Promise<void>): Promise<void> {
  let cancel = (): void => {}
  await Promise.race([work, new Promise<void>(resolve => { cancel = clock.after(limitMs, resolve) })])
  cancel()
}

/** Telemetry now and every telemetryMs, and a look at the battery with it. */
function openReadings (box: Box, onBatteryLow: () => void): { report: () => void, close: () => void } {
  const isBatteryLow = openBatteryWatch()
  let cancel = (): void => {}
  const report = (): void => {
    cancel()
    cancel = box.clock.after(box.config.telemetryMs, report)
    const readings = box.readings()
    if (isBatteryLow(readings)) onBatteryLow()
    if (!box.link.isUp()) return
    const { volume } = box.state.settings()
    const uptimeS = Math.floor((box.clock.nowMs() - box.startedAt) / 1000)
    send(box, 'telemetry', { volume, uptimeS, resetReason: box.config.resetReason, ...readings } satisfies Telemetry, 0)
  }
  cancel = box.clock.after(box.config.telemetryMs, report)
  return { report, close: () => cancel() }
}

function helloOf ({ config, journal, state }: Box): Hello {
  const last = journal.lastSpokenId()
  const { version } = state.settings()
  return { model: config.model, firmware: config.firmware, bootId: config.bootId, ...(last === undefined ? {} : { lastSpokenId: last }), reportedVersion: version }
}

function send ({ link, log }: Box, name: UpTopic, message: object, qos: 0 | 1 = 1): void {
  link.publish(name, message, qos).catch((err: unknown) => log.debug({ err, topic: name }, 'message could not be sent'))
}

/** Nothing in here waits for the link: the next message comes only when this one is handled. */
async function handleMessage (box: Box, name: DownTopic, payload: Buffer): Promise<void> {
  try {
    if (name === 'announce') handleAnnounce(box, payload)
    else if (name === 'desired') await handleDesired(box, payload)
    else handleCommand(box, decodeCommand(payload))
  } catch (err) {
    if (!isSoundboxError(err, 'MESSAGE_INVALID') && !isSoundboxError(err, 'SIGNATURE_INVALID')) throw err
    box.counts.dropped += 1
    if (box.counts.dropped <= DROPS_LOGGED || box.counts.dropped % 1000 === 0) box.log.warn({ err, topic: name, dropped: box.counts.dropped }, 'message dropped')
  }
}

function handleAnnounce (box: Box, payload: Buffer): void {
  const announcement = openAnnouncement(payload, box.config.tid, box.config.signingKey.reveal())
  box.counts.announcements += 1
  box.voice.announce(announcement)
}

async function handleDesired (box: Box, payload: Buffer): Promise<void> {
  const { clock, state } = box
  const { version, time, volume, minVolume, language, quietHours } = decodeDesired(payload)
  const wish = JSON.stringify([version, volume, minVolume, language, quietHours])
  const before = state.settings()
  const clockOffsetMs = Math.round(time - clock.nowMs())
  const isNew = wish !== before.wish
  await applySettings(box, isNew ? { version, volume, minVolume, language, quietHours, clockOffsetMs, wish } : { ...before, clockOffsetMs })
}

/** Saves, reports, and says a new volume in the new volume, unless the box did so itself. */
async function applySettings (box: Box, after: BoxSettings, isSaid = box.config.prompts): Promise<void> {
  const before = box.state.settings()
  await box.state.save(after)
  box.voice.apply?.(after)
  send(box, 'reported', { version: after.version, volume: after.volume, language: after.language, firmware: box.config.firmware } satisfies Reported)
  if (after.volume !== before.volume && isSaid) box.voice.say({ phrases: [promptPhrase('volume', after.language, { count: after.volume })] })
}

function handleCommand (box: Box, command: Command): void {
  const { id, name, expiresAt } = command
  const known = box.journal.find(id)
  if (box.running.has(id)) return
  if (known !== undefined) {
    if (known.settled && known.final !== undefined) send(box, 'ack', { id, result: 'duplicate', was: known.final.result })
    else box.outbox.flush()
    return
  }
  box.counts.commands += 1
  box.log.info({ id, name }, 'command received')
  box.running.add(id)
  if (gatewayMs(box) >= expiresAt) endCommand(box, { id, result: 'expired' })
  else carryOutThere(box, command) ?? carryOut(box, id, planCommand(command, contextOf(box)))
}

/** The promise of a box that does this command itself; undefined when it is ours to do. */
function carryOutThere (box: Box, { id, name, args }: Command): Promise<void> | undefined {
  return box.voice.command?.(name, args)?.then(({ ok, reason, data }) =>
    endCommand(box, { id, result: ok ? 'done' : 'failed', ...(reason === undefined ? {} : { reason }), ...(data === undefined ? {} : { data }) }))
}

/** `id` null: the button at the box. */
function carryOut (box: Box, id: string | null, plan: CommandPlan): void {
  const end = async (ack: Omit<Ack, 'id'>): Promise<void> => {
    if (id !== null) await endCommand(box, { id, ...ack })
  }
  switch (plan.kind) {
    case 'say':
      box.voice.say({ phrases: plan.phrases, repeat: plan.repeat, always: plan.always || id === null, ...(id === null ? {} : { commandId: id }) })
      break
    case 'volume':
      applySettings(box, { ...box.state.settings(), volume: plan.volume }).then(() => end({ result: 'done' }))
      break
    case 'language':
      applySettings(box, { ...box.state.settings(), language: plan.language }).then(() => end({ result: 'done' }))
      break
    case 'collect-log':
      end({ result: 'done', data: box.lastLog() })
      break
    case 'refuse':
      end({ result: 'failed', reason: plan.reason })
      break
    case 'reboot':
      end({ result: 'done' }).then(box.onReboot)
      break
    default: plan satisfies never
  }
}

/** Every command ends here, and its id is known from now on: a reboot that is delivered again does not boot again. */
async function endCommand (box: Box, ack: Ack): Promise<void> {
  await box.journal.finish({ ...ack, at: Math.max(0, Math.round(gatewayMs(box))) })
  box.running.delete(ack.id)
  box.outbox.flush()
}

function gatewayMs ({ clock, state }: Box): number {
  return clock.nowMs() + state.settings().clockOffsetMs
}

function contextOf ({ journal, state }: Box): { language: BoxSettings['language'], lastPayments: Journal['lastPayments'] } {
  return { language: state.settings().language, lastPayments: journal.lastPayments }
}
