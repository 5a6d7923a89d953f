// The door of protocol/: what gateway, device agent and simulated firmware share. wording/ and iso8583/ have doors of their own.
export * from './device-envelope.js'
export * from './errors.js'
export * from './languages.js'
export * from './log.js'
export * from './messages.js'
export * from './money.js'
export * from './secrets.js'
export * from './topics.js'
