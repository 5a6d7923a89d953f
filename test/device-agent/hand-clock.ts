// A clock whose hands the test turns: timers run in order, inside `turn`, and never by themselves.
import type { Timers } from '../../protocol/index.js'

export function handClock (): Timers & { turn: (ms: number) => void, timers: () => number, waitForTimer: () => Promise<void> } {
  const timers = new Set<{ atMs: number, work: () => void }>()
  let nowMs = 0
  let onTimer = (): void => {}
  return {
    nowMs: () => nowMs,
    after: (delayMs, work) => {
      const timer = { atMs: nowMs + delayMs, work }
      timers.add(timer)
      onTimer()
      return () => timers.delete(timer)
    },
    /** Moves on, running what falls due on the way. */
    turn: ms => {
      const end = nowMs + ms
      for (;;) {
        const next = [...timers].filter(timer => timer.atMs <= end).sort((a, b) => a.atMs - b.atMs)[0]
        if (next === undefined) break
        timers.delete(next)
        nowMs = next.atMs
        next.work()
      }
      nowMs = end
    },
    timers: () => timers.size,
    /** Resolves when at least one timer is set. */
    waitForTimer: () => timers.size > 0 ? Promise.resolve() : new Promise(resolve => { onTimer = resolve })
  }
}
