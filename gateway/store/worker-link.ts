// The main thread's end of a database thread: gathers the calls of one turn into one message, keeps the bound, restarts a thread
// that died. Answers come in the order of the calls, so no call needs an id.
import { Worker } from 'node:worker_threads'
import { type ErrorCode, type Log, SoundboxError } from '../../protocol/index.js'

export type WorkerReply = { values: unknown[], failures: { index: number, code: string, message: string }[], fault: string | null, count: number }
/** What the thread says first; more of it is the caller's business. */
export type ThreadReady = { ready: true }
type Ready = ThreadReady | { failed: { code: string, message: string } }
type Waiting = { name: string, argument: unknown, resolve: (value: unknown) => void, reject: (error: unknown) => void }

export type LinkSetup = {
  script: URL
  data: object
  /** Names the thread in the log. */
  name: string
  /** Calls that may wait for their answer. */
  queueMax: number
  log: Log
  onReady?: (ready: ThreadReady) => void
  /** Sees each reply before the calls are answered. */
  onReply: (reply: WorkerReply) => void
}
export type WorkerLink = {
  /** Answers as the operation of that name does. Rejects with STORE_FAILED when it cannot be done now, INPUT_INVALID when never. */
  call: (name: string, argument: unknown) => Promise<unknown>
  /** Calls without an answer. */
  waiting: () => number
  /** Refuses new calls, has the waiting ones done, ends the thread. */
  close: () => Promise<void>
}

const CLOSE = JSON.stringify({ close: true })
/** A dead thread is started again after this pause, doubled each time up to the second. */
export const RESTART_PAUSE_MS = 100
export const RESTART_PAUSE_MS_MAX = 5_000

/** Starts the thread. Resolves when it has said that it is ready; rejects with the code that it names. */
export async function openWorkerLink (setup: LinkSetup): Promise<WorkerLink> {
  const { queueMax, log, name } = setup
  const calls = createCalls(log, name)
  let worker: Worker | undefined
  let state: 'opening' | 'open' | 'closed' = 'opening'
  let pauseMs = RESTART_PAUSE_MS
  let restart: NodeJS.Timeout | undefined
  let onEnded = (): void => {}
  let closing: Promise<void> | undefined

  const flush = (): void => {
    if (worker === undefined) calls.refuseGathered('the database thread is being restarted')
    else calls.send(worker)
  }
  const start = async (): Promise<void> => {
    const thread = await startThread(setup, {
      onReply: reply => {
        pauseMs = RESTART_PAUSE_MS
        setup.onReply(reply)
        calls.settle(reply)
      },
      onExit: cause => {
        worker = undefined
        calls.refuseSent('the database thread ended before it answered')
        onEnded()
        if (state !== 'open') return
        log.error({ thread: name, err: cause, pauseMs }, 'database thread ended, starting it again')
        restart = setTimeout(() => { start().catch(() => {}) }, pauseMs)
        pauseMs = Math.min(pauseMs * 2, RESTART_PAUSE_MS_MAX)
      }
    })
    if (state === 'closed') thread.postMessage(CLOSE)
    else worker = thread
  }
  await start()
  state = 'open'

  return {
    call: (operation, argument) => {
      if (state === 'closed') return Promise.reject(storeFailed('the store is closed'))
      if (calls.waiting() >= queueMax) return Promise.reject(storeFailed(`${queueMax} calls wait for the database already`))
      if (!calls.hasGathered()) setImmediate(flush)
      return calls.add(operation, argument)
    },
    waiting: calls.waiting,
    close: () => {
      closing ??= new Promise<void>(resolve => {
        flush()
        state = 'closed'
        clearTimeout(restart)
        onEnded = resolve
        if (worker === undefined) resolve()
        else worker.postMessage(CLOSE)
      })
      return closing
    }
  }
}

/** The calls of this turn, and those that were sent and have no answer yet, oldest first. */
function createCalls (log: Log, thread: string) {
  let gathered: Waiting[] = []
  let sent: Waiting[] = []
  let failing: string | null = null

  const refuse = (calls: readonly Waiting[], why: string): void => {
    for (const call of calls) call.reject(storeFailed(why))
  }
  const note = (fault: string | null): void => {
    if (fault === failing) return
    failing = fault
    if (fault === null) log.info({ thread }, 'database works again')
    else log.error({ thread, code: fault }, 'database fails')
  }
  return {
    hasGathered: () => gathered.length > 0,
    waiting: () => gathered.length + sent.length,
    add: (name: string, argument: unknown): Promise<unknown> => new Promise((resolve, reject) => { gathered.push({ name, argument, resolve, reject }) }),
    send (worker: Worker): void {
      if (gathered.length === 0) return
      worker.postMessage(JSON.stringify({ ops: gathered.map(call => [call.name, call.argument]) }))
      sent = sent.length === 0 ? gathered : sent.concat(gathered)
      gathered = []
    },
    settle (reply: WorkerReply): void {
      const calls = sent.slice(0, reply.count)
      sent = sent.slice(reply.count)
      note(reply.fault)
      if (reply.fault !== null && reply.values.length === 0) {
        refuse(calls, `the database cannot serve this now (${reply.fault})`)
        return
      }
      for (const { index, code, message } of reply.failures) calls[index]!.reject(new SoundboxError(code as ErrorCode, message))
      for (const [index, call] of calls.entries()) call.resolve(reply.values[index])
    },
    refuseGathered (why: string): void {
      refuse(gathered, why)
      gathered = []
    },
    refuseSent (why: string): void {
      refuse(sent, why)
      sent = []
    }
  }
}

/** The thread, once it said that it is ready; rejects with the error that it named. */
function startThread (setup: LinkSetup, events: { onReply: (reply: WorkerReply) => void, onExit: (cause: unknown) => void }): Promise<Worker> {
  const thread = new Worker(setup.script, { workerData: setup.data, name: setup.name, execArgv: [] })
  let cause: unknown
  thread.on('error', error => { cause = error })
  return new Promise<Worker>((resolve, reject) => {
    thread.once('message', (text: string) => {
      const answer = JSON.parse(text) as Ready
      if ('failed' in answer) {
        reject(new SoundboxError(answer.failed.code as ErrorCode, answer.failed.message))
        return
      }
      setup.onReady?.(answer)
      thread.on('message', (reply: string) => { events.onReply(JSON.parse(reply) as WorkerReply) })
      resolve(thread)
    })
    thread.once('exit', () => {
      reject(storeFailed('the database thread does not start'))
      events.onExit(cause)
    })
  })
}

function storeFailed (why: string): SoundboxError {
  return new SoundboxError('STORE_FAILED', why)
}
