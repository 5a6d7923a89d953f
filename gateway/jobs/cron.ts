// The one place that knows node-cron.
import { schedule } from 'node-cron'

const SILENT = { info: () => {}, warn: () => {}, error: () => {}, debug: () => {} }
/** A nightly job that the machine slept through is made up for. */
const LATE_MS_MAX = 3_600_000

/** Runs `callback` at every match; expressions of five fields, or six with seconds first. */
export function scheduleCron (cron: string, callback: () => void): { stop: () => void } {
  // Its own words would go to standard error beside our log; a run that a busy loop made late is still run.
  const task = schedule(cron, callback, { noOverlap: true, suppressMissedWarning: true, logger: SILENT, missedExecutionTolerance: LATE_MS_MAX })
  return { stop: () => { void task.destroy() } }
}
