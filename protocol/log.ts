// The logger that modules take. pino fits it; tests pass a silent or a collecting one.

type LogCall = (fields: object, sentence: string) => void

/** Fixed sentence plus fields; no ids inside the sentence; errors under `err`. */
export type Log = { info: LogCall, warn: LogCall, error: LogCall, debug: LogCall, child: (fields: Record<string, unknown>) => Log }

/** A logger that says nothing. */
export const SILENT_LOG: Log = {
  info: () => {}, warn: () => {}, error: () => {}, debug: () => {}, child: () => SILENT_LOG
}
