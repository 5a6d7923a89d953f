// The policy around every provider call. The order is the meaning:
//
//   deadline( bulkhead( retry( breaker( attempt time-out( attempt ) ) ) ) )
//
// The deadline bounds waiting, retries and all; a call holds its place in the bulkhead while it backs off, so a failing provider slows its own
// callers and nobody else's; every attempt asks the breaker and counts in it. An attempt is a function that answers with a value
// (`Attempt`), never by throwing, and that ends when its signal fires. What is left after the last attempt becomes one SoundboxError.
// One policy an issuer: no state is shared between issuers, and nothing of the store is touched here.
import { type ErrorCode, type Log, SoundboxError } from '../../protocol/index.js'
import { type Breaker, BREAKER_POLICY, CLOSED, stepBreaker } from '../breaker.js'
import type { Audit } from './audit.js'
import { type AllowList, allowListFrom, maskedJson, maskText } from './audit-mask.js'
import { openBulkhead } from './bulkhead.js'
import { type Cancel, followSignal, openCancel } from './cancel.js'
import type { LimitsConfig } from './config.js'
import type { Issuer } from './contract.js'
import { BACKOFF_BASE_MS, BACKOFF_CAP_MS, type Clock } from './figures.js'
import type { Attempt, AttemptFault, AttemptInfo, CallRunner, CallTarget, TransportContext } from './provider.js'
import { planRetry } from './retry.js'

export type PolicyDeps = { issuer: Issuer, limits: LimitsConfig, clock: Clock, random: () => number, audit: Pick<Audit, 'record' | 'assertRoom'>, log: Log }
export type PolicyHealth = { active: number, waiting: number, breakers: Readonly<Record<string, Breaker['state']>> }
export type Policy = { run: CallRunner, health: () => PolicyHealth }

/** The policy of one issuer. */
export function openPolicy (deps: PolicyDeps): Policy {
  const bulkhead = openBulkhead(deps.issuer, deps.limits)
  const breakers = new Map<string, Breaker>()
  const allowLists = new WeakMap<readonly string[], AllowList>()
  const allowListOf = (fields: readonly string[]): AllowList => {
    const known = allowLists.get(fields)
    if (known !== undefined) return known
    const made = allowListFrom(fields)
    allowLists.set(fields, made)
    return made
  }
  return {
    health: () => ({ active: bulkhead.now().active, waiting: bulkhead.now().queue.length, breakers: Object.fromEntries([...breakers].map(([host, { state }]) => [host, state])) }),
    async run (ctx, target, attempt) {
      deps.audit.assertRoom()
      const nowMs = deps.clock.nowMs()
      const deadlineMs = Math.min(nowMs + deps.limits.totalMs, ctx.deadlineMs ?? Number.POSITIVE_INFINITY, target.deadlineMs ?? Number.POSITIVE_INFINITY)
      const whole = openCancel()
      const unfollow = followSignal(whole, ctx.signal)
      const stopDeadline = deps.clock.after(Math.max(0, deadlineMs - nowMs), () => whole.fire('deadline'))
      let leave: (() => void) | undefined
      try {
        leave = await bulkhead.enter(whole)
        if (leave === undefined) throw waitedInVain(deps, whole)
        return await runAttempts({ deps, breakers, allowed: allowListOf(target.auditFields), ctx, target, deadlineMs, whole }, attempt)
      } finally {
        leave?.()
        stopDeadline()
        unfollow?.()
      }
    }
  }
}

type Run = { deps: PolicyDeps, breakers: Map<string, Breaker>, allowed: AllowList, ctx: TransportContext, target: CallTarget, deadlineMs: number, whole: Cancel }
type AttemptCall<T> = Parameters<typeof attemptOnce<T>>[1]

async function runAttempts<T> (run: Run, attempt: AttemptCall<T>): Promise<T> {
  const { deps, target } = run
  const policy = { attemptsMax: deps.limits.attemptsMax, baseMs: BACKOFF_BASE_MS, capMs: BACKOFF_CAP_MS }
  for (let number = 1; ; number++) {
    const admit = askBreaker(run)
    if (admit === 'no') throw new SoundboxError('PROVIDER_UNAVAILABLE', `${deps.issuer}: the circuit breaker of ${target.host} is open, nothing was sent`)
    const outcome = await attemptOnce(run, attempt, number, admit === 'probe')
    if (outcome.ok) return outcome.value
    const waitMs = run.whole.reason() !== undefined ? undefined : planRetry(
      outcome.fault, { attempt: number, idempotent: target.idempotent, nowMs: deps.clock.nowMs(), deadlineMs: run.deadlineMs, random: deps.random() }, policy)
    if (waitMs === undefined) throw errorFromFault(outcome.fault, deps.issuer, target)
    deps.log.debug({ traceId: run.ctx.traceId, uriKey: target.uriKey, attempt: number, waitMs }, 'provider call is tried again')
    if (!await waitFor(deps.clock, waitMs, run.whole)) throw errorFromFault(outcome.fault, deps.issuer, target)
  }
}

/** One attempt under its own time-out, counted in the breaker and written to the audit trail. */
async function attemptOnce<T> (run: Run, attempt: (info: AttemptInfo) => Promise<Attempt<T>>, number: number, probe: boolean): Promise<Attempt<T>> {
  const { deps, target } = run
  const startMs = deps.clock.nowMs()
  const own = target.timeoutMs === undefined ? undefined : openCancel(run.whole)
  const cancel = own ?? run.whole
  const stopTimeout = target.timeoutMs === undefined ? undefined : deps.clock.after(target.timeoutMs, () => own?.fire('attempt time-out'))
  let outcome: Attempt<T> | undefined
  try {
    outcome = await firstOf(attempt({ attempt: number, cancel }), cancel)
    return outcome
  } finally {
    stopTimeout?.()
    own?.close()
    tellBreaker(run, outcome, probe)
    record(run, outcome, { number, startMs })
  }
}

/** The attempt's answer, or a time-out of unknown effect when it does not end within one turn after it was told to stop. */
function firstOf<T> (attempt: Promise<Attempt<T>>, cancel: Cancel): Promise<Attempt<T>> {
  return new Promise((resolve, reject) => {
    const stop = cancel.onFire(reason => {
      const kind = reason === 'caller gone' ? 'aborted' : 'timeout'
      const message = reason === 'caller gone' ? 'the caller went away' : 'no answer in time'
      setImmediate(() => { resolve({ ok: false, fault: { kind, sent: true, final: false, message }, trail: { url: '', method: '' } }) })
    })
    attempt.then(outcome => {
      stop()
      resolve(outcome)
    }, reject)
  })
}

function askBreaker (run: Run): 'call' | 'probe' | 'no' {
  const { next, admit } = stepBreaker(run.breakers.get(run.target.host) ?? CLOSED, { kind: 'ask' }, run.deps.clock.nowMs(), BREAKER_POLICY)
  run.breakers.set(run.target.host, next)
  return admit
}

/** A provider that says no is alive; only silence, broken wires and 5xx count against it. Faults of our own side count as nothing. */
function tellBreaker (run: Run, outcome: Attempt<unknown> | undefined, probe: boolean): void {
  const before = run.breakers.get(run.target.host) ?? CLOSED
  const { next } = stepBreaker(before, { kind: breakerEventOf(outcome), probe }, run.deps.clock.nowMs(), BREAKER_POLICY)
  run.breakers.set(run.target.host, next)
  if (before.state !== next.state) run.deps.log.warn({ issuer: run.deps.issuer, host: run.target.host, from: before.state, to: next.state }, 'circuit breaker changed')
}

function breakerEventOf (outcome: Attempt<unknown> | undefined): 'success' | 'failure' | 'cancel' {
  if (outcome === undefined) return 'cancel'
  if (outcome.ok) return 'success'
  const { kind } = outcome.fault
  if (kind === 'blocked' || kind === 'aborted' || (kind === 'auth' && !outcome.fault.sent)) return 'cancel'
  return kind === 'rejected' || kind === 'auth' || kind === 'invalid' || (kind === 'status' && outcome.fault.refused === true) ? 'success' : 'failure'
}

function record (run: Run, outcome: Attempt<unknown> | undefined, at: { number: number, startMs: number }): void {
  const { deps, ctx, target, allowed } = run
  const trail = outcome?.trail
  const fault = outcome?.ok === false ? outcome.fault : undefined
  deps.audit.record({
    atMs: at.startMs, traceId: ctx.traceId, actor: ctx.actor, issuer: target.issuer, service: ctx.service, uriKey: target.uriKey, method: trail?.method ?? '',
    url: maskText(trail?.url ?? ''), status: trail?.status ?? null, latencyMs: Math.max(0, Math.round(deps.clock.nowMs() - at.startMs)), attempt: at.number,
    outcome: outcome === undefined ? 'fault' : fault?.kind ?? 'ok', error: fault === undefined ? null : maskText(fault.message),
    request: maskedJson(trail?.request, allowed), response: maskedJson(trail?.response, allowed)
  })
}

const CODES: Readonly<Record<AttemptFault['kind'], ErrorCode>> = {
  connect: 'PROVIDER_UNAVAILABLE', timeout: 'PROVIDER_TIMEOUT', reset: 'PROVIDER_UNAVAILABLE', status: 'PROVIDER_UNAVAILABLE', tls: 'PROVIDER_UNAVAILABLE',
  auth: 'PROVIDER_CONFIG', blocked: 'PROVIDER_CONFIG', rejected: 'PROVIDER_REJECTED', invalid: 'PROVIDER_RESPONSE_INVALID', aborted: 'PROVIDER_UNAVAILABLE'
}

/** What the caller is told after the last attempt. A call that changes something, was sent and was not refused is of unknown state. */
export function errorFromFault (fault: AttemptFault, issuer: Issuer, target: Pick<CallTarget, 'idempotent' | 'uriKey'>): SoundboxError {
  const what = `${issuer} ${target.uriKey}: ${fault.message}`
  if (!target.idempotent && fault.sent && fault.refused !== true) return new SoundboxError('PROVIDER_STATE_UNKNOWN', what, { cause: fault.cause })
  const code = fault.kind === 'auth' && !fault.sent ? 'PROVIDER_AUTH_MISSING' : CODES[fault.kind]
  return new SoundboxError(code, what, { cause: fault.cause })
}

function waitedInVain (deps: PolicyDeps, cancel: Cancel): SoundboxError {
  return cancel.reason() === 'deadline'
    ? new SoundboxError('PROVIDER_BUSY', `${deps.issuer}: the call waited ${deps.limits.totalMs} ms for its turn, nothing was sent`)
    : new SoundboxError('PROVIDER_UNAVAILABLE', `${deps.issuer}: the caller went away before anything was sent`)
}

/** True after `ms`, false when the call is told to stop first. */
async function waitFor (clock: Clock, ms: number, cancel: Cancel): Promise<boolean> {
  return await new Promise(resolve => {
    const stopTimer = clock.after(ms, () => {
      stopListening()
      resolve(cancel.reason() === undefined)
    })
    const stopListening = cancel.onFire(() => {
      stopTimer()
      resolve(false)
    })
  })
}
