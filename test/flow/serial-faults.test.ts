// A thousand seeded runs of the agent's real serial driver against the simulated box over a line that flips bits, loses bytes, bursts,
// cuts frames, stalls; with resets in mid-sentence, a box that hangs, a pulled plug and an agent that dies. In all of them every
// announcement ends exactly once, and what it ended as is what could be heard.
import t from 'tap'
import { type FaultProfile, profileFromSeed, type Random } from '../../firmware-sim/faults.js'
import type { Sound } from '../../firmware-sim/voice.js'
import type { SerialResult } from '../../protocol/index.js'
import { announcementOf, forSeeds, startWorld, type World } from '../support/serial-world.js'

const RUNS = 1000
const ANNOUNCEMENTS = 8
const FAULTS_END_MS = 40_000
const LIMIT_MS = 600_000
/** The link may carry an announcement this much later than its time to live was counted: six attempts at 115200 baud, and a stall. */
const LATE_MS = 10_000
const CLIPS = ['received', 'rupees', 'n19', 'hundred', 'thousand', 'n7', 'paise']

t.setTimeout(60_000 * Number(process.env['SEEDS'] ?? 1))

type Asked = { id: string, atMs: number, ttlMs: number, result?: SerialResult }

function ask (world: World, asked: Asked, clips: readonly string[], wasAsked = false): void {
  const leftMs = Math.max(0, asked.atMs + asked.ttlMs - world.clock.nowMs())
  const host = world.host()
  void host.announce(announcementOf(Number.parseInt(asked.id, 16), { ttlMs: Math.floor(leftMs), clips }), { wasAsked }).then(result => {
    if (host === world.host()) asked.result = result
  })
}

function schedule (world: World, random: Random): Asked[] {
  const { clock } = world
  const all: Asked[] = []
  for (let n = 1; n <= ANNOUNCEMENTS; n++) {
    const clips = CLIPS.slice(0, 1 + Math.floor(random() * CLIPS.length))
    clock.after(random() * 25_000, () => {
      const asked: Asked = { id: announcementOf(n).id, atMs: clock.nowMs(), ttlMs: 8000 + Math.floor(random() * 52_000) }
      all.push(asked)
      ask(world, asked, clips)
    })
  }
  if (random() < 0.2) {
    clock.after(random() * 30_000, () => {
      world.killHost()
      for (const asked of all.filter(one => one.result === undefined)) ask(world, asked, ['received'], true) // As an agent does after its own restart.
    })
  }
  if (random() < 0.2) {
    const atMs = random() * 30_000
    clock.after(atMs, world.unplug)
    clock.after(atMs + random() * 20_000, world.plug)
  }
  if (random() < 0.1) clock.after(random() * 30_000, () => { world.sim.press('replay') })
  clock.after(FAULTS_END_MS, () => {
    world.plug()
    world.sim.heal()
  })
  return all
}

/** Why this end and these sounds do not agree, or undefined. */
function disagreement (asked: Asked, sounds: readonly Sound[]): string | undefined {
  const { result } = asked
  if (result === undefined) return 'never ended'
  const heard = sounds.filter(sound => sound.id === asked.id)
  const end = result.result
  const first = heard[0]
  if (heard.length > 1) return `began ${heard.length} times`
  if (first !== undefined && first.startedMs > asked.atMs + asked.ttlMs + LATE_MS) return `spoken ${first.startedMs - asked.atMs - asked.ttlMs} ms too late`
  if (end === 'spoken') return first?.isWhole === true ? undefined : 'said spoken, not heard'
  if (end === 'failed' && result.reason === 'reset') return first?.isWhole === false ? undefined : 'said cut off, heard whole or not at all'
  if (end === 'failed' || end === 'expired') return first === undefined ? undefined : `said ${end} ${result.reason}, but it was heard`
  return `ended as ${end}`
}

async function run (random: Random, seed: number, faults: FaultProfile): Promise<{ ends: string[], faulty: string[] }> {
  const world = startWorld({ seed, faults, eventsATurn: 8 })
  const all = schedule(world, random)
  await world.clock.advance(FAULTS_END_MS)
  await world.clock.runUntil(() => all.every(asked => asked.result !== undefined), LIMIT_MS)
  const faulty = all.flatMap(asked => {
    const why = disagreement(asked, world.sim.sounds)
    return why === undefined ? [] : [`SEED=${seed} ${asked.id.slice(-2)} ${why} ${JSON.stringify(asked)}`]
  })
  await world.close()
  return { ends: all.map(({ result }) => `${result?.result} ${result?.reason ?? ''}`), faulty }
}

t.test('through any faults each announcement ends once, and its end is what could be heard', async t => {
  const counts: Record<string, number> = {}
  const faulty: string[] = []
  let runs = 0
  await forSeeds(RUNS, async (random, seed) => {
    const { ends, faulty: mine } = await run(random, seed, profileFromSeed(seed))
    runs += 1
    faulty.push(...mine)
    for (const end of ends) counts[end] = (counts[end] ?? 0) + 1
  })
  t.same(faulty.slice(0, 10), [])
  t.comment(`${runs} runs: ${JSON.stringify(counts)}`)
  if (runs >= RUNS) {
    t.ok((counts['spoken '] ?? 0) > ANNOUNCEMENTS * runs / 2, 'most are spoken')
    t.ok((counts['failed reset'] ?? 0) > 0, 'some are cut off by a reset')
    t.ok(Object.keys(counts).some(end => end.startsWith('expired')), 'some expire')
  }
})
