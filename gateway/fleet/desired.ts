// What a soundbox should be, told to it: after every hello (it also takes its clock from it), on every change, and again while it has
// not reported the version. A box that never does is left alone after some attempts, until it says hello or the operator changes it.
import { type Desired, encodeMessage, formatTopic, type Hello, type Log, type Reported } from '../../protocol/index.js'
import type { Broker } from '../broker/contract.js'
import type { DeviceRow } from '../store/contract.js'

export type DesiredSource = Pick<DeviceRow, 'tid' | 'language' | 'volume' | 'minVolume' | 'quietHours' | 'display' | 'desiredVersion'>
/** `reported`: the version that the box says it has applied. `sentAt` null: to be sent now. */
export type Wish = { version: number, reported: number | null, sentAt: number | null, attempts: number }
export type WishEvent =
  | { kind: 'hello', version: number, reported: number | null }
  | { kind: 'changed', version: number }
  | { kind: 'reported', reported: number }
  | { kind: 'sent' }
export type DesiredDeps = {
  publish: Broker['publish']
  device: (tid: string) => DesiredSource | undefined
  isOnline: (tid: string) => boolean
  nowMs: () => number
  log: Log
}
export type DesiredState = {
  handleHello: (tid: string, hello: Hello) => void
  handleReported: (tid: string, reported: Reported) => void
  /** The operator changed the device: it is told now, or after its next hello. */
  handleChanged: (tid: string) => void
  handleOffline: (tid: string) => void
  /** True while an online box has not reported the version it should have. */
  isPending: (tid: string) => boolean
  pendingCount: () => number
  /** Sends again what is due. Called about every second. */
  tick: () => void
}

export const DESIRED_RETRY_MS = 10_000
export const DESIRED_ATTEMPTS_MAX = 5

/** Pure. The wire form of what a device should be. */
export function desiredOf (device: DesiredSource, nowMs: number): Desired {
  const { desiredVersion, volume, minVolume, language, quietHours, display } = device
  return { version: desiredVersion, time: nowMs, volume, minVolume, language, quietHours, ...(display === null ? {} : { display }) }
}

/** Pure. */
export function stepWish (now: Wish | undefined, event: WishEvent, nowMs: number): Wish | undefined {
  switch (event.kind) {
    case 'hello': return { version: event.version, reported: event.reported, sentAt: null, attempts: 0 }
    case 'changed': return { version: event.version, reported: now?.reported ?? null, sentAt: null, attempts: 0 }
    case 'reported': return now && { ...now, reported: event.reported }
    case 'sent': return now && { ...now, sentAt: nowMs, attempts: now.attempts + 1 }
    default: return event satisfies never
  }
}

/** Pure. To be sent now: never sent yet, or sent some time ago and not reported. */
export function isDue ({ version, reported, sentAt, attempts }: Wish, nowMs: number): boolean {
  if (sentAt === null) return true
  return reported !== version && attempts < DESIRED_ATTEMPTS_MAX && nowMs - sentAt >= DESIRED_RETRY_MS
}

/** Wishes of the boxes that are online; a box that goes takes its wish along, and its next hello brings it back. */
export function openDesired (deps: DesiredDeps): DesiredState {
  const { device, isOnline, log, nowMs } = deps
  const wishes = new Map<string, Wish>()
  const sending = new Set<string>()

  const step = (tid: string, event: WishEvent): void => {
    const next = stepWish(wishes.get(tid), event, nowMs())
    if (next !== undefined) wishes.set(tid, next)
  }
  const send = async (tid: string): Promise<void> => {
    const source = device(tid)
    if (source === undefined || sending.has(tid)) return
    sending.add(tid)
    try {
      // Counted before it is sent: the box may answer before the publish resolves.
      step(tid, { kind: 'sent' })
      await deps.publish(formatTopic(tid, 'desired'), encodeMessage(desiredOf(source, nowMs())))
    } catch (err) {
      log.debug({ err, tid }, 'what the soundbox should be was not sent yet')
    } finally {
      sending.delete(tid)
      if (wishes.get(tid)?.sentAt === null) void send(tid) // Changed while it was on its way.
    }
  }
  const begin = (tid: string, event: (version: number) => WishEvent): void => {
    const source = device(tid)
    if (source === undefined) return
    step(tid, event(source.desiredVersion))
    void send(tid)
  }
  return {
    handleHello: (tid, hello) => begin(tid, version => ({ kind: 'hello', version, reported: hello.reportedVersion ?? null })),
    handleReported: (tid, { version }) => step(tid, { kind: 'reported', reported: version }),
    handleChanged: tid => { if (isOnline(tid)) begin(tid, version => ({ kind: 'changed', version })) },
    handleOffline: tid => { wishes.delete(tid) },
    isPending: tid => isPending(wishes.get(tid)),
    pendingCount: () => [...wishes.values()].filter(isPending).length,
    tick: () => {
      for (const [tid, wish] of wishes) {
        if (!isDue(wish, nowMs())) continue
        void send(tid)
        if (wish.attempts + 1 === DESIRED_ATTEMPTS_MAX) log.warn({ tid, version: wish.version, reported: wish.reported }, 'soundbox does not report what it should be; last attempt')
      }
    }
  }
}

function isPending (wish: Wish | undefined): boolean {
  return wish !== undefined && wish.reported !== wish.version
}
