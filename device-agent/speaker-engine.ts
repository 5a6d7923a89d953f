// The parent's side of speaker-host.ts: sends one text, waits for the sound, and treats the process as something that may hang or die at
// any moment. A host that does not answer in time is killed; a dead one is started again by the next request. A request that met a dead or
// hung host is tried once more on a fresh one, so that one fault costs time, not an announcement.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Language, Log, Timers } from '../protocol/index.js'
import type { HostAsk, HostReply } from './speaker-host.js'
import { speechFailed } from './speaker.js'
import { type Pcm, samplesOf } from './wav.js'

/** Text to sound. `synthesize` throws SPEECH_FAILED. */
export type Engine = { name: string, synthesize: (text: string, language: Language) => Promise<Pcm>, close: () => void }

/** A host process: what it says and its end come through `events`; after `kill` nothing comes any more. */
export type Host = { send: (ask: HostAsk) => void, kill: () => void }
export type HostEvents = { onReply: (reply: HostReply) => void, onExit: () => void }

/** From the request to the sound, the start of a cold host on a slow, busy machine included. */
export const SYNTH_TIMEOUT_MS = 15_000
export const SYNTH_ATTEMPTS_MAX = 2
/** Requests that may wait on one host. The agent has one; more is a caller that does not wait its turn. */
export const REQUESTS_MAX = 16
/** No sentence is longer; an engine that gives more is broken. */
export const SOUND_MS_MAX = 120_000

export type HostEngineDeps = {
  startHost: (events: HostEvents) => Host
  voiceOf: (language: Language) => Pick<HostAsk, 'engine' | 'voice'>
  /** Languages whose engines are loaded before the first phrase. */
  warm: readonly Language[]
  clock: Timers
  log: Log
}
type Waiting = { resolve: (pcm: Pcm) => void, reject: (error: Error) => void, cancel: () => void }

/** An engine in a process of its own, started now so that the first phrase finds it warm. */
export function openHostEngine (deps: HostEngineDeps): Engine {
  const { warm, log } = deps
  const link = openHostLink(deps)
  let isClosed = false
  for (const language of warm) link.ask('', language).catch((err: unknown) => log.warn({ err, language }, 'speech engine could not be loaded'))
  return {
    name: 'host',
    synthesize: async (text, language) => {
      for (let attempt = 1; ; attempt++) {
        if (isClosed) throw speechFailed('the speaker is closed')
        if (link.waiting() >= REQUESTS_MAX) throw speechFailed(`more than ${REQUESTS_MAX} phrases wait for the speech engine`)
        try {
          return soundWithin(await link.ask(text, language))
        } catch (err) {
          if (isClosed || attempt >= SYNTH_ATTEMPTS_MAX) throw err
          log.warn({ err, attempt }, 'speech engine is asked again')
        }
      }
    },
    close: () => {
      isClosed = true
      link.drop('the speaker is closed')
    }
  }
}

/** One host at a time, started when it is needed. `drop` ends it and fails what waits for it. */
function openHostLink ({ startHost, voiceOf, clock }: HostEngineDeps) {
  const waiting = new Map<number, Waiting>()
  let host: Host | undefined
  let lastId = 0
  const drop = (what: string, cause?: unknown): void => {
    host?.kill()
    host = undefined
    for (const request of waiting.values()) {
      request.cancel()
      request.reject(speechFailed(what, cause))
    }
    waiting.clear()
  }
  const handleReply = (reply: HostReply): void => {
    const request = waiting.get(reply.id)
    if (request === undefined) return
    if ('fault' in reply) drop('the speech engine failed', new Error(reply.fault))
    else {
      waiting.delete(reply.id)
      request.cancel()
      request.resolve({ rate: reply.rate, samples: samplesOf(reply.samples) })
    }
  }
  const startOne = (): Host => {
    const mine: Host = startHost({
      onReply: reply => { if (host === mine) handleReply(reply) },
      onExit: () => { if (host === mine) drop('the speech engine ended') }
    })
    return mine
  }
  const ask = (text: string, language: Language): Promise<Pcm> => new Promise((resolve, reject) => {
    host ??= startOne()
    const id = ++lastId
    const cancel = clock.after(SYNTH_TIMEOUT_MS, () => drop(`the speech engine did not answer within ${SYNTH_TIMEOUT_MS} ms`))
    waiting.set(id, { resolve, reject, cancel })
    host.send({ id, ...voiceOf(language), text })
  })
  return { ask, drop, waiting: () => waiting.size }
}

/** The real host: a Node process of its own in this folder, which it may write to, bound to this process by its message channel. */
export function startHostProcess (folder: string, { onReply, onExit }: HostEvents): Host & { pid: number | undefined } {
  const path = fileURLToPath(new URL('speaker-host.js', import.meta.url))
  const child = fork(path, [], { serialization: 'advanced', stdio: ['ignore', 'ignore', 'ignore', 'ipc'], execArgv: [], cwd: folder })
  child.on('message', message => onReply(message as HostReply))
  child.on('error', onExit)
  child.once('exit', onExit)
  return {
    pid: child.pid,
    send: ask => {
      if (child.connected) child.send(ask, () => {}) // A failed send is followed by exit.
    },
    kill: () => child.kill('SIGKILL')
  }
}

function soundWithin (pcm: Pcm): Pcm {
  const samplesMax = pcm.rate * SOUND_MS_MAX / 1000
  if (pcm.samples.length > 0 && pcm.samples.length <= samplesMax) return pcm
  throw speechFailed(`the speech engine gave ${pcm.samples.length} samples, not 1 to ${samplesMax}`)
}
