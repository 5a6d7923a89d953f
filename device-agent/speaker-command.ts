// One run of an outside program: arguments as a list, never through a shell; input through stdin; a time limit and an output limit.
import { spawn } from 'node:child_process'
import type { Timers } from '../protocol/index.js'
import { speechFailed } from './speaker.js'

export type Command = { command: string, args: readonly string[], input?: string | Buffer, timeoutMs: number }

/** More sound than any sentence makes, in bytes of output. */
export const OUTPUT_BYTES_MAX = 8 * 1024 * 1024

/**
 * `done`: what the program wrote to stdout. It rejects with SPEECH_FAILED when the program is missing, ends with a code other than 0, writes
 * more than OUTPUT_BYTES_MAX, takes longer than timeoutMs or is stopped: killed in each case before it rejects.
 */
export function runCommand ({ command, args, input, timeoutMs }: Command, clock: Timers): { done: Promise<Buffer>, stop: () => void } {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'ignore'], windowsHide: true })
  const output: Buffer[] = []
  let bytes = 0
  let why = ''
  const stop = (reason: string): void => {
    why ||= reason
    child.kill('SIGKILL')
    child.stdout.destroy() // What the program started may still hold the pipe.
  }
  const cancel = clock.after(timeoutMs, () => stop(`${command} did not end within ${timeoutMs} ms`))
  child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > OUTPUT_BYTES_MAX) stop(`${command} wrote more than ${OUTPUT_BYTES_MAX} bytes`)
    else output.push(chunk)
  })
  child.stdin.on('error', () => {}) // The program ended before it read all: its exit code tells.
  child.stdin.end(input)
  const done = new Promise<Buffer>((resolve, reject) => {
    child.once('error', cause => {
      cancel()
      reject(speechFailed(`${command} cannot be started: install it`, cause))
    })
    child.once('close', (code, signal) => {
      cancel()
      if (why !== '') reject(speechFailed(why))
      else if (code !== 0) reject(speechFailed(`${command} ended with ${code ?? signal}`))
      else resolve(Buffer.concat(output))
    })
  })
  return { done, stop: () => stop(`${command} was stopped`) }
}
