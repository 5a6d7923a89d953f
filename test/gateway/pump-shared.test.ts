// The pump of a gateway that shares its boxes with others: what it is told, gives up and takes back, and a store that answers late.
import t from 'tap'
import type { Store } from '../../gateway/store/contract.js'
import { AGE_POLICY } from '../../gateway/trigger/backlog.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { openPump } from '../../gateway/trigger/pump.js'
import { makeSequence } from '../../gateway/trigger/sequence.js'
import { aDevice, anItem, fakeBroker, handClock, memoryStore, settled, simBox } from '../support/heart-fakes.js'
import { collectLog, hexOf, someSummary } from '../support/store-records.js'

const POLICY = { ...AGE_POLICY, receivedTimeoutMs: 5000, attemptsMax: 4 }
type RecordSummary = (...args: Parameters<Store['recordSummary']>) => Promise<unknown>

function openWorld (isShared = true) {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const broker = fakeBroker()
  /** `read`: holds back what the store has answered. `recordSummary`: instead of the store's. */
  const hooks: { read: (() => Promise<void>) | null, recordSummary: RecordSummary } = { read: null, recordSummary: store.recordSummary }
  const step: (list: Parameters<Store['stepDeliveries']>[0]) => void = list => { store.model.stepDeliveries(list) }
  const pump = openPump({
    directory: { device: tid => aDevice(tid) }, isShared, isStoreBehind: () => false, broker: () => broker, note: change => { step([change]) }, settle: async list => { step(list) },
    store: {
      async openDeliveries (tid, limit) {
        const rows = await store.openDeliveries(tid, limit)
        await hooks.read?.()
        return rows
      },
      recordSummary: (...args) => hooks.recordSummary(...args)
    },
    nowMs: clock.nowMs, nextSeq: makeSequence(clock.nowMs), policy: POLICY, meter: SILENT_METER, log: collectLog()
  })
  broker.onAck = (tid, ack) => { void pump.handleAck(tid, ack) }
  const box = simBox('BOX1', clock.nowMs)
  broker.boxes.set('BOX1', box)
  return {
    clock, store, broker, hooks, pump, box,
    amounts: () => box.spoken.map(({ amountMinor }) => amountMinor),
    /** As another gateway does. */
    record (n: number): void {
      const { state: _, ...delivery } = anItem(n, clock.nowMs())
      store.model.recordNotice(delivery)
    },
    async hello (): Promise<void> {
      box.online = true
      pump.handleHello('BOX1', box.bootId)
      await settled()
    },
    /** The store's next answer waits until the function is called. */
    holdRead (): () => Promise<void> {
      let go = (): void => {}
      hooks.read = () => new Promise(resolve => { go = resolve })
      return async () => {
        hooks.read = null
        go()
        await settled()
      }
    }
  }
}

t.test('what others recorded is read before the next is sent, in order, and without a word nothing is read', async t => {
  const { pump, record, hello, amounts, store, clock } = openWorld()
  await hello()
  const reads = (): number => store.calls.filter(call => call === 'openDeliveries').length
  const before = reads()
  record(1)
  record(2)
  const third = anItem(3, clock.nowMs())
  store.model.recordNotice(third)
  pump.refresh('BOX1')
  await pump.offer('BOX1', [third])
  await settled()
  t.same(amounts(), [100, 200, 300])
  const after = reads()
  t.ok(after > before)
  const fourth = anItem(4, clock.nowMs())
  store.model.recordNotice(fourth)
  await pump.offer('BOX1', [fourth])
  await settled()
  t.same(amounts(), [100, 200, 300, 400])
  t.equal(reads(), after)
})

t.test('a word that comes while the store is being read is not lost, with one gateway or several', async t => {
  for (const isShared of [true, false]) {
    const { pump, record, hello, amounts, holdRead } = openWorld(isShared)
    const letGo = holdRead()
    await hello()
    record(1)
    pump.refresh('BOX1')
    await letGo()
    t.same(amounts(), [100])
  }
})

t.test('a final that overtakes the answer of the store is not asked for again', async t => {
  const { pump, record, hello, amounts, holdRead, box, broker, store } = openWorld()
  record(1)
  box.way = { ...box.way, loseAck: result => result !== 'received' }
  await hello()
  t.same(amounts(), [100])
  const letGo = holdRead()
  pump.refresh('BOX1')
  void pump.offer('BOX1', [])
  await settled()
  await pump.handleAck('BOX1', { id: hexOf('item 1'), result: 'spoken' })
  await letGo()
  t.equal(broker.published.length, 1)
  t.same(store.model.openDeliveries('BOX1', 9), [])
})

t.test('a final that is on disk already is not written again, and frees the box', async t => {
  const { pump, hello, amounts, box, store, clock } = openWorld()
  await hello()
  box.way = { ...box.way, loseAck: () => true }
  for (const n of [1, 2]) {
    store.model.recordNotice(anItem(n, clock.nowMs()))
    await pump.offer('BOX1', [anItem(n, clock.nowMs())])
  }
  await settled()
  t.same(amounts(), [100])
  await pump.handleAck('BOX1', { id: hexOf('item 1'), result: 'spoken' }, true)
  await settled()
  t.same(amounts(), [100, 200])
  t.equal(store.model.openDeliveries('BOX1', 9).length, 2, 'whoever settled it has written it')
})

t.test('a box that is given up is left alone, whatever was under way; taken back, it is asked about all that is open', async t => {
  const { pump, record, hello, amounts, holdRead, box, clock } = openWorld()
  box.way = { ...box.way, loseAck: result => result !== 'received' }
  record(1)
  await hello()
  t.same(amounts(), [100])
  const letGo = holdRead()
  record(2)
  pump.refresh('BOX1')
  void pump.offer('BOX1', [])
  await settled()
  pump.release('BOX1')
  await letGo()
  t.same(amounts(), [100], 'the answer of the store comes too late')
  t.notOk(pump.isOnline('BOX1'))
  t.notOk(pump.knows('BOX1', hexOf('item 1')))
  clock.advance(1000)
  pump.tick()
  t.same(pump.tids(), [])
  box.way = { ...box.way, loseAck: () => false }
  await pump.adopt('BOX1')
  await settled()
  t.same(box.heard.map(({ amountMinor }) => amountMinor), [100, 100, 200])
  t.same(amounts(), [100, 200], 'the box knows what it has spoken')
})

t.test('only what the box itself refused goes into a summary; one that another gateway has made is said instead', async t => {
  const { pump, record, hooks, hello, box, store, clock } = openWorld()
  record(1)
  record(2)
  await pump.offer('BOX1', [anItem(1, clock.nowMs())])
  clock.advance(2 * AGE_POLICY.speakMs)
  const members = [1, 2].map(n => hexOf(`item ${n}`))
  let tries = 0
  hooks.recordSummary = async () => {
    tries++
    store.model.recordSummary(someSummary('theirs', { tid: 'BOX1', issuedAt: clock.nowMs(), expiresAt: clock.nowMs() + 60_000, amountMinor: 300, count: 2, seq: 9 }), members, clock.nowMs())
    return false
  }
  await hello()
  t.equal(tries, 1)
  t.same(box.heard.slice(0, 2).map(({ id }) => id), members, 'each was asked about first')
  t.same(box.spoken.map(({ id, count }) => ({ id, count })), [{ id: hexOf('theirs'), count: 2 }])
  t.same(store.model.openDeliveries('BOX1', 9), [])
})
