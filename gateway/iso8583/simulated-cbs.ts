// Balance and mini statement out of a small table, for a gateway whose core banking system is not connected, and for the demo server.
//
// DE 54 (ISO 8583:1987), a block of 20 a balance: account type 2 | amount type 2 (01 ledger, 02 available) | currency 3 | C or D | 12 digits
// DE 125, a row of 62 an entry, newest first: YYMMDD hhmmss (UTC) | C or D | amount 12 | reference 12 | narration 25, filled with spaces
import type { Message } from '../../protocol/iso8583/index.js'
import type { ResponseCode } from './dialect.js'
import { BALANCE_CODE, processingCode } from './payment.js'

/** What a request for a balance (DE 3 31) or a mini statement (38) is answered with. May reject with any SoundboxError. */
export type CbsReply = { code: ResponseCode, fields: Readonly<Record<string, string>> }
export type Cbs = (request: Message) => Promise<CbsReply>

type Entry = { minutesAgo: number, side: 'C' | 'D', amountMinor: number, reference: string, narration: string }
type Account = { ledgerMinor: number, availableMinor: number, entries: readonly Entry[] }
const ACCOUNTS: Readonly<Record<string, Account>> = {
  '0150245000100': {
    ledgerMinor: 15_200_000, availableMinor: 15_000_000,
    entries: [
      { minutesAgo: 12, side: 'C', amountMinor: 190_000, reference: '7656789878EE', narration: 'QR PAYMENT' },
      { minutesAgo: 1450, side: 'D', amountMinor: 50_000, reference: '000000123456', narration: 'CASH WITHDRAWAL' }
    ]
  },
  '0150245000200': { ledgerMinor: 99, availableMinor: -200_000, entries: [] }
}
const CURRENCY = '356'

/** Answers for the accounts of the table; DE 39 = 12 for any other. `nowMs`: wall clock. */
export function simulatedCbs (nowMs: () => number): Cbs {
  return async request => {
    const name = (request.fields['102'] ?? '').trim()
    const account = Object.hasOwn(ACCOUNTS, name) ? ACCOUNTS[name] : undefined
    if (account === undefined) return { code: '12', fields: {} }
    const balances = amountBlock('01', account.ledgerMinor) + amountBlock('02', account.availableMinor)
    if (processingCode(request) === BALANCE_CODE) return { code: '00', fields: { 54: balances } }
    return { code: '00', fields: { 54: balances, 125: account.entries.map(entry => statementRow(entry, nowMs())).join('') } }
  }
}

function amountBlock (type: string, minor: number): string {
  return `00${type}${CURRENCY}${minor < 0 ? 'D' : 'C'}${String(Math.abs(minor)).padStart(12, '0')}`
}

function statementRow ({ minutesAgo, side, amountMinor, reference, narration }: Entry, nowMs: number): string {
  const booked = new Date(nowMs - minutesAgo * 60_000).toISOString().replace(/\D/g, '').slice(2, 14)
  return `${booked}${side}${String(amountMinor).padStart(12, '0')}${reference.padEnd(12)}${narration.padEnd(25)}`
}
