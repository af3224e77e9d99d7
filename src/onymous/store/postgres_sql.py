"""Statements only PostgreSQL and engines that speak its protocol are asked."""

from __future__ import annotations

CLAIM = (
    "INSERT INTO claim (slot, value) SELECT w.slot, w.value"
    " FROM unnest($1::bigint[], $2::text[]) AS w(slot, value) ORDER BY 1, 2"
    " ON CONFLICT (slot, value) DO NOTHING RETURNING slot, value"
)
#: the same where it is enough to know how many: of thousands all are had, nearly always
CLAIM_MANY = CLAIM.removesuffix(" RETURNING slot, value")
UNCLAIM = (
    "DELETE FROM claim c USING unnest($1::bigint[], $2::text[]) AS w(slot, value)"
    " WHERE c.slot = w.slot AND c.value = w.value"
)
#: all claims a transaction sees are its own, or nobody's: a few too many may go. Written so that it
#: looks each one up: joined with a list, the planner walks that list for every row of a table it
#: believes to be empty, as it does once `claim` was vacuumed between two transactions
RELEASE = "DELETE FROM claim WHERE slot = ANY($1::bigint[]) AND value = ANY($2::text[])"
#: so many claims are released by one statement, more by one for each slot
FEW_CLAIMS = 256
RECORDS = (
    "SELECT p.pid, p.pool, p.created, p.seen, p.flags, p.source, p.body"
    " FROM profile p WHERE p.pid = ANY($1::bigint[])"
)
LOCK = RECORDS + " ORDER BY p.pid FOR UPDATE"
HELD = (
    "SELECT w.slot, w.value FROM unnest($1::bigint[], $2::text[]) AS w(slot, value) WHERE EXISTS"
    " (SELECT 1 FROM identity i WHERE i.slot = w.slot AND i.value = w.value)"
)
REPLAYS = (
    "SELECT r.input, r.request, r.digest, r.answer"
    " FROM unnest($1::bigint[], $2::bytea[]) AS k(input, request)"
    " JOIN replay r ON r.input = k.input AND r.request = k.request"
)
NUMBERS = {
    name: f"SELECT nextval('{name}_seq') FROM generate_series(1, $1::bigint)"
    for name in ("pid", "ledger")
}
SKIP = {
    name: f"SELECT setval('{name}_seq', $1::bigint, false) FROM {name}_seq"
    " WHERE last_value < $1::bigint"
    for name in ("pid", "ledger")
}
