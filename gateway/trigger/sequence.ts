// Order numbers of announcements.

/** Numbers that grow across restarts without being stored: microseconds of the clock, never the same twice, never smaller. */
export function makeSequence (nowMs: () => number): () => number {
  let last = 0
  return () => {
    last = Math.max(last + 1, Math.floor(nowMs() * 1000))
    return last
  }
}
