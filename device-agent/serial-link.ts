// The serial ports of this machine: the one place that knows the serialport package.
//
// A pseudo-terminal works like a port here. Modem lines are not used: many adapters and every pseudo-terminal refuse them. They are only
// asked for, to see whether the port is still there: when a port hangs up while bytes arrive, serialport 13 reads nothing in a circle,
// takes a whole core and tells nobody. A port that is gone answers EIO, a port that merely has no such lines ENOTTY.
import { readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { SerialPort } from 'serialport'
import { SoundboxError } from '../protocol/index.js'

/** What may wait to leave; more is dropped and the link sends it again. */
export const WRITE_BYTES_MAX = 65_536
export const ALIVE_EVERY_MS = 1000
const GONE = /input\/output error|no such device|bad file descriptor|\bE(?:IO|NODEV|NXIO|BADF)\b/i
const BY_ID = '/dev/serial/by-id'

export type PortHandle = { write: (bytes: Uint8Array) => void, close: () => Promise<void> }
/** `onClosed` comes once when the port is lost (unplugged), not after `close`. Rejects with SERIAL_UNAVAILABLE. */
export type OpenPort = (port: { path: string, baudRate: number, onBytes: (bytes: Buffer) => void, onClosed: (why: string) => void }) => Promise<PortHandle>

/** `stablePath` names the adapter and not the order of plugging in; it is there on Linux with udev. `id`: its last part. */
export type PortInfo = { path: string, stablePath: string, id?: string, manufacturer?: string, serialNumber?: string, vendorId?: string, productId?: string }

/** Opens a port 8N1 for this process alone. Throws SERIAL_UNAVAILABLE: held by another program, missing, not allowed. */
export const openSerialPort: OpenPort = async ({ path, baudRate, onBytes, onClosed }) => {
  const port = new SerialPort({ path, baudRate, autoOpen: false, lock: true })
  await new Promise<void>((resolve, reject) => {
    port.open(error => { error === null ? resolve() : reject(unavailable(path, error)) })
  })
  let isOurs = true
  const lose = (why: string): void => {
    if (!isOurs) return
    isOurs = false
    clearInterval(watch)
    if (port.isOpen) port.close(() => {})
    onClosed(why)
  }
  const watch = setInterval(() => { port.get(error => { if (error !== null && GONE.test(error.message)) lose('unplugged') }) }, ALIVE_EVERY_MS)
  port.on('error', error => { lose(error.message) })
  port.on('close', () => { lose('unplugged') })
  // What stood in the buffer before we came belongs to nobody; a port that cannot flush is read from where it stands.
  await new Promise<void>(resolve => { port.flush(() => { resolve() }) })
  port.on('data', onBytes)
  return {
    write (bytes) {
      if (isOurs && port.writableLength <= WRITE_BYTES_MAX) port.write(Buffer.from(bytes))
    },
    async close () {
      isOurs = false
      clearInterval(watch)
      if (port.isOpen) await new Promise<void>(resolve => { port.close(() => { resolve() }) })
    }
  }
}

/** The ports that look like serial adapters, with their stable names. An incomplete system (no udev) gives a shorter list, no error. */
export async function listSerialPorts (): Promise<PortInfo[]> {
  const listed = await SerialPort.list().catch(() => [])
  const ids = await stableNames()
  const found = new Map<string, PortInfo>()
  for (const { path, manufacturer, serialNumber, vendorId, productId } of listed) {
    const facts = { manufacturer, serialNumber, vendorId, productId }
    found.set(path, { path, stablePath: path, ...Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined)) })
  }
  for (const [path, id] of ids) found.set(path, { ...found.get(path), path, stablePath: join(BY_ID, id), id })
  return [...found.values()]
}

/** Changes when a port comes or goes: cheap enough to look every second. Empty where the system has no such folder. */
export async function portsFingerprint (): Promise<string> {
  return (await readdir(BY_ID).catch(() => [])).sort().join('\n')
}

async function stableNames (): Promise<Map<string, string>> {
  const names = await readdir(BY_ID).catch(() => [])
  const pairs = await Promise.all(names.map(async id => [await realpath(join(BY_ID, id)).catch(() => ''), id] as const))
  return new Map(pairs.filter(([path]) => path !== ''))
}

function unavailable (path: string, cause: Error): SoundboxError {
  const { message } = cause
  let why = 'cannot be opened'
  if (/lock|busy/i.test(message)) why = 'is held by another program'
  else if (/no such|not exist|not found|ENXIO/i.test(message)) why = 'is not there'
  else if (/permission|denied|EACCES/i.test(message)) why = 'may not be opened by this user: add the user to the group of the port (dialout)'
  return new SoundboxError('SERIAL_UNAVAILABLE', `port ${path} ${why}`, { cause })
}
