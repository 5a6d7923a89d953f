// The other end of bench/iso-tcp.bench.ts, a process of its own. Usage: node iso-bench-server.js ours|bare plain|tls
//   ours: the door for switches with every hook on: masked records of each message both ways, metrics. bare: sends back what it gets.
// Prints the port.
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { Registry } from 'prom-client'
import { answerTo } from '../../gateway/iso8583/dialect.js'
import { openIsoMeter } from '../../gateway/iso8583/meter.js'
import { parsePeer } from '../../gateway/iso8583/peers.js'
import { openIsoServer } from '../../gateway/iso8583/server.js'
import { makeTimers, SILENT_LOG } from '../../protocol/index.js'
import { makeCertificate } from './test-certificates.js'

const [kind = 'ours', wire = 'plain'] = process.argv.slice(2)
const issuer = makeCertificate({ commonName: 'bench CA', isCa: true }, Date.now())
const own = makeCertificate({ commonName: 'gateway', hosts: ['127.0.0.1'], issuer }, Date.now())
const client = makeCertificate({ commonName: 'bench', hosts: ['127.0.0.1'], issuer }, Date.now())
const pair = { key: own.key, cert: own.cert, ca: issuer.cert }
let recorded = 0

if (kind === 'bare') {
  const echo = (socket: Socket): void => {
    socket.on('data', chunk => { socket.write(chunk) })
    socket.on('error', () => {})
  }
  const server = wire === 'tls' ? createTlsServer({ ...pair, requestCert: true, rejectUnauthorized: true, noDelay: true }, echo) : createServer({ noDelay: true }, echo)
  server.listen(0, '127.0.0.1', () => { tell((server.address() as AddressInfo).port) })
} else {
  const server = await openIsoServer({
    host: '127.0.0.1', port: 0, tls: wire === 'tls' ? { port: 0, ...pair } : null,
    peers: [parsePeer({ name: 'bench', bank: 'bench', ...(wire === 'tls' ? { certificate: 'bench' } : { addresses: ['127.0.0.1'] }) }, 'bench', () => '')],
    handle: request => answerTo(request, '00'), timers: makeTimers(() => performance.now()), nowMs: Date.now, log: SILENT_LOG, meter: openIsoMeter(new Registry()),
    audit: ({ lines }) => { recorded += lines().length }
  })
  tell((wire === 'tls' ? server.tlsPort : server.port) ?? 0)
}
process.on('SIGTERM', () => { process.exit(recorded < 0 ? 1 : 0) })

function tell (port: number): void {
  process.stdout.write(`${JSON.stringify({ port, ca: issuer.cert, cert: client.cert, key: client.key })}\n`)
}
