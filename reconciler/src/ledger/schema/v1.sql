-- Times are nanoseconds since 1970. A `doc` is JSON and holds the value itself; the columns beside it are there to
-- find it. Rules on which an approval rests are kept by triggers too, so that no fault above can break them.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The last good spec.
CREATE TABLE spec (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    text       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE TABLE agents (
    uid  TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    life TEXT NOT NULL,
    doc  TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX agents_by_name ON agents (name) WHERE life <> 'archived';

CREATE TABLE proposals (
    uid        TEXT NOT NULL REFERENCES agents (uid),
    number     INTEGER NOT NULL,
    commit_oid TEXT NOT NULL,
    phase      TEXT NOT NULL,
    at         INTEGER NOT NULL,
    doc        TEXT NOT NULL,
    PRIMARY KEY (uid, number)
) STRICT;
CREATE INDEX proposals_by_time ON proposals (at);

CREATE TABLE gates (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    uid           TEXT REFERENCES agents (uid),
    agent         TEXT,
    class         TEXT NOT NULL,
    state         TEXT NOT NULL
        CHECK (state IN ('open', 'approved', 'denied', 'superseded', 'expired', 'consumed')),
    digest        TEXT NOT NULL,
    opened_at     INTEGER NOT NULL,
    consumed_at   INTEGER,
    completed_at  INTEGER,
    ended_because TEXT,
    doc           TEXT NOT NULL,
    step          TEXT NOT NULL
) STRICT;
CREATE INDEX gates_by_agent ON gates (uid, state, digest);
-- The same effect is never asked for twice at a time.
CREATE UNIQUE INDEX gates_pending ON gates (coalesce(uid, ''), digest) WHERE state IN ('open', 'approved');

CREATE TABLE decisions (
    gate    INTEGER PRIMARY KEY REFERENCES gates (id),
    approve INTEGER NOT NULL CHECK (approve IN (0, 1)),
    by      TEXT NOT NULL,
    at      INTEGER NOT NULL,
    reason  TEXT NOT NULL,
    digest  TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_by_time ON decisions (at);

CREATE TRIGGER decisions_are_written_once BEFORE UPDATE ON decisions
BEGIN
    SELECT raise(ABORT, 'a decision is written once');
END;
CREATE TRIGGER decisions_of_people_are_kept BEFORE DELETE ON decisions WHEN OLD.by NOT LIKE 'policy:%'
BEGIN
    SELECT raise(ABORT, 'a decision of a person is kept');
END;
CREATE TRIGGER what_a_gate_asks_for_is_fixed BEFORE UPDATE OF uid, agent, class, digest, doc, step ON gates
BEGIN
    SELECT raise(ABORT, 'what a gate asks for is fixed');
END;
CREATE TRIGGER only_an_approved_gate_is_consumed BEFORE UPDATE OF state ON gates
    WHEN NEW.state = 'consumed' AND (
        OLD.state <> 'approved'
        OR NOT EXISTS (SELECT 1 FROM decisions d WHERE d.gate = OLD.id AND d.approve = 1 AND d.digest = OLD.digest)
    )
BEGIN
    SELECT raise(ABORT, 'only an approved gate is consumed');
END;

-- Steps that did not work yet; '' stands for the hive.
CREATE TABLE attempts (
    uid     TEXT NOT NULL,
    step_id TEXT NOT NULL,
    doc     TEXT NOT NULL,
    PRIMARY KEY (uid, step_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE builds (
    uid    TEXT NOT NULL REFERENCES agents (uid),
    key    TEXT NOT NULL,
    failed INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    doc    TEXT NOT NULL,
    PRIMARY KEY (uid, key)
) STRICT;

CREATE TABLE probations (
    uid TEXT PRIMARY KEY REFERENCES agents (uid),
    doc TEXT NOT NULL
) STRICT;

CREATE TABLE quarantine (
    uid    TEXT NOT NULL REFERENCES agents (uid),
    system TEXT NOT NULL,
    doc    TEXT NOT NULL,
    PRIMARY KEY (uid, system)
) STRICT;

CREATE TABLE overrides (
    uid TEXT PRIMARY KEY REFERENCES agents (uid),
    doc TEXT NOT NULL
) STRICT;

CREATE TABLE failures (
    uid TEXT PRIMARY KEY REFERENCES agents (uid),
    doc TEXT NOT NULL
) STRICT;

-- Plans in which something changed; the same plan again only counts.
CREATE TABLE plans (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    uid     TEXT,
    agent   TEXT,
    digest  TEXT NOT NULL,
    summary TEXT NOT NULL,
    at      INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    doc     TEXT NOT NULL
) STRICT;
CREATE INDEX plans_by_agent ON plans (uid, id);

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    agent   TEXT,
    level   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    message TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_agent ON events (agent, seq);

CREATE TABLE messages (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    from_addr  TEXT NOT NULL,
    to_addr    TEXT NOT NULL,
    kind       TEXT NOT NULL,
    reply_to   INTEGER,
    body       TEXT NOT NULL,
    at         INTEGER NOT NULL,
    dedupe     TEXT,
    state      TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'acked', 'dead')),
    turn       TEXT,
    deliveries INTEGER NOT NULL DEFAULT 0,
    leased_at  INTEGER,
    UNIQUE (from_addr, dedupe)
) STRICT;
CREATE INDEX messages_by_recipient ON messages (to_addr, state, id);
