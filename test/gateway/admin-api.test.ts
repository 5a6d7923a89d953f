// The operator's API: who may use it, what each route takes and refuses, and that no answer but the first ever shows a secret.
import { setMaxListeners } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Client, openClient } from '../../gateway/cli/client.js'
import { STOP_TIMEOUT_MS } from '../../gateway/http/server.js'
import { HISTORY_PAGE_MAX } from '../../gateway/store/contract.js'
import { LISTENERS_MAX } from '../../gateway/trigger/feed.js'
import { eventually, payment, type Rig, startRig } from '../support/rig.js'

async function overTcp (rig: Rig, path: string, token?: string, method = 'GET'): Promise<{ status: number, body: Record<string, unknown> }> {
  const response = await fetch(`${rig.url}/api/v1/admin${path}`, { method, ...(token === undefined ? {} : { headers: { authorization: token } }) })
  return { status: response.status, body: await response.json() as Record<string, unknown> }
}

function openBody (rig: Rig, path: string): Promise<{ status: number, text: string }> {
  return fetch(`${rig.url}${path}`).then(async response => ({ status: response.status, text: await response.text() }))
}

t.test('each route takes what is right and names what is wrong', async t => {
  const rig = await startRig(t)
  const token = readFileSync(join(rig.dir, 'operator.token'), 'utf8').trim()
  const { client } = rig
  const refuses = (method: string, path: string, body: object | undefined, code: string, why: string): Promise<unknown> =>
    t.rejects(client.call(method, path, body), { code }, why)

  for (const wrong of [undefined, '', 'Bearer', 'Bearer ', 'Bearer wrong', `Basic ${token}`, token, `Bearer ${token}x`, `Bearer  ${token}`]) {
    for (const path of ['/banks', '/status', '/history', '/tail', '/nothing']) {
      const answer = await overTcp(rig, path, wrong)
      t.ok(path === '/nothing' ? answer.status === 404 : answer.status === 401 && answer.body['error'] === 'UNAUTHORIZED', `${path} with ${JSON.stringify(wrong)}`)
    }
    rig.clock.advance(60_000) // An address that is wrong too often in a minute gets 429.
  }
  t.match(await overTcp(rig, '/banks', `Bearer ${token}`), { status: 200, body: { banks: [] } })
  t.match(await overTcp(rig, '/banks', 'Bearer wrong', 'POST'), { status: 401 })
  t.match(await client.call('GET', '/banks'), { banks: [] }, 'the socket needs no token')
  t.equal(statSync(join(rig.dir, 'gateway.sock')).mode & 0o777, 0o600)
  const remote: Client = openClient({ url: new URL(rig.url), token })
  t.ok(await remote.call('GET', '/status'))
  await t.rejects(openClient({ url: new URL(rig.url), token: 'wrong' }).stream('/tail', () => {}, new AbortController().signal), { code: 'UNAUTHORIZED' })

  const bank = await rig.addBank({ id: 'pnb', name: 'Punjab', ratePerSecond: 7 })
  t.same(Object.keys(bank).sort(), ['bank', 'base', 'clientId', 'clientSecret', 'headerKey', 'passKey', 'payloadKey', 'profile'])
  for (const [body, code, why] of [
    [{ id: 'pnb' }, 'ALREADY_EXISTS', 'the same id'], [{ id: 'pnb2', base: 'pnb' }, 'ALREADY_EXISTS', 'the same base'], [{ id: 'pnb3', passKey: bank.passKey }, 'ALREADY_EXISTS', 'the same pass_key'],
    [{}, 'INPUT_INVALID', 'no id'], [{ id: 'A B' }, 'INPUT_INVALID', 'id with a space'], [{ id: 'x' }, 'INPUT_INVALID', 'id too short'], [{ id: 'x'.repeat(33) }, 'INPUT_INVALID', 'id too long'],
    [{ id: 'ok', base: '../etc' }, 'INPUT_INVALID', 'base with a slash'], [{ id: 'ok', profile: 'des' }, 'INPUT_INVALID', 'profile'],
    [{ id: 'ok', profle: 'none' }, 'INPUT_INVALID', 'a mistyped member'],
    [{ id: 'ok', database: 'false' }, 'INPUT_INVALID', 'a text for a truth value'], [{ id: 'ok', ratePerSecond: 0 }, 'INPUT_INVALID', 'rate'],
    [{ id: 'ok', ratePerSecond: null }, 'INPUT_INVALID', 'a null'],
    [{ id: 'ok', passKey: 'short' }, 'INPUT_INVALID', 'pass_key'], [{ id: 'ok', fieldNames: { colum1: 'x' } }, 'INPUT_INVALID', 'a mistyped column'],
    [{ id: 'ok', fieldNames: { column1: 'column2' } }, 'INPUT_INVALID', 'two columns under one name'],
    [{ id: 'ok', fieldNames: { column1: 'same', column8: 'same' } }, 'INPUT_INVALID', 'two columns renamed alike']
  ] as const) await refuses('POST', '/banks', body, code, why)
  await t.rejects(client.call('POST', '/banks', { id: 'ok', profle: 'none' }), { message: /not known: profle/ }, 'the mistyped member is named')
  const both = await Promise.allSettled([client.call('POST', '/banks', { id: 'twin' }), client.call('POST', '/banks', { id: 'twin' })])
  t.same(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], 'two at once: one is the first')

  const box = await client.call('POST', '/devices', { tid: 'SB-0001', type: 'QS1', language: 'hindi', volume: 70 })
  t.same(Object.keys(box).sort(), ['mqttPassword', 'mqttUsername', 'signingKey', 'tid', 'type'])
  for (const [body, code, why] of [
    [{ tid: 'SB-0001', type: 'QS1' }, 'ALREADY_EXISTS', 'the same tid'], [{ tid: 'x', type: 'QS1' }, 'INPUT_INVALID', 'tid too short'],
    [{ tid: 'a/b/c', type: 'QS1' }, 'INPUT_INVALID', 'tid with slashes'],
    [{ tid: 'SB-0002' }, 'INPUT_INVALID', 'no type'], [{ tid: 'SB-0002', type: 'nothing' }, 'DEVICE_TYPE_INVALID', 'unknown type'],
    [{ tid: 'SB-0002', type: 'QS1', language: 'KLINGON' }, 'LANGUAGE_UNKNOWN', 'language'],
    [{ tid: 'SB-0002', type: 'QS1', volume: 101 }, 'INPUT_INVALID', 'volume'], [{ tid: 'SB-0002', type: 'QS1', volume: null }, 'INPUT_INVALID', 'a null is no volume'],
    [{ tid: 'SB-0002', type: 'QS1', quietHours: { startMinute: 1440, endMinute: 0, utcOffsetMinutes: 0 } }, 'INPUT_INVALID', 'quiet hours']
  ] as const) await refuses('POST', '/devices', body, code, why)
  t.match(await client.call('PATCH', '/devices/SB-0001', { volume: 0, language: 'tamil', display: 'Namaste', quietHours: { startMinute: 1320, endMinute: 360, utcOffsetMinutes: 330 } }),
    { volume: 0, language: 'TAMIL', display: 'Namaste', quietHours: { startMinute: 1320 }, desiredVersion: 2 })
  t.match(await client.call('PATCH', '/devices/SB-0001', { display: null, quietHours: null }), { display: null, quietHours: null, desiredVersion: 3 })
  await refuses('PATCH', '/devices/SB-0001', { volum: 5 }, 'INPUT_INVALID', 'a mistyped setting')
  await refuses('PATCH', '/devices/NOBODY', { volume: 5 }, 'NOT_FOUND', 'nobody')
  t.match(await client.call('POST', '/devices/SB-0001/activate'), { status: 'active', activatedAt: /^\d{4}-/ })
  t.match(await client.call('POST', '/devices/SB-0001/deactivate'), { status: 'inactive', deactivatedAt: /^\d{4}-/ })
  for (const action of ['activate', 'deactivate', 'rekey']) await refuses('POST', `/devices/NOBODY/${action}`, undefined, 'NOT_FOUND', action)
  await refuses('POST', '/devices/SB-0001/commands', { name: 'reboot' }, 'DEVICE_OFFLINE', 'a box that is away')
  await refuses('POST', '/devices/SB-0001/commands', { name: 'explode' }, 'INPUT_INVALID', 'no such command')
  await refuses('POST', '/devices/SB-0001/say', undefined, 'DEVICE_OFFLINE', 'a body that was left out')
  t.not((await client.call('POST', '/devices/SB-0001/rekey'))['signingKey'], box['signingKey'])

  t.match(await client.call('POST', '/merchants/map', { bank: 'pnb', merchant: 'Shop@ISU', tid: 'SB-0001' }), { outcome: 'mapped' })
  t.match(await client.call('POST', '/merchants/map', { bank: 'pnb', merchant: 'shop@isu', tid: 'SB-0001' }), { outcome: 'present', message: 'Device-VPA Mapping already present.' })
  t.match(await client.call('GET', '/merchants'), { mappings: [{ bankId: 'pnb', merchant: 'shop@isu', tid: 'SB-0001' }] })
  await rig.addBank({ id: 'blind', database: false })
  for (const [body, code, why] of [
    [{ bank: 'nobody', merchant: 'a', tid: 'SB-0001' }, 'NOT_FOUND', 'no bank'], [{ bank: 'pnb', merchant: 'a', tid: 'NOBODY' }, 'NOT_FOUND', 'no box'],
    [{ bank: 'pnb', tid: 'SB-0001' }, 'INPUT_INVALID', 'no merchant'],
    [{ bank: 'pnb', merchant: '', tid: 'SB-0001' }, 'INPUT_INVALID', 'an empty merchant of a bank with database'],
    [{ bank: 'pnb', merchant: 'a b', tid: 'SB-0001' }, 'INPUT_INVALID', 'no trigger can name it'],
    [{ bank: 'blind', merchant: 'a', tid: 'SB-0001' }, 'INPUT_INVALID', 'a merchant of a bank without']
  ] as const) await refuses('POST', '/merchants/map', body, code, why)
  t.match(await client.call('POST', '/merchants/unmap', { bank: 'pnb', merchant: 'SHOP@isu', tid: 'SB-0001' }), { outcome: 'unmapped' })
  await refuses('POST', '/merchants/unmap', { bank: 'pnb', merchant: 'shop@isu', tid: 'SB-0001' }, 'NOT_FOUND', 'it is gone')

  const rotated = await client.call('POST', '/banks/pnb/rotate-key', { overlapSeconds: 60 })
  t.not(rotated['clientSecret'], bank.clientSecret)
  await refuses('POST', '/banks/pnb/rotate-key', {}, 'ALREADY_EXISTS', 'a third live key')
  await refuses('POST', '/banks/pnb/rotate-key', { overlapSeconds: -1 }, 'INPUT_INVALID', 'overlap')
  rig.clock.advance(61_000)
  const last = await client.call('POST', '/banks/pnb/rotate-key')
  for (const action of ['rotate-key', 'disable', 'enable']) await refuses('POST', `/banks/nobody/${action}`, action === 'rotate-key' ? {} : undefined, 'NOT_FOUND', action)
  t.match(await client.call('POST', '/banks/pnb/disable'), { bank: 'pnb', disabled: true })

  await rig.restart()
  t.match(await client.call('GET', '/banks'), { banks: [{ id: 'blind' }, { id: 'pnb', disabledAt: /^\d{4}/, ratePerSecond: 7 }, { id: 'twin' }] })
  const lists = JSON.stringify(await Promise.all(['/banks', '/devices', '/devices/SB-0001', '/merchants', '/status'].map(path => client.call('GET', path))))
  for (const secret of [bank, rotated, last].flatMap(of => [of['clientSecret'], of['headerKey'], of['payloadKey']]).concat([box['mqttPassword'], box['signingKey'], token])) {
    t.notOk(lists.includes(String(secret)), 'no list shows a secret')
  }
  t.notMatch(lists, /sealed|hash/i, 'nor how it is kept')
  t.equal((await openBody(rig, '/healthz')).text, '{"status":"ok"}')
  t.match(await openBody(rig, '/readyz'), { status: 200, text: '{"ready":true,"why":[]}' })
  t.match((await openBody(rig, '/metrics')).text, /soundbox_stage_seconds/)
  t.equal((await openBody(rig, '/docs')).status, 200)
  const api = JSON.parse((await openBody(rig, '/docs/json')).text) as { paths: Record<string, unknown> }
  for (const path of ['/api/v1/soundbox/trigger', '/{base}/isu_soundbox/txn/encr/trigger', '/api/v1/admin/banks', '/api/v1/admin/history']) t.ok(path in api.paths, path)
})

t.test('history is asked for by filters and pages, and the tail tells what happens until the gateway stops', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank()
  await rig.addBox('SB-0001')
  const events: Record<string, unknown>[] = []
  const token = readFileSync(join(rig.dir, 'operator.token'), 'utf8').trim()
  const tails = [openClient({ url: new URL(rig.url), token }), rig.client].map(client => client.stream('/tail', event => { events.push(event) }, new AbortController().signal))
  await eventually(() => events, found => found.filter(({ kind }) => kind === 'alive').length === 2)
  const start = new Date(rig.clock.nowMs()).toISOString()
  for (let n = 1; n <= 5; n++) {
    await rig.trigger(bank, payment(`T${n}`, `${n}.00`))
    rig.clock.advance(1000)
  }
  await rig.trigger(bank, { ...payment('F1'), column15: 'failed' })
  await eventually(() => events, found => found.filter(({ kind }) => kind === 'payment').length === 12)
  t.match(events.find(({ kind }) => kind === 'payment'), { bankId: 'bank', transactionId: 'T1', amount: '1.00', tids: ['SB-0001'] })

  const ids = async (query: string): Promise<string[]> => (await rig.history(query)).map(row => row.transactionId)
  t.same(await ids(''), ['F1', 'T5', 'T4', 'T3', 'T2', 'T1'])
  t.same(await ids('status=failed'), ['F1'])
  t.same(await ids('device=SB-0001&limit=2'), ['T5', 'T4'])
  t.same(await ids('transactionId=T3'), ['T3'])
  t.same(await ids('merchant=SHOP@upi&limit=1'), ['F1'])
  t.same(await ids('bank=other'), [])
  const third = (await rig.history('transactionId=T3'))[0]?.acceptedAt ?? ''
  t.same(await ids(`since=${third}`), ['F1', 'T5', 'T4', 'T3'], 'since is inclusive')
  t.same(await ids(`until=${third}&since=${start}`), ['T2', 'T1'], 'until is exclusive')
  const page = await rig.client.call('GET', '/history?limit=4')
  t.match(await rig.client.call('GET', `/history?limit=4&cursor=${String(page['next'])}`), { payments: [{ transactionId: 'T2' }, { transactionId: 'T1' }], next: null })
  for (const query of ['limit=0', `limit=${HISTORY_PAGE_MAX + 1}`, 'limit=x', 'since=yesterday', 'status=odd', 'cursor=%00', 'merchnt=x', `bank=${'x'.repeat(33)}`]) {
    await t.rejects(rig.client.call('GET', `/history?${query}`), { code: 'INPUT_INVALID' }, query)
  }
  t.ok(await rig.client.call('GET', `/history?limit=${HISTORY_PAGE_MAX}`))

  const more = new AbortController()
  setMaxListeners(LISTENERS_MAX, more.signal)
  const listeners = Array.from({ length: LISTENERS_MAX - 2 }, () => rig.client.stream('/tail', () => {}, more.signal))
  await eventually(() => rig.client.stream('/tail', () => {}, AbortSignal.timeout(50)).then(() => 'taken', (error: { code: string }) => error.code), found => found === 'OVERLOADED')
  more.abort()
  await Promise.all(listeners)
  const stopped = performance.now()
  await rig.restart()
  await Promise.all(tails)
  t.ok(performance.now() - stopped < STOP_TIMEOUT_MS, 'an open tail does not hold up the stop')
})
