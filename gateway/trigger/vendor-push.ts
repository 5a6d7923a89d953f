// Soundboxes that are reached through their vendor's own HTTP server (device type `ypp`): one JSON POST an announcement.
//
//   POST {base_url}/announce  {device_serial_no, transaction_id, amount, currency, language, txn_type, kind, issued_at}
//   2xx, and a `status` that is absent, 0 or "0": handed over. The vendor never says when it spoke, so `handed` is the final state.
//   time-out, 5xx, refused, open breaker: VENDOR_FAILED; tried again by the sweep until the announcement is stale.
import { formatAmount, type Log, SoundboxError } from '../../protocol/index.js'
import { BREAKER_POLICY, type Breaker, CLOSED, stepBreaker } from '../breaker.js'
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
  meter: Meter
  log: Log
}
export type VendorPush = {
  /** Rejects with VENDOR_FAILED or BASE_URL_INVALID. */
  push: (device: Device, item: Waiting) => Promise<void>
  /** Tries again what failed and is not stale. */
  sweep: () => Promise<void>
  waiting: () => number
}

/** One breaker per vendor host. */
export function openVendorPush (deps: VendorDeps): VendorPush {
  const breakers = new Map<string, Breaker>()
  const failed = new Map<string, { device: Device, item: Waiting }>()
  const ask = (host: string, event: 'ask' | 'success' | 'failure'): boolean => {
    const { next, allowed } = stepBreaker(breakers.get(host) ?? CLOSED, event, deps.nowMs(), BREAKER_POLICY)
    breakers.set(host, next)
    return allowed
  }
  const push = async (device: Device, item: Waiting): Promise<void> => {
    const url = announceUrl(deps.baseUrlOf(device.type))
    const key = `${device.tid}/${item.announcementId}`
    try {
      if (!ask(url.host, 'ask')) throw vendorFailed(device.type)
      await post(url, device, item, event => ask(url.host, event))
    } catch (error) {
      if (failed.size >= VENDOR_WAITING_MAX) failed.delete(failed.keys().next().value ?? '')
      failed.set(key, { device, item })
      throw error
    }
    failed.delete(key)
    const at = deps.nowMs()
    deps.meter.stage('published', at - item.issuedAt)
    deps.meter.finalState('handed')
    await deps.settle([{ tid: device.tid, announcementId: item.announcementId, state: 'published', at }, { tid: device.tid, announcementId: item.announcementId, state: 'handed', at }])
  }
  return {
    push,
    async sweep () {
      for (const [key, { device, item }] of [...failed]) {
        if (deps.nowMs() >= item.expiresAt) failed.delete(key)
        else await push(device, item).catch((err: unknown) => { deps.log.warn({ err, tid: device.tid }, 'vendor push failed again') })
      }
    },
    waiting: () => failed.size
  }
}

async function post (url: URL, device: Device, item: Waiting, report: (event: 'success' | 'failure') => void): Promise<void> {
  let answer: Response
  try {
    answer = await fetch(url, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(bodyOf(device, item)), redirect: 'error', signal: AbortSignal.timeout(VENDOR_TIMEOUT_MS)
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
