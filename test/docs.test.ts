// README says what the code does: its tables are the code's own, its commands exist.
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import t from 'tap'
import { ERRORS } from '../protocol/index.js'
import { addAdminCommands } from '../gateway/cli/admin-commands.js'
import { addFieldCommands } from '../gateway/cli/field-commands.js'
import { addIsoCommands } from '../gateway/cli/iso.js'
import { EXIT } from '../gateway/cli/output.js'
import { SETTINGS } from '../gateway/config.js'

const README = readFileSync('README.md', 'utf8')

/** The cells of the table that follows a line; without its head. */
function tableAfter (heading: string): string[][] {
  const rows = README.slice(README.indexOf(heading)).split('\n').slice(1)
  const start = rows.findIndex(line => line.startsWith('|'))
  const end = rows.findIndex((line, index) => index > start && !line.startsWith('|'))
  return rows.slice(start + 2, end).map(line => line.split(/(?<!\\)\|/).slice(1, -1).map(cell => cell.trim()))
}

t.test('the table of settings is the one of the code', async t => {
  const cell = (text: string): string => text === '' ? '' : `\`${text}\``
  t.same(tableAfter('## Settings of the gateway'), SETTINGS.map(({ name, fallback, what }) => [name, cell(fallback), what]))
})

t.test('the table of errors is the one of the code', async t => {
  const rows = Object.entries(ERRORS).map(([code, { status, partner, iso, retryable, remedy }]) => [code, String(status), partner ?? '', iso ?? '', retryable ? 'yes' : 'no', remedy])
  t.same(tableAfter('## Errors'), rows)
  const partners = Object.values(ERRORS).map(({ partner }) => partner).filter(partner => partner !== null)
  for (let n = 1; n <= 9; n++) t.ok(partners.includes(`ERR000${n}` as never), `ERR000${n}`)
})

t.test('every make target that a page names is there', async t => {
  const targets = new Set([...readFileSync('Makefile', 'utf8').matchAll(/^([a-z][a-z-]*):/gm)].map(match => match[1]))
  const pages = ['README.md', 'gateway/http/README.md', 'protocol/README.md', 'protocol/wording/README.md']
  const named = pages.flatMap(page => [...readFileSync(page, 'utf8').matchAll(/(?:^ {4}|`)make ([a-z][a-z-]*)/gm)].map(match => [page, match[1] ?? ''] as const))
  t.ok(named.length >= 2, 'pages name targets')
  for (const [page, target] of named) t.ok(targets.has(target), `${page}: make ${target}`)
  for (const target of ['install', 'build', 'run', 'test', 'test-system', 'check', 'bench']) t.ok(targets.has(target), target)
})

t.test('every command and exit code that the page names is there', async t => {
  const program = new Command()
  const notCalled = (): never => { throw new Error('not called') }
  const context = { client: notCalled, output: notCalled, interrupted: () => AbortSignal.abort() }
  addAdminCommands(program, context)
  addFieldCommands(program, { ...context, dist: '', env: {}, dataDir: notCalled, runProgram: notCalled })
  addIsoCommands(program, context)
  const names = new Map(program.commands.map(command => [command.name(), command.commands.map(child => child.name())]))
  for (const [cell = ''] of tableAfter('## The command')) {
    for (const [, words = ''] of cell.matchAll(/`([^`]+)`/g)) {
      const [first = '', ...rest] = words.split(/[ ,]+/)
      const children = names.get(first)
      if (children === undefined || children.length === 0) continue
      for (const child of rest.filter(word => /^[a-z][a-z-]+$/.test(word))) t.ok(children.includes(child), `soundbox ${first} ${child}`)
    }
  }
  const listed = /Exit codes: (.*)\./.exec(README)?.[1] ?? ''
  for (const code of Object.values(EXIT)) t.match(listed, new RegExp(`\\b${code} `), `exit code ${code}`)
})
