// From an announcement to the start of its sound: wording alone, a phrase that the engine must make, and one that is kept. The WAV file
// is written in both; nothing is played. Alone: node dist/test/bench/speech.bench.js
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { makeTimers } from '../../protocol/timers.js'
import { openSpeaker } from '../../device-agent/speaker-kinds.js'
import type { Speaker } from '../../device-agent/speaker.js'
import type { Language } from '../../protocol/languages.js'
import { SILENT_LOG } from '../../protocol/log.js'
import { wordAnnouncement } from '../../protocol/wording/index.js'

const WORDINGS = 20_000
const PHRASES = 60

function word (language: Language, amountMinor: number) {
  const { text, clips } = wordAnnouncement({ kind: 'payment', amountMinor, currency: 'INR', language, txnType: 'UPI' })
  return { text, clips, language, volume: 80 }
}

function print (name: string, timesMs: readonly number[]): void {
  const sorted = [...timesMs].sort((a, b) => a - b)
  const at = (part: number): string => `${(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0).toFixed(3)} ms`
  const rate = Math.round(1000 * timesMs.length / timesMs.reduce((sum, ms) => sum + ms, 0))
  console.log(`${name.padEnd(34)} ${rate.toLocaleString('en').padStart(11)} ops/s  p50 ${at(0.5)}  p99 ${at(0.99)}`)
}

async function measure (times: number, once: (index: number) => unknown): Promise<number[]> {
  const timesMs: number[] = []
  for (let index = 0; index < times; index++) {
    const start = performance.now()
    await once(index)
    timesMs.push(performance.now() - start)
  }
  return timesMs
}

async function measureSpeaker (speaker: Speaker, language: Language): Promise<void> {
  await speaker.say(word(language, 1))
  print(`speech ${language} new phrase`, await measure(PHRASES, index => speaker.say(word(language, 1900 + index * 137))))
  print(`speech ${language} kept phrase`, await measure(PHRASES, () => speaker.say(word(language, 1900))))
}

/** Measures and prints one line a row: `name ops/s p50 p99`. Without the optional engines only the wording rows. */
export async function run (): Promise<void> {
  for (const language of ['ENGLISH', 'HINDI'] as const) {
    print(`wording ${language}`, await measure(WORDINGS, index => word(language, 1 + index * 4_999_999)))
  }
  const folder = mkdtempSync(join(tmpdir(), 'soundbox-bench-'))
  try {
    const speaker = await openSpeaker({ kind: 'espeak', wavDir: folder, play: false }, { clock: makeTimers(() => performance.now()), log: SILENT_LOG, print: () => {} })
    for (const language of ['ENGLISH', 'HINDI'] as const) await measureSpeaker(speaker, language)
    await speaker.close()
  } catch (error) {
    console.log(`speech not measured: ${error instanceof Error ? error.message : 'unknown fault'}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await run()
