// What one connection sends, gathered over a turn of the event loop into one write: one system call, and with TLS one record, for all
// answers of a turn instead of one for each.
import type { Duplex } from 'node:stream'

export type Outbox = {
  push: (frame: Buffer) => void
  /** The peer does not read what was written. */
  isBlocked: () => boolean
  /** Milliseconds since when; 0 while not blocked. */
  blockedMs: () => number
  /** Everything was given to the socket. */
  isEmpty: () => boolean
  flush: () => void
}
export type OutboxDeps = { socket: Duplex, nowMs: () => number, onDrain: () => void }

/** Bounded by its owner: nothing new is read from a peer while its outbox is blocked. */
export function openOutbox ({ socket, nowMs, onDrain }: OutboxDeps): Outbox {
  let frames: Buffer[] = []
  let bytes = 0
  let isPlanned = false
  let blockedSince: number | null = null
  const flush = (): void => {
    isPlanned = false
    if (frames.length === 0 || socket.destroyed || socket.writableEnded) return
    const all = frames.length === 1 ? frames[0]! : Buffer.concat(frames, bytes)
    frames = []
    bytes = 0
    if (socket.write(all) || blockedSince !== null) return
    blockedSince = nowMs()
    socket.once('drain', () => {
      blockedSince = null
      onDrain()
    })
  }
  return {
    push (frame) {
      frames.push(frame)
      bytes += frame.length
      if (isPlanned) return
      isPlanned = true
      setImmediate(flush)
    },
    isBlocked: () => blockedSince !== null,
    blockedMs: () => blockedSince === null ? 0 : nowMs() - blockedSince,
    isEmpty: () => frames.length === 0 && socket.writableLength === 0,
    flush
  }
}
