"""Statements of changes of rules applied to history."""

from __future__ import annotations

CHANGE_ADD = (
    "INSERT INTO rule_change (at, scope, actor, reason, was, became, scope_change)"
    " SELECT ?, ?, ?, ?, ?, ?, coalesce(max(s.id), 0) FROM scope_change s RETURNING id"
)
CHANGE = "id, at, scope, actor, reason, was, became, undone, undone_by"
CHANGES = f"SELECT {CHANGE} FROM rule_change ORDER BY id DESC LIMIT ?"
CHANGE_BY_ID = f"SELECT {CHANGE} FROM rule_change WHERE id = ?"
#: the newest change of a scope that stands
CHANGE_STANDING = "SELECT max(id) FROM rule_change WHERE scope = ? AND undone IS NULL"
#: joins and splits that touched the scope of a change of rules since; those made before it was
#: noted which came last are told by their time
SCOPES_SINCE = (
    "SELECT s.id, s.undoes, s.state FROM scope_change s, rule_change r WHERE r.id = ?"
    " AND (s.source = r.scope OR s.target = r.scope)"
    " AND (s.id > r.scope_change OR (r.scope_change IS NULL AND s.at >= r.at)) ORDER BY s.id"
)
#: when a scope's rules were applied to history last, or taken back
CHANGE_LAST = "SELECT max(at), max(undone) FROM rule_change WHERE scope = ?"
CHANGE_UNDONE = "UPDATE rule_change SET undone = ?, undone_by = ? WHERE id = ?"

STEP_ADD = (
    "INSERT INTO rule_step (change, part, pid, destination, flags, was, became)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
#: parts last carried out first: a later round may have gone on with what an earlier one made
STEPS_BEFORE = (
    "SELECT part, pid, destination, flags, was, became FROM rule_step"
    " WHERE change = ? AND part > 0 AND part < ? ORDER BY part DESC, pid LIMIT ?"
)
STEPS_OF = (
    "SELECT part, pid, destination, flags, was, became FROM rule_step"
    " WHERE change = ? AND part = ? ORDER BY pid"
)
#: parts of records that more rounds than one concern
STEPS_AGAIN = (
    "SELECT s.part, s.pid FROM rule_step s JOIN (SELECT change, pid FROM rule_step"
    " WHERE change = ? AND part > 0 AND part < ? GROUP BY change, pid HAVING count(*) > 1) r"
    " ON r.pid = s.pid AND r.change = s.change WHERE s.part > 0 ORDER BY s.pid, s.part"
)
LAST_PART = "SELECT max(part) FROM rule_step WHERE change = ?"
STEP_FLAGS = "SELECT pid, flags FROM rule_step WHERE change = ? AND part = 0 ORDER BY pid"
#: whose part of a change an erased person was in cannot be undone: it names their values
STEPS_ERASE = (
    "DELETE FROM rule_step WHERE part > 0 AND (change, part) IN"
    " (SELECT s.change, s.part FROM rule_step s WHERE s.pid = ?)"
)

#: unique values stand under holder 0, others under their record
UNIQUE_OFF = "UPDATE identity SET holder = pid WHERE slot = ? AND holder = 0"
UNIQUE_ON = "UPDATE identity SET holder = 0, seen = NULL WHERE slot = ? AND holder > 0"
CROWDS_OFF = "DELETE FROM identity WHERE slot = ? AND holder = -1"
CROWDS = (
    "SELECT slot, value FROM identity WHERE holder = -1 AND slot >= ? AND slot < ?"
    " ORDER BY slot, value"
)
CROWD_SET = "UPDATE identity SET pid = ? WHERE slot = ? AND value = ? AND holder = -1"
#: values of a type on more records than one
SHARED = (
    "SELECT value FROM identity WHERE slot = ? AND holder > 0 GROUP BY value"
    " HAVING count(*) > ? ORDER BY value"
)
FLAGS = "UPDATE profile SET flags = (flags | ?) & ? WHERE pid = ?"
POOL_AFTER = (
    "SELECT p.pid, p.pool, p.created, p.seen, p.flags, p.source, p.body FROM profile p"
    " WHERE p.pid > ? AND p.pool = ? ORDER BY p.pid LIMIT ?"
)

# -- undoings asked of a server -----------------------------------------------------------------

UNDO_ADD = (
    "INSERT INTO rule_undo (change, at, actor, reason, keep_later, state)"
    " VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
)
UNDO = "id, change, at, actor, reason, keep_later, state, ended, told"
UNDO_BY_ID = f"SELECT {UNDO} FROM rule_undo WHERE id = ?"
#: what was asked last of a change
UNDO_LAST = f"SELECT {UNDO} FROM rule_undo WHERE change = ? ORDER BY id DESC LIMIT 1"
#: by the first who ends it
UNDO_END = "UPDATE rule_undo SET state = ?, ended = ?, told = ? WHERE id = ? AND state = ?"
#: whether somebody will do it: its job is not given up
UNDO_JOB = (
    "SELECT id FROM job WHERE kind = ? AND body = ? AND (tries < ? OR taken_until > ?) LIMIT 1"
)

# -- keys of plans that are kept: `plan_key`, when it was made (15 digits), the pool ------------

_PLANS = "meta WHERE name > 'plan_key ' AND name < 'plan_key!'"
PLAN_KEYS = (
    f"SELECT name, value FROM {_PLANS} AND substr(name, 26) = ? AND substr(name, 10, 15) >= ?"
)
PLAN_KEYS_OF_DROP = f"DELETE FROM {_PLANS} AND substr(name, 26) = ?"
#: whoever is erased is in them, or the rules are not those they were made for
PLAN_KEYS_DROP = f"DELETE FROM {_PLANS}"
PLAN_KEYS_OLD = f"DELETE FROM {_PLANS} AND substr(name, 10, 15) < ?"
