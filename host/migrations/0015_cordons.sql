-- Nodes on which a person wants nothing placed.

CREATE TABLE cordons (
    node TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    at BIGINT NOT NULL,               -- UTC milliseconds, as everywhere
    reason TEXT NOT NULL
);
