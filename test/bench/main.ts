// `make bench`: runs every *.bench.js beside this file, one after the other, and compares each ratio with baseline.json: beyond 20 percent
// it warns. Never a test failure: the machine may be busy. `make bench BENCH=trigger` runs one.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = dirname(fileURLToPath(import.meta.url))
const WARN_BEYOND = 0.2
const only = process.env['BENCH'] ?? ''
const lines: string[] = []
const print = console.log
console.log = (line: unknown) => {
  lines.push(String(line))
  print(line)
}

for (const name of readdirSync(HERE).filter(file => file.endsWith('.bench.js') && file.startsWith(only)).sort()) {
  print(`== ${name.replace('.bench.js', '')}`)
  const bench = await import(join(HERE, name)) as { run: () => Promise<void> }
  await bench.run()
}
const path = join(HERE, 'baseline.json')
const baseline = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) as Record<string, number> : {}
for (const [name, expected] of Object.entries(baseline)) {
  const line = lines.find(candidate => candidate.startsWith(name))
  const ratio = Number(/ratio ([\d.]+)|([\d.]+) ?x\b/.exec(line ?? '')?.slice(1).find(text => text !== undefined))
  if (line !== undefined && ratio < expected * (1 - WARN_BEYOND)) print(`slower than before: ${name} ratio ${ratio}, was ${expected}`)
}
process.exit(0)
