// Switches on a whole gateway over loopback: a 0200 is heard in the shop, whatever the connection, the repeats and the reversals do.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { connectSwitch, makeCertificates, network, purchase, type RawSwitch, reversal } from '../support/raw-switch.js'
import { eventually, type Rig, startRig, tempDir, type TestBox } from '../support/rig.js'

type Test = Pick<typeof t, 'teardown'>
type World = { rig: Rig, box: TestBox, dir: string }
const MERCHANT = 'merchant0000001'

async function startWorld (t: Test, profile: object = {}, env: Record<string, string> = {}): Promise<World> {
  const dir = tempDir(t)
  const peers = { peers: [{ name: 'switch-a', bank: 'bank', addresses: ['127.0.0.1'], ...profile }] }
  writeFileSync(join(dir, 'peers.json'), JSON.stringify(peers))
  const rig = await startRig(t, { dir, env: { SOUNDBOX_ISO_PEERS_FILE: join(dir, 'peers.json'), ...env } })
  await rig.addBank()
  const box = await rig.connect(await rig.addBox('SB-0001', { merchant: MERCHANT }))
  return { rig, box, dir }
}

async function signedOn (t: Test, { rig }: World): Promise<RawSwitch> {
  const raw = await connectSwitch(t, { port: rig.gateway().ports.iso ?? 0 })
  await raw.signOn()
  return raw
}

t.test('a 0200 over TCP is spoken in the shop and answered 0210 with DE 39 = 00', async t => {
  const world = await startWorld(t)
  const raw = await signedOn(t, world)
  const answer = await raw.ask(purchase(42))
  t.match(answer, { mti: '0210', fields: { 4: '000000001900', 11: '000042', 37: '633400000042', 39: '00', 41: 'TERM0200', 42: 'MERCHANT0000001' } })
  await world.box.hasSpoken(1)
  t.match(world.box.spoken[0], { kind: 'payment', amountMinor: 1900, currency: 'INR', txnType: 'CARD' })
  const [row] = await eventually(() => world.rig.history(), rows => rows[0]?.deliveries[0]?.state === 'spoken')
  t.match(row, { bank: 'bank', transactionId: '633400000042-000042-TERM0200-1129131411', amount: '19.00', merchant: MERCHANT, status: 'success' })
})

t.test('the same over mutual TLS; a certificate of no peer and one of no authority get nothing', async t => {
  const dir = tempDir(t)
  const { ca, pairs, path } = makeCertificates(dir, ['gateway', 'switch.bank', 'SB-0001'])
  const world = await startWorld(t, { addresses: undefined, certificate: 'switch.bank' }, {
    SOUNDBOX_ISO_TLS_PORT: '0', SOUNDBOX_ISO_TLS_CERT_FILE: path('gateway.crt'), SOUNDBOX_ISO_TLS_KEY_FILE: path('gateway.key'), SOUNDBOX_ISO_TLS_CA_FILE: path('ca.crt')
  })
  const { iso, isoTls } = world.rig.gateway().ports
  t.equal(iso, null, 'no peer may come without TLS, so that door is shut')
  const raw = await connectSwitch(t, { port: isoTls ?? 0, tls: { ca, ...pairs['switch.bank'] } })
  await raw.signOn()
  t.match(await raw.ask(purchase(1)), { mti: '0210', fields: { 39: '00' } })
  await world.box.hasSpoken(1)
  for (const tls of [{ ca, ...pairs['SB-0001'] }, { ca }]) {
    const stranger = await connectSwitch(t, { port: isoTls ?? 0, tls }).catch(() => undefined)
    stranger?.send(network('001', 9))
    await stranger?.closed
    t.same(stranger?.got ?? [], [])
  }
})

t.test('an advice and its repeats are acknowledged each time and spoken once', async t => {
  const world = await startWorld(t)
  const raw = await signedOn(t, world)
  for (const mti of ['0220', '0221', '0221', '0200', '0201']) t.match(await raw.ask(purchase(7, {}, mti)), { mti: mti.startsWith('022') ? '0230' : '0210', fields: { 39: '00' } })
  const other = await signedOn(t, world)
  const answers = await Promise.all([raw.ask(purchase(7, {}, '0221')), other.ask(purchase(7, {}, '0221')), other.ask(purchase(8, { 3: '260000', 4: '000000000700' }, '0220'))])
  t.same(answers.map(answer => answer.fields['39']), ['00', '00', '00'])
  await world.box.hasSpoken(2)
  t.same(world.box.heard.map(({ amountMinor, txnType }) => [amountMinor, txnType]), [[1900, 'CARD'], [700, 'UPI']])
  t.equal((await world.rig.history()).length, 2)
})

t.test('what cannot be done is answered by the code of the error table, and an advice too', async t => {
  const world = await startWorld(t, { merchants: ['MERCHANT*', 'unmapped'], terminals: ['TERM*'] })
  const raw = await signedOn(t, world)
  await world.rig.client.call('POST', '/devices', { tid: 'SB-OFF', type: 'QS1' })
  await world.rig.client.call('POST', '/merchants/map', { bank: 'bank', merchant: 'merchant-off', tid: 'SB-OFF' })
  const rows: [Record<string, string>, string, string][] = [
    [{ 42: 'UNMAPPED       ' }, '03', 'a merchant without soundbox'],
    [{ 42: 'STRANGER       ' }, '03', 'a merchant that this peer may not name'],
    [{ 42: '               ' }, '30', 'no merchant'],
    [{ 42: 'MERCHANT-OFF   ' }, '58', 'only boxes that are not active'],
    [{ 41: 'ATM00001' }, '58', 'a terminal that this peer may not name'],
    [{ 3: '010000' }, '12', 'cash is no payment'],
    [{ 49: '840' }, '12', 'dollars cannot be worded'],
    [{ 4: '000000000000' }, '13', 'nothing'],
    [{ 4: '999999999999' }, '13', 'more than can be worded']
  ]
  for (const [index, [fields, code, why]] of rows.entries()) {
    for (const [offset, mti] of ['0200', '0220'].entries()) {
      const answer = await raw.ask(purchase(100 + index * 2 + offset, fields, mti))
      t.match(answer, { mti: mti === '0200' ? '0210' : '0230', fields: { 39: code } }, `${mti}: ${why}`)
    }
  }
  t.match(await raw.ask({ mti: '0100', fields: purchase(200).fields }), { mti: '0110', fields: { 39: '12' } }, 'an authorization is no payment')
  t.match(await raw.ask({ mti: '0300', fields: purchase(201).fields }), { mti: '0310', fields: { 39: '12' } })
  await raw.ask(purchase(202))
  t.match(await raw.ask(purchase(202, { 4: '000000009999' })), { fields: { 39: '94' } }, 'one name, another amount')
  t.equal((await world.rig.history()).length, 1)
})

t.test('a terminal that is one of the merchant\'s boxes speaks alone', async t => {
  const world = await startWorld(t)
  const second = await world.rig.connect(await world.rig.addBox('SB-0002', { merchant: MERCHANT }))
  const raw = await signedOn(t, world)
  await raw.ask(purchase(1, { 41: 'SB-0002 ', 4: '000000000200' }))
  await raw.ask(purchase(2, { 4: '000000000300' }))
  await second.hasSpoken(2)
  await world.box.hasSpoken(1)
  t.same(world.box.spoken.map(said => said.amountMinor), [300])
  t.same(second.spoken.map(said => said.amountMinor), [200, 300])
})

t.test('a reversal takes back what was not spoken yet, and what was spoken is said to be reversed', async t => {
  const world = await startWorld(t, { sayReversed: true })
  const raw = await signedOn(t, world)
  const spoken = purchase(1)
  await raw.ask(spoken)
  await world.box.hasSpoken(1)
  await eventually(() => world.rig.history(), rows => rows[0]?.deliveries[0]?.state === 'spoken')
  world.box.end()
  await eventually(() => world.rig.client.call('GET', '/status'), status => (status['broker'] as { connected: number }).connected === 0)
  const waiting = purchase(2)
  await raw.ask(waiting)
  t.match(await raw.ask(reversal(waiting, 3)), { mti: '0410', fields: { 39: '00' } })
  t.match(await raw.ask(reversal(spoken, 4, '0420')), { mti: '0430', fields: { 39: '00' } })
  t.match(await raw.ask(reversal(spoken, 4, '0421')), { mti: '0430', fields: { 39: '00' } }, 'its repeat')
  const back = await world.rig.connect({ ...await world.rig.client.call('POST', '/devices/SB-0001/rekey') } as never, { bootId: 'again' })
  await back.hasSpoken(1)
  await raw.ask(purchase(5, { 4: '000000000500' }))
  await back.hasSpoken(2)
  t.match(back.heard.map(({ kind, amountMinor }) => ({ kind, amountMinor })), [{ kind: 'reversed-payment', amountMinor: 1900 }, { kind: 'payment', amountMinor: 500 }])
  const rows = await world.rig.history()
  t.same(rows.filter(row => row.reversedAt !== null).map(row => row.transactionId.split('-')[1]).sort(), ['000001', '000002'])
})

t.test('a reversal that overtakes its payment keeps it silent, also after a restart', async t => {
  const world = await startWorld(t)
  const raw = await signedOn(t, world)
  const original = purchase(1)
  t.match(await raw.ask(reversal(original, 2, '0420')), { mti: '0430', fields: { 39: '00' } })
  t.match(await raw.ask(original), { mti: '0210', fields: { 39: '00' } })
  const poor = purchase(3, { 22: '031' })
  const { 22: _, ...fields } = reversal(poor, 4).fields
  t.match(await raw.ask({ mti: '0400', fields }), { fields: { 39: '00' } }, 'a reversal without the entry mode')
  await world.rig.restart()
  const again = await signedOn(t, world)
  t.match(await again.ask({ ...original, mti: '0201' }), { fields: { 39: '00' } })
  t.match(await again.ask(poor), { fields: { 39: '00' } })
  t.match(await again.ask({ ...poor, fields: { ...poor.fields, 4: '000000000001' } }), { fields: { 39: '94' } }, 'another amount under the name')
  await again.ask(purchase(5))
  const rows = await world.rig.history()
  t.equal(rows.length, 3)
  t.same(rows.filter(row => row.deliveries.length > 0).map(row => row.transactionId.split('-')[1]), ['000005'])
})

t.test('a reversal without DE 90 finds its payment by RRN, trace number and terminal; a partial one is refused', async t => {
  const world = await startWorld(t)
  const raw = await signedOn(t, world)
  await raw.ask(purchase(1))
  await raw.ask(purchase(1, { 41: 'TERM0200', 7: '1129131500', 4: '000000000100', 37: '633400000009' }))
  const { 90: _, ...fields } = reversal(purchase(1), 1).fields
  t.match(await raw.ask({ mti: '0400', fields: { ...fields, 95: `${'000000000900'.padEnd(42, '0')}` } }), { fields: { 39: '12' } }, 'a part of the amount')
  t.match(await raw.ask({ mti: '0400', fields: { ...fields, 90: '0'.repeat(42) } }), { mti: '0410', fields: { 39: '00' } })
  const rows = await world.rig.history()
  t.same(rows.map(row => [row.transactionId, row.reversedAt !== null]).sort(), [['633400000001-000001-TERM0200-1129131411', true], ['633400000009-000001-TERM0200-1129131500', false]])
})

t.test('a balance and a mini statement are answered, and nothing before the sign-on', async t => {
  const world = await startWorld(t)
  const raw = await connectSwitch(t, { port: world.rig.gateway().ports.iso ?? 0 })
  t.match(await raw.ask(purchase(1)), { mti: '0210', fields: { 39: '91' } })
  t.match(await raw.ask(network('301', 2)), { mti: '0810', fields: { 39: '00', 70: '301' } })
  await raw.signOn()
  const question = (stan: number, code: string, account: string) => purchase(stan, { 3: code, 4: '000000000000', 102: account })
  t.match(await raw.ask(question(3, '310000', '0150245000100')), { fields: { 39: '00', 54: '0001356C0000152000000002356C000015000000' } })
  const statement = await raw.ask({ ...question(4, '380000', '0150245000100'), mti: '0100' })
  t.match(statement, { mti: '0110', fields: { 39: '00', 125: /^\d{12}C0000001900007656789878EEQR PAYMENT/ } })
  t.match(await raw.ask(question(5, '310000', '99')), { fields: { 39: '12' } })
  t.match(await raw.ask(network('002', 6)), { fields: { 39: '00' } })
  t.match(await raw.ask(question(7, '310000', '0150245000100')), { fields: { 39: '91' } }, 'after the sign-off')
})
