// Bills through Flutterwave's v3 API: categories of a country, billers of a category, items of a biller. Success is `status: "success"`.
// Setting: BILL_API_HEADER_AUTHORIZATION (`Bearer <secret key>`); BILL_API_PARAM_COUNTRY is the country when a request names none.
import { decimalAt, optionalDecimalAt, optionalTextAt, rowsAt, textAt, type Fields } from '../fields.js'
import type { ServiceResponse } from '../contract.js'
import type { MappingContext, Provider, ProviderResponse } from '../provider.js'
import { codeAt, ok2xx, rejectionFromCode, requiredParam } from './parts.js'

const COUNTRY_CURRENCY: Readonly<Record<string, string>> = {
  NG: 'NGN', GH: 'GHS', KE: 'KES', UG: 'UGX', TZ: 'TZS', RW: 'RWF', ZM: 'ZMW', ZA: 'ZAR', US: 'USD', IN: 'INR'
}
const CUSTOMER_FIELD = { name: 'customer_id', label: 'Customer number', regex: null, required: true, primary: true }

const countryOf = (country: string | undefined, ctx: MappingContext): string => country ?? requiredParam(ctx, 'country')

function itemRow (row: Fields, ctx: MappingContext): ServiceResponse<'biller_package_bill'>[number] {
  const amount = optionalDecimalAt(row, 'amount')
  const isFixed = amount !== null && Number(amount) > 0 // The aggregator writes 0 where the payer chooses.
  const country = optionalTextAt(row, 'country')?.toUpperCase() ?? ''
  return {
    item_code: textAt(row, 'item_code'), name: optionalTextAt(row, 'name') ?? textAt(row, 'biller_name'), amount: isFixed ? decimalAt(row, 'amount') : null,
    amount_type: isFixed ? 'FIXED' : 'OPEN', min: null, max: null, fee: optionalDecimalAt(row, 'fee'),
    currency: COUNTRY_CURRENCY[country] ?? requiredParam(ctx, 'currency')
  }
}

const statusOf = (response: ProviderResponse): string | null => codeAt(response, 'status')

export const FLUTTERWAVE: Provider<'bill'> = {
  issuer: 'bill',
  name: 'flutterwave',
  baseUrl: 'https://api.flutterwave.com',
  hosts: ['api.flutterwave.com:443'],
  uriMap: {
    categories: { method: 'GET', path: '/v3/top-bill-categories', idempotent: true, auth: 'headers' },
    billers: { method: 'GET', path: '/v3/bills/{category}/billers', idempotent: true, auth: 'headers' },
    items: { method: 'GET', path: '/v3/billers/{biller}/items', idempotent: true, auth: 'headers' }
  },
  requiredAuthHeaders: ['authorization'],
  isSuccess: response => ok2xx(response) && statusOf(response) === 'success',
  rejectionFrom: response => rejectionFromCode(statusOf(response), response, { error: 'the aggregator refused the request' }),
  services: {
    biller_category_bill: {
      toRequest: (input, ctx) => ({ uriKey: 'categories', format: 'none', query: { country: countryOf(input.country, ctx) } }),
      fromResponse: response => rowsAt(response.body, 'data').map(row => ({ code: textAt(row, 'code'), name: textAt(row, 'name') }))
    },
    biller_fetch_bill: {
      toRequest: (input, ctx) => ({ uriKey: 'billers', format: 'none', pathParams: { category: input.category }, query: { country: requiredParam(ctx, 'country') } }),
      fromResponse: (response, input) => rowsAt(response.body, 'data').filter(row => textAt(row, 'name').toLowerCase().includes(input.q?.toLowerCase() ?? '')).map(row => ({
        biller_code: textAt(row, 'biller_code'), name: textAt(row, 'name'), category: input.category, fields: [{ ...CUSTOMER_FIELD }], supports_validation: true
      }))
    },
    biller_package_bill: {
      toRequest: input => ({ uriKey: 'items', format: 'none', pathParams: { biller: input.biller_code } }),
      fromResponse: (response, _input, ctx) => rowsAt(response.body, 'data').map(row => itemRow(row, ctx))
    }
  },
  auditFields: ['country', 'status', 'data.code', 'data.biller_code', 'data.item_code']
}
