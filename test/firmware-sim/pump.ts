// The smallest gateway that keeps the protocol's promise: one announcement in flight a device, sent again until it is received, all open
// ones again after a new boot, and the end of each as the box tells it.
import { type Ack, type Announcement, decodeAck, encodeMessage } from '../../protocol/index.js'
import type { Arrived, DeviceBroker } from '../support/device-broker.js'

type Open = { announcement: Announcement, delivered: boolean }
type Line = { open: Open[], bootId: string, inFlight: string | undefined, sentAt: number }
export type Pump = {
  offer: (tid: string, announcement: Announcement) => void
  /** Last word of the box on each id, by `tid id`. */
  finals: Map<string, Ack['result']>
  openCount: () => number
  close: () => void
}

const RETRY_MS = 1000

/** Takes over what arrives at `gateway`. */
export function openPump (gateway: DeviceBroker): Pump {
  const lines = new Map<string, Line>()
  const finals = new Map<string, Ack['result']>()
  const lineOf = (tid: string): Line => {
    const line = lines.get(tid) ?? { open: [], bootId: '', inFlight: undefined, sentAt: 0 }
    lines.set(tid, line)
    return line
  }
  const send = (tid: string, line: Line): void => {
    const next = line.open.find(({ delivered }) => !delivered)
    if (next === undefined) return
    line.inFlight = next.announcement.id
    line.sentAt = Date.now()
    gateway.announce(tid, next.announcement).catch(() => {}) // The box is away: its next hello starts the line again.
  }
  const handle = ({ tid, name, message }: Arrived): void => {
    const line = lineOf(tid)
    if (name === 'hello') {
      if (message['bootId'] !== line.bootId) for (const open of line.open) open.delivered = false
      line.bootId = String(message['bootId'])
      send(tid, line)
      return
    }
    if (name !== 'ack') return
    const ack = decodeAck(encodeMessage(message))
    const open = line.open.find(({ announcement }) => announcement.id === ack.id)
    if (open !== undefined) open.delivered = true
    if (ack.result !== 'received') {
      line.open = line.open.filter(one => one !== open)
      if (!finals.has(`${tid} ${ack.id}`)) finals.set(`${tid} ${ack.id}`, ack.was ?? ack.result)
    }
    if (line.inFlight !== ack.id) return
    line.inFlight = undefined
    send(tid, line)
  }
  gateway.beforeConfirm = handle
  const retry = setInterval(() => {
    for (const [tid, line] of lines) if (line.inFlight !== undefined && Date.now() - line.sentAt > RETRY_MS) send(tid, line)
  }, RETRY_MS / 3)
  return {
    offer: (tid, announcement) => {
      const line = lineOf(tid)
      line.open.push({ announcement, delivered: false })
      if (line.inFlight === undefined) send(tid, line)
    },
    finals,
    openCount: () => [...lines.values()].reduce((sum, line) => sum + line.open.length, 0),
    close: () => clearInterval(retry)
  }
}
