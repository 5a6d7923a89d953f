// The one table of recurring work. Each job runs on one node at a time (unless it is local) and never beside itself; a failure is
// logged and the next run tries again.
import { type Log, safeErrorText } from '../../protocol/index.js'
import type { Store } from '../store/contract.js'

/** `isLocal`: works on what this node alone has, so every node runs it. */
export type Job = { name: string, cron: string, what: string, run: () => Promise<void>, isLocal?: true }
export type JobReport = { name: string, cron: string, what: string, runs: number, failures: number, lastAt: number | null, lastMs: number | null, lastError: string | null }

export type JobsDeps = {
  store: Pick<Store, 'exclusively'>
  /** Runs a callback at every match of a cron expression (six fields allowed: seconds first). */
  schedule: (cron: string, callback: () => void) => { stop: () => void }
  nowMs: () => number
  log: Log
}
export type Jobs = { report: () => readonly JobReport[], runNow: (name: string) => Promise<boolean>, close: () => Promise<void> }

/** Starts every job of the table. */
export function startJobs (jobs: readonly Job[], deps: JobsDeps): Jobs {
  const reports = new Map<string, JobReport>(jobs.map(job => [job.name, { name: job.name, cron: job.cron, what: job.what, runs: 0, failures: 0, lastAt: null, lastMs: null, lastError: null }]))
  const running = new Map<string, Promise<void>>()
  const start = (job: Job): Promise<void> => {
    const already = running.get(job.name)
    if (already !== undefined) return already
    const run = runJob(job, deps, reports.get(job.name)).finally(() => { running.delete(job.name) })
    running.set(job.name, run)
    return run
  }
  const timers = jobs.map(job => deps.schedule(job.cron, () => { void start(job) }))
  return {
    report: () => [...reports.values()],
    async runNow (name) {
      const job = jobs.find(candidate => candidate.name === name)
      if (job === undefined) return false
      await start(job)
      return true
    },
    async close () {
      for (const timer of timers) timer.stop()
      await Promise.all(running.values())
    }
  }
}

async function runJob (job: Job, deps: JobsDeps, report: JobReport | undefined): Promise<void> {
  const startedAt = deps.nowMs()
  let error: string | null = null
  try {
    await (job.isLocal === true ? job.run() : deps.store.exclusively(job.name, job.run))
  } catch (err) {
    error = safeErrorText(err)
    deps.log.error({ err, job: job.name }, 'job failed')
  }
  if (report === undefined) return
  report.runs++
  if (error !== null) report.failures++
  Object.assign(report, { lastAt: startedAt, lastMs: deps.nowMs() - startedAt, lastError: error })
}
