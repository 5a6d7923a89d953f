// What gateways of one database tell each other, over its wake messages. Nothing depends on a message that arrives: what gets lost is
// found again by heartbeats and the sweep of relay.ts.
//
//   wake topic = relay:base64url(JSON [from, mail, mail, ...])     one on its way at a time; what comes meanwhile goes together
import { type Ack, isSoundboxError, type Log, type Reported, SoundboxError } from '../../protocol/index.js'
import type { NewDelivery } from '../store/contract.js'

export type Mail =
  /** `who`: one that is not in yet asks who is. `here`: heartbeat of one that is. */
  | { kind: 'who' } | { kind: 'here' } | { kind: 'bye' }
  /** Acks may have been lost on their way to a gateway. */
  | { kind: 'gap' }
  | { kind: 'hello', tid: string, bootId: string }
  | { kind: 'gone', tid: string }
  | { kind: 'reported', tid: string, reported: Reported }
  /** Something was recorded for this box. */
  | { kind: 'offer', tid: string }
  | { kind: 'withdraw', tid: string, id: string }
  | { kind: 'ack', tid: string, ack: Ack, isSettled: boolean }

/** Of the store that several gateways share. */
export type Bus = {
  /** False, and nothing is recorded, when a member has ended already. */
  recordSummaryOnce: (summary: NewDelivery, members: readonly string[], at: number) => Promise<boolean>
  /** Tells all gateways, this one too; in the order of calls that were awaited. */
  wake: (topic: string) => Promise<void>
  onWake: (handler: (topic: string) => void) => Promise<void>
  /** Boxes that are there, for which something waits that was issued in between and that nobody has sent. */
  waitingTids: (query: { issuedFrom: number, issuedBefore: number, limit: number }) => Promise<readonly string[]>
}
export type Post = {
  /** Resolves when the others will get it. Rejects with STORE_FAILED or OVERLOADED. */
  send: (mail: Mail) => Promise<void>
  /** Resolves when this gateway listens. */
  listen: () => Promise<void>
}
type PostDeps = {
  bus: Bus
  self: string
  onMail: (from: string, mail: Mail) => void
  /** Messages may have been lost. */
  onLost: () => void
  log: Log
}

/** Messages that wait to be sent; the next is refused. */
export const MAILS_WAITING_MAX = 10_000
/** One wake topic: the database carries less than 8000 bytes. */
const TOPIC_CHARACTERS_MAX = 7000
const PREFIX = 'relay:'
const BYTES_MAX = Math.floor((TOPIC_CHARACTERS_MAX - PREFIX.length) * 3 / 4) - 64
type Item = { text: string, resolve: () => void, reject: (error: unknown) => void }

/** Sends and receives for one gateway, whose own messages do not come back to it. */
export function openPost ({ bus, self, onMail, onLost, log }: PostDeps): Post {
  let waiting: Item[] = []
  let sending = false
  const work = async (): Promise<void> => {
    sending = true
    while (waiting.length > 0) {
      const batch = takeBatch(waiting)
      waiting = waiting.slice(batch.length)
      try {
        await bus.wake(encodeMails(self, batch))
        for (const { resolve } of batch) resolve()
      } catch (error) {
        for (const { reject } of batch) reject(isSoundboxError(error) ? error : new SoundboxError('STORE_FAILED', 'other gateways could not be told', { cause: error }))
      }
    }
    sending = false
  }
  const handleTopic = (topic: string): void => {
    if (topic === '*') return onLost()
    if (!topic.startsWith(PREFIX)) return
    try {
      const { from, mails } = decodeMails(topic)
      if (from !== self) for (const mail of mails) onMail(from, mail)
    } catch (err) {
      log.warn({ err }, 'a message of another gateway cannot be understood')
    }
  }
  return {
    send (mail) {
      if (waiting.length >= MAILS_WAITING_MAX) return Promise.reject(new SoundboxError('OVERLOADED', `${MAILS_WAITING_MAX} messages to other gateways wait already`))
      const sent = new Promise<void>((resolve, reject) => { waiting.push({ text: JSON.stringify(mail), resolve, reject }) })
      if (!sending) void work()
      return sent
    },
    listen: () => bus.onWake(handleTopic)
  }
}

/** At least one; a single one is always small enough, because a soundbox's message is. */
function takeBatch (waiting: readonly Item[]): readonly Item[] {
  let bytes = 0
  const end = waiting.findIndex(({ text }, index) => {
    bytes += Buffer.byteLength(text) + 1
    return index > 0 && bytes > BYTES_MAX
  })
  return waiting.slice(0, end < 0 ? waiting.length : end)
}

function encodeMails (from: string, batch: readonly Item[]): string {
  return PREFIX + Buffer.from(`[${[JSON.stringify(from), ...batch.map(({ text }) => text)].join(',')}]`).toString('base64url')
}

/** Only our own gateways can write there, so that the shape is not looked at further than a newer version makes necessary. */
function decodeMails (topic: string): { from: string, mails: readonly Mail[] } {
  const value: unknown = JSON.parse(Buffer.from(topic.slice(PREFIX.length), 'base64url').toString('utf8'))
  if (!Array.isArray(value)) throw new SoundboxError('MESSAGE_INVALID', 'a message between gateways is a list')
  const [from, ...mails] = value as [unknown, ...Mail[]]
  if (typeof from !== 'string' || !mails.every(mail => typeof mail === 'object' && mail !== null)) throw new SoundboxError('MESSAGE_INVALID', 'a message between gateways is a name and objects')
  return { from, mails }
}
