// What the operator says of a merchant who is to be checked: as a member of the mapping's body, and of the check's own.
import { type Static, Type } from 'typebox'
import { SoundboxError } from '../../protocol/index.js'
import type { Settlement } from '../integration/onboarding.js'

const NAMES_MAX = 4
/** `acceptReview`: a person has looked, and takes him. */
export type CheckForm = { names: [string, ...string[]], settlement: Settlement, kycSession?: string, acceptReview?: boolean }

const Word = (max: number, description: string): ReturnType<typeof Type.String> => Type.String({ minLength: 1, maxLength: max, description })
export const CheckFields = Type.Object({
  names: Type.Array(Word(140, 'legal or trade name'), { minItems: 1, maxItems: NAMES_MAX }),
  account: Type.Optional(Type.Object({ accountNo: Word(34, 'account number'), fspId: Type.Optional(Word(16, 'id of the bank in the scheme')), bic: Type.Optional(Word(11, 'ISO 9362')) },
    { additionalProperties: false })),
  wallet: Type.Optional(Type.Object({ mno: Word(24, 'operator'), msisdn: Word(16, 'E.164') }, { additionalProperties: false })),
  kycSession: Type.Optional(Word(64, 'identity check; default: the newest that was opened for this merchant')),
  acceptReview: Type.Optional(Type.Boolean({ description: 'a person has looked at a check that says review' }))
}, { additionalProperties: false })

/** Throws INPUT_INVALID unless account or wallet is given, one of the two. */
export function checkForm ({ names, account, wallet, kycSession, acceptReview }: Static<typeof CheckFields>): CheckForm {
  const [first = '', ...others] = names
  return {
    names: [first, ...others], settlement: settlementOf(account, wallet),
    ...(kycSession === undefined ? {} : { kycSession }), ...(acceptReview === undefined ? {} : { acceptReview })
  }
}

function settlementOf (account: Static<typeof CheckFields>['account'], wallet: Static<typeof CheckFields>['wallet']): Settlement {
  if (wallet !== undefined && account === undefined) return { kind: 'wallet', mno: wallet.mno, msisdn: wallet.msisdn }
  if (account === undefined || wallet !== undefined) throw new SoundboxError('INPUT_INVALID', 'check needs account or wallet, one of the two')
  const { accountNo, fspId, bic } = account
  return { kind: 'bank', accountNo, ...(fspId === undefined ? {} : { fspId }), ...(bic === undefined ? {} : { bic }) }
}
