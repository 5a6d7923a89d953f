// A certificate authority of a test, and what it signs for 127.0.0.1. Made by openssl.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
export type Pair = { key: string, cert: string }
export type Authority = { ca: string, sign: (name: string) => Promise<Pair> }

/** An authority in `dir`; several may share it under different names. */
export async function makeAuthority (dir: string, name: string): Promise<Authority> {
  const [caKey, caCert] = [join(dir, `${name}.key`), join(dir, `${name}.crt`)]
  await run('openssl', ['req', '-x509', ...NEW_KEY, '-keyout', caKey, '-out', caCert, '-days', '2', '-subj', `/CN=${name}`])
  return {
    ca: readFileSync(caCert, 'utf8'),
    sign: async subject => {
      const [key, csr, cert, ext] = ['key', 'csr', 'crt', 'ext'].map(end => join(dir, `${name}-${subject}.${end}`)) as [string, string, string, string]
      writeFileSync(ext, 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
      await run('openssl', ['req', ...NEW_KEY, '-keyout', key, '-out', csr, '-subj', `/CN=${subject}`])
      await run('openssl', ['x509', '-req', '-in', csr, '-CA', caCert, '-CAkey', caKey, '-CAcreateserial', '-out', cert, '-days', '2', '-extfile', ext])
      return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
    }
  }
}
