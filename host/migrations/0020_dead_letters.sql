-- Batches of telemetry that were refused for good, kept for a person to look at and to offer again.

CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice
    at BIGINT NOT NULL,               -- UTC milliseconds, as everywhere
    origin TEXT NOT NULL,
    epoch TEXT NOT NULL,              -- decimal: it uses all 64 bits, unsigned
    sequence TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    bytes BIGINT NOT NULL,            -- of the batch as it came, with its definitions
    batch BLOB,                       -- NULL: larger than what is kept
    stream BIGINT,                    -- the place under which it is offered to the recorder, once it was
    place BIGINT,
    replayed_at BIGINT,               -- NULL: not taken yet
    UNIQUE (origin, epoch, sequence)
);
CREATE INDEX dead_letters_by_time ON dead_letters (at);

-- Where the next replay stands. A place is given once, so that the recorder knows a repeated replay for what it is.
CREATE TABLE dead_letter_stream (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    stream BIGINT NOT NULL,
    next BIGINT NOT NULL
);
