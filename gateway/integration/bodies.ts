// Bodies between values and bytes: JSON, XML, forms. An answer is decoded by its content type, and by its first character where the type
// is missing or says text, as several gateways label their JSON; a body that does not parse is an error only when the call succeeded.
import { SoundboxError } from '../../protocol/index.js'
import type { BodyFormat, ProviderRequest } from './provider.js'
import { formatXml, parseXml } from './xml.js'

/** Text and content type of a request body. Throws PROVIDER_CONFIG for a body that is not of its format. */
export function encodeBody (request: Pick<ProviderRequest, 'format' | 'body' | 'uriKey'>): { body: string | undefined, contentType: string | undefined } {
  switch (request.format) {
    case 'none': return { body: undefined, contentType: undefined }
    case 'json': return { body: JSON.stringify(request.body ?? {}), contentType: 'application/json' }
    case 'xml': return { body: formatXml(request.body), contentType: 'application/xml; charset=utf-8' }
    case 'form': return { body: formatForm(request.body, request.uriKey), contentType: 'application/x-www-form-urlencoded' }
    default: return request.format satisfies never
  }
}

function formatForm (value: unknown, uriKey: string): string {
  const form = new URLSearchParams()
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SoundboxError('PROVIDER_CONFIG', `the form of ${uriKey} is not an object`)
  for (const [name, item] of Object.entries(value)) {
    for (const text of Array.isArray(item) ? item : [item]) {
      if (typeof text !== 'string') throw new SoundboxError('PROVIDER_CONFIG', `the form of ${uriKey} has a field ${name} that is not text`)
      form.append(name, text)
    }
  }
  return form.toString()
}

/**
 * The value in an answer. `opened` is the text of a decrypted body. Throws PROVIDER_RESPONSE_INVALID for a body that does not parse
 * although the status is 2xx, and for a compressed one: we asked for none.
 */
export function decodeBody (format: BodyFormat, headers: Readonly<Record<string, string>>, bytes: Buffer, opened: string | undefined, status: number): unknown {
  const encoding = headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity' && encoding !== '') throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'the answer is compressed, which was not asked for')
  const text = opened ?? bytes.toString('utf8')
  if (text.trim() === '') return undefined
  const kind = kindOf(format, opened === undefined ? headers['content-type'] ?? '' : '', text)
  if (kind === 'text') return text
  try {
    return kind === 'json' ? JSON.parse(text) as unknown : parseXml(text)
  } catch (cause) {
    if (status >= 300) return text // An error page of a proxy: the status says enough.
    if (cause instanceof SoundboxError) throw cause
    throw new SoundboxError('PROVIDER_RESPONSE_INVALID', 'the answer is not JSON', { cause })
  }
}

function kindOf (format: BodyFormat, contentType: string, text: string): 'json' | 'xml' | 'text' {
  if (contentType === 'application/json' || /[/+]json\b/i.test(contentType)) return 'json'
  if (/[/+]xml\b/i.test(contentType)) return 'xml'
  const first = text.trimStart()[0]
  if (first === '{' || first === '[') return 'json'
  if (first === '<' && format === 'xml') return 'xml'
  return 'text'
}
