// Every error that may cross a module border: one row each, with its name in every outside vocabulary.
// README lists the same rows and a test keeps the two equal. Codes are never renamed or reused.

type ErrorRow = { status: number, partner: string | null, iso: string | null, retryable: boolean, remedy: string }

/** `status`: HTTP. `partner`: the bank trigger API's code. `iso`: ISO 8583:1987 DE 39. `remedy`: what the reader of the error can do. */
export const ERRORS = {
  // The trigger API, before any bank logic.
  PASS_KEY_MISSING: { status: 401, partner: null, iso: null, retryable: false, remedy: 'send the pass_key header of your client record' },
  HEADER_SECRETS_MISSING: { status: 401, partner: null, iso: null, retryable: false, remedy: 'send the header_secrets header' },
  HEADER_SECRETS_EMPTY: { status: 401, partner: null, iso: null, retryable: false, remedy: 'put the encrypted credentials into header_secrets' },
  EPOCH_EXPIRED: { status: 401, partner: null, iso: null, retryable: true, remedy: 'make header_secrets anew for each call and check the clock of the caller' },
  CREDENTIALS_INVALID: { status: 401, partner: null, iso: null, retryable: false, remedy: 'check keys, client id, client secret and cipher profile; never send the same header_secrets twice' },
  METHOD_NOT_ALLOWED: { status: 405, partner: null, iso: null, retryable: false, remedy: 'use POST' },
  RATE_LIMITED: { status: 429, partner: null, iso: '91', retryable: true, remedy: 'wait for the seconds that Retry-After names' },
  OVERLOADED: { status: 503, partner: null, iso: '91', retryable: true, remedy: 'send the same request again after Retry-After seconds; nothing was recorded' },
  BODY_TOO_LARGE: { status: 413, partner: null, iso: null, retryable: false, remedy: 'keep the body within 64 KiB' },
  // The trigger API, the bank's own vocabulary.
  FIELD_INVALID: { status: 400, partner: null, iso: '30', retryable: false, remedy: 'correct the field that path names' },
  VPA_UNKNOWN: { status: 400, partner: 'ERR0001', iso: '03', retryable: false, remedy: 'map the merchant to a soundbox first (soundbox merchant map)' },
  DEVICE_INACTIVE: { status: 400, partner: 'ERR0002', iso: '58', retryable: false, remedy: 'activate the soundbox (soundbox device activate)' },
  STORE_FAILED: { status: 400, partner: 'ERR0003', iso: '96', retryable: true, remedy: 'send the same request again; the operator looks at disk and database' },
  PUBLISH_FAILED: { status: 400, partner: 'ERR0004', iso: '91', retryable: true, remedy: 'send the same request again; the payment is recorded but could not be sent' },
  SERVER_FAULT: { status: 400, partner: 'ERR0005', iso: '96', retryable: true, remedy: 'send the same request again; the operator finds the trace id in the log' },
  VENDOR_FAILED: { status: 400, partner: 'ERR0006', iso: '91', retryable: true, remedy: 'send the same request again later; the server of the soundbox vendor does not answer' },
  DEVICE_TYPE_INVALID: { status: 400, partner: 'ERR0007', iso: '03', retryable: false, remedy: 'register the soundbox with a known device type' },
  BASE_URL_INVALID: { status: 400, partner: 'ERR0008', iso: '12', retryable: false, remedy: 'use the base path of your client record' },
  PAYMENT_CONFLICT: { status: 409, partner: 'ERR0009', iso: '94', retryable: false, remedy: 'a transaction id names one payment for ever: use a new id for another payment' },
  // Values and messages.
  AMOUNT_INVALID: { status: 400, partner: null, iso: '13', retryable: false, remedy: 'rupees with at most two decimals, above 0, at most 999999999.99' },
  LANGUAGE_UNKNOWN: { status: 400, partner: null, iso: null, retryable: false, remedy: 'use one of the listed languages, as ENGLISH or HINDI' },
  MESSAGE_INVALID: { status: 400, partner: null, iso: null, retryable: false, remedy: 'compare the message with protocol/README.md' },
  SIGNATURE_INVALID: { status: 400, partner: null, iso: null, retryable: false, remedy: 'check that gateway and soundbox hold the same signing key' },
  SECRET_UNREADABLE: { status: 500, partner: null, iso: null, retryable: false, remedy: 'restore the master key that sealed this data directory' },
  // Administration.
  INPUT_INVALID: { status: 400, partner: null, iso: null, retryable: false, remedy: 'correct the named input' },
  NOT_FOUND: { status: 404, partner: null, iso: null, retryable: false, remedy: 'list what exists and use one of those names' },
  ALREADY_EXISTS: { status: 409, partner: null, iso: null, retryable: false, remedy: 'choose another name, or change the existing one' },
  UNAUTHORIZED: { status: 401, partner: null, iso: null, retryable: false, remedy: 'send Authorization: Bearer with a live token' },
  FORBIDDEN: { status: 403, partner: null, iso: null, retryable: false, remedy: 'ask the operator for a token with the permission that is named' },
  DEVICE_OFFLINE: { status: 409, partner: null, iso: null, retryable: true, remedy: 'check power and network of the soundbox, then try again' },
  // The process.
  CONFIG_INVALID: { status: 500, partner: null, iso: null, retryable: false, remedy: 'correct the named settings and start again' },
  PORT_TAKEN: { status: 500, partner: null, iso: null, retryable: false, remedy: 'stop the other program, or set another port (0 = any free one)' },
  DATA_DIR_UNUSABLE: { status: 500, partner: null, iso: null, retryable: false, remedy: 'stop the other gateway of this data directory, or correct its owner and modes' },
  GATEWAY_UNREACHABLE: { status: 503, partner: null, iso: null, retryable: true, remedy: 'start the gateway (soundbox gateway), or name it with --data-dir, or with --url and --token' },
  STORE_CORRUPT: { status: 500, partner: null, iso: null, retryable: false, remedy: 'restore the newest backup of data/backup and drain the spool' },
  SPOOL_FULL: { status: 503, partner: 'ERR0003', iso: '96', retryable: true, remedy: 'free disk space or repair the database so that the spool drains' },
  // ISO 8583.
  ISO_SPEC_INVALID: { status: 400, partner: null, iso: null, retryable: false, remedy: 'correct the spec at the named path' },
  ISO_PACK_INVALID: { status: 400, partner: null, iso: '30', retryable: false, remedy: 'correct the value at the named field' },
  ISO_UNPACK_INVALID: { status: 400, partner: null, iso: '30', retryable: false, remedy: 'compare the bytes at the named offset with the spec' },
  ISO_FRAME_INVALID: { status: 400, partner: null, iso: null, retryable: false, remedy: 'use the framing that the peer profile names, within the frame limit' },
  ISO_TIMEOUT: { status: 504, partner: null, iso: '91', retryable: true, remedy: 'the peer did not answer in time; a financial request is reversed, not repeated' },
  ISO_UNAVAILABLE: { status: 503, partner: null, iso: '91', retryable: true, remedy: 'the peer is not connected or not signed on; try again later' },
  ISO_DUPLICATE_KEY: { status: 409, partner: null, iso: '94', retryable: false, remedy: 'use a new STAN: a request with this correlation key is in flight' },
  ISO_NOT_SUPPORTED: { status: 400, partner: null, iso: '12', retryable: false, remedy: 'send payments in rupees (DE 3 00, 26, 28), balance 31, mini statement 38, or whole reversals' },
  ISO_NOT_PERMITTED: { status: 403, partner: null, iso: '58', retryable: false, remedy: 'name the terminal in the profile of this peer, or correct DE 41' },
  // Providers.
  PROVIDER_CONFIG: { status: 500, partner: null, iso: null, retryable: false, remedy: 'correct the settings of this issuer' },
  PROVIDER_AUTH_MISSING: { status: 500, partner: null, iso: null, retryable: false, remedy: 'configure the required auth headers; nothing was sent' },
  PROVIDER_TIMEOUT: { status: 504, partner: null, iso: '91', retryable: true, remedy: 'try again later; ask for the state of a call that changes something before you repeat it' },
  PROVIDER_UNAVAILABLE: { status: 502, partner: null, iso: '91', retryable: true, remedy: 'try again later; the provider does not answer or its circuit breaker is open' },
  PROVIDER_BUSY: { status: 503, partner: null, iso: '91', retryable: true, remedy: 'try again later; too many calls to this provider are waiting' },
  PROVIDER_REJECTED: { status: 422, partner: null, iso: '12', retryable: false, remedy: 'correct the request as the provider says' },
  PROVIDER_RESPONSE_INVALID: { status: 502, partner: null, iso: '96', retryable: false, remedy: 'compare the answer of the provider with its mapping' },
  PROVIDER_STATE_UNKNOWN: { status: 502, partner: null, iso: '96', retryable: false, remedy: 'the provider may have done it: ask for the state, do not repeat' },
  AUDIT_TAMPERED: { status: 500, partner: null, iso: null, retryable: false, remedy: 'keep the database as evidence and compare it with a backup' },
  MERCHANT_REFUSED: { status: 422, partner: null, iso: null, retryable: false, remedy: 'compare name, account and identity check of the merchant; a person may accept a review' },
  TOTP_INVALID: { status: 401, partner: null, iso: null, retryable: false, remedy: 'enter the current code of the authenticator; each code works once' },
  // Devices, serial and speech.
  SERIAL_UNAVAILABLE: { status: 503, partner: null, iso: null, retryable: true, remedy: 'check the cable and the port (soundbox serial list), and that no other program holds it' },
  SERIAL_TIMEOUT: { status: 504, partner: null, iso: null, retryable: true, remedy: 'check that the soundbox is on and speaks at this baud rate (soundbox serial probe)' },
  FRAME_INVALID: { status: 400, partner: null, iso: null, retryable: true, remedy: 'send the frame again' },
  FIRMWARE_INVALID: { status: 400, partner: null, iso: null, retryable: false, remedy: 'use an image that is signed for this model' },
  SPEECH_FAILED: { status: 500, partner: null, iso: null, retryable: true, remedy: 'run soundbox doctor: it names the missing voice or sound device' }
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof ERRORS

/** `message` is safe to log and to send out: it names the thing, the limit and what to do. Whatever may hold a secret stays in `cause`. */
export class SoundboxError extends Error {
  readonly code: ErrorCode
  readonly status: number
  readonly retryable: boolean

  constructor (code: ErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options)
    this.name = 'SoundboxError'
    this.code = code
    this.status = ERRORS[code].status
    this.retryable = ERRORS[code].retryable
  }
}

/** True for an error of ours, optionally with this code. */
export function isSoundboxError (error: unknown, code?: ErrorCode): error is SoundboxError {
  return error instanceof SoundboxError && (code === undefined || error.code === code)
}

/** What may be shown of any thrown value: code and message of ours, the bare class name of anything else. */
export function safeErrorText (error: unknown): string {
  if (error instanceof SoundboxError) return `${error.code}: ${error.message} (${ERRORS[error.code].remedy})`
  return error instanceof Error ? `unexpected ${error.name}` : 'unexpected fault'
}
