-- Backtests that were asked for, with what they found; and histories that were brought in to test on.

CREATE TABLE backtests (
    id TEXT PRIMARY KEY,
    slot TEXT NOT NULL,
    at BIGINT NOT NULL,               -- UTC milliseconds, as everywhere
    requested_by TEXT NOT NULL,
    request TEXT NOT NULL,            -- JSON
    state TEXT NOT NULL,              -- running, done, failed, stopped
    finished_at BIGINT,
    failure TEXT,                     -- why there is no report
    report TEXT,                      -- JSON
    short TEXT                        -- JSON list of the bars that were not reached
);
CREATE INDEX backtests_slot ON backtests (slot, at);

CREATE TABLE histories (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL,             -- BLAKE3 of the CSV; the file lies below `histories/`
    about TEXT NOT NULL,              -- JSON: how it was read, and what is in it
    labels TEXT,                      -- JSON list of events; NULL: none were brought
    uploaded_at BIGINT NOT NULL,
    uploaded_by TEXT NOT NULL
);
