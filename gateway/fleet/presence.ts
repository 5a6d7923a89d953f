// Which soundbox is there, since when, and what it last said of itself. Memory answers; the store is told in batches, because ten
// thousand boxes that come back at once must not cost ten thousand transactions.
//
//   event -> stepPresence (pure) -> memory, and a note of what to write -> flush every second -> store.saveDeviceSeen
//
// A store that refuses keeps its notes waiting: one a device, newest wins, so that the wait is bounded.
import type { Hello, Log, Reported, Telemetry } from '../../protocol/index.js'
import type { DeviceSeen, Store } from '../store/contract.js'

/** `sinceMs`: when it came or went. `reason`: why it went. `seenAt`: its last sign of life. */
export type Presence = {
  tid: string, online: boolean, sinceMs: number | null, seenAt: number, address: string | null, reason: string | null, takeovers: number
  hello?: Hello, reported?: Reported, telemetry?: Telemetry
}
export type PresenceEvent =
  | { kind: 'connected', address: string, takeover: boolean }
  | { kind: 'disconnected', reason: string }
  | { kind: 'hello', hello: Hello }
  | { kind: 'reported', reported: Reported }
  | { kind: 'telemetry', telemetry: Telemetry }
/** What one device's next rows are: gone in between, pushed out how often, and how it is now. */
export type Note = { wentAt: number | null, takeovers: number, latest: DeviceSeen }

export type PresenceDeps = {
  store: Pick<Store, 'saveDeviceSeen' | 'deviceStates'>
  /** A tid that is nobody's is not remembered. */
  isKnown: (tid: string) => boolean
  /** True with an external broker: soundboxes stay connected while the gateway restarts. */
  staysOnline: boolean
  nowMs: () => number
  log: Log
}
export type PresenceBook = {
  note: (tid: string, event: PresenceEvent) => void
  /** What another gateway saw and writes. */
  learn: (tid: string, event: PresenceEvent) => void
  find: (tid: string) => Presence | undefined
  isOnline: (tid: string) => boolean
  all: () => readonly Presence[]
  onlineCount: () => number
  /** Writes what waits. Never rejects: what the store refuses waits on. */
  flush: () => Promise<void>
}

/** Rows of one write. */
export const SEEN_BATCH_MAX = 500
/** Devices whose news may wait for the store; beyond it the news of one more is not written, though known in memory. */
export const NOTES_MAX = 50_000

/** Pure. What is known after an event. */
export function stepPresence (now: Presence, event: PresenceEvent, nowMs: number): Presence {
  const seen = { ...now, seenAt: nowMs }
  switch (event.kind) {
    case 'connected': return { ...seen, online: true, sinceMs: nowMs, address: event.address, reason: null, takeovers: now.takeovers + Number(event.takeover) }
    case 'disconnected': return now.online ? { ...now, online: false, sinceMs: nowMs, reason: event.reason } : now
    case 'hello': return { ...seen, hello: event.hello }
    case 'reported': return { ...seen, reported: event.reported }
    case 'telemetry': return { ...seen, telemetry: event.telemetry }
    default: return event satisfies never
  }
}

/** Pure. The note after an event, on top of one that still waits. */
export function stepNote (waiting: Note | undefined, { tid, online }: Presence, event: PresenceEvent, nowMs: number): Note {
  const latest: DeviceSeen = {
    ...waiting?.latest, tid, at: nowMs, online,
    ...(event.kind === 'hello' ? { hello: event.hello } : event.kind === 'reported' ? { reported: event.reported } : event.kind === 'telemetry' ? { telemetry: event.telemetry } : {})
  }
  const takeovers = (waiting?.takeovers ?? 0) + Number(event.kind === 'connected' && event.takeover)
  return { latest, takeovers, wentAt: event.kind === 'disconnected' ? nowMs : waiting?.wentAt ?? null }
}

/** Pure. A note that could not be written, under what came since. */
export function mergeNotes (older: Note, newer: Note | undefined): Note {
  if (newer === undefined) return older
  const wentAt = newer.wentAt ?? older.wentAt
  return { latest: { ...older.latest, ...newer.latest }, takeovers: older.takeovers + newer.takeovers, wentAt }
}

/** Pure. The rows of a note, in their order: gone, pushed out, now. */
export function rowsOfNote ({ wentAt, takeovers, latest }: Note): readonly DeviceSeen[] {
  const { tid, at, online } = latest
  const gone = wentAt !== null && online ? [{ tid, at: wentAt, online: false }] : []
  const pushedOut = Array.from({ length: Math.max(0, takeovers - 1) }, () => ({ tid, at, online, takeover: true }))
  return [...gone, ...pushedOut, takeovers > 0 ? { ...latest, takeover: true } : latest]
}

/** Loads what is known. With a broker of our own nobody is online yet, whatever a crash left in the store. Rejects with STORE_FAILED. */
export async function openPresence (deps: PresenceDeps): Promise<PresenceBook> {
  const { store, nowMs } = deps
  const book = new Map<string, Presence>()
  const notes = openNotes(deps)
  const note = (tid: string, event: PresenceEvent): void => {
    if (!deps.isKnown(tid)) return
    const now = nowMs()
    const next = stepPresence(book.get(tid) ?? newPresence(tid, now), event, now)
    book.set(tid, next)
    notes.add(next, event, now)
  }
  for (const state of await store.deviceStates()) {
    const { tid, online, at, onlineSince, takeovers, hello, reported, telemetry } = state
    const objects = Object.fromEntries(Object.entries({ hello, reported, telemetry }).filter(([, value]) => value !== undefined))
    book.set(tid, { tid, online, sinceMs: online ? onlineSince : at, seenAt: at, address: null, reason: null, takeovers, ...objects })
    if (online && !deps.staysOnline) note(tid, { kind: 'disconnected', reason: 'the gateway was restarted' })
  }
  return {
    note,
    learn (tid, event) {
      if (deps.isKnown(tid)) book.set(tid, stepPresence(book.get(tid) ?? newPresence(tid, nowMs()), event, nowMs()))
    },
    find: tid => book.get(tid),
    isOnline: tid => book.get(tid)?.online === true,
    all: () => [...book.values()],
    onlineCount: () => [...book.values()].filter(({ online }) => online).length,
    flush: notes.flush
  }
}

/** What waits to be written, one note a device. */
function openNotes ({ store, log }: PresenceDeps): { add: (presence: Presence, event: PresenceEvent, nowMs: number) => void, flush: () => Promise<void> } {
  let notes = new Map<string, Note>()
  let writing: Promise<void> = Promise.resolve()
  let next: Promise<void> | undefined
  let isRefused = false
  let dropped = 0

  const write = async (): Promise<void> => {
    const taken = [...notes]
    notes = new Map()
    for (let at = 0; at < taken.length;) {
      const batch: DeviceSeen[] = []
      let end = at
      while (end < taken.length && batch.length < SEEN_BATCH_MAX) batch.push(...rowsOfNote((taken[end++] as [string, Note])[1]))
      try {
        await store.saveDeviceSeen(batch)
      } catch (err) {
        for (const [tid, older] of taken.slice(at)) notes.set(tid, mergeNotes(older, notes.get(tid)))
        if (!isRefused) log.warn({ err, waiting: notes.size }, 'presence of soundboxes cannot be written; it waits')
        isRefused = true
        return
      }
      at = end
    }
    if (isRefused) log.info({ dropped }, 'presence of soundboxes is written again')
    isRefused = false
    dropped = 0
  }
  return {
    add (presence, event, nowMs) {
      const waiting = notes.get(presence.tid)
      if (waiting !== undefined || notes.size < NOTES_MAX) notes.set(presence.tid, stepNote(waiting, presence, event, nowMs))
      else dropped++
    },
    flush () {
      // One write runs, one more waits: a slow store does not collect a write a second.
      if (next !== undefined) return next
      next = writing.then(async () => {
        next = undefined
        await write()
      })
      writing = next
      return next
    }
  }
}

function newPresence (tid: string, nowMs: number): Presence {
  return { tid, online: false, sinceMs: null, seenAt: nowMs, address: null, reason: null, takeovers: 0 }
}
