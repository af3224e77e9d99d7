"""Every statement, written once, named and commented. `?` is an argument on every engine."""

from __future__ import annotations

RECORD = "p.pid, p.pool, p.created, p.seen, p.flags, p.source, p.body"

# -- records ------------------------------------------------------------------------------------

PROFILE_BY_PID = f"SELECT {RECORD} FROM profile p WHERE p.pid = ?"

#: the record that holds a value; a second row says that there are more
ONLY = (
    f"SELECT {RECORD} FROM identity i JOIN profile p ON p.pid = i.pid"
    " WHERE i.slot = ? AND i.value = ? AND i.holder >= 0 ORDER BY i.holder LIMIT 2"
)

PROFILES_AFTER = f"SELECT {RECORD} FROM profile p WHERE p.pid > ? ORDER BY p.pid LIMIT ?"

PROFILE_ADD = (
    "INSERT INTO profile (pid, pool, created, seen, flags, source, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)

#: last seen never goes back: a slower process may write an older time
PROFILE_SET = (
    "UPDATE profile SET seen = CASE WHEN seen > ? THEN seen ELSE ? END, flags = ?, body = ?"
    " WHERE pid = ?"
)

PROFILE_ERASE = "UPDATE profile SET flags = ?, source = NULL, body = ? WHERE pid = ?"

POOL_OF = "SELECT p.pool FROM profile p WHERE p.pid = ?"

PROFILE_FLAGS = "UPDATE profile SET flags = ? WHERE pid = ?"

#: a scope was joined with another one, or split
PROFILE_POOL = "UPDATE profile SET pool = ? WHERE pid = ?"

# -- lookup rows --------------------------------------------------------------------------------

IDENTITY_ADD = "INSERT INTO identity (slot, value, holder, pid, seen) VALUES (?, ?, ?, ?, ?)"

IDENTITY_REMOVE = "DELETE FROM identity WHERE slot = ? AND value = ? AND holder = ? AND pid = ?"

#: a unique value moves in one statement, so that it never has two owners or none
IDENTITY_MOVE = (
    "UPDATE identity SET pid = ?, seen = NULL WHERE slot = ? AND value = ? AND holder = 0"
    " AND pid = ?"
)

#: the record starts to compete for a value by last seen (NULL: it stops)
IDENTITY_COMPETE = "UPDATE identity SET seen = ? WHERE slot = ? AND value = ? AND holder = ?"

#: a competing record was seen again
IDENTITY_SEEN = (
    "UPDATE identity SET seen = ? WHERE slot = ? AND value = ? AND holder = ? AND seen < ?"
)

#: mark a value as crowded; pid counts the known people that hold it
CROWD_ADD = (
    "INSERT INTO identity (slot, value, holder, pid, seen) VALUES (?, ?, -1, ?, NULL)"
    " ON CONFLICT (slot, value, holder) DO NOTHING"
)

CROWD_COUNT = "UPDATE identity SET pid = pid + ? WHERE slot = ? AND value = ? AND holder = -1"

#: all holders of one value, for Search `any` and erasure; paged by holder
HOLDERS = (
    f"SELECT i.holder, {RECORD} FROM identity i JOIN profile p ON p.pid = i.pid"
    " WHERE i.slot = ? AND i.value = ? AND i.holder > ? ORDER BY i.holder LIMIT ?"
)

#: of a crowded value: the records that compete for it, latest first
RECENT = (
    f"SELECT i.holder, {RECORD} FROM identity i JOIN profile p ON p.pid = i.pid"
    " WHERE i.slot = ? AND i.value = ? AND i.seen IS NOT NULL"
    " ORDER BY i.seen DESC, i.holder DESC LIMIT 8"
)

# -- last seen, written behind ------------------------------------------------------------------

SEEN_GET = "SELECT at FROM seen WHERE block = ?"
#: read a block for writing; made with these bytes where it is new, locked where it is not
SEEN_TAKE = (
    "INSERT INTO seen (block, at) VALUES (?, ?)"
    " ON CONFLICT (block) DO UPDATE SET at = seen.at RETURNING at"
)
SEEN_PUT = (
    "INSERT INTO seen (block, at) VALUES (?, ?) ON CONFLICT (block) DO UPDATE SET at = excluded.at"
)

# -- ledger -------------------------------------------------------------------------------------

LEDGER_ADD = "INSERT INTO ledger (seq, pid, at, body) VALUES (?, ?, ?, ?)"

#: a person's entries, newest first, before a sequence number
LEDGER_OF = "SELECT seq, at, body FROM ledger WHERE pid = ? AND seq < ? ORDER BY seq DESC LIMIT ?"

LEDGER_BY_SEQ = "SELECT pid, at, body FROM ledger WHERE seq = ?"

LEDGER_REDACT = "UPDATE ledger SET body = ? WHERE seq = ?"

# -- repeats ------------------------------------------------------------------------------------

REPLAY_GET = "SELECT digest, answer FROM replay WHERE input = ? AND request = ?"
REPLAY_PUT = (
    "INSERT INTO replay (input, request, at, digest, answer) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (input, request) DO UPDATE"
    " SET at = excluded.at, digest = excluded.digest, answer = excluded.answer"
)
REPLAY_FORGET = "DELETE FROM replay WHERE at < ?"

# -- jobs ---------------------------------------------------------------------------------------

JOB_ADD = "INSERT INTO job (kind, due, body) VALUES (?, ?, ?)"
#: with the trace of the transaction that promises it
JOB_ADD_TRACED = "INSERT INTO job (kind, due, body, trace) VALUES (?, ?, ?, ?)"

JOB_OF_KIND = "SELECT id FROM job WHERE kind = ? LIMIT 1"

# -- spool --------------------------------------------------------------------------------------

#: a repeat of the same request is accepted without a second effect
SPOOL_ADD = (
    "INSERT INTO spool (at, kind, workspace, input, environment, request, body, reason)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (input, kind, request) WHERE request IS NOT NULL"
    " DO NOTHING"
)

SPOOL_COUNTED = "SELECT kind, count(*) FROM spool GROUP BY kind"
SPOOL_DROP = "DELETE FROM spool WHERE id = ?"
SPOOL_AFTER = (
    "SELECT id, at, kind, workspace, input, environment, body FROM spool"
    " WHERE id > ? AND kind <> 'quarantine' ORDER BY id LIMIT ?"
)
QUARANTINE_AFTER = (
    "SELECT id, at, workspace, input, environment, body, reason FROM spool"
    " WHERE id > ? AND kind = 'quarantine' ORDER BY id LIMIT ?"
)
#: those of one workspace and environment
QUARANTINE_OF = (
    "SELECT id, at, workspace, input, environment, body, reason FROM spool"
    " WHERE id > ? AND kind = 'quarantine' AND workspace = ? AND environment = ?"
    " ORDER BY id LIMIT ?"
)
QUARANTINE_DROP_OF = (
    "DELETE FROM spool WHERE id = ? AND kind = 'quarantine' AND workspace = ? AND environment = ?"
    " RETURNING id"
)
QUARANTINE_LAST = "SELECT max(id) FROM spool WHERE kind = 'quarantine'"
QUARANTINE_DROP = "DELETE FROM spool WHERE id = ? AND kind = 'quarantine'"
QUARANTINE_FORGET = "DELETE FROM spool WHERE kind = 'quarantine' AND at < ?"

# -- aliases ------------------------------------------------------------------------------------

ALIAS_ADD = (
    "INSERT INTO alias (pool, source, destination, start_ms, end_ms, scope, stamp, at, effective,"
    " input, request, outcome, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
ALIASES_TOUCHING = (
    "SELECT source, destination, start_ms, end_ms, scope, stamp FROM alias"
    " WHERE outcome = 'applied' AND (source IN (?, ?) OR destination IN (?, ?)) ORDER BY id"
)

# -- diagnostics and conflicts ------------------------------------------------------------------

DIAGNOSTIC_ADD = (
    "INSERT INTO diagnostic (at, kind, workspace, input, request, detail) VALUES (?, ?, ?, ?, ?, ?)"
)
DIAGNOSTICS_LATEST = (
    "SELECT id, at, kind, workspace, input, request, detail FROM diagnostic"
    " WHERE id > ? AND (? = '' OR kind = ?) ORDER BY id DESC LIMIT ?"
)
#: of one workspace, in order after a number
DIAGNOSTICS_OF = (
    "SELECT id, at, kind, workspace, input, request, detail FROM diagnostic"
    " WHERE id > ? AND workspace = ? AND (? = '' OR kind = ?) ORDER BY id LIMIT ?"
)
DIAGNOSTICS_LAST_OF = (
    "SELECT id, at, kind, workspace, input, request, detail FROM diagnostic"
    " WHERE workspace = ? AND (? = '' OR kind = ?) ORDER BY id DESC LIMIT ?"
)
DIAGNOSTICS_FORGET = "DELETE FROM diagnostic WHERE at < ?"
CONFLICTS = (
    "SELECT id, at, pool, input, request, body FROM conflict WHERE id > ? ORDER BY id LIMIT ?"
)
CONFLICT_DROP = "DELETE FROM conflict WHERE id = ?"
#: of the same people and values, however often the row came
CONFLICT_DECIDED = (
    "DELETE FROM conflict WHERE id = ? OR body = (SELECT c.body FROM conflict c WHERE c.id = ?)"
)
CONFLICT_ADD = (
    "INSERT INTO conflict (at, pool, input, request, body, mark) VALUES (?, ?, ?, ?, ?, ?)"
)

# -- audit --------------------------------------------------------------------------------------

AUDIT_ADD = "INSERT INTO audit (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)"

# -- meta ---------------------------------------------------------------------------------------

META_GET = "SELECT value FROM meta WHERE name = ?"
#: the value, which nobody else changes until the transaction ends
META_HOLD = "UPDATE meta SET value = value WHERE name = ? RETURNING value"
META_PUT = (
    "INSERT INTO meta (name, value) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
#: the first process to start wins; everybody reads back what was written
META_ONCE = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"

#: jobs of a kind that are due and nobody works on, oldest first
JOBS_DUE = (
    "SELECT id, kind, tries, body, trace FROM job WHERE kind = ? AND due <= ? AND taken_until <= ?"
    " AND tries < ? ORDER BY id LIMIT ?"
)
#: taken by the first who still finds it free
JOB_TAKE = "UPDATE job SET taken_until = ?, tries = tries + 1 WHERE id = ? AND taken_until <= ?"
JOB_TAKEN = "SELECT id FROM job WHERE id = ? AND taken_until = ?"
#: only whoever still holds a job may hold it longer or let go of it
JOB_KEEP = "UPDATE job SET taken_until = ? WHERE id = ? AND taken_until = ?"
JOB_DONE = "DELETE FROM job WHERE id = ?"
JOB_FAILED = "UPDATE job SET taken_until = ?, error = ? WHERE id = ? AND taken_until = ?"
#: jobs by kind: all, held by someone, given up, and since when the oldest open one is due
JOBS_COUNTED = (
    "SELECT kind, count(*), sum(CASE WHEN taken_until > ? AND tries > 0 AND error IS NULL"
    " THEN 1 ELSE 0 END), sum(CASE WHEN tries >= ? AND taken_until <= ? THEN 1 ELSE 0 END),"
    " min(CASE WHEN tries < ? THEN due END) FROM job GROUP BY kind ORDER BY kind"
)
#: what was tried so often, and failed or died, that nobody tries it any more
JOBS_GIVEN_UP = (
    "SELECT id, kind, due, tries, error FROM job WHERE tries >= ? AND taken_until <= ?"
    " ORDER BY id LIMIT ?"
)
JOB_AGAIN = (
    "UPDATE job SET tries = 0, taken_until = 0, error = NULL"
    " WHERE id = ? AND tries >= ? AND taken_until <= ?"
)
