// What keeps a soundbox from working on this machine, each finding with its remedy. Looks only; changes nothing.
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { type Log, SoundboxError, type Timers } from '../../protocol/index.js'
import { wordAnnouncement } from '../../protocol/wording/index.js'
import { listSerialPorts } from '../serial-link.js'
import { openSpeaker } from '../speaker-kinds.js'

/** `level`: ok, a warning that some will live with, or a fault. */
export type Finding = { check: string, level: 'ok' | 'warning' | 'fault', found: string, remedy: string | null }
const CLOCK_TIMEOUT_MS = 3000
const VOICE_REMEDY = 'install the optional packages (npm install) or Debian\'s espeak-ng'

/** Ports, their permissions, clock, voice and sound device of this machine. `wavDir`: a folder for the trial sound. */
export async function examineMachine (deps: { log: Log, clock: Timers, wavDir: string }): Promise<Finding[]> {
  return [...await examinePorts(), await examineClock(), ...await examineVoice(deps)]
}

async function examinePorts (): Promise<Finding[]> {
  const ports = await listSerialPorts()
  if (ports.length === 0) return [{ check: 'serial ports', level: 'warning', found: 'none', remedy: 'plug in the soundbox; without one on a cable this is as it should be' }]
  return await Promise.all(ports.map(async ({ path, stablePath }): Promise<Finding> => {
    const isOpen = await access(path, constants.R_OK | constants.W_OK).then(() => true, () => false)
    if (isOpen) return { check: `serial port ${path}`, level: 'ok', found: stablePath, remedy: null }
    return { check: `serial port ${path}`, level: 'fault', found: 'not allowed', remedy: 'add this user to the group dialout (sudo usermod -aG dialout $USER) and sign in again' }
  }))
}

/** A clock that is not kept by NTP will drift until banks refuse the epoch and boxes call announcements stale. */
async function examineClock (): Promise<Finding> {
  const answer = await promisify(execFile)('timedatectl', ['show', '--property=NTPSynchronized', '--value'], { timeout: CLOCK_TIMEOUT_MS }).then(({ stdout }) => stdout.trim(), () => 'unknown')
  if (answer === 'yes') return { check: 'clock', level: 'ok', found: 'kept by NTP', remedy: null }
  const found = answer === 'no' ? 'not kept by NTP' : 'cannot tell whether it is kept by NTP'
  return { check: 'clock', level: 'warning', found, remedy: 'run a time service (timedatectl set-ntp true)' }
}

async function examineVoice ({ log, clock, wavDir }: { log: Log, clock: Timers, wavDir: string }): Promise<Finding[]> {
  try {
    const speaker = await openSpeaker({ kind: 'espeak', wavDir, play: false }, { clock, log, print: () => {} })
    const findings: Finding[] = []
    for (const language of ['ENGLISH', 'HINDI'] as const) {
      const { text, clips } = wordAnnouncement({ kind: 'payment', amountMinor: 1900, currency: 'INR', language })
      const { audioMs } = await speaker.say({ text, clips, language, volume: 80 })
      const isHeard = audioMs > 0
      findings.push({ check: `voice ${language}`, level: isHeard ? 'ok' : 'fault', found: `${audioMs} ms of sound`, remedy: isHeard ? null : VOICE_REMEDY })
    }
    await speaker.close()
    return [...findings, await examineSoundDevice()]
  } catch (error) {
    const found = error instanceof SoundboxError ? error.message : 'the speech engine does not work'
    return [{ check: 'voice', level: 'fault', found, remedy: VOICE_REMEDY }]
  }
}

async function examineSoundDevice (): Promise<Finding> {
  const cards = await readFile('/proc/asound/cards', 'utf8').catch(() => '')
  if (/^\s*\d+ \[/m.test(cards)) return { check: 'sound device', level: 'ok', found: /\[(\S+)/.exec(cards)?.[1] ?? 'a card', remedy: null }
  return { check: 'sound device', level: 'warning', found: 'none', remedy: 'connect a speaker or sound card; without one the agent only writes WAV files' }
}
