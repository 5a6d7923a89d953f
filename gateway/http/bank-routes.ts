// What a bank may do besides triggers, in the vendor's shapes: map its soundboxes and set their language. Credentials, encryption and
// errors are those of the trigger API.
//
//   POST /{base}/isu_soundbox/deviceMapping/mapDevice   {device_serial_no, vpa_id, device_type}
//   POST /{base}/isu_soundbox/lang/update_language      {tid, update_language}
//   GET  /{base}/isu_soundbox/lang/fetch_language       the languages there are
//   GET  /{base}/isu_soundbox/user_api/current_language/{tid}
import type {} from '@fastify/swagger'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isTid, LANGUAGES, parseLanguage, SoundboxError } from '../../protocol/index.js'
import type { Bank, Device, Directory } from '../store/directory.js'
import { asBank, type TriggerDeps } from '../trigger/handle-trigger.js'
import { sealAnswer, statusOf, triggerAnswer } from './trigger-answer.js'
import { requestOf, takeBodiesAsText } from './trigger-routes.js'

type Done = { statusDesc: string, data: object, repeated?: boolean }
type BankHandler = (bank: Bank, body: Record<string, unknown>, params: Record<string, string>) => Promise<Done> | Done
export type BankRouteDeps = Omit<TriggerDeps, 'announce'> & { directory: Directory, checkType: (type: string) => { type: string }, onDeviceChanged: (tid: string) => void }

/** Registers the four calls; encapsulated, so that their body parser is nobody else's. */
export async function bankRoutes (app: FastifyInstance, deps: BankRouteDeps): Promise<void> {
  takeBodiesAsText(app)
  const route = (method: 'GET' | 'POST', path: string, summary: string, handler: BankHandler): void => {
    const schema = { tags: ['bank'], summary }
    app.route({
      method, url: `/:base/isu_soundbox${path}`, schema, validatorCompiler: () => () => true, serializerCompiler: () => String,
      handler: (request, reply) => answer(deps, request, reply, handler)
    })
  }
  route('POST', '/deviceMapping/mapDevice', 'Let a merchant of the bank speak through a soundbox', (bank, body) => mapDevice(deps, bank, body))
  route('POST', '/lang/update_language', 'Set the language of a soundbox of the bank', async (bank, body) => {
    const device = ownDevice(deps.directory, bank, textOf(body, 'tid'))
    const language = parseLanguage(textOf(body, 'update_language'))
    await deps.directory.patchDevice(device.tid, { language })
    deps.onDeviceChanged(device.tid)
    return { statusDesc: 'Language updated successfully', data: { tid: device.tid, language } }
  })
  route('GET', '/lang/fetch_language', 'The languages there are', () => ({ statusDesc: 'Languages', data: { languages: LANGUAGES } }))
  route('GET', '/user_api/current_language/:tid', 'The language of a soundbox of the bank', (bank, _body, params) => {
    const device = ownDevice(deps.directory, bank, params['tid'] ?? '')
    return { statusDesc: 'Current language', data: { tid: device.tid, language: device.language } }
  })
}

async function answer (deps: BankRouteDeps, request: FastifyRequest, reply: FastifyReply, handler: BankHandler): Promise<FastifyReply> {
  const outcome = await asBank(deps, requestOf(request), async ({ bank, key, body }) => {
    const { statusDesc, data, repeated } = await handler(bank, body, request.params as Record<string, string>)
    const success = { status: repeated === true ? 1 : statusOf(bank, 0), message: repeated === true ? statusDesc : 'success', statusDesc, data }
    return { kind: 'done' as const, text: sealAnswer(bank, key, success) }
  })
  const { status, body, headers } = outcome.kind === 'done' ? { status: 200, body: outcome.text, headers: {} } : triggerAnswer(outcome)
  return reply.code(status).headers({ 'content-type': 'application/json; charset=utf-8', ...headers }).send(body)
}

async function mapDevice ({ directory, checkType }: BankRouteDeps, bank: Bank, body: Record<string, unknown>): Promise<Done> {
  const [tid, merchant, type] = [textOf(body, 'device_serial_no'), textOf(body, 'vpa_id'), textOf(body, 'device_type')]
  const device = directory.device(tid)
  const isOthers = directory.mappingsOf(tid).some(row => row.bankId !== bank.id)
  if (!isTid(tid) || device === undefined || isOthers) throw new SoundboxError('DEVICE_INACTIVE', 'Device is not available to this bank')
  if (checkType(type).type !== checkType(device.type).type) throw new SoundboxError('DEVICE_TYPE_INVALID', 'Invalid Device type')
  const outcome = await directory.map(bank.id, merchant, tid)
  const data = { device_serial_no: tid, vpa_id: merchant.toLowerCase(), device_type: device.type, mapping_status: 'mapped', device_status: device.status }
  return outcome === 'present' ? { statusDesc: 'Device-VPA Mapping already present.', data, repeated: true } : { statusDesc: 'Device mapped successfully', data }
}

/** A bank sees only boxes that one of its merchants speaks through; all others do not exist for it. */
function ownDevice (directory: Directory, bank: Bank, tid: string): Device {
  const device = directory.device(tid)
  if (device === undefined || !directory.mappingsOf(tid).some(row => row.bankId === bank.id)) throw new SoundboxError('DEVICE_INACTIVE', 'Device is not available to this bank')
  return device
}

function textOf (body: Record<string, unknown>, field: string): string {
  const value = Object.hasOwn(body, field) ? body[field] : undefined
  if (typeof value !== 'string' || value === '' || value.length > 128) throw new SoundboxError('FIELD_INVALID', `${field} is mandatory`)
  return value
}
