// `make run`, as a newcomer meets it: three boxes speak the first payment, the printed commands work, Ctrl-C ends it, a second run goes on.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { eventually, tempDir } from '../support/rig.js'

const BOXES = ['SB-DEMO-EN', 'SB-DEMO-HI', 'SB-DEMO-SERIAL']
const SLOW_MACHINE_MS = 120_000
const CLI = 'dist/gateway/cli/main.js'
const ANY_PORT = { SOUNDBOX_HTTP_PORT: '0', SOUNDBOX_MQTT_PORT: '0', SOUNDBOX_ISO_PORT: '0' }
const run = promisify(execFile)

t.test('a newcomer hears the first payment, posts the next by HTTP and by ISO 8583, and starts again on the same data', async t => {
  const dir = join(tempDir(t), 'data')
  const first = await startDemo(t, dir)
  t.equal(statSync(dir).mode & 0o777, 0o700)
  t.match(first.text(), /HTTP 200, Message successfully sent/)
  for (const tid of BOXES) t.match(first.text(), new RegExp(`${tid} said "`))
  t.match(first.text(), /"Received rupees nineteen on U P I"/)
  t.match(first.text(), /"यू पी आई से उन्नीस रुपये प्राप्त हुए"/)
  const [wav = ''] = /\S+\.wav/.exec(first.text()) ?? []
  t.equal(readFileSync(wav).toString('latin1', 0, 4), 'RIFF')

  for (const command of printedCommands(first.text()).slice(0, 2)) await run('bash', ['-c', command])
  await eventually(first.text, text => countOf(text, /SB-DEMO-SERIAL said ".*two hundred fifty and fifty paise/g) === 2, SLOW_MACHINE_MS)
  const overIso = printedCommands(first.text()).find(command => command.includes(' iso send ')) ?? ''
  t.match(JSON.parse((await run('bash', ['-c', `${overIso} --json`])).stdout), { mti: '0210', code: '00' })
  await eventually(first.text, text => BOXES.every(tid => countOf(text, new RegExp(`${tid} said "`, 'g')) >= 4), SLOW_MACHINE_MS)
  t.equal(await first.stop(), 0)

  const second = await startDemo(t, dir)
  t.match(second.text(), /SB-DEMO-EN said "Received rupees nineteen/)
  const { stdout } = await run(process.execPath, [CLI, 'history', '--json', '--data-dir', dir])
  t.equal(stdout.trim().split('\n').length, 5, 'what was paid before is there')
  t.equal(await second.stop(), 0)
  t.notOk(existsSync(join(dir, 'gateway.sock')))
})

type Demo = { text: () => string, stop: () => Promise<number | null> }

/** Resolves when it has said its next steps. */
async function startDemo (t: Test, dir: string): Promise<Demo> {
  const child: ChildProcess = spawn(process.execPath, [CLI, 'demo'], { env: { PATH: process.env['PATH'], ...ANY_PORT, SOUNDBOX_DATA_DIR: dir }, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>(resolve => { child.once('exit', resolve) })
  const lines: string[] = []
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', line => { lines.push(line) })
  const text = (): string => lines.join('\n')
  const stop = async (): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGINT')
    return await ended
  }
  t.teardown(stop)
  await eventually(text, found => found.includes('Ctrl-C stops') || child.exitCode !== null, SLOW_MACHINE_MS)
  return { text, stop }
}

/** The commands that it prints, run from the build instead of an installed package. */
function printedCommands (text: string): string[] {
  return text.split('\n').filter(line => line.startsWith('  npx soundbox')).map(line => line.trim().replaceAll('npx soundbox', `${process.execPath} ${CLI}`))
}

function countOf (text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].length
}
