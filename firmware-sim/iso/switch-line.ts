// One connection of the simulated switch: connects, signs on, carries exchanges out as the plan says, faults included, and comes back when
// it is cut. It knows the codec and the framing, nothing of the gateway.
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Timers } from '../../protocol/index.js'
import { answerMti, encodeFrame, type Framing, isMtiRequest, type Message, openFrameReader, pack, type Spec, unpack } from '../../protocol/iso8583/index.js'
import { type Broken, type Exchange, network } from './plan.js'
import type { Tally } from './report.js'

export type LineTarget = { host: string, port: number, tls: { ca: string, cert?: string, key?: string, servername?: string } | null, spec: Spec, framing: Framing }
export type LineDeps = LineTarget & {
  timers: Timers
  nowMs: () => number
  tally: Tally
  /** An answer must come within so long. */
  answerMs: number
  /** A slow frame takes this long. */
  slowMs: number
  /** What the other side does with a message that it cannot read. */
  onParseError: 'close' | 'reject'
}
export type Line = {
  /** Carries one exchange out; resolves when its outcome is counted. */
  carry: (exchange: Exchange) => Promise<void>
  close: () => void
}
type Waiting = (outcome: { answer: Message } | { closed: string } | { late: true }) => void
type Core = LineDeps & { socket: Socket | undefined, ready: Promise<void> | undefined, waiting: Map<string, Waiting>, expectsClose: boolean, isClosed: boolean, traces: number }

const SIGN_ON_TRACE = 999_999

/** Nothing is opened before the first exchange. */
export function openLine (deps: LineDeps): Line {
  const core: Core = { ...deps, socket: undefined, ready: undefined, waiting: new Map(), expectsClose: false, isClosed: false, traces: 0 }
  return {
    carry: exchange => carry(core, exchange),
    close () {
      core.isClosed = true
      core.socket?.destroy()
    }
  }
}

async function carry (core: Core, exchange: Exchange): Promise<void> {
  const trace = exchange.message.fields['11'] ?? ''
  core.tally.sent(exchange.kind)
  try {
    core.ready ??= connect(core)
    await core.ready
  } catch (error) {
    core.ready = undefined
    core.tally.differs({ kind: exchange.kind, trace, expected: 'a connection', found: error instanceof Error ? error.message : 'none' }, 'missing')
    return
  }
  const startedMs = core.timers.nowMs()
  if (!('delivery' in exchange)) return await carryBroken(core, exchange, startedMs)
  const { message, code, delivery, kind } = exchange
  const bytes = encodeFrame(core.framing, pack(core.spec, message))
  if (delivery === 'cut') return cut(core, bytes, startedMs)
  const outcome = answerTo(core, trace)
  void write(core, bytes, delivery)
  const found = await outcome
  const wanted = `${answerMti(message.mti)} with DE 39 ${code}`
  if ('answer' in found) {
    const text = `${found.answer.mti} with DE 39 ${found.answer.fields['39'] ?? 'absent'}`
    if (text === wanted) core.tally.right(core.timers.nowMs() - startedMs)
    else core.tally.differs({ kind, trace, expected: wanted, found: text }, 'wrong')
  } else core.tally.differs({ kind, trace, expected: wanted, found: 'closed' in found ? found.closed : `nothing in ${core.answerMs} ms` }, 'missing')
}

/** The answer to a trace number, the end of the connection, or the end of patience. */
function answerTo (core: Core, trace: string): Promise<Parameters<Waiting>[0]> {
  return new Promise(resolve => {
    const stop = core.timers.after(core.answerMs, () => { settle({ late: true }) })
    const settle: Waiting = outcome => {
      stop()
      core.waiting.delete(trace)
      resolve(outcome)
    }
    core.waiting.set(trace, settle)
  })
}

async function write (core: Core, bytes: Buffer, delivery: 'whole' | 'slow' | 'split'): Promise<void> {
  const { socket } = core
  if (delivery === 'whole') return void socket?.write(bytes)
  const pieces = delivery === 'split' ? [1, 3, Math.floor(bytes.length / 2)] : Array.from({ length: 8 }, (_, index) => Math.ceil(bytes.length * (index + 1) / 9))
  const pauseMs = delivery === 'split' ? 1 : core.slowMs / pieces.length
  let from = 0
  for (const to of [...pieces, bytes.length]) {
    if (socket?.destroyed !== false) return
    socket.write(bytes.subarray(from, to))
    from = to
    await new Promise<void>(resolve => { core.timers.after(pauseMs, resolve) })
  }
}

/** Written, and gone before the answer: nobody can say what became of it. The repeat tells. */
function cut (core: Core, bytes: Buffer, startedMs: number): void {
  const { socket } = core
  core.expectsClose = true
  core.ready = undefined
  socket?.end(bytes)
  core.tally.right(core.timers.nowMs() - startedMs)
}

async function carryBroken (core: Core, { message, what }: Broken, startedMs: number): Promise<void> {
  const trace = message.fields['11'] ?? ''
  const good = pack(core.spec, message)
  const isRefused = what !== 'length' && core.onParseError === 'reject'
  if (!isRefused) core.expectsClose = true
  const outcome = answerTo(core, trace)
  core.socket?.write(brokenBytes(core.framing, good, what))
  const found = await outcome
  const isRight = isRefused ? 'answer' in found && found.answer.fields['39'] === '30' : 'closed' in found
  if (isRight) core.tally.right(core.timers.nowMs() - startedMs)
  else {
    const text = 'answer' in found ? `DE 39 ${found.answer.fields['39'] ?? 'absent'}` : 'closed' in found ? 'closed' : 'nothing'
    core.tally.differs({ kind: `broken (${what})`, trace, expected: isRefused ? 'DE 39 30' : 'the connection closed', found: text }, 'answer' in found ? 'wrong' : 'missing')
  }
}

/** A letter where a digit belongs in the last field, a length over the limit, or a frame whose message is too short. */
function brokenBytes (framing: Framing, good: Buffer, what: Broken['what']): Buffer {
  switch (what) {
    case 'garbage': return encodeFrame(framing, Buffer.concat([good.subarray(0, -1), Buffer.from('X')]))
    case 'length': return Buffer.alloc(framing.prefixBytes, framing.prefix === 'binary2' || framing.prefix === 'binary4' ? 0xff : framing.prefix === 'bcd2' ? 0x99 : 0x39)
    case 'truncated': return encodeFrame(framing, good.subarray(0, -2))
    default: return what satisfies never
  }
}

async function connect (core: Core): Promise<void> {
  const { host, port, tls } = core
  const socket = tls === null ? connectTcp({ host, port, noDelay: true }) : connectTls({ host, port, ...tls })
  core.socket = socket
  core.expectsClose = false
  await new Promise<void>((resolve, reject) => {
    socket.once(tls === null ? 'connect' : 'secureConnect', resolve)
    socket.once('error', (error: NodeJS.ErrnoException) => { reject(new Error(`no connection (${error.code ?? error.name})`)) })
    socket.once('close', () => { reject(new Error('closed before it was open')) })
  })
  core.tally.connected()
  listen(core, socket)
  const trace = String(SIGN_ON_TRACE - core.traces++ % 1000)
  const signedOn = answerTo(core, trace)
  socket.write(encodeFrame(core.framing, pack(core.spec, network('001', trace, core.nowMs()))))
  const outcome = await signedOn
  if (!('answer' in outcome) || outcome.answer.fields['39'] !== '00') throw new Error('the sign-on was not accepted')
}

function listen (core: Core, socket: Socket): void {
  const reader = openFrameReader(core.framing)
  socket.setNoDelay(true)
  socket.on('data', (chunk: Buffer) => {
    for (const event of reader.push(chunk)) if (event.kind === 'frame') take(core, socket, unpack(core.spec, event.payload))
  })
  socket.on('error', () => {})
  socket.once('close', () => {
    if (core.socket !== socket) return
    core.ready = undefined
    if (!core.expectsClose && !core.isClosed) core.tally.lost('closed by the other side')
    for (const settle of [...core.waiting.values()]) settle({ closed: 'the connection was closed' })
  })
}

/** What the other side asks is answered; a sign-off is a farewell, not a loss. On a line that was cut nobody listens any more. */
function take (core: Core, socket: Socket, message: Message): void {
  if (core.socket !== socket || core.ready === undefined) return
  const trace = message.fields['11'] ?? ''
  if (!isMtiRequest(message.mti)) {
    const settle = core.waiting.get(trace)
    if (settle === undefined) core.tally.unexpected(trace)
    else settle({ answer: message })
    return
  }
  if (message.fields['70'] === '002') core.expectsClose = true
  socket.write(encodeFrame(core.framing, pack(core.spec, { mti: answerMti(message.mti), fields: { ...message.fields, 39: message.mti === '0800' ? '00' : '12' } })))
}
