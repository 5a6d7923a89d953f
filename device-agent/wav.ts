// WAV files of one kind: PCM, 16 bits, one channel, little-endian, as are all machines that this agent runs on.
//
//   0  "RIFF"  u32 bytes after this field  "WAVE"
//   12 "fmt "  u32 16   u16 1 = PCM   u16 channels   u32 rate   u32 bytes a second   u16 bytes a frame   u16 bits
//   36 "data"  u32 bytes of samples   samples…
//
// Programs that write to a pipe (espeak-ng --stdout) cannot know the sizes and put in something false; the reader takes what is there.
import { speechFailed } from './speaker.js'

/** Sound in memory: samples a second, and the samples. */
export type Pcm = { rate: number, samples: Int16Array }

const HEADER_BYTES = 44

/** The file, with true sizes. */
export function encodeWav ({ rate, samples }: Pcm): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + samples.length * 2)
  bytes.write('RIFF', 0, 'latin1')
  bytes.writeUInt32LE(bytes.length - 8, 4)
  bytes.write('WAVEfmt ', 8, 'latin1')
  bytes.writeUInt32LE(16, 16)
  bytes.writeUInt16LE(1, 20)
  bytes.writeUInt16LE(1, 22)
  bytes.writeUInt32LE(rate, 24)
  bytes.writeUInt32LE(rate * 2, 28)
  bytes.writeUInt16LE(2, 32)
  bytes.writeUInt16LE(16, 34)
  bytes.write('data', 36, 'latin1')
  bytes.writeUInt32LE(samples.length * 2, 40)
  bytes.set(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), HEADER_BYTES)
  return bytes
}

/** The sound in a file. A size that reaches beyond the end is cut to it. Throws SPEECH_FAILED for anything but mono 16-bit PCM. */
export function parseWav (bytes: Buffer): Pcm {
  if (bytes.length < 12 || bytes.toString('latin1', 0, 4) !== 'RIFF' || bytes.toString('latin1', 8, 12) !== 'WAVE') throw speechFailed('sound is not a WAV file')
  let rate = 0
  for (let at = 12; at + 8 <= bytes.length;) {
    const name = bytes.toString('latin1', at, at + 4)
    const size = Math.min(bytes.readUInt32LE(at + 4), bytes.length - at - 8)
    const body = bytes.subarray(at + 8, at + 8 + size)
    if (name === 'fmt ') rate = rateOf(body)
    if (name === 'data' && rate > 0) return { rate, samples: samplesOf(body) }
    at += 8 + size + (size % 2)
  }
  throw speechFailed('WAV file has no sound in it')
}

/** Length in milliseconds, from the number of samples. */
export function audioMsOf ({ rate, samples }: Pcm): number {
  return Math.round(samples.length * 1000 / rate)
}

/** Every sample times volume/100, rounded. `volume`: 0..100; at 100 the sound itself. */
export function scaleVolume (pcm: Pcm, volume: number): Pcm {
  return volume === 100 ? pcm : { rate: pcm.rate, samples: pcm.samples.map(sample => Math.round(sample * volume / 100)) }
}

/** 16-bit little-endian samples in bytes of any alignment; an odd last byte is left out. */
export function samplesOf (bytes: Uint8Array): Int16Array {
  const copy = Uint8Array.from(bytes.subarray(0, bytes.byteLength & ~1))
  return new Int16Array(copy.buffer)
}

function rateOf (format: Buffer): number {
  const isOurs = format.length >= 16 && format.readUInt16LE(0) === 1 && format.readUInt16LE(2) === 1 && format.readUInt16LE(14) === 16
  const rate = isOurs ? format.readUInt32LE(4) : 0
  if (rate === 0) throw speechFailed('WAV file is not mono 16-bit PCM')
  return rate
}
