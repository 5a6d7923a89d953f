import t from 'tap'
import { type Breaker, BREAKER_CALLS_MIN, BREAKER_OPEN_MS, BREAKER_POLICY, BREAKER_WINDOW_MS, CLOSED, stepBreaker } from '../../../gateway/breaker.js'
import { type Bulkhead, EMPTY, openBulkhead, stepBulkhead } from '../../../gateway/integration/bulkhead.js'
import { followSignal, openCancel } from '../../../gateway/integration/cancel.js'
import { BACKOFF_BASE_MS, BACKOFF_CAP_MS } from '../../../gateway/integration/figures.js'
import { blockedReason, findHostRule, isLoopbackLiteral, parseHostRule } from '../../../gateway/integration/hosts.js'
import { errorFromFault } from '../../../gateway/integration/policy.js'
import type { AttemptFault } from '../../../gateway/integration/provider.js'
import { stepRate } from '../../../gateway/integration/rate.js'
import { parseRetryAfter, planRetry, RETRY_AFTER_MS_MAX } from '../../../gateway/integration/retry.js'

const policy = { attemptsMax: 3, baseMs: BACKOFF_BASE_MS, capMs: BACKOFF_CAP_MS }
const lost: AttemptFault = { kind: 'reset', sent: true, final: false, message: 'x' }

t.test('back-off is full jitter: from zero up to base * 2^n, never above the cap', async t => {
  const wait = (attempt: number, random: number, attemptsMax = 12): number | undefined =>
    planRetry(lost, { attempt, idempotent: true, nowMs: 0, deadlineMs: 1e9, random }, { ...policy, attemptsMax })
  t.equal(wait(1, 0), 0)
  t.equal(wait(1, 0.999999), 99)
  t.equal(wait(2, 0.999999), 199)
  t.equal(wait(5, 0.999999), 1599)
  t.equal(wait(6, 0.999999), 1999, 'the cap of 2 s')
  t.equal(wait(11, 0.5), 1000)
})

t.test('a third attempt is the last, and no attempt starts at or after the deadline', async t => {
  const ask = (attempt: number, nowMs: number, deadlineMs: number): number | undefined => planRetry(lost, { attempt, idempotent: true, nowMs, deadlineMs, random: 0.5 }, policy)
  t.equal(ask(2, 0, 1e6), 100)
  t.equal(ask(3, 0, 1e6), undefined)
  t.equal(ask(1, 0, 51), 50)
  t.equal(ask(1, 0, 50), undefined)
})

t.test('what may be tried again depends on what left, on the row of the uri_map and on what the provider said', async t => {
  const rows: [Partial<AttemptFault>, boolean, boolean, string][] = [
    [{}, true, true, 'a broken wire, idempotent'], [{}, false, false, 'a broken wire, not idempotent'], [{ sent: false, kind: 'connect' }, false, true, 'not a byte left'],
    [{ kind: 'status', retryAfterMs: 0 }, false, true, '429 or 503 with Retry-After'], [{ kind: 'status', refused: true }, false, false, '429 without Retry-After, not idempotent'],
    [{ kind: 'status', refused: true }, true, true, '429 without Retry-After, idempotent'], [{ kind: 'tls', final: true, sent: false }, true, false, 'TLS'],
    [{ kind: 'auth', final: true }, true, false, 'credentials'], [{ kind: 'rejected', final: true, refused: true }, true, false, 'a refusal'],
    [{ kind: 'timeout' }, true, true, 'a time-out, idempotent'], [{ kind: 'timeout' }, false, false, 'a time-out, not idempotent']
  ]
  for (const [fault, idempotent, again, why] of rows) {
    t.equal(planRetry({ ...lost, ...fault }, { attempt: 1, idempotent, nowMs: 0, deadlineMs: 1e6, random: 0.5 }, policy) !== undefined, again, why)
  }
})

t.test('Retry-After is the least wait, in seconds or as a date, and no wait beyond the deadline is begun', async t => {
  const now = Date.parse('2026-01-05T10:00:00Z')
  t.equal(parseRetryAfter('2', now), 2000)
  t.equal(parseRetryAfter('0', now), 0)
  t.equal(parseRetryAfter('Mon, 05 Jan 2026 10:00:03 GMT', now), 3000)
  t.equal(parseRetryAfter('Mon, 05 Jan 2026 09:00:00 GMT', now), 0, 'past')
  t.equal(parseRetryAfter(String(RETRY_AFTER_MS_MAX / 1000), now), RETRY_AFTER_MS_MAX)
  t.equal(parseRetryAfter(String(RETRY_AFTER_MS_MAX / 1000 + 1), now), undefined)
  for (const odd of [undefined, '', 'soon', '-1', '1e3', '99999999999']) t.equal(parseRetryAfter(odd, now), undefined, String(odd))
  const later = { ...lost, kind: 'status' as const, retryAfterMs: 2000 }
  t.equal(planRetry(later, { attempt: 1, idempotent: false, nowMs: 0, deadlineMs: 8000, random: 0.9 }, policy), 2000)
  t.equal(planRetry(later, { attempt: 1, idempotent: false, nowMs: 6000, deadlineMs: 8000, random: 0.9 }, policy), undefined)
})

t.test('the breaker opens at half of ten calls within the window, not before', async t => {
  const run = (outcomes: readonly ('success' | 'failure')[], atMs = 0): Breaker => outcomes.reduce<Breaker>((state, kind) => stepBreaker(state, { kind, probe: false }, atMs,
    BREAKER_POLICY).next, CLOSED)
  const of = (bad: number, good: number): ('success' | 'failure')[] => [...Array<'success'>(good).fill('success'), ...Array<'failure'>(bad).fill('failure')]
  t.equal(run(of(9, 0)).state, 'closed', 'nine failures say nothing yet')
  t.equal(run(of(BREAKER_CALLS_MIN, 0)).state, 'open')
  t.equal(run(of(5, 5)).state, 'open', 'five of ten')
  t.equal(run(of(4, 6)).state, 'closed', 'four of ten')
  t.equal(run(of(9, 11)).state, 'closed', 'nine of twenty')
})

t.test('outcomes older than the window do not count', async t => {
  let state: Breaker = CLOSED
  for (let index = 0; index < 9; index++) state = stepBreaker(state, { kind: 'failure', probe: false }, 0, BREAKER_POLICY).next
  const inside = stepBreaker(state, { kind: 'failure', probe: false }, BREAKER_WINDOW_MS - 1, BREAKER_POLICY).next
  const outside = stepBreaker(state, { kind: 'failure', probe: false }, BREAKER_WINDOW_MS, BREAKER_POLICY).next
  t.equal(inside.state, 'open')
  t.equal(outside.state, 'closed')
  let long: Breaker = CLOSED
  for (let second = 0; second < 500; second++) long = stepBreaker(long, { kind: 'success', probe: false }, second * 1000, BREAKER_POLICY).next
  t.ok(long.state === 'closed' && long.buckets.length <= BREAKER_WINDOW_MS / 1000, 'buckets stay few')
})

t.test('an open breaker lets exactly one probe through after its time, and the probe decides', async t => {
  const open: Breaker = { state: 'open', untilMs: BREAKER_OPEN_MS }
  t.equal(stepBreaker(open, { kind: 'ask' }, BREAKER_OPEN_MS - 1, BREAKER_POLICY).admit, 'no')
  for (const kind of ['success', 'failure', 'cancel'] as const) t.same(stepBreaker(open, { kind, probe: false }, 1, BREAKER_POLICY).next, open, 'calls that were under way change nothing')
  const { next: half, admit } = stepBreaker(open, { kind: 'ask' }, BREAKER_OPEN_MS, BREAKER_POLICY)
  t.equal(admit, 'probe')
  t.equal(stepBreaker(half, { kind: 'ask' }, BREAKER_OPEN_MS + 1, BREAKER_POLICY).admit, 'no', 'the second waits')
  t.equal(stepBreaker(half, { kind: 'success', probe: false }, BREAKER_OPEN_MS, BREAKER_POLICY).next.state, 'half_open', 'a late answer of an earlier call does not close it')
  t.equal(stepBreaker(half, { kind: 'failure', probe: false }, BREAKER_OPEN_MS, BREAKER_POLICY).next.state, 'half_open')
  t.same(stepBreaker(half, { kind: 'success', probe: true }, BREAKER_OPEN_MS, BREAKER_POLICY).next, CLOSED)
  t.same(stepBreaker(half, { kind: 'failure', probe: true }, 50_000, BREAKER_POLICY).next, { state: 'open', untilMs: 50_000 + BREAKER_OPEN_MS })
  const given = stepBreaker(half, { kind: 'cancel', probe: true }, 50_000, BREAKER_POLICY).next
  t.equal(stepBreaker(given, { kind: 'ask' }, 50_000, BREAKER_POLICY).admit, 'probe', 'a probe that was given up is asked for again')
  t.same(stepBreaker(CLOSED, { kind: 'cancel', probe: false }, 0, BREAKER_POLICY).next, CLOSED)
})

t.test('the bulkhead admits activeMax, queues queueMax in order, and refuses one more', async t => {
  const limits = { activeMax: 2, queueMax: 2 }
  let state: Bulkhead = EMPTY
  const enter = (ticket: number): { admitted: number | undefined, refused: boolean } => {
    const step = stepBulkhead(state, { kind: 'enter', ticket }, limits)
    state = step.next
    return { admitted: step.admitted, refused: step.refused }
  }
  t.same(enter(1), { admitted: 1, refused: false })
  t.same(enter(2), { admitted: 2, refused: false })
  t.same(enter(3), { admitted: undefined, refused: false })
  t.same(enter(4), { admitted: undefined, refused: false })
  t.same(enter(5), { admitted: undefined, refused: true })
  state = stepBulkhead(state, { kind: 'abandon', ticket: 3 }, limits).next
  t.equal(stepBulkhead(state, { kind: 'leave' }, limits).admitted, 4, 'an abandoned ticket is not served')
  t.same(stepBulkhead({ active: 1, queue: [] }, { kind: 'leave' }, limits).next, EMPTY)
})

t.test('queued calls that are aborted do not starve the ones behind them', async t => {
  const bulkhead = openBulkhead('sms', { activeMax: 1, queueMax: 10 })
  const still = openCancel()
  const leave = await bulkhead.enter(still)
  const gone = [openCancel(), openCancel(), openCancel()]
  const aborted = gone.map(async cancel => t.equal(await bulkhead.enter(cancel), undefined))
  const order: number[] = []
  const waiting = [1, 2, 3].map(async number => {
    const done = await bulkhead.enter(still)
    order.push(number)
    done?.()
  })
  for (const cancel of gone) cancel.fire('caller gone')
  await Promise.all(aborted)
  leave?.()
  await Promise.all(waiting)
  t.same(order, [1, 2, 3])
  t.same(bulkhead.now(), EMPTY)
  const before = openCancel()
  before.fire('deadline')
  t.equal(await bulkhead.enter(before), undefined)
  t.same(bulkhead.now(), EMPTY, 'nothing is leaked')
})

t.test('a cancel fires once, tells everyone, and makes a signal only when one is asked for', async t => {
  const whole = openCancel()
  const own = openCancel(whole)
  const told: string[] = []
  const stop = own.onFire(reason => told.push(`first ${reason}`))
  own.onFire(reason => told.push(`second ${reason}`))
  const signal = own.signal()
  stop()
  whole.fire('deadline')
  own.fire('caller gone')
  t.same(told, ['second deadline'])
  t.ok(signal.aborted && signal === own.signal() && signal.reason === 'deadline')
  own.onFire(reason => told.push(`late ${reason}`))
  t.equal(told.at(-1), 'late deadline')
  t.ok(whole.signal().aborted, 'a signal made after the fact')
  const closed = openCancel(openCancel(whole))
  t.equal(closed.reason(), 'deadline', 'a child of one that has fired')
  const free = openCancel()
  const child = openCancel(free)
  child.close()
  free.fire('deadline')
  t.equal(child.reason(), undefined, 'closed: it has let go')
  const outside = new AbortController()
  const [follower, deaf] = [openCancel(), openCancel()]
  followSignal(follower, outside.signal)
  followSignal(deaf, outside.signal)?.()
  t.equal(followSignal(deaf, undefined), undefined)
  outside.abort()
  t.same([follower.reason(), deaf.reason()], ['caller gone', undefined])
})

t.test('a call that changes something is of unknown state exactly when it was sent and not refused', async t => {
  const code = (fault: Partial<AttemptFault>, idempotent: boolean): string => errorFromFault({ ...lost, ...fault }, 'sms', { idempotent, uriKey: 'send' }).code
  const rows: [Partial<AttemptFault>, string, string][] = [
    [{ kind: 'reset' }, 'PROVIDER_UNAVAILABLE', 'PROVIDER_STATE_UNKNOWN'], [{ kind: 'timeout' }, 'PROVIDER_TIMEOUT', 'PROVIDER_STATE_UNKNOWN'],
    [{ kind: 'invalid' }, 'PROVIDER_RESPONSE_INVALID', 'PROVIDER_STATE_UNKNOWN'], [{ kind: 'status' }, 'PROVIDER_UNAVAILABLE', 'PROVIDER_STATE_UNKNOWN'],
    [{ kind: 'status', refused: true }, 'PROVIDER_UNAVAILABLE', 'PROVIDER_UNAVAILABLE'], [{ kind: 'rejected', refused: true }, 'PROVIDER_REJECTED', 'PROVIDER_REJECTED'],
    [{ kind: 'connect', sent: false }, 'PROVIDER_UNAVAILABLE', 'PROVIDER_UNAVAILABLE'], [{ kind: 'timeout', sent: false }, 'PROVIDER_TIMEOUT', 'PROVIDER_TIMEOUT'],
    [{ kind: 'tls', sent: false }, 'PROVIDER_UNAVAILABLE', 'PROVIDER_UNAVAILABLE'], [{ kind: 'auth', sent: false }, 'PROVIDER_AUTH_MISSING', 'PROVIDER_AUTH_MISSING'],
    [{ kind: 'auth', refused: true }, 'PROVIDER_CONFIG', 'PROVIDER_CONFIG'], [{ kind: 'blocked', sent: false }, 'PROVIDER_CONFIG', 'PROVIDER_CONFIG'],
    [{ kind: 'aborted' }, 'PROVIDER_UNAVAILABLE', 'PROVIDER_STATE_UNKNOWN']
  ]
  for (const [fault, idempotent, changing] of rows) {
    t.equal(code(fault, true), idempotent, `${fault.kind} idempotent`)
    t.equal(code(fault, false), changing, `${fault.kind} changing`)
  }
})

t.test('addresses: link-local and metadata never, private only by name of the network, public always', async t => {
  const rule = (text: string): NonNullable<ReturnType<typeof parseHostRule>> => parseHostRule(text)!
  const named = rule('api.example.com:443')
  const inner = rule('cbs.bank.internal:8443@10.20.0.0/16')
  const rows: [ReturnType<typeof rule>, string, boolean, string][] = [
    [named, '41.59.1.2', true, 'public'], [named, '2606:4700::1', true, 'public IPv6'], [named, '10.20.1.1', false, 'private'],
      [named, '127.0.0.1', false, 'loopback behind a name'],
    [named, '::1', false, 'IPv6 loopback'], [named, '192.168.1.1', false, 'private'], [named, '172.31.255.255', false, 'private'], [named, '172.32.0.1', true, 'just outside'],
    [named, '100.64.0.1', false, 'carrier NAT'], [named, 'fd12::1', false, 'unique local'], [named, '169.254.169.254', false, 'metadata'],
      [named, 'fe80::1%eth0', false, 'link-local'],
    [named, '::ffff:169.254.169.254', false, 'metadata inside IPv6'], [named, '::ffff:a9fe:a9fe', false, 'the same in hexadecimal'],
      [named, '64:ff9b::a9fe:a9fe', false, 'the same behind NAT64'],
    [named, '::ffff:10.0.0.1', false, 'private inside IPv6'], [named, '0.0.0.0', false, 'unspecified'], [named, '224.0.0.1', false, 'multicast'],
      [named, 'fd00:ec2::254', false, 'metadata'],
    [named, '168.63.129.16', false, 'metadata'], [named, 'nonsense', false, 'no address'], [inner, '10.20.1.1', true, 'its network'],
      [inner, '10.21.1.1', false, 'another network'],
    [inner, '41.59.1.2', true, 'public'], [inner, '169.254.1.1', false, 'link-local'], [rule('127.0.0.1:4010'), '127.0.0.1', true, 'a literal on the list'],
    [rule('127.0.0.1:4010'), '127.0.0.2', false, 'another address'], [rule('169.254.169.254:80'), '169.254.169.254', false, 'never, even on the list'],
    [rule('cbs.internal:80@169.254.0.0/16'), '169.254.1.1', false, 'never, even as a network'], [rule('localhost:4010'), '127.0.0.1', true, 'localhost'],
    [rule('localhost:4010'), '10.0.0.1', false, 'localhost elsewhere'], [rule('[::1]:4010'), '::1', true, 'IPv6 literal']
  ]
  for (const [host, address, allowed, why] of rows) t.equal(blockedReason(host, address) === undefined, allowed, `${host.host} -> ${address}: ${why}`)
  for (const odd of ['', 'host', 'host:0', 'host:65536', 'ho st:1', 'host:1@10.0.0.0', 'host:1@10.0.0.0/33', 'host:1@x/8', 'http://host:1',
    '::1:80']) t.equal(parseHostRule(odd), undefined, odd)
  t.ok(parseHostRule('host:65535'))
  t.same(['127.0.0.1', '127.9.9.9', '[::1]', 'localhost', 'localhost.', '10.0.0.1', 'example.com'].map(isLoopbackLiteral), [true, true, true, true, true, false, false])
  t.ok(findHostRule([named], new URL('https://API.example.com./x')))
  t.equal(findHostRule([named], new URL('https://api.example.com:8443/')), undefined, 'another port')
  t.equal(findHostRule([named], new URL('https://api.example.com.evil.net/')), undefined, 'another host')
})

t.test('a token bucket lets the burst through, refuses the next and says when', async t => {
  const limit = { perMinute: 60, burst: 2 }
  const first = stepRate(undefined, 0, limit)
  const second = stepRate(first.next, 0, limit)
  const third = stepRate(second.next, 0, limit)
  t.same([first.waitS, second.waitS, third.waitS], [0, 0, 1])
  t.equal(stepRate(third.next, 999, limit).waitS, 1)
  t.equal(stepRate(third.next, 1000, limit).waitS, 0)
  t.equal(stepRate(first.next, 1e9, limit).next.left, 1, 'never above the burst')
  const back = stepRate(second.next, -5000, limit)
  t.equal(back.waitS, 1)
  t.equal(stepRate(back.next, 0, limit).waitS, 1, 'a clock that steps back and forth gives nothing')
})
