// What a token may do, by name, and the usual sets of names. A token holds names, not a role: a role is only a way to write them down.
import { INTEGRATION_PERMISSIONS } from './contract.js'

/** Rights on the gateway itself, beside the thirteen of the integration routes. */
export const OPERATOR_PERMISSIONS = [
  'fleet_read', 'fleet_manage', 'bank_manage', 'history_read', 'audit_read', 'token_manage', 'metrics_read'
] as const
export type OperatorPermission = typeof OPERATOR_PERMISSIONS[number]
export const PERMISSIONS: readonly string[] = [...INTEGRATION_PERMISSIONS, ...OPERATOR_PERMISSIONS]

const LOOKUPS = INTEGRATION_PERMISSIONS.filter(permission => permission !== 'send_sms' && permission !== 'send_email')

/** Sets of names. `partner`: an outside system. `onboarding`: who adds merchants. */
export const ROLES: Readonly<Record<string, readonly string[]>> = {
  partner: INTEGRATION_PERMISSIONS,
  onboarding: ['interbank_account_name', 'mno_validate', 'bank_dictionary', 'fleet_read'],
  lookup: LOOKUPS,
  messenger: ['send_sms', 'send_email'],
  viewer: ['fleet_read', 'history_read', 'metrics_read'],
  operator: ['fleet_read', 'fleet_manage', 'history_read', 'metrics_read'],
  auditor: ['audit_read', 'history_read'],
  admin: PERMISSIONS
}
