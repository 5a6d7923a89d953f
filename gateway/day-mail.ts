// The operator's daily mail: the day's totals out of history, fleet and audit trail, sent once. A mail that could not go is tried again at
// the next time of SOUNDBOX_REPORT_CRON with the same content; its client_ref is the day's, so that none goes twice, restart or not.
import { isSoundboxError, type Log, SoundboxError } from '../protocol/index.js'
import type { GatewayConfig } from './config.js'
import type { Fallback } from './fallback/contract.js'
import type { Presence } from './fleet/presence.js'
import { verifyAudit } from './integration/audit.js'
import { dailyReportMail, type DayBank, type DayDeliveries, type DayTotals } from './integration/daily-report.js'
import type { Integration } from './integration/integration.js'
import type { Job } from './jobs/table.js'
import { type Delivery, HISTORY_PAGE_MAX, isFinal, type Store, type StoredPayment } from './store/contract.js'
import type { Directory } from './store/directory.js'
import type { IntegrationStore } from './store/integration-records.js'

const DAY_MS = 86_400_000
/** Latencies are counted in steps of this: a day of any length fits into a few thousand counters. */
const LATENCY_STEP_MS = 10

export type DayMailDeps = {
  config: Pick<GatewayConfig, 'reportTo' | 'reportCron' | 'utcOffsetMinutes' | 'host'>, store: Pick<Store, 'queryHistory'>, directory: Pick<Directory, 'devices'>
  fallback: Pick<Fallback, 'depth'>, presenceOf: (tid: string) => Presence | undefined, records: Pick<IntegrationStore, 'audit' | 'standIns'>, auditKey: Buffer
  integration: Pick<Integration, 'forBackground' | 'transports'>, nowMs: () => number, log: Log
}

/** The job, when somebody is to get the mail. Throws CONFIG_INVALID when nobody could send it. */
export function openDayMail (deps: DayMailDeps): { jobs: readonly Job[] } {
  const [first, ...others] = deps.config.reportTo
  if (first === undefined) return { jobs: [] }
  if (deps.integration.transports().email === undefined) throw new SoundboxError('CONFIG_INVALID', 'SOUNDBOX_REPORT_TO needs e-mail: set EMAIL_SMTP_HOST and EMAIL_SMTP_FROM')
  let mail: { day: string, request: ReturnType<typeof dailyReportMail>, isSent: boolean } | undefined
  const run = async (): Promise<void> => {
    const { day, since } = dayBefore(deps.nowMs(), deps.config.utcOffsetMinutes)
    if (mail?.day !== day) mail = { day, request: dailyReportMail(await dayTotals(deps, day, since), [first, ...others]), isSent: false }
    if (mail.isSent) return
    await sendOnce(deps, mail.request)
    mail.isSent = true
    deps.log.info({ day }, 'daily mail sent')
  }
  return { jobs: [{ name: 'daily-mail', cron: deps.config.reportCron, what: 'send the operator the totals of the day before', run }] }
}

/** Another content under this day's client_ref means that an earlier life of the gateway has sent it, or may have. */
async function sendOnce ({ integration, log }: DayMailDeps, request: ReturnType<typeof dailyReportMail>): Promise<void> {
  try {
    await integration.forBackground('daily-mail').call('send_email_message', request)
  } catch (error) {
    if (!isSoundboxError(error, 'ALREADY_EXISTS')) throw error
    log.warn({ clientRef: request.client_ref }, 'the daily mail was sent, or tried, before a restart: it is not sent again')
  }
}

/** The last whole day at the operator's place, and when it began. Pure. */
export function dayBefore (nowMs: number, utcOffsetMinutes: number): { day: string, since: number } {
  const since = localMidnight(nowMs, utcOffsetMinutes) - DAY_MS
  return { day: new Date(since + utcOffsetMinutes * 60_000).toISOString().slice(0, 10), since }
}

/** Midnight before `nowMs` in the zone of this offset. Pure. */
export function localMidnight (nowMs: number, utcOffsetMinutes: number): number {
  const offsetMs = utcOffsetMinutes * 60_000
  return Math.floor((nowMs + offsetMs) / DAY_MS) * DAY_MS - offsetMs
}

/** The totals of the 24 hours from `since`. History is read page by page: no other query waits for it. */
export async function dayTotals (deps: DayMailDeps, day: string, since: number): Promise<DayTotals> {
  const until = since + DAY_MS
  const count = openCount()
  let cursor: string | null = null
  do {
    const page = await deps.store.queryHistory({ since, until, limit: HISTORY_PAGE_MAX, ...(cursor === null ? {} : { cursor }) })
    for (const row of page.rows) count.add(row)
    cursor = page.next
  } while (cursor !== null)
  const active = deps.directory.devices().filter(device => device.status === 'active')
  const standIns = new Map((await deps.records.standIns.countByState(since, until)).map(row => [row.state, row.count]))
  const verdict = await verifyAudit(deps.records.audit, deps.auditKey)
  return {
    day, gateway: `Soundbox gateway on ${deps.config.host}`, ...count.totals(),
    devices: { active: active.length, silent: active.filter(({ tid }) => (deps.presenceOf(tid)?.seenAt ?? 0) < since && deps.presenceOf(tid)?.online !== true).map(({ tid }) => tid) },
    standIns: { sent: standIns.get('sent') ?? 0, failed: standIns.get('failed') ?? 0, unknown: standIns.get('unknown') ?? 0 },
    fallback: { waiting: deps.fallback.depth() },
    providers: await deps.records.audit.countByIssuer(since, until), audit: { rows: verdict.ok ? verdict.rows : verdict.seq, ok: verdict.ok }
  }
}

function openCount (): { add: (row: StoredPayment) => void, totals: () => Pick<DayTotals, 'banks' | 'deliveries' | 'latency'> } {
  const banks = new Map<string, DayBank>()
  const deliveries: DayDeliveries = { spoken: 0, duplicate: 0, summarised: 0, muted: 0, expired: 0, failed: 0, handed: 0, open: 0 }
  const steps = new Map<number, number>()
  return {
    add ({ payment, deliveries: rows, reversedAt }) {
      const key = `${payment.bankId}\0${payment.currency}`
      const bank = banks.get(key) ?? { name: payment.bankId, currency: payment.currency, payments: 0, amountMinor: 0, failed: 0, reversed: 0 }
      banks.set(key, bank)
      if (payment.status === 'failed') bank.failed++
      else {
        bank.payments++
        bank.amountMinor += payment.amountMinor
        if (reversedAt !== null) bank.reversed++
      }
      for (const row of rows) countDelivery(row, payment.acceptedAt, deliveries, steps)
    },
    totals: () => ({ banks: [...banks.values()].sort((a, b) => (a.name < b.name ? -1 : 1)), deliveries, latency: latencyOf(steps) })
  }
}

function countDelivery ({ state, finalAt }: Delivery, acceptedAt: number, deliveries: DayDeliveries, steps: Map<number, number>): void {
  if (!isFinal(state)) deliveries.open++
  else if (Object.hasOwn(deliveries, state)) deliveries[state as keyof DayDeliveries]++
  if (state !== 'spoken' || finalAt === null) return
  const step = Math.ceil((finalAt - acceptedAt) / LATENCY_STEP_MS)
  steps.set(step, (steps.get(step) ?? 0) + 1)
}

function latencyOf (steps: ReadonlyMap<number, number>): DayTotals['latency'] {
  const sorted = [...steps].sort(([a], [b]) => a - b)
  const total = sorted.reduce((sum, [, count]) => sum + count, 0)
  const at = (share: number): number => {
    let left = Math.ceil(total * share)
    for (const [step, count] of sorted) {
      left -= count
      if (left <= 0) return step * LATENCY_STEP_MS
    }
    return 0
  }
  return total === 0 ? null : { p50Ms: at(0.5), p99Ms: at(0.99) }
}
