// The frame of DFPlayer-Mini class MP3 modules (chips YX5200, YX6200, MH2024K and kin), 9600 8N1, both directions:
//
//   7E  FF  06  command  feedback  param u16  checksum u16  EF        checksum = 0 - (FF + 06 + command + feedback + param bytes)
//
// A reader takes any chunks and finds the next frame after garbage. A frame has no escapes, so 7E may stand inside one: after a bad
// frame the reader goes on behind its first byte, not behind its last.
import { SoundboxError } from './errors.js'

export const DFPLAYER_BAUD_RATE = 9600
export const DFPLAYER_FRAME_BYTES = 10

/** Commands to the module, and what it reports by itself or in answer. */
export const DFPLAYER = {
  SET_VOLUME: 0x06, RESET: 0x0c, PLAY_MP3: 0x12, STOP: 0x16,
  CARD_IN: 0x3a, CARD_OUT: 0x3b, FINISHED: 0x3d, READY: 0x3f, ERROR: 0x40, ACK: 0x41, STATUS: 0x42, VOLUME: 0x43, FILES: 0x48
} as const
/** Volume steps of the module. */
export const DFPLAYER_VOLUME_MAX = 30
/** PLAY_MP3 plays file NNNN of the folder MP3, 0001 to 3000. */
export const DFPLAYER_TRACK_MAX = 3000
/** Parameter of an ERROR. */
export const DFPLAYER_ERRORS: Record<number, string> = {
  1: 'busy', 2: 'asleep', 3: 'frame-incomplete', 4: 'checksum', 5: 'track-out-of-range', 6: 'track-missing', 7: 'insert', 8: 'card-unreadable'
}

export type DfFrame = { command: number, param: number, wantsFeedback: boolean }

/** Bytes of a frame. Throws FRAME_INVALID for a command over 8 bits or a parameter over 16. */
export function encodeDfFrame (frame: DfFrame): Buffer {
  const { command, param } = frame
  if (!Number.isInteger(command) || command < 0 || command > 0xff || !Number.isInteger(param) || param < 0 || param > 0xffff) {
    throw new SoundboxError('FRAME_INVALID', 'command must fit 8 bits and parameter 16')
  }
  const bytes = Buffer.from([0x7e, 0xff, 0x06, command, frame.wantsFeedback ? 1 : 0, param >> 8, param & 0xff, 0, 0, 0xef])
  bytes.writeUInt16BE(checksum(bytes), 7)
  return bytes
}

/** A reader of one direction: whole frames in order; garbage and damaged frames are left out. Never throws, holds 10 bytes at most. */
export function makeDfReader (): { push: (chunk: Uint8Array) => DfFrame[] } {
  let held: Buffer = Buffer.alloc(0)

  function push (chunk: Uint8Array): DfFrame[] {
    const frames: DfFrame[] = []
    let bytes = Buffer.concat([held, chunk])
    for (;;) {
      const start = bytes.indexOf(0x7e)
      if (start < 0) bytes = Buffer.alloc(0)
      else bytes = bytes.subarray(start)
      if (bytes.length < DFPLAYER_FRAME_BYTES) break
      const isWhole = bytes[1] === 0xff && bytes[2] === 0x06 && bytes[9] === 0xef && bytes.readUInt16BE(7) === checksum(bytes)
      if (isWhole) frames.push({ command: bytes[3]!, param: bytes.readUInt16BE(5), wantsFeedback: bytes[4] === 1 })
      bytes = bytes.subarray(isWhole ? DFPLAYER_FRAME_BYTES : 1)
    }
    held = Buffer.from(bytes)
    return frames
  }

  return { push }
}

function checksum (bytes: Buffer): number {
  const sum = bytes[1]! + bytes[2]! + bytes[3]! + bytes[4]! + bytes[5]! + bytes[6]!
  return (0x10000 - sum) & 0xffff
}
