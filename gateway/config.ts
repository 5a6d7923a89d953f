// The gateway's settings, read once from the environment. Pure: takes the variables and a file reader, checks everything, and reports
// all problems at once. README's table of settings lists the same names; a test keeps the two equal.
import { SoundboxError } from '../protocol/index.js'

/** What a merchant's mapping by the operator asks first: nothing, an account or wallet of his name, that and an approved identity check. */
export const MERCHANT_CHECKS = ['off', 'account', 'full'] as const
export type MerchantCheck = typeof MERCHANT_CHECKS[number]
export type TlsFiles = { certFile: string, keyFile: string, caFile: string | null, requestClientCert: boolean }
export type GatewayConfig = Readonly<{
  dataDir: string
  host: string
  httpPort: number
  mqttPort: number
  mqttsPort: number | null
  websocketPort: number | null
  isoPort: number
  isoPeersFile: string | null
  isoTls: { port: number, certFile: string, keyFile: string, caFile: string } | null
  tls: TlsFiles | null
  httpTls: boolean
  masterKeyFile: string | null
  store: string
  broker: string
  fallback: string
  pubsubKeyFile: string | null
  pubsubHost: string | null
  spoolBytes: number
  retentionDays: number
  backupKeep: number
  backupCron: string
  speakMs: number
  summaryMs: number
  receivedTimeoutMs: number
  deviceTypesFile: string | null
  logLevel: string
  logFile: string | null
  trustProxy: boolean
  /** Of the operator's place: the day of the mail, the clock of stand-ins. */
  utcOffsetMinutes: number
  merchantCheck: MerchantCheck
  reportTo: readonly string[]
  reportCron: string
}>

type Setting = { name: string, fallback: string, what: string }
/** Every variable with its default and meaning, for README, `--help` and the redacted print at start. Integration and ISO peers have their own. */
export const SETTINGS: readonly Setting[] = [
  { name: 'SOUNDBOX_DATA_DIR', fallback: 'data', what: 'folder of database, keys, spool and backups; made on first start' },
  { name: 'SOUNDBOX_HOST', fallback: '127.0.0.1', what: 'address to listen on; 0.0.0.0 for all' },
  { name: 'SOUNDBOX_HTTP_PORT', fallback: '8080', what: 'HTTP port; 0 = any free one' },
  { name: 'SOUNDBOX_MQTT_PORT', fallback: '1883', what: 'MQTT port; 0 = any free one' },
  { name: 'SOUNDBOX_MQTTS_PORT', fallback: '', what: 'MQTT over TLS port; empty = off; needs the TLS files' },
  { name: 'SOUNDBOX_MQTT_WEBSOCKET_PORT', fallback: '', what: 'MQTT over WebSocket port; empty = off' },
  { name: 'SOUNDBOX_ISO_PORT', fallback: '8583', what: 'ISO 8583 port; 0 = any free one; opened when the peers file has a peer without TLS' },
  { name: 'SOUNDBOX_ISO_PEERS_FILE', fallback: '', what: 'JSON of the switches that may connect (gateway/iso8583/README.md); empty = no ISO 8583' },
  { name: 'SOUNDBOX_ISO_TLS_PORT', fallback: '', what: 'ISO 8583 over mutual TLS port; empty = off; needs the three files below' },
  { name: 'SOUNDBOX_ISO_TLS_CERT_FILE', fallback: '', what: 'PEM certificate chain that switches see' },
  { name: 'SOUNDBOX_ISO_TLS_KEY_FILE', fallback: '', what: 'PEM private key of it' },
  { name: 'SOUNDBOX_ISO_TLS_CA_FILE', fallback: '', what: 'PEM of the authority whose switch certificates are accepted (CN = certificate of the peer)' },
  { name: 'SOUNDBOX_TLS_CERT_FILE', fallback: '', what: 'PEM certificate chain for MQTT over TLS and HTTPS' },
  { name: 'SOUNDBOX_TLS_KEY_FILE', fallback: '', what: 'PEM private key' },
  { name: 'SOUNDBOX_TLS_CA_FILE', fallback: '', what: 'PEM of the authority whose device certificates are accepted (CN = tid)' },
  { name: 'SOUNDBOX_TLS_CLIENT_CERT', fallback: 'false', what: 'true: every soundbox must show a client certificate' },
  { name: 'SOUNDBOX_HTTP_TLS', fallback: 'false', what: 'true: the HTTP port speaks HTTPS with the TLS files' },
  { name: 'SOUNDBOX_MASTER_KEY_FILE', fallback: '', what: 'file of the master key; default DATA_DIR/master.key, made on first start' },
  { name: 'SOUNDBOX_STORE', fallback: 'sqlite', what: 'sqlite, or postgres://user:password@host/database; its backups are its own business' },
  { name: 'SOUNDBOX_BROKER', fallback: 'embedded', what: 'embedded, or mqtt://user:password@host:1883 or mqtts://… of any MQTT 3.1.1 broker' },
  { name: 'SOUNDBOX_FALLBACK', fallback: 'spool', what: 'spool, or pubsub://project/topic of Google Pub/Sub, with the spool as second net' },
  { name: 'SOUNDBOX_PUBSUB_KEY_FILE', fallback: '', what: 'service account key (JSON) of Google Pub/Sub' },
  { name: 'PUBSUB_EMULATOR_HOST', fallback: '', what: 'host:port of a Pub/Sub emulator; no key is needed then' },
  { name: 'SOUNDBOX_SPOOL_BYTES', fallback: '67108864', what: 'preallocated size of the fallback spool, 1 MiB to 16 GiB' },
  { name: 'SOUNDBOX_RETENTION_DAYS', fallback: '400', what: 'history older than this is removed; 1 to 3650' },
  { name: 'SOUNDBOX_BACKUP_KEEP', fallback: '7', what: 'nightly backups kept; 0 = no backups' },
  { name: 'SOUNDBOX_BACKUP_CRON', fallback: '30 2 * * *', what: 'when the backup is made' },
  { name: 'SOUNDBOX_SPEAK_SECONDS', fallback: '60', what: 'an announcement older than this is not spoken on its own; 5 to 600' },
  { name: 'SOUNDBOX_SUMMARY_SECONDS', fallback: '600', what: 'a payment older than this is in no summary; 60 to 86400' },
  { name: 'SOUNDBOX_RECEIVED_TIMEOUT_MS', fallback: '5000', what: 'wait for the box to say received before sending again; 100 to 60000' },
  { name: 'SOUNDBOX_DEVICE_TYPES_FILE', fallback: '', what: 'JSON list of further device types' },
  { name: 'SOUNDBOX_LOG_LEVEL', fallback: 'info', what: 'debug, info, warn, error or silent' },
  { name: 'SOUNDBOX_LOG_FILE', fallback: '', what: 'write the log there instead of standard output' },
  { name: 'SOUNDBOX_TRUST_PROXY', fallback: 'false', what: 'true: take the caller\'s address from the last entry of X-Forwarded-For; needed behind a proxy, as limits count by address' },
  { name: 'SOUNDBOX_UTC_OFFSET_MINUTES', fallback: '330', what: 'local time of stand-in messages and of the daily mail, -840 to 840' },
  { name: 'SOUNDBOX_MERCHANT_CHECK', fallback: 'off', what: 'what mapping a merchant asks first: off, account (account or wallet of his name), full (and an approved identity check)' },
  { name: 'SOUNDBOX_REPORT_TO', fallback: '', what: 'e-mail addresses of the daily mail, by comma; empty = none; needs EMAIL_SMTP_*' },
  { name: 'SOUNDBOX_REPORT_CRON', fallback: '0 7-11 * * *', what: 'when the mail of the day before goes; a later time is a try after a failure' }
]

export const REPORT_ADDRESSES_MAX = 10
const ADDRESS = '[^\\s@<>,;]{1,64}@[A-Za-z0-9.-]{1,190}'
const ADDRESSES = new RegExp(`^(?:${ADDRESS}(?: ?, ?${ADDRESS}){0,${REPORT_ADDRESSES_MAX - 1}})?$`)
type Env = Readonly<Record<string, string | undefined>>

/** Throws one CONFIG_INVALID that names every variable that is wrong. */
export function parseConfig (env: Env): GatewayConfig {
  const problems: string[] = []
  const text = (name: string): string => env[name] ?? SETTINGS.find(setting => setting.name === name)?.fallback ?? ''
  const optional = (name: string): string | null => text(name) === '' ? null : text(name)
  const whole = (name: string, min: number, max: number): number => {
    const value = Number(text(name))
    if (!/^\d{1,15}$/.test(text(name)) || value < min || value > max) problems.push(`${name} must be a whole number from ${min} to ${max}`)
    return value
  }
  const port = (name: string): number => whole(name, 0, 65_535)
  const flag = (name: string): boolean => {
    if (!['true', 'false'].includes(text(name))) problems.push(`${name} must be true or false`)
    return text(name) === 'true'
  }
  const shape = (name: string, form: RegExp, what: string): string => {
    if (!form.test(text(name))) problems.push(`${name} must be ${what}`)
    return text(name)
  }
  const cron = (name: string): string => {
    if (!isCron(text(name))) problems.push(`${name} must be a cron expression of five fields, as 30 2 * * *`)
    return text(name)
  }
  const config: GatewayConfig = Object.freeze({
    dataDir: shape('SOUNDBOX_DATA_DIR', /^[^\0]+$/, 'a folder'),
    host: shape('SOUNDBOX_HOST', /^[\w.:-]+$/, 'an address'),
    httpPort: port('SOUNDBOX_HTTP_PORT'),
    mqttPort: port('SOUNDBOX_MQTT_PORT'),
    mqttsPort: optional('SOUNDBOX_MQTTS_PORT') === null ? null : port('SOUNDBOX_MQTTS_PORT'),
    websocketPort: optional('SOUNDBOX_MQTT_WEBSOCKET_PORT') === null ? null : port('SOUNDBOX_MQTT_WEBSOCKET_PORT'),
    isoPort: port('SOUNDBOX_ISO_PORT'),
    isoPeersFile: optional('SOUNDBOX_ISO_PEERS_FILE'),
    isoTls: isoTls(optional, port, problems),
    tls: tlsFiles(optional, flag, problems),
    httpTls: flag('SOUNDBOX_HTTP_TLS'),
    masterKeyFile: optional('SOUNDBOX_MASTER_KEY_FILE'),
    store: shape('SOUNDBOX_STORE', /^(?:sqlite|postgres(?:ql)?:\/\/.+)$/, 'sqlite or postgres://…'),
    broker: shape('SOUNDBOX_BROKER', /^(?:embedded|mqtts?:\/\/.+)$/, 'embedded, mqtt://… or mqtts://…'),
    fallback: shape('SOUNDBOX_FALLBACK', /^(?:spool|pubsub:\/\/[^/]+\/.+)$/, 'spool or pubsub://project/topic'),
    pubsubKeyFile: optional('SOUNDBOX_PUBSUB_KEY_FILE'),
    pubsubHost: optional('PUBSUB_EMULATOR_HOST'),
    spoolBytes: whole('SOUNDBOX_SPOOL_BYTES', 1_048_576, 17_179_869_184),
    retentionDays: whole('SOUNDBOX_RETENTION_DAYS', 1, 3650),
    backupKeep: whole('SOUNDBOX_BACKUP_KEEP', 0, 366),
    backupCron: cron('SOUNDBOX_BACKUP_CRON'),
    speakMs: whole('SOUNDBOX_SPEAK_SECONDS', 5, 600) * 1000,
    summaryMs: whole('SOUNDBOX_SUMMARY_SECONDS', 60, 86_400) * 1000,
    receivedTimeoutMs: whole('SOUNDBOX_RECEIVED_TIMEOUT_MS', 100, 60_000),
    deviceTypesFile: optional('SOUNDBOX_DEVICE_TYPES_FILE'),
    logLevel: shape('SOUNDBOX_LOG_LEVEL', /^(?:debug|info|warn|error|silent)$/, 'debug, info, warn, error or silent'),
    logFile: optional('SOUNDBOX_LOG_FILE'),
    trustProxy: flag('SOUNDBOX_TRUST_PROXY'),
    ...merchantSide(shape, cron)
  })
  if ((config.httpTls || config.mqttsPort !== null) && config.tls === null) problems.push('SOUNDBOX_TLS_CERT_FILE and SOUNDBOX_TLS_KEY_FILE are needed for TLS')
  if (config.fallback !== 'spool' && config.pubsubKeyFile === null && config.pubsubHost === null) problems.push('SOUNDBOX_PUBSUB_KEY_FILE is needed for Pub/Sub')
  if (config.summaryMs < config.speakMs) problems.push('SOUNDBOX_SUMMARY_SECONDS must not be below SOUNDBOX_SPEAK_SECONDS')
  if (problems.length > 0) throw new SoundboxError('CONFIG_INVALID', problems.join('; '))
  return config
}

/** The settings as they may be printed: passwords in URLs hidden. */
export function describeConfig (config: GatewayConfig): Record<string, unknown> {
  const hide = (url: string): string => url.replace(/:\/\/[^/]*@/, '://[secret]@')
  return { ...config, store: hide(config.store), broker: hide(config.broker) }
}

type MerchantSide = Pick<GatewayConfig, 'utcOffsetMinutes' | 'merchantCheck' | 'reportTo' | 'reportCron'>
function merchantSide (shape: (name: string, form: RegExp, what: string) => string, cron: (name: string) => string): MerchantSide {
  return {
    utcOffsetMinutes: Number(shape('SOUNDBOX_UTC_OFFSET_MINUTES', /^-?(?:\d{1,2}|[1-7]\d\d|8[0-3]\d|840)$/, 'whole minutes from -840 to 840')),
    merchantCheck: shape('SOUNDBOX_MERCHANT_CHECK', /^(?:off|account|full)$/, `one of ${MERCHANT_CHECKS.join(', ')}`) as MerchantCheck,
    reportTo: addresses(shape('SOUNDBOX_REPORT_TO', ADDRESSES, `at most ${REPORT_ADDRESSES_MAX} e-mail addresses, by comma`)),
    reportCron: cron('SOUNDBOX_REPORT_CRON')
  }
}

function addresses (text: string): readonly string[] {
  return text.split(',').map(address => address.trim()).filter(address => address !== '')
}

function isoTls (optional: (name: string) => string | null, port: (name: string) => number, problems: string[]): GatewayConfig['isoTls'] {
  if (optional('SOUNDBOX_ISO_TLS_PORT') === null) return null
  const [certFile, keyFile, caFile] = ['SOUNDBOX_ISO_TLS_CERT_FILE', 'SOUNDBOX_ISO_TLS_KEY_FILE', 'SOUNDBOX_ISO_TLS_CA_FILE'].map(optional) as [string | null, string | null, string | null]
  if (certFile !== null && keyFile !== null && caFile !== null) return { port: port('SOUNDBOX_ISO_TLS_PORT'), certFile, keyFile, caFile }
  problems.push('SOUNDBOX_ISO_TLS_PORT needs SOUNDBOX_ISO_TLS_CERT_FILE, SOUNDBOX_ISO_TLS_KEY_FILE and SOUNDBOX_ISO_TLS_CA_FILE')
  return null
}

/** Least and largest value of minute, hour, day of the month, month, day of the week. */
const CRON_FIELDS = [[0, 59], [0, 23], [1, 31], [1, 12], [0, 7]] as const

/** True for five fields of numbers, ranges, steps and lists of them. */
export function isCron (text: string): boolean {
  const fields = text.trim().split(/ +/)
  return fields.length === CRON_FIELDS.length && fields.every((field, index) => field.split(',').every(part => isCronPart(part, CRON_FIELDS[index] ?? [0, 0])))
}

function isCronPart (part: string, [min, max]: readonly [number, number]): boolean {
  const match = /^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:\/(\d{1,2}))?$/.exec(part)
  if (match === null) return false
  const from = Number(match[1] ?? min)
  const to = Number(match[2] ?? match[1] ?? max)
  return from >= min && to <= max && from <= to && match[3] !== '0' && match[3] !== '00'
}

function tlsFiles (optional: (name: string) => string | null, flag: (name: string) => boolean, problems: string[]): TlsFiles | null {
  const certFile = optional('SOUNDBOX_TLS_CERT_FILE')
  const keyFile = optional('SOUNDBOX_TLS_KEY_FILE')
  const caFile = optional('SOUNDBOX_TLS_CA_FILE')
  const requestClientCert = flag('SOUNDBOX_TLS_CLIENT_CERT')
  if (certFile === null && keyFile === null) return null
  if (certFile === null || keyFile === null) {
    problems.push('SOUNDBOX_TLS_CERT_FILE and SOUNDBOX_TLS_KEY_FILE go together')
    return null
  }
  if (requestClientCert && caFile === null) problems.push('SOUNDBOX_TLS_CLIENT_CERT needs SOUNDBOX_TLS_CA_FILE')
  return { certFile, keyFile, caFile, requestClientCert }
}
