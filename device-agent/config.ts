// The agent's settings: one table gives the flags, the environment, the help text and the defaults. Pure: takes environment, arguments
// and a file reader, checks everything, and reports all problems at once. A flag wins over its variable; secrets are never echoed.
import { parseArgs } from 'node:util'
import { isLanguage, isTid, type Language, LANGUAGES, Secret, SoundboxError } from '../protocol/index.js'
import type { LinkTls } from './mqtt-link.js'
import type { PlaybackLimits } from './playback.js'
import { SPEAKER_KINDS, type SpeakerKind } from './speaker-kinds.js'

export type BoxKeys = { tid: string, password: Secret, signingKey: Secret }
export type AgentSettings = Readonly<{
  /** One, but for serial ports: there, one for each box that may be plugged in. */
  boxes: readonly BoxKeys[]
  gatewayUrl: string
  tls: LinkTls
  dataDir: string
  speaker: SpeakerKind
  wavDir: string
  play: boolean
  pace: boolean
  language: Language
  volume: number
  prompts: boolean
  limits: PlaybackLimits
  telemetryMs: number
  /** Empty: this machine speaks. `auto`: every adapter. */
  serialPorts: readonly string[]
  baudRate: number
  /** Port of a DFPlayer module that speaks by clip numbers, or null. */
  dfplayerPort: string | null
  print: boolean
  json: boolean
  logLevel: string
}>

type Setting = { name: string, fallback: string, what: string, isSwitch?: true }
const PREFIX = 'SOUNDBOX_AGENT_'
/** Flag `--data-dir` = variable SOUNDBOX_AGENT_DATA_DIR, and so on for each. */
export const AGENT_SETTINGS: readonly Setting[] = [
  { name: 'CREDENTIALS_FILE', fallback: '', what: 'what `soundbox device add --json` printed; with --serial one line for each box' },
  { name: 'TID', fallback: '', what: 'serial number of this soundbox, as it was added to the gateway' },
  { name: 'GATEWAY', fallback: 'mqtt://127.0.0.1:1883', what: 'mqtt://host:port, mqtts://, ws:// or wss://' },
  { name: 'PASSWORD', fallback: '', what: 'MQTT password (other users of this machine can see flags: better a file)' },
  { name: 'PASSWORD_FILE', fallback: '', what: 'file that holds the MQTT password' },
  { name: 'SIGNING_KEY', fallback: '', what: 'key that announcements are signed with' },
  { name: 'SIGNING_KEY_FILE', fallback: '', what: 'file that holds the signing key' },
  { name: 'CA_FILE', fallback: '', what: 'PEM of the authority behind the gateway\'s certificate; empty = the system\'s' },
  { name: 'CERT_FILE', fallback: '', what: 'PEM certificate of this soundbox (CN = serial number), where the gateway asks for one' },
  { name: 'KEY_FILE', fallback: '', what: 'PEM private key of that certificate' },
  { name: 'DATA_DIR', fallback: '', what: 'journal and settings of this soundbox; default data/agent/TID; with --serial a folder for each box in it' },
  { name: 'SPEAKER', fallback: 'espeak', what: `${SPEAKER_KINDS.join(', ')}` },
  { name: 'WAV_DIR', fallback: '', what: 'where espeak leaves its sounds, the newest ones; default DATA_DIR/wav' },
  { name: 'PLAY', fallback: 'on', what: 'on: through the sound device, if there is one; off: files only' },
  { name: 'PACE', fallback: 'off', what: 'on: without a sound device each sound still takes its time' },
  { name: 'LANGUAGE', fallback: 'ENGLISH', what: 'language of prompts until the gateway names another' },
  { name: 'VOLUME', fallback: '80', what: 'volume until the gateway names another; 0 to 100' },
  { name: 'PROMPTS', fallback: 'on', what: 'on: says starting, connected, connection lost, battery low, volume' },
  { name: 'GAP_MS', fallback: '400', what: 'silence between two announcements; 0 to 10000' },
  { name: 'QUEUE_MAX', fallback: '100', what: 'announcements that may wait; 1 to 200' },
  { name: 'SUMMARISE_OVER', fallback: '3', what: 'when more payments wait, they are said as one summary; 0 to 200' },
  { name: 'SPEAK_TIMEOUT_SECONDS', fallback: '60', what: 'a sound that takes longer has failed; 5 to 600' },
  { name: 'TELEMETRY_SECONDS', fallback: '60', what: 'between two readings for the operator; 5 to 86400' },
  { name: 'SERIAL', fallback: '', what: 'serial ports of soundboxes that play by themselves, as /dev/ttyUSB0,/dev/ttyUSB1, or auto; empty = this machine speaks' },
  { name: 'BAUD', fallback: '115200', what: 'rate of those ports; 1200 to 4000000' },
  { name: 'DFPLAYER', fallback: '', what: 'serial port of a DFPlayer module to speak through, instead of the speaker' },
  { name: 'LOG_LEVEL', fallback: 'info', what: 'debug, info, warn, error or silent; the log goes to standard error' },
  { name: 'PRINT', fallback: 'off', what: 'print a line for each announcement that was spoken', isSwitch: true },
  { name: 'JSON', fallback: 'off', what: 'print a JSON object a line for each announcement that was spoken', isSwitch: true }
]

const flagOf = (name: string): string => name.toLowerCase().replaceAll('_', '-')

/** The text of `--help`. */
export function agentHelp (): string {
  const rows = AGENT_SETTINGS.map(({ name, fallback, what, isSwitch }) =>
    `  --${`${flagOf(name)}${isSwitch === true ? '' : ' …'}`.padEnd(25)} ${what}${fallback === '' || isSwitch === true ? '' : ` [${fallback}]`}`)
  return [
    'soundbox agent: makes this machine, or the box on its serial port, one soundbox of the gateway.',
    '',
    'Usage: soundbox agent --credentials-file box.json [flags]',
    '       soundbox device add SB-0001 --json > box.json    (on the gateway, once)',
    '',
    ...rows,
    '',
    `Each flag is also a variable: --data-dir is ${PREFIX}DATA_DIR. Ctrl-C lets the present sound end, then stops. SIGUSR2 is the replay button.`
  ].join('\n')
}

type Sources = { env: Readonly<Record<string, string | undefined>>, argv: readonly string[], readText: (path: string) => string }
type Reader = { text: (name: string) => string, problems: string[], readFile: (name: string) => string }

/** Undefined when --help was asked for. Throws one CONFIG_INVALID that names every setting that is wrong. */
export function parseAgentSettings (sources: Sources): AgentSettings | undefined {
  const problems: string[] = []
  const flags = readFlags(sources.argv, problems)
  if (flags['help'] === true) return undefined
  const text = (name: string): string => {
    const flag = flags[flagOf(name)]
    if (flag !== undefined) return flag === true ? 'on' : String(flag)
    return sources.env[`${PREFIX}${name}`] ?? AGENT_SETTINGS.find(setting => setting.name === name)?.fallback ?? ''
  }
  const readFile = (name: string): string => {
    if (text(name) === '') return ''
    try {
      return sources.readText(text(name))
    } catch {
      problems.push(`${flagOf(name)}: the file cannot be read`)
      return ''
    }
  }
  const settings = settingsFrom({ text, problems, readFile })
  if (problems.length > 0) throw new SoundboxError('CONFIG_INVALID', problems.join('; '))
  return Object.freeze(settings)
}

function readFlags (argv: readonly string[], problems: string[]): Record<string, string | boolean | undefined> {
  const options = Object.fromEntries(AGENT_SETTINGS.map(({ name, isSwitch }) => [flagOf(name), { type: isSwitch === true ? 'boolean' as const : 'string' as const }]))
  try {
    return parseArgs({ args: [...argv], options: { ...options, help: { type: 'boolean', short: 'h' } }, strict: true }).values
  } catch (error) {
    const flag = /'(--?[\w-]+)/.exec(error instanceof Error ? error.message : '')?.[1]
    problems.push(flag === undefined ? 'flags are --name value; see --help' : `${flag} is unknown or lacks its value; see --help`)
    return {}
  }
}

function settingsFrom (reader: Reader): AgentSettings {
  const { text, problems } = reader
  const whole = (name: string, min: number, max: number): number => {
    const value = Number(text(name))
    if (!/^\d{1,9}$/.test(text(name)) || value < min || value > max) problems.push(`${flagOf(name)} must be a whole number from ${min} to ${max}`)
    return value
  }
  const oneOf = <T extends string>(name: string, words: readonly T[]): T => {
    const word = words.find(candidate => candidate === text(name))
    if (word === undefined) problems.push(`${flagOf(name)} must be one of ${words.join(', ')}`)
    return word ?? words[0]!
  }
  const isOn = (name: string): boolean => oneOf(name, ['off', 'on']) === 'on'
  const serialPorts = text('SERIAL').split(',').map(port => port.trim()).filter(port => port !== '')
  const boxes = serialPorts.length > 0 ? boxesFrom(reader) : [boxFrom(reader)]
  const ownDir = serialPorts.length > 0 ? 'data/agent' : `data/agent/${boxes[0]!.tid}`
  const dataDir = text('DATA_DIR') === '' ? ownDir : text('DATA_DIR')
  if (!isLanguage(text('LANGUAGE'))) problems.push(`language must be one of ${LANGUAGES.join(', ')}`)
  if (!/^(?:mqtts?|wss?):\/\/[^@\s]+$/.test(text('GATEWAY'))) problems.push('gateway must be mqtt://host:port, mqtts://, ws:// or wss://, without credentials')
  return {
    boxes,
    gatewayUrl: text('GATEWAY'),
    tls: tlsFrom(reader),
    dataDir,
    speaker: oneOf('SPEAKER', SPEAKER_KINDS),
    wavDir: text('WAV_DIR') === '' ? `${dataDir}/wav` : text('WAV_DIR'),
    play: isOn('PLAY'),
    pace: isOn('PACE'),
    language: isLanguage(text('LANGUAGE')) ? text('LANGUAGE') as Language : 'ENGLISH',
    volume: whole('VOLUME', 0, 100),
    prompts: isOn('PROMPTS'),
    limits: {
      gapMs: whole('GAP_MS', 0, 10_000),
      queueMax: whole('QUEUE_MAX', 1, 200),
      summariseOver: whole('SUMMARISE_OVER', 0, 200),
      speakTimeoutMs: whole('SPEAK_TIMEOUT_SECONDS', 5, 600) * 1000
    },
    telemetryMs: whole('TELEMETRY_SECONDS', 5, 86_400) * 1000,
    serialPorts,
    baudRate: whole('BAUD', 1200, 4_000_000),
    dfplayerPort: text('DFPLAYER') === '' ? null : text('DFPLAYER'),
    print: isOn('PRINT'),
    json: isOn('JSON'),
    logLevel: oneOf('LOG_LEVEL', ['info', 'debug', 'warn', 'error', 'silent'])
  }
}

/** Single settings win over the credentials file, which may hold several boxes when the serial number says which. */
function boxFrom ({ text, problems, readFile }: Reader): BoxKeys {
  const entries = credentialsFrom(readFile('CREDENTIALS_FILE'), problems)
  const file = (text('TID') === '' ? undefined : entries.find(entry => entry['tid'] === text('TID'))) ?? (entries.length === 1 ? entries[0] : undefined) ?? {}
  const secret = (name: string, field: string): Secret => {
    const value = [text(name), readFile(`${name}_FILE`).trim(), file[field] ?? ''].find(candidate => candidate !== '')
    if (value === undefined) problems.push(`${flagOf(name)}, ${flagOf(name)}-file or credentials-file is missing`)
    return new Secret(value ?? '')
  }
  const tid = text('TID') === '' ? file['tid'] ?? '' : text('TID')
  if (!isTid(tid)) problems.push('tid must be 3 to 32 letters, digits, - or _')
  return { tid, password: secret('PASSWORD', 'mqttPassword'), signingKey: secret('SIGNING_KEY', 'signingKey') }
}

/** The boxes of serial ports say who they are; their keys are in the credentials file. */
function boxesFrom ({ text, problems, readFile }: Reader): BoxKeys[] {
  const entries = credentialsFrom(readFile('CREDENTIALS_FILE'), problems)
  if (text('CREDENTIALS_FILE') === '' || entries.length === 0) problems.push('serial needs credentials-file: one line of `soundbox device add --json` for each box')
  return entries.flatMap(({ tid = '', mqttPassword = '', signingKey = '' }, index) => {
    if (isTid(tid) && mqttPassword !== '' && signingKey !== '') return [{ tid, password: new Secret(mqttPassword), signingKey: new Secret(signingKey) }]
    problems.push(`credentials-file: entry ${index + 1} lacks tid, mqttPassword or signingKey`)
    return []
  })
}

/** One JSON object, or one a line. */
function credentialsFrom (json: string, problems: string[]): Record<string, string>[] {
  const texts = (value: unknown): Record<string, string> =>
    Object.fromEntries(Object.entries(value ?? {}).filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
  try {
    return [texts(JSON.parse(json === '' ? '{}' : json))].filter(entry => Object.keys(entry).length > 0)
  } catch {
    try {
      return json.split('\n').filter(line => line.trim() !== '').map(line => texts(JSON.parse(line)))
    } catch {
      problems.push('credentials-file is not the JSON that `soundbox device add --json` prints')
      return []
    }
  }
}

function tlsFrom ({ text, problems, readFile }: Reader): LinkTls {
  const [ca, cert, key] = [readFile('CA_FILE'), readFile('CERT_FILE'), readFile('KEY_FILE')]
  if ((text('CERT_FILE') === '') !== (text('KEY_FILE') === '')) problems.push('cert-file and key-file go together')
  return { ...(ca === '' ? {} : { ca }), ...(cert === '' ? {} : { cert }), ...(key === '' ? {} : { key }) }
}
