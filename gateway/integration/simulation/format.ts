// How the simulator writes money and time: decimal strings with two places, RFC 3339 in UTC, calendar dates of the bank's own clock.

/** `-1900` -> `-19.00`. */
export function formatDecimal (minor: number): string {
  const paise = Math.abs(minor) % 100
  return `${minor < 0 ? '-' : ''}${(Math.abs(minor) - paise) / 100}.${String(paise).padStart(2, '0')}`
}

/** `2026-01-05T09:15:00Z`. */
export function instantFromMs (ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

/** The calendar date at a place that is `utcOffsetMinutes` ahead of UTC. */
export function localDateFromMs (ms: number, utcOffsetMinutes: number): string {
  return new Date(ms + utcOffsetMinutes * 60_000).toISOString().slice(0, 10)
}
