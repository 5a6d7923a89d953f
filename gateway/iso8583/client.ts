// A client of a switch: a pool of connections to one or more endpoints of the same peer.
//
//   request -> [queue, bounded] -> lane with the fewest requests in flight, of an endpoint whose circuit breaker is closed -> answer
//     no answer in time:  again (questions), repeat (advices), or a reversal (money): safety.ts
// A request that was never written is simply refused; one that was written and moves money is never sent again.
import { type Breaker, BREAKER_POLICY, type BreakerPolicy, CLOSED, stepBreaker } from '../breaker.js'
import { isSoundboxError, type Log, SoundboxError, type Timers } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import { openStans } from './dialect.js'
import { type Audit, correlationKey, type Counters, type IsoMeter, noCounters, openHooks } from './hooks.js'
import { type Endpoint, type Lane, type LaneDeps, openLane } from './lane.js'
import { LINK_LIMITS, TICK_MS } from './link.js'
import { openReversals, REVERSAL_BACKOFF, type Reversals, type ReversalStore } from './reversals.js'
import { type Backoff, backoffMs, repeatOf, reversalOf, safetyOf } from './safety.js'
import type { SessionPolicy } from './session.js'
import { openWire, type Wire, type WireSettings } from './wire.js'

export type ClientPolicy = {
  /** For each endpoint. */
  connections: number
  /** Requests on one connection at once. */
  inFlightMax: number
  /** Requests that may wait for a connection; the next is refused. */
  queueMax: number
  /** A request is answered by then, or refused. */
  deadlineMs: number
  /** One attempt of a request that may be sent again, and how many of them. */
  attemptMs: number
  attemptsMax: number
  retry: Backoff
  reconnect: Backoff
  connectMs: number
  /** On close: what is in flight is awaited so long. */
  drainMs: number
  breaker: BreakerPolicy
  session: SessionPolicy
}
export const CLIENT_POLICY: ClientPolicy = {
  connections: 2, inFlightMax: 64, queueMax: 1_000, deadlineMs: 15_000, attemptMs: 4_000, attemptsMax: 3, retry: { firstMs: 100, maxMs: 2_000 },
  reconnect: { firstMs: 200, maxMs: 30_000 }, connectMs: 5_000, drainMs: 5_000, breaker: BREAKER_POLICY,
  session: { role: 'client', signOn: true, signOnMs: 10_000, echoIdleMs: 60_000, echoMissesMax: 3, answerMs: 5_000 }
}

const READY_POLL_MS = 10

export type IsoClientDeps = {
  /** Names the peer in logs, metrics, and among the reversals in the store. */
  name: string
  endpoints: readonly Endpoint[]
  wire: WireSettings
  policy?: Partial<ClientPolicy>
  reversals: ReversalStore | null
  onRequest?: LaneDeps['onRequest']
  timers: Timers
  nowMs: () => number
  random: () => number
  log: Log
  audit?: Audit | undefined
  meter?: IsoMeter | undefined
}
export type IsoClientStats = Counters & { lanes: number, ready: number, pending: number, queued: number, reversals: number, breakers: readonly Breaker['state'][] }
export type IsoClient = {
  /**
   * The answer, whatever its DE 39. Rejects with ISO_UNAVAILABLE (not sent: no connection, breaker open, closed), ISO_TIMEOUT (sent, and the
   * outcome is unknown; money is reversed from here on), ISO_DUPLICATE_KEY, OVERLOADED (queue full), ISO_PACK_INVALID.
   */
  request: (message: Message, options?: { deadlineMs?: number }) => Promise<Message>
  /** Resolves when a connection is signed on. Rejects with ISO_UNAVAILABLE. */
  whenReady: (withinMs: number) => Promise<void>
  /** Milliseconds of an echo on each signed-on connection. */
  echo: () => Promise<number[]>
  exchangeKey: (key: Buffer) => Promise<void>
  nextStan: () => number
  stats: () => IsoClientStats
  close: () => Promise<void>
}

/** `load`: requests that have this place or are about to. */
type Place = { endpoint: number, lane: Lane, load: number }
type Waiter = { dueMs: number, take: (place: Place) => void, fail: (error: SoundboxError) => void }
type Core = IsoClientDeps & {
  policy: ClientPolicy, theWire: Wire, places: Place[], breakers: Breaker[], queue: Waiter[], keys: Set<string>, counters: Counters, nextStan: () => number
  theReversals: Reversals | undefined, isClosed: boolean
}

/** Starts to connect at once; `whenReady` tells when. */
export function openIsoClient (deps: IsoClientDeps): IsoClient {
  const policy = { ...CLIENT_POLICY, ...deps.policy }
  const theWire = openWire(deps.wire, deps.timers.nowMs)
  const core: Core = {
    ...deps, policy, theWire, places: [], breakers: deps.endpoints.map(() => CLOSED), queue: [], keys: new Set(), counters: noCounters(),
    nextStan: openStans(1 + Math.floor(deps.random() * 999_998)), theReversals: undefined, isClosed: false
  }
  openLanes(core)
  const stopTicks = startTicks(core)
  core.theReversals = openReversals({
    peer: deps.name, store: deps.reversals, send: message => exchange(core, message, policy.attemptMs), timers: deps.timers, nowMs: deps.nowMs, random: deps.random,
    backoff: REVERSAL_BACKOFF, log: deps.log
  })
  return {
    request: (message, options) => request(core, message, options?.deadlineMs ?? policy.deadlineMs),
    whenReady: withinMs => whenReady(core, deps.timers.nowMs() + withinMs),
    echo: () => Promise.all(readyNetworks(core).map(async network => {
      const startedMs = deps.timers.nowMs()
      await network.echo(policy.attemptMs)
      return deps.timers.nowMs() - startedMs
    })),
    async exchangeKey (key) {
      const [first] = readyNetworks(core)
      if (first === undefined) throw unavailable('no connection is signed on')
      await first.exchangeKey(key, policy.attemptMs)
    },
    nextStan: core.nextStan,
    stats: () => statsOf(core),
    async close () {
      await close(core)
      stopTicks()
    }
  }
}

function openLanes (core: Core): void {
  const hooks = openHooks(core.name, core.counters, { audit: core.audit, meter: core.meter, describe: core.theWire.describe })
  core.endpoints.forEach((endpoint, index) => {
    const log = core.log.child({ peer: core.name, endpoint: `${endpoint.host}:${endpoint.port}` })
    for (let n = 0; n < core.policy.connections; n++) {
      const lane = openLane({
        endpoint, wire: core.theWire, session: core.policy.session, limits: LINK_LIMITS, backoff: core.policy.reconnect, connectMs: core.policy.connectMs, timers: core.timers,
        nowMs: core.nowMs, random: core.random, nextStan: core.nextStan, hooks, log, onRequest: core.onRequest,
        onReady () {
          core.breakers[index] = CLOSED
          serveQueue(core)
        },
        onLost (wasReady, reason) {
          log.warn({ reason }, 'no connection to the switch')
          if (!wasReady) tellBreaker(core, index, 'failure')
        }
      })
      core.places.push({ endpoint: index, lane, load: 0 })
    }
  })
}

function startTicks (core: Core): () => void {
  let stop = (): void => {}
  const again = (): void => {
    stop = core.timers.after(TICK_MS, () => {
      for (const { lane } of core.places) lane.tick()
      expireQueue(core)
      serveQueue(core)
      again()
    })
  }
  again()
  return () => { stop() }
}

async function request (core: Core, message: Message, deadlineMs: number): Promise<Message> {
  const key = correlationKey(message)
  if (core.isClosed) throw unavailable('the client is closed')
  if (core.keys.has(key)) throw new SoundboxError('ISO_DUPLICATE_KEY', 'a request with this type, time, trace number and terminal is in flight')
  core.keys.add(key)
  try {
    return safetyOf(message) === 'reverse' ? await exchangeOnce(core, message, deadlineMs) : await exchangeAgain(core, message, deadlineMs)
  } finally {
    core.keys.delete(key)
  }
}

/** Money: one attempt. What was written and not answered is reversed. */
async function exchangeOnce (core: Core, message: Message, deadlineMs: number): Promise<Message> {
  const dueMs = core.timers.nowMs() + deadlineMs
  const place = await placeFor(core, dueMs)
  const note = { isWritten: false }
  try {
    return await exchangeAt(core, place, message, dueMs - core.timers.nowMs(), note)
  } catch (error) {
    if (!note.isWritten || !isTransport(error)) throw error
    const reference = correlationKey(message)
    core.log.warn({ peer: core.name, mti: message.mti }, 'a request had no answer and is reversed')
    await core.theReversals?.add(reference, reversalOf(message, { stan: core.nextStan(), nowMs: core.nowMs() }))
    throw new SoundboxError('ISO_TIMEOUT', 'the switch did not answer: the outcome is unknown, a reversal is on its way', { cause: error })
  }
}

async function exchangeAgain (core: Core, message: Message, deadlineMs: number): Promise<Message> {
  const dueMs = core.timers.nowMs() + deadlineMs
  const isAdvice = safetyOf(message) === 'repeat'
  for (let attempt = 0; ; attempt++) {
    const leftMs = dueMs - core.timers.nowMs()
    try {
      return await exchange(core, attempt > 0 && isAdvice ? repeatOf(message) : message, attempt + 1 < core.policy.attemptsMax ? Math.min(leftMs, core.policy.attemptMs) : leftMs)
    } catch (error) {
      const waitMs = backoffMs(attempt, core.policy.retry, core.random)
      if (!isTransport(error) || core.isClosed || attempt + 1 >= core.policy.attemptsMax || core.timers.nowMs() + waitMs >= dueMs) throw error
      await new Promise<void>(resolve => { core.timers.after(waitMs, resolve) })
    }
  }
}

async function exchange (core: Core, message: Message, withinMs: number): Promise<Message> {
  const dueMs = core.timers.nowMs() + withinMs
  return await exchangeAt(core, await placeFor(core, dueMs), message, dueMs - core.timers.nowMs())
}

async function exchangeAt (core: Core, place: Place, message: Message, withinMs: number, note = { isWritten: false }): Promise<Message> {
  const { endpoint, lane } = place
  try {
    const link = lane.link()
    if (link === undefined) throw unavailable('the connection was lost before the request was written')
    note.isWritten = true
    const answer = await link.request(message, Math.max(1, withinMs))
    tellBreaker(core, endpoint, 'success')
    return answer
  } catch (error) {
    tellBreaker(core, endpoint, isTransport(error) ? 'failure' : 'cancel')
    throw error
  } finally {
    place.load--
    serveQueue(core)
  }
}

function isTransport (error: unknown): boolean {
  return isSoundboxError(error, 'ISO_TIMEOUT') || isSoundboxError(error, 'ISO_UNAVAILABLE')
}

async function whenReady (core: Core, dueMs: number): Promise<void> {
  while (readyNetworks(core).length === 0) {
    if (core.isClosed || core.timers.nowMs() >= dueMs) throw unavailable('no connection was signed on in time')
    await new Promise<void>(resolve => { core.timers.after(READY_POLL_MS, resolve) })
  }
}

/** A connection with room, now or by then. Rejects with ISO_UNAVAILABLE, OVERLOADED. */
async function placeFor (core: Core, dueMs: number): Promise<Place> {
  const place = core.queue.length === 0 ? choose(core) : undefined
  if (place !== undefined) return place
  if (core.isClosed || isBarred(core)) throw unavailable(core.isClosed ? 'the client is closed' : 'the circuit breaker is open: the switch has failed too often')
  if (core.queue.length >= core.policy.queueMax) throw new SoundboxError('OVERLOADED', `${core.policy.queueMax} requests wait for a connection to the switch`)
  return await new Promise((take, fail) => { core.queue.push({ dueMs, take, fail }) })
}

/** The lane with the fewest requests in flight whose breaker lets the call out. */
function choose (core: Core): Place | undefined {
  const free = core.places.filter(place => place.load < core.policy.inFlightMax && place.lane.link() !== undefined).sort((left, right) => left.load - right.load)
  const place = free.find(({ endpoint }) => askBreaker(core, endpoint))
  if (place !== undefined) place.load++
  return place
}

/** Every endpoint's breaker is open: waiting would not help. */
function isBarred (core: Core): boolean {
  const now = core.timers.nowMs()
  return core.breakers.every(breaker => breaker.state === 'open' && now < breaker.untilMs)
}

function askBreaker (core: Core, endpoint: number): boolean {
  const { next, admit } = stepBreaker(core.breakers[endpoint]!, { kind: 'ask' }, core.timers.nowMs(), core.policy.breaker)
  core.breakers[endpoint] = next
  return admit !== 'no'
}

/** Any answer while it is half open counts as the probe's: it came from the same switch. */
function tellBreaker (core: Core, endpoint: number, kind: 'success' | 'failure' | 'cancel'): void {
  const now = core.breakers[endpoint]!
  core.breakers[endpoint] = stepBreaker(now, { kind, probe: now.state === 'half_open' }, core.timers.nowMs(), core.policy.breaker).next
}

function serveQueue (core: Core): void {
  while (core.queue.length > 0) {
    const place = choose(core)
    if (place === undefined) return
    core.queue.shift()?.take(place)
  }
}

function expireQueue (core: Core): void {
  const now = core.timers.nowMs()
  const isDue = ({ dueMs }: Waiter): boolean => now >= dueMs
  for (const waiter of core.queue.filter(isDue)) waiter.fail(unavailable('no connection was ready in time: nothing was sent'))
  core.queue = core.queue.filter(waiter => !isDue(waiter))
}

function readyNetworks (core: Core) {
  return core.places.flatMap(({ lane }) => lane.link() === undefined ? [] : [lane.network()!])
}

async function close (core: Core): Promise<void> {
  core.isClosed = true
  core.theReversals?.close()
  for (const waiter of core.queue.splice(0)) waiter.fail(unavailable('the client is closed'))
  const untilMs = core.timers.nowMs() + core.policy.drainMs
  while (statsOf(core).pending > 0 && core.timers.nowMs() < untilMs) await new Promise<void>(resolve => { core.timers.after(10, resolve) })
  await Promise.all(core.places.map(({ lane }) => lane.close()))
}

function statsOf (core: Core): IsoClientStats {
  const links = core.places.map(({ lane }) => lane.link())
  return {
    ...core.counters, parseErrors: { ...core.counters.parseErrors }, lanes: links.length, ready: links.filter(link => link !== undefined).length,
    pending: links.reduce((sum, link) => sum + (link?.pending() ?? 0), 0), queued: core.queue.length, reversals: core.theReversals?.waiting() ?? 0,
    breakers: core.breakers.map(breaker => breaker.state)
  }
}

function unavailable (why: string): SoundboxError {
  return new SoundboxError('ISO_UNAVAILABLE', why)
}
