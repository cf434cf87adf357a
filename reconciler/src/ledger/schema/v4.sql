-- Each agent has a range of user ids of its own until nothing is kept of it, so that no two agents ever share one, and
-- files keep their owner. A row of its own, and not a field of the agent's document: an agent whose document cannot be read
-- has its range all the same.
CREATE TABLE user_slots (
    slot INTEGER PRIMARY KEY CHECK (slot BETWEEN 0 AND 4093),
    uid  TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO user_slots (slot, uid)
    SELECT place, uid FROM (SELECT row_number() OVER (ORDER BY rowid) - 1 AS place, uid FROM agents) WHERE place < 4094;
