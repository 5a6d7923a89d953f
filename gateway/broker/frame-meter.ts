// Measures MQTT packets as their bytes arrive, so that nobody can make the parser collect a packet of 256 MiB.
//
//   byte 0       packet type and flags
//   byte 1..4    remaining length, 7 bits a byte, low group first, bit 7 = one more follows [MQTT-2.2.3]
//   then         that many bytes
const LENGTH_BYTES_MAX = 4

/** Takes each chunk in turn; false as soon as a packet announces more than its limit or its length is malformed. The first packet has a limit of its own. */
export function openFrameMeter (firstBytesMax: number, laterBytesMax: number): (chunk: Uint8Array) => boolean {
  let limit = firstBytesMax
  let bodyLeft = 0
  let length = 0
  let lengthBytes = -1 // -1: the next byte is a packet type.

  const takeLengthByte = (byte: number): boolean => {
    length += (byte & 0x7f) * 128 ** lengthBytes
    lengthBytes++
    if (length > limit) return false
    if ((byte & 0x80) !== 0) return lengthBytes < LENGTH_BYTES_MAX
    bodyLeft = length
    length = 0
    lengthBytes = -1
    limit = laterBytesMax
    return true
  }

  return chunk => {
    let at = 0
    while (at < chunk.length) {
      if (bodyLeft > 0) {
        const step = Math.min(bodyLeft, chunk.length - at)
        bodyLeft -= step
        at += step
      } else if (lengthBytes < 0) {
        lengthBytes = 0
        at++
      } else if (!takeLengthByte(chunk[at++] ?? 0)) return false
    }
    return true
  }
}
