// A provider over HTTP as a transport: the pure mapping on one side, the client with its policy on the other.
import { SoundboxError, type Secret } from '../../protocol/index.js'
import type { IntegrationConfig } from './config.js'
import type { Issuer, ServiceName } from './contract.js'
import { hostRuleFromUrl, parseHostRule } from './hosts.js'
import { type HttpClientDeps, type HttpTarget, openHttpClient } from './http-client.js'
import type { MappingContext, Provider, ProviderResponse, ServiceMapping, Transport, TransportContext } from './provider.js'

export type HttpTransportDeps = Omit<HttpClientDeps, 'auth'> & { makeTraceId: () => string, makeReference: () => string }

/** The transport of an issuer's provider under its settings. Throws PROVIDER_CONFIG for hosts and keys that do not fit. */
export function httpTransport<I extends Issuer> (provider: Provider<I>, config: IntegrationConfig, deps: HttpTransportDeps): Transport {
  const target = httpTargetFrom(provider, config)
  const auth = provider.openAuth?.({
    params: config.params, nowMs: deps.clock.nowMs, secret: name => secretOf(config.secrets, provider.name, name),
    send: async request => await client.send(
      { traceId: deps.makeTraceId(), actor: 'system:auth', background: true, reference: deps.makeReference(), service: firstServiceOf(provider) }, request, response => response)
  })
  const client = openHttpClient(target, { ...deps, ...(auth === undefined ? {} : { auth }) })
  const mappingOf = <S extends ServiceName>(service: S): ServiceMapping<S> => {
    const mapping = (provider.services as { [N in ServiceName]?: ServiceMapping<N> })[service] as ServiceMapping<S> | undefined
    if (mapping === undefined) throw new SoundboxError('PROVIDER_CONFIG', `${provider.name} does not offer ${service}`)
    return mapping
  }
  const mappingContext = (ctx: TransportContext): MappingContext => ({ nowMs: deps.clock.nowMs(), traceId: ctx.traceId, reference: ctx.reference, params: config.params })
  return {
    kind: 'http',
    name: provider.name,
    has: service => Object.hasOwn(provider.services, service),
    async call (service, input, ctx) {
      const mapping = mappingOf(service)
      const context = mappingContext(ctx)
      return await client.send(ctx, mapping.toRequest(input, context), response => mapping.fromResponse(response, input, context))
    },
    async settle (call, ctx) {
      const { settle } = mappingOf(call.service)
      if (settle === undefined) throw new SoundboxError('PROVIDER_CONFIG', `${provider.name} cannot be asked what became of ${call.service}`)
      const context = mappingContext(ctx)
      return await client.send(ctx, settle.toRequest(call, context), response => settle.fromResponse(response, call, context))
    },
    canSettle: service => mappingOf(service).settle !== undefined,
    close: client.close
  }
}

/** Settings over the provider's defaults. With its own URL an issuer reaches that machine only, unless *_HOSTS names more. */
export function httpTargetFrom (provider: Provider, config: IntegrationConfig): HttpTarget {
  const baseUrl = config.baseUrl ?? provider.baseUrl
  const defaults = config.baseUrl === undefined ? provider.hosts.map(host => parseHostRule(host)) : [hostRuleFromUrl(new URL(config.baseUrl))]
  const hosts = config.hosts ?? defaults.filter(rule => rule !== undefined)
  if (hosts.length === 0) throw new SoundboxError('PROVIDER_CONFIG', `${config.prefix}_HOSTS names no host and ${provider.name} has no default`)
  return {
    issuer: provider.issuer, baseUrl, hosts, uriMap: { ...provider.uriMap, ...config.uriMap }, auditFields: provider.auditFields,
    requiredAuthHeaders: config.requiredAuthHeaders ?? provider.requiredAuthHeaders, config, signing: config.signing, encryption: config.encryption,
    isSuccess: provider.isSuccess, rejectionFrom: provider.rejectionFrom ?? plainRejection
  }
}

function plainRejection (response: ProviderResponse): { code: string, message: string } {
  return { code: String(response.status), message: 'refused' }
}

function firstServiceOf (provider: Provider): ServiceName {
  const [first] = Object.keys(provider.services)
  return first as ServiceName
}

function secretOf (secrets: Readonly<Record<string, Secret>>, provider: string, name: string): string {
  const secret = Object.hasOwn(secrets, name) ? secrets[name] : undefined
  if (secret === undefined) throw new SoundboxError('PROVIDER_CONFIG', `${provider} needs the secret ${name}`)
  return secret.reveal()
}
