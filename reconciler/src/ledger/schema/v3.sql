-- What a message from the daemon is about, in one word.
ALTER TABLE messages ADD COLUMN topic TEXT;

-- How many times the budget might be used when the operator was asked last: once it may be used more often, and that too is
-- used up, the operator is asked again.
ALTER TABLE overspending ADD COLUMN asked_times INTEGER NOT NULL DEFAULT 1;

-- Who set a reminder, unless it was its owner.
ALTER TABLE reminders ADD COLUMN set_by TEXT;
