// The files of the spool: `segment-NN` of equal size, written full of zeros once, so that a record needs no new block and goes in
// even when the disk is full; `position`, where draining got to; `set-aside.jsonl`, what nobody could use. Mode 600, directory 700.
//
// File systems that never write in place (btrfs, ZFS) need room for every write: there the promise of the full disk does not hold.
// A disk that is full stays full: even DELETE needs room in SQLite's log. Operators keep a ballast file beside the data and remove
// it to let the database breathe.
import { type FileHandle, mkdir, open, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { type Log, SoundboxError } from '../../protocol/index.js'
import { decodeHeader, decodePosition, encodeHeader, encodePosition, HEADER_BYTES, POSITION_BYTES, type Position } from './spool-format.js'

const FILE_MODE = 0o600
const DIR_MODE = 0o700
const ZEROS_BYTES = 1024 * 1024
/** What is set aside is looked at by a person: more than this means that draining is broken and must stop. */
export const SET_ASIDE_BYTES_MAX = 64 * 1024 * 1024

export type Segment = { name: string, handle: FileHandle, bytes: number, sequence: number }
export type SegmentSetup = { dir: string, log: Log, segmentBytes: number, segmentsMax: number }
export type SpoolFiles = {
  /** Segments that were in use at the start, oldest first. */
  used: readonly Segment[]
  position: Position | undefined
  /** A zeroed or drained segment under the next sequence number, on disk. Throws SPOOL_FULL. */
  take: () => Promise<Segment>
  /** Gives a drained segment back. */
  release: (segment: Segment) => void
  /** Makes spare segments until `count` are free, or the disk is full or the limit reached. */
  prepare: (count: number) => Promise<void>
  savePosition: (position: Position) => Promise<void>
  setAside: (line: string) => Promise<void>
  close: () => Promise<void>
}

/** Opens or makes the directory. A segment whose header is lost is renamed to `*.damaged-INODE` and reported. */
export async function openSpoolFiles (setup: SegmentSetup): Promise<SpoolFiles> {
  const { dir } = setup
  await mkdir(dir, { recursive: true, mode: DIR_MODE })
  const segments = await openSegments(setup)
  const positionFile = await openPositionFile(dir)
  const asideFile = await open(join(dir, 'set-aside.jsonl'), 'a', FILE_MODE)
  await syncDirectory(dir)
  const saved = await readPosition(positionFile)
  const used = segments.filter(segment => segment.sequence > 0 && segment.sequence >= (saved?.sequence ?? 0)).sort((a, b) => a.sequence - b.sequence)
  const pool = createPool(setup, segments, segments.filter(segment => !used.includes(segment)))
  let sequence = Math.max(saved?.sequence ?? 0, ...segments.map(segment => segment.sequence))
  let turn = saved?.turn ?? 0
  return {
    used,
    position: saved,
    async take () {
      const segment = await pool.take()
      sequence += 1
      try {
        await writeAll(segment.handle, encodeHeader(sequence), 0)
        await segment.handle.datasync()
      } catch (error) {
        pool.release(segment)
        throw error
      }
      segment.sequence = sequence
      void pool.prepare(1)
      return segment
    },
    release: pool.release,
    prepare: pool.prepare,
    async savePosition (position) {
      turn += 1
      const { bytes, at } = encodePosition(position, turn)
      await writeAll(positionFile, bytes, at)
      await positionFile.datasync()
    },
    async setAside (line) {
      if ((await asideFile.stat()).size >= SET_ASIDE_BYTES_MAX) throw new SoundboxError('SPOOL_FULL', `${SET_ASIDE_BYTES_MAX} bytes were set aside: look at set-aside.jsonl and move it away`)
      await asideFile.appendFile(line + '\n')
      await asideFile.datasync()
    },
    async close () {
      await pool.close()
      for (const handle of [...segments.map(segment => segment.handle), positionFile, asideFile]) await handle.close()
    }
  }
}

/** Free segments; one is made at a time. `segments` are all there are, `free` those that hold nothing. */
function createPool ({ dir, log, segmentBytes, segmentsMax }: SegmentSetup, segments: Segment[], free: Segment[]) {
  let making: Promise<unknown> = Promise.resolve()
  let closed = false

  const makeOne = async (): Promise<Segment> => {
    const taken = new Set(segments.map(segment => segment.name))
    const name = Array.from({ length: segmentsMax }, (_, index) => `segment-${String(index).padStart(3, '0')}`).find(candidate => !taken.has(candidate))
    if (name === undefined) throw spoolFull(segmentsMax)
    const segment = { name, handle: await allocate(dir, name, segmentBytes), bytes: segmentBytes, sequence: 0 }
    segments.push(segment)
    return segment
  }
  const make = (): Promise<Segment> => {
    const made = making.then(makeOne)
    making = made.catch(() => {})
    return made
  }
  return {
    take: async (): Promise<Segment> => free.shift() ?? await make().catch((cause: unknown) => { throw cause instanceof SoundboxError ? cause : spoolFull(segments.length, cause) }),
    release: (segment: Segment): void => { free.push(segment) },
    async prepare (count: number): Promise<void> {
      while (free.length < count && segments.length < segmentsMax && !closed) {
        try {
          free.push(await make())
        } catch (err) {
          log.warn({ err, segments: segments.length }, 'no room for another spool segment')
          return
        }
      }
    },
    async close (): Promise<void> {
      closed = true
      await making
    }
  }
}

function spoolFull (segments: number, cause?: unknown): SoundboxError {
  return new SoundboxError('SPOOL_FULL', `all ${segments} segments of the spool are full and there is no room for another`, { cause })
}

/** Throws when not all bytes went in: a full disk writes a part and says so only by the count. */
export async function writeAll (file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  const { bytesWritten } = await file.write(bytes, 0, bytes.length, at)
  if (bytesWritten !== bytes.length) throw new SoundboxError('STORE_FAILED', `only ${bytesWritten} of ${bytes.length} bytes could be written`)
}

async function openSegments ({ dir, log, segmentBytes }: SegmentSetup): Promise<Segment[]> {
  const segments: Segment[] = []
  for (const name of (await readdir(dir)).filter(file => /^segment-\d+$/.test(file)).sort()) {
    const handle = await open(join(dir, name), 'r+')
    const header = Buffer.alloc(HEADER_BYTES)
    await handle.read(header, 0, HEADER_BYTES, 0)
    const { size: bytes, ino } = await handle.stat()
    const sequence = header.every(byte => byte === 0) ? 0 : decodeHeader(header)
    if (sequence !== undefined && (bytes === segmentBytes || sequence > 0)) {
      segments.push({ name, handle, bytes, sequence })
      continue
    }
    await handle.close()
    await rename(join(dir, name), join(dir, `${name}.damaged-${ino}`))
    log.error({ file: name }, 'spool segment cannot be read and was put aside')
  }
  return segments
}

/** A segment full of zeros, on disk. Takes it away again when the disk has no room for all of it. */
async function allocate (dir: string, name: string, bytes: number): Promise<FileHandle> {
  const part = join(dir, `${name}.part`)
  const handle = await open(part, 'w+', FILE_MODE)
  try {
    const zeros = Buffer.alloc(Math.min(ZEROS_BYTES, bytes))
    for (let at = 0; at < bytes; at += zeros.length) await writeAll(handle, zeros.subarray(0, bytes - at), at)
    await handle.sync()
    await rename(part, join(dir, name))
    await syncDirectory(dir)
    return handle
  } catch (error) {
    await handle.truncate(0).catch(() => {})
    await handle.close()
    throw error
  }
}

async function openPositionFile (dir: string): Promise<FileHandle> {
  const path = join(dir, 'position')
  const handle = await open(path, 'r+').catch(() => open(path, 'w+', FILE_MODE))
  if ((await handle.stat()).size < POSITION_BYTES) {
    await writeAll(handle, Buffer.alloc(POSITION_BYTES), 0)
    await handle.sync()
  }
  return handle
}

async function readPosition (file: FileHandle): Promise<ReturnType<typeof decodePosition>> {
  const bytes = Buffer.alloc(POSITION_BYTES)
  await file.read(bytes, 0, POSITION_BYTES, 0)
  return decodePosition(bytes)
}

async function syncDirectory (dir: string): Promise<void> {
  const handle = await open(dir, 'r')
  await handle.sync().finally(() => handle.close())
}
