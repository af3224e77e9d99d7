"""Statements of the review: values held back, and rows of feeds that belong to two people."""

from __future__ import annotations

HELD_ADD = (
    "INSERT INTO held (digest, pool, pid, code, reason, op, key_only, workspace, input, request,"
    " first, last, count, body, taken) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET last = excluded.last, body = excluded.body,"
    " pool = excluded.pool, count = held.count + excluded.count"
)
HELD = (
    "h.id, h.pool, h.pid, h.code, h.reason, h.op, h.key_only, h.input, h.request, h.first, h.last,"
    " h.count, h.body, h.workspace"
)
HELD_WAITING = (
    f"SELECT {HELD} FROM held h WHERE h.id > ? AND h.pool >= ? AND h.pool <= ?"
    " AND h.refused IS NULL ORDER BY h.id LIMIT ?"
)
HELD_BY_ID = f"SELECT {HELD} FROM held h WHERE h.id = ? AND h.refused IS NULL"
HELD_AFTER = "SELECT id, pool, pid, code, body FROM held WHERE id > ? ORDER BY id LIMIT ?"
#: whoever decides takes the entry for a while; nobody else decides meanwhile
HELD_TAKE = "UPDATE held SET taken = ? WHERE id = ? AND refused IS NULL AND taken <= ? RETURNING id"
HELD_LEAVE = "UPDATE held SET taken = 0 WHERE id = ? AND taken = ?"
HELD_REFUSE = "UPDATE held SET refused = ?, refused_by = ?, refused_why = ? WHERE id = ?"
HELD_DROP = "DELETE FROM held WHERE id = ?"
HELD_ERASE = "DELETE FROM held WHERE pid = ?"
HELD_FORGET = "DELETE FROM held WHERE last < ?"
#: all but the newest so many
HELD_TRIM = (
    "DELETE FROM held WHERE id IN (SELECT h.id FROM held h ORDER BY h.last DESC LIMIT ? OFFSET ?)"
)
HELD_FOLLOW = "UPDATE held SET pool = ? WHERE pool = ? AND workspace = ?"
HELD_COUNTED = "SELECT count(*) FROM held h WHERE h.refused IS NULL"

#: the first of the same people and values, unless it was refused
_WAITING = (
    "c.refused IS NULL AND NOT EXISTS (SELECT 1 FROM conflict d WHERE d.mark = c.mark"
    " AND (d.refused IS NOT NULL OR d.id < c.id))"
)
_CONFLICT = "c.id, c.at, c.pool, c.input, c.request, c.body"
CONFLICTS_WAITING = (
    f"SELECT {_CONFLICT} FROM conflict c WHERE c.id > ? AND c.pool >= ?"
    f" AND c.pool <= ? AND {_WAITING} ORDER BY c.id LIMIT ?"
)
CONFLICT_WAITING = f"SELECT {_CONFLICT} FROM conflict c WHERE c.id = ? AND c.refused IS NULL"
CONFLICTS_COUNTED = f"SELECT count(*) FROM conflict c WHERE {_WAITING}"
CONFLICT_TAKE = (
    "UPDATE conflict SET taken = ? WHERE id = ? AND refused IS NULL"
    " AND (taken IS NULL OR taken <= ?) RETURNING id"
)
CONFLICT_LEAVE = "UPDATE conflict SET taken = NULL WHERE id = ? AND taken = ?"
CONFLICT_REFUSE = (
    "UPDATE conflict SET refused = ?, refused_by = ?, refused_why = ?, mark = ? WHERE id = ?"
)
#: rows that came again after they were refused
CONFLICTS_AGAIN = (
    "DELETE FROM conflict WHERE refused IS NULL"
    " AND mark IN (SELECT d.mark FROM conflict d WHERE d.refused IS NOT NULL)"
)
