// Network management of one connection: the shell around session.ts. Asks and answers sign-on, sign-off, echo and key exchange.
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import { answerTo, codeOfError, isApproved, NETWORK_CODES, type NetworkCode, networkCodeOf, networkRequest } from './dialect.js'
import type { Link } from './link.js'
import { newSession, type SessionEvent, type SessionPolicy, stepSession } from './session.js'
import type { Wire } from './wire.js'

export type NetworkDeps = {
  link: Link
  wire: Wire
  policy: SessionPolicy
  /** Monotonic, and the wall clock for DE 7. */
  nowMs: () => number
  wallMs: () => number
  nextStan: () => number
  /** The connection became ready, or is no longer. */
  onReady: (ready: boolean) => void
}
export type Network = {
  open: () => void
  /** Answers a network request of the peer. */
  handle: (request: Message) => Message
  isReady: () => boolean
  tick: () => void
  /** Signs off, then the connection ends. */
  close: () => void
  /** Our echo, now. Resolves with the answer; rejects as Link.request. */
  echo: (deadlineMs: number) => Promise<Message>
  /** Gives the peer a new key for message authentication; it is in use when this resolves. Rejects with ISO_UNAVAILABLE when the peer refuses. */
  exchangeKey: (key: Buffer, deadlineMs: number) => Promise<void>
}

/** Silent until `open`. */
export function openNetwork (deps: NetworkDeps): Network {
  const { link, wire, policy } = deps
  let session = newSession(deps.nowMs())
  const send = (code: NetworkCode, deadlineMs: number, more?: Record<string, string>): Promise<Message> =>
    link.request(networkRequest(code, { version: wire.version, stan: deps.nextStan(), nowMs: deps.wallMs() }, more), deadlineMs)
  const step = (event: SessionEvent): void => {
    const before = session.phase === 'ready'
    const { next, effect } = stepSession(session, event, deps.nowMs(), policy)
    session = next
    if (before !== (next.phase === 'ready')) deps.onReady(!before)
    if (effect?.kind === 'close') link.end(effect.reason)
    if (effect?.kind === 'ask') ask(effect.code)
  }
  const ask = (code: NetworkCode): void => {
    send(code, policy.answerMs).then(answer => { step({ kind: 'answered', code, approved: isApproved(answer) }) }, (error: unknown) => {
      if (isSoundboxError(error, 'ISO_TIMEOUT')) step({ kind: 'missed', code })
    })
  }
  return {
    open () { step({ kind: 'open' }) },
    handle (request) {
      const code = networkCodeOf(request)
      if (code === undefined) return answerTo(request, '12')
      try {
        if (code === NETWORK_CODES.keyExchange) wire.takeKey(request.fields['48'] ?? '')
      } catch (error) {
        return answerTo(request, codeOfError(error))
      }
      step({ kind: 'asked', code })
      return answerTo(request, '00')
    },
    isReady: () => session.phase === 'ready',
    tick () { step({ kind: 'tick', heardMs: link.heardMs() }) },
    close () { step({ kind: 'close' }) },
    echo: deadlineMs => send(NETWORK_CODES.echo, deadlineMs),
    async exchangeKey (key, deadlineMs) {
      const sealed = wire.offerKey(key)
      const answer = await send(NETWORK_CODES.keyExchange, deadlineMs, { 48: sealed })
      if (!isApproved(answer)) throw new SoundboxError('ISO_UNAVAILABLE', 'the peer refused the new key')
      wire.takeKey(sealed)
    }
  }
}
