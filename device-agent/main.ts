#!/usr/bin/env node
// The agent as a process: settings, clock, log, parts; and the signals that end it. One box that this machine speaks for, or one agent
// for each box on its serial ports.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { freemem } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { type Log, makeTimers, safeErrorText, SoundboxError, type Telemetry } from '../protocol/index.js'
import { clipInventory, wordedLanguages } from '../protocol/wording/index.js'
import { type AgentDeps, startAgent } from './agent.js'
import { makeDataDir, openBoxState } from './box-state.js'
import { agentHelp, type AgentSettings, type BoxKeys, parseAgentSettings } from './config.js'
import { openDfPlayer } from './dfplayer.js'
import { type Journal, openJournal } from './journal.js'
import { openLogRing } from './log-ring.js'
import { openMqttLink } from './mqtt-link.js'
import { readPower } from './power.js'
import { formatJsonLine, formatPrintLine } from './report-line.js'
import { openSerialAgents, type RunningAgent } from './serial-agents.js'
import { openSerialVoice } from './serial-voice.js'
import type { Speaker } from './speaker.js'
import { openSpeaker } from './speaker-kinds.js'
import { openVoice, type SpokenReport } from './voice.js'

const MODEL = 'agent'
const VERSION = '0.1.0'
const BACKOFF = { baseMs: 1000, maxMs: 60_000 }
/** A connection that held for so long was a good one. */
const STABLE_MS = 30_000
const EXIT_SETTINGS = 2

// Wall time that never jumps: a clock that is set while the agent runs (a board without one, after NTP) must not age announcements.
const STARTED_AT = Date.now() - performance.now()
const clock = makeTimers(() => STARTED_AT + performance.now())

function openLog (level: string): Log {
  const err = (error: unknown): object => error instanceof SoundboxError
    ? { code: error.code, message: error.message, stack: error.stack }
    : { name: error instanceof Error ? error.name : typeof error, code: (error as { code?: unknown }).code, stack: error instanceof Error ? error.stack : undefined }
  return pino({ level, base: null, serializers: { err } }, pino.destination({ dest: 2, sync: true }))
}

type BoxParts = {
  dataDir: string, log: Log, resetReason: string, keepStarted: boolean, readings: () => Telemetry, onReboot: () => void
  openVoice: (journal: Journal, log: Log) => AgentDeps['openVoice']
}

/** One box: its journal, its state, its link, its voice. */
async function openBox (settings: AgentSettings, { tid, password, signingKey }: BoxKeys, parts: BoxParts): Promise<RunningAgent> {
  const { language, volume, tls, gatewayUrl, telemetryMs, prompts, limits } = settings
  const { dataDir, resetReason, keepStarted } = parts
  makeDataDir(dataDir)
  const { log, text } = openLogRing(parts.log, clock.nowMs)
  const journal = await openJournal({ path: join(dataDir, 'journal'), log, keepStarted })
  const state = await openBoxState(dataDir, { volume, minVolume: 0, language, quietHours: null, version: 0, clockOffsetMs: 0, wish: '' }, log)
  const agent = startAgent({ tid, signingKey, model: MODEL, firmware: VERSION, bootId: randomBytes(8).toString('hex'), resetReason, telemetryMs, prompts, limits }, {
    clock, log, journal, state,
    openLink: events => openMqttLink({ url: gatewayUrl, tid, password, tls, backoff: BACKOFF, stableMs: STABLE_MS }, events, { clock, log, random: Math.random }),
    openVoice: parts.openVoice(journal, log),
    readings: parts.readings,
    lastLog: text,
    onSpoken: report => writeReport(settings, tid, report),
    onReboot: parts.onReboot
  })
  return { agent, close: agent.close }
}

function writeReport ({ print, json }: AgentSettings, tid: string, report: SpokenReport): void {
  if (print) process.stdout.write(`${formatPrintLine(tid, report)}\n`)
  if (json) process.stdout.write(`${formatJsonLine(tid, report)}\n`)
}

async function openOwnSpeaker ({ speaker: kind, wavDir, play, pace, dfplayerPort }: AgentSettings, log: Log): Promise<Speaker> {
  if (dfplayerPort === null) return await openSpeaker({ kind, wavDir, play, pace }, { clock, log, print: sentence => process.stdout.write(`${sentence}\n`) })
  const inventory = Object.fromEntries(wordedLanguages().map(({ language }) => [language, clipInventory(language).map(({ id }) => id)]))
  return openDfPlayer({ path: dfplayerPort, log, timers: clock, inventory })
}

type Life = { close: () => Promise<void> }

/** This machine speaks for one box. */
async function openOwnLife (settings: AgentSettings, log: Log, more: { resetReason: string, onReboot: () => void }): Promise<Life> {
  const keys = settings.boxes[0]!
  const own = log.child({ tid: keys.tid })
  makeDataDir(settings.dataDir)
  const speaker = await openOwnSpeaker(settings, own)
  const { agent, close } = await openBox(settings, keys, {
    ...more,
    dataDir: settings.dataDir,
    log: own,
    keepStarted: false,
    readings: () => ({ ...readPower(), network: 'mqtt', freeBytes: freemem() }),
    openVoice: (journal, voiceLog) => (policy, events) => openVoice({ clock, journal, speaker, policy, log: voiceLog }, events)
  })
  process.on('SIGUSR2', agent.pressReplay)
  return {
    close: async () => {
      process.off('SIGUSR2', agent.pressReplay)
      await close()
      await speaker.close()
    }
  }
}

/** Boxes on serial ports speak for themselves; each has its own connection to the gateway. */
function openSerialLife (settings: AgentSettings, log: Log): Life {
  return openSerialAgents({
    ports: settings.serialPorts,
    baudRate: settings.baudRate,
    timers: clock,
    log,
    startAgent: async (tid, { box, readings }) => {
      const keys = settings.boxes.find(one => one.tid === tid)
      return keys === undefined ? undefined : await openBox(settings, keys, {
        dataDir: join(settings.dataDir, tid),
        log: log.child({ tid }),
        resetReason: 'start',
        keepStarted: true,
        readings,
        onReboot: () => {}, // The box does its own reboot.
        openVoice: (journal, voiceLog) => (policy, events) =>
          openSerialVoice({ box, journal, clock, policy, newId: () => randomBytes(16).toString('hex'), log: voiceLog }, events)
      })
    }
  })
}

/** Runs until a signal; a command of the operator may start the box anew in between. */
async function run (settings: AgentSettings): Promise<void> {
  const log = openLog(settings.logLevel)
  process.stdout.on('error', () => {}) // Nobody reads the lines any more: go on speaking.
  let isStopping = false
  let endLife = (): void => {}
  const stop = (signal: string): void => {
    if (isStopping) process.exit(1)
    isStopping = true
    log.info({ signal }, 'agent stops')
    endLife()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  for (let resetReason = 'start'; !isStopping; resetReason = 'command') {
    const ended = new Promise<void>(resolve => { endLife = resolve })
    const life = settings.serialPorts.length > 0 ? openSerialLife(settings, log) : await openOwnLife(settings, log, { resetReason, onReboot: () => endLife() })
    log.info({ gateway: settings.gatewayUrl, ports: settings.serialPorts, resetReason }, 'agent ready')
    await ended
    await life.close()
  }
}

try {
  const settings = parseAgentSettings({ env: process.env, argv: process.argv.slice(2), readText: path => readFileSync(path, 'utf8') })
  if (settings === undefined) process.stdout.write(`${agentHelp()}\n`)
  else {
    await run(settings)
    process.exit(0)
  }
} catch (error) {
  process.stderr.write(`soundbox agent: ${safeErrorText(error)}\n`)
  process.exit(error instanceof SoundboxError && error.code === 'CONFIG_INVALID' ? EXIT_SETTINGS : 1)
}
