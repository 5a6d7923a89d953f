// Time as an argument: shells take their clock and their waiting from here, tests give a clock that jumps.

/** `nowMs` never goes back (performance.now, not the clock on the wall, which NTP moves). `after` returns the way to call it off. */
export type Timers = { nowMs: () => number, after: (ms: number, run: () => void) => () => void }

/** Timers of the running process on a monotonic clock in milliseconds. */
export function makeTimers (nowMs: () => number): Timers {
  return {
    nowMs,
    after: (ms, run) => {
      const timer = setTimeout(run, Math.max(0, ms))
      return () => { clearTimeout(timer) }
    }
  }
}
