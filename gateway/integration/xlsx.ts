// A workbook of plain tables as a stream of bytes (ECMA-376 part 1, 18.3 and part 2): the smallest set of parts that spreadsheets open,
// zipped while the rows come in. Text is an inline string, an amount is a number with two places; the first row is bold and frozen.
//
//   [Content_Types].xml   _rels/.rels   xl/workbook.xml   xl/_rels/workbook.xml.rels   xl/styles.xml   xl/worksheets/sheetN.xml
import { Zip, ZipDeflate } from 'fflate'

/** Text, or an amount as a decimal string. */
export type Cell = string | { decimal: string }
export type SheetSource = { name: string, text: AsyncIterable<string> }

const DEFLATE_LEVEL = 4 // Twice as fast as the default, a tenth larger.
const NAMESPACE = 'http://schemas.openxmlformats.org'
const HEADER = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
const STYLE_BOLD = 1
const STYLE_AMOUNT = 2

/** The XML of one sheet, row by row; the first row is the heading. */
export function * sheetText (rows: Iterable<readonly Cell[]>): Generator<string> {
  yield `${HEADER}<worksheet xmlns="${NAMESPACE}/spreadsheetml/2006/main"><sheetViews><sheetView workbookViewId="0">`
  yield '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>'
  let number = 0
  for (const row of rows) {
    number += 1
    yield `<row r="${number}">${row.map((cell, column) => cellText(cell, `${columnName(column)}${number}`, number === 1)).join('')}</row>`
  }
  yield '</sheetData></worksheet>'
}

/** The bytes of a workbook with these sheets, in order. `modifiedMs` dates its parts, so that the same tables give the same file. */
export async function * xlsxChunks (sheets: readonly SheetSource[], modifiedMs: number): AsyncGenerator<Buffer> {
  const ready: Buffer[] = []
  const zip = new Zip((fault, chunk) => {
    if (fault !== null) throw fault
    ready.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))
  })
  const open = (path: string): ZipDeflate => {
    const part = new ZipDeflate(path, { level: DEFLATE_LEVEL })
    part.mtime = modifiedMs
    zip.add(part)
    return part
  }
  for (const [path, text] of Object.entries(fixedParts(sheets))) open(path).push(Buffer.from(text, 'utf8'), true)
  for (const [index, sheet] of sheets.entries()) {
    const part = open(`xl/worksheets/sheet${index + 1}.xml`)
    for await (const text of sheet.text) {
      part.push(Buffer.from(text, 'utf8'))
      yield * ready.splice(0)
    }
    part.push(new Uint8Array(0), true)
    yield * ready.splice(0)
  }
  zip.end()
  yield * ready.splice(0)
}

/** `0` -> `A`, `26` -> `AA`. */
export function columnName (column: number): string {
  const letter = String.fromCharCode(65 + column % 26)
  return column < 26 ? letter : columnName(Math.floor(column / 26) - 1) + letter
}

function cellText (cell: Cell, at: string, isHeading: boolean): string {
  if (typeof cell !== 'string') return `<c r="${at}" s="${STYLE_AMOUNT}"><v>${cell.decimal}</v></c>`
  if (cell === '') return ''
  return `<c r="${at}"${isHeading ? ` s="${STYLE_BOLD}"` : ''} t="inlineStr"><is><t xml:space="preserve">${escapeXml(cell)}</t></is></c>`
}

function escapeXml (text: string): string {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '').replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

function fixedParts (sheets: readonly SheetSource[]): Record<string, string> {
  const kind = 'application/vnd.openxmlformats-officedocument.spreadsheetml'
  const link = `${NAMESPACE}/officeDocument/2006/relationships`
  const each = (text: (number: number, name: string) => string): string => sheets.map((sheet, index) => text(index + 1, escapeXml(sheet.name))).join('')
  const override = (path: string, type: string): string => `<Override PartName="/xl/${path}.xml" ContentType="${kind}.${type}+xml"/>`
  return {
    '[Content_Types].xml': `${HEADER}<Types xmlns="${NAMESPACE}/package/2006/content-types">` +
      '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>' +
      `${override('workbook', 'sheet.main')}${override('styles', 'styles')}${each(number => override(`worksheets/sheet${number}`, 'worksheet'))}</Types>`,
    '_rels/.rels': `${HEADER}<Relationships xmlns="${NAMESPACE}/package/2006/relationships">` +
      `<Relationship Id="rId1" Type="${link}/officeDocument" Target="xl/workbook.xml"/></Relationships>`,
    'xl/workbook.xml': `${HEADER}<workbook xmlns="${NAMESPACE}/spreadsheetml/2006/main" xmlns:r="${link}"><sheets>` +
      `${each((number, name) => `<sheet name="${name}" sheetId="${number}" r:id="rId${number}"/>`)}</sheets></workbook>`,
    'xl/_rels/workbook.xml.rels': `${HEADER}<Relationships xmlns="${NAMESPACE}/package/2006/relationships">` +
      `${each(number => `<Relationship Id="rId${number}" Type="${link}/worksheet" Target="worksheets/sheet${number}.xml"/>`)}` +
      `<Relationship Id="rId${sheets.length + 1}" Type="${link}/styles" Target="styles.xml"/></Relationships>`,
    'xl/styles.xml': `${HEADER}<styleSheet xmlns="${NAMESPACE}/spreadsheetml/2006/main"><fonts count="2"><font><sz val="11"/></font><font><b/><sz val="11"/></font></fonts>` +
      '<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border/></borders>' +
      '<cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="3"><xf/><xf fontId="1" applyFont="1"/><xf numFmtId="4" applyNumberFormat="1"/></cellXfs>' +
      '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
  }
}
