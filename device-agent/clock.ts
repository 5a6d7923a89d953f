// Time as an argument: the clock and the timers that the agent's files take, so that tests turn the hands themselves.

/** `nowMs` never jumps with the wall clock (see main.ts). `after` runs `work` once, later; the returned function cancels it. */
export type Clock = { nowMs: () => number, after: (delayMs: number, work: () => void) => () => void }

/** Node's own timers around a source of time. */
export function openClock (nowMs: () => number): Clock {
  return {
    nowMs,
    after: (delayMs, work) => {
      const timer = setTimeout(work, Math.max(0, delayMs))
      return () => clearTimeout(timer)
    }
  }
}
