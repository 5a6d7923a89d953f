// Every provider there is: one line each. A setting names one (`SMS_API_PROVIDER=beem`); README.md says how to add another.
import { SoundboxError } from '../../../protocol/index.js'
import type { Issuer } from '../contract.js'
import type { Provider } from '../provider.js'
import { FLUTTERWAVE } from './bill-flutterwave.js'
import { REST_BANK } from './cbs-rest.js'
import { TIPS } from './cbs-tips.js'
import { DIDIT } from './kyc-didit.js'
import { FCM } from './push-fcm.js'
import { AFRICAS_TALKING } from './sms-africastalking.js'
import { BEEM } from './sms-beem.js'
import { INFOBIP } from './sms-infobip.js'
import { MSG91 } from './sms-msg91.js'

/** All providers. `email` has none here: it speaks SMTP (smtp-mailer.ts). */
export const PROVIDERS: { readonly [I in Issuer]: readonly Provider<I>[] } = {
  cbs: [TIPS, REST_BANK],
  bill: [FLUTTERWAVE],
  sms: [BEEM, AFRICAS_TALKING, MSG91, INFOBIP],
  email: [],
  push: [FCM],
  kyc: [DIDIT]
}

/** The provider of that name. Throws PROVIDER_CONFIG naming those that exist. */
export function findProvider<I extends Issuer> (issuer: I, name: string): Provider<I> {
  const found = PROVIDERS[issuer].find(provider => provider.name === name)
  if (found === undefined) throw new SoundboxError('PROVIDER_CONFIG', `${issuer} has no provider of that name; known: ${PROVIDERS[issuer].map(provider => provider.name).join(', ') || 'none'}`)
  return found
}
