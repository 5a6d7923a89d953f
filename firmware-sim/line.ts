// One direction of a simulated serial line: bytes arrive when their last bit would have, damaged as the faults say, in order.
import { lineMs, type Timers } from '../protocol/index.js'

/** Bytes on their way; what does not fit is lost, as in a UART that nobody reads. */
export const LINE_BYTES_MAX = 65_536

export type Line = { push: (bytes: Buffer) => void, close: () => void }

/** `spoil` gets each write once. With `baudRate` Infinity bytes arrive at once, but never within `push`. */
export function makeLine (line: {
  baudRate: number, timers: Timers, deliver: (bytes: Buffer) => void, spoil?: ((bytes: Buffer) => { bytes: Buffer, stallMs: number }) | undefined
}): Line {
  const { timers } = line
  const queue: { bytes: Buffer, atMs: number }[] = []
  let freeAtMs = 0
  let held = 0
  let cancel: (() => void) | undefined

  function arm (): void {
    const first = queue[0]
    cancel = first === undefined ? undefined : timers.after(first.atMs - timers.nowMs(), arrive)
  }

  function arrive (): void {
    while (queue[0] !== undefined && queue[0].atMs <= timers.nowMs() + 0.5) {
      const { bytes } = queue.shift()!
      held -= bytes.length
      line.deliver(bytes)
    }
    arm()
  }

  return {
    push (bytes) {
      const { bytes: spoilt, stallMs } = line.spoil?.(bytes) ?? { bytes, stallMs: 0 }
      if (spoilt.length === 0 || held + spoilt.length > LINE_BYTES_MAX) return
      held += spoilt.length
      freeAtMs = Math.max(freeAtMs, timers.nowMs()) + stallMs + lineMs(spoilt.length, line.baudRate)
      queue.push({ bytes: spoilt, atMs: freeAtMs })
      if (cancel === undefined) arm()
    },
    close () {
      cancel?.()
      cancel = undefined
      queue.length = 0
    }
  }
}
