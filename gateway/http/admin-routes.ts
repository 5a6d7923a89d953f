// The technician's and operator's API: banks, soundboxes and which merchant speaks through which. The CLI is its first user.
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type Static, Type } from 'typebox'
import { isTid, LANGUAGES, parseLanguage, SoundboxError } from '../../protocol/index.js'
import type { Bank, Device, DevicePatch, Directory } from '../store/directory.js'
import type { Said, Saying } from '../trigger/prompter.js'
import { CheckFields, type CheckForm, checkForm } from './merchant-check.js'

const Text = (description: string, max = 128): ReturnType<typeof Type.String> => Type.String({ description, minLength: 1, maxLength: max })
const BankBody = Type.Object({
  id: Text('short name: 2 to 32 lower-case letters, digits, -', 32),
  base: Type.Optional(Text('base path of the vendor route; default: the id', 32)),
  name: Type.Optional(Text('name for people')),
  passKey: Type.Optional(Type.String({ pattern: '^[\\x21-\\x7e]{8,64}$', description: 'public id of the client; made when absent' })),
  profile: Type.Optional(Type.Union([Type.Literal('aes-256-cbc'), Type.Literal('aes-256-gcm'), Type.Literal('none')])),
  database: Type.Optional(Type.Boolean({ description: 'false: the bank names the box itself; no history' })),
  headerReuse: Type.Optional(Type.Union([Type.Literal('forbid'), Type.Literal('allow')])),
  fieldNames: Type.Optional(Type.Record(Type.String({ pattern: '^column(1|2|3|7|8|12|15)$' }), Text('the bank\'s own name of the field', 64), { additionalProperties: false })),
  numericStatus: Type.Optional(Type.Boolean()),
  announceFailed: Type.Optional(Type.Boolean({ description: 'speak a clearly different phrase for failed payments' })),
  ratePerSecond: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 }))
}, { additionalProperties: false, examples: [{ id: 'pnb', profile: 'aes-256-cbc', database: true }] })
const QuietHours = Type.Union([Type.Null(), Type.Object({
  startMinute: Type.Integer({ minimum: 0, maximum: 1439 }), endMinute: Type.Integer({ minimum: 0, maximum: 1439 }), utcOffsetMinutes: Type.Integer({ minimum: -840, maximum: 840 })
}, { additionalProperties: false })])
const Settings = {
  language: Type.Optional(Text(`one of ${LANGUAGES.join(', ')}`, 16)),
  volume: Type.Optional(Type.Integer({ minimum: 0, maximum: 100 })),
  minVolume: Type.Optional(Type.Integer({ minimum: 0, maximum: 100 })),
  quietHours: Type.Optional(QuietHours)
}
const DeviceBody = Type.Object({
  tid: Text('serial number', 32), type: Text('device type, as QS1', 32), ...Settings
}, { additionalProperties: false, examples: [{ tid: '123456787654', type: 'QS1', language: 'HINDI' }] })
const DeviceChange = Type.Object({
  ...Settings, display: Type.Optional(Type.Union([Type.Null(), Type.String({ maxLength: 512 })]))
}, { additionalProperties: false, examples: [{ volume: 70, language: 'HINDI' }] })
const MapBody = Type.Object({
  bank: Text('bank id', 32), merchant: Type.String({ maxLength: 128, description: 'VPA or mid; empty for a bank without database' }), tid: Text('serial number', 32)
}, { additionalProperties: false, examples: [{ bank: 'pnb', merchant: 'test@isu', tid: '123456787654' }] })
const CheckedMapBody = Type.Object({ ...MapBody.properties, check: Type.Optional(CheckFields) }, {
  additionalProperties: false, examples: [{ bank: 'pnb', merchant: 'test@isu', tid: '123456787654', check: { names: ['Asha Juma'], account: { accountNo: '0150245000100', bic: 'NMIBTZTZ' } } }]
})
const RotateBody = Type.Object({
  overlapSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 30 * 86_400, description: 'how long the old keys stay live; default one day' }))
}, { additionalProperties: false })
const CommandBody = Type.Object({
  name: Text('replay, test, reboot, locate, display-qr, clear-display, collect-log, volume, language, day-total', 32),
  args: Type.Optional(Type.Record(Type.String({ maxLength: 32 }), Type.Union([Type.String({ maxLength: 512 }), Type.Number(), Type.Boolean()])))
}, { additionalProperties: false, examples: [{ name: 'replay' }] })
const SayBody = Type.Object({
  code: Type.Optional(Type.Integer({ minimum: 0, maximum: 999_999, description: 'six digits, spoken one by one' })), dayTotal: Type.Optional(Type.Boolean())
}, { additionalProperties: false })
const OVERLAP_SECONDS = 86_400

export type AdminDeps = {
  directory: Directory
  /** Throws DEVICE_TYPE_INVALID. */
  checkType: (type: string) => { type: string }
  /** Told after a change, so that the box is told. */
  onDeviceChanged: (tid: string) => void
  /** Told when a box may no longer connect as it is. */
  onDeviceBarred: (tid: string) => void
  /** What the fleet knows of a box: online, since when, last telemetry. */
  presenceOf: (tid: string) => DevicePresence | undefined
  /** Sends a command and waits for the box's answer. Throws DEVICE_OFFLINE, INPUT_INVALID. */
  sendCommand: (tid: string, command: { name: string, args: Record<string, string | number | boolean> }) => Promise<object>
  /** Lets the box say a test phrase or a code, and waits for its word. Throws DEVICE_OFFLINE. */
  say: (device: Device, what: Saying) => Promise<Said>
  /** Asks for account, name and identity of a merchant before he is mapped, as the settings say; null = nothing was asked. Throws MERCHANT_REFUSED. */
  checkMerchant: (of: { bankId: string, merchant: string }, form: CheckForm | undefined) => Promise<object | null>
  /** Payments of this box since its local midnight. */
  totalToday: (device: Device) => Promise<{ count: number, amountMinor: number }>
}
export type DevicePresence = { online: boolean, sinceMs: number | null, seenAt: number | null, address?: string | null, takeovers: number, telemetry?: object, reported?: object, hello?: object }

/** Registers below the prefix that the server gives; the server has checked the token. */
export async function adminRoutes (app: FastifyInstance, deps: AdminDeps): Promise<void> {
  bankRoutes(app, deps)
  deviceRoutes(app, deps)
  const { directory } = deps
  app.post('/merchants/map', { schema: { tags: ['merchants'], summary: 'Let a merchant speak through a soundbox', body: CheckedMapBody } }, async request => {
    const { check, ...body } = request.body as Static<typeof CheckedMapBody>
    const checked = await deps.checkMerchant({ bankId: body.bank, merchant: body.merchant }, check === undefined ? undefined : checkForm(check))
    const outcome = await directory.map(body.bank, body.merchant, body.tid)
    return { ...body, outcome, ...(checked === null ? {} : { check: checked }), message: outcome === 'present' ? 'Device-VPA Mapping already present.' : 'mapped' }
  })
  app.post('/merchants/unmap', { schema: { tags: ['merchants'], summary: 'End a mapping', body: MapBody } }, async request => {
    const body = request.body as Static<typeof MapBody>
    await directory.unmap(body.bank, body.merchant, body.tid)
    return { ...body, outcome: 'unmapped' }
  })
  app.get('/merchants', { schema: { tags: ['merchants'], summary: 'All mappings' } }, async () =>
    ({ mappings: directory.devices().flatMap(device => directory.mappingsOf(device.tid)).map(row => ({ ...row, mappedAt: timeText(row.mappedAt) })) }))
}

function bankRoutes (app: FastifyInstance, { directory }: AdminDeps): void {
  app.post('/banks', { schema: { tags: ['banks'], summary: 'Add a bank; its secrets are shown once, here', body: BankBody } }, async request =>
    await directory.addBank(request.body as Static<typeof BankBody>))
  app.get('/banks', { schema: { tags: ['banks'], summary: 'All banks, without secrets' } }, async () => ({ banks: directory.banks().map(bankView) }))
  const rotation = { tags: ['banks'], summary: 'New credentials; the old ones live on for the overlap', body: RotateBody }
  app.post('/banks/:id/rotate-key', { preValidation: bodyMayBeLeftOut, schema: rotation }, async request => {
    const { overlapSeconds } = request.body as Static<typeof RotateBody>
    return await directory.rotateBankKey(param(request.params, 'id'), (overlapSeconds ?? OVERLAP_SECONDS) * 1000)
  })
  for (const [action, disabled] of [['disable', true], ['enable', false]] as const) {
    app.post(`/banks/:id/${action}`, { schema: { tags: ['banks'], summary: `${action} a bank` } }, async request => {
      await directory.setBankDisabled(param(request.params, 'id'), disabled)
      return { bank: param(request.params, 'id'), disabled }
    })
  }
}

function deviceRoutes (app: FastifyInstance, deps: AdminDeps): void {
  const { directory } = deps
  app.post('/devices', { schema: { tags: ['devices'], summary: 'Add a soundbox; its secrets are shown once, here', body: DeviceBody } }, async request => {
    const { language, ...body } = request.body as Static<typeof DeviceBody>
    if (!isTid(body.tid)) throw new SoundboxError('INPUT_INVALID', 'a serial number is 3 to 32 letters, digits, - or _')
    deps.checkType(body.type)
    return await directory.addDevice({ ...withoutUndefined(body), ...(language === undefined ? {} : { language: parseLanguage(language) }) })
  })
  app.get('/devices', { schema: { tags: ['devices'], summary: 'All soundboxes, without secrets' } }, async () => ({ devices: directory.devices().map(device => deviceView(deps, device)) }))
  app.get('/devices/:tid', { schema: { tags: ['devices'], summary: 'One soundbox' } }, async request => deviceView(deps, needDevice(directory, param(request.params, 'tid'))))
  app.patch('/devices/:tid', { schema: { tags: ['devices'], summary: 'Change volume, language, quiet hours or display', body: DeviceChange } }, async request => {
    const { language, ...body } = request.body as Static<typeof DeviceChange>
    const patch: DevicePatch = { ...withoutUndefined(body), ...(language === undefined ? {} : { language: parseLanguage(language) }) }
    const device = await directory.patchDevice(param(request.params, 'tid'), patch)
    deps.onDeviceChanged(device.tid)
    return deviceView(deps, device)
  })
  for (const [action, status] of [['activate', 'active'], ['deactivate', 'inactive']] as const) {
    app.post(`/devices/:tid/${action}`, { schema: { tags: ['devices'], summary: `${action} a soundbox` } }, async request => {
      const device = await directory.patchDevice(param(request.params, 'tid'), { status })
      if (status === 'inactive') deps.onDeviceBarred(device.tid)
      else deps.onDeviceChanged(device.tid)
      return deviceView(deps, device)
    })
  }
  app.post('/devices/:tid/commands', { schema: { tags: ['devices'], summary: 'Send a command and wait for the answer', body: CommandBody } }, async request => {
    const tid = needDevice(directory, param(request.params, 'tid')).tid
    const { name, args } = request.body as Static<typeof CommandBody>
    return await deps.sendCommand(tid, { name, args: args ?? {} })
  })
  const saying = { tags: ['devices'], summary: 'Say a test phrase, a code that proves which box this is, or the day\'s total; answers when the box has spoken', body: SayBody }
  app.post('/devices/:tid/say', { preValidation: bodyMayBeLeftOut, schema: saying }, async request => {
    const device = needDevice(directory, param(request.params, 'tid'))
    return { tid: device.tid, ...await deps.say(device, await sayingOf(deps, device, request.body as Static<typeof SayBody>)) }
  })
  app.post('/devices/:tid/rekey', { schema: { tags: ['devices'], summary: 'New MQTT password and signing key; shown once' } }, async request => {
    const secrets = await directory.rekeyDevice(param(request.params, 'tid'))
    deps.onDeviceBarred(secrets.tid)
    return secrets
  })
}

/** A hook of routes whose body has defaults for all its members. */
export async function bodyMayBeLeftOut (request: FastifyRequest): Promise<void> {
  request.body ??= {}
}

async function sayingOf (deps: AdminDeps, device: Device, { code, dayTotal }: Static<typeof SayBody>): Promise<Saying> {
  if (code !== undefined) return { kind: 'prompt', prompt: 'code', count: code, amountMinor: 0 }
  if (dayTotal !== true) return { kind: 'test' }
  const total = await deps.totalToday(device)
  return { kind: 'prompt', prompt: 'day-total', ...total }
}

/** Drops undefined members, as exactOptionalPropertyTypes wants. */
function withoutUndefined<T extends object> (value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> }
}

export function bankView (bank: Bank): object {
  const { keys, createdAt, disabledAt, ...rest } = bank
  const shown = keys.map(key => ({ keyId: key.keyId, clientId: key.clientId, validFrom: timeText(key.validFrom), validTo: timeText(key.validTo) }))
  return { ...rest, createdAt: timeText(createdAt), disabledAt: timeText(disabledAt), keys: shown }
}

export function deviceView ({ directory, presenceOf }: AdminDeps, device: Device): object {
  const { signingKey: _s, signingKeySealed: _k, mqttPasswordHash: _p, createdAt, activatedAt, deactivatedAt, ...rest } = device
  const merchants = directory.mappingsOf(device.tid).map(row => ({ bank: row.bankId, merchant: row.merchant, mappedAt: timeText(row.mappedAt) }))
  const seen = presenceOf(device.tid)
  return {
    ...rest, presence: seen?.online === true ? 'online' : 'offline', seenAt: timeText(seen?.seenAt ?? null), onlineSince: timeText(seen?.online === true ? seen.sinceMs : null),
    takeovers: seen?.takeovers ?? 0, telemetry: seen?.telemetry ?? null, reported: seen?.reported ?? null, hello: seen?.hello ?? null,
    createdAt: timeText(createdAt), activatedAt: timeText(activatedAt), deactivatedAt: timeText(deactivatedAt), merchants
  }
}

/** ISO 8601, UTC, or null. */
export function timeText (ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}

export function needDevice (directory: Directory, tid: string): Device {
  const device = directory.device(tid)
  if (device === undefined) throw new SoundboxError('NOT_FOUND', `there is no soundbox ${tid}`)
  return device
}

/** A path parameter. */
export function param (params: unknown, name: string): string {
  const value = (params as Record<string, unknown>)[name]
  return typeof value === 'string' ? value : ''
}
