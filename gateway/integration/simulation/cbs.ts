// The eight services of the core bank, answered from the SIM tables in the normalised contract. What a real bank would refuse is
// PROVIDER_REJECTED here too, with the same kind of code, so that a caller may be written against the simulator.
import { createHash } from 'node:crypto'
import { SoundboxError } from '../../../protocol/index.js'
import { digitsOfMsisdn, maskMsisdn, type IssuerServices, type ServiceRequest, type ServiceResponse } from '../contract.js'
import { SEARCH_ROWS_MAX, STATEMENT_ROWS_MAX } from '../contract-parts.js'
import { formatDecimal, instantFromMs, localDateFromMs } from './format.js'
import { SIM_PLACES } from './places.js'
import type { SIMAccount, SIMCustomer, SIMStatement, SIMStatementRow, SIMTables } from './tables.js'

const LOOKUP_VALID_MS = 30 * 60_000
const STATEMENT_ROWS_DEFAULT = 10

/** What an answer may know beside the request. */
export type SimContext = { nowMs: number, reference: string }
type CbsAnswers = { [S in IssuerServices<'cbs'>]: (input: ServiceRequest<S>, ctx: SimContext) => ServiceResponse<S> }

/** The core bank of these tables. Answers throw PROVIDER_REJECTED for what does not exist, INPUT_INVALID for a cursor of another query. */
export function simulatedCbs (tables: SIMTables): CbsAnswers {
  const lookup = indexTables(tables)
  return {
    customer_search_cbs: input => checkWidth(lookup.customersBy(input.by, input.value)).map(customer => customerRow(customer)),
    account_search_cbs: input => checkWidth(lookup.accountsBy(input)).map(account => ({
      account_no: account.accountNo, name: account.name, type: account.type, currency: account.currency, status: account.status, branch: account.branch
    })),
    account_details_cbs: ({ account_no }) => {
      const account = lookup.account(account_no)
      return {
        account_no, name: account.name, cif: account.cif, type: account.type, product: account.product, currency: account.currency, status: account.status,
        sub_status: account.subStatus, branch: account.branch, opened_on: account.openedOn
      }
    },
    account_balance_cbs: ({ account_no }) => balanceOf(tables, lookup.account(account_no)),
    mini_statement_cbs: input => statementPage(tables, lookup.account(input.account_no), input),
    mno_validate_cbs: (input, ctx) => {
      const operator = tables.banks.find(bank => bank.kind === 'MNO' && [bank.shortName, bank.code].includes(input.mno.toUpperCase()))
      if (operator === undefined) throw refused('MNO_UNKNOWN', 'the operator is not in the bank dictionary')
      const wallet = lookup.wallet(operator.fspId, input.msisdn)
      return {
        mno: operator.shortName, fsp_id: operator.fspId, msisdn: input.msisdn, registered_name: wallet.registeredName,
        account_category: wallet.accountCategory, wallet_status: wallet.walletStatus, lookup_ref: `L-${ctx.reference}`
      }
    },
    bank_dictionary_cbs: input => bankRows(tables, input),
    interbank_account_name_cbs: (input, ctx) => interbankName(tables, lookup, input, ctx)
  }
}

type Lookup = ReturnType<typeof indexTables>
function indexTables (tables: SIMTables) {
  const customerByCif = new Map(tables.customers.map(row => [row.cif, row]))
  const customerByMsisdn = new Map(tables.customers.map(row => [digitsOfMsisdn(row.msisdn), row]))
  const customerById = new Map(tables.customers.map(row => [row.nationalId, row]))
  const accountByNo = new Map(tables.accounts.map(row => [row.accountNo, row]))
  const accountsByCif = groupByCif(tables.accounts)
  const walletByKey = new Map(tables.wallets.map(row => [`${row.fspId}/${digitsOfMsisdn(row.msisdn)}`, row]))
  const externalByKey = new Map(tables.externalAccounts.map(row => [`${row.fspId}/${row.accountNo}`, row]))
  const found = <T>(row: T | undefined, code: string, what: string): T => {
    if (row === undefined) throw refused(code, what)
    return row
  }
  const customersBy = (by: 'cif' | 'msisdn' | 'national_id' | 'account', value: string): SIMCustomer[] => {
    const row = by === 'cif' ? customerByCif.get(value) : by === 'msisdn' ? customerByMsisdn.get(digitsOfMsisdn(value))
      : by === 'national_id' ? customerById.get(value) : customerByCif.get(accountByNo.get(value)?.cif ?? '')
    return row === undefined ? [] : [row]
  }
  return {
    customersBy,
    accountsBy: (input: ServiceRequest<'account_search_cbs'>): readonly SIMAccount[] => {
      const prefix = input.account_prefix
      if (prefix !== undefined) return tables.accounts.filter(row => row.accountNo.startsWith(prefix))
      const cif = input.cif ?? customersBy('msisdn', input.msisdn ?? '')[0]?.cif ?? ''
      return accountsByCif.get(cif) ?? []
    },
    account: (accountNo: string) => found(accountByNo.get(accountNo), 'ACCOUNT_NOT_FOUND', 'the account does not exist'),
    wallet: (fspId: string, msisdn: string) => found(walletByKey.get(`${fspId}/${digitsOfMsisdn(msisdn)}`), 'WALLET_NOT_FOUND', 'the number has no wallet at this operator'),
    external: (fspId: string, accountNo: string) => found(externalByKey.get(`${fspId}/${accountNo}`), 'ACCOUNT_NOT_FOUND', 'the account does not exist at this bank')
  }
}

function groupByCif (accounts: readonly SIMAccount[]): Map<string, SIMAccount[]> {
  const groups = new Map<string, SIMAccount[]>()
  for (const account of accounts) groups.set(account.cif, [...groups.get(account.cif) ?? [], account])
  return groups
}

function customerRow (customer: SIMCustomer): ServiceResponse<'customer_search_cbs'>[number] {
  return {
    cif: customer.cif, full_name: customer.fullName, msisdn_masked: maskMsisdn(customer.msisdn), id_type: customer.idType, status: customer.status, branch: customer.branch
  }
}

/** Ledger, available and the rest of one account, as decimal strings. What is available is never below zero. */
export function balanceOf (tables: SIMTables, account: SIMAccount): ServiceResponse<'account_balance_cbs'> {
  const ledger = tables.statementOf(account).closingMinor
  return {
    account_no: account.accountNo, currency: account.currency, ledger: formatDecimal(ledger),
    available: formatDecimal(Math.max(0, ledger - account.heldMinor + account.overdraftMinor)), cleared: formatDecimal(ledger),
    held: formatDecimal(account.heldMinor), overdraft_limit: formatDecimal(account.overdraftMinor), as_of: instantFromMs(tables.asOfMs)
  }
}

// --- Statement pages: newest entry first. A cursor names the entry that the page before ended with, and the query it belongs to.

type StatementInput = ServiceRequest<'mini_statement_cbs'>

function statementPage (tables: SIMTables, account: SIMAccount, input: StatementInput): ServiceResponse<'mini_statement_cbs'> {
  const offset = SIM_PLACES[tables.country].utcOffsetMinutes
  const statement = tables.statementOf(account)
  const rows = statement.rows.filter(row => {
    const date = localDateFromMs(row.bookedAtMs, offset)
    return (input.from === undefined || date >= input.from) && (input.to === undefined || date <= input.to)
  })
  const before = input.cursor === undefined ? Infinity : indexFromCursor(input.cursor, input)
  const left = rows.filter(row => row.index < before)
  const page = left.slice(-Math.min(input.limit ?? STATEMENT_ROWS_DEFAULT, STATEMENT_ROWS_MAX)).reverse()
  const last = page.at(-1)
  return {
    opening: formatDecimal(openingOf(statement, rows, input, offset)),
    closing: formatDecimal(rows.at(-1)?.runningMinor ?? openingOf(statement, rows, input, offset)),
    rows: page.map(row => statementRow(row, offset)),
    next: last === undefined || last.index === rows[0]?.index ? null : `${last.index}-${queryTag(input)}`
  }
}

/** The balance before the first entry of the query; with no entry in it, the balance that stood then. */
function openingOf (statement: SIMStatement, rows: readonly SIMStatementRow[], input: StatementInput, offset: number): number {
  const first = rows[0]
  const earlier = first === undefined
    ? statement.rows.filter(row => input.from === undefined || localDateFromMs(row.bookedAtMs, offset) < input.from)
    : statement.rows.slice(0, first.index)
  return earlier.at(-1)?.runningMinor ?? statement.openingMinor
}

function statementRow (row: SIMStatementRow, offset: number): ServiceResponse<'mini_statement_cbs'>['rows'][number] {
  return {
    id: row.id, booked_at: instantFromMs(row.bookedAtMs), value_date: localDateFromMs(row.bookedAtMs, offset), dr_cr: row.drCr,
    amount: formatDecimal(row.amountMinor), running_balance: formatDecimal(row.runningMinor), narration: row.narration, reference: row.reference, type: row.type
  }
}

function queryTag (input: StatementInput): string {
  return createHash('sha256').update(JSON.stringify([input.account_no, input.from ?? '', input.to ?? '']), 'utf8').digest('hex').slice(0, 16)
}

function indexFromCursor (cursor: string, input: StatementInput): number {
  const [index = '', tag] = cursor.split('-')
  if (!/^\d{1,6}$/.test(index) || tag !== queryTag(input)) throw new SoundboxError('INPUT_INVALID', '/cursor does not belong to this account, from and to')
  return Number(index)
}

// --- Other banks

function bankRows (tables: SIMTables, input: ServiceRequest<'bank_dictionary_cbs'>): ServiceResponse<'bank_dictionary_cbs'> {
  if (input.country !== undefined && input.country !== tables.country) return []
  return tables.banks.filter(row => input.updated_since === undefined || Date.parse(`${row.updatedOn}T00:00:00Z`) >= Date.parse(input.updated_since)).map(row => ({
    code: row.code, fsp_id: row.fspId, bic: row.bic, name: row.name, short_name: row.shortName, kind: row.kind, account_len: row.accountLen,
    lookup: row.lookup, transfer: row.transfer, active: row.active
  }))
}

type NameInput = ServiceRequest<'interbank_account_name_cbs'>
function interbankName (tables: SIMTables, lookup: Lookup, input: NameInput, ctx: SimContext): ServiceResponse<'interbank_account_name_cbs'> {
  const bank = tables.banks.find(row => row.fspId === input.fsp_id || row.bic === input.bic?.slice(0, 8))
  if (bank === undefined) throw refused('FSP_UNKNOWN', 'the bank is not in the bank dictionary')
  if (!bank.active || !bank.lookup) throw refused('FSP_UNREACHABLE', 'the bank does not answer name queries at present')
  const answer = { fsp_id: bank.fspId, account_no: input.account_no, lookup_ref: `L-${ctx.reference}`, valid_until: instantFromMs(ctx.nowMs + LOOKUP_VALID_MS) }
  switch (input.identifier_type) {
    case 'BANK': {
      const row = lookup.external(bank.fspId, input.account_no)
      return { ...answer, account_name: row.accountName, account_category: row.accountCategory, identity_type: row.identityType }
    }
    case 'MSISDN': {
      const row = lookup.wallet(bank.fspId, input.account_no)
      return { ...answer, account_name: row.registeredName, account_category: row.accountCategory }
    }
    case 'ALIAS': throw refused('ALIAS_NOT_FOUND', 'the simulator knows no aliases')
    default: return input.identifier_type satisfies never
  }
}

function checkWidth<T> (rows: readonly T[]): readonly T[] {
  if (rows.length > SEARCH_ROWS_MAX) throw refused('TOO_MANY', `the search finds more than ${SEARCH_ROWS_MAX} rows: narrow it`)
  return rows
}

function refused (code: string, what: string): SoundboxError {
  return new SoundboxError('PROVIDER_REJECTED', `${code}: ${what}`)
}
