import t from 'tap'
import { openDfPlayer, READY_MS_MAX } from '../../device-agent/dfplayer.js'
import { ATTEMPTS_MAX, CLIP_MS_MAX, type Player, type PlayerEvent, REST_MS, stepPlayer } from '../../device-agent/dfplayer-player.js'
import { cardListing, TRACKS_PER_LANGUAGE, trackTable } from '../../device-agent/dfplayer-tracks.js'
import type { OpenPort } from '../../device-agent/serial-link.js'
import { type DfPlayerSim, startDfPlayerSim } from '../../firmware-sim/dfplayer-sim.js'
import { type FaultProfile, NO_FAULTS } from '../../firmware-sim/faults.js'
import { DFPLAYER, DFPLAYER_TRACK_MAX, type DfFrame, encodeDfFrame, LANGUAGES, makeDfReader, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { type FakeClock, forSeeds, makeFakeClock } from '../support/serial-world.js'

const INVENTORY = { ENGLISH: ['received', 'rupees', 'n19', 'n7'], HINDI: ['n19', 'rupees', 'received'] } as const

function world (options: { faults?: FaultProfile, seed?: number, tracks?: ReadonlySet<number> } = {}): {
  clock: FakeClock, sim: DfPlayerSim, player: ReturnType<typeof openDfPlayer>, unplug: () => void
} {
  const clock = makeFakeClock()
  let port: { onBytes: (bytes: Buffer) => void, onClosed: (why: string) => void } | undefined
  const sim = startDfPlayerSim({ timers: clock, audioScale: 1, write: bytes => { port?.onBytes(bytes) }, ...options })
  const openPort: OpenPort = async opened => {
    t.equal(opened.baudRate, 9600)
    port = opened
    return { write: bytes => { sim.take(bytes) }, close: async () => { port = undefined } }
  }
  const player = openDfPlayer({ path: '/dev/fake', log: SILENT_LOG, timers: clock, openPort, inventory: INVENTORY })
  const unplug = (): void => {
    const lost = port
    port = undefined
    lost?.onClosed('unplugged')
  }
  return { clock, sim, player, unplug }
}

async function end<T> (clock: FakeClock, work: Promise<T>): Promise<T | SoundboxError> {
  let ended: T | SoundboxError | undefined
  void work.then(value => { ended = value }, (error: SoundboxError) => { ended = error })
  await clock.runUntil(() => ended !== undefined, clock.nowMs() + 120_000)
  return ended ?? new SoundboxError('SERIAL_TIMEOUT', 'never ended')
}

t.test('a frame is ten bytes with a checksum, as the data sheet has it', async t => {
  // Worked examples of the DFPlayer Mini data sheet's arithmetic: 0 - (FF + 06 + command + feedback + parameter).
  const rows: [DfFrame, string][] = [
    [{ command: 0x0c, param: 0, wantsFeedback: false }, '7eff060c000000feefef'], [{ command: 0x06, param: 30, wantsFeedback: true }, '7eff060601001efed6ef'],
    [{ command: 0x12, param: 0x0102, wantsFeedback: false }, '7eff0612000102fee6ef'], [{ command: 0x3d, param: 1, wantsFeedback: false }, '7eff063d000001febdef']
  ]
  for (const [frame, hex] of rows) {
    t.equal(encodeDfFrame(frame).toString('hex'), hex)
    t.same(makeDfReader().push(Buffer.from(hex, 'hex')), [frame])
  }
  for (const frame of [{ command: 256, param: 0 }, { command: 1, param: 65_536 }, { command: 1, param: -1 }]) {
    t.throws(() => encodeDfFrame({ ...frame, wantsFeedback: false }), { code: 'FRAME_INVALID' })
  }
})

t.test('any chunking and any garbage of frames reads the same, and one flipped bit is never a frame', async t => {
  await forSeeds(200, (random, seed) => {
    const frames = Array.from({ length: 5 }, (): DfFrame => ({ command: Math.floor(random() * 256), param: Math.floor(random() * 65_536), wantsFeedback: random() < 0.5 }))
    const garbage = (): Buffer => Buffer.from(Array.from({ length: Math.floor(random() * 30) }, () => [0x7e, 0xff, 0x06, 0xef, Math.floor(random() * 256)][Math.floor(random() * 5)]!))
    const wire = Buffer.concat(frames.flatMap(frame => [garbage(), encodeDfFrame(frame)]))
    const reader = makeDfReader()
    const seen: DfFrame[] = []
    for (let at = 0; at < wire.length;) {
      const length = 1 + Math.floor(random() * 12)
      seen.push(...reader.push(wire.subarray(at, at + length)))
      at += length
    }
    if (JSON.stringify(seen) !== JSON.stringify(frames)) t.fail(`SEED=${seed} ${JSON.stringify(seen)}`)
  })
  const bytes = encodeDfFrame({ command: DFPLAYER.PLAY_MP3, param: 19, wantsFeedback: true })
  for (let bit = 0; bit < 80; bit++) {
    const flipped = Buffer.from(bytes)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    if (makeDfReader().push(flipped).length > 0) t.fail(`bit ${bit}`)
  }
  t.pass('all of them')
})

t.test('clips have numbers by language and place, within what the module can play', async t => {
  const trackOf = trackTable(INVENTORY)
  t.equal(trackOf('ENGLISH', 'received'), 1)
  t.equal(trackOf('HINDI', 'n19'), TRACKS_PER_LANGUAGE + 1)
  t.equal(trackOf('TAMIL', 'n19'), undefined)
  const full = Object.fromEntries(LANGUAGES.map(language => [language, Array.from({ length: TRACKS_PER_LANGUAGE }, (_, index) => `c${index}`)]))
  const files = cardListing(full)
  t.equal(files.length, LANGUAGES.length * TRACKS_PER_LANGUAGE)
  t.equal(new Set(files.map(({ file }) => file)).size, files.length, 'no file twice')
  t.ok(Math.max(...files.map(({ file }) => Number(file.slice(4, 8)))) <= DFPLAYER_TRACK_MAX)
  t.same(cardListing(INVENTORY)[4], { file: 'MP3/0231.mp3', language: 'HINDI', clip: 'n19' })
  t.throws(() => trackTable({ ENGLISH: Array.from({ length: TRACKS_PER_LANGUAGE + 1 }, (_, index) => `c${index}`) }), { code: 'INPUT_INVALID' })
  t.throws(() => trackTable({ ENGLISH: ['a', 'a'] }), { code: 'INPUT_INVALID' })
})

t.test('a sentence is its clips in order, each to its end, though the module reports every end twice', async t => {
  const { clock, sim, player } = world()
  t.notOk(player.isReady())
  await clock.advance(10)
  const made = await end(clock, player.say({ clips: ['received', 'rupees', 'n19'], language: 'ENGLISH', volume: 50 }))
  t.ok(player.isReady(), 'it waited for the module to wake')
  t.same(sim.played, [1, 2, 3])
  t.equal(sim.volume(), 15)
  t.match(made, { wav: null, audioMs: Number, soundAfterMs: Number })
  t.ok('audioMs' in made && made.audioMs >= 3 * 380 + 2 * REST_MS && made.audioMs < 3 * 380 + 300, JSON.stringify(made))
  await end(clock, player.say({ clips: ['n19'], language: 'HINDI', volume: 1 }))
  t.same(sim.played, [1, 2, 3, 231])
  t.equal(sim.volume(), 1, 'the quietest is not silence')
  t.match(await end(clock, player.say({ clips: ['n19'], language: 'HINDI', volume: 0 })), { audioMs: 0 })
  t.equal(sim.played.length, 4)
  await player.close()
  sim.close()
})

t.test('what cannot be said ends as SPEECH_FAILED with its reason', async t => {
  const { clock, sim, player, unplug } = world({ tracks: new Set([1, 2]) })
  const say = (clips: string[], language: 'ENGLISH' | 'TAMIL' = 'ENGLISH'): Promise<unknown> => end(clock, player.say({ clips, language, volume: 50 }))
  await clock.advance(READY_MS_MAX)
  t.match(await say(['received', 'n19']), { code: 'SPEECH_FAILED', message: /track 3: track-missing/ })
  t.match(await say(['nonsense']), { code: 'SPEECH_FAILED', message: /no clip nonsense/ })
  t.match(await say(['received'], 'TAMIL'), { code: 'SPEECH_FAILED' })
  const first = player.say({ clips: ['received'], language: 'ENGLISH', volume: 50 })
  t.match(await end(clock, player.say({ clips: ['received'], language: 'ENGLISH', volume: 50 })), { code: 'SPEECH_FAILED', message: /speaks already/ })
  t.match(await end(clock, first), { audioMs: Number })
  const cut = player.say({ clips: ['received', 'rupees'], language: 'ENGLISH', volume: 50 })
  await clock.advance(200)
  unplug()
  t.match(await end(clock, cut), { code: 'SPEECH_FAILED', message: /port-lost/ })
  t.match(await say(['received']), { code: 'SPEECH_FAILED', message: /lost/ }, 'nobody is there')
  await clock.advance(1000)
  t.match(await say(['received']), { audioMs: Number }, 'and here it is again')
  const removed = player.say({ clips: ['received', 'rupees'], language: 'ENGLISH', volume: 50 })
  await clock.advance(200)
  sim.removeCard()
  t.match(await end(clock, removed), { code: 'SPEECH_FAILED', message: /card-out/ })
  t.match(await say(['received']), { code: 'SPEECH_FAILED', message: /card-unreadable/ })
  await player.close()
  t.match(await say(['received']), { code: 'SPEECH_FAILED' }, 'closed')
  sim.close()
})

t.test('a module that does not answer is given up after its attempts, and so is one that never plays', async t => {
  const drive = (answer: (frame: DfFrame, nowMs: number) => DfFrame | undefined): { reason: string, frames: number } => {
    let player: Player
    let frames = 0
    const events: PlayerEvent[] = [{ kind: 'say', tracks: [7], volume: 10 }]
    for (let nowMs = 0; nowMs < 60_000; nowMs += 50) {
      for (const event of events.splice(0)) {
        const { next, effects } = stepPlayer(player, event, nowMs)
        player = next
        for (const effect of effects) {
          if (effect.kind === 'failed') return { reason: effect.reason, frames }
          if (effect.kind === 'done') return { reason: 'done', frames }
          frames += 1
          const frame = answer(effect.frame, nowMs)
          if (frame !== undefined) events.push({ kind: 'frame', frame })
        }
      }
      events.push({ kind: 'tick' })
    }
    return { reason: 'never', frames }
  }
  const ack: DfFrame = { command: DFPLAYER.ACK, param: 0, wantsFeedback: false }
  const status = (playing: number): DfFrame => ({ command: DFPLAYER.STATUS, param: 0x0200 | playing, wantsFeedback: false })
  t.same(drive(() => undefined), { reason: 'no-answer', frames: ATTEMPTS_MAX + 1 })
  t.equal(drive(frame => frame.command === DFPLAYER.SET_VOLUME ? ack : frame.command === DFPLAYER.STATUS ? status(0) : undefined).reason, 'no-answer', 'never starts')
  t.equal(drive(frame => frame.command === DFPLAYER.STATUS ? status(1) : ack).reason, 'clip-too-long', `plays for ${CLIP_MS_MAX} ms`)
  t.equal(drive((frame, nowMs) => frame.command === DFPLAYER.STATUS ? status(nowMs < 600 ? 1 : 0) : ack).reason, 'done', 'a lost FINISHED is found by asking')
  t.equal(drive((frame, nowMs) => frame.command !== DFPLAYER.STATUS ? ack : nowMs < 600 ? undefined : status(0)).reason, 'unsure', 'nobody saw it play')
  t.equal(drive(frame => frame.command === DFPLAYER.STATUS ? status(0) : ack).reason, 'no-answer', 'it says yes and plays nothing')
  t.equal(drive(frame => frame.command === DFPLAYER.SET_VOLUME ? { ...ack, command: DFPLAYER.READY } : undefined).reason, 'module-reset')
  t.equal(drive(frame => frame.command === DFPLAYER.SET_VOLUME ? { command: DFPLAYER.ERROR, param: 1, wantsFeedback: false } : undefined).reason, 'no-answer', 'busy for ever')
  t.equal(stepPlayer({ ...stepPlayer(undefined, { kind: 'say', tracks: [1], volume: 1 }, 0).next! }, { kind: 'say', tracks: [2], volume: 1 }, 1).effects[0]?.kind, 'failed')
})

t.test('over a line that loses and damages bytes each sentence ends, and as done only when all its clips were heard in order', async t => {
  const ends = { done: 0, failed: 0 }
  await forSeeds(150, async (random, seed) => {
    const rough = random() * 0.08
    const { clock, sim, player } = world({ seed, faults: { ...NO_FAULTS, flip: rough, loss: rough, burst: rough, half: rough } })
    await clock.advance(READY_MS_MAX)
    for (let n = 0; n < 4; n++) {
      const before = sim.played.length
      const made = await end(clock, player.say({ clips: ['received', 'rupees', 'n19'], language: 'ENGLISH', volume: 60 }))
      const heard = sim.played.slice(before).join(' ')
      if ('audioMs' in made) ends.done += 1
      else ends.failed += 1
      if ('audioMs' in made ? heard !== '1 2 3' : made.code !== 'SPEECH_FAILED') t.fail(`SEED=${seed} ${JSON.stringify(made)} heard ${heard}`)
      await clock.advance(1000)
    }
    await player.close()
    sim.close()
  })
  t.ok(ends.done > 500 && ends.done + ends.failed >= 600 || process.env['SEED'] !== undefined, JSON.stringify(ends))
})
