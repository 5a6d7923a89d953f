// Where providers meet the shop, put together: the inbox of provider messages, stand-ins, identity checks and the check of a merchant
// before he is mapped; with their jobs and the operator's routes.
import { createHash } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { type Log, SoundboxError } from '../protocol/index.js'
import type { GatewayConfig } from './config.js'
import type { CheckForm } from './http/merchant-check.js'
import { type IdentityView, merchantRoutes } from './http/merchant-routes.js'
import type { IntegrationSettings } from './integration/config.js'
import { type Inbound, type InboundEntry, inboundSourcesFromSettings, openInbound } from './integration/inbound.js'
import type { InboundEvent } from './integration/inbound-events.js'
import type { Integration } from './integration/integration.js'
import { checkMerchant, type OnboardingDecision } from './integration/onboarding.js'
import type { Job } from './jobs/table.js'
import { type MerchantName, openStandInBook } from './stand-in-book.js'
import type { Store } from './store/contract.js'
import type { Directory } from './store/directory.js'
import type { InboundRow, IntegrationStore } from './store/integration-records.js'
import type { Announce } from './trigger/announce.js'

export type MerchantSideDeps = {
  config: Pick<GatewayConfig, 'merchantCheck' | 'utcOffsetMinutes'>, settings: IntegrationSettings, records: IntegrationStore, store: Pick<Store, 'findPayment'>
  directory: Pick<Directory, 'bankById'>, integration: Integration, sealKey: Buffer, nowMs: () => number, log: Log
}
export type MerchantSide = {
  inbound: Inbound
  withStandIns: (announce: Announce) => Announce
  /** Before a mapping by the operator. Null = nothing was asked. Throws MERCHANT_REFUSED, INPUT_INVALID. */
  checkMerchant: (of: MerchantName, form: CheckForm | undefined) => Promise<OnboardingDecision | null>
  jobs: readonly Job[]
  routes: (app: FastifyInstance) => Promise<void>
  close: () => Promise<void>
}

/** Opens it. Throws SECRET_UNREADABLE, STORE_FAILED. */
export async function openMerchantSide (deps: MerchantSideDeps): Promise<MerchantSide> {
  const { config, settings, records, nowMs, log } = deps
  const book = await openStandInBook({ ...deps, records: records.standIns, utcOffsetMinutes: config.utcOffsetMinutes, senderId: settings.sms.senderId })
  const inbound = openInbound({
    sources: inboundSourcesFromSettings(settings),
    async keep (entries) {
      const fresh = new Set(await records.inbound.keep(entries.map(inboundRow)))
      return entries.filter(entry => fresh.has(entry.key))
    },
    due: async (now, limit) => (await records.inbound.due(now, limit)).map(inboundEntry),
    save: entry => records.inbound.save(inboundRow(entry)),
    process: event => processEvent(deps, event),
    nowMs, log
  })
  const check = (of: MerchantName, form: CheckForm): Promise<OnboardingDecision> => decide(deps, of, form)
  return {
    inbound,
    withStandIns: book.wrap,
    checkMerchant: (of, form) => checkBeforeMapping(deps, of, form),
    jobs: [
      { name: 'provider-messages', isLocal: true, cron: '*/5 * * * * *', what: 'process what providers sent', run: inbound.run },
      { name: 'stand-ins', isLocal: true, cron: '* * * * * *', what: 'send SMS, push or e-mail where no box has spoken', run: book.standIns.run }
    ],
    routes: app => merchantRoutes(app, {
      policies: book.policies, setPolicy: book.setPolicy, removePolicy: book.removePolicy, newestStandIns: book.newest, check,
      openIdentity: (of, callback) => openIdentity(deps, of, callback),
      findIdentity: async of => identityView(await records.identities.findIdentity(of.bankId, of.merchant.toLowerCase()))
    }),
    async close () {
      await inbound.close()
      await book.standIns.close()
    }
  }
}

/** May run twice for one event. An SMS report ends the stand-in that it is about; of any other SMS it is news for the log. */
async function processEvent ({ records, nowMs, log }: MerchantSideDeps, event: InboundEvent): Promise<void> {
  switch (event.kind) {
    case 'kyc': {
      const isOurs = await records.identities.noteIdentity({ sessionId: event.sessionId, status: event.status, saidAt: event.atMs ?? nowMs() })
      log[isOurs ? 'info' : 'warn']({ sessionId: event.sessionId, status: event.status }, isOurs ? 'identity check changed' : 'an identity check that is not ours changed')
      return
    }
    case 'sms': {
      const { provider, providerId, outcome, reason } = event
      if (outcome !== 'PENDING') {
        const report = outcome === 'DELIVERED' ? { state: 'sent' as const, reason: 'delivered' } : { state: 'failed' as const, reason: `not delivered${reason === null ? '' : `: ${reason}`}` }
        const noted = await records.standIns.report(providerId, { ...report, at: nowMs() })
        if (noted === 'sending') throw new SoundboxError('OVERLOADED', 'the stand-in of this report is still being sent')
      }
      log[outcome === 'FAILED' ? 'warn' : 'info']({ provider, providerId, outcome, reason }, 'SMS delivery reported')
      return
    }
    default: event satisfies never
  }
}

/** The merchant as identity checks know him. */
function subjectOf ({ bankId, merchant }: MerchantName): string {
  return `${bankId}/${merchant.toLowerCase()}`
}

async function decide ({ config, records, integration }: MerchantSideDeps, of: MerchantName, form: CheckForm): Promise<OnboardingDecision> {
  const session = form.kycSession ?? (await records.identities.findIdentity(of.bankId, of.merchant.toLowerCase()))?.sessionId ?? null
  return await checkMerchant(integration.forBackground('onboarding').call, {
    merchant: subjectOf(of), names: form.names, settlement: form.settlement, kycSession: session, needsIdentity: config.merchantCheck === 'full'
  })
}

async function checkBeforeMapping (deps: MerchantSideDeps, of: MerchantName, form: CheckForm | undefined): Promise<OnboardingDecision | null> {
  const hasMerchant = deps.directory.bankById(of.bankId)?.database === true
  if (form === undefined) {
    if (deps.config.merchantCheck === 'off' || !hasMerchant) return null
    throw new SoundboxError('INPUT_INVALID', 'SOUNDBOX_MERCHANT_CHECK asks for a check: give name and account (or wallet) of the merchant')
  }
  if (!hasMerchant) throw new SoundboxError('INPUT_INVALID', 'only a merchant of a bank with database can be checked')
  const decision = await decide(deps, of, form)
  const { verdict, reasons, nameScore } = decision
  deps.log.info({ bankId: of.bankId, merchant: of.merchant, verdict, reasons, nameScore, accepted: form.acceptReview === true }, 'merchant checked')
  if (verdict === 'approve' || (verdict === 'review' && form.acceptReview === true)) return decision
  throw new SoundboxError('MERCHANT_REFUSED', `the merchant was not mapped (${verdict}): ${reasons.join(', ')}`)
}

/** One check a merchant and day: asked again, the provider is not. Throws NOT_FOUND, the PROVIDER_* codes. */
async function openIdentity ({ directory, records, integration, nowMs }: MerchantSideDeps, of: MerchantName, callback: string | undefined): Promise<IdentityView & { url: string }> {
  if (directory.bankById(of.bankId)?.database !== true) throw new SoundboxError('NOT_FOUND', `there is no bank ${of.bankId} with merchants`)
  const merchant = of.merchant.toLowerCase()
  const day = new Date(nowMs()).toISOString().slice(0, 10)
  const { session_id: sessionId, url, status } = await integration.forBackground('onboarding').call('start_session_kyc', {
    vendor_data: subjectOf(of), client_ref: `kyc-${day}-${createHash('sha256').update(subjectOf(of)).digest('hex').slice(0, 24)}`, ...(callback === undefined ? {} : { callback })
  })
  const row = { sessionId, bankId: of.bankId, merchant, status, openedAt: nowMs(), saidAt: 0 }
  await records.identities.saveIdentity(row)
  return { ...identityView(row), url }
}

function identityView (row: Awaited<ReturnType<IntegrationStore['identities']['findIdentity']>>): IdentityView {
  if (row === undefined) throw new SoundboxError('NOT_FOUND', 'no identity check was opened for this merchant')
  return { bank: row.bankId, merchant: row.merchant, session: row.sessionId, status: row.status, openedAt: new Date(row.openedAt).toISOString() }
}

function inboundRow (entry: InboundEntry): InboundRow {
  return { ...entry, event: JSON.stringify(entry.event) }
}

function inboundEntry (row: InboundRow): InboundEntry {
  return { ...row, event: JSON.parse(row.event) as InboundEvent }
}
