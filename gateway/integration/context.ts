// Who calls and under which trace: a request's context follows the caller's trace (W3C Trace Context `traceparent`) or starts one, a
// background job always starts its own. A call without a context does not exist.
import type { CallContext } from './provider.js'

const TRACEPARENT = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/
const NO_TRACE = '0'.repeat(32)

/** 32 lower-case hexadecimal digits, random. */
export type MakeTraceId = () => string

/** Context of a request that came in over HTTP. `actor` is the id of its token. */
export function requestContext (request: { actor: string, traceparent?: string | undefined, signal?: AbortSignal | undefined }, makeTraceId: MakeTraceId): CallContext {
  const given = TRACEPARENT.exec(request.traceparent ?? '')?.[1]
  const traceId = given === undefined || given === NO_TRACE ? makeTraceId() : given
  return { traceId, actor: request.actor, background: false, signal: request.signal }
}

/** Context of a job of our own, such as `daily-report`. */
export function backgroundContext (job: string, makeTraceId: MakeTraceId): CallContext {
  return { traceId: makeTraceId(), actor: `system:${job}`, background: true }
}
