// Brings a firmware image into a soundbox: begin (the box says how much it holds), chunks, end, and then watches whether the new
// program stays. Whatever goes wrong on the way is met by beginning again, from what the box holds.
import {
  type BoxHello, type BoxStatus, CHUNK_BYTES_MAX, decodeFirmwareHeader, FIRMWARE_HEADER_BYTES, isUnanswered, type SerialMessage, type SerialResult, SoundboxError, type Timers
} from '../protocol/index.js'

/** Beginnings in a row that bring the update no further before it is given up. */
export const RESUMES_MAX = 10
/** From the end of the transfer until the new program has proved itself: two boots and the box's own health window. */
export const TRIAL_MS = 150_000
const LOOK_EVERY_MS = 250

export type UpdatePort = {
  ask: (message: (id: string) => SerialMessage) => Promise<SerialResult>
  hello: () => BoxHello | undefined
  isClosed: () => boolean
  watchStatus: (watch: (status: BoxStatus) => void) => () => void
  timers: Timers
}
type UpdateOptions = { force: boolean, onProgress?: (done: number, total: number) => void }

/** Resolves when the box runs the image for good. Throws FIRMWARE_INVALID (refused, rolled back), SERIAL_TIMEOUT. */
export async function updateFirmware (port: UpdatePort, image: Buffer, options: UpdateOptions): Promise<void> {
  const header = image.subarray(0, FIRMWARE_HEADER_BYTES)
  const body = image.subarray(FIRMWARE_HEADER_BYTES)
  const { version, size } = decodeFirmwareHeader(header)
  if (body.length !== size) throw new SoundboxError('FIRMWARE_INVALID', `image holds ${body.length} bytes of program, its header says ${size}`)
  let bootId = port.hello()?.bootId
  let furthest = -1
  for (let stalled = 0; stalled < RESUMES_MAX && !port.isClosed(); stalled++) {
    const begun = await port.ask(id => ({ type: 'FIRMWARE_BEGIN', id, header, force: options.force }))
    if (isRefusal(begun)) throw refusal(begun)
    const from = begun.result === 'done' ? begun.offset ?? 0 : undefined
    if (from === undefined || !await sendChunks(port, body, from, options)) {
      if ((from ?? -1) > furthest) stalled = 0
      furthest = Math.max(furthest, from ?? -1)
      continue
    }
    bootId = port.hello()?.bootId ?? bootId
    const ended = await port.ask(id => ({ type: 'FIRMWARE_END', id }))
    if (ended.result === 'done') return await watchTrial(port, version, bootId)
    if (isRefusal(ended) && ended.reason !== 'incomplete') throw refusal(ended)
  }
  throw new SoundboxError('SERIAL_TIMEOUT', `firmware update stopped at ${Math.max(0, furthest)} of ${size} bytes: the soundbox does not answer`)
}

/** True when all chunks from this offset were taken, false when the session was lost on the way. */
async function sendChunks (port: UpdatePort, body: Buffer, from: number, options: UpdateOptions): Promise<boolean> {
  for (let offset = from; offset < body.length; offset += CHUNK_BYTES_MAX) {
    options.onProgress?.(offset, body.length)
    const data = body.subarray(offset, offset + CHUNK_BYTES_MAX)
    const sent = await port.ask(() => ({ type: 'FIRMWARE_CHUNK', offset, data }))
    if (sent.result !== 'done') return false
  }
  options.onProgress?.(body.length, body.length)
  return true
}

/** Waits for the box under its new version and no longer on trial; the old version after a reset means that it went back. */
async function watchTrial (port: UpdatePort, version: string, oldBootId: string | undefined): Promise<void> {
  let isProved = false
  const stop = port.watchStatus(status => {
    const hello = port.hello()
    if (hello?.firmware === version && hello.bootId !== oldBootId && status.trial !== true) isProved = true
  })
  try {
    const deadlineMs = port.timers.nowMs() + TRIAL_MS
    while (port.timers.nowMs() < deadlineMs && !port.isClosed()) {
      await new Promise<void>(resolve => { port.timers.after(LOOK_EVERY_MS, resolve) })
      const hello = port.hello()
      if (isProved) return
      if (hello?.resetReason === 'rollback' && hello.bootId !== oldBootId) throw new SoundboxError('FIRMWARE_INVALID', `soundbox went back to ${hello.firmware}: ${version} did not pass its trial`)
    }
  } finally {
    stop()
  }
  throw new SoundboxError('SERIAL_TIMEOUT', `soundbox did not come back with firmware ${version}`)
}

function isRefusal (result: SerialResult): boolean {
  return result.result === 'failed' && !isUnanswered(result)
}

function refusal (result: SerialResult): SoundboxError {
  return new SoundboxError('FIRMWARE_INVALID', `soundbox refuses the image: ${result.reason ?? 'without a reason'}`)
}
