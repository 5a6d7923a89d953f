// Prometheus series of ISO 8583, server and clients alike.
import { Counter, Histogram, type Registry } from 'prom-client'
import type { IsoMeter, LinkEvent } from './hooks.js'

/** Seconds: from a tenth of a millisecond to the deadline of a handler. */
const BUCKETS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10]

/** Series in this registry; once for each registry. */
export function openIsoMeter (registry: Registry): IsoMeter {
  const events = new Counter({ name: 'soundbox_iso_events_total', help: 'ISO 8583 messages and what became of them', labelNames: ['peer', 'event'], registers: [registry] })
  const faults = new Counter({ name: 'soundbox_iso_unreadable_total', help: 'frames and messages that could not be read, by reason', labelNames: ['peer', 'reason'], registers: [registry] })
  const times = new Histogram({ name: 'soundbox_iso_answer_seconds', help: 'time from request to answer', labelNames: ['peer', 'asked_by'], buckets: BUCKETS, registers: [registry] })
  const eventSeries = new Map<string, { inc: () => void }>()
  const timeSeries = new Map<string, { observe: (seconds: number) => void }>()
  return {
    event (peer: string, event: LinkEvent) {
      const key = peer + event
      const series = eventSeries.get(key) ?? events.labels(peer, event)
      eventSeries.set(key, series)
      series.inc()
    },
    parseError: (peer, reason) => { faults.inc({ peer, reason }) },
    latency (peer, ours, ms) {
      const key = ours ? `${peer}>` : peer
      const series = timeSeries.get(key) ?? times.labels(peer, ours ? 'us' : 'peer')
      timeSeries.set(key, series)
      series.observe(ms / 1000)
    }
  }
}
