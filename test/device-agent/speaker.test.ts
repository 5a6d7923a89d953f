// The speakers with engine, player, host process and clock as fakes that record what they got: nothing here waits or makes a sound.
import { EventEmitter } from 'node:events'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Say, SAY_TIMEOUT_MS, speakThrough } from '../../device-agent/say-speaker.js'
import { openPrintSpeaker, openSilentSpeaker } from '../../device-agent/simple-speaker.js'
import type { Engine } from '../../device-agent/speaker-engine.js'
import { openSpeaker, parseSpeakerKind, SPEAKER_KINDS } from '../../device-agent/speaker-kinds.js'
import type { Player } from '../../device-agent/speaker-player.js'
import { openSoundFolder, openWaveSpeaker, WAV_FILES } from '../../device-agent/speaker-wave.js'
import { checkUtterance, type Speaker, speechFailed, type Utterance, UTTERANCE_CHARS_MAX } from '../../device-agent/speaker.js'
import { audioMsOf, encodeWav, parseWav, type Pcm, scaleVolume } from '../../device-agent/wav.js'
import { SILENT_LOG } from '../../protocol/log.js'
import { handClock } from './hand-clock.js'

const INJECTIONS = ['hello") (system "touch owned', '$(touch owned)', '`touch owned`', 'a; touch owned', '<speak>', 'a\nb', '-v', "it's", '']

function utterance (change: Partial<Utterance> = {}): Utterance {
  return { text: 'Received rupees nineteen', clips: ['received', 'rupees', 'n19'], language: 'ENGLISH', volume: 100, ...change }
}

/** An engine whose sound is the length of the text, so that every phrase can be told from the others. */
function fakeEngine (samplesOfText = (text: string): number => text.length) {
  const asked: string[] = []
  const engine: Engine & { asked: string[], fails: boolean, isClosed: boolean } = {
    name: 'fake', asked, fails: false, isClosed: false,
    synthesize: async (text, language) => {
      asked.push(`${language} ${text}`)
      if (engine.fails) throw speechFailed('the fake was told to fail')
      return { rate: 1000, samples: new Int16Array(samplesOfText(text)).fill(1000) }
    },
    close: () => { engine.isClosed = true }
  }
  return engine
}

function waveSpeaker (t: { testdir: () => string, teardown: (end: () => Promise<void>) => void }, change: Partial<Parameters<typeof openWaveSpeaker>[0]> = {}) {
  const engine = fakeEngine()
  const clock = handClock()
  const wavDir = change.wavDir ?? t.testdir()
  const speaker = openWaveSpeaker({ engine, player: undefined, wavDir, clock, pace: false, cacheLimits: { phrasesMax: 3, bytesMax: 1000 }, ...change })
  t.teardown(() => speaker.close())
  return { speaker, engine, clock, wavDir }
}

t.test('a WAV file holds what was put in, and its sizes are true', async t => {
  const pcm: Pcm = { rate: 22_050, samples: Int16Array.from([0, 1, -1, 32_767, -32_768]) }
  const bytes = encodeWav(pcm)
  t.equal(bytes.toString('hex'), [
    '52494646', '2e000000', '57415645', '666d7420', '10000000', '0100', '0100', '22560000', '44ac0000', '0200', '1000', '64617461', '0a000000',
    '0000', '0100', 'ffff', 'ff7f', '0080'
  ].join(''))
  t.same(parseWav(bytes), pcm)
  t.equal(audioMsOf({ rate: 22_050, samples: new Int16Array(22_050) }), 1000)
  t.equal(audioMsOf({ rate: 8000, samples: new Int16Array(12) }), 2, 'rounded')
  t.equal(audioMsOf({ rate: 8000, samples: new Int16Array() }), 0)
})

t.test('a WAV reader takes false sizes, other chunks and odd bytes, and refuses what it cannot play', async t => {
  const good = encodeWav({ rate: 8000, samples: Int16Array.from([1, 2, 3]) })
  const changed = (change: (bytes: Buffer) => void): Buffer => {
    const bytes = Buffer.from(good)
    change(bytes)
    return bytes
  }
  t.same([...parseWav(changed(bytes => bytes.writeUInt32LE(0xFFFFFFFF, 40))).samples], [1, 2, 3], 'a stream that did not know its size')
  t.same([...parseWav(changed(bytes => bytes.writeUInt32LE(0x7FFFF000, 40))).samples], [1, 2, 3])
  t.same([...parseWav(Buffer.concat([good.subarray(0, 36), Buffer.from('LIST\x03\0\0\0abc\0', 'latin1'), good.subarray(36)])).samples], [1, 2, 3], 'padded chunk between')
  t.same([...parseWav(good.subarray(0, -1)).samples], [1, 2], 'half a sample at the end')
  const refused: [Buffer, string][] = [
    [Buffer.alloc(0), 'nothing'], [good.subarray(0, 11), 'too short'], [good.subarray(0, 40), 'no data'], [Buffer.from('OggS'.padEnd(60)), 'another format'],
    [changed(bytes => bytes.writeUInt16LE(2, 22)), 'stereo'], [changed(bytes => bytes.writeUInt16LE(8, 34)), '8 bits'],
    [changed(bytes => bytes.writeUInt16LE(3, 20)), 'floats'], [changed(bytes => bytes.writeUInt32LE(0, 24)), 'no rate']
  ]
  for (const [bytes, why] of refused) t.throws(() => parseWav(bytes), { code: 'SPEECH_FAILED' }, why)
  for (let at = 0; at < good.length * 8; at++) {
    const flipped = changed(bytes => { bytes[at >> 3] = (bytes[at >> 3] ?? 0) ^ (1 << (at & 7)) })
    try {
      parseWav(flipped)
    } catch (error) {
      if ((error as { code?: string }).code !== 'SPEECH_FAILED') t.fail(`bit ${at}: ${String(error)}`)
    }
  }
})

t.test('volume is exact on every sample and leaves the original alone', async t => {
  const samples = Int16Array.from([-32_768, -101, -1, 0, 1, 101, 32_767])
  const rows: [number, number[]][] = [
    [0, [0, 0, 0, 0, 0, 0, 0]],
    [1, [-328, -1, 0, 0, 0, 1, 328]],
    [50, [-16_384, -50, 0, 0, 1, 51, 16_384]],
    [99, [-32_440, -100, -1, 0, 1, 100, 32_439]],
    [100, [...samples]]
  ]
  for (const [volume, want] of rows) t.same([...scaleVolume({ rate: 8000, samples }, volume).samples], want, `volume ${volume}`)
  t.same([...samples], [-32_768, -101, -1, 0, 1, 101, 32_767])
})

t.test('an utterance is checked at the limits and one past them', async t => {
  t.doesNotThrow(() => checkUtterance(utterance({ volume: 0, text: 'a'.repeat(UTTERANCE_CHARS_MAX) })))
  t.throws(() => checkUtterance(utterance({ text: 'a'.repeat(UTTERANCE_CHARS_MAX + 1) })), { code: 'INPUT_INVALID' })
  for (const volume of [-1, 101, 50.5, Number.NaN]) t.throws(() => checkUtterance(utterance({ volume })), { code: 'INPUT_INVALID' }, String(volume))
})

t.test('no speaker passes on a text that a program could read as more than words', async t => {
  const { speaker, engine, wavDir } = waveSpeaker(t)
  const said: string[] = []
  const say: Say = { child: null, speak: (text, _voice, _speed, callback) => { said.push(text); callback(null) } }
  const speakers: Speaker[] = [speaker, speakThrough(say, handClock()), openPrintSpeaker(text => { said.push(text) }), openSilentSpeaker()]
  for (const one of speakers) {
    for (const text of INJECTIONS) await t.rejects(one.say(utterance({ text })), { code: 'INPUT_INVALID' }, `${one.name}: ${JSON.stringify(text)}`)
  }
  t.same([...engine.asked, ...said, ...readdirSync(wavDir)], [])
})

t.test('print shows the sentence, silent nothing, and both say so', async t => {
  const lines: string[] = []
  const print = openPrintSpeaker(line => { lines.push(line) })
  const silent = openSilentSpeaker()
  t.same(await print.say(utterance({ text: 'उन्नीस रुपये', language: 'HINDI' })), { audioMs: 0, soundAfterMs: 0, wav: null })
  t.same(await silent.say(utterance()), { audioMs: 0, soundAfterMs: 0, wav: null })
  t.same([lines, print.name, silent.name], [['उन्नीस रुपये'], 'print', 'silent'])
  await Promise.all([print.close(), silent.close()])
})

t.test('a kind of speaker is chosen by name', async t => {
  for (const kind of SPEAKER_KINDS) t.equal(parseSpeakerKind(kind), kind)
  for (const text of ['', 'ESPEAK', 'toString']) t.throws(() => parseSpeakerKind(text), { code: 'INPUT_INVALID' })
  const lines: string[] = []
  const deps = { clock: handClock(), log: SILENT_LOG, print: (line: string) => { lines.push(line) } }
  for (const kind of ['print', 'silent'] as const) {
    const speaker = await openSpeaker({ kind, wavDir: t.testdir() }, deps)
    await speaker.say(utterance())
    t.equal(speaker.name, kind)
    await speaker.close()
  }
  t.same(lines, ['Received rupees nineteen'])
})

t.test('a phrase becomes a WAV file, scaled, and its length is told', async t => {
  const { speaker, engine, wavDir } = waveSpeaker(t)
  const { audioMs, wav } = await speaker.say(utterance({ volume: 50 }))
  t.equal(audioMs, 24, 'one millisecond a letter')
  const sound = parseWav(readFileSync(wav ?? ''))
  t.equal(sound.rate, 1000)
  t.same([...sound.samples], Array.from({ length: 24 }, () => 500))
  const again = await speaker.say(utterance({ volume: 100 }))
  t.equal(parseWav(readFileSync(again.wav ?? '')).samples[0], 1000, 'kept at full volume, not at the first one')
  t.equal(engine.asked.length, 1, 'a kept phrase does not call the engine')
  await speaker.say(utterance({ language: 'HINDI' }))
  t.equal(engine.asked.length, 2, 'the same text in another language is another phrase')
  t.same(readdirSync(wavDir).sort(), ['sound-00.wav', 'sound-01.wav', 'sound-02.wav'], 'no half-written file stays')
})

t.test('kept phrases are bounded in number: the longest unused goes', async t => {
  const { speaker, engine } = waveSpeaker(t)
  const say = async (text: string): Promise<boolean> => {
    const before = engine.asked.length
    await speaker.say(utterance({ text }))
    return engine.asked.length === before
  }
  for (const text of ['a', 'b', 'c']) await say(text)
  t.same([await say('a'), await say('b'), await say('c')], [true, true, true], 'at the limit all are kept')
  await say('d')
  t.same([await say('b'), await say('c'), await say('d')], [true, true, true])
  t.equal(await say('a'), false, 'one past it the longest unused went')
})

t.test('kept phrases are bounded in bytes', async t => {
  const engine = fakeEngine(text => text.length * 100)
  const { speaker } = waveSpeaker(t, { engine, cacheLimits: { phrasesMax: 100, bytesMax: 1000 } })
  for (const text of ['aaa', 'bb', 'aaa', 'bb']) await speaker.say(utterance({ text }))
  t.equal(engine.asked.length, 2, '600 and 400 bytes are exactly the limit')
  for (const text of ['c', 'bb', 'aaa']) await speaker.say(utterance({ text }))
  t.equal(engine.asked.length, 4, '200 more push out the older one')
  for (const text of ['dddddd', 'dddddd']) await speaker.say(utterance({ text }))
  t.equal(engine.asked.length, 6, 'a phrase over the whole limit is spoken, but not kept')
})

t.test('a failed phrase is not kept, and the next call tries again', async t => {
  const { speaker, engine } = waveSpeaker(t)
  engine.fails = true
  await t.rejects(speaker.say(utterance()), { code: 'SPEECH_FAILED' })
  engine.fails = false
  t.equal((await speaker.say(utterance())).audioMs, 24)
})

t.test('WAV files are bounded: the oldest is overwritten', async t => {
  const { speaker, wavDir } = waveSpeaker(t)
  const { wav: first } = await speaker.say(utterance({ text: 'a' }))
  for (let i = 1; i < WAV_FILES; i++) t.not((await speaker.say(utterance({ text: 'a' }))).wav, first)
  t.equal(readdirSync(wavDir).length, WAV_FILES)
  const { wav: next } = await speaker.say(utterance({ text: 'long' }))
  t.equal(next, first)
  t.equal(parseWav(readFileSync(next ?? '')).samples.length, 4)
  t.equal(readdirSync(wavDir).length, WAV_FILES)
})

t.test('a folder that cannot be written fails with what to do', async t => {
  const { speaker, wavDir } = waveSpeaker(t)
  rmSync(wavDir, { recursive: true })
  await t.rejects(speaker.say(utterance()), { code: 'SPEECH_FAILED', message: /free space/ })
  t.throws(() => openSoundFolder('/dev/null/sounds'), { code: 'SPEECH_FAILED', message: /name one/ })
  openSoundFolder(join(wavDir, 'new'))
  t.equal((await waveSpeaker(t, { wavDir: join(wavDir, 'new') }).speaker.say(utterance())).audioMs, 24)
})

t.test('with a player the sound is played, and a player that fails is a failed sound', async t => {
  const played: [string, number][] = []
  let fails = false
  const player: Player = {
    name: 'fake player',
    play: async (wav, audioMs) => {
      played.push([wav, audioMs])
      if (fails) throw speechFailed('no device')
    },
    stop: () => {}
  }
  const { speaker } = waveSpeaker(t, { player, pace: true })
  const { wav } = await speaker.say(utterance())
  t.same(played, [[wav, 24]])
  t.equal(speaker.name, 'fake to fake player')
  fails = true
  await t.rejects(speaker.say(utterance()), { code: 'SPEECH_FAILED' })
})

t.test('without a player, pace waits for as long as the sound lasts', async t => {
  const { speaker, clock } = waveSpeaker(t, { pace: true })
  let isDone = false
  const said = speaker.say(utterance()).then(made => {
    isDone = true
    return made
  })
  await clock.waitForTimer()
  clock.turn(23)
  await new Promise(resolve => setImmediate(resolve))
  t.notOk(isDone, 'one millisecond too early')
  clock.turn(1)
  t.equal((await said).audioMs, 24)
})

t.test('closing cuts a sound off, ends engine and player, and refuses more', async t => {
  let isStopped = false
  const { speaker, engine, clock } = waveSpeaker(t, { pace: true })
  const said = speaker.say(utterance())
  await clock.waitForTimer()
  await speaker.close()
  await t.rejects(said, { code: 'SPEECH_FAILED' })
  await t.rejects(speaker.say(utterance()), { code: 'SPEECH_FAILED', message: /closed/ })
  t.ok(engine.isClosed)
  const player: Player = { name: 'p', play: async () => {}, stop: () => { isStopped = true } }
  await waveSpeaker(t, { player }).speaker.close()
  t.ok(isStopped)
})

t.test('the say speaker tells how long the voice spoke, and what to install when there is none', async t => {
  const clock = handClock()
  const spoken: unknown[] = []
  const child = Object.assign(new EventEmitter(), { stdin: new EventEmitter(), killed: false, kill: () => { child.killed = true } })
  let answer: (error: unknown) => void = () => {}
  const say: Say = {
    child: null,
    speak: (...args) => {
      spoken.push(args.slice(0, 3))
      answer = args[3]
      say.child = child as unknown as NonNullable<Say['child']>
    }
  }
  const speaker = speakThrough(say, clock)
  const first = speaker.say(utterance())
  clock.turn(1500)
  answer(null)
  t.same(await first, { audioMs: 1500, soundAfterMs: 0, wav: null })
  t.same(await speaker.say(utterance({ volume: 0 })), { audioMs: 0, soundAfterMs: 0, wav: null }, 'volume 0 is silent')
  t.same(spoken, [['Received rupees nineteen', null, null]])

  const failed = speaker.say(utterance())
  answer(new Error('no voice'))
  await t.rejects(failed, { code: 'SPEECH_FAILED', message: /install festival/ })
  const missing = speaker.say(utterance())
  child.emit('error', new Error('ENOENT'))
  await t.rejects(missing, { code: 'SPEECH_FAILED', message: /install festival/ })
  const torn = speaker.say(utterance())
  child.stdin.emit('error', new Error('EPIPE'))
  await t.rejects(torn, { code: 'SPEECH_FAILED' })

  const hung = speaker.say(utterance())
  clock.turn(SAY_TIMEOUT_MS - 1)
  t.notOk(child.killed)
  clock.turn(1)
  await t.rejects(hung, { code: 'SPEECH_FAILED', message: /60000 ms/ })
  t.ok(child.killed)
  const cut = speaker.say(utterance())
  await speaker.close()
  await t.rejects(cut, { code: 'SPEECH_FAILED', message: /closed/ })
  await t.rejects(speaker.say(utterance()), { code: 'SPEECH_FAILED', message: /closed/ })
})

t.test('the real package say without its program is an error, not the end of the agent', async t => {
  const path = process.env['PATH']
  t.teardown(() => { process.env['PATH'] = path })
  process.env['PATH'] = t.testdir()
  const speaker = await openSpeaker({ kind: 'say', wavDir: '' }, { clock: handClock(), log: SILENT_LOG, print: () => {} })
  await t.rejects(speaker.say(utterance()), { code: 'SPEECH_FAILED' })
  await speaker.close()
})
