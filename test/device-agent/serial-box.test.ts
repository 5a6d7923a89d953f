import t from 'tap'
import { openSerialBox } from '../../device-agent/serial-box.js'
import { RESUMES_MAX } from '../../device-agent/serial-firmware.js'
import { NO_FAULTS } from '../../firmware-sim/faults.js'
import { type BoxSettings, CHUNK_BYTES_MAX, makeFirmwareKeys, sealFirmware, type SerialResult, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { announcementOf, MAKER, makeFakeClock, startWorld, type World } from '../support/serial-world.js'

type Ended<T> = { value?: T, error?: SoundboxError }

/** Runs the clock until the work ends. */
async function end<T> (world: World, work: Promise<T>): Promise<Ended<T>> {
  let ended: Ended<T> | undefined
  void work.then(value => { ended = { value } }, (error: SoundboxError) => { ended = { error } })
  await world.clock.runUntil(() => ended !== undefined, world.clock.nowMs() + 1_000_000)
  return ended ?? {}
}

const ends = async (world: World, work: Promise<SerialResult>): Promise<SerialResult | undefined> => (await end(world, work)).value

async function upWorld (options: Parameters<typeof startWorld>[0] = {}): Promise<World> {
  const world = startWorld(options)
  await world.clock.runUntil(() => world.hellos.length > 0, 10_000)
  await world.clock.advance(1000)
  return world
}

t.test('an announcement is heard and its RESULT comes back with its times', async t => {
  const world = await upWorld()
  const first = world.host().announce(announcementOf(1))
  const second = world.host().announce(announcementOf(2))
  t.match(await ends(world, first), { result: 'spoken', audioMs: 1140, queuedMs: 0 })
  t.match(await ends(world, second), { result: 'spoken', queuedMs: Number })
  t.match(await ends(world, world.host().announce(announcementOf(1))), { result: 'duplicate', was: 'spoken' })
  t.same(world.sim.sounds.filter(sound => sound.id !== undefined).map(sound => [sound.id, sound.isWhole]), [[announcementOf(1).id, true], [announcementOf(2).id, true]])
  t.equal(world.host().announce(announcementOf(3)), world.host().announce(announcementOf(3)), 'one id is one request')
  await world.close()
})

t.test('a box that resets in mid-sentence says failed and does not say it again', async t => {
  const world = await upWorld()
  const cut = world.host().announce(announcementOf(1))
  const waiting = world.host().announce(announcementOf(2))
  await world.clock.advance(500)
  world.sim.reboot('brown-out')
  t.match(await ends(world, cut), { result: 'failed', reason: 'reset' })
  t.match(await ends(world, waiting), { result: 'spoken' }, 'what had not begun is asked again')
  t.same(world.sim.sounds.filter(sound => sound.id !== undefined).map(sound => sound.isWhole), [false, true])
  t.match(world.hellos.at(-1), { isReboot: true, hello: { bootId: 'boot-2', resetReason: 'brown-out' } })
  t.same(world.losses, ['restarted'])
  await world.close()
})

t.test('what cannot be said in its time is not said', async t => {
  const world = await upWorld()
  const long = world.host().announce(announcementOf(1, { clips: Array(40).fill('n1') }))
  const late = world.host().announce(announcementOf(2, { ttlMs: 5000 }))
  t.match(await ends(world, late), { result: 'expired' })
  t.match(await ends(world, long), { result: 'spoken' })
  world.unplug()
  t.match(await ends(world, world.host().announce(announcementOf(3, { ttlMs: 2000 }))), { result: 'expired', reason: 'link-down' })
  t.equal(world.sim.sounds.filter(sound => sound.id !== undefined).length, 1)
  await world.close()
})

t.test('a box that hangs for ever ends in no-answer, and what it says when it is back comes as late', async t => {
  const world = await upWorld()
  const asked = world.host().announce(announcementOf(1, { ttlMs: 3000 }))
  await world.clock.advance(300)
  world.sim.stick(Number.POSITIVE_INFINITY)
  t.match(await ends(world, asked), { result: 'failed', reason: 'no-answer' })
  world.sim.reboot('watchdog')
  await world.clock.advance(5000)
  t.match(world.late, [{ id: announcementOf(1).id, result: 'failed', reason: 'reset' }])
  await world.close()
})

t.test('a queue that is full and a box without a tid refuse with a reason', async t => {
  const world = await upWorld({ tid: undefined })
  t.match(await ends(world, world.host().announce(announcementOf(1))), { result: 'failed', reason: 'not-provisioned' })
  t.match(await ends(world, world.host().announce(announcementOf(2, { kind: 'prompt', prompt: 'code' }))), { result: 'spoken' }, 'the binding proof may be heard')
  await end(world, world.host().sendCredentials({ tid: 'SB-0009', keyId: 'ab12', password: 'secret', signingKey: 'secret' }))
  t.match(await ends(world, world.host().announce(announcementOf(3))), { result: 'spoken' })
  t.match((await end(world, world.host().sendCredentials({ tid: 'SB-0010' }))).error, { code: 'INPUT_INVALID', message: /provisioned/ })
  t.same((await end(world, world.host().sendCredentials({ tid: 'SB-0010', replace: true }))).error, undefined)
  world.sim.reboot('power')
  await world.clock.advance(3000)
  t.match(world.hellos.at(-1)?.hello, { tid: 'SB-0010' })
  t.notMatch(JSON.stringify([world.hellos, world.statuses]), /secret/, 'no secret comes back')
  await world.close()
})

t.test('settings are applied and said', async t => {
  const world = await upWorld()
  await end(world, world.host().set({ volume: 40, minVolume: 30, language: 'TAMIL', quiet: true, statusEveryS: 5 }))
  await world.clock.advance(100)
  t.match(world.statuses.at(-1), { volume: 40, language: 'TAMIL', quiet: true })
  t.match(await ends(world, world.host().announce(announcementOf(1))), { result: 'muted', reason: 'quiet' })
  t.match(await ends(world, world.host().announce(announcementOf(2, { kind: 'test' }))), { result: 'spoken' })
  const before = world.statuses.length
  await world.clock.advance(10_000)
  t.equal(world.statuses.length, before + 2, 'every five seconds')
  await end(world, world.host().set({ volume: 0 }))
  t.equal(world.sim.flash().volume, 30, 'the floor holds')
  const invalid = { volume: 101 } satisfies BoxSettings
  t.match((await end(world, world.host().set(invalid))).error, { code: 'INPUT_INVALID', message: /refused/ })
  await world.close()
})

t.test('buttons work at the box and are told to the agent', async t => {
  const world = await upWorld()
  world.sim.press('replay')
  await world.clock.advance(3000)
  t.match(world.sim.sounds.at(-1), { clips: ['no-payments'], isRepeat: true })
  await ends(world, world.host().announce(announcementOf(1)))
  world.sim.press('replay')
  await world.clock.advance(3000)
  t.match(world.sim.sounds.at(-1), { clips: ['repeat', 'received', 'rupees', 'n19'], isRepeat: true, id: undefined })
  world.sim.press('volume-up')
  for (let n = 0; n < 9; n++) world.sim.press('volume-down')
  await world.clock.advance(1000)
  t.same(world.statuses.filter(status => status.button !== undefined).map(({ button }) => `${button?.name} ${button?.presses}`).slice(0, 4), ['replay 1', 'replay 2', 'volume-up 1', 'volume-down 1'])
  t.match(world.statuses.at(-1), { volume: 20 })
  await world.close()
})

t.test('commands are done once and answered', async t => {
  const world = await upWorld()
  await ends(world, world.host().announce(announcementOf(1)))
  for (const name of ['replay', 'test', 'locate'] as const) t.match(await ends(world, world.host().command(name)), { result: 'done' }, name)
  t.match(await ends(world, world.host().command('display-qr', { payload: 'upi://pay?pa=shop@bank' })), { result: 'done' })
  t.match(await ends(world, world.host().command('clear-display')), { result: 'done' })
  t.match(await ends(world, world.host().command('collect-log')), { result: 'done', data: /boots 1/ })
  await world.clock.advance(8000)
  t.same(world.sim.sounds.slice(-3).map(sound => sound.kind), ['payment', 'test', 'locate'])
  t.match(await ends(world, world.host().command('reboot')), { result: 'done' })
  await world.clock.advance(5000)
  t.match(world.hellos.at(-1)?.hello, { bootId: 'boot-2', resetReason: 'command' })
  t.match(await ends(world, world.host().command('factory-reset')), { result: 'done' })
  await world.clock.advance(5000)
  t.equal(world.hellos.at(-1)?.hello.tid, undefined)
  world.unplug()
  t.match((await end(world, world.host().command('test'))).error, { code: 'SERIAL_TIMEOUT' })
  await world.close()
})

t.test('a port that is not there is tried until it is, and the reason is said once', async t => {
  const clock = makeFakeClock()
  const losses: string[] = []
  let tries = 0
  const box = openSerialBox({
    path: '/dev/nowhere', log: SILENT_LOG, timers: clock, onHello: () => {}, onStatus: () => {}, onLost: why => { losses.push(why) },
    openPort: async () => {
      tries += 1
      throw new SoundboxError('SERIAL_UNAVAILABLE', 'port /dev/nowhere is not there')
    }
  })
  await clock.advance(60_000)
  t.ok(tries > 10 && tries < 20, `${tries} tries in a minute`)
  t.same(losses, ['port /dev/nowhere is not there'])
  t.match(box.error(), { code: 'SERIAL_UNAVAILABLE' })
  t.equal(box.hello(), undefined)
  await box.close()
  t.match(await box.announce(announcementOf(1)), { result: 'failed', reason: 'link-down' }, 'closed')
  await clock.advance(60_000)
  t.ok(tries < 21, 'a closed one tries no more')
})

const BODY = Buffer.from('0123456789abcdef'.repeat(300))
const imageOf = (changes: { model?: string, version?: string, privateKey?: string, body?: Buffer } = {}): Buffer =>
  sealFirmware(changes.body ?? BODY, { model: 'sb-1', version: '1.1.0', privateKey: MAKER.privateKey, ...changes })

t.test('a firmware image goes in, is tried and stays', async t => {
  const world = await upWorld()
  const progress: number[] = []
  const { error } = await end(world, world.host().updateFirmware(imageOf(), { onProgress: done => { progress.push(done) } }))
  t.equal(error, undefined)
  t.match(world.host().hello(), { firmware: '1.1.0', resetReason: 'update' })
  t.match(world.sim.flash(), { activeSlot: 1, trial: undefined, download: undefined })
  t.same(progress.at(-1), BODY.length)
  t.equal(progress.length, Math.ceil(BODY.length / CHUNK_BYTES_MAX) + 1)
  world.sim.reboot('power')
  await world.clock.advance(3000)
  t.match(world.host().hello(), { firmware: '1.1.0' }, 'for good')
  await world.close()
})

t.test('an image for another model, of another maker, older or damaged is refused', async t => {
  const world = await upWorld({ firmware: '1.1.0' })
  const foreign = makeFirmwareKeys().privateKey
  const rows: [Buffer, RegExp][] = [
    [imageOf({ version: '2.0.0', model: 'sb-2' }), /model/], [imageOf({ version: '2.0.0', privateKey: foreign }), /signature/], [imageOf(), /downgrade/], [imageOf({ version: '1.0.9' }), /downgrade/],
    [imageOf({ version: '2.0.0' }).subarray(0, -1), /4799 bytes/], [Buffer.concat([imageOf({ version: '2.0.0' }).subarray(0, -1), Buffer.from('x')]), /hash/]
  ]
  for (const [image, why] of rows) t.match((await end(world, world.host().updateFirmware(image))).error, { code: 'FIRMWARE_INVALID', message: why }, String(why))
  t.match((await end(world, world.host().updateFirmware(imageOf({ version: '2.0.0', model: 'sb-2' }), { force: true }))).error, { message: /model/ }, 'force does not change the model')
  t.equal((await end(world, world.host().updateFirmware(imageOf({ version: '1.0.9' }), { force: true }))).error, undefined, 'it lets an older one in')
  t.match(world.host().hello(), { firmware: '1.0.9' })
  await world.close()
})

t.test('a program that fails its self test is rolled back', async t => {
  const world = await upWorld()
  const { error } = await end(world, world.host().updateFirmware(imageOf({ body: Buffer.from('UNHEALTHY program') })))
  t.match(error, { code: 'FIRMWARE_INVALID', message: /went back to 1\.0\.0/ })
  t.match(world.host().hello(), { firmware: '1.0.0', resetReason: 'rollback' })
  t.match(await ends(world, world.host().announce(announcementOf(1))), { result: 'spoken' }, 'and the box speaks')
  await world.close()
})

t.test('a program that no host finds is rolled back', async t => {
  const world = await upWorld()
  const update = world.host().updateFirmware(imageOf())
  await world.clock.runUntil(() => world.sim.flash().trial !== undefined, 100_000)
  await world.clock.advance(300)
  world.unplug()
  t.match((await end(world, update)).error, { code: 'SERIAL_TIMEOUT', message: /did not come back/ })
  t.match(world.sim.flash(), { trial: undefined, activeSlot: 0 })
  world.plug()
  await world.clock.advance(10_000)
  t.match(world.host().hello(), { firmware: '1.0.0', resetReason: 'rollback' })
  await world.close()
})

t.test('an update goes on where it stopped, over resets, a bad line and a pulled plug', async t => {
  const world = await upWorld({ seed: 5, faults: { ...NO_FAULTS, flip: 0.05, loss: 0.03, half: 0.02 } })
  const body = Buffer.from('0123456789abcdef'.repeat(3000))
  let furthest = 0
  let backwards = 0
  let events = 0
  const onProgress = (done: number): void => {
    if (done < furthest) backwards += 1
    furthest = Math.max(furthest, done)
    events += 1
    if (events === 10) world.sim.reboot('power')
    if (events === 30) {
      world.unplug()
      world.clock.after(2000, world.plug)
    }
  }
  const { error } = await end(world, world.host().updateFirmware(imageOf({ body }), { onProgress }))
  t.equal(error, undefined)
  t.match(world.host().hello(), { firmware: '1.1.0' })
  t.ok(events < body.length / CHUNK_BYTES_MAX + 20, `${events} chunks for ${body.length} bytes: not from the beginning again`)
  t.ok(backwards <= 2)
  await world.close()
})

t.test('an update without a box is given up', async t => {
  const world = await upWorld()
  world.unplug()
  const startedMs = world.clock.nowMs()
  t.match((await end(world, world.host().updateFirmware(imageOf()))).error, { code: 'SERIAL_TIMEOUT', message: /0 of 4800/ })
  t.ok(world.clock.nowMs() - startedMs >= RESUMES_MAX * 10_000)
  await world.close()
})
