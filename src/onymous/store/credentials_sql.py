"""Statements of API credentials, their keys and tokens, and of what was read with them."""

from __future__ import annotations

# -- changes of credentials are counted, so that every process reads them again -----------------

#: makes the counter exist; its first value is "0"
VERSION_ONCE = (
    "INSERT INTO meta (name, value) VALUES ('credentials_version', ?) ON CONFLICT (name) DO NOTHING"
)
#: one change at a time: the row stays locked until the transaction ends
VERSION_LOCK = "UPDATE meta SET value = value WHERE name = 'credentials_version' RETURNING value"
VERSION_SET = "UPDATE meta SET value = ? WHERE name = 'credentials_version'"
#: of credentials and of tenancy: workspaces may change under a credential
VERSIONS = (
    "SELECT name, value FROM meta WHERE name IN ('credentials_version', 'tenants_version')"
    " ORDER BY name"
)

# -- credentials --------------------------------------------------------------------------------

CREDENTIAL = "id, client, name, hash, settings, active, created, used"
CREDENTIALS = f"SELECT {CREDENTIAL} FROM credential ORDER BY id"
CREDENTIAL_BY_CLIENT = f"SELECT {CREDENTIAL} FROM credential WHERE client = ?"
CREDENTIAL_ADD = (
    "INSERT INTO credential (client, name, hash, settings, active, created)"
    " VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
)
CREDENTIAL_ACTIVE = "UPDATE credential SET active = ? WHERE id = ?"
#: deletion is final: the row and its hash are gone
CREDENTIAL_DROP = "DELETE FROM credential WHERE id = ?"
CREDENTIAL_USED = "UPDATE credential SET used = ? WHERE id = ? AND (used IS NULL OR used < ?)"

#: workspaces with what stands above them
WORKSPACES = (
    "SELECT w.id, w.name, w.account, a.organization, w.scope, s.config FROM workspace w"
    " JOIN account a ON a.id = w.account JOIN scope s ON s.id = w.scope ORDER BY w.id"
)

# -- keys of tokens -----------------------------------------------------------------------------

KEYS = (
    "SELECT kid, public, created, retired FROM signing_key"
    " WHERE retired IS NULL OR retired > ? ORDER BY created, kid"
)
KEY_SEALED = "SELECT sealed FROM signing_key WHERE kid = ?"
KEY_ADD = "INSERT INTO signing_key (kid, sealed, public, created) VALUES (?, ?, ?, ?)"
KEYS_RETIRE = "UPDATE signing_key SET retired = ? WHERE retired IS NULL AND kid <> ?"
KEYS_DROP = "DELETE FROM signing_key WHERE retired <= ?"

# -- revoked tokens -----------------------------------------------------------------------------

REVOKED = "SELECT jti FROM revoked_token WHERE until > ?"
REVOKED_ADD = (
    "INSERT INTO revoked_token (jti, credential, until) VALUES (?, ?, ?)"
    " ON CONFLICT (jti) DO NOTHING"
)
REVOKED_COUNT = "SELECT count(*) FROM revoked_token WHERE credential = ?"
REVOKED_FORGET = "DELETE FROM revoked_token WHERE until <= ?"

# -- user activity ------------------------------------------------------------------------------

#: batches of a person in a workspace from .. to, older than (time, number), newest first; input
#: and device 0 stand for all. The casts tell PostgreSQL the width of what is only compared with 0
ACTIVITY_BATCHES = (
    "SELECT b.id, b.pid, b.at, b.received, b.input, b.dictionary, b.body FROM batch b"
    " WHERE b.pid = ? AND b.at >= ? AND b.at <= ? AND (b.at < ? OR b.id < ?) AND b.workspace = ?"
    " AND (CAST(? AS BIGINT) = 0 OR b.input = ?) AND (CAST(? AS BIGINT) = 0 OR b.device = ?)"
    " ORDER BY b.at DESC, b.id DESC LIMIT ?"
)
ACTIVITY_CHANGES = (
    "SELECT seq, pid, at, body FROM ledger"
    " WHERE pid = ? AND at >= ? AND at <= ? AND (at < ? OR seq < ?)"
    " ORDER BY at DESC, seq DESC LIMIT ?"
)
ACTIVITY_BATCH = (
    "SELECT b.pid, b.at, b.workspace, b.device, b.dictionary, b.body FROM batch b WHERE b.id = ?"
)
