// English as it is spoken in India: lakh and crore, "rupees nineteen" first when money has come, "nineteen rupees" inside a sentence.
// Numbers go without "and" ("one hundred one"): the one "and" of an amount parts rupees from paise.
import { codeClips, countingClips, numberFromGroups, sideBySide } from './numbers.js'
import { BARE_PROMPTS, isNothing, type LanguageWording, type Money, PAUSE, type Spoken } from './shape.js'

const ONES = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve', 'thirteen',
  'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen', 'nineteen']
const TENS = ['twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty', 'ninety']
const COUNTING = [...ONES, ...TENS.flatMap(ten => [ten, ...ONES.slice(1, 10).map(one => `${ten} ${one}`)])]

const number = (n: number): Spoken => numberFromGroups(n, sideBySide)

const paiseClips = (paise: number): Spoken => [...number(paise), paise === 1 ? 'paisa' : 'paise']

/** "nineteen rupees and fifty paise". */
function amount ({ rupees, paise }: Money): Spoken {
  if (rupees === 0) return paiseClips(paise)
  return [...number(rupees), rupees === 1 ? 'rupee' : 'rupees', ...(paise === 0 ? [] : ['and', ...paiseClips(paise)])]
}

/** "rupees nineteen and fifty paise"; one rupee and bare paise keep the plain order. */
function amountInFront (money: Money): Spoken {
  if (money.rupees <= 1) return amount(money)
  return ['rupees', ...number(money.rupees), ...(money.paise === 0 ? [] : ['and', ...paiseClips(money.paise)])]
}

const payments = (count: number): Spoken => [...number(count), count === 1 ? 'payment' : 'payments']

export const english: LanguageWording = {
  reviewed: false,
  clips: {
    ...countingClips(COUNTING),
    hundred: 'hundred',
    thousand: 'thousand',
    lakh: 'lakh',
    crore: 'crore',
    rupee: 'rupee',
    rupees: 'rupees',
    paisa: 'paisa',
    paise: 'paise',
    and: 'and',
    received: 'received',
    'payment-failed': 'payment failed',
    'payment-reversed': 'payment reversed',
    repeat: 'repeat',
    test: 'this is a test',
    payment: 'payment',
    payments: 'payments',
    'while-offline': 'while offline',
    starting: 'sound box is starting',
    connected: 'connected',
    'connection-lost': 'connection lost',
    'battery-low': 'battery low',
    volume: 'volume',
    percent: 'percent',
    'no-payments': 'no payments yet',
    today: 'today',
    code: 'code',
    'via-upi': 'on U P I',
    'via-card': 'by card',
    'via-pos': 'on P O S',
    'via-matm': 'on micro ATM',
    'via-aeps': 'by Aadhaar'
  },
  number,
  sentences: {
    ...BARE_PROMPTS,
    payment: ({ money, via }) => ['received', ...amountInFront(money), ...via],
    'failed-payment': ({ money, via }) => ['payment-failed', PAUSE, ...amount(money), ...via],
    'reversed-payment': ({ money, via }) => ['payment-reversed', PAUSE, ...amount(money), ...via],
    summary: ({ money, count }) => [...payments(count), PAUSE, ...amount(money), PAUSE, 'while-offline'],
    test: ({ money }) => isNothing(money) ? ['test'] : ['test', PAUSE, ...amount(money)],
    volume: ({ count }) => ['volume', ...number(count), 'percent'],
    'day-total': ({ money, count }) => count === 0 ? ['today', PAUSE, 'no-payments'] : ['today', PAUSE, ...payments(count), PAUSE, ...amount(money)],
    code: ({ count }) => ['code', PAUSE, ...codeClips(count)]
  }
}
