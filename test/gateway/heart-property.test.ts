// Whatever happens, each payment is said at most once, none that was acknowledged is lost, and in the end all is known. Seeded scripts
// of payments, bank retries, lost messages, boxes that come and go, clock jumps, a store that refuses, and a gateway that is killed.
import t from 'tap'
import type { AckResult } from '../../protocol/index.js'
import { drainFallback } from '../../gateway/jobs/house-jobs.js'
import type { Store } from '../../gateway/store/contract.js'
import { isFinal } from '../../gateway/store/contract.js'
import type { Directory } from '../../gateway/store/directory.js'
import { AGE_POLICY } from '../../gateway/trigger/backlog.js'
import { type Heart, openHeart } from '../../gateway/trigger/heart.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { aBank, aDevice, fakeBroker, handClock, memoryFallback, memoryStore, settled, simBox } from '../support/heart-fakes.js'
import { openRandom, seedsOf } from '../support/random.js'
import { collectLog } from '../support/store-records.js'

const TIDS = ['BOX1', 'BOX2']
const BANK = aBank('pnb')
const STEPS = 60

/** Everything that outlives a gateway: disk, boxes, clock. */
function openScene (rand: () => number) {
  const clock = handClock()
  const store = memoryStore(clock.nowMs)
  const fallback = memoryFallback()
  const log = collectLog()
  const broker = fakeBroker()
  const summaries = new Map<string, readonly string[]>()
  const loss = { message: 0, ack: 0 }
  const way = { loseMessage: () => rand() < loss.message, loseAck: () => rand() < loss.ack, sound: (): AckResult => rand() < 0.05 ? 'failed' : rand() < 0.05 ? 'muted' : 'spoken' }
  const boxes = TIDS.map(tid => simBox(tid, clock.nowMs, way))
  for (const box of boxes) broker.boxes.set(box.tid, box)
  const merchants: Record<string, string[]> = { one: ['BOX1'], both: TIDS }
  const directory = {
    device: (tid: string) => aDevice(tid), devices: () => TIDS.map(tid => aDevice(tid)), devicesOf: (_bank: string, merchant: string) => merchants[merchant] ?? []
  } as unknown as Directory
  let heart = openLife()
  function openLife (): { heart: Heart, kill: () => void } {
    let dead = false
    const alive = <T extends object>(part: T): T => new Proxy(part, {
      get (target, name) {
        const member = Reflect.get(target, name) as unknown
        return typeof member === 'function' ? (...args: unknown[]) => dead ? new Promise(() => {}) : (member as (...list: unknown[]) => unknown).apply(target, args) : member
      }
    })
    const timers: { stop: () => void }[] = []
    const startTimer: typeof clock.startTimer = (callback, ms) => {
      const timer = clock.startTimer(callback, ms)
      timers.push(timer)
      return timer
    }
    const recording: Store = { ...store, recordSummary: async (summary, members, at) => {
      await store.recordSummary(summary, members, at)
      summaries.set(summary.announcementId, members)
    } }
    const opened = openHeart({
      directory, store: alive(recording), fallback: { ...alive(fallback), depth: fallback.depth, findPayment: fallback.findPayment }, broker: () => ({ ...alive(broker), stats: broker.stats }),
      typeOf: () => ({ transport: 'mqtt', baseUrl: undefined }), policy: { ...AGE_POLICY, receivedTimeoutMs: 5000, attemptsMax: 4 }, meter: SILENT_METER, nowMs: clock.nowMs, startTimer, log
    })
    broker.onAck = (tid, ack) => { opened.handleAck(tid, ack).catch(() => { broker.boxes.get(tid)?.unsettled.set(ack.id, ack) }) }
    return {
      heart: opened,
      kill () {
        dead = true
        for (const timer of timers) timer.stop()
      }
    }
  }
  return {
    clock, store, fallback, log, broker, boxes, summaries, loss,
    heart: () => heart.heart,
    restart () {
      heart.kill()
      for (const box of boxes) box.online = false
      heart = openLife()
    },
    async hello (index: number, bootId?: string): Promise<void> {
      const box = boxes[index]!
      Object.assign(box, { online: true, bootId: bootId ?? box.bootId })
      heart.heart.handleHello(box.tid, box.bootId)
      for (const ack of [...box.unsettled.values()]) {
        box.unsettled.delete(ack.id)
        broker.onAck(box.tid, ack)
      }
      await settled()
    },
    async gone (index: number): Promise<void> {
      boxes[index]!.online = false
      heart.heart.handleOffline(boxes[index]!.tid)
      await settled()
    }
  }
}
type Scene = ReturnType<typeof openScene>

async function pay (scene: Scene, n: number): Promise<boolean> {
  const order = {
    bank: BANK, transactionId: `T${n}`, merchant: n % 3 === 0 ? 'both' : 'one', tid: null, language: null, amountMinor: 100 + n, txnType: 'UPI', status: 'success' as const, currency: 'INR',
    source: 'http' as const
  }
  let ok = false
  void scene.heart().announce(order).then(() => { ok = true }, () => {})
  await settled()
  return ok
}

/** One random thing happens. Returns the number of a payment that was acknowledged. */
async function happen (scene: Scene, rand: () => number, counter: { payments: number }): Promise<number | undefined> {
  const pick = (below: number): number => Math.floor(rand() * below)
  const what = rand()
  if (what < 0.35) return await pay(scene, ++counter.payments) ? counter.payments : undefined
  if (what < 0.45 && counter.payments > 0) {
    const n = 1 + pick(counter.payments)
    return await pay(scene, n) ? n : undefined
  }
  if (what < 0.60) scene.clock.advance(rand() < 0.2 ? pick(400_000) : pick(20_000))
  else if (what < 0.70) await scene.hello(pick(2), rand() < 0.5 ? `boot-${rand()}` : undefined)
  else if (what < 0.77) await scene.gone(pick(2))
  else if (what < 0.82) Object.assign(scene.loss, { message: rand() < 0.5 ? rand() * 0.6 : 0, ack: rand() < 0.5 ? rand() * 0.6 : 0 })
  else if (what < 0.87) scene.store.refuses.writes = rand() < 0.4
  else if (what < 0.90) scene.broker.ready = rand() < 0.7
  else if (what < 0.94) scene.restart()
  else if (what < 0.97) await drainFallback(scene)
  else await scene.store.expireDeliveries(scene.clock.nowMs() - AGE_POLICY.summaryMs, scene.clock.nowMs(), 100).catch(() => {})
  scene.clock.advance(1)
  await settled()
  return undefined
}

async function calmDown (scene: Scene): Promise<void> {
  Object.assign(scene.loss, { message: 0, ack: 0 })
  scene.store.refuses.writes = false
  scene.broker.ready = true
  await drainFallback(scene)
  for (const [index] of scene.boxes.entries()) await scene.gone(index)
  for (const [index] of scene.boxes.entries()) await scene.hello(index, 'last')
  for (let second = 0; second < 40; second++) {
    scene.clock.advance(1000)
    await settled(30)
  }
}

t.test('each payment is said at most once, and after a quiet hello all is final', async t => {
  for (const seed of seedsOf(25)) {
    const rand = openRandom(seed)
    const scene = openScene(rand)
    const counter = { payments: 0 }
    const acknowledged = new Set<number>()
    for (let step = 0; step < STEPS; step++) {
      const done = await happen(scene, rand, counter)
      if (done !== undefined) acknowledged.add(done)
    }
    await calmDown(scene)
    const rows = scene.store.model.queryHistory({})
    const faults: string[] = []
    for (const n of acknowledged) if (!rows.some(row => row.payment.transactionId === `T${n}`)) faults.push(`T${n} was acknowledged and is lost`)
    for (const { payment, deliveries } of rows) for (const delivery of deliveries) {
      const box = scene.boxes.find(one => one.tid === delivery.tid)!
      const alone = box.spoken.filter(({ id }) => id === delivery.announcementId).length
      const summed = box.spoken.filter(({ id }) => scene.summaries.get(id)?.includes(delivery.announcementId)).length
      if (alone + summed > 1) faults.push(`${payment.transactionId} on ${delivery.tid} was said ${alone} times alone and ${summed} times in summaries`)
      if (!isFinal(delivery.state)) faults.push(`${payment.transactionId} on ${delivery.tid} is still ${delivery.state}`)
      if (delivery.state === 'spoken' && alone !== 1) faults.push(`${payment.transactionId} on ${delivery.tid} is spoken in history and not by the box`)
      if (alone === 1 && delivery.state !== 'spoken' && delivery.state !== 'expired') faults.push(`${payment.transactionId} on ${delivery.tid} was spoken and history says ${delivery.state}`)
    }
    const depth = scene.heart().depth()
    if (depth.waiting + depth.inFlight > 0) faults.push(`something still waits: ${JSON.stringify(depth)}`)
    const bad = scene.log.lines.filter(line => line.level === 'error')
    if (bad.length > 0) faults.push(`errors were logged: ${bad.map(line => line.sentence).join('; ')}`)
    t.same(faults, [], `SEED=${seed}: ${rows.length} payments`)
  }
})
