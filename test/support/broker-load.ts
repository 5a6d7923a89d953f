// Load on an embedded broker, in a process of its own: tap watches every promise of its process, which makes thousands of
// connections ten times slower, and the memory check wants a collector that it can call. Prints one JSON line.
// Usage: node --expose-gc broker-load.js storm | churn
import type { BrokerEvents } from '../../gateway/broker/contract.js'
import { openEmbeddedBroker } from '../../gateway/broker/embedded.js'
import { SILENT_LOG } from '../../protocol/index.js'
import { connectPacket, loginRaw, openRawMqtt, type RawMqtt } from './raw-mqtt.js'
import { until } from './test-broker.js'

const EVENTS: BrokerEvents = {
  authenticate: ({ clientId, password }) => password === `secret of ${clientId}` ? clientId : undefined,
  onConnected: () => {}, onDisconnected: () => {}, onMessage: () => {}
}
const open = async (events: Partial<BrokerEvents>) => await openEmbeddedBroker(
  { host: '127.0.0.1', mqttPort: 0, log: SILENT_LOG, nowMs: () => 0, limits: { failedLoginsMax: 1e6 } }, { ...EVENTS, ...events }
)

export type StormResult = { connects: number, connected: number, refused: number, sent: number, received: number, wentBack: number, missing: number, notInTurn: number }

/** `boxes` soundboxes reconnect `rounds` times, half leaving first, half over their old connection, while a small pump keeps sending. */
async function storm (boxes: number, rounds: number): Promise<StormResult> {
  const listening = new Set<string>()
  const told = new Map<string, string>()
  const broker = await open({
    onMessage: (tid, name) => { if (name === 'hello') listening.add(tid) },
    onConnected: ({ tid }) => { told.set(tid, `${told.get(tid) ?? ''}+`) },
    onDisconnected: tid => {
      listening.delete(tid)
      told.set(tid, `${told.get(tid) ?? ''}-`)
    }
  })
  const where = { port: broker.ports.mqtt ?? 0 }
  const tids = Array.from({ length: boxes }, (_, n) => `SB${1000 + n}`)
  const live = new Map<string, RawMqtt>()
  const received = new Map<string, number[]>(tids.map(tid => [tid, []]))
  const sent = new Map<string, number>()
  let total = 0
  let stop = false
  const login = async (tid: string): Promise<void> => {
    const box = await loginRaw(where, tid)
    live.set(tid, box)
    box.stream.on('data', () => {
      for (const packet of box.packets.splice(0)) if (packet.cmd === 'publish') received.get(tid)?.push(Number(packet.payload))
    })
    box.send({ cmd: 'publish', topic: `soundbox/v1/${tid}/hello`, payload: '{}', qos: 1, messageId: 2, dup: false, retain: false })
    await box.next('puback')
  }
  const pump = async (tid: string): Promise<void> => {
    for (let n = 0; !stop;) {
      if (listening.has(tid)) {
        await broker.publish(`soundbox/v1/${tid}/announce`, Buffer.from(String(n))).then(() => {
          sent.set(tid, ++n)
          total++
        }, () => {})
      }
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
  const pumps = tids.map(pump)
  await Promise.all(tids.map(login))
  for (let round = 0; round < rounds; round++) {
    await Promise.all(tids.map(async (tid, n) => {
      if (n % 2 === 0) live.get(tid)?.end()
      await login(tid)
    }))
    const before = total
    await until(() => total > before + boxes, 'messages flow again', 20_000)
  }
  stop = true
  await Promise.all(pumps)
  const last = (tid: string): number => received.get(tid)?.at(-1) ?? -1
  await until(() => tids.every(tid => last(tid) === (sent.get(tid) ?? 0) - 1), 'the last message of each', 5000).catch(() => {})
  const stats = broker.stats()
  const result = {
    connects: stats.connects, connected: stats.connected, refused: stats.refused, sent: total,
    received: [...received.values()].reduce((sum, numbers) => sum + numbers.length, 0),
    // A message on its way when a connection ends may come twice, but none may go back.
    wentBack: tids.filter(tid => received.get(tid)?.some((number, at, all) => at > 0 && number < (all[at - 1] ?? 0))).length,
    missing: tids.filter(tid => last(tid) !== (sent.get(tid) ?? 0) - 1).length,
    notInTurn: tids.filter(tid => !/^\+(?:-\+)*$/.test(told.get(tid) ?? '')).length
  }
  for (const box of live.values()) box.end()
  await broker.close()
  return result
}

export type ChurnResult = { connects: number, refused: number, connected: number, warmMiB: number, endMiB: number }

/** Connections that come and go, each under a new name; every fifth is refused, every seventh leaves before its login. */
async function churn (waves: number, warmWaves: number): Promise<ChurnResult> {
  const broker = await open({})
  const where = { port: broker.ports.mqtt ?? 0 }
  const wave = async (n: number): Promise<void> => {
    await Promise.all(Array.from({ length: 100 }, async (_, k) => {
      const tid = `SB${n}x${k}`
      const raw = await openRawMqtt(where)
      if (k % 7 !== 0) {
        raw.send(connectPacket(tid, k % 5 === 0 ? { password: Buffer.from('wrong') } : { will: { topic: `soundbox/v1/${tid}/presence`, payload: 'offline', qos: 1 } }))
        await raw.next('connack')
      }
      raw.end()
    }))
    await until(() => broker.stats().connected === 0, 'all gone', 20_000)
  }
  const heapMiB = (): number => {
    globalThis.gc?.()
    return process.memoryUsage().heapUsed / 2 ** 20
  }
  for (let n = 0; n < warmWaves; n++) await wave(n)
  const warmMiB = heapMiB()
  for (let n = warmWaves; n < waves; n++) await wave(n)
  const { connects, refused, connected } = broker.stats()
  const result = { connects, refused, connected, warmMiB, endMiB: heapMiB() }
  await broker.close()
  return result
}

console.log(JSON.stringify(process.argv[2] === 'storm' ? await storm(300, 2) : await churn(100, 20)))
