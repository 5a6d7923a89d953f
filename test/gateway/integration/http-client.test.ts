import t from 'tap'
import { BODY_TIMEOUT_MS, CONNECT_TIMEOUT_MS, HEADERS_TIMEOUT_MS, RESPONSE_BYTES_MAX, TOTAL_TIMEOUT_MS } from '../../../gateway/integration/figures.js'
import type { Lookup } from '../../../gateway/integration/http-wire.js'
import { AUDIT_LINGER_MS, AUDIT_RETRY_MS, verifyAudit } from '../../../gateway/integration/audit.js'
import { AUDIT_KEY, KEPT, openWorld, over } from '../../support/integration-world.js'
import { settled, until } from '../../support/manual-clock.js'
import type { Step } from '../../support/provider-double.js'
import { freePort } from '../../support/free-port.js'

const OK: Step = { do: 'answer', json: { code: 600, balance: '19.00' } }

t.test('a call goes through the uri_map with headers, and its row is masked', async t => {
  const { world, double } = await over(t, { '/balance': [OK], '/accounts/0150245000100': [{ do: 'answer', type: 'text/xml',
    text: '<x:answer xmlns:x="u"><x:name>ASHA</x:name><x:cif>00450</x:cif></x:answer>' }] },
    { HEADER_X_API_KEY: 'key-secret', USER: 'u', PASSWORD: 'password-secret' })
  t.match(await world.balance(), { ledger: '19.00' })
  t.match(await world.details(), { name: 'ASHA', cif: '00450' })
  t.match(double.seen[0], { method: 'POST', path: '/balance', body: '{"account":"0150245000100","pin":"pin-43","note":"note-for-nobody"}',
    headers: { 'x-api-key': 'key-secret', 'content-type': 'application/json', accept: 'application/json' } })
  t.match(double.seen[1], { method: 'GET', path: '/accounts/0150245000100?page=1&token=query-secret',
    headers: { authorization: `Basic ${Buffer.from('u:password-secret').toString('base64')}` } })
  const [first, second] = await world.rows()
  t.match(first, { seq: 1, traceId: 'a'.repeat(32), actor: 'token1', issuer: 'cbs', service: 'account_balance_cbs', uriKey: 'balance', method: 'POST', status: 200,
    attempt: 1, outcome: 'ok', error: null })
  t.equal(first?.request, '{"account":"*********0100","pin":"[hidden]"}')
  t.equal(first?.response, '{"code":600,"balance":"19.00"}')
  t.equal(second?.url, `${double.url}/accounts/{account}?page=1&token=[hidden]`)
  t.notMatch(JSON.stringify([world.store.rows, world.log.lines]), /key-secret|password-secret|query-secret|0150245000100|note-for-nobody|pin-43|ASHA/)
})

t.test('success is what the provider says: an error inside HTTP 200 is a refusal and is not tried again', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'answer', json: { code: 611, message: '4111111111111111' } }] })
  await t.rejects(world.balance(), { code: 'PROVIDER_REJECTED', message: /611: refused by the bank/ })
  t.equal(double.seen.length, 1)
  t.match(await world.rows(), [{ outcome: 'rejected', status: 200 }])
  t.equal(world.policy.health().breakers[new URL(double.url).host], 'closed')
})

t.test('4xx is never tried again but 408, 425 and 429; 5xx is; three attempts are the most', async t => {
  const statuses: [number, number, string][] = [
    [400, 1, 'PROVIDER_REJECTED'], [401, 1, 'PROVIDER_CONFIG'], [403, 1, 'PROVIDER_CONFIG'], [404, 1, 'PROVIDER_REJECTED'], [409, 1, 'PROVIDER_REJECTED'],
      [422, 1, 'PROVIDER_REJECTED'],
    [408, 3, 'PROVIDER_UNAVAILABLE'], [425, 3, 'PROVIDER_UNAVAILABLE'], [429, 3, 'PROVIDER_UNAVAILABLE'], [500, 3, 'PROVIDER_UNAVAILABLE'], [502, 3, 'PROVIDER_UNAVAILABLE'],
      [503, 3, 'PROVIDER_UNAVAILABLE']
  ]
  for (const [status, attempts, code] of statuses) {
    const { world, double } = await over(t, { '/balance': [{ do: 'answer', status, text: 'no' }] }, {}, { random: () => 0 })
    const call = world.balance()
    call.catch(() => {})
    for (let turn = 1; turn < attempts; turn++) {
      await until(() => world.attempts() >= turn, `attempt ${turn} of ${status}`)
      world.clock.advance(0)
    }
    await t.rejects(call, { code }, String(status))
    t.equal(double.seen.length, attempts, `${status}: attempts`)
    t.same((await world.rows()).map(row => row.attempt), Array.from({ length: attempts }, (_, index) => index + 1), `${status}: one row an attempt`)
  }
})

t.test('the wait before an attempt is the jitter of its turn', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'answer', status: 500 }, { do: 'answer', status: 500 }, OK] }, {}, { random: () => 0.5 })
  const call = world.balance()
  await until(() => world.attempts() === 1, 'the first attempt')
  t.ok(world.clock.waiting().includes(50), 'half of 100 ms')
  world.clock.advance(49)
  await settled()
  t.equal(double.seen.length, 1)
  world.clock.advance(1)
  await until(() => world.attempts() === 2, 'the second attempt')
  t.ok(world.clock.waiting().includes(100), 'half of 200 ms')
  world.clock.advance(100)
  t.match(await call, { ledger: '19.00' })
})

t.test('Retry-After is waited for, and not begun when it ends beyond the deadline', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'answer', status: 429, headers: { 'retry-after': '3' } }, OK],
    '/statement': [{ do: 'answer', status: 503, headers: { 'retry-after': '8' } }] })
  const call = world.balance()
  await until(() => world.attempts() === 1, 'the first attempt')
  world.clock.advance(2999)
  await settled()
  t.equal(double.seen.length, 1)
  world.clock.advance(1)
  t.match(await call, { ledger: '19.00' })
  await t.rejects(world.change(), { code: 'PROVIDER_UNAVAILABLE' }, 'eight seconds are the whole deadline')
  t.equal(double.seen.length, 3)
})

t.test('a call that changes something is tried again only when nothing left or the provider said later', async t => {
  const unknown: [Step, string][] = [
    [{ do: 'reset' }, 'reset'], [{ do: 'reset-mid-body', length: 50, text: '{"co' }, 'reset in the body'], [{ do: 'answer', status: 500 }, '500'],
      [{ do: 'answer', status: 502 }, '502'],
    [{ do: 'answer', status: 503 }, '503 without Retry-After'], [{ do: 'answer', status: 408 }, '408'], [{ do: 'answer', type: 'application/json', text: '{"code":' }, 'no JSON'],
    [{ do: 'answer', json: { code: 600 } }, 'an answer without its field'], [{ do: 'garbage', text: 'SSH-2.0-x\r\n' }, 'no HTTP'],
      [{ do: 'huge', bytes: RESPONSE_BYTES_MAX + 1, announced: true }, 'too long'],
    [{ do: 'answer', status: 302, headers: { location: 'http://127.0.0.1/' } }, 'redirect']
  ]
  for (const [step, why] of unknown) {
    const { world, double } = await over(t, { '/statement': [step, OK] })
    await t.rejects(world.change(), { code: 'PROVIDER_STATE_UNKNOWN' }, why)
    t.equal(double.seen.length, 1, `${why}: sent once`)
  }
  for (const [status, retryAfter, sent] of [[429, '1', 2], [503, '1', 2], [429, undefined, 1]] as const) {
    const { world, double } = await over(t, { '/statement': [{ do: 'answer', status, ...(retryAfter === undefined ? {} : { headers: { 'retry-after': retryAfter } }) }, OK] })
    const call = world.change().then(() => 'ok', (error: { code: string }) => error.code)
    await until(() => world.attempts() === 1, 'the first answer')
    world.clock.advance(1000)
    t.equal(await call, retryAfter === undefined ? 'PROVIDER_UNAVAILABLE' : 'ok', `${status} ${retryAfter}`)
    t.equal(double.seen.length, sent)
  }
  const { world } = await over(t, { '/statement': [{ do: 'answer', json: { code: 777 } }, OK] })
  const call = world.change()
  await until(() => world.attempts() === 1, 'the provider says later in the body')
  world.clock.advance(1000)
  t.match(await call, { opening: '19.00' })
})

t.test('nobody listens: nothing left, so even a changing call is tried three times', async t => {
  const port = await freePort()
  const world = await openWorld({ URL: `http://127.0.0.1:${port}` }, { random: () => 0 })
  t.teardown(world.close)
  const call = world.change()
  call.catch(() => {})
  for (const turn of [1, 2]) {
    await until(() => world.attempts() >= turn, `attempt ${turn}`)
    world.clock.advance(0)
  }
  await t.rejects(call, { code: 'PROVIDER_UNAVAILABLE', message: /ECONNREFUSED/ })
  t.match(await world.rows(), [{ outcome: 'connect', attempt: 1 }, { outcome: 'connect', attempt: 2 }, { outcome: 'connect', attempt: 3 }])
})

t.test('headers within 5 s, the whole body within 5 s, everything within 8 s', async t => {
  await t.test('silence after the request', async t => {
    const { world, double } = await over(t, { '/statement': [{ do: 'silence' }] })
    const call = world.change()
    await until(() => double.seen.length === 1, 'the request')
    world.clock.advance(HEADERS_TIMEOUT_MS - 1)
    await settled()
    t.equal(world.attempts(), 0, 'one millisecond early')
    world.clock.advance(1)
    await t.rejects(call, { code: 'PROVIDER_STATE_UNKNOWN', message: /headers of the answer took longer than 5000 ms/ })
  })
  await t.test('a body that drips is not kept alive by its drops', async t => {
    const { world, double } = await over(t, { '/statement': [{ do: 'drip', byte: ' ' }] }, { HEADERS_TIMEOUT_MS: '6000', TIMEOUT_MS: '60000' })
    const call = world.change()
    call.catch(() => {})
    await until(() => double.seen.length === 1, 'the request')
    let elapsedMs = 0
    while (world.attempts() === 0 && elapsedMs < 50_000) {
      world.clock.advance(100)
      elapsedMs += 100
      double.drip()
      await new Promise(resolve => { setTimeout(resolve, 2) })
    }
    await t.rejects(call, { code: 'PROVIDER_STATE_UNKNOWN', message: /body of the answer took longer than 5000 ms/ })
    t.ok(elapsedMs >= BODY_TIMEOUT_MS && elapsedMs < 2 * BODY_TIMEOUT_MS, `${elapsedMs} ms`)
  })
  await t.test('an idempotent call that is silent twice ends at 8 s, in its second attempt', async t => {
    const { world, double } = await over(t, { '/balance': [{ do: 'silence' }] }, {}, { random: () => 0 })
    const call = world.balance()
    call.catch(() => {})
    await until(() => double.seen.length === 1, 'the first request')
    world.clock.advance(HEADERS_TIMEOUT_MS)
    await until(() => world.attempts() === 1, 'the first row')
    world.clock.advance(0)
    await until(() => double.seen.length === 2, 'the second request')
    world.clock.advance(TOTAL_TIMEOUT_MS - HEADERS_TIMEOUT_MS - 1)
    await settled()
    t.equal(world.attempts(), 1)
    world.clock.advance(1)
    await t.rejects(call, { code: 'PROVIDER_TIMEOUT' })
    t.equal(double.seen.length, 2)
    t.same((await world.rows()).map(row => [row.outcome, row.latencyMs]), [['timeout', 5000], ['timeout', 3000]])
    t.same(world.clock.waiting(), [], 'no timer is left behind')
  })
  await t.test('a row of the uri_map may be more impatient', async t => {
    const { world, double } = await over(t, { '/balance': [{ do: 'silence' }, OK] },
      { URI_MAP: '{"balance":{"method":"POST","path":"/balance","idempotent":true,"timeoutMs":900}}' }, { random: () => 0 })
    const call = world.balance()
    await until(() => double.seen.length === 1, 'the request')
    world.clock.advance(900)
    await until(() => world.attempts() === 1, 'the row')
    world.clock.advance(0)
    t.match(await call, { ledger: '19.00' })
  })
})

t.test('a host that does not finish the handshake gets 2 s, and that is safe to try again', async t => {
  const lookup: Lookup = () => {} // DNS that never answers stands for every way of not connecting.
  const world = await openWorld({ URL: 'https://slow.example' }, { random: () => 0, deps: { lookup } })
  t.teardown(world.close)
  const call = world.change()
  call.catch(() => {})
  for (const turn of [1, 2, 3]) {
    await until(() => world.clock.waiting().includes(CONNECT_TIMEOUT_MS), `attempt ${turn} connects`)
    world.clock.advance(CONNECT_TIMEOUT_MS - 1)
    await settled()
    t.equal(world.attempts(), turn - 1)
    world.clock.advance(1)
    await until(() => world.attempts() === turn, `row ${turn}`)
    world.clock.advance(0)
  }
  await t.rejects(call, { code: 'PROVIDER_UNAVAILABLE', message: /connecting took longer than 2000 ms/ })
})

t.test('answers are bounded, whether they say their length or not', async t => {
  for (const [step, why] of [[{ do: 'huge', bytes: 2048, announced: true }, 'announced'],
    [{ do: 'huge', bytes: 2 * RESPONSE_BYTES_MAX, announced: false }, 'not announced']] as const) {
    const { world } = await over(t, { '/balance': [step] }, { RESPONSE_BYTES_MAX: '1024' })
    await t.rejects(world.balance(), { code: 'PROVIDER_RESPONSE_INVALID', message: /longer than 1024 bytes/ }, why)
  }
  const body = (length: number): string => `{"code":600,"balance":"19.00"${' '.repeat(length - 30)}}`
  for (const [length, fits] of [[1024, true], [1025, false]] as const) {
    const { world } = await over(t, { '/balance': [{ do: 'answer', type: 'application/json', text: body(length) }] }, { RESPONSE_BYTES_MAX: '1024' })
    if (fits) t.match(await world.balance(), { ledger: '19.00' }, `${length} bytes`)
    else await t.rejects(world.balance(), { code: 'PROVIDER_RESPONSE_INVALID' }, `${length} bytes`)
  }
})

t.test('an XML bomb from a provider is refused and does no harm', async t => {
  const { world } = await over(t, { '/accounts/0150245000100': [{ do: 'answer', type: 'application/xml',
    text: `<!DOCTYPE a [${'<!ENTITY a "ha">'.repeat(10)}]><answer><name>&a;</name></answer>` }] })
  await t.rejects(world.details(), { code: 'PROVIDER_RESPONSE_INVALID', message: /DOCTYPE/ })
})

t.test('ten failures open the breaker for everyone, one probe closes it', async t => {
  const failing: Step[] = Array.from({ length: 11 }, () => ({ do: 'answer', status: 500 }))
  const { world, double } = await over(t, { '/balance': [...failing, OK] }, { ATTEMPTS_MAX: '1' })
  for (let call = 1; call <= 10; call++) await t.rejects(world.balance(), { code: 'PROVIDER_UNAVAILABLE', message: /HTTP 500/ })
  const host = new URL(double.url).host
  t.equal(world.policy.health().breakers[host], 'open')
  await t.rejects(world.balance(), { code: 'PROVIDER_UNAVAILABLE', message: /circuit breaker .* is open, nothing was sent/ })
  t.equal(double.seen.length, 10)
  world.clock.advance(10_000)
  await t.rejects(world.balance(), { message: /HTTP 500/ }, 'the probe fails')
  t.equal(world.policy.health().breakers[host], 'open')
  world.clock.advance(10_000)
  t.match(await world.balance(), { ledger: '19.00' })
  t.equal(world.policy.health().breakers[host], 'closed')
  t.equal(double.seen.length, 12)
})

t.test('an open breaker ends the retries of a call: every attempt asks and counts', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'answer', status: 500 }] }, {}, { random: () => 0 })
  const codes: string[] = []
  for (let call = 1; call <= 4; call++) {
    const running = world.balance().catch((error: { message: string }) => { codes.push(/breaker/.test(error.message) ? 'breaker' : '500') })
    const before = world.attempts()
    for (const turn of [1, 2]) {
      await until(() => world.attempts() >= Math.min(10, before + turn), `attempt ${turn} of call ${call}`)
      world.clock.advance(0)
      await settled()
    }
    await running
  }
  t.same(codes, ['500', '500', '500', 'breaker'])
  t.equal(double.seen.length, 10, 'the tenth failure was the first attempt of the fourth call')
})

t.test('sixteen run, thirty-two wait, the next is refused; a slow issuer holds nobody else', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'silence' }] })
  const other = await over(t, { '/balance': [OK] })
  const calls = Array.from({ length: 48 }, () => world.balance().then(() => 'ok', (error: { code: string }) => error.code))
  await until(() => double.seen.length === 16, 'sixteen requests')
  t.match(world.policy.health(), { active: 16, waiting: 32 })
  await t.rejects(world.balance(), { code: 'PROVIDER_BUSY' })
  t.match(await other.world.balance(), { ledger: '19.00' })
  t.equal(double.seen.length, 16)
  world.clock.advance(TOTAL_TIMEOUT_MS)
  const codes = await Promise.all(calls)
  t.equal(codes.filter(code => code === 'PROVIDER_TIMEOUT').length, 16)
  t.equal(codes.filter(code => code === 'PROVIDER_BUSY').length, 32, 'those that waited in vain sent nothing')
  t.match(world.policy.health(), { active: 0, waiting: 0 })
  t.equal((await world.rows()).length, 16)
})

t.test('a caller who goes away ends its attempt; after a change that is an unknown state', async t => {
  const { world, double } = await over(t, { '/balance': [{ do: 'silence' }], '/statement': [{ do: 'silence' }] })
  for (const [call, code] of [['balance', 'PROVIDER_UNAVAILABLE'], ['change', 'PROVIDER_STATE_UNKNOWN']] as const) {
    const gone = new AbortController()
    const running = world[call]({ signal: gone.signal })
    const before = double.seen.length
    await until(() => double.seen.length === before + 1, 'the request')
    gone.abort()
    await t.rejects(running, { code, message: /caller went away/ })
  }
  await t.rejects(world.balance({ signal: AbortSignal.abort() }), { code: 'PROVIDER_UNAVAILABLE' }, 'gone before it began')
  t.equal(world.policy.health().breakers[new URL(double.url).host], 'closed')
})

t.test('audit rows that cannot be written stop new calls at the bound, and the chain is whole afterwards', async t => {
  const { world } = await over(t, { '/balance': [OK] })
  world.store.refuse = true
  await world.balance()
  const entry = { atMs: 0, traceId: '', actor: '', issuer: '', service: '', uriKey: '', method: '', url: '', status: null, latencyMs: 0, attempt: 1, outcome: 'ok',
    error: null, request: null, response: null }
  for (let row = 1; row < 9_999; row++) world.audit.record(entry)
  t.match(await world.balance(), { ledger: '19.00' }, 'the row that fills the queue')
  t.equal(world.audit.waiting(), 10_000)
  await t.rejects(world.balance(), { code: 'OVERLOADED' })
  world.clock.advance(AUDIT_LINGER_MS)
  await until(() => world.clock.waiting().includes(AUDIT_RETRY_MS), 'the store was tried')
  world.store.refuse = false
  world.clock.advance(AUDIT_RETRY_MS)
  t.equal((await world.rows()).length, 10_000)
  t.match(await world.balance(), { ledger: '19.00' })
  await world.audit.flush()
  t.match(await verifyAudit(world.store, AUDIT_KEY), { ok: true, rows: 10_001 })
})

t.test('after all of the above no secret, account, phone number, name or PAN stands in a row or a log line', async t => {
  t.ok(KEPT.rows.length > 10_000 && KEPT.lines.length > 10, `${KEPT.rows.length} rows and ${KEPT.lines.length} lines were kept`)
  const text = JSON.stringify([KEPT.rows.filter(row => row.service !== ''), KEPT.lines])
  for (const word of ['key-secret', 'password-secret', 'query-secret', 'account-secret', 'Bearer', 'Basic', '0150245000100', 'note-for-nobody', 'pin-43', 'ASHA',
    '4111111111111111']) {
    t.notOk(text.includes(word), word)
  }
  t.notMatch(text.replace(/"(?:hash|prevHash|traceId|atMs|latencyMs)":"?[0-9a-f]+"?/g, ''), /\d{13,19}/)
})
