-- Undoings of changes of rules asked of a server: done by a process of its own, told when it ended.
CREATE TABLE rule_undo (
  id {serial},
  change {int} NOT NULL,
  at {int} NOT NULL,
  actor {text} NOT NULL,
  reason {text} NOT NULL,
  keep_later {int} NOT NULL,
  state {text} NOT NULL,
  ended {int},
  told {blob}
);
CREATE INDEX rule_undo_by_change ON rule_undo (change);
