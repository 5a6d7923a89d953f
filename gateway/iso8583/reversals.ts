// Store and forward: reversals of ours, on disk first, then sent until the peer acknowledges them; also those of an earlier run.
import type { Log, Timers } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import type { OutgoingReversal, Store } from '../store/contract.js'
import { isApproved } from './dialect.js'
import { type Backoff, backoffMs, repeatOf } from './safety.js'

/** Reversals held in memory; more wait on disk alone. */
export const REVERSALS_PAGE = 500
export const REVERSAL_BACKOFF: Backoff = { firstMs: 1_000, maxMs: 60_000 }
/** "Later", in either version's words: the peer could not, this time. Any other answer ends the reversal. */
const LATER = ['91', '96', '68', '907', '909', '911']

export type ReversalStore = Pick<Store, 'saveReversal' | 'removeReversal' | 'waitingReversals'>
export type ReversalDeps = {
  peer: string
  /** Null: in memory only, for commands that end. */
  store: ReversalStore | null
  /** Rejects with any error when there was no answer. */
  send: (message: Message) => Promise<Message>
  timers: Timers
  nowMs: () => number
  random: () => number
  backoff: Backoff
  log: Log
}
export type Reversals = {
  /** On disk when it resolves, or in memory where the disk refuses; sent from now on. */
  add: (reference: string, message: Message) => Promise<void>
  waiting: () => number
  close: () => void
}
type Core = ReversalDeps & { queue: OutgoingReversal[], more: boolean, isRunning: boolean, isClosed: boolean, stopWaiting: () => void }

/** Starts with what the store holds for this peer. */
export function openReversals (deps: ReversalDeps): Reversals {
  const core: Core = { ...deps, queue: [], more: deps.store !== null, isRunning: false, isClosed: false, stopWaiting: () => {} }
  run(core)
  return {
    async add (reference, message) {
      const reversal = { peer: deps.peer, reference, message: { mti: message.mti, fields: message.fields }, createdAt: deps.nowMs() }
      const isSaved = await deps.store?.saveReversal(reversal).then(() => true, (err: unknown) => {
        deps.log.error({ err, peer: deps.peer }, 'a reversal is in memory only: the store refused it')
        return false
      })
      if (isSaved === true && core.queue.length >= REVERSALS_PAGE) core.more = true
      else core.queue.push(reversal)
      run(core)
    },
    waiting: () => core.queue.length,
    close () {
      core.isClosed = true
      core.stopWaiting()
    }
  }
}

function run (core: Core): void {
  if (core.isRunning || core.isClosed) return
  core.isRunning = true
  void sendAll(core).finally(() => { core.isRunning = false })
}

async function sendAll (core: Core): Promise<void> {
  for (let attempt = 0; !core.isClosed;) {
    const isLoaded = core.queue.length > 0 || await load(core)
    const next = core.queue[0]
    if (isLoaded && next === undefined) return
    if (next !== undefined && await forward(core, next, attempt)) attempt = 0
    else await pause(core, attempt++)
  }
}

/** False when the store cannot tell now. */
async function load (core: Core): Promise<boolean> {
  if (core.store === null || !core.more) return true
  try {
    const rows = await core.store.waitingReversals(core.peer, REVERSALS_PAGE)
    const known = new Set(core.queue.map(({ reference }) => reference))
    core.queue.push(...rows.filter(({ reference }) => !known.has(reference)))
    core.more = rows.length === REVERSALS_PAGE
    return true
  } catch {
    return false
  }
}

/** True when this reversal is done with. */
async function forward (core: Core, reversal: OutgoingReversal, attempt: number): Promise<boolean> {
  const { peer, reference, message } = reversal
  try {
    const answer = await core.send(attempt === 0 ? message : repeatOf(message))
    const code = answer.fields['39'] ?? ''
    if (LATER.includes(code)) return false
    if (!isApproved(answer)) core.log.error({ peer, reference, code }, 'a reversal was refused by the peer: settle it by hand')
    await core.store?.removeReversal(peer, reference)
    core.queue.shift()
    core.log.info({ peer, reference, attempts: attempt + 1 }, 'reversal acknowledged')
    return true
  } catch (err) {
    core.log.warn({ err, peer, reference }, 'reversal not acknowledged yet')
    return false
  }
}

function pause (core: Core, attempt: number): Promise<void> {
  return new Promise(resolve => {
    const stop = core.timers.after(backoffMs(attempt, core.backoff, core.random), resolve)
    core.stopWaiting = () => {
      stop()
      resolve()
    }
  })
}
