import t from 'tap'
import {
  type BoxHello, decodeSerialMessage, encodeFrame, encodeSerialMessage, type Frame, type HostEffect, type HostState, HOST_REQUESTS_MAX, hostDueMs, LINK_QUEUE_MAX, type LinkEffect, type LinkEvent,
  type LinkState, linkDueMs, lineMs, linkPolicy, makeFrameReader, makeHost, makeLink, SERIAL_TYPES, type SerialMessage, stepHost, stepLink
} from '../../protocol/index.js'
import { forSeeds } from '../support/serial-world.js'

const POLICY = linkPolicy(115_200)
const BOX: BoxHello = { model: 'sb-1', firmware: '1.0.0', bootId: 'boot-1', volume: 70, language: 'ENGLISH', quiet: false, tid: 'SB-0001' }
const ID = '0'.repeat(31)

function frameFromBytes (bytes: Buffer): Frame {
  const [event] = makeFrameReader().push(bytes)
  if (event?.kind !== 'frame') throw new Error('no frame')
  return event.frame
}

/** `HELLO 0 {…}`: type, seq, and what else it says. */
function said (effects: readonly (LinkEffect | HostEffect)[]): string[] {
  return effects.flatMap(effect => {
    if (effect.kind !== 'write') return []
    const frame = frameFromBytes(effect.bytes)
    const { type, ...rest } = decodeSerialMessage(frame.type, frame.payload)
    return [[type, frame.seq, ...('session' in rest ? [rest.session] : []), ...('reason' in rest && type === 'NAK' ? [rest.reason] : [])].join(' ')]
  })
}

function frame (seq: number, message: SerialMessage): LinkEvent {
  return { kind: 'frame', frame: frameFromBytes(encodeFrame({ seq, ...encodeSerialMessage(message) })) }
}

/** Feeds events one after the other and remembers the last effects. */
function drive (role: 'host' | 'box'): { state: () => LinkState, step: (event: LinkEvent, nowMs?: number) => LinkEffect[], tick: () => LinkEffect[], nowMs: () => number } {
  let state = makeLink(role)
  let now = 1000
  const step = (event: LinkEvent, nowMs = now): LinkEffect[] => {
    now = nowMs
    const { next, effects } = stepLink(state, event, now, POLICY)
    state = next
    return effects
  }
  return { state: () => state, step, tick: () => step({ kind: 'tick' }, linkDueMs(state, POLICY) ?? now), nowMs: () => now }
}

function hostUp (): ReturnType<typeof drive> {
  const host = drive('host')
  host.step({ kind: 'open', session: 7 })
  host.step(frame(0, { type: 'HELLO', session: 7, box: BOX }))
  return host
}

function boxUp (): ReturnType<typeof drive> {
  const box = drive('box')
  box.step({ kind: 'open', hello: BOX })
  box.step(frame(0, { type: 'HELLO', session: 7 }))
  return box
}

const result = (n: number): SerialMessage => ({ type: 'RESULT', id: `${ID}${n}`, result: 'spoken' })

t.test('a host says hello until a box answers with its session', async t => {
  const host = drive('host')
  t.same(linkDueMs(host.state(), POLICY), undefined, 'without a line nothing is due')
  t.same(said(host.step({ kind: 'open', session: 7 })), ['HELLO 0 7'])
  t.same(said(host.tick()), ['HELLO 0 7'])
  t.equal(host.nowMs(), 1000 + POLICY.helloEveryMs)
  t.same(host.step(frame(0, { type: 'HELLO', session: 6, box: BOX })), [], 'an answer to an older session is left out')
  t.same(host.step(frame(0, { type: 'HELLO', session: 7 })), [], 'its own echo is no box')
  t.same(host.step(frame(0, { type: 'HELLO', session: 7, box: BOX })), [{ kind: 'up', box: BOX, isReboot: false }])
  t.same(host.step(frame(0, { type: 'HELLO', session: 7, box: BOX })), [], 'a second answer changes nothing')
})

t.test('a box answers every hello, forgets the session before only for a new number, and says hello by itself while it has none', async t => {
  const box = drive('box')
  t.same(said(box.step({ kind: 'open', hello: BOX })), ['HELLO 0 0'])
  t.same(said(box.tick()), ['HELLO 0 0'])
  t.same(said(box.step(frame(1, { type: 'PING' }))), ['NAK 1 session'], 'data without a session is told so')
  t.same(box.step(frame(1, { type: 'ACK' })), [], 'an ACK is not')
  t.same(said(box.step(frame(0, { type: 'HELLO', session: 7 }))), ['HELLO 0 7'])
  box.step({ kind: 'send', token: 'a', message: result(1) })
  t.same(said(box.step(frame(0, { type: 'HELLO', session: 7 }))), ['HELLO 0 7'])
  t.ok(box.state().inFlight, 'the same session goes on')
  const effects = box.step(frame(0, { type: 'HELLO', session: 8 }))
  t.same(effects.map(effect => effect.kind), ['lost', 'up', 'write'])
  t.same(effects[0], { kind: 'lost', token: 'a', why: 'reset', wasWritten: true })
})

t.test('one message is in flight, an ACK with its seq frees the next, and any other ACK does not', async t => {
  const host = hostUp()
  t.same(said(host.step({ kind: 'send', token: 'a', message: result(1) })), ['RESULT 1'])
  t.same(host.step({ kind: 'send', token: 'b', message: result(2) }), [])
  t.same(host.step(frame(2, { type: 'ACK' })), [])
  const effects = host.step(frame(1, { type: 'ACK' }))
  t.same(effects[0], { kind: 'sent', token: 'a' })
  t.same(said(effects), ['RESULT 2'])
  t.same(host.step(frame(1, { type: 'ACK' })), [], 'a late ACK of the first is nothing')
})

t.test('what is delivered once is acknowledged as often as it comes', async t => {
  const host = hostUp()
  t.same(host.step(frame(1, result(1)))[0], { kind: 'deliver', message: result(1) })
  const again = host.step(frame(1, result(1)))
  t.same(again.map(effect => effect.kind), ['write'])
  t.same(said(again), ['ACK 1'])
  t.same(host.step(frame(2, result(2))).map(effect => effect.kind), ['deliver', 'write'])
})

t.test('a message without an ACK is repeated to the named number of times, then the host begins a new session', async t => {
  const host = hostUp()
  host.step({ kind: 'send', token: 'a', message: result(1) })
  host.step({ kind: 'send', token: 'b', message: result(2) })
  const written = [1]
  for (;;) {
    const effects = host.tick()
    if (!host.state().isUp) {
      t.same(effects.filter(effect => effect.kind !== 'write'), [
        { kind: 'lost', token: 'a', why: 'silent', wasWritten: true }, { kind: 'lost', token: 'b', why: 'silent', wasWritten: false }, { kind: 'down', why: 'silent' }
      ])
      t.same(said(effects), ['HELLO 0 8'])
      break
    }
    t.same(said(effects), ['RESULT 1'])
    written.push(1)
  }
  t.equal(written.length, POLICY.attemptsMax)
  t.same(host.step({ kind: 'send', token: 'c', message: result(3) }), [{ kind: 'lost', token: 'c', why: 'down', wasWritten: false }])
})

t.test('the wait for an ACK leaves room for the frame and for the longest one of the other side', async t => {
  const host = hostUp()
  host.step({ kind: 'send', token: 'a', message: result(1) })
  const waitMs = (linkDueMs(host.state(), POLICY) ?? 0) - host.nowMs()
  t.ok(waitMs > POLICY.turnMs + lineMs(2000, 115_200) && waitMs < 1000, `${waitMs} ms`)
  t.equal(lineMs(11_520, 115_200), 1000)
})

t.test('noise is answered once in a while, and a NAK corrupt repeats what is in flight once an attempt', async t => {
  const host = hostUp()
  t.same(said(host.step({ kind: 'noise' })), ['NAK 0 corrupt'])
  t.same(host.step({ kind: 'noise' }), [], 'not again at once')
  t.same(said(host.step({ kind: 'noise' }, host.nowMs() + POLICY.nakEveryMs)), ['NAK 0 corrupt'])
  t.same(host.step(frame(0, { type: 'NAK', reason: 'corrupt' })), [], 'nothing is in flight')
  host.step({ kind: 'send', token: 'a', message: result(1) })
  t.same(said(host.step(frame(0, { type: 'NAK', reason: 'corrupt' }))), ['RESULT 1'])
  t.same(host.step(frame(0, { type: 'NAK', reason: 'corrupt' })), [], 'a burst of them does not flood the line')
  t.same(said(host.tick()), ['RESULT 1'])
  t.same(said(host.step(frame(0, { type: 'NAK', reason: 'corrupt' }))), ['RESULT 1'])
  const down = drive('host')
  down.step({ kind: 'open', session: 7 })
  t.same(down.step({ kind: 'noise' }), [], 'without a session noise is not answered: the baud rate may be wrong')
})

t.test('content that does not decode ends its message at both ends without a repetition', async t => {
  const box = boxUp()
  const bad: LinkEvent = { kind: 'frame', frame: { type: SERIAL_TYPES.SET, seq: 1, payload: Buffer.from('{"id":"x"}') } }
  t.same(said(box.step(bad)), ['NAK 1 refused'])
  t.same(said(box.step(bad)), ['NAK 1 refused'], 'as often as it comes')
  t.same(said(box.step({ kind: 'frame', frame: { type: 99, seq: 2, payload: Buffer.from('{}') } })), ['NAK 2 refused'], 'an unknown type as well')
  t.same(box.step(frame(3, { type: 'SET', id: `${ID}1`, volume: 5 })).map(effect => effect.kind), ['deliver', 'write'], 'and the next one is taken')
  const host = hostUp()
  host.step({ kind: 'send', token: 'a', message: result(1) })
  t.same(host.step(frame(9, { type: 'NAK', reason: 'refused' })), [], 'of another seq: not this one')
  t.same(host.step(frame(1, { type: 'NAK', reason: 'refused', why: 'x' })), [{ kind: 'lost', token: 'a', why: 'refused', wasWritten: true }])
  t.same(host.step({ kind: 'frame', frame: { type: SERIAL_TYPES.HELLO, seq: 0, payload: Buffer.from('{}') } }).map(effect => effect.kind), ['write'], 'a hello too')
})

t.test('a seq out of step is answered by a new session', async t => {
  for (const seq of [0, 2, 65_535]) {
    t.same(said(boxUp().step(frame(seq, { type: 'PING' }))), [`NAK ${seq} session`])
    const host = hostUp()
    t.same(said(host.step(frame(seq, result(1)))), ['HELLO 0 8'])
  }
  const host = hostUp()
  host.step({ kind: 'send', token: 'a', message: result(1) })
  t.same(host.step(frame(1, { type: 'NAK', reason: 'session' })).map(effect => effect.kind), ['lost', 'down', 'write'])
  t.same(boxUp().step(frame(1, { type: 'NAK', reason: 'session' })), [], 'only a host begins sessions')
})

t.test('seq runs from 65535 to 1', async t => {
  const box = boxUp()
  let host = hostUp().state()
  host = { ...host, txSeq: 65_534, rxSeq: 65_534 }
  const first = stepLink(host, { kind: 'send', token: 'a', message: result(1) }, 1000, POLICY)
  t.same(said(first.effects), ['RESULT 65535'])
  const acked = stepLink(first.next, frame(65_535, { type: 'ACK' }), 1000, POLICY)
  t.same(said(stepLink(acked.next, { kind: 'send', token: 'b', message: result(2) }, 1000, POLICY).effects), ['RESULT 1'])
  const heard = stepLink(acked.next, frame(65_535, result(3)), 1000, POLICY)
  t.same(stepLink(heard.next, frame(1, result(4)), 1000, POLICY).effects.map(effect => effect.kind), ['deliver', 'write'])
  t.ok(box.state().isUp)
})

t.test('a box that has started again is met with a new session, and the host knows that it is another boot', async t => {
  const host = hostUp()
  host.step({ kind: 'send', token: 'a', message: result(1) })
  const effects = host.step(frame(0, { type: 'HELLO', session: 0, box: { ...BOX, bootId: 'boot-2' } }))
  t.same(said(effects), ['HELLO 0 8'])
  t.same(effects[0], { kind: 'lost', token: 'a', why: 'reset', wasWritten: true })
  t.same(host.step(frame(0, { type: 'HELLO', session: 0, box: { ...BOX, bootId: 'boot-2' } })), [], 'old hellos in a buffer are not answered one by one')
  t.same(host.step(frame(0, { type: 'HELLO', session: 8, box: { ...BOX, bootId: 'boot-2' } })), [{ kind: 'up', box: { ...BOX, bootId: 'boot-2' }, isReboot: true }])
})

t.test('silence ends a session: a host pings, a box waits for it', async t => {
  const host = hostUp()
  t.equal(linkDueMs(host.state(), POLICY), host.nowMs() + POLICY.pingEveryMs)
  t.same(said(host.tick()), ['PING 1'])
  t.same(host.step(frame(1, { type: 'ACK' })), [], 'nobody hears of a ping that was answered')
  const box = boxUp()
  t.same(box.step(frame(1, { type: 'PING' })).map(effect => effect.kind), ['write'], 'a ping is not delivered')
  t.equal(linkDueMs(box.state(), POLICY), box.nowMs() + POLICY.silenceMaxMs)
  const effects = box.tick()
  t.same(effects[0], { kind: 'down', why: 'silent' })
  t.same(said(effects), ['HELLO 0 0'])
})

t.test('the queue holds its limit and not one more, and what does not fit a frame is said at once', async t => {
  const host = hostUp()
  for (let n = 0; n <= LINK_QUEUE_MAX; n++) host.step({ kind: 'send', token: String(n), message: result(1) })
  t.equal(host.state().queue.length, LINK_QUEUE_MAX)
  t.same(host.step({ kind: 'send', token: 'x', message: result(1) }), [{ kind: 'lost', token: 'x', why: 'full', wasWritten: false }])
  t.same(host.step({ kind: 'close' }).length, LINK_QUEUE_MAX + 2, 'all are reported lost, and that the line is down')
  t.same(host.step({ kind: 'tick' }, 1e9), [], 'a closed line is silent')
  const other = hostUp()
  const tooLarge: SerialMessage = { type: 'RESULT', id: `${ID}1`, result: 'done', data: 'ä'.repeat(600) }
  t.same(other.step({ kind: 'send', token: 'x', message: tooLarge }), [{ kind: 'lost', token: 'x', why: 'unencodable', wasWritten: false }])
  t.same(said(other.step({ kind: 'send', token: 'y', message: result(1) })), ['RESULT 1'], 'and takes no seq')
})

t.test('any frames in any order leave both roles on their feet', async t => {
  await forSeeds(300, (random, seed) => {
    for (const role of ['host', 'box'] as const) {
      let state = stepLink(makeLink(role), { kind: 'open', session: 7, hello: BOX }, 0, POLICY).next
      for (let n = 0, nowMs = 0; n < 60; n++, nowMs += random() * 2000) {
        const messages: SerialMessage[] = [
          { type: 'HELLO', session: Math.floor(random() * 10) }, { type: 'HELLO', session: Math.floor(random() * 10), box: BOX }, { type: 'ACK' }, { type: 'PING' }, result(1),
          { type: 'NAK', reason: (['corrupt', 'session', 'refused'] as const)[Math.floor(random() * 3)]! }
        ]
        const events: LinkEvent[] = [
          ...messages.map(message => frame(Math.floor(random() * 4), message)), { kind: 'noise' }, { kind: 'tick' }, { kind: 'send', token: 'x', message: result(2) },
          { kind: 'frame', frame: { type: Math.floor(random() * 20), seq: Math.floor(random() * 4), payload: Buffer.from(random() < 0.5 ? '{"a":1}' : '\xff\xfe') } }
        ]
        const { next, effects } = stepLink(state, events[Math.floor(random() * events.length)]!, nowMs, POLICY)
        state = next
        if (effects.filter(effect => effect.kind === 'write').length > 2) t.fail(`SEED=${seed} one event makes a flood`)
        if (state.queue.length > LINK_QUEUE_MAX) t.fail(`SEED=${seed} the queue grows`)
      }
    }
  })
  t.pass('300 runs')
})

function hostState (): HostState {
  const opened = stepHost(makeHost(), { kind: 'open', session: 7 }, 0, POLICY).next
  return stepHost(opened, frame(0, { type: 'HELLO', session: 7, box: BOX }), 0, POLICY).next
}

const announce = (n: number): SerialMessage => ({
  type: 'ANNOUNCE', id: n.toString(16).padStart(32, '0'), kind: 'payment', language: 'ENGLISH', ttlMs: 0, amountMinor: 100, currency: 'INR', clips: ['n1']
})
const asking = (n: number, ttlMs = 5000): { kind: 'request', id: string, message: SerialMessage, ttlMs: number, graceMs: number } =>
  ({ kind: 'request', id: n.toString(16).padStart(32, '0'), message: announce(n), ttlMs, graceMs: 1000 })

t.test('a request that never left ends as expired, one that did as no-answer', async t => {
  const { next } = stepHost(makeHost(), asking(1), 0, POLICY)
  t.equal(hostDueMs(next, POLICY), 5000)
  t.same(stepHost(next, { kind: 'tick' }, 4999, POLICY).effects, [])
  t.same(stepHost(next, { kind: 'tick' }, 5000, POLICY).effects, [{ kind: 'done', id: asking(1).id, result: { id: asking(1).id, result: 'expired', reason: 'link-down' } }])
  const asked = stepHost(hostState(), asking(1), 0, POLICY).next
  const unplugged = stepHost(asked, { kind: 'close' }, 10, POLICY).next
  t.same(stepHost(unplugged, { kind: 'tick' }, 5999, POLICY).effects, [])
  t.same(stepHost(unplugged, { kind: 'tick' }, 6000, POLICY).effects, [{ kind: 'done', id: asking(1).id, result: { id: asking(1).id, result: 'failed', reason: 'no-answer' } }])
})

t.test('an unsure request is asked again in the next session with what is left of its time, and its duplicate is its end', async t => {
  const asked = stepHost(hostState(), asking(1), 0, POLICY).next
  const acked = stepHost(asked, frame(1, { type: 'ACK' }), 5, POLICY).next
  const restarted = stepHost(acked, frame(0, { type: 'HELLO', session: 0, box: { ...BOX, bootId: 'boot-2' } }), 2000, POLICY)
  const again = stepHost(restarted.next, frame(0, { type: 'HELLO', session: 8, box: { ...BOX, bootId: 'boot-2' } }), 2000, POLICY)
  const write = again.effects.find(effect => effect.kind === 'write')
  const sent = decodeSerialMessage(SERIAL_TYPES.ANNOUNCE, frameFromBytes(write!.bytes).payload)
  t.match(sent, { type: 'ANNOUNCE', ttlMs: 3000 })
  const { effects } = stepHost(again.next, frame(1, { type: 'RESULT', id: asking(1).id, result: 'duplicate', was: 'failed', reason: 'reset' }), 2100, POLICY)
  t.same(effects[0], { kind: 'done', id: asking(1).id, result: { id: asking(1).id, result: 'failed', reason: 'reset' } })
})

t.test('a duplicate of another host stays one, unless this host says that it may have asked before', async t => {
  const duplicate: SerialMessage = { type: 'RESULT', id: asking(1).id, result: 'duplicate', was: 'spoken' }
  const plain = stepHost(stepHost(hostState(), asking(1), 0, POLICY).next, frame(1, duplicate), 1, POLICY)
  t.match(plain.effects[0], { kind: 'done', result: { result: 'duplicate', was: 'spoken' } })
  const mine = stepHost(stepHost(hostState(), { ...asking(1), wasAsked: true }, 0, POLICY).next, frame(1, duplicate), 1, POLICY)
  t.match(mine.effects[0], { kind: 'done', result: { result: 'spoken' } })
  t.match(stepHost(hostState(), frame(1, duplicate), 1, POLICY).effects[0], { kind: 'late', result: { result: 'duplicate' } })
})

t.test('a host holds its limit of requests, asks a box for few sentences at once, and takes no id twice', async t => {
  let state = hostState()
  for (let n = 1; n <= HOST_REQUESTS_MAX; n++) state = stepHost(state, asking(n), 0, POLICY).next
  t.match(stepHost(state, asking(99), 0, POLICY).effects[0], { kind: 'done', result: { result: 'failed', reason: 'host-full' } })
  t.same(stepHost(state, asking(1), 0, POLICY).effects, [], 'the same id is the same request')
  for (let seq = 1; seq <= 4; seq++) state = stepHost(state, frame(seq, { type: 'ACK' }), seq, POLICY).next
  t.equal(state.link.inFlight, undefined, 'the fifth sentence waits for a RESULT')
  const told = stepHost(state, frame(1, { type: 'RESULT', id: asking(1).id, result: 'spoken' }), 10, POLICY)
  t.same(said(told.effects), ['ACK 1', 'ANNOUNCE 5'])
})

t.test('a chunk is done when it is delivered and lost with its session', async t => {
  const chunk = { kind: 'request', id: 'chunk', message: { type: 'FIRMWARE_CHUNK', offset: 0, data: Buffer.alloc(10) }, ttlMs: 5000, graceMs: 1000 } as const
  const sent = stepHost(hostState(), chunk, 0, POLICY).next
  t.same(stepHost(sent, frame(1, { type: 'ACK' }), 1, POLICY).effects, [{ kind: 'done', id: 'chunk', result: { id: 'chunk', result: 'done' } }])
  t.match(stepHost(sent, { kind: 'close' }, 1, POLICY).effects[0], { kind: 'done', result: { result: 'failed', reason: 'reset' } })
  t.match(stepHost(sent, frame(1, { type: 'NAK', reason: 'refused' }), 1, POLICY).effects[0], { kind: 'done', result: { result: 'failed', reason: 'refused' } })
  const tooLarge = { ...chunk, message: { ...chunk.message, data: Buffer.alloc(2000) } } as const
  t.match(stepHost(hostState(), tooLarge, 1, POLICY).effects[0], { kind: 'done', result: { result: 'failed', reason: 'too-large' } })
})
