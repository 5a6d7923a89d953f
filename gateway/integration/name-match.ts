// Do two names mean the same owner? Pure and explainable: words are compared, not letters at large.
//
// Both names become plain words (upper case, no accents, no punctuation, no legal forms, no titles). Each word of the shorter name takes
// its best partner of the longer one: equal 1, one initial of the other 0.8, one typing error in five letters 0.8. The score is the sum
// over the longer count, so that a missing surname costs. A name that the bank has masked with stars cannot be compared at all.

const DROPPED = new Set([
  'MR', 'MRS', 'MS', 'DR', 'SHRI', 'SMT', 'KUM', 'LTD', 'LIMITED', 'PVT', 'PRIVATE', 'LLP', 'PLC', 'INC', 'CO', 'COMPANY', 'CORP', 'AND', 'THE', 'OF', 'PROP', 'PROPRIETOR', 'TRADING', 'AS'
])
const INITIAL_SCORE = 0.8
const TYPO_SCORE = 0.8
const TYPO_LETTERS_MIN = 5

/** 0 (nothing in common) to 1 (the same words); undefined when one of the names is masked or has no word. */
export function nameScore (left: string, right: string): number | undefined {
  if (left.includes('*') || right.includes('*')) return undefined
  const [shorter, longer] = [wordsOf(left), wordsOf(right)].sort((a, b) => a.length - b.length) as [string[], string[]]
  if (shorter.length === 0) return undefined
  const free = [...longer]
  let sum = 0
  // Equal words pair first, so that an initial never takes the partner of a whole word.
  const later = shorter.filter(word => {
    const at = free.indexOf(word)
    if (at < 0) return true
    free.splice(at, 1)
    sum += 1
    return false
  })
  for (const word of later) {
    const scores = free.map(other => wordScore(word, other))
    const best = Math.max(0, ...scores)
    if (best === 0) continue
    free.splice(scores.indexOf(best), 1)
    sum += best
  }
  return sum / longer.length
}

function wordsOf (name: string): string[] {
  const words = plainText(name).split(/[^\p{L}\p{M}\p{N}]+/u).filter(word => word !== '')
  const kept = words.filter(word => !DROPPED.has(word))
  return kept.length === 0 ? words : kept
}

/** Upper case without Latin accents; the vowel signs of Indic scripts are marks too, but there they make another name. */
function plainText (name: string): string {
  return name.normalize('NFKD').replace(/[\u0300-\u036f]/g, '').toUpperCase().replace(/^\s*M\/S\b/, ' ')
}

function wordScore (left: string, right: string): number {
  if (left === right) return 1
  if (left.length === 1 || right.length === 1) return left[0] === right[0] ? INITIAL_SCORE : 0
  return Math.min(left.length, right.length) >= TYPO_LETTERS_MIN && isOneEditApart(left, right) ? TYPO_SCORE : 0
}

/** One letter more, less, other, or two neighbours swapped. */
function isOneEditApart (left: string, right: string): boolean {
  const [short, long] = left.length <= right.length ? [left, right] : [right, left]
  if (long.length - short.length > 1) return false
  let at = 0
  while (at < short.length && short[at] === long[at]) at += 1
  if (long.length > short.length) return short.slice(at) === long.slice(at + 1)
  return short.slice(at + 1) === long.slice(at + 1) || (short[at] === long[at + 1] && short[at + 1] === long[at] && short.slice(at + 2) === long.slice(at + 2))
}
