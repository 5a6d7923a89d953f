// LISTEN and NOTIFY: how one gateway tells the others that something changed. Nothing depends on a message that arrives: after a lost
// connection the handlers are told to look at everything.
import { type Log, SoundboxError } from '../../protocol/index.js'
import { WAKE_CHANNEL } from './postgres-directory.js'
import { createConnection, type Queryable } from './postgres-open.js'

/** To a handler: anything may have changed while nobody listened. */
export const WAKE_ALL = '*'
/** PostgreSQL carries less than 8000 bytes. */
export const WAKE_TOPIC_MAX = 7000
const TOPIC = /^[\w:.-]+$/
const RECONNECT_PAUSE_MS = 250
const RECONNECT_PAUSE_MS_MAX = 10_000

export type Wakes = {
  /** Tells all gateways, this one too. Throws INPUT_INVALID for a topic that is not 1 to WAKE_TOPIC_MAX letters, digits, _ : . or -. */
  wake: (topic: string) => Promise<void>
  /** Resolves when this gateway listens. */
  onWake: (handler: (topic: string) => void) => Promise<void>
  close: () => Promise<void>
}

/** Connects with the first handler. */
export function createWakes (url: string, db: Queryable, log: Log): Wakes {
  const handlers: ((topic: string) => void)[] = []
  let listener: ReturnType<typeof createConnection> | undefined
  let pauseMs = RECONNECT_PAUSE_MS
  let retry: NodeJS.Timeout | undefined
  let closed = false

  const tell = (topic: string): void => {
    for (const handler of handlers) handler(topic)
  }
  const listen = async (): Promise<void> => {
    const client = createConnection(url)
    let lost = false
    const again = (): void => {
      if (lost || closed) return
      lost = true
      listener = undefined
      log.warn({ pauseMs }, 'the listening PostgreSQL connection was lost, connecting again')
      retry = setTimeout(() => { void listen().then(() => { tell(WAKE_ALL) }, () => {}) }, pauseMs)
      pauseMs = Math.min(pauseMs * 2, RECONNECT_PAUSE_MS_MAX)
    }
    client.on('error', again)
    client.on('end', again)
    client.on('notification', ({ payload }) => { tell(payload ?? '') })
    try {
      await client.connect()
      await client.query(`LISTEN ${WAKE_CHANNEL}`)
    } catch (error) {
      again()
      await client.end().catch(() => {})
      throw error
    }
    listener = client
    pauseMs = RECONNECT_PAUSE_MS
  }
  return {
    wake: async topic => {
      if (topic.length > WAKE_TOPIC_MAX || !TOPIC.test(topic)) throw new SoundboxError('INPUT_INVALID', `a wake topic is 1 to ${WAKE_TOPIC_MAX} letters, digits, _ : . or -`)
      await db.query('SELECT pg_notify($1, $2)', [WAKE_CHANNEL, topic])
    },
    onWake: async handler => {
      handlers.push(handler)
      if (handlers.length === 1) await listen()
    },
    close: async () => {
      closed = true
      clearTimeout(retry)
      await listener?.end()
    }
  }
}
