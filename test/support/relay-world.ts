// Several gateways in one process: their relays and pumps over one store, boxes, a clock that the test moves, and a seed that decides what
// comes first: answers of the store, wake messages, publishes, acks, hellos, deaths and new gateways.
import { setImmediate as turn } from 'node:timers/promises'
import { type Delivery, type DeliveryChange, type NewDelivery, OPEN_STATES } from '../../gateway/store/contract.js'
import type { Device } from '../../gateway/store/directory.js'
import { waitingOf } from '../../gateway/trigger/backlog.js'
import { SILENT_METER } from '../../gateway/trigger/meter.js'
import { openPump } from '../../gateway/trigger/pump.js'
import { openRelay, ownerOf, type Relay } from '../../gateway/trigger/relay.js'
import type { Bus } from '../../gateway/trigger/relay-mail.js'
import { type Ack, type AckResult, openAnnouncement, SILENT_LOG, SoundboxError } from '../../protocol/index.js'

const KEY = 'k'.repeat(43)
export const POLICY = { speakMs: 60_000, summaryMs: 600_000, receivedTimeoutMs: 2000, attemptsMax: 4 }
const START_MS = 1_700_000_000_000

export type Box = {
  tid: string, online: boolean, boot: number, journal: Map<string, AckResult>, spoken: { id: string, kind: string, count: number | null }[], seen: string[], members: Set<string>
}
export type Node = {
  name: string, alive: boolean, relay: Relay, online: Set<string>
  timers: Set<{ every: number, due: number, run: () => void }>, taken: string[], confirmed: string[], reported: string[], pumps: () => readonly string[]
}
export type World = ReturnType<typeof openWorld>

/** `choose`: which of the pending things happens next; undefined = in order. */
export function openWorld (random: () => number, isChaotic: boolean) {
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
    const node: Node = { name, alive: true, online, timers: new Set(), taken: [], confirmed: [], reported: [], pumps: () => [], relay: undefined as unknown as Relay }
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
      learnReported: (tid, { version }) => { node.reported.push(`${tid} ${version}`) },
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
export const idOf = (n: number): string => n.toString(16).padStart(32, '0')
const isOpen = (row: Delivery | undefined): boolean => row !== undefined && OPEN_STATES.includes(row.state)
export const open = (w: World): Delivery[] => [...w.rows.values()].filter(isOpen)

/** A box whose owner is the first of these. */
export const boxOf = (w: World, ...names: string[]): Box => w.addBox(Array.from({ length: 50 }, (_, n) => `BOX-${n}`).find(tid => ownerOf(tid, names) === names[0]) as string)
