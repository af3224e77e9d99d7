"""Statements of the throw-away file in which a change of rules is planned."""

from __future__ import annotations

#: a `node` is twice the number of a record, or twice that of a person and one
TABLES = (
    "CREATE TABLE vote (record INTEGER, person INTEGER, requests INTEGER,"
    " PRIMARY KEY (record, person)) WITHOUT ROWID",
    "CREATE TABLE evidence (record INTEGER, code INTEGER, value TEXT,"
    " PRIMARY KEY (record, code, value)) WITHOUT ROWID",
    "CREATE TABLE origin (code INTEGER, value TEXT, body BLOB,"
    " PRIMARY KEY (code, value)) WITHOUT ROWID",
    "CREATE TABLE node (id INTEGER PRIMARY KEY, body BLOB)",
    "CREATE TABLE holding (code INTEGER, value TEXT, node INTEGER,"
    " PRIMARY KEY (code, value, node)) WITHOUT ROWID",
    "CREATE TABLE crowd (code INTEGER, value TEXT, body BLOB,"
    " PRIMARY KEY (code, value)) WITHOUT ROWID",
    "CREATE TABLE member (root INTEGER, node INTEGER, PRIMARY KEY (root, node)) WITHOUT ROWID",
    "CREATE TABLE part (id INTEGER PRIMARY KEY, body BLOB)",
)
VOTE_ADD = "INSERT INTO vote VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1"
VOTES_KEPT = "SELECT record, person, requests FROM vote"
VOTE_BACK = "INSERT INTO vote VALUES (?, ?, ?)"
VOTES = "SELECT record, person FROM vote"
VOTES_OF = "SELECT person, requests FROM vote WHERE record = ?"
EVIDENCE_ADD = "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?)"
EVIDENCE_KEPT = "SELECT record, code, value FROM evidence"
EVIDENCE_OF = "SELECT code, value FROM evidence WHERE record = ?"
#: the first one stays
ORIGIN_ADD = "INSERT OR IGNORE INTO origin VALUES (?, ?, ?)"
ORIGINS_KEPT = "SELECT code, value, body FROM origin"
ORIGIN_OF = "SELECT body FROM origin WHERE code = ? AND value = ?"
NODE_ADD = "INSERT INTO node VALUES (?, ?)"
NODE_OF = "SELECT body FROM node WHERE id = ?"
NODES = "SELECT id FROM node ORDER BY id"
HOLDING_ADD = "INSERT OR IGNORE INTO holding VALUES (?, ?, ?)"
HOLDINGS = "SELECT code, value, node FROM holding ORDER BY code, value, node"
CROWD_ADD = "INSERT INTO crowd VALUES (?, ?, ?)"
CROWD_OF = "SELECT body FROM crowd WHERE code = ? AND value = ?"
MEMBER_ADD = "INSERT INTO member VALUES (?, ?)"
MEMBERS = "SELECT root, node FROM member ORDER BY root, node"
PART_ADD = "INSERT INTO part (body) VALUES (?)"
PARTS = "SELECT body FROM part ORDER BY id"
