// What every store must do for ISO 8583: find payments by the beginning of their id, and keep reversals until they are acknowledged.
import t from 'tap'
import type { OutgoingReversal, Store } from '../../gateway/store/contract.js'
import { somePayment } from './store-records.js'
import type { Test, TestDatabase } from './store-suite.js'

/** Part of the contract's tests; `makeDatabase` as in storeSuite. */
export function isoStoreTests (makeDatabase: (t: Test) => Promise<TestDatabase>): void {
  const openFor = async (t: Test): Promise<Store> => {
    const store = await (await makeDatabase(t)).open()
    t.teardown(() => store.close())
    return store
  }

  t.test('transactions are found by the beginning of their id, per bank, in order', async t => {
    const store = await openFor(t)
    for (const id of ['R1-000001-T-2', 'R1-000001-T-1', 'R1-000001-TX-1', 'R1-000002-T-1', 'R1-000001-S~']) await store.recordPayment(somePayment(1, { transactionId: id }), [])
    await store.recordPayment(somePayment(1, { transactionId: 'R1-000001-T-9', bankId: 'cboi' }), [])
    t.same(await store.findTransactions('pnb', 'R1-000001-T-', 10), ['R1-000001-T-1', 'R1-000001-T-2'])
    t.same(await store.findTransactions('pnb', 'R1-000001-T-', 1), ['R1-000001-T-1'], 'at most so many')
    t.same(await store.findTransactions('pnb', 'R1-000001-S', 10), ['R1-000001-S~'], 'the last printable character is not beyond the end')
    t.same(await store.findTransactions('pnb', 'R9', 10), [])
  })

  t.test('a reversal waits until it is removed, once for each name, and is there after a restart', async t => {
    const database = await makeDatabase(t)
    const reversal = (reference: string, peer = 'switch'): OutgoingReversal => ({ peer, reference, message: { mti: '0420', fields: { 4: '1', 11: reference } }, createdAt: 7 })
    const first = await database.open()
    for (const one of [reversal('b'), reversal('a'), reversal('c', 'other'), { ...reversal('b'), createdAt: 8 }]) await first.saveReversal(one)
    await first.close()
    const store = await database.open()
    t.teardown(() => store.close())
    t.same(await store.waitingReversals('switch', 10), [reversal('b'), reversal('a')], 'oldest first, the first of a name stays')
    t.same(await store.waitingReversals('switch', 1), [reversal('b')])
    await store.removeReversal('switch', 'b')
    await store.removeReversal('switch', 'never')
    t.same(await store.waitingReversals('switch', 10), [reversal('a')])
    t.same(await store.waitingReversals('other', 10), [reversal('c', 'other')])
  })
}
