-- Every page that a transaction changes is written once more to the log, and a send waits for it: only messages that have
-- a dedupe id are in the index of those. New are `batch`, which answer to a `recv` of its turn leased a message, 0 when that
-- is not known; and `dismissed_at`, when somebody said that nobody has to look any more at a message that is given up.
CREATE TABLE messages_since_2 (
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
    dismissed_at INTEGER
) STRICT;
INSERT INTO messages_since_2
    (id, from_addr, to_addr, kind, reply_to, body, at, dedupe, state, turn, deliveries, leased_at)
    SELECT id, from_addr, to_addr, kind, reply_to, body, at, dedupe, state, turn, deliveries, leased_at FROM messages;
-- Numbers go on after the last that was ever given, whatever is left of its message.
DELETE FROM sqlite_sequence WHERE name = 'messages_since_2';
UPDATE sqlite_sequence SET name = 'messages_since_2' WHERE name = 'messages';
DROP TABLE messages;
ALTER TABLE messages_since_2 RENAME TO messages;
CREATE INDEX messages_by_recipient ON messages (to_addr, state, id);
CREATE UNIQUE INDEX messages_by_dedupe ON messages (from_addr, dedupe) WHERE dedupe IS NOT NULL;
CREATE INDEX messages_dead ON messages (id) WHERE state = 'dead' AND dismissed_at IS NULL;

-- Questions, each under the number of its message. The text is here too: messages are kept for a while, open questions
-- for as long as they are open.
CREATE TABLE questions (
    id         INTEGER PRIMARY KEY,
    from_addr  TEXT NOT NULL,
    to_addr    TEXT NOT NULL,
    body       TEXT NOT NULL,
    asked_at   INTEGER NOT NULL,
    expires_at INTEGER,
    fallback   TEXT,
    state      TEXT NOT NULL CHECK (state IN ('open', 'answered', 'cancelled', 'expired')),
    ended_by   TEXT,
    ended_at   INTEGER,
    answer     TEXT,
    CHECK ((state = 'open') = (ended_at IS NULL) AND (state = 'open') = (ended_by IS NULL))
) STRICT;
CREATE INDEX questions_by_asker ON questions (from_addr, state);
CREATE INDEX questions_by_asked ON questions (to_addr, state);
CREATE INDEX questions_by_term ON questions (expires_at) WHERE state = 'open' AND expires_at IS NOT NULL;
CREATE TRIGGER a_question_ends_once BEFORE UPDATE ON questions WHEN OLD.state <> 'open'
BEGIN
    SELECT raise(ABORT, 'a question ends once');
END;

-- Reminders. `due` is the time that is delivered next, `try_at` when that is tried, which is later after a failure. One
-- that is over has an end and is due no more.
CREATE TABLE reminders (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    owner    TEXT NOT NULL,
    body     TEXT NOT NULL,
    schedule TEXT NOT NULL,
    missed   TEXT NOT NULL,
    dedupe   TEXT,
    set_at   INTEGER NOT NULL,
    due      INTEGER,
    try_at   INTEGER,
    message  INTEGER,
    error    TEXT,
    ended_at INTEGER,
    UNIQUE (owner, dedupe),
    CHECK ((due IS NULL) = (try_at IS NULL) AND (ended_at IS NULL OR due IS NULL))
) STRICT;
CREATE INDEX reminders_by_time ON reminders (try_at) WHERE try_at IS NOT NULL;
CREATE INDEX reminders_by_owner ON reminders (owner, ended_at);

-- Names whose agent was archived: messages up to this number are an earlier agent's, and no later one of the same name
-- may read them.
CREATE TABLE earlier_mail (
    name    TEXT PRIMARY KEY,
    message INTEGER NOT NULL
) STRICT;

-- Turns that have ended.
CREATE TABLE turns (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    uid      TEXT NOT NULL,
    agent    TEXT NOT NULL,
    turn     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    cost_usd REAL,
    doc      TEXT NOT NULL,
    facts    TEXT NOT NULL DEFAULT '{}',
    UNIQUE (uid, turn)
) STRICT;
CREATE INDEX turns_by_agent ON turns (agent, id);
CREATE INDEX turns_by_time ON turns (uid, at);

-- What each turn counts for in budgets, from when it begins: one whose end is never told has counted.
CREATE TABLE spending (
    uid      TEXT NOT NULL,
    turn     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    cost_usd REAL,
    ended    INTEGER NOT NULL CHECK (ended IN (0, 1)),
    PRIMARY KEY (uid, turn)
) STRICT;
CREATE INDEX spending_by_time ON spending (at);

-- Days on which a budget was used up ('' stands for the hive): the one question that the operator was asked, and how many
-- times the budget may be used that day; NULL: without a limit.
CREATE TABLE overspending (
    uid      TEXT NOT NULL,
    day      INTEGER NOT NULL,
    question INTEGER NOT NULL,
    times    INTEGER,
    by       TEXT,
    at       INTEGER,
    PRIMARY KEY (uid, day)
) STRICT;
CREATE INDEX overspending_by_question ON overspending (question);

-- What the operator instructed harnesses to do. One is taken when a harness has carried it out.
CREATE TABLE instructions (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    uid      TEXT NOT NULL,
    kind     TEXT NOT NULL,
    turn     TEXT,
    until    INTEGER,
    wakes    INTEGER NOT NULL CHECK (wakes IN (0, 1)),
    ends_at  INTEGER,
    by       TEXT NOT NULL,
    at       INTEGER NOT NULL,
    taken_at INTEGER
) STRICT;
CREATE INDEX instructions_by_agent ON instructions (uid, id);
