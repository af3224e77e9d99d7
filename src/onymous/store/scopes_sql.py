"""Statements of joins and splits of scopes."""

from __future__ import annotations

CHANGE = (
    "id, kind, source, target, workspaces, body, author, reason, at, state, due, cursor, high,"
    " undoes"
)
CHANGE_ADD = (
    "INSERT INTO scope_change (kind, source, target, workspaces, body, author, reason, at, state,"
    " due, undoes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
)
CHANGE_GET = f"SELECT {CHANGE} FROM scope_change WHERE id = ?"
CHANGES = f"SELECT {CHANGE} FROM scope_change ORDER BY id DESC LIMIT 200"
#: those whose workspaces are held, or whose last profiles still come over
CHANGES_OPEN = f"SELECT {CHANGE} FROM scope_change WHERE state <> 'done' ORDER BY id"
CHANGES_UNDOING = "SELECT id FROM scope_change WHERE undoes = ?"
#: one process works on a change at a time: the row stays locked until the transaction ends
CHANGE_LOCK = "UPDATE scope_change SET state = state WHERE id = ?"
CHANGE_STATE = "UPDATE scope_change SET state = ?, due = ?, cursor = ?, high = ? WHERE id = ?"
CHANGE_CURSOR = "UPDATE scope_change SET cursor = ? WHERE id = ?"

HOLD_ADD = "INSERT INTO scope_hold (workspace, change_id) VALUES (?, ?)"
HOLDS = "SELECT workspace FROM scope_hold"
HOLDS_DROP = "DELETE FROM scope_hold WHERE change_id = ?"

MOVE_ADD = (
    "INSERT INTO scope_move (change_id, pid, what, other, merge_id) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (change_id, pid) DO UPDATE SET what = excluded.what, other = excluded.other,"
    " merge_id = excluded.merge_id"
)
#: a profile that lost values is noted once; one that came over stays noted as that
MOVE_LOST = (
    "INSERT INTO scope_move (change_id, pid, what) VALUES (?, ?, 'lost')"
    " ON CONFLICT (change_id, pid) DO NOTHING"
)
MOVE_GET = "SELECT what, other, merge_id FROM scope_move WHERE change_id = ? AND pid = ?"
#: is a profile one person with one that came over in this change?
MOVE_PARTNER = "SELECT pid FROM scope_move WHERE other = ? AND change_id = ? AND what = 'moved'"
#: whose twin is a profile?
MOVE_TWIN = "SELECT pid FROM scope_move WHERE other = ? AND change_id = ? AND what = 'twin'"
MOVES_COUNT = (
    "SELECT what, count(*), count(merge_id) FROM scope_move WHERE change_id = ? GROUP BY what"
)
MOVES_LEFT = (
    "SELECT pid FROM scope_move WHERE change_id = ? AND what = 'left' ORDER BY pid LIMIT 100"
)
MOVES_AFTER = (
    "SELECT pid FROM scope_move WHERE change_id = ? AND what <> 'left' AND pid > ?"
    " ORDER BY pid LIMIT ?"
)

# -- profiles of two pools ----------------------------------------------------------------------

PIDS_AFTER = (
    "SELECT p.pid FROM profile p WHERE p.pid > ? AND (p.pool = ? OR p.pool = ?)"
    " ORDER BY p.pid LIMIT ?"
)
PIDS_COUNT = "SELECT count(*) FROM profile p WHERE p.pool = ? AND (p.flags & 8) = 0"
PID_NEWEST = "SELECT max(p.pid) FROM profile p"
#: who is still found in a pool: reads nothing where nobody is
PIDS_FOUND = (
    "SELECT DISTINCT i.pid FROM identity i WHERE i.slot >= ? AND i.slot < ? AND i.holder >= 0"
    " LIMIT ?"
)
#: values two pools share: one row per pair of holders
SHARED_AFTER = (
    "SELECT a.value, a.pid, b.pid FROM identity a JOIN identity b"
    " ON b.slot = ? AND b.value = a.value AND b.holder >= 0"
    " WHERE a.slot = ? AND a.holder >= 0 AND a.value > ? ORDER BY a.value LIMIT ?"
)

# -- what follows a profile ---------------------------------------------------------------------

ALIASES_FOLLOW = "UPDATE alias SET pool = ? WHERE destination = ?"
MERGES_FOLLOW = "UPDATE merge SET pool = ? WHERE destination = ?"
JOURNAL_FOLLOW = "UPDATE journal SET pool = ? WHERE pool = ? AND workspace = ?"
CONFLICTS_FOLLOW = (
    "UPDATE conflict SET pool = ? WHERE pool = ?"
    " AND input IN (SELECT i.id FROM input i WHERE i.workspace = ?)"
)
PERSON_WORKSPACES = "SELECT pid, workspace FROM person WHERE pid = ?"
PERSONS_PART = "UPDATE person SET pid = ? WHERE pid = ? AND workspace = ?"
BATCHES_PART = "UPDATE batch SET pid = ? WHERE pid = ? AND workspace = ?"
TALLY_PART = "UPDATE tally SET pid = ? WHERE pid = ? AND workspace = ?"

# -- tenancy ------------------------------------------------------------------------------------

WORKSPACE_SCOPE = "UPDATE workspace SET scope = ? WHERE id = ?"
WORKSPACES_IN = "SELECT id, name FROM workspace WHERE scope = ? ORDER BY id"
SCOPE_CONFIG = "SELECT config FROM scope WHERE id = ?"
SCOPE_ADD = "INSERT INTO scope (name, config, changed) VALUES (?, ?, ?) RETURNING id"
