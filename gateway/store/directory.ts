// Who is who: banks, soundboxes and which merchant speaks through which box. Held in memory for the hot path, loaded at start, and
// changed through this one write path: first the store, then memory, so that memory never says what the disk does not.
import { COLUMNS, deriveKey, isTid, KEY_BYTES, keyedHash, type Language, makeSecret, openSecret, parseKey, sealSecret, SoundboxError } from '../../protocol/index.js'
import type { BankKeyRow, BankProfile, BankRow, DeviceRow, DirectoryRows, MappingRow, QuietHours, Store } from './contract.js'

/** Two sets of credentials live at once is a rotation; more is a leak nobody noticed. */
export const LIVE_KEYS_MAX = 2
/** A merchant with more boxes than this is a mistake in the mapping. */
export const DEVICES_PER_MERCHANT_MAX = 32
const BANK_ID = /^[a-z0-9][a-z0-9-]{1,31}$/
const BASE = /^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/
/** Under this merchant name the boxes of a bank without database are mapped: it names the box itself in each call. */
export const ANY_MERCHANT = ''

export type BankKey = { keyId: string, clientId: string, clientSecretHash: string, headerKey: Buffer, payloadKey: Buffer, validFrom: number, validTo: number | null }
export type Bank = BankRow & { keys: readonly BankKey[] }
export type Device = DeviceRow & { signingKey: string }
export type BankSecrets = { bank: string, base: string, passKey: string, clientId: string, clientSecret: string, headerKey: string, payloadKey: string, profile: BankProfile }
export type DeviceSecrets = { tid: string, type: string, mqttUsername: string, mqttPassword: string, signingKey: string }
export type BankInput = Partial<Omit<BankRow, 'id' | 'createdAt' | 'disabledAt'>> & { id: string }
export type DevicePatch = Partial<Pick<DeviceRow, 'status' | 'language' | 'volume' | 'minVolume' | 'quietHours' | 'display'>>
export type DeviceInput = { tid: string, type: string, language?: Language, volume?: number, minVolume?: number, quietHours?: QuietHours | null }

export type Directory = {
  bankById: (id: string) => Bank | undefined
  bankByPassKey: (passKey: string) => Bank | undefined
  bankByBase: (base: string) => Bank | undefined
  banks: () => readonly Bank[]
  /** The boxes a merchant of this bank speaks through, in mapping order. */
  devicesOf: (bankId: string, merchant: string) => readonly string[]
  mappingsOf: (tid: string) => readonly MappingRow[]
  device: (tid: string) => Device | undefined
  devices: () => readonly Device[]
  /** Keyed hash of a client secret or MQTT password, to compare with what is stored. */
  hashOf: (secret: string) => string
  /** Throws INPUT_INVALID, ALREADY_EXISTS. The secrets are told once, here. */
  addBank: (input: BankInput) => Promise<BankSecrets>
  /** New credentials now; the old ones stay live for `overlapMs`. Throws NOT_FOUND, ALREADY_EXISTS while two are live. */
  rotateBankKey: (id: string, overlapMs: number) => Promise<BankSecrets>
  setBankDisabled: (id: string, disabled: boolean) => Promise<void>
  addDevice: (input: DeviceInput) => Promise<DeviceSecrets>
  /** Raises desiredVersion, so that the box is told. Throws NOT_FOUND. */
  patchDevice: (tid: string, patch: DevicePatch) => Promise<Device>
  /** Fresh MQTT password and signing key, for a box that is provisioned anew. Throws NOT_FOUND. */
  rekeyDevice: (tid: string) => Promise<DeviceSecrets>
  /** 'present' when it was mapped already. Throws NOT_FOUND, INPUT_INVALID. */
  map: (bankId: string, merchant: string, tid: string) => Promise<'mapped' | 'present'>
  unmap: (bankId: string, merchant: string, tid: string) => Promise<void>
  /** Takes over what other gateways changed, all at once. Rejects with STORE_FAILED or SECRET_UNREADABLE; then all stays as it was. */
  reload: () => Promise<void>
}

type Deps = { store: Store, masterKey: Buffer, nowMs: () => number }

/** Loads banks, devices and mappings. Throws SECRET_UNREADABLE when the master key is not the one that sealed them. */
export async function openDirectory ({ store, masterKey, nowMs }: Deps): Promise<Directory> {
  const keys = { seal: deriveKey(masterKey, 'seal'), hash: deriveKey(masterKey, 'hash') }
  const tables = makeTables(keys.seal)
  const reload = async (): Promise<void> => { tables.fill(await store.loadDirectory()) }
  await reload()
  const context = { store, tables, keys, nowMs }
  const writes = inTurn({ ...bankWrites(context), ...deviceWrites(context), ...mappingWrites(context), reload })
  return {
    bankById: id => tables.banks.get(id),
    bankByPassKey: passKey => tables.banks.get(tables.byPassKey.get(passKey) ?? ''),
    bankByBase: base => tables.banks.get(tables.byBase.get(base) ?? ''),
    banks: () => [...tables.banks.values()],
    devicesOf: (bankId, merchant) => tables.mappings.get(`${bankId}\0${merchant}`) ?? [],
    mappingsOf: tid => tables.byDevice.get(tid) ?? [],
    device: tid => tables.devices.get(tid),
    devices: () => [...tables.devices.values()],
    hashOf: secret => keyedHash(keys.hash, secret),
    ...writes
  }
}

/** One write at a time: each looks at memory before and changes it after it has waited for the disk. */
function inTurn<T extends Record<string, (...args: never[]) => Promise<unknown>>> (writes: T): T {
  let last: Promise<unknown> = Promise.resolve()
  const queued = Object.entries(writes).map(([name, write]) => [name, (...args: never[]) => {
    const run = last.then(() => write(...args))
    last = run.catch(() => {})
    return run
  }])
  return Object.fromEntries(queued) as T
}

type Context = { store: Store, tables: ReturnType<typeof makeTables>, keys: { seal: Buffer, hash: Buffer }, nowMs: () => number }

function makeTables (sealKey: Buffer) {
  const banks = new Map<string, Bank>()
  const byPassKey = new Map<string, string>()
  const byBase = new Map<string, string>()
  const devices = new Map<string, Device>()
  const mappings = new Map<string, string[]>()
  const byDevice = new Map<string, MappingRow[]>()
  const tables = {
    banks, byPassKey, byBase, devices, mappings, byDevice,
    /** These rows instead of all there was. Throws SECRET_UNREADABLE before anything is changed. */
    fill (rows: DirectoryRows): void {
      const bankKeys = rows.keys.map(row => ({ bankId: row.bankId, key: openKeyRow(sealKey, row) }))
      const opened = rows.devices.map(openDevice)
      for (const map of [banks, byPassKey, byBase, devices, mappings, byDevice]) map.clear()
      for (const bank of rows.banks) tables.putBank(bank, bankKeys.filter(({ bankId }) => bankId === bank.id).map(({ key }) => key))
      for (const device of opened) devices.set(device.tid, device)
      for (const mapping of rows.mappings) tables.putMapping(mapping)
    },
    putBank (row: BankRow, keys: readonly BankKey[]): void {
      banks.set(row.id, { ...row, keys })
      byPassKey.set(row.passKey, row.id)
      byBase.set(row.base, row.id)
    },
    putDevice (row: DeviceRow): Device {
      const device = openDevice(row)
      devices.set(row.tid, device)
      return device
    },
    putMapping (row: MappingRow): void {
      const key = `${row.bankId}\0${row.merchant}`
      addTo(mappings, key, row.tid)
      addTo(byDevice, row.tid, row)
    },
    dropMapping (bankId: string, merchant: string, tid: string): void {
      const key = `${bankId}\0${merchant}`
      mappings.set(key, (mappings.get(key) ?? []).filter(other => other !== tid))
      byDevice.set(tid, (byDevice.get(tid) ?? []).filter(row => row.bankId !== bankId || row.merchant !== merchant))
    },
    needBank: (id: string): Bank => banks.get(id) ?? fail('NOT_FOUND', `there is no bank ${id}`),
    needDevice: (tid: string): Device => devices.get(tid) ?? fail('NOT_FOUND', `there is no soundbox ${tid}`)
  }
  /** Opening ten thousand secrets again at each change would stop everything for a moment. */
  const openDevice = (row: DeviceRow): Device => {
    const before = devices.get(row.tid)
    return { ...row, signingKey: before?.signingKeySealed === row.signingKeySealed ? before.signingKey : openSecret(sealKey, `device:${row.tid}`, row.signingKeySealed) }
  }
  return tables
}

function bankWrites ({ store, tables, keys, nowMs }: Context): Pick<Directory, 'addBank' | 'rotateBankKey' | 'setBankDisabled'> {
  return {
    async addBank (input) {
      const bank = bankFromInput(input, nowMs())
      if (tables.banks.has(bank.id)) fail('ALREADY_EXISTS', `bank ${bank.id} exists`)
      if (tables.byBase.has(bank.base)) fail('ALREADY_EXISTS', `base path ${bank.base} belongs to another bank`)
      if (tables.byPassKey.has(bank.passKey)) fail('ALREADY_EXISTS', 'this pass_key belongs to another bank')
      const made = makeBankKey(keys, bank, nowMs())
      await store.saveBank(bank)
      await store.saveBankKey(made.row)
      tables.putBank(bank, [openKeyRow(keys.seal, made.row)])
      return made.secrets
    },
    async rotateBankKey (id, overlapMs) {
      const bank = tables.needBank(id)
      const now = nowMs()
      const live = bank.keys.filter(key => isLive(key, now))
      if (live.length >= LIVE_KEYS_MAX) fail('ALREADY_EXISTS', `bank ${id} has ${LIVE_KEYS_MAX} live keys already: wait until the older one ends`)
      const made = makeBankKey(keys, bank, now)
      const ended = live.map(key => ({ ...key, validTo: now + overlapMs }))
      // The old first: stopped in between, it ends and the bank is rotated again; two without an end could not be.
      for (const key of ended) await store.saveBankKey(sealKeyRow(keys.seal, id, key))
      await store.saveBankKey(made.row)
      tables.putBank(bank, [openKeyRow(keys.seal, made.row), ...ended])
      return made.secrets
    },
    async setBankDisabled (id, disabled) {
      const { keys: bankKeys, ...bank } = tables.needBank(id)
      const row = { ...bank, disabledAt: disabled ? nowMs() : null }
      await store.saveBank(row)
      tables.putBank(row, bankKeys)
    }
  }
}

function deviceWrites ({ store, tables, keys, nowMs }: Context): Pick<Directory, 'addDevice' | 'patchDevice' | 'rekeyDevice'> {
  const save = async (row: DeviceRow): Promise<Device> => {
    await store.saveDevice(row)
    return tables.putDevice(row)
  }
  return {
    async addDevice (input) {
      if (!isTid(input.tid)) fail('INPUT_INVALID', 'a serial number is 3 to 32 letters, digits, - or _')
      if (tables.devices.has(input.tid)) fail('ALREADY_EXISTS', `soundbox ${input.tid} exists`)
      const made = makeDeviceSecrets(keys, input.tid, input.type)
      await save({ ...deviceFromInput(input, nowMs()), ...made.stored })
      return made.secrets
    },
    async patchDevice (tid, patch) {
      const { signingKey: _, ...row } = tables.needDevice(tid)
      const isSwitched = patch.status !== undefined && patch.status !== row.status
      const dates = !isSwitched ? {} : patch.status === 'active' ? { activatedAt: nowMs() } : { deactivatedAt: nowMs() }
      return await save({ ...row, ...patch, ...dates, desiredVersion: row.desiredVersion + 1 })
    },
    async rekeyDevice (tid) {
      const { signingKey: _, ...row } = tables.needDevice(tid)
      const made = makeDeviceSecrets(keys, tid, row.type)
      await save({ ...row, ...made.stored })
      return made.secrets
    }
  }
}

function mappingWrites ({ store, tables, nowMs }: Context): Pick<Directory, 'map' | 'unmap'> {
  return {
    async map (bankId, merchantName, tid) {
      const merchant = merchantName.toLowerCase()
      checkMerchant(tables.needBank(bankId), merchant)
      tables.needDevice(tid)
      const now = tables.mappings.get(`${bankId}\0${merchant}`) ?? []
      if (now.includes(tid)) return 'present'
      if (merchant !== ANY_MERCHANT && now.length >= DEVICES_PER_MERCHANT_MAX) fail('INPUT_INVALID', `a merchant has at most ${DEVICES_PER_MERCHANT_MAX} soundboxes`)
      const row = { bankId, merchant, tid, mappedAt: nowMs() }
      await store.saveMapping(row)
      tables.putMapping(row)
      return 'mapped'
    },
    async unmap (bankId, merchantName, tid) {
      const merchant = merchantName.toLowerCase()
      if (tables.mappings.get(`${bankId}\0${merchant}`)?.includes(tid) !== true) fail('NOT_FOUND', `merchant ${merchant} of bank ${bankId} is not mapped to ${tid}`)
      await store.removeMapping(bankId, merchant, tid)
      tables.dropMapping(bankId, merchant, tid)
    }
  }
}

function addTo<T> (lists: Map<string, T[]>, key: string, one: T): void {
  const list = lists.get(key)
  if (list === undefined) lists.set(key, [one])
  else list.push(one)
}

/** A mapping that no trigger could ever meet is a mistake of whoever makes it. */
function checkMerchant (bank: Bank, merchant: string): void {
  if (!bank.database && merchant !== ANY_MERCHANT) fail('INPUT_INVALID', `bank ${bank.id} has no database and names the box itself: map the box without a merchant`)
  if (bank.database && !COLUMNS.column2.shape.test(merchant)) fail('INPUT_INVALID', `a merchant is ${COLUMNS.column2.form}`)
}

/** Two columns that read one field would be the same value under two meanings. */
function checkFieldNames (fieldNames: Readonly<Record<string, string>>): void {
  const columns = Object.keys(COLUMNS)
  if (Object.keys(fieldNames).some(column => !columns.includes(column))) fail('INPUT_INVALID', `only ${columns.join(', ')} can be renamed`)
  const names = columns.map(column => fieldNames[column] ?? column)
  if (names.some(name => name === '') || new Set(names).size < names.length) fail('INPUT_INVALID', 'each column needs a name of its own')
}

/** True while these credentials may be used. */
export function isLive (key: BankKey, nowMs: number): boolean {
  return key.validFrom <= nowMs && (key.validTo === null || nowMs < key.validTo)
}

function bankFromInput (input: BankInput, nowMs: number): BankRow {
  const base = input.base ?? input.id
  if (!BANK_ID.test(input.id)) fail('INPUT_INVALID', 'a bank id is 2 to 32 lower-case letters, digits and -')
  checkFieldNames(input.fieldNames ?? {})
  if (!BASE.test(base)) fail('INPUT_INVALID', 'a base path is 1 to 32 letters, digits, _ and -')
  return {
    id: input.id, base, name: input.name ?? input.id, passKey: input.passKey ?? makeSecret(16), profile: input.profile ?? 'aes-256-cbc', database: input.database ?? true,
    headerReuse: input.headerReuse ?? 'forbid', fieldNames: input.fieldNames ?? {}, numericStatus: input.numericStatus ?? false, announceFailed: input.announceFailed ?? false,
    ratePerSecond: input.ratePerSecond ?? 1000, createdAt: nowMs, disabledAt: null
  }
}

function deviceFromInput (input: DeviceInput, nowMs: number): Omit<DeviceRow, 'mqttPasswordHash' | 'signingKeySealed'> {
  return {
    tid: input.tid, type: input.type, status: 'inactive', language: input.language ?? 'ENGLISH', volume: input.volume ?? 80, minVolume: input.minVolume ?? 20,
    quietHours: input.quietHours ?? null, display: null, desiredVersion: 1, createdAt: nowMs, activatedAt: null, deactivatedAt: null
  }
}

function makeBankKey (keys: Context['keys'], bank: BankRow, nowMs: number): { row: BankKeyRow, secrets: BankSecrets } {
  const clientSecret = makeSecret()
  const key = Buffer.from(makeSecret(KEY_BYTES), 'base64url').toString('base64')
  const sealed = sealSecret(keys.seal, `bank:${bank.id}`, key)
  const row = {
    keyId: makeSecret(9), bankId: bank.id, clientId: `${bank.id}-${makeSecret(16)}`, clientSecretHash: keyedHash(keys.hash, clientSecret),
    headerKeySealed: sealed, payloadKeySealed: sealed, validFrom: nowMs, validTo: null
  }
  const secrets = { bank: bank.id, base: bank.base, passKey: bank.passKey, clientId: row.clientId, clientSecret, headerKey: key, payloadKey: key, profile: bank.profile }
  return { row, secrets }
}

function makeDeviceSecrets (keys: Context['keys'], tid: string, type: string): { stored: Pick<DeviceRow, 'mqttPasswordHash' | 'signingKeySealed'>, secrets: DeviceSecrets } {
  const mqttPassword = makeSecret()
  const signingKey = makeSecret(32)
  return {
    stored: { mqttPasswordHash: keyedHash(keys.hash, mqttPassword), signingKeySealed: sealSecret(keys.seal, `device:${tid}`, signingKey) },
    secrets: { tid, type, mqttUsername: tid, mqttPassword, signingKey }
  }
}

function openKeyRow (sealKey: Buffer, row: BankKeyRow): BankKey {
  const open = (sealed: string): Buffer =>
    parseKey(openSecret(sealKey, `bank:${row.bankId}`, sealed)) ?? fail('SECRET_UNREADABLE', `a key of bank ${row.bankId} is not ${KEY_BYTES} bytes`)
  const { headerKeySealed, payloadKeySealed, bankId: _, ...rest } = row
  return { ...rest, headerKey: open(headerKeySealed), payloadKey: open(payloadKeySealed) }
}

function sealKeyRow (sealKey: Buffer, bankId: string, key: BankKey): BankKeyRow {
  const { headerKey, payloadKey, ...rest } = key
  const seal = (bytes: Buffer): string => sealSecret(sealKey, `bank:${bankId}`, bytes.toString('base64'))
  return { ...rest, bankId, headerKeySealed: seal(headerKey), payloadKeySealed: seal(payloadKey) }
}

function fail (code: 'NOT_FOUND' | 'ALREADY_EXISTS' | 'INPUT_INVALID' | 'SECRET_UNREADABLE', message: string): never {
  throw new SoundboxError(code, message)
}
