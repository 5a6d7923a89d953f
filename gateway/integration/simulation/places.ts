// The words and figures that the simulated world of each country is made from. Given names are common ones; every surname, shop, bank,
// operator and biller carries a word for "sample" (mfano, kielelezo, namuna, udaharan, mathiri), so that nobody takes a row for a person.
import type { SIMBank, SIMBiller, SIMBillerCategory, SIMCountry, SIMCustomer } from './tables.js'

type Words = readonly [string, ...string[]]

/** Words and figures of one country. */
export type SIMPlaceWords = {
  dialCode: string, nationalDigits: number, utcOffsetMinutes: number
  personId: SIMCustomer['idType'], businessId: SIMCustomer['idType'], walletType: 'UPI' | 'WALLET'
  given: Words, surnames: Words, shops: Words, branches: Words, payers: Words
  smallMinor: readonly [number, number], largeMinor: readonly [number, number], feeMinor: number
  banks: readonly SIMBank[], categories: readonly SIMBillerCategory[], billers: readonly SIMBiller[]
}

/** A country with the currency that the settings name. */
export type SIMPlace = SIMPlaceWords & { currency: string }

type BankWords = Pick<SIMBank, 'code' | 'bic' | 'name' | 'shortName' | 'kind'> & Partial<SIMBank>
function bank (row: BankWords): SIMBank {
  const accountLen = row.kind === 'MNO' ? 12 : 14
  return { fspId: row.code, accountLen, lookup: true, transfer: true, active: true, updatedOn: '2026-01-05', ...row }
}

function biller (billerCode: string, name: string, category: string, field: { name: string, label: string, regex: string }): SIMBiller {
  return { billerCode, name, category, fields: [{ ...field, required: true, primary: true }], supportsValidation: category !== 'AIRTIME' }
}

const METER = { name: 'meter_no', label: 'Meter number', regex: '^\\d{11}$' }
const CARD = { name: 'card_no', label: 'Decoder number', regex: '^\\d{10}$' }
const CONSUMER = { name: 'consumer_no', label: 'Consumer number', regex: '^[A-Z0-9]{8,12}$' }
const MSISDN = { name: 'msisdn', label: 'Phone number', regex: '^\\+[1-9]\\d{7,14}$' }
const CATEGORIES: readonly SIMBillerCategory[] = [
  { code: 'AIRTIME', name: 'Airtime' }, { code: 'POWER', name: 'Electricity' }, { code: 'TV', name: 'Television' }, { code: 'WATER', name: 'Water' }
]

export const SIM_PLACES: Record<SIMCountry, SIMPlaceWords> = {
  TZ: {
    dialCode: '255', nationalDigits: 9, utcOffsetMinutes: 180, personId: 'NIN', businessId: 'TIN', walletType: 'WALLET',
    given: ['Asha', 'Baraka', 'Consolata', 'Daudi', 'Elizabeth', 'Fatuma', 'Godfrey', 'Halima', 'Issa', 'Juma', 'Neema', 'Rehema', 'Salum', 'Zawadi'],
    surnames: ['Mfano', 'Kielelezo', 'Sampuli', 'Mfanowao', 'Kifanani'],
    shops: ['Duka la Mfano', 'Mgahawa wa Mfano', 'Kielelezo Hardware', 'Duka la Dawa Sampuli', 'Mfano Mini Market'],
    branches: ['Kariakoo', 'Mwanza', 'Arusha', 'Dodoma', 'Mbeya'],
    payers: ['mteja wa duka', 'malipo ya bidhaa', 'ankara ya mauzo'],
    smallMinor: [50_000, 4_500_000], largeMinor: [5_000_000, 150_000_000], feeMinor: 118_000,
    banks: [
      bank({ code: '901', bic: 'MFNOTZT0', name: 'Mfano Commercial Bank', shortName: 'MFANO', kind: 'BANK' }),
      bank({ code: '902', bic: 'KLLZTZT0', name: 'Kielelezo Savings Bank', shortName: 'KIELELEZO', kind: 'BANK', updatedOn: '2026-03-16' }),
      bank({ code: '903', bic: 'SMPLTZT0', name: 'Sampuli Cooperative Bank', shortName: 'SAMPULI', kind: 'BANK', active: false, transfer: false, updatedOn: '2026-04-20' }),
      bank({ code: '951', bic: 'MFPSTZT0', name: 'Mfano Pesa', shortName: 'MFANOPESA', kind: 'MNO' }),
      bank({ code: '952', bic: 'SMPMTZT0', name: 'Sampuli Money', shortName: 'SAMPULIMONEY', kind: 'MNO', updatedOn: '2026-02-09' })
    ],
    categories: CATEGORIES,
    billers: [
      biller('BIL-101', 'Mfano Airtime', 'AIRTIME', MSISDN), biller('BIL-201', 'Mfano Umeme', 'POWER', METER),
      biller('BIL-301', 'Kielelezo TV', 'TV', CARD), biller('BIL-302', 'Sampuli Vision', 'TV', CARD), biller('BIL-401', 'Mfano Maji', 'WATER', CONSUMER)
    ]
  },
  IN: {
    dialCode: '91', nationalDigits: 10, utcOffsetMinutes: 330, personId: 'PAN_CARD', businessId: 'GSTIN', walletType: 'UPI',
    given: ['Aarav', 'Bhavna', 'Chitra', 'Deepak', 'Esha', 'Farhan', 'Gauri', 'Harish', 'Imran', 'Jaya', 'Kavita', 'Lakshmi', 'Manoj', 'Nisha'],
    surnames: ['Namuna', 'Udaharan', 'Mathiri', 'Namunakar', 'Udaharanam'],
    shops: ['Namuna Kirana Store', 'Udaharan Sweets', 'Mathiri Textiles', 'Namuna Medicals', 'Udaharan Electricals'],
    branches: ['Indiranagar', 'Karol Bagh', 'Andheri', 'Mylapore', 'Salt Lake'],
    payers: ['shop customer', 'payment for goods', 'sales invoice'],
    smallMinor: [1_000, 250_000], largeMinor: [250_000, 7_500_000], feeMinor: 1_770,
    banks: [
      bank({ code: 'NMNA', bic: 'NMNAINB0', name: 'Namuna Bank', shortName: 'NAMUNA', kind: 'BANK' }),
      bank({ code: 'UDHR', bic: 'UDHRINB0', name: 'Udaharan Gramin Bank', shortName: 'UDAHARAN', kind: 'BANK', updatedOn: '2026-03-16' }),
      bank({ code: 'MTHR', bic: 'MTHRINB0', name: 'Mathiri Cooperative Bank', shortName: 'MATHIRI', kind: 'BANK', active: false, transfer: false, updatedOn: '2026-04-20' }),
      bank({ code: 'NMPS', bic: 'NMPSINB0', name: 'Namuna Paisa', shortName: 'NAMUNAPAISA', kind: 'MNO' }),
      bank({ code: 'UDWL', bic: 'UDWLINB0', name: 'Udaharan Wallet', shortName: 'UDAHARANWALLET', kind: 'MNO', updatedOn: '2026-02-09' })
    ],
    categories: CATEGORIES,
    billers: [
      biller('BIL-101', 'Namuna Mobile', 'AIRTIME', MSISDN), biller('BIL-201', 'Namuna Vidyut', 'POWER', METER),
      biller('BIL-301', 'Udaharan DTH', 'TV', CARD), biller('BIL-302', 'Mathiri Vision', 'TV', CARD), biller('BIL-401', 'Namuna Jal', 'WATER', CONSUMER)
    ]
  }
}
