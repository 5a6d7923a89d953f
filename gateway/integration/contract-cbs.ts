// What a core banking system is asked and answers, in our own names. Issuer `cbs`: eight services, none of which changes anything.
import { Type } from 'typebox'
import {
  accountCategory, accountNo, accountStatus, accountType, bic, cif, closed, country, currency, date, decimal, DICTIONARY_ROWS_MAX, fspId, instant,
  masked, msisdn, oneOf, orNull, rowsOf, SEARCH_ROWS_MAX, STATEMENT_ROWS_MAX, text
} from './contract-parts.js'

const customer = closed({
  cif, full_name: text(140, 'name of the customer'), msisdn_masked: orNull(masked), id_type: orNull(text(32, 'kind of identity document')),
  status: oneOf(['ACTIVE', 'INACTIVE', 'BLOCKED', 'OTHER'], 'normalised customer status'), branch: orNull(text(80, 'branch'))
})

const accountRow = closed({ account_no: accountNo, name: text(140, 'name of the account'), type: accountType, currency, status: accountStatus, branch: orNull(text(80, 'branch')) })

const statementRow = closed({
  id: text(64, 'id of the entry'), booked_at: instant, value_date: date, dr_cr: oneOf(['DR', 'CR'], 'debit or credit'), amount: decimal,
  running_balance: orNull(decimal), narration: Type.String({ maxLength: 200 }), reference: orNull(text(64, 'reference')), type: text(32, 'kind of transaction')
})

const bankRow = closed({
  code: text(16, 'code of the bank or wallet'), fsp_id: orNull(fspId), bic: orNull(bic), name: text(140, 'full name'), short_name: text(40, 'short name'),
  kind: oneOf(['BANK', 'MNO'], 'bank or mobile wallet'), account_len: orNull(Type.Integer({ minimum: 1, maximum: 34 })),
  lookup: Type.Boolean({ description: 'account names can be looked up' }), transfer: Type.Boolean({ description: 'transfers are possible' }), active: Type.Boolean()
})

const lookupRef = text(64, 'reference of this lookup, to be quoted with a transfer')

export const CBS_SERVICES = {
  customer_search_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Find customers by number, phone, identity or account',
    request: closed({ by: oneOf(['cif', 'msisdn', 'national_id', 'account'], 'what value is'), value: text(64, 'the value looked for') }),
    response: rowsOf(customer, SEARCH_ROWS_MAX),
    example: {
      request: { by: 'msisdn', value: '+255712345678' },
      response: [{ cif: '100245', full_name: 'ASHA JUMA', msisdn_masked: '2557****5678', id_type: 'NIN', status: 'ACTIVE', branch: 'SAMORA' }]
    }
  },
  account_search_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Accounts of a customer, a phone number or a prefix (name exactly one)',
    request: Type.Object({ cif: Type.Optional(cif), msisdn: Type.Optional(msisdn), account_prefix: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9-]{3,34}$' })) },
      { additionalProperties: false, minProperties: 1, maxProperties: 1 }),
    response: rowsOf(accountRow, SEARCH_ROWS_MAX),
    example: {
      request: { cif: '100245' },
      response: [{ account_no: '0150245000100', name: 'ASHA JUMA', type: 'SAVINGS', currency: 'TZS', status: 'ACTIVE', branch: 'SAMORA' }]
    }
  },
  account_details_cbs: {
    issuer: 'cbs', changesState: false, summary: 'One account',
    request: closed({ account_no: accountNo }),
    response: closed({
      account_no: accountNo, name: text(140, 'name of the account'), cif: orNull(cif), type: accountType, product: orNull(text(64, 'product')), currency,
      status: accountStatus, sub_status: orNull(text(64, 'status in the words of the bank')), branch: orNull(text(80, 'branch')), opened_on: orNull(date)
    }),
    example: {
      request: { account_no: '0150245000100' },
      response: {
        account_no: '0150245000100', name: 'ASHA JUMA', cif: '100245', type: 'SAVINGS', product: 'CHAP CHAP', currency: 'TZS', status: 'ACTIVE', sub_status: null,
        branch: 'SAMORA', opened_on: '2019-03-04'
      }
    }
  },
  account_balance_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Balances of one account, as decimal strings',
    request: closed({ account_no: accountNo }),
    response: closed({
      account_no: accountNo, currency, ledger: decimal, available: decimal, cleared: orNull(decimal), held: orNull(decimal), overdraft_limit: orNull(decimal), as_of: instant
    }),
    example: {
      request: { account_no: '0150245000100' },
      response: {
        account_no: '0150245000100', currency: 'TZS', ledger: '152000.00', available: '150000.00', cleared: '152000.00', held: '2000.00', overdraft_limit: '0.00',
        as_of: '2026-01-05T09:15:00Z'
      }
    }
  },
  mini_statement_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Entries of one account, newest first',
    request: closed({
      account_no: accountNo, from: Type.Optional(date), to: Type.Optional(date), limit: Type.Optional(Type.Integer({ minimum: 1, maximum: STATEMENT_ROWS_MAX })),
      cursor: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_=-]{1,200}$', description: '`next` of the page before' }))
    }),
    response: closed({
      opening: orNull(decimal), closing: orNull(decimal), rows: rowsOf(statementRow, STATEMENT_ROWS_MAX), next: orNull(text(200, 'cursor of the next page; null at the end'))
    }),
    example: {
      request: { account_no: '0150245000100', from: '2026-01-01', to: '2026-01-05', limit: 10 },
      response: {
        opening: '150100.00', closing: '152000.00', next: null,
        rows: [{
          id: '88120', booked_at: '2026-01-05T09:10:11Z', value_date: '2026-01-05', dr_cr: 'CR', amount: '1900.00', running_balance: '152000.00', narration: 'QR PAYMENT',
          reference: '7656789878EE', type: 'QR'
        }]
      }
    }
  },
  mno_validate_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Who a mobile wallet belongs to',
    request: closed({ mno: Type.String({ pattern: '^[A-Za-z0-9_-]{2,24}$', description: 'operator, as in the bank dictionary' }), msisdn }),
    response: closed({
      mno: text(24, 'operator'), fsp_id: orNull(fspId), msisdn, registered_name: text(140, 'name of the wallet'), account_category: accountCategory,
      wallet_status: accountStatus, lookup_ref: lookupRef
    }),
    example: {
      request: { mno: 'MPESA', msisdn: '+255712345678' },
      response: { mno: 'MPESA', fsp_id: '503', msisdn: '+255712345678', registered_name: 'ASHA JUMA', account_category: 'PERSON', wallet_status: 'ACTIVE', lookup_ref: 'L-20260105-0007' }
    }
  },
  bank_dictionary_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Banks and mobile wallets that can be reached',
    request: closed({ country: Type.Optional(country), updated_since: Type.Optional(instant) }),
    response: rowsOf(bankRow, DICTIONARY_ROWS_MAX),
    example: {
      request: { country: 'TZ' },
      response: [{
        code: '016', fsp_id: '016', bic: 'NMIBTZTZ', name: 'National Microfinance Bank', short_name: 'NMB', kind: 'BANK', account_len: 13, lookup: true, transfer: true, active: true
      }]
    }
  },
  interbank_account_name_cbs: {
    issuer: 'cbs', changesState: false, summary: 'Name of an account at another bank (name exactly one of fsp_id and bic)',
    request: Type.Object({
      fsp_id: Type.Optional(fspId), bic: Type.Optional(bic), account_no: Type.String({ pattern: '^\\+?[A-Za-z0-9-]{4,34}$' }),
      identifier_type: oneOf(['BANK', 'MSISDN', 'ALIAS'], 'what account_no is')
    }, { additionalProperties: false, minProperties: 3, maxProperties: 3 }),
    response: closed({
      fsp_id: fspId, account_no: Type.String({ pattern: '^\\+?[A-Za-z0-9-]{4,34}$' }), account_name: text(140, 'name of the account'), account_category: accountCategory,
      identity_type: Type.Optional(text(16, 'kind of identity, such as NIN or TIN')), lookup_ref: lookupRef, valid_until: orNull(instant)
    }),
    example: {
      request: { fsp_id: '016', account_no: '0150245000100', identifier_type: 'BANK' },
      response: { fsp_id: '016', account_no: '0150245000100', account_name: 'ASHA JUMA', account_category: 'PERSON', lookup_ref: 'L-20260105-0008', valid_until: '2026-01-05T09:45:00Z' }
    }
  }
} as const
