import { join } from 'node:path'
import t from 'tap'
import { LOG_LINES_MAX, openLogRing } from '../../device-agent/log-ring.js'
import { type Power, readPower } from '../../device-agent/power.js'
import { encodeMessage, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { idOf, T0 } from './rig.js'

t.test('the readings of a battery on Linux', async t => {
  const dir = t.testdir({
    laptop: { AC: { type: 'Mains\n' }, BAT0: { type: 'Battery\n', capacity: '87\n', status: 'Discharging\n' } },
    full: { BAT0: { type: 'Battery\n', capacity: '100\n', status: 'Full\n' } },
    odd: { BAT0: { type: 'Battery\n', capacity: 'many\n', status: 'Full\n' } },
    unreadable: { BAT0: { type: 'Battery\n' } },
    server: { AC: { type: 'Mains\n' } }
  })
  const rows: [string, Power | undefined][] = [
    ['laptop', { battery: 87, charging: false }], ['full', { battery: 100, charging: true }], ['odd', undefined], ['unreadable', undefined], ['server', undefined], ['missing', undefined]
  ]
  for (const [name, want] of rows) t.same(readPower(join(dir, name)), want, name)
})

t.test('the kept log is short, newest last, and holds no text of foreign errors', async t => {
  const ring = openLogRing(SILENT_LOG, () => T0)
  for (let n = 0; n < LOG_LINES_MAX + 50; n++) ring.log.child({}).info({ n }, 'line')
  ring.log.error({ err: new Error('secret 123') }, 'failed')
  ring.log.warn({ err: new SoundboxError('SPEECH_FAILED', 'x') }, 'failed')
  ring.log.debug({}, 'not kept')
  const text = ring.text()
  t.ok(encodeMessage({ id: idOf(1), result: 'done', data: text }).length < 4096)
  t.ok(text.length <= 3000)
  t.match(text, /n=249\n\d+ error failed err=Error\n\d+ warn failed err=SPEECH_FAILED$/)
  t.notMatch(text, /123/)
})
