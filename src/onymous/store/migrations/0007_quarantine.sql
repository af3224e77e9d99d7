-- Why a batch was set aside.
ALTER TABLE spool ADD COLUMN reason {text};
