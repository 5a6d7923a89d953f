import t from 'tap'
import { type Ack, type Announcement, AMOUNT_MINOR_MAX, type Desired } from '../../protocol/index.js'
import {
  type Effect, emptyPlayback, isQuiet, type Known, OWN_WAITING_MAX, type Phrase, type Playback, type PlaybackEvent, type PlaybackPolicy, type Sound,
  stepPlayback, wakeAt
} from '../../device-agent/playback.js'
import { forSeeds } from '../support/random.js'

const T0 = 1_800_000_000_000
const POLICY: PlaybackPolicy = {
  gapMs: 400, queueMax: 6, summariseOver: 3, speakTimeoutMs: 30_000, volume: 80, minVolume: 20, quietHours: null, clockOffsetMs: 0
}
const NIGHT: Desired['quietHours'] = { startMinute: 22 * 60, endMinute: 7 * 60, utcOffsetMinutes: 330 }
const idOf = (n: number): string => n.toString(16).padStart(32, '0')

function payment (n: number, changes: Partial<Announcement> = {}): Announcement {
  return { v: 1, id: idOf(n), seq: n, kind: 'payment', amountMinor: n * 100, currency: 'INR', language: 'HINDI', issuedAt: T0, expiresAt: T0 + 60_000, ...changes }
}

/** A box on a table: turns the machine and keeps what came out. */
function openTable (policy: Partial<PlaybackPolicy> = {}) {
  const table = {
    policy: { ...POLICY, ...policy },
    state: emptyPlayback() as Playback,
    nowMs: T0,
    effects: [] as Effect[],
    step: (event: PlaybackEvent): readonly Effect[] => {
      const { next, effects } = stepPlayback(table.state, event, table.nowMs, table.policy)
      table.state = next
      table.effects.push(...effects)
      return effects
    },
    announce: (announcement: Announcement, known?: Known) => table.step({ kind: 'announce', announcement, known }),
    prompt: (prompt: Phrase['prompt'], more: { always?: boolean, commandId?: string } = {}) => table.step({
      kind: 'say', phrases: [promptOf(prompt)], repeat: false, always: more.always === true, commandId: more.commandId ?? null
    }),
    end: (audioMs = 2000) => {
      table.nowMs += audioMs
      return table.step({ kind: 'ended', token: table.state.token, ok: true, soundAt: table.nowMs - audioMs, audioMs })
    },
    wait: (ms: number) => {
      table.nowMs += ms
      return table.step({ kind: 'tick' })
    }
  }
  return table
}

function promptOf (prompt: Phrase['prompt']): Phrase {
  return { kind: 'prompt', amountMinor: 0, currency: 'INR', language: 'HINDI', ...(prompt === undefined ? {} : { prompt }) }
}

const acks = (effects: readonly Effect[]): Ack[] => effects.flatMap(effect => effect.kind === 'ack' ? [effect.ack] : [])
const finals = (effects: readonly Effect[]): Ack[] => effects.flatMap(effect => effect.kind === 'final' ? [effect.ack] : [])
const results = (effects: readonly Effect[]): string[] => finals(effects).map(ack => `${Number(`0x${ack.id}`)} ${ack.result}`)
const sounds = (effects: readonly Effect[]): Sound[] => effects.flatMap(effect => effect.kind === 'speak' ? [effect.sound] : [])
const said = (effects: readonly Effect[]): string[] => sounds(effects).map(({ phrase: { prompt, kind, amountMinor, count } }) =>
  prompt ?? `${kind} ${amountMinor}${count === undefined ? '' : ` x${count}`}`)

t.test('a payment is received at once, spoken, and acknowledged with measured times', async t => {
  const table = openTable({ clockOffsetMs: 5000 })
  const begun = table.announce(payment(19, { issuedAt: T0 + 4900, expiresAt: T0 + 65_000 }))
  t.same(acks(begun), [{ id: idOf(19), result: 'received' }])
  t.same(sounds(begun), [{
    token: 1, members: [{ id: idOf(19), phrase: { kind: 'payment', amountMinor: 1900, currency: 'INR', language: 'HINDI' } }],
    phrase: { kind: 'payment', amountMinor: 1900, currency: 'INR', language: 'HINDI' }, repeat: false, isOnline: false, volume: 80, receivedAt: T0, issuedAt: T0 + 4900
  }])
  table.nowMs += 2100
  const ended = table.step({ kind: 'ended', token: 1, ok: true, soundAt: T0 + 70.4, audioMs: 1999.6 })
  t.same(finals(ended), [{ id: idOf(19), result: 'spoken', queuedMs: 70, audioMs: 2000, at: T0 + 2100 + 5000 }])
})

t.test('one voice at a time, a gap between, in the order of arrival', async t => {
  const table = openTable()
  t.same(said(table.announce(payment(1))), ['payment 100'])
  t.same(said(table.announce(payment(2))), [])
  t.same(said(table.end()), [])
  t.equal(wakeAt(table.state, table.policy), table.nowMs + 400)
  t.same(said(table.wait(399)), [])
  t.same(said(table.wait(1)), ['payment 200'])
  t.equal(wakeAt(table.state, table.policy), table.nowMs + 30_000)
  table.end()
  t.equal(wakeAt(table.state, table.policy), undefined)
})

t.test('what is heard when several wait', async t => {
  const rows: [number[], string[], string][] = [
    [[2, 3, 4], ['payment 200', 'payment 300', 'payment 400'], 'as many as the limit: one by one'],
    [[2, 3, 4, 5], ['summary 1400 x4'], 'one over the limit: all that wait in one summary'],
    [[2, 3, 4, 5, 6, 7], ['summary 2700 x6'], 'a full queue']
  ]
  for (const [waiting, want, why] of rows) {
    const table = openTable()
    table.announce(payment(1))
    for (const n of waiting) table.announce(payment(n))
    table.effects = []
    while (table.state.speaking !== null || table.state.waiting.length > 0) {
      table.end()
      table.wait(400)
    }
    t.same(said(table.effects), want, why)
    const result = want.length === 1 ? 'summarised' : 'spoken'
    t.same(results(table.effects), ['1 spoken', ...waiting.map(n => `${n} ${result}`)], why)
  }
})

t.test('a summary takes payments of one currency only, and no more money than can be worded', async t => {
  const table = openTable({ summariseOver: 1 })
  table.announce(payment(1))
  table.announce(payment(2, { amountMinor: AMOUNT_MINOR_MAX - 300 }))
  table.announce(payment(3, { kind: 'failed-payment' }))
  table.announce(payment(4, { currency: 'USD' }))
  table.announce(payment(5, { amountMinor: 300 }))
  table.announce(payment(6, { amountMinor: 1 }))
  table.effects = []
  for (let turn = 0; turn < 8; turn++) {
    if (table.state.speaking !== null) table.end()
    table.wait(400)
  }
  t.same(said(table.effects), [`summary ${AMOUNT_MINOR_MAX} x2`, 'failed-payment 300', 'payment 400', 'payment 1'])
  t.same(results(table.effects), ['1 spoken', '2 summarised', '5 summarised', '3 spoken', '4 spoken', '6 spoken'])
})

t.test('nothing is spoken at or past its expiry, by the clock of the gateway', async t => {
  const rows: [number, number, string][] = [[59_999, 0, 'spoken'], [60_000, 0, 'expired'], [0, 59_999, 'spoken'], [0, 60_000, 'expired'], [120_000, -60_001, 'spoken']]
  for (const [age, clockOffsetMs, want] of rows) {
    const table = openTable({ clockOffsetMs })
    table.nowMs += age
    table.announce(payment(1))
    if (want === 'spoken') table.end()
    t.same(results(table.effects), [`1 ${want}`], `${age} ms after, offset ${clockOffsetMs}`)
    t.equal(sounds(table.effects).length, want === 'spoken' ? 1 : 0)
  }
  const table = openTable()
  table.announce(payment(1, { expiresAt: T0 + 10_000 }))
  table.announce(payment(2, { expiresAt: T0 + 2000 }))
  table.announce(payment(3))
  table.end()
  table.wait(400)
  t.same(results(table.effects), ['1 spoken', '2 expired'], 'what expired while another sounded is passed over')
  t.same(said(table.effects), ['payment 100', 'payment 300'])
})

t.test('quiet hours mute and say so; what somebody asks for at the box is heard', async t => {
  const night = Date.parse('2026-11-29T23:30:00+05:30')
  const table = openTable({ quietHours: NIGHT })
  table.nowMs = night
  table.announce(payment(1, { issuedAt: night, expiresAt: night + 60_000 }))
  t.same(finals(table.effects), [{ id: idOf(1), result: 'muted', reason: 'quiet hours', at: night }])
  table.prompt('connected')
  table.prompt('no-payments', { commandId: idOf(9) })
  t.same(said(table.effects), [])
  t.match(table.effects.at(-1), { kind: 'command-end', commandId: idOf(9), ok: false, reason: 'quiet hours' })
  t.same(said(table.prompt('no-payments', { always: true })), ['no-payments'])
  table.end()
  table.nowMs += 1000
  t.same(said(table.announce(payment(2, { kind: 'prompt', prompt: 'code', count: 123_456, issuedAt: night, expiresAt: night + 60_000 }))), ['code'])
})

t.test('the edges of quiet hours', async t => {
  const day = { startMinute: 13 * 60, endMinute: 14 * 60, utcOffsetMinutes: 330 }
  const rows: [Desired['quietHours'], string, boolean][] = [
    [null, '00:00', false], [NIGHT, '21:59', false], [NIGHT, '22:00', true], [NIGHT, '00:00', true], [NIGHT, '06:59', true], [NIGHT, '07:00', false],
    [day, '12:59', false], [day, '13:00', true], [day, '13:59', true], [day, '14:00', false],
    [{ ...day, endMinute: day.startMinute }, '13:00', false], [{ ...NIGHT, utcOffsetMinutes: -840 }, '22:00', true], [{ ...NIGHT, utcOffsetMinutes: -840 }, '12:00', false]
  ]
  for (const [quiet, time, want] of rows) t.equal(isQuiet(quiet, Date.parse(`2026-11-29T${time}:00+05:30`)), want, `${time} in ${JSON.stringify(quiet)}`)
})

t.test('the volume never goes below its floor, and volume 0 is muted', async t => {
  const rows: [number, number, number | 'muted'][] = [[80, 20, 80], [10, 20, 20], [0, 1, 1], [100, 0, 100], [0, 0, 'muted']]
  for (const [volume, minVolume, want] of rows) {
    const table = openTable({ volume, minVolume })
    table.announce(payment(1))
    if (want === 'muted') t.match(finals(table.effects), [{ result: 'muted', reason: 'volume 0' }])
    else t.equal(sounds(table.effects)[0]?.volume, want)
  }
})

t.test('the same announcement again', async t => {
  const table = openTable()
  table.announce(payment(1))
  t.same(table.announce(payment(1)), [{ kind: 'ack', ack: { id: idOf(1), result: 'received' } }], 'while it sounds')
  table.announce(payment(2))
  t.same(table.announce(payment(2)), [{ kind: 'ack', ack: { id: idOf(2), result: 'received' } }], 'while it waits')
  table.end()
  t.same(table.announce(payment(1), { result: 'spoken', settled: true }), [{ kind: 'ack', ack: { id: idOf(1), result: 'duplicate', was: 'spoken' } }], 'after the gateway knows its end')
  t.same(table.announce(payment(1), { result: 'spoken', settled: false }), [{ kind: 'settle', id: idOf(1) }], 'before the gateway knows its end')
  t.same(table.announce(payment(7), { result: 'failed', settled: true }), [{ kind: 'ack', ack: { id: idOf(7), result: 'duplicate', was: 'failed' } }], 'of an earlier life')
})

t.test('a full queue owes `received` until it moves; one more is refused', async t => {
  const table = openTable()
  for (let n = 0; n <= POLICY.queueMax; n++) table.announce(payment(n + 1))
  t.equal(acks(table.effects).length, POLICY.queueMax + 1, 'one sounds, queueMax wait')
  table.effects = []
  table.announce(payment(50))
  table.announce(payment(50))
  t.same(table.effects, [], 'kept, not yet confirmed')
  table.announce(payment(51))
  t.same(finals(table.effects), [{ id: idOf(51), result: 'failed', reason: 'queue full', at: T0 }])
  table.effects = []
  table.end()
  table.wait(400)
  t.same(acks(table.effects), [{ id: idOf(50), result: 'received' }])
  t.equal(sounds(table.effects)[0]?.members.length, POLICY.queueMax + 1)
})

t.test('a sound that fails or never ends', async t => {
  const table = openTable()
  table.announce(payment(1))
  table.step({ kind: 'ended', token: 1, ok: false, reason: 'speaker fault' })
  t.match(finals(table.effects), [{ result: 'failed', reason: 'speaker fault' }])
  table.wait(400)
  table.announce(payment(2))
  t.same(finals(table.wait(29_999)), [])
  t.match(finals(table.wait(1)), [{ id: idOf(2), result: 'failed', reason: 'speaker timeout' }])
  t.same(table.step({ kind: 'ended', token: 2, ok: true, soundAt: T0, audioMs: 1 }), [], 'its late end changes nothing')
  table.announce(payment(3))
  t.same(said(table.wait(400)), ['payment 300'])
})

t.test('payments go before the prompts of the box, and prompts that became untrue are left out', async t => {
  const table = openTable()
  table.prompt('starting')
  table.prompt('connection-lost')
  table.prompt('connected')
  table.prompt('battery-low')
  table.prompt('battery-low')
  table.announce(payment(1))
  table.effects = []
  for (let turn = 0; turn < 5; turn++) {
    if (table.state.speaking !== null) table.end()
    table.wait(400)
  }
  t.same(said(table.effects), ['payment 100', 'connected', 'battery-low'])
})

t.test('a replay says each payment as a repeat, and its command ends with the last one', async t => {
  const table = openTable()
  const phrases: Phrase[] = [1, 2].map(n => ({ kind: 'payment', amountMinor: n * 100, currency: 'INR', language: 'HINDI' }))
  table.step({ kind: 'say', phrases, repeat: true, always: false, commandId: idOf(9) })
  table.end()
  t.same(table.effects.filter(effect => effect.kind === 'command-end'), [])
  table.wait(400)
  table.end()
  t.same(table.effects.at(-1), { kind: 'command-end', commandId: idOf(9), ok: true })
  t.same(sounds(table.effects).map(({ phrase, repeat, members }) => [phrase.amountMinor, repeat, members.length]), [[100, true, 0], [200, true, 0]])
  t.same(finals(table.effects), [], 'a repeat is no announcement')
})

t.test('the box itself may wait with so many sounds and no more', async t => {
  const table = openTable()
  table.announce(payment(1))
  for (let n = 0; n < OWN_WAITING_MAX; n++) table.prompt('no-payments', { commandId: idOf(100 + n) })
  t.same(table.effects.filter(effect => effect.kind === 'command-end'), [])
  t.same(table.prompt('no-payments', { commandId: idOf(999) }), [{ kind: 'command-end', commandId: idOf(999), ok: false, reason: 'queue full' }])
})

t.test('after stop the present sound ends well, and what waits stays open', async t => {
  const table = openTable()
  table.announce(payment(1))
  table.announce(payment(2))
  table.prompt('battery-low', { commandId: idOf(9) })
  t.same(table.step({ kind: 'stop' }), [{ kind: 'command-end', commandId: idOf(9), ok: false, reason: 'stopped' }])
  table.end()
  table.wait(1000)
  t.same(results(table.effects), ['1 spoken'])
  t.equal(wakeAt(table.state, table.policy), undefined)
})

t.test('any order and any repeats: each id sounds once and ends once', async t => {
  forSeeds(150, (rand, seed) => {
    const table = openTable({ queueMax: 1 + Math.floor(rand() * 6), summariseOver: Math.floor(rand() * 4) })
    const ended = new Map<string, Known>()
    const sounded = new Map<string, number>()
    const note = (effects: readonly Effect[]): void => {
      for (const sound of sounds(effects)) for (const { id } of sound.members) sounded.set(id, (sounded.get(id) ?? 0) + 1)
      for (const { id, result } of finals(effects)) {
        if (ended.has(id)) t.fail(`SEED=${seed} ${id} ended twice`)
        ended.set(id, { result, settled: rand() < 0.5 })
      }
    }
    const asked = new Set<string>()
    for (let turn = 0; turn < 120; turn++) {
      const pick = rand()
      if (pick < 0.6) {
        const one = payment(1 + Math.floor(rand() * 30), { expiresAt: T0 + 1000 + Math.floor(rand() * 90_000) })
        asked.add(one.id)
        note(table.announce(one, ended.get(one.id)))
      } else if (pick < 0.7) note(table.prompt('battery-low'))
      else if (pick < 0.9 && table.state.speaking !== null) {
        note(rand() < 0.8 ? table.end(Math.floor(rand() * 3000)) : table.step({ kind: 'ended', token: table.state.token, ok: false, reason: 'speaker fault' }))
      } else note(table.wait(Math.floor(rand() * 1500)))
      if (table.state.waiting.filter(item => item.source === 'gateway').length > table.policy.queueMax + 1) t.fail(`SEED=${seed} the queue grows`)
    }
    while (table.state.speaking !== null || table.state.waiting.length > 0) note(table.state.speaking === null ? table.wait(400) : table.end())
    t.same([...asked].filter(id => !ended.has(id)), [], `SEED=${seed} every announcement ended`)
    t.same([...sounded].filter(([, times]) => times > 1), [], `SEED=${seed} nothing sounded twice`)
    for (const [id, { result }] of ended) t.equal(sounded.has(id), ['spoken', 'summarised'].includes(result) || (result === 'failed' && sounded.has(id)), `SEED=${seed} ${id} ${result}`)
  })
})

t.test('power losses at any moment: each id sounds at most once and ends once, as the journal tells', async t => {
  forSeeds(150, (rand, seed) => {
    const table = openTable({ queueMax: 8, summariseOver: Math.floor(rand() * 4) })
    const journal = new Map<string, Known | 'started'>()
    const sounded = new Map<string, number>()
    const note = (effects: readonly Effect[]): void => {
      for (const sound of sounds(effects)) {
        for (const { id } of sound.members) {
          sounded.set(id, (sounded.get(id) ?? 0) + 1)
          journal.set(id, 'started')
        }
      }
      for (const { id, result } of finals(effects)) {
        if (typeof journal.get(id) === 'object') t.fail(`SEED=${seed} ${id} ended twice`)
        journal.set(id, { result, settled: rand() < 0.5 })
      }
    }
    const announce = (n: number): void => {
      const known = journal.get(idOf(n))
      note(table.announce(payment(n), typeof known === 'object' ? known : undefined))
    }
    const loseThePower = (): void => {
      table.state = emptyPlayback()
      for (const [id, known] of journal) if (known === 'started') journal.set(id, { result: 'failed', settled: false })
    }
    const turns = 80
    for (let turn = 0; turn < turns; turn++) {
      const pick = rand()
      if (pick < 0.5) announce(1 + Math.floor(rand() * 20))
      else if (pick < 0.6) loseThePower()
      else note(pick < 0.8 && table.state.speaking !== null ? table.end(Math.floor(rand() * 400)) : table.wait(Math.floor(rand() * 600)))
    }
    for (let n = 1; n <= 20; n++) announce(n) // The gateway sends again what is open.
    while (table.state.speaking !== null || table.state.waiting.length > 0) note(table.state.speaking === null ? table.wait(400) : table.end(100))
    for (let n = 1; n <= 20; n++) announce(n) // What a full queue refused has ended; the rest is known by now.
    t.same([...sounded].filter(([, times]) => times > 1), [], `SEED=${seed}`)
    t.same(Array.from({ length: 20 }, (_, index) => idOf(index + 1)).filter(id => typeof journal.get(id) !== 'object'), [], `SEED=${seed}`)
  })
})
