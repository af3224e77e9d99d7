-- The newest join or split of scopes when a change of rules was applied to history: one that came
-- later took people along, and the change of rules cannot be taken back before it is.
ALTER TABLE rule_change ADD COLUMN scope_change {int};
