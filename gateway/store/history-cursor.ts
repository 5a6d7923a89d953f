// The cursor of a history page: the key of its last row, `acceptedAt.id`, as base64url. Opaque to those who hold it.
import { SoundboxError } from '../../protocol/index.js'

export type HistoryKey = { acceptedAt: number, id: number }

/** Text of a cursor. */
export function cursorFrom ({ acceptedAt, id }: HistoryKey): string {
  return Buffer.from(`${acceptedAt}.${id}`, 'latin1').toString('base64url')
}

/** The key in a cursor. Throws INPUT_INVALID for anything that `cursorFrom` did not make. */
export function parseCursor (cursor: string): HistoryKey {
  const match = /^(-?\d{1,16})\.(\d{1,16})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'))
  const key = { acceptedAt: Number(match?.[1]), id: Number(match?.[2]) }
  if (match === null || cursorFrom(key) !== cursor) throw new SoundboxError('INPUT_INVALID', 'cursor is not one that a history page gave')
  return key
}
