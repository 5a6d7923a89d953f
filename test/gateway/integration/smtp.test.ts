// The SMTP transport against a real SMTP server on loopback: what it takes, what it refuses, and what it leaves open.
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { SMTPServer, type SMTPServerOptions } from 'smtp-server'
import t from 'tap'
import { SILENT_LOG } from '../../../protocol/index.js'
import type { AuditEntry } from '../../../gateway/integration/audit.js'
import { parseIntegrationConfig } from '../../../gateway/integration/config.js'
import { parseServiceRequest, type ServiceRequest, type ServiceResponse } from '../../../gateway/integration/contract.js'
import { openClock } from '../../../gateway/integration/figures.js'
import { openPolicy } from '../../../gateway/integration/policy.js'
import { faultFromError, messageIdFromRef, rateWaitMs, smtpTransport } from '../../../gateway/integration/smtp-mailer.js'

type Test = { teardown: (work: () => unknown) => void }
type Mail = ServiceRequest<'send_email_message'>
type Reply = Error & { responseCode: number }
const MAIL: Mail = { to: ['shop@example.invalid'], subject: 'Takings of 5 January', text: '42 payments, 80,300.00', client_ref: 'r-20260105' }

const replyWith = (responseCode: number): Reply => Object.assign(new Error('shop@example.invalid is not welcome'), { responseCode })

/** A mail server; `mails` are what it took for good. */
async function openServer (t: Test, options: SMTPServerOptions = {}): Promise<{ port: number, mails: string[], server: SMTPServer }> {
  const mails: string[] = []
  const server = new SMTPServer({
    logger: false, authOptional: true, closeTimeout: 50,
    onData (stream, _session, done) {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('end', () => {
        mails.push(Buffer.concat(chunks).toString('utf8'))
        done()
      })
    },
    ...options
  })
  server.on('error', () => {})
  const listener = server.listen(0, '127.0.0.1')
  await new Promise(resolve => { listener.once('listening', resolve) })
  t.teardown(async () => await new Promise<void>(resolve => { server.close(resolve) }))
  return { port: (listener.address() as AddressInfo).port, mails, server }
}

/** A raw TCP server for what a mail library would never do. */
async function openRaw (t: Test, talk: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    talk(socket)
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function openMailer (t: Test, port: number, env: Record<string, string> = {}) {
  const { email } = parseIntegrationConfig({
    SOUNDBOX_ENV: 'test', EMAIL_SMTP_HOST: '127.0.0.1', EMAIL_SMTP_PORT: String(port), EMAIL_SMTP_FROM: 'soundbox@gateway.invalid', EMAIL_SMTP_SECURITY: 'none', ...env
  }, () => { throw new Error('no files') })
  const rows: AuditEntry[] = []
  const nowMs = (): number => Math.floor(performance.timeOrigin + performance.now())
  const policy = openPolicy({
    issuer: 'email', limits: email.limits, clock: openClock(nowMs), random: () => 0, log: SILENT_LOG, audit: { record: entry => { rows.push(entry) }, assertRoom: () => {} }
  })
  const transport = smtpTransport(email, { run: policy.run, nowMs })
  t.teardown(async () => await transport.close())
  const send = async (mail: Mail = MAIL): Promise<ServiceResponse<'send_email_message'>> => await transport.call('send_email_message', mail, {
    traceId: '0'.repeat(32), actor: 'test', background: true, reference: 'R1', service: 'send_email_message'
  })
  return { send, rows, transport }
}

t.test('a mail goes over STARTTLS with a login, and carries a Message-ID of ours', async t => {
  const logins: string[] = []
  const { port, mails } = await openServer(t, {
    authOptional: false,
    onAuth (auth, _session, done) {
      logins.push(`${auth.username}:${auth.password}`)
      done(null, { user: auth.username })
    }
  })
  const mailer = openMailer(t, port, { EMAIL_SMTP_SECURITY: 'starttls', EMAIL_SMTP_TLS: 'relaxed', EMAIL_SMTP_USER: 'box', EMAIL_SMTP_PASSWORD: 'secret-7' })
  const answer = await mailer.send({ ...MAIL, cc: ['boss@example.invalid'], html: '<b>42</b>' })
  t.same(answer, {
    client_ref: 'r-20260105', message_id: messageIdFromRef('r-20260105', 'gateway.invalid'), accepted: ['shop@example.invalid', 'boss@example.invalid'], rejected: []
  })
  t.same(logins, ['box:secret-7'])
  t.match(mails[0], /^From: soundbox@gateway\.invalid\r$/m)
  t.match(mails[0], new RegExp(`^Message-ID: ${answer.message_id}\r$`, 'm'))
  t.match(mails[0], /42 payments, 80,300\.00/)
  t.match(mails[0], /<b>42<\/b>/)
  t.notMatch(JSON.stringify(mailer.rows), /secret-7|example\.invalid|80,300/, 'the audit row counts recipients and names none')
})

t.test('TLS is not given up: no STARTTLS, or a certificate that nobody vouches for, sends nothing', async t => {
  const bare = await openServer(t, { hideSTARTTLS: true, disabledCommands: ['STARTTLS', 'AUTH'] })
  await t.rejects(openMailer(t, bare.port, { EMAIL_SMTP_SECURITY: 'starttls', EMAIL_SMTP_TLS: 'relaxed' }).send(), { code: 'PROVIDER_UNAVAILABLE', message: /ETLS/ })
  const selfSigned = await openServer(t)
  const strict = openMailer(t, selfSigned.port, { EMAIL_SMTP_SECURITY: 'starttls' })
  await t.rejects(strict.send(), { code: 'PROVIDER_UNAVAILABLE', message: /certificate/ })
  t.equal(strict.rows.length, 1, 'a certificate does not get better by asking again')
  t.same([...bare.mails, ...selfSigned.mails], [])
})

t.test('a wrong password is a setting to correct, not a reason to repeat', async t => {
  const { port, mails } = await openServer(t, { authOptional: false, allowInsecureAuth: true, onAuth (_auth, _session, done) { done(new Error('no')) } })
  const mailer = openMailer(t, port, { EMAIL_SMTP_USER: 'box', EMAIL_SMTP_PASSWORD: 'wrong-one' })
  await t.rejects(mailer.send(), { code: 'PROVIDER_CONFIG', message: /EAUTH/ })
  t.equal(mailer.rows.length, 1)
  t.same(mails, [])
})

t.test('refused recipients are told apart; nobody left is a refusal, and the server\'s words are not repeated', async t => {
  const { port, mails } = await openServer(t, { onRcptTo ({ address }, _session, done) { done(address.startsWith('gone') ? replyWith(550) : null) } })
  const mailer = openMailer(t, port)
  const answer = await mailer.send({ ...MAIL, to: ['gone@example.invalid', 'shop@example.invalid'] })
  t.same([answer.accepted, answer.rejected], [['shop@example.invalid'], ['gone@example.invalid']])
  const refusal = await mailer.send({ ...MAIL, to: ['gone@example.invalid'] }).then(() => undefined, (error: unknown) => error as Error & { code: string })
  t.equal(refusal?.code, 'PROVIDER_REJECTED')
  t.notMatch(refusal?.message, /example|welcome/)
  t.equal(mails.length, 1)
})

t.test('"later" is tried again, three times at most, and is certainly not sent', async t => {
  let asked = 0
  const { port, mails } = await openServer(t, { onRcptTo (_address, _session, done) { done(++asked === 2 ? null : replyWith(451)) } })
  const mailer = openMailer(t, port)
  t.equal((await mailer.send()).accepted.length, 1)
  t.equal(asked, 2)
  asked = 2
  await t.rejects(mailer.send({ ...MAIL, client_ref: 'r-2' }), { code: 'PROVIDER_UNAVAILABLE', message: /451/ })
  t.equal(asked, 5)
  t.equal(mails.length, 1)
})

t.test('a message that is refused after its last line is refused', async t => {
  const { port } = await openServer(t, { onData (stream, _session, done) { stream.resume().on('end', () => done(replyWith(554))) } })
  await t.rejects(openMailer(t, port).send(), { code: 'PROVIDER_REJECTED', message: /554/ })
})

t.test('a connection that breaks after the message leaves it unknown, and it goes once', async t => {
  let data = 0
  const { port } = await openServer(t, {
    onData (stream, session) {
      stream.resume().on('end', () => {
        data += 1
        for (const connection of connections) if (connection.id === session.id) connection.close()
      })
    }
  }).then(opened => {
    connections = opened.server.connections as unknown as Set<{ id: string, close: () => void }>
    return opened
  })
  const mailer = openMailer(t, port)
  await t.rejects(mailer.send(), { code: 'PROVIDER_STATE_UNKNOWN' })
  t.equal(data, 1)
  t.equal(mailer.rows.length, 1)
})
let connections: Set<{ id: string, close: () => void }> = new Set()

t.test('a server that never answers the message ends at the deadline, unknown', async t => {
  const { port } = await openServer(t, { onData (stream) { stream.resume() } })
  await t.rejects(openMailer(t, port, { EMAIL_SMTP_TIMEOUT_MS: '300', EMAIL_SMTP_CONNECT_TIMEOUT_MS: '200' }).send(), { code: 'PROVIDER_STATE_UNKNOWN' })
})

t.test('nobody there, or nobody who greets: nothing was sent, and it is tried again', async t => {
  const closed = await openRaw(t, socket => socket.destroy())
  const empty = createServer()
  await new Promise<void>(resolve => { empty.listen(0, '127.0.0.1', resolve) })
  const free = (empty.address() as AddressInfo).port
  await new Promise(resolve => { empty.close(resolve) })
  const absent = openMailer(t, free)
  await t.rejects(absent.send(), { code: 'PROVIDER_UNAVAILABLE', message: /ESOCKET|ECONNECTION/ })
  t.equal(absent.rows.length, 3)
  const silent = openMailer(t, await openRaw(t, () => {}), { EMAIL_SMTP_HEADERS_TIMEOUT_MS: '50' })
  await t.rejects(silent.send(), { code: 'PROVIDER_UNAVAILABLE', message: /ETIMEDOUT/ })
  t.equal(silent.rows.length, 3)
  await t.rejects(openMailer(t, closed).send(), { code: 'PROVIDER_STATE_UNKNOWN' }, 'a server that hangs up without a word: the safe side')
})

t.test('an idle connection that the server has dropped costs nothing: the next mail goes, once', async t => {
  const { port, mails, server } = await openServer(t)
  const mailer = openMailer(t, port)
  await mailer.send()
  await new Promise(resolve => { setImmediate(resolve) })
  for (const connection of server.connections) (connection as unknown as { close: () => void }).close()
  t.equal((await mailer.send({ ...MAIL, client_ref: 'r-2' })).accepted.length, 1)
  t.equal(mails.length, 2)
})

t.test('our own rate holds: the mail beyond it does not leave', async t => {
  const { port, mails } = await openServer(t)
  const mailer = openMailer(t, port, { EMAIL_SMTP_RATE_PER_MINUTE_MAX: '1' })
  await mailer.send()
  await t.rejects(mailer.send({ ...MAIL, client_ref: 'r-2' }), { code: 'PROVIDER_UNAVAILABLE', message: /rate/ })
  t.equal(mails.length, 1)
  const sent = [1000, 2000]
  t.equal(rateWaitMs(sent, 60_999, 2), 1)
  t.equal(rateWaitMs(sent, 61_000, 2), 0)
  t.same(sent, [2000])
})

t.test('nothing in a message can make the gateway read a file or a URL', async t => {
  const { port, mails } = await openServer(t)
  const mailer = openMailer(t, port)
  for (const text of [{ path: '/etc/hostname' }, { href: 'http://127.0.0.1:1/' }]) {
    await t.rejects(mailer.send({ ...MAIL, text: text as never }), { code: 'PROVIDER_CONFIG', message: /ESTREAM/ })
  }
  t.throws(() => parseServiceRequest('send_email_message', { ...MAIL, subject: 'a\r\nBcc: x@example.invalid' }), { code: 'INPUT_INVALID' })
  t.throws(() => parseServiceRequest('send_email_message', { ...MAIL, to: ['a@example.invalid,b@example.invalid'] }), { code: 'INPUT_INVALID' })
  t.same(mails, [])
})

t.test('a Message-ID is valid for every client_ref and the same for the same one', async t => {
  for (const ref of ['n-1', 'a..b', '.a.', 'x:y_z', 'A'.repeat(64)]) {
    const id = messageIdFromRef(ref, 'gateway.invalid')
    t.match(id, /^<[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*@gateway\.invalid>$/)
    t.equal(id, messageIdFromRef(ref, 'gateway.invalid'))
  }
  t.not(messageIdFromRef('a.b', 'x.invalid'), messageIdFromRef('a_b', 'x.invalid'))
})

t.test('faults that no server here shows are judged too', async t => {
  for (const [code, want] of [
    ['EDNS', { kind: 'connect', sent: false, final: false }], ['ECONFIG', { kind: 'blocked', sent: false, final: true }], ['EABORT', { kind: 'timeout', sent: true }],
    ['ETIMEDOUT', { kind: 'timeout', sent: true }], ['EPROTOCOL', { kind: 'reset', sent: true }], ['EREQUIRETLS', { kind: 'tls', sent: false, final: true }]
  ] as const) t.match(faultFromError({ code, message: 'x' }), want, code)
  t.match(faultFromError({ code: 'ETIMEDOUT', message: 'x', timeoutType: 'UPGRADE_TIMEOUT' }), { kind: 'connect', sent: false })
})

t.test('host and sender are needed; other services are not offered', async t => {
  const { email } = parseIntegrationConfig({}, () => '')
  t.throws(() => smtpTransport(email, { run: async () => { throw new Error('unused') }, nowMs: () => 0 }), { code: 'PROVIDER_CONFIG' })
  const { port } = await openServer(t)
  const { transport } = openMailer(t, port)
  t.equal(transport.has('send_sms_message'), false)
  await t.rejects(transport.call('account_balance_cbs', { account_no: '0102' }, {
    traceId: '', actor: '', background: true, reference: 'R', service: 'account_balance_cbs'
  }), { code: 'PROVIDER_CONFIG' })
})
