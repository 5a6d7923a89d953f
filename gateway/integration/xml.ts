// XML of providers, to and from plain objects. Values stay text: 19.00 must not become 19, and 0150 must not become 150.
//
//   <a x="1"><b>19.00</b><b/></a>  <->  { a: { '@x': '1', b: ['19.00', ''] } }
//
// What a hostile document may not do: a DOCTYPE is refused before parsing (entity bombs and external entities need one), and size, depth,
// tags and attributes are bounded by one quick pass over the text before the parser sees it: the parser needs up to a microsecond a
// character, and the event loop waits for it. Only the five predefined entities and numeric references are decoded.
import { XMLBuilder, XMLParser, XMLValidator } from 'fast-xml-parser'
import { SoundboxError } from '../../protocol/index.js'

export const XML_CHARS_MAX = 524_288
export const XML_DEPTH_MAX = 32
export const XML_TAGS_MAX = 20_000 // Opening and closing ones.
export const XML_TAG_CHARS_MAX = 8_192
export const XML_ATTRIBUTES_MAX = 4_000

const parser = new XMLParser({
  parseTagValue: false, parseAttributeValue: false, ignoreAttributes: false, attributeNamePrefix: '@', textNodeName: '#text', ignoreDeclaration: true, ignorePiTags: true,
  removeNSPrefix: true, processEntities: false, trimValues: true, maxNestedTags: XML_DEPTH_MAX,
  tagValueProcessor: (_name, value) => decodeEntities(value), attributeValueProcessor: (_name, value) => decodeEntities(value)
})
const builder = new XMLBuilder({ ignoreAttributes: false, attributeNamePrefix: '@', textNodeName: '#text', suppressEmptyNode: false, processEntities: true, format: false })

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** The object in an XML text; names lose their namespace prefix. Throws PROVIDER_RESPONSE_INVALID without quoting the text. */
export function parseXml (xml: string): Record<string, unknown> {
  if (xml.length > XML_CHARS_MAX) throw invalid(`longer than ${XML_CHARS_MAX} characters`)
  const problem = structureProblem(xml)
  if (problem !== undefined) throw invalid(problem)
  try {
    if (XMLValidator.validate(xml) !== true) throw invalid('not well-formed')
    return parser.parse(xml) as Record<string, unknown>
  } catch (cause) {
    if (cause instanceof SoundboxError) throw cause
    throw invalid('not well-formed', cause)
  }
}

/** XML of an object with one root key, with its declaration. Throws PROVIDER_CONFIG for anything else: that is the mapping's mistake. */
export function formatXml (value: unknown): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Object.keys(value).length !== 1) {
    throw new SoundboxError('PROVIDER_CONFIG', 'an XML body is an object with one root key')
  }
  return `<?xml version="1.0" encoding="UTF-8"?>${String(builder.build(value))}`
}

/** One pass, no recursion: depth, tags, attributes, and nothing that may declare entities. */
function structureProblem (xml: string): string | undefined {
  let depth = 0
  let tags = 0
  let attributes = 0
  let sign = xml.indexOf('=')
  for (let at = xml.indexOf('<'); at >= 0; at = xml.indexOf('<', at + 1)) {
    const next = xml[at + 1]
    if (next === '!') {
      const end = xml.startsWith('<!--', at) ? xml.indexOf('-->', at + 4) : xml.startsWith('<![CDATA[', at) ? xml.indexOf(']]>', at + 9) : -1
      if (end < 0) return 'a document with a DOCTYPE or an open comment'
      at = end
      continue
    }
    if (next === '?') continue
    const end = xml.indexOf('>', at)
    if (end < 0) return 'not well-formed'
    if (end - at > XML_TAG_CHARS_MAX) return `a document with a tag of more than ${XML_TAG_CHARS_MAX} characters`
    if (sign >= 0 && sign < at) sign = xml.indexOf('=', at) // Goes forward only: the whole text is searched once.
    for (; sign >= 0 && sign < end; sign = xml.indexOf('=', sign + 1)) attributes += 1
    tags += 1
    if (next === '/') depth -= 1
    else if (xml[end - 1] !== '/') depth += 1
    if (depth > XML_DEPTH_MAX) return `deeper than ${XML_DEPTH_MAX} elements`
    if (attributes > XML_ATTRIBUTES_MAX) return `a document of more than ${XML_ATTRIBUTES_MAX} attributes`
    if (tags > XML_TAGS_MAX) return `more than ${XML_TAGS_MAX} tags`
  }
  return tags === 0 ? 'not XML' : undefined
}

function decodeEntities (text: string): string {
  if (!text.includes('&')) return text
  return text.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z]{2,4}));/gi, (whole, hex: string | undefined, decimal: string | undefined, name: string | undefined) => {
    if (name !== undefined) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] ?? whole : whole
    const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16)
    return code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff) ? String.fromCodePoint(code) : whole
  })
}

function invalid (what: string, cause?: unknown): SoundboxError {
  return new SoundboxError('PROVIDER_RESPONSE_INVALID', `the XML is ${what}`, { cause })
}
