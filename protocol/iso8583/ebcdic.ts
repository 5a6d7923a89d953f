// EBCDIC code pages 037 (US), 500 (international) and 1047 (open systems) to Latin-1. All three hold the same 256 characters: 500 and 1047
// are 037 with a few places changed, among them [ ] ! | ^ that text fields do use. So the page is part of a spec, never guessed.

/** The words for `codepage` of a spec. */
export const CODEPAGE_NAMES = ['037', '500', '1047'] as const
export type Codepage = typeof CODEPAGE_NAMES[number]

const PAGE_037 = '000102039c09867f978d8e0b0c0d0e0f101112139d8508871819928f1c1d1e1f80818283840a171b88898a8b8c050607909116939495960498999a9b14159e1a' +
  '20a0e2e4e0e1e3e5e7f1a22e3c282b7c26e9eaebe8edeeefecdf21242a293bac2d2fc2c4c0c1c3c5c7d1a62c255f3e3ff8c9cacbc8cdcecfcc603a2340273d22' +
  'd8616263646566676869abbbf0fdfeb1b06a6b6c6d6e6f707172aabae6b8c6a4b57e737475767778797aa1bfd0dddeae5ea3a5b7a9a7b6bcbdbe5b5dafa8b4d7' +
  '7b414243444546474849adf4f6f2f3f57d4a4b4c4d4e4f505152b9fbfcf9faff5cf7535455565758595ab2d4d6d2d3d530313233343536373839b3dbdcd9da9f'

/** EBCDIC byte -> Latin-1 code. */
export const CODEPAGES: Record<Codepage, Uint8Array> = {
  '037': page([]),
  '500': page([[0x4a, '['], [0x4f, '!'], [0x5a, ']'], [0x5f, '^'], [0xb0, '\xa2'], [0xba, '\xac'], [0xbb, '|']]),
  '1047': page([[0x5f, '^'], [0xad, '['], [0xb0, '\xac'], [0xba, '\xdd'], [0xbb, '\xa8'], [0xbd, ']']])
}

function page (changes: ReadonlyArray<[byte: number, character: string]>): Uint8Array {
  const codes = Uint8Array.from(Buffer.from(PAGE_037, 'hex'))
  for (const [byte, character] of changes) codes[byte] = character.charCodeAt(0)
  return codes
}
