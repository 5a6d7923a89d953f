// The simulator of one gateway: rules of every issuer checked at the start, and one world behind bank, bills and report, made when it is
// first needed. Balances stand as of the midnight (UTC) before the start, so that a restart on the same day shows the same entries.
import { SoundboxError } from '../../../protocol/index.js'
import type { IntegrationSettings } from '../config.js'
import { ISSUERS, type Issuer } from '../contract.js'
import type { Transport } from '../provider.js'
import { parseOutcomeRules } from './outcome.js'
import type { SIMTables } from './tables.js'
import { simulatedTransport, type SimulationDeps } from './transport.js'
import { makeSIMTables } from './world.js'

const DAY_MS = 86_400_000

export type Simulator = { transport: (issuer: Issuer) => Transport, tables: () => SIMTables }

/** `wait` as in SimulationDeps. Throws CONFIG_INVALID for rules that cannot be read and a country that is not simulated. */
export function openSimulator (settings: IntegrationSettings, deps: Pick<SimulationDeps, 'nowMs' | 'wait'>): Simulator {
  const asOfMs = Math.floor(deps.nowMs() / DAY_MS) * DAY_MS
  const rules = new Map(ISSUERS.filter(issuer => settings[issuer].simulate).map(issuer => [issuer, parseOutcomeRules(issuer, settings[issuer].simulationRules)]))
  let world: SIMTables | undefined
  const tables = (): SIMTables => {
    world ??= makeSIMTables(settings.cbs.temporal, asOfMs)
    return world
  }
  if (rules.has('cbs') || rules.has('bill')) makeSIMTables({ ...settings.cbs.temporal, customers: 1 }, asOfMs) // Country and currency are judged now, not at the first call.
  return {
    tables,
    transport: issuer => {
      const own = rules.get(issuer)
      if (own === undefined) throw new SoundboxError('PROVIDER_CONFIG', `the issuer ${issuer} is not simulated`)
      return simulatedTransport({ ...deps, issuer, rules: own, tables, latencyMs: issuer === 'cbs' ? settings.cbs.temporal.latencyMs : 0 })
    }
  }
}
