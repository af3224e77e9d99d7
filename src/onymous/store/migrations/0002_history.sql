-- History: events, profiles, what each person is worth.
-- Times are milliseconds since 1970 (UTC); money is kept in millionths, so that sums are exact.

-- What a person sent: one row per batch, compressed. at is the time of its last event, span the
-- time back to its first, late what passed until it was received. device is a hash of the stamp.
CREATE TABLE batch (
  id {log_id},
  pid {int} NOT NULL,
  at {int} NOT NULL,
  span {int} NOT NULL,
  late {int} NOT NULL,
  received {int} NOT NULL,
  workspace {int} NOT NULL,
  input {int} NOT NULL,
  device {int},
  dictionary {int} NOT NULL,
  body {blob} NOT NULL{log_key}
){log_parts};
{log_default}
CREATE INDEX batch_by_person ON batch (pid, at);

-- Dictionaries the bodies of batches are compressed with, trained on earlier ones.
CREATE TABLE dictionary (
  id {key} PRIMARY KEY,
  at {int} NOT NULL,
  body {blob} NOT NULL
);

-- Batches accepted before, by a digest of what their sender calls them.
CREATE TABLE once (
  input {int} NOT NULL,
  digest {blob} NOT NULL,
  at {int} NOT NULL,
  PRIMARY KEY (input, digest)
){bare};

-- One row per person and workspace: all that is shown of them, packed (rules/profiles.py).
CREATE TABLE person (
  pid {int} NOT NULL,
  workspace {int} NOT NULL,
  stored {int} NOT NULL,
  body {blob} NOT NULL,
  PRIMARY KEY (pid, workspace)
){bare};

-- What counts, by the time it happened: windows of aliases are summed from here.
CREATE TABLE tally (
  pid {int} NOT NULL,
  at {int} NOT NULL,
  workspace {int} NOT NULL,
  platform {text} NOT NULL,
  device {int} NOT NULL,
  worth {int} NOT NULL,
  sessions {int} NOT NULL,
  PRIMARY KEY (pid, at, workspace, platform, device)
){bare};

-- Two profiles an operator found to be one person: a pointer, no row of either side is rewritten.
CREATE TABLE merge (
  id {serial},
  pool {int} NOT NULL,
  source {int} NOT NULL,
  destination {int} NOT NULL,
  at {int} NOT NULL,
  actor {text} NOT NULL,
  reason {text} NOT NULL,
  undone {int},
  undone_by {text},
  undone_reason {text}
);
CREATE UNIQUE INDEX merge_once ON merge (source) WHERE undone IS NULL;
CREATE INDEX merge_by_destination ON merge (destination);

-- What an alias copied beside history, so that undoing it takes exactly that away.
CREATE TABLE alias_copy (
  alias {int} NOT NULL,
  workspace {int} NOT NULL,
  body {blob} NOT NULL,
  PRIMARY KEY (alias, workspace)
){bare};

-- Every identity change in one order, for those who follow: id is the cursor (flows/changes.py).
CREATE TABLE change (
  id {key} PRIMARY KEY,
  ledger {int} NOT NULL UNIQUE,
  pool {int} NOT NULL,
  pid {int} NOT NULL,
  at {int} NOT NULL
);
CREATE INDEX change_by_pool ON change (pool, id);
CREATE INDEX change_by_age ON change (at);

-- Distinct identity requests, as they were after cleaning: what rules are rehearsed on.
CREATE TABLE journal (
  id {serial},
  digest {blob} NOT NULL UNIQUE,
  pool {int} NOT NULL,
  op {text} NOT NULL,
  workspace {int} NOT NULL,
  input {int} NOT NULL,
  first {int} NOT NULL,
  last {int} NOT NULL,
  count {int} NOT NULL,
  request {blob},
  body {blob} NOT NULL
);
CREATE INDEX journal_by_request ON journal (request) WHERE request IS NOT NULL;
CREATE INDEX journal_by_age ON journal (last);
