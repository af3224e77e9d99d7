-- What was held back and waits for a person to decide: one row per record, type and value.
CREATE TABLE held (
  id {serial},
  digest {blob} NOT NULL UNIQUE,
  pool {int} NOT NULL,
  pid {int} NOT NULL,
  code {int} NOT NULL,
  reason {text} NOT NULL,
  op {text} NOT NULL,
  key_only {int} NOT NULL,
  workspace {int} NOT NULL,
  input {int} NOT NULL,
  request {text},
  first {int} NOT NULL,
  last {int} NOT NULL,
  count {int} NOT NULL,
  body {blob} NOT NULL,
  taken {int} NOT NULL,
  refused {int},
  refused_by {text},
  refused_why {text}
);
CREATE INDEX held_waiting ON held (id) WHERE refused IS NULL;
CREATE INDEX held_by_person ON held (pid);
CREATE INDEX held_by_age ON held (last);
-- Rows of feeds that belong to two people: the same people and values again, and what was refused.
ALTER TABLE conflict ADD COLUMN mark {blob};
ALTER TABLE conflict ADD COLUMN taken {int};
ALTER TABLE conflict ADD COLUMN refused {int};
ALTER TABLE conflict ADD COLUMN refused_by {text};
ALTER TABLE conflict ADD COLUMN refused_why {text};
CREATE INDEX conflict_mark ON conflict (mark, id);
