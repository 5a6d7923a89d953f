// Makes the SIM tables from a seed: customers, their accounts and wallets, accounts at other banks, billers. Every row is drawn from
// "seed/table/number", so a larger world begins with the same rows as a smaller one.
import { SoundboxError } from '../../../protocol/errors.js'
import type { TemporalCBSConfig } from '../config.js'
import { SIM_PLACES, type SIMPlace } from './places.js'
import { drawsFromSeed } from './seeded.js'
import { statementOfAccount } from './statement.js'
import type {
  SIMAccount, SIMBiller, SIMBillerPackage, SIMCountry, SIMCustomer, SIMExternalAccount, SIMMobileWallet, SIMTables
} from './tables.js'

export const SIM_CUSTOMERS_MAX = 5_000 // About 5 MB of rows.
const ACCOUNTS_PER_CUSTOMER_MAX = 3
const WALLET_SHARE = 0.8
const DAY_MS = 86_400_000

/** The simulated world of a configuration as it stands at `asOfMs` (statements end before it); the same arguments make the same world.
 *  Throws CONFIG_INVALID for a country that is not simulated and above SIM_CUSTOMERS_MAX. */
export function makeSIMTables (config: Pick<TemporalCBSConfig, 'seed' | 'customers' | 'country' | 'currency'>, asOfMs: number): SIMTables {
  const { seed, customers: count } = config
  const country = countryFrom(config.country)
  if (!Number.isInteger(count) || count < 1 || count > SIM_CUSTOMERS_MAX) {
    throw new SoundboxError('CONFIG_INVALID', `simulated customers must be 1 to ${SIM_CUSTOMERS_MAX}`)
  }
  const place = { ...SIM_PLACES[country], currency: config.currency }
  const numbers = Array.from({ length: count }, (_, index) => index + 1)
  const customers = numbers.map(number => customerFromNumber(`${seed}/customer/${number}`, place, number))
  const accounts = customers.flatMap((customer, index) => accountsOfCustomer(`${seed}/account/${index + 1}`, place, customer, { number: index + 1, asOfMs }))
  return {
    country, asOfMs, customers, accounts,
    wallets: customers.flatMap((customer, index) => walletOfCustomer(`${seed}/wallet/${index + 1}`, place, customer)),
    banks: place.banks,
    externalAccounts: numbers.map(number => externalAccount(`${seed}/external/${number}`, place, number)),
    categories: place.categories, billers: place.billers,
    packages: place.billers.flatMap(biller => packagesOfBiller(`${seed}/package/${biller.billerCode}`, place, biller)),
    statementOf: account => statementOfAccount(`${seed}/statement/${account.accountNo}`, place, account, asOfMs)
  }
}

function countryFrom (text: string): SIMCountry {
  const known = Object.keys(SIM_PLACES) as SIMCountry[]
  const country = known.find(name => name === text)
  if (country === undefined) throw new SoundboxError('CONFIG_INVALID', `the simulated country must be one of ${known.join(', ')}`)
  return country
}

function personName (seed: string, place: SIMPlace): string {
  const draw = drawsFromSeed(`${seed}/name`)
  return `${draw.pick(place.given)} ${draw.pick(place.surnames)}`
}

function customerFromNumber (seed: string, place: SIMPlace, number: number): SIMCustomer {
  const draw = drawsFromSeed(seed)
  const isBusiness = draw.chance(0.4)
  return {
    cif: String(9_000_000 + number),
    fullName: isBusiness ? `${draw.pick(place.shops)} ${number}` : personName(seed, place),
    msisdn: msisdnFromNumber(place, number),
    nationalId: `SIM${String(number).padStart(8, '0')}`,
    idType: isBusiness ? place.businessId : place.personId,
    kind: isBusiness ? 'BUSINESS' : 'PERSON',
    status: draw.chance(0.92) ? 'ACTIVE' : draw.pick(['INACTIVE', 'BLOCKED']),
    branch: draw.pick(place.branches)
  }
}

/** E.164 in form, but its national part begins with 0: no network routes it. */
function msisdnFromNumber (place: SIMPlace, number: number): string {
  return `+${place.dialCode}0${String(number).padStart(place.nationalDigits - 1, '0')}`
}

type Opening = { number: number, asOfMs: number }
function accountsOfCustomer (seed: string, place: SIMPlace, customer: SIMCustomer, { number, asOfMs }: Opening): SIMAccount[] {
  const draw = drawsFromSeed(seed)
  const count = draw.between(1, ACCOUNTS_PER_CUSTOMER_MAX)
  return Array.from({ length: count }, (_, index) => {
    const isCurrent = customer.kind === 'BUSINESS' && index === 0
    const standing = draw.below(100)
    const [status, subStatus] = standing < 88 ? ['ACTIVE', null] as const : standing < 94 ? ['DORMANT', 'NO ACTIVITY FOR 12 MONTHS'] as const
      : standing < 97 ? ['FROZEN', 'DEBIT FREEZE'] as const : ['CLOSED', 'CLOSED BY CUSTOMER'] as const
    const ageDays = draw.between(200, 4000)
    return {
      accountNo: `0${String(100 + place.branches.indexOf(customer.branch))}${String(number).padStart(6, '0')}${String(index + 1).padStart(2, '0')}`,
      cif: customer.cif, name: customer.fullName, type: isCurrent ? 'CURRENT' : 'SAVINGS',
      product: isCurrent ? 'MERCHANT CURRENT' : 'EVERYDAY SAVINGS', currency: place.currency, status, subStatus, branch: customer.branch,
      openedOn: new Date(asOfMs - ageDays * DAY_MS).toISOString().slice(0, 10),
      heldMinor: draw.chance(0.15) ? draw.between(1, 9) * place.smallMinor[0] : 0,
      overdraftMinor: isCurrent && draw.chance(0.5) ? draw.between(1, 10) * place.largeMinor[0] : 0
    }
  })
}

function walletOfCustomer (seed: string, place: SIMPlace, customer: SIMCustomer): SIMMobileWallet[] {
  const draw = drawsFromSeed(seed)
  if (!draw.chance(WALLET_SHARE)) return []
  const operators = place.banks.filter(bank => bank.kind === 'MNO')
  const operator = operators[draw.below(operators.length)]
  if (operator === undefined) return []
  return [{
    mno: operator.shortName, fspId: operator.fspId, msisdn: customer.msisdn, registeredName: customer.fullName, accountCategory: customer.kind,
    walletStatus: draw.chance(0.95) ? 'ACTIVE' : 'FROZEN'
  }]
}

function externalAccount (seed: string, place: SIMPlace, number: number): SIMExternalAccount {
  const draw = drawsFromSeed(seed)
  const banks = place.banks.filter(bank => bank.kind === 'BANK')
  const bank = banks[draw.below(banks.length)]
  const isBusiness = draw.chance(0.3)
  return {
    fspId: bank?.fspId ?? '',
    accountNo: `7700${String(number).padStart(8, '0')}`,
    accountName: isBusiness ? `${draw.pick(place.shops)} ${number}` : personName(seed, place),
    accountCategory: isBusiness ? 'BUSINESS' : 'PERSON',
    identityType: isBusiness ? place.businessId : place.personId
  }
}

function packagesOfBiller (seed: string, place: SIMPlace, biller: SIMBiller): SIMBillerPackage[] {
  const draw = drawsFromSeed(seed)
  const unit = place.smallMinor[0]
  const item = (suffix: string, row: Pick<SIMBillerPackage, 'name' | 'amountType'> & Partial<SIMBillerPackage>): SIMBillerPackage => ({
    billerCode: biller.billerCode, itemCode: `${biller.billerCode}-${suffix}`, amountMinor: 0, minMinor: 0, maxMinor: 0,
    feeMinor: draw.between(0, 3) * 100, currency: place.currency, ...row
  })
  switch (biller.category) {
    case 'TV': return ['Basic', 'Family', 'Sport'].map((name, index) =>
      item(`P${index + 1}`, { name: `${biller.name} ${name}`, amountType: 'FIXED', amountMinor: draw.between(2, 6) * (index + 1) * unit }))
    case 'AIRTIME': return [item('TOPUP', { name: `${biller.name} top-up`, amountType: 'RANGE', minMinor: unit, maxMinor: 100 * unit })]
    case 'POWER': return [item('PREPAID', { name: `${biller.name} prepaid units`, amountType: 'RANGE', minMinor: 2 * unit, maxMinor: 2000 * unit })]
    default: return [item('BILL', { name: `${biller.name} bill`, amountType: 'OPEN' })]
  }
}
