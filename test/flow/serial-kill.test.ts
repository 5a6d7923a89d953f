// Serial tests that start processes: apart from the others, because a child inherits the pseudo-terminals of its parent and would keep
// their plugs in.
import { execFile, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import t from 'tap'
import { openSerialBox } from '../../device-agent/serial-box.js'
import { startSerialSim } from '../../firmware-sim/serial-sim.js'
import { makeTimers, SILENT_LOG } from '../../protocol/index.js'
import { announcementOf } from '../support/serial-world.js'

const timers = makeTimers(() => performance.now())

t.test('an agent that is killed in mid-sentence leaves the port free, and the next one learns how it ended', async t => {
  const { ports: [port = ''], boxes, close } = startSerialSim({ count: 1, timers })
  t.teardown(close)
  const script = `
    const { openSerialBox } = await import('./dist/device-agent/serial-box.js')
    const { makeTimers, SILENT_LOG } = await import('./dist/protocol/index.js')
    const { announcementOf } = await import('./dist/test/support/serial-world.js')
    const timers = makeTimers(() => performance.now())
    const onHello = () => { box.announce(announcementOf(1)) }
    const box = openSerialBox({ path: ${JSON.stringify(port)}, log: SILENT_LOG, timers, onHello, onStatus: () => {}, onLost: () => {} })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' })
  t.teardown(() => { child.kill('SIGKILL') })
  const hasBegun = (): boolean => boxes[0]?.flash().journal.some(entry => entry.state === 'started') === true
  for (let waitedMs = 0; waitedMs < 8000 && !hasBegun(); waitedMs += 10) await sleep(10)
  t.ok(hasBegun(), 'the sentence has begun')
  child.kill('SIGKILL')
  const box = openSerialBox({ path: port, log: SILENT_LOG, timers, onHello: () => {}, onStatus: () => {}, onLost: () => {} })
  t.teardown(box.close)
  t.match(await box.announce(announcementOf(1), { wasAsked: true }), { result: 'spoken' })
  t.equal(boxes[0]?.sounds.filter(sound => sound.id !== undefined).length, 1)
})

t.test('without stty there is no pseudo-terminal, and it says so', async t => {
  const script = `import { openPty } from './dist/firmware-sim/pty.js'; try { openPty(() => {}) } catch (error) { console.log(error.code, error.message) }; process.exit()`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { env: { PATH: '/nowhere' }, encoding: 'utf8' })
  t.match(stdout, /^SERIAL_UNAVAILABLE this system gives no pseudo-terminal/)
})
