// Flags and variables of `soundbox sim mqtt`, and the file with the keys of the boxes. Pure.
import { parseArgs } from 'node:util'
import { isTid, safeErrorText, SoundboxError } from '../protocol/index.js'
import type { BoxKeys } from './fleet-box.js'
import { type FleetFaults, NO_FAULTS, parseFaults, type Range } from './fleet-faults.js'

export type FleetSettings = Readonly<{
  url: string
  ca: string | undefined
  devices: readonly BoxKeys[]
  seed: number
  faults: FleetFaults
  speakMs: Range
  connectsPerSecond: number
  telemetryMs: number
  runMs: number
  progressMs: number
  json: boolean
}>

type Setting = { name: string, fallback: string, what: string, isSwitch?: true }
const PREFIX = 'SOUNDBOX_SIM_'
const FAULT_EXAMPLE = 'ack-loss=0.01,duplicate=0.05,reboot=0.01,offline=0.01,offline-ms=1000-10000,delay-ms=0-200,boot-ms=0-3000'
/** Flag `--tid-prefix` = variable SOUNDBOX_SIM_TID_PREFIX, and so on for each. */
export const FLEET_SETTINGS: readonly Setting[] = [
  { name: 'URL', fallback: 'mqtt://127.0.0.1:1883', what: 'gateway, mqtt://host:port or mqtts://host:port' },
  { name: 'CA_FILE', fallback: '', what: 'PEM of the authority behind the gateway\'s certificate; empty = the system\'s' },
  { name: 'CREDENTIALS', fallback: 'data/devices.jsonl', what: 'what `soundbox device add --json` printed, one object a line or one JSON array' },
  { name: 'TID_PREFIX', fallback: '', what: 'only the boxes whose serial number begins so' },
  { name: 'DEVICES', fallback: '', what: 'so many of them; empty = all' },
  { name: 'SEED', fallback: '1', what: 'the same seed deals the same faults' },
  { name: 'FAULTS', fallback: '', what: `as ${FAULT_EXAMPLE}` },
  { name: 'SPEAK_MS', fallback: '1500-3000', what: 'how long a sound takes, as 0 or 1500-3000' },
  { name: 'CONNECTS_PER_SECOND', fallback: '1000', what: 'pace of the first connections; 0 = all at once' },
  { name: 'TELEMETRY_SECONDS', fallback: '60', what: 'between two readings; 0 = none' },
  { name: 'SECONDS', fallback: '0', what: 'stop and report after so long; 0 = at Ctrl-C' },
  { name: 'EVERY', fallback: '10', what: 'seconds between lines of progress; 0 = none' },
  { name: 'JSON', fallback: 'off', what: 'the report as one JSON object', isSwitch: true }
]
/** Boxes in one process; beyond, start another. */
export const DEVICES_MAX = 20_000
const SECONDS_MAX = 2_592_000

const flagOf = (name: string): string => name.toLowerCase().replaceAll('_', '-')

/** The text of `--help`. */
export function fleetHelp (): string {
  const rows = FLEET_SETTINGS.map(({ name, fallback, what, isSwitch }) =>
    `  --${`${flagOf(name)}${isSwitch === true ? '' : ' …'}`.padEnd(24)} ${what}${fallback === '' || isSwitch === true ? '' : ` [${fallback}]`}`)
  return [
    'soundbox sim mqtt: simulated soundboxes that connect, speak and fail as real ones do, and a report of what they heard.',
    '',
    'Usage: soundbox device add SIM --count 3 --bank demo --json > boxes.jsonl',
    '       soundbox sim mqtt --credentials boxes.jsonl --faults reboot=0.01',
    '',
    ...rows,
    '',
    `Each flag is also a variable: --speak-ms is ${PREFIX}SPEAK_MS. Exit code 1 when a box said something twice.`
  ].join('\n')
}

type Sources = { env: Readonly<Record<string, string | undefined>>, argv: readonly string[], readText: (path: string) => string }

/** Undefined when --help was asked for. Throws one CONFIG_INVALID that names every setting that is wrong. */
export function parseFleetSettings ({ env, argv, readText }: Sources): FleetSettings | undefined {
  const problems: string[] = []
  const flags = readFlags(argv, problems)
  if (flags['help'] === true) return undefined
  const text = (name: string): string => {
    const flag = flags[flagOf(name)]
    if (flag !== undefined) return flag === true ? 'on' : String(flag)
    return env[`${PREFIX}${name}`] ?? FLEET_SETTINGS.find(setting => setting.name === name)?.fallback ?? ''
  }
  const whole = (name: string, min: number, max: number): number => {
    const value = Number(text(name))
    if (!/^\d{1,9}$/.test(text(name)) || value < min || value > max) problems.push(`${flagOf(name)} must be a whole number from ${min} to ${max}`)
    return value
  }
  const attempt = <T>(work: () => T, otherwise: T): T => {
    try {
      return work()
    } catch (error) {
      problems.push(error instanceof SoundboxError ? error.message : safeErrorText(error))
      return otherwise
    }
  }
  const known = attempt(() => parseCredentials(readCredentials(text('CREDENTIALS'), readText)), []).filter(({ tid }) => tid.startsWith(text('TID_PREFIX')))
  const count = text('DEVICES') === '' ? known.length : whole('DEVICES', 1, DEVICES_MAX)
  if (problems.length === 0 && (count > known.length || count === 0)) problems.push(`the credentials file holds ${known.length} boxes of this prefix, ${count} are asked for`)
  const settings: FleetSettings = {
    url: text('URL'),
    ca: text('CA_FILE') === '' ? undefined : attempt(() => readFile('ca-file', text('CA_FILE'), readText), undefined),
    devices: known.slice(0, count),
    seed: whole('SEED', 0, 999_999_999),
    faults: attempt(() => parseFaults(text('FAULTS')), NO_FAULTS),
    speakMs: attempt(() => parseFaults(`delay-ms=${text('SPEAK_MS')}`).delayMs, [0, 0]),
    connectsPerSecond: whole('CONNECTS_PER_SECOND', 0, 100_000),
    telemetryMs: whole('TELEMETRY_SECONDS', 0, 86_400) * 1000,
    runMs: whole('SECONDS', 0, SECONDS_MAX) * 1000,
    progressMs: whole('EVERY', 0, 86_400) * 1000,
    json: text('JSON') === 'on'
  }
  if (!/^mqtts?:\/\/[^@\s]+$/.test(settings.url)) problems.push('url must be mqtt://host:port or mqtts://host:port')
  if (problems.length > 0) throw new SoundboxError('CONFIG_INVALID', problems.join('; '))
  return Object.freeze(settings)
}

function readFlags (argv: readonly string[], problems: string[]): Record<string, string | boolean | undefined> {
  const options = Object.fromEntries(FLEET_SETTINGS.map(({ name, isSwitch }) => [flagOf(name), { type: isSwitch === true ? 'boolean' as const : 'string' as const }]))
  try {
    return parseArgs({ args: [...argv], options: { ...options, help: { type: 'boolean', short: 'h' } }, strict: true }).values
  } catch (error) {
    const flag = /'(--?[\w-]+)/.exec(error instanceof Error ? error.message : '')?.[1]
    problems.push(flag === undefined ? 'flags are --name value; see --help' : `${flag} is unknown or lacks its value; see --help`)
    return {}
  }
}

function readFile (flag: string, path: string, readText: Sources['readText']): string {
  try {
    return readText(path)
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', `${flag}: ${path} cannot be read`, { cause })
  }
}

function readCredentials (path: string, readText: Sources['readText']): string {
  return readFile('credentials (make it with `soundbox device add --json`)', path, readText)
}

/** Keys of boxes from JSON lines, one object or one array of `{tid, mqttPassword, signingKey}`. Throws CONFIG_INVALID naming the entry. */
export function parseCredentials (text: string): BoxKeys[] {
  const entries = readEntries(text)
  return entries.map((entry, index) => {
    const { tid, mqttPassword, password = mqttPassword, signingKey } = (entry ?? {}) as Record<string, unknown>
    if (typeof tid !== 'string' || !isTid(tid) || typeof password !== 'string' || typeof signingKey !== 'string') {
      throw new SoundboxError('CONFIG_INVALID', `credentials: entry ${index + 1} needs tid, mqttPassword and signingKey`)
    }
    return { tid, password, signingKey }
  })
}

function readEntries (text: string): unknown[] {
  const parse = (json: string, line: number): unknown => {
    try {
      return JSON.parse(json) as unknown
    } catch {
      throw new SoundboxError('CONFIG_INVALID', `credentials: line ${line} is not JSON`)
    }
  }
  if (/^\s*\[/.test(text)) {
    const all = parse(text, 1)
    return Array.isArray(all) ? all : []
  }
  return text.split('\n').flatMap((line, index) => line.trim() === '' ? [] : [parse(line, index + 1)])
}
