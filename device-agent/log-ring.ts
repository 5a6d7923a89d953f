// The last lines of the log in memory, for the operator's `collect-log`.
import { isSoundboxError, type Log } from '../protocol/index.js'

export const LOG_LINES_MAX = 200
const LOG_LINE_LENGTH_MAX = 300
/** As JSON within an ack of MESSAGE_BYTES_MAX. */
const LOG_TEXT_BYTES_MAX = 2900

/** `log` writes to the given one too; `text` gives the newest lines that fit one ack. */
export function openLogRing (log: Log, nowMs: () => number): { log: Log, text: () => string } {
  const lines: string[] = []
  const keep = (level: string, fields: object, sentence: string): void => {
    const parts = Object.entries(fields).map(([key, value]) => `${key}=${fieldText(value)}`)
    lines.push([Math.round(nowMs()), level, sentence, ...parts].join(' ').slice(0, LOG_LINE_LENGTH_MAX))
    if (lines.length > LOG_LINES_MAX) lines.shift()
  }
  const around = (inner: Log): Log => ({
    info: (fields, sentence) => { keep('info', fields, sentence); inner.info(fields, sentence) },
    warn: (fields, sentence) => { keep('warn', fields, sentence); inner.warn(fields, sentence) },
    error: (fields, sentence) => { keep('error', fields, sentence); inner.error(fields, sentence) },
    debug: (fields, sentence) => inner.debug(fields, sentence),
    child: fields => around(inner.child(fields))
  })
  return { log: around(log), text: () => newestWithin(lines, LOG_TEXT_BYTES_MAX).join('\n') }
}

/** Errors by code or class only: their text may come from anywhere. */
function fieldText (value: unknown): string {
  if (isSoundboxError(value)) return value.code
  return value instanceof Error ? value.name : JSON.stringify(value)
}

function newestWithin (lines: readonly string[], bytesMax: number): string[] {
  const taken: string[] = []
  let bytes = 0
  for (const line of [...lines].reverse()) {
    bytes += Buffer.byteLength(JSON.stringify(line))
    if (bytes > bytesMax) break
    taken.unshift(line)
  }
  return taken
}
