// A soundbox on the bench: the real agent, voice, journal and state, with a clock that the test turns, a link that the test holds the
// other end of, and a speaker that records what it was given.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Agent, startAgent } from '../../device-agent/agent.js'
import { type BoxSettings, openBoxState } from '../../device-agent/box-state.js'
import type { Power } from '../../device-agent/power.js'
import { type Journal, type JournalOptions, openJournal } from '../../device-agent/journal.js'
import { openLogRing } from '../../device-agent/log-ring.js'
import type { LinkEvents } from '../../device-agent/mqtt-link.js'
import type { PlaybackLimits } from '../../device-agent/playback.js'
import type { SoundMade, Speaker, Utterance } from '../../device-agent/speaker.js'
import { openVoice, type SpokenReport } from '../../device-agent/voice.js'
import {
  type Ack, type Announcement, type Command, type Desired, type DownTopic, encodeMessage, type Log, sealAnnouncement, Secret, SILENT_LOG, SoundboxError,
  type Timers, type UpTopic
} from '../../protocol/index.js'

export const TID = 'SB-0001'
export const SIGNING_KEY = 'a-signing-key-of-the-test'
export const T0 = 1_800_000_000_000
export const LIMITS: PlaybackLimits = { gapMs: 400, queueMax: 20, summariseOver: 3, speakTimeoutMs: 30_000 }

export const idOf = (n: number): string => n.toString(16).padStart(32, '0')

/** A payment of n rupees with id n. */
export function payment (n: number, changes: Partial<Announcement> = {}): Announcement {
  return { v: 1, id: idOf(n), seq: n, kind: 'payment', amountMinor: n * 100, currency: 'INR', language: 'ENGLISH', issuedAt: T0, expiresAt: T0 + 60_000, ...changes }
}

export type ManualClock = Timers & { advance: (ms: number) => void, timers: () => number }

/** Stands still until `advance`; then what is due runs in its order. */
export function openManualClock (startMs: number = T0): ManualClock {
  let now = startMs
  let timers: { at: number, work: () => void }[] = []
  return {
    nowMs: () => now,
    after: (delayMs, work) => {
      const timer = { at: now + Math.max(0, delayMs), work }
      timers.push(timer)
      return () => { timers = timers.filter(other => other !== timer) }
    },
    advance: ms => {
      const until = now + ms
      for (;;) {
        const due = timers.filter(timer => timer.at <= until).sort((a, b) => a.at - b.at)[0]
        if (due === undefined) break
        timers = timers.filter(timer => timer !== due)
        now = Math.max(now, due.at)
        due.work()
      }
      now = until
    },
    timers: () => timers.length
  }
}

export type RecordingSpeaker = Speaker & { spoken: Utterance[], sounding: () => boolean, end: (made?: Partial<SoundMade>) => void, fail: () => void }

/** Each sound lasts until the test ends it. */
export function openRecordingSpeaker (): RecordingSpeaker {
  const spoken: Utterance[] = []
  let settle: { resolve: (made: SoundMade) => void, reject: (error: unknown) => void } | undefined
  return {
    name: 'recording',
    spoken,
    sounding: () => settle !== undefined,
    say: utterance => {
      if (settle !== undefined) throw new Error('two voices at a time')
      spoken.push(utterance)
      return new Promise((resolve, reject) => { settle = { resolve, reject } })
    },
    end: (made = {}) => {
      settle?.resolve({ audioMs: 2000, soundAfterMs: 30, wav: null, ...made })
      settle = undefined
    },
    fail: () => {
      settle?.reject(new SoundboxError('SPEECH_FAILED', 'the speaker is unplugged'))
      settle = undefined
    },
    close: async () => {}
  }
}

export type Sent = { name: UpTopic, message: Record<string, unknown>, qos: number }
/** `confirm`: does the gateway answer with PUBACK? */
export type TestLink = { events: LinkEvents, up: boolean, confirm: boolean, sent: Sent[] }

export type BenchOptions = {
  dir: string, prompts?: boolean, limits?: Partial<PlaybackLimits>, power?: () => Power | undefined, log?: Log, clock?: ManualClock
  openFile?: NonNullable<JournalOptions['open']>
}
export type Bench = {
  agent: Agent, clock: ManualClock, speaker: RecordingSpeaker, link: TestLink, reports: SpokenReport[]
  reboots: number
  deliver: (name: DownTopic, payload: Buffer) => Promise<void>
  announce: (announcement: Announcement, signingKey?: string) => Promise<void>
  command: (n: number, name: Command['name'], args?: Command['args'], expiresAt?: number) => Promise<void>
  desire: (changes?: Partial<Desired>) => Promise<void>
  goUp: () => Promise<void>
  goDown: () => Promise<void>
  /** A stop in good order; a sound that is playing ends. */
  stop: () => Promise<void>
  /** Lets promises and the disk catch up. */
  settle: () => Promise<void>
  /** Ends the sound that is playing and lets the next one start. */
  endSound: (made?: Partial<SoundMade>) => Promise<void>
  acks: () => Ack[]
  /** The id's number and result of each ack but `received`. */
  finals: () => string[]
  texts: () => string[]
}

/** Powers a box up in `dir`; a second bench in the same `dir` is the same box after a restart. */
export async function openBench ({ dir, prompts = false, limits = {}, power = () => undefined, log = SILENT_LOG, clock = openManualClock(), openFile }: BenchOptions): Promise<Bench> {
  mkdirSync(dir, { recursive: true })
  const ring = openLogRing(log, clock.nowMs)
  const { watch, settle } = openWatch()
  const journal = watchJournal(await openJournal({ path: join(dir, 'journal'), log: ring.log, ...(openFile === undefined ? {} : { open: openFile }) }), watch)
  const stateFile = await openBoxState(dir, { volume: 80, minVolume: 0, language: 'ENGLISH', quietHours: null, version: 0, clockOffsetMs: 0, wish: '' }, ring.log)
  const state = { ...stateFile, save: (settings: BoxSettings) => watch(stateFile.save(settings)) }
  const speaker = openRecordingSpeaker()
  const reports: SpokenReport[] = []
  let link: TestLink | undefined
  const agent = startAgent({
    tid: TID, signingKey: new Secret(SIGNING_KEY), model: 'test', firmware: '1.2.3', bootId: `boot-${clock.timers()}`, resetReason: 'start',
    telemetryMs: 60_000, prompts, limits: { ...LIMITS, ...limits }
  }, {
    clock, log: ring.log, journal, state,
    openLink: events => {
      const opened: TestLink = { events, up: false, confirm: true, sent: [] }
      link = opened
      return {
        isUp: () => opened.up,
        publish: async (name, message, qos) => {
          if (!opened.up) throw new SoundboxError('GATEWAY_UNREACHABLE', 'down')
          opened.sent.push({ name, message: JSON.parse(encodeMessage(message).toString('utf8')) as Sent['message'], qos })
          if (!opened.confirm) await new Promise((_resolve, reject) => { downs.push(reject) })
        },
        close: async () => {
          if (opened.up) opened.events.onDown()
          opened.up = false
        }
      }
    },
    openVoice: (policy, events) => openVoice({ clock, journal, speaker, policy, log: ring.log }, events),
    readings: () => ({ ...power(), network: 'mqtt', freeBytes: 1_000_000 }),
    lastLog: ring.text,
    onSpoken: report => reports.push(report),
    onReboot: () => { bench.reboots += 1 }
  })
  const downs: ((error: unknown) => void)[] = []
  const opened = link!
  const bench: Bench = {
    agent, clock, speaker, link: opened, reports, reboots: 0, settle,
    deliver: async (name, payload) => {
      await opened.events.onMessage(name, payload)
      await settle()
    },
    announce: (announcement, signingKey = SIGNING_KEY) => bench.deliver('announce', sealAnnouncement(announcement, TID, signingKey)),
    command: (n, name, args = {}, expiresAt = T0 + 60_000) => bench.deliver('command', encodeMessage({ id: idOf(n), name, args, expiresAt })),
    desire: changes => bench.deliver('desired', encodeMessage({ version: 1, time: clock.nowMs(), volume: 80, minVolume: 0, language: 'ENGLISH', quietHours: null, ...changes })),
    goUp: async () => {
      opened.up = true
      opened.events.onUp()
      await settle()
    },
    goDown: async () => {
      opened.up = false
      for (const reject of downs.splice(0)) reject(new SoundboxError('GATEWAY_UNREACHABLE', 'down'))
      opened.events.onDown()
      await settle()
    },
    stop: async () => {
      const closed = agent.close()
      speaker.end()
      await closed
    },
    endSound: async made => {
      clock.advance(made?.audioMs ?? 2000)
      speaker.end(made)
      await settle()
      clock.advance(LIMITS.gapMs)
      await settle()
    },
    acks: () => opened.sent.filter(sent => sent.name === 'ack').map(sent => sent.message as Ack),
    finals: () => bench.acks().filter(ack => ack.result !== 'received').map(ack => `${Number(`0x${ack.id}`)} ${ack.result}`),
    texts: () => speaker.spoken.map(utterance => utterance.text)
  }
  return bench
}

/** The same journal, its writes watched. */
export function watchJournal (journal: Journal, watch: (work: Promise<void>) => Promise<void>): Journal {
  return { ...journal, start: starts => watch(journal.start(starts)), finish: ack => watch(journal.finish(ack)), settle: id => watch(journal.settle(id)) }
}

/** `settle` resolves when no watched write is under way and nothing follows from one. */
export function openWatch (): { watch: (work: Promise<void>) => Promise<void>, settle: () => Promise<void> } {
  const writing = new Set<Promise<void>>()
  return {
    watch: work => {
      const done = work.catch(() => {}).finally(() => { writing.delete(done) })
      writing.add(done)
      return work
    },
    settle: async () => {
      for (let calm = 0; calm < 3; calm++) {
        if (writing.size > 0) calm = 0
        await Promise.all(writing)
        await new Promise(resolve => setImmediate(resolve))
      }
    }
  }
}
