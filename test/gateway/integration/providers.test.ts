// Every provider's mapping, both directions, against test/vectors/integration/providers.json; and the bad answers of each.
import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { parseServiceRequest, parseServiceResponse, SERVICES, type Issuer, type ServiceName } from '../../../gateway/integration/contract.js'
import { httpTargetFrom } from '../../../gateway/integration/http-transport.js'
import type { MappingContext, Provider, ProviderRequest, ProviderResponse, ServiceMapping } from '../../../gateway/integration/provider.js'
import { kycStatusFromDidit } from '../../../gateway/integration/providers/kyc-didit.js'
import { findProvider, PROVIDERS } from '../../../gateway/integration/providers/registry.js'

type Reply = { status: number, body?: unknown }
type Vector = {
  provider: string, issuer: Issuer, service: ServiceName, source: string, input: unknown, params: Record<string, string>
  request: ProviderRequest, reply: Reply, data: unknown, refusals: { why: string, reply: Reply, code: string }[]
}
const FILE = JSON.parse(readFileSync('test/vectors/integration/providers.json', 'utf8')) as { context: Omit<MappingContext, 'params'>, vectors: Vector[] }

const answerOf = (reply: Reply): ProviderResponse => ({ status: reply.status, headers: {}, body: reply.body })
const contextOf = (params: Record<string, string> = {}): MappingContext => ({ ...FILE.context, params })
const mappingOf = (provider: Provider, service: ServiceName): ServiceMapping<ServiceName> =>
  (provider.services as Record<string, ServiceMapping<ServiceName>>)[service]!
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value)) // Absent and undefined are one thing on the wire.

for (const [index, vector] of FILE.vectors.entries()) {
  const provider = findProvider(vector.issuer, vector.provider)
  const mapping = mappingOf(provider, vector.service)
  const ctx = contextOf(vector.params)
  t.test(`${index + 1}: ${vector.provider} ${vector.service} asks and reads as its documentation says`, async t => {
    const input = parseServiceRequest(vector.service, vector.input)
    t.same(plain(mapping.toRequest(input, ctx)), vector.request)
    t.ok(Object.hasOwn(provider.uriMap, vector.request.uriKey), 'the uri_map has the row')
    const answer = answerOf(vector.reply)
    t.equal(provider.isSuccess(answer, vector.request.uriKey), true)
    const data = mapping.fromResponse(answer, input, ctx)
    t.same(data, vector.data)
    t.same(parseServiceResponse(vector.service, data), vector.data, 'the answer keeps the contract')
  })
  if (vector.refusals.length > 0) {
    t.test(`${index + 1}: ${vector.provider} sees a refusal whatever HTTP says, and repeats no text of it`, async t => {
      for (const { why, reply, code } of vector.refusals) {
        t.equal(provider.isSuccess(answerOf(reply), vector.request.uriKey), false, why)
        const rejection = provider.rejectionFrom!(answerOf(reply), vector.request.uriKey)
        t.equal(rejection.code, code, why)
        t.notMatch(rejection.message, /asha|mfano|010200|255000|91000|credits,/i, why)
      }
    })
  }
}

t.test('every service of every provider has a vector', async t => {
  const seen = new Set(FILE.vectors.map(({ provider, service }) => `${provider} ${service}`))
  for (const provider of Object.values(PROVIDERS).flat() as Provider[]) {
    for (const service of Object.keys(provider.services)) t.ok(seen.has(`${provider.name} ${service}`), `${provider.name} ${service}`)
  }
})

t.test('a provider is whole: its own issuer, lower-case auth headers, hosts that fit its URL, rows that are used', async t => {
  for (const [issuer, providers] of Object.entries(PROVIDERS)) {
    t.equal(new Set(providers.map(provider => provider.name)).size, providers.length, `${issuer}: names are unique`)
    for (const provider of providers as readonly Provider[]) {
      t.equal(provider.issuer, issuer)
      t.match(provider.baseUrl, /^https:\/\//)
      for (const name of provider.requiredAuthHeaders) t.equal(name, name.toLowerCase())
      const host = `${new URL(provider.baseUrl).hostname}:443`
      t.ok(provider.baseUrl.endsWith('.invalid') ? provider.hosts.length === 0 : provider.hosts.includes(host), `${provider.name} reaches ${host}`)
      for (const field of provider.auditFields) t.notMatch(field, /(?:full_?name|first_?name|last_?name|account_?name|text|message|password|token|email|body)$/i, `${provider.name} audits ${field}`)
    }
  }
})

t.test('calls that send something may not be repeated, lookups may', async t => {
  for (const provider of Object.values(PROVIDERS).flat() as Provider[]) {
    for (const [key, row] of Object.entries(provider.uriMap)) {
      const sends = ['sms', 'push'].includes(provider.issuer) ? key !== 'token' : key === 'session'
      t.equal(row.idempotent, !sends, `${provider.name} ${key}`)
    }
  }
})

t.test('an unknown provider is named with those that exist', async t => {
  t.throws(() => findProvider('sms', 'pigeon'), { code: 'PROVIDER_CONFIG', message: /beem, africastalking, msg91/ })
  t.throws(() => findProvider('email', 'x'), { code: 'PROVIDER_CONFIG', message: /none/ })
})

t.test('a setting that a mapping needs is named when it is missing', async t => {
  for (const [issuer, name, service, input, setting] of [
    ['cbs', 'tips', 'account_details_cbs', { account_no: '0102' }, /CLIENT_ID/],
    ['cbs', 'tips', 'mno_validate_cbs', { mno: 'NOBODY', msisdn: '+255000000001' }, /MNO_NOBODY/],
    ['bill', 'flutterwave', 'biller_category_bill', {}, /COUNTRY/],
    ['sms', 'beem', 'send_sms_message', { to: ['+255000000001'], text: 'x', client_ref: 'a' }, /SENDER_ID/],
    ['sms', 'africastalking', 'send_sms_message', { to: ['+255000000001'], text: 'x', client_ref: 'a' }, /USERNAME/],
    ['sms', 'msg91', 'send_sms_message', { to: ['+255000000001'], text: 'x', client_ref: 'a' }, /TEMPLATE_ID/],
    ['push', 'fcm', 'send_push_message', { token: 't', title: 'a', body: 'b', client_ref: 'a' }, /PROJECT/],
    ['kyc', 'didit', 'start_session_kyc', { vendor_data: 'm', client_ref: 'a' }, /WORKFLOW_ID/]
  ] as const) {
    const mapping = mappingOf(findProvider(issuer, name), service)
    const ctx = contextOf(service === 'mno_validate_cbs' ? { source_id: '1' } : {})
    t.throws(() => mapping.toRequest(input as never, ctx), { code: 'PROVIDER_CONFIG', message: setting }, `${name} ${service}`)
  }
})

t.test('answers without a needed field are refused with the path, not with values', async t => {
  for (const [issuer, name, service, body, path] of [
    ['cbs', 'tips', 'account_details_cbs', { statusCode: 600, body: { custAcNo: '0102', firstName: 'ASHA' } }, /body\.currency/],
    ['cbs', 'tips', 'account_details_cbs', { statusCode: 600, body: { custAcNo: '0102', currency: 'TZS' } }, /body\.fullName/],
    ['cbs', 'rest', 'account_balance_cbs', { code: '00', data: { accountNumber: '0102', currency: 'TZS', ledger: 'ASHA' } }, /ledger/],
    ['cbs', 'rest', 'mini_statement_cbs', { code: '00', data: { rows: [{ id: '1', bookedAt: 'x', valueDate: 'x', drCr: 'ASHA', amount: '1' }] } }, /drCr/],
    ['cbs', 'rest', 'account_search_cbs', { code: '00', data: ['ASHA'] }, /data\[0\]/],
    ['bill', 'flutterwave', 'biller_category_bill', { status: 'success', data: [{ code: 'X' }] }, /name/],
    ['sms', 'beem', 'send_sms_message', { code: 100 }, /request_id/],
    ['push', 'fcm', 'send_push_message', {}, /name/],
    ['kyc', 'didit', 'fetch_decision_kyc', { session_id: 's', status: 'Asha' }, /status/]
  ] as const) {
    const mapping = mappingOf(findProvider(issuer, name), service)
    const input = { account_no: '0102', to: ['+255000000001'], text: 'x', client_ref: 'a' }
    let message = ''
    try { mapping.fromResponse(answerOf({ status: 200, body }), input as never, contextOf()) } catch (error) {
      t.equal((error as { code: string }).code, 'PROVIDER_RESPONSE_INVALID', `${name} ${service}`)
      message = (error as Error).message
    }
    t.match(message, path)
    t.notMatch(message, /ASHA/i)
  }
})

t.test('TIPS finds banks by scheme id only', async t => {
  const mapping = mappingOf(findProvider('cbs', 'tips'), 'interbank_account_name_cbs')
  t.throws(() => mapping.toRequest({ bic: 'KLLZTZT0', account_no: '1234', identifier_type: 'BANK' } as never, contextOf({ source_id: '1' })), { code: 'INPUT_INVALID' })
})

t.test('a push keeps within 4096 bytes and leaves the keys of Firebase alone', async t => {
  const mapping = mappingOf(findProvider('push', 'fcm'), 'send_push_message')
  const ctx = contextOf({ project: 'demo' })
  const input = { token: 'fcm-token-0001', title: 'a', body: 'b', client_ref: 'a' }
  const frame = Buffer.byteLength(JSON.stringify({ notification: { title: 'a', body: 'b' }, data: { k1: '', k2: '', k3: '', k4: '', k5: '' } }))
  const filled = (bytes: number): object => {
    const sizes = [1000, 1000, 1000, bytes - frame - 3000, 0]
    return { ...input, data: Object.fromEntries(sizes.map((size, index) => [`k${index + 1}`, 'x'.repeat(size)])) }
  }
  t.doesNotThrow(() => mapping.toRequest(filled(4096) as never, ctx))
  t.throws(() => mapping.toRequest(filled(4097) as never, ctx), { code: 'INPUT_INVALID', message: /4097 bytes/ })
  for (const key of ['from', 'message_type', 'google_x', 'gcm']) t.throws(() => mapping.toRequest({ ...input, data: { [key]: '1' } } as never, ctx), { code: 'INPUT_INVALID' }, key)
})

t.test('all nine words of Didit are known, a new one is no guess', async t => {
  t.same(['Not Started', 'In Progress', 'Awaiting User', 'In Review', 'Approved', 'Declined', 'Abandoned', 'Resubmitted', 'Expired'].map(kycStatusFromDidit),
    ['NOT_STARTED', 'IN_PROGRESS', 'AWAITING_USER', 'IN_REVIEW', 'APPROVED', 'DECLINED', 'ABANDONED', 'RESUBMITTED', 'EXPIRED'])
  for (const word of ['Paused', '', 'constructor', '__proto__']) t.throws(() => kycStatusFromDidit(word), { code: 'PROVIDER_RESPONSE_INVALID' }, word)
})

const SETTINGS = 'gateway/integration/providers/settings'
function settingsOf (name: string): Record<string, string> {
  const lines = readFileSync(`${SETTINGS}/${name}.env`, 'utf8').split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return Object.fromEntries(lines.map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
}

t.test('every provider has a settings file that is complete: copy it, put the secrets in, and each of its services can ask', async t => {
  const names = (Object.values(PROVIDERS).flat() as Provider[]).map(provider => provider.name)
  t.same(readdirSync(SETTINGS).sort(), [...names, 'smtp'].map(name => `${name}.env`).sort())
  for (const [issuer, providers] of Object.entries(PROVIDERS) as [Exclude<Issuer, 'email'>, readonly Provider[]][]) {
    for (const provider of providers) {
      const settings = parseIntegrationConfig(settingsOf(provider.name), path => path.endsWith('.json') ? '{"project_id":"demo"}' : 'from a file')
      t.same(settings.unknown, [], `${provider.name}: no variable without a meaning`)
      const config = settings[issuer]
      t.equal(config.provider, provider.name)
      const target = httpTargetFrom(provider, config)
      const configured = [...Object.keys(config.headers), ...(config.basic === undefined ? [] : ['authorization'])]
      for (const header of target.requiredAuthHeaders) t.ok(configured.includes(header), `${provider.name} has ${header}`)
      const own = { ...(settings.sms.senderId === undefined ? {} : { sender_id: settings.sms.senderId }), ...(settings.kyc.workflowId === undefined ? {} : { workflow_id: settings.kyc.workflowId }) }
      for (const service of Object.keys(provider.services) as ServiceName[]) {
        const request = mappingOf(provider, service).toRequest(SERVICES[service].example.request as never, contextOf({ ...own, ...config.params }))
        t.ok(Object.hasOwn(target.uriMap, request.uriKey), `${provider.name} ${service}`)
      }
    }
  }
  const { email, unknown } = parseIntegrationConfig(settingsOf('smtp'), () => 'from a file')
  t.match([email.host, email.security, unknown], ['mail.bank.example', 'starttls', []])
})
