// Who pumps which box, in a simulated world: several gateways over one store, a clock that the test moves, and a seed that decides what
// comes first: answers of the store, wake messages, publishes, acks, hellos, deaths and new gateways.
import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { type Delivery, type DeliveryChange, type NewDelivery, OPEN_STATES } from '../../gateway/store/contract.js'
import { type Device, openDirectory } from '../../gateway/store/directory.js'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { waitingOf } from '../../gateway/trigger/backlog.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { openPump } from '../../gateway/trigger/pump.js'
import { DEAD_AFTER_MS, HEARTBEAT_MS, LATE_WILL_MS, openRelay, ownerOf, type Relay, SWEEP_AGE_MS } from '../../gateway/trigger/relay.js'
import type { Bus } from '../../gateway/trigger/relay-mail.js'
import { type Ack, type AckResult, openAnnouncement, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { followDirectory, RELOAD_PAUSE_MS } from '../../gateway/nodes.js'
import { handClock } from '../support/heart-fakes.js'
import { openRandom, seedsOf } from '../support/random.js'

const KEY = 'k'.repeat(43)
const POLICY = { speakMs: 60_000, summaryMs: 600_000, receivedTimeoutMs: 2000, attemptsMax: 4 }
const START_MS = 1_700_000_000_000

type Box = { tid: string, online: boolean, boot: number, journal: Map<string, AckResult>, spoken: { id: string, kind: string, count: number | null }[], seen: string[], members: Set<string> }
type Node = { name: string, alive: boolean, relay: Relay, confirmed: string[], online: Set<string>, timers: Set<{ every: number, due: number, run: () => void }>, taken: string[], pumps: () => readonly string[] }
type World = ReturnType<typeof openWorld>

/** `choose`: which of the pending things happens next; undefined = in order. */
function openWorld (random: () => number, isChaotic: boolean) {
  const pending: { run: () => void }[] = []
  const rows = new Map<string, Delivery>()
  const boxes = new Map<string, Box>()
  const nodes: Node[] = []
  const handlers: { node: Node, handler: (topic: string) => void }[] = []
  const world = { nowMs: START_MS, isBusDown: false, isBrokerReady: true, publishes: 0, summaries: 0, isFinalLost: false }
  /** What each gateway has on its own disk while the store is away. */
  const spool: { node: Node, isPayment: boolean, run: () => void }[] = []
  const later = (run: () => void): void => { pending.push({ run }) }
  /** An answer that reaches a node only while it lives. */
  const answer = <T>(node: Node, ask: () => T): Promise<T> => new Promise((resolve, reject) => {
    if (world.isBusDown) return later(() => { reject(new SoundboxError('STORE_FAILED', 'down')) })
    const value = ask()
    later(() => { if (node.alive) resolve(value) })
  })
  const step = (changes: readonly DeliveryChange[]): void => {
    for (const { tid, announcementId, state } of changes) {
      const row = rows.get(`${tid}/${announcementId}`)
      const order = ['accepted', 'published', 'delivered']
      if (row !== undefined && order.includes(row.state) && (!order.includes(state) || order.indexOf(state) > order.indexOf(row.state))) row.state = state
    }
  }
  const settle = (node: Node, changes: readonly DeliveryChange[]): Promise<void> => {
    if (!world.isBusDown) return answer(node, () => { step(changes) })
    spool.push({ node, isPayment: false, run: () => { step(changes) } })
    return Promise.resolve()
  }
  const drain = (node: Node): void => {
    const own = spool.filter(entry => entry.node === node)
    for (const entry of own) spool.splice(spool.indexOf(entry), 1)
    for (const isPayment of [true, false]) for (const entry of own) if (entry.isPayment === isPayment) entry.run()
  }
  const live = (): Node[] => nodes.filter(node => node.alive)
  const anyNode = (): Node => live()[Math.floor(random() * live().length)] as Node
  const sendAck = (box: Box, ack: Ack): void => {
    if (world.isFinalLost && ack.result !== 'received') return
    const node = anyNode()
    later(() => { if (node.alive) void node.relay.handleAck(box.tid, ack).catch(() => {}) })
  }
  const hear = (box: Box, payload: Buffer): void => {
    if (!box.online) return
    const announcement = openAnnouncement(payload, box.tid, KEY)
    const { id } = announcement
    box.seen.push(id)
    const known = box.journal.get(id)
    if (known !== undefined) return sendAck(box, { id, result: 'duplicate', was: known })
    sendAck(box, { id, result: 'received' })
    const result = world.nowMs >= announcement.expiresAt ? 'expired' : 'spoken'
    box.journal.set(id, result)
    if (result === 'spoken') box.spoken.push({ id, kind: announcement.kind, count: announcement.count ?? null })
    sendAck(box, { id, result })
  }
  const bus = (node: Node): Bus => ({
    wake: topic => answer(node, () => {
      for (const { node: other, handler } of handlers) later(() => { if (other.alive) handler(topic) })
    }),
    onWake: async handler => { handlers.push({ node, handler }) },
    recordSummaryOnce: async () => { throw new Error('the pump has its own') },
    waitingTids: ({ issuedFrom, issuedBefore }) => answer(node, () => [...new Set([...rows.values()].filter(({ state, issuedAt, tid }) =>
      state === 'accepted' && issuedAt >= issuedFrom && issuedAt < issuedBefore && boxes.get(tid)?.online === true).map(({ tid }) => tid))])
  })
  const startNode = async (name: string, shared = true, whileJoining = (): void => {}): Promise<Node> => {
    const online = new Set([...boxes.values()].filter(box => box.online).map(({ tid }) => tid))
    const node: Node = { name, alive: true, online, timers: new Set(), taken: [], confirmed: [], pumps: () => [], relay: undefined as unknown as Relay }
    const startTimer = (run: () => void, every: number) => {
      const timer = { every, due: world.nowMs + every, run }
      node.timers.add(timer)
      return { stop: () => { node.timers.delete(timer) } }
    }
    const nowMs = (): number => world.nowMs
    const pump = openPump({
      directory: { device: tid => ({ tid, signingKey: KEY, language: 'ENGLISH' }) as Device },
      store: {
        openDeliveries: (tid, limit) => answer(node, () => [...rows.values()].filter(row => row.tid === tid && isOpen(row))
          .sort((a, b) => a.seq - b.seq).slice(0, limit).map(row => ({ ...row }))),
        recordSummary: (summary, members) => answer(node, () => {
          const box = boxes.get(summary.tid)
          if (members.some(id => !isOpen(rows.get(`${summary.tid}/${id}`)))) return false
          for (const id of members) if (box?.members.has(id) === false) box.members.add(id)
            else world.summaries += 1
          addRow(summary)
          step(members.map(id => ({ tid: summary.tid, announcementId: id, state: 'summarised', at: world.nowMs })))
          return true
        })
      },
      broker: () => ({
        publish: (topic, payload) => new Promise(resolve => {
          world.publishes += 1
          later(() => {
            const box = boxes.get(topic.split('/')[2] ?? '')
            if (box !== undefined) hear(box, payload)
            if (node.alive) resolve()
          })
        }),
        disconnect: () => {},
        stats: () => ({ connected: 0, connects: 0, refused: 0, takeovers: 0, messagesIn: 0, messagesOut: 0, ready: true })
      }),
      isShared: shared, isStoreBehind: () => spool.some(entry => entry.node === node),
      note: change => { later(() => { if (node.alive) step([change]) }) },
      settle: changes => settle(node, changes),
      nowMs, nextSeq: () => ++seq, policy: POLICY, meter: SILENT_METER, log: SILENT_LOG
    })
    node.pumps = pump.tids
    node.relay = openRelay({
      pump, self: name, bus: shared ? bus(node) : null, onlineTids: () => [...node.online], isOnline: tid => node.online.has(tid),
      learn: (tid, online) => { if (online) node.online.add(tid); else node.online.delete(tid) },
      confirm: tid => { node.confirmed.push(tid) },
      takeAck: (_, ack) => ack.result === 'done' && node.taken.push(ack.id) > 0,
      settle: changes => settle(node, changes), isBrokerReady: () => world.isBrokerReady, summaryMs: POLICY.summaryMs, nowMs, startTimer, log: SILENT_LOG
    })
    nodes.push(node)
    startTimer(pump.tick, 1000)
    let isJoined = false
    void node.relay.join().then(() => { isJoined = true })
    for (let n = 0; !isJoined; n++) {
      await run(100)
      if (n === 0) whileJoining()
    }
    node.relay.start()
    return node
  }
  let seq = 0
  const paymentFor = (tid: string, id: string): NewDelivery => ({
    tid, announcementId: id, kind: 'payment', language: 'ENGLISH', seq: ++seq, amountMinor: 100, currency: 'INR', txnType: null, count: null,
    issuedAt: world.nowMs, expiresAt: world.nowMs + POLICY.speakMs
  })
  const addRow = (delivery: NewDelivery): void => {
    rows.set(`${delivery.tid}/${delivery.announcementId}`, {
      ...delivery, bankId: 'bank', transactionId: delivery.announcementId, state: 'accepted', publishedAt: null, deliveredAt: null, finalAt: null,
      queuedMs: null, audioMs: null, reason: null, summaryId: null
    })
  }
  /** All that can happen happens, in the seed's order; then the time moves on. */
  const run = async (ms: number): Promise<void> => {
    for (let steps = 0; steps < 2000; steps++) {
      await turn()
      if (pending.length === 0 || (isChaotic && random() < 0.02)) break
      const [next] = pending.splice(isChaotic ? Math.floor(random() * Math.min(pending.length, 6)) : 0, 1)
      next?.run()
    }
    world.nowMs += ms
    for (const node of live()) for (const timer of [...node.timers]) if (world.nowMs >= timer.due) {
      timer.due = world.nowMs + timer.every
      timer.run()
    }
  }
  return {
    world, rows, boxes, nodes, live, anyNode, run, startNode,
    addBox (tid: string): Box {
      const box: Box = { tid, online: false, boot: 0, journal: new Map(), spoken: [], seen: [], members: new Set() }
      boxes.set(tid, box)
      return box
    },
    hello (box: Box, node: Node, isNewBoot = true): void {
      box.online = true
      if (isNewBoot) box.boot += 1
      later(() => {
        if (!node.alive) return
        node.online.add(box.tid)
        node.relay.handleHello(box.tid, `boot${box.boot}`)
      })
    },
    gone (box: Box, node: Node): void {
      box.online = false
      later(() => {
        if (!node.alive || node.relay.hasJustCome(box.tid)) return
        node.online.delete(box.tid)
        node.relay.handleOffline(box.tid)
      })
    },
    /** What a gateway recorded that is no more. */
    record (tid: string, id: string): void { addRow(paymentFor(tid, id)) },
    /** The durable record, then the offer by this node. */
    pay (tid: string, id: string, node: Node): Promise<void> {
      const delivery = paymentFor(tid, id)
      const record = (): void => { if (!rows.has(`${tid}/${id}`)) addRow(delivery) }
      if (world.isBusDown) spool.push({ node, isPayment: true, run: record })
      else record()
      return node.relay.offer(tid, [rows.has(`${tid}/${id}`) ? waitingOf(rows.get(`${tid}/${id}`) as Delivery) : { ...delivery, state: 'accepted' }])
    },
    /** The database goes, or comes: listeners hear that they missed something, and what waits on disk is brought in. */
    setBus (isUp: boolean): void {
      if (world.isBusDown !== isUp) return
      world.isBusDown = !isUp
      if (!isUp) return
      for (const { node, handler } of handlers) later(() => { if (node.alive) handler('*') })
      for (const node of nodes) later(() => { drain(node) })
    },
    ack: (tid: string, ack: Ack, node: Node) => node.relay.handleAck(tid, ack),
    async runFor (ms: number): Promise<void> { for (let passed = 0; passed < ms; passed += 250) await run(250) },
    async dispose (): Promise<void> {
      for (const node of nodes) node.alive = false
      await turn()
    }
  }
}
const idOf = (n: number): string => n.toString(16).padStart(32, '0')
const isOpen = (row: Delivery | undefined): boolean => row !== undefined && OPEN_STATES.includes(row.state)
const open = (w: World): Delivery[] => [...w.rows.values()].filter(isOpen)

t.test('the owner of a box is one of those alive, the same for all, and moves only when it must', async t => {
  const tids = Array.from({ length: 3000 }, (_, n) => `BOX-${n}`)
  const three = tids.map(tid => ownerOf(tid, ['a', 'b', 'c']))
  t.same(tids.map(tid => ownerOf(tid, ['c', 'a', 'b'])), three)
  for (const node of ['a', 'b', 'c']) t.ok(three.filter(owner => owner === node).length > 850, `${node} has its share`)
  const two = tids.map(tid => ownerOf(tid, ['a', 'c']))
  t.ok(two.every((owner, n) => three[n] === 'b' || owner === three[n]))
  t.equal(ownerOf('BOX', []), undefined)
})

t.test('three gateways, no faults: each payment is published once and spoken in order, wherever it came in and wherever acks arrive', async t => {
  const w = openWorld(openRandom(5), false)
  for (const name of ['a', 'b', 'c']) await w.startNode(name)
  const boxes = ['BOX-1', 'BOX-2', 'BOX-3', 'BOX-4'].map(w.addBox)
  for (const [n, box] of boxes.entries()) w.hello(box, w.nodes[n % 3] as Node)
  await w.runFor(1000)
  for (let n = 0; n < 60; n++) {
    const tid = boxes[n % 4]!.tid
    const paid = w.pay(tid, idOf(n), w.nodes[n % 3] as Node)
    const again = n % 5 === 0 ? w.pay(tid, idOf(n), w.nodes[(n + 1) % 3] as Node) : undefined
    await w.run(1)
    await Promise.all([paid, again])
  }
  await w.runFor(3000)
  t.same(open(w), [])
  t.equal(w.world.publishes, 60)
  for (const [b, box] of boxes.entries()) t.same(box.spoken.map(({ id }) => id), Array.from({ length: 15 }, (_, n) => idOf(n * 4 + b)))
  await w.dispose()
})

for (const seed of seedsOf(25)) {
  t.test(`any order of hellos, payments, acks, deaths, new gateways and a database that goes: spoken once, all settled (SEED=${seed})`, async t => {
    const random = openRandom(seed)
    const w = openWorld(random, true)
    for (const name of ['a', 'b', 'c']) await w.startNode(name)
    const boxes = ['BOX-1', 'BOX-2', 'BOX-3'].map(w.addBox)
    for (const box of boxes) w.hello(box, w.anyNode())
    let started = 3
    let deaths = 0
    for (let n = 0; n < 40; n++) {
      const box = boxes[Math.floor(random() * 3)] as Box
      void w.pay(box.tid, idOf(n), w.anyNode()).catch(() => {})
      if (random() < 0.2) void w.pay(box.tid, idOf(n), w.anyNode()).catch(() => {})
      const dice = random()
      if (dice < 0.08 && w.live().length > 1) {
        w.anyNode().alive = false
        deaths++
      } else if (dice < 0.14 && !w.world.isBusDown) await w.startNode(`n${started++}`)
      else if (dice < 0.24 && box.online) w.gone(box, w.anyNode())
      else if (dice < 0.4) w.hello(box, w.anyNode(), random() < 0.5)
      else if (dice < 0.46) w.setBus(w.world.isBusDown)
      await w.run(Math.floor(random() * (random() < 0.05 ? 45_000 : 800)))
    }
    w.setBus(true)
    for (const box of boxes) if (!box.online) w.hello(box, w.anyNode())
    for (let waited = 0; open(w).length > 0 && waited < 400; waited++) await w.run(500)
    t.same(open(w).map(({ tid, announcementId, state }) => ({ tid, announcementId, state })), [], `settled after ${deaths} deaths`)
    for (const box of boxes) {
      const said = box.spoken.map(({ id }) => id)
      t.equal(new Set(said).size, said.length, 'once')
      t.same(said.filter(id => box.members.has(id)), [], 'none alone and in a summary')
    }
    t.equal(w.world.summaries, 0, 'none in two summaries')
    const isTrue = ({ tid, announcementId, state }: Delivery): boolean => state === 'summarised' || w.boxes.get(tid)?.journal.get(announcementId) === state
    t.same([...w.rows.values()].filter(row => !isTrue(row)).map(({ announcementId, state }) => ({ announcementId, state })), [], 'history says what the box did')
    await w.dispose()
  })
}

t.test('a gateway that falls silent loses its boxes after three heartbeats; what it had in its hands is asked for', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = w.addBox(Array.from({ length: 50 }, (_, n) => `BOX-${n}`).find(tid => ownerOf(tid, ['a', 'b']) === 'a') as string)
  w.hello(box, b)
  await w.runFor(1000)
  a.alive = false
  const paid = w.pay(box.tid, idOf(1), b)
  await w.runFor(DEAD_AFTER_MS - HEARTBEAT_MS - 1000)
  t.same(box.spoken, [], 'it is still the owner')
  await paid
  t.notOk(b.relay.isAlone())
  await w.runFor(2 * HEARTBEAT_MS + 1000)
  t.ok(b.relay.isAlone())
  t.same(box.spoken.map(({ id }) => id), [idOf(1)])
  t.same(open(w), [])
  await w.dispose()
})

t.test('while the others cannot be told, a payment is sent by who has it; a goodbye needs no heartbeats; commands hear their end at any gateway', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = w.addBox(Array.from({ length: 50 }, (_, n) => `BOX-${n}`).find(tid => ownerOf(tid, ['a', 'b']) === 'a') as string)
  w.hello(box, a)
  await w.runFor(1000)
  w.setBus(false)
  const paid = w.pay(box.tid, idOf(1), b)
  await w.runFor(1000)
  await paid
  t.same(box.spoken.map(({ id }) => id), [idOf(1)])
  w.setBus(true)
  await w.runFor(HEARTBEAT_MS)
  const told = w.ack(box.tid, { id: idOf(9), result: 'done' }, b)
  await w.runFor(500)
  await told
  t.same(a.taken, [idOf(9)])
  t.notOk(b.relay.isAlone())
  const left = a.relay.close()
  await w.runFor(500)
  await left
  t.ok(b.relay.isAlone())
  const alone = w.pay(box.tid, idOf(2), b)
  await w.runFor(500)
  await alone
  t.same(box.spoken.map(({ id }) => id), [idOf(1), idOf(2)])
  await w.dispose()
})

/** A box whose owner is the first of these. */
const boxOf = (w: World, ...names: string[]): Box => w.addBox(Array.from({ length: 50 }, (_, n) => `BOX-${n}`).find(tid => ownerOf(tid, names) === names[0]) as string)

t.test('what could not be told is made up for: both send meanwhile, the box speaks once, and then the owner alone has it again', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = boxOf(w, 'a', 'b')
  w.hello(box, a)
  await w.runFor(1000)
  w.setBus(false)
  const paid = [w.pay(box.tid, idOf(1), b), w.pay(box.tid, idOf(1), a)]
  await w.runFor(1000)
  await Promise.all(paid)
  t.same(box.spoken.map(({ id }) => id), [idOf(1)], 'one voice')
  t.ok(b.pumps().includes(box.tid), 'b sends too while it cannot tell a')
  w.record(box.tid, idOf(2)) // Drained from the fallback of one that is no more.
  w.setBus(true)
  await w.runFor(SWEEP_AGE_MS + 3 * HEARTBEAT_MS)
  t.same(b.pumps(), [])
  t.same(box.spoken.map(({ id }) => id), [idOf(1), idOf(2)])
  t.same(open(w), [])
  await w.dispose()
})

t.test('a final that died with the gateway that took it, or fell into a gap of the broker, is asked for by the owner', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = boxOf(w, 'a', 'b')
  w.hello(box, a)
  await w.runFor(1000)
  const payUnheard = async (n: number): Promise<void> => {
    w.world.isFinalLost = true
    const paid = w.pay(box.tid, idOf(n), a)
    await w.runFor(1000)
    await paid
    w.world.isFinalLost = false
  }
  await payUnheard(1)
  await w.runFor(10_000)
  t.same(open(w).map(({ state }) => state), ['delivered'], 'the box has it, and nobody knows more')
  b.relay.handleGap()
  await w.runFor(500)
  t.same(open(w), [], 'both ask after a gap at one')
  await payUnheard(2)
  b.alive = false
  await w.runFor(DEAD_AFTER_MS + HEARTBEAT_MS)
  t.same(open(w), [])
  t.same(box.spoken.map(({ id }) => id), [idOf(1), idOf(2)])
  await w.dispose()
})

t.test('a payment for the box of another is not called sent while the broker is away here', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = boxOf(w, 'a', 'b')
  w.hello(box, a)
  await w.runFor(1000)
  w.world.isBrokerReady = false
  const refused = t.rejects(w.pay(box.tid, idOf(1), b), { code: 'PUBLISH_FAILED' })
  await w.runFor(500)
  await refused
  t.same(box.spoken.map(({ id }) => id), [idOf(1)], 'the owner heard of it all the same')
  await w.dispose()
})

t.test('what a box refused as too old goes into one summary of the owner, whoever heard the box say so', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b, c] = [await w.startNode('a'), await w.startNode('b'), await w.startNode('c')]
  const box = boxOf(w, 'a', 'b', 'c')
  box.online = false
  for (const n of [1, 2, 3]) {
    const paid = w.pay(box.tid, idOf(n), n === 1 ? a : b)
    await w.runFor(250)
    await paid
  }
  await w.runFor(2 * POLICY.speakMs)
  w.hello(box, c)
  await w.runFor(3000)
  t.match(box.spoken, [{ kind: 'summary', count: 3 }])
  t.same([...w.rows.values()].map(({ state }) => state), ['summarised', 'summarised', 'summarised', 'spoken'])
  t.same(open(w), [])
  await w.dispose()
})

t.test('a goodbye that comes while a gateway joins does not keep it from taking its boxes', async t => {
  const w = openWorld(openRandom(1), false)
  const a = await w.startNode('a')
  const box = w.addBox('BOX-1')
  w.hello(box, a)
  await w.runFor(1000)
  w.record(box.tid, idOf(1))
  const b = await w.startNode('b', true, () => { void a.relay.close().then(() => { a.alive = false }) })
  const paid = w.pay(box.tid, idOf(2), b)
  await w.runFor(500)
  await paid
  t.ok(b.relay.isAlone())
  t.same(box.spoken.map(({ id }) => id), [idOf(1), idOf(2)])
  await w.dispose()
})

t.test('a gateway that slept is not asked to count what it missed: it asks its boxes itself', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = boxOf(w, 'a', 'b')
  w.hello(box, a)
  await w.runFor(1000)
  await w.run(60_000)
  await w.runFor(1000)
  t.notOk(a.relay.isAlone(), 'nobody is taken for dead by one that slept')
  const paid = w.pay(box.tid, idOf(1), b)
  await w.runFor(500)
  await paid
  t.same(box.spoken.map(({ id }) => id), [idOf(1)])
  await w.dispose()
})

t.test('a last will that overtakes nothing is believed; one that comes late to another gateway is not', async t => {
  const w = openWorld(openRandom(1), false)
  const [a, b] = [await w.startNode('a'), await w.startNode('b')]
  const box = w.addBox('BOX-1')
  w.hello(box, a)
  await w.runFor(500)
  t.ok(b.online.has('BOX-1'))
  t.ok(b.relay.hasJustCome('BOX-1'))
  t.notOk(a.relay.hasJustCome('BOX-1'), 'at one gateway they keep their order')
  await w.runFor(LATE_WILL_MS)
  t.notOk(b.relay.hasJustCome('BOX-1'))
  w.hello(box, a)
  await w.runFor(500)
  b.relay.handleOffline('BOX-1') // Had it not heard of the hello yet.
  await w.runFor(500)
  t.ok(a.online.has('BOX-1'))
  t.same([a.confirmed, b.confirmed], [['BOX-1'], []], 'who heard the hello says so once more')
  await w.runFor(LATE_WILL_MS)
  w.gone(box, b)
  await w.runFor(500)
  t.notOk(a.online.has('BOX-1'))
  await w.dispose()
})

t.test('a single gateway on an external broker takes the boxes that are connected when it starts', async t => {
  const w = openWorld(openRandom(1), false)
  const box = w.addBox('BOX-1')
  box.online = true
  w.record('BOX-1', idOf(1))
  await w.startNode('new', false)
  await w.runFor(500)
  t.same(box.spoken.map(({ id }) => id), [idOf(1)])
  t.same(open(w), [])
  await w.dispose()
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
