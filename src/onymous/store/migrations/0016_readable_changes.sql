-- The feed of changes for readers of SQL (setting change_feed_table): written with it, one row a
-- change, seq is the cursor. pid is the internal number, by which an erasure finds its rows.
CREATE TABLE change_feed (
  seq {key} PRIMARY KEY,
  at_ms {int} NOT NULL,
  environment {text} NOT NULL,
  scope {text} NOT NULL,
  workspace {text} NOT NULL,
  input {text} NOT NULL,
  operation {text} NOT NULL,
  mpid {text} NOT NULL,
  request_id {text},
  changes {text} NOT NULL,
  pid {int} NOT NULL
);
CREATE INDEX change_feed_by_person ON change_feed (pid);
CREATE INDEX change_feed_by_age ON change_feed (at_ms);
