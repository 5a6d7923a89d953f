// The house rules that a machine can check. Each rule names the place and what to do.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import t from 'tap'

const ROOTS = ['protocol', 'gateway', 'device-agent', 'firmware-sim', 'test']
const LINES_MAX = 400
const LINE_LENGTH_MAX = 200
const FUNCTION_LINES_MAX = 60

type Source = { path: string, text: string, lines: string[], imports: { name: string, typeOnly: boolean }[] }

function sourceFiles (folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const path = posix.join(folder, entry.name)
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : sourceFiles(path)
    return /\.tsx?$/.test(entry.name) ? [path] : []
  })
}

const IMPORT = /^(?:import|export)\s+(type\s)?[^;'"]*?from\s+'([^']+)'|\bimport\('([^']+)'\)/gm
const SOURCES: Source[] = ROOTS.flatMap(sourceFiles).map(path => {
  const text = readFileSync(path, 'utf8')
  const imports = [...text.matchAll(IMPORT)].map(match => ({ name: match[2] ?? match[3] ?? '', typeOnly: match[1] !== undefined }))
  return { path, text, lines: text.split('\n'), imports }
})
const PRODUCT = SOURCES.filter(source => !source.path.startsWith('test/'))

/** The repository path that a relative import names. */
function target (source: Source, name: string): string | undefined {
  if (!name.startsWith('.')) return undefined
  const path = posix.normalize(posix.join(dirname(source.path), name))
  return [path.replace(/\.js$/, '.ts'), path.replace(/\.js$/, '.tsx'), path].find(candidate => SOURCES.some(other => other.path === candidate)) ?? path
}

t.test('files and lines stay within their limits', async t => {
  for (const source of SOURCES) {
    t.ok(source.lines.length <= LINES_MAX, `${source.path} has ${source.lines.length} lines: split it at ${LINES_MAX}`)
    const long = source.lines.flatMap((line, index) => line.length > LINE_LENGTH_MAX && !/https?:|['"`/]{1}[A-Za-z0-9+/=]{80}/.test(line) ? [index + 1] : [])
    t.same(long, [], `${source.path}: lines ${long.join(', ')} are longer than ${LINE_LENGTH_MAX}`)
  }
})

t.test('functions stay within their limit', async t => {
  for (const source of PRODUCT) {
    let start = -1
    source.lines.forEach((line, index) => {
      if (/^(?:export )?(?:async )?function\b/.test(line) && !line.endsWith('}')) start = index
      if (line === '}' && start >= 0) {
        t.ok(index - start + 1 <= FUNCTION_LINES_MAX, `${source.path}:${start + 1} is a function of ${index - start + 1} lines: split it at ${FUNCTION_LINES_MAX}`)
        start = -1
      }
    })
  }
})

t.test('names and words of the house are used', async t => {
  const banned = /\b(?:class|interface|type|function|const)\s+(?:\w*(?:Manager|Service|Helper|Util|Utils|Common|Abstract|Impl)|I[A-Z]\w+able|Base[A-Z]\w*)\b/
  for (const source of SOURCES) {
    t.match(source.path.split('/').at(-1), /^[a-z0-9-]+(?:\.test|\.bench)?\.tsx?$/, `${source.path} is kebab-case`)
    for (const [index, line] of source.lines.entries()) {
      if (banned.test(line)) t.fail(`${source.path}:${index + 1} uses a banned name: ${line.trim()}`)
      if (/\b(?:TODO|FIXME|XXX|HACK)\b/.test(line) && source.path !== 'test/tidy.test.ts') t.fail(`${source.path}:${index + 1} leaves work undone`)
      if (/^export default|^\s*(?:export )?(?:const )?enum |^\s*namespace /.test(line)) t.fail(`${source.path}:${index + 1} uses default export, enum or namespace`)
      if (/@ts-(?:ignore|nocheck|expect-error)/.test(line) && source.path !== 'test/tidy.test.ts') t.fail(`${source.path}:${index + 1} silences the compiler`)
    }
  }
})

t.test('every product file opens with what it is for', async t => {
  for (const source of PRODUCT) {
    const first = source.lines[0]?.startsWith('#!') === true ? source.lines[1] : source.lines[0]
    t.match(first, /^\/\/ \S|^\/\*\*? \S/, `${source.path} has a header note`)
  }
})

t.test('imports run downwards between the parts', async t => {
  const pure = new Set(['node:crypto', 'node:zlib'])
  for (const source of PRODUCT) {
    const part = source.path.split('/')[0]
    for (const { name } of source.imports) {
      const to = target(source, name)
      if (part === 'protocol') t.ok(to === undefined ? pure.has(name) : to.startsWith('protocol/'), `${source.path} imports ${name}: protocol is pure`)
      else if (to !== undefined) t.ok(to.startsWith('protocol/') || to.startsWith(`${part}/`), `${source.path} imports ${name}: the parts meet in protocol only`)
    }
  }
})

/** Rooms of the gateway from the ground up; a file may import rooms of lower rank, and of its own folder. */
const RANK: Record<string, number> = {
  store: 1, broker: 1, fallback: 2, fleet: 3, trigger: 4, integration: 4, http: 5, iso8583: 5, jobs: 5, cli: 6, deploy: 6
}
t.test('imports run downwards inside the gateway', async t => {
  for (const source of PRODUCT.filter(file => file.path.startsWith('gateway/'))) {
    const room = source.path.split('/').length > 2 ? source.path.split('/')[1] ?? '' : ''
    for (const { name } of source.imports) {
      const to = target(source, name)
      const other = to?.startsWith('gateway/') === true && to.split('/').length > 2 ? to.split('/')[1] ?? '' : undefined
      if (room === '' || other === undefined || other === room) continue
      t.ok((RANK[other] ?? 9) < (RANK[room] ?? 0), `${source.path} imports ${name}: ${room} may not know ${other}`)
    }
  }
})

t.test('no file imports itself round a circle', async t => {
  const edges = new Map(PRODUCT.map(source => [source.path, source.imports.map(({ name }) => target(source, name)).filter(to => to !== undefined)]))
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      t.fail(`circle: ${[...trail.slice(trail.indexOf(path)), path].join(' -> ')}`)
      return
    }
    if (done.has(path)) return
    for (const next of edges.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of edges.keys()) visit(path, [])
  t.ok(done.size > 0)
})

/** A package -> the only product places that may import it. */
const DOORS: Record<string, RegExp> = {
  aedes: /^gateway\/broker\/embedded(?:-[a-z-]+)?\.ts$/,
  mqtt: /^gateway\/broker\/external\.ts$|^device-agent\/mqtt-link\.ts$|^firmware-sim\//,
  'better-sqlite3': /^gateway\/store\//,
  pg: /^gateway\/store\//,
  'node-cron': /^gateway\/jobs\//,
  serialport: /^device-agent\/serial-link\.ts$|^gateway\/cli\/serial\.ts$/,
  '@lydell/node-pty': /^firmware-sim\/pty\.ts$/,
  say: /^device-agent\/say-speaker\.ts$/,
  undici: /^gateway\/integration\//,
  pino: /main\.ts$/,
  nodemailer: /^gateway\/integration\//,
  otpauth: /^gateway\/integration\//,
  jose: /^gateway\/integration\//,
  'fast-xml-parser': /^gateway\/integration\//,
  fflate: /^gateway\/integration\//
}
t.test('a package has one or two doors', async t => {
  for (const source of PRODUCT) {
    for (const { name } of source.imports) {
      const door = DOORS[name]
      if (door !== undefined) t.match(source.path, door, `${source.path} imports ${name}`)
    }
  }
})

t.test('time, environment and arguments enter at the edge only', async t => {
  for (const source of PRODUCT.filter(file => !/(?:^|\/)main\.ts$|^gateway\/cli\//.test(file.path))) {
    for (const [index, line] of source.lines.entries()) {
      const code = line.replace(/\/\/.*$/, '')
      if (/process\.(?:env|argv)\b/.test(code)) t.fail(`${source.path}:${index + 1} reads the environment or arguments`)
      if (/\bDate\.now\(\)/.test(code) || /new Date\(\)/.test(code)) t.fail(`${source.path}:${index + 1} reads the clock: take nowMs as an argument`)
    }
  }
})

t.test('nothing committed names a machine, a workplace or a registry', async t => {
  const words = new RegExp(['/work' + '/main', '/tmp' + '/bash', 'registry' + '\\.npmjs', 'farm' + '-'].join('|'))
  for (const source of SOURCES) t.notMatch(source.text, words, source.path)
  for (const name of readdirSync('.').filter(file => /\.(?:md|json|mjs|yml)$/.test(file) && file !== 'package-lock.json')) {
    t.notMatch(readFileSync(join('.', name), 'utf8'), words, name)
  }
})
