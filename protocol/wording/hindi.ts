// Hindi in Devanagari, spelled as the Central Hindi Directorate spells it. रुपया/रुपये and पैसा/पैसे agree with one, and so does the
// verb: "एक रुपया प्राप्त हुआ", "दो रुपये प्राप्त हुए". The hundred keeps its एक: "एक सौ पचास".
import { codeClips, countingClips, numberFromGroups, sideBySide } from './numbers.js'
import { BARE_PROMPTS, isNothing, isSingular, type LanguageWording, type Money, PAUSE, type Spoken } from './shape.js'

const COUNTING = [
  'शून्य', 'एक', 'दो', 'तीन', 'चार', 'पाँच', 'छह', 'सात', 'आठ', 'नौ',
  'दस', 'ग्यारह', 'बारह', 'तेरह', 'चौदह', 'पंद्रह', 'सोलह', 'सत्रह', 'अठारह', 'उन्नीस',
  'बीस', 'इक्कीस', 'बाईस', 'तेईस', 'चौबीस', 'पच्चीस', 'छब्बीस', 'सत्ताईस', 'अट्ठाईस', 'उनतीस',
  'तीस', 'इकतीस', 'बत्तीस', 'तैंतीस', 'चौंतीस', 'पैंतीस', 'छत्तीस', 'सैंतीस', 'अड़तीस', 'उनतालीस',
  'चालीस', 'इकतालीस', 'बयालीस', 'तैंतालीस', 'चवालीस', 'पैंतालीस', 'छियालीस', 'सैंतालीस', 'अड़तालीस', 'उनचास',
  'पचास', 'इक्यावन', 'बावन', 'तिरपन', 'चौवन', 'पचपन', 'छप्पन', 'सत्तावन', 'अट्ठावन', 'उनसठ',
  'साठ', 'इकसठ', 'बासठ', 'तिरसठ', 'चौंसठ', 'पैंसठ', 'छियासठ', 'सड़सठ', 'अड़सठ', 'उनहत्तर',
  'सत्तर', 'इकहत्तर', 'बहत्तर', 'तिहत्तर', 'चौहत्तर', 'पचहत्तर', 'छिहत्तर', 'सतहत्तर', 'अठहत्तर', 'उनासी',
  'अस्सी', 'इक्यासी', 'बयासी', 'तिरासी', 'चौरासी', 'पचासी', 'छियासी', 'सत्तासी', 'अट्ठासी', 'नवासी',
  'नब्बे', 'इक्यानवे', 'बानवे', 'तिरानवे', 'चौरानवे', 'पचानवे', 'छियानवे', 'सत्तानवे', 'अट्ठानवे', 'निन्यानवे'
]

const number = (n: number): Spoken => numberFromGroups(n, sideBySide)

/** "उन्नीस रुपये और पचास पैसे". */
function amount ({ rupees, paise }: Money): Spoken {
  const whole = rupees === 0 ? [] : [...number(rupees), rupees === 1 ? 'rupee' : 'rupees']
  const part = paise === 0 ? [] : [...number(paise), paise === 1 ? 'paisa' : 'paise']
  return whole.length > 0 && part.length > 0 ? [...whole, 'and', ...part] : [...whole, ...part]
}

export const hindi: LanguageWording = {
  reviewed: false,
  clips: {
    ...countingClips(COUNTING),
    hundred: 'सौ',
    thousand: 'हज़ार',
    lakh: 'लाख',
    crore: 'करोड़',
    rupee: 'रुपया',
    rupees: 'रुपये',
    paisa: 'पैसा',
    paise: 'पैसे',
    and: 'और',
    received: 'प्राप्त हुए',
    'received-one': 'प्राप्त हुआ',
    'payment-failed': 'भुगतान असफल रहा',
    'payment-reversed': 'भुगतान वापस हो गया',
    repeat: 'दोबारा सुनिए',
    test: 'यह एक परीक्षण है',
    payments: 'भुगतान',
    'while-offline': 'ऑफ़लाइन रहने के दौरान',
    starting: 'साउंड बॉक्स शुरू हो रहा है',
    connected: 'कनेक्ट हो गया',
    'connection-lost': 'कनेक्शन टूट गया',
    'battery-low': 'बैटरी कम है',
    volume: 'आवाज़',
    percent: 'प्रतिशत',
    'no-payments': 'अभी तक कोई भुगतान नहीं',
    today: 'आज',
    code: 'कोड',
    'via-upi': 'यू पी आई से',
    'via-card': 'कार्ड से',
    'via-pos': 'पी ओ एस से',
    'via-matm': 'माइक्रो ए टी एम से',
    'via-aeps': 'आधार से'
  },
  number,
  sentences: {
    ...BARE_PROMPTS,
    payment: ({ money, via }) => [...via, ...amount(money), isSingular(money) ? 'received-one' : 'received'],
    'failed-payment': ({ money, via }) => ['payment-failed', PAUSE, ...via, ...amount(money)],
    'reversed-payment': ({ money, via }) => ['payment-reversed', PAUSE, ...via, ...amount(money)],
    summary: ({ money, count }) => [...number(count), 'payments', PAUSE, ...amount(money), PAUSE, 'while-offline'],
    test: ({ money }) => isNothing(money) ? ['test'] : ['test', PAUSE, ...amount(money)],
    volume: ({ count }) => ['volume', ...number(count), 'percent'],
    'day-total': ({ money, count }) => count === 0 ? ['today', PAUSE, 'no-payments'] : ['today', PAUSE, ...number(count), 'payments', PAUSE, ...amount(money)],
    code: ({ count }) => ['code', PAUSE, ...codeClips(count)]
  }
}
