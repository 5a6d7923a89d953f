import t from 'tap'
import { AGENT_SETTINGS, agentHelp, parseAgentSettings } from '../../device-agent/config.js'

const IDENTITY = { SOUNDBOX_AGENT_TID: 'SB-0001', SOUNDBOX_AGENT_PASSWORD: 'pass-word-1', SOUNDBOX_AGENT_SIGNING_KEY: 'key-1' }
const FILES: Record<string, string> = {
  'box.json': '{"tid":"SB-0007","type":"own","mqttUsername":"SB-0007","mqttPassword":"pass-7","signingKey":"key-7"}\n',
  'ca.pem': 'CA', 'cert.pem': 'CERT', 'key.pem': 'KEY', 'password.txt': 'from-a-file\n', 'torn.json': '{"tid":'
}

function readText (path: string): string {
  const text = FILES[path]
  if (text === undefined) throw new Error('ENOENT')
  return text
}

const parse = (argv: string[] = [], env: Record<string, string> = IDENTITY) => parseAgentSettings({ env, argv, readText })

t.test('defaults are sensible, and the folder is named after the box', async t => {
  t.match(parse(), {
    boxes: [{ tid: 'SB-0001' }], gatewayUrl: 'mqtt://127.0.0.1:1883', dataDir: 'data/agent/SB-0001', wavDir: 'data/agent/SB-0001/wav', speaker: 'espeak', play: true, pace: false,
    language: 'ENGLISH', volume: 80, prompts: true, limits: { gapMs: 400, queueMax: 100, summariseOver: 3, speakTimeoutMs: 60_000 }, telemetryMs: 60_000,
    serialPorts: [], baudRate: 115_200, dfplayerPort: null, print: false, json: false, logLevel: 'info', tls: {}
  })
  t.ok(Object.isFrozen(parse()))
})

t.test('a flag wins over its variable; secrets come from files too and are never shown', async t => {
  const env = { ...IDENTITY, SOUNDBOX_AGENT_VOLUME: '11', SOUNDBOX_AGENT_GAP_MS: '0', SOUNDBOX_AGENT_PASSWORD: '' }
  const settings = parse(['--volume', '55', '--json', '--data-dir=/box', '--password-file', 'password.txt'], env)
  t.match(settings, { volume: 55, json: true, dataDir: '/box', wavDir: '/box/wav', limits: { gapMs: 0 } })
  t.equal(settings?.boxes[0]?.password.reveal(), 'from-a-file')
  t.notMatch(JSON.stringify(settings), /from-a-file|key-1/)
})

t.test('one file brings what `device add --json` printed; single settings win over it', async t => {
  const settings = parse(['--credentials-file', 'box.json', '--signing-key', 'key-9'], {})
  t.equal(settings?.boxes[0]?.tid, 'SB-0007')
  t.same([settings?.boxes[0]?.password.reveal(), settings?.boxes[0]?.signingKey.reveal()], ['pass-7', 'key-9'])
})

t.test('TLS files are read', async t => {
  t.same(parse(['--ca-file', 'ca.pem', '--cert-file', 'cert.pem', '--key-file', 'key.pem'])?.tls, { ca: 'CA', cert: 'CERT', key: 'KEY' })
  t.throws(() => parse(['--cert-file', 'cert.pem']), { code: 'CONFIG_INVALID', message: /go together/ })
})

t.test('each limit holds at the limit and not one past it', async t => {
  const rows: [string, number, number][] = [
    ['volume', 0, 100], ['gap-ms', 0, 10_000], ['queue-max', 1, 200], ['summarise-over', 0, 200], ['speak-timeout-seconds', 5, 600], ['telemetry-seconds', 5, 86_400]
  ]
  for (const [flag, min, max] of rows) {
    for (const value of [min, max]) t.doesNotThrow(() => parse([`--${flag}`, String(value)]), `${flag} ${value}`)
    for (const value of [min - 1, max + 1, '', '1.5', '0x10']) t.throws(() => parse([`--${flag}=${value}`]), { code: 'CONFIG_INVALID', message: new RegExp(flag) }, `${flag} ${value}`)
  }
})

t.test('every wrong setting is named, all at once, and no secret is', async t => {
  const argv = [
    '--gateway', 'mqtt://user:hidden@host', '--speaker', 'horn', '--play', 'yes', '--language', 'KLINGON', '--log-level', 'loud',
    '--ca-file', 'missing.pem', '--credentials-file', 'torn.json'
  ]
  t.throws(() => parse(argv, { SOUNDBOX_AGENT_TID: 'a b' }), {
    code: 'CONFIG_INVALID',
    message: /credentials-file.*password.*missing.*signing-key.*missing|tid must be/
  })
  try {
    parse(argv, { SOUNDBOX_AGENT_TID: 'a b' })
  } catch (error) {
    const text = String(error)
    for (const word of ['tid', 'password', 'signing-key', 'gateway', 'speaker', 'play', 'language', 'log-level', 'ca-file', 'credentials-file']) t.match(text, word)
    t.notMatch(text, 'hidden')
  }
  t.throws(() => parse(['--passwrod', 'hidden']), { code: 'CONFIG_INVALID', message: /--passwrod is unknown/ })
  t.throws(() => parse(['hidden']), { code: 'CONFIG_INVALID', message: /see --help/ })
  t.throws(() => parse(['--volume']), { code: 'CONFIG_INVALID', message: /--volume .*lacks its value/ })
})

t.test('help names every flag with its default', async t => {
  t.equal(parse(['--help']), undefined)
  t.equal(parse(['-h'], {}), undefined)
  for (const { name, what } of AGENT_SETTINGS) {
    t.match(agentHelp(), `--${name.toLowerCase().replaceAll('_', '-')}`)
    t.match(agentHelp(), what)
  }
})
