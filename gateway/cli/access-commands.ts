// token, audit, totp, sign-in, provider: who may call, what was called, and how the providers stand.
import type { Command } from 'commander'
import { SoundboxError } from '../../protocol/index.js'
import { type Context, type Row, wholeNumber } from './context.js'

/** More than these make a table too wide. */
const SHOWN_PERMISSIONS = 3

/** Adds the commands to the program. */
export function addAccessCommands (program: Command, context: Context): void {
  addTokenCommands(program, context)
  addAuditCommands(program, context)
  addTotpCommands(program, context)
  const { client, output } = context
  program.command('providers').description('how the providers stand: transport, circuit breakers, calls in work').action(async () => {
    const { issuers } = await client().call('GET', '/integration')
    output().rows(issuers as Row[], { issuer: 'issuer', kind: 'transport', provider: 'provider', active: 'active', waiting: 'waiting', breakers: 'breakers' })
  })
}

function addTokenCommands (program: Command, { client, output }: Context): void {
  const token = program.command('token').description('tokens of partners (/api/v1/integration) and of operators (/api/v1/admin)')
  token.command('create').description('make a token; it is shown once').argument('<name>', 'for people')
    .option('--kind <kind>', 'partner or operator', 'partner').option('--days <count>', 'how long it lives', '365')
    .option('--role <role>', 'a usual set of permissions: partner, lookup, messenger, onboarding, viewer, operator, auditor, admin')
    .option('--permission <name...>', 'or the permissions one by one').option('--rate <perMinute>', 'calls a minute')
    .action(async (name: string, options: Row) => {
      const made = await client().call('POST', '/tokens', {
        kind: options['kind'], name, lifeDays: wholeNumber(options['days'], '--days'), ...(options['role'] === undefined ? {} : { role: options['role'] }),
        ...(options['permission'] === undefined ? {} : { permissions: options['permission'] }), ...(options['rate'] === undefined ? {} : { ratePerMinute: wholeNumber(options['rate'], '--rate') })
      })
      output().one(output().json ? made : { ...made, ...timesOf(made) })
    })
  token.command('list').description('all tokens, without their secrets').action(async () => {
    const { tokens } = await client().call('GET', '/tokens')
    const rows = (tokens as (Row & { permissions: string[] })[]).map(row => ({
      ...row, may: row.permissions.length > SHOWN_PERMISSIONS ? `${row.permissions.length} permissions` : row.permissions.join(' '), ...timesOf(row)
    }))
    output().rows(rows, { id: 'id', kind: 'kind', name: 'name', may: 'may', expiresAt: 'expires', revokedAt: 'revoked', lastUsedAt: 'last used' })
  })
  token.command('revoke').description('end a token for good').argument('<id>').action(async (id: string) => {
    await client().call('DELETE', `/tokens/${encodeURIComponent(id)}`)
    output().one({ id, revoked: true })
  })
}

function addAuditCommands (program: Command, { client, output }: Context): void {
  const audit = program.command('audit').description('the trail of provider calls')
  audit.command('verify').description('walk the chain; fails at the first row that was changed, removed or inserted')
    .option('--anchor <seq:hash>', 'a head noted earlier: finds rows cut off the end').action(async (options: Row) => {
      output().one(await client().call('POST', '/audit/verify', options['anchor'] === undefined ? {} : { anchor: anchorOf(String(options['anchor'])) }))
    })
  audit.command('list').description('rows, oldest first').option('--after <seq>', 'rows after this one', '0').option('--limit <count>', 'at most so many', '50').action(async (options: Row) => {
    const query = new URLSearchParams({ after: String(wholeNumber(options['after'], '--after')), limit: String(wholeNumber(options['limit'], '--limit')) })
    const { rows } = await client().call('GET', `/audit?${query.toString()}`)
    output().rows((rows as Row[]).map(row => ({ ...row, at: timeOf(row['atMs']) })),
      { seq: 'seq', at: 'at', actor: 'actor', service: 'service', attempt: 'attempt', status: 'status', outcome: 'outcome', latencyMs: 'ms' })
  })
}

function addTotpCommands (program: Command, { client, output }: Context): void {
  const totp = program.command('totp').description('one-time codes for sign-in over HTTP with the operator token')
  totp.command('enrol').description('a new authenticator; scan the link, then confirm').action(async () => { output().one(await client().call('POST', '/totp/enrol')) })
  totp.command('confirm').description('the first code of the authenticator: from now on sign-in needs one, and all sessions end').argument('<code>')
    .action(async (code: string) => { output().one(await client().call('POST', '/totp/confirm', { code })) })
  totp.command('disable').description('remove the authenticator').action(async () => { output().one(await client().call('POST', '/totp/disable')) })
  totp.command('status').description('does sign-in need a code?').action(async () => { output().one(await client().call('GET', '/totp')) })
  program.command('sign-in').description('with --url and the operator token: a token for hours, for --token or SOUNDBOX_TOKEN').argument('[code]', 'one-time code')
    .action(async (code: string | undefined) => { output().one(await client().call('POST', '/session', code === undefined ? {} : { code })) })
}

function anchorOf (text: string): { seq: number, hash: string } {
  const [, seq = '', hash = ''] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text) ?? []
  if (hash === '') throw new SoundboxError('INPUT_INVALID', '--anchor must be seq:hash as audit verify printed it')
  return { seq: Number(seq), hash }
}

/** The times of a token as people read them. */
function timesOf (row: Row): Row {
  return Object.fromEntries(['createdAt', 'expiresAt', 'revokedAt', 'lastUsedAt'].map(name => [name, timeOf(row[name])]))
}

function timeOf (ms: unknown): string | null {
  return typeof ms === 'number' ? new Date(ms).toISOString() : null
}
