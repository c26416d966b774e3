-- Leaves to approve alone for a short time, and breakers that are open.

CREATE TABLE break_glass (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    rank TEXT NOT NULL,
    reason TEXT NOT NULL,
    opened_at BIGINT NOT NULL,        -- UTC milliseconds, as everywhere
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,                  -- given back before it expired
    reviewed_at BIGINT,               -- NULL: the review is owed
    reviewed_by TEXT,
    review TEXT
);
CREATE INDEX break_glass_owed ON break_glass (reviewed_at, opened_at);

CREATE TABLE breakers (
    scope TEXT PRIMARY KEY,           -- node/node-a, pool/spot, rack/r1, tenant/team, fleet
    opened_at BIGINT,                 -- NULL: closed
    reason TEXT,
    incident_id TEXT,                 -- the one that was refused
    reset_at BIGINT,                  -- what was begun before counts no more
    reset_by TEXT
);
