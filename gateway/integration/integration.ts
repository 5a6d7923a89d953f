// The wiring of the integration services: settings -> one transport an issuer, each with its own policy and pools -> dispatcher.
// What an issuer becomes: simulated (`*_SIMULATE`), ISO 8583 (cbs only), SMTP (email), else the HTTP provider that the settings name; an
// issuer without any of them stays unconfigured and answers PROVIDER_CONFIG. Issuers share the audit trail and the ledger, nothing else.
import { type Log, SoundboxError } from '../../protocol/index.js'
import type { Audit } from './audit.js'
import { openCallLedger, type CallStore } from './calls.js'
import type { IntegrationConfig, IntegrationSettings } from './config.js'
import { ISSUERS, type Issuer } from './contract.js'
import type { Clock } from './figures.js'
import { httpTransport } from './http-transport.js'
import type { Lookup } from './http-wire.js'
import { openPolicy, type Policy, type PolicyHealth } from './policy.js'
import type { CallRunner, Provider, Transport } from './provider.js'
import { openServices, type Services } from './services.js'

/** How transports come to be that the core does not make itself. `http` throws PROVIDER_CONFIG for a name it does not know. */
export type TransportFactories = {
  http: <I extends Issuer>(issuer: I, name: string) => Provider<I>
  simulated: (issuer: Issuer, settings: IntegrationSettings) => Transport
  smtp: (settings: IntegrationSettings, run: CallRunner) => Transport
  /** Undefined: this gateway has no ISO 8583 peer for the core banking system. */
  iso8583: ((run: CallRunner) => Transport) | undefined
}
/** `random` is in [0, 1). `sealKey` seals what the ledger keeps. `makeReference`: 1 to 32 of [A-Za-z0-9]. `lookup`: DNS, for tests. */
export type IntegrationDeps = {
  settings: IntegrationSettings, factories: TransportFactories, audit: Audit, calls: CallStore, sealKey: Buffer, clock: Clock, random: () => number
  makeTraceId: () => string, makeReference: () => string, log: Log, lookup?: Lookup
}
export type IssuerHealth = { issuer: Issuer, kind: Transport['kind'], provider: string } & PolicyHealth
export type Integration = Services & { health: () => readonly IssuerHealth[] }

/** Opens every configured issuer. Throws PROVIDER_CONFIG for an unknown provider and for hosts or keys that do not fit. */
export function openIntegration (deps: IntegrationDeps): Integration {
  const { settings, clock, audit, log } = deps
  const transports: Partial<Record<Issuer, Transport>> = {}
  const policies = new Map<Issuer, Policy>()
  for (const issuer of ISSUERS) {
    const limits = settings[issuer].limits
    const policy = openPolicy({ issuer, limits, clock, random: deps.random, audit, log: log.child({ issuer }) })
    const transport = transportFrom(deps, issuer, policy.run)
    if (transport === undefined) continue
    transports[issuer] = transport
    policies.set(issuer, policy)
    log.info({ issuer, transport: transport.kind, provider: transport.name }, 'issuer configured')
  }
  if (settings.unknown.length > 0) log.warn({ variables: settings.unknown }, 'settings that mean nothing: check their spelling')
  const ledger = openCallLedger({ store: deps.calls, key: deps.sealKey, nowMs: clock.nowMs, log })
  const services = openServices({ transports, ledger, audit, clock, log, makeTraceId: deps.makeTraceId, makeReference: deps.makeReference })
  return {
    ...services,
    health: () => [...policies].map(([issuer, policy]) => ({ issuer, kind: transports[issuer]!.kind, provider: transports[issuer]!.name, ...policy.health() }))
  }
}

function transportFrom (deps: IntegrationDeps, issuer: Issuer, run: CallRunner): Transport | undefined {
  const { settings, factories } = deps
  if (settings[issuer].simulate) return factories.simulated(issuer, settings)
  if (issuer === 'email') return settings.email.host === undefined ? undefined : factories.smtp(settings, run)
  if (issuer === 'cbs' && settings.cbs.transport === 'iso8583') {
    if (factories.iso8583 === undefined) throw new SoundboxError('PROVIDER_CONFIG', 'CBS_API_TRANSPORT=iso8583 needs the switch that CBS_API_ISO_TARGET_FILE describes')
    return factories.iso8583(run)
  }
  const config = httpConfigOf(settings, issuer)
  if (config.provider === undefined) return undefined
  return httpTransport(factories.http(issuer, config.provider), config, {
    run, clock: deps.clock, nonce: deps.makeReference, log: deps.log, makeTraceId: deps.makeTraceId, makeReference: deps.makeReference,
    ...(deps.lookup === undefined ? {} : { lookup: deps.lookup })
  })
}

/** The issuer's settings with its own extra ones put where mappings look: params and secrets. */
function httpConfigOf (settings: IntegrationSettings, issuer: Exclude<Issuer, 'email'>): IntegrationConfig {
  switch (issuer) {
    case 'sms': return withParam(settings.sms, 'sender_id', settings.sms.senderId)
    case 'kyc': return withParam(settings.kyc, 'workflow_id', settings.kyc.workflowId)
    case 'push': return settings.push.serviceAccount === undefined ? settings.push : { ...settings.push,
      secrets: { service_account: settings.push.serviceAccount, ...settings.push.secrets } }
    case 'cbs': case 'bill': return settings[issuer]
    default: return issuer satisfies never
  }
}

function withParam (config: IntegrationConfig, name: string, value: string | undefined): IntegrationConfig {
  return value === undefined ? config : { ...config, params: { [name]: value, ...config.params } }
}
