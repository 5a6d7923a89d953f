// The audit trail: one row an attempt, each bound to the row before it, so that a changed, removed or inserted row is seen.
//
//   hash(n) = HMAC-SHA256( audit key, prevHash LF JSON array of the row's other fields in the order of CHAINED ), hex
//   prevHash of the first row = 64 zeros
//
// Rows are written in groups behind the calls: no call waits for the store, a group gathers for AUDIT_LINGER_MS, and a store that refuses is tried again. Beyond
// AUDIT_QUEUE_MAX waiting rows new calls are refused (OVERLOADED), so that nothing happens unrecorded.
// A chain cannot see that its newest rows were cut off: `head` is for that, keep it elsewhere and give it to verifyAudit as `anchor`.
import { createHmac } from 'node:crypto'
import { isSoundboxError, type Log, SoundboxError } from '../../protocol/index.js'
import type { AuditEntry, AuditHead, AuditRow, AuditStore } from '../store/integration-records.js'
import type { Clock } from './figures.js'

export const AUDIT_QUEUE_MAX = 10_000
export const AUDIT_BATCH_MAX = 500
export const AUDIT_RETRY_MS = 1_000
export const AUDIT_LINGER_MS = 10 // One write for what comes within it: a tenth of the work for the store's thread under load.
export const AUDIT_PAGE_ROWS = 1_000
export const GENESIS_HASH = '0'.repeat(64)
const RECHAIN_MAX = 5 // Another gateway on the same store may have taken the sequence number.

export type { AuditEntry, AuditHead, AuditRow, AuditStore } from '../store/integration-records.js'

export type Audit = {
  /** Takes a row; never throws and never waits. */
  record: (entry: AuditEntry) => void
  /** Throws OVERLOADED when too many rows wait for the store. */
  assertRoom: () => void
  /** Writes at once; resolves when everything taken so far is in the store, or the store refused it. */
  flush: () => Promise<void>
  waiting: () => number
  /** Newest row in the store that this process knows. */
  head: () => AuditHead | undefined
  /** Last try to write; what the store still refuses is counted in the log. */
  close: () => Promise<void>
}
export type AuditDeps = { store: AuditStore, key: Buffer, clock: Clock, log: Log }

/** Opens the trail at the head of the store. */
export async function openAudit (deps: AuditDeps): Promise<Audit> {
  const { store, key, clock, log } = deps
  let head = await store.last()
  let queue: AuditEntry[] = []
  let running: Promise<void> | undefined
  let stopTimer: (() => void) | undefined
  let isClosing = false

  const drain = async (): Promise<void> => {
    while (queue.length > 0) {
      const batch = queue.slice(0, AUDIT_BATCH_MAX)
      try {
        head = await appendChained(store, key, head, batch)
        queue = queue.slice(batch.length)
      } catch (err) {
        log.warn({ err, waiting: queue.length }, 'audit rows wait: the store refuses them')
        if (!isClosing) startAfter(AUDIT_RETRY_MS)
        return
      }
    }
  }
  const start = (): Promise<void> => {
    stopTimer?.()
    stopTimer = undefined
    running ??= drain().finally(() => {
      running = undefined
      if (queue.length > 0 && !isClosing) startAfter(AUDIT_LINGER_MS) // What came as the last group was written.
    })
    return running
  }
  const startAfter = (ms: number): void => {
    stopTimer ??= clock.after(ms, () => { void start() })
  }
  return {
    record (entry) {
      queue.push(entry)
      if (stopTimer === undefined && running === undefined && !isClosing) startAfter(AUDIT_LINGER_MS)
    },
    assertRoom () {
      if (queue.length >= AUDIT_QUEUE_MAX) throw new SoundboxError('OVERLOADED', `${queue.length} audit rows wait for the store: provider calls are paused`)
    },
    flush: start,
    waiting: () => queue.length,
    head: () => head,
    async close () {
      isClosing = true
      await start() // One that is under way may end with a refusal or before the newest rows: then once more.
      if (queue.length > 0) await start()
      if (queue.length > 0) log.error({ lost: queue.length }, 'audit rows could not be written before the end')
    }
  }
}

async function appendChained (store: AuditStore, key: Buffer, from: AuditHead | undefined, batch: readonly AuditEntry[]): Promise<AuditHead | undefined> {
  let head = from
  for (let turn = 1; ; turn++) {
    const rows = chainRows(key, head, batch)
    try {
      await store.append(rows)
      const last = rows.at(-1)
      return last === undefined ? head : { seq: last.seq, hash: last.hash }
    } catch (error) {
      if (!isSoundboxError(error, 'ALREADY_EXISTS') || turn >= RECHAIN_MAX) throw error
      head = await store.last()
    }
  }
}

/** Rows with sequence number, previous hash and hash, continuing at `head`. */
export function chainRows (key: Buffer, head: AuditHead | undefined, entries: readonly AuditEntry[]): AuditRow[] {
  let seq = head?.seq ?? 0
  let prevHash = head?.hash ?? GENESIS_HASH
  return entries.map(entry => {
    seq += 1
    const row = placed(entry, seq, prevHash)
    prevHash = row.hash = hashOf(key, row)
    return row
  })
}

/** Written out field by field: a spread of this many fields costs more than the hash. */
function placed (entry: AuditEntry, seq: number, prevHash: string): AuditRow {
  const { atMs, traceId, actor, issuer, service, uriKey, method, url, status, latencyMs, attempt, outcome, error, request, response } = entry
  return { seq, atMs, traceId, actor, issuer, service, uriKey, method, url, status, latencyMs, attempt, outcome, error, request, response, prevHash, hash: '' }
}

function hashOf (key: Buffer, row: AuditRow): string {
  const fields = [
    row.seq, row.atMs, row.traceId, row.actor, row.issuer, row.service, row.uriKey, row.method, row.url, row.status, row.latencyMs, row.attempt, row.outcome, row.error,
    row.request, row.response
  ]
  return createHmac('sha256', key).update(`${row.prevHash}\n${JSON.stringify(fields)}`).digest('hex')
}

export type AuditVerdict = { ok: true, rows: number, head: AuditHead | undefined } | { ok: false, seq: number, problem: 'changed' | 'missing' | 'cut' }

/** Walks the chain from its first row (or from `start`, a head kept before older rows were removed). `anchor`: a head that must still be there. */
export async function verifyAudit (store: Pick<AuditStore, 'page'>, key: Buffer, known: { start?: AuditHead, anchor?: AuditHead } = {}): Promise<AuditVerdict> {
  let head = known.start
  let rows = 0
  let isAnchored = known.anchor === undefined || isSameHead(head, known.anchor)
  for (;;) {
    const page = await store.page(head?.seq ?? 0, AUDIT_PAGE_ROWS)
    for (const row of page) {
      if (row.seq !== (head?.seq ?? 0) + 1) return { ok: false, seq: (head?.seq ?? 0) + 1, problem: 'missing' }
      if (row.prevHash !== (head?.hash ?? GENESIS_HASH) || hashOf(key, row) !== row.hash) return { ok: false, seq: row.seq, problem: 'changed' }
      head = { seq: row.seq, hash: row.hash }
      isAnchored ||= isSameHead(head, known.anchor)
      rows += 1
    }
    if (page.length < AUDIT_PAGE_ROWS) return isAnchored ? { ok: true, rows, head } : { ok: false, seq: known.anchor?.seq ?? 0, problem: 'cut' }
  }
}

/** As verifyAudit, for callers that stop at a broken chain. Throws AUDIT_TAMPERED with the first wrong sequence number. */
export async function assertAudit (store: Pick<AuditStore, 'page'>, key: Buffer, known: { start?: AuditHead, anchor?: AuditHead } = {}): Promise<{ rows: number,
  head: AuditHead | undefined }> {
  const verdict = await verifyAudit(store, key, known)
  if (!verdict.ok) throw new SoundboxError('AUDIT_TAMPERED', `the audit trail is broken at row ${verdict.seq}: ${verdict.problem}`)
  return { rows: verdict.rows, head: verdict.head }
}

function isSameHead (head: AuditHead | undefined, other: AuditHead | undefined): boolean {
  return head !== undefined && other !== undefined && head.seq === other.seq && head.hash === other.hash
}
