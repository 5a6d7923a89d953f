// `make run`: everything on one machine. Starts the gateway, provisions a bank, a merchant and two soundboxes, posts one encrypted
// trigger as the bank would, and shows what each box said. Stays up until Ctrl-C.
export type DemoDeps = { dist: string, env: Readonly<Record<string, string | undefined>>, write: (text: string) => void }

/** Resolves with the exit code once everything has stopped. */
export async function runDemo (_deps: DemoDeps): Promise<number> {
  return 1
}
