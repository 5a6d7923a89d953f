// How the commands reach the gateway: the unix socket of its data directory, or --url with an operator token.
import { existsSync, readFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { ERRORS, type ErrorCode, isSoundboxError, SoundboxError } from '../../protocol/index.js'

/** Longer than the gateway waits for a box that has to speak. */
export const REQUEST_TIMEOUT_MS = 45_000
export const ANSWER_BYTES_MAX = 64 * 1024 * 1024

export type Target = { socketPath: string } | { url: URL, token: string }
export type Client = {
  /** The answer's JSON. Throws the gateway's own error, or GATEWAY_UNREACHABLE. */
  call: (method: string, path: string, body?: object) => Promise<Record<string, unknown>>
  /** Lines of JSON as they come, until the gateway ends or `signal` aborts. */
  stream: (path: string, onEvent: (event: Record<string, unknown>) => void, signal: AbortSignal) => Promise<void>
}
export type TargetOptions = { dataDir?: string, url?: string, token?: string, tokenFile?: string }

/** Where to go for these options and variables. Throws INPUT_INVALID, GATEWAY_UNREACHABLE. */
export function findTarget (options: TargetOptions, env: Readonly<Record<string, string | undefined>>): Target {
  if (options.url !== undefined) {
    const url = URL.parse(options.url)
    if (url === null || !['http:', 'https:'].includes(url.protocol)) throw new SoundboxError('INPUT_INVALID', '--url must be http://… or https://…')
    const token = options.token ?? (options.tokenFile === undefined ? env['SOUNDBOX_TOKEN'] : readToken(options.tokenFile))
    if (token === undefined || token === '') throw new SoundboxError('INPUT_INVALID', '--url needs --token, --token-file or SOUNDBOX_TOKEN')
    return { url, token }
  }
  const socketPath = join(options.dataDir ?? env['SOUNDBOX_DATA_DIR'] ?? 'data', 'gateway.sock')
  if (!existsSync(socketPath)) throw new SoundboxError('GATEWAY_UNREACHABLE', `no gateway runs on this data directory (${socketPath} is not there)`)
  return { socketPath }
}

/** Where a bank would post: --url, else the HTTP port of the gateway that runs on the data directory, else the default port. Never throws. */
export function bankUrl (options: TargetOptions, env: Readonly<Record<string, string | undefined>>): string {
  if (options.url !== undefined) return options.url
  const scheme = env['SOUNDBOX_HTTP_TLS'] === 'true' ? 'https' : 'http'
  try {
    const { http } = JSON.parse(readFileSync(join(options.dataDir ?? env['SOUNDBOX_DATA_DIR'] ?? 'data', 'gateway.json'), 'utf8')) as { http: number }
    return `${scheme}://127.0.0.1:${http}`
  } catch {
    return `${scheme}://127.0.0.1:8080`
  }
}

function readToken (path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (cause) {
    throw new SoundboxError('INPUT_INVALID', `--token-file ${path} cannot be read`, { cause })
  }
}

/** A client of the operator's API below /api/v1/admin. */
export function openClient (target: Target): Client {
  return {
    async call (method, path, body) {
      const text = body === undefined ? undefined : JSON.stringify(body)
      return await readAnswer(await send(target, method, path, text, REQUEST_TIMEOUT_MS))
    },
    async stream (path, onEvent, signal) {
      const answer = await send(target, 'GET', path, undefined, 0, signal).catch((error: unknown) => {
        if (signal.aborted) return undefined
        throw error
      })
      if (answer === undefined) return
      if (answer.statusCode !== 200) {
        await readAnswer(answer)
        throw new SoundboxError('GATEWAY_UNREACHABLE', `the gateway answered ${answer.statusCode ?? 0}`)
      }
      let rest = ''
      try {
        for await (const chunk of answer.setEncoding('utf8') as AsyncIterable<string>) {
          const lines = (rest + chunk).split('\n')
          rest = lines.pop() ?? ''
          for (const line of lines) if (line !== '') onEvent(JSON.parse(line) as Record<string, unknown>)
        }
      } catch (cause) {
        if (!signal.aborted) throw new SoundboxError('GATEWAY_UNREACHABLE', 'the connection to the gateway broke off', { cause })
      }
    }
  }
}

type Answer = import('node:http').IncomingMessage

function send (target: Target, method: string, path: string, body: string | undefined, timeout: number, signal?: AbortSignal): Promise<Answer> {
  const headers = {
    ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    ...('token' in target ? { authorization: `Bearer ${target.token}` } : {})
  }
  const where = 'url' in target
    ? { host: target.url.hostname.replace(/^\[(.*)\]$/, '$1'), port: target.url.port === '' ? undefined : Number(target.url.port) }
    : { socketPath: target.socketPath }
  const open = 'url' in target && target.url.protocol === 'https:' ? httpsRequest : httpRequest
  return new Promise((resolve, reject) => {
    const request = open({ ...where, method, path: `/api/v1/admin${path}`, headers, timeout, ...(signal === undefined ? {} : { signal }) }, resolve)
    request.on('timeout', () => { request.destroy(new Error('time-out')) })
    request.on('error', cause => { reject(new SoundboxError('GATEWAY_UNREACHABLE', 'the gateway does not answer', { cause })) })
    request.end(body)
  })
}

async function readAnswer (answer: Answer): Promise<Record<string, unknown>> {
  const status = answer.statusCode ?? 0
  const text = await readText(answer)
  if (status === 204) return {}
  let value: Record<string, unknown>
  try {
    value = JSON.parse(text) as Record<string, unknown>
  } catch (cause) {
    throw new SoundboxError('GATEWAY_UNREACHABLE', `the answer (HTTP ${status}) is not from a gateway`, { cause })
  }
  if (status < 400) return value
  const code = typeof value['error'] === 'string' && Object.hasOwn(ERRORS, value['error']) ? value['error'] as ErrorCode : 'SERVER_FAULT'
  throw new SoundboxError(code, typeof value['message'] === 'string' ? value['message'] : `HTTP ${status}`)
}

async function readText (answer: Answer): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > ANSWER_BYTES_MAX) throw new SoundboxError('INPUT_INVALID', `the answer is over ${ANSWER_BYTES_MAX} bytes: ask for a smaller page`)
      chunks.push(chunk)
    }
  } catch (cause) {
    throw isSoundboxError(cause) ? cause : new SoundboxError('GATEWAY_UNREACHABLE', 'the gateway broke off its answer', { cause })
  }
  return Buffer.concat(chunks).toString('utf8')
}
