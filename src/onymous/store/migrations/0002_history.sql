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
