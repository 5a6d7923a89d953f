// What the integration services keep in the store: the audit trail, the ledger of calls that change something, tokens, one-time-code state,
// messages of providers, stand-ins with their policies, identity checks. Only shapes and promises of storage stand here; what they mean
// stands in gateway/integration (audit.ts, calls.ts, tokens.ts, totp.ts, inbound.ts, stand-in.ts, onboarding.ts).

/** `outcome`: `ok` or what went wrong. `request`, `response`: masked JSON. */
export type AuditEntry = {
  atMs: number, traceId: string, actor: string, issuer: string, service: string, uriKey: string, method: string, url: string, status: number | null
  latencyMs: number, attempt: number, outcome: string, error: string | null, request: string | null, response: string | null
}
export type AuditRow = AuditEntry & { seq: number, prevHash: string, hash: string }
export type AuditHead = { seq: number, hash: string }
/** `append` is atomic and throws ALREADY_EXISTS when a sequence number is taken. `page`: rows after `afterSeq`, by seq. */
export type AuditStore = {
  append: (rows: readonly AuditRow[]) => Promise<void>
  last: () => Promise<AuditHead | undefined>
  page: (afterSeq: number, limit: number) => Promise<readonly AuditRow[]>
}
/** Rows of a time (`since` inclusive, `until` exclusive) by issuer. */
export type AuditCounts = { countByIssuer: (since: number, until: number) => Promise<readonly AuditCount[]> }
export type AuditCount = { issuer: string, calls: number, failed: number, unknown: number }

export type CallState = 'sending' | 'done' | 'refused' | 'unknown'
/** `nextAskMs`: when to ask the provider next; null = not any more. */
export type CallRecord = {
  key: string, issuer: string, service: string, actor: string, traceId: string, contentHash: string, reference: string, state: CallState
  inputSealed: string, responseSealed: string | null, atMs: number, asks: number, nextAskMs: number | null
}
export type CallChange = Pick<CallRecord, 'state' | 'responseSealed' | 'asks' | 'nextAskMs'>
export type CallStore = {
  /** Inserts, unless the key is known: then returns what is there. One transaction. */
  begin: (record: CallRecord) => Promise<CallRecord | undefined>
  /** `refused` -> `sending` with the record's trace and time; false when the state was another one by then. */
  restart: (record: CallRecord) => Promise<boolean>
  finish: (key: string, change: CallChange) => Promise<void>
  /** Unknown ones with nextAskMs <= nowMs and `sending` ones begun before lostBeforeMs, oldest first. */
  due: (nowMs: number, lostBeforeMs: number, limit: number) => Promise<readonly CallRecord[]>
  /** Removes records begun before the time that are not waited for, at most `limit`. Returns how many. */
  purge: (atBeforeMs: number, limit: number) => Promise<number>
}

export type TokenRow = {
  id: string, kind: 'operator' | 'partner', name: string, permissions: readonly string[], hash: string, ratePerMinute: number
  createdAt: number, expiresAt: number, revokedAt: number | null, lastUsedAt: number | null
}
export type TokenStore = {
  loadTokens: () => Promise<readonly TokenRow[]>
  saveToken: (row: TokenRow) => Promise<void>
  touchTokens: (uses: readonly { id: string, at: number }[]) => Promise<void>
}

/** `confirmedAt` null: the operator has not shown a code yet. `lastStep`: the newest step accepted. `failures`: times of wrong codes. */
export type TotpRow = { operator: string, seedSealed: string, confirmedAt: number | null, lastStep: number | null, failures: readonly number[], version: number }
export type TotpStore = {
  findTotp: (operator: string) => Promise<TotpRow | undefined>
  /** Writes when the stored version is `row.version - 1` (0 = no row yet); false otherwise. */
  saveTotp: (row: TotpRow) => Promise<boolean>
  removeTotp: (operator: string) => Promise<void>
}

/** A message of a provider; `event`: JSON. */
export type InboundRow = {
  key: string, source: string, event: string, state: 'pending' | 'done' | 'dead', attempts: number, receivedMs: number, dueMs: number, problem: string | null
}
export type InboundStore = {
  /** Inserts those whose key is new, in one transaction, and returns their keys. */
  keep: (rows: readonly InboundRow[]) => Promise<readonly string[]>
  /** Pending ones with dueMs <= nowMs, oldest first. */
  due: (nowMs: number, limit: number) => Promise<readonly InboundRow[]>
  save: (row: InboundRow) => Promise<void>
  /** Removes those received before the time that are not pending, at most `limit`. Returns how many. */
  purge: (receivedBeforeMs: number, limit: number) => Promise<number>
}

export type StandInState = 'waiting' | 'sending' | 'sent' | 'unneeded' | 'expired' | 'failed' | 'unknown'
/** One a payment. `toSealed`: number, push token or address. */
export type StandInRow = {
  bankId: string, transactionId: string, merchant: string, amountMinor: number, currency: string, channel: 'sms' | 'push' | 'email', toSealed: string
  acceptedAt: number, state: StandInState, dueMs: number, attempts: number, changedAt: number, reason: string | null
}
export type StandInPolicyRow = Pick<StandInRow, 'bankId' | 'merchant' | 'channel' | 'toSealed' | 'changedAt'> & { afterMs: number, amountMinorMin: number }
export type StandInStore = {
  /** Keeps the first row of a payment. */
  record: (row: StandInRow) => Promise<void>
  /** Waiting ones with dueMs <= nowMs and sending ones changed before stuckBefore, oldest first. */
  due: (nowMs: number, stuckBefore: number, limit: number) => Promise<readonly StandInRow[]>
  /** Writes `row` when the stored one has this state and these attempts; false otherwise. */
  claim: (from: Pick<StandInRow, 'state' | 'attempts'>, row: StandInRow) => Promise<boolean>
  save: (row: StandInRow) => Promise<void>
  /** What the provider called the message. */
  noteSent: (bankId: string, transactionId: string, providerId: string) => Promise<void>
  /** How a sent one ended by the provider's report. `sending`: ask again when its sending has ended. `unknown`: no stand-in of that id. */
  report: (providerId: string, report: { state: 'sent' | 'failed', reason: string, at: number }) => Promise<'noted' | 'sending' | 'unknown'>
  /** Newest first. */
  newest: (limit: number) => Promise<readonly StandInRow[]>
  /** Of payments accepted in the time (`since` inclusive, `until` exclusive). */
  countByState: (since: number, until: number) => Promise<readonly { state: StandInState, count: number }[]>
  /** Removes final ones of payments accepted before the time, at most `limit`. Returns how many. */
  purge: (acceptedBeforeMs: number, limit: number) => Promise<number>
  loadPolicies: () => Promise<readonly StandInPolicyRow[]>
  savePolicy: (row: StandInPolicyRow) => Promise<void>
  removePolicy: (bankId: string, merchant: string) => Promise<void>
}

/** An identity check that was opened for a merchant. `saidAt`: the provider's time of the newest word about it; 0 = none yet. */
export type IdentityRow = { sessionId: string, bankId: string, merchant: string, status: string, openedAt: number, saidAt: number }
export type IdentityStore = {
  saveIdentity: (row: IdentityRow) => Promise<void>
  /** The newest of this merchant. */
  findIdentity: (bankId: string, merchant: string) => Promise<IdentityRow | undefined>
  /** Older words than what is known change nothing. False when the session is not ours. */
  noteIdentity: (word: Pick<IdentityRow, 'sessionId' | 'status' | 'saidAt'>) => Promise<boolean>
}

export type IntegrationStore = {
  audit: AuditStore & AuditCounts, calls: CallStore, tokens: TokenStore, totp: TotpStore, inbound: InboundStore, standIns: StandInStore, identities: IdentityStore
}
