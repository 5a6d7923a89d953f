// How a call is told to stop. One small object a call instead of an AbortController each for deadline and attempt: they cost more than the
// rest of the policy together. Whoever needs a real AbortSignal (nodemailer, timers/promises) gets one made on first use.
export type CancelReason = 'deadline' | 'attempt time-out' | 'caller gone'
export type Cancel = {
  /** Set once it has fired. */
  reason: () => CancelReason | undefined
  /** Calls back when it fires, at once if it has; returns how to stop listening. Callbacks must not throw. */
  onFire: (run: (reason: CancelReason) => void) => () => void
  signal: () => AbortSignal
}

/** A cancel that fires by `fire`, or with its parent (for the parent's reason). `close` lets go of the parent. */
export function openCancel (parent?: Cancel): Cancel & { fire: (reason: CancelReason) => void, close: () => void } {
  let reason: CancelReason | undefined
  const listeners: ((reason: CancelReason) => void)[] = []
  let controller: AbortController | undefined
  const fire = (why: CancelReason): void => {
    if (reason !== undefined) return
    reason = why
    controller?.abort(why)
    for (const listener of listeners.splice(0)) listener(why)
  }
  const letGo = parent?.onFire(fire)
  return {
    fire,
    reason: () => reason,
    onFire (run) {
      if (reason === undefined) listeners.push(run)
      else run(reason)
      return () => {
        const index = listeners.indexOf(run)
        if (index >= 0) listeners.splice(index, 1)
      }
    },
    signal () {
      controller ??= new AbortController()
      if (reason !== undefined) controller.abort(reason)
      return controller.signal
    },
    close: () => { letGo?.() }
  }
}

/** Fires `caller gone` when an outside signal aborts; returns how to stop listening. */
export function followSignal (cancel: { fire: (reason: CancelReason) => void }, signal: AbortSignal | undefined): (() => void) | undefined {
  if (signal === undefined) return undefined
  const gone = (): void => cancel.fire('caller gone')
  if (signal.aborted) gone()
  else signal.addEventListener('abort', gone, { once: true })
  return () => signal.removeEventListener('abort', gone)
}
