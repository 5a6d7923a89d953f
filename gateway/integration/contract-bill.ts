// What a bill aggregator is asked and answers. Issuer `bill`: category -> biller -> package.
import { Type } from 'typebox'
import { closed, country, currency, decimal, DICTIONARY_ROWS_MAX, oneOf, orNull, rowsOf, text } from './contract-parts.js'

const code = Type.String({ pattern: '^[A-Za-z0-9_.-]{1,64}$' })

const billerField = closed({
  name: text(64, 'key to send'), label: text(140, 'what to ask the payer'), regex: orNull(text(200, 'shape of the value')), required: Type.Boolean(),
  primary: Type.Boolean({ description: 'the field that names the customer' })
})

export const BILL_SERVICES = {
  biller_category_bill: {
    issuer: 'bill', changesState: false, summary: 'Kinds of bills',
    request: closed({ country: Type.Optional(country) }),
    response: rowsOf(closed({ code, name: text(140, 'name of the category') }), DICTIONARY_ROWS_MAX),
    example: { request: { country: 'TZ' }, response: [{ code: 'UTILITYBILLS', name: 'Utility bills' }] }
  },
  biller_fetch_bill: {
    issuer: 'bill', changesState: false, summary: 'Billers of a category',
    request: closed({ category: code, q: Type.Optional(text(64, 'part of the name')) }),
    response: rowsOf(closed({
      biller_code: code, name: text(140, 'name of the biller'), category: code, fields: rowsOf(billerField, 20), supports_validation: Type.Boolean()
    }), DICTIONARY_ROWS_MAX),
    example: {
      request: { category: 'UTILITYBILLS', q: 'luku' },
      response: [{
        biller_code: 'BIL119', name: 'LUKU', category: 'UTILITYBILLS', supports_validation: true,
        fields: [{ name: 'customer_id', label: 'Meter number', regex: '^[0-9]{11}$', required: true, primary: true }]
      }]
    }
  },
  biller_package_bill: {
    issuer: 'bill', changesState: false, summary: 'What can be paid at a biller',
    request: closed({ biller_code: code }),
    response: rowsOf(closed({
      item_code: code, name: text(140, 'name of the item'), amount: orNull(decimal), amount_type: oneOf(['FIXED', 'OPEN', 'RANGE'], 'who sets the amount'),
      min: orNull(decimal), max: orNull(decimal), fee: orNull(decimal), currency
    }), DICTIONARY_ROWS_MAX),
    example: {
      request: { biller_code: 'BIL119' },
      response: [{ item_code: 'UB157', name: 'LUKU prepaid', amount: null, amount_type: 'RANGE', min: '1000.00', max: '1000000.00', fee: '0.00', currency: 'TZS' }]
    }
  }
} as const
