// A clock that stands still until the test moves it. Timers run in the order of their time, each at its own moment.
import type { Clock } from '../../gateway/integration/figures.js'

export type ManualClock = Clock & {
  /** Moves time on, running what falls due. */
  advance: (ms: number) => void
  /** Delays of the timers that wait, sorted. */
  waiting: () => number[]
}

export function openManualClock (startMs = 1_767_600_000_000): ManualClock {
  let nowMs = startMs
  let timers: { atMs: number, run: () => void }[] = []
  return {
    nowMs: () => nowMs,
    after (ms, run) {
      const timer = { atMs: nowMs + ms, run }
      timers.push(timer)
      return () => { timers = timers.filter(other => other !== timer) }
    },
    advance (ms) {
      const untilMs = nowMs + ms
      for (;;) {
        const [next] = timers.filter(timer => timer.atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)
        if (next === undefined) break
        timers = timers.filter(other => other !== next)
        nowMs = next.atMs
        next.run()
      }
      nowMs = untilMs
    },
    waiting: () => timers.map(timer => timer.atMs - nowMs).sort((a, b) => a - b)
  }
}

/** Lets everything that is ready run: promises, immediates and arrived I/O. */
export async function settled (turns = 5): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise(resolve => { setImmediate(resolve) })
}

/** Waits for something that the real event loop (not the manual clock) brings; fails the test's way after two seconds. */
export async function until (isTrue: () => boolean, what: string): Promise<void> {
  const endMs = performance.now() + 2_000
  while (!isTrue()) {
    if (performance.now() > endMs) throw new Error(`waited in vain for ${what}`)
    await new Promise(resolve => { setTimeout(resolve, 1) })
  }
}
