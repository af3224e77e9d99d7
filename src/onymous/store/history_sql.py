"""Statements of history: batches, profiles, what counts."""

from __future__ import annotations

# -- accepted before ----------------------------------------------------------------------------

ONCE_GET = "SELECT at FROM once WHERE input = ? AND digest = ?"
ONCE_ADD = "INSERT INTO once (input, digest, at) VALUES (?, ?, ?)"
#: forgetting walks the table in pieces: digests are evenly spread
ONCE_FORGET = "DELETE FROM once WHERE input = ? AND digest >= ? AND digest < ? AND at < ?"

# -- batches ------------------------------------------------------------------------------------

BATCH_ADD = (
    "INSERT INTO batch (pid, at, span, late, received, workspace, input, device, dictionary, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
BATCH = "b.id, b.pid, b.at, b.span, b.received, b.workspace, b.input, b.device, b.dictionary"
#: a person's batches, newest first, before (time, number), of one time window
BATCHES_OF = (
    f"SELECT {BATCH}, b.body FROM batch b WHERE b.pid = ? AND b.at <= ? AND b.at >= ?"
    " AND (b.at < ? OR b.id < ?) ORDER BY b.at DESC, b.id DESC LIMIT ?"
)
BATCH_BY_ID = f"SELECT {BATCH}, b.body FROM batch b WHERE b.id = ?"
BATCHES_ERASE = "DELETE FROM batch WHERE pid = ?"
#: all batches in the order they came, for exports
BATCHES_AFTER = f"SELECT {BATCH}, b.body FROM batch b WHERE b.id > ? ORDER BY b.id LIMIT ?"
#: retention, in pieces
BATCHES_OLD = (
    "DELETE FROM batch WHERE id IN"
    " (SELECT b.id FROM batch b WHERE b.received < ? ORDER BY b.id LIMIT ?)"
)

BATCHES_ANY_OLD = "SELECT b.id FROM batch b WHERE b.received < ? LIMIT 1"
BATCH_NEWEST = "SELECT max(id) FROM batch"
#: waits for batches under way, where several transactions write at once: no number below the newest
#: one can appear any more
BATCHES_HOLD = {"postgresql": "LOCK TABLE batch IN SHARE MODE"}

DICTIONARY_GET = "SELECT body FROM dictionary WHERE id = ?"
DICTIONARY_LATEST = "SELECT id, body FROM dictionary ORDER BY id DESC LIMIT 1"
DICTIONARY_ADD = (
    "INSERT INTO dictionary (id, at, body) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
)

# -- profiles -----------------------------------------------------------------------------------

PERSON_GET = "SELECT body FROM person WHERE pid = ? AND workspace = ?"
PERSON_PUT = (
    "INSERT INTO person (pid, workspace, stored, body) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (pid, workspace) DO UPDATE SET stored = excluded.stored, body = excluded.body"
)
#: of somebody just made
PERSON_NEW = "INSERT INTO person (pid, workspace, stored, body) VALUES (?, ?, ?, ?)"
PERSONS_OF = "SELECT workspace, stored, body FROM person WHERE pid = ? ORDER BY workspace"
#: all of a profile that is neither merged nor aliased, in one round: rows of 0 its record, 1 what
#: a workspace knows; any other row says that more has to be read
PERSON_PLAIN = (
    "SELECT 0, pid, pool, created, seen, flags, source, body FROM profile WHERE pid = ?"
    " UNION ALL SELECT 1, workspace, stored, 0, 0, 0, NULL, body FROM person WHERE pid = ?"
    " UNION ALL SELECT 2, id, 0, 0, 0, 0, NULL, NULL FROM merge"
    " WHERE source = ? AND undone IS NULL"
    " UNION ALL SELECT 3, id, 0, 0, 0, 0, NULL, NULL FROM merge"
    " WHERE destination = ? AND undone IS NULL"
    " UNION ALL SELECT 4, id, 0, 0, 0, 0, NULL, NULL FROM alias"
    " WHERE destination = ? AND outcome = 'applied'"
)
PERSONS_ERASE = "DELETE FROM person WHERE pid = ?"

# -- what counts --------------------------------------------------------------------------------

TALLY_ADD = (
    "INSERT INTO tally (pid, at, workspace, platform, device, worth, sessions)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pid, at, workspace, platform, device)"
    " DO UPDATE SET worth = tally.worth + excluded.worth,"
    " sessions = tally.sessions + excluded.sessions"
)
#: of one person in a window; device 0 stands for all devices (the cast: PostgreSQL takes what is
#: compared with 0 for 32 bits)
TALLY_SUM = (
    "SELECT workspace, platform, CAST(sum(worth) AS BIGINT), CAST(sum(sessions) AS BIGINT)"
    " FROM tally"
    " WHERE pid = ? AND at >= ? AND at <= ? AND (device = ? OR CAST(? AS BIGINT) = 0)"
    " GROUP BY workspace, platform ORDER BY workspace, platform"
)
TALLY_ERASE = "DELETE FROM tally WHERE pid = ?"

# -- aliases in force ---------------------------------------------------------------------------

#: an alias joins nobody across scopes: both ends must be in its pool
ALIASES_INTO = (
    "SELECT a.id, a.source, a.start_ms, a.end_ms, a.scope, a.stamp, a.at FROM alias a"
    " JOIN profile p ON p.pid = a.source AND p.pool = a.pool"
    " WHERE a.destination = ? AND a.outcome = 'applied' AND a.effective <= ? ORDER BY a.id"
)
ALIASES_OUT = (
    "SELECT a.id, a.destination, a.start_ms, a.end_ms, a.scope, a.stamp, a.at FROM alias a"
    " JOIN profile p ON p.pid = a.source AND p.pool = a.pool"
    " WHERE a.source = ? AND a.outcome = 'applied' ORDER BY a.id"
)
ALIAS_BY_ID = (
    "SELECT id, pool, source, destination, start_ms, end_ms, scope, stamp, at, outcome, reason"
    " FROM alias WHERE id = ?"
)
ALIAS_LATEST = "SELECT max(id) FROM alias WHERE source = ? AND destination = ?"
ALIAS_SET = "UPDATE alias SET outcome = ?, reason = ? WHERE id = ? AND outcome = ?"
ALIASES_ERASE = "DELETE FROM alias WHERE source = ? OR destination = ?"
COPY_ADD = "INSERT INTO alias_copy (alias, workspace, body) VALUES (?, ?, ?)"
COPIES_OF = "SELECT workspace, body FROM alias_copy WHERE alias = ?"
#: what other aliases copied into the same profile
COPIES_INTO = (
    "SELECT c.alias, c.workspace, c.body FROM alias_copy c JOIN alias a ON a.id = c.alias"
    " WHERE a.destination = ? AND c.alias <> ? ORDER BY c.alias, c.workspace"
)
COPY_SET = "UPDATE alias_copy SET body = ? WHERE alias = ? AND workspace = ?"
#: aliases that copied something from a profile, and where to
COPIED_FROM = (
    "SELECT DISTINCT a.id, a.destination FROM alias a JOIN alias_copy c ON c.alias = a.id"
    " WHERE a.source = ? ORDER BY a.id"
)
COPIES_ERASE = (
    "DELETE FROM alias_copy WHERE alias IN"
    " (SELECT id FROM alias WHERE source = ? OR destination = ?)"
)
COPIES_DROP = "DELETE FROM alias_copy WHERE alias = ?"

# -- merges -------------------------------------------------------------------------------------

MERGE_ADD = (
    "INSERT INTO merge (pool, source, destination, at, actor, reason) VALUES (?, ?, ?, ?, ?, ?)"
)
MERGE = "id, pool, source, destination, at, actor, reason, undone"
MERGES = "SELECT id, source, destination FROM merge WHERE undone IS NULL ORDER BY id"
MERGE_BY_ID = f"SELECT {MERGE} FROM merge WHERE id = ?"
MERGE_OF = f"SELECT {MERGE} FROM merge WHERE source = ? AND undone IS NULL"
MERGES_INTO = f"SELECT {MERGE} FROM merge WHERE destination = ? AND undone IS NULL ORDER BY id"
MERGE_UNDO = (
    "UPDATE merge SET undone = ?, undone_by = ?, undone_reason = ? WHERE id = ? AND undone IS NULL"
)
MERGES_ERASE = "DELETE FROM merge WHERE source = ? OR destination = ?"

# -- the feed of changes ------------------------------------------------------------------------

#: who appends holds this row: the order of numbers is the order of commits
FEED_START = (
    "INSERT INTO meta (name, value) VALUES ('change_feed', ?) ON CONFLICT (name) DO NOTHING"
)
FEED_LOCK = "UPDATE meta SET value = value WHERE name = 'change_feed' RETURNING value"
FEED_SET = "UPDATE meta SET value = ? WHERE name = 'change_feed'"
CHANGE_KNOWN = "SELECT id FROM change WHERE ledger = ?"
CHANGE_SOURCE = (
    "SELECT l.seq, l.pid, l.at, p.pool, l.body FROM ledger l JOIN profile p ON p.pid = l.pid"
    " WHERE l.seq = ?"
)
CHANGE_ADD = "INSERT INTO change (id, ledger, pool, pid, at) VALUES (?, ?, ?, ?, ?)"
CHANGES_AFTER = (
    "SELECT c.id, c.pid, c.at, l.seq, l.body FROM change c JOIN ledger l ON l.seq = c.ledger"
    " WHERE c.pool = ? AND c.id > ? ORDER BY c.id LIMIT ?"
)
CHANGES_NEWEST = "SELECT max(id) FROM change WHERE pool = ?"
CHANGES_LAST_BEFORE = "SELECT max(id) FROM change WHERE at < ?"
CHANGES_FORGET = "DELETE FROM change WHERE at < ?"
#: the same, readable, where a setting asks for it
FEED_ADD = (
    "INSERT INTO change_feed (seq, at_ms, environment, scope, workspace, input, operation, mpid,"
    " request_id, changes, pid) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (seq) DO NOTHING"
)
#: of all pools
CHANGES_FROM = (
    "SELECT c.id, c.pool, c.pid, c.at, l.seq, l.body FROM change c JOIN ledger l"
    " ON l.seq = c.ledger WHERE c.id > ? ORDER BY c.id LIMIT ?"
)
FEED_FORGET = "DELETE FROM change_feed WHERE at_ms < ?"
#: what an erased person was called goes, that something happened stays
FEED_REDACT = (
    "UPDATE change_feed SET changes = '[]', request_id = NULL"
    " WHERE pid = ? AND operation <> 'erase'"
)

# -- the journal of requests --------------------------------------------------------------------

JOURNAL_ADD = (
    "INSERT INTO journal (digest, pool, op, workspace, input, first, last, count, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE"
    " SET last = excluded.last, count = journal.count + excluded.count, body = excluded.body"
)
#: of somebody just made
JOURNAL_NEW = (
    "INSERT INTO journal (digest, pool, op, workspace, input, first, last, count, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
JOURNAL = "id, pool, op, workspace, input, first, last, count, body"
JOURNAL_AFTER = f"SELECT {JOURNAL} FROM journal WHERE id > ? ORDER BY id LIMIT ?"
JOURNAL_TIMES = (
    "SELECT id, first, last, count FROM journal WHERE id > ? AND pool = ? AND last >= ?"
    " ORDER BY id LIMIT ?"
)
#: how many requests a replay asks: who came again is asked for twice
JOURNAL_SIZE = (
    "SELECT coalesce(sum(CASE WHEN count > 1 THEN 2 ELSE 1 END), 0) FROM journal"
    " WHERE pool = ? AND last >= ?"
)
JOURNAL_BY_ID = f"SELECT {JOURNAL} FROM journal WHERE id = ?"
JOURNAL_NUMBER = "SELECT id FROM journal WHERE digest = ?"
JOURNAL_DROP = "DELETE FROM journal WHERE id = ?"
JOURNAL_FORGET = "DELETE FROM journal WHERE last < ?"
REPLAY_OF = "SELECT input, at, answer FROM replay WHERE request = ? ORDER BY at DESC LIMIT ?"

#: which request of the journal a request id stood for, and whom it found
ASKED_ADD = "INSERT INTO asked (request, journal, at, pid) VALUES (?, ?, ?, ?)"
ASKED = "SELECT journal, at, pid FROM asked WHERE request = ? ORDER BY id DESC LIMIT ?"
#: in pieces, oldest first: what is too old, and what is too much
ASKED_FORGET = (
    "DELETE FROM asked WHERE id IN (SELECT a.id FROM asked a ORDER BY a.id LIMIT ?) AND at < ?"
)
ASKED_TRIM = (
    "DELETE FROM asked WHERE id IN (SELECT a.id FROM asked a ORDER BY a.id LIMIT ?)"
    " AND id <= (SELECT max(b.id) FROM asked b) - ?"
)
