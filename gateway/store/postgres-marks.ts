// The replay memory of several gateways: a mark is claimed here first, which is free, then in PostgreSQL, which all share. While the
// database fails each gateway remembers alone, and writes down what it remembered when the database is back.
import type { Log } from '../../protocol/index.js'
import type { ReplayMark } from './contract.js'
import type { Queryable } from './postgres-open.js'
import type { ReplayMemory } from './replay-marks.js'

const BATCH_MARKS_MAX = 500
const PURGE_SLICE = 5_000

const CLAIM = `INSERT INTO replay_mark AS m (mark, owner, expires_at)
  SELECT decode(v.mark, 'hex'), v.owner, v."expiresAt" FROM json_to_recordset($1) AS v (mark text, owner text, "expiresAt" bigint) ORDER BY v.mark
  ON CONFLICT (mark) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
  WHERE m.expires_at < $2 OR (m.owner = excluded.owner AND m.owner <> '') RETURNING encode(mark, 'hex') AS mark`

export type MarkClaims = { claim: (mark: ReplayMark) => Promise<boolean>, purge: (expiredBefore: number) => Promise<number>, idle: () => Promise<void> }
type Deps = { db: Queryable, memory: ReplayMemory, nowMs: () => number, log: Log }
type Claim = { mark: ReplayMark, resolve: (claimed: boolean) => void }

/** Claims of one turn are one statement. */
export function createMarkClaims ({ db, memory, nowMs, log }: Deps): MarkClaims {
  let queue: Claim[] = []
  let unsaved: ReplayMark[] = []
  let working: Promise<void> | undefined

  const send = async (claims: readonly Claim[]): Promise<void> => {
    const late = unsaved.splice(0, BATCH_MARKS_MAX)
    const marks = new Map([...late, ...claims.map(({ mark }) => mark)].map(mark => [mark.mark, mark]))
    try {
      const { rows } = await db.query(CLAIM, [JSON.stringify([...marks.values()]), nowMs()])
      const won = new Set((rows as { mark: string }[]).map(row => row.mark))
      for (const { mark, resolve } of claims) resolve(won.has(mark.mark))
    } catch (err) {
      log.warn({ err, marks: marks.size }, 'replay marks are remembered by this gateway alone')
      unsaved.push(...marks.values())
      for (const { resolve } of claims) resolve(true)
    }
  }
  const work = async (): Promise<void> => {
    await new Promise(resolve => setImmediate(resolve))
    while (queue.length > 0) {
      const claims = queue.slice(0, BATCH_MARKS_MAX)
      queue = queue.slice(claims.length)
      await send(claims)
    }
    working = undefined
  }
  return {
    claim: async mark => {
      if (!memory.claim(mark, nowMs())) return false
      const done = new Promise<boolean>(resolve => { queue.push({ mark, resolve }) })
      working ??= work()
      return await done
    },
    purge: async expiredBefore => {
      await memory.purge(expiredBefore)
      unsaved = unsaved.filter(mark => mark.expiresAt >= expiredBefore)
      let purged = 0
      for (let slice = PURGE_SLICE; slice === PURGE_SLICE; purged += slice) {
        const { rowCount } = await db.query('DELETE FROM replay_mark WHERE mark IN (SELECT mark FROM replay_mark WHERE expires_at < $1 LIMIT $2)', [expiredBefore, PURGE_SLICE])
        slice = rowCount ?? 0
      }
      return purged
    },
    idle: async () => { await working }
  }
}
