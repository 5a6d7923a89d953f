// The main thread's end of a database thread: gathers the calls of one turn into one message, keeps the bound, restarts a thread
// that died. Answers come in the order of the calls, so no call needs an id.
import { Worker } from 'node:worker_threads'
import { type ErrorCode, type Log, SoundboxError } from '../../protocol/index.js'

export type WorkerReply = { values: unknown[], failures: { index: number, code: string, message: string }[], fault: string | null, count: number }
type Ready = { ready: true } | { failed: { code: string, message: string } }
type Waiting = { name: string, argument: unknown, resolve: (value: unknown) => void, reject: (error: unknown) => void }

export type LinkSetup = {
  script: URL
  data: object
  /** Names the thread in the log. */
  name: string
  /** Calls that may wait for their answer. */
  queueMax: number
  log: Log
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

/** A dead thread is started again after this pause, doubled each time up to the second. */
export const RESTART_PAUSE_MS = 100
export const RESTART_PAUSE_MS_MAX = 5_000

/** Starts the thread. Resolves when it has said that it is ready; rejects with the code that it names. */
export async function openWorkerLink (setup: LinkSetup): Promise<WorkerLink> {
  const { queueMax, log, name } = setup
  let worker: Worker | undefined
  let gathered: Waiting[] = []
  let sent: Waiting[] = []
  let opened = false
  let closing = false
  let failing: string | null = null
  let pauseMs = RESTART_PAUSE_MS
  let restart: NodeJS.Timeout | undefined
  let onClosed: (() => void) | undefined

  const rejectAll = (calls: readonly Waiting[], why: string): void => {
    for (const call of calls) call.reject(storeFailed(why))
  }

  const flush = (): void => {
    if (gathered.length === 0) return
    const calls = gathered
    gathered = []
    if (worker === undefined) {
      rejectAll(calls, 'the database thread is being restarted')
      return
    }
    sent = sent.length === 0 ? calls : sent.concat(calls)
    worker.postMessage(JSON.stringify({ ops: calls.map(call => [call.name, call.argument]) }))
  }

  const note = (fault: string | null): void => {
    if (fault === failing) return
    failing = fault
    if (fault === null) log.info({ thread: name }, 'database works again')
    else log.error({ thread: name, code: fault }, 'database fails')
  }

  const settle = (reply: WorkerReply): void => {
    const calls = sent.slice(0, reply.count)
    sent = sent.slice(reply.count)
    setup.onReply(reply)
    note(reply.fault)
    if (reply.fault !== null && reply.values.length === 0) {
      rejectAll(calls, `the database cannot serve this now (${reply.fault})`)
      return
    }
    for (const { index, code, message } of reply.failures) calls[index]!.reject(new SoundboxError(code as ErrorCode, message))
    for (const [index, call] of calls.entries()) call.resolve(reply.values[index])
  }

  const ended = (cause: unknown): void => {
    worker = undefined
    const calls = sent
    sent = []
    rejectAll(calls, 'the database thread ended before it answered')
    if (closing || !opened) {
      onClosed?.()
      return
    }
    log.error({ thread: name, err: cause, pauseMs }, 'database thread ended, starting it again')
    restart = setTimeout(() => { start().catch(() => {}) }, pauseMs)
    pauseMs = Math.min(pauseMs * 2, RESTART_PAUSE_MS_MAX)
  }

  const start = async (): Promise<void> => {
    const next = new Worker(setup.script, { workerData: setup.data, name })
    let fault: unknown
    next.on('error', error => { fault = error })
    await new Promise<void>((resolve, reject) => {
      next.once('message', (text: string) => {
        const answer = JSON.parse(text) as Ready
        if ('failed' in answer) return reject(new SoundboxError(answer.failed.code as ErrorCode, answer.failed.message))
        setup.onReply(answer as unknown as WorkerReply)
        worker = next
        next.on('message', (reply: string) => {
          pauseMs = RESTART_PAUSE_MS
          settle(JSON.parse(reply) as WorkerReply)
        })
        resolve()
      })
      next.once('exit', () => {
        reject(storeFailed('the database thread does not start'))
        ended(fault)
      })
    })
  }
  await start()
  opened = true

  return {
    call: (operation, argument) => {
      if (closing) return Promise.reject(storeFailed('the store is closed'))
      if (gathered.length + sent.length >= queueMax) return Promise.reject(storeFailed(`${queueMax} calls wait for the database already`))
      if (gathered.length === 0) setImmediate(flush)
      return new Promise((resolve, reject) => { gathered.push({ name: operation, argument, resolve, reject }) })
    },
    waiting: () => gathered.length + sent.length,
    close: async () => {
      closing = true
      flush()
      clearTimeout(restart)
      const last = worker
      if (last === undefined) return
      await new Promise<void>(resolve => {
        onClosed = resolve
        last.postMessage(JSON.stringify({ close: true }))
      })
    }
  }
}

function storeFailed (why: string): SoundboxError {
  return new SoundboxError('STORE_FAILED', why)
}
