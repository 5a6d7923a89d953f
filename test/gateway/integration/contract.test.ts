import t from 'tap'
import { digitsOfMsisdn, INTEGRATION_PERMISSIONS, maskMsisdn, parseServiceRequest, parseServiceResponse, REPORT_ROUTE, ROUTES, SERVICE_NAMES, SERVICES,
  smsParts } from '../../../gateway/integration/contract.js'
import { EMAIL_BODY_CHARS_MAX, EMAIL_RECIPIENTS_MAX, EMAIL_SUBJECT_CHARS_MAX, SEARCH_ROWS_MAX, SMS_RECIPIENTS_MAX,
  STATEMENT_ROWS_MAX } from '../../../gateway/integration/contract-parts.js'
import { booleanAt, decimalAt, objectAt, optionalDecimalAt, optionalTextAt, rowsAt, textAt, wordFrom } from '../../../gateway/integration/fields.js'

t.test('the route table is the one of the mission', async t => {
  const rows = ROUTES.map(route => `${route.method} ${route.path} ${route.permission} ${route.issuer} ${route.service}`)
  t.same(rows, [
    'POST /customer/search customer_search cbs customer_search_cbs', 'POST /account/search account_search cbs account_search_cbs',
    'POST /account/details account_details cbs account_details_cbs', 'POST /statement/search mini_statement cbs mini_statement_cbs',
    'POST /account/balance account_balance cbs account_balance_cbs', 'POST /mno/validate mno_validate cbs mno_validate_cbs',
    'POST /dictionary/bank bank_dictionary cbs bank_dictionary_cbs', 'POST /interbank/account-name interbank_account_name cbs interbank_account_name_cbs',
    'POST /biller/category biller_category bill biller_category_bill', 'POST /biller/fetch biller_fetch bill biller_fetch_bill',
    'POST /biller/package biller_package bill biller_package_bill', 'POST /sms/send send_sms sms send_sms_message', 'POST /email/send send_email email send_email_message'
  ])
  t.same(REPORT_ROUTE, { path: '/simulator/download', method: 'GET', service: 'generate_simulated_cbs_report' })
  t.equal(new Set(INTEGRATION_PERMISSIONS).size, 13)
  for (const route of ROUTES) t.equal(SERVICES[route.service].issuer, route.issuer, route.path)
})

t.test('every example keeps its own contract, and an unknown key or a missing one breaks it', async t => {
  for (const service of SERVICE_NAMES) {
    const { request, response } = SERVICES[service].example
    t.same(parseServiceRequest(service, request), request, service)
    t.same(parseServiceResponse(service, response), response, service)
    t.throws(() => parseServiceRequest(service, { ...request, extra: 1 }), { code: 'INPUT_INVALID' }, `${service} with an unknown key`)
    t.throws(() => parseServiceRequest(service, undefined), { code: 'INPUT_INVALID' }, `${service} without a body`)
    t.throws(() => parseServiceRequest(service, []), { code: 'INPUT_INVALID' }, `${service} with a list`)
    const broken = Array.isArray(response) ? [{ ...(response[0] as object), extra: 1 }] : { ...response, extra: 1 }
    t.throws(() => parseServiceResponse(service, broken), { code: 'PROVIDER_RESPONSE_INVALID' }, `${service} with an unknown key in the answer`)
  }
})

const account = '0150245000100'
t.test('requests are accepted at their limits and refused one past them', async t => {
  const sms = { to: ['+255712345678'], text: 'x', client_ref: 'r' }
  const mail = { to: ['a@example.com'], subject: 's', text: 't', client_ref: 'r' }
  const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => `+2557${String(10_000_000 + index)}`)
  const addresses = (count: number): string[] => Array.from({ length: count }, (_, index) => `p${index}@example.com`)
  const rows: [Parameters<typeof parseServiceRequest>[0], object, boolean, string][] = [
    ['account_details_cbs', { account_no: '1'.repeat(34) }, true, '34 characters'], ['account_details_cbs', { account_no: '1'.repeat(35) }, false, '35 characters'],
    ['account_details_cbs', { account_no: '123' }, false, '3 characters'], ['account_details_cbs', { account_no: 1234 }, false, 'a number'],
    ['account_search_cbs', { cif: '1' }, true, 'one key'], ['account_search_cbs', {}, false, 'none'],
      ['account_search_cbs', { cif: '1', msisdn: '+255712345678' }, false, 'two keys'],
    ['mini_statement_cbs', { account_no: account, limit: STATEMENT_ROWS_MAX }, true, '50 rows'],
      ['mini_statement_cbs', { account_no: account, limit: STATEMENT_ROWS_MAX + 1 }, false, '51 rows'],
    ['mini_statement_cbs', { account_no: account, limit: 0 }, false, 'no rows'],
      ['mini_statement_cbs', { account_no: account, from: '2026-01-02', to: '2026-01-02' }, true, 'one day'],
    ['mini_statement_cbs', { account_no: account, from: '2026-01-03', to: '2026-01-02' }, false, 'backwards'],
      ['mini_statement_cbs', { account_no: account, from: '2026-13-01' }, false, 'month 13'],
    ['mno_validate_cbs', { mno: 'MPESA', msisdn: '255712345678' }, true, 'without plus'], ['mno_validate_cbs', { mno: 'MPESA', msisdn: '0712345678' }, false, 'national number'],
    ['mno_validate_cbs', { mno: 'MPESA', msisdn: `+${'1'.repeat(15)}` }, true, '15 digits'],
      ['mno_validate_cbs', { mno: 'MPESA', msisdn: `+${'1'.repeat(16)}` }, false, '16 digits'],
    ['interbank_account_name_cbs', { fsp_id: '016', account_no: account, identifier_type: 'BANK' }, true, 'fsp_id'],
    ['interbank_account_name_cbs', { bic: 'NMIBTZTZ', account_no: account, identifier_type: 'BANK' }, true, 'bic'],
    ['interbank_account_name_cbs', { account_no: account, identifier_type: 'BANK' }, false, 'neither'],
    ['interbank_account_name_cbs', { fsp_id: '016', bic: 'NMIBTZTZ', account_no: account, identifier_type: 'BANK' }, false, 'both'],
    ['customer_search_cbs', { by: 'cif', value: 'x'.repeat(64) }, true, '64'], ['customer_search_cbs', { by: 'cif', value: 'x'.repeat(65) }, false, '65'],
    ['customer_search_cbs', { by: 'name', value: 'x' }, false, 'unknown key kind'], ['customer_search_cbs', { by: 'cif', value: 'a\u0000b' }, false, 'control character'],
    ['send_sms_message', { ...sms, to: numbers(SMS_RECIPIENTS_MAX) }, true, '100 numbers'],
      ['send_sms_message', { ...sms, to: numbers(SMS_RECIPIENTS_MAX + 1) }, false, '101 numbers'],
    ['send_sms_message', { ...sms, to: [] }, false, 'nobody'], ['send_sms_message', { ...sms, to: ['+255712345678', '+255712345678'] }, false, 'the same twice'],
    ['send_sms_message', { ...sms, text: 'x'.repeat(1530) }, true, '10 parts'], ['send_sms_message', { ...sms, text: 'x'.repeat(1531) }, false, '11 parts'],
    ['send_sms_message', { ...sms, text: 'ह'.repeat(670) }, true, '10 UCS-2 parts'], ['send_sms_message', { ...sms, text: 'ह'.repeat(671) }, false, '11 UCS-2 parts'],
    ['send_sms_message', { ...sms, client_ref: 'r'.repeat(64) }, true, '64'], ['send_sms_message', { ...sms, client_ref: 'r'.repeat(65) }, false, '65'],
    ['send_email_message', { ...mail, to: addresses(EMAIL_RECIPIENTS_MAX) }, true, '50 recipients'],
    ['send_email_message', { ...mail, to: addresses(EMAIL_RECIPIENTS_MAX - 1), cc: ['c@example.com'] }, true, '49 and 1'],
    ['send_email_message', { ...mail, to: addresses(EMAIL_RECIPIENTS_MAX), cc: ['c@example.com'] }, false, '50 and 1'],
    ['send_email_message', { ...mail, subject: 's'.repeat(EMAIL_SUBJECT_CHARS_MAX) }, true, 'longest subject'],
      ['send_email_message', { ...mail, subject: 'a\r\nBcc: x' }, false, 'header injection'],
    ['send_email_message', { ...mail, subject: 's'.repeat(EMAIL_SUBJECT_CHARS_MAX + 1) }, false, 'subject too long'],
    ['send_email_message', { ...mail, text: 'x'.repeat(EMAIL_BODY_CHARS_MAX + 1) }, false, 'text too long'],
      ['send_email_message', { to: mail.to, subject: 's', client_ref: 'r' }, false, 'no content'],
    ['send_email_message', { ...mail, to: ['a@b'] }, false, 'no domain'],
      ['send_push_message', { token: 'token-0001', title: 't', body: 'b', client_ref: 'r', ttl_s: 2_419_201 }, false, 'four weeks and a second'],
    ['send_push_message', { token: 'token-0001', title: 't', body: 'b', client_ref: 'r',
      data: Object.fromEntries(Array.from({ length: 5 }, (_, index) => [`k${index}`, 'x'.repeat(900)])) }, false, 'above 4096 bytes']
  ]
  for (const [service, input, fits, why] of rows) {
    if (fits) t.doesNotThrow(() => parseServiceRequest(service, input), `${service}: ${why}`)
    else t.throws(() => parseServiceRequest(service, input), { code: 'INPUT_INVALID' }, `${service}: ${why}`)
  }
})

t.test('an answer with more rows than a caller can use is refused, and no message quotes a value', async t => {
  const [row] = SERVICES.customer_search_cbs.example.response
  const many = (count: number): unknown[] => Array.from({ length: count }, () => row)
  t.equal(parseServiceResponse('customer_search_cbs', many(SEARCH_ROWS_MAX)).length, SEARCH_ROWS_MAX)
  t.throws(() => parseServiceResponse('customer_search_cbs', many(SEARCH_ROWS_MAX + 1)), { code: 'PROVIDER_RESPONSE_INVALID' })
  try {
    parseServiceRequest('customer_search_cbs', { by: 'cif', value: 'SECRET-'.repeat(20) })
    t.fail('accepted')
  } catch (error) {
    t.notMatch((error as Error).message, /SECRET/)
    t.match((error as Error).message, /\/value/)
  }
})

t.test('SMS parts follow GSM 03.38: 160/153 septets, 70/67 units, no torn pairs', async t => {
  const rows: [string, 'GSM7' | 'UCS2', number, string][] = [
    ['x'.repeat(160), 'GSM7', 1, '160'], ['x'.repeat(161), 'GSM7', 2, '161'], ['x'.repeat(306), 'GSM7', 2, '306'], ['x'.repeat(307), 'GSM7', 3, '307'],
    ['€'.repeat(80), 'GSM7', 1, 'two septets each'], ['€'.repeat(81), 'GSM7', 2, '162 septets'], [`${'x'.repeat(152)}€${'x'.repeat(152)}`, 'GSM7', 3, 'an escape pair is not torn'],
    ['ह'.repeat(70), 'UCS2', 1, '70'], ['ह'.repeat(71), 'UCS2', 2, '71'], ['ह'.repeat(134), 'UCS2', 2, '134'], ['ह'.repeat(135), 'UCS2', 3, '135'],
    [`${'ह'.repeat(66)}😀${'ह'.repeat(66)}`, 'UCS2', 3, 'a surrogate pair is not torn'], ['`', 'UCS2', 1, 'a backtick is not GSM'], ['', 'GSM7', 1, 'nothing']
  ]
  for (const [text, encoding, parts, why] of rows) t.same(smsParts(text), { encoding, parts }, why)
})

t.test('phone numbers are masked in the middle', async t => {
  t.equal(maskMsisdn('+255712345678'), '2557****5678')
  t.equal(maskMsisdn('255712345678'), '2557****5678')
  t.equal(maskMsisdn('+12345678'), '1234*')
  t.equal(digitsOfMsisdn('+255712345678'), '255712345678')
})

t.test("a provider's answer is read field by field, and a wrong field is named without its value", async t => {
  const body = { a: { text: ' x ', number: 7, flag: 'Y', amount: '19.00', big: 2 ** 60, list: [{ n: 1 }, { n: 2 }], one: { n: 3 }, empty: '' } }
  t.equal(textAt(body, 'a.text'), 'x')
  t.equal(textAt(body, 'a.number'), '7')
  t.equal(optionalTextAt(body, 'a.none'), null)
  t.equal(optionalTextAt(body, 'a.empty'), null)
  t.equal(decimalAt(body, 'a.amount'), '19.00')
  t.equal(decimalAt(body, 'a.number'), '7.00')
  t.equal(optionalDecimalAt(body, 'a.none'), null)
  t.equal(booleanAt(body, 'a.flag', false), true)
  t.equal(booleanAt(body, 'a.none', true), true)
  t.same(rowsAt(body, 'a.list').map(row => row['n']), [1, 2])
  t.same(rowsAt(body, 'a.one').map(row => row['n']), [3], 'a lone XML element is one row')
  t.same(rowsAt(body, 'a.none'), [])
  t.equal(wordFrom('open', { OPEN: 'ACTIVE' } as const, 'OTHER' as never), 'ACTIVE')
  t.equal(wordFrom('toString', {} as Record<string, 'A'>, 'A'), 'A')
  for (const [read, what] of [
    [() => textAt(body, 'a.none'), 'absent text'], [() => textAt(body, 'a.list'), 'a list as text'], [() => decimalAt(body, 'a.text'), 'text as amount'],
    [() => objectAt(body, 'a.text'), 'text as object'], [() => booleanAt(body, 'a.text', true), 'text as flag'], [() => rowsAt(body, 'a.text'), 'text as rows'],
    [() => textAt(body, 'a.big'), 'a number that JSON has rounded'], [() => textAt('x', 'a'), 'no object at all'], [() => textAt(body, '__proto__.x'), 'inherited names']
  ] as const) t.throws(read, { code: 'PROVIDER_RESPONSE_INVALID' }, what)
})
