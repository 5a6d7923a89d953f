// Flags and variables of `soundbox sim iso`. Pure.
import { parseArgs } from 'node:util'
import { SoundboxError } from '../../protocol/index.js'
import { compileFraming, compileShippedSpec, compileSpec, type PrefixKind, SHIPPED_SPECS, type ShippedSpec, type Spec } from '../../protocol/iso8583/index.js'
import type { IsoSimOptions } from './iso-sim.js'

export type IsoSimSettings = Omit<IsoSimOptions, 'timers' | 'nowMs' | 'makeRandom' | 'stopped'> & { json: boolean }
type Setting = { name: string, fallback: string, what: string, isSwitch?: true }
const PREFIX = 'SOUNDBOX_SIM_ISO_'
/** Flag `--answer-ms` = variable SOUNDBOX_SIM_ISO_ANSWER_MS, and so on for each. */
export const ISO_SIM_SETTINGS: readonly Setting[] = [
  { name: 'TO', fallback: '127.0.0.1:8583', what: 'gateway, host:port' },
  { name: 'RATE', fallback: '100', what: 'exchanges a second, 1 to 20000' },
  { name: 'CONNECTIONS', fallback: '4', what: '1 to 64; with faults as many again for these' },
  { name: 'SECONDS', fallback: '10', what: 'then stop and report' },
  { name: 'SEED', fallback: '1', what: 'the same seed makes the same exchanges' },
  { name: 'FAULTS', fallback: '', what: 'a seed: also slow, split, cut and broken frames' },
  { name: 'MERCHANT', fallback: 'DEMO-SHOP', what: 'DE 42, mapped to a soundbox of the bank' },
  { name: 'TERMINAL', fallback: 'SIMTERM1', what: 'DE 41' },
  { name: 'STRANGER', fallback: 'NO-SUCH-SHOP', what: 'DE 42 that is not mapped' },
  { name: 'ACCOUNT', fallback: '0150245000100', what: 'DE 102 of balance and statement; "none" = they are not asked for' },
  { name: 'SPEC', fallback: '1987-ascii', what: '1987-ascii, 1987-bcd, or a file with a spec' },
  { name: 'PREFIX', fallback: 'binary2', what: 'binary2, bcd2, ascii4 or binary4' },
  { name: 'ANSWER_MS', fallback: '10000', what: 'an answer must come within so long' },
  { name: 'ON_PARSE_ERROR', fallback: 'close', what: 'close or reject: what the gateway does with a message it cannot read' },
  { name: 'CA_FILE', fallback: '', what: 'PEM of the authority behind the gateway\'s certificate: makes it TLS' },
  { name: 'CERT_FILE', fallback: '', what: 'PEM of our certificate' },
  { name: 'KEY_FILE', fallback: '', what: 'PEM of its key' },
  { name: 'SERVER_NAME', fallback: '', what: 'name in the gateway\'s certificate, when it is not the host' },
  { name: 'JSON', fallback: 'off', what: 'the report as one JSON object', isSwitch: true }
]
const SLOW_MS = 400

const flagOf = (name: string): string => name.toLowerCase().replaceAll('_', '-')

/** The text of `--help`. */
export function isoSimHelp (): string {
  const rows = ISO_SIM_SETTINGS.map(({ name, fallback, what, isSwitch }) =>
    `  --${`${flagOf(name)}${isSwitch === true ? '' : ' …'}`.padEnd(20)} ${what}${fallback === '' || isSwitch === true ? '' : ` [${fallback}]`}`)
  return [
    'soundbox sim iso: a switch that signs on, sends purchases, advices and their repeats, reversals, questions and, if told, damaged frames,',
    'compares each answer with what must come, and reports.', '',
    'Usage: soundbox sim iso --rate 500 --connections 4 --faults 7', '', ...rows, '',
    `Each flag is also a variable: --answer-ms is ${PREFIX}ANSWER_MS. Exit code 1 when an answer was not as expected.`
  ].join('\n')
}

type Sources = { env: Readonly<Record<string, string | undefined>>, argv: readonly string[], readText: (path: string) => string }

/** Undefined when --help was asked for. Throws one CONFIG_INVALID that names every setting that is wrong. */
export function parseIsoSimSettings ({ env, argv, readText }: Sources): IsoSimSettings | undefined {
  const problems: string[] = []
  const flags = readFlags(argv, problems)
  if (flags['help'] === true) return undefined
  const text = (name: string): string => {
    const flag = flags[flagOf(name)]
    if (flag !== undefined) return flag === true ? 'on' : String(flag)
    return env[`${PREFIX}${name}`] ?? ISO_SIM_SETTINGS.find(setting => setting.name === name)?.fallback ?? ''
  }
  const whole = (name: string, min: number, max: number): number => {
    const value = Number(text(name))
    if (!/^\d{1,9}$/.test(text(name)) || value < min || value > max) problems.push(`${flagOf(name)} must be a whole number from ${min} to ${max}`)
    return value
  }
  const word = <T extends string>(name: string, words: readonly T[]): T => {
    const found = words.find(one => one === text(name))
    if (found === undefined) problems.push(`${flagOf(name)} must be one of ${words.join(', ')}`)
    return found ?? words[0]!
  }
  const file = (name: string): string | undefined => {
    try {
      return text(name) === '' ? undefined : readText(text(name))
    } catch {
      problems.push(`${flagOf(name)}: the file cannot be read`)
      return undefined
    }
  }
  const [, host = '', port = ''] = /^([\w.-]+|\[[0-9a-f:]+\]):(\d{1,5})$/i.exec(text('TO')) ?? []
  if (host === '' || Number(port) > 65_535) problems.push('to must be host:port')
  const settings: IsoSimSettings = {
    host: host.replace(/[[\]]/g, ''), port: Number(port), spec: specOf(text('SPEC'), readText, problems),
    framing: compileFraming({ prefix: word<PrefixKind>('PREFIX', ['binary2', 'bcd2', 'ascii4', 'binary4']) }), tls: tlsOf(file, text('SERVER_NAME'), problems),
    rate: whole('RATE', 1, 20_000), connections: whole('CONNECTIONS', 1, 64), seconds: whole('SECONDS', 1, 86_400),
    seed: text('FAULTS') === '' ? whole('SEED', 0, 999_999_999) : whole('FAULTS', 0, 999_999_999), faults: text('FAULTS') !== '',
    merchant: text('MERCHANT'), terminal: text('TERMINAL'), stranger: text('STRANGER'), account: text('ACCOUNT') === 'none' ? null : text('ACCOUNT'),
    answerMs: whole('ANSWER_MS', 100, 120_000), slowMs: SLOW_MS, onParseError: word('ON_PARSE_ERROR', ['close', 'reject']), json: text('JSON') === 'on'
  }
  if (problems.length > 0) throw new SoundboxError('CONFIG_INVALID', problems.join('; '))
  return settings
}

function specOf (name: string, readText: (path: string) => string, problems: string[]): Spec {
  try {
    return Object.hasOwn(SHIPPED_SPECS, name) ? compileShippedSpec(name as ShippedSpec) : compileSpec(JSON.parse(readText(name)))
  } catch (error) {
    problems.push(error instanceof SoundboxError ? error.message : 'spec must be a shipped one or a file with a spec')
    return compileShippedSpec('1987-ascii')
  }
}

function tlsOf (file: (name: string) => string | undefined, servername: string, problems: string[]): IsoSimSettings['tls'] {
  const [ca, cert, key] = [file('CA_FILE'), file('CERT_FILE'), file('KEY_FILE')]
  if (ca === undefined) return null
  if ((cert === undefined) !== (key === undefined)) problems.push('cert-file and key-file go together')
  return { ca, ...(cert === undefined || key === undefined ? {} : { cert, key }), ...(servername === '' ? {} : { servername }) }
}

function readFlags (argv: readonly string[], problems: string[]): Record<string, string | boolean | undefined> {
  const options = Object.fromEntries(ISO_SIM_SETTINGS.map(({ name, isSwitch }) => [flagOf(name), { type: isSwitch === true ? 'boolean' as const : 'string' as const }]))
  try {
    return parseArgs({ args: [...argv], options: { ...options, help: { type: 'boolean', short: 'h' } }, strict: true }).values
  } catch (error) {
    const flag = /'(--?[\w-]+)/.exec(error instanceof Error ? error.message : '')?.[1]
    problems.push(flag === undefined ? 'flags are --name value; see --help' : `${flag} is unknown or lacks its value; see --help`)
    return {}
  }
}
