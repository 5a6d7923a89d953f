// Core bank behind a TIPS participant (the shape NMB of Tanzania publishes): account lookup in the own bank, party lookup at the others.
// HTTP is always 200; success is `statusCode` 600 in the body.
//
// Parameters: CBS_API_PARAM_CLIENT_ID, _SOURCE_ID (own FSP id), and one _MNO_<NAME> (FSP id) for each wallet operator.
import { SoundboxError } from '../../../protocol/index.js'
import { optionalTextAt, textAt, wordFrom } from '../fields.js'
import type { MappingContext, Provider, ProviderRequest, ProviderResponse, ServiceMapping } from '../provider.js'
import { digitsOfMsisdn } from '../contract.js'
import { ACCOUNT_STATUS_WORDS, ACCOUNT_TYPE_WORDS, CATEGORY_WORDS, codeAt, ok2xx, plusMsisdn, rejectionFromCode, requiredParam } from './parts.js'

const SUCCESS = '600'
const MEANINGS = { 601: 'the bank could not process the request', 602: 'nothing was found', 603: 'the request is not valid', 604: 'not authorised' }

const accountDetails: ServiceMapping<'account_details_cbs'> = {
  toRequest: (input, ctx) => ({
    uriKey: 'account_lookup', format: 'json',
    body: {
      service: 'account-details',
      payload: { clientID: requiredParam(ctx, 'client_id'), transactionReference: ctx.reference, customerAccount: input.account_no }
    }
  }),
  fromResponse: ({ body }) => ({
    account_no: textAt(body, 'body.custAcNo'),
    name: [optionalTextAt(body, 'body.firstName'), optionalTextAt(body, 'body.lastName')].filter(part => part !== null).join(' ') || textAt(body, 'body.fullName'),
    cif: optionalTextAt(body, 'body.custNo'),
    type: wordFrom(optionalTextAt(body, 'body.accountType'), ACCOUNT_TYPE_WORDS, 'OTHER'),
    product: optionalTextAt(body, 'body.product'),
    currency: textAt(body, 'body.currency'),
    status: wordFrom(optionalTextAt(body, 'body.accountStatus'), ACCOUNT_STATUS_WORDS, 'OTHER'),
    sub_status: optionalTextAt(body, 'body.accountStatus'),
    branch: optionalTextAt(body, 'body.branchName'),
    opened_on: null
  })
}

type Party = { identifier: string, fspDestination: string, identifierType: 'BANK' | 'MSISDN' | 'ALIAS' }
function partyRequest (party: Party, ctx: MappingContext): ProviderRequest {
  return {
    uriKey: 'party_lookup', format: 'json',
    body: { requestBody: { sourceId: requiredParam(ctx, 'source_id'), transactionReference: ctx.reference, ...party } }
  }
}

const interbankName: ServiceMapping<'interbank_account_name_cbs'> = {
  toRequest: (input, ctx) => {
    if (input.fsp_id === undefined) throw new SoundboxError('INPUT_INVALID', '/fsp_id is needed: this provider finds banks by their scheme id, not by BIC')
    const identifier = input.identifier_type === 'MSISDN' ? digitsOfMsisdn(input.account_no) : input.account_no
    return partyRequest({ identifier, fspDestination: input.fsp_id, identifierType: input.identifier_type }, ctx)
  },
  fromResponse: ({ body }, input, ctx) => {
    const identity = optionalTextAt(body, 'body.identity.type')
    return {
      fsp_id: optionalTextAt(body, 'body.fspId') ?? input.fsp_id ?? textAt(body, 'body.fspId'),
      account_no: input.account_no,
      account_name: textAt(body, 'body.fullName'),
      account_category: categoryOf(body),
      ...(identity === null ? {} : { identity_type: identity }),
      lookup_ref: ctx.reference,
      valid_until: null
    }
  }
}

const mnoValidate: ServiceMapping<'mno_validate_cbs'> = {
  toRequest: (input, ctx) => partyRequest({ identifier: digitsOfMsisdn(input.msisdn), fspDestination: operatorOf(input.mno, ctx), identifierType: 'MSISDN' }, ctx),
  fromResponse: ({ body }, input, ctx) => ({
    mno: input.mno,
    fsp_id: optionalTextAt(body, 'body.fspId') ?? operatorOf(input.mno, ctx),
    msisdn: plusMsisdn(input.msisdn),
    registered_name: textAt(body, 'body.fullName'),
    account_category: categoryOf(body),
    wallet_status: wordFrom(optionalTextAt(body, 'body.accountStatus'), ACCOUNT_STATUS_WORDS, 'ACTIVE'), // The scheme answers for live wallets only.
    lookup_ref: ctx.reference
  })
}

/** The scheme's default is a person: only a registered business carries the word. */
function categoryOf (body: unknown): 'PERSON' | 'BUSINESS' {
  return wordFrom(optionalTextAt(body, 'body.accountCategory'), CATEGORY_WORDS, 'PERSON')
}

function operatorOf (mno: string, ctx: MappingContext): string {
  return /^\d{3,6}$/.test(mno) ? mno : requiredParam(ctx, `mno_${mno.toLowerCase()}`)
}

const statusCode = (response: ProviderResponse): string | null => codeAt(response, 'statusCode')

export const TIPS: Provider<'cbs'> = {
  issuer: 'cbs',
  name: 'tips',
  baseUrl: 'https://tips.bank.invalid', // Every bank has its own: CBS_API_URL.
  hosts: [],
  uriMap: {
    account_lookup: { method: 'POST', path: '/api/v1/account/lookup', idempotent: true, auth: 'headers' },
    party_lookup: { method: 'POST', path: '/api/v1/banks/lookup', idempotent: true, auth: 'headers' }
  },
  requiredAuthHeaders: ['authorization'],
  isSuccess: response => ok2xx(response) && statusCode(response) === SUCCESS,
  rejectionFrom: response => rejectionFromCode(statusCode(response), response, MEANINGS),
  services: { account_details_cbs: accountDetails, interbank_account_name_cbs: interbankName, mno_validate_cbs: mnoValidate },
  auditFields: [
    'service', 'payload.transactionReference', 'payload.customerAccount~account', 'requestBody.transactionReference',
    'requestBody.fspDestination', 'requestBody.identifierType', 'requestBody.identifier~account', 'statusCode',
    'body.fspId', 'body.accountType', 'body.accountStatus', 'body.currency'
  ]
}
