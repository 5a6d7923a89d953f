// Soundboxes that are reached through their vendor's own HTTP server (device type `ypp`): one JSON POST an announcement.
//
//   POST {base_url}/announce  {device_serial_no, transaction_id, amount, currency, language, txn_type, kind, issued_at}
//   2xx, and a `status` that is absent, 0 or "0": handed over. The vendor never says when it spoke, so `handed` is the final state.
//   time-out, 5xx, refused, open breaker: VENDOR_FAILED; tried again by the sweep until the announcement is stale.
import { formatAmount, type Log, SoundboxError } from '../../protocol/index.js'
import { BREAKER_POLICY, type Breaker, type BreakerEvent, type BreakerStep, CLOSED, stepBreaker } from '../breaker.js'
import type { DeliveryChange } from '../store/contract.js'
import type { Device } from '../store/directory.js'
import type { Waiting } from './backlog.js'
import type { Meter } from './meter.js'

export const VENDOR_TIMEOUT_MS = 3000
export const VENDOR_ANSWER_BYTES_MAX = 64 * 1024
/** Announcements that wait for a vendor's server to come back; older ones give way. */
export const VENDOR_WAITING_MAX = 10_000

export type VendorDeps = {
  /** The base URL of a device type, from the registry. */
  baseUrlOf: (type: string) => string | undefined
  settle: (changes: readonly DeliveryChange[]) => Promise<void>
  nowMs: () => number
  /** VENDOR_TIMEOUT_MS unless a test is in a hurry. */
  timeoutMs?: number
  meter: Meter
  log: Log
}
export type VendorPush = {
  /**
   * Rejects with VENDOR_FAILED or BASE_URL_INVALID. Pushed once at a time: a second call for the same announcement shares the first. One
   * that has expired is not pushed: its place is in history.
   */
  push: (device: Device, item: Waiting) => Promise<void>
  /** Leaves an announcement to the next sweep. */
  adopt: (device: Device, item: Waiting) => void
  /** Gives up what the vendor has not taken yet. */
  withdraw: (tid: string, announcementId: string) => void
  /** Tries again what failed and is not stale. */
  sweep: () => Promise<void>
  waiting: () => number
}
type Order = { device: Device, item: Waiting }

/** One breaker per vendor host. */
export function openVendorPush (deps: VendorDeps): VendorPush {
  const breakers = new Map<string, Breaker>()
  const waiting = new Map<string, Order>()
  const underWay = new Map<string, Promise<void>>()
  const withdrawn = new Set<string>()
  const tell = (host: string, event: BreakerEvent): BreakerStep['admit'] => {
    const { next, admit } = stepBreaker(breakers.get(host) ?? CLOSED, event, deps.nowMs(), BREAKER_POLICY)
    breakers.set(host, next)
    return admit
  }
  const adopt = (device: Device, item: Waiting): void => {
    if (waiting.size >= VENDOR_WAITING_MAX) waiting.delete(waiting.keys().next().value ?? '')
    waiting.set(keyOf(device.tid, item.announcementId), { device, item })
  }
  const pushOnce = async (key: string, { device, item }: Order): Promise<void> => {
    if (deps.nowMs() >= item.expiresAt) return // Stale: history only.
    const url = announceUrl(deps.baseUrlOf(device.type))
    try {
      const admit = tell(url.host, { kind: 'ask' })
      if (admit === 'no') throw vendorFailed(device.type)
      await post(url, { device, item }, deps.timeoutMs ?? VENDOR_TIMEOUT_MS, kind => { tell(url.host, { kind, probe: admit === 'probe' }) })
    } catch (error) {
      if (!withdrawn.has(key)) adopt(device, item)
      throw error
    }
    waiting.delete(key)
    await noteHanded(deps, { device, item })
  }
  const push = (device: Device, item: Waiting): Promise<void> => {
    const key = keyOf(device.tid, item.announcementId)
    const already = underWay.get(key)
    if (already !== undefined) return already
    const run = pushOnce(key, { device, item }).finally(() => {
      underWay.delete(key)
      withdrawn.delete(key)
    })
    underWay.set(key, run)
    return run
  }
  return {
    push,
    adopt,
    withdraw (tid, announcementId) {
      const key = keyOf(tid, announcementId)
      waiting.delete(key)
      if (underWay.has(key)) withdrawn.add(key)
    },
    async sweep () {
      for (const [key, { device, item }] of [...waiting]) {
        if (deps.nowMs() >= item.expiresAt) waiting.delete(key)
        else if (waiting.has(key)) await push(device, item).catch((err: unknown) => { deps.log.warn({ err, tid: device.tid }, 'vendor push failed again') })
      }
    },
    waiting: () => waiting.size
  }
}

function keyOf (tid: string, announcementId: string): string {
  return `${tid}/${announcementId}`
}

/** The vendor has it and will speak: whatever history says to that, the caller must not send it again. */
async function noteHanded (deps: VendorDeps, { device: { tid }, item: { announcementId, issuedAt } }: Order): Promise<void> {
  const at = deps.nowMs()
  deps.meter.stage('published', at - issuedAt)
  deps.meter.finalState('handed')
  try {
    await deps.settle([{ tid, announcementId, state: 'published', at }, { tid, announcementId, state: 'handed', at }])
  } catch (err) {
    deps.log.error({ err, tid, announcementId }, 'announcement was handed to the vendor, and history could not be told')
  }
}

async function post (url: URL, { device, item }: Order, timeoutMs: number, report: (event: 'success' | 'failure') => void): Promise<void> {
  try {
    const answer = await fetch(url, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(bodyOf(device, item)), redirect: 'error', signal: AbortSignal.timeout(timeoutMs)
    })
    const isOver = await isRefused(answer)
    report(answer.status >= 500 ? 'failure' : 'success')
    if (answer.ok && !isOver) return
  } catch (cause) {
    report('failure')
    throw vendorFailed(device.type, cause)
  }
  throw vendorFailed(device.type)
}

/** A vendor may answer 200 and say no in the body. */
async function isRefused (answer: Response): Promise<boolean> {
  const text = await readAnswer(answer)
  if (text === undefined) return true
  try {
    const value: unknown = JSON.parse(text)
    const status = typeof value === 'object' && value !== null && 'status' in value ? value.status : 0
    return status !== 0 && status !== '0'
  } catch {
    return false
  }
}

async function readAnswer (answer: Response): Promise<string | undefined> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of answer.body ?? []) {
    bytes += chunk.byteLength
    if (bytes > VENDOR_ANSWER_BYTES_MAX) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function bodyOf (device: Device, item: Waiting): object {
  return {
    device_serial_no: device.tid, transaction_id: item.announcementId, amount: formatAmount(item.amountMinor), currency: item.currency, language: item.language,
    txn_type: item.txnType, kind: item.kind, issued_at: item.issuedAt
  }
}

function announceUrl (base: string | undefined): URL {
  const url = base === undefined ? null : URL.parse(`${base.replace(/\/+$/, '')}/announce`)
  if (url === null || !['http:', 'https:'].includes(url.protocol)) throw new SoundboxError('BASE_URL_INVALID', 'Invalid Base url')
  return url
}

function vendorFailed (type: string, cause?: unknown): SoundboxError {
  return new SoundboxError('VENDOR_FAILED', `Error getting ${type.toUpperCase()} external server error`, { cause })
}
