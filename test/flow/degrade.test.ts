// Degrade, do not stop: a locked and a full database, and keys that change under load. Payments are answered, spoken, and in history in the end.
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import t from 'tap'
import { eventually, payment, startRig, tempDir } from '../support/rig.js'

t.test('while the database is locked, payments are answered, spoken once, and drained into history afterwards', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank()
  const box = await rig.connect(await rig.addBox('SB-0001'))
  await rig.trigger(bank, payment('BEFORE', '1.00'))
  await box.hasSpoken(1)
  await eventually(() => rig.history(), rows => rows[0]?.deliveries[0]?.state === 'spoken')
  const other = new Database(join(rig.dir, 'soundbox.db'))
  other.exec('BEGIN EXCLUSIVE')
  t.match(await rig.trigger(bank, payment('DURING', '2.00')), { httpStatus: 200, answer: { status: '0' } })
  t.match(await rig.trigger(bank, payment('DURING', '2.00')), { httpStatus: 200, repeated: true })
  t.match(await rig.trigger(bank, payment('DURING', '3.00')), { httpStatus: 409 })
  t.match(await rig.trigger(bank, payment('BEFORE', '1.00')), { httpStatus: 200, repeated: true })
  await box.hasSpoken(2)
  const status = await rig.client.call('GET', '/status') as { fallbackDepth: number }
  t.ok(status.fallbackDepth > 0, 'the record waits in the fallback')
  other.exec('ROLLBACK')
  other.close()
  const rows = await eventually(() => rig.history(), found => found.length === 2 && found.every(row => row.deliveries[0]?.state === 'spoken'))
  t.same(rows.map(row => row.transactionId), ['DURING', 'BEFORE'])
  t.equal(box.spoken.length, 2, 'nothing is spoken twice')
})

t.test('a restart while records wait in the fallback loses nothing and repeats nothing', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank()
  const secrets = await rig.addBox('SB-0001')
  const other = new Database(join(rig.dir, 'soundbox.db'))
  other.exec('BEGIN EXCLUSIVE')
  t.match(await rig.trigger(bank, payment('T1')), { httpStatus: 200 })
  other.exec('ROLLBACK')
  other.close()
  await rig.restart()
  t.match(await rig.trigger(bank, payment('T1')), { httpStatus: 200, repeated: true })
  const box = await rig.connect(secrets)
  await box.hasSpoken(1)
  const rows = await eventually(() => rig.history(), found => found[0]?.deliveries[0]?.state === 'spoken')
  t.equal(rows.length, 1)
})

t.test('on a full disk payments go on through the preallocated spool', { skip: canMount() ? false : 'needs root and mount' }, async t => {
  const dir = tempDir(t)
  const disk = join(dir, 'disk')
  mkdirSync(disk)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', disk])
  t.teardown(() => { execFileSync('umount', ['-l', disk]) })
  const rig = await startRig(t, { dir: join(disk, 'data') })
  const bank = await rig.addBank()
  const box = await rig.connect(await rig.addBox('SB-0001'))
  fill(join(disk, 'ballast'))
  const ids = Array.from({ length: 60 }, (_, n) => `FULL-${n}`)
  for (const id of ids) t.match(await rig.trigger(bank, payment(id)), { httpStatus: 200, answer: { status: '0' } }, id)
  await box.hasSpoken(60)
  rmSync(join(disk, 'ballast'))
  const rows = await eventually(() => rig.history('limit=100'), found => found.length === 60 && found.every(row => row.deliveries[0]?.state === 'spoken'))
  t.same(new Set(rows.map(row => row.transactionId)), new Set(ids))
  t.equal(box.spoken.length, 60)
})

t.test('keys rotate under load: both are good during the overlap, none is refused, the old one ends', async t => {
  const rig = await startRig(t)
  const bank = await rig.addBank()
  const box = await rig.connect(await rig.addBox('SB-0001'))
  const keys = [bank]
  let next = 0
  const pay = async (): Promise<void> => {
    for (let n = next++; n < 120; n = next++) {
      const secrets = keys[n % keys.length] ?? bank
      t.equal((await rig.trigger(secrets, payment(`R-${n}`))).httpStatus, 200)
      if (n === 40) keys.push(await rig.client.call('POST', '/banks/bank/rotate-key', { overlapSeconds: 600 }) as unknown as typeof bank)
    }
  }
  await Promise.all([pay(), pay(), pay(), pay()])
  await box.hasSpoken(120)
  rig.clock.advance(601_000)
  t.match(await rig.trigger(bank, payment('LATE')), { httpStatus: 401, answer: { status: -1, statusDesc: 'Invalid credentials' } })
  t.match(await rig.trigger(keys[1] ?? bank, payment('NEW')), { httpStatus: 200 })
})

function canMount (): boolean {
  try {
    execFileSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

function fill (path: string): void {
  const file = openSync(path, 'w')
  const block = Buffer.alloc(64 * 1024, 1)
  for (let size = block.length; size >= 512; size /= 2) {
    try {
      for (;;) writeSync(file, block, 0, size)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    }
  }
  closeSync(file)
}
