// The fallback of several gateways: records wait in Google Pub/Sub, and in the local spool while Pub/Sub itself fails. Whichever node
// drains applies them, idempotently. One ordering key keeps them in order; its limit of 1 MB/s is about 1,500 payments a second.
//
// What only Pub/Sub knows: how many records of other nodes wait. `depth` and `findPayment` answer for this node since its start.
import { isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import type { DrainReport, FallbackRecord } from './contract.js'
import { type Apply, applyGroup } from './drain.js'
import { createPubsubRest, PUBSUB_HOST, type PubsubRest, type PulledMessage, type ServiceAccount } from './pubsub-rest.js'
import { createPaymentMemory, decodeFallbackRecord, encodeFallbackRecord, partsOf, type PaymentMemory, paymentKey } from './records.js'
import type { Spool } from './spool.js'

const ORDERING_KEY = 'soundbox'
/** Pub/Sub's own limits of one publish are 1,000 messages and 10 MB. */
export const PUBLISH_MESSAGES_MAX = 1_000
export const PUBLISH_BYTES_MAX = 6_000_000
/** Records that may wait for a publish; more go to the spool. */
export const PUBLISH_QUEUE_MAX = 5_000
const PULL_MESSAGES_MAX = 256
/** An empty pull does not prove that nothing waits; this many in a row are taken for it. */
const EMPTY_PULLS = 2
/** After a failure records go to the spool at once for this long, so that not every payment waits for a time-out. */
export const PUBSUB_PAUSE_MS = 5_000
/** Payments of this node that are remembered for `findPayment`; the oldest are forgotten first. */
export const REMEMBERED_MAX = 100_000
const NAME = /^[A-Za-z][\w.~+%-]{2,254}$/

export type PubsubFallbackSettings = {
  project: string
  topic: string
  /** Default: `{topic}-gateway`. */
  subscription?: string
  /** Default: Google's. As PUBSUB_EMULATOR_HOST has it, or a URL. */
  host?: string
  /** Null for the emulator. */
  account: ServiceAccount | null
  /** The second net; closed with this fallback. */
  spool: Spool
  log: Log
  nowMs: () => number
}

type Waiting = { record: FallbackRecord, data: Buffer, resolve: () => void, reject: (error: unknown) => void }
type Shell = { rest: PubsubRest, spool: Spool, log: Log, nowMs: () => number, remembered: PaymentMemory, published: number, brokenUntilMs: number, ready: boolean }

/** Project and topic of `pubsub://project/topic`, optionally `?subscription=name`. Throws CONFIG_INVALID. */
export function parsePubsubUrl (text: string): { project: string, topic: string, subscription: string } {
  const match = /^pubsub:\/\/([^/?#]+)\/([^/?#]+)(?:\?subscription=([^&#]+))?$/.exec(text)
  const [, project = '', topic = '', subscription = `${topic}-gateway`] = match ?? []
  if (![project, topic, subscription].every(name => NAME.test(name))) {
    throw new SoundboxError('CONFIG_INVALID', 'the fallback must be pubsub://project/topic, names of 3 letters or more, optionally ?subscription=name')
  }
  return { project, topic, subscription }
}

/** Opens without waiting for Pub/Sub: while it cannot be reached records go to the spool. Throws CONFIG_INVALID for an unusable key. */
export function openPubsubFallback (settings: PubsubFallbackSettings): Spool {
  const { spool, log, nowMs, project, topic } = settings
  const rest = createPubsubRest({
    host: settings.host ?? PUBSUB_HOST, project, topic, subscription: settings.subscription ?? `${topic}-gateway`, account: settings.account, nowMs
  })
  const shell: Shell = { rest, spool, log, nowMs, remembered: createPaymentMemory(REMEMBERED_MAX), published: 0, brokenUntilMs: 0, ready: false }
  const appender = createPublisher(shell)
  let draining: Promise<DrainReport> | undefined
  let closed = false
  return {
    append: async record => {
      if (closed) throw new SoundboxError('STORE_FAILED', 'the fallback is closed')
      await Promise.all(partsOf(record).map(appender.append))
    },
    findPayment: (bankId, transactionId) => {
      const found = shell.remembered.find(paymentKey({ bankId, transactionId }))
      return found === undefined ? spool.findPayment(bankId, transactionId) : { payment: found.payment, deliveries: found.deliveries }
    },
    drain: apply => {
      draining ??= drainBoth(shell, apply, () => closed).finally(() => { draining = undefined })
      return draining
    },
    depth: () => shell.published + spool.depth(),
    setAside: spool.setAside,
    close: async () => {
      closed = true
      await appender.idle()
      await draining?.catch(() => {})
      await spool.close()
    }
  }
}

/** One publish is under way at a time, so that order holds; what arrives meanwhile is the next. */
function createPublisher (shell: Shell): { append: (record: FallbackRecord) => Promise<void>, idle: () => Promise<void> } {
  let queue: Waiting[] = []
  let working: Promise<void> | undefined
  const work = async (): Promise<void> => {
    await new Promise(resolve => setImmediate(resolve))
    while (queue.length > 0) {
      const batch = queue.slice(0, batchLength(queue))
      queue = queue.slice(batch.length)
      await publishOrSpool(shell, batch)
    }
    working = undefined
  }
  return {
    append: async record => {
      const data = encodeFallbackRecord(record)
      if (queue.length >= PUBLISH_QUEUE_MAX) return await shell.spool.append(record)
      shell.remembered.add(record)
      const done = new Promise<void>((resolve, reject) => { queue.push({ record, data, resolve, reject }) })
      working ??= work()
      await done
    },
    idle: async () => { await working }
  }
}

function batchLength (queue: readonly Waiting[]): number {
  let bytes = 0
  const end = queue.findIndex(({ data }, index) => {
    bytes += data.length
    return index === PUBLISH_MESSAGES_MAX || (index > 0 && bytes > PUBLISH_BYTES_MAX)
  })
  return end === -1 ? queue.length : end
}

async function publishOrSpool (shell: Shell, batch: readonly Waiting[]): Promise<void> {
  if (await tryPubsub(shell, () => shell.rest.publish(batch.map(({ data }) => data), ORDERING_KEY))) {
    shell.published += batch.length
    for (const { resolve } of batch) resolve()
    return
  }
  await Promise.all(batch.map(async ({ record, resolve, reject }) => {
    shell.remembered.drop(record)
    await shell.spool.append(record).then(resolve, reject)
  }))
}

/** False when Pub/Sub is in its pause or fails now. */
async function tryPubsub (shell: Shell, work: () => Promise<void>): Promise<boolean> {
  if (shell.nowMs() < shell.brokenUntilMs) return false
  try {
    if (!shell.ready) await shell.rest.ensure()
    shell.ready = true
    await work()
    return true
  } catch (err) {
    shell.brokenUntilMs = shell.nowMs() + PUBSUB_PAUSE_MS
    shell.log.warn({ err, pauseMs: PUBSUB_PAUSE_MS }, 'Pub/Sub failed, records go to the spool')
    return false
  }
}

/** Pub/Sub first: what the spool holds came later. A Pub/Sub that fails does not keep the spool from draining. */
async function drainBoth (shell: Shell, apply: Apply, isClosed: () => boolean): Promise<DrainReport> {
  const report = { drained: 0, setAside: 0 }
  let blocked = false
  await tryPubsub(shell, async () => {
    for (let empty = 0; empty < EMPTY_PULLS && !blocked && !isClosed();) {
      const messages = await shell.rest.pull(PULL_MESSAGES_MAX)
      empty = messages.length === 0 ? empty + 1 : 0
      if (messages.length > 0) blocked = !await drainMessages(shell, messages, apply, report)
    }
    if (!blocked && !isClosed()) {
      shell.published = 0
      shell.remembered.clear()
    }
  })
  if (blocked) return { ...report, left: shell.published + shell.spool.depth() }
  const local = await shell.spool.drain(apply)
  return { drained: report.drained + local.drained, setAside: report.setAside + local.setAside, left: shell.published + local.left }
}

/** True when all of them are done with. */
async function drainMessages (shell: Shell, messages: readonly PulledMessage[], apply: Apply, report: { drained: number, setAside: number }): Promise<boolean> {
  const records = messages.map(({ data }) => decodeFallbackRecord(data))
  const verdicts = [...await applyGroup(records.filter(record => record !== undefined), apply)]
  const done: string[] = []
  for (const [index, record] of records.entries()) {
    const verdict = record === undefined ? { kind: 'reject' as const, code: 'damaged' } : verdicts.shift()!
    if (verdict.kind === 'retry') break
    if (verdict.kind === 'applied') report.drained += 1
    else {
      await shell.spool.setAside(verdict.code, record ?? messages[index]!.data)
      report.setAside += 1
    }
    if (record !== undefined) shell.remembered.drop(record)
    done.push(messages[index]!.ackId)
  }
  shell.published = Math.max(0, shell.published - done.length)
  await shell.rest.acknowledge(done)
  await shell.rest.giveBack(messages.slice(done.length).map(({ ackId }) => ackId)).catch((error: unknown) => { if (!isSoundboxError(error, 'STORE_FAILED')) throw error })
  return done.length === messages.length
}
