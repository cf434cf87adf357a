-- Every page that a transaction changes is written once more to the log, and a send waits for it: only messages that have
-- a dedupe id are in the index of those. New is `topic`, what a message from the daemon is about, in one word.
CREATE TABLE messages_since_3 (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    from_addr    TEXT NOT NULL,
    to_addr      TEXT NOT NULL,
    kind         TEXT NOT NULL,
    reply_to     INTEGER,
    body         TEXT NOT NULL,
    at           INTEGER NOT NULL,
    dedupe       TEXT,
    state        TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'acked', 'dead')),
    turn         TEXT,
    deliveries   INTEGER NOT NULL DEFAULT 0,
    leased_at    INTEGER,
    batch        INTEGER NOT NULL DEFAULT 0,
    dismissed_at INTEGER,
    topic        TEXT
) STRICT;
INSERT INTO messages_since_3
    (id, from_addr, to_addr, kind, reply_to, body, at, dedupe, state, turn, deliveries, leased_at, batch, dismissed_at)
    SELECT id, from_addr, to_addr, kind, reply_to, body, at, dedupe, state, turn, deliveries, leased_at, batch, dismissed_at
    FROM messages;
-- Numbers go on after the last that was ever given, whatever is left of its message.
DELETE FROM sqlite_sequence WHERE name = 'messages_since_3';
UPDATE sqlite_sequence SET name = 'messages_since_3' WHERE name = 'messages';
DROP TABLE messages;
ALTER TABLE messages_since_3 RENAME TO messages;
CREATE INDEX messages_by_recipient ON messages (to_addr, state, id);
CREATE INDEX messages_dead ON messages (id) WHERE state = 'dead' AND dismissed_at IS NULL;
CREATE UNIQUE INDEX messages_by_dedupe ON messages (from_addr, dedupe) WHERE dedupe IS NOT NULL;

-- How many times the budget might be used when the operator was asked last: once it may be used more often, and that too is
-- used up, the operator is asked again.
ALTER TABLE overspending ADD COLUMN asked_times INTEGER NOT NULL DEFAULT 1;

-- Who set a reminder, unless it was its owner.
ALTER TABLE reminders ADD COLUMN set_by TEXT;
