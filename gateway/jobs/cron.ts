// The one place that knows node-cron.
import { schedule } from 'node-cron'

/** Runs `callback` at every match; expressions of five fields, or six with seconds first. */
export function scheduleCron (cron: string, callback: () => void): { stop: () => void } {
  const task = schedule(cron, callback, { noOverlap: true })
  return { stop: () => { void task.destroy() } }
}
