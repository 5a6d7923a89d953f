// A bank, as the trigger command and the demo play it: makes the encrypted request, posts it, opens the answer.
import { openEnvelopeText, parseKey, sealEnvelope, SoundboxError } from '../../protocol/index.js'
import type { BankSecrets } from '../store/directory.js'

export const TRIGGER_TIMEOUT_MS = 10_000
export type TriggerInput = { url: string, bank: BankSecrets, columns: Readonly<Record<string, string>>, nowMs: number }
export type PreparedTrigger = { url: string, headers: Record<string, string>, body: string }
export type TriggerReply = { httpStatus: number, repeated: boolean, answer: Record<string, unknown>, ms: number }

/** The request a bank would send now. Throws INPUT_INVALID for keys that are not 32 bytes of base64. */
export function prepareTrigger ({ url, bank, columns, nowMs }: TriggerInput): PreparedTrigger {
  const path = `${url.replace(/\/+$/, '')}/${bank.base}/isu_soundbox/txn/encr/trigger`
  const json = { 'content-type': 'application/json', pass_key: bank.passKey }
  if (bank.profile === 'none') return { url: path, headers: { ...json, client_id: bank.clientId, client_secret: bank.clientSecret }, body: JSON.stringify(columns) }
  const { profile } = bank
  const secrets = JSON.stringify({ client_id: bank.clientId, client_secret: bank.clientSecret, epoch: String(Math.floor(nowMs / 1000)) })
  const seal = (key: string, text: string): string => sealEnvelope({ profile, key: needKey(key), passKey: bank.passKey }, text)
  return { url: path, headers: { ...json, header_secrets: seal(bank.headerKey, secrets) }, body: JSON.stringify({ RequestData: seal(bank.payloadKey, JSON.stringify(columns)) }) }
}

/** Posts a prepared trigger and opens an encrypted answer. Throws GATEWAY_UNREACHABLE. */
export async function postTrigger (prepared: PreparedTrigger, bank: BankSecrets, nowMs: () => number, timeoutMs = TRIGGER_TIMEOUT_MS): Promise<TriggerReply> {
  const startedAt = nowMs()
  try {
    const response = await fetch(prepared.url, { method: 'POST', headers: prepared.headers, body: prepared.body, signal: AbortSignal.timeout(timeoutMs) })
    const outer = JSON.parse(await response.text()) as Record<string, unknown>
    return { httpStatus: response.status, repeated: response.headers.get('x-served-from-cache') === 'true', answer: openAnswer(bank, outer), ms: nowMs() - startedAt }
  } catch (cause) {
    throw new SoundboxError('GATEWAY_UNREACHABLE', `no answer from ${new URL(prepared.url).origin}`, { cause })
  }
}

function openAnswer (bank: BankSecrets, outer: Record<string, unknown>): Record<string, unknown> {
  const sealed = outer['ResponseData']
  if (typeof sealed !== 'string' || bank.profile === 'none') return outer
  const text = openEnvelopeText({ profile: bank.profile, key: needKey(bank.payloadKey), passKey: bank.passKey }, sealed)
  return text === undefined ? outer : JSON.parse(text) as Record<string, unknown>
}

/** The same request as lines for a shell: openssl makes the envelope, curl sends it. Throws INPUT_INVALID for profiles openssl's command cannot do. */
export function curlLines ({ url, bank, columns }: Omit<TriggerInput, 'nowMs'>): string {
  const path = `${url.replace(/\/+$/, '')}/${bank.base}/isu_soundbox/txn/encr/trigger`
  if (bank.profile === 'none') {
    const headers = { 'content-type': 'application/json', pass_key: bank.passKey, client_id: bank.clientId, client_secret: bank.clientSecret }
    const flags = Object.entries(headers).map(([name, value]) => `-H ${quote(`${name}: ${value}`)}`)
    return `curl -sS ${quote(path)} ${flags.join(' ')} -d ${quote(JSON.stringify(columns))}\n`
  }
  if (bank.profile === 'aes-256-gcm') throw new SoundboxError('INPUT_INVALID', 'the openssl command cannot do AES-GCM: see the Node and Python samples for aes-256-gcm')
  return [
    `HEADER_KEY=$(printf %s ${quote(bank.headerKey)} | base64 -d | od -An -v -tx1 | tr -d ' \\n')`,
    `PAYLOAD_KEY=$(printf %s ${quote(bank.payloadKey)} | base64 -d | od -An -v -tx1 | tr -d ' \\n')`,
    '# base64( IV || AES-256-CBC-PKCS7( text ) )',
    'seal() { iv=$(openssl rand -hex 16); { printf "$(printf %s "$iv" | sed \'s/../\\\\x&/g\')"; printf %s "$2" | openssl enc -aes-256-cbc -K "$1" -iv "$iv"; } | base64 -w 0; }',
    'open_sealed() { bytes=$(base64 -d | od -An -v -tx1 | tr -d \' \\n\')',
    'printf "$(printf %s "${bytes:32}" | sed \'s/../\\\\x&/g\')" | openssl enc -d -aes-256-cbc -K "$1" -iv "${bytes:0:32}"; echo; }',
    `SECRETS=$(seal "$HEADER_KEY" ${quote(`${JSON.stringify({ client_id: bank.clientId, client_secret: bank.clientSecret }).slice(0, -1)},"epoch":"`)}"$(date +%s)"'"}')`,
    `REQUEST=$(seal "$PAYLOAD_KEY" ${quote(JSON.stringify(columns))})`,
    `ANSWER=$(curl -sS ${quote(path)} -H 'content-type: application/json' -H ${quote(`pass_key: ${bank.passKey}`)} -H "header_secrets: $SECRETS" -d "{\\"RequestData\\":\\"$REQUEST\\"}")`,
    'case "$ANSWER" in *ResponseData*) printf %s "$ANSWER" | sed \'s/.*"ResponseData":"//; s/".*//\' | open_sealed "$PAYLOAD_KEY" ;; *) echo "$ANSWER" ;; esac',
    ''
  ].join('\n')
}

/** One word of a POSIX shell. */
function quote (text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

function needKey (text: string): Buffer {
  const key = parseKey(text)
  if (key === undefined) throw new SoundboxError('INPUT_INVALID', 'a key must be base64 of exactly 32 bytes')
  return key
}
