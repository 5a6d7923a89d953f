#!/usr/bin/env node
// Simulated soundboxes as a process: `mqtt` (a fleet) or `serial` (one box on a pseudo-terminal).
import { readFileSync } from 'node:fs'
import { SILENT_LOG, safeErrorText, SoundboxError } from '../protocol/index.js'
import { runFleetCommand } from './fleet-command.js'
import { fleetHelp, parseFleetSettings } from './fleet-settings.js'

const EXIT_SETTINGS = 2
const HELP = `soundbox sim: soundboxes without the hardware.

Usage: soundbox sim mqtt [flags]      one or thousands of boxes that connect to a gateway; see sim mqtt --help
       soundbox sim serial [flags]    one box on a pseudo-terminal, as if on a serial cable; see sim serial --help
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

try {
  const [command, ...argv] = process.argv.slice(2)
  if (command === 'mqtt') process.exitCode = await runMqtt(argv)
  else if (command === undefined || command === '--help' || command === '-h') process.stdout.write(HELP)
  else throw new SoundboxError('INPUT_INVALID', `sim knows mqtt and serial, not ${command.slice(0, 32)}`)
} catch (error) {
  process.stderr.write(`soundbox sim: ${safeErrorText(error)}\n`)
  process.exitCode = error instanceof SoundboxError && ['CONFIG_INVALID', 'INPUT_INVALID'].includes(error.code) ? EXIT_SETTINGS : 1
}
