// One order to one soundbox, and its answer: replay, test, reboot, … A command is not stored: a box that is away is told so to the
// operator at once, and a command that came too late is dropped by the box itself (it has an expiry).
//
//   sendCommand -> publish {id, name, args, expiresAt} -> box acks `received`? -> `done` | `failed` | `expired` | …, or the time-out
import { type Ack, COMMAND_NAMES, type Command, type CommandName, encodeMessage, formatTopic, isLanguage, type Log, SoundboxError } from '../../protocol/index.js'
import type { Broker } from '../broker/contract.js'

export type CommandArgs = Command['args']
/** How the box ended it. `data`: what it sent along, as the lines of its log. */
export type CommandOutcome = { id: string, tid: string, name: CommandName, result: Ack['result'], reason: string | null, data: string | null, tookMs: number }
export type CommandDeps = {
  publish: Broker['publish']
  isOnline: (tid: string) => boolean
  /** 32 lower-case hex digits, never twice the same. */
  newId: () => string
  nowMs: () => number
  log: Log
}
export type Commands = {
  /**
   * Sends a command and waits for its end, also over a reconnect of the box. Throws INPUT_INVALID (name or arguments), DEVICE_OFFLINE
   * (not connected, or no answer in time), OVERLOADED (too many are open), PUBLISH_FAILED.
   */
  send: (tid: string, order: { name: string, args?: CommandArgs, timeoutMs?: number }) => Promise<CommandOutcome>
  /** True when the ack answers a command of ours to this very box. */
  handleAck: (tid: string, ack: Ack) => boolean
  /** Ends what is overdue. Called about every second. */
  tick: () => void
  open: () => number
}

export const COMMAND_TIMEOUT_MS = 15_000
export const COMMAND_TIMEOUT_MS_MAX = 120_000
export const COMMANDS_PER_DEVICE_MAX = 8
export const COMMANDS_MAX = 1000
const QR_LENGTH_MAX = 512

type Check = (value: unknown) => boolean
const whole = (min: number, max: number): Check => value => Number.isInteger(value) && (value as number) >= min && (value as number) <= max
const text = (shape: RegExp): Check => value => typeof value === 'string' && shape.test(value)
type ArgTable = Readonly<Record<string, { check: Check, needed: boolean, want: string }>>
const NO_ARGS: ArgTable = {}

/** The arguments of each command; a box may support fewer commands, and says so. */
const COMMAND_ARGS: Readonly<Record<CommandName, ArgTable>> = {
  replay: { count: { check: whole(1, 5), needed: false, want: '1 to 5' } },
  test: NO_ARGS,
  reboot: NO_ARGS,
  locate: NO_ARGS,
  'display-qr': { payload: { check: text(new RegExp(`^[\\x20-\\x7e]{1,${QR_LENGTH_MAX}}$`)), needed: true, want: `1 to ${QR_LENGTH_MAX} printable characters` } },
  'clear-display': NO_ARGS,
  'collect-log': NO_ARGS,
  volume: { volume: { check: whole(0, 100), needed: true, want: '0 to 100' } },
  language: { language: { check: value => typeof value === 'string' && isLanguage(value), needed: true, want: 'a language name as ENGLISH' } },
  firmware: {
    version: { check: text(/^[\w.+-]{1,64}$/), needed: true, want: 'a version' },
    url: { check: text(/^https?:\/\/[\x21-\x7e]{1,500}$/), needed: false, want: 'an http or https URL' },
    sha256: { check: text(/^[0-9a-f]{64}$/), needed: false, want: '64 lower-case hex digits' }
  },
  'day-total': {
    count: { check: whole(0, 1_000_000), needed: true, want: 'a number of payments' },
    amountMinor: { check: whole(0, Number.MAX_SAFE_INTEGER), needed: true, want: 'an amount in minor units' }
  }
}

/** Pure. The command's name, when name and arguments are as they must be. Throws INPUT_INVALID naming the argument. */
export function checkCommand (name: string, args: CommandArgs): CommandName {
  const known = COMMAND_NAMES.find(word => word === name) ?? invalid(`command must be one of ${COMMAND_NAMES.join(', ')}`)
  const table = COMMAND_ARGS[known]
  for (const given of Object.keys(args)) {
    if (!Object.hasOwn(table, given)) invalid(`command ${known} takes ${Object.keys(table).join(', ') || 'no arguments'}`)
  }
  for (const [field, { check, needed, want }] of Object.entries(table)) {
    const value = args[field]
    if (value === undefined ? needed : !check(value)) invalid(`command ${known}: ${field} must be ${want}`)
  }
  return known
}

type Open = {
  tid: string, name: CommandName, sentAt: number, deadlineMs: number
  resolve: (outcome: CommandOutcome) => void
  reject: (error: SoundboxError) => void
}

/** The commands that wait for their answer. */
export function openCommands (deps: CommandDeps): Commands {
  const { isOnline, log, nowMs } = deps
  const open = new Map<string, Open>()
  return {
    async send (tid, { name: word, args = {}, timeoutMs = COMMAND_TIMEOUT_MS }) {
      const name = checkCommand(word, args)
      if (!whole(1, COMMAND_TIMEOUT_MS_MAX)(timeoutMs)) invalid(`timeoutMs must be 1 to ${COMMAND_TIMEOUT_MS_MAX}`)
      if (!isOnline(tid)) throw new SoundboxError('DEVICE_OFFLINE', `soundbox ${tid} is not connected`)
      if (open.size >= COMMANDS_MAX) throw new SoundboxError('OVERLOADED', `${COMMANDS_MAX} commands wait for their answer already`)
      const mine = [...open.values()].filter(command => command.tid === tid).length
      if (mine >= COMMANDS_PER_DEVICE_MAX) throw new SoundboxError('OVERLOADED', `${mine} commands wait for soundbox ${tid} already`)
      const id = deps.newId()
      const sentAt = nowMs()
      const command: Command = { id, name, args, expiresAt: sentAt + timeoutMs }
      // Open before it is sent: the answer may come before the publish resolves.
      const answer = new Promise<CommandOutcome>((resolve, reject) => {
        open.set(id, { tid, name, sentAt, deadlineMs: command.expiresAt, resolve, reject })
      })
      answer.catch(() => {}) // Also when the publish fails first and nobody waits for it.
      try {
        await deps.publish(formatTopic(tid, 'command'), encodeMessage(command))
      } catch (error) {
        open.delete(id)
        throw error
      }
      log.info({ tid, id, name }, 'command sent')
      return await answer
    },
    handleAck (tid, { id, result, reason, data }) {
      const command = open.get(id)
      if (command === undefined || command.tid !== tid) return false
      if (result === 'received') return true
      open.delete(id)
      command.resolve({ id, tid, name: command.name, result, reason: reason ?? null, data: data ?? null, tookMs: nowMs() - command.sentAt })
      return true
    },
    tick () {
      for (const [id, { tid, name, sentAt, deadlineMs, reject }] of [...open]) {
        if (nowMs() < deadlineMs) continue
        open.delete(id)
        log.warn({ tid, id, name }, 'soundbox did not answer a command')
        reject(new SoundboxError('DEVICE_OFFLINE', `soundbox ${tid} did not answer within ${deadlineMs - sentAt} ms`))
      }
    },
    open: () => open.size
  }
}

function invalid (why: string): never {
  throw new SoundboxError('INPUT_INVALID', why)
}
