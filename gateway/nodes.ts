// What a gateway needs to be one of several over one database and one broker: who is who is read again when another gateway changed it,
// and the heart is told how to reach the others.
import type { Log } from '../protocol/index.js'
import type { Fleet } from './fleet/fleet.js'
import { DIRECTORY_TOPIC } from './store/postgres-directory.js'
import type { PostgresStore } from './store/postgres.js'
import { WAKE_ALL } from './store/postgres-wake.js'
import type { NodeDeps } from './trigger/relay.js'
import type { Prompter } from './trigger/prompter.js'

/** Changes of banks, soundboxes and mappings are known to the other gateways within this and the time to read them; many are one read. */
export const RELOAD_PAUSE_MS = 500

type FollowDeps = { store: Pick<PostgresStore, 'onWake'>, reload: () => Promise<void>, startTimer: (callback: () => void, ms: number) => { stop: () => void }, log: Log }

/** Reads the directory again after other gateways' changes, until it is closed. Rejects with STORE_FAILED when it cannot listen. */
export async function followDirectory ({ store, reload, startTimer, log }: FollowDeps): Promise<{ close: () => Promise<void> }> {
  let isStale = true // Something may have changed before this gateway listened.
  let reloading: Promise<void> | undefined
  await store.onWake(topic => { isStale ||= topic === DIRECTORY_TOPIC || topic === WAKE_ALL })
  const timer = startTimer(() => {
    if (!isStale || reloading !== undefined) return
    isStale = false
    reloading = reload().catch((err: unknown) => {
      isStale = true
      log.warn({ err }, 'changes of banks and soundboxes were not read; trying again')
    }).finally(() => { reloading = undefined })
  }, RELOAD_PAUSE_MS)
  return {
    async close () {
      timer.stop()
      await reloading
    }
  }
}

/** The heart's view of the other gateways. `parts`: opened after the heart, and used only when messages come. `shared` null: there are no others. */
export function nodeDeps (self: string, shared: PostgresStore | null, parts: () => { fleet: Fleet, prompter: Prompter }): NodeDeps {
  const presence = (): Fleet['presence'] => parts().fleet.presence
  return {
    self, bus: shared,
    onlineTids: () => presence().all().flatMap(({ tid, online }) => online ? [tid] : []),
    isOnline: tid => presence().isOnline(tid),
    learn: (tid, online) => { parts().fleet.learn(tid, online) },
    learnReported: (tid, reported) => { parts().fleet.learnReported(tid, reported) },
    confirm: tid => { parts().fleet.handleConnected({ tid, address: '', tls: false, takeover: false }) },
    takeAck: (tid, ack) => parts().fleet.handleAck(tid, ack) || parts().prompter.handleAck(tid, ack)
  }
}
