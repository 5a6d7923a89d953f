// One place in a client's pool: a connection to one endpoint that is opened, signed on, watched by echo, and opened again when it is lost,
// after a pause that grows and is random.
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Log, Timers } from '../../protocol/index.js'
import type { Message } from '../../protocol/iso8583/index.js'
import { answerTo, codeOfError, isNetwork } from './dialect.js'
import { correlationKey, type LinkHooks } from './hooks.js'
import { type Link, type LinkLimits, openLink } from './link.js'
import { type Network, openNetwork } from './network.js'
import { type Backoff, backoffMs } from './safety.js'
import type { SessionPolicy } from './session.js'
import type { Wire } from './wire.js'

/** `cert` and `key` where the server demands a certificate; `servername` when it is not the host. */
export type Endpoint = { host: string, port: number, tls?: { ca: string | Buffer, cert?: string | Buffer, key?: string | Buffer, servername?: string } }
export type LaneDeps = {
  endpoint: Endpoint
  wire: Wire
  session: SessionPolicy
  limits: LinkLimits
  backoff: Backoff
  /** TCP and TLS must stand by then. */
  connectMs: number
  timers: Timers
  nowMs: () => number
  random: () => number
  nextStan: () => number
  hooks: LinkHooks
  log: Log
  /** Requests of the peer that are no network management. */
  onRequest: ((request: Message) => Message | undefined | Promise<Message | undefined>) | undefined
  onReady: () => void
  /** The connection failed or was lost; `wasReady`: it had been of use. */
  onLost: (wasReady: boolean, reason: string) => void
}
export type Lane = {
  /** The connection while it is signed on. */
  link: () => Link | undefined
  network: () => Network | undefined
  tick: () => void
  /** Signs off and ends; resolves when the socket is gone. */
  close: () => Promise<void>
}
type Core = LaneDeps & {
  link: Link | undefined, network: Network | undefined, socket: Socket | undefined, wasReady: boolean, attempt: number, connectingSince: number | null
  isClosing: boolean, stopWaiting: () => void, onGone: () => void
}

/** Connects at once. */
export function openLane (deps: LaneDeps): Lane {
  const core: Core = {
    ...deps, link: undefined, network: undefined, socket: undefined, wasReady: false, attempt: 0, connectingSince: null, isClosing: false, stopWaiting: () => {}, onGone: () => {}
  }
  connect(core)
  return {
    link: () => core.network?.isReady() === true && core.link?.isOpen() === true ? core.link : undefined,
    network: () => core.network,
    tick () {
      core.link?.tick()
      core.network?.tick()
      if (core.connectingSince !== null && core.timers.nowMs() - core.connectingSince >= core.connectMs) core.socket?.destroy()
    },
    async close () {
      core.isClosing = true
      core.stopWaiting()
      if (core.socket === undefined) return
      const gone = new Promise<void>(resolve => { core.onGone = resolve })
      if (core.network === undefined) core.socket.destroy()
      else core.network.close()
      await gone
    }
  }
}

function connect (core: Core): void {
  const { endpoint } = core
  const { host, port, tls } = endpoint
  const socket = tls === undefined ? connectTcp({ host, port, noDelay: true }) : connectTls({ host, port, ...(isIP(host) === 0 ? { servername: host } : {}), ...tls })
  core.socket = socket
  core.connectingSince = core.timers.nowMs()
  let reason = 'connection lost'
  socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
    core.connectingSince = null
    socket.setNoDelay(true)
    converse(core, socket)
  })
  socket.on('error', (error: NodeJS.ErrnoException) => { reason = `socket fault ${error.code ?? error.name}` })
  socket.once('close', () => { lost(core, core.link === undefined ? reason : 'connection ended') })
}

function converse (core: Core, socket: Socket): void {
  const link = openLink({
    socket, wire: core.wire, limits: core.limits, nowMs: core.timers.nowMs, keyOf: correlationKey, hooks: core.hooks,
    onRequest: request => isNetwork(request.mti) ? core.network?.handle(request) : core.onRequest === undefined ? answerTo(request, '12') : core.onRequest(request),
    onFault: (request, error) => answerTo(request, codeOfError(error)),
    onUnreadable: () => undefined,
    onClosed: reason => { core.log.info({ reason }, 'connection to the switch ended') }
  })
  core.link = link
  core.network = openNetwork({
    link, wire: core.wire, policy: core.session, nowMs: core.timers.nowMs, wallMs: core.nowMs, nextStan: core.nextStan,
    onReady (ready) {
      if (!ready) return
      core.wasReady = true
      core.attempt = 0
      core.log.info({}, 'signed on at the switch')
      core.onReady()
    }
  })
  core.network.open()
}

function lost (core: Core, reason: string): void {
  const { wasReady } = core
  Object.assign(core, { link: undefined, network: undefined, socket: undefined, wasReady: false, connectingSince: null })
  core.onGone()
  if (core.isClosing) return
  core.onLost(wasReady, reason)
  core.stopWaiting = core.timers.after(backoffMs(core.attempt++, core.backoff, core.random), () => { connect(core) })
}
