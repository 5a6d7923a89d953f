// What the technician sees: a table and colours on a terminal, one JSON object a line for scripts.
import Table from 'cli-table3'
import pc from 'picocolors'
import { type ErrorCode, ERRORS, isSoundboxError } from '../../protocol/index.js'

/** Exit codes that scripts can rely on; README lists them. */
export const EXIT = { ok: 0, failed: 1, usage: 2, unreachable: 3, notFound: 4, conflict: 5, denied: 6 } as const

export type Output = {
  json: boolean
  /** Rows as a table, or each as one JSON line. `columns`: key -> heading. */
  rows: (rows: readonly Record<string, unknown>[], columns: Readonly<Record<string, string>>) => void
  /** One thing as `name value` lines, or as one JSON line. */
  one: (value: Record<string, unknown>) => void
  line: (text: string) => void
}
type Write = (text: string) => void

/** Writes to `write`; `json` for scripts. */
export function openOutput (json: boolean, write: Write): Output {
  return {
    json,
    rows (rows, columns) {
      if (json) {
        for (const row of rows) write(`${JSON.stringify(row)}\n`)
        return
      }
      if (rows.length === 0) {
        write(`${pc.dim('nothing found')}\n`)
        return
      }
      const table = new Table({ head: Object.values(columns).map(name => pc.bold(name)), style: { head: [], border: [], compact: true } })
      for (const row of rows) table.push(Object.keys(columns).map(key => cellText(row[key])))
      write(`${table.toString()}\n`)
    },
    one (value) {
      if (json) {
        write(`${JSON.stringify(value)}\n`)
        return
      }
      const width = Math.max(...Object.keys(value).map(key => key.length))
      for (const [key, member] of Object.entries(value)) for (const [index, text] of linesOf(member).entries()) write(`${pc.bold((index === 0 ? key : '').padEnd(width))}  ${text}\n`)
    },
    line (text) {
      if (!json) write(`${text}\n`)
    }
  }
}

/** Text of a value in a cell; states get a colour. Control characters of foreign text never reach the terminal. */
export function cellText (value: unknown): string {
  if (value === null || value === undefined) return pc.dim('-')
  if (typeof value === 'object') return plain(inWords(value)) || pc.dim('-')
  return colourOf(plain(String(value)))
}

/** A list of things takes a line for each. */
function linesOf (value: unknown): string[] {
  const isList = Array.isArray(value) && value.length > 0 && value.every(member => typeof member === 'object')
  return isList ? value.map(cellText) : [cellText(value)]
}

/** `a=1 b=2` of an object, `a, b` of a list: people do not read JSON. */
function inWords (value: unknown): string {
  if (value === null || value === undefined) return '-'
  if (typeof value !== 'object') return String(value)
  if (Array.isArray(value)) return value.map(inWords).join(', ')
  return Object.entries(value).map(([key, member]) => `${key}=${typeof member === 'object' && member !== null ? `(${inWords(member)})` : inWords(member)}`).join(' ')
}

function plain (text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, '?')
}

function colourOf (text: string): string {
  switch (text) {
    case 'spoken': case 'active': case 'online': case 'success': case 'handed': return pc.green(text)
    case 'failed': case 'inactive': case 'offline': case 'expired': case 'reversed': return pc.red(text)
    case 'accepted': case 'published': case 'delivered': case 'summarised': case 'muted': case 'duplicate': return pc.yellow(text)
    default: return text
  }
}

/** What a failed command prints, and its exit code. */
export function describeFailure (error: unknown, json: boolean): { text: string, exit: number } {
  const code: ErrorCode = isSoundboxError(error) ? error.code : 'SERVER_FAULT'
  const message = isSoundboxError(error) ? error.message : error instanceof Error ? error.message : 'unexpected fault'
  const { remedy } = ERRORS[code]
  const text = json ? JSON.stringify({ error: code, message, remedy }) : `${pc.red(code)}: ${plain(message)}\n${pc.dim(remedy)}`
  return { text, exit: exitOf(code) }
}

function exitOf (code: ErrorCode): number {
  switch (code) {
    case 'GATEWAY_UNREACHABLE': return EXIT.unreachable
    case 'NOT_FOUND': return EXIT.notFound
    case 'ALREADY_EXISTS': case 'PAYMENT_CONFLICT': return EXIT.conflict
    case 'UNAUTHORIZED': case 'FORBIDDEN': return EXIT.denied
    case 'INPUT_INVALID': case 'LANGUAGE_UNKNOWN': case 'AMOUNT_INVALID': case 'CONFIG_INVALID': return EXIT.usage
    default: return EXIT.failed
  }
}
