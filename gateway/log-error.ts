// How an error is written to the log: enough to find the place, nothing that a caller sent.
import { SoundboxError } from '../protocol/index.js'

/** Code, message and stack only: a cause may hold what must not be logged. */
export function describeError (error: unknown): object {
  if (!(error instanceof Error)) return { message: 'not an error' }
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {}
  const inner = error.cause instanceof Error ? { cause: error.cause.name, causeCode: 'code' in error.cause ? String(error.cause.code) : undefined } : {}
  return { ...code, name: error.name, message: error instanceof SoundboxError ? error.message : error.name, stack: stackOf(error), ...inner }
}

/** Where it happened, without the message line, which for foreign errors may quote input. */
function stackOf (error: Error): string {
  return (error.stack ?? '').split('\n').filter(line => /^\s+at /.test(line)).join('\n')
}
