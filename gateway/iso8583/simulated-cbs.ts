// Balance and mini statement out of a small table, for a gateway whose core banking system is not connected, and for the demo server.
import { AMOUNT_AVAILABLE, AMOUNT_LEDGER, formatAdditionalAmounts, formatStatementRows, type IsoEntry } from '../integration/iso-amounts.js'
import type { Cbs } from './cbs.js'
import { BALANCE_CODE, processingCode } from './payment.js'

type Account = { ledger: string, available: string, entries: readonly (Omit<IsoEntry, 'bookedAt'> & { minutesAgo: number })[] }
const ACCOUNTS: Readonly<Record<string, Account>> = {
  '0150245000100': {
    ledger: '152000.00', available: '150000.00',
    entries: [
      { minutesAgo: 12, drCr: 'CR', amount: '1900.00', reference: '7656789878EE', narration: 'QR PAYMENT' },
      { minutesAgo: 1450, drCr: 'DR', amount: '500.00', reference: '000000123456', narration: 'CASH WITHDRAWAL' }
    ]
  },
  '0150245000200': { ledger: '0.99', available: '-2000.00', entries: [] }
}
const CURRENCY = 'INR'
const STATEMENT_FIELD = '125'

/** Answers for the accounts of the table; DE 39 = 12 for any other. `nowMs`: wall clock. */
export function simulatedCbs (nowMs: () => number): Cbs {
  return async request => {
    const name = (request.fields['102'] ?? '').trim()
    const account = Object.hasOwn(ACCOUNTS, name) ? ACCOUNTS[name] : undefined
    if (account === undefined) return { code: '12', fields: {} }
    const amounts = formatAdditionalAmounts([
      { accountType: '00', amountType: AMOUNT_LEDGER, currency: CURRENCY, amount: account.ledger }, { accountType: '00', amountType: AMOUNT_AVAILABLE, currency: CURRENCY, amount: account.available }
    ])
    if (processingCode(request) === BALANCE_CODE) return { code: '00', fields: { 54: amounts } }
    const entries = account.entries.map(({ minutesAgo, ...entry }) => ({ ...entry, bookedAt: new Date(nowMs() - minutesAgo * 60_000).toISOString() }))
    return { code: '00', fields: { 54: amounts, ...(entries.length === 0 ? {} : { [STATEMENT_FIELD]: formatStatementRows(entries, CURRENCY) }) } }
  }
}
