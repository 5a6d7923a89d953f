// A provider on loopback that does what a scenario says: answers, errors, silence, half an answer, a broken wire, too much of everything.
// A real HTTP(S) server, so that sockets, TLS and parsers are the real ones. Every request is kept.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

/** One answer. `json` and `text` are the body; `type` overrides the content type. */
export type Step =
  | { do: 'answer', status?: number, json?: unknown, text?: string, type?: string, headers?: Record<string, string> }
  | { do: 'silence' }
  | { do: 'half', status?: number, length: number, text: string }
  | { do: 'reset' }
  | { do: 'reset-mid-body', length: number, text: string }
  | { do: 'drip', byte: string }
  | { do: 'huge', bytes: number, announced: boolean }
  | { do: 'garbage', text: string }
export type Scenario = Readonly<Record<string, readonly Step[]>>

export type SeenRequest = { method: string, path: string, headers: IncomingMessage['headers'], body: string }
export type ProviderDouble = {
  url: string
  port: number
  seen: SeenRequest[]
  connections: () => number
  /** Sends one more byte on every dripping answer. */
  drip: () => void
  close: () => Promise<void>
}
export type DoubleOptions = { tls?: { cert: string, key: string, ca?: string, requestCert?: boolean }, host?: string }

/** Serves a scenario: path (without query) -> steps, one a request; the last one stays. Unknown paths answer 404. */
export async function openProviderDouble (scenario: Scenario, options: DoubleOptions = {}): Promise<ProviderDouble> {
  const seen: SeenRequest[] = []
  const used = new Map<string, number>()
  const sockets = new Set<Socket>()
  const dripping: { response: ServerResponse, byte: string }[] = []
  let connections = 0
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => { chunks.push(chunk) })
    request.on('error', () => {})
    response.on('error', () => {})
    request.on('end', () => {
      const path = (request.url ?? '').split('?')[0] ?? ''
      seen.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString('utf8') })
      const steps = scenario[path] ?? [{ do: 'answer', status: 404, json: { error: 'no such path' } }]
      const index = used.get(path) ?? 0
      used.set(path, index + 1)
      perform(steps[Math.min(index, steps.length - 1)]!, response, dripping)
    })
  }
  const { tls } = options
  const server = tls === undefined
    ? createServer(serve)
    : createTlsServer({ cert: tls.cert, key: tls.key, ...(tls.ca === undefined ? {} : { ca: tls.ca }), requestCert: tls.requestCert ?? false,
      rejectUnauthorized: tls.requestCert ?? false }, serve)
  server.on('connection', (socket: Socket) => {
    connections += 1
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('tlsClientError', () => {})
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  return {
    url: `${tls === undefined ? 'http' : 'https'}://${options.host ?? '127.0.0.1'}:${port}`,
    port,
    seen,
    connections: () => connections,
    drip: () => { for (const { response, byte } of dripping) if (!response.destroyed) response.write(byte) },
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise(resolve => { server.close(resolve) })
    }
  }
}

function perform (step: Step, response: ServerResponse, dripping: { response: ServerResponse, byte: string }[]): void {
  switch (step.do) {
    case 'answer':
      response.writeHead(step.status ?? 200, { 'content-type': step.type ?? (step.text === undefined ? 'application/json' : 'text/plain'), ...step.headers })
      response.end(step.text ?? JSON.stringify(step.json ?? {}))
      return
    case 'silence': return
    case 'half':
      response.writeHead(step.status ?? 200, { 'content-type': 'application/json', 'content-length': step.length })
      response.write(step.text)
      return
    case 'reset':
      response.socket?.destroy()
      return
    case 'reset-mid-body':
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': step.length })
      response.write(step.text, () => { response.socket?.destroy() })
      return
    case 'drip':
      response.writeHead(200, { 'content-type': 'application/json' })
      response.write(step.byte)
      dripping.push({ response, byte: step.byte })
      return
    case 'huge':
      response.writeHead(200, { 'content-type': 'application/json', ...(step.announced ? { 'content-length': step.bytes } : {}) })
      if (step.announced) response.flushHeaders()
      else writeMuch(response, step.bytes)
      return
    case 'garbage':
      response.socket?.end(step.text)
      return
    default: step satisfies never
  }
}

function writeMuch (response: ServerResponse, bytes: number): void {
  const piece = ' '.repeat(16_384)
  let left = bytes
  const more = (): void => {
    while (left > 0 && !response.destroyed) {
      left -= piece.length
      if (!response.write(piece)) {
        response.once('drain', more)
        return
      }
    }
    response.end()
  }
  more()
}
