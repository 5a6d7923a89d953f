// `soundbox sim mqtt`: runs a fleet until its time is over or a signal comes, then reports.
import type { Log } from '../protocol/index.js'
import { startFleet } from './fleet.js'
import type { FleetSettings } from './fleet-settings.js'
import { formatReport } from './report.js'

export type FleetCommandDeps = {
  nowMs: () => number
  log: Log
  /** The report, on standard output; progress, on standard error. */
  print: (text: string) => void
  progress: (text: string) => void
  /** Resolves when somebody wants the end. */
  stopped: Promise<void>
}

/** The exit code: 1 when a box said something twice, else 0. */
export async function runFleetCommand (settings: FleetSettings, { nowMs, log, print, progress, stopped }: FleetCommandDeps): Promise<number> {
  const { ca, runMs, progressMs, json, ...rest } = settings
  const startedAt = nowMs()
  const fleet = startFleet({ ...rest, ...(ca === undefined ? {} : { ca }), nowMs, log })
  const tell = (): void => {
    const { up, boxes, received, spoken, doubles } = fleet.report()
    progress(`${Math.round((nowMs() - startedAt) / 1000)} s: ${up} of ${boxes} connected, received ${received}, spoken ${spoken}, doubles ${doubles}`)
  }
  const ticker = progressMs > 0 ? setInterval(tell, progressMs) : undefined
  let timer: NodeJS.Timeout | undefined
  await Promise.race([stopped, ...(runMs > 0 ? [new Promise<void>(resolve => { timer = setTimeout(resolve, runMs) })] : [])])
  clearTimeout(timer)
  clearInterval(ticker)
  const report = fleet.report()
  await fleet.close()
  print(json ? JSON.stringify(report) : formatReport(report))
  return report.doubles > 0 ? 1 : 0
}
