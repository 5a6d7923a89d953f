#!/usr/bin/env node
// The technician's tool beside a box or an agent's machine: `soundbox serial …`, and the machine's half of `soundbox doctor`.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type BoxCredentials, makeTimers, SILENT_LOG, safeErrorText, SoundboxError } from '../../protocol/index.js'
import { listSerialPorts } from '../serial-link.js'
import { examineMachine } from './doctor.js'
import { monitorPort, probePort, provisionBox, type ToolDeps } from './serial-tool.js'

const HELP = `soundbox serial: soundboxes on a serial cable.

Usage: soundbox serial list                            ports of this machine, with their stable names
       soundbox serial probe PORT [--baud 115200]      who is behind a port
       soundbox serial monitor PORT [--baud 115200]    the line, decoded, both directions; Ctrl-C ends
Each takes --json. To give a box its identity: soundbox device provision TID --serial PORT
`
const EXIT_USAGE = 2
const deps: ToolDeps = { timers: makeTimers(Date.now), log: SILENT_LOG }

try {
  const { values, positionals: [command, port] } = parseArgs({
    allowPositionals: true, options: { json: { type: 'boolean' }, baud: { type: 'string' }, code: { type: 'string' }, help: { type: 'boolean', short: 'h' } }
  })
  if (command === undefined || values.help === true) process.stdout.write(HELP)
  else await run(command, port, values)
} catch (error) {
  const isOurs = error instanceof SoundboxError
  process.stderr.write(`soundbox serial: ${isOurs ? safeErrorText(error) : 'see soundbox serial --help'}\n`)
  process.exit(isOurs && error.code !== 'INPUT_INVALID' ? 1 : EXIT_USAGE)
}

type Flags = { json?: boolean | undefined, baud?: string | undefined, code?: string | undefined }

async function run (command: string, path: string | undefined, flags: Flags): Promise<void> {
  const print = (value: object): void => { process.stdout.write(`${flags.json === true ? JSON.stringify(value) : lineOf(value)}\n`) }
  switch (command) {
    case 'list': {
      const ports = await listSerialPorts()
      if (ports.length === 0 && flags.json !== true) process.stdout.write('no serial ports found\n')
      for (const port of ports) print(port)
      return
    }
    case 'probe': {
      print(await probePort(choiceOf(path, flags), deps))
      return
    }
    case 'monitor': {
      const monitor = monitorPort(choiceOf(path, flags), deps, line => { process.stdout.write(`${line}\n`) })
      await new Promise<void>(resolve => { for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { resolve() }) })
      await monitor.close()
      return
    }
    case 'provision': {
      // The secrets come on standard input: other users of the machine see arguments.
      const credentials = JSON.parse(readFileSync(0, 'utf8')) as BoxCredentials
      print(await provisionBox(choiceOf(path, flags), deps, { credentials, code: wholeNumber(flags.code, '--code', 999_999) }))
      return
    }
    case 'doctor': {
      const wavDir = mkdtempSync(join(tmpdir(), 'soundbox-doctor-'))
      for (const finding of await examineMachine({ log: SILENT_LOG, clock: deps.timers, wavDir })) print(finding)
      rmSync(wavDir, { recursive: true, force: true })
      return
    }
    default: throw new SoundboxError('INPUT_INVALID', `serial knows list, probe and monitor, not ${command.slice(0, 32)}`)
  }
}

function choiceOf (path: string | undefined, { baud }: Flags): { path: string, baudRate?: number } {
  if (path === undefined) throw new SoundboxError('INPUT_INVALID', 'name the port: soundbox serial list shows them')
  return { path, ...(baud === undefined ? {} : { baudRate: wholeNumber(baud, '--baud', 4_000_000) }) }
}

function wholeNumber (text: string | undefined, name: string, max: number): number {
  if (text === undefined || !/^\d{1,7}$/.test(text) || Number(text) > max) throw new SoundboxError('INPUT_INVALID', `${name} must be a whole number up to ${max}`)
  return Number(text)
}

function lineOf (value: object): string {
  const word = (member: unknown): string => typeof member === 'object' ? JSON.stringify(member) : String(member)
  return Object.entries(value).filter(([, member]) => member !== null && member !== undefined).map(([key, member]) => `${key}=${word(member)}`).join('  ')
}
