// The core banking system on both sides of ISO 8583: a switch asks us and the integration module answers, or the integration module asks and
// a switch behind our client answers. What stands in the fields is integration/iso-cbs.ts.
import { type Log, SoundboxError, type Timers } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import { ISO_STATEMENT_ROWS_MAX } from '../integration/iso-amounts.js'
import { inputFromIsoRequest, ISO_CBS_PROFILE, isoCbsTransport, isoFieldsFromBalance, isoFieldsFromStatement } from '../integration/iso-cbs.js'
import type { Transport } from '../integration/provider.js'
import type { ServiceClient } from '../integration/services.js'
import { openIsoClient } from './client.js'
import type { ResponseCode } from './dialect.js'
import type { IsoMeter } from './hooks.js'
import type { IsoTarget } from './target.js'

/** What a request for a balance (DE 3 31) or a mini statement (38) is answered with. May reject with any SoundboxError. */
export type CbsReply = { code: ResponseCode, fields: Readonly<Record<string, string>> }
export type Cbs = (request: Message) => Promise<CbsReply>

const RUPEES = 'INR'

/** Asks the integration module, as a client of its own. Rejects with its PROVIDER_* codes; ISO_UNPACK_INVALID without an account in DE 102. */
export function servicesCbs ({ call }: Pick<ServiceClient, 'call'>): Cbs {
  return async request => {
    const asked = inputFromIsoRequest(request)
    if (asked === undefined) throw new SoundboxError('ISO_NOT_SUPPORTED', 'only balance (31) and mini statement (38) are asked of the core banking system')
    const input = { account_no: asked.account_no }
    const { 39: _approved, ...fields } = asked.service === 'account_balance_cbs'
      ? isoFieldsFromBalance(await call('account_balance_cbs', input))
      : isoFieldsFromStatement(await call('mini_statement_cbs', { ...input, limit: ISO_STATEMENT_ROWS_MAX }), RUPEES, ISO_CBS_PROFILE)
    return { code: '00', fields }
  }
}

export type CbsTransportDeps = { target: IsoTarget, timers: Timers, nowMs: () => number, random: () => number, log: Log, meter?: IsoMeter }

/** The issuer `cbs` of the integration module over a connection of ours. It asks questions only, so no reversal is ever needed. */
export function openCbsTransport ({ target, ...deps }: CbsTransportDeps): Transport {
  const client = openIsoClient({ ...target, ...deps, reversals: null })
  return isoCbsTransport({
    send: ({ mti, fields }) => client.request({ mti, fields: { ...fields } }), nextStan: client.nextStan, nowMs: deps.nowMs, profile: ISO_CBS_PROFILE, close: client.close
  })
}
