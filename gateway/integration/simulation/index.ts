// The door of the simulator: the SIM tables from a seed, and the transport that answers from them.
export { parseOutcomeRules, type OutcomeRule } from './outcome.js'
export type * from './tables.js'
export { openSimulator, type Simulator } from './simulator.js'
export { simulatedTransport, type SimulationDeps } from './transport.js'
export { makeSIMTables, SIM_CUSTOMERS_MAX } from './world.js'
