// What the operator wants of this box, as last applied, kept on disk so that a box without network still speaks as it should.
// One small JSON file, written beside and moved over. A damaged file is as good as none: the defaults hold until the next `desired`.
import { mkdirSync } from 'node:fs'
import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { type Desired, decodeDesired, decodeMessage, encodeMessage, isSoundboxError, type Log, SoundboxError } from '../protocol/index.js'

/** `version`: of the `desired` that was applied. `clockOffsetMs`: the gateway's clock minus the device's, from the newest `desired`.
 *  `wish`: that `desired` as text; what was changed at the box stays until the operator wants something else. */
export type BoxSettings = Pick<Desired, 'volume' | 'minVolume' | 'language' | 'quietHours'> & { version: number, clockOffsetMs: number, wish: string }
export type BoxState = { settings: () => BoxSettings, save: (settings: BoxSettings) => Promise<void> }

/** Makes the data directory (mode 700) when it is missing. Throws DATA_DIR_UNUSABLE. */
export function makeDataDir (dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new SoundboxError('DATA_DIR_UNUSABLE', `data directory ${dataDir} cannot be made`, { cause })
  }
}

/** Reads the state of a box, or starts from `defaults`. Throws DATA_DIR_UNUSABLE when the file is there and cannot be read. */
export async function openBoxState (dataDir: string, defaults: BoxSettings, log: Log): Promise<BoxState> {
  const path = join(dataDir, 'state.json')
  let settings = await readSettings(path, log) ?? defaults
  let tail: Promise<void> = Promise.resolve()
  return {
    settings: () => settings,
    save: changed => {
      settings = changed
      tail = tail.then(() => writeSettings(path, changed)).catch((err: unknown) => log.error({ err }, 'settings could not be saved'))
      return tail
    }
  }
}

async function readSettings (path: string, log: Log): Promise<BoxSettings | undefined> {
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new SoundboxError('DATA_DIR_UNUSABLE', `state file ${path} cannot be read`, { cause })
  }
  try {
    const { version, volume, minVolume, language, quietHours } = decodeDesired(bytes)
    const { clockOffsetMs, wish } = decodeMessage(bytes)
    if (typeof clockOffsetMs !== 'number' || typeof wish !== 'string') throw new SoundboxError('MESSAGE_INVALID', 'state file lacks a field')
    return { version, volume, minVolume, language, quietHours, clockOffsetMs, wish }
  } catch (error) {
    if (!isSoundboxError(error, 'MESSAGE_INVALID')) throw error
    log.warn({}, 'state file was damaged; the defaults hold')
    return undefined
  }
}

async function writeSettings (path: string, settings: BoxSettings): Promise<void> {
  const handle = await open(`${path}.new`, 'w', 0o600)
  try {
    await handle.writeFile(encodeMessage({ ...settings, time: 0 }))
    await handle.datasync()
  } finally {
    await handle.close()
  }
  await rename(`${path}.new`, path)
}
