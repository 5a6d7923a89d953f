import t from 'tap'
import { BURST_BYTES_MAX, type FaultProfile, NO_FAULTS, profileFromSeed, spoilBytes } from '../../firmware-sim/faults.js'
import { openRandom } from '../../firmware-sim/fleet-faults.js'
import { type FirmwareEvent, firmwareDueMs, type FirmwareState, stepFirmware } from '../../firmware-sim/firmware.js'
import { bootFlash, type Flash, findEntry, JOURNAL_MAX, makeFlash, resultFromEntry, saveEntry } from '../../firmware-sim/flash.js'
import { LINE_BYTES_MAX, makeLine } from '../../firmware-sim/line.js'
import { VOICE_QUEUE_MAX } from '../../firmware-sim/voice.js'
import { encodeFrame, encodeSerialMessage, linkPolicy, makeFrameReader, type SerialMessage } from '../../protocol/index.js'
import { announcementOf, BAUD, forSeeds, MAKER, makeFakeClock, startWorld } from '../support/serial-world.js'

const POLICY = linkPolicy(BAUD)
const OPTIONS = { model: 'sb-1', firmware: '1.0.0', makerKey: MAKER.publicKey, audioScale: 1, baudRate: BAUD }

function frameEvent (seq: number, message: SerialMessage): FirmwareEvent {
  const [event] = makeFrameReader().push(encodeFrame({ seq, ...encodeSerialMessage(message) }))
  if (event?.kind !== 'frame') throw new Error('no frame')
  return event
}

/** A box in a session, driven by hand. */
function makeBox (flash: Flash = makeFlash('SB-0001')): { feed: (event: FirmwareEvent, nowMs?: number) => string[], state: () => FirmwareState, say: (message: SerialMessage) => string[] } {
  let state: FirmwareState = { flash, ram: undefined, options: OPTIONS }
  let now = 0
  let seq = 0
  const feed = (event: FirmwareEvent, nowMs = now): string[] => {
    now = nowMs
    const { next, effects } = stepFirmware(state, event, now, POLICY)
    state = next
    return effects.map(effect => effect.kind)
  }
  feed({ kind: 'boot', reason: 'power' })
  feed(frameEvent(0, { type: 'HELLO', session: 7 }))
  return { feed, state: () => state, say: message => feed(frameEvent(++seq, message)) }
}

t.test('the id is in the journal before the sound begins', async t => {
  const box = makeBox({ ...makeFlash('SB-0001') })
  box.feed({ kind: 'tick' }, 5000)
  box.feed({ kind: 'tick' }, 6000)
  const { id } = announcementOf(1)
  t.ok(box.say({ type: 'ANNOUNCE', ...announcementOf(1) }).includes('starts'))
  t.match(findEntry(box.state().flash, id), { state: 'started' })
  t.same(box.feed({ kind: 'crash' }), ['sound'], 'what was heard of it')
  t.equal(firmwareDueMs(box.state(), POLICY), undefined, 'nothing is due without power')
  t.same(box.feed({ kind: 'tick' }, 6500), [], 'and nothing happens')
  box.feed({ kind: 'boot', reason: 'power' }, 7000)
  t.match(findEntry(box.state().flash, id), { state: 'failed', reason: 'reset', isReported: false })
})

t.test('the journal keeps the newest 256 ids and not one more', async t => {
  let flash = makeFlash('SB-0001')
  for (let n = 1; n <= JOURNAL_MAX + 1; n++) flash = saveEntry(flash, { id: announcementOf(n).id, state: 'spoken', isReported: true })
  t.equal(flash.journal.length, JOURNAL_MAX)
  t.equal(findEntry(flash, announcementOf(1).id), undefined)
  t.ok(findEntry(flash, announcementOf(2).id))
  t.equal(resultFromEntry({ id: 'x', state: 'started', isReported: false }, true), undefined)
  t.match(bootFlash(flash, 'power'), { resetReason: 'power', flash: { bootCount: 1 } })
})

t.test('the queue takes its limit and refuses one more, with a reason and without a trace in the journal', async t => {
  const box = makeBox()
  for (let n = 1; n <= VOICE_QUEUE_MAX; n++) box.say({ type: 'ANNOUNCE', ...announcementOf(n) })
  t.equal(box.state().ram?.voice.queue.length, VOICE_QUEUE_MAX, 'behind the word that it is starting')
  box.say({ type: 'ANNOUNCE', ...announcementOf(99) })
  t.match(box.state().ram?.outbox.at(-1), { type: 'RESULT', id: announcementOf(99).id, result: 'failed', reason: 'queue-full' })
  t.equal(findEntry(box.state().flash, announcementOf(99).id), undefined)
  const waiting = box.state().ram?.outbox.length
  box.say({ type: 'ANNOUNCE', ...announcementOf(3) })
  t.equal(box.state().ram?.outbox.length, waiting, 'what waits is not answered twice')
})

t.test('any frames in any order, time in any steps and resets at any moment never throw, never grow a queue and never sound one id twice', async t => {
  await forSeeds(150, (random, seed) => {
    let state: FirmwareState = { flash: makeFlash(random() < 0.8 ? 'SB-0001' : undefined), ram: undefined, options: OPTIONS }
    const heard = new Map<string, number>()
    let now = 0
    let seq = 0
    const anyMessage = (): SerialMessage => {
      const id = announcementOf(Math.floor(random() * 12)).id
      const messages: SerialMessage[] = [
        { type: 'HELLO', session: Math.floor(random() * 3) }, { type: 'ANNOUNCE', ...announcementOf(Math.floor(random() * 12), { ttlMs: Math.floor(random() * 9000) }) },
        { type: 'SET', id, quiet: random() < 0.3, volume: Math.floor(random() * 101) }, { type: 'COMMAND', id, name: 'replay', args: {} }, { type: 'COMMAND', id, name: 'reboot', args: {} },
        { type: 'CREDENTIALS', id, tid: 'SB-0002' }, { type: 'FIRMWARE_BEGIN', id, header: Buffer.alloc(140) }, { type: 'FIRMWARE_CHUNK', offset: 0, data: Buffer.alloc(10) },
        { type: 'FIRMWARE_END', id }, { type: 'ACK' }, { type: 'NAK', reason: 'corrupt' }, { type: 'NAK', reason: 'refused' }, { type: 'PING' }, { type: 'RESULT', id, result: 'spoken' }
      ]
      return messages[Math.floor(random() * messages.length)]!
    }
    for (let n = 0; n < 200; n++) {
      now += random() < 0.5 ? 0 : random() * 1500
      const message = anyMessage()
      const dice = random()
      let event: FirmwareEvent = frameEvent(message.type === 'HELLO' ? 0 : random() < 0.9 ? ++seq : Math.floor(random() * 5), message)
      if (message.type === 'HELLO') seq = 0
      if (dice < 0.1) event = { kind: 'boot', reason: 'power' }
      else if (dice < 0.13) event = { kind: 'crash' }
      else if (dice < 0.3) event = { kind: 'tick' }
      else if (dice < 0.35) event = { kind: 'press', button: 'replay' }
      else if (dice < 0.4) event = { kind: 'noise' }
      const { next, effects } = stepFirmware(state, event, now, POLICY)
      state = next
      for (const effect of effects) {
        if (effect.kind === 'starts' && effect.id !== undefined) heard.set(effect.id, (heard.get(effect.id) ?? 0) + 1)
      }
      const ram = state.ram
      if ((ram?.voice.queue.length ?? 0) > VOICE_QUEUE_MAX || (ram?.outbox.length ?? 0) > 16 || state.flash.journal.length > JOURNAL_MAX) t.fail(`SEED=${seed} a queue grows`)
      const dueMs = firmwareDueMs(state, POLICY)
      if (ram !== undefined && (dueMs === undefined || Number.isNaN(dueMs))) t.fail(`SEED=${seed} a box with power has nothing due`)
    }
    for (const [id, count] of heard) if (count > 1) t.fail(`SEED=${seed} ${id} began ${count} times`)
  })
  t.pass('150 runs')
})

t.test('a tick at its due time always moves the due time on: no box spins', async t => {
  await forSeeds(60, (random, seed) => {
    const box = makeBox()
    for (let n = 1; n < 6; n++) box.say({ type: 'ANNOUNCE', ...announcementOf(n, { ttlMs: Math.floor(random() * 5000) }) })
    if (random() < 0.5) box.say({ type: 'COMMAND', id: announcementOf(50).id, name: 'reboot', args: {} })
    let ticks = 0
    let now = 0
    while (now < 120_000 && box.state().ram !== undefined) {
      const dueMs = firmwareDueMs(box.state(), POLICY) ?? 0
      now = Math.max(now, dueMs)
      box.feed({ kind: 'tick' }, now)
      ticks += 1
      if (ticks > 1000) break
    }
    if (ticks > 1000) t.fail(`SEED=${seed} ${ticks} ticks in two minutes`)
  })
  t.pass('60 runs')
})

t.test('faults are those of their seed and of their measure', async t => {
  t.same(profileFromSeed(42), profileFromSeed(42))
  const bytes = Buffer.alloc(100, 0xaa)
  const differences = (profile: Partial<FaultProfile>): Buffer => spoilBytes(bytes, { ...NO_FAULTS, ...profile }, openRandom(7)).bytes
  t.same(spoilBytes(bytes, NO_FAULTS, openRandom(7)), { bytes, stallMs: 0 })
  const flipped = differences({ flip: 1 })
  const bits = [...flipped].reduce((sum, byte) => sum + (byte ^ 0xaa).toString(2).replaceAll('0', '').length, 0)
  t.equal(bits, 1, 'one bit')
  t.equal(differences({ loss: 1 }).length, 99)
  t.ok(differences({ half: 1 }).length < 100)
  const burst = differences({ burst: 1 }).length
  t.ok(burst > 100 && burst <= 100 + BURST_BYTES_MAX)
  const { stallMs } = spoilBytes(bytes, { ...NO_FAULTS, stall: 1, stallMsMax: 100 }, openRandom(7))
  t.ok(stallMs > 0 && stallMs < 100)
  t.same(bytes, Buffer.alloc(100, 0xaa), 'the bytes given are left alone')
  const numbers = Array.from({ length: 1000 }, openRandom(3))
  t.ok(numbers.every(number => number >= 0 && number < 1) && new Set(numbers).size > 990)
})

t.test('bytes take their time on the line, in order, and a line that nobody reads loses what does not fit', async t => {
  const clock = makeFakeClock()
  const arrived: [number, string][] = []
  const line = makeLine({ baudRate: 9600, timers: clock, deliver: bytes => { arrived.push([Math.round(clock.nowMs()), bytes.toString()]) } })
  line.push(Buffer.from('a'.repeat(96)))
  line.push(Buffer.from('b'))
  await clock.advance(99)
  t.same(arrived, [])
  await clock.advance(10)
  t.same(arrived.map(([atMs, text]) => [atMs, text.slice(0, 1)]), [[100, 'a'], [101, 'b']])
  const full = makeLine({ baudRate: 9600, timers: clock, deliver: bytes => { arrived.push([0, `full ${bytes.length}`]) } })
  full.push(Buffer.alloc(LINE_BYTES_MAX))
  full.push(Buffer.alloc(1))
  await clock.advance(100_000)
  t.same(arrived.at(-1), [0, `full ${LINE_BYTES_MAX}`])
  full.push(Buffer.alloc(5))
  full.close()
  await clock.advance(1000)
  t.same(arrived.at(-1), [0, `full ${LINE_BYTES_MAX}`], 'a closed line delivers nothing')
})

t.test('a box that loses its host says so once, and speaks again when one is there', async t => {
  const world = startWorld()
  await world.clock.advance(2000)
  world.unplug()
  await world.clock.advance(120_000)
  t.same(world.sim.sounds.map(sound => sound.clips[0]), ['starting', 'connection-lost'])
  world.plug()
  await world.clock.advance(10_000)
  t.ok(world.host().hello())
  await world.close()
})
