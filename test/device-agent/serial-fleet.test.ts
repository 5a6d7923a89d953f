import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { ABSENT_MS, openSerialFleet, PORTS_MAX, REFUSED_RETRY_MS, RESCAN_MS, type SerialFleet, type SerialFleetOptions } from '../../device-agent/serial-fleet.js'
import { listSerialPorts, openSerialPort, type PortInfo, portsFingerprint } from '../../device-agent/serial-link.js'
import type { Flash } from '../../firmware-sim/flash.js'
import { type SimBox, startSimBox } from '../../firmware-sim/sim-box.js'
import { type Log, SILENT_LOG, SoundboxError } from '../../protocol/index.js'
import { announcementOf, BAUD, type FakeClock, MAKER, makeFakeClock } from '../support/serial-world.js'

type Plug = { sim: SimBox, current: { onBytes: (bytes: Buffer) => void, onClosed: (why: string) => void } | undefined }
type Bench = {
  clock: FakeClock, plugs: Map<string, Plug>, events: string[], errors: object[]
  plugIn: (path: string, tid: string | undefined, flash?: Flash) => SimBox
  pull: (path: string) => void
  open: (options: Partial<SerialFleetOptions>) => SerialFleet
}

/** Ports that come and go, boxes behind them. */
function makeBench (): Bench {
  const clock = makeFakeClock()
  const plugs: Bench['plugs'] = new Map()
  const events: string[] = []
  const errors: object[] = []
  const log: Log = { ...SILENT_LOG, error: fields => { errors.push(fields) }, child: () => log }
  const portInfos = (): PortInfo[] => [...plugs.keys()].map(path => ({ path: path.replace('/by-id/', '/tty-'), stablePath: path, id: path }))
  return {
    clock, plugs, events, errors,
    plugIn (path, tid, flash) {
      const sim = startSimBox({
        model: 'sb-1', firmware: '1.0.0', makerKey: MAKER.publicKey, audioScale: 0.1, baudRate: BAUD, tid, timers: clock, write: bytes => { plug.current?.onBytes(bytes) },
        ...(flash === undefined ? {} : { flash })
      })
      const plug: Plug = { sim, current: undefined }
      plugs.set(path, plug)
      return sim
    },
    pull (path) {
      const plug = plugs.get(path)
      plugs.delete(path)
      plug?.sim.close()
      plug?.current?.onClosed('unplugged')
    },
    open: options => openSerialFleet({
      ports: [], log, timers: clock, baudRate: BAUD, listPorts: async () => portInfos(), fingerprint: async () => [...plugs.keys()].join(),
      openPort: async ({ path, onBytes, onClosed }) => {
        const plug = plugs.get(path)
        if (plug === undefined) throw new SoundboxError('SERIAL_UNAVAILABLE', `port ${path} is not there`)
        if (plug.current !== undefined) throw new SoundboxError('SERIAL_UNAVAILABLE', `port ${path} is held by another program`)
        const mine = { onBytes, onClosed }
        plug.current = mine
        return {
          write: bytes => { if (plug.current === mine) plug.sim.take(bytes) },
          close: async () => { if (plug.current === mine) plug.current = undefined }
        }
      },
      onBox: (tid, box, hello, isReboot) => { events.push(`up ${tid} ${box.path} ${hello.bootId}${isReboot ? ' reboot' : ''}`) },
      onStatus: (tid, status) => { events.push(`status ${tid} ${status.volume}`) },
      onLost: (tid, why) => { events.push(`lost ${tid} ${why}`) },
      onLate: (tid, result) => { events.push(`late ${tid} ${result.result}`) },
      ...options
    })
  }
}

t.test('named ports are driven each by its own box', async t => {
  const bench = makeBench()
  bench.plugIn('/a', 'SB-A')
  bench.plugIn('/b', 'SB-B')
  const fleet = bench.open({ ports: ['/a', '/b', '/a', '/c'] })
  await bench.clock.advance(2000)
  t.same(bench.events.filter(event => event.startsWith('up')).sort(), ['up SB-A /a boot-1', 'up SB-B /b boot-1'])
  t.match(fleet.ports(), [{ path: '/a', tid: 'SB-A', isUp: true }, { path: '/b', tid: 'SB-B', isUp: true }, { path: '/c', isUp: false, problem: { code: 'SERIAL_UNAVAILABLE' } }])
  const said = fleet.box('SB-A')?.announce(announcementOf(1))
  await bench.clock.advance(2000)
  t.match(await said, { result: 'spoken' })
  t.same([...bench.plugs.values()].map(plug => plug.sim.sounds.some(sound => sound.id !== undefined)), [true, false], 'only in its own shop')
  t.equal(fleet.box('SB-X'), undefined)
  bench.plugIn('/c', 'SB-C')
  await bench.clock.advance(6000)
  t.ok(fleet.box('SB-C'), 'a port that came later')
  await fleet.close()
  t.same(fleet.ports(), [])
})

t.test('a box that is pulled out is lost, and found again in the same port or in another', async t => {
  const bench = makeBench()
  bench.plugIn('/a', 'SB-A')
  const fleet = bench.open({ ports: ['/a', '/b'] })
  await bench.clock.advance(2000)
  bench.pull('/a')
  await bench.clock.advance(100)
  t.match(bench.events.at(-1), /^lost SB-A port \/a was lost: unplugged/)
  t.equal(fleet.box('SB-A'), undefined)
  bench.plugIn('/b', 'SB-A')
  await bench.clock.advance(6000)
  t.equal(fleet.box('SB-A')?.path, '/b')
  bench.pull('/b')
  bench.plugIn('/a', 'SB-A')
  await bench.clock.advance(6000)
  t.equal(fleet.box('SB-A')?.path, '/a')
  await fleet.close()
})

t.test('of two boxes with one tid the second is refused, said, and taken when the first is gone', async t => {
  const bench = makeBench()
  bench.plugIn('/a', 'SB-A')
  const fleet = bench.open({ ports: ['/a', '/b'] })
  await bench.clock.advance(2000)
  const twin = bench.plugIn('/b', 'SB-A')
  await bench.clock.advance(8000)
  t.match(fleet.ports(), [{ path: '/a', tid: 'SB-A', isUp: true }, { path: '/b', isUp: false, problem: { code: 'ALREADY_EXISTS', message: /SB-A is at \/a and again at \/b/ } }])
  t.match(bench.errors, [{ path: '/b' }])
  t.equal(fleet.box('SB-A')?.path, '/a')
  const said = fleet.box('SB-A')?.announce(announcementOf(1))
  await bench.clock.advance(2000)
  t.match(await said, { result: 'spoken' })
  t.notOk(twin.sounds.some(sound => sound.id !== undefined), 'not heard at the twin')
  bench.pull('/a')
  await bench.clock.advance(REFUSED_RETRY_MS + 2000)
  t.equal(fleet.box('SB-A')?.path, '/b')
  await fleet.close()
})

t.test('ports are found by id as they come and go', async t => {
  const bench = makeBench()
  bench.plugIn('/by-id/usb-acme-1', 'SB-1')
  bench.plugIn('/by-id/usb-other-2', 'SB-2')
  const fleet = bench.open({ ids: ['acme'] })
  await bench.clock.advance(3000)
  t.same(fleet.ports().map(port => port.path), ['/by-id/usb-acme-1'])
  bench.plugIn('/by-id/usb-acme-3', 'SB-3')
  await bench.clock.advance(RESCAN_MS + 2000)
  t.same(fleet.ports().map(port => port.tid), ['SB-1', 'SB-3'])
  const asked = fleet.box('SB-1')?.announce(announcementOf(1, { clips: Array(40).fill('n1'), ttlMs: 60_000 }))
  await bench.clock.advance(300)
  bench.pull('/by-id/usb-acme-1')
  await bench.clock.advance(RESCAN_MS + 100)
  t.match(bench.events.at(-1), /^lost SB-1/)
  t.same(fleet.ports().map(port => port.isUp), [false, true], 'it is waited for')
  await bench.clock.advance(ABSENT_MS + 60_000)
  t.match(await asked, { result: 'failed', reason: 'no-answer' })
  t.same(fleet.ports().map(port => port.tid), ['SB-3'], 'a port that was found goes when its name stays away')
  bench.plugIn('/by-id/usb-acme-9', 'SB-9')
  await fleet.rescan()
  await bench.clock.advance(1500)
  t.same(fleet.ports().map(port => port.tid), ['SB-3', 'SB-9'], 'at once when asked')
  await fleet.close()
  const all = bench.open({ ids: ['*'] })
  await bench.clock.advance(2000)
  t.equal(all.ports().length, 3)
  await all.close()
})

t.test('a box whose USB port goes away while it resets still answers for what it was asked', async t => {
  const bench = makeBench()
  const flash = bench.plugIn('/by-id/usb-acme-1', 'SB-1').flash
  const fleet = bench.open({ ids: ['acme'] })
  await bench.clock.advance(3000)
  const asked = fleet.box('SB-1')?.announce(announcementOf(1, { clips: Array(40).fill('n1') }))
  await bench.clock.advance(300)
  bench.pull('/by-id/usb-acme-1')
  await bench.clock.advance(RESCAN_MS * 2)
  bench.plugIn('/by-id/usb-acme-1', 'SB-1', flash())
  await bench.clock.advance(10_000)
  t.match(await asked, { result: 'failed', reason: 'reset' })
  await fleet.close()
})

t.test('a system that cannot list its ports is asked again', async t => {
  const bench = makeBench()
  let calls = 0
  const fleet = bench.open({
    ids: ['*'],
    listPorts: async () => {
      calls += 1
      if (calls === 1) throw new Error('spawn udevadm ENOENT')
      return [{ path: '/a', stablePath: '/a' }]
    },
    fingerprint: async () => String(calls)
  })
  bench.plugIn('/a', 'SB-A')
  await bench.clock.advance(RESCAN_MS + 2000)
  t.ok(fleet.box('SB-A'))
  await fleet.close()
})

t.test('a box that is provisioned again behind its port is another box', async t => {
  const bench = makeBench()
  bench.plugIn('/a', undefined)
  const fleet = bench.open({ ports: ['/a'] })
  await bench.clock.advance(2000)
  t.match(fleet.ports(), [{ path: '/a', isUp: true, tid: undefined }])
  t.same(bench.events, [], 'a box without a tid is nobody')
  bench.pull('/a')
  const sim = bench.plugIn('/a', 'SB-A')
  await bench.clock.advance(6000)
  sim.press('volume-up')
  await bench.clock.advance(500)
  t.match(bench.events.at(-1), 'status SB-A 80')
  bench.pull('/a')
  bench.plugIn('/a', 'SB-B')
  await bench.clock.advance(6000)
  t.ok(fleet.box('SB-B'))
  t.equal(fleet.box('SB-A'), undefined)
  await fleet.close()
})

t.test('an agent drives so many ports and not one more', async t => {
  const bench = makeBench()
  const paths = Array.from({ length: PORTS_MAX + 1 }, (_, index) => `/p${index}`)
  t.throws(() => bench.open({ ports: paths }), { code: 'INPUT_INVALID' })
  const fleet = bench.open({ ports: paths.slice(1) })
  t.equal(fleet.ports().length, PORTS_MAX)
  await fleet.close()
})

t.test('a port of this machine that is missing or no port is SERIAL_UNAVAILABLE', async t => {
  const dir = t.testdir({})
  const open = (path: string): Promise<unknown> => openSerialPort({ path, baudRate: BAUD, onBytes: () => {}, onClosed: () => {} })
  await t.rejects(open(`${dir}/nothing`), { code: 'SERIAL_UNAVAILABLE', message: /is not there/ })
  writeFileSync(`${dir}/file`, 'no port')
  mkdirSync(`${dir}/folder`)
  symlinkSync(`${dir}/file`, `${dir}/link`)
  for (const path of ['file', 'folder', 'link']) await t.rejects(open(`${dir}/${path}`), { code: 'SERIAL_UNAVAILABLE' }, path)
  t.ok(Array.isArray(await listSerialPorts()), 'the list is a list, with udev and without')
  t.type(await portsFingerprint(), 'string')
})
