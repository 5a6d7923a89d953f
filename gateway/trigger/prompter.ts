// What a technician lets a box say while standing beside it: a test phrase, a code, the day's total. Not recorded and not repeated; the
// caller waits for the box's own word that it spoke.
import { type Ack, type Announcement, formatTopic, type Prompt, sealAnnouncement, SoundboxError } from '../../protocol/index.js'
import type { Broker } from '../broker/contract.js'
import type { Device } from '../store/directory.js'

/** Long enough for a queue of payments before it; the phrase expires with it. */
export const PROMPT_TIMEOUT_MS = 30_000
export const PROMPTS_WAITING_MAX = 200

export type Saying = { kind: 'test' } | { kind: 'prompt', prompt: Prompt, count: number, amountMinor: number }
export type Said = { announcementId: string, result: Ack['result'], audioMs: number | null, reason: string | null }
export type Prompter = {
  /** Throws DEVICE_OFFLINE (also when no answer comes in time), OVERLOADED, PUBLISH_FAILED. */
  say: (device: Device, what: Saying) => Promise<Said>
  /** True when the ack was for one of these. */
  handleAck: (tid: string, ack: Ack) => boolean
  /** Gives up what waited too long. Called about every second. */
  tick: () => void
}
export type PrompterDeps = {
  broker: () => Pick<Broker, 'publish'>
  isOnline: (tid: string) => boolean
  newId: () => string
  nowMs: () => number
  nextSeq: () => number
}
type Waiting = { deadlineMs: number, resolve: (said: Said) => void, reject: (error: SoundboxError) => void }

/** Starts with nothing said. */
export function openPrompter (deps: PrompterDeps): Prompter {
  const waiting = new Map<string, Waiting>()
  return {
    async say (device, what) {
      if (!deps.isOnline(device.tid)) throw new SoundboxError('DEVICE_OFFLINE', `soundbox ${device.tid} is not connected`)
      if (waiting.size >= PROMPTS_WAITING_MAX) throw new SoundboxError('OVERLOADED', `${PROMPTS_WAITING_MAX} prompts are waiting already`)
      const now = deps.nowMs()
      const announcement: Announcement = {
        v: 1, id: deps.newId(), seq: deps.nextSeq(), kind: what.kind, amountMinor: what.kind === 'prompt' ? what.amountMinor : 0, currency: 'INR', language: device.language,
        issuedAt: now, expiresAt: now + PROMPT_TIMEOUT_MS, ...(what.kind === 'prompt' ? { prompt: what.prompt, count: what.count } : {})
      }
      const key = `${device.tid}/${announcement.id}`
      const said = new Promise<Said>((resolve, reject) => { waiting.set(key, { deadlineMs: now + PROMPT_TIMEOUT_MS, resolve, reject }) })
      try {
        await deps.broker().publish(formatTopic(device.tid, 'announce'), sealAnnouncement(announcement, device.tid, device.signingKey))
      } catch (error) {
        waiting.delete(key)
        throw error
      }
      return await said
    },
    handleAck (tid, ack) {
      const key = `${tid}/${ack.id}`
      const found = waiting.get(key)
      if (found === undefined) return false
      if (ack.result === 'received') return true
      waiting.delete(key)
      found.resolve({ announcementId: ack.id, result: ack.result, audioMs: ack.audioMs ?? null, reason: ack.reason ?? null })
      return true
    },
    tick () {
      const now = deps.nowMs()
      for (const [key, { deadlineMs, reject }] of waiting) {
        if (now < deadlineMs) continue
        waiting.delete(key)
        reject(new SoundboxError('DEVICE_OFFLINE', `the soundbox did not say how it ended within ${PROMPT_TIMEOUT_MS / 1000} s`))
      }
    }
  }
}
