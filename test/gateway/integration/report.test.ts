// The simulated CBS report: both formats hold the tables, nothing in a cell is a formula, and rows are made while they are read.
import { XMLParser } from 'fast-xml-parser'
import { strFromU8, unzipSync } from 'fflate'
import type { Readable } from 'node:stream'
import t from 'tap'
import { csvLine, generateSimulatedCbsReport, REPORT_ENTRIES_PER_ACCOUNT, REPORT_TABLES } from '../../../gateway/integration/report.js'
import { makeSIMTables, SIM_CUSTOMERS_MAX, type SIMTables } from '../../../gateway/integration/simulation/index.js'
import { columnName, sheetText, xlsxChunks } from '../../../gateway/integration/xlsx.js'

const AS_OF_MS = Date.UTC(2026, 0, 5, 9)
const WORLD = makeSIMTables({ seed: 5, customers: 25, country: 'TZ', currency: 'TZS' }, AS_OF_MS)
const ENTRIES = WORLD.accounts.reduce((sum, account) => sum + Math.min(REPORT_ENTRIES_PER_ACCOUNT, WORLD.statementOf(account).rows.length), 0)

async function bytesOf (stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Fields of one CSV line (RFC 4180). */
function fieldsOf (line: string): string[] {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))/g)].map(match => match[1]?.replaceAll('""', '"') ?? match[2] ?? '')
}

type Sheet = { worksheet: { sheetData: { row: { c: { '@_r': string, '@_t'?: string, v?: string, is?: { t: { '#text': string } } }[] }[] } } }
async function sheetsOf (stream: Readable): Promise<{ names: string[], rows: Record<string, string>[][], files: string[] }> {
  const files = unzipSync(await bytesOf(stream))
  const parser = new XMLParser({ ignoreAttributes: false, parseTagValue: false, parseAttributeValue: false, trimValues: false, isArray: name => ['row', 'c', 'sheet'].includes(name) })
  const parse = (path: string): unknown => parser.parse(strFromU8(files[path]!))
  const book = parse('xl/workbook.xml') as { workbook: { sheets: { sheet: { '@_name': string }[] } } }
  const names = book.workbook.sheets.sheet.map(sheet => sheet['@_name'])
  const rows = names.map((_, index) => (parse(`xl/worksheets/sheet${index + 1}.xml`) as Sheet).worksheet.sheetData.row.map(row =>
    Object.fromEntries(row.c.map(cell => [cell['@_r'].replace(/\d+/, ''), cell.is?.t['#text'] ?? cell.v ?? '']))))
  return { names, rows, files: Object.keys(files) }
}

t.test('CSV holds one table: a heading, a line a row, the same width everywhere', async t => {
  for (const [table, count] of [['accounts', WORLD.accounts.length], ['customers', WORLD.customers.length], ['entries', ENTRIES]] as const) {
    const report = generateSimulatedCbsReport(WORLD, { format: 'csv', table })
    t.equal(report.fileName, `simulated-cbs-${table}-2026-01-05.csv`)
    t.match(report.contentType, /^text\/csv/)
    const lines = (await bytesOf(report.stream)).toString('utf8').split('\r\n')
    t.equal(lines.pop(), '', 'the last line ends')
    t.equal(lines.length, count + 1, table)
    const width = fieldsOf(lines[0]!).length
    t.ok(lines.every(line => fieldsOf(line).length === width), `${table}: ${width} columns`)
  }
  const defaults = generateSimulatedCbsReport(WORLD, {})
  t.match(defaults.fileName, /accounts.*csv$/)
  t.match((await bytesOf(defaults.stream)).toString('utf8'), new RegExp(`^${WORLD.accounts[0]!.accountNo},`, 'm'), 'leading zeros live')
})

t.test('the same world gives the same bytes', async t => {
  for (const format of ['csv', 'xlsx']) {
    const first = await bytesOf(generateSimulatedCbsReport(WORLD, { format }).stream)
    t.ok(first.equals(await bytesOf(generateSimulatedCbsReport(WORLD, { format }).stream)), format)
  }
})

t.test('XLSX holds all tables, one sheet each, amounts as numbers and account numbers as text', async t => {
  const report = generateSimulatedCbsReport(WORLD, { format: 'xlsx' })
  t.equal(report.fileName, 'simulated-cbs-2026-01-05.xlsx')
  const { names, rows, files } = await sheetsOf(report.stream)
  t.same(names, [...REPORT_TABLES])
  t.same(files.slice(0, 5), ['[Content_Types].xml', '_rels/.rels', 'xl/workbook.xml', 'xl/_rels/workbook.xml.rels', 'xl/styles.xml'])
  const [accounts = [], customers = [], entries = []] = rows
  t.same([accounts.length, customers.length, entries.length], [WORLD.accounts.length + 1, WORLD.customers.length + 1, ENTRIES + 1])
  t.same([accounts[0]!['A'], accounts[1]!['A'], accounts[1]!['B']], ['account_no', WORLD.accounts[0]!.accountNo, WORLD.accounts[0]!.name])
  const ledger = WORLD.statementOf(WORLD.accounts[0]!).closingMinor / 100
  t.equal(Number(accounts[1]!['K']), ledger)
})

t.test('a cell that a spreadsheet would run is disarmed in CSV; numbers and plain text stay', async t => {
  for (const [cell, want, why] of [
    ['=1+1', "'=1+1", 'a formula'], ['+cmd|x', "'+cmd|x", 'a command'], ['-2+3', "'-2+3", 'a sum'], ['@SUM(A1)', "'@SUM(A1)", 'a function'],
    ['\tx', "'\tx", 'a tab'], ['\rx', '"\'\rx"', 'a return'], ['=HYPERLINK("http://x","y")', '"\'=HYPERLINK(""http://x"",""y"")"', 'a link with quotes'],
    ['-12.50', '-12.50', 'a negative number'], ['+255000000001', '+255000000001', 'a phone number'], ['Duka, la "Mfano"', '"Duka, la ""Mfano"""', 'quotes and commas'],
    ['a\nb', '"a\nb"', 'a line feed'], ['', '', 'nothing'], ['x=1', 'x=1', 'no formula inside']
  ] as const) t.equal(csvLine([cell]), `${want}\r\n`, why)
  t.equal(csvLine([{ decimal: '-19.00' }, 'a']), '-19.00,a\r\n')
})

t.test('XLSX text is never a formula, and what XML cannot hold is left out', async t => {
  const rows = [['head'], ['=1+1'], ['<a> & b'], ['a\u0000\u0008b'], [' spaced '], ['\ud800']]
  const parts = [...sheetText(rows)]
  const chunks: Buffer[] = []
  for await (const chunk of xlsxChunks([{ name: 'A & B', text: (async function * () { yield * parts })() }], AS_OF_MS)) chunks.push(chunk)
  const files = unzipSync(Buffer.concat(chunks))
  const sheet = strFromU8(files['xl/worksheets/sheet1.xml']!)
  t.notMatch(sheet, /<f>/)
  t.match(sheet, /<t xml:space="preserve">=1\+1<\/t>/)
  t.match(sheet, /&lt;a&gt; &amp; b/)
  t.match(sheet, />ab</)
  t.match(sheet, /> spaced </)
  t.match(sheet, />\ufffd</)
  t.match(strFromU8(files['xl/workbook.xml']!), /name="A &amp; B"/)
  t.same([0, 25, 26, 51, 52, 701, 702].map(columnName), ['A', 'Z', 'AA', 'AZ', 'BA', 'ZZ', 'AAA'])
})

t.test('rows are made while they are read: a reader that stops stops the maker', async t => {
  for (const [format, table] of [['csv', 'entries'], ['xlsx', 'accounts']] as const) {
    const tables = makeSIMTables({ seed: 6, customers: 600, country: 'IN', currency: 'INR' }, AS_OF_MS)
    let made = 0
    const counted: SIMTables = { ...tables, statementOf: account => { made += 1; return tables.statementOf(account) } }
    const { stream } = generateSimulatedCbsReport(counted, { format, table })
    const reader = stream[Symbol.asyncIterator]()
    await reader.next()
    for (let turn = 0; turn < 20; turn++) await new Promise(resolve => { setImmediate(resolve) })
    t.ok(made > 0 && made < tables.accounts.length / 2, `${format}: ${made} of ${tables.accounts.length} accounts after one piece`)
    await reader.return?.()
    t.equal(stream.destroyed, true)
  }
})

t.test('other formats and tables are refused; the largest world fits into a sheet', async t => {
  t.throws(() => generateSimulatedCbsReport(WORLD, { format: 'pdf' }), { code: 'INPUT_INVALID' })
  t.throws(() => generateSimulatedCbsReport(WORLD, { table: 'payments' }), { code: 'INPUT_INVALID' })
  t.ok(SIM_CUSTOMERS_MAX * 3 * REPORT_ENTRIES_PER_ACCOUNT + 1 <= 1_048_576)
})
