// A serial port that is kept open: opened when it is there, opened again when it was lost, with growing pauses between.
import { isSoundboxError, type Log, SoundboxError, type Timers } from '../protocol/index.js'
import { type OpenPort, openSerialPort, type PortHandle } from './serial-link.js'

export const REOPEN_MS_MIN = 500
export const REOPEN_MS_MAX = 5000

export type SerialLineOptions = {
  path: string, baudRate: number, log: Log, timers: Timers
  openPort?: OpenPort | undefined
  onOpen: () => void
  onBytes: (bytes: Buffer) => void
  /** Once a change: the port was lost, or it cannot be opened for a reason that was not said yet. */
  onLost: (error: SoundboxError) => void
}
export type SerialLine = {
  /** Dropped while the port is not open. */
  write: (bytes: Uint8Array) => void
  /** Why the port is not open, SERIAL_UNAVAILABLE; undefined while it is, and before the first try has ended. */
  error: () => SoundboxError | undefined
  close: () => Promise<void>
}

/** Keeps a port open until `close`. */
export function openSerialLine (options: SerialLineOptions): SerialLine {
  const live: Live = { options, port: undefined, error: undefined, isClosed: false, reopenMs: REOPEN_MS_MIN, cancelReopen: undefined }
  void open(live)
  return {
    write: bytes => { live.port?.write(bytes) },
    error: () => live.error,
    async close () {
      live.isClosed = true
      live.cancelReopen?.()
      const { port } = live
      live.port = undefined
      await port?.close()
    }
  }
}

type Live = {
  options: SerialLineOptions, port: PortHandle | undefined, error: SoundboxError | undefined, isClosed: boolean, reopenMs: number, cancelReopen: (() => void) | undefined
}

async function open (live: Live): Promise<void> {
  const { path, baudRate, log, openPort = openSerialPort, onBytes, onOpen, onLost } = live.options
  const mine = { port: undefined as PortHandle | undefined, isLost: false }
  try {
    mine.port = await openPort({
      path, baudRate,
      onBytes: bytes => { if (mine.port !== undefined && live.port === mine.port) onBytes(bytes) },
      onClosed: why => {
        mine.isLost = true
        if (mine.port !== undefined && live.port === mine.port) lose(live, why)
      }
    })
    if (live.isClosed) return await mine.port.close()
    if (mine.isLost) throw new SoundboxError('SERIAL_UNAVAILABLE', `port ${path} was lost as soon as it was open`)
    Object.assign(live, { port: mine.port, error: undefined, reopenMs: REOPEN_MS_MIN })
    onOpen()
  } catch (cause) {
    if (!isSoundboxError(cause)) throw cause
    if (live.isClosed) return
    if (live.error?.message !== cause.message) {
      live.error = cause
      log.warn({ path, err: cause }, 'serial port cannot be opened')
      onLost(cause)
    }
    reopenLater(live)
  }
}

function lose (live: Live, why: string): void {
  const { path, log, onLost } = live.options
  live.port = undefined
  live.error = new SoundboxError('SERIAL_UNAVAILABLE', `port ${path} was lost: ${why}`)
  log.warn({ path, why }, 'serial port is lost')
  onLost(live.error)
  reopenLater(live)
}

function reopenLater (live: Live): void {
  if (live.isClosed) return
  live.cancelReopen = live.options.timers.after(live.reopenMs, () => { void open(live) })
  live.reopenMs = Math.min(REOPEN_MS_MAX, live.reopenMs * 2)
}
