// Runs tap over the compiled tests below the named folders and ends with the plain line `N passed, N failed` from tap's own totals.
// What failed is repeated before it, each line marked with `! `. No totals, or no test at all, is a failure. `dist/test` alone means everything but test/system and test/bench.
// Usage: node test/support/run-tap.mjs FOLDER_OR_FILE...
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

function testFiles (path, skip) {
  if (!existsSync(path)) return []
  if (statSync(path).isFile()) return [path]
  return readdirSync(path).filter(name => !skip.includes(name)).flatMap(name => testFiles(join(path, name), [])).filter(name => name.endsWith('.test.js'))
}

const files = process.argv.slice(2).flatMap(path => testFiles(path, path === 'dist/test' ? ['system', 'bench'] : []))
if (files.length === 0) {
  console.log('no test files found\n0 passed, 1 failed')
  process.exit(1)
}
const child = spawn(process.execPath, ['node_modules/.bin/tap', '--reporter=tap', ...files], { stdio: ['ignore', 'pipe', 'inherit'] })
const verbose = process.env.CI === 'true' || process.env.VERBOSE === '1'
const BLOCK_LINES_MAX = 25
const failures = []
let blockLines = 0
let totals
for await (const line of createInterface({ input: child.stdout })) {
  const counts = /^# \{ total: (.*) \}$/.exec(line)
  if (counts !== null) totals = Object.fromEntries([...line.matchAll(/(\w+): (\d+)/g)].map(match => [match[1], Number(match[2])]))
  if (/^\s*not ok/.test(line) && !/# (?:SKIP|TODO)/.test(line)) blockLines = BLOCK_LINES_MAX
  if (blockLines > 0) {
    failures.push(`! ${line}`)
    blockLines = /^\s*\.\.\.$/.test(line) ? 0 : blockLines - 1
  }
  if (verbose || !/^\s{4,}|^\s*ok|^\s*#|^$|^\s*1\.\.|^TAP/.test(line) || /not ok|# SKIP/.test(line)) console.log(line)
}
const code = child.exitCode ?? await new Promise(resolve => child.on('exit', (exit, signal) => resolve(signal === null ? exit : 1)))
const passed = totals?.pass ?? 0
const failed = (totals?.fail ?? 0) + (totals?.todo ?? 0)
const ok = totals !== undefined && code === 0 && failed === 0 && passed > 0
for (const line of failures) console.log(line)
console.log(`${passed} passed, ${ok ? 0 : Math.max(1, failed)} failed, ${totals?.skip ?? 0} skipped`)
process.exit(ok ? 0 : 1)
