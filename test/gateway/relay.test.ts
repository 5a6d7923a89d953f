// Who pumps which box, in a simulated world: several gateways, a seed that decides what comes first, and all that can go wrong between them.
import t from 'tap'
import type { Delivery } from '../../gateway/store/contract.js'
import { DEAD_AFTER_MS, HEARTBEAT_MS, LATE_WILL_MS, ownerOf, SWEEP_AGE_MS } from '../../gateway/trigger/relay.js'
import { openRandom, seedsOf } from '../support/random.js'
import { type Box, boxOf, idOf, type Node, open, openWorld, POLICY } from '../support/relay-world.js'

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
  b.relay.handleReported(box.tid, { version: 7, volume: 50, language: 'ENGLISH', firmware: '1.0' })
  await w.runFor(500)
  t.same([a.reported, b.reported], [[`${box.tid} 7`], []], 'what a box has reported is known to the one that asked for it')
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
