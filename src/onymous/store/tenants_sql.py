"""Every statement of tenancy, named and commented. `?` is an argument on every engine."""

from __future__ import annotations

#: makes the counter exist; its first value is "0"
VERSION_ONCE = (
    "INSERT INTO meta (name, value) VALUES ('tenants_version', ?) ON CONFLICT (name) DO NOTHING"
)
#: one change of tenancy at a time: the row stays locked until the transaction ends
VERSION_LOCK = "UPDATE meta SET value = value WHERE name = 'tenants_version'"
VERSION_GET = "SELECT value FROM meta WHERE name = 'tenants_version'"
VERSION_SET = "UPDATE meta SET value = ? WHERE name = 'tenants_version'"

# -- what there is ------------------------------------------------------------------------------

ORGANIZATIONS = "SELECT id, name FROM organization ORDER BY id"
ACCOUNTS = "SELECT id, name FROM account ORDER BY id"
SCOPES = "SELECT id, name, config FROM scope ORDER BY id"
WORKSPACES = (
    "SELECT w.id, w.name, a.name, s.name, w.settings FROM workspace w"
    " JOIN account a ON a.id = w.account JOIN scope s ON s.id = w.scope ORDER BY w.id"
)
INPUTS = (
    "SELECT i.id, w.name, i.name, i.kind, i.api_key, i.settings, i.active FROM input i"
    " JOIN workspace w ON w.id = i.workspace ORDER BY i.id"
)
INPUT_BY_NAME = (
    "SELECT i.id, i.kind, i.api_key FROM input i JOIN workspace w ON w.id = i.workspace"
    " WHERE w.name = ? AND i.name = ?"
)
#: every input with all that a request needs to know
CALLERS = (
    "SELECT i.id, i.name, i.kind, i.api_key, i.settings, i.active,"
    " w.id, w.name, w.settings, s.id, s.name, s.config FROM input i"
    " JOIN workspace w ON w.id = i.workspace JOIN scope s ON s.id = w.scope ORDER BY i.id"
)
WORKSPACE_NAMES = "SELECT id, name FROM workspace ORDER BY id"
#: does a scope hold an identity? Its two pools are neighbours, so this reads one index entry
SCOPE_HOLDS = "SELECT 1 FROM identity WHERE slot >= ? AND slot < ? LIMIT 1"

# -- changes ------------------------------------------------------------------------------------

ORGANIZATION_ADD = "INSERT INTO organization (name) VALUES (?) RETURNING id"
ACCOUNT_ADD = "INSERT INTO account (organization, name) VALUES (?, ?) RETURNING id"
SCOPE_ADD = "INSERT INTO scope (name, config, changed) VALUES (?, ?, ?) RETURNING id"
SCOPE_SET = "UPDATE scope SET config = ?, changed = ? WHERE id = ?"
WORKSPACE_ADD = (
    "INSERT INTO workspace (name, account, scope, settings) VALUES (?, ?, ?, ?) RETURNING id"
)
WORKSPACE_SET = "UPDATE workspace SET account = ?, scope = ? WHERE id = ?"
WORKSPACE_SHARED = "UPDATE workspace SET settings = ? WHERE id = ?"
INPUT_ADD = (
    "INSERT INTO input (name, workspace, kind, api_key, settings, active)"
    " VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
)
INPUT_SET = "UPDATE input SET settings = ?, active = ? WHERE id = ?"

# -- secrets ------------------------------------------------------------------------------------

SEALED_ADD = "INSERT INTO secret (input, sealed, created) VALUES (?, ?, ?) RETURNING id"
#: secrets that still open doors, oldest first
SECRETS_LIVE = "SELECT id, input, sealed FROM secret WHERE revoked IS NULL ORDER BY id"
SECRETS_OF = "SELECT id, created, revoked, used FROM secret WHERE input = ? ORDER BY id"
#: a revoked secret is gone, not only marked
SEALED_REVOKE = "UPDATE secret SET sealed = ?, revoked = ? WHERE id = ? AND revoked IS NULL"

# -- last used ----------------------------------------------------------------------------------

INPUT_USED = "UPDATE input SET used = ? WHERE id = ? AND (used IS NULL OR used < ?)"
SEALED_USED = "UPDATE secret SET used = ? WHERE id = ? AND (used IS NULL OR used < ?)"
#: every input with when it was last used
INPUTS_USED = (
    "SELECT i.id, w.name, i.name, i.kind, i.api_key, i.active, i.used FROM input i"
    " JOIN workspace w ON w.id = i.workspace ORDER BY w.name, i.name"
)

# -- rules about to change ----------------------------------------------------------------------

#: while rules are about to change, every process holds this row while it writes
FENCE_HOLD = "UPDATE meta SET value = value WHERE name = 'tenants_version' RETURNING value"
FENCE_DROP = "DELETE FROM meta WHERE name = 'rules_fence'"
#: each announcement has a row of its own, so that one that ends does not end another
FENCES = "SELECT name, value FROM meta WHERE name > 'rules_fence ' AND name < 'rules_fence!'"
FENCE_END = "DELETE FROM meta WHERE name = ?"
