// The vendor's mapping and language calls, as a bank makes them.
import t from 'tap'
import { prepareTrigger } from '../../gateway/cli/bank-client.js'
import type { BankSecrets } from '../../gateway/store/directory.js'
import { openEnvelopeText, parseKey } from '../../protocol/index.js'
import { startRig } from '../support/rig.js'

t.test('a bank maps its boxes and sets their language, and no other bank sees them', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank({ id: 'mine' })
  const other = await rig.addBank({ id: 'other' })
  await rig.client.call('POST', '/devices', { tid: 'SB-0001', type: 'QS1' })
  const map = { device_serial_no: 'SB-0001', vpa_id: 'Shop@UPI', device_type: 'QS1' }

  t.match(await call(rig.url, bank, 'POST', 'deviceMapping/mapDevice', map), { http: 200, status: '0', statusDesc: 'Device mapped successfully', data: { vpa_id: 'shop@upi' } })
  t.match(await call(rig.url, bank, 'POST', 'deviceMapping/mapDevice', map), { http: 200, status: 1, message: 'Device-VPA Mapping already present.' })
  t.match(await call(rig.url, bank, 'POST', 'deviceMapping/mapDevice', { ...map, device_type: 'QS2' }), { http: 400, statusDesc: 'ERR0007 Invalid Device type' })
  t.match(await call(rig.url, bank, 'POST', 'deviceMapping/mapDevice', { ...map, device_type: 'nothing' }), { http: 400, statusDesc: /^ERR0007/ })
  t.match(await call(rig.url, bank, 'POST', 'deviceMapping/mapDevice', { ...map, vpa_id: '' }), { http: 400, statusDesc: 'vpa_id is mandatory' })
  t.match(await call(rig.url, other, 'POST', 'deviceMapping/mapDevice', map), { http: 400, statusDesc: /^ERR0002/ })

  t.match(await call(rig.url, bank, 'POST', 'lang/update_language', { tid: 'SB-0001', update_language: 'HINDI' }), { http: 200, data: { tid: 'SB-0001', language: 'HINDI' } })
  t.match(await call(rig.url, bank, 'GET', 'user_api/current_language/SB-0001'), { http: 200, data: { language: 'HINDI' } })
  t.match(await call(rig.url, bank, 'POST', 'lang/update_language', { tid: 'SB-0001', update_language: 'KLINGON' }), { http: 400 })
  t.match(await call(rig.url, bank, 'GET', 'lang/fetch_language'), { http: 200, data: { languages: /HINDI/ } })
  t.match(await call(rig.url, other, 'GET', 'user_api/current_language/SB-0001'), { http: 400, statusDesc: /^ERR0002/ })
  t.match(await call(rig.url, other, 'POST', 'lang/update_language', { tid: 'SB-0001', update_language: 'ENGLISH' }), { http: 400 })
  t.match(await call(rig.url, { ...bank, clientSecret: 'wrong' }, 'GET', 'lang/fetch_language'), { http: 401, statusDesc: 'Invalid credentials' })
  t.match(await call(rig.url, { ...bank, base: 'other' }, 'GET', 'lang/fetch_language'), { http: 400, statusDesc: /^ERR0008/ })
})

/** The HTTP status beside the opened answer. */
async function call (url: string, bank: BankSecrets, method: string, path: string, body: Record<string, string> = {}): Promise<Record<string, unknown>> {
  const prepared = prepareTrigger({ url, bank, columns: body, nowMs: Date.now() })
  const response = await fetch(`${url}/${bank.base}/isu_soundbox/${path}`, { method, headers: prepared.headers, ...(method === 'GET' ? {} : { body: prepared.body }) })
  const outer = await response.json() as Record<string, unknown>
  const key = parseKey(bank.payloadKey)
  const opened = typeof outer['ResponseData'] === 'string' && key !== undefined ? openEnvelopeText({ profile: 'aes-256-cbc', key, passKey: bank.passKey }, outer['ResponseData']) : undefined
  return { http: response.status, ...(opened === undefined ? outer : JSON.parse(opened) as Record<string, unknown>) }
}
