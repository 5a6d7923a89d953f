// What the integration services keep in the store: the audit trail, the ledger of calls that change something, tokens, one-time-code state.
// Only shapes and promises of storage stand here; what they mean stands in gateway/integration (audit.ts, calls.ts, tokens.ts, totp.ts).

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

export type IntegrationStore = { audit: AuditStore, calls: CallStore, tokens: TokenStore, totp: TotpStore }
