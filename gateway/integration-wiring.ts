// The wiring of the integration services in a running gateway: settings and the store's tables -> tokens and sign-in, audit trail, issuers,
// inbox, stand-ins, and what the rest of the gateway takes of them: routes, jobs, a core banking system for switches. Whatever is not configured
// is off: its routes answer PROVIDER_CONFIG, its jobs have nothing to do.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { deriveKey, type Log, makeTimers, SoundboxError } from '../protocol/index.js'
import type { GatewayConfig } from './config.js'
import type { DataDir } from './data-dir.js'
import { openDayMail } from './day-mail.js'
import type { Fallback } from './fallback/contract.js'
import type { Presence } from './fleet/presence.js'
import { inboundRoutes } from './http/inbound-routes.js'
import { integrationAdminRoutes } from './http/integration-admin-routes.js'
import { integrationRoutes } from './http/integration-routes.js'
import type { GaugeReader } from './http/metrics.js'
import { openSignIn, type SignIn } from './http/sign-in.js'
import { type Audit, openAudit } from './integration/audit.js'
import { CALLS_KEEP_MS } from './integration/calls.js'
import type { IntegrationSettings } from './integration/config.js'
import { openClock } from './integration/figures.js'
import { type Integration, openIntegration } from './integration/integration.js'
import { findProvider } from './integration/providers/registry.js'
import { generateSimulatedCbsReport } from './integration/report.js'
import { openSimulator, type Simulator } from './integration/simulation/index.js'
import { smtpTransport } from './integration/smtp-mailer.js'
import { openTokens, type Tokens } from './integration/tokens.js'
import { openTotp } from './integration/totp.js'
import { type Cbs, openCbsTransport, servicesCbs } from './iso8583/cbs.js'
import { parseTarget } from './iso8583/target.js'
import { inBatches, PURGE_BATCH } from './jobs/house-jobs.js'
import type { Job } from './jobs/table.js'
import { openMerchantSide, type MerchantSide } from './merchant-side.js'
import type { Store } from './store/contract.js'
import type { Directory } from './store/directory.js'
import type { IntegrationStore } from './store/integration-records.js'
import { openSqliteStore, type SqliteStore } from './store/sqlite.js'

const DAY_MS = 86_400_000
type Register = (app: FastifyInstance) => Promise<void>

export type IntegrationPartsDeps = {
  config: GatewayConfig, settings: IntegrationSettings, dataDir: DataDir, store: Store | SqliteStore, directory: Directory, fallback: Fallback
  presenceOf: (tid: string) => Presence | undefined, newId: () => string, nowMs: () => number, log: Log
}
export type IntegrationParts = {
  /** Balances and statements for switches; undefined = no core banking system is configured. */
  cbs: Cbs | undefined
  withStandIns: MerchantSide['withStandIns']
  checkMerchant: MerchantSide['checkMerchant']
  signIn: SignIn
  jobs: readonly Job[]
  /** Routes that sign in by token or signature, and those for operators. */
  open: readonly Register[]
  more: readonly Register[]
  gauges: readonly GaugeReader[]
  /** Copies the SQLite file that holds these tables. */
  backup: Store['backup']
  /** Nothing more is begun; resolves when what runs has ended. Before the jobs are closed, which wait for a whole run. */
  stop: () => Promise<void>
  close: () => Promise<void>
}

/** Opens everything, or nothing. Throws PROVIDER_CONFIG, CONFIG_INVALID, and what the store throws. */
export async function openIntegrationParts (deps: IntegrationPartsDeps): Promise<IntegrationParts> {
  const closers: (() => Promise<void> | void)[] = []
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    return { ...await openParts(deps, closers), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function openParts (deps: IntegrationPartsDeps, closers: (() => Promise<void> | void)[]): Promise<Omit<IntegrationParts, 'close'>> {
  const { config, settings, dataDir, store, newId, nowMs, log } = deps
  const local = await localStore(deps, closers)
  const records = local.integration
  const key = (purpose: string): Buffer => deriveKey(dataDir.masterKey, purpose)
  const clock = openClock(nowMs)
  const audit = await openAudit({ store: records.audit, key: key('audit'), clock, log })
  closers.push(audit.close)
  const tokens = await openTokens({ store: records.tokens, key: key('token'), nowMs })
  closers.push(() => tokens.flushUses().catch((err: unknown) => { log.warn({ err }, 'times of last use of tokens were not written') }))
  const simulator = openSimulator(settings, { nowMs, wait: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }) })
  const integration = openIntegration({
    settings, audit, calls: records.calls, sealKey: key('provider-call'), clock, random: Math.random, makeTraceId: newId, makeReference: newId, log,
    factories: {
      http: findProvider, simulated: simulator.transport, smtp: (all, run) => smtpTransport(all.email, { run, nowMs }), iso8583: isoFactory(deps)
    }
  })
  closers.push(integration.close)
  const merchants = await openMerchantSide({ ...deps, records, integration, sealKey: key('merchant-side') })
  closers.push(merchants.close)
  const mail = openDayMail({ config, store, directory: deps.directory, fallback: deps.fallback, presenceOf: deps.presenceOf, records, auditKey: key('audit'), integration, nowMs, log })
  const totp = openTotp({ store: records.totp, key: key('totp'), config: settings.totp, nowMs })
  return {
    signIn: await openSignIn({ operatorToken: dataDir.operatorToken, tokens, totp, nowMs }),
    cbs: integration.transports().cbs === undefined ? undefined : servicesCbs(integration.forBackground('iso8583')),
    withStandIns: merchants.withStandIns,
    checkMerchant: merchants.checkMerchant,
    jobs: [...integrationJobs({ deps, records, integration, tokens }), ...merchants.jobs, ...mail.jobs],
    open: [
      app => integrationRoutes(app, { services: integration, tokens, report: reportOf(settings, simulator), makeTraceId: newId, nowMs, log }),
      app => inboundRoutes(app, { inbound: merchants.inbound })
    ],
    more: [
      app => integrationAdminRoutes(app, { tokens, audit: flushed(records.audit, audit), auditKey: key('audit'), integration }),
      merchants.routes
    ],
    gauges: gaugesOf(integration, audit),
    backup: local.backup,
    stop: merchants.close
  }
}

/** With another store for payments these tables stand in a SQLite file of the data directory. */
async function localStore ({ store, dataDir, nowMs, log }: IntegrationPartsDeps, closers: (() => Promise<void> | void)[]): Promise<SqliteStore> {
  if ('integration' in store) return store
  const local = await openSqliteStore({ path: dataDir.file('integration.db'), log, nowMs })
  closers.push(local.close)
  return local
}

function isoFactory ({ settings, nowMs, log }: IntegrationPartsDeps): (() => ReturnType<typeof openCbsTransport>) | undefined {
  const text = settings.cbs.isoTarget
  if (text === undefined) return undefined
  const target = parseTarget(text, 'CBS_API_ISO_TARGET', readText)
  return () => openCbsTransport({ target, timers: makeTimers(() => performance.now()), nowMs, random: Math.random, log })
}

function readText (path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SoundboxError('CONFIG_INVALID', 'a file that CBS_API_ISO_TARGET names cannot be read', { cause })
  }
}

function reportOf (settings: IntegrationSettings, simulator: Simulator): Parameters<typeof integrationRoutes>[1]['report'] {
  return settings.cbs.simulate ? async query => generateSimulatedCbsReport(simulator.tables(), query) : undefined
}

/** Who reads the trail sees what was recorded a moment ago too. */
function flushed (store: IntegrationStore['audit'], audit: Audit): IntegrationStore['audit'] {
  return {
    ...store,
    page: async (afterSeq, limit) => {
      await audit.flush()
      return await store.page(afterSeq, limit)
    }
  }
}

type JobParts = { deps: IntegrationPartsDeps, records: IntegrationStore, integration: Integration, tokens: Tokens }
function integrationJobs ({ deps: { config, nowMs, log }, records, integration, tokens }: JobParts): readonly Job[] {
  const keptSince = (): number => nowMs() - config.retentionDays * DAY_MS
  return [
    { name: 'provider-settle', isLocal: true, cron: '*/30 * * * * *', what: 'ask providers about calls of unknown state', run: async () => { await integration.settleDue() } },
    { name: 'token-uses', isLocal: true, cron: '40 * * * * *', what: 'write when tokens were used last', run: tokens.flushUses },
    {
      name: 'provider-retention', isLocal: true, cron: '0 45 3 * * *', what: 'forget provider calls after a week, messages and stand-ins with the history', async run () {
        const calls = await inBatches(() => records.calls.purge(nowMs() - CALLS_KEEP_MS, PURGE_BATCH))
        const messages = await inBatches(() => records.inbound.purge(keptSince(), PURGE_BATCH))
        const standIns = await inBatches(() => records.standIns.purge(keptSince(), PURGE_BATCH))
        if (calls + messages + standIns > 0) log.info({ calls, messages, standIns }, 'old records of providers removed')
      }
    }
  ]
}

function gaugesOf (integration: Integration, audit: Audit): readonly GaugeReader[] {
  const sum = (of: (issuer: ReturnType<Integration['health']>[number]) => number): number => integration.health().reduce((total, issuer) => total + of(issuer), 0)
  return [
    { name: 'soundbox_provider_active', help: 'calls to providers on the wire', read: () => sum(issuer => issuer.active) },
    { name: 'soundbox_provider_waiting', help: 'calls to providers that wait for a place', read: () => sum(issuer => issuer.waiting) },
    {
      name: 'soundbox_provider_breakers_open', help: 'hosts of providers that are not asked now',
      read: () => sum(issuer => Object.values(issuer.breakers).filter(state => state !== 'closed').length)
    },
    { name: 'soundbox_audit_waiting', help: 'audit rows that wait for the database', read: () => audit.waiting() }
  ]
}
