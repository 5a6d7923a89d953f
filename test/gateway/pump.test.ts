// The pump of the soundboxes against a broker and boxes in memory, on a clock that the test holds.
import t from 'tap'
import type { AckResult } from '../../protocol/index.js'
import type { DeliveryChange, DeliveryState, NewDelivery } from '../../gateway/store/contract.js'
import { AGE_POLICY, type Waiting } from '../../gateway/trigger/backlog.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { openPump } from '../../gateway/trigger/pump.js'
import { BACKLOG_PAGE, STORE_PAUSE_MS, WAITING_MAX } from '../../gateway/trigger/pump-run.js'
import { makeSequence } from '../../gateway/trigger/sequence.js'
import { aDevice, anItem, fakeBroker, handClock, memoryStore, settled, type SimBox, simBox } from '../support/heart-fakes.js'
import { collectLog, hexOf, START_MS } from '../support/store-records.js'

const POLICY = { ...AGE_POLICY, receivedTimeoutMs: 5000, attemptsMax: 4 }

function openWorld (more: { behind?: () => boolean } = {}) {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const broker = fakeBroker()
  const log = collectLog()
  const changes: DeliveryChange[] = []
  const finals: string[] = []
  const step = (list: readonly DeliveryChange[]): void => {
    changes.push(...list)
    store.model.stepDeliveries(list)
  }
  const pump = openPump({
    directory: { device: tid => tid === 'GONE' ? undefined : aDevice(tid) }, store, isStoreBehind: more.behind ?? (() => false), broker: () => broker,
    note: change => { step([change]) }, settle: async list => { step(list) }, nowMs: clock.nowMs, nextSeq: makeSequence(clock.nowMs), policy: POLICY,
    meter: { ...SILENT_METER, finalState: state => { finals.push(state) } }, log
  })
  broker.onAck = (tid, ack) => { pump.handleAck(tid, ack).catch((err: unknown) => { log.error({ err }, 'ack failed') }) }
  const box = simBox('BOX1', clock.nowMs)
  broker.boxes.set('BOX1', box)
  return {
    clock, store, broker, log, changes, finals, pump, box,
    /** Recorded and offered, as announce does it. */
    async pay (n: number, more: Partial<NewDelivery> = {}): Promise<Waiting> {
      const item = anItem(n, clock.nowMs(), more)
      const { state: _, ...delivery } = item
      store.model.recordNotice(delivery)
      await pump.offer(item.tid, [item])
      await settled()
      return item
    },
    async hello (bootId = box.bootId): Promise<void> {
      Object.assign(box, { online: true, bootId })
      pump.handleHello('BOX1', bootId)
      await settled()
    },
    async gone (): Promise<void> {
      box.online = false
      pump.handleOffline('BOX1')
      await settled()
    },
    async tick (ms = 1000): Promise<void> {
      clock.advance(ms)
      pump.tick()
      await settled()
    },
    stateOf: (n: number): DeliveryState | undefined => changes.filter(change => change.announcementId === hexOf(`item ${n}`)).at(-1)?.state
  }
}

const amounts = (box: SimBox): number[] => box.spoken.map(announcement => announcement.amountMinor)
const silent: SimBox['way'] = { loseMessage: () => true, loseAck: () => true, sound: () => 'spoken' }

t.test('one announcement is in flight, the next goes after received, and each step is told', async t => {
  const { pump, box, broker, pay, hello, changes } = openWorld()
  await hello()
  let release = (): void => {}
  broker.hold = () => new Promise(resolve => { release = resolve })
  const sent = [pay(1), pay(2), pay(3)]
  await settled()
  t.same(pump.depth(), { waiting: 2, inFlight: 1 })
  t.same(broker.published, [], 'the second waits while the first is handed over')
  broker.hold = null
  release()
  await Promise.all(sent)
  await settled()
  t.same(amounts(box), [100, 200, 300])
  t.same(pump.depth(), { waiting: 0, inFlight: 0 })
  for (const n of [1, 2, 3]) t.same(changes.filter(change => change.announcementId === hexOf(`item ${n}`)).map(change => change.state), ['published', 'delivered', 'spoken'])
})

t.test('an answer that overtakes the broker still leaves the time of publishing', async t => {
  const world = openWorld()
  await world.hello()
  let letGo = (): void => {}
  const publish = world.broker.publish
  world.broker.publish = async (topic, payload) => {
    await publish(topic, payload)
    await new Promise<void>(resolve => { letGo = resolve })
  }
  const paid = world.pay(1)
  await settled()
  t.same(amounts(world.box), [100])
  letGo()
  await paid
  t.same(world.changes.map(change => change.state).sort(), ['delivered', 'published', 'spoken'])
})

t.test('a box that stays silent is sent the same again, then its connection is ended, and the next hello goes on', async t => {
  const world = openWorld()
  const { box, broker, pump } = world
  await world.hello()
  box.way = silent
  await world.pay(1)
  await world.tick(POLICY.receivedTimeoutMs - 1)
  t.equal(broker.published.length, 1, 'not before its time')
  for (let attempt = 2; attempt <= POLICY.attemptsMax; attempt++) {
    await world.tick(attempt === 2 ? 1 : POLICY.receivedTimeoutMs)
    t.equal(broker.published.length, attempt)
  }
  t.same(broker.disconnected, [])
  await world.tick(POLICY.receivedTimeoutMs)
  t.same(broker.disconnected, ['BOX1'])
  t.equal(broker.published.length, POLICY.attemptsMax)
  await world.gone()
  t.same(pump.depth(), { waiting: 1, inFlight: 0 })
  box.way = { loseMessage: () => false, loseAck: () => false, sound: () => 'spoken' }
  await world.hello()
  t.same(amounts(box), [100])
  t.equal(world.stateOf(1), 'spoken')
})

t.test('a hello of the same boot leaves the box what it has; one of a new boot sends it again for the journal to judge', async t => {
  const world = openWorld()
  const { box } = world
  await world.hello('boot-1')
  box.way = { ...box.way, loseAck: result => result !== 'received' }
  await world.pay(1)
  t.equal(world.stateOf(1), 'delivered', 'the final was lost')
  box.way = { loseMessage: () => false, loseAck: () => false, sound: () => 'spoken' }
  await world.gone()
  await world.hello('boot-1')
  t.equal(box.heard.length, 1, 'same boot: nothing is sent again')
  await world.gone()
  await world.hello('boot-2')
  t.equal(box.heard.length, 2)
  t.equal(world.stateOf(1), 'spoken', 'a duplicate tells how the first one ended')
  t.same(amounts(box), [100], 'one sound')
})

t.test('what a duplicate was becomes the state, and without it stays a duplicate', async t => {
  const rows: [AckResult, AckResult | undefined, DeliveryState][] = [
    ['duplicate', 'spoken', 'spoken'], ['duplicate', 'failed', 'failed'], ['duplicate', undefined, 'duplicate'], ['duplicate', 'received', 'duplicate'], ['done', undefined, 'duplicate'],
    ['muted', undefined, 'muted'], ['summarised', undefined, 'summarised']
  ]
  for (const [result, was, want] of rows) {
    const { pump, changes } = openWorld()
    await pump.handleAck('BOX1', { id: hexOf('x'), result, ...(was === undefined ? {} : { was }), reason: 'r', queuedMs: 1, audioMs: 2 })
    t.match(changes, [{ tid: 'BOX1', announcementId: hexOf('x'), state: want, reason: 'r', queuedMs: 1, audioMs: 2 }], `${result} ${was}`)
  }
})

t.test('the fresh are spoken, the missed summed up, the old left to history', async t => {
  const world = openWorld()
  await world.pay(1)
  world.clock.advance(AGE_POLICY.summaryMs - AGE_POLICY.speakMs)
  await world.pay(2)
  await world.pay(3)
  world.clock.advance(AGE_POLICY.speakMs + 1)
  await world.pay(4)
  await world.hello()
  t.match(world.box.spoken, [{ kind: 'summary', amountMinor: 500, count: 2 }, { kind: 'payment', amountMinor: 400 }])
  t.equal(world.stateOf(1), 'expired')
  t.same(world.store.model.openDeliveries('BOX1', 10), [], 'everything is final')
})

t.test('what a vanished box may have heard is asked about: never spoken goes into the summary, spoken stays one sound', async t => {
  const world = openWorld()
  const { box, clock } = world
  await world.hello()
  await world.pay(1)
  box.way = { ...box.way, loseAck: () => true }
  await world.pay(2)
  await world.gone()
  box.way = silent
  clock.advance(1000)
  await world.pay(3)
  clock.advance(2 * AGE_POLICY.speakMs)
  box.way = { loseMessage: () => false, loseAck: () => false, sound: () => 'spoken' }
  await world.pay(4)
  await world.hello('boot-2')
  t.same(box.spoken.map(({ kind, amountMinor }) => [kind, amountMinor]), [['payment', 100], ['payment', 200], ['summary', 300], ['payment', 400]])
  t.same(world.store.model.openDeliveries('BOX1', 10), [])
})

t.test('a box that told expired to a gateway that died is believed by the next', async t => {
  const world = openWorld()
  const { box } = world
  world.clock.advance(2 * AGE_POLICY.speakMs)
  world.store.model.recordNotice(anItem(1, START_MS))
  world.store.model.stepDeliveries([{ tid: 'BOX1', announcementId: hexOf('item 1'), state: 'published', at: START_MS }])
  box.journal.set(hexOf('item 1'), 'expired')
  await world.hello()
  t.match(box.spoken, [{ kind: 'summary', amountMinor: 100, count: 1 }])
})

t.test('a row of an earlier run that says accepted is asked about, not counted: it may have been spoken', async t => {
  const world = openWorld()
  const { box, store, clock } = world
  for (const [n, before] of [[1, 70_000], [2, 65_000]] as const) store.model.recordNotice(anItem(n, clock.nowMs() - before))
  box.journal.set(hexOf('item 1'), 'spoken')
  await world.hello()
  t.match(box.spoken, [{ kind: 'summary', amountMinor: 200, count: 1 }], 'only the one that was never spoken')
  t.equal(world.stateOf(1), 'spoken')
})

t.test('while news waits in the fallback the store is not taken at its word', async t => {
  let behind = true
  const world = openWorld({ behind: () => behind })
  world.clock.advance(1)
  world.store.model.recordNotice(anItem(1, world.clock.nowMs()))
  world.box.journal.set(hexOf('item 1'), 'spoken')
  world.clock.advance(2 * AGE_POLICY.speakMs)
  await world.hello()
  t.same(amounts(world.box), [], 'no summary of what was spoken')
  world.store.model.recordNotice(anItem(2, world.clock.nowMs()))
  await world.tick(STORE_PAUSE_MS)
  t.same(amounts(world.box), [200], 'and it is asked again what has come out of the fallback since')
  behind = false
  await world.tick(STORE_PAUSE_MS)
  world.store.calls.length = 0
  await world.tick(STORE_PAUSE_MS)
  t.same(world.store.calls, [], 'then memory has all')
})

t.test('memory keeps WAITING_MAX of a box; what is beyond comes back from the store, in order', async t => {
  const world = openWorld()
  for (let n = 1; n <= WAITING_MAX; n++) await world.pump.offer('BOX1', [recorded(world, n)])
  t.equal(world.pump.depth().waiting, WAITING_MAX)
  await world.pump.offer('BOX1', [recorded(world, WAITING_MAX + 1)])
  t.equal(world.pump.depth().waiting, WAITING_MAX, 'one past it is left to the store')
  for (let n = WAITING_MAX + 2; n <= WAITING_MAX + 40; n++) await world.pump.offer('BOX1', [recorded(world, n)])
  world.box.online = true
  world.pump.handleHello('BOX1', 'boot-1')
  while (world.box.spoken.length < 100) await settled(1)
  await world.pump.offer('BOX1', [recorded(world, WAITING_MAX + 41)])
  while (world.box.spoken.length < WAITING_MAX + 41) await settled(1)
  t.same(amounts(world.box), Array.from({ length: WAITING_MAX + 41 }, (_, index) => 100 * (index + 1)), 'none lost, none out of turn')
})

t.test('a backlog of more than a page of the store is sent whole', async t => {
  const world = openWorld()
  for (let n = 1; n <= BACKLOG_PAGE + 1; n++) recorded(world, n)
  world.box.online = true
  world.pump.handleHello('BOX1', 'boot-1')
  let most = 0
  while (world.box.spoken.length < BACKLOG_PAGE + 1) {
    most = Math.max(most, world.pump.depth().waiting)
    await settled(1)
  }
  t.ok(most <= WAITING_MAX, `${most} waited in memory`)
  t.equal(new Set(world.box.heard.map(({ id }) => id)).size, BACKLOG_PAGE + 1)
  t.equal(world.box.heard.length, BACKLOG_PAGE + 1)
})

t.test('a page of announcements that the box keeps open does not spin the pump', async t => {
  const world = openWorld()
  world.box.way = { ...world.box.way, loseAck: result => result !== 'received' }
  await world.hello()
  for (let n = 1; n <= BACKLOG_PAGE; n++) await world.pump.offer('BOX1', [recorded(world, n)])
  await settled()
  while (world.box.heard.length < BACKLOG_PAGE) await settled(1)
  await world.gone()
  await world.hello()
  world.store.calls.length = 0
  for (let second = 0; second < 4; second++) await world.tick()
  t.ok(world.store.calls.length <= 3, `asked ${world.store.calls.length} times in 4 s`)
})

t.test('a store that cannot take the summary does not keep the fresh ones from being spoken', async t => {
  const world = openWorld()
  await world.pay(1)
  world.clock.advance(2 * AGE_POLICY.speakMs)
  world.store.refuses.writes = true
  await world.hello()
  await world.pay(2)
  t.same(amounts(world.box), [200])
  world.store.refuses.writes = false
  await world.tick(STORE_PAUSE_MS)
  t.match(world.box.spoken.map(({ kind }) => kind), ['payment', 'summary'])
})

t.test('a store that cannot be read at hello is asked again, and what is in memory goes ahead', async t => {
  const world = openWorld()
  world.store.model.recordNotice(anItem(1, world.clock.nowMs()))
  world.store.refuses.reads = true
  await world.hello()
  t.same(amounts(world.box), [])
  await world.pay(2)
  t.same(amounts(world.box), [200])
  world.store.refuses.reads = false
  await world.tick(STORE_PAUSE_MS)
  t.same(amounts(world.box), [200, 100])
})

t.test('a broker that is away is PUBLISH_FAILED for boxes online and offline, and nothing is lost by it', async t => {
  const world = openWorld()
  world.broker.ready = false
  await t.rejects(world.pay(1), { code: 'PUBLISH_FAILED' }, 'box offline')
  world.broker.ready = true
  await world.hello()
  t.same(amounts(world.box), [100])
  world.broker.ready = false
  await t.rejects(world.pay(2), { code: 'PUBLISH_FAILED' }, 'box online')
  await t.rejects(world.pump.offer('BOX1', [anItem(2, world.clock.nowMs())]), { code: 'PUBLISH_FAILED' }, 'also when the bank asks again')
  await world.tick()
  t.same(amounts(world.box), [100])
  world.broker.ready = true
  await world.tick()
  t.same(amounts(world.box), [100, 200])
})

t.test('a publish that fails while the broker is there leaves the announcement for the next hello or tick', async t => {
  const world = openWorld()
  await world.hello()
  world.box.online = false
  await world.pay(1)
  t.same(world.pump.depth(), { waiting: 1, inFlight: 0 })
  await world.tick()
  t.same(amounts(world.box), [])
  world.box.online = true
  await world.tick()
  t.same(amounts(world.box), [100])
})

t.test('what a box sends is never kept waiting for the next publish', async t => {
  const world = openWorld()
  await world.hello()
  let publishes = 0
  world.broker.hold = () => ++publishes === 2 ? new Promise(() => {}) : Promise.resolve()
  world.box.way = { ...world.box.way, loseAck: () => true }
  await world.pay(1)
  void world.pay(2)
  await settled()
  let resolved = false
  void world.pump.handleAck('BOX1', { id: hexOf('item 1'), result: 'received' }).then(() => { resolved = true })
  await settled()
  t.ok(resolved, 'the ack of the first is done with while the second is on its way')
})

t.test('a box that has an old announcement and does not tell its end does not keep the others waiting', async t => {
  const world = openWorld()
  world.store.model.recordNotice(anItem(1, world.clock.nowMs() - 2 * AGE_POLICY.speakMs))
  world.broker.onAck = (tid, ack) => { if (ack.result === 'received' || ack.id !== hexOf('item 1')) void world.pump.handleAck(tid, ack) }
  await world.hello()
  await world.pay(2)
  t.same(amounts(world.box), [], 'it is asked first')
  for (let waited = 0; waited < POLICY.attemptsMax; waited++) await world.tick(POLICY.receivedTimeoutMs)
  t.same(amounts(world.box), [200])
  t.same(world.broker.disconnected, [])
  t.equal(world.box.heard.filter(({ id }) => id === hexOf('item 1')).length, 1, 'and it is not sent again to a box that has it')
})

t.test('what is taken back is not sent, nor sent again', async t => {
  const world = openWorld()
  for (const n of [1, 2]) await world.pay(n)
  t.same(['BOX1', 'BOX1', 'NONE'].map(tid => world.pump.withdraw(tid, hexOf('item 1'))), [true, false, false], 'once')
  world.store.model.stepDeliveries([{ tid: 'BOX1', announcementId: hexOf('item 1'), state: 'reversed', at: 1 }])
  await world.hello()
  Object.assign(world.box, { way: silent })
  t.equal(await world.pay(3).then(() => world.pump.withdraw('BOX1', hexOf('item 3'))), false)
  world.store.model.stepDeliveries([{ tid: 'BOX1', announcementId: hexOf('item 3'), state: 'reversed', at: 1 }])
  Object.assign(world.box, { way: { loseMessage: () => false, loseAck: () => false, sound: () => 'spoken' } })
  t.same(await world.gone().then(() => world.hello('boot-2')).then(() => amounts(world.box)), [200], 'a box that lost it does not get it after it was taken back')
})

t.test('a box that is away for good leaves nothing in memory', async t => {
  const world = openWorld()
  for (let n = 1; n <= 5; n++) await world.pay(n)
  await world.tick(AGE_POLICY.summaryMs)
  t.equal(world.pump.depth().waiting, 5)
  await world.tick(1)
  t.equal(world.pump.depth().waiting, 0)
  t.same(world.finals, Array.from({ length: 5 }, () => 'expired'))
})

t.test('a summary that nobody could hear in time is not spoken later', async t => {
  const world = openWorld()
  await world.pay(1)
  world.clock.advance(2 * AGE_POLICY.speakMs)
  world.box.way = silent
  await world.hello()
  await world.gone()
  world.box.way = { loseMessage: () => false, loseAck: () => false, sound: () => 'spoken' }
  world.clock.advance(AGE_POLICY.summaryMs * 2)
  await world.hello('boot-2')
  t.same(amounts(world.box), [])
  t.same(world.store.model.openDeliveries('BOX1', 10), [])
})

function recorded (world: ReturnType<typeof openWorld>, n: number): Waiting {
  const item = anItem(n, world.clock.nowMs())
  const { state: _, ...delivery } = item
  world.store.model.recordNotice(delivery)
  return item
}
