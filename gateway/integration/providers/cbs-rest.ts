// A core bank with a plain REST face, for banks that have none of the known shapes: POST with camelCase fields, answer
// {"code":"00","message":…,"data":…}. Paths are the uri_map's business (CBS_API_URI_MAP), so most banks of this kind need settings only.
// With CBS_API_PARAM_FORMAT=xml the same fields travel as <request> and <response>. Lists may stand bare or under `rows`.
import { SoundboxError } from '../../../protocol/index.js'
import { booleanAt, decimalAt, objectAt, optionalDecimalAt, optionalTextAt, rowsAt, textAt, wordFrom, type Fields } from '../fields.js'
import { maskMsisdn, type IssuerServices, type ServiceRequest, type ServiceResponse } from '../contract.js'
import type { MappingContext, Provider, ProviderRequest, ProviderResponse, ServiceMapping, UriMap } from '../provider.js'
import { ACCOUNT_STATUS_WORDS, ACCOUNT_TYPE_WORDS, CATEGORY_WORDS, codeAt, ok2xx, rejectionFromCode } from './parts.js'

const SUCCESS_CODES = ['00', '000', '0', '200', 'SUCCESS', 'OK']
const CUSTOMER_STATUS_WORDS = { ACTIVE: 'ACTIVE', A: 'ACTIVE', INACTIVE: 'INACTIVE', DORMANT: 'INACTIVE', BLOCKED: 'BLOCKED', BLACKLISTED: 'BLOCKED' } as const
const DR_CR_WORDS = { DR: 'DR', D: 'DR', DEBIT: 'DR', CR: 'CR', C: 'CR', CREDIT: 'CR' } as const

/** The answer's envelope: the body itself, or below the root of an XML answer. */
function envelope (response: ProviderResponse): Fields {
  const body = objectAt(response.body)
  return 'response' in body ? objectAt(body, 'response') : body
}

const codeOf = (response: ProviderResponse): string | null => codeAt(response, 'response.code', 'code')

const data = (response: ProviderResponse): Fields => objectAt(envelope(response), 'data')

function dataRows (response: ProviderResponse): Fields[] {
  const found = envelope(response)['data']
  const isWrapped = typeof found === 'object' && found !== null && 'rows' in found
  return rowsAt(envelope(response), isWrapped ? 'data.rows' : 'data')
}

/** A service whose request is these fields and whose answer is read by `read`. */
function mapping<S extends IssuerServices<'cbs'>> (
  uriKey: string,
  fields: (input: ServiceRequest<S>) => Readonly<Record<string, unknown>>,
  read: (response: ProviderResponse, input: ServiceRequest<S>, ctx: MappingContext) => ServiceResponse<S>
): ServiceMapping<S> {
  const toRequest = (input: ServiceRequest<S>, ctx: MappingContext): ProviderRequest => {
    const body = { ...fields(input), reference: ctx.reference }
    return ctx.params['format'] === 'xml' ? { uriKey, format: 'xml', body: { request: body } } : { uriKey, format: 'json', body }
  }
  return { toRequest, fromResponse: read }
}

function accountRow (row: Fields): ServiceResponse<'account_search_cbs'>[number] {
  return {
    account_no: textAt(row, 'accountNumber'), name: textAt(row, 'accountName'), type: wordFrom(optionalTextAt(row, 'accountType'), ACCOUNT_TYPE_WORDS, 'OTHER'),
    currency: textAt(row, 'currency'), status: wordFrom(optionalTextAt(row, 'status'), ACCOUNT_STATUS_WORDS, 'OTHER'), branch: optionalTextAt(row, 'branch')
  }
}

function customerRow (row: Fields): ServiceResponse<'customer_search_cbs'>[number] {
  const msisdn = optionalTextAt(row, 'msisdn')
  return {
    cif: textAt(row, 'customerNumber'), full_name: textAt(row, 'fullName'), msisdn_masked: msisdn === null ? null : maskMsisdn(msisdn),
    id_type: optionalTextAt(row, 'idType'), status: wordFrom(optionalTextAt(row, 'status'), CUSTOMER_STATUS_WORDS, 'OTHER'), branch: optionalTextAt(row, 'branch')
  }
}

/** Debit or credit; an unknown word is no guess: a wrong side would turn a balance round. */
function sideOf (row: Fields): 'DR' | 'CR' {
  const side = wordFrom<'DR' | 'CR' | '?'>(textAt(row, 'drCr'), DR_CR_WORDS, '?')
  if (side === '?') throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'the answer has neither debit nor credit at drCr')
  return side
}

function statementRow (row: Fields): ServiceResponse<'mini_statement_cbs'>['rows'][number] {
  return {
    id: textAt(row, 'id'), booked_at: textAt(row, 'bookedAt'), value_date: textAt(row, 'valueDate'), dr_cr: sideOf(row),
    amount: decimalAt(row, 'amount'), running_balance: optionalDecimalAt(row, 'runningBalance'), narration: optionalTextAt(row, 'narration') ?? '',
    reference: optionalTextAt(row, 'reference'), type: optionalTextAt(row, 'type') ?? 'OTHER'
  }
}

function bankRow (row: Fields): ServiceResponse<'bank_dictionary_cbs'>[number] {
  const length = optionalTextAt(row, 'accountLength')
  return {
    code: textAt(row, 'code'), fsp_id: optionalTextAt(row, 'fspId'), bic: optionalTextAt(row, 'bic'), name: textAt(row, 'name'),
    short_name: optionalTextAt(row, 'shortName') ?? textAt(row, 'name').slice(0, 40), kind: wordFrom(optionalTextAt(row, 'kind'), { MNO: 'MNO', WALLET: 'MNO' }, 'BANK'),
    account_len: length === null ? null : Number(length), lookup: booleanAt(row, 'lookup', true), transfer: booleanAt(row, 'transfer', true), active: booleanAt(row, 'active', true)
  }
}

const services: Provider<'cbs'>['services'] = {
  customer_search_cbs: mapping<'customer_search_cbs'>('customer_search', input => ({ by: input.by, value: input.value }), response => dataRows(response).map(customerRow)),
  account_search_cbs: mapping<'account_search_cbs'>('account_search',
    input => ({ customerNumber: input.cif, msisdn: input.msisdn, accountPrefix: input.account_prefix }), response => dataRows(response).map(accountRow)),
  account_details_cbs: mapping<'account_details_cbs'>('account_details', input => ({ accountNumber: input.account_no }), response => {
    const row = data(response)
    return {
      ...accountRow(row), cif: optionalTextAt(row, 'customerNumber'), product: optionalTextAt(row, 'product'), sub_status: optionalTextAt(row, 'subStatus'),
      opened_on: optionalTextAt(row, 'openedOn')
    }
  }),
  account_balance_cbs: mapping<'account_balance_cbs'>('account_balance', input => ({ accountNumber: input.account_no }), response => {
    const row = data(response)
    return {
      account_no: textAt(row, 'accountNumber'), currency: textAt(row, 'currency'), ledger: decimalAt(row, 'ledger'), available: decimalAt(row, 'available'),
      cleared: optionalDecimalAt(row, 'cleared'), held: optionalDecimalAt(row, 'held'), overdraft_limit: optionalDecimalAt(row, 'overdraftLimit'), as_of: textAt(row, 'asOf')
    }
  }),
  mini_statement_cbs: mapping<'mini_statement_cbs'>('mini_statement',
    input => ({ accountNumber: input.account_no, from: input.from, to: input.to, limit: input.limit, cursor: input.cursor }), response => {
      const page = data(response)
      return {
        opening: optionalDecimalAt(page, 'opening'), closing: optionalDecimalAt(page, 'closing'), rows: rowsAt(page, 'rows').map(statementRow), next: optionalTextAt(page, 'next')
      }
    }),
  mno_validate_cbs: mapping<'mno_validate_cbs'>('mno_validate', input => ({ operator: input.mno, msisdn: input.msisdn }), (response, input, ctx) => {
    const row = data(response)
    return {
      mno: input.mno, fsp_id: optionalTextAt(row, 'fspId'), msisdn: input.msisdn, registered_name: textAt(row, 'registeredName'),
      account_category: wordFrom(textAt(row, 'category'), CATEGORY_WORDS, 'PERSON'), wallet_status: wordFrom(textAt(row, 'status'), ACCOUNT_STATUS_WORDS, 'OTHER'),
      lookup_ref: optionalTextAt(row, 'lookupRef') ?? ctx.reference
    }
  }),
  bank_dictionary_cbs: mapping<'bank_dictionary_cbs'>('bank_dictionary', input => ({ country: input.country, updatedSince: input.updated_since }), response => dataRows(response).map(bankRow)),
  interbank_account_name_cbs: mapping<'interbank_account_name_cbs'>('interbank_account_name',
    input => ({ fspId: input.fsp_id, bic: input.bic, accountNumber: input.account_no, identifierType: input.identifier_type }), (response, input, ctx) => {
      const row = data(response)
      const identity = optionalTextAt(row, 'identityType')
      return {
        fsp_id: optionalTextAt(row, 'fspId') ?? input.fsp_id ?? textAt(row, 'fspId'), account_no: input.account_no, account_name: textAt(row, 'accountName'),
        account_category: wordFrom(textAt(row, 'category'), CATEGORY_WORDS, 'PERSON'), ...(identity === null ? {} : { identity_type: identity }),
        lookup_ref: optionalTextAt(row, 'lookupRef') ?? ctx.reference, valid_until: optionalTextAt(row, 'validUntil')
      }
    })
}

const lookup = (path: string): UriMap[string] => ({ method: 'POST', path, idempotent: true, auth: 'headers' })

export const REST_BANK: Provider<'cbs'> = {
  issuer: 'cbs',
  name: 'rest',
  baseUrl: 'https://bank.invalid', // CBS_API_URL.
  hosts: [],
  uriMap: {
    customer_search: lookup('/customers/search'), account_search: lookup('/accounts/search'), account_details: lookup('/accounts/details'),
    account_balance: lookup('/accounts/balance'), mini_statement: lookup('/accounts/statement'), mno_validate: lookup('/wallets/validate'),
    bank_dictionary: lookup('/banks/list'), interbank_account_name: lookup('/banks/account-name')
  },
  requiredAuthHeaders: ['authorization'],
  isSuccess: response => ok2xx(response) && SUCCESS_CODES.includes(codeOf(response)?.toUpperCase() ?? ''),
  rejectionFrom: response => rejectionFromCode(codeOf(response), response),
  services,
  auditFields: [
    'reference', 'request.reference', 'accountNumber~account', 'request.accountNumber~account',
    'by', 'limit', 'from', 'to', 'fspId', 'bic', 'identifierType', 'country', 'code', 'response.code', 'data.status', 'data.currency'
  ]
}
