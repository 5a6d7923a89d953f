#!/usr/bin/env node
// The edge of the gateway process: environment in, log out, signals. `node dist/gateway/main.js`, or `soundbox gateway`.
import { readFileSync } from 'node:fs'
import { pino } from 'pino'
import { safeErrorText, SoundboxError } from '../protocol/index.js'
import { describeConfig, parseConfig, SETTINGS } from './config.js'
import { startGateway } from './gateway.js'
import { parseIntegrationConfig } from './integration/config.js'
import { describeError } from './log-error.js'

if (process.argv.includes('--help') || process.argv.includes('-h')) {
  const rows = SETTINGS.map(({ name, fallback, what }) => `  ${name.padEnd(30)} ${what} [${fallback === '' ? 'empty' : fallback}]`)
  process.stdout.write(`soundbox gateway: the daemon between bank and voice. Settings are environment variables:\n${rows.join('\n')}\n`)
  process.stdout.write('Providers (CBS_API_*, BILL_API_*, SMS_API_*, EMAIL_SMTP_*, FIREBASE_FCM_*, DIDIT_API_*, TOTP_*): gateway/integration/README.md\n')
  process.exit(0)
}

try {
  await run()
} catch (error) {
  process.stderr.write(`${safeErrorText(error)}\n`)
  if (!(error instanceof SoundboxError)) process.stderr.write(`${error instanceof Error ? error.stack ?? '' : ''}\n`)
  process.exit(error instanceof SoundboxError && error.code === 'CONFIG_INVALID' ? 2 : 1)
}

async function run (): Promise<void> {
  const [stray] = process.argv.slice(2)
  if (stray !== undefined) throw new SoundboxError('CONFIG_INVALID', `the gateway takes no ${stray}: its settings are environment variables (soundbox gateway --help)`)
  const config = parseConfig(process.env)
  const integration = parseIntegrationConfig(process.env, path => readFileSync(path, 'utf8'))
  const destination = pino.destination({ dest: config.logFile ?? 1, sync: false, mkdir: true })
  const log = pino({ level: config.logLevel, base: { pid: process.pid }, serializers: { err: describeError } }, destination)
  log.info(describeConfig(config), 'gateway starts')
  const gateway = await startGateway({ config, integration, log, nowMs: Date.now, pid: process.pid })
  let stopping = false
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) {
      log.warn({ signal }, 'stopped by force')
      destination.flushSync()
      process.exit(1)
    }
    stopping = true
    log.info({ signal }, 'gateway stops')
    gateway.close().then(() => {
      log.info({}, 'gateway stopped')
      destination.flushSync()
      process.exit(0)
    }, (err: unknown) => {
      log.error({ err }, 'gateway did not stop cleanly')
      destination.flushSync()
      process.exit(1)
    })
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('uncaughtException', err => {
    log.error({ err }, 'a fault of our own; the process ends so that it starts clean')
    destination.flushSync()
    process.exit(70)
  })
}
