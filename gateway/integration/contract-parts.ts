// The building blocks of the normalised contracts: each names one kind of value with its limits, so that a phone number or an amount
// means the same in all thirteen services. A value that a provider may not know is `orNull`: the key is always there.
import { Type, type TSchema } from 'typebox'

export const SEARCH_ROWS_MAX = 200 // A lookup that answers more is too wide: the caller narrows it.
export const DICTIONARY_ROWS_MAX = 2000 // Banks and wallets of one country, billers of one category.
export const STATEMENT_ROWS_MAX = 50
export const SMS_RECIPIENTS_MAX = 100
export const SMS_PARTS_MAX = 10
export const EMAIL_RECIPIENTS_MAX = 50
export const EMAIL_SUBJECT_CHARS_MAX = 200
export const EMAIL_BODY_CHARS_MAX = 100_000
export const PUSH_PAYLOAD_BYTES_MAX = 4096 // Firebase refuses more.

/** Text of 1 to `max` characters without control characters. */
export const text = (max: number, description: string) => Type.String({ minLength: 1, maxLength: max, pattern: '^[^\\u0000-\\u001f\\u007f]*$', description })

/** One of the listed words. */
export const oneOf = <const W extends string[]> (words: [...W], description: string) => Type.Enum(words, { description })

/** The value, or null where the provider does not say. */
export const orNull = <S extends TSchema> (schema: S) => Type.Union([schema, Type.Null()])

/** A closed object: an unknown key is refused. */
export const closed = <P extends Record<string, TSchema>> (properties: P) => Type.Object(properties, { additionalProperties: false })

export const rowsOf = <S extends TSchema> (row: S, max: number) => Type.Array(row, { maxItems: max })

export const accountNo = Type.String({ pattern: '^[A-Za-z0-9-]{4,34}$', description: 'account number as the bank writes it, leading zeros kept' })
export const cif = Type.String({ pattern: '^[A-Za-z0-9-]{1,32}$', description: 'customer number of the bank' })
export const msisdn = Type.String({ pattern: '^\\+?[1-9][0-9]{7,14}$', description: 'phone number in E.164, with or without the plus' })
export const masked = Type.String({ minLength: 1, maxLength: 20, pattern: '^[+0-9]*\\*+[0-9]{0,4}$', description: 'phone number with its middle masked' })
export const currency = Type.String({ pattern: '^[A-Z]{3}$', description: 'ISO 4217' })
export const country = Type.String({ pattern: '^[A-Z]{2}$', description: 'ISO 3166 alpha-2' })
export const decimal = Type.String({ pattern: '^-?[0-9]{1,15}(\\.[0-9]{1,4})?$', description: 'decimal amount in major units, as text' })
export const date = Type.String({ pattern: '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$', description: 'calendar date' })
export const instant = Type.String({
  pattern: '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$', description: 'RFC 3339 time with its offset'
})
export const bic = Type.String({ pattern: '^[A-Z0-9]{8}([A-Z0-9]{3})?$', description: 'ISO 9362' })
export const fspId = Type.String({ pattern: '^[A-Za-z0-9_-]{1,16}$', description: 'id of the bank or wallet in the payment scheme' })
export const clientRef = Type.String({ pattern: '^[A-Za-z0-9._:-]{1,64}$', description: "the caller's own id of this request: the same id is never sent to a provider twice" })
export const emailAddress = Type.String({ maxLength: 254, pattern: '^[A-Za-z0-9.!#$%&\'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63})+$', description: 'e-mail address' })

export const ACCOUNT_STATUSES = ['ACTIVE', 'DORMANT', 'FROZEN', 'CLOSED', 'OTHER'] as const
export const ACCOUNT_TYPES = ['SAVINGS', 'CURRENT', 'LOAN', 'DEPOSIT', 'WALLET', 'OTHER'] as const
export const accountStatus = oneOf([...ACCOUNT_STATUSES], 'normalised account status')
export const accountType = oneOf([...ACCOUNT_TYPES], 'normalised account type')
export const accountCategory = oneOf(['PERSON', 'BUSINESS'], 'who owns it')

/** `+255712345678` -> `2557****5678`: country and operator stay readable, the subscriber does not. */
export function maskMsisdn (value: string): string {
  const digits = digitsOfMsisdn(value)
  return `${digits.slice(0, 4)}${'*'.repeat(Math.max(1, digits.length - 8))}${digits.length > 8 ? digits.slice(-4) : ''}`
}

/** The digits of an E.164 number, as most providers want it. */
export function digitsOfMsisdn (value: string): string {
  return value.startsWith('+') ? value.slice(1) : value
}
