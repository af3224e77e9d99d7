"""Statements of the console: who signs in, what a page shows, what was looked at."""

from __future__ import annotations

from onymous.store.history_sql import BATCH

# -- people who sign in -------------------------------------------------------------------------

USER = "id, name, role, scopes, password, generation, created"
USERS = f"SELECT {USER} FROM console_user ORDER BY name"
USER_BY_NAME = f"SELECT {USER} FROM console_user WHERE name = ?"
USER_BY_ID = f"SELECT {USER} FROM console_user WHERE id = ?"
USER_ADD = (
    "INSERT INTO console_user (name, role, scopes, password, generation, created)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
USER_DROP = "DELETE FROM console_user WHERE id = ?"
#: a new password ends every session, and a link that was not used
USER_CHANGE = (
    "UPDATE console_user SET password = ?, generation = generation + 1, link = NULL WHERE id = ?"
)
USER_OUT = "UPDATE console_user SET generation = generation + 1 WHERE id = ?"
LINK_SET = "UPDATE console_user SET link = ?, link_until = ? WHERE id = ?"
#: whoever comes first uses the link up
LINK_USE = (
    f"UPDATE console_user SET link = NULL WHERE link = ? AND link_until >= ? RETURNING {USER}"
)

# -- a person's timeline ------------------------------------------------------------------------

#: entries of one person before (time, number), newest first
LEDGER_UNTIL = (
    "SELECT seq, at, body FROM ledger WHERE pid = ? AND (at < ? OR (at = ? AND seq < ?))"
    " ORDER BY at DESC, seq DESC LIMIT ?"
)

# -- aliases and merges, whatever became of them ------------------------------------------------

ALIASES_TOUCHING = (
    "SELECT id, source, destination, start_ms, end_ms, scope, at, effective, outcome, reason"
    " FROM alias WHERE pool = ? AND (source = ? OR destination = ?) ORDER BY id DESC LIMIT 100"
)
MERGES_TOUCHING = (
    "SELECT id, source, destination, at, actor, reason, undone, undone_by, undone_reason"
    " FROM merge WHERE pool = ? AND (source = ? OR destination = ?) ORDER BY id DESC LIMIT 100"
)

# -- what arrives -------------------------------------------------------------------------------

CHANGES_LATEST = (
    "SELECT c.id, c.pid, c.at, l.seq, l.body FROM change c JOIN ledger l ON l.seq = c.ledger"
    " WHERE c.pool = ? AND c.id > ? ORDER BY c.id DESC LIMIT ?"
)
#: numbers are given before commits: a reader looks a little back
BATCHES_LATEST = (
    f"SELECT {BATCH}, b.body FROM batch b JOIN profile p ON p.pid = b.pid"
    " WHERE b.id > ? AND p.pool = ? ORDER BY b.id DESC LIMIT ?"
)
#: the same of one person: what is new is walked, not all of theirs (the plus keeps engines from it)
CHANGES_LATEST_OF = (
    "SELECT c.id, c.pid, c.at, l.seq, l.body FROM change c JOIN ledger l ON l.seq = c.ledger"
    " WHERE c.pool = ? AND c.id > ? AND +c.pid = ? ORDER BY c.id DESC LIMIT ?"
)
BATCHES_LATEST_OF = (
    f"SELECT {BATCH}, b.body FROM batch b WHERE b.id > ? AND +b.pid = ? ORDER BY b.id DESC LIMIT ?"
)

# -- audit --------------------------------------------------------------------------------------

AUDITS = (
    "SELECT id, at, actor, action, subject, detail FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?"
)
AUDITS_OF = (
    "SELECT id, at, actor, action, subject, detail FROM audit WHERE subject = ? AND id < ?"
    " ORDER BY id DESC LIMIT ?"
)

# -- what an undo would take away ---------------------------------------------------------------

BATCHES_WITHIN = "SELECT count(*) FROM batch WHERE pid = ? AND at >= ? AND at <= ?"
WORTH_WITHIN = "SELECT CAST(sum(worth) AS BIGINT) FROM tally WHERE pid = ? AND at >= ? AND at <= ?"
