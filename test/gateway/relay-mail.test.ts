// What gateways tell each other: how it travels and what is left alone; and how changes of banks and boxes at one reach the others.
import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { openFleet } from '../../gateway/fleet/fleet.js'
import { followDirectory, RELOAD_PAUSE_MS } from '../../gateway/nodes.js'
import { openDirectory } from '../../gateway/store/directory.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { type Bus, MAILS_WAITING_MAX, openPost } from '../../gateway/trigger/relay-mail.js'
import { SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { aDevice, handClock, memoryStore } from '../support/heart-fakes.js'
import { START_MS } from '../support/store-records.js'

const idOf = (n: number): string => n.toString(16).padStart(32, '0')

t.test('messages between gateways: batches keep their order, a foreign topic or nonsense is left alone, the queue has a limit', async t => {
  const topics: string[] = []
  let go = (): void => {}
  let heard: (topic: string) => void = () => {}
  const got: unknown[] = []
  let lost = 0
  const bus: Bus = {
    wake: topic => new Promise(resolve => {
      topics.push(topic)
      go = resolve
    }),
    onWake: async handler => { heard = handler },
    recordSummaryOnce: async () => true,
    waitingTids: async () => []
  }
  const deps = { bus, onMail: (from: string, mail: unknown) => { got.push([from, mail]) }, onLost: () => { lost++ }, log: SILENT_LOG }
  const post = openPost({ ...deps, self: 'a' })
  await openPost({ ...deps, self: 'b' }).listen()
  const big = { kind: 'ack', tid: 'BOX-1', ack: { id: idOf(1), result: 'done', data: 'ü'.repeat(1500) }, isSettled: false } as const
  const sent = [post.send({ kind: 'here' }), post.send(big), post.send(big), post.send({ kind: 'bye' })]
  for (let n = 0; n < 3; n++) {
    await turn()
    go()
  }
  await Promise.all(sent)
  t.equal(topics.length, 3, 'the first alone, then as many as fit')
  t.ok(topics.every(topic => topic.length <= 7000 && /^[\w:.-]+$/.test(topic)))
  for (const topic of [...topics, '*', 'directory', 'relay:bm9uc2Vuc2U', 'relay:e30']) heard(topic)
  t.same(got, [['a', { kind: 'here' }], ['a', big], ['a', big], ['a', { kind: 'bye' }]])
  t.equal(lost, 1)
  const waiting = Array.from({ length: MAILS_WAITING_MAX + 1 }, () => post.send({ kind: 'here' }))
  waiting.forEach(promise => { promise.catch(() => {}) })
  await t.rejects(post.send({ kind: 'here' }), { code: 'OVERLOADED' })
})

t.test('what one gateway changed in the directory the other takes over at once and as a whole; its own change meanwhile is not lost', async t => {
  const store = await openSqliteStore({ path: `${t.testdir()}/soundbox.db`, log: SILENT_LOG, nowMs: () => START_MS })
  t.teardown(() => store.close())
  let meanwhile = async (): Promise<void> => {}
  const slow = { ...store, loadDirectory: async () => {
    const rows = await store.loadDirectory()
    await meanwhile()
    return rows
  } }
  const deps = { masterKey: Buffer.alloc(32, 1), nowMs: () => START_MS }
  const [one, two] = [await openDirectory({ ...deps, store }), await openDirectory({ ...deps, store: slow })]
  const bank = await one.addBank({ id: 'bank' })
  const box = await one.addDevice({ tid: 'BOX-1', type: 'QS1' })
  await one.map('bank', 'shop@upi', 'BOX-1')
  t.equal(two.device('BOX-1'), undefined)
  await two.reload()
  t.equal(two.device('BOX-1')?.signingKey, box.signingKey)
  t.equal(two.bankByPassKey(bank.passKey)?.keys.length, 1)
  t.same(two.devicesOf('bank', 'shop@upi'), ['BOX-1'])
  await one.unmap('bank', 'shop@upi', 'BOX-1')
  const fresh = await one.rekeyDevice('BOX-1')
  await one.rotateBankKey('bank', 1000)
  let own: Promise<unknown> = Promise.resolve()
  meanwhile = async () => { own = two.addDevice({ tid: 'BOX-2', type: 'QS1' }) }
  await two.reload()
  meanwhile = async () => {}
  await own
  t.ok(two.device('BOX-2'))
  t.equal(two.device('BOX-1')?.signingKey, fresh.signingKey)
  t.equal(two.bankById('bank')?.keys.length, 2)
  t.same([two.devicesOf('bank', 'shop@upi'), two.mappingsOf('BOX-1')], [[], []])
  meanwhile = async () => { throw new SoundboxError('STORE_FAILED', 'down') }
  await t.rejects(two.reload(), { code: 'STORE_FAILED' })
  t.equal(two.devices().length, 2, 'all stays as it was')
})

t.test('many changes of the directory are one read; what cannot be read now is read later, and after a lost connection all is looked at', async t => {
  const clock = handClock()
  let heard: (topic: string) => void = () => {}
  let reads = 0
  let refuses = false
  const following = await followDirectory({
    store: { onWake: async handler => { heard = handler } }, startTimer: clock.startTimer, log: SILENT_LOG, reload: async () => {
      reads++
      if (refuses) throw new SoundboxError('STORE_FAILED', 'down')
    }
  })
  const pass = async (): Promise<number> => {
    clock.advance(RELOAD_PAUSE_MS)
    await turn()
    return reads
  }
  t.equal(await pass(), 1, 'once at the start: it may have changed before it listened')
  t.equal(await pass(), 1)
  for (const topic of ['directory', 'directory', 'relay:x', 'directory']) heard(topic)
  refuses = true
  t.equal(await pass(), 2)
  t.equal(await pass(), 3, 'again after a failure')
  refuses = false
  t.equal(await pass(), 4)
  heard('relay:x')
  t.equal(await pass(), 4, 'mail of the relay is no change')
  heard('*')
  t.equal(await pass(), 5)
  await following.close()
  t.equal(clock.timers(), 0)
})

t.test('what another gateway saw of a box is known here and written there', async t => {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const fleet = await openFleet({
    store, broker: () => ({ publish: async () => {} }), device: tid => aDevice(tid, { desiredVersion: 7 }), staysOnline: true, newId: () => idOf(1), nowMs: clock.nowMs,
    startTimer: clock.startTimer, log: SILENT_LOG
  })
  fleet.learn('BOX-1', true)
  t.ok(fleet.presence.isOnline('BOX-1'))
  fleet.handleChanged('BOX-1')
  await turn()
  t.ok(fleet.desired.isPending('BOX-1'))
  fleet.learnReported('BOX-1', { version: 7, volume: 50, language: 'HINDI' })
  t.notOk(fleet.desired.isPending('BOX-1'), 'it is not told again')
  t.equal(fleet.presence.find('BOX-1')?.reported?.version, 7)
  fleet.learn('BOX-1', false)
  t.notOk(fleet.presence.isOnline('BOX-1'))
  await fleet.close()
  t.notOk(store.calls.includes('saveDeviceSeen'), 'nothing is written twice')
})
