#!/usr/bin/env node
// `soundbox`: the one command. Commands about a running gateway talk to it; gateway, agent and sim start those programs.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError } from 'commander'
import { SoundboxError } from '../../protocol/index.js'
import type { BankSecrets } from '../store/directory.js'
import { addAdminCommands } from './admin-commands.js'
import { curlLines, postTrigger, prepareTrigger } from './bank-client.js'
import { addFieldCommands } from './field-commands.js'
import { bankUrl, findTarget, openClient, type TargetOptions } from './client.js'
import type { Context } from './context.js'
import { runDemo } from './demo.js'
import { addIsoCommands } from './iso.js'
import { describeFailure, EXIT, openOutput } from './output.js'

const DIST = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
process.stdout.on('error', error => { process.exit('code' in error && error.code === 'EPIPE' ? EXIT.ok : EXIT.failed) })
const program = new Command()
const isJson = (): boolean => program.opts()['json'] === true || process.argv.includes('--json')
const output = (): ReturnType<typeof openOutput> => openOutput(isJson(), text => { process.stdout.write(text) })
const context: Context = {
  client: () => openClient(findTarget(program.opts<TargetOptions>(), process.env)),
  output,
  interrupted () {
    const controller = new AbortController()
    process.once('SIGINT', () => { controller.abort() })
    return controller.signal
  }
}

program.name('soundbox').description('A shop hears its payments. `make run` shows it all.').exitOverride().showHelpAfterError()
  .option('--data-dir <folder>', 'data directory of the gateway on this machine (SOUNDBOX_DATA_DIR)').option('--url <url>', 'another gateway, as https://host:8080')
  .option('--token <token>', 'operator token for --url (SOUNDBOX_TOKEN)').option('--token-file <file>').option('--json', 'one JSON object a line, for scripts')
addProcessCommand('gateway', 'start the gateway; --help lists its settings', 'gateway/main.js', [])
addProcessCommand('agent', 'start a device agent; --help lists its settings', 'device-agent/main.js', [])
addSimCommand()
addTriggerCommand()
addAdminCommands(program, context)
addFieldCommands(program, {
  ...context, dist: DIST, env: process.env, dataDir: () => program.opts<TargetOptions>().dataDir ?? process.env['SOUNDBOX_DATA_DIR'] ?? 'data', runProgram: become
})
addIsoCommands(program, context)
program.command('demo').description('start everything, post one trigger, hear three soundboxes (make run)')
  .action(async () => { process.exitCode = await runDemo({ dist: DIST, env: process.env, write: text => { process.stdout.write(text) } }) })
for (const command of allCommands(program)) command.option('--json', 'one JSON object a line, for scripts')

try {
  await program.parseAsync(process.argv)
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? EXIT.ok : EXIT.usage)
  const { text, exit } = describeFailure(error, isJson())
  process.stderr.write(`${text}\n`)
  process.exit(exit)
}

/** Hands the rest of the command line to a program of ours, with our terminal and signals. */
function addProcessCommand (name: string, description: string, script: string, before: readonly string[]): void {
  program.command(name).description(description).allowUnknownOption().allowExcessArguments().helpOption(false)
    .action(async () => { await become(script, [...before, ...restOfLine(name)]) })
}

/** What stands behind the program's name, untouched: `--url` and `--data-dir` are also words of ours, and would not reach it. Throws INPUT_INVALID. */
function restOfLine (name: string): string[] {
  if (process.argv[2] !== name) throw new SoundboxError('INPUT_INVALID', `options of ${name} stand behind its name: soundbox ${name} …`)
  return process.argv.slice(3)
}

function addSimCommand (): void {
  program.command('sim').description('simulated soundboxes on MQTT (`sim --devices 100`), on serial ports (`sim serial`), or a switch (`sim iso`)')
    .allowUnknownOption().allowExcessArguments().helpOption(false)
    .action(async () => {
      const line = restOfLine('sim')
      const [first, ...rest] = line
      if (first === 'iso') await become('firmware-sim/iso/main.js', rest)
      else if (first === 'serial' || first === 'mqtt') await become('firmware-sim/main.js', [first, ...rest])
      else await become('firmware-sim/main.js', ['mqtt', ...line])
    })
}

async function become (script: string, args: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [join(DIST, script), ...args], { stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { child.kill(signal) })
  process.exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => { resolve(code ?? (signal === null ? 0 : 1)) })
  })
}

function addTriggerCommand (): void {
  program.command('trigger').description('post one encrypted payment as a bank would')
    .requiredOption('--bank <file>', 'JSON that `bank add --json` printed').requiredOption('--amount <rupees>', 'as 19 or 19.50')
    .option('--to <url>', 'the gateway (default: --url, else the one of the data directory)').option('--merchant <vpa>').option('--device <tid>').option('--txn <id>', 'transaction id (default: made)')
    .option('--language <name>').option('--type <type>', 'UPI, POS, …', 'UPI').option('--status <status>', 'success or failed', 'success')
    .option('--print <form>', 'curl: print the openssl and curl lines instead of sending')
    .action(async (options: Record<string, string | undefined>) => {
      const bank = readBank(options['bank'] ?? '')
      const url = options['to'] ?? bankUrl(program.opts<TargetOptions>(), process.env)
      const columns = columnsOf(options)
      if (options['print'] === 'curl') {
        process.stdout.write(curlLines({ url, bank, columns }))
        return
      }
      if (options['print'] !== undefined) throw new SoundboxError('INPUT_INVALID', '--print knows curl only')
      const reply = await postTrigger(prepareTrigger({ url, bank, columns, nowMs: Date.now() }), bank, Date.now)
      output().one({ http: reply.httpStatus, ms: reply.ms, repeated: reply.repeated, ...reply.answer })
      if (reply.httpStatus !== 200) process.exitCode = EXIT.failed
    })
}

function columnsOf (options: Record<string, string | undefined>): Record<string, string> {
  const columns = {
    column1: options['txn'] ?? `T${Date.now()}${Math.floor(Math.random() * 1000)}`, column2: options['merchant'], column3: options['device'], column7: options['language'],
    column8: options['amount'], column12: options['type'], column15: options['status']
  }
  return Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== undefined)) as Record<string, string>
}

function readBank (path: string): BankSecrets {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as BankSecrets
  } catch (cause) {
    throw new SoundboxError('INPUT_INVALID', `${path} is not what bank add --json printed`, { cause })
  }
}

function allCommands (command: Command): Command[] {
  return command.commands.flatMap(child => child.commands.length > 0 ? allCommands(child) : [child]).filter(child => !['gateway', 'agent', 'sim', 'serial'].includes(child.name()))
}
