// The default fallback: records on the local disk, in segments that were allocated beforehand. What arrives in one turn shares one
// write and one fdatasync. Bytes: spool-format.ts. Files: spool-segments.ts. Applying: drain.ts.
import { readSync } from 'node:fs'
import { type Log, SoundboxError } from '../../protocol/index.js'
import type { NewDelivery, Payment } from '../store/contract.js'
import type { DrainReport, Fallback, FallbackRecord } from './contract.js'
import { type Apply, applyGroup } from './drain.js'
import { decodeFallbackRecord, encodeFallbackRecord, keyOfRecord, partsOf, type PaymentRecord, paymentKey } from './records.js'
import { decodeRecord, encodeRecord, HEADER_BYTES, recordBytes, scanSegment } from './spool-format.js'
import { openSpoolFiles, type Segment, type SpoolFiles, writeAll } from './spool-segments.js'

export const SEGMENT_BYTES = 16 * 1024 * 1024
/** Segments that are allocated at the start: about 90,000 payments fit when the disk is full from then on. */
export const SEGMENTS_READY = 4
/** Segments at most: 1 GiB, about 1.5 million payments. */
export const SEGMENTS_MAX = 64
/** Records that may wait for one fdatasync. */
export const APPEND_QUEUE_MAX = 20_000
const GROUP_RECORDS_MAX = 256
const GROUP_BYTES_MAX = 1024 * 1024

export type SpoolSettings = { dir: string, log: Log, segmentBytes?: number, segmentsReady?: number, segmentsMax?: number }
/** `setAside` keeps what can never be applied in a file for a person to look at: why, and the record or its bytes. */
export type Spool = Fallback & { setAside: (reason: string, what: FallbackRecord | Buffer) => Promise<void> }
/** One record on disk. `key` names its payment. */
type Entry = { segment: Segment, offset: number, length: number, key: string | null }
type Waiting = { json: Buffer, record: FallbackRecord, resolve: () => void, reject: (error: unknown) => void }
/** What waits: entries oldest first; segments in use oldest first, the last one being written at `tail`. */
type Shell = { files: SpoolFiles, log: Log, entries: Entry[], head: number, segments: Segment[], tail: number, index: Map<string, Entry | PaymentRecord> }

/**
 * Opens or makes the spool in `dir` and finds what waits there: a torn tail is cut, damaged bytes between whole records are
 * reported and set aside by the next drain, neither stops the start. Rejects with DATA_DIR_UNUSABLE when the directory cannot be used.
 */
export async function openSpool (settings: SpoolSettings): Promise<Spool> {
  const segmentBytes = settings.segmentBytes ?? SEGMENT_BYTES
  const segmentsReady = settings.segmentsReady ?? SEGMENTS_READY
  const { dir, log } = settings
  const files = await openSpoolFiles({ dir, log, segmentBytes, segmentsMax: settings.segmentsMax ?? SEGMENTS_MAX }).catch((cause: unknown) => {
    throw new SoundboxError('DATA_DIR_UNUSABLE', `the spool directory cannot be used (${(cause as NodeJS.ErrnoException).code ?? 'unexpected fault'})`, { cause })
  })
  const spool: Shell = { files, log, entries: [], head: 0, segments: [...files.used], tail: HEADER_BYTES, index: new Map() }
  for (const segment of files.used) await recoverSegment(spool, segment)
  await files.prepare(segmentsReady - spool.segments.length)
  const appender = createAppender(spool)
  let draining: Promise<DrainReport> | undefined
  let closed = false
  return {
    append: async record => {
      if (closed) throw new SoundboxError('STORE_FAILED', 'the spool is closed')
      await Promise.all(partsOf(record).map(appender.append))
    },
    findPayment: (bankId, transactionId) => readPayment(spool.index.get(paymentKey({ bankId, transactionId }))),
    drain: apply => {
      draining ??= drainSpool(spool, apply, () => closed)
        .catch((cause: unknown) => { throw cause instanceof SoundboxError ? cause : new SoundboxError('STORE_FAILED', 'the spool cannot be drained', { cause }) })
        .finally(() => { draining = undefined })
      return draining
    },
    depth: () => spool.entries.length - spool.head,
    setAside: (reason, what) => setAside(spool, reason, what),
    close: async () => {
      closed = true
      await appender.idle()
      await draining?.catch(() => {})
      await files.close()
    }
  }
}

/** Damaged bytes become entries like records: draining finds no record there, sets them aside once, and goes on behind them. */
async function recoverSegment (spool: Shell, segment: Segment): Promise<void> {
  const bytes = await readSpan(segment, 0, segment.bytes)
  const from = spool.files.position?.sequence === segment.sequence ? Math.max(HEADER_BYTES, spool.files.position.offset) : HEADER_BYTES
  const { records, damaged, tail } = scanSegment(bytes, segment.sequence, from)
  const lost = damaged.filter(({ offset, length }) => bytes.subarray(offset, offset + length).some(byte => byte !== 0))
  for (const { offset, length } of lost) spool.log.error({ file: segment.name, offset, length }, 'damaged bytes were found in the spool')
  for (const { offset, length } of [...records, ...lost].sort((a, b) => a.offset - b.offset)) {
    const record = decodeFallbackRecord(decodeRecord(bytes, offset, segment.sequence))
    const entry = { segment, offset, length, key: record === undefined ? null : keyOfRecord(record) }
    spool.entries.push(entry)
    if (entry.key !== null && !spool.index.has(entry.key)) spool.index.set(entry.key, entry)
  }
  spool.tail = tail
}

async function setAside ({ files, log }: Shell, reason: string, what: FallbackRecord | Buffer): Promise<void> {
  await files.setAside(JSON.stringify(Buffer.isBuffer(what) ? { reason, bytes: what.toString('base64') } : { reason, record: what }))
  log.error({ reason }, 'a record that cannot be applied was set aside')
}

async function readSpan (segment: Segment, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  const { bytesRead } = await segment.handle.read(bytes, 0, length, offset)
  return bytes.subarray(0, bytesRead)
}

function readPayment (found: Entry | PaymentRecord | undefined): { payment: Payment, deliveries: readonly NewDelivery[] } | undefined {
  if (found === undefined) return undefined
  if ('kind' in found) return { payment: found.payment, deliveries: found.deliveries }
  const bytes = Buffer.alloc(found.length)
  try {
    readSync(found.segment.handle.fd, bytes, 0, found.length, found.offset)
  } catch (cause) {
    throw new SoundboxError('STORE_FAILED', 'the spool cannot be read', { cause })
  }
  const record = decodeFallbackRecord(decodeRecord(bytes, 0, found.segment.sequence))
  return record?.kind === 'payment' ? { payment: record.payment, deliveries: record.deliveries } : undefined
}

/** One write is under way at a time; what arrives meanwhile is the next. */
function createAppender (spool: Shell): { append: (record: FallbackRecord) => Promise<void>, idle: () => Promise<void> } {
  let queue: Waiting[] = []
  let writing: Promise<void> | undefined

  const work = async (): Promise<void> => {
    await new Promise(resolve => setImmediate(resolve))
    while (queue.length > 0) {
      const batch = queue
      queue = []
      await writeBatch(spool, batch)
    }
    writing = undefined
  }
  const append = async (record: FallbackRecord): Promise<void> => {
    const json = encodeFallbackRecord(record)
    if (queue.length >= APPEND_QUEUE_MAX) throw new SoundboxError('STORE_FAILED', `${APPEND_QUEUE_MAX} records wait for the spool already`)
    const key = keyOfRecord(record)
    if (key !== null && !spool.index.has(key)) spool.index.set(key, record as PaymentRecord)
    const done = new Promise<void>((resolve, reject) => { queue.push({ json, record, resolve, reject }) })
    writing ??= work()
    await done
  }
  return { append, idle: async () => { await writing } }
}

/** Writes as many as fit, moves on to the next segment, and so on. What cannot be written is refused, all else is kept. */
async function writeBatch (spool: Shell, batch: readonly Waiting[]): Promise<void> {
  let rest = batch
  while (rest.length > 0) {
    try {
      const segment = spool.segments.at(-1)
      const fitting = segment === undefined ? 0 : countFitting(rest, segment.bytes - spool.tail)
      if (segment === undefined || fitting === 0) {
        spool.segments.push(await spool.files.take())
        spool.tail = HEADER_BYTES
        continue
      }
      await writeRecords(spool, segment, rest.slice(0, fitting))
      rest = rest.slice(fitting)
    } catch (cause) {
      refuse(spool, rest, cause instanceof SoundboxError ? cause : new SoundboxError('STORE_FAILED', 'the spool cannot be written', { cause }))
      return
    }
  }
}

function countFitting (waiting: readonly Waiting[], room: number): number {
  let left = room
  const first = waiting.findIndex(({ json }) => {
    left -= recordBytes(json.length)
    return left < 0
  })
  return first === -1 ? waiting.length : first
}

async function writeRecords (spool: Shell, segment: Segment, waiting: readonly Waiting[]): Promise<void> {
  const encoded = waiting.map(({ json }) => encodeRecord(json, segment.sequence))
  const bytes = Buffer.concat(encoded)
  await writeAll(segment.handle, bytes, spool.tail)
  await segment.handle.datasync()
  for (const [index, { record, resolve }] of waiting.entries()) {
    const entry = { segment, offset: spool.tail, length: encoded[index]!.length, key: keyOfRecord(record) }
    spool.entries.push(entry)
    if (entry.key !== null && spool.index.get(entry.key) === record) spool.index.set(entry.key, entry)
    spool.tail += entry.length
    resolve()
  }
}

function refuse (spool: Shell, waiting: readonly Waiting[], error: SoundboxError): void {
  for (const { record, reject } of waiting) {
    const key = keyOfRecord(record)
    if (key !== null && spool.index.get(key) === record) spool.index.delete(key)
    reject(error)
  }
}

async function drainSpool (spool: Shell, apply: Apply, isClosed: () => boolean): Promise<DrainReport> {
  const report = { drained: 0, setAside: 0 }
  for (let goOn = true; goOn && spool.head < spool.entries.length && !isClosed();) goOn = await drainGroup(spool, apply, report)
  return { ...report, left: spool.entries.length - spool.head }
}

/** True when all of the group is done with. */
async function drainGroup (spool: Shell, apply: Apply, report: { drained: number, setAside: number }): Promise<boolean> {
  const group = nextGroup(spool)
  const first = group[0]!
  const last = group.at(-1)!
  const bytes = await readSpan(first.segment, first.offset, last.offset + last.length - first.offset)
  const jsons = group.map(entry => decodeRecord(bytes, entry.offset - first.offset, entry.segment.sequence))
  const records = jsons.map(decodeFallbackRecord)
  const usable = records.filter(record => record !== undefined)
  const verdicts = [...await applyGroup(usable, apply)]
  let done = 0
  for (const [index, record] of records.entries()) {
    const verdict = record === undefined ? { kind: 'reject' as const, code: 'damaged' } : verdicts.shift()!
    if (verdict.kind === 'retry') break
    if (verdict.kind === 'applied') report.drained += 1
    else {
      const entry = group[index]!
      await setAside(spool, verdict.code, record ?? bytes.subarray(entry.offset - first.offset, entry.offset - first.offset + entry.length))
      report.setAside += 1
    }
    done = index + 1
  }
  if (done > 0) await advance(spool, group.slice(0, done))
  return done === group.length
}

/** The oldest entries, of one segment. */
function nextGroup (spool: Shell): Entry[] {
  const first = spool.entries[spool.head]!
  const group = spool.entries.slice(spool.head, spool.head + GROUP_RECORDS_MAX)
  const end = group.findIndex(entry => entry.segment !== first.segment || entry.offset + entry.length - first.offset > GROUP_BYTES_MAX)
  return end === -1 ? group : group.slice(0, Math.max(1, end))
}

async function advance (spool: Shell, done: readonly Entry[]): Promise<void> {
  const last = done.at(-1)!
  await spool.files.savePosition({ sequence: last.segment.sequence, offset: last.offset + last.length })
  for (const entry of done) {
    if (entry.key !== null && spool.index.get(entry.key) === entry) spool.index.delete(entry.key)
  }
  spool.head += done.length
  while (spool.segments.length > 1 && (spool.entries[spool.head]?.segment ?? spool.segments.at(-1)) !== spool.segments[0]) spool.files.release(spool.segments.shift()!)
  if (spool.head === spool.entries.length || spool.head > GROUP_RECORDS_MAX * 64) {
    spool.entries = spool.entries.slice(spool.head)
    spool.head = 0
  }
}
