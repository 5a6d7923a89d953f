import { join } from 'node:path'
import { openSqliteStore } from '../../gateway/store/sqlite.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { START_MS } from '../support/store-records.js'
import { storeSuite } from '../support/store-suite.js'

let databases = 0
storeSuite(async t => {
  const path = join(t.testdir(), `soundbox-${databases++}.db`)
  return { open: (options = {}) => openSqliteStore({ path, log: SILENT_LOG, nowMs: () => START_MS, ...options }) }
})
