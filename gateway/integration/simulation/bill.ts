// The three services of the bill aggregator, answered from the SIM tables.
import { SoundboxError } from '../../../protocol/index.js'
import type { IssuerServices, ServiceRequest, ServiceResponse } from '../contract.js'
import { formatDecimal } from './format.js'
import type { SIMBillerPackage, SIMTables } from './tables.js'

type BillAnswers = { [S in IssuerServices<'bill'>]: (input: ServiceRequest<S>) => ServiceResponse<S> }

/** The aggregator of these tables. Answers throw PROVIDER_REJECTED for an unknown category or biller. */
export function simulatedBill (tables: SIMTables): BillAnswers {
  return {
    biller_category_bill: ({ country }) => country !== undefined && country !== tables.country ? [] : tables.categories.map(({ code, name }) => ({ code, name })),
    biller_fetch_bill: ({ category, q }) => {
      if (!tables.categories.some(row => row.code === category)) throw new SoundboxError('PROVIDER_REJECTED', 'CATEGORY_UNKNOWN: the category does not exist')
      const wanted = q?.toLowerCase() ?? ''
      return tables.billers.filter(row => row.category === category && row.name.toLowerCase().includes(wanted)).map(row => ({
        biller_code: row.billerCode, name: row.name, category, fields: row.fields.map(field => ({ ...field })), supports_validation: row.supportsValidation
      }))
    },
    biller_package_bill: ({ biller_code }) => {
      if (!tables.billers.some(row => row.billerCode === biller_code)) throw new SoundboxError('PROVIDER_REJECTED', 'BILLER_UNKNOWN: the biller does not exist')
      return tables.packages.filter(row => row.billerCode === biller_code).map(packageRow)
    }
  }
}

function packageRow (row: SIMBillerPackage): ServiceResponse<'biller_package_bill'>[number] {
  const isRange = row.amountType === 'RANGE'
  return {
    item_code: row.itemCode, name: row.name, amount: row.amountType === 'FIXED' ? formatDecimal(row.amountMinor) : null, amount_type: row.amountType,
    min: isRange ? formatDecimal(row.minMinor) : null, max: isRange ? formatDecimal(row.maxMinor) : null, fee: formatDecimal(row.feeMinor), currency: row.currency
  }
}
