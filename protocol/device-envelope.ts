// The signature under an announcement, so that only the gateway can make a soundbox say that money came.
//
// sig = base64url( HMAC-SHA256( device's signing key, canonical form ) ), RFC 2104. The canonical form is the fields below, each as
// text, joined by line feeds; no field can hold a line feed (the reader checks), so no two announcements share a form. JSON itself
// is not signed: key order and white space would become part of the contract of every firmware.
//
//   soundbox-v1 LF tid LF id LF seq LF kind LF amount LF currency LF language LF txnType LF count LF prompt LF issuedAt LF expiresAt
import { createHash, createHmac } from 'node:crypto'
import { SoundboxError } from './errors.js'
import { type Announcement, decodeAnnouncement, encodeAnnouncement, type SignedAnnouncement } from './messages.js'
import { isSameSecret } from './secrets.js'

/**
 * The id of a payment's announcement: first 16 bytes, hex, of SHA-256 over bank id, 0x00, transaction id. A bank's retry after any
 * crash gets the same id, so the soundbox knows it.
 */
export function announcementId (bankId: string, transactionId: string): string {
  return createHash('sha256').update(`${bankId}\0${transactionId}`, 'utf8').digest('hex').slice(0, 32)
}

/** Wire bytes of an announcement, signed for this device. `signingKey` is the device's secret as text. */
export function sealAnnouncement (announcement: Announcement, tid: string, signingKey: string): Buffer {
  return encodeAnnouncement({ ...announcement, sig: signatureOf(announcement, tid, signingKey) })
}

/** The announcement in the bytes. Throws MESSAGE_INVALID for a wrong shape, SIGNATURE_INVALID for a wrong signature. */
export function openAnnouncement (bytes: Uint8Array, tid: string, signingKey: string): SignedAnnouncement {
  const announcement = decodeAnnouncement(bytes)
  const want = signatureOf(announcement, tid, signingKey)
  // As text: the last of the 43 digits has two bits to spare, and four spellings of one signature would open.
  if (!isSameSecret(announcement.sig, want)) throw new SoundboxError('SIGNATURE_INVALID', 'announcement is not signed with the key of this soundbox')
  return announcement
}

function signatureOf (announcement: Announcement, tid: string, signingKey: string): string {
  return createHmac('sha256', signingKey).update(canonicalForm(announcement, tid), 'utf8').digest('base64url')
}

function canonicalForm (a: Announcement, tid: string): string {
  return `soundbox-v1\n${tid}\n${a.id}\n${a.seq}\n${a.kind}\n${a.amountMinor}\n${a.currency}\n${a.language}\n${a.txnType ?? ''}\n${a.count ?? ''}\n${a.prompt ?? ''}\n${a.issuedAt}\n${a.expiresAt}`
}
