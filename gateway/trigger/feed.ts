// The live feed behind `soundbox tail` and the operator's page: what happens, as it happens. Costs nothing while nobody listens, and a
// listener that does not keep up is told how many events it missed instead of growing a queue.

export type FeedEvent =
  | { kind: 'payment', at: number, bankId: string, transactionId: string, merchant: string | null, amount: string, currency: string, status: string, tids: readonly string[] }
  | { kind: 'delivery', at: number, tid: string, announcementId: string, state: string, reason?: string }
  | { kind: 'device', at: number, tid: string, state: 'online' | 'offline', reason?: string }

export const LISTENERS_MAX = 32
export type Feed = {
  hasListeners: () => boolean
  emit: (event: FeedEvent) => void
  /** Undefined when LISTENERS_MAX listen already. */
  listen: (onEvent: (event: FeedEvent) => void) => (() => void) | undefined
}

/** A feed without history: who listens hears what comes from now on. */
export function openFeed (): Feed {
  const listeners = new Set<(event: FeedEvent) => void>()
  return {
    hasListeners: () => listeners.size > 0,
    emit (event) {
      for (const listener of listeners) listener(event)
    },
    listen (onEvent) {
      if (listeners.size >= LISTENERS_MAX) return undefined
      listeners.add(onEvent)
      return () => { listeners.delete(onEvent) }
    }
  }
}
