-- Joins and splits of scopes: planned, done piece by piece, taken back.

-- kind: join, split, unjoin, unsplit. source and target are scopes; workspaces are those that go
-- over. state: waiting (until every process knows), moving, sweeping, done. cursor: the profile up
-- to which everything is done; high: the newest profile when the workspaces went over. body: the
-- operator's choices. undoes: the change this one takes back.
CREATE TABLE scope_change (
  id {serial},
  kind {text} NOT NULL,
  source {int} NOT NULL,
  target {int} NOT NULL,
  workspaces {blob} NOT NULL,
  body {blob} NOT NULL,
  author {text} NOT NULL,
  reason {text} NOT NULL,
  at {int} NOT NULL,
  state {text} NOT NULL,
  due {int} NOT NULL,
  cursor {int} NOT NULL DEFAULT 0,
  high {int} NOT NULL DEFAULT 0,
  undoes {int}
);

-- Workspaces whose requests are answered 503 meanwhile.
CREATE TABLE scope_hold (
  workspace {key} PRIMARY KEY,
  change_id {int} NOT NULL
);

-- What became of each profile. what: moved, twin (other: its new profile in the other scope), lost
-- (values were taken off it; the ledger says which), left (why it could not go over: see body).
-- other: of a moved profile: the one it was found to be the same person as. merge_id: that merge.
CREATE TABLE scope_move (
  change_id {int} NOT NULL,
  pid {int} NOT NULL,
  what {text} NOT NULL,
  other {int},
  merge_id {int},
  PRIMARY KEY (change_id, pid)
){bare};
CREATE INDEX scope_move_by_other ON scope_move (other) WHERE other IS NOT NULL;
