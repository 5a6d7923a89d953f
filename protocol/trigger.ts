// The columns of a bank's trigger: which are mandatory for whom, what they may hold, and what they are called in errors.
//
// | column   | label         | bank with database | without   |
// | column1  | tr_id         | mandatory          | optional  |
// | column2  | merchant_vpa  | mandatory          | optional  |
// | column3  | serial_number | optional           | mandatory |
// | column7  | language      | optional           | mandatory |
// | column8  | txn_amount    | mandatory          | mandatory |
// | column12 | txn_type      | optional           | mandatory |
// | column15 | status        | mandatory          | optional  |
import { createHash } from 'node:crypto'
import { isLanguage, LANGUAGES, type Language } from './languages.js'
import { parseAmount } from './money.js'
import { isTid } from './topics.js'

export type Column = 'column1' | 'column2' | 'column3' | 'column7' | 'column8' | 'column12' | 'column15'
type Rule = { label: string, withDatabase: boolean, without: boolean, shape: RegExp, form: string }

export const COLUMNS: Readonly<Record<Column, Rule>> = {
  column1: { label: 'tr_id', withDatabase: true, without: false, shape: /^[\x21-\x7e]{1,64}$/, form: '1 to 64 printable characters without spaces' },
  column2: { label: 'merchant_vpa', withDatabase: true, without: false, shape: /^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$/, form: '1 to 128 letters, digits, . _ @ -' },
  column3: { label: 'serial_number', withDatabase: false, without: true, shape: /^.*$/, form: '3 to 32 letters, digits, - or _' },
  column7: { label: 'language', withDatabase: false, without: true, shape: /^.*$/, form: `one of ${LANGUAGES.join(', ')}` },
  column8: { label: 'txn_amount', withDatabase: true, without: true, shape: /^.*$/, form: 'rupees with at most two decimals, above 0, at most 999999999.99' },
  column12: { label: 'txn_type', withDatabase: false, without: true, shape: /^[A-Za-z0-9][\w .:/+-]{0,31}$/, form: '1 to 32 letters, digits, spaces and . : / + -' },
  column15: { label: 'status', withDatabase: true, without: false, shape: /^(?:success|failed)$/i, form: 'success or failed' }
}
const NAMES = Object.keys(COLUMNS) as Column[]

/** The vendor's shape of one entry in `errors`. */
export type FieldError = { type: 'field', msg: string, path: string, location: 'body' }
export type TriggerFields = {
  transactionId: string | null
  merchant: string | null
  tid: string | null
  language: Language | null
  amountMinor: number
  txnType: string | null
  status: 'success' | 'failed'
}
export type TriggerRules = { database: boolean, fieldNames: Readonly<Record<string, string>> }

/**
 * Reads the columns of a decrypted trigger. `fieldNames` maps a column to the bank's own name for it; an empty text counts as missing.
 * Merchant names are lower-cased (VPAs know no case). All faults are reported at once, in column order.
 */
export function parseTrigger (body: Record<string, unknown>, rules: TriggerRules): { fields: TriggerFields } | { errors: FieldError[] } {
  const errors: FieldError[] = []
  const read = (column: Column): string | null => {
    const rule = COLUMNS[column]
    const name = rules.fieldNames[column] ?? column
    const value = Object.hasOwn(body, name) ? body[name] : undefined
    const label = rules.fieldNames[column] ?? rule.label
    if (value === undefined || value === null || value === '') {
      if (rules.database ? rule.withDatabase : rule.without) errors.push(fieldError(label, 'is mandatory'))
      return null
    }
    if (typeof value === 'string' && rule.shape.test(value) && isMeaningful(column, value)) return value
    errors.push(fieldError(label, `must be ${rule.form}`))
    return null
  }
  const values = Object.fromEntries(NAMES.map(column => [column, read(column)])) as Record<Column, string | null>
  if (errors.length > 0) return { errors }
  return {
    fields: {
      transactionId: values.column1,
      merchant: values.column2?.toLowerCase() ?? null,
      tid: values.column3,
      language: values.column7?.trim().toUpperCase() as Language | undefined ?? null,
      amountMinor: parseAmount(values.column8 ?? ''),
      txnType: values.column12,
      status: values.column15?.toLowerCase() === 'failed' ? 'failed' : 'success'
    }
  }
}

/** 32 hex digits over what makes two requests with one transaction id the same payment. */
export function contentHash (fields: Omit<TriggerFields, 'transactionId'>, currency: string): string {
  const form = [fields.merchant, fields.tid, fields.language, fields.amountMinor, currency, fields.txnType, fields.status].map(value => value ?? '').join('\0')
  return createHash('sha256').update(form, 'utf8').digest('hex').slice(0, 32)
}

function isMeaningful (column: Column, value: string): boolean {
  switch (column) {
    case 'column3': return isTid(value)
    case 'column7': return isLanguage(value.trim().toUpperCase())
    case 'column8': return isAmount(value)
    default: return true
  }
}

function isAmount (value: string): boolean {
  try {
    return parseAmount(value) > 0
  } catch {
    return false
  }
}

function fieldError (label: string, what: string): FieldError {
  return { type: 'field', msg: `${label} ${what}`, path: label, location: 'body' }
}
