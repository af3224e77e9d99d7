-- Changes of rules applied to history: what they were, and the records they moved as they were
-- before and after. Rows of one part belong together; part 0 holds flags only.
CREATE TABLE rule_change (
  id {serial},
  at {int} NOT NULL,
  scope {int} NOT NULL,
  actor {text} NOT NULL,
  reason {text} NOT NULL,
  was {blob} NOT NULL,
  became {blob} NOT NULL,
  undone {int},
  undone_by {text}
);
CREATE TABLE rule_step (
  change {int} NOT NULL,
  part {int} NOT NULL,
  pid {int} NOT NULL,
  destination {int},
  flags {int} NOT NULL,
  was {blob} NOT NULL,
  became {blob} NOT NULL,
  PRIMARY KEY (change, part, pid)
){bare};
CREATE INDEX rule_step_by_person ON rule_step (pid);
