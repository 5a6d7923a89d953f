// bank, device, history, tail, status, and those of the neighbouring files: thin commands over the operator's API.
import type { Command } from 'commander'
import { SoundboxError } from '../../protocol/index.js'
import { addAccessCommands } from './access-commands.js'
import type { Client } from './client.js'
import { type Context, type Row, wholeNumber } from './context.js'
import { addMerchantCommands } from './merchant-commands.js'
import type { Output } from './output.js'

const DEVICE_TYPE = 'SB1'
const ADD_COUNT_MAX = 9999

/** Adds the commands to the program. */
export function addAdminCommands (program: Command, context: Context): void {
  addBankCommands(program, context)
  addDeviceCommands(program, context)
  addMerchantCommands(program, context)
  addAccessCommands(program, context)
  addLookCommands(program, context)
}

function addBankCommands (program: Command, { client, output }: Context): void {
  const bank = program.command('bank').description('banks that may send triggers')
  bank.command('add').description('add a bank; its secrets are shown once').argument('<id>', 'short name, as pnb')
    .option('--base <path>', 'base path of its trigger URL (default: the id)').option('--name <name>', 'name for people')
    .option('--profile <profile>', 'aes-256-cbc, aes-256-gcm or none', 'aes-256-cbc').option('--no-database', 'the bank names the box itself; no history is kept')
    .option('--pass-key <key>', 'public id of the client (default: made)').option('--allow-header-reuse', 'accept the same header_secrets again')
    .option('--rename <column=name...>', 'the bank\'s own field names, as column1=tr_id').option('--numeric-status', 'answer status as a number')
    .option('--announce-failed', 'speak a different phrase for failed payments').option('--rate <perSecond>', 'requests a second')
    .action(async (id: string, options: Row) => { output().one(await client().call('POST', '/banks', bankBody(id, options))) })
  bank.command('list').description('all banks, without secrets').action(async () => {
    const { banks } = await client().call('GET', '/banks')
    output().rows(banks as Row[], { id: 'bank', base: 'base', name: 'name', profile: 'profile', database: 'database', passKey: 'pass_key', disabledAt: 'disabled' })
  })
  bank.command('rotate-key').description('new credentials; the old ones stay live for the overlap').argument('<id>')
    .option('--overlap <seconds>', 'how long the old keys stay live', '86400')
    .action(async (id: string, options: Row) => {
      output().one(await client().call('POST', `/banks/${encodeURIComponent(id)}/rotate-key`, { overlapSeconds: wholeNumber(options['overlap'], '--overlap') }))
    })
  for (const action of ['disable', 'enable']) {
    bank.command(action).description(`${action} a bank`).argument('<id>').action(async (id: string) => { output().one(await client().call('POST', `/banks/${encodeURIComponent(id)}/${action}`)) })
  }
}

function addDeviceCommands (program: Command, context: Context): void {
  const { client, output } = context
  const device = program.command('device').description('soundboxes')
  addBoxCommands(device, context)
  device.command('add').description('add a soundbox, or many; the secrets are shown once').argument('<tid>', 'serial number; with --count its beginning: TID-0001, TID-0002, ...')
    .option('--type <type>', 'device type, as QS1', DEVICE_TYPE).option('--language <name>', 'as ENGLISH or HINDI').option('--volume <0..100>').option('--min-volume <0..100>')
    .option('--count <boxes>', `so many of them, up to ${ADD_COUNT_MAX}`).option('--bank <id>', 'activate each, and map it to a merchant of this bank that is named like the box: tid@upi')
    .action(async (tid: string, options: Row) => { for (const name of tidsOf(tid, options['count'])) output().one(await addDevice(client(), name, options)) })
  device.command('list').description('all soundboxes').action(async () => {
    const { devices } = await client().call('GET', '/devices')
    output().rows(devices as Row[], { tid: 'tid', type: 'type', status: 'status', presence: 'presence', language: 'language', volume: 'volume', activatedAt: 'activated' })
  })
  device.command('show').description('one soundbox').argument('<tid>').action(async (tid: string) => { output().one(await client().call('GET', `/devices/${encodeURIComponent(tid)}`)) })
  for (const action of ['activate', 'deactivate', 'rekey']) {
    const what = action === 'rekey' ? 'new MQTT password and signing key; shown once' : `${action} a soundbox`
    device.command(action).description(what).argument('<tid>').action(async (tid: string) => { output().one(await client().call('POST', `/devices/${encodeURIComponent(tid)}/${action}`)) })
  }
  device.command('set').description('change volume, language or display').argument('<tid>')
    .option('--language <name>').option('--volume <0..100>').option('--min-volume <0..100>').option('--display <text>')
    .option('--quiet <HH:MM-HH:MM>', 'hours in which payments are muted; "off" ends them').option('--utc-offset <minutes>', 'time zone of the quiet hours', '330')
    .action(async (tid: string, options: Row) => { output().one(await client().call('PATCH', `/devices/${encodeURIComponent(tid)}`, { ...deviceSettings(options), ...quietSettings(options) })) })
}

function tidsOf (tid: string, count: unknown): string[] {
  if (count === undefined) return [tid]
  const boxes = wholeNumber(count, '--count')
  if (boxes < 1 || boxes > ADD_COUNT_MAX) throw new SoundboxError('INPUT_INVALID', `--count must be from 1 to ${ADD_COUNT_MAX}`)
  return Array.from({ length: boxes }, (_, index) => `${tid}-${String(index + 1).padStart(4, '0')}`)
}

async function addDevice (client: Client, tid: string, options: Row): Promise<Row> {
  const secrets = await client.call('POST', '/devices', { tid, type: options['type'], ...deviceSettings(options) })
  if (options['bank'] === undefined) return secrets
  await client.call('POST', `/devices/${encodeURIComponent(tid)}/activate`)
  await client.call('POST', '/merchants/map', { bank: options['bank'], merchant: `${tid.toLowerCase()}@upi`, tid })
  return secrets
}

/** What a technician does standing beside the box. */
function addBoxCommands (device: Command, { client, output }: Context): void {
  const path = (tid: string, rest: string): string => `/devices/${encodeURIComponent(tid)}${rest}`
  device.command('test').description('say the test phrase and wait until the box has spoken').argument('<tid>')
    .action(async (tid: string) => { output().one(await client().call('POST', path(tid, '/say'), {})) })
  device.command('volume').description('set the volume, 0 to 100').argument('<tid>').argument('<volume>')
    .action(async (tid: string, volume: string) => { output().one(await client().call('PATCH', path(tid, ''), { volume: wholeNumber(volume, 'volume') })) })
  device.command('language').description('set the language').argument('<tid>').argument('<name>')
    .action(async (tid: string, language: string) => { output().one(await client().call('PATCH', path(tid, ''), { language })) })
  device.command('day-total').description('say the count and total of the day').argument('<tid>')
    .action(async (tid: string) => { output().one(await client().call('POST', path(tid, '/say'), { dayTotal: true })) })
  const commands = { replay: 'repeat the last payment', reboot: 'start the box anew', locate: 'let the box be found by ear', 'collect-log': 'fetch the last lines of its log' }
  for (const [name, what] of Object.entries(commands)) {
    device.command(name).description(what).argument('<tid>').action(async (tid: string) => { output().one(await client().call('POST', path(tid, '/commands'), { name })) })
  }
}

function addLookCommands (program: Command, { client, output, interrupted }: Context): void {
  program.command('history').description('payments and what became of them, newest first')
    .option('--bank <id>').option('--merchant <vpa>').option('--device <tid>').option('--transaction <id>').option('--since <time>', 'ISO 8601, or 15m, 2h, 3d ago').option('--until <time>')
    .option('--status <status>', 'success or failed').option('--limit <count>', 'at most so many', '50')
    .action(async (options: Row) => { await printHistory(client(), output(), options) })
  program.command('tail').description('what happens, as it happens; Ctrl-C ends').action(async () => {
    await client().stream('/tail', event => {
      if (event['kind'] === 'alive') return
      if (output().json) output().one(event)
      else output().line(eventLine(event))
    }, interrupted())
  })
  program.command('status').description('what runs, how much waits, who is connected').action(async () => { output().one(await client().call('GET', '/status')) })
}

function eventLine (event: Row): string {
  const word = (key: string, value: unknown): string => key === 'at' ? new Date(Number(value)).toISOString().slice(11, 23) : `${key}=${String(value)}`
  return Object.entries(event).filter(([, value]) => value !== null).map(([key, value]) => word(key, value)).join(' ')
}

async function printHistory (client: Client, output: Output, options: Row): Promise<void> {
  const wanted = wholeNumber(options['limit'], '--limit')
  const filters = {
    bank: options['bank'], merchant: options['merchant'], device: options['device'], transactionId: options['transaction'], status: options['status'],
    since: timeText(options['since']), until: timeText(options['until'])
  }
  const rows: Row[] = []
  let cursor: unknown = null
  do {
    const query = new URLSearchParams(Object.entries({ ...filters, limit: String(Math.min(500, wanted - rows.length)), cursor }).filter(([, value]) => typeof value === 'string') as [string, string][])
    const page = await client.call('GET', `/history?${query.toString()}`)
    rows.push(...page['payments'] as Row[])
    cursor = page['next']
  } while (cursor !== null && rows.length < wanted)
  if (output.json) return output.rows(rows, {})
  const flat = rows.flatMap(row => {
    const deliveries = row['deliveries'] as Row[]
    return (deliveries.length === 0 ? [{}] : deliveries).map(delivery => ({ ...row, tid: delivery['tid'], state: delivery['state'], spokenAt: delivery['spokenAt'] }))
  })
  output.rows(flat, { acceptedAt: 'accepted', bank: 'bank', transactionId: 'transaction', amount: 'amount', merchant: 'merchant', status: 'status', tid: 'tid', state: 'voice', spokenAt: 'spoken' })
}

function bankBody (id: string, options: Row): object {
  const renames = options['rename'] as string[] | undefined
  return {
    id, profile: options['profile'], database: options['database'],
    ...(options['base'] === undefined ? {} : { base: options['base'] }), ...(options['name'] === undefined ? {} : { name: options['name'] }),
    ...(options['passKey'] === undefined ? {} : { passKey: options['passKey'] }), ...(options['allowHeaderReuse'] === true ? { headerReuse: 'allow' } : {}),
    ...(options['numericStatus'] === true ? { numericStatus: true } : {}), ...(options['announceFailed'] === true ? { announceFailed: true } : {}),
    ...(options['rate'] === undefined ? {} : { ratePerSecond: wholeNumber(options['rate'], '--rate') }),
    ...(renames === undefined ? {} : { fieldNames: Object.fromEntries(renames.map(renamePair)) })
  }
}

function renamePair (pair: string): [string, string] {
  const at = pair.indexOf('=')
  if (at < 1 || at === pair.length - 1) throw new SoundboxError('INPUT_INVALID', '--rename must be column=name, as column1=tr_id')
  return [pair.slice(0, at), pair.slice(at + 1)]
}

function deviceSettings (options: Row): object {
  return {
    ...(options['language'] === undefined ? {} : { language: options['language'] }), ...(options['display'] === undefined ? {} : { display: options['display'] }),
    ...(options['volume'] === undefined ? {} : { volume: wholeNumber(options['volume'], '--volume') }),
    ...(options['minVolume'] === undefined ? {} : { minVolume: wholeNumber(options['minVolume'], '--min-volume') })
  }
}

function quietSettings (options: Row): object {
  const text = options['quiet']
  if (text === undefined) return {}
  if (text === 'off') return { quietHours: null }
  const match = /^([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)$/.exec(String(text))
  if (match === null) throw new SoundboxError('INPUT_INVALID', '--quiet must be HH:MM-HH:MM or off')
  if (!/^-?\d{1,3}$/.test(String(options['utcOffset']))) throw new SoundboxError('INPUT_INVALID', '--utc-offset must be whole minutes, as 330')
  const [h1, m1, h2, m2] = match.slice(1).map(Number) as [number, number, number, number]
  return { quietHours: { startMinute: h1 * 60 + m1, endMinute: h2 * 60 + m2, utcOffsetMinutes: Number(options['utcOffset']) } }
}

/** ISO 8601 of a time, or of `15m`, `2h`, `3d` ago. */
function timeText (value: unknown): string | undefined {
  if (typeof value !== 'string') return undefined
  const ago = /^(\d{1,6})([smhd])$/.exec(value)
  if (ago === null) return value
  const unit = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[ago[2] as 's' | 'm' | 'h' | 'd']
  return new Date(Date.now() - Number(ago[1]) * unit).toISOString()
}
