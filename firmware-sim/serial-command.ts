// The command `soundbox sim serial`: boxes on ports of their own until it is ended, each line of output for a person or a script.
import { BUTTONS, SoundboxError, type Timers } from '../protocol/index.js'
import { startDfPlayerSim } from './dfplayer-sim.js'
import { openPty } from './pty.js'
import type { SerialSettings } from './serial-settings.js'
import { type SerialSim, startSerialSim } from './serial-sim.js'
import type { Sound } from './voice.js'

export type SerialCommandDeps = { timers: Timers, print: (line: string) => void }
export type RunningSim = {
  ports: readonly string[]
  /** A line of input, as in the help. Throws INPUT_INVALID, NOT_FOUND. */
  act: (line: string) => void
  close: () => void
}

/** Starts the boxes, prints `port PATH TID` for each and `heard …` for every sound. Throws SERIAL_UNAVAILABLE. */
export function runSerialCommand (settings: SerialSettings, { timers, print }: SerialCommandDeps): RunningSim {
  const { dfplayers, makerKey, ...simOptions } = settings
  const sim = startSerialSim({ ...simOptions, ...(makerKey === undefined ? {} : { makerKey }), timers, onSound: (tid, sound) => { print(`heard ${tid} ${heardLine(sound)}`) } })
  const modules: { path: string, close: () => void }[] = []
  const close = (): void => {
    sim.close()
    for (const one of modules) one.close()
  }
  try {
    for (let n = 1; n <= dfplayers; n++) modules.push(plugInModule(n, { timers, print }, settings.audioScale))
  } catch (error) {
    close()
    throw error
  }
  sim.ports.forEach((path, index) => { print(`port ${path} ${nameOf(sim, index)}`) })
  modules.forEach(({ path }, index) => { print(`port ${path} dfplayer-${index + 1}`) })
  return { ports: [...sim.ports, ...modules.map(({ path }) => path)], act: line => { act(sim, line) }, close }
}

function plugInModule (n: number, { timers, print }: SerialCommandDeps, audioScale: number): { path: string, close: () => void } {
  const pty = openPty(bytes => { player.take(bytes) })
  const player = startDfPlayerSim({ timers, write: pty.write, audioScale, onTrack: track => { print(`heard dfplayer-${n} track ${track}`) } })
  return {
    path: pty.path,
    close () {
      player.close()
      pty.close()
    }
  }
}

function act (sim: SerialSim, line: string): void {
  const [verb, tid, word] = line.trim().split(/\s+/)
  const index = sim.boxes.findIndex((_, at) => nameOf(sim, at) === tid)
  const box = sim.boxes[index]
  const button = BUTTONS.find(name => name === word)
  if (box === undefined) throw new SoundboxError('NOT_FOUND', 'no box here has that serial number')
  if (verb === 'press' && button !== undefined) box.press(button)
  else if (verb === 'reboot') box.reboot('power')
  else if (verb === 'stick') box.stick(Number.POSITIVE_INFINITY)
  else if (verb === 'unplug') sim.unplug(index)
  else throw new SoundboxError('INPUT_INVALID', `say press TID ${BUTTONS.join('|')}, reboot TID, stick TID or unplug TID`)
}

function nameOf (sim: SerialSim, index: number): string {
  return sim.boxes[index]?.flash().identity?.tid ?? 'not-provisioned'
}

function heardLine (sound: Sound): string {
  const flags = [sound.isRepeat ? 'repeat' : '', sound.isWhole ? '' : 'cut-off'].filter(flag => flag !== '')
  return [sound.kind, sound.id ?? '-', ...flags, JSON.stringify(sound.text)].join(' ')
}
