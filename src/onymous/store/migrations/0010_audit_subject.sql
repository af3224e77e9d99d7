-- Who looked at this person, and who changed something of theirs: without reading the whole audit.
CREATE INDEX audit_subject ON audit (subject, id);
