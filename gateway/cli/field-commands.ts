// The technician in the field: `serial` and `doctor`, and `device provision`, which binds a box on a cable to its serial number and
// activates it only after the technician has typed what the box said.
import { spawn } from 'node:child_process'
import { randomInt, X509Certificate } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { readFile, stat, statfs, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import type { Command } from 'commander'
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import type { Context } from './context.js'
import { EXIT } from './output.js'

const TOOL = 'device-agent/technician/main.js'
const DISK_FREE_BYTES_MIN = 512 * 1024 * 1024
const CODE_TRIES = 3
const CERTIFICATE_DAYS_MIN = 14
const DAY_MS = 86_400_000
type Row = Record<string, unknown>
type FieldContext = Context & { dist: string, env: Readonly<Record<string, string | undefined>>, dataDir: () => string, runProgram: (script: string, args: readonly string[]) => Promise<void> }

/** Adds the commands; `device` is the command group they join. */
export function addFieldCommands (program: Command, context: FieldContext): void {
  program.command('serial').description('soundboxes on a serial cable: list, probe, monitor, update').allowUnknownOption().allowExcessArguments().helpOption(false)
    .action(async (_options: unknown, command: Command) => { await context.runProgram(TOOL, context.output().json ? [...command.args, '--json'] : command.args) })
  program.command('doctor').description('what keeps this machine from working, each finding with its remedy').action(async () => {
    const findings = [...await examineGateway(context), ...await runTool(context, ['doctor', '--json'])]
    context.output().rows(findings, { check: 'check', level: 'level', found: 'found', remedy: 'remedy' })
    if (findings.some(finding => finding['level'] === 'fault')) process.exitCode = EXIT.failed
  })
  program.commands.find(command => command.name() === 'device')?.command('provision')
    .description('write the identity into a box on a cable, hear its code, then activate it').argument('<tid>', 'serial number')
    .requiredOption('--serial <port>', 'as `soundbox serial list` shows it').option('--type <type>', 'device type', 'SB3').option('--language <name>', 'as ENGLISH or HINDI', 'ENGLISH')
    .option('--baud <rate>').option('--credentials-out <file>', 'keep the secrets for the agent in this file (mode 600)').option('--replace', 'the box had another serial number before')
    .option('--heard <code>', 'the code, where nobody can be asked')
    .action(async (tid: string, options: Row) => { await provision(context, tid, options) })
}

async function provision (context: FieldContext, tid: string, options: Row): Promise<void> {
  const client = context.client()
  const secrets = await client.call('POST', '/devices', { tid, type: options['type'], language: options['language'] }).catch(async (error: unknown) => {
    if (!isSoundboxError(error, 'ALREADY_EXISTS')) throw error
    return await client.call('POST', `/devices/${encodeURIComponent(tid)}/rekey`)
  })
  if (typeof options['credentialsOut'] === 'string') await keepSecrets(options['credentialsOut'], secrets)
  const code = typeof options['heard'] === 'string' ? Number(options['heard']) : randomInt(100_000, 1_000_000)
  const flags = [String(options['serial']), '--code', String(code), '--json', ...(options['baud'] === undefined ? [] : ['--baud', String(options['baud'])])]
  const [result] = await runTool(context, ['provision', ...flags], JSON.stringify({ tid, ...(options['replace'] === true ? { replace: true } : {}) }))
  const said = result?.['said'] as Row | undefined
  if (said?.['result'] !== 'spoken') throw new SoundboxError('SPEECH_FAILED', `the box did not say its code (${String(said?.['reason'] ?? said?.['result'] ?? 'no answer')}); it stays inactive`)
  if (typeof options['heard'] !== 'string' && !await isHeard(code)) {
    throw new SoundboxError('INPUT_INVALID', 'what was typed is not what this box said: it stays inactive; check which box is on the cable')
  }
  await client.call('POST', `/devices/${encodeURIComponent(tid)}/activate`)
  const hello = result?.['hello'] as Row | undefined
  context.output().one({ tid, serial: options['serial'], model: hello?.['model'] ?? null, firmware: hello?.['firmware'] ?? null, status: 'active' })
}

async function isHeard (code: number): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    let left = CODE_TRIES
    process.stderr.write('Type the six digits that the box said: ')
    for await (const line of terminal) {
      if (line.replace(/\D/g, '') === String(code)) return true
      left--
      if (left === 0) break
      process.stderr.write('That is not it, type once more: ')
    }
    process.stderr.write('That was not it.\n')
    return false
  } finally {
    terminal.close()
  }
}

async function keepSecrets (path: string, secrets: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(secrets)}\n`, { mode: 0o600 })
}

/** Rows of JSON that the tool prints. Its own words on standard error go to the terminal. */
async function runTool ({ dist }: FieldContext, args: readonly string[], input = ''): Promise<Row[]> {
  const child = spawn(process.execPath, [join(dist, TOOL), ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(input)
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  const code = await new Promise<number>(resolve => { child.once('close', status => { resolve(status ?? 1) }) })
  if (code !== 0) throw new SoundboxError('SERIAL_UNAVAILABLE', 'the box was not reached or refused; the reason is above (--replace for a box that has another serial number)')
  return text.split('\n').filter(line => line !== '').map(line => JSON.parse(line) as Row)
}

type Add = (check: string, level: Finding['level'], found: string, remedy?: string | null) => void
type Finding = { check: string, level: 'ok' | 'warning' | 'fault', found: string, remedy: string | null }

async function examineGateway (context: FieldContext): Promise<Finding[]> {
  const dir = context.dataDir()
  const findings: Finding[] = []
  const add: Add = (check, level, found, remedy = null) => { findings.push({ check, level, found, remedy }) }
  const mode = await stat(dir).then(entry => entry.mode & 0o777, () => undefined)
  if (mode === undefined) add('data directory', 'warning', `${dir} is not there`, 'start the gateway once: it makes it')
  else add('data directory', mode === 0o700 ? 'ok' : 'fault', `${dir}, mode ${mode.toString(8)}`, mode === 0o700 ? null : `chmod 700 ${dir}`)
  const free = await statfs(mode === undefined ? '.' : dir).then(disk => disk.bavail * disk.bsize, () => 0)
  add('disk', free >= DISK_FREE_BYTES_MIN ? 'ok' : 'fault', `${Math.floor(free / 1_048_576)} MiB free`, free >= DISK_FREE_BYTES_MIN ? null : 'free disk space: history and spool need it')
  await examineBroker(context, add)
  await examineCertificate(context.env['SOUNDBOX_TLS_CERT_FILE'], add)
  try {
    const status = await context.client().call('GET', '/status') as { broker: { ready: boolean, connected: number }, fallbackDepth: number, store: { failedBatches: number } }
    add('gateway', 'ok', `answers, ${status.broker.connected} soundboxes connected`)
    add('broker', status.broker.ready ? 'ok' : 'fault', status.broker.ready ? 'ready' : 'cannot be reached', status.broker.ready ? null : 'check SOUNDBOX_BROKER and the broker itself')
    add('fallback', status.fallbackDepth === 0 ? 'ok' : 'warning', `${status.fallbackDepth} records wait`, status.fallbackDepth === 0 ? null : 'the database refused them: look at its disk and lock')
  } catch (error) {
    add('gateway', 'fault', isSoundboxError(error) ? error.message : 'does not answer', 'start it (soundbox gateway), or name it with --data-dir')
  }
  return findings
}

async function examineCertificate (path: string | undefined, add: Add): Promise<void> {
  if (path === undefined || path === '') return
  try {
    const daysLeft = Math.floor((Date.parse(new X509Certificate(await readFile(path)).validTo) - Date.now()) / DAY_MS)
    const isGood = daysLeft >= CERTIFICATE_DAYS_MIN
    add('certificate', isGood ? 'ok' : daysLeft < 0 ? 'fault' : 'warning', `${daysLeft} days left`, isGood ? null : 'renew it and start the gateway again')
  } catch {
    add('certificate', 'fault', `${path} cannot be read`, 'check SOUNDBOX_TLS_CERT_FILE')
  }
}

async function examineBroker ({ env }: FieldContext, add: Add): Promise<void> {
  const address = env['SOUNDBOX_BROKER'] ?? 'embedded'
  const host = address === 'embedded' ? undefined : URL.parse(address)?.hostname
  if (host === undefined) return
  const found = await lookup(host).then(entry => entry.address, () => undefined)
  add('broker name', found === undefined ? 'fault' : 'ok', found ?? `${host} is not found`, found === undefined ? 'check DNS and SOUNDBOX_BROKER' : null)
}
