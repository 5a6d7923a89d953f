#!/usr/bin/env node
// The simulated switch as a process: `soundbox sim iso`.
import { readFileSync } from 'node:fs'
import { makeTimers, safeErrorText, SoundboxError } from '../../protocol/index.js'
import { runIsoSim } from './iso-sim.js'
import { openRandom } from '../fleet-faults.js'
import { formatReport } from './report.js'
import { isoSimHelp, parseIsoSimSettings } from './settings.js'

const EXIT = { ok: 0, differs: 1, settings: 2 }

/** Resolves at the first SIGINT or SIGTERM; a second one ends the process at once. */
function openStop (): Promise<void> {
  return new Promise(resolve => {
    let isAsked = false
    const stop = (): void => {
      if (isAsked) process.exit(EXIT.differs)
      isAsked = true
      resolve()
    }
    process.on('SIGINT', stop)
    process.on('SIGTERM', stop)
  })
}

async function run (): Promise<number> {
  const settings = parseIsoSimSettings({ env: process.env, argv: process.argv.slice(2), readText: path => readFileSync(path, 'utf8') })
  if (settings === undefined) {
    process.stdout.write(`${isoSimHelp()}\n`)
    return EXIT.ok
  }
  const { json, ...options } = settings
  const report = await runIsoSim({ ...options, makeRandom: openRandom, timers: makeTimers(() => performance.now()), nowMs: Date.now, stopped: openStop() })
  process.stdout.write(`${json ? JSON.stringify(report) : formatReport(report)}\n`)
  return report.ok ? EXIT.ok : EXIT.differs
}

try {
  process.exitCode = await run()
} catch (error) {
  process.stderr.write(`soundbox sim iso: ${safeErrorText(error)}\n`)
  process.exitCode = error instanceof SoundboxError && error.code === 'CONFIG_INVALID' ? EXIT.settings : EXIT.differs
}
