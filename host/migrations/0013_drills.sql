-- Drills that were started: what was seen of each, and how it was scored.

CREATE TABLE drills (
    id TEXT PRIMARY KEY,
    started_at BIGINT NOT NULL,       -- UTC milliseconds, as everywhere
    running BIGINT UNIQUE,            -- 1 while it runs, NULL once it is over: one at a time
    body TEXT NOT NULL                -- JSON
);
CREATE INDEX drills_started ON drills (started_at);
