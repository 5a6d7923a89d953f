// The operator's side of merchants beyond the mapping: who gets a stand-in message, how an identity check stands, whether account and name
// agree. Registered below /api/v1/admin/merchants.
import type {} from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { formatAmount, parseAmount } from '../../protocol/index.js'
import type { OnboardingDecision } from '../integration/onboarding.js'
import { STAND_IN_AFTER_MS_MAX, STAND_IN_AFTER_MS_MIN, type StandIn, type StandInPolicy } from '../integration/stand-in.js'
import { timeText } from './admin-routes.js'
import { CheckFields, type CheckForm, checkForm } from './merchant-check.js'

export const STAND_INS_SHOWN_MAX = 500
const STAND_INS_SHOWN = 50

type Name = { bankId: string, merchant: string }
export type IdentityView = { bank: string, merchant: string, session: string, status: string, openedAt: string }
export type MerchantRouteDeps = {
  policies: () => readonly (Name & StandInPolicy)[]
  setPolicy: (of: Name, policy: StandInPolicy) => Promise<Name & StandInPolicy>
  removePolicy: (of: Name) => Promise<void>
  newestStandIns: (limit: number) => Promise<readonly StandIn[]>
  check: (of: Name, form: CheckForm) => Promise<OnboardingDecision>
  openIdentity: (of: Name, callback: string | undefined) => Promise<IdentityView & { url: string }>
  findIdentity: (of: Name) => Promise<IdentityView>
}

const BANK = Type.String({ minLength: 1, maxLength: 32, description: 'bank id' })
const MERCHANT = Type.String({ minLength: 1, maxLength: 95, description: 'VPA or mid' })
const NameQuery = Type.Object({ bank: BANK, merchant: MERCHANT }, { additionalProperties: false })
const PolicyBody = Type.Object({
  bank: BANK, merchant: MERCHANT, channel: Type.Enum(['sms', 'push', 'email']),
  to: Type.String({ minLength: 3, maxLength: 512, description: 'phone number (E.164), registration token of the app, or e-mail address' }),
  afterSeconds: Type.Optional(Type.Integer({ minimum: STAND_IN_AFTER_MS_MIN / 1000, maximum: STAND_IN_AFTER_MS_MAX / 1000, description: 'from the payment; default 15' })),
  fromAmount: Type.Optional(Type.String({ maxLength: 16, description: 'smaller payments get none, as 100.00' }))
}, { additionalProperties: false, examples: [{ bank: 'pnb', merchant: 'test@isu', channel: 'sms', to: '+910000000001', afterSeconds: 15 }] })
const AFTER_SECONDS = 15
const CheckBody = Type.Object({ bank: BANK, merchant: MERCHANT, check: CheckFields }, {
  additionalProperties: false, examples: [{ bank: 'pnb', merchant: 'test@isu', check: { names: ['Asha Juma'], wallet: { mno: 'MPESA', msisdn: '+255712345678' } } }]
})
const IdentityBody = Type.Object({
  bank: BANK, merchant: MERCHANT, callback: Type.Optional(Type.String({ minLength: 9, maxLength: 2000, description: 'https address that the merchant returns to' }))
}, { additionalProperties: false, examples: [{ bank: 'pnb', merchant: 'test@isu' }] })

/** Registers the routes in a scope that only operators reach. */
export async function merchantRoutes (app: FastifyInstance, deps: MerchantRouteDeps): Promise<void> {
  const tags = ['merchants']
  app.put('/merchants/stand-in', { schema: { tags, summary: 'Send this merchant a message when no box has spoken', body: PolicyBody } }, async request => {
    const { bank, merchant, channel, to, afterSeconds, fromAmount } = request.body as Static<typeof PolicyBody>
    return policyView(await deps.setPolicy({ bankId: bank, merchant }, {
      channel: channel as StandInPolicy['channel'], to, afterMs: (afterSeconds ?? AFTER_SECONDS) * 1000, amountMinorMin: fromAmount === undefined ? 0 : parseAmount(fromAmount)
    }))
  })
  app.get('/merchants/stand-in', { schema: { tags, summary: 'Who gets stand-ins; where to is masked' } }, async () => ({ policies: deps.policies().map(policyView) }))
  app.delete('/merchants/stand-in', { schema: { tags, summary: 'No stand-ins for this merchant any more', querystring: NameQuery } }, async (request, reply) => {
    const { bank, merchant } = request.query as Static<typeof NameQuery>
    await deps.removePolicy({ bankId: bank, merchant })
    return await reply.code(204).send()
  })
  const shownQuery = Type.Object({ limit: Type.Optional(Type.String({ pattern: '^[1-9]\\d{0,2}$', description: `1 to ${STAND_INS_SHOWN_MAX}` })) }, { additionalProperties: false })
  app.get('/stand-ins', { schema: { tags, summary: 'The newest stand-ins and what became of them', querystring: shownQuery } }, async request => {
    const { limit = String(STAND_INS_SHOWN) } = request.query as Static<typeof shownQuery>
    return { standIns: (await deps.newestStandIns(Math.min(STAND_INS_SHOWN_MAX, Number(limit)))).map(standInView) }
  })
  app.post('/merchants/check', { schema: { tags, summary: 'Do account or wallet, name and identity check agree?', body: CheckBody } }, async request => {
    const { bank, merchant, check } = request.body as Static<typeof CheckBody>
    return { bank, merchant, ...await deps.check({ bankId: bank, merchant }, checkForm(check)) }
  })
  app.post('/merchants/identity', { schema: { tags, summary: 'Open an identity check for a merchant; he goes through it at the url', body: IdentityBody } }, async request => {
    const { bank, merchant, callback } = request.body as Static<typeof IdentityBody>
    return await deps.openIdentity({ bankId: bank, merchant }, callback)
  })
  app.get('/merchants/identity', { schema: { tags, summary: 'How the newest identity check of a merchant stands', querystring: NameQuery } }, async request => {
    const { bank, merchant } = request.query as Static<typeof NameQuery>
    return await deps.findIdentity({ bankId: bank, merchant })
  })
}

function policyView ({ bankId, merchant, channel, to, afterMs, amountMinorMin }: Name & StandInPolicy): object {
  return { bank: bankId, merchant, channel, to, afterSeconds: afterMs / 1000, fromAmount: formatAmount(amountMinorMin) }
}

function standInView ({ bankId, amountMinor, acceptedAt, dueMs: _due, changedAt, ...row }: StandIn): object {
  return { bank: bankId, ...row, amount: formatAmount(amountMinor), acceptedAt: timeText(acceptedAt), changedAt: timeText(changedAt) }
}
