// Prometheus series of the gateway. The heart reports through Meter; gauges are read when somebody looks.
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Meter, Stage } from '../trigger/meter.js'

/** Seconds: from one millisecond to the minute after which nothing is spoken. */
const BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]

export type GaugeReader = { name: string, help: string, read: () => number }
export type Metrics = { meter: Meter, text: () => Promise<string>, contentType: string, addGauges: (gauges: readonly GaugeReader[]) => void, registry: Registry }

/** A registry of its own, so that two gateways in one process (tests) do not share series. */
export function openMetrics (): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 10 })
  const outcomes = new Counter({ name: 'soundbox_requests_total', help: 'payment requests by source and outcome code', labelNames: ['source', 'code'], registers: [registry] })
  const stages = new Histogram({ name: 'soundbox_stage_seconds', help: 'time since a payment was accepted until it reached a stage', labelNames: ['stage'], buckets: BUCKETS, registers: [registry] })
  const finals = new Counter({ name: 'soundbox_deliveries_total', help: 'deliveries by final state', labelNames: ['state'], registers: [registry] })
  const fallbacks = new Counter({ name: 'soundbox_fallback_total', help: 'payments that history refused', registers: [registry] })
  const byStage = new Map<Stage, { observe: (seconds: number) => void }>()
  const byOutcome = new Map<string, { inc: () => void }>()
  return {
    registry,
    contentType: registry.contentType,
    text: () => registry.metrics(),
    addGauges (gauges) {
      for (const { name, help, read } of gauges) {
        new Gauge({ name, help, registers: [registry], collect () { this.set(read()) } })
      }
    },
    meter: {
      stage (stage, ms) {
        const series = byStage.get(stage) ?? stages.labels(stage)
        byStage.set(stage, series)
        series.observe(ms / 1000)
      },
      outcome (source, code) {
        const series = byOutcome.get(source + code) ?? outcomes.labels(source, code)
        byOutcome.set(source + code, series)
        series.inc()
      },
      fallbackUsed: () => { fallbacks.inc() },
      finalState: state => { finals.inc({ state }) }
    }
  }
}
