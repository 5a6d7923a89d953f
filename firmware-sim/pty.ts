// A pseudo-terminal of our own, so that a simulated soundbox looks like a serial port to any program on this machine.
//
// node-pty ships a prebuilt binary in npm whose native `open` makes the pair without a child process. That call is undocumented, hence
// pinned and known to this file alone; node-pty's own `open` reads from both ends and would steal bytes. The slave end stays open here,
// or the master would end with every program that closes the port. `stty` takes echo and line discipline away before anybody opens it.
// The descriptors are inherited by child processes: while one lives that was started meanwhile, `close` is not seen at the other end.
import { execFileSync } from 'node:child_process'
import { closeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { ReadStream } from 'node:tty'
import { SoundboxError } from '../protocol/index.js'

/** Bytes that may wait while nobody reads the port; more are lost, as on a line. */
export const UNREAD_BYTES_MAX = 8192

type NativePty = { open: (columns: number, rows: number) => { master: number, slave: number, pty: string } }
/** `path` is what a program opens. `close` is also how a plug is pulled: whoever has the port open sees it go. */
export type Pty = { path: string, write: (bytes: Uint8Array) => void, close: () => void }

/** Makes a pseudo-terminal. Throws SERIAL_UNAVAILABLE where the system has none (Windows, a platform without the binary). */
export function openPty (onBytes: (bytes: Buffer) => void): Pty {
  const { master, slave, pty: path } = openPair()
  const stream = new ReadStream(master)
  let isOpen = true
  stream.on('data', onBytes)
  stream.on('error', () => {}) // EIO when the pair goes: the close that follows says so.
  return {
    path,
    write (bytes) {
      if (isOpen && stream.writableLength <= UNREAD_BYTES_MAX) stream.write(bytes)
    },
    close () {
      if (!isOpen) return
      isOpen = false
      closeSync(slave)
      stream.destroy()
    }
  }
}

function openPair (): { master: number, slave: number, pty: string } {
  let pair: ReturnType<typeof openPair> | undefined
  try {
    const { requireBinary } = createRequire(import.meta.url)('@lydell/node-pty/requireBinary.js') as { requireBinary: (file: string) => NativePty }
    pair = requireBinary('pty.node').open(80, 24)
    execFileSync('stty', [process.platform === 'linux' ? '-F' : '-f', pair.pty, 'raw', '-echo'])
    return pair
  } catch (cause) {
    for (const descriptor of pair === undefined ? [] : [pair.slave, pair.master]) closeSync(descriptor)
    throw new SoundboxError('SERIAL_UNAVAILABLE', 'this system gives no pseudo-terminal: use a real port, or socat', { cause })
  }
}
