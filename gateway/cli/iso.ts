// `soundbox iso`: ping a switch, send it one message, read a message in hex, or be a switch's other side for a while.
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { makeTimers, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { describe, type Message, openFrameReader, unpack } from '../../protocol/iso8583/index.js'
import { type IsoClient, openIsoClient } from '../iso8583/client.js'
import { demoHandler } from '../iso8583/demo.js'
import { formatStan, isApproved, transmissionTime } from '../iso8583/dialect.js'
import { parsePeer, type PeerProfile } from '../iso8583/peers.js'
import { openIsoServer } from '../iso8583/server.js'
import { simulatedCbs } from '../iso8583/simulated-cbs.js'
import type { Context } from './context.js'
import { EXIT } from './output.js'

type Options = Record<string, unknown>
const READY_MS = 10_000
const MESSAGE_HEX_MAX = 131_072

/** Adds the commands. */
export function addIsoCommands (program: Command, context: Context): void {
  const iso = program.command('iso').description('ISO 8583: talk to a switch, or be one')
  addPing(iso, context)
  addSend(iso, context)
  addDescribe(iso, context)
  addDemoServer(iso, context)
}

/** What both ends must agree on. */
function wireOptions (command: Command): Command {
  return command.option('--peer <file>', 'a profile as in the peers file; instead of the next two').option('--spec <name>', '1987-ascii, 1987-bcd, 1993-ascii or a file with a spec', '1987-ascii')
    .option('--prefix <kind>', 'length prefix: binary2, bcd2, ascii4, binary4', 'binary2')
}

function targetOptions (command: Command): Command {
  return wireOptions(command.requiredOption('--to <host:port>', 'the switch')).option('--no-sign-on', 'send without sign-on').option('--timeout <ms>', 'wait for an answer', '10000')
    .option('--ca <file>', 'PEM of the authority behind its certificate: makes it TLS').option('--cert <file>', 'PEM of our certificate').option('--key <file>', 'PEM of its key')
    .option('--server-name <name>', 'name in its certificate, when it is not the host')
}

function addPing (iso: Command, { output }: Context): void {
  targetOptions(iso.command('ping').description('sign on, then echo (0800, 301)')).option('--count <n>', 'how many echoes', '4')
    .action(async (options: Options) => {
      await withClient(options, async client => {
        for (let left = whole(options['count'], '--count', 1, 1000); left > 0; left--) {
          const [ms = 0] = await client.echo()
          output().one({ to: options['to'], echo: 'answered', ms: Math.round(ms * 100) / 100 })
        }
      })
    })
}

function addSend (iso: Command, { output }: Context): void {
  targetOptions(iso.command('send').description('send one message and show the answer, masked; DE 7 and DE 11 are made unless given'))
    .option('--mti <digits>', 'type of the message', '0200').option('--field <number=value...>', 'a field, as 4=000000001900').option('--file <json>', '{"mti", "fields"}; --field adds to it')
    .action(async (options: Options) => {
      const { wire } = profileOf(options)
      await withClient(options, async client => {
        const message = messageOf(options, client.nextStan())
        const startedMs = performance.now()
        const answer = await client.request(message)
        const ms = Math.round((performance.now() - startedMs) * 100) / 100
        const lines = describe(wire.spec, answer)
        if (output().json) output().one({ mti: answer.mti, code: answer.fields['39'] ?? null, ms, lines })
        else for (const line of lines) output().line(line)
        if (!isApproved(answer)) process.exitCode = EXIT.failed
      })
    })
}

function addDescribe (iso: Command, { output }: Context): void {
  wireOptions(iso.command('describe').description('a message in hex as masked lines').argument('[hex]', 'default: standard input')).option('--framed', 'the length prefix stands in front')
    .action(async (hex: string | undefined, options: Options) => {
      const { spec, framing, leniencies } = profileOf(options).wire
      const bytes = bytesOf(hex ?? readFileSync(0, 'utf8'))
      for (const payload of options['framed'] === true ? payloadsOf(bytes, framing) : [bytes]) {
        const message = unpack(spec, payload, leniencies)
        if (output().json) output().one({ mti: message.mti, lines: describe(spec, message) })
        else for (const line of describe(spec, message)) output().line(line)
      }
    })
}

function addDemoServer (iso: Command, { output, interrupted }: Context): void {
  wireOptions(iso.command('demo-server').description('answer a switch as a small issuer would; Ctrl-C ends'))
    .option('--port <port>', '0 = any free one', '8583').option('--host <address>', 'address to listen on', '127.0.0.1').option('--allow <address...>', 'who may connect', ['127.0.0.1', '::1'])
    .action(async (options: Options) => {
      const profile = { ...profileOf(options), ...parsePeer({ ...profileRow(options), addresses: options['allow'] }, 'options', read) }
      const stopped = interrupted()
      const server = await openIsoServer({
        host: String(options['host']), port: whole(options['port'], '--port', 0, 65_535), tls: null, peers: [profile], handle: demoHandler(simulatedCbs(Date.now)),
        timers: makeTimers(() => performance.now()), nowMs: Date.now, log: SILENT_LOG,
        audit: ({ direction, ms, lines, mti, code }) => {
          if (output().json) output().one({ direction, mti, code, ms, lines: lines() })
          else output().line(`${direction === 'in' ? '<-' : '->'} ${lines().join('\n   ')}`)
        }
      })
      if (output().json) output().one({ listening: server.port })
      else output().line(`listening on ${String(options['host'])}:${server.port ?? 0}; try: soundbox iso ping --to ${String(options['host'])}:${server.port ?? 0}`)
      await new Promise<void>(resolve => { stopped.addEventListener('abort', () => { resolve() }) })
      await server.close()
    })
}

async function withClient (options: Options, work: (client: IsoClient) => Promise<void>): Promise<void> {
  const profile = profileOf(options)
  const timeoutMs = whole(options['timeout'], '--timeout', 100, 120_000)
  const [, host = '', port = ''] = /^(.+):(\d{1,5})$/.exec(String(options['to'])) ?? []
  if (host === '') throw new SoundboxError('INPUT_INVALID', '--to must be host:port')
  const client = openIsoClient({
    name: 'command', endpoints: [{ host, port: Number(port), ...tlsOf(options) }], wire: profile.wire, reversals: null,
    policy: { connections: 1, deadlineMs: timeoutMs, attemptMs: timeoutMs, session: { ...profile.session, role: 'client', signOn: options['signOn'] !== false, echoIdleMs: 0 } },
    timers: makeTimers(() => performance.now()), nowMs: Date.now, random: Math.random, log: SILENT_LOG
  })
  try {
    await client.whenReady(Math.min(READY_MS, timeoutMs))
    await work(client)
  } finally {
    await client.close()
  }
}

function tlsOf (options: Options): { tls?: { ca: string, cert?: string, key?: string, servername?: string } } {
  if (options['ca'] === undefined) return {}
  const file = (name: string): object => options[name] === undefined ? {} : { [name]: read(String(options[name])) }
  const servername = options['serverName'] === undefined ? {} : { servername: String(options['serverName']) }
  return { tls: { ca: read(String(options['ca'])), ...file('cert'), ...file('key'), ...servername } }
}

function profileOf (options: Options): PeerProfile {
  const row = options['peer'] === undefined ? profileRow(options) : JSON.parse(read(String(options['peer']))) as object
  return parsePeer(row, options['peer'] === undefined ? 'options' : String(options['peer']), read)
}

function profileRow (options: Options): object {
  return { name: 'command', bank: 'command', addresses: [], spec: options['spec'], framing: { prefix: options['prefix'] }, onParseError: 'reject' }
}

function messageOf (options: Options, stan: number): Message {
  const base = options['file'] === undefined ? {} : JSON.parse(read(String(options['file']))) as Partial<Message>
  const pairs = (options['field'] as string[] | undefined ?? []).map(pair => {
    const [, number = '', value = ''] = /^(\d{1,3})=([\s\S]*)$/.exec(pair) ?? []
    if (number === '') throw new SoundboxError('INPUT_INVALID', '--field must be number=value')
    return [number, value]
  })
  const mti = base.mti ?? String(options['mti'])
  const fields = { 7: transmissionTime(Date.now()), 11: formatStan(stan), ...base.fields, ...Object.fromEntries(pairs) as Record<string, string> }
  return { mti, fields }
}

function bytesOf (text: string): Buffer {
  const hex = text.replace(/\s/g, '')
  if (!/^(?:[0-9A-Fa-f]{2})+$/.test(hex) || hex.length > MESSAGE_HEX_MAX) throw new SoundboxError('INPUT_INVALID', `a message must be hex of at most ${MESSAGE_HEX_MAX} digits`)
  return Buffer.from(hex, 'hex')
}

function payloadsOf (bytes: Buffer, framing: PeerProfile['wire']['framing']): Buffer[] {
  const reader = openFrameReader(framing)
  const payloads = reader.push(bytes).flatMap(event => {
    if (event.kind === 'error') throw event.error
    return event.kind === 'frame' ? [event.payload] : []
  })
  if (reader.pendingBytes() > 0 || payloads.length === 0) throw new SoundboxError('ISO_FRAME_INVALID', 'the last frame is not whole')
  return payloads
}

function whole (value: unknown, name: string, min: number, max: number): number {
  const number = Number(value)
  if (!/^\d{1,9}$/.test(String(value)) || number < min || number > max) throw new SoundboxError('INPUT_INVALID', `${name} must be a whole number from ${min} to ${max}`)
  return number
}

function read (path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SoundboxError('INPUT_INVALID', `${path} cannot be read`, { cause })
  }
}
