// Flags of `soundbox sim serial`. Pure.
import { createPublicKey } from 'node:crypto'
import { parseArgs } from 'node:util'
import { BAUD_RATE_DEFAULT, BAUD_RATES, isTid, SoundboxError } from '../protocol/index.js'
import { SIM_BOXES_MAX } from './serial-sim.js'

export type SerialSettings = Readonly<{
  count: number, dfplayers: number, tids: readonly string[], faults: number | undefined, audioScale: number, baudRate: number,
  /** PEM. */
  makerKey: string | undefined
}>

const FLAGS: readonly { name: string, fallback: string, what: string }[] = [
  { name: 'count', fallback: '1', what: 'soundboxes, each on a port of its own' },
  { name: 'dfplayers', fallback: '0', what: 'DFPlayer modules beside them' },
  { name: 'tids', fallback: '', what: 'their serial numbers, a,b,c; - is a box that is not provisioned; empty = SIM-0001 and on' },
  { name: 'faults', fallback: '', what: 'seed of line faults, resets and hangs; empty = none' },
  { name: 'audio-scale', fallback: '1', what: 'how long sounds take: 1 as real ones, 0.1 a tenth' },
  { name: 'baud', fallback: String(BAUD_RATE_DEFAULT), what: 'pace of the lines' },
  { name: 'maker-key', fallback: '', what: 'PEM of the public key that firmware images must be signed for; empty = one that nobody knows' }
]

/** The text of `--help`. */
export function serialHelp (): string {
  return [
    'soundbox sim serial: simulated soundboxes on serial ports of their own; prints `port PATH TID` for each and `heard …` for every sound.',
    '',
    ...FLAGS.map(({ name, fallback, what }) => `  --${`${name} …`.padEnd(16)} ${what}${fallback === '' ? '' : ` [${fallback}]`}`),
    '',
    'While it runs, a line of input acts on a box: press TID replay|volume-up|volume-down, reboot TID, stick TID, unplug TID.'
  ].join('\n')
}

/** Undefined when --help was asked for. Throws one CONFIG_INVALID that names every flag that is wrong. */
export function parseSerialSettings (argv: readonly string[], readText: (path: string) => string): SerialSettings | undefined {
  const problems: string[] = []
  const flags = readFlags(argv, problems)
  if (flags['help'] === true) return undefined
  const text = (name: string): string => String(flags[name] ?? FLAGS.find(flag => flag.name === name)?.fallback ?? '')
  const number = (name: string, min: number, max: number): number => {
    const value = Number(text(name))
    if (!/^\d+(?:\.\d+)?$/.test(text(name)) || value < min || value > max) problems.push(`${name} must be a number from ${min} to ${max}`)
    return value
  }
  const whole = (name: string, min: number, max: number): number => {
    if (text(name).includes('.')) problems.push(`${name} must be whole`)
    return number(name, min, max)
  }
  const tids = text('tids') === '' ? [] : text('tids').split(',').map(tid => tid === '-' ? '' : tid)
  if (tids.some(tid => tid !== '' && !isTid(tid))) problems.push('tids must be 3 to 32 letters, digits, - or _ each')
  const settings: SerialSettings = {
    count: Math.max(tids.length, whole('count', 0, SIM_BOXES_MAX)), dfplayers: whole('dfplayers', 0, SIM_BOXES_MAX), tids,
    faults: text('faults') === '' ? undefined : whole('faults', 0, 999_999_999), audioScale: number('audio-scale', 0.01, 10), baudRate: whole('baud', 0, 1_000_000),
    makerKey: text('maker-key') === '' ? undefined : publicKeyOf(text('maker-key'), readText, problems)
  }
  if (!(BAUD_RATES as readonly number[]).includes(settings.baudRate)) problems.push(`baud must be one of ${BAUD_RATES.join(', ')}`)
  if (problems.length > 0) throw new SoundboxError('CONFIG_INVALID', problems.join('; '))
  return Object.freeze(settings)
}

function publicKeyOf (path: string, readText: (path: string) => string, problems: string[]): string | undefined {
  try {
    const pem = readText(path)
    if (createPublicKey(pem).asymmetricKeyType === 'ed25519') return pem
  } catch {}
  problems.push('maker-key must be a file with an Ed25519 public key in PEM')
  return undefined
}

function readFlags (argv: readonly string[], problems: string[]): Record<string, string | boolean | undefined> {
  const options = Object.fromEntries(FLAGS.map(({ name }) => [name, { type: 'string' as const }]))
  try {
    return parseArgs({ args: [...argv], options: { ...options, help: { type: 'boolean', short: 'h' } }, strict: true }).values
  } catch {
    problems.push('flags are --name value; see --help')
    return {}
  }
}
