#!/usr/bin/env node
// Simulated soundboxes as a process: `mqtt` (a fleet) or `serial` (boxes on pseudo-terminals).
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { makeTimers, SILENT_LOG, safeErrorText, SoundboxError } from '../protocol/index.js'
import { runFleetCommand } from './fleet-command.js'
import { fleetHelp, parseFleetSettings } from './fleet-settings.js'

const EXIT_SETTINGS = 2
const HELP = `soundbox sim: soundboxes without the hardware.

Usage: soundbox sim mqtt [flags]      one or thousands of boxes that connect to a gateway; see sim mqtt --help
       soundbox sim serial [flags]    boxes on pseudo-terminals, as if on serial cables; see sim serial --help
`

/** Resolves at the first SIGINT or SIGTERM; a second one ends the process at once. */
function openStop (): Promise<void> {
  return new Promise(resolve => {
    let isAsked = false
    const stop = (): void => {
      if (isAsked) process.exit(1)
      isAsked = true
      resolve()
    }
    process.on('SIGINT', stop)
    process.on('SIGTERM', stop)
  })
}

async function runMqtt (argv: readonly string[]): Promise<number> {
  const settings = parseFleetSettings({ env: process.env, argv, readText: path => readFileSync(path, 'utf8') })
  if (settings === undefined) {
    process.stdout.write(`${fleetHelp()}\n`)
    return 0
  }
  return await runFleetCommand(settings, {
    nowMs: Date.now,
    log: SILENT_LOG,
    print: text => { process.stdout.write(`${text}\n`) },
    progress: text => { process.stderr.write(`${text}\n`) },
    stopped: openStop()
  })
}

/** The serial parts need a native package: only who asks for them loads them. */
async function runSerial (argv: readonly string[]): Promise<number> {
  const { parseSerialSettings, serialHelp } = await import('./serial-settings.js')
  const settings = parseSerialSettings(argv, path => readFileSync(path, 'utf8'))
  if (settings === undefined) {
    process.stdout.write(`${serialHelp()}\n`)
    return 0
  }
  const { runSerialCommand } = await import('./serial-command.js')
  const stopped = openStop()
  const sim = runSerialCommand(settings, { timers: makeTimers(() => performance.now()), print: line => { process.stdout.write(`${line}\n`) } })
  const input = createInterface({ input: process.stdin }).on('line', line => {
    try {
      if (line.trim() !== '') sim.act(line)
    } catch (error) {
      process.stderr.write(`${safeErrorText(error)}\n`)
    }
  })
  await stopped
  input.close()
  sim.close()
  return 0
}

try {
  const [command, ...argv] = process.argv.slice(2)
  if (command === 'mqtt') process.exitCode = await runMqtt(argv)
  else if (command === 'serial') process.exit(await runSerial(argv)) // Its terminals would hold the process for a while.
  else if (command === undefined || command === '--help' || command === '-h') process.stdout.write(HELP)
  else throw new SoundboxError('INPUT_INVALID', `sim knows mqtt and serial, not ${command.slice(0, 32)}`)
} catch (error) {
  process.stderr.write(`soundbox sim: ${safeErrorText(error)}\n`)
  process.exitCode = error instanceof SoundboxError && ['CONFIG_INVALID', 'INPUT_INVALID'].includes(error.code) ? EXIT_SETTINGS : 1
}
