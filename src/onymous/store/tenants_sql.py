"""Statements of tenancy. `?` is an argument on every engine."""

from __future__ import annotations

ORGANIZATIONS = "SELECT id, name FROM organization ORDER BY id"
ACCOUNTS = "SELECT id, name FROM account ORDER BY id"
SCOPES = "SELECT id, name, config FROM scope ORDER BY id"
WORKSPACES = "SELECT id, name, account, scope FROM workspace ORDER BY id"
INPUTS = "SELECT id, name, workspace, kind, api_key, settings, active FROM input ORDER BY id"
#: secrets in force, oldest first: two are live during a rotation
SECRETS = "SELECT input, sealed FROM secret WHERE revoked IS NULL ORDER BY id"

ORGANIZATION_ADD = "INSERT INTO organization (name) VALUES (?) RETURNING id"
ACCOUNT_ADD = "INSERT INTO account (organization, name) VALUES (?, ?) RETURNING id"
SCOPE_ADD = "INSERT INTO scope (name, config, changed) VALUES (?, ?, ?) RETURNING id"
SCOPE_SET = "UPDATE scope SET config = ?, changed = ? WHERE name = ?"
WORKSPACE_ADD = (
    "INSERT INTO workspace (name, account, scope, settings) VALUES (?, ?, ?, ?) RETURNING id"
)
WORKSPACE_SET = "UPDATE workspace SET account = ?, scope = ? WHERE name = ?"
INPUT_ADD = (
    "INSERT INTO input (name, workspace, kind, api_key, settings, active)"
    " VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
)
INPUT_SET = "UPDATE input SET settings = ?, active = ? WHERE workspace = ? AND name = ?"
SECRET_ADD = "INSERT INTO secret (input, sealed, created) VALUES (?, ?, ?)"
SECRETS_OF = "SELECT id FROM secret WHERE input = ? AND revoked IS NULL ORDER BY id"
SECRET_REVOKE = "UPDATE secret SET revoked = ? WHERE id = ?"

#: whether a pool holds a record; cheap on every engine for pools that hold many
POOL_IN_USE = "SELECT 1 FROM identity WHERE slot >= ? AND slot < ? LIMIT 1"
#: records without any name left hold history too
POOL_HAS_PROFILE = "SELECT 1 FROM profile WHERE pool = ? LIMIT 1"
