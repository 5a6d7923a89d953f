// What gateways tell each other: how it travels and what is left alone.
import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { type Bus, MAILS_WAITING_MAX, openPost } from '../../gateway/trigger/relay-mail.js'
import { SILENT_LOG } from '../../protocol/index.js'

const idOf = (n: number): string => n.toString(16).padStart(32, '0')

t.test('messages between gateways: batches keep their order, a foreign topic or nonsense is left alone, the queue has a limit', async t => {
  const topics: string[] = []
  let go = (): void => {}
  let heard: (topic: string) => void = () => {}
  const got: unknown[] = []
  let lost = 0
  const bus: Bus = {
    wake: topic => new Promise(resolve => {
      topics.push(topic)
      go = resolve
    }),
    onWake: async handler => { heard = handler },
    recordSummaryOnce: async () => true,
    waitingTids: async () => []
  }
  const deps = { bus, onMail: (from: string, mail: unknown) => { got.push([from, mail]) }, onLost: () => { lost++ }, log: SILENT_LOG }
  const post = openPost({ ...deps, self: 'a' })
  await openPost({ ...deps, self: 'b' }).listen()
  const big = { kind: 'ack', tid: 'BOX-1', ack: { id: idOf(1), result: 'done', data: 'ü'.repeat(1500) }, isSettled: false } as const
  const sent = [post.send({ kind: 'here' }), post.send(big), post.send(big), post.send({ kind: 'bye' })]
  for (let n = 0; n < 3; n++) {
    await turn()
    go()
  }
  await Promise.all(sent)
  t.equal(topics.length, 3, 'the first alone, then as many as fit')
  t.ok(topics.every(topic => topic.length <= 7000 && /^[\w:.-]+$/.test(topic)))
  for (const topic of [...topics, '*', 'directory', 'relay:bm9uc2Vuc2U', 'relay:e30']) heard(topic)
  t.same(got, [['a', { kind: 'here' }], ['a', big], ['a', big], ['a', { kind: 'bye' }]])
  t.equal(lost, 1)
  const waiting = Array.from({ length: MAILS_WAITING_MAX + 1 }, () => post.send({ kind: 'here' }))
  waiting.forEach(promise => { promise.catch(() => {}) })
  await t.rejects(post.send({ kind: 'here' }), { code: 'OVERLOADED' })
})
