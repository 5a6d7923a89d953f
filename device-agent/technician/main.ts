#!/usr/bin/env node
// The technician's tool beside a box or an agent's machine: `soundbox serial …`, and the machine's half of `soundbox doctor`.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type BoxCredentials, makeFirmwareKeys, makeTimers, sealFirmware, SILENT_LOG, safeErrorText, SoundboxError } from '../../protocol/index.js'
import { listSerialPorts } from '../serial-link.js'
import { examineMachine } from './doctor.js'
import { monitorPort, probePort, provisionBox, type ToolDeps, updateBox } from './serial-tool.js'

const HELP = `soundbox serial: soundboxes on a serial cable.

Usage: soundbox serial list                            ports of this machine, with their stable names
       soundbox serial probe PORT [--baud 115200]      who is behind a port
       soundbox serial monitor PORT [--baud 115200]    the line, decoded, both directions; Ctrl-C ends
       soundbox serial update PORT IMAGE [--force]     bring a signed firmware image into a box; --force lets an older version in
       soundbox serial keys FOLDER                     for the maker: a key pair for images, maker-key.pem and maker-key-public.pem
       soundbox serial sign BODY --model sb-1 --version 1.2.0 --key maker-key.pem --out IMAGE
Each takes --json. To give a box its identity: soundbox device provision TID --serial PORT
`
const EXIT_USAGE = 2
const deps: ToolDeps = { timers: makeTimers(Date.now), log: SILENT_LOG }

try {
  const text = { type: 'string' } as const
  const { values, positionals: [command, ...paths] } = parseArgs({
    allowPositionals: true, options: {
      json: { type: 'boolean' }, force: { type: 'boolean' }, baud: text, code: text, model: text, version: text, key: text, out: text, help: { type: 'boolean', short: 'h' }
    }
  })
  if (command === undefined || values.help === true) process.stdout.write(HELP)
  else await run(command, paths, values)
} catch (error) {
  const isOurs = error instanceof SoundboxError
  process.stderr.write(`soundbox serial: ${isOurs ? safeErrorText(error) : 'see soundbox serial --help'}\n`)
  process.exit(isOurs && error.code !== 'INPUT_INVALID' ? 1 : EXIT_USAGE)
}

type Flags = { json?: boolean | undefined, force?: boolean | undefined } & { [Name in 'baud' | 'code' | 'model' | 'version' | 'key' | 'out']?: string | undefined }

async function run (command: string, [path, file]: readonly string[], flags: Flags): Promise<void> {
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
    case 'update': {
      const image = readBytes(file, 'the image')
      const onProgress = (done: number, total: number): void => { if (process.stderr.isTTY) process.stderr.write(`\r${Math.floor(100 * done / total)} %`) }
      print(await updateBox(choiceOf(path, flags), deps, { image, force: flags.force === true, onProgress }))
      return
    }
    case 'keys': {
      const { privateKey, publicKey } = makeFirmwareKeys()
      const folder = path ?? '.'
      mkdirSync(folder, { recursive: true })
      writeNew(join(folder, 'maker-key.pem'), privateKey, 0o600)
      writeNew(join(folder, 'maker-key-public.pem'), publicKey, 0o644)
      return
    }
    case 'sign': {
      const { model = '', version = '', key, out } = flags
      writeNew(out, sealFirmware(readBytes(path, 'the program'), { model, version, privateKey: readBytes(key, '--key').toString('utf8') }), 0o644)
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
    default: throw new SoundboxError('INPUT_INVALID', `serial knows list, probe, monitor, update, keys and sign, not ${command.slice(0, 32)}`)
  }
}

function readBytes (path: string | undefined, what: string): Buffer {
  if (path === undefined) throw new SoundboxError('INPUT_INVALID', `name the file of ${what}: see soundbox serial --help`)
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new SoundboxError('INPUT_INVALID', `the file of ${what} cannot be read: check path and mode`, { cause })
  }
}

/** A key or an image that is there already is never written over. */
function writeNew (path: string | undefined, content: string | Buffer, mode: number): void {
  if (path === undefined) throw new SoundboxError('INPUT_INVALID', 'name the file to write: --out')
  try {
    writeFileSync(path, content, { mode, flag: 'wx' })
  } catch (cause) {
    throw new SoundboxError('INPUT_INVALID', `${path} cannot be written, or is there already`, { cause })
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
