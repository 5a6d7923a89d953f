// The MQTT topics of one soundbox: soundbox/v1/{tid}/{name}. No wildcard topic, nothing retained, no broadcast.

export const TOPIC_ROOT = 'soundbox/v1/'
/** A serial number: what fits a topic, a file name and a shell unquoted. */
const TID = /^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$/

export const DOWN_TOPICS = ['announce', 'command', 'desired'] as const
export const UP_TOPICS = ['hello', 'ack', 'reported', 'telemetry', 'presence'] as const
export type DownTopic = typeof DOWN_TOPICS[number]
export type UpTopic = typeof UP_TOPICS[number]

/** True for a usable device serial number: 3 to 32 letters, digits, - or _, first a letter or digit. */
export function isTid (text: string): boolean {
  return TID.test(text)
}

/** `soundbox/v1/{tid}/{name}`. */
export function formatTopic (tid: string, name: DownTopic | UpTopic): string {
  return `${TOPIC_ROOT}${tid}/${name}`
}

/** The parts of a topic of ours, or undefined for any other text. */
export function parseTopic (topic: string): { tid: string, name: DownTopic | UpTopic } | undefined {
  if (!topic.startsWith(TOPIC_ROOT)) return undefined
  const slash = topic.indexOf('/', TOPIC_ROOT.length)
  const tid = topic.slice(TOPIC_ROOT.length, slash)
  const name = topic.slice(slash + 1)
  if (slash < 0 || !isTid(tid) || !isTopicName(name)) return undefined
  return { tid, name }
}

function isTopicName (name: string): name is DownTopic | UpTopic {
  return (DOWN_TOPICS as readonly string[]).includes(name) || (UP_TOPICS as readonly string[]).includes(name)
}

/** May this device publish here? Only its own up topics, and presence is the broker's to send (as its last will). */
export function mayPublish (tid: string, topic: string): boolean {
  const parts = parseTopic(topic)
  return parts !== undefined && parts.tid === tid && (UP_TOPICS as readonly string[]).includes(parts.name)
}

/** May this device subscribe to this filter? Only to its own down topics by name; a wildcard is no topic of ours. */
export function maySubscribe (tid: string, filter: string): boolean {
  const parts = parseTopic(filter)
  return parts !== undefined && parts.tid === tid && (DOWN_TOPICS as readonly string[]).includes(parts.name)
}
