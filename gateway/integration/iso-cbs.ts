// A core bank behind an ISO 8583 switch, as an alternative to HTTP: balance is processing code 31xxxx, mini statement 38xxxx, in both
// directions. Pure functions turn requests and answers into {mti, fields}; who packs, sends and waits is a port.
//
//   ask      0200  DE 3 31/38 + account types 00, 4 zero, 7, 11, 12, 13, 37, 41, 42, 49, 102 account
//   answer   0210  DE 39, DE 54 balances, DE 125 entries (newest first)
import { isSoundboxError, SoundboxError } from '../../protocol/index.js'
import type { ServiceName, ServiceRequest, ServiceResponse } from './contract.js'
import {
  AMOUNT_AVAILABLE, AMOUNT_LEDGER, currencyFromNumeric, formatAdditionalAmounts, formatStatementRows, ISO_STATEMENT_ROWS_MAX, parseAdditionalAmounts, parseStatementRows, type IsoBalance
} from './iso-amounts.js'
import type { Transport } from './provider.js'

/** As protocol/iso8583 packs and unpacks it: field number -> value. */
export type IsoFields = { mti: string, fields: Readonly<Record<string, string>> }
export type IsoCbsProfile = { terminalId: string, merchantId: string, currencyNumeric: string, statementField: string, utcOffsetMinutes: number }
export const ISO_CBS_PROFILE: IsoCbsProfile = { terminalId: 'SBX00001', merchantId: 'SOUNDBOX', currencyNumeric: '356', statementField: '125', utcOffsetMinutes: 330 }
type IsoCbsQuery = 'account_balance_cbs' | 'mini_statement_cbs'

const PROCESSING: Record<IsoCbsQuery, string> = { account_balance_cbs: '310000', mini_statement_cbs: '380000' }
const APPROVED = ['00', '000'] // 1987 and 1993.
const LATER = ['91', '96', '68', '90', '907', '909', '911']

export type IsoRequestContext = { nowMs: number, stan: number, reference: string }

/** The 0200 that asks for a balance or a mini statement. `stan` from 1 to 999999. */
export function isoRequestFromInput (service: IsoCbsQuery, input: ServiceRequest<IsoCbsQuery>, profile: IsoCbsProfile, ctx: IsoRequestContext): IsoFields {
  const utc = stampFromMs(ctx.nowMs, 0)
  const local = stampFromMs(ctx.nowMs, profile.utcOffsetMinutes)
  return {
    mti: '0200',
    fields: {
      3: PROCESSING[service], 4: '000000000000', 7: `${utc.date}${utc.time}`, 11: String(ctx.stan).padStart(6, '0'), 12: local.time, 13: local.date,
      37: ctx.reference.toUpperCase().slice(-12).padStart(12, '0'), 41: profile.terminalId.padEnd(8, ' '), 42: profile.merchantId.padEnd(15, ' '),
      49: profile.currencyNumeric, 102: input.account_no
    }
  }
}

/** Balances of an answer. Throws PROVIDER_REJECTED, PROVIDER_UNAVAILABLE (DE 39), PROVIDER_RESPONSE_INVALID. */
export function balanceFromIsoReply (reply: IsoFields, input: ServiceRequest<'account_balance_cbs'>, nowMs: number): ServiceResponse<'account_balance_cbs'> {
  checkAnswer(reply)
  const balances = parseAdditionalAmounts(reply.fields['54'] ?? '')
  const ledger = balances.find(row => row.amountType === AMOUNT_LEDGER)
  const available = balances.find(row => row.amountType === AMOUNT_AVAILABLE) ?? ledger
  const first = ledger ?? available
  if (first === undefined || available === undefined) throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'DE 54 has neither a ledger (01) nor an available (02) balance')
  return {
    account_no: input.account_no, currency: first.currency, ledger: first.amount, available: available.amount, cleared: null, held: null, overdraft_limit: null,
    as_of: new Date(nowMs).toISOString()
  }
}

/** Entries of an answer, newest first as the switch sends them. Throws as balanceFromIsoReply. */
export function statementFromIsoReply (reply: IsoFields, input: ServiceRequest<'mini_statement_cbs'>, profile: IsoCbsProfile): ServiceResponse<'mini_statement_cbs'> {
  checkAnswer(reply)
  const balances = reply.fields['54'] === undefined ? [] : parseAdditionalAmounts(reply.fields['54'])
  const ledger = balances.find(row => row.amountType === AMOUNT_LEDGER)
  const currency = ledger?.currency ?? currencyFromNumeric(profile.currencyNumeric) ?? ''
  const entries = parseStatementRows(reply.fields[profile.statementField] ?? '', currency)
    .filter(entry => (input.from === undefined || entry.bookedAt.slice(0, 10) >= input.from) && (input.to === undefined || entry.bookedAt.slice(0, 10) <= input.to))
    .slice(0, input.limit ?? ISO_STATEMENT_ROWS_MAX)
  return {
    opening: null, closing: ledger?.amount ?? null, next: null,
    rows: entries.map((entry, index) => ({
      id: `${entry.bookedAt.replace(/\D/g, '')}-${index + 1}`, booked_at: entry.bookedAt, value_date: entry.bookedAt.slice(0, 10), dr_cr: entry.drCr, amount: entry.amount,
      running_balance: null, narration: entry.narration, reference: entry.reference === '' ? null : entry.reference, type: 'ISO8583'
    }))
  }
}

/** The service that a 0100 or 0200 asks for, and its request; undefined for any other message. Throws ISO_UNPACK_INVALID without an account. */
export function inputFromIsoRequest (message: IsoFields): { service: IsoCbsQuery, account_no: string } | undefined {
  const kind = message.fields['3']?.slice(0, 2)
  const service = kind === '31' ? 'account_balance_cbs' : kind === '38' ? 'mini_statement_cbs' : undefined
  if (service === undefined || !/^\d[12]00$/.test(message.mti)) return undefined
  const account = message.fields['102']?.trim()
  if (account === undefined || !/^[A-Za-z0-9-]{4,28}$/.test(account)) throw new SoundboxError('ISO_UNPACK_INVALID', 'DE 102 must name the account of a balance or statement request')
  return { service, account_no: account }
}

/** Fields 39 and 54 that answer a balance request. */
export function isoFieldsFromBalance (answer: ServiceResponse<'account_balance_cbs'>): Record<string, string> {
  const row = (amountType: string, amount: string): IsoBalance => ({ accountType: '00', amountType, currency: answer.currency, amount })
  return { 39: '00', 54: formatAdditionalAmounts([row(AMOUNT_LEDGER, answer.ledger), row(AMOUNT_AVAILABLE, answer.available)]) }
}

/** Fields 39, 54 and the statement field that answer a mini statement request; the newest ISO_STATEMENT_ROWS_MAX entries. */
export function isoFieldsFromStatement (answer: ServiceResponse<'mini_statement_cbs'>, currency: string, profile: IsoCbsProfile): Record<string, string> {
  const entries = answer.rows.slice(0, ISO_STATEMENT_ROWS_MAX).map(row => ({
    bookedAt: row.booked_at, drCr: row.dr_cr, amount: row.amount, reference: row.reference ?? '', narration: row.narration
  }))
  const closing = answer.closing === null ? {} : { 54: formatAdditionalAmounts([{ accountType: '00', amountType: AMOUNT_LEDGER, currency, amount: answer.closing }]) }
  return { 39: '00', ...closing, ...(entries.length === 0 ? {} : { [profile.statementField]: formatStatementRows(entries, currency) }) }
}

/** `send` resolves with the matching answer or rejects with ISO_TIMEOUT, ISO_UNAVAILABLE. `nextStan`: 1 to 999999, round and round. */
export type IsoCbsDeps = { send: (message: IsoFields) => Promise<IsoFields>, nextStan: () => number, nowMs: () => number, profile: IsoCbsProfile, close: () => Promise<void> }

/** The issuer `cbs` over ISO 8583. Throws PROVIDER_CONFIG for a profile whose currency number is unknown. */
export function isoCbsTransport (deps: IsoCbsDeps): Transport {
  if (currencyFromNumeric(deps.profile.currencyNumeric) === undefined) throw new SoundboxError('PROVIDER_CONFIG', 'the currency of the ISO 8583 profile has no known ISO 4217 number')
  const ask = async (service: IsoCbsQuery, input: ServiceRequest<IsoCbsQuery>, reference: string): Promise<IsoFields> => {
    try {
      return await deps.send(isoRequestFromInput(service, input, deps.profile, { nowMs: deps.nowMs(), stan: deps.nextStan(), reference }))
    } catch (cause) {
      if (isSoundboxError(cause, 'ISO_TIMEOUT')) throw new SoundboxError('PROVIDER_TIMEOUT', 'the switch did not answer in time', { cause })
      if (isSoundboxError(cause)) throw new SoundboxError('PROVIDER_UNAVAILABLE', `the switch cannot be asked (${cause.code})`, { cause })
      throw cause
    }
  }
  return {
    kind: 'iso8583',
    name: 'iso8583',
    has: service => Object.hasOwn(PROCESSING, service),
    call: async <S extends ServiceName>(service: S, input: ServiceRequest<S>, ctx: Parameters<Transport['call']>[2]): Promise<ServiceResponse<S>> => {
      switch (service) {
        case 'account_balance_cbs': {
          const asked = input as ServiceRequest<'account_balance_cbs'>
          return balanceFromIsoReply(await ask(service, asked, ctx.reference), asked, deps.nowMs()) as ServiceResponse<S>
        }
        case 'mini_statement_cbs': {
          const asked = input as ServiceRequest<'mini_statement_cbs'>
          if (asked.cursor !== undefined) throw new SoundboxError('INPUT_INVALID', '/cursor is not possible: the switch sends one page')
          return statementFromIsoReply(await ask(service, asked, ctx.reference), asked, deps.profile) as ServiceResponse<S>
        }
        default: throw new SoundboxError('PROVIDER_CONFIG', `the switch does not offer ${service}`)
      }
    },
    close: deps.close
  }
}

function checkAnswer ({ mti, fields }: IsoFields): void {
  const code = fields['39'] ?? ''
  if (!/^\d[12]1\d$/.test(mti)) throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'the answer of the switch is no 0110 or 0210')
  if (APPROVED.includes(code)) return
  const shown = /^[A-Z0-9]{2,3}$/i.test(code) ? code : 'none'
  if (LATER.includes(code)) throw new SoundboxError('PROVIDER_UNAVAILABLE', `the bank behind the switch cannot answer now (DE 39 ${shown})`)
  throw new SoundboxError('PROVIDER_REJECTED', `DE39_${shown}: the bank behind the switch refused the request`)
}

function stampFromMs (ms: number, offsetMinutes: number): { date: string, time: string } {
  const text = new Date(ms + offsetMinutes * 60_000).toISOString()
  return { date: `${text.slice(5, 7)}${text.slice(8, 10)}`, time: text.slice(11, 19).replaceAll(':', '') }
}
