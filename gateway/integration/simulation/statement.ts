// The entries of one simulated account over the last ninety days, made when somebody asks. Each balance is the one before it plus or
// minus the entry, no entry takes the account below its overdraft limit, and times only grow.
import { drawsFromSeed, type Draw } from './seeded.js'
import type { SIMPlace } from './places.js'
import type { SIMAccount, SIMStatement, SIMStatementRow } from './tables.js'

export const SIM_STATEMENT_ROWS_MAX = 160
const DAY_MS = 86_400_000
const HISTORY_DAYS = 90
const DORMANT_DAYS = 365 // A dormant or closed account moved last more than a year ago.

type Entry = Pick<SIMStatementRow, 'drCr' | 'amountMinor' | 'narration' | 'type'>

/** The statement of an account, oldest entry first; its closing balance is the account's ledger balance at `asOfMs`. */
export function statementOfAccount (seed: string, place: SIMPlace, account: SIMAccount, asOfMs: number): SIMStatement {
  const draw = drawsFromSeed(seed)
  const isBusy = account.type === 'CURRENT'
  const count = account.status === 'ACTIVE' ? draw.between(isBusy ? 60 : 8, isBusy ? SIM_STATEMENT_ROWS_MAX : 40) : draw.between(0, 6)
  const endMs = account.status === 'ACTIVE' || account.status === 'FROZEN' ? asOfMs : asOfMs - DORMANT_DAYS * DAY_MS
  const openingMinor = draw.between(0, place.largeMinor[0])
  const stepMs = Math.floor(HISTORY_DAYS * DAY_MS / (count + 1))
  const rows: SIMStatementRow[] = []
  let balance = openingMinor
  for (let index = 0; index < count; index += 1) {
    const entry = settled(entryFromDraw(draw, place, isBusy), balance + account.overdraftMinor)
    balance += entry.drCr === 'CR' ? entry.amountMinor : -entry.amountMinor
    rows.push({
      index, id: `${account.accountNo}-${String(index + 1).padStart(4, '0')}`,
      bookedAtMs: endMs - HISTORY_DAYS * DAY_MS + index * stepMs + draw.below(stepMs),
      runningMinor: balance, reference: `SIM${String(draw.below(1e9)).padStart(9, '0')}`, ...entry
    })
  }
  return { openingMinor, closingMinor: balance, rows }
}

/** A debit that the account cannot bear becomes a cash deposit of the same amount. */
function settled (entry: Entry, spendableMinor: number): Entry {
  if (entry.drCr === 'CR' || entry.amountMinor <= spendableMinor) return entry
  return { drCr: 'CR', amountMinor: entry.amountMinor, narration: 'CASH DEPOSIT AT COUNTER', type: 'CASH' }
}

function entryFromDraw (draw: Draw, place: SIMPlace, isBusy: boolean): Entry {
  const kind = draw.below(100)
  const small = draw.between(place.smallMinor[0], place.smallMinor[1])
  const large = draw.between(place.largeMinor[0], place.largeMinor[1])
  const creditShare = isBusy ? 75 : 35
  if (kind < creditShare) return { drCr: 'CR', amountMinor: small, narration: `QR PAYMENT ${draw.pick(place.payers)}`, type: place.walletType }
  if (kind < creditShare + 6) return { drCr: 'CR', amountMinor: large, narration: 'TRANSFER RECEIVED', type: 'TRANSFER' }
  if (kind < creditShare + 10) return { drCr: 'DR', amountMinor: place.feeMinor, narration: 'MONTHLY FEE', type: 'FEE' }
  if (kind < creditShare + 15) return { drCr: 'DR', amountMinor: small, narration: 'BILL PAYMENT', type: 'BILL' }
  if (kind < creditShare + 20) return { drCr: 'DR', amountMinor: large, narration: 'TRANSFER TO SUPPLIER', type: 'TRANSFER' }
  return { drCr: 'DR', amountMinor: small, narration: 'CASH WITHDRAWAL', type: 'CASH' }
}
