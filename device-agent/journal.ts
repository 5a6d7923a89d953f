// What this box has begun to say, and how it ended: the memory behind "spoken once", on disk.
//
//   line   = crc32 of the JSON, 8 hex digits || space || JSON || line feed
//   start  = {"t":"start","id":…,"payment":{…}?}   on disk (fdatasync) BEFORE the sound starts
//   end    = {"t":"end","ack":{…}}                 the final ack as it is sent
//   settle = {"t":"settle","id":…}                 the gateway confirmed that ack (PUBACK)
//
// An id that was started and not finished is `failed` (interrupted) after a restart: never a second sound. A line that is torn or
// damaged is passed over. A file of more than RECORDS_MAX lines is written anew beside and moved over, so each moment has one whole
// file. `end` and `settle` are written without a sync: losing one to a power cut only repeats an ack, and the gateway's states never
// step back.
import { type FileHandle, open as openFile, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { type Ack, isLanguage, isMessageId, type Log, SoundboxError } from '../protocol/index.js'
import type { Phrase } from './playback.js'

/** Ids that are remembered. */
export const JOURNAL_IDS_MAX = 256
const RECORDS_MAX = 2048
/** Far above RECORDS_MAX lines of the largest kind; of a larger file only the end is read. */
const JOURNAL_BYTES_MAX = 4 * 1024 * 1024

/** `final` undefined: the sound has begun. `payment`: what a replay repeats. */
export type JournalEntry = { id: string, payment?: Phrase, final?: Ack, settled: boolean }
export type JournalStart = { id: string, payment?: Phrase }
type JournalRecord = { t: 'start', id: string, payment?: Phrase } | { t: 'end', ack: Ack } | { t: 'settle', id: string }

export type Journal = {
  find: (id: string) => JournalEntry | undefined
  /** Resolves when the ids are on disk. Rejects with DATA_DIR_UNUSABLE when they are not, and then the sound must not start. */
  start: (starts: readonly JournalStart[]) => Promise<void>
  /** Records how an id ended; a second end of the same id is ignored. Never rejects: what the disk refuses is logged and kept in memory. */
  finish: (ack: Ack) => Promise<void>
  /** The gateway has the final ack. */
  settle: (id: string) => Promise<void>
  /** Final acks that nobody confirmed yet, oldest first. */
  unsettled: () => readonly Ack[]
  /** The newest payments that were said, oldest first. */
  lastPayments: (count: number) => readonly Phrase[]
  lastSpokenId: () => string | undefined
  /** Ids whose sound a crash cut off; they are `failed` now. */
  interrupted: readonly string[]
  close: () => Promise<void>
}

/** `keepStarted`: what was started is not failed after a restart, for a box that can be asked how it ended. `open`: a test's failing disk. */
export type JournalOptions = { path: string, log: Log, keepStarted?: boolean, open?: (path: string, flags: string, mode: number) => Promise<FileHandle> }

/** Opens or creates the journal and ends what a crash interrupted. Throws DATA_DIR_UNUSABLE when the file cannot be read or made. */
export async function openJournal ({ path, log, keepStarted = false, open = openFile }: JournalOptions): Promise<Journal> {
  const { entries, damaged } = readEntries(await readJournalFile(path))
  if (damaged > 0) log.warn({ damaged }, 'journal had torn or damaged lines')
  const interrupted = keepStarted ? [] : [...entries.values()].filter(entry => entry.final === undefined).map(entry => entry.id)
  for (const id of interrupted) applyRecord(entries, { t: 'end', ack: { id, result: 'failed', reason: 'interrupted' } })
  const file = await openLines({ path, log, open, snapshot: () => [...entries.values()].flatMap(recordsOf) })
  const record = async (records: readonly JournalRecord[], sync: boolean): Promise<void> => {
    for (const one of records) applyRecord(entries, one)
    await file.append(records, sync)
  }
  const recordLater = async (one: JournalRecord): Promise<void> => {
    await record([one], false).catch((err: unknown) => log.error({ err }, 'journal could not be written'))
  }
  const said = (): JournalEntry[] => [...entries.values()].filter(entry => entry.final?.result === 'spoken' || entry.final?.result === 'summarised')
  return {
    find: id => entries.get(id),
    start: async starts => { await record(starts.map(start => ({ t: 'start', ...start })), true).catch(cause => { throw unusable(path, cause) }) },
    finish: async ack => { if (entries.get(ack.id)?.final === undefined) await recordLater({ t: 'end', ack }) },
    settle: async id => { if (entries.get(id)?.settled === false) await recordLater({ t: 'settle', id }) },
    unsettled: () => [...entries.values()].flatMap(entry => entry.final === undefined || entry.settled ? [] : [entry.final]),
    lastPayments: count => count <= 0 ? [] : said().flatMap(entry => entry.payment ?? []).slice(-count),
    lastSpokenId: () => said().at(-1)?.id,
    interrupted,
    close: file.close
  }
}

/** The entries that whole, undamaged lines tell of, oldest first, and how many lines were passed over. */
export function readEntries (bytes: Buffer): { entries: Map<string, JournalEntry>, damaged: number } {
  const entries = new Map<string, JournalEntry>()
  const lines = bytes.toString('utf8').split('\n')
  const torn = lines.pop() === '' ? 0 : 1
  const records = lines.filter(line => line !== '').map(decodeLine)
  for (const one of records) if (one !== undefined) applyRecord(entries, one)
  return { entries, damaged: torn + records.filter(one => one === undefined).length }
}

function encodeLine (one: JournalRecord): string {
  const json = JSON.stringify(one)
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`
}

function decodeLine (line: string): JournalRecord | undefined {
  const json = line.slice(9)
  if (line[8] !== ' ' || crc32(json).toString(16).padStart(8, '0') !== line.slice(0, 8)) return undefined
  try {
    const value = JSON.parse(json) as JournalRecord
    if (!['start', 'end', 'settle'].includes(value.t)) return undefined
    return isMessageId(value.t === 'end' ? value.ack.id : value.id) ? value : undefined
  } catch {
    return undefined
  }
}

function applyRecord (entries: Map<string, JournalEntry>, one: JournalRecord): void {
  const id = one.t === 'end' ? one.ack.id : one.id
  const entry = entries.get(id)
  if (one.t === 'settle') {
    if (entry !== undefined) entry.settled = true
    return
  }
  if (one.t === 'end') {
    if (entry?.final !== undefined) return
    entries.set(id, { ...(entry ?? { id }), final: one.ack, settled: false })
  } else if (entry === undefined) {
    const payment = one.payment !== undefined && isLanguage(one.payment.language) ? { payment: one.payment } : {}
    entries.set(id, { id, settled: false, ...payment })
  }
  if (entries.size > JOURNAL_IDS_MAX) entries.delete(oldestToForget(entries))
}

/** What is settled goes first, what is just being said last. */
function oldestToForget (entries: ReadonlyMap<string, JournalEntry>): string {
  const all = [...entries.values()]
  return (all.find(entry => entry.settled) ?? all.find(entry => entry.final !== undefined) ?? all[0]!).id
}

function recordsOf (entry: JournalEntry): JournalRecord[] {
  return [
    { t: 'start', id: entry.id, ...(entry.payment === undefined ? {} : { payment: entry.payment }) },
    ...(entry.final === undefined ? [] : [{ t: 'end' as const, ack: entry.final }]),
    ...(entry.settled ? [{ t: 'settle' as const, id: entry.id }] : [])
  ]
}

async function readJournalFile (path: string): Promise<Buffer> {
  try {
    return (await readFile(path)).subarray(-JOURNAL_BYTES_MAX)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw new SoundboxError('DATA_DIR_UNUSABLE', `journal ${path} cannot be read`, { cause })
  }
}

type Lines = { append: (records: readonly JournalRecord[], sync: boolean) => Promise<void>, close: () => Promise<void> }
type LinesOptions = Required<Omit<JournalOptions, 'keepStarted'>> & { snapshot: () => JournalRecord[] }

/** The file as a queue of appends, one at a time. A full disk at the start leaves the old file in use. */
async function openLines (options: LinesOptions): Promise<Lines> {
  const { path, log, snapshot } = options
  let { handle, count } = await compact(options).catch(async (err: unknown) => {
    log.warn({ err }, 'journal could not be compacted')
    return { handle: await options.open(path, 'a', 0o600).catch(cause => { throw unusable(path, cause) }), count: snapshot().length }
  })
  let torn = true // A line feed first, in case the file ends in half a line; an empty line is passed over.
  let compactAt = RECORDS_MAX
  let tail: Promise<void> = Promise.resolve()
  const write = async (records: readonly JournalRecord[], sync: boolean): Promise<void> => {
    const before = torn ? '\n' : ''
    torn = true
    await handle.appendFile(before + records.map(encodeLine).join(''))
    torn = false
    if (sync) await handle.datasync()
    count += records.length
    if (count < compactAt) return
    try {
      const old = handle;
      ({ handle, count } = await compact(options))
      compactAt = RECORDS_MAX
      await old.close()
    } catch (err) {
      compactAt = count + RECORDS_MAX
      log.warn({ err }, 'journal could not be compacted')
    }
  }
  const queue = (work: () => Promise<void>): Promise<void> => {
    const done = tail.then(work)
    tail = done.catch(() => {})
    return done
  }
  return { append: (records, sync) => queue(() => write(records, sync)), close: () => queue(() => handle.close()) }
}

/** Writes the whole memory beside the journal and moves it over in one step. */
async function compact ({ path, open, snapshot }: LinesOptions): Promise<{ handle: FileHandle, count: number }> {
  const records = snapshot()
  const handle = await open(`${path}.new`, 'w', 0o600)
  try {
    await handle.appendFile(records.map(encodeLine).join(''))
    await handle.datasync()
    await rename(`${path}.new`, path)
  } catch (error) {
    await handle.close()
    throw error
  }
  const folder = await openFile(dirname(path), 'r')
  await folder.sync().finally(() => folder.close())
  return { handle, count: records.length }
}

function unusable (path: string, cause: unknown): SoundboxError {
  return new SoundboxError('DATA_DIR_UNUSABLE', `journal ${path} cannot be written`, { cause })
}
