// The link of the serial line: turns frames that may be lost, damaged or repeated into messages that arrive once and in order.
//
// Two roles. The HOST (agent, technician's command) starts sessions, the BOX answers:
//   host  HELLO {session: 7}          every second until answered; 7 is new whenever the host starts or has given up
//   box   HELLO {session: 7, box: …}  forgets the session before it; answers every HELLO, resets only for a new number
//   box   HELLO {session: 0, box: …}  every second while it has no session: it has just started
// Within a session each direction is stop and wait: seq 1, 2, 3 … 65535, 1 …, one message in flight, an ACK with its seq frees the next.
// No ACK in time: the same frame again, `attemptsMax` times in all. The receiver delivers seq last+1, acknowledges `last` again without
// delivering it, and answers any other seq with NAK session. Bytes that are no frame: NAK corrupt, and the sender repeats what is in
// flight at once. A good frame with content that does not decode: NAK refused, which ends that message without a repetition.
// On a new session everything in flight or queued is reported `lost`: whether the other side had it is for the ids of the messages.
// A sliding window was rejected: a soundbox says one sentence a few seconds long, and the receiver would need a buffer a frame.
import { encodeFrame, type Frame, WIRE_BYTES_MAX } from './frame.js'
import { type BoxHello, decodeSerialMessage, encodeSerialMessage, type NakReason, SERIAL_TYPES, type SerialMessage } from './serial-messages.js'

export const BAUD_RATES = [9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600] as const
export const BAUD_RATE_DEFAULT = 115_200
/** Messages that may wait behind the one in flight. */
export const LINK_QUEUE_MAX = 16
const SEQ_MAX = 0xffff
const HELLO_GAP_MS = 100 // Old HELLOs of a box may stand in a buffer: they are not answered one by one.
const BITS_A_BYTE = 10 // 8N1: start, eight, stop.

/** All times of one line. `turnMs`: what the other side may take to answer, beyond the time of the bytes. */
export type LinkPolicy = { baudRate: number, turnMs: number, attemptsMax: number, helloEveryMs: number, pingEveryMs: number, silenceMaxMs: number, nakEveryMs: number }

/** The policy of this protocol at a baud rate. */
export function linkPolicy (baudRate: number): LinkPolicy {
  return { baudRate, turnMs: 250, attemptsMax: 6, helloEveryMs: 1000, pingEveryMs: 10_000, silenceMaxMs: 35_000, nakEveryMs: 50 }
}

/** Milliseconds that so many bytes take on a line. */
export function lineMs (bytes: number, baudRate: number): number {
  return bytes * BITS_A_BYTE * 1000 / baudRate
}

type Outgoing = { token: string, message: SerialMessage }
type InFlight = Outgoing & { seq: number, bytes: Buffer, attempts: number, deadlineMs: number, wasNaked: boolean }

/** `session` 0: none. `rxSeq`: the last one delivered. `isOpen`: there is a line at all. `hello`: what a box answers to HELLO. */
export type LinkState = {
  role: 'host' | 'box', isOpen: boolean, session: number, isUp: boolean, txSeq: number, rxSeq: number
  inFlight: InFlight | undefined, queue: readonly Outgoing[]
  helloAtMs: number, heardAtMs: number, nakAtMs: number, bootId: string, hello: BoxHello | undefined
}

/** `open`: the line is there; a host gives its first session number, 1..2^32-1 and random; a box its hello. */
export type LinkEvent =
  | { kind: 'open', session?: number, hello?: BoxHello }
  | { kind: 'close' }
  | { kind: 'frame', frame: Frame }
  | { kind: 'noise' }
  | { kind: 'send', token: string, message: SerialMessage }
  | { kind: 'tick' }

export type LostWhy = 'down' | 'full' | 'reset' | 'silent' | 'refused' | 'unencodable'
/** In the order in which they are to be done. `lost.wasWritten`: the other side may have it. `up.isReboot`: another boot than before. */
export type LinkEffect =
  | { kind: 'write', bytes: Buffer }
  | { kind: 'deliver', message: SerialMessage }
  | { kind: 'sent', token: string }
  | { kind: 'lost', token: string, why: LostWhy, wasWritten: boolean }
  | { kind: 'up', box?: BoxHello, isReboot: boolean }
  | { kind: 'down', why: 'closed' | 'silent' | 'restarted' | 'session' }

const PING_TOKEN = ''

/** A link without a line. */
export function makeLink (role: 'host' | 'box'): LinkState {
  return {
    role, isOpen: false, session: 0, isUp: false, txSeq: 0, rxSeq: 0, inFlight: undefined, queue: [],
    helloAtMs: 0, heardAtMs: 0, nakAtMs: -Infinity, bootId: '', hello: undefined
  }
}

/** One step of either role. Pure: the state given is not changed. Times are of one clock that never goes back. */
export function stepLink (state: LinkState, event: LinkEvent, nowMs: number, policy: LinkPolicy): { next: LinkState, effects: LinkEffect[] } {
  const step: Step = { s: { ...state }, effects: [], nowMs, policy }
  switch (event.kind) {
    case 'open': openLine(step, event); break
    case 'close': closeLine(step); break
    case 'frame': takeFrame(step, event.frame); break
    case 'noise': answerNoise(step); break
    case 'send': takeMessage(step, event); break
    case 'tick': passTime(step); break
    default: event satisfies never
  }
  return { next: step.s, effects: step.effects }
}

/** When the next `tick` is due, or undefined while only other events matter. */
export function linkDueMs (s: LinkState, policy: LinkPolicy): number | undefined {
  if (!s.isOpen) return undefined
  if (!s.isUp) return s.helloAtMs
  if (s.role === 'box') return Math.min(s.inFlight?.deadlineMs ?? Infinity, s.heardAtMs + policy.silenceMaxMs)
  return s.inFlight?.deadlineMs ?? s.heardAtMs + policy.pingEveryMs
}

type Step = { s: LinkState, effects: LinkEffect[], nowMs: number, policy: LinkPolicy }

function openLine (step: Step, event: { session?: number, hello?: BoxHello }): void {
  const { s, nowMs } = step
  dropSession(step, 'reset')
  Object.assign(s, { isOpen: true, session: s.role === 'host' ? event.session ?? 1 : 0, hello: event.hello, heardAtMs: nowMs })
  writeHello(step)
}

function closeLine (step: Step): void {
  const wasUp = step.s.isUp
  dropSession(step, 'down')
  step.s.isOpen = false
  if (wasUp) step.effects.push({ kind: 'down', why: 'closed' })
}

function takeMessage (step: Step, item: Outgoing): void {
  const { s, effects } = step
  const { token, message } = item
  if (!s.isUp) effects.push({ kind: 'lost', token, why: 'down', wasWritten: false })
  else if (s.queue.length >= LINK_QUEUE_MAX) effects.push({ kind: 'lost', token, why: 'full', wasWritten: false })
  else {
    s.queue = [...s.queue, { token, message }]
    writeNext(step)
  }
}

function takeFrame (step: Step, frame: Frame): void {
  const { s } = step
  if (!s.isOpen) return
  const message = decodeOrWhy(frame)
  if (frame.type === SERIAL_TYPES.HELLO) {
    if (typeof message === 'string') writeNak(step, frame.seq, 'refused', message)
    else if (message.type === 'HELLO') takeHello(step, message)
    return
  }
  if (!s.isUp) {
    if (s.role === 'box' && frame.type !== SERIAL_TYPES.ACK && frame.type !== SERIAL_TYPES.NAK) writeNak(step, frame.seq, 'session')
    return
  }
  if (typeof message !== 'string' && message.type === 'NAK') {
    takeNak(step, message.reason, frame.seq)
    return
  }
  s.heardAtMs = step.nowMs
  if (frame.type === SERIAL_TYPES.ACK) takeAck(step, frame.seq)
  else if (frame.type !== SERIAL_TYPES.NAK) takeData(step, frame.seq, message)
}

function takeHello (step: Step, message: { session: number, box?: BoxHello }): void {
  const { s, effects } = step
  s.heardAtMs = step.nowMs
  if (s.role === 'box') {
    if (message.box !== undefined || message.session === 0) return
    if (message.session !== s.session) {
      dropSession(step, 'reset')
      Object.assign(s, { session: message.session, isUp: true })
      effects.push({ kind: 'up', isReboot: false })
    }
    writeHello(step)
    return
  }
  const { box } = message
  if (box === undefined) return
  if (message.session === 0) {
    if (s.isUp) startSession(step, 'restarted')
    else if (step.nowMs >= s.helloAtMs - step.policy.helloEveryMs + HELLO_GAP_MS) writeHello(step)
    return
  }
  if (message.session !== s.session || s.isUp) return
  const isReboot = s.bootId !== '' && s.bootId !== box.bootId
  Object.assign(s, { isUp: true, bootId: box.bootId })
  effects.push({ kind: 'up', box, isReboot })
}

function takeData (step: Step, seq: number, message: SerialMessage | string): void {
  const { s, effects } = step
  const isRepeat = seq === s.rxSeq && seq !== 0
  if (!isRepeat && seq !== nextSeq(s.rxSeq)) {
    if (s.role === 'host') startSession(step, 'session')
    else writeNak(step, seq, 'session')
    return
  }
  s.rxSeq = seq
  if (typeof message === 'string') writeNak(step, seq, 'refused', message)
  else {
    if (!isRepeat && message.type !== 'PING') effects.push({ kind: 'deliver', message })
    writeControl(step, seq, { type: 'ACK' })
  }
}

function takeAck (step: Step, seq: number): void {
  const { s, effects } = step
  if (s.inFlight?.seq !== seq) return
  const { token } = s.inFlight
  s.inFlight = undefined
  if (token !== PING_TOKEN) effects.push({ kind: 'sent', token })
  writeNext(step)
}

function takeNak (step: Step, reason: NakReason, seq: number): void {
  const { s, effects } = step
  if (reason === 'session') {
    if (s.role === 'host') startSession(step, 'session')
  } else if (reason === 'corrupt') {
    if (s.inFlight === undefined || s.inFlight.wasNaked) return
    s.inFlight = { ...s.inFlight, wasNaked: true }
    writeInFlight(step)
  } else if (s.inFlight?.seq === seq) {
    s.heardAtMs = step.nowMs
    effects.push({ kind: 'lost', token: s.inFlight.token, why: 'refused', wasWritten: true })
    s.inFlight = undefined
    writeNext(step)
  }
}

/** Asks for a repetition, but not in answer to every piece of a burst: an answer to noise must not become noise. */
function answerNoise (step: Step): void {
  const { s, nowMs, policy } = step
  if (s.isUp && nowMs - s.nakAtMs >= policy.nakEveryMs) writeNak(step, 0, 'corrupt')
}

function passTime (step: Step): void {
  const { s, nowMs, policy } = step
  if (!s.isOpen) return
  if (!s.isUp) {
    if (nowMs >= s.helloAtMs) writeHello(step)
    return
  }
  if (s.inFlight !== undefined && nowMs >= s.inFlight.deadlineMs) {
    if (s.inFlight.attempts >= policy.attemptsMax) giveUp(step)
    else {
      s.inFlight = { ...s.inFlight, attempts: s.inFlight.attempts + 1, wasNaked: false }
      writeInFlight(step)
    }
  } else if (s.role === 'box' && nowMs - s.heardAtMs >= policy.silenceMaxMs) giveUp(step)
  else if (s.role === 'host' && s.inFlight === undefined && nowMs - s.heardAtMs >= policy.pingEveryMs) {
    s.queue = [{ token: PING_TOKEN, message: { type: 'PING' } }]
    writeNext(step)
  }
}

function giveUp (step: Step): void {
  if (step.s.role === 'host') {
    startSession(step, 'silent')
    return
  }
  dropSession(step, 'silent')
  step.s.session = 0
  step.effects.push({ kind: 'down', why: 'silent' })
  writeHello(step)
}

/** A host's answer to everything that is out of step: the next session number. */
function startSession (step: Step, why: 'silent' | 'restarted' | 'session'): void {
  const { s, effects } = step
  dropSession(step, why === 'silent' ? 'silent' : 'reset')
  s.session = s.session >= 0xffff_ffff ? 1 : s.session + 1
  effects.push({ kind: 'down', why })
  writeHello(step)
}

function dropSession (step: Step, why: 'reset' | 'silent' | 'down'): void {
  const { s, effects } = step
  const lost = [...(s.inFlight === undefined ? [] : [{ ...s.inFlight, wasWritten: true }]), ...s.queue.map(item => ({ ...item, wasWritten: false }))]
  for (const { token, wasWritten } of lost) {
    if (token !== PING_TOKEN) effects.push({ kind: 'lost', token, why, wasWritten })
  }
  Object.assign(s, { isUp: false, inFlight: undefined, queue: [], txSeq: 0, rxSeq: 0 })
}

function writeNext (step: Step): void {
  const { s, effects } = step
  while (s.inFlight === undefined) {
    const [first, ...rest] = s.queue
    if (first === undefined) return
    s.queue = rest
    const seq = nextSeq(s.txSeq)
    const bytes = bytesOrNothing(first.message, seq)
    if (bytes === undefined) {
      effects.push({ kind: 'lost', token: first.token, why: 'unencodable', wasWritten: false })
      continue
    }
    s.txSeq = seq
    s.inFlight = { ...first, seq, bytes, attempts: 1, deadlineMs: 0, wasNaked: false }
    writeInFlight(step)
  }
}

function writeInFlight (step: Step): void {
  const { s, nowMs, policy } = step
  if (s.inFlight === undefined) return
  // The other side may have just begun its own longest frame, and its ACK comes behind that.
  const waitMs = policy.turnMs + lineMs(s.inFlight.bytes.length + WIRE_BYTES_MAX, policy.baudRate)
  s.inFlight = { ...s.inFlight, deadlineMs: nowMs + waitMs }
  write(step, s.inFlight.bytes)
}

function writeHello (step: Step): void {
  const { s, nowMs, policy } = step
  s.helloAtMs = nowMs + policy.helloEveryMs
  if (s.role === 'host') writeControl(step, 0, { type: 'HELLO', session: s.session })
  else if (s.hello !== undefined) writeControl(step, 0, { type: 'HELLO', session: s.session, box: s.hello })
}

function writeNak (step: Step, seq: number, reason: NakReason, why?: string): void {
  step.s.nakAtMs = step.nowMs
  writeControl(step, seq, { type: 'NAK', reason, ...(why === undefined ? {} : { why }) })
}

function writeControl (step: Step, seq: number, message: SerialMessage): void {
  write(step, encodeFrame({ seq, ...encodeSerialMessage(message) }))
}

function write (step: Step, bytes: Buffer): void {
  step.effects.push({ kind: 'write', bytes })
}

function bytesOrNothing (message: SerialMessage, seq: number): Buffer | undefined {
  try {
    return encodeFrame({ seq, ...encodeSerialMessage(message) })
  } catch {
    return undefined // Too large: the caller hears `unencodable`.
  }
}

/** The message, or why it is refused: printable and short enough for a NAK. */
function decodeOrWhy (frame: Frame): SerialMessage | string {
  try {
    return decodeSerialMessage(frame.type, frame.payload)
  } catch (error) {
    return (error instanceof Error ? error.message : 'refused').replace(/[^\x20-\x7e]/g, '?').slice(0, 120)
  }
}

function nextSeq (seq: number): number {
  return seq >= SEQ_MAX ? 1 : seq + 1
}
