-- Which request of the journal a request id stood for, and whom it found then. Bounded.
DROP INDEX journal_by_request;
CREATE TABLE asked (
  id {serial},
  request {blob} NOT NULL,
  journal {int} NOT NULL,
  at {int} NOT NULL,
  pid {int}
);
CREATE INDEX asked_by_request ON asked (request);
