#!/usr/bin/env node
// The agent as a process: settings, clock, log, parts; and the signals that end it.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { freemem } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { type Log, safeErrorText, SoundboxError } from '../protocol/index.js'
import { type Agent, startAgent } from './agent.js'
import { makeDataDir, openBoxState } from './box-state.js'
import { openClock } from './clock.js'
import { agentHelp, type AgentSettings, parseAgentSettings } from './config.js'
import { openJournal } from './journal.js'
import { openLogRing } from './log-ring.js'
import { openMqttLink } from './mqtt-link.js'
import { readPower } from './power.js'
import { formatJsonLine, formatPrintLine } from './report-line.js'
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
const clock = openClock(() => STARTED_AT + performance.now())

function openLog (level: string): Log {
  const err = (error: unknown): object => error instanceof SoundboxError
    ? { code: error.code, message: error.message, stack: error.stack }
    : { name: error instanceof Error ? error.name : typeof error, code: (error as { code?: unknown }).code, stack: error instanceof Error ? error.stack : undefined }
  return pino({ level, base: null, serializers: { err } }, pino.destination({ dest: 2, sync: true }))
}

async function openBox (settings: AgentSettings, log: Log, more: { resetReason: string, onReboot: () => void }): Promise<{ close: () => Promise<void>, agent: Agent }> {
  const { tid, dataDir, language, volume, password, tls, gatewayUrl } = settings
  makeDataDir(dataDir)
  const ring = openLogRing(log, clock.nowMs)
  const journal = await openJournal({ path: join(dataDir, 'journal'), log: ring.log })
  const defaults = { volume, minVolume: 0, language, quietHours: null, version: 0, clockOffsetMs: 0, wish: '' }
  const state = await openBoxState(dataDir, defaults, ring.log)
  const { speaker: kind, wavDir, play, pace } = settings
  const speaker = await openSpeaker({ kind, wavDir, play, pace }, { clock, log: ring.log, print: sentence => process.stdout.write(`${sentence}\n`) })
  const agent = startAgent({ ...settings, model: MODEL, firmware: VERSION, bootId: randomBytes(8).toString('hex'), resetReason: more.resetReason }, {
    clock,
    log: ring.log,
    journal,
    state,
    openLink: events => openMqttLink({ url: gatewayUrl, tid, password, tls, backoff: BACKOFF, stableMs: STABLE_MS }, events, { clock, log: ring.log, random: Math.random }),
    openVoice: (policy, events) => openVoice({ clock, journal, speaker, policy, log: ring.log }, events),
    power: readPower,
    freeBytes: freemem,
    lastLog: ring.text,
    onSpoken: report => writeReport(settings, report),
    onReboot: more.onReboot
  })
  return {
    agent,
    close: async () => {
      await agent.close()
      await speaker.close()
    }
  }
}

function writeReport ({ tid, print, json }: AgentSettings, report: SpokenReport): void {
  if (print) process.stdout.write(`${formatPrintLine(tid, report)}\n`)
  if (json) process.stdout.write(`${formatJsonLine(tid, report)}\n`)
}

/** Runs until a signal; a command of the operator may start the box anew in between. */
async function run (settings: AgentSettings): Promise<void> {
  const log = openLog(settings.logLevel).child({ tid: settings.tid })
  process.stdout.on('error', () => {}) // Nobody reads the lines any more: go on speaking.
  let isStopping = false
  let endLife = (_why: 'stop' | 'reboot'): void => {}
  const stop = (signal: string): void => {
    if (isStopping) process.exit(1)
    isStopping = true
    log.info({ signal }, 'agent stops')
    endLife('stop')
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  for (let resetReason = 'start'; !isStopping; resetReason = 'command') {
    const ended = new Promise<'stop' | 'reboot'>(resolve => { endLife = resolve })
    const box = await openBox(settings, log, { resetReason, onReboot: () => endLife('reboot') })
    log.info({ gateway: settings.gatewayUrl, speaker: settings.speaker, resetReason }, 'agent ready')
    await ended
    await box.close()
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
