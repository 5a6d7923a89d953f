// Reads settings of one prefix from an environment and gathers every problem, so that an operator corrects all of them at once.
// A secret may stand in the variable itself or in the file that `<NAME>_FILE` names (one trailing line feed is dropped).
// No problem ever shows a value: it may be the secret that was pasted into the wrong variable.
import { Secret } from '../../protocol/index.js'

export type Env = Readonly<Record<string, string | undefined>>
/** Text of a file. Throws when it cannot be read. */
export type ReadFile = (path: string) => string

export type Reader = {
  text: (name: string, otherwise?: string) => string | undefined
  secret: (name: string) => Secret | undefined
  /** Plain text that may also come from a file: certificates, JSON. */
  fileText: (name: string) => string | undefined
  integer: (name: string, range: { min: number, max: number, otherwise: number }) => number
  flag: (name: string, otherwise: boolean) => boolean
  word: <W extends string>(name: string, words: readonly W[], otherwise: W) => W
  list: (name: string) => string[] | undefined
  /** A JSON object from the variable or its file. */
  json: (name: string) => Record<string, unknown> | undefined
  /** Every `<prefix>_<family>_<REST>` variable as lower-case rest -> text. */
  family: (family: string) => Record<string, string>
  secretFamily: (family: string) => Record<string, Secret>
  problem: (name: string, what: string) => void
  /** Variables of the prefix that nothing asked for. */
  unknown: () => string[]
}

/** A reader over `<prefix>_*`. Problems are pushed to `problems` as `NAME what`. */
export function openReader (prefix: string, env: Env, readFile: ReadFile, problems: string[]): Reader {
  const asked = new Set<string>()
  const problem = (name: string, what: string): void => { problems.push(`${prefix}_${name} ${what}`) }
  const raw = (name: string): string | undefined => {
    asked.add(`${prefix}_${name}`)
    const value = env[`${prefix}_${name}`]
    return value === undefined || value.trim() === '' ? undefined : value.trim()
  }
  const fileText = (name: string): string | undefined => {
    const direct = raw(name)
    const path = raw(`${name}_FILE`)
    if (path === undefined) return direct
    if (direct !== undefined) problem(name, `and ${prefix}_${name}_FILE are both set: set one`)
    try {
      const content = readFile(path).replace(/\r?\n$/, '')
      if (content === '') problem(`${name}_FILE`, 'names an empty file')
      return content
    } catch {
      problem(`${name}_FILE`, 'names a file that cannot be read')
      return undefined
    }
  }
  const secret = (name: string): Secret | undefined => {
    const value = fileText(name)
    return value === undefined || value === '' ? undefined : new Secret(value)
  }
  const namesOf = (family: string): string[] => Object.keys(env).filter(name => name.startsWith(`${prefix}_${family}_`) && env[name]?.trim() !== '')
    .map(name => name.slice(prefix.length + 1)).sort()
  return {
    text: (name, otherwise) => raw(name) ?? otherwise,
    secret,
    fileText,
    problem,
    ...scalarReaders(raw, problem),
    list: name => raw(name)?.split(',').map(item => item.trim()).filter(item => item !== ''),
    json (name) {
      const value = fileText(name)
      if (value === undefined || value === '') return undefined
      const parsed = parseObject(value)
      if (parsed === undefined) problem(name, 'must be a JSON object')
      return parsed
    },
    family: family => Object.fromEntries(namesOf(family).map(name => [name.slice(family.length + 1).toLowerCase(), raw(name) ?? ''])),
    secretFamily (family) {
      const bare = new Set(namesOf(family).map(name => name.replace(/_FILE$/, '')))
      return Object.fromEntries([...bare].flatMap(name => {
        const value = secret(name)
        return value === undefined ? [] : [[name.slice(family.length + 1).toLowerCase(), value]]
      }))
    },
    unknown: () => Object.keys(env).filter(name => name.startsWith(`${prefix}_`) && !asked.has(name)).sort()
  }
}

/** Numbers, flags and words: a value out of its range is a problem, and the default stands in for it. */
function scalarReaders (raw: (name: string) => string | undefined, problem: Reader['problem']): Pick<Reader, 'integer' | 'flag' | 'word'> {
  return {
    integer (name, { min, max, otherwise }) {
      const value = raw(name)
      if (value === undefined) return otherwise
      const number = /^\d{1,12}$/.test(value) ? Number(value) : Number.NaN
      if (number >= min && number <= max) return number
      problem(name, `must be a whole number from ${min} to ${max}`)
      return otherwise
    },
    flag (name, otherwise) {
      const value = raw(name)?.toLowerCase()
      if (value === undefined) return otherwise
      if (['true', '1', 'yes', 'on'].includes(value)) return true
      if (!['false', '0', 'no', 'off'].includes(value)) problem(name, 'must be true or false')
      return false
    },
    word (name, words, otherwise) {
      const value = raw(name)?.toLowerCase()
      const found = words.find(word => word === value)
      if (value !== undefined && found === undefined) problem(name, `must be one of ${words.join(', ')}`)
      return found ?? otherwise
    }
  }
}

function parseObject (value: string): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(value)
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? parsed as Record<string, unknown> : undefined
  } catch {
    return undefined
  }
}
