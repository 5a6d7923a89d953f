// The SIM tables: what the simulated core bank and bill aggregator know. Money is whole minor units, times are milliseconds (UTC).
// Nobody in them exists: surnames and banks are called "sample" in some language, phone numbers have a national part that begins
// with 0 (no number plan dials that), BICs end in 0 (ISO 9362 test and training), account numbers have 12 digits (a PAN has 13 or more).

export type SIMCountry = 'IN' | 'TZ'

export type SIMCustomer = {
  cif: string, fullName: string, msisdn: string, nationalId: string, idType: 'NIN' | 'TIN' | 'PAN_CARD' | 'GSTIN'
  kind: 'PERSON' | 'BUSINESS', status: 'ACTIVE' | 'INACTIVE' | 'BLOCKED', branch: string
}

/** `heldMinor`: liens; `overdraftMinor`: agreed limit. */
export type SIMAccount = {
  accountNo: string, cif: string, name: string, type: 'SAVINGS' | 'CURRENT', product: string, currency: string
  status: 'ACTIVE' | 'DORMANT' | 'FROZEN' | 'CLOSED', subStatus: string | null, branch: string, openedOn: string
  heldMinor: number, overdraftMinor: number
}

/** One booked row; `runningMinor` is the balance after it. `index` counts from 0, the oldest row. */
export type SIMStatementRow = {
  index: number, id: string, bookedAtMs: number, drCr: 'DR' | 'CR', amountMinor: number, runningMinor: number
  narration: string, reference: string, type: 'UPI' | 'WALLET' | 'TRANSFER' | 'CASH' | 'FEE' | 'BILL'
}
export type SIMStatement = { openingMinor: number, closingMinor: number, rows: readonly SIMStatementRow[] }

export type SIMMobileWallet = {
  mno: string, fspId: string, msisdn: string, registeredName: string, accountCategory: 'PERSON' | 'BUSINESS', walletStatus: 'ACTIVE' | 'FROZEN'
}

/** Banks and wallet operators that can be asked for a name. `updatedOn` is a date, so that a dictionary can be fetched since one. */
export type SIMBank = {
  code: string, fspId: string, bic: string, name: string, shortName: string, kind: 'BANK' | 'MNO'
  accountLen: number, lookup: boolean, transfer: boolean, active: boolean, updatedOn: string
}

/** An account at another bank, as an inter-bank name query sees it. */
export type SIMExternalAccount = {
  fspId: string, accountNo: string, accountName: string, accountCategory: 'PERSON' | 'BUSINESS', identityType: 'NIN' | 'TIN' | 'PAN_CARD' | 'GSTIN'
}

export type SIMBillerCategory = { code: string, name: string }
export type SIMBillerField = { name: string, label: string, regex: string, required: boolean, primary: boolean }
export type SIMBiller = { billerCode: string, name: string, category: string, fields: readonly SIMBillerField[], supportsValidation: boolean }
export type SIMBillerPackage = {
  billerCode: string, itemCode: string, name: string, amountType: 'FIXED' | 'OPEN' | 'RANGE'
  amountMinor: number, minMinor: number, maxMinor: number, feeMinor: number, currency: string
}

/** The whole simulated world. Statements are derived when asked for: only who they belong to is kept. */
export type SIMTables = {
  country: SIMCountry
  asOfMs: number
  customers: readonly SIMCustomer[]
  accounts: readonly SIMAccount[]
  wallets: readonly SIMMobileWallet[]
  banks: readonly SIMBank[]
  externalAccounts: readonly SIMExternalAccount[]
  categories: readonly SIMBillerCategory[]
  billers: readonly SIMBiller[]
  packages: readonly SIMBillerPackage[]
  statementOf: (account: SIMAccount) => SIMStatement
}
