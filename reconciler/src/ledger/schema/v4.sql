-- Each agent has a range of user ids of its own until nothing is kept of it, so that no two agents ever share one, and
-- files keep their owner. A row of its own, and not a field of the agent's document: an agent whose document cannot be read
-- has its range all the same.
CREATE TABLE user_slots (
    slot INTEGER PRIMARY KEY CHECK (slot BETWEEN 0 AND 4093),
    uid  TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO user_slots (slot, uid)
    SELECT place, uid FROM (SELECT row_number() OVER (ORDER BY rowid) - 1 AS place, uid FROM agents) WHERE place < 4094;

-- What agents sent and received through the egress service, and how many connections they were refused. For the archive too,
-- so by uid.
CREATE TABLE egress_traffic (
    uid      TEXT NOT NULL PRIMARY KEY,
    sent     INTEGER NOT NULL,
    received INTEGER NOT NULL,
    refused  INTEGER NOT NULL
) STRICT;

-- Where they were refused; `told_at` is when somebody was last told.
CREATE TABLE egress_refusals (
    uid      TEXT NOT NULL,
    host     TEXT NOT NULL,
    port     INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    count    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    told_at  INTEGER,
    PRIMARY KEY (uid, host, port)
) STRICT;

-- The last report of each run of the egress service: one that is sent again is not counted again.
CREATE TABLE egress_reports (
    run TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    at  INTEGER NOT NULL
) STRICT;
