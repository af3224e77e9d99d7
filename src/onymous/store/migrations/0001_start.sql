-- The start. Tokens in braces are the few words the engines spell differently (store/schema.py).
-- Times are milliseconds since 1970 (UTC); numbers called "pid" are internal profile numbers.

-- Facts about this database: the MPID key, the schema versions, the epoch.
CREATE TABLE meta (
  name {text} PRIMARY KEY,
  value {blob} NOT NULL
){bare};

{sequences}

-- One row per profile: the identity record with all its values, packed.
CREATE TABLE profile (
  pid {key} PRIMARY KEY,
  pool {int} NOT NULL,
  created {int} NOT NULL,
  seen {int} NOT NULL,
  flags {int} NOT NULL,
  source {int},
  body {blob} NOT NULL
);

-- Lookup rows. slot = pool * 64 + type code. holder = 0 for unique types (so the key itself makes
-- a second owner impossible), else the pid; holder -1 marks a crowded value and counts, in pid,
-- the known people that hold it. seen is kept where the record competes for the value by last seen.
CREATE TABLE identity (
  slot {int} NOT NULL,
  value {text} NOT NULL,
  holder {int} NOT NULL,
  pid {int} NOT NULL,
  seen {int},
  PRIMARY KEY (slot, value, holder)
){bare};
CREATE INDEX identity_recent ON identity (slot, value, seen) WHERE seen IS NOT NULL;

-- First sight: whoever changes the holders of a value holds its claim (rulings 8).
CREATE TABLE claim (
  slot {int} NOT NULL,
  value {text} NOT NULL,
  PRIMARY KEY (slot, value)
){bare};

-- Last seen times written behind: one row per 512 profiles, 4 bytes each (seconds).
CREATE TABLE seen (
  block {key} PRIMARY KEY,
  at {blob} NOT NULL
);

-- What happened to whom, when, by which request: one packed entry per decision and person.
CREATE TABLE ledger (
  seq {key} PRIMARY KEY,
  pid {int} NOT NULL,
  at {int} NOT NULL,
  body {blob} NOT NULL
);
CREATE INDEX ledger_by_person ON ledger (pid, seq);

-- Answers of requests that had an effect, for repeats of the same request (rulings 15).
CREATE TABLE replay (
  input {int} NOT NULL,
  request {blob} NOT NULL,
  at {int} NOT NULL,
  digest {blob} NOT NULL,
  answer {blob} NOT NULL,
  PRIMARY KEY (input, request)
){bare};
CREATE INDEX replay_by_age ON replay (at);

-- Work promised in the causing transaction.
CREATE TABLE job (
  id {serial},
  kind {text} NOT NULL,
  due {int} NOT NULL,
  tries {int} NOT NULL DEFAULT 0,
  taken_until {int} NOT NULL DEFAULT 0,
  body {blob} NOT NULL,
  error {text}
);
CREATE INDEX job_due ON job (kind, due);

-- What SDKs sent and was acknowledged, waiting for its meaning.
CREATE TABLE spool (
  id {serial},
  at {int} NOT NULL,
  kind {text} NOT NULL,
  workspace {int} NOT NULL,
  input {int} NOT NULL,
  environment {int} NOT NULL,
  request {text},
  body {blob} NOT NULL
);
CREATE UNIQUE INDEX spool_once ON spool (input, kind, request) WHERE request IS NOT NULL;

-- Aliases: history of source within the window also belongs to destination.
CREATE TABLE alias (
  id {serial},
  pool {int} NOT NULL,
  source {int} NOT NULL,
  destination {int} NOT NULL,
  start_ms {int} NOT NULL,
  end_ms {int} NOT NULL,
  scope {text} NOT NULL,
  stamp {text},
  at {int} NOT NULL,
  effective {int} NOT NULL,
  input {int} NOT NULL,
  request {text},
  outcome {text} NOT NULL,
  reason {text} NOT NULL
);
CREATE INDEX alias_by_source ON alias (source);
CREATE INDEX alias_by_destination ON alias (destination);

-- Refusals and oddities a person should see; never identity values.
CREATE TABLE diagnostic (
  id {serial},
  at {int} NOT NULL,
  kind {text} NOT NULL,
  workspace {int} NOT NULL,
  input {int} NOT NULL,
  request {text},
  detail {blob} NOT NULL
);
CREATE INDEX diagnostic_by_age ON diagnostic (at);

-- Feed rows whose identities belong to several people: nothing changed, someone should look.
CREATE TABLE conflict (
  id {serial},
  at {int} NOT NULL,
  pool {int} NOT NULL,
  input {int} NOT NULL,
  request {text},
  body {blob} NOT NULL
);

-- Tenancy.
CREATE TABLE organization (
  id {serial},
  name {text} NOT NULL UNIQUE
);
CREATE TABLE account (
  id {serial},
  organization {int} NOT NULL,
  name {text} NOT NULL UNIQUE
);
CREATE TABLE scope (
  id {serial},
  name {text} NOT NULL UNIQUE,
  config {blob} NOT NULL,
  changed {int} NOT NULL
);
CREATE TABLE workspace (
  id {serial},
  name {text} NOT NULL UNIQUE,
  account {int} NOT NULL,
  scope {int} NOT NULL,
  settings {blob} NOT NULL
);
CREATE TABLE input (
  id {serial},
  name {text} NOT NULL,
  workspace {int} NOT NULL,
  kind {text} NOT NULL,
  api_key {text} NOT NULL UNIQUE,
  settings {blob} NOT NULL,
  active {int} NOT NULL,
  UNIQUE (workspace, name)
);
CREATE TABLE secret (
  id {serial},
  input {int} NOT NULL,
  sealed {blob} NOT NULL,
  created {int} NOT NULL,
  revoked {int},
  used {int}
);
CREATE INDEX secret_by_input ON secret (input);

-- Who did what to the configuration, credentials and people's data.
CREATE TABLE audit (
  id {serial},
  at {int} NOT NULL,
  actor {text} NOT NULL,
  action {text} NOT NULL,
  subject {text} NOT NULL,
  detail {blob} NOT NULL
);
