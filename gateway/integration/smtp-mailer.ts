// E-mail by SMTP (nodemailer), as a transport of the issuer `email`. The pool keeps connections; TLS is demanded unless the settings say
// otherwise; nothing in a message can make nodemailer read a file or a URL.
//
// Message-ID is ours and comes from client_ref alone, so that a mail that went out twice can be recognised as one.
// Until the server has taken the whole message nothing is sent for good: refusals before that are certain. A connection that breaks in
// between leaves the call in unknown state, and it is not repeated. The pool itself may requeue once, and only a mail of which it knows
// that not a byte had left (maxRequeues 5, its default, would do so too, but nothing bounds it by our deadline).
import { createHash } from 'node:crypto'
import { createTransport, type NodemailerError } from 'nodemailer'
import { SoundboxError } from '../../protocol/index.js'
import type { EmailSMTPConfig } from './config.js'
import type { ServiceName, ServiceRequest, ServiceResponse } from './contract.js'
import type { Attempt, AttemptFault, CallRunner, Transport } from './provider.js'

const CONNECTIONS_MAX = 4
const MESSAGES_PER_CONNECTION_MAX = 100
const IDLE_MS = 30_000 // Servers drop idle clients after a minute and more: we go first.
const RATE_WINDOW_MS = 60_000
const NOT_CONNECTED = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL', 'CONNECT_TIMEOUT', 'GREETING_TIMEOUT', 'UPGRADE_TIMEOUT']
const CERTIFICATE_FAULT = /CERT|SIGNATURE|^(?:ERR_TLS|ERR_SSL|HOSTNAME_MISMATCH|INVALID_CA|EPROTO)/ // As CERT_HAS_EXPIRED, UNABLE_TO_VERIFY_LEAF_SIGNATURE.

export type SmtpDeps = { run: CallRunner, nowMs: () => number }
type MailRequest = ServiceRequest<'send_email_message'>
type MailResponse = ServiceResponse<'send_email_message'>

/** The transport of the issuer `email`. Throws PROVIDER_CONFIG without host or sender. */
export function smtpTransport (config: EmailSMTPConfig, deps: SmtpDeps): Transport {
  const { host, from, port } = config
  if (host === undefined || from === undefined) throw new SoundboxError('PROVIDER_CONFIG', 'EMAIL_SMTP_HOST and EMAIL_SMTP_FROM must be set')
  const domain = config.domain ?? from.split('@')[1] ?? host
  const mailer = openMailer(config, host, domain)
  const sentAtMs: number[] = []
  const target = {
    issuer: 'email' as const, host: `${host}:${port}`, uriKey: 'send', idempotent: false, auditFields: ['client_ref', 'message_id', 'recipients', 'accepted', 'rejected', 'code']
  }
  const attempt = async (mail: MailRequest, signal: AbortSignal): Promise<Attempt<MailResponse>> => {
    const messageId = messageIdFromRef(mail.client_ref, domain)
    const trail = {
      url: `smtp://${host}:${port}`, method: 'SMTP', request: { client_ref: mail.client_ref, message_id: messageId, recipients: mail.to.length + (mail.cc?.length ?? 0) }
    }
    const waitMs = rateWaitMs(sentAtMs, deps.nowMs(), config.ratePerMinuteMax)
    if (waitMs > 0) return { ok: false, trail, fault: { kind: 'status', sent: false, final: false, refused: true, retryAfterMs: waitMs, message: 'our own rate of mails a minute is reached' } }
    sentAtMs.push(deps.nowMs())
    try {
      const info = await mailer.sendMail({ ...contentOf(mail), from, messageId, signal })
      const value = { client_ref: mail.client_ref, message_id: messageId, accepted: info.accepted.map(addressText), rejected: info.rejected.map(addressText) }
      return { ok: true, value, trail: { ...trail, response: { accepted: value.accepted.length, rejected: value.rejected.length } } }
    } catch (error) {
      const fault = faultFromError(error as NodemailerError)
      return { ok: false, fault, trail: { ...trail, response: { code: (error as NodemailerError).responseCode } } }
    }
  }
  return {
    kind: 'smtp',
    name: 'smtp',
    has: service => service === 'send_email_message',
    call: async <S extends ServiceName>(service: S, input: ServiceRequest<S>, ctx: Parameters<Transport['call']>[2]): Promise<ServiceResponse<S>> => {
      if (service !== 'send_email_message') throw new SoundboxError('PROVIDER_CONFIG', `SMTP does not offer ${service}`)
      return await deps.run(ctx, target, async ({ cancel }) => await attempt(input as MailRequest, cancel.signal())) as ServiceResponse<S>
    },
    close: async () => mailer.close()
  }
}

function openMailer (config: EmailSMTPConfig, host: string, domain: string) {
  const { tls, limits } = config
  return createTransport({
    pool: true, host, port: config.port, name: domain,
    secure: config.security === 'tls', requireTLS: config.security === 'starttls', ignoreTLS: config.security === 'none',
    ...(config.user === undefined ? {} : { auth: { user: config.user, pass: config.password?.reveal() } }),
    tls: {
      rejectUnauthorized: tls.mode === 'strict', minVersion: 'TLSv1.2',
      ...(tls.ca === undefined ? {} : { ca: tls.ca }), ...(tls.cert === undefined ? {} : { cert: tls.cert }), ...(tls.key === undefined ? {} : { key: tls.key.reveal() })
    },
    maxConnections: Math.min(CONNECTIONS_MAX, limits.activeMax), maxMessages: MESSAGES_PER_CONNECTION_MAX, maxRequeues: 1, idleTimeout: IDLE_MS,
    connectionTimeout: limits.connectMs, dnsTimeout: limits.connectMs, greetingTimeout: limits.headersMs, socketTimeout: limits.bodyMs,
    disableFileAccess: true, disableUrlAccess: true
  })
}

/** `<sb.n-1001.0a1b2c3d@domain>`: readable, valid for any client_ref (RFC 5322 3.6.4), and the same for the same one. */
export function messageIdFromRef (clientRef: string, domain: string): string {
  const plain = clientRef.replace(/[^A-Za-z0-9-]/g, '-')
  return `<sb.${plain}.${createHash('sha256').update(clientRef, 'utf8').digest('hex').slice(0, 8)}@${domain}>`
}

function contentOf (mail: MailRequest): object {
  return {
    to: mail.to, ...(mail.cc === undefined ? {} : { cc: mail.cc }), subject: mail.subject, ...(mail.text === undefined ? {} : { text: mail.text }),
    ...(mail.html === undefined ? {} : { html: mail.html }), disableFileAccess: true, disableUrlAccess: true
  }
}

function addressText (entry: string | { address: string }): string {
  return typeof entry === 'string' ? entry : entry.address
}

/** Milliseconds until one more mail fits into the minute; forgets what is older. 0 = now. */
export function rateWaitMs (sentAtMs: number[], nowMs: number, perMinuteMax: number): number {
  while (sentAtMs[0] !== undefined && sentAtMs[0] <= nowMs - RATE_WINDOW_MS) sentAtMs.shift()
  return sentAtMs.length < perMinuteMax ? 0 : (sentAtMs[0] ?? nowMs) + RATE_WINDOW_MS - nowMs
}

/** What an error of nodemailer means for the call. Server texts are not shown: they repeat addresses. */
export function faultFromError (error: Pick<NodemailerError, 'code' | 'responseCode' | 'message'> & { originalCode?: unknown, timeoutType?: unknown }): AttemptFault {
  const reply = error.responseCode === undefined ? '' : ` (reply ${error.responseCode})`
  const isLater = error.responseCode !== undefined && error.responseCode >= 400 && error.responseCode < 500
  const base = { cause: error, message: `the mail server failed with ${error.code ?? 'an unknown fault'}${reply}` }
  switch (error.code) {
    case 'EAUTH': case 'ENOAUTH': case 'EOAUTH2': return { ...base, kind: 'auth', sent: true, refused: true, final: true }
    case 'ETLS': case 'EREQUIRETLS': return { ...base, kind: 'tls', sent: false, final: true }
    case 'EDNS': case 'EPROXY': return { ...base, kind: 'connect', sent: false, final: false }
    // ESTREAM: making the message failed on our side, so its end was never sent and the server has dropped it.
    case 'ESTREAM': case 'ECONFIG': case 'EFILEACCESS': case 'EURLACCESS': case 'EMAXRECIPIENTS': return { ...base, kind: 'blocked', sent: false, final: true }
    case 'EENVELOPE': case 'EMESSAGE': return isLater
      ? { ...base, kind: 'status', sent: true, refused: true, final: false, retryAfterMs: 0 }
      : { ...base, kind: 'rejected', sent: true, refused: true, final: true }
    case 'EABORT': return { ...base, kind: 'timeout', sent: true, final: false }
    default: break
  }
  const words = [error.originalCode, error.timeoutType].filter(word => typeof word === 'string')
  if (words.some(word => CERTIFICATE_FAULT.test(word))) return { ...base, kind: 'tls', sent: false, final: true, message: 'the certificate of the mail server is not accepted' }
  const isConnecting = words.some(word => NOT_CONNECTED.includes(word))
  if (isConnecting) return { ...base, kind: 'connect', sent: false, final: false }
  return { ...base, kind: error.code === 'ETIMEDOUT' ? 'timeout' : 'reset', sent: true, final: false }
}
