-- Versions of the configuration: what tenancy was after each change, who made it and why.

-- document: the whole configuration as `export` writes it, compressed; it never holds a secret.
-- steps: what changed, as lines for people. brought_back: the version a rollback applied again.
CREATE TABLE configuration (
  version {key} PRIMARY KEY,
  at {int} NOT NULL,
  actor {text} NOT NULL,
  reason {text} NOT NULL,
  brought_back {int},
  steps {blob} NOT NULL,
  document {blob} NOT NULL
);
