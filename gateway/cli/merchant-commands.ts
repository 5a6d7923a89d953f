// merchant: which merchant speaks through which soundbox, whether he is who he says, and who gets a message when no box has spoken.
import type { Command } from 'commander'
import { type Context, type Row, wholeNumber } from './context.js'

/** Adds the commands to the program. */
export function addMerchantCommands (program: Command, context: Context): void {
  const merchant = program.command('merchant').description('merchants: mapping, check, stand-in messages')
  addMappingCommands(merchant, context)
  addCheckCommands(merchant, context)
  addStandInCommands(merchant.command('stand-in').description('SMS, push or e-mail for a payment that no soundbox has spoken'), context)
}

function addMappingCommands (merchant: Command, { client, output }: Context): void {
  const withBox = (name: string, what: string): Command => merchant.command(name).description(what)
    .requiredOption('--bank <id>').option('--merchant <vpa>', 'VPA or mid; leave out for a bank without database', '').requiredOption('--device <tid>')
  const bodyOf = (options: Row): Row => ({ bank: options['bank'], merchant: options['merchant'], tid: options['device'] })
  withCheck(withBox('map', 'map a merchant and a soundbox; with a name he is checked first')).option('--accept-review', 'a person has looked at a check that says review')
    .action(async (options: Row) => {
      const check = options['name'] === undefined ? {} : { check: { ...checkOf(options), ...(options['acceptReview'] === true ? { acceptReview: true } : {}) } }
      output().one(await client().call('POST', '/merchants/map', { ...bodyOf(options), ...check }))
    })
  withBox('unmap', 'unmap a merchant and a soundbox').action(async (options: Row) => { output().one(await client().call('POST', '/merchants/unmap', bodyOf(options))) })
  merchant.command('list').description('all mappings').action(async () => {
    const { mappings } = await client().call('GET', '/merchants')
    output().rows(mappings as Row[], { bankId: 'bank', merchant: 'merchant', tid: 'tid', mappedAt: 'mapped' })
  })
}

function addCheckCommands (merchant: Command, { client, output }: Context): void {
  const named = (name: string, what: string): Command => merchant.command(name).description(what).requiredOption('--bank <id>').requiredOption('--merchant <vpa>')
  withCheck(named('check', 'do account or wallet, name and identity check agree?'))
    .action(async (options: Row) => { output().one(await client().call('POST', '/merchants/check', { bank: options['bank'], merchant: options['merchant'], check: checkOf(options) })) })
  named('identify', 'open an identity check; the merchant goes through it at the url').option('--callback <url>', 'where he returns to').action(async (options: Row) => {
    output().one(await client().call('POST', '/merchants/identity', {
      bank: options['bank'], merchant: options['merchant'], ...(options['callback'] === undefined ? {} : { callback: options['callback'] })
    }))
  })
  named('identity', 'how his newest identity check stands').action(async (options: Row) => { output().one(await client().call('GET', `/merchants/identity?${nameQuery(options)}`)) })
}

function addStandInCommands (standIn: Command, { client, output }: Context): void {
  standIn.command('set').description('send this merchant a message when no box has spoken').requiredOption('--bank <id>').requiredOption('--merchant <vpa>')
    .requiredOption('--channel <channel>', 'sms, push or email').requiredOption('--to <where>', 'phone number (E.164), registration token, or address')
    .option('--after <seconds>', 'from the payment, 3 to 120', '15').option('--from-amount <amount>', 'smaller payments get none')
    .action(async (options: Row) => {
      output().one(await client().call('PUT', '/merchants/stand-in', {
        bank: options['bank'], merchant: options['merchant'], channel: options['channel'], to: options['to'], afterSeconds: wholeNumber(options['after'], '--after'),
        ...(options['fromAmount'] === undefined ? {} : { fromAmount: options['fromAmount'] })
      }))
    })
  standIn.command('remove').description('no messages for this merchant any more').requiredOption('--bank <id>').requiredOption('--merchant <vpa>').action(async (options: Row) => {
    await client().call('DELETE', `/merchants/stand-in?${nameQuery(options)}`)
    output().one({ bank: options['bank'], merchant: options['merchant'], removed: true })
  })
  standIn.command('list').description('who gets messages').action(async () => {
    const { policies } = await client().call('GET', '/merchants/stand-in')
    output().rows(policies as Row[], { bank: 'bank', merchant: 'merchant', channel: 'channel', to: 'to', afterSeconds: 'after s', fromAmount: 'from' })
  })
  standIn.command('log').description('the newest messages and what became of them').option('--limit <count>', 'at most so many', '50').action(async (options: Row) => {
    const { standIns } = await client().call('GET', `/stand-ins?limit=${wholeNumber(options['limit'], '--limit')}`)
    output().rows(standIns as Row[], {
      acceptedAt: 'accepted', bank: 'bank', transactionId: 'transaction', merchant: 'merchant', amount: 'amount', channel: 'channel', to: 'to', state: 'state', attempts: 'tries', reason: 'reason'
    })
  })
}

function withCheck (command: Command): Command {
  return command.option('--name <name...>', 'legal or trade name').option('--account <number>', 'his account, with --fsp or --bic').option('--fsp <id>', 'his bank in the payment scheme')
    .option('--bic <bic>', 'his bank').option('--mno <name>', 'his wallet\'s operator, with --msisdn').option('--msisdn <number>', 'his wallet, E.164')
    .option('--kyc-session <id>', 'identity check (default: the newest that was opened for him)')
}

function checkOf (options: Row): Row {
  const bank = { ...(options['fsp'] === undefined ? {} : { fspId: options['fsp'] }), ...(options['bic'] === undefined ? {} : { bic: options['bic'] }) }
  return {
    names: options['name'] ?? [],
    ...(options['account'] === undefined ? {} : { account: { accountNo: options['account'], ...bank } }),
    ...(options['msisdn'] === undefined && options['mno'] === undefined ? {} : { wallet: { mno: options['mno'] ?? '', msisdn: options['msisdn'] ?? '' } }),
    ...(options['kycSession'] === undefined ? {} : { kycSession: options['kycSession'] })
  }
}

function nameQuery (options: Row): string {
  return new URLSearchParams({ bank: String(options['bank']), merchant: String(options['merchant']) }).toString()
}
