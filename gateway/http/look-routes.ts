// Looking at what happened: history by pages, the live tail as one JSON object a line, and the state of the gateway.
import type { FastifyInstance } from 'fastify'
import { PassThrough } from 'node:stream'
import { type Static, Type } from 'typebox'
import { formatAmount, SoundboxError } from '../../protocol/index.js'
import { HISTORY_PAGE_MAX, type HistoryQuery, type Store, type StoredPayment } from '../store/contract.js'
import { type Feed, LISTENERS_MAX } from '../trigger/feed.js'
import { timeText } from './admin-routes.js'

/** Bytes of events that may wait for a slow reader of the tail; what does not fit is skipped and counted. */
export const TAIL_BUFFER_BYTES_MAX = 256 * 1024
const TAIL_HEARTBEAT_MS = 15_000

const HistoryParams = Type.Object({
  bank: Type.Optional(Type.String({ maxLength: 32 })),
  merchant: Type.Optional(Type.String({ maxLength: 128 })),
  device: Type.Optional(Type.String({ maxLength: 32 })),
  transactionId: Type.Optional(Type.String({ maxLength: 64 })),
  since: Type.Optional(Type.String({ maxLength: 32, description: 'ISO 8601 time, inclusive', examples: ['2026-11-29T00:00:00Z'] })),
  until: Type.Optional(Type.String({ maxLength: 32, description: 'ISO 8601 time, exclusive' })),
  status: Type.Optional(Type.Union([Type.Literal('success'), Type.Literal('failed')])),
  limit: Type.Optional(Type.String({ pattern: '^[1-9]\\d{0,2}$', description: `rows of a page, 1 to ${HISTORY_PAGE_MAX}; default 50` })),
  cursor: Type.Optional(Type.String({ maxLength: 128 }))
}, { additionalProperties: false })

export type LookDeps = { store: Pick<Store, 'queryHistory'>, feed: Feed, status: () => Promise<object> }

/** Registers below the prefix that the server gives; the server has checked the token. */
export async function lookRoutes (app: FastifyInstance, deps: LookDeps): Promise<void> {
  const tails = new Set<() => void>()
  app.addHook('preClose', async () => { for (const end of [...tails]) end() })
  app.get('/history', { schema: { tags: ['look'], summary: 'Payments and what became of them, newest first', querystring: HistoryParams } }, async request => {
    const page = await deps.store.queryHistory(historyQuery(request.query as Static<typeof HistoryParams>))
    return { payments: page.rows.map(paymentView), next: page.next }
  })
  app.get('/status', { schema: { tags: ['look'], summary: 'What runs, how much waits, who is connected' } }, () => deps.status())
  app.get('/tail', { schema: { tags: ['look'], summary: 'Live events, one JSON object a line' } }, (_request, reply) => {
    const stream = new PassThrough()
    let skipped = 0
    const write = (event: object): void => {
      if (stream.writableLength > TAIL_BUFFER_BYTES_MAX) {
        skipped++
        return
      }
      if (skipped > 0) stream.write(`${JSON.stringify({ kind: 'skipped', count: skipped })}\n`)
      skipped = 0
      stream.write(`${JSON.stringify(event)}\n`)
    }
    const stop = deps.feed.listen(write)
    if (stop === undefined) throw new SoundboxError('OVERLOADED', `${LISTENERS_MAX} others are listening already`)
    const heartbeat = setInterval(() => { write({ kind: 'alive' }) }, TAIL_HEARTBEAT_MS)
    const end = (): void => {
      tails.delete(end)
      clearInterval(heartbeat)
      stop()
      stream.end()
    }
    tails.add(end)
    reply.raw.once('close', end)
    write({ kind: 'alive' })
    return reply.type('application/x-ndjson').send(stream)
  })
}

function historyQuery (params: Static<typeof HistoryParams>): HistoryQuery {
  return {
    limit: limitOf(params.limit ?? '50'),
    ...(params.bank === undefined ? {} : { bankId: params.bank }),
    ...(params.merchant === undefined ? {} : { merchant: params.merchant.toLowerCase() }),
    ...(params.device === undefined ? {} : { tid: params.device }),
    ...(params.transactionId === undefined ? {} : { transactionId: params.transactionId }),
    ...(params.since === undefined ? {} : { since: timeOf(params.since, 'since') }),
    ...(params.until === undefined ? {} : { until: timeOf(params.until, 'until') }),
    ...(params.status === undefined ? {} : { status: params.status }),
    ...(params.cursor === undefined ? {} : { cursor: params.cursor })
  }
}

function limitOf (text: string): number {
  if (Number(text) > HISTORY_PAGE_MAX) throw new SoundboxError('INPUT_INVALID', `limit must be from 1 to ${HISTORY_PAGE_MAX}`)
  return Number(text)
}

function timeOf (text: string, name: string): number {
  const ms = Date.parse(text)
  if (Number.isNaN(ms)) throw new SoundboxError('INPUT_INVALID', `${name} must be an ISO 8601 time, as 2026-11-29T00:00:00Z`)
  return ms
}

/** One payment as `history --json` prints it; scripts rely on these names. */
export function paymentView ({ payment, deliveries, reversedAt }: StoredPayment): object {
  return {
    bank: payment.bankId, transactionId: payment.transactionId, amount: formatAmount(payment.amountMinor), currency: payment.currency, merchant: payment.merchant,
    txnType: payment.txnType, status: payment.status, source: payment.source, acceptedAt: timeText(payment.acceptedAt), reversedAt: timeText(reversedAt),
    deliveries: deliveries.map(delivery => ({
      tid: delivery.tid, announcementId: delivery.announcementId, kind: delivery.kind, language: delivery.language, state: delivery.state,
      publishedAt: timeText(delivery.publishedAt), deliveredAt: timeText(delivery.deliveredAt), spokenAt: delivery.state === 'spoken' ? timeText(delivery.finalAt) : null,
      finalAt: timeText(delivery.finalAt), queuedMs: delivery.queuedMs, audioMs: delivery.audioMs, reason: delivery.reason, summaryId: delivery.summaryId
    }))
  }
}
