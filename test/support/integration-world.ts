// One issuer's client against a provider double, with audit rows and log lines kept, on a clock that the test moves.
import { openAudit, type Audit, type AuditEntry, type AuditRow, type AuditStore } from '../../gateway/integration/audit.js'
import { type IntegrationConfig, parseIntegrationConfig } from '../../gateway/integration/config.js'
import type { Env } from '../../gateway/integration/config-reader.js'
import type { HttpTransportDeps } from '../../gateway/integration/http-transport.js'
import { httpTransport } from '../../gateway/integration/http-transport.js'
import { openPolicy, type Policy } from '../../gateway/integration/policy.js'
import type { Provider, Transport, TransportContext } from '../../gateway/integration/provider.js'
import { optionalTextAt, textAt } from '../../gateway/integration/fields.js'
import type { Log } from '../../protocol/index.js'
import { type ManualClock, openManualClock } from './manual-clock.js'
import { openProviderDouble, type ProviderDouble, type Scenario } from './provider-double.js'

export const AUDIT_KEY = Buffer.alloc(32, 7)

/** Audit rows in memory. `refuse` makes the store fail. */
export function memoryAuditStore (): AuditStore & { rows: AuditRow[], refuse: boolean } {
  const store = {
    rows: [] as AuditRow[],
    refuse: false,
    append: async (rows: readonly AuditRow[]) => {
      if (store.refuse) throw new Error('disk full')
      store.rows.push(...rows)
    },
    last: async () => store.rows.at(-1),
    page: async (afterSeq: number, limit: number) => store.rows.filter(row => row.seq > afterSeq).slice(0, limit)
  }
  return store
}

/** A logger that keeps what it is told. */
export function keepingLog (): Log & { lines: { level: string, fields: object, sentence: string }[] } {
  const lines: { level: string, fields: object, sentence: string }[] = []
  const call = (level: string) => (fields: object, sentence: string): void => { lines.push({ level, fields, sentence }) }
  const log = { lines, info: call('info'), warn: call('warn'), error: call('error'), debug: call('debug'), child: () => log }
  return log
}

/** A provider that shows every road: account name as JSON, the same as XML, an SMS that must not go twice. */
export const TOY: Provider<'cbs'> = {
  issuer: 'cbs',
  name: 'toy',
  baseUrl: 'https://toy.example',
  hosts: ['toy.example:443'],
  requiredAuthHeaders: [],
  uriMap: {
    balance: { method: 'POST', path: '/balance', idempotent: true, auth: 'headers' },
    details: { method: 'GET', path: '/accounts/{account}', idempotent: true, auth: 'basic' },
    statement: { method: 'POST', path: '/statement', idempotent: false, auth: 'none' }
  },
  isSuccess: ({ status, body }) => status < 300 && (typeof body !== 'object' || (optionalTextAt(body, 'code') ?? '600') === '600'),
  rejectionFrom: ({ status, body }) => ({
    code: typeof body === 'object' ? textAt(body, 'code') : String(status), message: typeof body === 'object' ? 'refused by the bank' : 'refused',
    ...(typeof body === 'object' && textAt(body, 'code') === '777' ? { retryAfterMs: 1000 } : {})
  }),
  auditFields: ['account~account', 'code', 'page', 'pin~account', 'balance'],
  services: {
    account_balance_cbs: {
      toRequest: input => ({ uriKey: 'balance', format: 'json', body: { account: input.account_no, pin: 'pin-43', note: 'note-for-nobody' } }),
      fromResponse: ({ body }, input, ctx) => ({
        account_no: input.account_no, currency: 'TZS', ledger: textAt(body, 'balance'), available: textAt(body, 'balance'), cleared: null, held: null, overdraft_limit: null,
        as_of: new Date(ctx.nowMs).toISOString()
      })
    },
    account_details_cbs: {
      toRequest: input => ({ uriKey: 'details', format: 'xml', pathParams: { account: input.account_no }, query: { page: '1', token: 'query-secret' },
        body: { ask: { account: input.account_no } } }),
      fromResponse: ({ body }, input) => ({
        account_no: input.account_no, name: textAt(body, 'answer.name'), cif: textAt(body, 'answer.cif'), type: 'SAVINGS', product: null, currency: 'TZS', status: 'ACTIVE',
          sub_status: null,
        branch: null, opened_on: null
      })
    },
    /** Stands for any call that changes something: its row says idempotent false. */
    mini_statement_cbs: {
      toRequest: input => ({ uriKey: 'statement', format: 'json', body: { account: input.account_no } }),
      fromResponse: ({ body }) => ({ opening: textAt(body, 'balance'), closing: null, rows: [], next: null })
    }
  }
}

/** Every audit row and log line of every world of this process, for the scan at the end. */
export const KEPT: { rows: AuditRow[], lines: object[] } = { rows: [], lines: [] }

export type World = {
  clock: ManualClock
  transport: Transport
  policy: Policy
  audit: Audit
  store: ReturnType<typeof memoryAuditStore>
  log: ReturnType<typeof keepingLog>
  balance: (ctx?: Partial<TransportContext>) => Promise<unknown>
  details: () => Promise<unknown>
  change: (ctx?: Partial<TransportContext>) => Promise<unknown>
  /** Attempts that have ended. */
  attempts: () => number
  /** Everything recorded, flushed. */
  rows: () => Promise<AuditRow[]>
  close: () => Promise<void>
}

/** World and provider double over one scenario; both end with the test. */
export async function over (t: { teardown: (close: () => Promise<void>) => void }, scenario: Scenario, env: Record<string, string> = {},
  options: Parameters<typeof openWorld>[1] = {}): Promise<{ world: World, double: ProviderDouble }> {
  const double = await openProviderDouble(scenario)
  const world = await openWorld({ URL: double.url, ...env }, options)
  t.teardown(async () => {
    await world.close()
    await double.close()
  })
  return { world, double }
}

/** `env`: CBS_API_* without the prefix. `random`: what the jitter draws. */
export async function openWorld (env: Env, options: { provider?: Provider<'cbs'>, clock?: ManualClock, random?: () => number,
  deps?: Partial<HttpTransportDeps> } = {}): Promise<World> {
  const clock = options.clock ?? openManualClock()
  const settings = parseIntegrationConfig({ SOUNDBOX_ENV: 'test', ...Object.fromEntries(Object.entries(env).map(([name, value]) => [`CBS_API_${name}`, value])) }, () => '')
  const config: IntegrationConfig = settings.cbs
  const log = keepingLog()
  const store = memoryAuditStore()
  const audit = await openAudit({ store, key: AUDIT_KEY, clock, log })
  let attempts = 0
  const counting = {
    ...audit,
    record: (entry: AuditEntry) => {
      attempts += 1
      audit.record(entry)
    }
  }
  const policy = openPolicy({ issuer: 'cbs', limits: config.limits, clock, random: options.random ?? (() => 0.5), audit: counting, log })
  let references = 0
  const makeReference = (): string => `ref${++references}`
  const transport = httpTransport(options.provider ?? TOY, config, {
    run: policy.run, clock, nonce: makeReference, log, makeTraceId: () => 'f'.repeat(32), makeReference, ...options.deps
  })
  const ctx = (service: TransportContext['service'], more: Partial<TransportContext> = {}): TransportContext => ({ traceId: 'a'.repeat(32), actor: 'token1',
    background: false, service, reference: makeReference(), ...more })
  return {
    clock, transport, policy, audit, store, log,
    attempts: () => attempts,
    balance: async more => await transport.call('account_balance_cbs', { account_no: '0150245000100' }, ctx('account_balance_cbs', more)),
    details: async () => await transport.call('account_details_cbs', { account_no: '0150245000100' }, ctx('account_details_cbs')),
    change: async more => await transport.call('mini_statement_cbs', { account_no: '0150245000100' }, ctx('mini_statement_cbs', more)),
    rows: async () => {
      await audit.flush()
      return store.rows
    },
    close: async () => {
      await transport.close()
      await audit.close()
      KEPT.rows.push(...store.rows)
      KEPT.lines.push(...log.lines)
    }
  }
}
