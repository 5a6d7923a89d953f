// Compiles to dist/, carries over the data files that the code reads beside itself, and makes the command executable.
// Output of a deleted source goes too, so that no stale test runs.
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'

const ROOTS = ['protocol', 'gateway', 'device-agent', 'firmware-sim', 'test']
const DATA = /\.(?:json|sql|txt|md|html|css|svg|pem|csv|service)$/

function files (folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry =>
    entry.isDirectory() ? (entry.name === 'node_modules' ? [] : files(join(folder, entry.name))) : [join(folder, entry.name)])
}

for (const root of ROOTS.filter(name => existsSync(join('dist', name)))) {
  for (const built of files(join('dist', root))) {
    const source = relative('dist', built).replace(/\.d\.ts$/, '.ts').replace(/\.js$/, '.ts')
    const isOurs = built.endsWith('.js') || built.endsWith('.d.ts')
    if (isOurs && !existsSync(source) && !existsSync(relative('dist', built)) && !built.includes('console')) rmSync(built)
  }
}
try {
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json'], { stdio: 'inherit' })
} catch {
  process.exit(1)
}
for (const root of ROOTS) {
  if (!existsSync(root)) continue
  for (const source of files(root).filter(name => DATA.test(name))) {
    const target = join('dist', source)
    if (!existsSync(target) || statSync(source).mtimeMs > statSync(target).mtimeMs) cpSync(source, target)
  }
}
const bin = 'dist/gateway/cli/main.js'
if (existsSync(bin)) chmodSync(bin, 0o755)
