// One simulated soundbox on MQTT, written from the protocol: what survives a power loss (flash), what does not (the queue, the sound),
// and the faults that its seed deals. It shares protocol/ with the real agent and nothing else, so that each checks the other.
//
//   announce -> verify -> known? -> received -> queue -> flash: started -> sound -> flash: final -> ack -> PUBACK -> flash: settled
import {
  type Ack, type Announcement, type Command, decodeCommand, decodeDesired, type Desired, DOWN_TOPICS, encodeMessage, formatTopic, isLanguage, isSoundboxError, type Language,
  openAnnouncement, parseTopic, type UpTopic
} from '../protocol/index.js'
import { type FleetFaults, pickWithin, type Range, REBOOT_STAGES, type RebootStage } from './fleet-faults.js'
import type { MqttClient, MqttClientEvents } from './mqtt-client.js'
import type { FleetMeter } from './report.js'

/** What the gateway gave this box when it was added. */
export type BoxKeys = { tid: string, password: string, signingKey: string }
export type FleetClock = { nowMs: () => number, after: (delayMs: number, work: () => void) => () => void }
/** `startAfterMs`: before the first boot. `bootPrefix`: differs from run to run, so that a gateway never takes a new box for the old one. `backoff`: full jitter below base * 2^n. */
export type FleetBoxDeps = {
  connect: (keys: BoxKeys, events: MqttClientEvents) => MqttClient
  clock: FleetClock
  random: () => number
  faults: FleetFaults
  speakMs: Range
  backoff: { baseMs: number, maxMs: number }
  telemetryMs: number
  startAfterMs: number
  bootPrefix: string
  meter: FleetMeter
  onUp: () => void
}

export type FleetBox = {
  tid: string
  /** Subscribed, and the gateway has confirmed its hello. */
  isUp: () => boolean
  /** Power loss and new start; the flash survives. */
  reboot: () => void
  /** The connection breaks; it comes back after the back-off. */
  cut: () => void
  goOffline: (ms: number) => void
  /** The box hangs: it stays connected and reads nothing. */
  pauseReading: () => void
  resumeReading: () => void
  /** Ids of final acks that the gateway has not confirmed. */
  unsettled: () => readonly string[]
  tick: (nowMs: number) => void
  close: () => void
}

const FLASH_IDS_MAX = 256
const QUEUE_MAX = 256
const MODEL = 'sim'
const FIRMWARE = '1.0.0'

type Kept = { final?: Ack, settled: boolean }
type Queued = { announcement: Announcement, receivedAt: number, fault: RebootStage | undefined }
type Flash = { kept: Map<string, Kept>, lastSpokenId: string | undefined, version: number, volume: number, minVolume: number, language: Language, quietHours: Desired['quietHours'] }
type Box = FleetBoxDeps & {
  keys: BoxKeys, flash: Flash, queue: Queued[], sounding: Queued | undefined, client: MqttClient | undefined
  life: number, attempt: number, up: boolean, closed: boolean, bootedAt: number, offlineUntil: number, onTheWay: Set<string>
}

/** Switches a box on after its boot time, and keeps it connected until `close`. */
export function openFleetBox (keys: BoxKeys, deps: FleetBoxDeps): FleetBox {
  const flash: Flash = { kept: new Map(), lastSpokenId: undefined, version: 0, volume: 80, minVolume: 0, language: 'ENGLISH', quietHours: null }
  const box: Box = {
    ...deps, keys, flash, queue: [], sounding: undefined, client: undefined, life: 0, attempt: 0, up: false, closed: false, bootedAt: 0, offlineUntil: 0, onTheWay: new Set()
  }
  later(box, deps.startAfterMs, () => boot(box))
  return {
    tid: keys.tid,
    isUp: () => box.up,
    reboot: () => reboot(box),
    cut: () => box.client?.destroy(),
    goOffline: ms => goOffline(box, ms),
    pauseReading: () => box.client?.pauseReading(),
    resumeReading: () => box.client?.resumeReading(),
    unsettled: () => unsettled(box).map(ack => ack.id),
    tick: nowMs => box.client?.tick(nowMs),
    close: () => {
      box.closed = true
      box.life += 1
      box.client?.end()
    }
  }
}

/** Runs `work` later, unless the box lost power or was closed in between. */
function later (box: Box, delayMs: number, work: () => void): void {
  const { life } = box
  box.clock.after(delayMs, () => { if (box.life === life) work() })
}

function boot (box: Box): void {
  const { flash } = box
  box.life += 1
  box.bootedAt = box.clock.nowMs()
  for (const [id, kept] of flash.kept) if (kept.final === undefined) keepFinal(box, { id, result: 'failed', reason: 'interrupted' })
  later(box, pickWithin(box.faults.bootMs, box.random), () => dial(box))
}

function reboot (box: Box): void {
  if (box.closed) return
  box.meter.count('reboots')
  box.queue = []
  box.sounding = undefined
  const { client } = box
  disconnected(box)
  boot(box)
  client?.destroy()
}

function goOffline (box: Box, ms: number): void {
  box.offlineUntil = box.clock.nowMs() + ms
  box.client?.destroy()
}

function disconnected (box: Box): void {
  box.client = undefined
  box.up = false
  box.onTheWay.clear()
}

function dial (box: Box): void {
  const client: MqttClient = box.connect(box.keys, {
    onConnected: () => client.subscribe(DOWN_TOPICS.map(name => formatTopic(box.keys.tid, name)), () => { if (box.client === client) greet(box, client) }),
    onMessage: (topic, payload) => { if (box.client === client) handleMessage(box, topic, payload) },
    onClosed: () => {
      if (box.client !== client) return
      disconnected(box)
      if (box.closed) return
      const wait = Math.floor(box.random() * Math.min(box.backoff.maxMs, box.backoff.baseMs * 2 ** Math.min(box.attempt, 20)))
      box.attempt += 1
      later(box, Math.max(wait, box.offlineUntil - box.clock.nowMs()), () => dial(box))
    }
  })
  box.client = client
}

/** After the SUBACK: hello, then the final acks that nobody confirmed. */
function greet (box: Box, client: MqttClient): void {
  const { flash, keys, meter } = box
  meter.count('connects')
  const last = flash.lastSpokenId === undefined ? {} : { lastSpokenId: flash.lastSpokenId }
  const hello = encodeMessage({ model: MODEL, firmware: FIRMWARE, bootId: `${box.bootPrefix}-${box.life}`, ...last, reportedVersion: flash.version })
  client.publish(formatTopic(keys.tid, 'hello'), hello, 1, () => {
    if (box.client !== client) return
    box.up = true
    box.attempt = 0
    box.onUp()
  })
  for (const ack of unsettled(box)) sendFinal(box, ack)
  if (box.telemetryMs > 0) tellTelemetry(box, client)
}

function tellTelemetry (box: Box, client: MqttClient): void {
  if (box.client !== client) return
  const uptimeS = Math.max(0, Math.floor((box.clock.nowMs() - box.bootedAt) / 1000))
  publish(box, 'telemetry', { battery: 60 + Math.floor(box.random() * 40), charging: false, rssi: -60 - Math.floor(box.random() * 40), network: 'sim', volume: box.flash.volume, uptimeS }, 0)
  later(box, box.telemetryMs, () => tellTelemetry(box, client))
}

function publish (box: Box, name: UpTopic, message: object, qos: 0 | 1 = 1, onConfirmed?: () => void): void {
  box.client?.publish(formatTopic(box.keys.tid, name), encodeMessage(message), qos, onConfirmed)
}

function handleMessage (box: Box, topic: string, payload: Buffer): void {
  const name = parseTopic(topic)?.name
  try {
    if (name === 'announce') handleAnnounce(box, openAnnouncement(payload, box.keys.tid, box.keys.signingKey))
    else if (name === 'desired') handleDesired(box, decodeDesired(payload))
    else if (name === 'command') handleCommand(box, decodeCommand(payload))
  } catch (error) {
    if (isSoundboxError(error, 'SIGNATURE_INVALID')) box.meter.count('droppedSignatures')
    else if (isSoundboxError(error, 'MESSAGE_INVALID')) box.meter.count('droppedMessages')
    else throw error
  }
}

function handleDesired (box: Box, { version, volume, minVolume, language, quietHours }: Desired): void {
  Object.assign(box.flash, { version, volume, minVolume, language, quietHours })
  publish(box, 'reported', { version, volume, language, firmware: FIRMWARE })
}

function handleAnnounce (box: Box, announcement: Announcement): void {
  const { faults, random, meter, keys, clock, life } = box
  const delay = pickWithin(faults.delayMs, random)
  const times = random() < faults.duplicate ? 2 : 1
  const fault = random() < faults.reboot ? REBOOT_STAGES[Math.floor(random() * REBOOT_STAGES.length)] : undefined
  for (let time = 0; time < times && box.life === life; time++) {
    meter.arrived(keys.tid, announcement, clock.nowMs())
    if (delay === 0) takeAnnouncement(box, announcement, fault)
    else later(box, delay, () => takeAnnouncement(box, announcement, fault))
  }
  if (random() < faults.offline) goOffline(box, pickWithin(faults.offlineMs, random))
}

function takeAnnouncement (box: Box, announcement: Announcement, fault: RebootStage | undefined): void {
  const { id } = announcement
  if (answersKnown(box, id)) return
  if (box.sounding?.announcement.id === id || box.queue.some(item => item.announcement.id === id)) sendReceived(box, id)
  else if (box.queue.length >= QUEUE_MAX) endWith(box, { id, result: 'failed', reason: 'queue full' })
  else {
    sendReceived(box, id)
    box.queue.push({ announcement, receivedAt: box.clock.nowMs(), fault })
    speakNext(box)
  }
}

/** True for an id that has ended: it is told how, as a duplicate once the gateway has confirmed the end. */
function answersKnown (box: Box, id: string): boolean {
  const known = box.flash.kept.get(id)
  if (known?.final === undefined) return false
  if (known.settled) publish(box, 'ack', { id, result: 'duplicate', was: known.final.result })
  else sendFinal(box, known.final)
  return true
}

function sendReceived (box: Box, id: string): void {
  if (box.random() >= box.faults.ackLoss) publish(box, 'ack', { id, result: 'received' })
}

function speakNext (box: Box): void {
  while (box.sounding === undefined) {
    const item = box.queue.shift()
    if (item === undefined) return
    const { id, expiresAt } = item.announcement
    if (item.fault === 'before') reboot(box)
    else if (box.clock.nowMs() >= expiresAt) endWith(box, { id, result: 'expired' })
    else if (isMuted(box)) endWith(box, { id, result: 'muted', reason: 'quiet hours' })
    else startSound(box, item)
  }
}

function startSound (box: Box, item: Queued): void {
  const { announcement, fault } = item
  keep(box, announcement.id, { settled: false })
  box.sounding = item
  box.meter.sounded(box.keys.tid, announcement, box.clock.nowMs())
  const speakMs = pickWithin(box.speakMs, box.random)
  if (fault === 'during') reboot(box)
  else if (speakMs === 0) endSound(box, item, 0)
  else {
    later(box, speakMs, () => {
      endSound(box, item, speakMs)
      speakNext(box)
    })
  }
}

function endSound (box: Box, { announcement: { id }, receivedAt, fault }: Queued, audioMs: number): void {
  if (fault === 'unsaved') {
    reboot(box)
    return
  }
  box.sounding = undefined
  box.flash.lastSpokenId = id
  const now = box.clock.nowMs()
  keepFinal(box, { id, result: 'spoken', queuedMs: Math.max(0, Math.round(now - audioMs - receivedAt)), audioMs, at: Math.round(now) })
  if (fault === 'unsent') reboot(box)
  else sendFinal(box, box.flash.kept.get(id)?.final)
}

/** Muted by volume 0 or by quiet hours: local minutes, start inclusive, end exclusive, over midnight when the end is smaller. */
function isMuted ({ flash: { volume, minVolume, quietHours }, clock }: Box): boolean {
  if (Math.max(volume, minVolume) === 0) return true
  if (quietHours === null) return false
  const { startMinute, endMinute, utcOffsetMinutes } = quietHours
  const minute = (Math.floor(clock.nowMs() / 60_000) + utcOffsetMinutes + 1440) % 1440
  const afterStart = minute >= startMinute
  const beforeEnd = minute < endMinute
  return startMinute <= endMinute ? afterStart && beforeEnd : afterStart || beforeEnd
}

function endWith (box: Box, ack: Ack): void {
  keepFinal(box, ack)
  sendFinal(box, ack)
}

function keepFinal (box: Box, ack: Ack): void {
  keep(box, ack.id, { final: ack, settled: false })
  box.meter.final(ack.result)
}

function keep ({ flash: { kept } }: Box, id: string, what: Kept): void {
  kept.set(id, what)
  if (kept.size <= FLASH_IDS_MAX) return
  for (const [oldest, { settled }] of kept) {
    if (!settled && kept.size <= FLASH_IDS_MAX * 2) continue
    kept.delete(oldest)
    return
  }
}

function unsettled ({ flash }: Box): Ack[] {
  return [...flash.kept.values()].flatMap(({ final, settled }) => final === undefined || settled ? [] : [final])
}

/** Sent until it is confirmed: now, when the announcement comes again, and after each hello. */
function sendFinal (box: Box, ack: Ack | undefined): void {
  if (ack === undefined || box.client === undefined || box.onTheWay.has(ack.id)) return
  if (box.random() < box.faults.ackLoss) {
    box.client.destroy()
    return
  }
  box.onTheWay.add(ack.id)
  publish(box, 'ack', ack, 1, () => {
    box.onTheWay.delete(ack.id)
    const kept = box.flash.kept.get(ack.id)
    if (kept !== undefined) kept.settled = true
  })
}

/** A simulated box has no screen and no firmware to change; what it cannot do it says. */
function handleCommand (box: Box, command: Command): void {
  const { id, name, expiresAt } = command
  if (answersKnown(box, id)) return
  box.meter.count('commands')
  if (box.clock.nowMs() >= expiresAt) endWith(box, { id, result: 'expired' })
  else if (!obey(box, command)) endWith(box, { id, result: 'failed', reason: 'not in this box' })
  else endWith(box, { id, result: 'done', ...(name === 'collect-log' ? { data: `simulated box ${box.keys.tid}, life ${box.life}` } : {}) })
  if (name === 'reboot' && box.flash.kept.get(id)?.final?.result === 'done') later(box, 0, () => reboot(box))
}

function obey (box: Box, { name, args: { volume, language } }: Command): boolean {
  const { flash } = box
  if (name === 'volume' && typeof volume === 'number' && volume >= 0 && volume <= 100) flash.volume = Math.round(volume)
  else if (name === 'language' && typeof language === 'string' && isLanguage(language)) flash.language = language
  else return ['test', 'locate', 'replay', 'day-total', 'reboot', 'collect-log'].includes(name)
  publish(box, 'reported', { version: flash.version, volume: flash.volume, language: flash.language, firmware: FIRMWARE })
  return true
}
