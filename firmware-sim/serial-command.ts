// The command `soundbox sim serial`: boxes on ports of their own until it is ended, each line of output for a person or a script.
import type { SoundboxError, Timers } from '../protocol/index.js'
import { openPty } from './pty.js'
import { startDfPlayerSim } from './dfplayer-sim.js'
import { startSerialSim } from './serial-sim.js'
import type { Sound } from './voice.js'

/** `dfplayers`: plain MP3 modules beside the soundboxes. The rest as in SerialSimOptions. */
export type SerialCommandOptions = {
  count: number, dfplayers?: number, tids?: readonly string[], faults?: number | undefined, audioScale?: number, baudRate?: number
  timers: Timers, print: (line: string) => void
}
export type RunningSim = { ports: readonly string[], close: () => void }

/** Starts the boxes, prints `port PATH TID` a line for each and `heard …` for every sound. Throws SERIAL_UNAVAILABLE. */
export function runSerialCommand (options: SerialCommandOptions): RunningSim {
  const { dfplayers = 0, print, ...simOptions } = options
  const sim = startSerialSim({ ...simOptions, onSound: (tid, sound) => { print(`heard ${tid} ${heardLine(sound)}`) } })
  sim.ports.forEach((port, index) => { print(`port ${port} ${sim.boxes[index]?.flash().identity?.tid ?? 'not-provisioned'}`) })
  const modules: { close: () => void }[] = []
  const ports = [...sim.ports]
  const close = (): void => {
    sim.close()
    for (const one of modules) one.close()
  }
  try {
    for (let index = 0; index < dfplayers; index++) {
      const pty = openPty(bytes => { player.take(bytes) })
      const player = startDfPlayerSim({
        timers: options.timers, write: pty.write, audioScale: options.audioScale ?? 1, onTrack: track => { print(`heard dfplayer-${index + 1} track ${track}`) }
      })
      modules.push(player, pty)
      ports.push(pty.path)
      print(`port ${pty.path} dfplayer-${index + 1}`)
    }
  } catch (error) {
    close()
    throw error as SoundboxError
  }
  return { ports, close }
}

function heardLine (sound: Sound): string {
  const flags = [sound.isRepeat ? 'repeat' : '', sound.isWhole ? '' : 'cut-off'].filter(flag => flag !== '')
  return [sound.kind, sound.id ?? '-', ...flags, JSON.stringify(sound.text)].join(' ')
}
