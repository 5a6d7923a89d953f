// One connection that speaks ISO 8583, whoever opened it: both ends ask and answer on it.
//
//   bytes -> frames -> messages -> answers of the other side -> pending (our requests)
//                               -> requests of the other side -> onRequest -> answer -> outbox
//
// Back-pressure: above inFlightMax requests that wait for their handler, or while the peer does not read, the socket is paused; what one
// chunk brought beyond that waits in `held`, so memory is bounded by one chunk and inFlightMax answers. There are no timers here: the
// owner calls `tick` every TICK_MS, which looks at all deadlines.
import type { Duplex } from 'node:stream'
import { SoundboxError } from '../../protocol/index.js'
import { answerTpdu, encodeFrame, type FrameEvent, type FrameReader, isMtiRequest, Iso8583Error, type Message, openFrameReader } from '../../protocol/iso8583/index.js'
import type { LinkHooks } from './hooks.js'
import { openOutbox, type Outbox } from './outbox.js'
import { type KeyOf, openPending, type Pending } from './pending.js'
import type { Wire } from './wire.js'

export const TICK_MS = 50
export type LinkLimits = {
  /** Requests of the peer in work at once. */
  inFlightMax: number
  /** A handler has so long; then its request is answered without it. */
  handlerMs: number
  /** A frame that has begun must be whole by then. */
  partialFrameMs: number
  /** A peer that reads nothing for so long is cut off. */
  writeStallMs: number
}
export const LINK_LIMITS: LinkLimits = { inFlightMax: 256, handlerMs: 10_000, partialFrameMs: 5_000, writeStallMs: 10_000 }

export type LinkDeps = {
  socket: Duplex
  wire: Wire
  limits: LinkLimits
  /** Monotonic. */
  nowMs: () => number
  keyOf: KeyOf
  hooks: LinkHooks
  onRequest: (request: Message) => Message | undefined | Promise<Message | undefined>
  /** The answer for a request whose handler failed (any error) or ran out of time (ISO_TIMEOUT). */
  onFault: (request: Message, error: unknown) => Message | undefined
  /** The answer to bytes that are no message of the spec; undefined ends the connection. */
  onUnreadable: (error: Iso8583Error) => Message | undefined
  /** Once, when the socket is gone; `reason` is safe to log. */
  onClosed: (reason: string) => void
}

export type Link = {
  /** Sends and waits. Rejects with ISO_TIMEOUT, ISO_UNAVAILABLE (closed), ISO_DUPLICATE_KEY, OVERLOADED, ISO_PACK_INVALID. */
  request: (message: Message, deadlineMs: number) => Promise<Message>
  /** Requests of ours without an answer, and of theirs. */
  pending: () => number
  inFlight: () => number
  heardMs: () => number
  isOpen: () => boolean
  tick: () => void
  /** Takes nothing new; answers what is in work, writes what is queued, then ends. */
  end: (reason: string) => void
  destroy: (reason: string) => void
}

type Serving = { request: Message, header: Buffer, startedMs: number }
type Core = LinkDeps & {
  reader: FrameReader, outbox: Outbox, pendingOurs: Pending, held: FrameEvent[], heldAt: number, serving: Set<Serving>
  heard: number, partialSince: number | null, reason: string | null, endingMs: number, isPeerDone: boolean, isClosed: boolean
}

/** Takes over the socket: reads, answers, and closes it in the end. */
export function openLink (deps: LinkDeps): Link {
  const { socket, nowMs, hooks } = deps
  const core: Core = {
    ...deps, reader: openFrameReader(deps.wire.framing), outbox: openOutbox({ socket, nowMs, onDrain: () => { proceed(core) } }),
    pendingOurs: openPending({ nowMs, keyOf: deps.keyOf, hooks }), held: [], heldAt: 0, serving: new Set(), heard: nowMs(),
    partialSince: null, reason: null, endingMs: 0, isPeerDone: false, isClosed: false
  }
  socket.on('data', (chunk: Buffer) => { take(core, chunk) })
  socket.on('error', (error: NodeJS.ErrnoException) => { core.reason ??= `socket fault ${error.code ?? error.name}` })
  socket.on('end', () => {
    core.isPeerDone = true
    endIfDone(core)
  })
  socket.on('close', () => {
    core.isClosed = true
    const reason = core.reason ?? 'the peer closed'
    core.pendingOurs.failAll(new SoundboxError('ISO_UNAVAILABLE', 'the connection ended before the answer came'))
    core.serving.clear()
    deps.onClosed(reason)
  })
  return {
    async request (message, deadlineMs) {
      if (core.isClosed || core.reason !== null) throw new SoundboxError('ISO_UNAVAILABLE', 'the connection is closed')
      const frame = encodeFrame(core.wire.framing, core.wire.encode(message))
      const answer = core.pendingOurs.add(message, deadlineMs)
      send(core, frame, message, null)
      return await answer
    },
    pending: () => core.pendingOurs.size(),
    inFlight: () => core.serving.size,
    heardMs: () => core.heard,
    isOpen: () => !core.isClosed && core.reason === null,
    tick: () => { tick(core) },
    end: reason => { end(core, reason) },
    destroy: reason => { destroy(core, reason) }
  }
}

/** What is in work is still answered; what still comes is read and dropped, so that the other side's end is seen. */
function end (core: Core, reason: string): void {
  if (core.reason !== null || core.isClosed) return
  core.reason = reason
  core.endingMs = core.nowMs()
  core.socket.resume()
  finishIfDone(core)
}

function finishIfDone (core: Core): void {
  if (core.reason === null || core.serving.size > 0 || core.isClosed) return
  core.outbox.flush()
  core.socket.end()
}

function destroy (core: Core, reason: string): void {
  core.reason ??= reason
  core.socket.destroy()
}

function take (core: Core, chunk: Buffer): void {
  if (core.reason !== null) return
  core.heard = core.nowMs()
  const events = core.reader.push(chunk)
  if (core.reader.pendingBytes() === 0) core.partialSince = null
  else if (events.length > 0 || core.partialSince === null) core.partialSince = core.heard
  core.held = core.heldAt === core.held.length ? events : [...core.held.slice(core.heldAt), ...events]
  core.heldAt = 0
  proceed(core)
}

/** Handles what is held as far as there is room, then lets the socket flow or stops it. */
function proceed (core: Core): void {
  while (core.heldAt < core.held.length && !isFull(core) && core.reason === null) handle(core, core.held[core.heldAt++]!)
  if (core.isClosed || core.reason !== null) return
  if (core.heldAt < core.held.length || isFull(core)) core.socket.pause()
  else if (core.socket.isPaused()) {
    if (core.partialSince !== null) core.partialSince = core.nowMs()
    core.socket.resume()
  }
  endIfDone(core)
}

function isFull (core: Core): boolean {
  return core.serving.size >= core.limits.inFlightMax || core.outbox.isBlocked()
}

/** A peer that has sent its end still gets its answers. */
function endIfDone (core: Core): void {
  if (core.isPeerDone && core.serving.size === 0 && core.heldAt === core.held.length) end(core, 'the peer closed')
}

function handle (core: Core, event: FrameEvent): void {
  switch (event.kind) {
    case 'frame': return handleFrame(core, event.payload, event.header)
    case 'keep-alive': return core.hooks.count('keep-alive')
    case 'error':
      core.hooks.parseError('frame')
      return destroy(core, event.error.message)
    default: event satisfies never
  }
}

function handleFrame (core: Core, payload: Buffer, header: Buffer): void {
  let message: Message
  try {
    message = core.wire.decode(payload)
  } catch (error) {
    return handleUnreadable(core, error, header)
  }
  core.hooks.count('in')
  core.hooks.audit?.('in', message, null)
  if (isMtiRequest(message.mti)) serve(core, message, header)
  else core.pendingOurs.settle(message)
}

function handleUnreadable (core: Core, error: unknown, header: Buffer): void {
  const isOurs = error instanceof Iso8583Error
  core.hooks.parseError(isOurs ? error.reason : 'mac')
  const answer = isOurs ? core.onUnreadable(error) : undefined
  if (answer === undefined) return end(core, isOurs ? error.message : 'a message came before the key for its authentication code')
  core.hooks.count('rejected')
  write(core, answer, header, null)
}

function serve (core: Core, request: Message, header: Buffer): void {
  const entry: Serving = { request, header, startedMs: core.nowMs() }
  let result: ReturnType<LinkDeps['onRequest']>
  try {
    result = core.onRequest(request)
  } catch (error) {
    result = core.onFault(request, error)
  }
  if (!(result instanceof Promise)) return reply(core, entry, result)
  core.serving.add(entry)
  result.then(answer => { settle(core, entry, answer) }, (error: unknown) => { settle(core, entry, core.onFault(request, error)) })
}

function settle (core: Core, entry: Serving, answer: Message | undefined): void {
  if (!core.serving.delete(entry)) return core.hooks.count('handler-late')
  reply(core, entry, answer)
  proceed(core)
  finishIfDone(core)
}

function reply (core: Core, { request, header, startedMs }: Serving, answer: Message | undefined): void {
  if (answer === undefined || core.isClosed) return
  const ms = core.nowMs() - startedMs
  core.hooks.latency(false, ms)
  try {
    write(core, answer, header, ms)
  } catch (error) {
    const plain = core.onFault(request, error)
    if (plain === undefined) destroy(core, 'an answer could not be packed')
    else write(core, plain, header, ms)
  }
}

function write (core: Core, answer: Message, header: Buffer, ms: number | null): void {
  send(core, encodeFrame(core.wire.framing, core.wire.encode(answer), answerTpdu(core.wire.framing, header)), answer, ms)
}

function send (core: Core, frame: Buffer, message: Message, ms: number | null): void {
  core.outbox.push(frame)
  core.hooks.count('out')
  core.hooks.audit?.('out', message, ms)
}

function tick (core: Core): void {
  if (core.isClosed) return
  const now = core.nowMs()
  core.pendingOurs.expire()
  for (const entry of core.serving) {
    if (now - entry.startedMs < core.limits.handlerMs) break // In order of arrival, all with the same time.
    core.serving.delete(entry)
    reply(core, entry, core.onFault(entry.request, new SoundboxError('ISO_TIMEOUT', 'the request was not handled in time')))
  }
  finishIfDone(core)
  if (core.reason !== null) {
    if (core.serving.size === 0 && now - core.endingMs >= core.limits.writeStallMs) core.socket.destroy()
    return
  }
  if (core.heldAt < core.held.length) proceed(core)
  if (core.partialSince !== null && !core.socket.isPaused() && now - core.partialSince >= core.limits.partialFrameMs) {
    core.hooks.parseError('partial-frame')
    destroy(core, 'a frame was begun and not completed in time')
  } else if (core.outbox.blockedMs() >= core.limits.writeStallMs) destroy(core, 'the peer does not read what it is sent')
}
