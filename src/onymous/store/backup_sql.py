"""Statements of backups, epochs and verification."""

from __future__ import annotations

# -- facts about a database ---------------------------------------------------------------------

META_DROP = "DELETE FROM meta WHERE name = ?"
PIDS_NEWEST = "SELECT max(pid) FROM profile"
LEDGER_NEWEST = "SELECT max(seq) FROM ledger"
PROFILES_COUNT = "SELECT count(*) FROM profile"
LEDGER_LATEST = "SELECT at FROM ledger ORDER BY seq DESC LIMIT 1"

#: the number a sequence gives next, by engine
NEXT: dict[str, dict[str, str]] = {
    "sqlite": {
        name: f"SELECT next FROM counter WHERE name = '{name}'" for name in ("pid", "ledger")
    },
    "postgresql": {
        name: f"SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM {name}_seq"
        for name in ("pid", "ledger")
    },
}

# -- what must be remembered outside ------------------------------------------------------------

#: erased profiles after a number, in order
ERASED_AFTER = (
    "SELECT p.pid, p.pool, p.seen FROM profile p WHERE (p.flags & 8) <> 0 AND p.pid > ?"
    " ORDER BY p.pid LIMIT ?"
)
IS_ERASED = "SELECT (p.flags & 8) <> 0, p.pool FROM profile p WHERE p.pid = ?"
#: secrets are told apart by their number and the time they were made
STILL_LIVE = "SELECT id FROM secret WHERE id = ? AND created = ? AND revoked IS NULL"
SCOPE_CONFIG = "SELECT config FROM scope WHERE id = ?"
#: types of a record that are unique, as its lookup rows say
UNIQUE_ROWS = "SELECT 1 FROM identity WHERE slot = ? AND value = ? AND holder = 0 AND pid = ?"

JOBS_OF_KIND = "SELECT body FROM job WHERE kind = ?"

# -- verification -------------------------------------------------------------------------------

LEDGER_WHOLE = "SELECT seq, at, body FROM ledger WHERE pid = ? ORDER BY seq"
LOOKUP_OF = "SELECT pid FROM identity WHERE slot = ? AND value = ? AND holder IN (0, ?) AND pid = ?"
LOOKUPS_AFTER = (
    "SELECT slot, value, holder, pid FROM identity WHERE (slot, value, holder) > (?, ?, ?)"
    " ORDER BY slot, value, holder LIMIT ?"
)
SCOPES = "SELECT id, config FROM scope ORDER BY id"
CLAIMS = "SELECT count(*) FROM claim"
JOBS_GIVEN_UP = "SELECT kind, error, count(*) FROM job WHERE tries >= ? GROUP BY kind, error"
#: jobs that were given up are tried again
JOBS_RETRY = "UPDATE job SET tries = 0, taken_until = 0 WHERE tries >= ?"
JOBS_OVERDUE = "SELECT count(*), min(due) FROM job WHERE due < ? AND tries < ?"
PERSONS_AFTER = (
    "SELECT pid, workspace, body FROM person WHERE (pid, workspace) > (?, ?)"
    " ORDER BY pid, workspace LIMIT ?"
)
_NOBODY = "NOT EXISTS (SELECT 1 FROM profile p WHERE p.pid = x.{0})"
_ERASED = "EXISTS (SELECT 1 FROM profile p WHERE p.pid = x.pid AND (p.flags & 8) <> 0)"
#: what must find nothing: (what it would mean, count)
NOTHING: tuple[tuple[str, str], ...] = (
    (
        "ledger entries of profiles that do not exist",
        f"SELECT count(*) FROM ledger x WHERE {_NOBODY.format('pid')}",
    ),
    (
        "attributes of profiles that do not exist",
        f"SELECT count(*) FROM person x WHERE {_NOBODY.format('pid')}",
    ),
    (
        "batches of profiles that do not exist",
        f"SELECT count(*) FROM batch x WHERE {_NOBODY.format('pid')}",
    ),
    (
        "sums of profiles that do not exist",
        f"SELECT count(*) FROM tally x WHERE {_NOBODY.format('pid')}",
    ),
    (
        "aliases from profiles that do not exist",
        f"SELECT count(*) FROM alias x WHERE x.outcome = 'applied' AND {_NOBODY.format('source')}",
    ),
    (
        "aliases to profiles that do not exist",
        f"SELECT count(*) FROM alias x WHERE x.outcome = 'applied'"
        f" AND {_NOBODY.format('destination')}",
    ),
    (
        "merges of profiles that do not exist",
        f"SELECT count(*) FROM merge x WHERE {_NOBODY.format('source')}"
        f" OR {_NOBODY.format('destination')}",
    ),
    ("attributes of erased people", f"SELECT count(*) FROM person x WHERE {_ERASED}"),
    ("batches of erased people", f"SELECT count(*) FROM batch x WHERE {_ERASED}"),
    ("sums of erased people", f"SELECT count(*) FROM tally x WHERE {_ERASED}"),
    (
        "entries of the change feed that point to no ledger entry",
        "SELECT count(*) FROM change x"
        " WHERE NOT EXISTS (SELECT 1 FROM ledger l WHERE l.seq = x.ledger)",
    ),
    (
        "profiles that stand for two others at once",
        "SELECT count(*) FROM (SELECT source FROM merge WHERE undone IS NULL"
        " GROUP BY source HAVING count(*) > 1) t",
    ),
)
SEALED_ALL = "SELECT id, input, sealed FROM secret WHERE revoked IS NULL ORDER BY id"
KEYS_SEALED = "SELECT kid, sealed FROM signing_key ORDER BY kid"
SEALED_SET = "UPDATE secret SET sealed = ? WHERE id = ?"
KEY_SEALED_SET = "UPDATE signing_key SET sealed = ? WHERE kid = ?"
#: is anything sealed with the master key?
SEALED_ANY = (
    "SELECT 1 FROM secret WHERE revoked IS NULL UNION SELECT 1 FROM signing_key"
    " UNION SELECT 1 FROM meta WHERE name = 'console_key'"
)
