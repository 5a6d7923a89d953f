// The operator's daily report as an e-mail: what was paid, what was heard, which boxes are silent, which providers failed. Pure: totals
// in, one normalised e-mail request out. No merchant, payer or transaction is named in it; it goes through other people's mail servers.
import { formatAmount, formatAmountGrouped } from '../../protocol/index.js'
import type { ServiceRequest } from './contract.js'

export const SILENT_DEVICES_SHOWN_MAX = 50
export const BANKS_SHOWN_MAX = 200 // The mail stays far below its limit of characters.

/** Counts of one bank in one currency. */
export type DayBank = { name: string, currency: string, payments: number, amountMinor: number, failed: number, reversed: number }
/** By final state; `open` = accepted by now but without a final. */
export type DayDeliveries = { spoken: number, duplicate: number, summarised: number, muted: number, expired: number, failed: number, handed: number, open: number }
export type DayProvider = { issuer: string, calls: number, failed: number, unknown: number }
/** `day`: calendar date at the operator's place. `latency`: acceptance to spoken, milliseconds, null when nothing was spoken. */
export type DayTotals = {
  day: string, gateway: string, banks: readonly DayBank[], deliveries: DayDeliveries, latency: { p50Ms: number, p99Ms: number } | null
  devices: { active: number, silent: readonly string[] }, standIns: { sent: number, failed: number, unknown: number }
  fallback: { waiting: number }, providers: readonly DayProvider[], audit: { rows: number, ok: boolean } | null
}

/** The mail of a day. `client_ref` is the day's, so that a report is sent once whatever is retried. */
export function dailyReportMail (totals: DayTotals, to: readonly [string, ...string[]]): ServiceRequest<'send_email_message'> {
  const payments = totals.banks.reduce((sum, bank) => sum + bank.payments, 0)
  const warnings = warningsOf(totals)
  const mark = warnings.length === 0 ? '' : `${warnings.length} to look at, `
  return {
    to: [...to],
    subject: `Soundbox ${totals.day}: ${mark}${payments} payments, ${heardShare(totals.deliveries)} heard`,
    text: [
      `${totals.gateway}, ${totals.day}`, '',
      ...(warnings.length === 0 ? ['Nothing needs you.'] : ['To look at:', ...warnings.map(line => `  ! ${line}`)]), '',
      ...section('Payments', bankLines(totals.banks), 'none'),
      ...section('Announcements', deliveryLines(totals), 'none'),
      ...section('Boxes', deviceLines(totals), 'none'),
      ...section('Providers', totals.providers.map(({ issuer, calls, failed, unknown }) => `${issuer.padEnd(8)} ${calls} calls, ${failed} failed, ${unknown} of unknown state`), 'no calls')
    ].join('\n'),
    client_ref: `daily-${totals.day}`
  }
}

function section (title: string, lines: readonly string[], empty: string): string[] {
  return [title, ...(lines.length === 0 ? [empty] : lines).map(line => `  ${line}`), '']
}

function bankLines (banks: readonly DayBank[]): string[] {
  const more = banks.length - BANKS_SHOWN_MAX
  return [...banks.slice(0, BANKS_SHOWN_MAX).map(bankLine), ...(more > 0 ? [`and ${more} more banks`] : [])]
}

function bankLine ({ name, currency, payments, amountMinor, failed, reversed }: DayBank): string {
  const amount = currency === 'INR' ? formatAmountGrouped(amountMinor) : formatAmount(amountMinor)
  return `${name}: ${payments} payments, ${currency} ${amount}; ${failed} failed, ${reversed} reversed`
}

function deliveryLines ({ deliveries: d, latency, standIns }: DayTotals): string[] {
  return [
    `${d.spoken} spoken, ${d.summarised} within a summary, ${d.handed} handed to a vendor`,
    `${d.muted} muted, ${d.expired} expired, ${d.failed} failed, ${d.open} still open`,
    ...(latency === null ? [] : [`from acceptance to the end of the voice: half within ${latency.p50Ms} ms, 99 of 100 within ${latency.p99Ms} ms`]),
    ...(standIns.sent + standIns.failed + standIns.unknown === 0 ? [] : [`stand-ins: ${standIns.sent} sent, ${standIns.failed} failed, ${standIns.unknown} of unknown state`])
  ]
}

function deviceLines ({ devices: { active, silent } }: DayTotals): string[] {
  const shown = silent.slice(0, SILENT_DEVICES_SHOWN_MAX)
  const more = silent.length - shown.length
  return [`${active} active, ${silent.length} of them not seen this day`, ...shown.map(tid => `- ${tid}`), ...(more > 0 ? [`and ${more} more`] : [])]
}

/** What an operator must act on; everything else is news. */
function warningsOf ({ deliveries, devices, fallback, providers, standIns, audit }: DayTotals): string[] {
  return [
    deliveries.expired + deliveries.failed > 0 ? `${deliveries.expired + deliveries.failed} payments were not heard in time` : '',
    devices.silent.length > 0 ? `${devices.silent.length} active boxes were not seen` : '',
    fallback.waiting > 0 ? `${fallback.waiting} records still wait in the fallback queue: look at the database` : '',
    ...providers.filter(row => row.calls >= 10 && row.failed * 2 >= row.calls).map(row => `${row.issuer}: more than half of ${row.calls} calls failed`),
    standIns.unknown > 0 ? `${standIns.unknown} stand-ins are of unknown state` : '',
    audit !== null && !audit.ok ? 'the audit trail is broken: keep the database as evidence' : ''
  ].filter(line => line !== '')
}

function heardShare (d: DayDeliveries): string {
  const heard = d.spoken + d.summarised
  const wanted = heard + d.expired + d.failed + d.open
  return wanted === 0 ? 'nothing' : `${Math.floor(heard / wanted * 1000) / 10} %`
}
